"""Can a login's answers be told apart by their times? `make timing` measures; no test depends on what it finds.

Two kinds of login are run in turns, in a random order, against a real server on this machine: a known and an unknown
user, both with a wrong password, from the server's sight of the hello to ServerHello and from its sight of the share to
confirmV; then a wrong and the right password, when the throttle refuses both. For each the Mann-Whitney U test says how
likely ranks as uneven as these are when there is no difference. Below 0.001 the times reveal something; a value such as
0.04 comes by chance once in 25 measurements.

Each run comes from a source of its own, so that the throttle does not get in the way. The client computes while nobody
looks at the clock. Rules: it imports no module of the project, and is not part of the suite.
"""

import contextlib
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from processes import PASSWORD, USER, Server
from speaker import ClientLogin, Line

RUNS = 1000
UNKNOWN = "alise"  # as long as the other
WRONG = "some other password"

Times = dict[str, list[float]]


def source(number: int) -> str:
    """Of 127.0.0.0/8: not two runs have the same."""
    return f"127.{10 + (number >> 16)}.{(number >> 8) & 255}.{number & 255}"


def timed(line: Line, whole: bytes) -> tuple[bytes, float]:
    """Send a frame; what comes back, and after how many seconds. An end without a frame is b""."""
    begun = time.perf_counter()
    line.sock.sendall(whole)
    got = line.sock.recv(8192)
    return got, time.perf_counter() - begun


def login(port: int, where: str, user: str, password: str) -> tuple[float, float]:
    """Seconds to ServerHello, and from the share to the answer or the end."""
    with Line(port, where) as line:
        client = ClientLogin(user, password)
        hello, first = timed(line, client.hello())
        client.hear_hello(hello)
        share = client.share()
        answer, second = timed(line, share)
        if answer:
            line.send(b"\0\0\0\x20" + os.urandom(32))
        line.rest()
        return first, second


def interleaved(kinds: dict[str, Callable[[int], tuple[float, float]]], runs: int) -> tuple[Times, Times]:
    """Run each kind `runs` times, in turns whose order is drawn anew each time."""
    first: Times = {kind: [] for kind in kinds}
    second: Times = {kind: [] for kind in kinds}
    for number in range(runs):
        for kind in random.sample(list(kinds), len(kinds)):
            one, two = kinds[kind](number)
            first[kind].append(one)
            second[kind].append(two)
    return first, second


def mann_whitney(one: list[float], two: list[float]) -> float:
    """The two-sided p value of the U test, by its normal approximation with correction for ties."""
    ranked = sorted([(value, 0) for value in one] + [(value, 1) for value in two])
    total, ties, at = 0.0, 0, 0
    while at < len(ranked):
        end = at
        while end < len(ranked) and ranked[end][0] == ranked[at][0]:
            end += 1
        total += (at + end + 1) / 2 * sum(1 for _, which in ranked[at:end] if which == 0)
        ties += (end - at) ** 3 - (end - at)
        at = end
    m, n, both = len(one), len(two), len(ranked)
    u = total - m * (m + 1) / 2
    spread = math.sqrt(m * n / 12 * (both + 1 - ties / (both * (both - 1))))
    return math.erfc(abs(u - m * n / 2) / spread / math.sqrt(2)) if spread else 1.0


def tell(what: str, times: Times) -> None:
    (name, one), (other, two) = times.items()
    medians = " ".join(f"{each}: {statistics.median(of) * 1e6:.0f} us" for each, of in ((name, one), (other, two)))
    print(f"{what}: p = {mann_whitney(one, two):.3f}   (medians {medians}; {len(one)} + {len(two)} runs)")


@contextlib.contextmanager
def served() -> Iterator[int]:
    """The port of a server that has met nobody but one who is none of ours: the first login of all is slower."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "server")
        server.add(USER)
        server.start()
        try:
            login(server.port, "127.0.0.1", "warm", WRONG)
            yield server.port
        finally:
            server.close()


def main(runs: int) -> None:
    """Measure, and print a line for each comparison. A user has 1,000 tries a day: no more runs than that."""
    with served() as port:

        def as_known(number: int) -> tuple[float, float]:
            return login(port, source(2 * number), USER, WRONG)

        def as_unknown(number: int) -> tuple[float, float]:
            return login(port, source(2 * number + 1), UNKNOWN, WRONG)

        hello, share = interleaved({"known": as_known, "unknown": as_unknown}, runs)
        tell("known or unknown user, hello to ServerHello", hello)
        tell("known or unknown user, share to confirmV   ", share)
    with served() as port:

        def throttled(password: str) -> Callable[[int], tuple[float, float]]:
            return lambda number: login(port, source(0), USER, password)

        for _ in range(20):
            throttled(WRONG)(0)
        _, end = interleaved({"wrong": throttled(WRONG), "right": throttled(PASSWORD)}, runs)
        tell("wrong or right password, both throttled     ", end)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else RUNS)
