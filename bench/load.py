"""Our server under load: many clients at once, each a process of its own that has logged in before.

Three loads in each round, all with one server's settings: everything by one client (what the machine gives), one file
by one client, and all clients at once. The clients log in a few at a time: all of them share this machine, and each
login takes its half second of scrypt; each then waits for its content from a pipe. When all are in, they get it at the
same moment, and from there to a client's exit is its time; to the last one's exit is the time of all.

Rules: the limits on logins are raised to the number of clients, because they exist for strangers and not for speed.
The size of every file is compared. Other peers are not measured.
"""

import os
import shlex
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.cases import GIB, MIB, Case, make_source
from bench.jobs import Failed, Job, Measured
from bench.jobs import job as running
from bench.peers import USER, Kit, Sending, our_command, serve_ours
from bench.rounds import Places

_MOST_ALONE = 2 * GIB
_LIMIT = 600.0
_LOGIN_SECONDS = 3.0  # for one login, on average, on a busy machine
_MEMORY = 45 * MIB  # of one client that has logged in, and of its shell


@dataclass(frozen=True)
class LoadFound:
    """One load: bytes per second, seconds, bytes of the server's memory."""

    clients: int
    size: int
    total: float
    alone_whole: float  # one client, one file as large as all of them together (2 GiB at most)
    alone_one: float  # one client, one of the files
    slowest: float
    median: float
    fastest: float
    peak_server: int
    peak_client: int
    cpu_server: float

    def as_json(self) -> dict[str, object]:
        """For the results."""
        return asdict(self)


def fitting(memory: int) -> int:
    """How many clients fit into `memory` bytes, so that no process is ended for the lack of it."""
    return max(0, memory * 9 // 10 // _MEMORY)


def _send(kit: Kit, source: Path, target: Path, clients: int) -> tuple[list[float], Measured, Measured]:
    """Seconds of each client, smallest first; then the clients' and the server's side. Raises Failed."""
    work = kit.folder / "work"
    for place in (target, work):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    (work / "server").mkdir()
    most = str(max(256, clients + 8))
    limits = dict.fromkeys(("max-connections", "max-connections-per-user", "max-logins", "max-logins-per-source"), most)
    server, port = serve_ours(kit, target, work / "server", limits)
    try:
        with _Gate(work / "enter") as enter, _Gate(work / "begin") as begin:
            commands = []
            for number in range(clients):
                sending = Sending(kit, Path("-"), target, port, work)
                client = shlex.join(our_command(sending, f"{number}.bin", _log(number)))
                content = f"{{ {begin.wait}; exec cat {shlex.quote(str(source))}; }}"
                commands.append(["sh", "-c", f"{enter.wait}; {content} | {client}"])
            with running(work, *commands) as senders:
                _log_in(clients, enter, work, senders)
                server.mark()
                begun = time.perf_counter()
                begin.let_in(clients)
                sent = senders.finish(_LIMIT)
                words = senders.last_words()
        received = server.stop()
    finally:
        server.close()
    if failed := sum(bool(run.status) for run in sent.runs):
        raise Failed(f"{failed} of {clients} clients failed: {words}")
    for number in range(clients):
        if (target / USER / f"{number}.bin").stat().st_size != source.stat().st_size:
            raise Failed(f"{number}.bin did not arrive whole")
    shutil.rmtree(target)
    return sorted(run.ended - begun for run in sent.runs), sent, received


class _Gate:
    """A named pipe at which processes wait until they are let in, each by one line."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.wait = f"read line < {shlex.quote(str(path))}"
        self._open = os.open(path, os.O_RDWR)

    def let_in(self, count: int) -> None:
        os.write(self._open, b"\n" * count)

    def __enter__(self) -> "_Gate":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._open)


def _log(number: int) -> str:
    return f"client-{number}.log"


def _log_in(clients: int, enter: _Gate, work: Path, senders: Job) -> None:
    """Let them log in, some at a time, until all have. Raises Failed."""
    deadline = time.monotonic() + _LOGIN_SECONDS * (clients + 20)
    at_once = 2 * len(os.sched_getaffinity(0))
    waiting, entered = {work / _log(number) for number in range(clients)}, 0
    while waiting:
        waiting = {log for log in waiting if not log.exists() or "authenticated as" not in log.read_text()}
        more = min(clients - entered, at_once - (entered - (clients - len(waiting))))
        if more > 0:
            enter.let_in(more)
            entered += more
        if time.monotonic() > deadline:
            raise Failed(f"{len(waiting)} of {clients} clients could not log in: {senders.last_words()}")
        time.sleep(0.02)


def measure(clients: int, size: int, kit: Kit, places: Places, tell: Callable[[str], None]) -> LoadFound:
    """One round of one load. Raises Failed."""
    whole = min(clients * size, _MOST_ALONE)
    source, target = places.memory / "source", places.memory / "target"
    alone = {}
    try:
        for each in (whole, size):
            tell(f"server under load: one client, {each >> 20} MiB")
            shutil.rmtree(source, ignore_errors=True)
            seconds, _, _ = _send(kit, make_source(Case("", "", each), source), target, 1)
            alone[each] = each / seconds[0]
        tell(f"server under load: {clients} clients, {size >> 20} MiB each")
        seconds, sent, received = _send(kit, source / "data", target, clients)
    finally:
        shutil.rmtree(source, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
    return LoadFound(
        clients,
        size,
        clients * size / seconds[-1],
        alone[whole],
        alone[size],
        seconds[-1],
        statistics.median(seconds),
        seconds[0],
        received.peak,
        sent.peak,
        received.cpu,
    )
