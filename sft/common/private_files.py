"""Opens the program's own files: accounts, logs, journals, ledgers. No other user may have access to them.

Rules: no link is followed at the end of the path, and opening never blocks. The file must be a regular one, must belong
to the user that runs the program, and be closed to other users; a new one is made so. Where a system has no such owners
and modes (Windows), only the kind is checked. Nothing is read or written here.
"""

import errno
import os
import re
import stat
from pathlib import Path

from sft.common.errors import UsageError

_FLAGS = sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"))
_PRIVATE = 0o600
# What bytes on their way are called, those that are just about to replace a file included.
_PARTIAL = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{16}|small-[0-9a-f]{32}")
HIDDEN_LINK = "link-"  # a symbolic link that is just about to take the place of another thing; nothing follows it
_HIDDEN_LINK = re.compile(HIDDEN_LINK + r"[0-9a-f]{32}")


def open_private(path: Path, flags: int, what: str = "", folder: int | None = None, keeps_modes: bool = True) -> int:
    """A descriptor of a file of ours, with mode 0600 when it is made now. Raises OSError, UsageError.

    `what` is what a person calls it, its path unless given. `folder`: a descriptor that a relative `path` starts from.
    Where the disk `keeps_modes` of nobody, only the kind of the file is judged.
    """
    what = what or str(path)
    try:
        descriptor = os.open(path, flags | _FLAGS, _PRIVATE, dir_fd=folder)
    except OSError as problem:
        if problem.errno in (errno.ELOOP, errno.EMLINK):
            raise UsageError(
                f"{what} is a symbolic link", "Name the file itself, or remove the link; links are never followed"
            ) from None
        if problem.errno in (errno.EISDIR, errno.ENXIO):  # ENXIO: a FIFO that nobody reads, a socket
            raise UsageError(f"{what} is not a regular file", "Remove it, or name another") from None
        raise
    try:
        check_private(path, os.fstat(descriptor), what, keeps_modes=keeps_modes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_private(path: Path, found: os.stat_result, what: str, closed: bool = True, keeps_modes: bool = True) -> None:
    """Raises UsageError unless `found`, the state of `path`, is that of a file of ours, `closed` to everybody else."""
    if not stat.S_ISREG(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a regular file"
        raise UsageError(f"{what} is {kind}", "Remove it, or name another")
    if keeps_modes:
        _check_owner(path, found, what, closed)


def _check_owner(path: Path, found: os.stat_result, what: str, closed: bool = True) -> None:
    if not hasattr(os, "geteuid"):
        return
    if found.st_uid != os.geteuid():
        raise UsageError(
            f"{what} belongs to another user (uid {found.st_uid})",
            "Run this as that user, or give it to yourself with chown",
        )
    if closed and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise UsageError(f"{what} is open to other users", f"Close it with: chmod {mode} {path}")


def check_area(place: Path) -> None:
    """Raises UsageError unless a folder, the folders in it and the files in those are ours alone, and no links.

    But for links of the hidden names that received ones have for a moment.

    The bytes of a partial file may have the mode that they will be published with: nobody else reaches them there.
    """
    pending = [(place, 2)]
    while pending:
        path, depth = pending.pop()
        try:
            found = path.lstat()
            if depth and stat.S_ISDIR(found.st_mode):
                _check_owner(path, found, str(path))
                pending += [(path / name, depth - 1) for name in sorted(os.listdir(path), reverse=True)]
            elif stat.S_ISLNK(found.st_mode) and not depth and _HIDDEN_LINK.fullmatch(path.name):
                _check_owner(path, found, str(path), closed=False)
            else:
                check_private(path, found, str(path), closed=not _PARTIAL.fullmatch(path.name))
        except FileNotFoundError:
            continue  # another process has just removed it
        except OSError as problem:
            raise UsageError(f"can't look at {path} ({problem.strerror})", "Repair it, or remove it") from None


def make_private_folder(path: str) -> None:
    """Make a folder of the program's own, closed to other users, unless it is there. Raises UsageError."""
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except OSError as problem:
        raise UsageError(f"can't make the folder {path} ({problem.strerror})", "Correct the folder above it") from None
