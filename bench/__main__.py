"""`python -m bench`: measures cases, prints the table, and writes JSON and a picture where asked to.

Rules: the order is cases, rounds, peers, so that whatever disturbs the machine disturbs all alike. Nothing of what it
makes is left, however it ends; interrupted, it tells what it has so far. Refuses the distant cases when the line is not
what it says.
"""

import argparse
import datetime
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import ceiling, figures, load, machine, picture, rounds, selftest, table
from bench.cases import CASES, EXTRA, GIB, MIB, Case, quick
from bench.jobs import HOME, Failed
from bench.peers import PEERS, Kit, make_kit

Json = dict[str, Any]
_LOADS = {"load-many": (200, MIB), "load-large": (16, 256 * MIB)}
_LOAD_ROUNDS = 3
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
_DISK = Path("/var/tmp")  # noqa: S108 - the same
_SPARE = GIB // 2
_ENOUGH = 6 * GIB  # for every case but the one that has to be named


def _parser() -> argparse.ArgumentParser:
    names = [*(case.name for case in CASES), *EXTRA]
    told = "\n".join(
        [f"  {case.name:<14}{case.title}" + (" (only when named)" if case.asked_for else "") for case in CASES]
        + [f"  {name:<14}{words}" for name, words in EXTRA.items()]
    )
    peers = "\n".join(f"  {peer.name:<14}{peer.title}" for peer in PEERS)
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures this program beside scp, rsync and others on this machine. bench/README.md explains the\n"
        "figures.",
        epilog=f"cases:\n{told}\n\npeers:\n{peers}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--case", nargs="+", choices=names, metavar="NAME", help="only these cases")
    parser.add_argument("--peer", nargs="+", choices=[peer.name for peer in PEERS], metavar="NAME", help="only these")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of every case (default: 5, of the short one 9)")
    parser.add_argument(
        "--folder", type=Path, help="where files lie: a folder on a disk to measure it (default: memory)"
    )
    parser.add_argument(
        "--disk", type=Path, default=_DISK, metavar="FOLDER", help="a folder on a disk, for many-disk (/var/tmp)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a sixteenth of everything, one round: only to see it work"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results, every single transfer, to FILE")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw them into FILE")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing: print and draw what --json wrote")
    return parser


def _tell(line: str) -> None:
    print(f"{datetime.datetime.now():%H:%M:%S} {line}", file=sys.stderr, flush=True)


class _Bench:
    """One run."""

    def __init__(self, options: argparse.Namespace, kit: Kit, places: rounds.Places, home: Path) -> None:
        self._options, self._kit, self._places = options, kit, places
        self._lines: dict[tuple[float, float], selftest.LineFound] = {}
        self.results: Json = {
            "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "complete": False,
            "quick": options.quick,
            "machine": machine.describe(home, options.disk.resolve()),
            "versions": machine.versions(),
            "lines": [],
            "cases": [],
            "loads": [],
            "left_out": {},
        }

    def run(self) -> None:
        """Everything that was asked for, one after the other."""
        asked = self._options.case
        for case in CASES:
            wanted = case.name in asked if asked else not case.asked_for
            if wanted or (case.name == "bulk" and asked and "ceiling" in asked):
                self._case(case)
        for name, (clients, size) in _LOADS.items():
            if asked is None or name in asked:
                self._load(name, clients, size)
        self.results["complete"] = True

    def _lacking(self, folder: Path, need: int) -> str:
        free = machine.free_space(folder)
        if free >= need + _SPARE:
            return ""
        return f"needs {(need + _SPARE) / GIB:.1f} GiB in {folder.parent}, where {free / GIB:.1f} are free (--folder)"

    def _case(self, case: Case) -> None:
        if self._options.quick:
            case = quick(case)
        if self._options.rounds:
            case = replace(case, rounds=self._options.rounds)
        places = self._places
        why = self._lacking(places.memory, 2 * case.stored)
        if case.disk:
            kind = machine.file_system(places.disk.resolve())
            why = f"{places.disk.parent} is no disk ({kind}); --disk names one" if kind == "tmpfs" else why
        if case.rtt and not why:
            why = self._judge(case.rtt, case.rate)
        if why:
            self.results["left_out"][case.name] = why
            return
        ceilings: dict[int, float] = {}

        def between(round: int, source: Path) -> None:
            counts = ceiling.thread_counts()
            ceilings[round] = max(ceiling.measure(threads, max(1, case.size // MIB)) for threads in counts)

        peers = [peer for peer in PEERS if not self._options.peer or peer.name in self._options.peer]
        measured = case.name == "bulk"
        found = rounds.Found(case)
        try:
            rounds.measure(found, peers, self._kit, places, _tell, between if measured else None)
        finally:
            if any(found.figures.values()):
                self.results["cases"].append(figures.case_as_json(found, ceilings))

    def _judge(self, rtt: float, rate: float) -> str:
        """Why that line can't be used; measured once."""
        if (rtt, rate) not in self._lines:
            _tell(f"the line itself: {rtt * 1000:.0f} ms, {rate / 1e6:.0f} MB/s")
            found = selftest.judge(rtt, rate, self._kit.folder / "line")
            self._lines[rtt, rate] = found
            self.results["lines"].append(found.as_json())
        wrong = self._lines[rtt, rate].wrong
        return f"the line is not what it says: {wrong}" if wrong else ""

    def _load(self, name: str, clients: int, size: int) -> None:
        count = 1 if self._options.quick else (self._options.rounds or _LOAD_ROUNDS)
        if self._options.quick:
            clients, size = max(4, clients // 16), max(MIB, size // 16)
        if why := self._lacking(self._places.memory, clients * size + 2 * size):
            self.results["left_out"][name] = why
            return
        fit = load.fitting(machine.available_memory() - (clients + 2) * size)
        if fit < clients:
            self.results["left_out"][name] = f"there is memory for {fit} clients only; so many were measured"
            clients = fit
        if clients < 2:
            return
        done = []
        try:
            for round in range(1, count + 1):
                _tell(f"server under load: round {round} of {count}")
                done.append(load.measure(clients, size, self._kit, self._places, _tell).as_json())
        except Failed as problem:
            self.results["left_out"][name] = str(problem)
        if done:
            self.results["loads"].append({"name": name, **figures.load_as_json(done)})


def _memory(quick: bool) -> Path:
    """The folder in memory, if it has enough space."""
    if _MEMORY.is_dir() and machine.free_space(_MEMORY) > (GIB if quick else _ENOUGH):
        return _MEMORY
    _tell(f"files lie in {_DISK}, because {_MEMORY} has not enough space")
    return _DISK


def _measure(options: argparse.Namespace) -> tuple[Json, bool]:
    """The results, and whether they are whole. Raises Failed."""
    home = options.folder or _memory(options.quick)
    memory = Path(tempfile.mkdtemp(prefix="bench-", dir=home))
    disk = Path(tempfile.mkdtemp(prefix="bench-", dir=options.disk))
    own = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        bench = _Bench(options, make_kit(own), rounds.Places(memory, disk), memory.resolve())
        try:
            bench.run()
        except KeyboardInterrupt:
            print("interrupted; so far:", file=sys.stderr)
        return bench.results, bench.results["complete"]
    finally:
        for folder in (memory, disk, own):
            shutil.rmtree(folder, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or read earlier results; then print them."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    if sys.platform != "linux" and not options.read:
        print("error: only Linux says what a process takes in a way that is read here. Use --read", file=sys.stderr)
        return 2
    try:
        if options.read:
            results, whole = json.loads(options.read.read_text()), True
        else:
            results, whole = _measure(options)
    except (Failed, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("\n".join(table.lines(results)))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    if options.svg and whole:  # half a picture would mislead
        options.svg.write_text(picture.draw(results))
    return 0 if whole else 130


if __name__ == "__main__":
    sys.path.insert(0, str(HOME))
    sys.exit(main())
