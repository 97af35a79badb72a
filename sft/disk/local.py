"""A folder of our own, for what is fetched: the same rules as at the receiver, and a partial area of its own.

Rules: the disk may be without hard links, owners and modes, as FAT is: there nothing can be closed to others, and
nothing is asked to be. The partial area lies in the folder itself, and goes when nothing is kept in it; a folder that
was made for what then did not arrive goes, too. It has no quota: what is fetched is what its owner asked for.
"""

import contextlib
import os
from pathlib import Path

from crypto_utils import random_bytes
from sft.common.errors import UsageError
from sft.common.names import LOCAL_PARTIAL_AREA
from sft.disk.durable import disk_errors, refusal
from sft.disk.folders import open_folder
from sft.disk.leftovers import TRIAL
from sft.disk.storage import Rules, UserFolder, umask_of_process

try:
    import fcntl
except ImportError:  # Windows, where only sending works; `sft/disk/storage.py` says so
    fcntl = None  # type: ignore[assignment]


def open_local(base: Path, rules: Rules, may_make: bool = True) -> "UserFolder":
    """A folder of our own for what is fetched; when missing it is made, if it may be, but none above it.

    Raises UsageError, Refused.
    """
    umask = umask_of_process()
    made: list[Path] = []
    try:
        if may_make and not base.is_dir():
            base.mkdir()
            made.append(base)
        visible = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        missing = base.parent if may_make else base
        raise UsageError(f"there is no folder {missing} here", "Make it first, or name another TARGET") from None
    except (FileExistsError, NotADirectoryError) as problem:
        raise UsageError(f"can't use the folder {base} here ({problem.strerror})", "Name another") from None
    except OSError as problem:
        raise refusal(problem) from None
    with disk_errors(), contextlib.ExitStack() as opened:
        opened.callback(os.close, visible)
        while True:
            partials = open_folder(visible, LOCAL_PARTIAL_AREA, create=0o700)
            folder = UserFolder(rules, umask, visible, partials, [])
            if _share(partials, visible):
                opened.callback(os.close, partials)
                folder.opened = opened.pop_all()
                folder.made = made
                folder.area.may_move, folder.area.keeps_modes = True, _keeps_modes(partials)
                return folder
            os.close(partials)  # another program has just removed it


def close_local(folder: "UserFolder") -> None:
    """Give it back; its partial area goes when nothing is kept in it, and what was made for it when nothing arrived."""
    _remove_if_unused(folder)
    folder.close()
    with contextlib.suppress(OSError):
        for place in folder.made:
            place.rmdir()


def _keeps_modes(partials: int) -> bool:
    """Whether a file here belongs to who makes it, and can be closed to others; FAT knows neither."""
    name = TRIAL + random_bytes(8).hex()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:  # the files themselves will say what is wrong
        opened.callback(os.close, os.open(name, flags, 0o600, dir_fd=partials))
        opened.callback(os.unlink, name, dir_fd=partials)
        state = os.stat(name, dir_fd=partials, follow_symlinks=False)
        return state.st_uid == os.geteuid() and not state.st_mode & 0o077
    return True


def _share(partials: int, visible: int) -> bool:
    """The partial area is in use until its descriptor is closed; False when it is not there any more."""
    with contextlib.suppress(OSError):  # not every network's disk can lock a folder
        fcntl.flock(partials, fcntl.LOCK_SH)
    try:
        there = os.stat(LOCAL_PARTIAL_AREA, dir_fd=visible, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(partials))


def _remove_if_unused(folder: "UserFolder") -> None:
    """Remove the partial area itself when nothing is kept in it and nobody else uses it."""
    with contextlib.suppress(OSError):
        fcntl.flock(folder.area.folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.area.sweep(folder.stale)
        os.rmdir(LOCAL_PARTIAL_AREA, dir_fd=folder.descriptor)
