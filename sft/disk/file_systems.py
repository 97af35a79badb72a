"""Kinds of file systems, and functions of the C library that Python has no other way to.

Rules: a kind is the first field of fstatfs, from linux/magic.h. Nothing is opened.
"""

import contextlib
import ctypes
import sys
from collections.abc import Callable

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


def may_be_shared(descriptor: int) -> bool:
    """Whether other machines may write to the file system of an open file. Kinds that are not listed may be shared."""
    kind = kind_of(descriptor)
    return kind != UNKNOWN and kind not in _OF_ONE_MACHINE


_fstatfs = library_function("fstatfs", ctypes.c_int, ctypes.c_char_p)
