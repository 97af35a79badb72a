"""Starts our programs as forks of a process that has loaded them: 12 ms of processor time each, instead of 300.

    Popen("client.py", arguments, ...)    in a test: as subprocess.Popen, and the program is the test's own child
    python tests/forks.py DESCRIPTOR      loads both programs, then forks for each request of the tests

Rules: a program is a process of its own, with the arguments, environment, current folder, streams and session that it
is given, and it ends as any Python does. What depends on how Python itself starts gets a fresh Python: another locale,
variables of Python or of the loader, a copy of the programs, any system but Linux. `STARTED=fresh` gets that for all.
"""

import ctypes
import fcntl
import gc
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

HOME = Path(__file__).resolve().parent.parent
PROGRAMS = ("client.py", "server.py")
_CLONE = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine)  # the number of the system call on Linux
FORKING = sys.platform == "linux" and _CLONE is not None and os.environ.get("STARTED") != "fresh"
_SIZE = struct.Struct("I")
_HIGH = 100  # descriptors from here on are ours while the program's are put in place
# Variables that Python itself does not read when it starts.
_READ_LATER = ("SFT_", "HOME", "XDG_", "COLUMNS", "LINES", "LOGNAME", "USER", "NOTIFY_", "PYTEST_", "PATH")
_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_CLONE_PARENT = 0x8000  # from linux/sched.h
_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Popen(subprocess.Popen[str]):
    """One of the programs; the arguments of subprocess.Popen. `fresh`: by a Python of its own, in any case.

    `terminal`: standard input is one, and the program's own; this needs a new session. `before`: Python code that is
    run first, in a fork only.
    """

    _lock = threading.Lock()
    _parents: "dict[int, _Parent]" = {}

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        env: Mapping[str, str],
        fresh: bool = False,
        terminal: bool = False,
        before: str = "",
        **more: Any,
    ) -> None:
        self._fresh = fresh or not FORKING or program not in PROGRAMS
        self._terminal, self._before = terminal, before
        super().__init__([sys.executable, str(HOME / program), *arguments], env=env, text=True, **more)

    def _execute_child(self, *given: Any) -> None:
        """Popen's own step in which the process begins. It names its arguments by their order only."""
        args, _, _, _, pass_fds, cwd, env, _, _, _, *pipes = given[:16]
        umask, new_session = given[20], given[21]
        with self._lock:
            parent = None if self._fresh else self._parent(env)
            if parent is None or any(number >= _HIGH for number in pass_fds):
                assert not self._before
                if self._terminal:
                    given = ([sys.executable, "-c", _TAKE_TERMINAL, *args], *given[1:])
                super()._execute_child(*given)  # type: ignore[misc]
                return
            theirs = [own if own >= 0 else number for number, own in enumerate((pipes[0], pipes[3], pipes[5]))]
            request = {
                "arguments": args[1:],
                "environment": dict(env),
                "folder": os.fspath(cwd or os.getcwd()),
                "descriptors": [0, 1, 2, *pass_fds],
                "umask": umask,
                "ignored": [number for number in _ENDING if signal.getsignal(number) is signal.SIG_IGN],
                "session": new_session,
                "terminal": self._terminal,
                "before": self._before,
            }
            self.pid = parent.fork(request, [*theirs, *pass_fds])
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    @classmethod
    def _parent(cls, environment: Mapping[str, str]) -> "_Parent | None":
        """The process that forks for this one; None when that has another environment than is wanted."""
        parent = cls._parents.get(os.getpid())
        if parent is None:
            parent = cls._parents[os.getpid()] = _Parent(environment)
        differ = {name for name, _ in set(environment.items()) ^ set(parent.environment.items())}
        return parent if all(name.startswith(_READ_LATER) for name in differ) else None


class _Parent:
    """The process that forks, from the test's side."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = {
            name: value for name, value in environment.items() if name == "HOME" or not name.startswith(_READ_LATER)
        }
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=self.environment,
                cwd=HOME,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def fork(self, request: Mapping[str, object], descriptors: Sequence[int]) -> int:
        """Start a program with copies of these descriptors; its process id. It is our child."""
        text = json.dumps(request).encode()
        socket.send_fds(self._ours, [_SIZE.pack(len(text))], descriptors)
        self._ours.sendall(text)
        (process,) = _SIZE.unpack(self._ours.recv(_SIZE.size, socket.MSG_WAITALL))
        return int(process)


# --- In the process that forks ----------------------------------------------------------------------------------------


def _load() -> dict[str, CodeType]:
    """Import whatever one of the programs may import, and compile the programs themselves."""
    sys.path[0] = str(HOME)
    for path in sorted((HOME / "sft").rglob("*.py")):
        importlib.import_module(".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix(".__init__"))
    for name in ("client", "server"):
        importlib.import_module(name)
    for name in (
        *("Crypto.Protocol.HPKE", "Crypto.Protocol.KDF", "Crypto.PublicKey.ECC", "Crypto.PublicKey.MLKEM"),
        *("Crypto.Cipher.AES", "Crypto.Hash.SHA256", "Crypto.Hash.HMAC"),
        *("encodings.idna", "encodings.utf_8_sig", "tomllib"),
    ):
        importlib.import_module(name)
    _rehearse()
    return {str(HOME / name): compile((HOME / name).read_bytes(), str(HOME / name), "exec") for name in PROGRAMS}


def _rehearse() -> None:
    """Log in once, in memory: what a program loads or works out while it runs is there, too, a third of its time."""
    from client import _parser as client_parser
    from crypto_utils import RecordCipher, check_library
    from server import _parser as server_parser
    from sft.wire.handshake import Candidate, ClientHandshake, ServerHandshake
    from sft.wire.pake import Registration, load_points

    client_parser(), server_parser()
    check_library()
    load_points()
    account = Candidate(True, bytes(32), Registration.of(1, 2))
    here = ClientHandshake("nobody", lambda salt, profile: (1, 2))
    there = ServerHandshake(lambda user: account, lambda user: True)
    there.finish(here.confirm(there.respond(here.share(there.hello(here.hello())[0])))[0])
    cipher, text = RecordCipher(bytes(32)), memoryview(bytearray(20))
    cipher.open(0, b"", text, cipher.seal(0, b"", text))


def _requested(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Fork for each request. Returns in a new program what is wanted of it, and None at the end."""
    while True:
        size, descriptors, _, _ = socket.recv_fds(channel, _SIZE.size, 64)
        if not size:
            return None
        request = json.loads(channel.recv(_SIZE.unpack(size)[0], socket.MSG_WAITALL))
        program = _fork_sibling()
        if not program:
            return request, descriptors
        channel.sendall(_SIZE.pack(program))
        for descriptor in descriptors:
            os.close(descriptor)


def _fork_sibling() -> int:
    """As os.fork, but the new process is a child of our own parent, the test. There is one thread here."""
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    given = [ctypes.c_long(each) for each in (_CLONE or 0, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)]
    program: int = ctypes.PyDLL(None, use_errno=True).syscall(*given)
    if not program:
        python.PyOS_AfterFork_Child()
        return 0
    python.PyOS_AfterFork_Parent()
    if program < 0:
        raise OSError(ctypes.get_errno(), "a program can't be forked")
    return program


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Take on what Popen would give to a new process."""
    if request["session"]:
        os.setsid()
    if request["umask"] >= 0:
        os.umask(request["umask"])
    for number in _ENDING:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else usual)
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _HIGH) for descriptor in descriptors]
    os.closerange(3, _HIGH)
    for descriptor, number in zip(moved, request["descriptors"], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if request["terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        old = getattr(sys, name)
        lines = name == "stderr"
        new = open(old.fileno(), mode, 1 if lines else -1, old.encoding, old.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    os.chdir(request["folder"])
    for variable in os.environ.keys() - request["environment"].keys():
        del os.environ[variable]
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]
    sys.orig_argv = [sys.executable, *sys.argv]


def _main() -> None:
    codes = _load()
    gc.freeze()  # or the first collection in each program would copy all that it shares with this one
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        requested = _requested(channel)
    if requested is None:
        return
    _become(*requested)
    program = ModuleType("__main__")
    program.__dict__.update(__file__=sys.argv[0], __builtins__=__builtins__)
    sys.modules["__main__"] = program
    exec(requested[0]["before"], {})  # noqa: S102 -- the test's own
    exec(codes[sys.argv[0]], program.__dict__)  # noqa: S102 -- the program


if __name__ == "__main__":
    _main()
