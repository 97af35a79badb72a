"""Things that one thread finds and another one takes, in order, while no more than some wait.

Rules: what was found is all that there is only after `end`; a thread that finds and stops in another way says `fail`,
so that what it has not found is never taken for what is not there.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_TOGETHER = 256  # passed on at a time: a lock for each would cost more than finding it
_MOST = 64  # of those that wait: 16,384 things, or twice as many, some 10 MB

Thing = TypeVar("Thing")


class Ahead(Generic[Thing]):
    """One thread calls `put`, `end` and `fail`, another one `peek` and `pass_by`."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        """`is_over()`: nothing more is taken; looked at five times a second."""
        self._is_over = is_over
        self._changed = threading.Condition()
        self._waiting: deque[list[Thing]] = deque()
        self._filling: list[Thing] = []
        self._weight = 0  # of those
        self._has_ended = self._has_failed = False
        self._taken: list[Thing] = []
        self._at = 0

    def put(self, thing: Thing, weight: int = 1) -> None:
        """One more thing, which stands for `weight` of them; waits while too many wait to be taken."""
        self._filling.append(thing)
        self._weight += weight
        if self._weight >= _TOGETHER:
            self._hand_over()

    def end(self) -> None:
        """That was all."""
        self._hand_over()
        with self._changed:
            self._has_ended = True
            self._changed.notify()

    def fail(self) -> None:
        """There may be more, and nobody will find it."""
        with self._changed:
            self._has_failed = not self._has_ended
            self._changed.notify()

    def _hand_over(self) -> None:
        with self._changed:
            while len(self._waiting) >= _MOST and not self._is_over():
                self._changed.wait(0.2)
            self._waiting.append(self._filling)
            self._filling, self._weight = [], 0
            self._changed.notify()

    def peek(self) -> Thing | None:
        """The next thing, which stays the next; None behind the last. Raises RuntimeError after `fail`."""
        while self._at >= len(self._taken):
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._has_ended or self._has_failed)
                if self._has_failed:
                    raise RuntimeError("not everything was found")
                if not self._waiting:
                    return None
                self._taken, self._at = self._waiting.popleft(), 0
                self._changed.notify()
        return self._taken[self._at]

    def pass_by(self) -> None:
        """Go on to the one behind it."""
        self._at += 1
