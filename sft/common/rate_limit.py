"""A limit for bytes per second: a bucket that fills at the rate and holds a quarter of a second.

Rules: callers wait, each in turn, so that they share the rate equally. Waiting ends with the caller's connection. The
clock and the waiting are arguments.
"""

import copy
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

_BUCKET_SECONDS = 0.25
_LONGEST_WAIT = 0.25  # between two looks at whether it is still worth it
_MESSAGE_HEADER = 5  # type and size
_PAID_AT_ONCE = 4096  # bytes of small messages, of which not each is worth a look at the clock

_Message = TypeVar("_Message")


class _Bucket:
    """What all that share one limit have paid for."""

    def __init__(self, rate: int, clock: Callable[[], float]) -> None:
        self.rate, self.clock = rate, clock
        self._paid_until = clock()
        self._lock = threading.Lock()

    def pay(self, count: int) -> float:
        """When these bytes may have passed, by the clock; later callers come after them."""
        with self._lock:
            start = max(self._paid_until, self.clock() - _BUCKET_SECONDS)
            self._paid_until = start + count / self.rate
            return self._paid_until


class Pace:
    """`spend(count)` returns once `count` bytes may have passed since the start."""

    def __init__(
        self,
        rate: int | None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """`rate` in bytes per second; None for no limit."""
        self.bucket = None if rate is None else _Bucket(rate, clock)
        self._asked: _Bucket | None = None  # of one connection alone
        self._clock, self._wait = clock, wait
        self._has_ended: Callable[[], bool] | None = None

    def turn(self, has_ended: Callable[[], bool]) -> "Pace":
        """The same limit for one connection of those that share it, which nobody waits for once it has ended."""
        one = copy.copy(self)
        one._has_ended = has_ended
        return one

    def within(self, rate: int) -> "Pace":
        """The same limit, and beside it one of `rate` that nobody shares."""
        one = copy.copy(self)
        one._asked = _Bucket(rate, self._clock)
        return one

    def _buckets(self) -> list[_Bucket]:
        return [bucket for bucket in (self.bucket, self._asked) if bucket is not None]

    def share(self, seconds: float) -> float:
        """How many bytes may pass in so many seconds."""
        return min((bucket.rate for bucket in self._buckets()), default=math.inf) * seconds

    def spend(self, count: int, before_waiting: Callable[[], None] = lambda: None) -> None:
        """Wait until these bytes are within the limit; `before_waiting` is called when that is not at once."""
        if self.bucket is None and self._asked is None:
            return
        due = max(bucket.pay(count) for bucket in self._buckets())
        if due > self._clock():
            before_waiting()
        while (left := due - self._clock()) > 0:
            if self._has_ended is None:
                self._wait(left)
            elif self._has_ended():
                return
            else:
                self._wait(min(left, _LONGEST_WAIT))


class Paces:
    """The limits of a process: one for each user who has one. It stays: who connects anew still owes what came."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[int, _Bucket]] = {}
        self._lock = threading.Lock()

    def of(self, user: str, rate: int | None) -> Pace:
        """What all connections of `user` share, who may have `rate` bytes per second."""
        pace = Pace(rate)
        if pace.bucket is not None and rate is not None:
            with self._lock:
                known, bucket = self._buckets.get(user, (0, pace.bucket))
                if known == rate:
                    pace.bucket = bucket
                else:
                    self._buckets[user] = rate, pace.bucket
        return pace


class Messages(Protocol):
    """Whatever gives messages, and lets answers leave; `sft.wire.channel.Channel` is one."""

    @property
    def bytes_posted(self) -> int: ...

    def hurry(self) -> None: ...


def paced(
    channel: Messages, messages: Iterator[tuple[_Message, memoryview] | None], pace: Pace
) -> Iterator[tuple[_Message, memoryview] | None]:
    """The same messages within the limit: once one was dealt with, every byte of it counts, and of the answers."""
    if pace.bucket is None:
        yield from messages
        return
    due, posted = 0, channel.bytes_posted
    for arrived in messages:
        if arrived is not None:
            due += _MESSAGE_HEADER + len(arrived[1])
        yield arrived
        due, posted = due + channel.bytes_posted - posted, channel.bytes_posted
        if due >= _PAID_AT_ONCE or arrived is None:
            channel.hurry()  # what was answered need not wait
            pace.spend(due)
            due = 0
    pace.spend(due)  # what came right before the end
