"""Hashing for CHECK: what the receiver already has of a file, and as much of the sender's source, at the same time.

Rules: the receiver has one background thread for a connection, started for the first file that needs it; as long as it
can't be started, the receiver's own thread reads, and takes no message meanwhile. Nothing is read any further once the
file is answered or the connection has ended; what is returned then is worth nothing. `stop` waits for the thread, so
that nothing is closed while it is read.
"""

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from crypto_utils import new_digest
from sft.common.errors import NoThread, threads_needed
from sft.common.zeros import zeros
from sft.disk.sources import Source

if TYPE_CHECKING:  # who sends needs nothing of what receives
    from hashlib import _Hash

    from sft.disk.folders import ExistingFile
    from sft.disk.temporary import TemporaryFile
    from sft.transfer.arriving import Arriving

_READ_SIZE = 1 << 20

_Hashed = TypeVar("_Hashed")


class OtherSize(Exception):
    """A source has not changed, and its content has another size than its file system says."""


def hash_source(
    source: Source, size: int, goes_on: Callable[[], bool], on_read: Callable[[int], None]
) -> "_Hash | None":
    """The hash of the first `size` bytes of a source; None once `goes_on` says no. Raises SourceError, OtherSize."""
    running, done, space = new_digest(), 0, memoryview(bytearray(_READ_SIZE))
    source.go_to(0)
    while done < size:
        if not goes_on():
            return None
        run, is_hole = source.run()
        piece = space[: min(_READ_SIZE, size - done)]
        if is_hole:
            piece = zeros(min(run, len(piece)))
            source.skip(len(piece))
        elif source.read_into(piece) < len(piece):
            source.check_unchanged()
            raise OtherSize
        running.update(piece)
        done += len(piece)
        on_read(len(piece))
    return running


class _WhenAsked(Future[_Hashed]):
    """Work that is done by the thread that asks for the result."""

    def __init__(self, work: Callable[[], _Hashed]) -> None:
        super().__init__()
        self._work = work

    def result(self, timeout: float | None = None) -> _Hashed:
        if not self.done() and self.set_running_or_notify_cancel():
            try:
                self.set_result(self._work())
            except BaseException as problem:
                self.set_exception(problem)
        return super().result(timeout)


class Hashing:
    """The background thread of one connection's receiver."""

    def __init__(self, has_ended: Callable[[], bool]) -> None:
        """`has_ended`: whether the connection has."""
        self._has_ended = has_ended
        self._is_stopped = False
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: set[Future[bytes]] = set()  # each has a file open

    def of_existing(self, arriving: "Arriving", file: "ExistingFile") -> "Future[bytes]":
        """The SHA-256 of a visible file, which is closed then."""
        digest = self._begin(lambda: file.digest(lambda: self._goes_on(arriving)))
        self._waiting.add(digest)

        def close_if_unread(done: "Future[bytes]") -> None:
            self._waiting.discard(done)
            if done.cancelled():
                os.close(file.descriptor)

        digest.add_done_callback(close_if_unread)
        return digest

    def of_kept(self, arriving: "Arriving", file: "TemporaryFile", size: int) -> "Future[_Hash]":
        """The hash of the first `size` bytes that an earlier attempt left, to go on with."""
        return self._begin(lambda: file.digest_of_kept(size, lambda: self._goes_on(arriving)))

    def stop(self) -> None:
        """Return when nothing is read any more."""
        self._is_stopped = True
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
        for each in list(self._waiting):
            each.cancel()

    def _begin(self, work: Callable[[], _Hashed]) -> "Future[_Hashed]":
        """Let the thread do it; without one it is done where its result is asked for."""
        if self._thread is None:
            with contextlib.suppress(NoThread):
                self._thread = _started()
        return _WhenAsked(work) if self._thread is None else self._thread.submit(work)

    def _goes_on(self, arriving: "Arriving") -> bool:
        """Asked by the thread between two reads."""
        return not (arriving.is_answered or self._is_stopped or self._has_ended())


def _started() -> ThreadPoolExecutor:
    """One thread, which waits for work. Raises NoThread."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="checking")
    with threads_needed():
        try:
            thread.submit(lambda: None)
        except BaseException:
            thread.shutdown(wait=False, cancel_futures=True)
            raise
    return thread
