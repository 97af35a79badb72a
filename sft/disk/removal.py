"""Removing a file, a link or a folder below a user's folder, with everything that is in it.

Rules: from one open folder to the next, never through a link: a link is removed itself. Names are read and removed a
few at a time, so memory and descriptors are bounded for a folder of any size and depth, and other connections of the
account go on in between. Going through folders in which nothing is removed is paid for like listing them, because a
client can hang up on the way down and begin again. The caller's `check` is called before each step and ends the removal
by raising; what is gone by then is gone. What was counted for a quota is free as soon as it is gone. Permission bits of
folders, which senders keep there, forbid nothing to who may remove.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sft.common.errors import Code, Refused
from sft.disk.folders import state_of
from sft.disk.listing_rate import ListingRate
from sft.disk.permissions import writable
from sft.disk.quota import Allowance
from sft.disk.walking import Place

_STEP_NAMES, _STEP_SECONDS = 256, 0.1  # of one step, in which no other connection of the account publishes
_MOST_NAMES = 8192  # of folders that wait, at all depths together: each level takes half of what is left,
_LEAST_NAMES = 16  # and so many at least
_UNPAID_SECONDS = 0.01  # of processor time, since something was removed
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)
_MOST_TRIES = 3  # at a name that is another thing each time, or a folder that is filled while it is emptied


@dataclass(slots=True)
class _Level:
    """A folder that is being emptied, and names of folders in it that are to be removed next."""

    name: str
    tries: int = 0
    folders: list[str] = field(default_factory=list)


class Removal:
    """One removal; `count` is how many files, links and folders are gone so far, and `files` how many files."""

    def __init__(self, allowance: Allowance, rate: ListingRate, check: Callable[[], None]) -> None:
        self._allowance, self._rate, self._check = allowance, rate, check
        self._waiting = 0  # names of folders that wait, at all depths together
        self.count = self.files = 0

    def remove(self, name: str, folder: int, recursive: bool) -> None:
        """Remove what has that name in an open folder. Raises Refused, OSError, and what `check` does."""
        self._remove(name, folder, recursive)
        if not self.count:  # another connection was faster
            raise Refused(Code.NOT_FOUND)

    def _remove(self, name: str, folder: int, recursive: bool) -> None:
        for _ in range(_MOST_TRIES):
            there = state_of(name, folder)
            if there is None:
                raise Refused(Code.NOT_FOUND)
            if not stat.S_ISDIR(there.st_mode):
                if self._remove_file(name, folder):
                    return
            elif self._remove_folder(name, folder):
                return
            elif not recursive:
                raise Refused(Code.NOT_EMPTY)
            else:
                self._empty(name, folder)
                return
        raise Refused(Code.BUSY, why="it is another thing each time")

    def _remove_file(self, name: str, folder: int) -> bool:
        with self._allowance.removing() as gone:
            return self._unlink(name, folder, gone)

    def _unlink(self, name: str, folder: int, gone: Callable[[os.stat_result], None]) -> bool:
        """Whether it is gone; false for a folder. Inside `removing`."""
        there = state_of(name, folder)
        if there is None:
            return True
        if stat.S_ISDIR(there.st_mode):
            return False
        try:
            _in_any_folder(os.unlink, name, folder)
        except FileNotFoundError:
            return True
        except IsADirectoryError:
            return False
        gone(there)
        self.count += 1
        self.files += stat.S_ISREG(there.st_mode)
        return True

    def _remove_folder(self, name: str, folder: int) -> bool:
        """Whether it is gone; false when something is in it, or it is something else by now."""
        with self._allowance.removing() as gone:
            there = state_of(name, folder)
            if there is None:
                return True
            try:
                _in_any_folder(os.rmdir, name, folder)
            except FileNotFoundError:
                return True
            except NotADirectoryError:
                return False
            except OSError as problem:
                if problem.errno not in _NOT_EMPTY:
                    raise
                return False
            gone(there)
            self.count += 1
            return True

    # --- a folder with what is in it ---

    def _empty(self, name: str, folder: int) -> None:
        with Place(folder) as place:
            levels: list[_Level] = []
            self._enter(place, levels, _Level(name))
            began, before = self._rate.used(), self.count
            while levels:
                self._check()
                self._step(place, levels)
                now = self._rate.used()
                if self.count != before:
                    began, before = now, self.count
                elif now - began > _UNPAID_SECONDS:
                    self._rate.pay(now - began, self._check)
                    began = self._rate.used()

    def _step(self, place: Place, levels: list[_Level]) -> None:
        level = levels[-1]
        if not level.folders:
            level.folders = self._clear(place.descriptor, max((_MOST_NAMES - self._waiting) // 2, _LEAST_NAMES))
            self._waiting += len(level.folders)
        if level.folders:
            self._waiting -= 1
            self._enter(place, levels, _Level(level.folders.pop()))
        else:
            self._leave(place, levels)

    def _enter(self, place: Place, levels: list[_Level], level: _Level) -> None:
        """Go into a folder; what has taken its place meanwhile is removed."""
        try:
            place.enter(level.name)
        except Refused as problem:
            if problem.code is Code.NOT_FOUND:
                return
            if problem.code not in (Code.LINK, Code.NOT_FOLDER):
                raise
            self._remove_file(level.name, place.descriptor)
            return
        levels.append(level)

    def _leave(self, place: Place, levels: list[_Level]) -> None:
        """Go out of a folder that was empty, and remove it."""
        level = levels.pop()
        place.leave()
        if self._remove_folder(level.name, place.descriptor):
            return
        level.tries += 1
        if level.tries >= _MOST_TRIES:
            raise Refused(Code.NOT_EMPTY, why="something is put there all the time")
        self._enter(place, levels, level)

    def _clear(self, folder: int, most: int) -> list[str]:
        """Remove all but folders from an open folder; the names of up to about `most` folders in it."""
        folders: list[str] = []
        with os.scandir(folder) as entries:
            while len(folders) < most:
                self._check()
                if not self._clear_some(folder, entries, folders):
                    break
        return folders

    def _clear_some(self, folder: int, entries: "Iterator[os.DirEntry[str]]", folders: list[str]) -> bool:
        """One step; whether there may be more."""
        until = time.monotonic() + _STEP_SECONDS
        with self._allowance.removing() as gone:
            for _ in range(_STEP_NAMES):
                entry = next(entries, None)
                if entry is None:
                    return False
                if entry.is_dir(follow_symlinks=False) or not self._unlink(entry.name, folder, gone):
                    folders.append(entry.name)
                if time.monotonic() > until:
                    break
        return True


def _in_any_folder(remove: Callable[..., None], name: str, folder: int) -> None:
    """Remove a name from an open folder, also from one that its owner may not write to. Raises OSError."""
    try:
        remove(name, dir_fd=folder)
    except PermissionError:
        with writable(folder):
            remove(name, dir_fd=folder)
