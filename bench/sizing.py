"""What a receiver costs: CPU seconds, memory and flushes, of which the table of sizing in docs/OPERATIONS.md is made.

    python -m bench.sizing [--folder FOLDER] [--json FILE] [--accounts COUNT] [--files COUNT] ...

Rules: real programs on this host, with accounts, storage and logs in a temporary folder below FOLDER, which is removed
at the end. CPU seconds and memory are the system's own figures of each process. What is not measured is not printed.
The accounts of a large file have points that nobody could log in with: reading them costs the same.
"""

import argparse
import contextlib
import hashlib
import json
import os
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.machine import describe

HOME = Path(__file__).resolve().parent.parent
USER = "user"
_PASSWORD = "correct horse, battery"  # noqa: S105 -- of a folder that is removed
_MEMORY, _DISK = Path("/dev/shm"), Path("/var/tmp")  # noqa: S108 -- a folder is made there
_TICK = os.sysconf("SC_CLK_TCK")
_GIB = 1 << 30
_LIMIT = 3600.0
_START_SECONDS = 600.0
_FILES_OF_A_FOLDER = 1000
_SMALL = 4096
_KEYS = ("w0", "L", "w0M", "w0N")  # of a line of the accounts file


class Figure(NamedTuple):
    """One row."""

    what: str
    value: float
    unit: str


class Used(NamedTuple):
    """What a program took: wall seconds, CPU seconds, and bytes of memory at its peak."""

    wall: float
    cpu: float
    memory: int


def _environment() -> dict[str, str]:
    """Ours without any setting of the two programs."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SFT_")}


def run(*command: str | Path, typed: str = "", out: int = subprocess.DEVNULL) -> Used:
    """Run one of the two programs to its end. Raises SystemExit when it fails."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=HOME,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=subprocess.PIPE,
    )
    if process.stdin is None or process.stderr is None:
        raise RuntimeError("a program without its pipes")
    with process.stdin, process.stderr:
        process.stdin.write(typed.encode())
        process.stdin.close()
        words = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} has failed: {words.decode(errors='replace')}")
    return Used(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)


class Receiver:
    """A server, its account and its clients, in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.storage = folder, folder / "received"
        self.accounts, self.password = folder / "accounts.txt", folder / "password"
        self.password.touch(0o600)
        self.password.write_text(_PASSWORD + "\n")
        self._flags = ["--config=/dev/null", f"--accounts={self.accounts}", f"--storage={self.storage}"]
        self._flags.append(f"--server-log={folder / 'server.log'}")
        self.command("adduser", USER, "--password-file=-", typed=_PASSWORD + "\n")
        self._process: subprocess.Popen[str] | None = None
        self._port = 0

    def command(self, *words: str, typed: str = "") -> Used:
        """One of the commands about accounts."""
        return run("server.py", *self._flags, *words, typed=typed)

    def client(self, *words: str | Path) -> list[str | Path]:
        """The command of a client that does that."""
        settings = ["--config=/dev/null", "--host=127.0.0.1", f"--port={self._port}", "--client-log=off"]
        return ["client.py", *settings, f"--user={USER}", f"--password-file={self.password}", *words]

    @contextlib.contextmanager
    def serving(self) -> Iterator[float]:
        """A server runs; how many seconds it took until it listened."""
        most = [f"--{name}=500" for name in ("max-connections", "max-connections-per-user", "max-logins-per-source")]
        begun = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "server.py", *self._flags, *most, "--port=0", "--listen=127.0.0.1", "--grace=0"],
            cwd=HOME,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            line = "" if self._process.stdout is None else self._process.stdout.readline()
            if not line.startswith("listening on "):
                raise SystemExit("the server has not started")
            self._port = int(line.rpartition(":")[2])
            yield time.perf_counter() - begun
        finally:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()

    @property
    def cpu(self) -> float:
        """CPU seconds of the server so far."""
        fields = self._look("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def memory(self, field: str = "VmRSS") -> int:
        """Bytes of the server's memory."""
        lines = self._look("status").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))

    def _look(self, name: str) -> str:
        if self._process is None:
            raise RuntimeError("no server runs")
        return Path(f"/proc/{self._process.pid}/{name}").read_text()


# --- what is measured -------------------------------------------------------------------------------------------------


def logins(receiver: Receiver, count: int) -> list[Figure]:
    """Logins, each with a listing of an empty folder."""
    with receiver.serving():
        run(*receiver.client("--list"))
        before = receiver.cpu
        used = [run(*receiver.client("--list")) for _ in range(count)]
        cpu = (receiver.cpu - before) / count
    return [
        Figure("a login and an empty listing, CPU of the server", 1e3 * cpu, "ms"),
        Figure("the same, CPU of the client with its start", sum(each.cpu for each in used) / count, "s"),
        Figure("the same, seconds in all", sorted(each.wall for each in used)[count // 2], "s"),
    ]


def content(receiver: Receiver, size: int) -> list[Figure]:
    """One large file there and back."""
    source, back = receiver.folder / "source", receiver.folder / "back"
    block = secrets.token_bytes(1 << 20)
    with source.open("wb") as file:
        for at in range(0, size, len(block)):
            file.write(block[: size - at])
    found: list[Figure] = []
    with receiver.serving():
        login = run(*receiver.client("--list"))
        ways: list[tuple[str, list[str | Path]]] = [("sent", [source, "large"]), ("fetched", ["--get", "large", back])]
        for what, words in ways:
            before = receiver.cpu
            used = run(*receiver.client(*words))
            server = (receiver.cpu - before) / size * _GIB
            found.append(Figure(f"a GiB that is {what}, CPU of the server", server, "s"))
            client = max(used.cpu - login.cpu, 0.0) / size * _GIB
            found.append(Figure(f"a GiB that is {what}, CPU of the client without its login", client, "s"))
            found.append(Figure(f"a GiB that is {what}, with the login", size / used.wall / 1e6, "MB/s"))
    for each in (source, back, receiver.storage / USER / "large"):
        each.unlink()
    return found


def connections(receiver: Receiver, count: int) -> list[Figure]:
    """Connections that are logged in and wait for what a pipe brings."""
    with receiver.serving(), contextlib.ExitStack() as opened:
        run(*receiver.client("--list"))
        before, waiting = receiver.memory(), receiver.client("-")
        clients: list[subprocess.Popen[bytes]] = []
        log = receiver.folder / "server.log"
        there = log.read_text().count(": logged in")
        for number in range(count):
            client = subprocess.Popen(
                [sys.executable, *map(str, waiting), f"pipe {number}"],
                cwd=HOME,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            opened.callback(client.wait)
            opened.callback(client.kill)
            if client.stdin is not None:
                opened.callback(client.stdin.close)
            clients.append(client)
            end = time.monotonic() + 60
            while log.read_text().count(": logged in") < there + number + 1:
                if time.monotonic() > end:
                    raise SystemExit("a client could not log in")
                time.sleep(0.02)
        each = (receiver.memory() - before) / count
        cpu = receiver.cpu
        time.sleep(1.0 if count < 10 else 10.0)
        idle = (receiver.cpu - cpu) / (1.0 if count < 10 else 10.0) / count
    return [
        Figure("memory of a server without connections", before / 1e6, "MB"),
        Figure("memory of each idle connection", each / 1e6, "MB"),
        Figure("CPU of each idle connection", 1e3 * idle, "ms/s"),
    ]


def flushes(receiver: Receiver, count: int) -> list[Figure]:
    """Small files, flushed one by one as this disk can; and through the programs."""
    tree = receiver.folder / "tree"
    tree.mkdir()
    block = secrets.token_bytes(_SMALL)
    begun = time.perf_counter()
    for number in range(count):
        with (tree / f"{number}").open("wb") as file:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
    alone = count / (time.perf_counter() - begun)
    with receiver.serving():
        run(*receiver.client("--list"))
        before = receiver.cpu
        used = run(*receiver.client(tree, "tree"))
        cpu = receiver.cpu - before
    shutil.rmtree(tree)
    shutil.rmtree(receiver.storage / USER / "tree")
    return [
        Figure("flushes of this disk, one after another", alone, "/s"),
        Figure("1,000 files of 4 KiB, CPU of the server", 1e3 * cpu / count, "s"),
        Figure("small files, with the login", count / used.wall, "/s"),
    ]


def many_accounts(receiver: Receiver, count: int) -> list[Figure]:
    """A large accounts file."""
    few = _change(receiver)
    with receiver.accounts.open("ab") as file:
        for number in range(count - 1):
            values = [secrets.token_bytes(32), *(b"\4" + secrets.token_bytes(64) for _ in range(3))]
            shown = " ".join(f"{key}={each.hex()}" for key, each in zip(_KEYS, values, strict=True))
            sum = hashlib.sha256(b"".join(values)).hexdigest()[:16]
            line = f"invented-{number} {shown} may=put,get,list,replace quota=- rate=- sum={sum}\n"
            file.write(line.encode())
    with receiver.serving() as started:
        memory, starting = receiver.memory(), receiver.cpu
        run(*receiver.client("--list"))
        login = run(*receiver.client("--list"))
        before = receiver.cpu
        changed = _change(receiver)
        applied = run(*receiver.client("--list"))
        cpu = receiver.cpu - before
    shown = f"{count:,} accounts"
    return [
        Figure(f"{shown}: start of the server", started, "s"),
        Figure(f"{shown}: start of the server, its CPU", starting, "s"),
        Figure(f"{shown}: memory of the server", memory / 1e6, "MB"),
        Figure(f"{shown}: a login, in all", login.wall, "s"),
        Figure(f"{shown}: a change of one", changed.wall, "s"),
        Figure(f"{shown}: a change of one, CPU of the command", changed.cpu, "s"),
        Figure("one account: a change, CPU of the command", few.cpu, "s"),
        Figure(f"{shown}: the first login after a change", applied.wall, "s"),
        Figure(f"{shown}: CPU of the server for a change", cpu, "s"),
    ]


def _change(receiver: Receiver) -> Used:
    return receiver.command("limits", USER, "--connections=400")


def many_files(receiver: Receiver, count: int) -> list[Figure]:
    """A folder with many files that were delivered."""
    receiver.command("limits", USER, "--quota-files=100000000")
    place = receiver.storage / USER
    for number in range(0, count, _FILES_OF_A_FOLDER):
        folder = place / f"{number // _FILES_OF_A_FOLDER:05}"
        folder.mkdir(parents=True)
        for each in range(min(_FILES_OF_A_FOLDER, count - number)):
            (folder / f"file-{each:04}").touch()
    shown = f"{count:,} files"
    counted = receiver.command("recount", USER)
    with receiver.serving():
        run(*receiver.client("--list", "00000"))
        before = receiver.cpu
        used = run(*receiver.client("--usage"))
        usage = receiver.cpu - before
        before = receiver.cpu
        listed = run(*receiver.client("--list", "-R"))
        cpu = receiver.cpu - before
        small = run(*receiver.client("--list", "00000"))
        peak = receiver.memory("VmHWM")
    return [
        Figure(f"{shown}: recount", counted.wall, "s"),
        Figure(f"{shown}: recount, CPU", counted.cpu, "s"),
        Figure(f"{shown}: --usage", used.wall, "s"),
        Figure(f"{shown}: --usage, CPU of the server", usage, "s"),
        Figure(f"{shown}: --list -R", listed.wall, "s"),
        Figure(f"{shown}: --list -R, CPU of the client", listed.cpu, "s"),
        Figure(f"{shown}: --list -R, CPU of the server", cpu, "s"),
        Figure(f"{shown}: --list -R, memory of the client", listed.memory / 1e6, "MB"),
        Figure(f"{shown}: memory of the server at its peak", peak / 1e6, "MB"),
        Figure(f"{shown}: --list of one folder of {_FILES_OF_A_FOLDER:,}", small.wall, "s"),
    ]


_MEASURES: dict[str, tuple[Callable[[Receiver, int], list[Figure]], str]] = {
    "logins": (logins, "logins"),
    "content": (content, "size"),
    "connections": (connections, "connections"),
    "flushes": (flushes, "small_files"),
    "accounts": (many_accounts, "accounts"),
    "files": (many_files, "files"),
}  # with the option that says how many

# --- the command ------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.sizing", description="Measure what a receiver costs.")
    parser.add_argument("--folder", type=Path, default=_MEMORY, help=f"where everything is (default: {_MEMORY})")
    parser.add_argument("--disk", type=Path, default=_DISK, help=f"where flushes are counted (default: {_DISK})")
    parser.add_argument("--only", action="append", choices=_MEASURES, help="measure only this; may be repeated")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    for name, default, words in (
        ("logins", 20, "logins"),
        ("connections", 40, "connections at once"),
        ("size", 1 << 30, "bytes of the large file"),
        ("small-files", 5_000, "small files"),
        ("accounts", 100_000, "accounts"),
        ("files", 1_000_000, "delivered files"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{words} (default: {default:,})")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    options = _parser().parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    figures: list[Figure] = []
    print("| what | figure |\n| --- | --- |", flush=True)
    for name in options.only or _MEASURES:
        measure, count = _MEASURES[name]
        place = options.disk if measure is flushes else options.folder
        with tempfile.TemporaryDirectory(dir=place, prefix="sizing-") as folder:
            for figure in measure(Receiver(Path(folder) / "receiver"), getattr(options, count)):
                figures.append(figure)
                print(f"| {figure.what} | {figure.value:,.3g} {figure.unit} |", flush=True)
    if options.json is not None:
        found = {"machine": describe(options.folder, options.disk), "figures": [each._asdict() for each in figures]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
