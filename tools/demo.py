"""A real transfer on this machine: an account, a receiver on a free port, the client, and the two digests side by side.

python tools/demo.py [FILE]         sends FILE, or a file of seven million bytes

It prints the commands that it runs, without the flags that keep their files apart from yours. Everything it makes lies
in a temporary folder and is gone afterwards.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from sft.common import python_version  # noqa: F401, I001  # before the others: an older Python can't import them

import hashlib
import os
import subprocess
import tempfile

HOME = Path(__file__).resolve().parent.parent


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _show(command: str) -> None:
    print(f"\n    {command}", flush=True)


def main(named: str) -> int:
    """Send the file of that name, or one made for this when it is empty; 0 when the same bytes arrived."""
    if named and not Path(named).is_file():
        print(f"error: {named} is not a file. Name one: make demo FILE=...", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="secure-file-transfer-") as place:
        folder = Path(place)
        password = folder / "password"
        password.write_text("correct horse battery staple\n")
        password.chmod(0o600)
        server = [sys.executable, str(HOME / "server.py"), *(f"--{name}={folder / file}" for name, file in _FILES)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SFT_")}
        environment["SFT_CONFIG"] = os.devnull
        print(f"In {folder}, without the flags that name files there:")
        source = Path(named or folder / "sample")
        if not named:
            _show(f"seq {_LINES} >sample")
            source.write_text("".join(f"{number}\n" for number in range(1, _LINES + 1)))
        shown = named or source.name

        _show("python server.py adduser demo")
        subprocess.run([*server, "adduser", "demo", "--password-file", str(password)], check=True, env=environment)

        _show("python server.py --listen 127.0.0.1 --port 0")
        command = [*server, "--port=0", "--listen=127.0.0.1"]
        receiver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            line = receiver.stdout.readline() if receiver.stdout else ""
            print(line, end="")
            port = line.rsplit(":", 1)[-1].strip()
            if not port.isdecimal():
                print("error: the receiver did not start", file=sys.stderr)
                return 1
            words = f"--port {port} --user demo --password-file".split()
            _show(f"python client.py {' '.join(words)} password {shown} inbox/")
            command = [sys.executable, str(HOME / "client.py"), f"--client-log={folder / 'client.log'}"]
            sent = subprocess.run(
                [*command, *words, str(password), str(source), "inbox/"], env=environment, check=False
            )
        finally:
            receiver.terminate()
            receiver.wait()
        if sent.returncode:
            return sent.returncode

        arrived = Path("received", "demo", "inbox", source.name)
        _show(f"sha256sum {shown} {arrived}")
        digests = _digest(source), _digest(folder / arrived)
        print(f"{digests[0]}  {shown}\n{digests[1]}  {arrived}")
        print("the same" if digests[0] == digests[1] else "NOT the same")
        return int(digests[0] != digests[1])


_LINES = 1_000_000
_FILES = (("accounts", "accounts.txt"), ("storage", "received"), ("server-log", "server.log"))


if __name__ == "__main__":
    sys.exit(main("".join(sys.argv[1:2])))
