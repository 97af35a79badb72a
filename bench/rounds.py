"""The rounds of one case: A B C, A B C, ..., each transfer with a fresh server into a fresh folder, checked afterwards.

Rules: what is timed is the sender's command, from its start to its exit, and nothing else; the server starts before and
ends after that. A transfer whose bytes did not arrive is a failure and gives no figure. Refuses to judge what it sees.
"""

import contextlib
import datetime
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.cases import Case, change, difference, make_source, undo
from bench.jobs import Failed, Measured
from bench.jobs import job as running
from bench.peers import Kit, Peer, Sending

_CRAWL = 60.0  # a peer that waits for each file, and takes longer than this, is measured once
_LOGGED_IN = re.compile(r"^(\S+)Z INFO authenticated as ", re.MULTILINE)


@dataclass(frozen=True)
class Figure:
    """One transfer. Seconds; bytes of the largest process at each end; `after_login`: where our log has the moment."""

    round: int
    seconds: float
    cpu_sender: float
    cpu_receiver: float
    peak_sender: int
    peak_receiver: int
    after_login: float | None = None
    resident_after_login: int | None = None


@dataclass
class Found:
    """The results of one case."""

    case: Case
    figures: dict[str, list[Figure]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Places:
    """Where files lie: `memory` for the sources and what arrives, `disk` for the case that is about a disk."""

    memory: Path
    disk: Path


@contextlib.contextmanager
def distant(port: int, rtt: float, rate: float, work: Path) -> Iterator[int]:
    """The port of a line that leads to `port`; `port` itself where there is none."""
    if not rtt:
        yield port
        return
    command = [sys.executable, "-m", "bench.line", "127.0.0.1", str(port), f"--rtt={rtt}", f"--rate={rate}"]
    with running(work / "line", command) as line:
        yield line.wait_for_port()


def _login_time(log: Path) -> float | None:
    """When our client had logged in, by this machine's clock."""
    if not log.exists():
        return None
    found = _LOGGED_IN.findall(log.read_text())
    if len(found) != 1:
        return None
    return datetime.datetime.fromisoformat(found[0]).replace(tzinfo=datetime.UTC).timestamp()


def _run(command: Sequence[str], case: Case, work: Path) -> tuple[Measured, str]:
    """What the command took, and what it has printed. Raises Failed."""
    with running(work, command) as sender:
        sent = sender.finish(case.limit)
        if sent.runs[0].status:
            raise Failed(f"exit status {sent.runs[0].status}: {sender.last_words()}")
        return sent, sender.printed()


def transfer(case: Case, peer: Peer, kit: Kit, source: Path, folder: Path, round: int) -> Figure:
    """One transfer of one peer. Raises Failed.

    On a disk what arrived stays until the case is over: ext4 takes no inode that was freed in the last minutes, and
    looks through all of them for each new file, which then costs 600 us instead of 15.
    """
    target, work = folder / f"target-{peer.name}-{round}", kit.folder / "work"
    for place in (target, work):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    (work / "server").mkdir()
    server, port = peer.serve(kit, target, work / "server", {})
    try:
        with distant(port, case.rtt, case.rate, work) as near:
            if case.again:
                undo(case, source)
                _run(peer.command(Sending(kit, source, target, port, work)), case, work / "first")
                (work / "client.log").unlink(missing_ok=True)
                change(case, source)
                server.mark()
            command = peer.command(Sending(kit, source, target, near, work))
            sent, printed = _run(command, case, work / "sender")
        received = server.stop()
    finally:
        server.close()
    small = case.bytes <= 64 << 20
    if wrong := difference(source, peer.arrived(target, source.name), content=small or round == 1):
        raise Failed(wrong)
    seconds = json.loads(printed)["seconds"] if peer.times_itself else sent.runs[0].seconds
    if not case.disk:
        shutil.rmtree(target)
    figure = Figure(round, seconds, sent.cpu, received.cpu, sent.peak, received.peak)
    if (login := _login_time(work / "client.log")) is None:
        return figure
    after = max((size for at, size in sent.resident if at >= login), default=None)
    return replace(figure, after_login=sent.runs[0].clock + seconds - login, resident_after_login=after)


def measure(
    found: Found,
    peers: Sequence[Peer],
    kit: Kit,
    places: Places,
    tell: Callable[[str], None],
    between: Callable[[int, Path], None] | None = None,
) -> None:
    """All rounds of a case, into `found`. `between` is called in each round, too: it belongs into the same minute."""
    case, taking_part = found.case, []
    for peer in peers:
        if not peer.is_asked(case):
            continue
        if why := peer.why_not(case, kit):
            found.left_out[peer.name] = why
        else:
            taking_part.append(peer)
    folder = places.disk if case.disk else places.memory
    source = make_source(case, places.memory / "source")
    try:
        for round in range(1, case.rounds + 1):
            for peer in taking_part:
                done = found.figures.setdefault(peer.name, [])
                if peer.name in found.left_out or (done and peer.crawls and done[0].seconds > _CRAWL):
                    continue
                tell(f"{case.title}: round {round} of {case.rounds}, {peer.title}")
                try:
                    done.append(transfer(case, peer, kit, source, folder, round))
                except Failed as problem:
                    found.left_out[peer.name] = f"failed in round {round}: {problem}"
            if between is not None:
                tell(f"{case.title}: round {round} of {case.rounds}, the ceiling")
                between(round, source)
    finally:
        shutil.rmtree(places.memory / "source", ignore_errors=True)
        for target in folder.glob("target-*"):
            shutil.rmtree(target, ignore_errors=True)
    if case.base not in found.figures:
        found.left_out.setdefault(case.base, "not named")
