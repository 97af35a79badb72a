"""The benchmark's distant line: what goes in comes out, whatever its delay and rate. How long it takes is no matter."""

import socket
import threading
from collections.abc import Iterator

import pytest
from processes import LIMIT, content

from bench.line import Line


@pytest.fixture
def far() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT)
        yield listener


def through(far: socket.socket, rtt: float, rate: float) -> tuple[Line, socket.socket, socket.socket]:
    """A line, and both ends of one connection over it."""
    line = Line(far.getsockname(), rtt, rate)
    threading.Thread(target=line.serve, daemon=True).start()
    near = socket.create_connection(("127.0.0.1", line.port), LIMIT)
    there, _ = far.accept()
    there.settimeout(LIMIT)
    return line, near, there


def take(sock: socket.socket, into: bytearray) -> None:
    while piece := sock.recv(50_000):
        into += piece


@pytest.mark.parametrize(("rtt", "rate"), [(0.004, 5e8), (1e-6, 0.0)], ids=["limited", "unlimited"])
def test_bytes_pass_unchanged_and_in_order_both_ways_at_once(far: socket.socket, rtt: float, rate: float) -> None:
    """More than the line reads ahead, so that its ring wraps; the ends meet each other's half-close."""
    line, near, there = through(far, rtt, rate)
    sent, arrived = [content(20_000_003), content(19_999_999)], [bytearray(), bytearray()]
    with near, there:
        takers = [threading.Thread(target=take, args=pair) for pair in ((there, arrived[0]), (near, arrived[1]))]
        givers = [
            threading.Thread(target=sock.sendall, args=(data,)) for sock, data in zip((near, there), sent, strict=True)
        ]
        for thread in takers + givers:
            thread.start()
        for giver, sock in zip(givers, (near, there), strict=True):
            giver.join(LIMIT)
            sock.shutdown(socket.SHUT_WR)
        for taker in takers:
            taker.join(LIMIT)
    line.close()
    assert arrived[0] == sent[0]
    assert arrived[1] == sent[1]


def test_half_close_travels_and_the_other_way_stays_open(far: socket.socket) -> None:
    line, near, there = through(far, 0.001, 1e9)
    with near, there:
        near.sendall(b"question")
        near.shutdown(socket.SHUT_WR)
        question, answer = bytearray(), bytearray()
        take(there, question)
        there.sendall(b"answer")
        there.shutdown(socket.SHUT_WR)
        take(near, answer)
    line.close()
    assert question == b"question"
    assert answer == b"answer"


def test_broken_end_breaks_the_other_one(far: socket.socket) -> None:
    line, near, there = through(far, 0.001, 1e9)
    with near:
        near.sendall(b"x")
        assert there.recv(1) == b"x"
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        there.close()
        assert near.recv(1) == b""
    line.close()
