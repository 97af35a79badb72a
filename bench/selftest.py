"""Checks the line with plain TCP through it: round trip, connecting, the rate both ways, and its own ceiling.

Rules: a line that is off by more than `TOLERANCE` gives no distant figures, because they would be about the line. The
ceiling is what it passes on without delay and limit; below twice the rate that is asked for, it would eat the machine.
It corrects nothing.
"""

import socket
import statistics
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.cases import MIB
from bench.rounds import distant

TOLERANCE = 0.06
_SLACK = 0.002  # seconds, for the threads of a busy machine
_TRIPS = 5
_TRIES = 3
_TINY = 1e-9  # no delay, but a line all the same


@dataclass(frozen=True)
class LineFound:
    """Seconds and bytes per second, asked for and measured; `wrong` is empty for a good line."""

    rtt: float
    rate: float
    rtt_measured: float
    connect_measured: float
    rate_there: float
    rate_back: float
    ceiling: float
    wrong: str

    def as_json(self) -> dict[str, object]:
        """For the results."""
        return asdict(self)


class _End:
    """The far end: answers `p` with `p`, takes N bytes after `tN`, sends N bytes after `sN`."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(sock,), daemon=True).start()

    def _answer(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with sock, sock.makefile("rb", buffering=0) as lines:
                while order := lines.readline(64):
                    if order == b"p\n":
                        sock.sendall(b"p")
                    elif order[:1] == b"t":
                        sock.sendall(b"%.9f\n" % _timed_take(sock, int(order[1:])))
                    else:
                        sock.sendall(memoryview(bytes(int(order[1:]))))
        except OSError:
            pass


def _timed_take(sock: socket.socket, size: int) -> float:
    """Seconds from the first piece to the last, scaled to the whole, without any round trip."""
    room = memoryview(bytearray(MIB))
    first = left = size - sock.recv_into(room[: min(size, MIB)])
    begun = time.perf_counter()
    while left:
        got = sock.recv_into(room[: min(left, MIB)])
        if not got:
            raise ConnectionResetError
        left -= got
    return (time.perf_counter() - begun) * size / max(1, first)


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _trip(sock: socket.socket) -> float:
    begun = time.perf_counter()
    sock.sendall(b"p\n")
    sock.recv(1)
    return time.perf_counter() - begun


def _rates(port: int, size: int) -> tuple[float, float]:
    """Bytes per second there and back."""
    with _connect(port) as sock:
        sock.sendall(b"t%d\n" % size)
        sock.sendall(memoryview(bytes(size)))
        with sock.makefile("rb") as lines:
            there = float(lines.readline())
    with _connect(port) as sock:
        sock.sendall(b"s%d\n" % size)
        return size / there, size / _timed_take(sock, size)


def judge(rtt: float, rate: float, work: Path) -> LineFound:
    """Measure a line of `rtt` seconds and `rate` bytes per second; a busy moment gets two more tries."""
    for _ in range(_TRIES):
        found = _judge(rtt, rate, work)
        if not found.wrong:
            break
    return found


def _judge(rtt: float, rate: float, work: Path) -> LineFound:
    end = _End()
    try:
        with distant(end.port, _TINY, 0.0, work) as port:
            ceiling = min(_rates(port, 256 * MIB))
        with distant(end.port, rtt, rate, work) as port:
            connects, trips = [], []
            for _ in range(_TRIPS):
                begun = time.perf_counter()
                with _connect(port) as sock:
                    _trip(sock)
                    connects.append(time.perf_counter() - begun)
                    trips.append(_trip(sock))
            there, back = _rates(port, int(rate / 2))
    finally:
        end.close()
    trip, connect = statistics.median(trips), statistics.median(connects)
    wrong = []
    if abs(trip - rtt) > rtt * TOLERANCE + _SLACK:
        wrong.append(f"a round trip takes {trip * 1000:.1f} ms instead of {rtt * 1000:.0f}")
    if abs(connect - 2 * rtt) > 2 * rtt * TOLERANCE + 2 * _SLACK:
        wrong.append(f"connecting and one round trip take {connect * 1000:.1f} ms instead of {2000 * rtt:.0f}")
    for name, measured in (("there", there), ("back", back)):
        if abs(measured - rate) > rate * TOLERANCE:
            wrong.append(f"the rate {name} is {measured / 1e6:.0f} MB/s instead of {rate / 1e6:.0f}")
    if ceiling < 2 * rate:
        wrong.append(f"it passes on {ceiling / 1e6:.0f} MB/s at most")
    return LineFound(rtt, rate, trip, connect, there, back, ceiling, "; ".join(wrong))
