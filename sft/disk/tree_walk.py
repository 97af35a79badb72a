"""Everything below one folder, folders before their content, to be read in pages with pauses between them.

Rules: from descriptor to descriptor, never through a link; what vanishes meanwhile is left out. The names of a folder
are read once, when the walk enters it, and kept as long as it is below it, up to a limit: of more, those furthest up
are read again on the way back. No descriptor is open during a pause, and few are at any time.
"""

import bisect
import os
import stat
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sft.common.errors import Code, Refused
from sft.common.names import split_names
from sft.common.open_files import close
from sft.disk.durable import disk_errors
from sft.disk.folders import PathParts, open_folder, state_of
from sft.disk.visible_files import VisibleFiles

_MOST_OPEN = 8  # folders on the way down: the deepest ones
_NAMES_MEMORY = 32 << 20  # bytes of names that are kept beside those of the deepest folder
_PERMISSIONS = 0o777
_REPLACED = (Code.NOT_FOUND, Code.LINK, Code.NOT_FOLDER)  # meanwhile

_Names = tuple[list[str], list[str]]  # in a folder, in order: those that can be sent, and the others
SeenFile = tuple[int, str, int, int, int]  # depth, name, size, mtime and mode, as a Node has them
Read = Callable[[Callable[[], _Names]], _Names]  # does such work when its turn has come


class Node(NamedTuple):
    """A file, folder or link, `depth` names below the folder that the walk is about.

    `size` is 0 for all but files; `mtime` in ns; `target`: where a link leads, as the disk has it.
    """

    depth: int
    name: str
    kind: Literal["file", "folder", "link"]
    size: int
    mtime: int
    mode: int
    target: str | None


class LeftOut(NamedTuple):
    """Names that are there and can't be sent, in a folder below the one that the walk is about."""

    folder: PathParts
    names: list[str]
    code: Code


@dataclass(slots=True)
class _Level:
    """A folder that the walk is in. `names`: those to come, each with a slash behind it; None: to be read again."""

    names: bytes | None
    last: str = ""  # the name that the walk has come to
    at: int = 0

    def take(self) -> bool:
        """Go on to the next name; False when there is none."""
        if self.names is None or self.at >= len(self.names):
            return False
        end = self.names.index(b"/", self.at)
        self.last, self.at = self.names[self.at : end].decode(), end + 1
        return True


class TreeWalk:
    """One walk. When a method raises Refused, the storage can't be used now; a later call goes on where it was."""

    def __init__(self, visible: VisibleFiles, path: PathParts, after: PathParts, read: Read) -> None:
        """What lies below `path` and comes behind `after`.

        Raises Refused when `path` is not a folder that can be read.
        """
        self._visible, self._path, self._read = visible, path, read
        self._levels: list[_Level] = []
        self._open: deque[int] = deque()  # descriptors of the deepest levels, or none
        self._left_out: deque[LeftOut] = deque()
        self._enters = False  # the folder that was given last comes next
        try:
            with disk_errors():
                self._go_into(visible.open_folder(path), *after[:1])
                for depth in range(1, len(after) + 1):
                    self._left_out.clear()  # they belong to a page before this one
                    if not self._enter(self._open[-1], *after[depth : depth + 1]):
                        break
        except BaseException:
            self.pause()
            raise

    def pause(self) -> None:
        """Close what is open; the next step opens it again."""
        while self._open:
            close(self._open.pop())

    def next(self) -> Node | LeftOut | None:
        """What comes next; None at the end."""
        while not self._left_out:
            if not self._levels:
                return None
            try:
                folder = self._reach()
            except Refused as problem:
                if problem.code is Code.UNAVAILABLE:
                    raise
                if problem.code not in _REPLACED:
                    self._leave_out(self._below())
                self._leave()
                continue
            if self._enters:
                self._enter(folder)
                self._enters = False
            elif (node := self._look_further(folder)) is not None:
                self._enters = node.kind == "folder"
                return node
            elif not self._left_out:
                self._leave()
        return self._left_out.popleft()

    def files(self, most: int) -> list[SeenFile]:
        """The files that come next in one folder, up to `most`; `next` gives the same one by one, in twice the time.

        Nothing, when something else comes next, or what comes has to be looked at more closely.
        """
        if self._left_out or not self._levels or self._enters or not self._open:
            return []
        level, depth, folder = self._levels[-1], len(self._levels), self._open[-1]
        found: list[SeenFile] = []
        before = level.at, level.last
        while len(found) < most and level.take():
            try:
                state = os.stat(level.last, dir_fd=folder, follow_symlinks=False)
            except OSError:
                break
            mode = state.st_mode
            if not stat.S_ISREG(mode):
                break
            found.append((depth, level.last, state.st_size, state.st_mtime_ns, mode & _PERMISSIONS))
            before = level.at, level.last
        level.at, level.last = before
        return found

    # --- down and up ---

    def _below(self) -> PathParts:
        """The deepest folder, below the one that the walk is about."""
        return tuple(level.last for level in self._levels[:-1])

    def _go_into(self, folder: int, behind: str | None = None) -> None:
        """Make an open folder the deepest one, and go on behind that name in it. Raises Refused, OSError."""
        below = tuple(level.last for level in self._levels)
        try:
            allowed, others = self._names(folder, below)
        except BaseException:
            close(folder)
            raise
        if others:
            self._left_out.append(LeftOut(below, others, Code.NAME))
        self._levels.append(_Level(_behind(behind, allowed), behind or ""))
        self._keep_open(folder)
        left = _NAMES_MEMORY
        for level in reversed(self._levels[:-1]):
            left -= len(level.names or b"")
            if left < 0:
                level.names = None

    def _enter(self, above: int, behind: str | None = None) -> bool:
        """Go into the folder that the walk has come to; whether it is one, and can be read. Raises Refused."""
        name = self._levels[-1].last
        try:
            with disk_errors():
                self._go_into(open_folder(above, name), behind)
        except Refused as problem:
            if problem.code is Code.UNAVAILABLE:
                raise
            if problem.code not in _REPLACED:
                self._leave_out((*self._below(), name))
            return False
        return True

    def _reach(self) -> int:
        """A descriptor of the deepest folder, whose names are known then. Raises Refused."""
        with disk_errors():
            if not self._open:
                try:
                    self._keep_open(self._visible.open_folder(self._path))
                    for level in self._levels[:-1]:
                        self._keep_open(open_folder(self._open[-1], level.last))
                except BaseException:
                    self.pause()
                    raise
            folder, deepest = self._open[-1], self._levels[-1]
            if deepest.names is None:
                allowed, _ = self._names(folder, self._below())
                deepest.names, deepest.at = _behind(deepest.last, allowed), 0
        return folder

    def _keep_open(self, folder: int) -> None:
        self._open.append(folder)
        if len(self._open) > _MOST_OPEN:
            close(self._open.popleft())

    def _leave(self) -> None:
        self._levels.pop()
        if self._open:
            close(self._open.pop())

    # --- names ---

    def _names(self, folder: int, below: PathParts) -> _Names:
        def work() -> _Names:
            allowed, others = split_names((*self._path, *below), os.listdir(folder))
            return sorted(allowed), sorted(others, key=os.fsencode)

        return self._read(work)

    def _leave_out(self, path: PathParts) -> None:
        if path:
            self._left_out.append(LeftOut(path[:-1], [path[-1]], Code.UNREADABLE))

    def _look_further(self, folder: int) -> Node | None:
        """The next node in the deepest folder; None at its end, or when something in `_left_out` comes first."""
        level, depth = self._levels[-1], len(self._levels)
        failed: dict[Code, list[str]] = {}
        before = level.at
        while level.take():
            try:
                node = _node(depth, level.last, folder)
            except (OSError, Refused) as problem:
                node = None
                code = problem.code if isinstance(problem, Refused) else Code.UNREADABLE
                failed.setdefault(code, []).append(level.last)
            if node is not None and not failed:
                return node
            if node is not None:
                level.at = before  # it comes behind those that failed
                break
            before = level.at
        self._left_out += [LeftOut(self._below(), names, code) for code, names in failed.items()]
        return None


def _behind(last: str | None, names: list[str]) -> bytes:
    """The names behind that one, each with a slash behind it: a quarter of the memory that a list of them takes."""
    start = 0 if last is None else bisect.bisect_right(names, last.encode(), key=str.encode)
    return "/".join([*names[start:], ""]).encode()


def _node(depth: int, name: str, folder: int) -> Node | None:
    """What has that name in an open folder; None for what is gone. Raises Refused (SPECIAL), OSError."""
    state = state_of(name, folder)
    if state is None:
        return None
    mtime, mode = state.st_mtime_ns, state.st_mode & _PERMISSIONS
    if stat.S_ISREG(state.st_mode):
        return Node(depth, name, "file", state.st_size, mtime, mode, None)
    if stat.S_ISDIR(state.st_mode):
        return Node(depth, name, "folder", 0, mtime, mode, None)
    if stat.S_ISLNK(state.st_mode):
        return Node(depth, name, "link", 0, mtime, mode, os.readlink(name, dir_fd=folder))
    raise Refused(Code.SPECIAL)
