"""`python -m tests.crash [--rounds N] [--seed TEXT] [--first N]`: rounds of crashes, up to the first broken promise."""

import argparse
import secrets
import sys
import time
from collections import Counter

from claims import workplace
from machine import compile_library, missing
from processes import Running

from crash.rounds import Crashes, Outcome

_NEEDED = 512 << 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.crash", description="Kill servers and clients at random stages.")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", default="")
    parser.add_argument("--first", type=int, default=1, help="the number of the first round, to repeat one")
    options = parser.parse_args()
    seed = options.seed or secrets.token_hex(4)
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with workplace("crash", _NEEDED) as folder:
        library = None if missing() else compile_library(folder)
        print(f"seed {seed}" + (f"; no round stops at a call: {missing()}" if library is None else ""), flush=True)
        crashes = Crashes(folder, seed, library)
        try:
            for number in range(options.first, options.first + options.rounds):
                try:
                    outcomes.append(crashes.round(number))
                except AssertionError as problem:
                    print(f"round {number} of seed {seed}, {crashes.plan}: {problem}")
                    print(f"again: python -m tests.crash --seed {seed} --first {number} --rounds 1")
                    raise
                print(outcomes[-1].line, flush=True)
            crashes.close()
        finally:
            Running.kill_all()
            crashes.kill()
    _report(outcomes, time.monotonic() - began)
    return 0


def _report(outcomes: list[Outcome], seconds: float) -> None:
    for title, what in (
        ("victims", Counter(each.victim for each in outcomes)),
        ("signals", Counter(each.signal for each in outcomes)),
        ("stages", Counter(each.stage for each in outcomes)),
        ("statuses of the clients", Counter(status for each in outcomes for status in each.statuses)),
    ):
        print(f"{title}: " + ", ".join(f"{name} {count}" for name, count in what.most_common()))
    claims, checked = sum(each.claims for each in outcomes), sum(each.compared for each in outcomes)
    print(
        f"{len(outcomes)} rounds in {seconds:.0f} s: {claims} claims of delivery and {checked} files checked, all true"
    )


if __name__ == "__main__":
    sys.exit(main())
