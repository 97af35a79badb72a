"""The files that a client sends: found by a walk, opened later, from folder to folder and never through a link.

Rules: a link that the user named is followed, once, when the walk begins. Below it links are skipped, and a link that
takes the place of a file or folder between the walk and the opening is an error; with `follow` links are followed
everywhere.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from sft.common.errors import SourceError
from sft.common.names import MAX_DEPTH, MAX_LINK_TARGET, PathParts, is_link_target
from sft.disk.chosen import Chosen
from sft.disk.source_folders import FOLDER_FLAGS, HAVE_DESCRIPTORS, PASSED_FLAGS, Folders, FoldersByPath, Place, Top
from sft.disk.sources import PERMISSIONS, FileSource, unreadable

_MOST_FILES = 256  # that are given together
_REPLACED = (
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EMLINK,
    errno.ESTALE,
)  # errors of the systems for a link that is not followed

_EVERYTHING = Chosen()


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


class Files(NamedTuple):
    """Regular files that follow each other in one folder.

    `start`: what the path of each begins with. `folder`: its path below the source. `lines`: each as a TREE has it, so
    that many are compared at once with what the receiver has: depth, name, "file", size, mtime, mode, None, None.
    """

    start: str
    folder: PathParts
    lines: "list[Line]"
    device: int
    inodes: list[int]

    def at(self, number: int) -> Found:
        """One of them."""
        _, name, _, size, mtime, mode, _, _ = self.lines[number]
        return Found(
            self.start + name, (*self.folder, name), False, size, mtime, mode, (self.device, self.inodes[number])
        )


Line = tuple[int, str, Literal["file"], int, int, int, None, None]


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


class _Level(NamedTuple):
    """A folder that the walk is in. `names`: those to come, the next one last. `start`: what a path in it begins with.

    `above`: the folder and those over it, for links that lead back.
    """

    place: Place
    device: int
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
        self._follow, self._folders = follow, folders if HAVE_DESCRIPTORS else FoldersByPath()
        self._top: Top = (name, FOLDER_FLAGS)
        self._is_link = False  # the name itself, when it is a file's
        self._device = 0  # of the source

    def walk(self) -> Iterator[Walked]:
        """What is there, folders before their content, names in order."""
        return one_by_one(self.walk_by_runs())

    def walk_by_runs(self) -> Iterator[Walked | Files]:
        """The same, with most of the files not one by one, which takes a third of the time."""
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
            found: Walked | Files = _judged(self.name, (), state, above)
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
            if (files := self._files(levels[-1])) is not None:
                found = files
                yield files
                continue
            above = levels[-1].above
            for found in self._look_at_next(levels[-1]):
                yield found

    def _enter(self, found: Found, above: frozenset[tuple[int, int]]) -> _Level:
        """A folder that the walk comes to. Raises OSError."""
        place = self._top, found.parts
        names = self._chosen.names_in(found.parts)
        if names is None:
            names = self._folders.names(place, self._follow)
        start = "" if found.path == os.curdir else os.path.join(found.path, "")
        return _Level(place, found.identity[0], start, sorted(names, reverse=True), above | {found.identity})

    def _files(self, level: _Level) -> Files | None:
        """The regular files that come next in a folder, of which nothing else is to be said; None: none such comes."""
        if self._chosen.names is not None:
            return None
        folders, place, names, follow = self._folders, level.place, level.names, self._follow
        excludes, depth = self._excludes, len(place[1]) + 1
        lines: list[Line] = []
        inodes: list[int] = []
        device = level.device
        while names and len(lines) < _MOST_FILES:
            name = names[-1]
            try:
                state = folders.state(place, name, follow)
            except OSError:
                break
            mode = state.st_mode
            if not stat.S_ISREG(mode) or state.st_dev != device:
                break
            if excludes is not None and excludes((*place[1], name), False):
                break
            names.pop()
            lines.append((depth, name, "file", state.st_size, state.st_mtime_ns, mode & PERMISSIONS, None, None))
            inodes.append(state.st_ino)
        return Files(level.start, place[1], lines, device, inodes) if lines else None

    def _look_at_next(self, level: _Level) -> Iterator[Walked]:
        """What has the next name in a folder."""
        name = level.names.pop()
        path, below = level.start + name, (*level.place[1], name)
        found: Walked
        try:
            found = self._judge(path, below, self._folders.state(level.place, name, self._follow), level.above)
        except OSError as problem:
            found = self._trouble(path, problem)
        if self._chosen.names is None:
            yield found
        else:
            yield from self._named(found, path, below)

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
        self._top = (head or os.curdir, PASSED_FLAGS)
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


def one_by_one(walk: Iterable[Walked | Files]) -> Iterator[Walked]:
    """A walk whose files come each by itself."""
    for found in walk:
        if isinstance(found, Files):
            yield from map(found.at, range(len(found.lines)))
        else:
            yield found


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
