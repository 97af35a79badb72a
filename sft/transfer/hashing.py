"""Hashing for CHECK: what the receiver already has of a file, and as much of the sender's source, at the same time.

Rules: the receiver has one background thread for a connection, started for the first file that needs it. It reads no
further once the file is answered or the connection has ended; what it returns then is worth nothing. `stop` waits for
it, so that nothing is closed while it is read.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from crypto_utils import new_digest
from sft.disk.folders import ExistingFile
from sft.disk.sources import Source
from sft.disk.temporary import TemporaryFile
from sft.transfer.arriving import Arriving

if TYPE_CHECKING:
    from hashlib import _Hash

_READ_SIZE = 1 << 20


class OtherSize(Exception):
    """A source has not changed, and its content has another size than its file system says."""


def hash_source(
    source: Source, size: int, goes_on: Callable[[], bool], on_read: Callable[[int], None]
) -> "_Hash | None":
    """The hash of the first `size` bytes of a source; None once `goes_on` says no. Raises SourceError, OtherSize."""
    running, done, space = new_digest(), 0, memoryview(bytearray(_READ_SIZE))
    source.go_to(0)
    while done < size:
        piece = space[: min(_READ_SIZE, size - done)]
        if not goes_on():
            return None
        if source.read_into(piece) < len(piece):
            source.check_unchanged()
            raise OtherSize
        running.update(piece)
        done += len(piece)
        on_read(len(piece))
    return running


class Hashing:
    """The background thread of one connection's receiver."""

    def __init__(self, has_ended: Callable[[], bool]) -> None:
        """`has_ended`: whether the connection has."""
        self._has_ended = has_ended
        self._is_stopped = False
        self._thread: ThreadPoolExecutor | None = None

    def of_existing(self, arriving: Arriving, file: ExistingFile) -> "Future[bytes]":
        """The SHA-256 of a visible file, which is closed then. Raises RuntimeError when no thread can be started."""
        try:
            digest = self._started().submit(file.digest, lambda: self._goes_on(arriving))
        except RuntimeError:
            os.close(file.descriptor)
            raise
        digest.add_done_callback(lambda done: os.close(file.descriptor) if done.cancelled() else None)
        return digest

    def of_kept(self, arriving: Arriving, file: TemporaryFile, size: int) -> "Future[_Hash]":
        """The hash of the first `size` bytes that an earlier attempt left, to go on with."""
        return self._started().submit(file.digest_of_kept, size, lambda: self._goes_on(arriving))

    def stop(self) -> None:
        """Return when nothing is read any more."""
        self._is_stopped = True
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def _started(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="checking")
        return self._thread

    def _goes_on(self, arriving: Arriving) -> bool:
        """Asked by the thread between two reads."""
        return not (arriving.is_answered or self._is_stopped or self._has_ended())
