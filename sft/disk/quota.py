"""What one user may still use of the disk: the quota, and the space that must stay free.

Rules: whoever begins a file reserves its announced size first; a pipe reserves as it grows. What is missing of the
folders on its path counts, too. A refusal is believed only when no process has died with something reserved. For an
account without a quota nothing is reserved and nothing written. This room knows descriptors and paths below them, and
no account: the limits are arguments.
"""

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from sft.common.errors import Code, Refused
from sft.disk.durable import disk_errors
from sft.disk.folders import measure, open_folder, state_of
from sft.disk.ledger import GATE, LEDGER, Amount, Hold, Holders, Ledger, Quota, file_of, folders_of
from sft.disk.partials import Partial, PartialArea, PathParts
from sft.disk.receipts import RECEIPTS

NOT_PARTIAL = frozenset({RECEIPTS, LEDGER, GATE})  # of the names in a user's partial area
_LOOK_EVERY = 4 << 20  # bytes of one file between two looks at what is free
_MOST_SEEN, _EACH_SEEN = 1 << 20, 100  # bytes of memory, and of one beside its path
_MOST_OWED = 10_000  # folders that one connection has announced and not made

_Made = TypeVar("_Made")
DepthOf = Callable[[PathParts], int]  # how many of the folders on a path are there


class _Counted(Ledger):
    """The ledger of one user, with folders of its own to count what lies there."""

    def __init__(self, root: int, partials: int, name: str, holders: Holders) -> None:
        with contextlib.ExitStack() as opened:
            self._visible = open_folder(root, name, create=0o777)
            opened.callback(os.close, self._visible)
            self._area = PartialArea(open_folder(partials, name, create=0o700))
            opened.callback(os.close, self._area.folder)
            super().__init__(self._area.folder, holders, self._measure)
            self._opened = opened.pop_all()

    def _measure(self) -> Amount:
        kept = [file_of(size) for size in self._area.unheld(NOT_PARTIAL)]
        return sum(kept, Amount(*measure(self._visible, file_of(0).bytes)))

    def close(self) -> None:
        with self._opened:
            super().close()


class Ledgers:
    """The ledgers of one storage that are in use in this process, one for all connections of a user."""

    def __init__(self, root: int, partials: int) -> None:
        """Two folders, which stay the caller's: of what is visible, and of what is on its way."""
        self._root, self._partials = root, partials
        self._holders = Holders(partials)
        self._open: dict[str, Ledger] = {}
        self._is_closing = False
        self._lock = threading.Lock()

    def enter(self, name: str) -> Ledger:
        """The ledger of a user, counted anew if it has to be; `leave` it afterwards.

        Raises Refused, UsageError when its files are not ours alone, OSError.
        """
        with self._lock:
            ledger = self._open.get(name)
            if ledger is None:
                ledger = self._open[name] = _Counted(self._root, self._partials, name, self._holders)
            ledger.connections += 1
        try:
            ledger.mend()
        except BaseException:
            self.leave(name)
            raise
        return ledger

    def leave(self, name: str) -> None:
        """A connection of that user has ended."""
        with self._lock:
            ledger = self._open[name]
            ledger.connections -= 1
            if not ledger.connections:
                self._open.pop(name).close()
                self._close_if_unused()

    def recount(self, name: str) -> Amount:
        """Count what lies in a user's folders, and write it down. Raises Refused."""
        with disk_errors():
            ledger = self.enter(name)
            try:
                return ledger.recount()
            finally:
                self.leave(name)

    def used(self, name: str) -> Amount:
        """What is counted and reserved. Raises Refused."""
        with disk_errors():
            ledger = self.enter(name)
            try:
                return ledger.used() or ledger.recount()
            finally:
                self.leave(name)

    def sweep(self) -> None:
        """Remove what processes that died have left of their own. Raises OSError."""
        self._holders.sweep()

    def close(self) -> None:
        """Give back what this process has open, at once or when the last connection leaves."""
        with self._lock:
            self._is_closing = True
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._is_closing and not self._open:
            self._holders.close()


class Allowance:
    """What one connection's user may use. `ledger` None: no quota. Methods raise Refused, and OSError for the disk."""

    def __init__(self, place: int, free_space: int, quota: Quota, ledger: Ledger | None) -> None:
        """`place`: a folder on the disk, of which `free_space` bytes must stay free."""
        self._place, self._free_space, self._quota, self._ledger = place, free_space, quota, ledger
        self._seen: set[bytes] = set()  # folders that exist
        self._seen_size = 0
        self._owed: set[PathParts] = set()  # folders that are missing, and were reserved

    @property
    def is_limited(self) -> bool:
        """Whether there is anything to reserve or to look at."""
        return self._ledger is not None or self._free_space > 0

    def moving(self) -> contextlib.AbstractContextManager[None]:
        """Around whatever begins, publishes, keeps or drops files. May be nested."""
        return contextlib.nullcontext() if self._ledger is None else self._ledger.moving()

    def try_twice(self, work: Callable[[], _Made]) -> _Made:
        """Do `work`; once more when the quota refused it and the ledger was wrong. Never inside `moving`."""
        try:
            return work()
        except Refused as problem:
            if problem.code is not Code.QUOTA or not self._is_mended():
                raise
        return work()

    def _is_mended(self) -> bool:
        with disk_errors():
            return self._ledger is not None and self._ledger.mend()

    def _check_free(self, wanted: int) -> None:
        free = os.fstatvfs(self._place)
        if wanted > free.f_bavail * free.f_frsize - self._free_space:
            raise Refused(Code.NO_SPACE)

    def reserve(self, partial: Partial) -> None:
        """Room for a file that has begun: all that it announced, or for a pipe as much as comes.

        Raises Refused (NO_SPACE; QUOTA; BUSY when what another process has reserved for the same file is in the way).
        """
        size = partial.incoming.size
        self._check_free((size or 0) - max(partial.kept, default=0))
        if self._ledger is not None:
            before = partial.before if isinstance(partial.before, Hold) else None
            hold = partial.hold = Hold(self._ledger, self._quota, before, partial.found)
            try:
                hold.grow(max(size or 0, partial.found or 0))
            except Refused as problem:
                if partial.is_shared and problem.code is Code.QUOTA:
                    raise Refused(Code.BUSY) from None
                raise
            if size is None:
                partial.bound, partial.more = 0, lambda length: self._grow(hold, length)
                return
        if self._free_space:
            partial.bound, partial.more = _LOOK_EVERY, self._look

    def _look(self, size: int) -> int:
        self._check_free(0)
        return size + _LOOK_EVERY

    def _grow(self, hold: Hold, size: int) -> int:
        if self._free_space:
            self._check_free(0)
        self.try_twice(lambda: hold.grow(size))
        return size

    def reserve_folders(self, path: PathParts, depth_of: DepthOf) -> None:
        """Those that are missing on a path count as files, from now on. Raises Refused (QUOTA)."""
        if self._ledger is None or path in self._owed:
            return
        key = "/".join(path).encode()
        if key in self._seen:
            return
        parts = _parts(path)
        there = depth_of(path)
        missing = {part for part in parts[there:] if part not in self._owed}
        if missing:
            if len(self._owed) + len(missing) > _MOST_OWED:
                raise Refused(Code.QUOTA, why="too many folders announced and not made")
            self._ledger.take(folders_of(len(missing)), self._quota)
            self._owed |= missing
        elif there == len(parts):
            if self._seen_size > _MOST_SEEN:
                self._seen, self._seen_size = set(), 0
            self._seen.add(key)
            self._seen_size += len(key) + _EACH_SEEN

    @contextlib.contextmanager
    def making_folders(self, path: PathParts, depth_of: DepthOf) -> Iterator[None]:
        """Inside of this the folders on a path are made. Never outside of `moving`."""
        ledger, parts = self._ledger, _parts(path)
        owed = set() if ledger is None or not self._owed else self._owed.intersection(parts)
        if ledger is None or not owed:
            yield
            return
        with ledger.alone():
            missing = owed.intersection(parts[depth_of(path) :])
            try:
                yield
            finally:
                made = owed.intersection(parts[: depth_of(path)])
                self._owed -= made
                ledger.count(folders_of(len(made & missing)))
                ledger.give(folders_of(len(made - missing)))

    def close(self) -> None:
        """The connection has ended: no folder is made any more."""
        if self._ledger is not None:
            self._ledger.give(folders_of(len(self._owed)))
            self._owed.clear()

    @contextlib.contextmanager
    def replacing(self, name: str, folder: int) -> Iterator[None]:
        """Inside of this the file of that name goes, and what it used is free again."""
        if self._ledger is None:
            yield
            return
        with self._ledger.alone():
            old = state_of(name, folder)
            yield
            if old is not None and stat.S_ISREG(old.st_mode):
                self._ledger.credit(file_of(old.st_size))


def _parts(path: PathParts) -> list[PathParts]:
    """The path's folders, from the outermost on."""
    return [path[:depth] for depth in range(1, len(path) + 1)]
