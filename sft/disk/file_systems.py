"""Kinds of file systems, and functions of the C library that Python has no other way to.

Rules: a kind is the first field of fstatfs, from linux/magic.h. Nothing is opened.
"""

import contextlib
import ctypes
import errno
import os
import struct
import sys
from collections.abc import Callable
from typing import NamedTuple

_STATFS_SIZE = 256  # the largest struct statfs of any system has 120 bytes
UNKNOWN = -1

EXT, XFS, BTRFS, TMPFS = 0xEF53, 0x58465342, 0x9123683E, 0x01021994
# Those that one machine has for itself. FUSE is not among them, whatever is behind it.
_OF_ONE_MACHINE = frozenset(
    [
        *(EXT, XFS, BTRFS, TMPFS),
        *(0x858458F6, 0x794C7630),  # ramfs, overlayfs
        *(0x2FC12FC1, 0xF2F52010, 0xCA451A4E),  # ZFS, F2FS, bcachefs
        *(0x4D44, 0x2011BAB0, 0x7366746E),  # FAT, exFAT, NTFS
    ]
)

# statx, from linux/fcntl.h and linux/stat.h: flags, and which fields of struct statx are read.
_EMPTY_PATH, FORCE_SYNC, _DONT_SYNC = 0x1000, 0x2000, 0x4000
LINKS = 4
_STATX = struct.Struct("=I12xI116xII112x")  # mask, links, the two numbers of the device
_NO_STATX = frozenset([errno.ENOSYS, errno.EINVAL, errno.EPERM])  # an old kernel, or a sandbox that does not know it

_shared: set[int] = set()  # devices


def library_function(name: str, *arguments: object) -> Callable[..., int] | None:
    """A function of Linux's C library, whose errno `ctypes.get_errno` has; None where there is none."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            function = getattr(ctypes.CDLL(None, use_errno=True), name)
            function.argtypes, function.restype = arguments, ctypes.c_int
            return function  # type: ignore[no-any-return]
    return None


def kind_of(descriptor: int) -> int:
    """The kind of file system that an open file is on; UNKNOWN where that can't be found out."""
    state = ctypes.create_string_buffer(_STATFS_SIZE)
    if _fstatfs is None or _fstatfs(descriptor, state):
        return UNKNOWN
    return ctypes.c_ulong.from_buffer(state).value & 0xFFFFFFFF


class Statx(NamedTuple):
    """What statx says: `mask` has the bits of the fields that are there."""

    mask: int
    links: int
    device: int


def statx(descriptor: int, flags: int, wanted: int) -> Statx | None:
    """The state of an open file; None where there is no statx. Raises OSError."""
    state = ctypes.create_string_buffer(_STATX.size)
    if _statx is None:
        return None
    if _statx(descriptor, b"", _EMPTY_PATH | flags, wanted, state):
        problem = ctypes.get_errno()
        if problem in _NO_STATX:
            return None
        raise OSError(problem, os.strerror(problem))
    mask, links, major, minor = _STATX.unpack(state.raw)
    return Statx(mask, links, os.makedev(major, minor))


def may_be_shared(descriptor: int) -> bool:
    """Whether other machines may write to the file system of an open file. Kinds that are not listed may be shared.

    Such a file system is asked once, because each question may go to a server: ceph-fuse takes up to a second for
    fstatfs. A device that is local now may be another one later.
    """
    try:
        state = statx(descriptor, _DONT_SYNC, 0)
    except OSError:
        return False
    if state is not None and state.device in _shared:
        return True
    kind = kind_of(descriptor)
    is_shared = kind != UNKNOWN and kind not in _OF_ONE_MACHINE
    if is_shared and state is not None:
        _shared.add(state.device)
    return is_shared


_fstatfs = library_function("fstatfs", ctypes.c_int, ctypes.c_char_p)
_statx = library_function("statx", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
