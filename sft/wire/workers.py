"""What all connections of a process share: worker threads for the cipher, and a pool of record buffers.

Rules: each direction of a connection may hold two buffers at any time, and more while the pool's limit allows, so that
none starves another and a process has a bound for its memory. Buffers are used again. All worker threads start at once
or none does, so no work waits for a thread that can't be started; work that the pool left undone when it was closed is
done by the thread that needs it. This module knows no socket, no key and no message.

Threads: `cipher_0`, `cipher_1`, ...: started by `Engine`, ended by `Engine.close`. They seal and open records.
Locks: `BufferPool._changed` guards the counts of the pool and of all `Buffers`. No other lock is taken under it.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

from crypto_utils import TAG_SIZE
from sft.common.errors import threads_needed
from sft.wire.protocol import HEADER_SIZE, RECORD_FRAME_LIMIT
from sft.wire.silence import LOOK_EVERY

# Implementation constants: the other end does not notice them.
SMALL_RECORD = 32 * 1024  # up to this size a record is worth neither a worker nor a pooled buffer
_BUFFER_SIZE = HEADER_SIZE + RECORD_FRAME_LIMIT
_MOST_WORKERS = 8
_ALWAYS = 2  # buffers that each direction may hold, whatever the others have


class BufferPool:
    """The record buffers of a process, with a limit for all together."""

    def __init__(self, size: int) -> None:
        """`size` in bytes."""
        self.most = max(1, size // _BUFFER_SIZE)
        self.taken = 0
        self.spare: list[bytearray] = []
        self.changed = threading.Condition()


class Buffers:
    """The buffers that one direction of one connection holds."""

    def __init__(self, pool: BufferPool, most: int) -> None:
        self._pool, self._most = pool, most
        self.held = 0
        self._has_ended = False

    def take(self, look: Callable[[], None] = lambda: None) -> bytearray | None:
        """A buffer, waiting until there may be one more; None once this has ended.

        `look` is called every few seconds meanwhile, and may raise.
        """
        pool = self._pool
        with pool.changed:
            while not self._has_ended:
                if self.held < _ALWAYS or (self.held < self._most and pool.taken < pool.most):
                    self.held += 1
                    pool.taken += 1
                    return pool.spare.pop() if pool.spare else bytearray(_BUFFER_SIZE)
                pool.changed.wait(LOOK_EVERY)
                look()
            return None

    def give_back(self, buffer: bytearray) -> None:
        """Return a buffer; the pool keeps it for the next one while its limit allows."""
        pool = self._pool
        with pool.changed:
            self.held -= 1
            pool.taken -= 1
            if len(pool.spare) + pool.taken < pool.most and len(pool.spare) < 2 * _MOST_WORKERS:
                pool.spare.append(buffer)
            pool.changed.notify_all()

    def end(self) -> None:
        """Wake the thread that waits in `take`; it gets no more buffers."""
        with self._pool.changed:
            self._has_ended = True
            self._pool.changed.notify_all()


class Engine:
    """The worker threads and the buffer pool of a process."""

    def __init__(self, memory: int) -> None:
        """`memory` in bytes, for the buffers. Raises NoThread."""
        self.workers = min(_MOST_WORKERS, max(2, os.cpu_count() or 2))
        self.buffer_pool = BufferPool(memory)
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

    def buffers(self) -> Buffers:
        """For one direction: one to be filled, one for each worker, and as many again to wait in line."""
        return Buffers(self.buffer_pool, 2 * self.workers + 2)

    def close(self) -> None:
        """Let the worker threads end."""
        self.pool.shutdown(wait=False, cancel_futures=True)


class Record:
    """A record in the buffer in which it is sealed or opened: header, text, tag, back to back. Nothing is copied."""

    __slots__ = ("_buffers", "_future", "_work", "buffer", "number", "size")

    def __init__(
        self, number: int, size: int, work: Callable[["Record"], None], buffer: bytearray, buffers: Buffers | None
    ) -> None:
        """`size` in bytes of its text; `work` seals or opens it; `buffers`: where the buffer came from."""
        self.number, self.size, self.buffer = number, size, buffer
        self._work, self._buffers = work, buffers
        self._future: Future[None] | None = None

    def start(self, engine: Engine) -> None:
        """Let a worker begin, if the record is large and the engine is not closed."""
        if self.size > SMALL_RECORD:
            with contextlib.suppress(RuntimeError):
                self._future = engine.pool.submit(self._work, self)

    def finish(self) -> None:
        """Wait for the worker, or do the work here when none has done it. Raises what the work raises."""
        if self._future is not None:
            with contextlib.suppress(CancelledError):
                self._future.result()
                return
        self._work(self)

    def release(self) -> None:
        """Give the buffer back once no worker touches it any more. Never raises, and may be called again."""
        if self._future is not None and not self._future.cancel():
            self._future.exception()  # waits for it
        if self._buffers is not None:
            self._buffers.give_back(self.buffer)
            self._buffers = None

    def header(self) -> bytes:
        return bytes(self.buffer[:HEADER_SIZE])

    def text(self) -> memoryview:
        return memoryview(self.buffer)[HEADER_SIZE : HEADER_SIZE + self.size]

    def tag(self) -> memoryview:
        return memoryview(self.buffer)[HEADER_SIZE + self.size : HEADER_SIZE + self.size + TAG_SIZE]

    def whole(self) -> memoryview:
        return memoryview(self.buffer)[: HEADER_SIZE + self.size + TAG_SIZE]
