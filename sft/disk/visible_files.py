"""The visible files and folders below one folder: looked at, listed, opened for reading.

Rules: a path is judged (`sft/common/names.py`), then walked one component at a time, from descriptor to descriptor,
never through a link. Links, special files and names that can't be sent count as not there. Nothing is changed, except
that folders are made for those who publish into them.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator

from sft.common.errors import Code, Refused, SourceError
from sft.common.names import is_link_target, judge_path, split_names
from sft.common.open_files import close
from sft.disk.durable import disk_errors
from sft.disk.folders import PathParts, Seen, as_seen, open_folder, state_of

READ_FLAGS = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC"))


# Called with a folder, names in it that are there and can't be sent, and why.
Missed = Callable[[PathParts, list[str], Code], None]


def why_unreadable(problem: Refused | SourceError) -> Code:
    """The code for something that is there and can't be read: UNAVAILABLE if that may pass."""
    return problem.code if problem.code is Code.UNAVAILABLE else Code.UNREADABLE


def why_not_sent(entry: "os.DirEntry[str]") -> Code | None:
    """The code for a link or a special file; None for all else, and for what can't be looked at."""
    with contextlib.suppress(OSError):
        if entry.is_symlink():
            return Code.LINK
        if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
            return Code.SPECIAL
    return None


class VisibleFiles:
    """What is below the folder of one descriptor, which stays the caller's."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def open_folder(self, path: PathParts, bits_of: Callable[[PathParts], int] | None = None) -> int:
        """A new descriptor of a folder. With `bits_of` it is made when missing, each folder on the way with its mode.

        Raises Refused, OSError.
        """
        folder = os.dup(self.descriptor)
        try:
            for depth, component in enumerate(path, 1):
                try:
                    below = open_folder(folder, component)
                except Refused as problem:
                    if bits_of is None or problem.code is not Code.NOT_FOUND:
                        raise
                    below = open_folder(folder, component, bits_of(path[:depth]))
                close(folder)
                folder = below
        except BaseException:
            close(folder)
            raise
        return folder

    @contextlib.contextmanager
    def folder(self, path: PathParts) -> Iterator[int]:
        """A descriptor of a folder, as long as this lasts. Raises Refused, OSError."""
        descriptor = self.open_folder(path)
        try:
            yield descriptor
        finally:
            close(descriptor)

    def nearest(self, path: PathParts) -> int:
        """A new descriptor of that folder, or of the nearest one above it that can be opened. Raises OSError."""
        return self._walk_down(path)[0]

    def depth_of(self, path: PathParts) -> int:
        """How many of the folders on a path are there. Raises Refused for a path through a file or link."""
        with disk_errors():
            folder, depth, problem = self._walk_down(path)
            close(folder)
        if problem is not None and problem.code is not Code.NOT_FOUND:
            raise problem
        return depth

    def _walk_down(self, path: PathParts) -> tuple[int, int, Refused | None]:
        """A descriptor of the last folder that is there, how deep it is, and what is in the way. Raises OSError."""
        folder = os.dup(self.descriptor)
        for depth, component in enumerate(path):
            try:
                below = open_folder(folder, component)
            except Refused as problem:
                return folder, depth, problem
            except BaseException:
                close(folder)
                raise
            close(folder)
            folder = below
        return folder, len(path), None

    def state_of_path(self, path: PathParts) -> os.stat_result | None:
        """The state of `path`; None when nothing is there. Raises Refused for a path through a file or link."""
        try:
            with disk_errors(), self.folder(path[:-1]) as folder:
                return state_of(path[-1], folder)
        except Refused as problem:
            if problem.code is Code.NOT_FOUND:
                return None
            raise

    def open_file(self, path: PathParts) -> int:
        """A descriptor to read `path`, reached without following links. Raises Refused."""
        judge_path(path)
        with disk_errors(), self.folder(path[:-1]) as folder:
            try:
                return os.open(path[-1], READ_FLAGS, dir_fd=folder)
            except FileNotFoundError:
                raise Refused(Code.NOT_FOUND) from None
            except OSError as problem:
                raise (Refused(Code.LINK) if problem.errno == errno.ELOOP else problem) from None

    def walk(self, path: PathParts, missed: Missed = lambda *_: None, has_links: bool = False) -> Iterator[Seen]:
        """`path` itself, and what lies below it: files, folders before their content, and with `has_links` links.

        Raises Refused when `path` is not there, can't be reached, or is something else. What vanishes meanwhile is left
        out; `missed` is called for other links, special files, what can't be read, and names that can't be sent.
        """
        if path:
            judge_path(path)
            state = self.state_of_path(path)
            if state is None:
                raise Refused(Code.NOT_FOUND)
            itself = as_seen(path, state) or (self.see(path, has_links) if has_links else None)
            if itself is None:
                raise Refused(Code.LINK if stat.S_ISLNK(state.st_mode) else Code.SPECIAL)
            if not itself.is_folder:  # many may be asked for, each by itself
                yield itself
                return
        pending = [path] if path else [(name,) for name in reversed(self._content((), missed, has_links))]
        while pending:
            above = pending.pop()
            try:
                seen = self.see(above, has_links)
                if seen is None:
                    continue
                yield seen
                if seen.is_folder:
                    pending += [(*seen.path, name) for name in reversed(self._content(seen.path, missed, has_links))]
            except Refused as problem:
                if problem.code is Code.NAME:
                    missed(above[:-1], [above[-1]], Code.NAME)
                elif problem.code is not Code.NOT_FOUND:
                    missed(above[:-1], [above[-1]], why_unreadable(problem))

    def _content(self, path: PathParts, missed: Missed, has_links: bool) -> list[str]:
        """The names of what `walk` gives of a folder, in the order of their bytes. Raises Refused."""
        with disk_errors(), self.folder(path) as folder, os.scandir(folder) as entries:
            others = {entry.name: why_not_sent(entry) for entry in entries}
        allowed, unsayable = split_names(path, list(others))
        groups: dict[Code | None, list[str]] = {None: [], Code.NAME: sorted(unsayable, key=os.fsencode)}
        for name in sorted(allowed, key=str.encode):
            code = others[name]
            groups.setdefault(None if has_links and code is Code.LINK else code, []).append(name)
        for code, names in groups.items():
            if code is not None and names:
                missed(path, names, code)
        return groups[None]

    def names(self, path: PathParts) -> tuple[list[str], list[str]]:
        """The names in a folder, in the order of their bytes: those that can be sent, and the others.

        Raises Refused.
        """
        if path:
            judge_path(path)
        with disk_errors(), self.folder(path) as folder:
            names = os.listdir(folder)
        allowed, others = split_names(path, names)
        return sorted(allowed, key=str.encode), sorted(others, key=os.fsencode)

    def see(self, path: PathParts, has_links: bool = False, as_it_is: bool = False) -> Seen | None:
        """One file or folder, with `has_links` also a link; None when it is gone, or is something else.

        Raises Refused when it can't be looked at, NAME for a link whose target can't be sent, unless `as_it_is`.
        """
        try:
            state = self.state_of_path(path)
            if has_links and state is not None and stat.S_ISLNK(state.st_mode):
                target = self.target_of(path) if as_it_is else self._target(path)
                return Seen(path, False, 0, state.st_mtime_ns, 0, target)
        except Refused as problem:
            if problem.code in (Code.LINK, Code.NOT_FOLDER):  # put there just now
                return None
            raise
        return None if state is None else as_seen(path, state)

    def _target(self, path: PathParts) -> str:
        """What a link says. Raises Refused, also when that can't be sent."""
        target = self.target_of(path)
        if not is_link_target(target):
            raise Refused(Code.NAME, why="a link that leads to a name that is not UTF-8")
        return target

    def target_of(self, path: PathParts) -> str:
        """What a link says, whatever that is. Raises Refused."""
        with disk_errors(), self.folder(path[:-1]) as folder:
            try:
                return os.readlink(path[-1], dir_fd=folder)
            except OSError as problem:
                if problem.errno not in (errno.EINVAL, errno.ENOENT):
                    raise
                raise Refused(Code.NOT_FOUND) from None  # it is something else, or gone, by now

    def look(self, path: PathParts) -> Seen | None:
        """The same, but None also when it can't be looked at, or has a name that is not allowed."""
        try:
            judge_path(path)
        except Refused:
            return None
        try:
            return self.see(path)
        except Refused:
            return None
