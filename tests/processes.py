"""Real processes for the tests: the two programs, a terminal, and a line between them that can fail.

Rules: nothing sleeps and nothing has a fixed port. Whatever is waited for has a limit, after which it is killed and the
test fails. No process sees the terminal, the settings or the files of the user that runs the tests. A traceback,
wherever it is printed, fails the test.
"""

import contextlib
import fcntl
import hashlib
import os
import pty
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Literal

import forks

from sft.disk.quota import NOT_TEMPORARY
from sft.wire.pake import CONFIRM_SIZE, POINT_SIZE
from sft.wire.protocol import HEADER_SIZE, ClientHello, ServerHello, Status

HOME = Path(__file__).resolve().parent.parent
USER = "alice"
PASSWORD = "correct horse, battery"
LIMIT = 30.0
MIB = 1 << 20
ONCE = "--retries=0"  # a lost connection ends the client
_STRETCHED = "TESTS_STRETCHED"  # the folder of what scrypt has given: one for all workers
if _STRETCHED not in os.environ:
    _stretched = tempfile.TemporaryDirectory(prefix="stretched-")
    os.environ[_STRETCHED] = _stretched.name
BYE_RECORD = 25  # header, the type and length of a message without a body, tag

Argument = str | Path


def login_sent(user: str = USER) -> int:
    """How many bytes a client has sent when its login is complete: the offset of its first record."""
    hello = ClientHello(b"\1", user.encode(), bytes(1184)).encode()
    return 3 * HEADER_SIZE + len(hello) + POINT_SIZE + CONFIRM_SIZE


def login_received() -> int:
    """The same for what the server has sent: two frames."""
    hello = ServerHello(Status.GO_ON, 1, 1, bytes(32), bytes(1088)).encode()
    return 2 * HEADER_SIZE + len(hello) + POINT_SIZE + CONFIRM_SIZE


def wait_until(predicate: Callable[[], object], seconds: float = LIMIT) -> None:
    """Return as soon as `predicate` holds; fail when it does not in time."""
    deadline, never = time.monotonic() + seconds, threading.Event()
    while not predicate():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        never.wait(0.01)


def content(size: int) -> bytes:
    """Random bytes that no compression makes fewer; their period is no multiple of any block, so swapped ones show."""
    block = os.urandom(min(size, 1_048_573))
    return (block * (size // 1_048_573 + 1))[:size]


def make(path: Path, size: int = 20) -> Path:
    """A file of so many random bytes, in folders that are made as well; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content(size))
    return path


def knock(port: int) -> None:
    """Wait until the server at `port` takes connections, and has ended this one."""
    with socket.create_connection(("127.0.0.1", port), LIMIT) as sock:
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without any setting of the two programs; then `more`.

    Nor is Python kept from storing what it compiles, and what scrypt gives is remembered (`stretched/`): hundreds of
    processes would each work it out anew.
    """
    foreign = ("SFT_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    remembering = {"PYTHONPATH": str(HOME / "tests/stretched"), "STRETCHED": os.environ[_STRETCHED]}
    return {**kept, "SFT_CONFIG": os.devnull, "LC_ALL": "C.UTF-8", **remembering, **more}


def check_no_traceback(text: str) -> None:
    """Fail when a program told more of an error than its one line."""
    assert "Traceback" not in text, text


# --- Programs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What became of a program."""

    status: int
    out: str
    err: str


class Running:
    """One of the two programs under way, without a terminal."""

    unfinished: "ClassVar[set[Running]]" = set()

    def __init__(
        self,
        program: str,
        *arguments: Argument,
        typed: str = "",
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
        stdin: int | IO[bytes] = subprocess.PIPE,
        stdout: int | IO[bytes] = subprocess.PIPE,
        fresh: bool = False,
        umask: int = -1,
    ) -> None:
        """`typed` is what standard input holds, unless it is `stdin`. `fresh`: see `forks`. `umask` -1: as it is."""
        self._typed = typed
        self.process: subprocess.Popen[str] = forks.Popen(
            program,
            [str(argument) for argument in arguments],
            clean_environment() if environment is None else environment,
            fresh,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="surrogateescape",
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
            umask=umask,
        )
        self.unfinished.add(self)

    @classmethod
    def kill_all(cls) -> None:
        """End what a test that failed has left."""
        for each in list(cls.unfinished):
            each.process.kill()
            each.process.communicate()
            cls.unfinished.discard(each)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def finish(self, seconds: float = LIMIT) -> Result:
        """Wait for its end."""
        try:
            typed = self._typed if self.process.stdin is not None else None
            out, err = self.process.communicate(typed, seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"still running after {seconds} s; so far: {out!r} {err!r}") from None
        finally:
            self.unfinished.discard(self)
        check_no_traceback(err)
        check_no_traceback(out or "")
        return Result(self.process.returncode, out or "", err)


def run(
    program: str,
    *arguments: Argument,
    typed: str = "",
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Result:
    """Run one of the two programs to its end, without a terminal."""
    return Running(program, *arguments, typed=typed, environment=environment, cwd=cwd, pass_fds=pass_fds).finish()


def run_all(commands: Sequence[Sequence[Argument]], typed: Sequence[str] = (), cwd: Path | None = None) -> list[Result]:
    """Run programs with their arguments, two at a time; what became of each, in order."""

    def run_one(number: int) -> Result:
        return run(str(commands[number][0]), *commands[number][1:], typed=typed[number] if typed else "", cwd=cwd)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run_one, range(len(commands))))


def run_python(
    code: str, *arguments: object, command: Sequence[str] = (sys.executable,), path: Sequence[Path] = ()
) -> str:
    """What a fresh interpreter prints for `code`; its own process has its own limits, umask and identity.

    `command` starts the interpreter. `path`: what is imported from before our own folder.
    """
    done = subprocess.run(
        [*command, "-c", code, *map(str, arguments)],
        cwd=HOME,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, HOME)))},
        capture_output=True,
        text=True,
        timeout=2 * LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run_python_on_small_disk(code: str, place: Path, options: str) -> str | None:
    """The same, with `place` as its one argument, in which a file system in memory is mounted with `options`.

    None where nothing can be mounted.
    """
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
    unshare = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-rm"]
    try:
        if subprocess.run([*unshare, *mount], capture_output=True).returncode:
            return None
    except FileNotFoundError:
        return None
    mount_and_go_on = f'{shlex.join(mount)} && exec "$@"'
    return run_python(code, place, command=[*unshare, "sh", "-c", mount_and_go_on, "sh", sys.executable])


class Server:
    """A receiver in a folder of its own, on any free port of this host."""

    def __init__(self, folder: Path, accounts: Path | None = None, storage: Path | None = None) -> None:
        """`accounts` is copied, so that no account has to be made."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.accounts, self.log = folder / "accounts.txt", folder / "server.log"
        self.storage = storage or folder / "received"
        self.process: subprocess.Popen[str] | None = None
        self.port = 0
        self.environment: dict[str, str] = {}  # beside the clean one, from the next start on
        self.umask = 0o022
        self._old: set[Path] = set()
        if accounts is not None:
            shutil.copy2(accounts, self.accounts)

    @property
    def settings(self) -> list[str]:
        """The flags that name its files."""
        return [f"--accounts={self.accounts}", f"--storage={self.storage}", f"--server-log={self.log}"]

    def command(self, *arguments: str, typed: str = "") -> Result:
        """One of the commands that keep accounts."""
        return run("server.py", *self.settings, *arguments, typed=typed)

    def add(self, name: str, *flags: str, password: str = PASSWORD) -> None:
        """Add an account."""
        added = self.command("adduser", name, *flags, "--password-file", "-", typed=password + "\n")
        assert added.status == 0, added

    def start(self, *flags: str, fresh: bool = False) -> "Server":
        """Start it and wait until it listens. `fresh`: see `forks`."""
        with (self.folder / "server.stderr").open("a") as errors:
            self.process = forks.Popen(
                "server.py",
                [*self.settings, "--port=0", "--listen=127.0.0.1", *flags],
                clean_environment(**self.environment),
                fresh,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                umask=self.umask,
            )
        assert self.process.stdout is not None
        watchdog = threading.Timer(LIMIT, self.process.kill)
        watchdog.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
            watchdog.join()
        port = line.rpartition(":")[2].strip()
        assert port.isdecimal(), (line, self.errors())
        self.port = int(port)
        return self

    def errors(self) -> str:
        """What it has written to standard error."""
        return (self.folder / "server.stderr").read_text()

    def told(self, since: int = 0) -> str:
        """What its log says, from that byte on."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(since)
            return log.read().decode()

    def told_so_far(self) -> int:
        """How many bytes its log has."""
        return self.log.stat().st_size if self.log.exists() else 0

    def partials(self) -> list[Path]:
        """What this test has left of files that are not whole, the notes about them included."""
        found = list((self.storage / ".partial").rglob("*"))
        ours = [path for path in found if path.name in NOT_TEMPORARY or path.name.startswith(".holder-")]
        return [path for path in found if path.is_file() and path not in ours and path not in self._old]

    def forget_partials(self) -> None:
        """What an earlier test has left there is not this one's business."""
        self._old.update(self.partials())

    def kept(self, *parts: str, user: str = USER) -> Path:
        """Where the bytes of an unfinished large file are kept; a name that is not there while none are."""
        key = hashlib.sha256(b"path" + b"\0".join(part.encode() for part in parts)).hexdigest()
        place = self.storage / ".partial" / user
        return next((each for each in place.glob(f"{key}.*") if each.suffix != ".journal"), place / f"{key}.none")

    def has_missed(self, *parts: str) -> bool:
        """Whether it keeps an unfinished large file, and no connection owns it any more.

        The log has a line for that, too, but only so many lines for one user in a session.
        """
        try:
            with self.kept(*parts).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def path(self, *parts: str, user: str = USER) -> Path:
        """Where a file of a user arrives."""
        return self.storage.joinpath(user, *parts)

    def kill(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        self.process.kill()
        self._wait()

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, seconds: float = LIMIT) -> int:
        """Ask it to stop; its exit status."""
        self.signal()
        return self.ended(seconds)

    def ended(self, seconds: float = LIMIT) -> int:
        """Wait for its end; its exit status. Fails when it met a bug or printed an error."""
        assert self.process is not None
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server runs on {seconds} s after the signal\n{self.told()}") from None
        status = self._wait()
        assert "a bug" not in self.told(), self.told()
        check_no_traceback(self.told())
        check_no_traceback(self.errors())
        return status

    def _wait(self) -> int:
        assert self.process is not None and self.process.stdout is not None
        status = self.process.wait()
        self.process.stdout.close()
        self.process = None
        return status

    def close(self) -> None:
        """End it, if it still runs."""
        if self.process is not None:
            self.kill()


class Client:
    """`client.py` as one user of one server, with its own log, and its password in a file."""

    def __init__(self, port: int, folder: Path, user: str = USER, password: str = PASSWORD) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._user, self._password = folder, user, password
        self.log = folder / "client.log"
        self._secret = folder / f"password of {user}"
        self._secret.touch(0o600)
        self._secret.write_text(password + "\n")
        self.settings = ["--host=127.0.0.1", f"--port={port}", f"--client-log={self.log}"]
        self.flags = [*self.settings, f"--user={user}", f"--password-file={self._secret}"]
        self.environment: dict[str, str] = {}  # beside the clean one
        self.umask = -1  # as it is

    def at(self, port: int) -> "Client":
        """The same client, at another port."""
        return Client(port, self._folder, self._user, self._password)

    def start(
        self,
        *arguments: Argument,
        cwd: Path | None = None,
        stdin: int | IO[bytes] = subprocess.PIPE,
        stdout: int | IO[bytes] = subprocess.PIPE,
        fresh: bool = False,
    ) -> Running:
        """Start it, with all that it needs to log in."""
        environment = clean_environment(**self.environment)
        return Running(
            "client.py",
            *self.flags,
            *arguments,
            environment=environment,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            fresh=fresh,
            umask=self.umask,
        )

    def __call__(self, *arguments: Argument, cwd: Path | None = None, seconds: float = LIMIT) -> Result:
        """Run it to its end."""
        return self.start(*arguments, cwd=cwd).finish(seconds)


# --- A terminal -------------------------------------------------------------------------------------------------------


class Terminal:
    """A program with a terminal of its own, and somebody who reads and types there."""

    def __init__(
        self,
        program: str,
        *arguments: Argument,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        size: tuple[int, int] = (40, 200),
        before: str = "",
    ) -> None:
        """`size`: lines and columns. `before`: see `forks`."""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        try:
            self.process = forks.Popen(
                program,
                [*map(str, arguments)],
                clean_environment() if environment is None else environment,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                cwd=cwd,
                start_new_session=True,
                terminal=True,
                before=before,
            )
        finally:
            os.close(theirs)
        self.screen = ""
        self._read = 0

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def _more(self, deadline: float) -> bool:
        """Read what is on the screen next; False at the program's end."""
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more on the screen: {self.screen[self._read :]!r}"
        try:
            piece = os.read(self._ours, 1 << 16)
        except OSError:  # what Linux says when the last program has left the terminal
            piece = b""
        self.screen += piece.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(piece)

    def expect(self, text: str, seconds: float = LIMIT) -> str:
        """Wait until `text` is on the screen; what stands there since the last text, up to this one."""
        deadline = time.monotonic() + seconds
        while (at := self.screen.find(text, self._read)) < 0:
            assert self._more(deadline), f"it ended without {text!r}: {self.screen[self._read :]!r}"
        before, self._read = self.screen[self._read : at], at + len(text)
        return before

    def type(self, line: str, end: str = "\n") -> None:
        """Type a line."""
        os.write(self._ours, (line + end).encode())

    def finish(self, seconds: float = LIMIT) -> int:
        """Read on to the program's end; its exit status."""
        deadline = time.monotonic() + seconds
        while self._more(deadline):
            pass
        check_no_traceback(self.screen)
        return self.process.wait(max(0.1, deadline - time.monotonic()))


# --- A line that fails ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """What happens to the byte number `at` (from 0) of one direction.

    cut: it is not passed on, both sides lose the connection. flip: one bit of it changes. hold: it and what follows
    waits until `Proxy.release`. silence: the same in both directions, as when a cable is pulled. strand: silence, and
    the near side, which is the client's, loses the connection. tell: nothing but that `Proxy.reached` is set.
    """

    what: Literal["cut", "flip", "hold", "silence", "strand", "tell"]
    at: int


class Proxy:
    """A line to a port of this host: `up` is what happens on the way there, `down` on the way back.

    A fault happens once, on the connection that reaches it first. `passed` counts the bytes of all connections, there
    and back. `target` may change: later connections lead to that port. `source`: the address that this port sees.
    """

    def __init__(
        self, port: int, up: Fault | None = None, down: Fault | None = None, source: str = "127.0.0.1"
    ) -> None:
        self.target, self._faults, self._source = port, [up, down], source
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.reached = threading.Event()
        self.passed = [0, 0]
        self.connections = 0
        self._go_on = threading.Event()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def wait_reached(self) -> None:
        """Wait until the fault has happened."""
        assert self.reached.wait(LIMIT), "the byte was never sent"

    def release(self) -> None:
        """Let through what was held."""
        self._go_on.set()

    def cut(self) -> None:
        """End every connection."""
        with self._lock:
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        self.release()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(LIMIT)
        self.cut()
        for thread in self._threads:
            thread.join(LIMIT)
        for each in (self._listener, *self._sockets):
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), source_address=(self._source, 0))
            except OSError:
                near.close()
                continue
            self.connections += 1
            with self._lock:
                self._sockets += [near, far]
            silent = threading.Event()
            for way, (source, sink) in enumerate(((near, far), (far, near))):
                thread = threading.Thread(target=self._pass_on, args=(way, source, sink, silent), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _happen(self, fault: Fault, piece: bytes, silent: threading.Event, stranded: socket.socket) -> bytes:
        """Let the fault happen right before `piece`; what is passed on of that."""
        if fault.what in ("silence", "strand"):
            silent.set()
        if fault.what == "strand":
            stranded.shutdown(socket.SHUT_RDWR)
        self.reached.set()
        if fault.what == "cut":
            self.cut()
        elif fault.what == "hold":
            self._go_on.wait()
        elif fault.what == "flip":
            return bytes([piece[0] ^ 1]) + piece[1:]
        return piece

    def _pass_on(self, way: int, source: socket.socket, sink: socket.socket, silent: threading.Event) -> None:
        at = 0
        try:
            while piece := source.recv(1 << 16):
                fault = self._faults[way]
                if fault is not None and at <= fault.at < at + len(piece):
                    self._faults[way] = None
                    before, piece = piece[: fault.at - at], piece[fault.at - at :]
                    sink.sendall(before)
                    at += len(before)
                    self.passed[way] += len(before)
                    piece = self._happen(fault, piece, silent, (source, sink)[way])
                    if fault.what == "cut":
                        return
                if silent.is_set():
                    self._go_on.wait()
                sink.sendall(piece)
                at += len(piece)
                self.passed[way] += len(piece)
            if silent.is_set():
                self._go_on.wait()
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            if silent.is_set():
                self._go_on.wait()
            for each in (source, sink):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


class Impostor:
    """Something else that listens: `behave` has each connection, one after the other."""

    def __init__(self, behave: Callable[[socket.socket], None]) -> None:
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock = self._listener.accept()[0]
            except OSError:
                return
            with sock, contextlib.suppress(OSError):
                sock.settimeout(LIMIT)
                self._behave(sock)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(LIMIT)
        self._listener.close()
