"""What a partial file has already: hashed, and taken over from a file that it grew from.

    a log of 500 MB is there      its bytes are copied into the partial file, piece by piece, and hashed there
    the digests are equal         what the sender has behind them comes, and then the whole takes the log's place
    they differ                   the copy is dropped, and everything comes

Rules: what is hashed is what was copied, whatever happens to the old file meanwhile. Where the file system can share
blocks, nothing is copied. Holes stay holes. The old file is only read.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager

from crypto_utils import new_digest
from sft.common.errors import Refused
from sft.common.open_files import close
from sft.disk.folders import PathParts
from sft.disk.holes import run_at
from sft.disk.visible_files import VisibleFiles

_READ_SIZE = 1 << 20
_STEP = 16 << 20  # copied at a time, between two looks at whether it is still wanted
_LEAST = 1 << 16  # a smaller file comes again as a whole: to ask takes longer
# Other file systems, or one that can't: then it is read and written.
_NO_COPYING = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}

Prepare = Callable[[int, int], None]  # makes the bytes from a start to an end


class OldFile:
    """A visible file that a larger one is going to replace."""

    def __init__(self, visible: VisibleFiles, path: PathParts, size: int) -> None:
        self._visible, self._path, self.size = visible, path, size

    @classmethod
    def of(cls, visible: VisibleFiles, path: PathParts, size: int | None) -> "OldFile | None":
        """The file at `path`, if one of `size` bytes may have grown from it."""
        there = visible.state_of_path(path)
        if there is None or size is None or not stat.S_ISREG(there.st_mode) or not _LEAST < there.st_size < size:
            return None
        return cls(visible, path, there.st_size)

    def digest_of_copy(
        self, target: int, size: int, goes_on: Callable[[], bool], writing: Callable[[], AbstractContextManager[None]]
    ) -> "hashlib._Hash":
        """The SHA-256 over its first `size` bytes, which are in the empty file `target` then. Raises OSError.

        `writing()` is around each write, and raises when there must be none.
        """
        try:
            source = self._visible.open_file(self._path)
        except Refused:  # it is gone, or can't be read
            return new_digest()

        def copy(start: int, end: int) -> None:
            with writing():
                copy_piece(source, target, start, end)

        try:
            return digest_of_first(target, size, goes_on, copy)
        finally:
            close(source)


def digest_of_first(
    descriptor: int, size: int, goes_on: Callable[[], bool], prepare: Prepare | None = None
) -> "hashlib._Hash":
    """A running SHA-256 over the first `size` bytes that are there, as long as `goes_on()` is true. Raises OSError.

    `prepare` makes them, some at a time.
    """
    digest, at, ready = new_digest(), 0, 0
    while at < size and goes_on():
        if prepare is not None and at >= ready:
            ready = min(at + _STEP, size)
            prepare(at, ready)
        piece = os.pread(descriptor, min(_READ_SIZE, size - at), at)
        if not piece:
            break
        digest.update(piece)
        at += len(piece)
    return digest


def copy_piece(source: int, target: int, start: int, end: int) -> None:
    """Copy these bytes to the end of `target`, as many as there are. Raises OSError."""
    size = min(os.fstat(source).st_size, end)
    os.ftruncate(target, max(size, start))
    at = start
    while at < size:
        count, is_hole = run_at(source, at, size)
        count = min(count, size - at)
        at += count if is_hole else _copy(source, target, at, count) or size


def _copy(source: int, target: int, at: int, count: int) -> int:
    """How many bytes were copied; 0 when there are no more."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, count, at, at)
        except OSError as problem:
            if problem.errno not in _NO_COPYING:
                raise
    return os.pwrite(target, os.pread(source, min(count, _READ_SIZE), at), at)
