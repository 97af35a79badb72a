"""How often whole folders are read for one user's listings: a fifth of the time at most, over all connections.

Rules: who lists a folder page by page has it read once; who asks from the start again and again, or goes to and fro
between folders, waits. What is read first after a while costs no waiting. Nobody waits on for a connection that has
ended. The clocks and the waiting are arguments.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

_PARTS = 5  # one of them is for reading
_CREDIT_SECONDS = 2.0
_LONGEST_WAIT = 0.25  # between two looks at whether it is still worth it

_Made = TypeVar("_Made")


class Readings:
    """Of one user. Safe to use from several threads."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.thread_time,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """`used`: the time of the processor that the calling thread has had."""
        self._clock, self._used, self._wait = clock, used, wait
        self._lock = threading.Lock()
        self._free_at = clock()

    def read(self, work: Callable[[], _Made], check: Callable[[], None]) -> _Made:
        """Do `work`, which reads a folder, when its turn has come. `check` raises when nobody waits for it any more."""
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
                cost = (self._used() - before) * _PARTS
                self._free_at = max(self._free_at, began - _CREDIT_SECONDS) + cost
        finally:
            self._lock.release()
