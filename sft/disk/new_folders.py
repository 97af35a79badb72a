"""Folders that one connection makes: announced with mode and time, or missing on the path of a file.

Rules: a folder is durable before it has a receipt. It is made when it is announced, and flushed with the group of files
that it was announced among: to flush for each took 3 of 4 flushes of a tree. One that is there is flushed, too: it may
have been made a moment ago by another connection. Its mode counts when it is made, its time is set at the end, because
what is put into it changes the time. One that its owner may not write to becomes so at the end, too, and is writable
until then; what ends in between leaves it writable for its owner. A folder that was there before is opened or closed
only for who may replace what is there, or closed by the transfer that made or opened it. What is remembered is bounded
in bytes, whatever the paths: when it is full, the folders that were announced first get their times early, except those
above the newest one, whose content is still on its way.
"""

import contextlib
import os
import stat
from collections.abc import Iterable
from contextlib import AbstractContextManager

from sft.common.errors import Code, Refused
from sft.common.names import judge_path
from sft.common.open_files import close
from sft.disk.decisions import Policy
from sft.disk.durable import disk_errors, set_time
from sft.disk.folders import PathParts
from sft.disk.parents import Parent
from sft.disk.permissions import folder_bits, let_write, may_write
from sft.disk.quota import Allowance
from sft.disk.receipts import Delivery, Receipts
from sft.disk.reservations import NOT_RESERVED, Reservation
from sft.disk.temporary import Incoming
from sft.disk.visible_files import VisibleFiles

_MOST_BYTES = 8 << 20
_EACH = 240  # bytes of one folder without its path: two objects and its place in the table

_Known = tuple[int | None, int, bool]  # time, mode to make it with, whether its owner may not write to it in the end
Last = tuple[PathParts, int | None, bool]  # a folder, its time in ns, and the same


class Announced:
    """Modes and times by path; the last announcement of a path counts."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}
        self._size = 0

    def add(self, path: PathParts, mtime: int | None, mode: int | None) -> None:
        """That folder was announced; its mode counts when it is made from now on."""
        key = _key(path)
        if key not in self._known:
            self._size += len(key) + _EACH
        self._known[key] = mtime, folder_bits(mode), self._known.get(key, (None, 0, False))[2]

    def closes(self, path: PathParts) -> None:
        """That folder, which was announced, is one that its owner may not write to in the end."""
        if (known := self._known.get(key := _key(path))) is not None:
            self._known[key] = (*known[:2], True)

    def bits_of(self, path: PathParts) -> int:
        """The mode to make that folder with."""
        return self._known.get(_key(path), (None, folder_bits(None), False))[1]

    def take(self) -> list[Last]:
        """All that get something in the end; none is remembered any more."""
        self._size = 0
        known, self._known = self._known, {}
        return _lasts(known.items())

    def take_early(self, newest: PathParts) -> list[Last]:
        """The first half, except what is above `newest`, when there is too much to remember; mostly none."""
        if self._size <= _MOST_BYTES:
            return []
        above = {_key(newest[:depth]) for depth in range(1, len(newest))}
        first = [key for key in list(self._known)[: len(self._known) // 2] if key not in above]
        taken = [(key, self._known.pop(key)) for key in first]
        self._size -= sum(len(key) + _EACH for key in first)
        return _lasts(taken)


class MadeFolder:
    """A folder that is there, and perhaps not flushed yet; does what `sft.disk.temporary.Unpublished` lists.

    Its name is its own already: there is nothing to be done but the flush of the folder that it is in.
    """

    size, descriptor = 0, -1
    sha256: bytes | None = None
    refusal: Refused | None = None
    reservation: Reservation = NOT_RESERVED
    is_different = False
    has_time = is_finished = True

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming

    def finish(self, bits: int, parent: Parent | None = None) -> int:
        return self.descriptor

    def publishing(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def link(self, name: str, folder: int) -> None:
        pass

    def rename(self, name: str, folder: int) -> None:
        pass

    def is_same_file(self, other: os.stat_result) -> bool:
        return True

    def discard(self) -> None:
        pass

    def keep(self) -> bool:
        return True


class NewFolders:
    """Makes folders below a user's folder."""

    def __init__(self, visible: VisibleFiles, allowance: Allowance, receipts: Receipts | None) -> None:
        """`receipts` None: nothing is known of earlier connections."""
        self._visible, self._allowance, self._receipts = visible, allowance, receipts
        self.announced = Announced()

    def begin(self, incoming: Incoming, portable_names: bool) -> MadeFolder:
        """Make an announced folder, unless it is there, to be flushed with a group. Raises Refused.

        `finish` sets its time, and whether its owner may write to it.
        """
        path = incoming.path
        judge_path(path, portable_names)
        self._give_last(self.announced.take_early(path))
        self.announced.add(path, incoming.mtime, incoming.mode)  # if it can't be made now, a file in it may make it
        there = self._visible.state_of_path(path)
        if there is not None and not stat.S_ISDIR(there.st_mode):
            raise Refused(Code.LINK if stat.S_ISLNK(there.st_mode) else Code.NOT_FOLDER)
        self._allowance.try_twice(lambda: self._make(path))
        self._keep_writable(incoming, there)
        return MadeFolder(incoming)

    def _keep_writable(self, incoming: Incoming, there: os.stat_result | None) -> None:
        """Until the end; `there`: what was there before. PROTOCOL, section 12, has this as a table."""
        mode, replaces = incoming.mode, incoming.may_replace and incoming.policy == Policy.REPLACE
        is_closed = mode is not None and not may_write(mode)
        if there is None:
            if is_closed:
                self._close_in_the_end(incoming)
        elif may_write(there.st_mode):
            if is_closed and (replaces or self._has_opened(incoming)):
                self.announced.closes(incoming.path)
        elif replaces or (incoming.may_replace and is_closed):
            self._open_up(incoming.path)
            if is_closed or mode is None:
                self._close_in_the_end(incoming)

    def _close_in_the_end(self, incoming: Incoming) -> None:
        """Remembered, too, so that after a break the same transfer closes it."""
        self.announced.closes(incoming.path)
        if self._receipts is not None:
            name = _receipt_name(incoming.path)
            self._receipts.remember([Delivery(incoming.transfer, name, name, 0, b"")])

    def _has_opened(self, incoming: Incoming) -> bool:
        name = _receipt_name(incoming.path)
        return self._receipts is not None and self._receipts.find(incoming.transfer, name) is not None

    def _open_up(self, path: PathParts) -> None:
        with contextlib.suppress(OSError, Refused), self._visible.folder(path) as folder:  # else a file in it tells
            let_write(folder, True)

    def _make(self, path: PathParts) -> None:
        with disk_errors(), self._allowance.moving():
            self._allowance.reserve_folders(path)
            close(self.open(path))

    def open(self, path: PathParts) -> int:
        """A new descriptor of a folder, made when missing. Inside `Allowance.moving`. Raises Refused, OSError."""
        if not self._allowance.has_promised(path):
            try:
                return self._visible.open_folder(path)
            except Refused as problem:
                if problem.code is not Code.NOT_FOUND:
                    raise
        return self._allowance.make_folders(path, lambda: self._visible.open_folder(path, self.announced.bits_of))

    def finish(self) -> list[PathParts]:
        """Set the times of what was announced. Returns the folders whose time the disk can't hold."""
        return self._give_last(self.announced.take())

    def _give_last(self, lasts: list[Last]) -> list[PathParts]:
        lost: list[PathParts] = []
        for path, mtime, is_closed in lasts:
            with contextlib.suppress(OSError, Refused), self._visible.folder(path) as folder:
                if not set_time(folder, mtime):
                    lost.append(path)
                if is_closed:
                    let_write(folder, False)
        return lost


def _receipt_name(path: PathParts) -> PathParts:
    """What a folder is called among the receipts: no file has that path."""
    return (*path, "")


def _lasts(known: Iterable[tuple[bytes, _Known]]) -> list[Last]:
    return [(_path(key), time, closes) for key, (time, _, closes) in known if time is not None or closes]


def _key(path: PathParts) -> bytes:
    return "/".join(path).encode()


def _path(key: bytes) -> PathParts:
    return tuple(key.decode().split("/"))
