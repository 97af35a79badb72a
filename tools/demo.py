"""A real transfer on this machine: an account, a receiver on a free port, the client, and the two digests side by side.

Everything it makes lies in a temporary folder and is gone afterwards.
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


def main(source: Path) -> int:
    """Send `source`; 0 when the same bytes arrived."""
    if not source.is_file():
        print(f"error: {source} is no file. Name one: make demo FILE=...", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="secure-file-transfer-") as place:
        folder = Path(place)
        password = folder / "password"
        password.write_text("correct horse battery staple\n")
        password.chmod(0o600)
        settings = [f"--{name}={folder / file}" for name, file in _FILES]
        server = [sys.executable, str(HOME / "server.py"), *settings]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SFT_")}
        environment["SFT_CONFIG"] = os.devnull
        subprocess.run([*server, "adduser", "demo", "--password-file", str(password)], check=True, env=environment)
        receiver = subprocess.Popen(
            [*server, "--port=0", "--listen=127.0.0.1"], stdout=subprocess.PIPE, text=True, env=environment
        )
        try:
            line = receiver.stdout.readline() if receiver.stdout else ""
            port = line.rsplit(":", 1)[-1].strip()
            if not port.isdecimal():
                print("error: the receiver did not start", file=sys.stderr)
                return 1
            command = ["client.py", "--port", port, "--user", "demo", "--password-file", "...", str(source), "inbox/"]
            print(f"\n$ python {' '.join(command)}", flush=True)
            command[0], command[command.index("...")] = str(HOME / "client.py"), str(password)
            log = f"--client-log={folder / 'client.log'}"
            status = subprocess.run([sys.executable, *command, log], env=environment, check=False).returncode
        finally:
            receiver.terminate()
            receiver.wait()
        if status:
            return status
        arrived = folder / "received" / "demo" / "inbox" / source.name
        sent, got = _digest(source), _digest(arrived)
        print(f"\nSHA-256 of the source         {sent}\nSHA-256 of what has arrived   {got}")
        print("the same" if sent == got else "NOT the same")
        return int(sent != got)


_FILES = (("accounts", "accounts.txt"), ("storage", "received"), ("server-log", "server.log"))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "README.md")))
