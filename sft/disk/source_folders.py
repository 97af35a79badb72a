"""The open folders from which a client's files are found and read, and folders by their paths where there are none.

Rules: however deep or wide a tree is, few are open at a time: the others are reached again from the nearest open one
above, and never through a link, unless links are followed. Where folders have no descriptors (Windows) links are looked
for just before each opening, which leaves a moment between the two.
"""

import errno
import os
from collections import OrderedDict
from typing import TypeVar

from sft.common.names import PathParts
from sft.common.open_files import close
from sft.disk.sources import OPEN_FLAGS

_MOST_OPEN = 32  # of the folders that were named, and as many of those below; macOS gives a process 256 descriptors
HAVE_DESCRIPTORS = {os.open, os.stat} <= os.supports_dir_fd and os.listdir in os.supports_fd
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
FOLDER_FLAGS = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_DIRECTORY", "O_CLOEXEC"))
PASSED_FLAGS = FOLDER_FLAGS | getattr(os, "O_PATH", 0)  # a folder of which one name is used: it need not be readable
_UNFOLLOWED = OPEN_FLAGS | _NOFOLLOW
_Key = TypeVar("_Key")

Top = tuple[str, int]  # a folder that the user named, and the flags to open it with
Place = tuple[Top, PathParts]  # a folder below it, reached through links only with `follow`


class Folders:
    """The open folders of all trees of one run. Its methods raise OSError, and are not safe to use from two threads.

    `name` is in the folder at `place`.
    """

    def __init__(self) -> None:
        self._tops: OrderedDict[Top, int] = OrderedDict()
        self._below: OrderedDict[Place, int] = OrderedDict()
        self._identities: dict[Top, tuple[int, int]] = {}
        self._last: Place | None = None  # mostly the next file lies in the same folder
        self._last_descriptor = -1

    def open_named(self, top: Top) -> None:
        """Open a named folder; from now on any other folder at its path is an error."""
        self._open_top(top)

    def state(self, place: Place, name: str, follow: bool) -> os.stat_result:
        """The state of `name`."""
        folder = self._last_descriptor if self._last == place else self._folder(place, follow)
        return os.stat(name, dir_fd=folder, follow_symlinks=follow)

    def names(self, place: Place, follow: bool) -> list[str]:
        """The names in that folder."""
        return os.listdir(self._folder(place, follow))

    def read_link(self, place: Place, name: str) -> str:
        """What the link `name` says."""
        folder = self._last_descriptor if self._last == place else self._folder(place, False)
        return os.readlink(name, dir_fd=folder)

    def open(self, place: Place, name: str, follow: bool) -> int:
        """A descriptor to read the file `name`."""
        folder = self._last_descriptor if self._last == place else self._folder(place, follow)
        return os.open(name, OPEN_FLAGS if follow else _UNFOLLOWED, dir_fd=folder)

    def _folder(self, place: Place, follow: bool) -> int:
        descriptor = self._reach(*place, follow)
        self._last, self._last_descriptor = place, descriptor
        return descriptor

    def _reach(self, top: Top, parts: PathParts, follow: bool) -> int:
        """From the nearest folder above it that is open."""
        depth = len(parts)
        while depth and (top, parts[:depth]) not in self._below:
            depth -= 1
        descriptor = self._used(self._below, (top, parts[:depth])) if depth else self._open_top(top)
        for depth in range(depth + 1, len(parts) + 1):  # noqa: B020 -- from there on
            descriptor = os.open(
                parts[depth - 1], FOLDER_FLAGS if follow else FOLDER_FLAGS | _NOFOLLOW, dir_fd=descriptor
            )
            self._keep(self._below, (top, parts[:depth]), descriptor)
        return descriptor

    def _open_top(self, top: Top) -> int:
        if top in self._tops:
            return self._used(self._tops, top)
        descriptor = os.open(*top)
        state = os.fstat(descriptor)
        identity = (state.st_dev, state.st_ino)
        if self._identities.setdefault(top, identity) != identity:
            close(descriptor)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        self._keep(self._tops, top, descriptor)
        return descriptor

    @staticmethod
    def _used(opened: OrderedDict[_Key, int], key: _Key) -> int:
        opened.move_to_end(key)
        return opened[key]

    def _keep(self, opened: OrderedDict[_Key, int], key: _Key, descriptor: int) -> None:
        """Remember an open folder, and close the one that was not used for the longest time."""
        opened[key] = descriptor
        if len(opened) > _MOST_OPEN:
            self._last = None
            close(opened.popitem(last=False)[1])


class FoldersByPath:
    """The same where folders have no descriptors."""

    def open_named(self, top: Top) -> None:
        pass

    def state(self, place: Place, name: str, follow: bool) -> os.stat_result:
        return os.stat(os.path.join(place[0][0], *place[1], name), follow_symlinks=follow)

    def names(self, place: Place, follow: bool) -> list[str]:
        return os.listdir(self._path(*place, follow))

    def read_link(self, place: Place, name: str) -> str:
        return os.readlink(os.path.join(self._path(*place, False), name))

    def open(self, place: Place, name: str, follow: bool) -> int:
        return os.open(self._path(place[0], (*place[1], name), follow), OPEN_FLAGS)

    def _path(self, top: Top, parts: PathParts, follow: bool) -> str:
        path = top[0]
        for part in parts:
            path = os.path.join(path, part)
            if not follow and os.path.islink(path):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return path
