"""A distant line: passes TCP connections on, each byte half a round trip later, at a given rate each way.

    python -m bench.line HOST PORT --rtt 0.1 --rate 125000000

All connections share one line, which is full duplex: a byte leaves when the bytes before it in its direction have left,
and arrives half a round trip after that. Opening a connection costs what it costs on a real line: the far end sees it
one and a half round trips after the near end asked for it, and nothing of the near end leaves before one round trip is
over, although the local connect() returns at once. A half close travels like a byte. What is read ahead is bounded by
four times bandwidth x round trip (and 1 MiB), after which the sender has to wait; so the line is never the window that
limits, and a sender's buffers still fill up.

What it can't show: slow start, loss, jitter, reordering, packet headers, and a receiver's window that does not open far
enough. Its figures are those of a clean line whose two ends are tuned well.

Rules: bytes arrive unchanged and in order, or the connection breaks at both ends. One process of its own, with four
threads for each connection. Refuses to know any protocol above TCP.
"""

import argparse
import collections
import contextlib
import socket
import threading
import time
from collections.abc import Callable

CHUNK = 64 << 10
_MORE_AHEAD = 1 << 20
_RING_UNLIMITED = 8 << 20


class _Way:
    """One direction of the line, as all connections share it."""

    def __init__(self, rate: float) -> None:
        self._rate, self._free, self._lock = rate, 0.0, threading.Lock()

    def leave(self, size: int, ready: float) -> float:
        """When the last of `size` bytes that are ready at `ready` has left."""
        if not self._rate:
            return ready
        with self._lock:
            self._free = max(self._free, ready) + size / self._rate
            return self._free


class _Pipe:
    """One direction of one connection: a ring of bytes, and for each piece of it when it is due at the far end."""

    def __init__(self, way: _Way, delay: float, first: float, ahead: int) -> None:
        """Nothing leaves before `first`; at most `ahead` bytes are on the way."""
        self._way, self._delay, self._first = way, delay, first
        self._ring = memoryview(bytearray(ahead))
        self._used = 0
        self._due: collections.deque[tuple[int, int, float]] = collections.deque()
        self._changed = threading.Condition()
        self._broken = False

    def break_off(self) -> None:
        """Let both threads end."""
        with self._changed:
            self._broken = True
            self._changed.notify_all()

    def read(self, source: socket.socket) -> None:
        """Take bytes from `source` until its end."""
        at, size = 0, len(self._ring)
        while True:
            with self._changed:
                while self._used == size and not self._broken:
                    self._changed.wait()
                if self._broken:
                    return
                room = min(size - at, size - self._used, CHUNK)
            got = source.recv_into(self._ring[at : at + room])
            due = self._way.leave(got, max(time.monotonic(), self._first)) + self._delay
            with self._changed:
                self._used += got
                self._due.append((at, got, due))
                self._changed.notify_all()
            if not got:
                return
            at = (at + got) % size

    def write(self, target: socket.socket) -> None:
        """Give bytes to `target` when they are due; at their end, half-close it."""
        while True:
            with self._changed:
                while not self._due and not self._broken:
                    self._changed.wait()
                if self._broken:
                    return
                at, got, due = self._due.popleft()
            if (early := due - time.monotonic()) > 0:
                time.sleep(early)
            if not got:
                with contextlib.suppress(OSError):  # the far end has closed first
                    target.shutdown(socket.SHUT_WR)
                return
            target.sendall(self._ring[at : at + got])
            with self._changed:
                self._used -= got
                self._changed.notify_all()


class Line:
    """The line to one address, from any free port of this host: `port`."""

    def __init__(self, target: tuple[str, int], rtt: float, rate: float) -> None:
        """`rtt` in seconds, `rate` in bytes per second (0: no limit)."""
        self._target, self._rtt = target, rtt
        self._there, self._back = _Way(rate), _Way(rate)
        self._ahead = int(4 * rate * rtt) + _MORE_AHEAD if rate else _RING_UNLIMITED
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        # The kernel's buffer at this end is no part of a line: with its usual megabytes, a sender would not notice the
        # rate for seconds.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK)
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Pass connections on, until the listener is closed."""
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near, time.monotonic()), daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _carry(self, near: socket.socket, asked: float) -> None:
        there = _Pipe(self._there, self._rtt / 2, asked + self._rtt, self._ahead)
        back = _Pipe(self._back, self._rtt / 2, 0.0, self._ahead)
        with near:
            reader = threading.Thread(target=self._guarded, args=(there, back, near, None, there.read, near))
            reader.daemon = True
            reader.start()
            time.sleep(max(0.0, asked + 1.5 * self._rtt - time.monotonic()))
            try:
                far = socket.create_connection(self._target)
            except OSError:
                self._break(there, back, near)
                reader.join()
                return
            with far:
                for sock in (near, far):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                others = [
                    threading.Thread(target=self._guarded, args=(there, back, near, far, work, sock), daemon=True)
                    for work, sock in ((there.write, far), (back.read, far), (back.write, near))
                ]
                for thread in others:
                    thread.start()
                for thread in (reader, *others):
                    thread.join()

    def _guarded(
        self,
        there: _Pipe,
        back: _Pipe,
        near: socket.socket,
        far: socket.socket | None,
        work: Callable[[socket.socket], None],
        sock: socket.socket,
    ) -> None:
        try:
            work(sock)
        except OSError:  # one end is gone: so is the other one
            self._break(there, back, near, far)

    @staticmethod
    def _break(there: _Pipe, back: _Pipe, *socks: socket.socket | None) -> None:
        there.break_off()
        back.break_off()
        for sock in socks:
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Be a line until ended."""
    parser = argparse.ArgumentParser(prog="python -m bench.line", description="A distant line to HOST PORT.")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--rtt", type=float, required=True, help="round trip in seconds")
    parser.add_argument("--rate", type=float, default=0.0, help="bytes per second each way (0: no limit)")
    options = parser.parse_args()
    line = Line((options.host, options.port), options.rtt, options.rate)
    print(f"listening on 127.0.0.1:{line.port}", flush=True)
    line.serve()


if __name__ == "__main__":
    main()
