"""`python -m tests.powercut [--rounds N] [--cuts N] [--kinds ext4,xfs,btrfs] [--without files|folders|both]`."""

import argparse
import random
import secrets
import sys
import time
from collections import Counter

from claims import workplace
from machine import Call, Machine, compile_library
from machine import missing as machine_missing
from processes import Running

from powercut.disks import KINDS, enter_namespace, missing
from powercut.rounds import Figures, Round

_NEEDED = 4 << 30
_SHOWN = 20
_FLUSHES: dict[str, list[Call]] = {
    "files": ["flush"],
    "folders": ["flush folder"],
    "both": ["flush", "flush folder"],
}


def main() -> int:
    """Exit status 0: every promise held; 1: not; 2: it can't run here, and says why."""
    options = _parser().parse_args()
    kinds = options.kinds.split(",")
    if unknown := sorted(set(kinds) - set(KINDS)):
        print(f"--kinds: {', '.join(unknown)}: choose from {', '.join(KINDS)}", file=sys.stderr)
        return 2
    if why := missing(kinds) or (machine_missing() if options.without else ""):
        print(f"power can't be cut here: {why}", file=sys.stderr)
        return 2
    enter_namespace()
    seed = options.seed or secrets.token_hex(4)
    print(f"seed {seed}", flush=True)
    total = Figures()
    began = time.monotonic()
    with workplace("powercut", _NEEDED) as folder:
        library = compile_library(folder) if options.without else None
        for kind in kinds:
            for number in range(1, options.rounds + 1):
                place = folder / f"{kind} {number}"
                machine = None
                if library is not None:
                    machine = Machine(library, folder / "control", place / "disk")
                    for call in _FLUSHES[options.without]:
                        machine.lie(call)
                chance = random.Random(f"{seed} {kind} {number}")  # noqa: S311 -- nothing secret comes from it
                try:
                    figures = Round(kind, place, chance, machine).run(options.cuts)
                finally:
                    Running.kill_all()
                print(f"{kind}, round {number}: {_shown(figures)}", flush=True)
                total.add(figures)
    print(f"{_shown(total)}, in {time.monotonic() - began:.0f} s")
    return 1 if total.wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.powercut", description="Cut the power under a server and its clients.")
    parser.add_argument("--rounds", type=int, default=2, help="on each kind of file system")
    parser.add_argument("--cuts", type=int, default=4, help="in each round")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", default="")
    parser.add_argument("--without", choices=list(_FLUSHES), help="let these flushes do nothing: this must then fail")
    return parser


def _shown(figures: Figures) -> str:
    wrong = figures.wrong or []
    counts = Counter(line.partition(":")[0] for line in wrong)
    verdict = ", ".join(f"{count} {what}" for what, count in counts.items()) or "nothing lost"
    lines = "".join(f"\n    {line}" for line in sorted(wrong)[:_SHOWN])
    return (
        f"{figures.cuts} cuts, {figures.receipts} receipts, {figures.checked} files checked,"
        f" {figures.resumed} resumed: {verdict}{lines}"
    )


if __name__ == "__main__":
    sys.exit(main())
