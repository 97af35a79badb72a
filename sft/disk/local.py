"""The client's folder for what it fetches: the same rules as on the server, with a staging area of its own.

Rules: the disk may be without hard links, owners and modes, as FAT is; there nothing can be closed to other users. The
staging area lies in the folder itself, and is removed when nothing is kept in it; a folder that was made for files
that did not arrive is removed, too. There is no quota: what is fetched is what its owner asked for.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from crypto_utils import random_bytes
from sft.common.errors import UsageError
from sft.common.names import LOCAL_PARTIAL_AREA
from sft.common.open_files import close
from sft.disk.durable import disk_errors, refusal
from sft.disk.folders import open_folder
from sft.disk.staging import TRIAL, StagingArea
from sft.disk.storage import umask_of_process
from sft.disk.user_folder import Rules, UserFolder
from sft.disk.visible_files import VisibleFiles

try:
    import fcntl
except ImportError:  # Windows, where only sending works; `sft/disk/storage.py` reports it
    fcntl = None  # type: ignore[assignment]


def open_local(base: Path, rules: Rules, may_make: bool = True) -> UserFolder:
    """A folder to fetch into; when missing it is made, if `may_make`, but none above it. Close it afterwards.

    Raises UsageError, Refused.
    """
    umask = umask_of_process()
    with contextlib.ExitStack() as opened:
        if may_make and _make(base):
            opened.callback(_remove_if_empty, base)
        visible = VisibleFiles(_open(base, may_make))
        opened.callback(close, visible.descriptor)
        with disk_errors():
            staging = _open_staging(visible.descriptor)
            opened.callback(close, staging)
            area = StagingArea(staging, visible, may_move=True, keeps_modes=_keeps_modes(staging))
        opened.callback(_remove_if_unused, area, visible.descriptor, rules.stale)
        kept = contextlib.ExitStack()
        made = UserFolder(rules, umask, visible, area, kept)
        kept.callback(opened.pop_all().close)
        return made


@contextlib.contextmanager
def look_at_local(base: Path, may_make: bool = True) -> Iterator[VisibleFiles | None]:
    """What lies in a folder that would be fetched into, and nothing is made there; None when it would be made.

    Raises UsageError, Refused, as `open_local` would.
    """
    if may_make and not os.path.lexists(base):
        if not base.parent.is_dir():
            raise _missing(base.parent)
        yield None
        return
    descriptor = _open(base, may_make)
    try:
        yield VisibleFiles(descriptor)
    finally:
        close(descriptor)


def _make(base: Path) -> bool:
    """Whether it was made now. Raises UsageError, Refused."""
    try:
        if base.is_dir():
            return False
        base.mkdir()
    except FileNotFoundError:
        raise _missing(base.parent) from None
    except (FileExistsError, NotADirectoryError) as problem:
        raise _unusable(base, problem) from None
    except OSError as problem:
        raise refusal(problem) from None
    return True


def _open(base: Path, may_make: bool) -> int:
    try:
        return os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _missing(base.parent if may_make else base) from None
    except NotADirectoryError as problem:
        raise _unusable(base, problem) from None
    except OSError as problem:
        raise refusal(problem) from None


def _missing(folder: Path) -> UsageError:
    return UsageError(f"there is no folder {folder} here", "Make it first, or name another TARGET")


def _unusable(base: Path, problem: OSError) -> UsageError:
    return UsageError(f"can't use the folder {base} here ({problem.strerror})", "Name another")


def _open_staging(visible: int) -> int:
    """The staging area, locked shared until it is closed. Raises Refused, OSError."""
    while True:
        staging = open_folder(visible, LOCAL_PARTIAL_AREA, create=0o700)
        with contextlib.suppress(OSError):  # some network disks can't lock a folder
            fcntl.flock(staging, fcntl.LOCK_SH)
        try:
            there = os.stat(LOCAL_PARTIAL_AREA, dir_fd=visible, follow_symlinks=False)
            if os.path.samestat(there, os.fstat(staging)):
                return staging
        except FileNotFoundError:
            pass
        except BaseException:
            close(staging)
            raise
        close(staging)  # another program has just removed it


def _keeps_modes(staging: int) -> bool:
    """Whether a new file belongs to its maker, and can be closed to others; on FAT neither is so."""
    name = TRIAL + random_bytes(8).hex()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:  # making the files themselves reports it
        opened.callback(close, os.open(name, flags, 0o600, dir_fd=staging))
        opened.callback(os.unlink, name, dir_fd=staging)
        state = os.stat(name, dir_fd=staging, follow_symlinks=False)
        return state.st_uid == os.geteuid() and not state.st_mode & 0o077
    return True


def _remove_if_unused(area: StagingArea, visible: int, stale: float) -> None:
    """Remove the staging area when nothing is kept in it and no other program uses it."""
    with contextlib.suppress(OSError):
        fcntl.flock(area.folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        area.sweep(stale)
        os.rmdir(LOCAL_PARTIAL_AREA, dir_fd=visible)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
