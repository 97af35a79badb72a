"""What lies below a folder here, as one side of a comparison; and what a fetch changes there beside what it stores.

Rules: from descriptor to descriptor, and no link is followed. Partial files of this program are not part of it, and its
logs and receipts are never removed. Things are removed one by one, what is in a folder before it, and only while they
are what they were when they were compared: nothing goes together with anything else. None of it is flushed: after a
power cut the same command does it again, and a flush for each of thousands takes minutes.
"""

import stat
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sft.client.branches import link_entry
from sft.client.comparing import HIDDEN, Entry
from sft.common.errors import Code, Refused, SourceError
from sft.common.names import LOCAL_PARTIAL_AREA, PathParts
from sft.common.text import show_path

if TYPE_CHECKING:
    import os

    from sft.disk.tree_walk import LeftOut, Node
    from sft.disk.user_folder import UserFolder
    from sft.disk.visible_files import VisibleFiles


class LocalEntries(Iterator[tuple[PathParts, Entry]]):
    """The entries below a folder. Names that can't travel and what can't be read are not among them.

    What is neither file, folder nor link is hidden: it stays, and so does the folder that it is in.
    """

    def __init__(self, visible: "VisibleFiles", folder: PathParts) -> None:
        """Raises Refused when it is not a folder that can be read."""
        from sft.disk.tree_walk import TreeWalk

        self._walk = TreeWalk(visible, folder, (), lambda work: work())
        self._last: PathParts = ()
        self._special: deque[PathParts] = deque()  # that come next

    def pause(self) -> None:
        """Close what is open; the next entry opens it again."""
        self._walk.pause()

    def __next__(self) -> tuple[PathParts, Entry]:
        """Raises SourceError when the disk can't be read: that is no answer of the receiver's."""
        from sft.disk.tree_walk import Node

        while not self._special and (found := self._step()) is not None:
            if not isinstance(found, Node):
                if found.code is Code.SPECIAL:
                    self._special += [(*found.folder, name) for name in found.names]
                continue
            path = self._last = (*self._last[: found.depth - 1], found.name)
            if LOCAL_PARTIAL_AREA not in path:
                if found.target is not None:
                    return path, link_entry(found.target)
                return path, Entry(found.kind, found.size, found.mtime, found.mode)
        if self._special:
            return self._special.popleft(), HIDDEN
        raise StopIteration

    def _step(self) -> "Node | LeftOut | None":
        try:
            return self._walk.next()
        except Refused as problem:
            where = show_path(self._last) or "the folder"
            raise SourceError(f"behind {where} nothing can be read here ({problem.cause})", "Check the disk") from None


def entry_here(visible: "VisibleFiles", path: PathParts) -> Entry | None:
    """What has that path here; None: nothing. Hidden: neither file, folder nor link. Raises Refused."""
    state = visible.state_of_path(path)
    return None if state is None else _entry(state)


def _entry(state: "os.stat_result") -> Entry:
    kind, mode = state.st_mode, stat.S_IMODE(state.st_mode) & 0o777
    if stat.S_ISDIR(kind):
        return Entry("folder", 0, state.st_mtime_ns, mode)
    if stat.S_ISREG(kind):
        return Entry("file", state.st_size, state.st_mtime_ns, mode)
    return Entry("link" if stat.S_ISLNK(kind) else "hidden")


def _is_changed(was: Entry, now: Entry) -> bool:
    """Whether something has changed: a file of another size or time, or a link with another target, too.

    A folder gets another time by a removal.
    """
    if was.kind != now.kind:
        return True
    if was.kind == "link":
        return was.target != now.target
    return was.kind == "file" and (was.size, was.mtime) != (now.size, now.mtime)


class LocalChanges:
    """Times, modes and removals below the folder that is fetched into. Its methods raise Refused."""

    def __init__(self, folder: "UserFolder", left_alone: set[tuple[int, int]]) -> None:
        """`left_alone`: device and inode of each file that stays: our own logs, and receipts."""
        self._folder, self._left_alone = folder, left_alone

    def set(self, path: PathParts, mtime: int | None, mode: int | None) -> bool:
        """Give a file or folder that time and those permission bits; whether the disk can hold the time."""
        mode = mode if self._folder.area.keeps_modes else None
        return self._folder.changes.set(path, mtime, mode, is_durable=False)

    def _now(self, path: PathParts, state: "os.stat_result") -> Entry:
        """What is there now, a link with its target."""
        entry = _entry(state)
        return link_entry(self._folder.visible.target_of(path)) if entry.kind == "link" else entry

    def is_free(self, path: PathParts) -> bool:
        """Whether nothing has that path."""
        return self._folder.visible.state_of_path(path) is None

    def remove(self, path: PathParts, was: Entry, check: Callable[[], None] = lambda: None) -> bool:
        """Remove a file, a link or an empty folder; whether it was removed now.

        `was`: what it was when it was compared. What is left alone stays, and a folder with something in it that stays:
        false. Raises Refused (CHANGED when it is something else by now, or a file of another size or time).
        """
        from sft.disk.durable import disk_errors

        state = self._folder.visible.state_of_path(path)
        if state is None or (state.st_dev, state.st_ino) in self._left_alone:
            return False
        if _is_changed(was, self._now(path, state)):
            raise Refused(Code.CHANGED)
        try:
            with disk_errors(), self._folder.visible.folder(path[:-1]) as folder:
                self._folder.changes.removal(check).remove(path[-1], folder, False)
        except Refused as problem:
            if problem.code in (Code.NOT_FOUND, Code.NOT_EMPTY):
                return False
            raise
        return True
