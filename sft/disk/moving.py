"""Moving a file or folder to another name, never in place of what has that name already.

Rules: the system does it in one step where it can. Elsewhere a file gets the new name as a second one by `link`, and
loses the old one then: a crash in between leaves both. Where there are no hard links either (a client fetches to FAT),
and for a folder, an empty one takes the name first, and is replaced: nothing is lost, but a crash in between leaves the
empty one. Names were judged before.
"""

import contextlib
import ctypes
import errno
import os
import stat
import sys
from collections.abc import Callable

from sft.common.open_files import close

# Errors of `link` where there are no hard links; FAT and exFAT on Linux give EPERM.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
_NO_SUCH_MOVE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
_WITHOUT_REPLACING = {"linux": ("renameat2", 1), "darwin": ("renameatx_np", 4)}  # RENAME_NOREPLACE, RENAME_EXCL

Move = Callable[[int, bytes, int, bytes, int], int]


def link_or_move(name: str, folder: int, new_name: str, new_folder: int) -> bool:
    """Give a file a second name that is free, or move it there if it can't have two; whether it still has the first.

    Raises FileExistsError, other OSError.
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
    """Move a file to a name that is free. Raises FileExistsError, other OSError."""
    if not _move_at_once(name, folder, new_name, new_folder):
        _take_name_and_replace(name, folder, new_name, new_folder)


def rename_new(name: str, folder: int, new_name: str, new_folder: int) -> None:
    """Give a visible file, link or folder another name that is free, on a disk with hard links.

    Raises FileExistsError, other OSError.
    """
    if _move_at_once(name, folder, new_name, new_folder):
        return
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        _take_name_and_replace_folder(name, folder, new_name, new_folder)
    else:
        os.link(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder, follow_symlinks=False)
        os.unlink(name, dir_fd=folder)


def _take_name_and_replace_folder(name: str, folder: int, new_name: str, new_folder: int) -> None:
    """An empty folder is all that a folder replaces, so what is put into it meanwhile is never lost."""
    os.mkdir(new_name, 0o700, dir_fd=new_folder)
    try:
        os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder)
    except OSError as problem:
        with contextlib.suppress(OSError):
            os.rmdir(new_name, dir_fd=new_folder)
        if problem.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new_name) from None
        raise


def _move_at_once(name: str, folder: int, new_name: str, new_folder: int) -> bool:
    """Move it in one step; False where the system can't."""
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
        close(descriptor)


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
