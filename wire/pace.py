"""A limit for bytes per second: a bucket that fills at the rate and holds a quarter of a second.

Rules: it makes its caller wait, and knows nothing of what the bytes are. The clock and the waiting are arguments.
"""

import time
from collections.abc import Callable

_BUCKET_SECONDS = 0.25


class Pace:
    """`spend(count)` returns once `count` bytes may have passed since the start."""

    def __init__(
        self,
        rate: int | None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """`rate` in bytes per second; None for no limit."""
        self._rate, self._clock, self._wait = rate, clock, wait
        self._paid_until = clock()

    def spend(self, count: int) -> None:
        """Wait until these bytes are within the limit."""
        if self._rate is None:
            return
        now = self._clock()
        self._paid_until = max(self._paid_until, now - _BUCKET_SECONDS) + count / self._rate
        if self._paid_until > now:
            self._wait(self._paid_until - now)
