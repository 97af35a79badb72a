"""What one account may still use of the disk: its quota, and the space that must stay free.

Rules: a file reserves its announced size before its first byte, a pipe as it grows, and the folders that its path lacks
are reserved with it. A refusal is believed only when no process has died with something reserved. For an account
without a quota nothing is reserved and nothing written. The limits are arguments; no account is known here.
"""

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sft.common.errors import Code, Refused
from sft.common.open_files import close
from sft.disk.amounts import NOTHING, Amount, Quota, file_of, folders_of
from sft.disk.durable import disk_errors
from sft.disk.folders import PathParts, open_folder, state_of
from sft.disk.ledger import GATE, LEDGER, Ledger
from sft.disk.ledger_locks import Processes
from sft.disk.measuring import measure
from sft.disk.receipts import RECEIPTS
from sft.disk.reservations import NOT_RESERVED, FreeSpace, Reservation, reserved_together, with_repair
from sft.disk.staging import StagingArea
from sft.disk.temporary import Incoming, TemporaryFile
from sft.disk.visible_files import VisibleFiles

NOT_TEMPORARY = frozenset({RECEIPTS, LEDGER, GATE})  # of the names in a user's staging area
_MOST_SEEN, _EACH_SEEN = 1 << 20, 100  # bytes of memory for the paths of folders that exist, and of one beside its path
_MOST_PROMISED = 10_000  # folders that one connection has announced and not made
_MOST_TRIES = 10  # at making folders that another connection removes

_Made = TypeVar("_Made")


@dataclass(slots=True)
class _InUse:
    """A ledger, what it has open, and how many connections use it."""

    ledger: Ledger
    opened: contextlib.ExitStack
    connections: int = 0


class Ledgers:
    """The ledgers of one storage that are in use in this process, one for all connections of a user."""

    def __init__(self, root: int, staging: int) -> None:
        """Two open folders, which stay the caller's: what is visible of all users, and their staging areas."""
        self._root, self._staging = root, staging
        self._processes = Processes(staging)
        self._in_use: dict[str, _InUse] = {}
        self._is_closing = False
        self._lock = threading.Lock()

    def enter(self, name: str) -> Ledger:
        """The ledger of a user, counted anew if it has to be; `leave` it afterwards.

        Raises Refused, UsageError when its files are not ours alone, OSError.
        """
        with self._lock:
            if name not in self._in_use:
                self._in_use[name] = self._open(name)
            self._in_use[name].connections += 1
            ledger = self._in_use[name].ledger
        try:
            ledger.repair()
        except BaseException:
            self.leave(name)
            raise
        return ledger

    def _open(self, name: str) -> _InUse:
        with contextlib.ExitStack() as opened:
            visible = open_folder(self._root, name, create=0o777)
            opened.callback(close, visible)
            staging = open_folder(self._staging, name, create=0o700)
            opened.callback(close, staging)
            area = StagingArea(staging)

            def count() -> Amount:
                kept = [file_of(size) for size in area.sizes_of_ownerless(NOT_TEMPORARY)]
                return sum(kept, measure(visible, file_of(0).bytes))

            ledger = Ledger(staging, self._processes, count)
            opened.callback(ledger.close)
            return _InUse(ledger, opened.pop_all())

    def leave(self, name: str) -> None:
        """A connection of that user has ended."""
        with self._lock:
            in_use = self._in_use[name]
            in_use.connections -= 1
            if not in_use.connections:
                del self._in_use[name]
                in_use.opened.close()
                self._close_if_unused()

    def recount(self, name: str) -> Amount:
        """Count what lies in a user's folders, and write it down. Raises Refused."""
        return self._with(name, Ledger.recount)

    def used(self, name: str) -> Amount:
        """What is counted and reserved. Raises Refused."""
        return self._with(name, lambda ledger: ledger.used() or ledger.recount())

    def _with(self, name: str, work: Callable[[Ledger], Amount]) -> Amount:
        with disk_errors():
            ledger = self.enter(name)
            try:
                return work(ledger)
            finally:
                self.leave(name)

    def sweep(self) -> None:
        """Remove the lock files of processes that have died. Raises OSError."""
        self._processes.sweep()

    def close(self) -> None:
        """Give back what this process has open, at once or when the last connection leaves."""
        with self._lock:
            self._is_closing = True
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._is_closing and not self._in_use:
            self._processes.close()


class Allowance:
    """What one connection may use. Methods raise Refused, and OSError for the disk's errors."""

    def __init__(self, visible: VisibleFiles, free_space: int, quota: Quota, ledger: Ledger | None) -> None:
        """`free_space`: bytes that must stay free on the disk. `ledger` None: no quota."""
        self._visible, self._quota, self._ledger = visible, quota, ledger
        self._space = FreeSpace(visible.descriptor, free_space)
        self._seen: set[bytes] = set()  # folders on whose paths all exist or are reserved
        self._seen_size = 0
        self._promised: set[PathParts] = set()  # folders that are missing, and were reserved

    @property
    def is_limited(self) -> bool:
        """Whether there is anything to reserve or to look at."""
        return self._ledger is not None or self._space.least > 0

    def moving(self) -> contextlib.AbstractContextManager[None]:
        """Around whatever begins, publishes, keeps or removes files. May be nested."""
        return contextlib.nullcontext() if self._ledger is None else self._ledger.moving()

    def try_twice(self, work: Callable[[], _Made]) -> _Made:
        """Do `work`, and once more if the quota refused it and the ledger was wrong. Never inside `moving`."""
        return with_repair(self._ledger, work)

    # --- files ---

    def reservation(self) -> Reservation:
        """A new one, of nothing yet."""
        return Reservation(self._ledger, self._quota, self._space if self._space.least else None)

    def reserve(self, file: TemporaryFile) -> None:
        """Reserve what a file that has begun announced, and what its path lacks; a pipe reserves as it grows.

        Raises Refused (NO_SPACE; QUOTA; BUSY while another process has reserved something for the same file), OSError.
        """
        size = file.incoming.size
        self._space.check((size or 0) - max(file.offers, default=0))
        try:
            file.reservation.reserve(size or 0)
        except Refused as problem:
            if file.is_shared and problem.code is Code.QUOTA:
                raise Refused(Code.BUSY) from None
            raise
        if size is None:
            file.reservation.reserve_as_it_grows()
        self.reserve_folders(file.incoming.path[:-1])

    def reserve_together(self, files: Sequence[Incoming]) -> list[Reservation]:
        """Reserve what small files announced, in one step, and what their paths lack; all of it or nothing.

        Raises Refused (NO_SPACE, QUOTA), OSError.
        """
        sizes = [each.size or 0 for each in files]
        self._space.check(sum(sizes))
        if self._ledger is None:
            return [NOT_RESERVED] * len(files)
        made = reserved_together(self._ledger, self._quota, sizes)
        try:
            for folder in {each.path[:-1] for each in files}:
                self.reserve_folders(folder)
        except BaseException:
            for each in made:
                each.end(None)
            raise
        return made

    @contextlib.contextmanager
    def replacing(self, name: str, folder: int) -> Iterator[None]:
        """Around replacing the file of that name: what it used is free again."""
        if self._ledger is None:
            yield
            return
        with self._ledger.alone():
            old = state_of(name, folder)
            yield
            if old is not None and not stat.S_ISDIR(old.st_mode):
                self._ledger.credit(_amount_of(old))

    @contextlib.contextmanager
    def removing(self) -> Iterator[Callable[[os.stat_result], None]]:
        """Around removing a few names; call what this gives with the state of each that is gone: it is free again."""
        if self._ledger is None:
            yield lambda state: None
            return
        with self._ledger.moving(), self._ledger.removing():
            gone: list[os.stat_result] = []
            try:
                yield gone.append
            finally:
                self._ledger.credit(sum(map(_amount_of, gone), NOTHING))
                if any(stat.S_ISDIR(state.st_mode) for state in gone):
                    self.forget_folders()

    def used(self) -> Amount | None:
        """What the account uses; None when that is not counted. Never inside `moving`."""
        return None if self._ledger is None else self._ledger.in_use()

    @property
    def free(self) -> int:
        """Bytes of the disk that may still be used, whatever the quota. Raises OSError."""
        return self._space.left()

    # --- folders ---

    def reserve_folders(self, path: PathParts, anew: bool = False) -> None:
        """Reserve the folders that are missing on a path. Raises Refused (QUOTA).

        `anew`: also those that were there before; they may have been removed since.
        """
        if self._ledger is None:
            return
        key = "/".join(path).encode()
        if anew:
            self._seen.discard(key)
        elif key in self._seen:
            return
        folders = _folders_on(path)
        there = self._visible.depth_of(path)
        missing = {folder for folder in folders[there:] if folder not in self._promised}
        if missing:
            if len(self._promised) + len(missing) > _MOST_PROMISED:
                raise Refused(Code.QUOTA, why="too many folders announced and not made")
            self._ledger.reserve(folders_of(len(missing)), self._quota)
            self._promised |= missing
        if self._seen_size > _MOST_SEEN:
            self.forget_folders()
        self._seen.add(key)
        self._seen_size += len(key) + _EACH_SEEN

    def forget_folders(self) -> None:
        """Folders that were there may have another name by now, or be gone."""
        self._seen, self._seen_size = set(), 0

    def has_promised(self, path: PathParts) -> bool:
        """Whether any folder on a path was reserved and is not made yet."""
        return bool(self._promised) and not self._promised.isdisjoint(_folders_on(path))

    def make_folders(self, path: PathParts, make: Callable[[], _Made]) -> _Made:
        """Do `make`, which makes the folders on a path: one connection is charged for each. Inside `moving`.

        Raises Refused.
        """
        ledger, folders = self._ledger, _folders_on(path)
        if ledger is None:
            return make()
        for _ in range(_MOST_TRIES):
            self.reserve_folders(path, anew=True)
            with ledger.alone():
                missing = set(folders[self._visible.depth_of(path) :])
                if missing <= self._promised:
                    return self._make_promised(ledger, path, missing, make)
        raise Refused(Code.BUSY, why="folders on its path are removed all the time")

    def _make_promised(
        self, ledger: Ledger, path: PathParts, missing: set[PathParts], make: Callable[[], _Made]
    ) -> _Made:
        depth = len(path)
        try:
            return make()
        except BaseException:
            depth = 0
            with contextlib.suppress(Refused):
                depth = self._visible.depth_of(path)
            raise
        finally:
            there = self._promised.intersection(_folders_on(path)[:depth])
            self._promised -= there
            ledger.count(folders_of(len(there & missing)))
            ledger.give_back(folders_of(len(there - missing)))  # another connection made them

    def close(self) -> None:
        """The connection has ended: give back what was reserved for folders that were never made."""
        if self._ledger is not None:
            self._ledger.give_back(folders_of(len(self._promised)))
            self._promised.clear()


def _amount_of(state: os.stat_result) -> Amount:
    """What a thing is counted for, as `measure` counts it."""
    if stat.S_ISDIR(state.st_mode):
        return folders_of(1)
    if stat.S_ISLNK(state.st_mode):
        return file_of(0)
    return file_of(state.st_size) if stat.S_ISREG(state.st_mode) else NOTHING


def _folders_on(path: PathParts) -> list[PathParts]:
    """The path's folders, the outermost first."""
    return [path[:depth] for depth in range(1, len(path) + 1)]
