"""Changing what is visible below a user's folder: removing, moving, and giving another time or other permission bits.

Rules: a path is judged, then walked from descriptor to descriptor, never through a link; the user's folder itself has
no path here. Moving never replaces anything, makes no path longer than one may be, and takes nothing out of a folder
that this process is removing. What a method has done is on the disk itself when it returns. Each is one
step for the system where it can be; removing a folder is one for each thing in it.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator

from sft.common.errors import Code, Refused
from sft.common.flushing import flush
from sft.common.names import MAX_DEPTH, MAX_PATH, judge_path, size_of
from sft.common.open_files import close
from sft.disk.amounts import Amount, file_of
from sft.disk.durable import disk_errors, set_time
from sft.disk.folders import FolderFlush, PathParts, open_folder, state_of
from sft.disk.listing_rate import ListingRate
from sft.disk.measuring import Measuring
from sft.disk.moving import rename_new
from sft.disk.new_folders import NewFolders
from sft.disk.permissions import file_bits, give_again, kept_folder_bits
from sft.disk.quota import NOT_TEMPORARY, Allowance
from sft.disk.removal import Removal
from sft.disk.removals import Removals
from sft.disk.staging import StagingArea
from sft.disk.visible_files import READ_FLAGS, VisibleFiles

_REPLACED = (errno.ELOOP, errno.ENXIO, errno.ENOTDIR)  # something else took the place of what was looked at


class Changes:
    """Changes one user's folder, for one connection. Every method raises Refused."""

    def __init__(
        self,
        visible: VisibleFiles,
        area: StagingArea,
        folders: NewFolders,
        flush: FolderFlush,
        allowance: Allowance,
        portable_names: bool,
        file_mode: int | None,
        umask: int,
        rate: ListingRate,
        removals: Removals,
    ) -> None:
        """`rate` and `removals` are those of the user.

        `file_mode`: permission bits for all files, instead of what the system gives by `umask`.
        """
        self._visible, self._area, self._folders, self._flush, self._allowance = (
            visible,
            area,
            folders,
            flush,
            allowance,
        )
        self._portable_names, self._file_mode, self._umask = portable_names, file_mode, umask
        self._rate, self._removals = rate, removals

    def removal(self, check: Callable[[], None]) -> Removal:
        """For one `remove`; `check` is called all the time, and ends it by raising."""
        return Removal(self._allowance, self._rate, check)

    def remove(self, path: PathParts, recursive: bool, removal: Removal) -> None:
        """Remove a file, a link (never what it leads to) or a folder, with `recursive` together with all that is in it.

        Raises Refused (NOT_FOUND, NOT_EMPTY, LINK or NOT_FOLDER above it, BUSY); what is gone by then is gone.
        """
        judge_path(path)
        with disk_errors(), self._visible.folder(path[:-1]) as folder:
            with self._removals.removing(path):
                removal.remove(path[-1], folder, recursive)
            flush(folder)

    def move(self, path: PathParts, to: PathParts, check: Callable[[], None]) -> None:
        """Move a file, a link or a folder to a free name; folders that are missing there are made.

        `check` is called all the time, and ends it by raising. Raises Refused (NOT_FOUND, EXISTS, IS_FOLDER for a name
        that a folder has, INSIDE, NAME where something in a folder would get a path that is too long, BUSY).
        """
        judge_path(path)
        judge_path(to, self._portable_names)
        if len(to) > len(path) and to[: len(path)] == path:
            raise Refused(Code.INSIDE)
        there = self._visible.state_of_path(path)
        if there is None:  # before folders are made for it
            raise Refused(Code.NOT_FOUND)
        if stat.S_ISDIR(there.st_mode) and (len(to) > len(path) or size_of(to) > size_of(path)):
            self._judge_below(path, to, check)
        with contextlib.ExitStack() as opened:
            folder, new_folder = self._allowance.try_twice(lambda: self._move(path, to, opened))
            self._allowance.forget_folders()
            with disk_errors():  # by what is open: another connection may move or remove the folders by now
                flush(folder)
                self._flush.flush_from(new_folder, len(to) - 1)

    def _judge_below(self, path: PathParts, to: PathParts, check: Callable[[], None]) -> None:
        """Raises Refused (NAME) when something in a folder would get a path that is longer than one may be."""
        with (
            disk_errors(),
            self._visible.folder(path) as folder,
            Measuring(folder, 0, check) as below,
        ):
            while below.has_more:
                self._rate.read(below.step, check)
                if len(to) + below.depth > MAX_DEPTH:
                    raise Refused(Code.NAME, why=f"something in it would be more than {MAX_DEPTH} folders deep")
                if size_of(to) + below.longest > MAX_PATH:
                    raise Refused(Code.NAME, why=f"something in it would have a path of more than {MAX_PATH} bytes")

    def _move(self, path: PathParts, to: PathParts, opened: contextlib.ExitStack) -> tuple[int, int]:
        """The folders that it was in and is in, which `opened` closes."""
        with disk_errors(), self._allowance.moving():
            folder = self._visible.open_folder(path[:-1])
            opened.callback(close, folder)
            new_folder = self._folders.open(to[:-1])
            opened.callback(close, new_folder)
            try:
                with self._removals.moving(path, to):
                    rename_new(path[-1], folder, to[-1], new_folder)
            except FileExistsError:
                there = state_of(to[-1], new_folder)
                is_folder = there is not None and stat.S_ISDIR(there.st_mode) and path != to
                raise Refused(Code.IS_FOLDER if is_folder else Code.EXISTS) from None
            except FileNotFoundError:
                raise Refused(Code.NOT_FOUND) from None
            except OSError as problem:
                if problem.errno != errno.EINVAL:
                    raise
                raise Refused(Code.INSIDE) from None  # by another spelling of its name
        return folder, new_folder

    def set(self, path: PathParts, mtime: int | None, mode: int | None, is_durable: bool = True) -> bool:
        """Give a file or folder that time and those bits, as one that arrives gets them; None leaves them.

        Whether the disk can hold the time. `is_durable`: it is on the disk itself then. Raises Refused (NOT_FOUND,
        LINK).
        """
        judge_path(path)
        with disk_errors(), self._visible.folder(path[:-1]) as folder, _opened(path[-1], folder) as descriptor:
            if mode is not None:
                if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                    give_again(folder, descriptor, kept_folder_bits(mode), self._umask)
                else:
                    umask = self._umask if self._file_mode is None else 0
                    give_again(folder, descriptor, file_bits(mode, self._file_mode), umask)
            has_time = set_time(descriptor, mtime)
            if is_durable:
                flush(descriptor)
        return has_time

    def used(self, check: Callable[[], None]) -> Amount:
        """What is used, and counts for a quota: all that is visible, and what is kept of interrupted transfers.

        Without a quota it is counted now, folder by folder, and `check` is called all the time.
        """
        with disk_errors():
            used = self._allowance.used()
            if used is None:
                with Measuring(self._visible.descriptor, file_of(0).bytes, check) as measuring:
                    while measuring.has_more:
                        self._rate.read(measuring.step, check)
                kept = [file_of(size) for size in self._area.sizes_of_ownerless(NOT_TEMPORARY)]
                used = sum(kept, measuring.amount)
        return used

    def free(self) -> int | None:
        """Bytes of the disk that may still be used, whatever the quota; None when the system does not tell."""
        with contextlib.suppress(OSError):
            return self._allowance.free
        return None


@contextlib.contextmanager
def _opened(name: str, folder: int) -> Iterator[int]:
    """A descriptor of a file or folder in an open folder. Raises Refused (NOT_FOUND, LINK), OSError."""
    there = state_of(name, folder)
    if there is not None and stat.S_ISLNK(there.st_mode):
        raise Refused(Code.LINK)
    if there is not None and stat.S_ISDIR(there.st_mode):
        descriptor = open_folder(folder, name)
    elif there is not None and stat.S_ISREG(there.st_mode):
        descriptor = _open_file(name, folder)
    else:
        raise Refused(Code.NOT_FOUND)
    try:
        yield descriptor
    finally:
        close(descriptor)


def _open_file(name: str, folder: int) -> int:
    """Raises Refused (NOT_FOUND) when it is something else by now, OSError."""
    try:
        descriptor = os.open(name, READ_FLAGS, dir_fd=folder)
    except OSError as problem:
        if isinstance(problem, FileNotFoundError) or problem.errno in _REPLACED:
            raise Refused(Code.NOT_FOUND) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        close(descriptor)
        raise Refused(Code.NOT_FOUND)
    return descriptor
