"""Machines that are none: network namespaces of one machine, each with its own address, processes and mounts.

    10.0.0.1                       this process, with HAProxy
    10.0.0.2, .3, .4               the hosts: a network and a mount namespace each, joined by a bridge

Rules: Linux and root only. Everything belongs to namespaces of one process that the caller is started anew in, so that
nothing outlives it, however it ends: the kernel kills what runs in them and unmounts what they mounted. What needs a
disk gets a file without a name, in a loop device that is freed with its mount.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PLACE = Path("/mnt")  # covered in our namespace: whatever is made there goes with it
DESCRIPTION = "CLUSTER"  # the variable that has the description of a cluster, for what runs in it
_INSIDE = "CLUSTER_NAMESPACE"
_DISK_SIZE = 12 << 30  # at most; the file is sparse
_LIMIT = 120.0
_ADDRESS = "10.0.0.{}"
_FIRST = 2


class Failed(Exception):
    """A command that had to succeed did not."""


def missing(programs: dict[str, str]) -> str:
    """Why nothing can be built here, in one line; empty when it can. `programs`: which package has each."""
    if not sys.platform.startswith("linux"):
        return "it needs Linux's namespaces"
    if os.getuid() != 0:
        return "it needs root, to make namespaces and to mount"
    known = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux", "mkfs.ext4": "e2fsprogs", **programs}
    if packages := sorted({package for name, package in known.items() if shutil.which(name, path=_path()) is None}):
        return f"packages are missing; install them with: apt-get install {' '.join(packages)}"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as problem:
        return f"there is no FUSE (/dev/fuse: {problem.strerror}; try: modprobe fuse)"
    tried = subprocess.run(["unshare", *_NAMESPACES, "true"], capture_output=True)  # noqa: S603, S607 -- from PATH
    if tried.returncode:
        return "this system lets nobody make namespaces"
    return ""


_NAMESPACES = ["--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]


def enter_namespaces(module: str) -> None:
    """Start `python -m module` anew, with the same arguments, in namespaces of its own, unless it is in them."""
    if _INSIDE in os.environ:
        _be_first_process()
        return
    os.environ.update({_INSIDE: str(os.getpid()), "PATH": _path()})
    command = ["unshare", *_NAMESPACES, sys.executable, "-m", module, *sys.argv[1:]]
    os.execvp(command[0], command)  # noqa: S606 -- no shell is wanted


def enter_command() -> str:
    """What somebody outside types before a command that is to run in our namespaces."""
    return f"nsenter --target=$(pgrep -P {os.environ[_INSIDE]}) --all"


def _be_first_process() -> None:
    """Go on in a child. The parent, the first process of the namespace, takes what daemons leave, and ends with it."""
    if not (child := os.fork()):
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the child as well
    signal.signal(signal.SIGTERM, lambda *_: _end(child))
    while True:
        ended, status = os.wait()
        if ended == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _end(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.kill(process, signal.SIGTERM)


def _path() -> str:
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def call(*command: str | Path) -> str:
    """What a command prints. Raises Failed."""
    typed = [str(part) for part in command]
    done = subprocess.run(typed, capture_output=True, text=True, timeout=_LIMIT)  # noqa: S603 -- named here
    if done.returncode:
        words = " ".join((done.stderr + done.stdout).split())
        raise Failed(f"{' '.join(typed)}: {words or f'exit status {done.returncode}'}")
    return done.stdout


def wait_until(predicate: Callable[[], object], what: str, seconds: float = _LIMIT) -> None:
    """Return as soon as `predicate` holds and raises no Failed. Raises Failed."""
    deadline, why = time.monotonic() + seconds, ""
    while True:
        try:
            if predicate():
                return
        except Failed as problem:
            why = f" ({problem})"
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds:.0f} s{why}")
        time.sleep(0.1)


@dataclass(frozen=True)
class Host:
    """One machine. `process` keeps its namespaces."""

    number: int
    process: int

    @property
    def address(self) -> str:
        """Its address, which all others reach."""
        return _ADDRESS.format(self.number)

    @property
    def folder(self) -> Path:
        """Where its own things are; every host can see them."""
        return PLACE / f"host-{self.number}"

    @property
    def disk(self) -> Path:
        """A folder on the disk of this machine, for what the engine stores."""
        return PLACE / "disk" / f"brick-{self.number}"

    @property
    def mount(self) -> Path:
        """Where it has the cluster's file system mounted; another host sees an empty folder there."""
        return self.folder / "files"

    def command(self, *command: str | Path) -> list[str]:
        """The command that runs `command` on this host."""
        return ["nsenter", f"--target={self.process}", "--net", "--mount", "--", *map(str, command)]

    def call(self, *command: str | Path) -> str:
        """What a command prints that runs there. Raises Failed."""
        return call(*self.command(*command))

    def start(self, *command: str | Path) -> "subprocess.Popen[bytes]":
        """Start a command there; its output goes to a file in the host's folder."""
        with (self.folder / f"{Path(command[0]).name}.out").open("ab") as output:
            return subprocess.Popen(  # noqa: S603 -- named here
                self.command(*command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def covers(self, place: str, keeps: bool = True) -> None:
        """Give it a folder of its own at `place`, empty, which covers what this machine has there."""
        own = self.folder / place.strip("/").replace("/", "-")
        own.mkdir(exist_ok=True)
        if keeps:
            shutil.copystat(place, own)
        self.call("mount", "--bind", own, place)


@dataclass(frozen=True)
class Cluster:
    """The hosts, and what they share."""

    engine: str
    hosts: Sequence[Host]

    def describe(self) -> str:
        """As text, for `read`."""
        return json.dumps({"engine": self.engine, "hosts": [asdict(host) for host in self.hosts]})

    @classmethod
    def read(cls, text: str) -> "Cluster":
        """The cluster that `describe` told of."""
        told = json.loads(text)
        return cls(told["engine"], [Host(**each) for each in told["hosts"]])


def make_hosts(count: int = 3) -> list[Host]:
    """The network, the disk and the hosts. Only after `enter_namespaces`. Raises Failed."""
    call("mount", "-t", "tmpfs", "none", PLACE)
    _make_disk(PLACE / "disk")
    call("ip", "link", "set", "lo", "up")
    call("ip", "link", "add", "bridge", "type", "bridge")
    call("ip", "address", "add", _ADDRESS.format(1) + "/24", "dev", "bridge")
    call("ip", "link", "set", "bridge", "up")
    return [_make_host(number) for number in range(_FIRST, _FIRST + count)]


def _make_disk(place: Path) -> None:
    place.mkdir()
    with tempfile.NamedTemporaryFile(prefix="cluster-", suffix=".img") as image:
        os.ftruncate(image.fileno(), _DISK_SIZE)
        call("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", image.name)
        call("mount", "-o", "loop", image.name, place)


def _make_host(number: int) -> Host:
    # It ends with the namespace of processes, as everything here does.
    command = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep infinity"]
    process = subprocess.Popen(  # noqa: S603 -- named above
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    if process.stdout is not None:
        process.stdout.readline()  # it is in its namespaces
    host = Host(number, process.pid)
    host.mount.mkdir(parents=True)
    host.disk.mkdir()
    call("ip", "link", "add", f"to-{number}", "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
    call("ip", "link", "set", f"to-{number}", "master", "bridge", "up")
    host.call("ip", "link", "set", "lo", "up")
    host.call("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
    host.call("ip", "link", "set", "eth0", "up")
    host.covers("/run")
    return host
