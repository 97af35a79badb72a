"""What all connections of a process share: worker threads for the cipher, and a budget of record buffers.

Rules: a connection has two buffers for each direction at any time, and more while the budget allows; so none can starve
another, and the memory of a process has a bound. Buffers are used again. All threads start at once, or none: work is
never left lying for want of one. Knows no socket, no key and no message.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sft.common.errors import threads_needed
from sft.wire.protocol import HEADER_SIZE, RECORD_FRAME_LIMIT
from sft.wire.silence import LOOK_EVERY

_BUFFER_SIZE = HEADER_SIZE + RECORD_FRAME_LIMIT
_MOST_WORKERS = 8


class Budget:
    """The record buffers of a process: a limit for all together, and for each lease two at any time."""

    _ALWAYS = 2

    def __init__(self, size: int) -> None:
        """`size` in bytes."""
        self._most = max(1, size // _BUFFER_SIZE)
        self._taken = 0
        self._spare: list[bytearray] = []
        self._changed = threading.Condition()

    def take(self, lease: "Lease", look: Callable[[], None] = lambda: None) -> bytearray | None:
        """A buffer for `lease`, waiting until it may have one; None when the lease has ended.

        `look` is called every few seconds while it waits, and may raise.
        """
        with self._changed:
            while not lease.ended:
                if lease.held < self._ALWAYS or (lease.held < lease.most and self._taken < self._most):
                    lease.held += 1
                    self._taken += 1
                    return self._spare.pop() if self._spare else bytearray(_BUFFER_SIZE)
                self._changed.wait(LOOK_EVERY)
                look()
            return None

    def give_back(self, lease: "Lease", buffer: bytearray) -> None:
        """Return a buffer of `lease`; it is kept for the next one while the limit allows."""
        with self._changed:
            lease.held -= 1
            self._taken -= 1
            if len(self._spare) + self._taken < self._most and len(self._spare) < 2 * _MOST_WORKERS:
                self._spare.append(buffer)
            self._changed.notify_all()

    def end(self, lease: "Lease") -> None:
        """Wake whoever waits on `lease`; it gets no more."""
        with self._changed:
            lease.ended = True
            self._changed.notify_all()


class Lease:
    """One direction of one connection, as the budget sees it."""

    def __init__(self, most: int) -> None:
        self.held, self.most, self.ended = 0, most, False


class Engine:
    """What all connections of a process share: worker threads for the cipher, and the budget of buffers."""

    def __init__(self, memory: int) -> None:
        """`memory` in bytes. Raises NoThread."""
        self.workers = min(_MOST_WORKERS, max(2, os.cpu_count() or 2))
        self.budget = Budget(memory)
        self.pool = ThreadPoolExecutor(self.workers, thread_name_prefix="cipher")
        started = threading.Barrier(self.workers)
        with threads_needed():
            try:
                for _ in range(self.workers):
                    self.pool.submit(started.wait)  # none is idle before the last one came: each needs its own thread
            except BaseException:
                started.abort()
                self.pool.shutdown(cancel_futures=True)
                raise

    def lease(self) -> Lease:
        """Enough buffers for one to be filled, each worker's, and as many again to wait in line."""
        return Lease(2 * self.workers + 2)

    def close(self) -> None:
        """Let the worker threads end."""
        self.pool.shutdown(wait=False, cancel_futures=True)
