"""Files that several machines read and write: what another one has written is seen, and what we have written is.

Rules: where machines share a file system, a lock makes no kernel forget what it has cached of a file. So the cache is
dropped before each read under a lock, and what was written is flushed before the lock is released. Where a machine has
its file system for itself neither is done. It opens nothing.
"""

import os

from sft.common.flushing import flush
from sft.disk.file_systems import FORCE_SYNC, LINKS, may_be_shared, statx


def forget_cached(descriptor: int) -> None:
    """Call before a read under a lock. Raises OSError."""
    if may_be_shared(descriptor):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def hand_on(descriptor: int) -> None:
    """Call after a write under a lock. Raises OSError."""
    if may_be_shared(descriptor):
        flush(descriptor)


def links_of(descriptor: int) -> int:
    """How many names an open file has, as the file system has it now. Raises OSError.

    A kernel may answer fstat with what it heard up to a second ago.
    """
    if may_be_shared(descriptor):
        state = statx(descriptor, FORCE_SYNC, LINKS)
        if state is not None and state.mask & LINKS:
            return state.links
    return os.fstat(descriptor).st_nlink
