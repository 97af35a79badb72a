"""A visible name for a file on a disk without hard links: it is moved there, never into the place of another.

Rules: the system does it in one step where it can. Elsewhere the name is taken first, by an empty file of ours, which
the other then replaces: nobody loses a file, but a crash in between leaves the empty one. Only for a folder of our own;
a receiver's has hard links. It judges no name.
"""

import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Callable

# What systems say of a link where there are none; FAT and exFAT on Linux say EPERM.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
_NO_SUCH_MOVE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
_WITHOUT_REPLACING = {"linux": ("renameat2", 1), "darwin": ("renameatx_np", 4)}  # RENAME_NOREPLACE, RENAME_EXCL

Move = Callable[[int, bytes, int, bytes, int], int]


def link_or_move(name: str, folder: int, new_name: str, new_folder: int) -> bool:
    """Give a file of ours a second name that is free, or where that can't be move it there; whether it has the first.

    Raises FileExistsError and other OSError.
    """
    try:
        os.link(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder, follow_symlinks=False)
    except OSError as problem:
        if problem.errno not in _NO_LINKS:
            raise
        move_new(name, folder, new_name, new_folder)
        return False
    return True


def move_new(name: str, folder: int, new_name: str, new_folder: int) -> None:
    """Move a file of ours to a name that is free. Raises FileExistsError and other OSError."""
    if not _move_at_once(name, folder, new_name, new_folder):
        _take_name_and_replace(name, folder, new_name, new_folder)


def _move_at_once(name: str, folder: int, new_name: str, new_folder: int) -> bool:
    """False where that can't be."""
    if _move is None:
        return False
    flag = _WITHOUT_REPLACING[sys.platform][1]
    if _move(folder, os.fsencode(name), new_folder, os.fsencode(new_name), flag) == 0:
        return True
    problem = ctypes.get_errno()
    if problem in _NO_SUCH_MOVE:
        return False
    raise OSError(problem, os.strerror(problem), new_name)


def _take_name_and_replace(name: str, folder: int, new_name: str, new_folder: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(new_name, flags, 0o600, dir_fd=new_folder)
    try:
        os.replace(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder)
    except BaseException:
        with contextlib.suppress(OSError):
            there = os.stat(new_name, dir_fd=new_folder, follow_symlinks=False)
            if os.path.samestat(there, os.fstat(descriptor)):
                os.unlink(new_name, dir_fd=new_folder)
        raise
    finally:
        os.close(descriptor)


def _find() -> Move | None:
    name, _ = _WITHOUT_REPLACING.get(sys.platform, ("", 0))
    with contextlib.suppress(OSError, AttributeError):
        if name:
            function = getattr(ctypes.CDLL(None, use_errno=True), name)
            function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
            function.restype = ctypes.c_int
            return function  # type: ignore[no-any-return]
    return None


_move = _find()
