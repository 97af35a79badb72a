"""The files that a client sends: found by a walk, opened later, from folder to folder and never through a link.

Rules: a link that the user named is followed, once, when the walk begins. Below it links are skipped, and a link that
takes the place of a file or folder between the walk and the opening is an error; with `follow` links are followed
everywhere. However deep or wide a tree is, few folders are open at a time: the others are reached again from the
nearest open one above. Where folders have no descriptors (Windows) links are looked for just before each opening, which
leaves a moment between the two.
"""

import contextlib
import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from sft.common.errors import SourceError
from sft.common.names import MAX_DEPTH, MAX_LINK_TARGET, PathParts, is_link_target
from sft.disk.chosen import Chosen
from sft.disk.sources import OPEN_FLAGS, PERMISSIONS, FileSource, unreadable

_MOST_OPEN = 32  # of the folders that were named, and as many of those below; macOS gives a process 256 descriptors
_HAS_FOLDER_DESCRIPTORS = {os.open, os.stat} <= os.supports_dir_fd and os.listdir in os.supports_fd
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_DIRECTORY", "O_CLOEXEC"))
_PASSED = _FOLDER | getattr(os, "O_PATH", 0)  # a folder of which one name is used: it need not be readable
_REPLACED = (
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EMLINK,
    errno.ESTALE,
)  # errors of the systems for a link that is not followed

_EVERYTHING = Chosen()
_UNFOLLOWED = OPEN_FLAGS | _NOFOLLOW
_Key = TypeVar("_Key")

Top = tuple[str, int]  # a folder that the user named, and the flags to open it with
Place = tuple[Top, PathParts]  # a folder below it, reached through links only with `follow`


class Found(NamedTuple):
    """A file, folder or link at or below a named source.

    `parts`: its path below the source, empty for the source itself; `mtime` in ns; `identity`: its device and inode.
    `leads_to`: what a link says, if links are kept; else None.
    """

    path: str
    parts: PathParts
    is_folder: bool
    size: int
    mtime: int
    mode: int
    identity: tuple[int, int]
    leads_to: str | None = None


class Skipped(NamedTuple):
    """Something that is not sent, and why. It is not a failure. `parts`: its path below the source, if it matters."""

    path: str
    why: str
    is_source: bool = False
    parts: PathParts = ()


class Excluded(NamedTuple):
    """Something that a pattern leaves out. It is no failure, and nothing below it was looked at.

    `parts`: its path below the source.
    """

    path: str
    parts: PathParts
    is_folder: bool


Walked = Found | Skipped | Excluded | SourceError


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
            descriptor = os.open(parts[depth - 1], _FOLDER if follow else _FOLDER | _NOFOLLOW, dir_fd=descriptor)
            self._keep(self._below, (top, parts[:depth]), descriptor)
        return descriptor

    def _open_top(self, top: Top) -> int:
        if top in self._tops:
            return self._used(self._tops, top)
        descriptor = os.open(*top)
        state = os.fstat(descriptor)
        identity = (state.st_dev, state.st_ino)
        if self._identities.setdefault(top, identity) != identity:
            os.close(descriptor)
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
            os.close(opened.popitem(last=False)[1])


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


class _Level(NamedTuple):
    """A folder that the walk is in. `names`: those to come, the next one last. `start`: what a path in it begins with.

    `above`: the folder and those over it, for links that lead back.
    """

    place: Place
    start: str
    names: list[str]
    above: frozenset[tuple[int, int]]


class Tree:
    """One source that the user named, and what lies below it."""

    def __init__(
        self, name: str, follow: bool, folders: Folders, chosen: Chosen = _EVERYTHING, links: bool = False
    ) -> None:
        """`folders` is shared by the trees of one run. `chosen`: what is taken of it.

        `links`: links are kept as links, also one that is named.
        """
        self.name, self._chosen, self._links = name, chosen, links
        self._excludes = chosen.exclusions.is_excluded if chosen.exclusions else None
        self._follow, self._folders = follow, folders if _HAS_FOLDER_DESCRIPTORS else FoldersByPath()
        self._top: Top = (name, _FOLDER)
        self._is_link = False  # the name itself, when it is a file's
        self._device = 0  # of the source

    def walk(self) -> Iterator[Walked]:
        """What is there, folders before their content, names in order."""
        levels: list[_Level] = []  # the folders that the walk is in
        above: frozenset[tuple[int, int]] = frozenset()
        try:
            if self._links and stat.S_ISLNK((link := os.lstat(self.name)).st_mode):
                yield _link(self.name, (), link, os.readlink(self.name))
                return
            state = os.stat(self.name)
        except OSError as problem:  # nothing was there before, so it is no change
            yield unreadable(self.name, problem)
            return
        try:
            state = self._look(state)
            self._device = state.st_dev
            found: Walked = _judged(self.name, (), state, above)
        except OSError as problem:
            yield self._trouble(self.name, problem)
            return
        yield found
        while True:
            if isinstance(found, Found) and found.is_folder and len(found.parts) <= MAX_DEPTH:
                try:
                    levels.append(self._enter(found, above))
                except OSError as problem:
                    yield self._trouble(found.path, problem)
            while levels and not levels[-1].names:
                levels.pop()
            if not levels:
                return
            above = levels[-1].above
            for found in self._look_at(levels[-1]):
                yield found

    def _enter(self, found: Found, above: frozenset[tuple[int, int]]) -> _Level:
        """A folder that the walk comes to. Raises OSError."""
        place = self._top, found.parts
        names = self._chosen.names_in(found.parts)
        if names is None:
            names = self._folders.names(place, self._follow)
        start = "" if found.path == os.curdir else os.path.join(found.path, "")
        return _Level(place, start, sorted(names, reverse=True), above | {found.identity})

    def _look_at(self, level: _Level) -> Iterator[Walked]:
        """What has the next names in a folder, up to a folder."""
        folders, place, start, names, above = self._folders, level.place, level.start, level.names, level.above
        follow, parts, is_listed = self._follow, place[1], self._chosen.names is not None
        while names:
            name = names.pop()
            path, below = start + name, (*parts, name)
            found: Walked
            try:
                found = self._judge(path, below, folders.state(place, name, follow), above)
            except OSError as problem:
                found = self._trouble(path, problem)
            if is_listed:
                yield from self._named(found, path, below)
            else:
                yield found
            if isinstance(found, Found) and found.is_folder:
                return

    def _judge(self, path: str, parts: PathParts, state: os.stat_result, above: frozenset[tuple[int, int]]) -> Walked:
        """What was found below the source. Raises OSError."""
        if self._excludes is not None and self._excludes(parts, is_folder := stat.S_ISDIR(state.st_mode)):
            return Excluded(path, parts, is_folder)
        if self._chosen.one_file_system and state.st_dev != self._device:
            return Skipped(path, "on another file system", parts=parts)
        if self._links and stat.S_ISLNK(state.st_mode):
            return _link(path, parts, state, self._folders.read_link((self._top, parts[:-1]), parts[-1]))
        return _judged(path, parts, state, above)

    def _named(self, found: Walked, path: str, parts: PathParts) -> Iterator[Walked]:
        """What was found, and an error for each name of --files-from that can't be below it."""
        named = None if self._chosen.names is None else self._chosen.names.at(parts)
        if named is None or named.is_listed or isinstance(found, Excluded) or _is_folder(found):
            yield found
        if named is None or _is_folder(found):
            return
        if isinstance(found, Excluded) and named.is_listed:
            yield Skipped(path, "excluded")
        for below in named.listed_below():
            name = os.path.join(path, *below)
            if isinstance(found, Excluded):
                yield Skipped(name, "excluded")
            elif isinstance(found, Skipped):
                yield SourceError(f"{name} is not sent: {path} is {found.why}", "Name what can be reached", name)
            else:
                yield self._trouble(name, FileNotFoundError())

    def _look(self, state: os.stat_result) -> os.stat_result:
        """The state of the name that the user gave, seen again. Opens the folder from which all is reached later."""
        if stat.S_ISDIR(state.st_mode):
            with contextlib.suppress(OSError):  # `names` reports it
                self._folders.open_named(self._top)
            return state
        head, name = os.path.split(self.name)
        self._top = (head or os.curdir, _PASSED)
        try:
            self._folders.open_named(self._top)
        except PermissionError:  # a folder that may be passed and not read, on a system that can't open it
            self._folders = FoldersByPath()
        self._is_link = stat.S_ISLNK(self._folders.state((self._top, ()), name, False).st_mode)
        return self._folders.state((self._top, ()), name, True)

    def open(self, path: str, parts: PathParts) -> FileSource:
        """Open a file that the walk has found, by its path and its parts. Raises SourceError."""
        name = parts[-1] if parts else os.path.basename(self.name)
        follow = self._follow or (self._is_link and not parts)
        try:
            return FileSource(path, self._folders.open((self._top, parts[:-1]), name, follow))
        except OSError as problem:
            raise self._trouble(path, problem) from None

    def _trouble(self, path: str, problem: OSError) -> SourceError:
        if problem.errno in _REPLACED and not self._follow:
            return SourceError(
                f"{path} is not there any more: a link or something else is where it was, or a folder above it",
                "Links are not followed; send it again when nobody changes it",
                path,
            )
        if isinstance(problem, FileNotFoundError) and self._chosen.names is not None:
            return SourceError(f"{path} does not exist", f"Names of --files-from are relative to {self.name}", path)
        return unreadable(path, problem)


def _is_folder(found: Walked) -> bool:
    return isinstance(found, Found) and found.is_folder


def _link(path: str, parts: PathParts, state: os.stat_result, says: str) -> Found | SourceError:
    """A link that is kept as one, if the other end can get what it says."""
    if not is_link_target(says):
        cause = (
            f"{path} is a symbolic link whose target can't be sent (not UTF-8, or more than {MAX_LINK_TARGET:,} bytes)"
        )
        return SourceError(cause, "Make another link, or leave it out", path)
    identity = (state.st_dev, state.st_ino)
    return Found(path, parts, False, 0, state.st_mtime_ns, 0, identity, says)


def _judged(path: str, parts: PathParts, state: os.stat_result, above: frozenset[tuple[int, int]]) -> Found | Skipped:
    """Whether something that was found is sent."""
    kind, identity = state.st_mode, (state.st_dev, state.st_ino)
    if stat.S_ISREG(kind):
        return Found(path, parts, False, state.st_size, state.st_mtime_ns, kind & PERMISSIONS, identity)
    if stat.S_ISLNK(kind):
        return Skipped(path, "a symbolic link (--links keeps it, --follow sends what it leads to)", parts=parts)
    if not stat.S_ISDIR(kind):
        return Skipped(path, "neither a file nor a folder", is_source=not parts, parts=parts)
    if identity in above:
        return Skipped(path, "a link to a folder that it lies in", parts=parts)
    return Found(path, parts, True, 0, state.st_mtime_ns, kind & PERMISSIONS, identity)
