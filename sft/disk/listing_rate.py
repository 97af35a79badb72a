"""How much time goes into reading whole folders for one user's listings: a fifth at most, over all connections.

Rules: listing a folder page by page reads it once; asking from the start again and again, or going to and fro between
folders, has to wait. The first reading after a pause does not wait. Waiting ends with its connection. The clocks and
the waiting are arguments.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

_PARTS = 5  # of the time, one of which is for reading
_CREDIT_SECONDS = 2.0
_LONGEST_WAIT = 0.25  # seconds between two looks at whether the connection still lives

_Made = TypeVar("_Made")


class ListingRate:
    """Of one user. Safe to use from several threads."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.thread_time,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """`used`: processor time of the calling thread, in seconds."""
        self._clock, self._used, self._wait = clock, used, wait
        self._lock = threading.Lock()
        self._free_at = clock()

    def read(self, work: Callable[[], _Made], check: Callable[[], None]) -> _Made:
        """Do `work`, which reads a folder, when its turn has come. `check` raises when the connection has ended."""
        while not self._lock.acquire(timeout=_LONGEST_WAIT):
            check()
        try:
            while (left := self._free_at - self._clock()) > 0:
                check()
                self._wait(min(left, _LONGEST_WAIT))
            began, before = self._clock(), self._used()
            try:
                return work()
            finally:
                self._charge(self._used() - before, began)
        finally:
            self._lock.release()

    def used(self) -> float:
        """Processor time of the calling thread, in seconds."""
        return self._used()

    def pay(self, seconds: float, check: Callable[[], None]) -> None:
        """Wait for a turn as if for a reading, of which `seconds` of processor time were used already."""
        self.read(lambda: self._charge(seconds, self._clock()), check)

    def _charge(self, seconds: float, began: float) -> None:
        self._free_at = max(self._free_at, began - _CREDIT_SECONDS) + seconds * _PARTS
