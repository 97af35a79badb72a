"""Files that several machines read and write: what another one has written is seen, and what we have written is.

Rules: where machines share a file system, a lock makes no kernel forget what it has cached of a file. So the cache is
dropped before each read under a lock, and what was written is flushed before the lock is released. Where a machine has
its file system for itself neither is done. It opens nothing.
"""

import ctypes
import errno
import os

from sft.common.flushing import flush
from sft.disk.file_systems import library_function, may_be_shared

_EMPTY_PATH, _FORCE_SYNC = 0x1000, 0x2000  # flags of statx, from linux/fcntl.h
_LINKS = 4  # STATX_NLINK: what is asked for, and the bit that says that it is there
_STATX_SIZE, _MASK_AT, _LINKS_AT = 256, 0, 16  # struct statx, and where in it these two are
_NO_STATX = frozenset([errno.ENOSYS, errno.EINVAL, errno.EPERM])  # an old kernel, or a sandbox that does not know it


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
    if _statx is not None and may_be_shared(descriptor):
        state = ctypes.create_string_buffer(_STATX_SIZE)
        if _statx(descriptor, b"", _EMPTY_PATH | _FORCE_SYNC, _LINKS, state):
            problem = ctypes.get_errno()
            if problem not in _NO_STATX:
                raise OSError(problem, os.strerror(problem))
        elif ctypes.c_uint32.from_buffer(state, _MASK_AT).value & _LINKS:
            return ctypes.c_uint32.from_buffer(state, _LINKS_AT).value
    return os.fstat(descriptor).st_nlink


_statx = library_function("statx", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
