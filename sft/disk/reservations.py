"""What one file on its way has reserved, and how far it may grow before it has to ask again.

Rules: a file owns its reservation from its beginning until it is published, kept or removed, and gives back what is
left. A connection that takes a file over takes its reservation, too, in the same step. A refusal by the quota is
believed only after the ledger was repaired. It opens nothing.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sft.common.errors import Code, Refused
from sft.disk.amounts import NO_QUOTA, NOTHING, Amount, Quota, file_of
from sft.disk.durable import disk_errors
from sft.disk.ledger import Ledger

_ENDLESS = 1 << 63
_CHECK_EVERY = 4 << 20  # bytes of one file between two looks at the free space

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """The disk of an open folder, on which `least` bytes must stay free."""

    folder: int
    least: int

    def check(self, wanted: int) -> None:
        """Raises Refused (NO_SPACE) unless `wanted` bytes more leave enough, OSError."""
        if wanted > self._beyond_least():
            raise Refused(Code.NO_SPACE)

    def left(self) -> int:
        """Bytes that may still be used. Raises OSError."""
        return max(self._beyond_least(), 0)

    def _beyond_least(self) -> int:
        state = os.fstatvfs(self.folder)
        return state.f_bavail * state.f_frsize - self.least


def with_repair(ledger: Ledger | None, work: Callable[[], _Made]) -> _Made:
    """Do `work`, and once more if the quota refused it and the ledger was wrong. Never inside `Ledger.moving`."""
    try:
        return work()
    except Refused as problem:
        if problem.code is not Code.QUOTA or ledger is None:
            raise
        with disk_errors():
            is_repaired = ledger.repair()
        if not is_repaired:
            raise
    return work()


class Reservation:
    """What one file has reserved of its account's quota. Without a ledger it reserves nothing."""

    def __init__(
        self,
        ledger: Ledger | None = None,
        quota: Quota = NO_QUOTA,
        space: FreeSpace | None = None,
        amount: Amount = NOTHING,
    ) -> None:
        """`space`: looked at while the file grows. `amount`: what was reserved for it already."""
        self._ledger, self._quota, self._space = ledger, quota, space
        self._amount = amount
        self._grows = False
        self.covered = _ENDLESS if space is None else _CHECK_EVERY  # bytes that the file may have without asking again

    def inherit(self, before: "Reservation") -> None:
        """Take what an older connection has reserved for the file."""
        if self._ledger is not None:
            with self._ledger.lock:
                self._amount, before._amount = self._amount + before._amount, NOTHING

    def inherit_counted(self, kept: int) -> None:
        """Take what the file was counted for, as one of which so many bytes were kept."""
        if self._ledger is not None:
            with self._ledger.lock:
                self._amount += self._ledger.reserve_counted(kept)

    def reserve(self, size: int) -> None:
        """Let the file have so many bytes. Raises Refused (QUOTA), OSError."""
        if self._ledger is None:
            return
        with self._ledger.lock:
            more = file_of(size).beyond(self._amount)
            if more != NOTHING:
                self._ledger.reserve(more, self._quota)
                self._amount += more

    def reserve_as_it_grows(self) -> None:
        """The size of the file is not known: reserve while it grows."""
        if self._ledger is not None:
            self._grows, self.covered = True, 0

    def cover(self, size: int) -> None:
        """To be called before the file gets larger than `covered`. Raises Refused (NO_SPACE, QUOTA), OSError."""
        if self._space is not None:
            self._space.check(0)
        if self._grows:
            with_repair(self._ledger, lambda: self.reserve(size))
            self.covered = size
        else:
            self.covered = size + _CHECK_EVERY

    def published(self, size: int) -> None:
        """The file is visible now."""
        if self._ledger is None:
            return
        with self._ledger.lock:
            self._ledger.count(file_of(size))
            self._amount -= file_of(size)

    @property
    def is_used(self) -> bool:
        """Whether nothing is left of it."""
        return not self._amount.files

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Around the end of the file."""
        with contextlib.ExitStack() as inside:
            if self._ledger is not None:
                with contextlib.suppress(OSError):  # without the lock what is reserved is given back all the same
                    inside.enter_context(self._ledger.moving())
            yield

    def end(self, stays: int | None) -> None:
        """Give back what the file does not need; `stays`: its bytes that are kept, None when it leaves nothing."""
        if self._ledger is None:
            return
        with self._ledger.lock:
            amount, self._amount = self._amount, NOTHING
            if stays is not None:
                self._ledger.count(file_of(stays))
                amount -= file_of(stays)
            self._ledger.give_back(amount)


def reserved_together(ledger: Ledger, quota: Quota, sizes: Sequence[int]) -> list[Reservation]:
    """One for each of some files of these sizes, in one step. Raises Refused (QUOTA), OSError with nothing reserved."""
    amounts = [file_of(size) for size in sizes]
    ledger.reserve(sum(amounts, NOTHING), quota)
    return [Reservation(ledger, quota, amount=amount) for amount in amounts]


NOT_RESERVED = Reservation()
