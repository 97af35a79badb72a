"""The disk's errors as refusals, and flushing many files at once.

Rules: nothing counts as flushed before the system has reported success. A whole file system is flushed at once only
where that reports errors: on Linux 5.8 and later (before, syncfs always succeeded), and on file systems that are known
to wait and to report (FUSE does not wait, overlayfs does not report). After an error each file is flushed by itself, so
that the one that failed is known. It opens nothing.
"""

import contextlib
import ctypes
import errno
import itertools
import os
import platform
import threading
from collections.abc import Iterable, Iterator

from sft.common.errors import Code, Refused, UsageError
from sft.common.flushing import flush
from sft.disk.file_systems import BTRFS, EXT, TMPFS, XFS, kind_of, library_function
from sft.disk.passing import PASSING_ERRORS

_TELLING = frozenset([EXT, XFS, BTRFS, TMPFS])

_NO_SUCH_TIME = frozenset([errno.EINVAL, errno.EOVERFLOW, errno.ERANGE])
_HELD_BY_ALL = 0x7FFFFFFF * 10**9  # ns: 2038, the end of ext3 and of XFS as it was
_COARSEST = 2 * 10**9  # ns, of FAT

# From so many files on, one syncfs costs less than an fsync for each: 51 to 200 us a file with 256 of them (ext4).
TOGETHER_FROM = 8


def refusal(problem: OSError) -> Refused:
    """The refusal for an error of the disk. Its `why` is for this machine's log and is not sent."""
    code = {
        errno.ENOSPC: Code.NO_SPACE,
        errno.EDQUOT: Code.NO_SPACE,
        errno.ENAMETOOLONG: Code.NAME,
        errno.EILSEQ: Code.NAME,
        errno.EFBIG: Code.TOO_LARGE,
    }.get(problem.errno or 0, Code.UNAVAILABLE if problem.errno in PASSING_ERRORS else Code.STORAGE)
    return Refused(code, why=os.strerror(problem.errno) if problem.errno else str(problem))


def refusal_of(problem: OSError | UsageError) -> Refused:
    """The refusal for an error of the disk, or for a file of ours that others can change."""
    return refusal(problem) if isinstance(problem, OSError) else Refused(Code.STORAGE, why=str(problem))


class disk_errors:
    """Inside of this, OSError and UsageError are raised as the Refused that `refusal_of` makes of them."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        if problem is not None and isinstance(problem, OSError | UsageError):
            raise refusal_of(problem) from problem


def set_time(descriptor: int, mtime: int | None) -> bool:
    """Give an open file or folder its time, in ns; whether it has it now. Raises OSError for other errors.

    Not every disk can hold every time; Linux then takes the nearest one without an error.
    """
    if mtime is None:
        return True
    try:
        os.utime(descriptor, ns=(mtime, mtime))
    except OverflowError:
        return False
    except OSError as problem:
        if problem.errno not in _NO_SUCH_TIME:
            raise
        return False
    if 0 <= mtime < _HELD_BY_ALL:
        return True
    return abs(os.fstat(descriptor).st_mtime_ns - mtime) <= _COARSEST


class FileSystem:
    """The file system of an open folder, flushed at once. The folder is opened before the first byte is written.

    The system reports an error once to each descriptor, whichever file it hit, perhaps one of the next group. So after
    the first error only each file's own flush is trusted.
    """

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._has_failed = False
        self._is_telling: bool | None = None  # not asked yet: the answer may be far away
        self.device = os.fstat(folder).st_dev

    @property
    def can_flush(self) -> bool:
        """Whether it can be flushed at once, as far as is known."""
        if self._is_telling is None:
            self._is_telling = _syncfs is not None and kind_of(self._folder) in _TELLING
        return self._is_telling and not self._has_failed

    def flush(self) -> bool:
        """Whether all that was written to it is on the disk now. Safe to use from several threads."""
        with self._lock:
            if _syncfs is None or not self.can_flush:
                return False
            self._has_failed = _syncfs(self._folder) != 0
            return not self._has_failed


def flush_all(descriptors: list[int], file_system: FileSystem) -> Iterator[OSError | None]:
    """Flush open files of one file system; for each file the error, if there was one."""
    if len(descriptors) >= TOGETHER_FROM and file_system.flush():
        return itertools.repeat(None, len(descriptors))
    return flush_each(descriptors)


def flush_each(descriptors: Iterable[int]) -> Iterator[OSError | None]:
    """Flush open files, each by itself; for each the error, if there was one."""
    for descriptor in descriptors:
        problem = None
        try:
            flush(descriptor)
        except OSError as found:
            problem = found
        yield problem


def _reports_errors() -> bool:
    """Whether this system's syncfs does."""
    release = platform.release().split(".")
    with contextlib.suppress(ValueError, IndexError):
        return (int(release[0]), int(release[1].partition("-")[0])) >= (5, 8)
    return False


_syncfs = library_function("syncfs", ctypes.c_int) if _reports_errors() else None
