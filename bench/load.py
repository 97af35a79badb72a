"""Our server under load: many clients at once, each a process of its own, from the login to the receipt.

Three loads in each round, all with one server's settings: everything by one client as one file (what the machine
gives), one file by one client (what each of them would see alone), and all clients at once. Total throughput counts
from the first client's start to the last one's end.

Rules: the limits on logins are raised to the number of clients, because they are about strangers and not about speed;
this is said beside the figures. Every file is compared in its size. Refuses to measure other peers.
"""

import shutil
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.cases import GIB, MIB, Case, make_source
from bench.jobs import Failed, Job, Measured
from bench.peers import USER, Kit, Sending, our_command, serve_ours
from bench.rounds import Places

_MOST_ALONE = 2 * GIB
_LIMIT = 600.0
_LOGIN_MEMORY = 85 * MIB  # of one client in its scrypt


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
    cpu: float

    def as_json(self) -> dict[str, object]:
        """For the results."""
        return asdict(self)


def fitting(memory: int) -> int:
    """How many clients may log in at once in `memory` bytes, so that no process is ended for the lack of it."""
    return max(0, memory * 9 // 10 // _LOGIN_MEMORY)


def _send(kit: Kit, source: Path, target: Path, clients: int) -> tuple[Measured, Measured]:
    """The clients' and the server's side. Raises Failed."""
    work = kit.folder / "work"
    for place in (target, work):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    (work / "server").mkdir()
    most = str(max(256, clients + 8))
    limits = dict.fromkeys(("max-connections", "max-logins", "max-logins-per-source"), most)
    server, port = serve_ours(kit, target, work / "server", limits)
    try:
        sending = Sending(kit, source, target, port, work)
        commands = [our_command(sending, f"{number}.bin", f"client-{number}.log") for number in range(clients)]
        senders = Job(work, *commands)
        try:
            sent = senders.finish(_LIMIT)
        finally:
            senders.close()
        received = server.stop()
    finally:
        server.close()
    failed = [run for run in sent.runs if run.status]
    if failed:
        raise Failed(f"{len(failed)} of {clients} clients failed: {senders.last_words()}")
    for number in range(clients):
        if (target / USER / f"{number}.bin").stat().st_size != source.stat().st_size:
            raise Failed(f"{number}.bin did not arrive whole")
    shutil.rmtree(target)
    return sent, received


def _span(measured: Measured) -> float:
    return max(run.ended for run in measured.runs) - min(run.begun for run in measured.runs)


def measure(clients: int, size: int, kit: Kit, places: Places, tell: Callable[[str], None]) -> LoadFound:
    """One round of one load. Raises Failed."""
    whole = min(clients * size, _MOST_ALONE)
    source, target = places.memory / "source", places.memory / "target"
    alone = {}
    try:
        for each in (whole, size):
            tell(f"server under load: one client, {each >> 20} MiB")
            shutil.rmtree(source, ignore_errors=True)
            sent, _ = _send(kit, make_source(Case("", "", each), source), target, 1)
            alone[each] = each / _span(sent)
        tell(f"server under load: {clients} clients, {size >> 20} MiB each")
        sent, received = _send(kit, source / "data", target, clients)
    finally:
        shutil.rmtree(source, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
    seconds = sorted(run.seconds for run in sent.runs)
    return LoadFound(
        clients,
        size,
        clients * size / _span(sent),
        alone[whole],
        alone[size],
        seconds[-1],
        statistics.median(seconds),
        seconds[0],
        received.peak,
        sent.peak,
        sent.cpu + received.cpu,
    )
