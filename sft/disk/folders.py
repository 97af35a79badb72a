"""Folders from descriptor to descriptor, never through a link: opened, looked at and flushed.

Rules: a name is opened or looked at in an open folder, so that no link can be put there between the look and the use.
What is neither a file nor a folder counts as not there. Names were judged before (`sft/common/names.py`).
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crypto_utils import new_digest
from sft.common.errors import Code, Refused
from sft.common.flushing import flush
from sft.common.names import PathParts as PathParts
from sft.common.open_files import close
from sft.disk.decisions import Existing
from sft.disk.durable import FileSystem, disk_errors

_READ_SIZE = 1 << 20
_MANY_FOLDERS = 16  # from so many on the whole file system is flushed at once, where that reports its errors
_FOLDER_FLAGS = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC"))


def open_folder(parent: int, name: str, create: int | None = None) -> int:
    """A descriptor of the folder `name` in `parent`, made with mode `create` when it is missing.

    Raises Refused (LINK, NOT_FOLDER, NOT_FOUND) and OSError.
    """
    while True:
        try:
            return os.open(name, _FOLDER_FLAGS, dir_fd=parent)
        except FileNotFoundError:
            if create is None:
                raise Refused(Code.NOT_FOUND) from None
        except OSError as problem:
            if problem.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            is_link = stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
            raise Refused(Code.LINK if is_link else Code.NOT_FOLDER) from None
        with contextlib.suppress(FileExistsError):  # another connection was faster
            os.mkdir(name, create, dir_fd=parent)


@dataclass(frozen=True, slots=True)
class FolderFlush:
    """Flushes folders below an open one.

    `above`: open folders over it, which are flushed, too; `file_system`: that of all of them, unless another one is
    mounted below.
    """

    folder: int
    above: Sequence[int]
    file_system: FileSystem

    def flush(self, paths: set[PathParts]) -> dict[PathParts, Refused]:
        """Flush the folders `paths` and all above them; those that could not be flushed, and why."""
        many = len(paths) + max(map(len, paths), default=0) >= _MANY_FOLDERS
        if many and self._are_on_it(paths) and self.file_system.flush():
            return {}
        return _flush_each(self.folder, paths, self.above)

    def _are_on_it(self, paths: set[PathParts]) -> bool:
        """Whether all of them are on the file system: another one may be mounted below."""
        try:
            devices = {os.stat("/".join(path) or ".", dir_fd=self.folder).st_dev for path in paths}
        except OSError:
            return False
        return devices == {self.file_system.device}

    def flush_from(self, descriptor: int, depth: int) -> None:
        """Flush an open folder below, and all above it, wherever they are by now. Raises OSError.

        `depth`: how deep it was when it was opened.
        """
        is_on_it = os.fstat(descriptor).st_dev == self.file_system.device
        if depth >= _MANY_FOLDERS and is_on_it and self.file_system.flush():
            return
        top, at = os.fstat(self.folder), os.dup(descriptor)
        try:
            while not os.path.samestat(state := os.fstat(at), top):
                flush(at)
                try:
                    above = os.open("..", _FOLDER_FLAGS, dir_fd=at)
                except FileNotFoundError:  # it was removed
                    break
                close(at)
                at = above
                if os.path.samestat(state, os.fstat(at)):  # the root of the system: somebody has moved it elsewhere
                    break
        finally:
            close(at)
        for each in (self.folder, *self.above):
            flush(each)


def _flush_each(folder: int, paths: set[PathParts], above: Sequence[int]) -> dict[PathParts, Refused]:
    """Each folder once. Each path is walked once, from the top, so that the cost grows with what is flushed only."""
    failed: dict[PathParts, Refused] = {}
    flushed: PathParts | None = None  # with all that lie above it
    bad: tuple[PathParts, Refused] | None = None  # a folder, and why nothing below it is safe
    for path in sorted(paths):
        if bad is not None and path[: len(bad[0])] == bad[0]:
            failed[path] = bad[1]
            continue
        common = -1 if flushed is None else _common(flushed, path)
        at, depth = -1, 0
        try:
            with disk_errors():
                at = os.dup(folder)
                if flushed is None:
                    for each in (*above, folder):
                        flush(each)
                for depth, component in enumerate(path, 1):
                    below = open_folder(at, component)
                    close(at)
                    at = below
                    if depth > common:
                        flush(at)
            flushed = path
        except Refused as problem:
            failed[path], bad = problem, (path[:depth], problem)
            flushed = path[: depth - 1] if depth else None
        finally:
            if at >= 0:
                close(at)
    return failed


def _common(one: PathParts, two: PathParts) -> int:
    """How many folders from the top on two paths have in common."""
    return next(
        (at for at, (mine, yours) in enumerate(zip(one, two, strict=False)) if mine != yours), min(len(one), len(two))
    )


def state_of(name: str, folder: int) -> os.stat_result | None:
    """The state of what has that name in `folder`; None when nothing has."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def existing_of(there: os.stat_result | None, size: int | None) -> Existing:
    """What `there` is to a file of that size."""
    if there is None:
        return Existing.NOTHING
    if stat.S_ISDIR(there.st_mode):
        return Existing.FOLDER
    if stat.S_ISLNK(there.st_mode):
        return Existing.LINK
    if not stat.S_ISREG(there.st_mode):
        return Existing.SPECIAL
    return Existing.SAME_SIZE if there.st_size == size else Existing.OTHER


@dataclass(frozen=True, slots=True)
class Seen:
    """A visible file, folder or link. `size` in bytes, 0 for all but files; `mtime` in ns.

    `leads_to`: what a link says; None for all else.
    """

    path: PathParts
    is_folder: bool
    size: int
    mtime: int
    mode: int
    leads_to: str | None = None


def as_seen(path: PathParts, state: os.stat_result) -> Seen | None:
    """`state` as a Seen; None for what is neither a file nor a folder."""
    is_folder = stat.S_ISDIR(state.st_mode)
    if not is_folder and not stat.S_ISREG(state.st_mode):
        return None
    mode = stat.S_IMODE(state.st_mode) & 0o777
    return Seen(path, is_folder, 0 if is_folder else state.st_size, state.st_mtime_ns, mode)


@dataclass(frozen=True, slots=True)
class ExistingFile:
    """A visible file of the announced size, open for reading: perhaps it is the file that was announced."""

    descriptor: int
    size: int

    def digest(self, goes_on: Callable[[], bool] = lambda: True) -> bytes:
        """Its SHA-256; anything once `goes_on()` is false. May be called once, and closes it. Raises Refused."""
        running, buffer = new_digest(), bytearray(_READ_SIZE)
        with disk_errors(), os.fdopen(self.descriptor, "rb", buffering=0) as file:
            while (count := file.readinto(buffer)) and goes_on():
                running.update(memoryview(buffer)[:count])
            flush(file.fileno())  # a receipt for "already there" promises that it is on the disk
        return running.digest()
