"""A limit for bytes per second: a bucket that fills at the rate and holds a quarter of a second.

Rules: callers wait, each in turn, so that they share the rate equally. Waiting ends with the caller's connection. The
clock and the waiting are arguments.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

_BUCKET_SECONDS = 0.25
_LONGEST_WAIT = 0.25  # before the next look at whether the connection has ended
_MESSAGE_HEADER = 5  # type and size
_PAID_AT_ONCE = 4096  # bytes of small messages: a look at the clock for each would cost more than it is worth

_CONTENT_SHARE = 16  # of an account's rate: so many bytes of content count as one, even if none of them is sent

_Message = TypeVar("_Message")


def weight(sent: int, content: int) -> int:
    """What an account pays for a message of `sent` bytes that makes the server hash `content` bytes."""
    return max(sent, content // _CONTENT_SHARE)


class _Bucket:
    """The bytes that all who share one limit have paid for."""

    def __init__(self, rate: int, clock: Callable[[], float], counts_content: bool) -> None:
        self.rate, self._clock, self._counts_content = rate, clock, counts_content
        self._paid_until = clock()
        self._lock = threading.Lock()

    def pay(self, count: int, content: int) -> float:
        """When these bytes may have passed, by the clock; later callers come after them."""
        if self._counts_content:
            count = weight(count, content)
        with self._lock:
            start = max(self._paid_until, self._clock() - _BUCKET_SECONDS)
            self._paid_until = start + count / self.rate
            return self._paid_until


def _never() -> bool:
    return False


class RateLimiter:
    """`spend(count)` returns once `count` bytes may have passed since the start."""

    def __init__(
        self,
        rate: int | None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
        counts_content: bool = False,
    ) -> None:
        """`rate` in bytes per second; None for no limit. `counts_content`: it is an account's, see `weight`."""
        self._clock, self._wait = clock, wait
        self._buckets: list[_Bucket] = [] if rate is None else [_Bucket(rate, clock, counts_content)]
        self._has_ended: Callable[[], bool] = _never

    def for_connection(self, has_ended: Callable[[], bool]) -> "RateLimiter":
        """The same limit, shared by one connection; `spend` returns when that has ended."""
        return self._with(self._buckets, has_ended)

    def within(self, rate: int) -> "RateLimiter":
        """The same limit, and a second one of `rate` that is not shared."""
        return self._with([*self._buckets, _Bucket(rate, self._clock, False)], self._has_ended)

    def _with(self, buckets: list[_Bucket], has_ended: Callable[[], bool]) -> "RateLimiter":
        made = RateLimiter(None, self._clock, self._wait)
        made._buckets, made._has_ended = buckets, has_ended
        return made

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return bool(self._buckets)

    def bytes_in(self, seconds: float) -> float:
        """How many bytes may pass in so many seconds."""
        return min((bucket.rate for bucket in self._buckets), default=math.inf) * seconds

    def spend(self, count: int, before_waiting: Callable[[], None] = lambda: None, content: int = 0) -> None:
        """Wait until these bytes are within the limit; `before_waiting` is called first if there is a wait.

        `content`: how many bytes of a file they stand for.
        """
        if not self._buckets:
            return
        due = max(bucket.pay(count, content) for bucket in self._buckets)
        if due > self._clock():
            before_waiting()
        while (left := due - self._clock()) > 0 and not self._has_ended():
            self._wait(left if self._has_ended is _never else min(left, _LONGEST_WAIT))


class RateLimiters:
    """The limits of a process: one for each user who has one. They outlive connections: reconnecting resets none."""

    def __init__(self) -> None:
        self._limiters: dict[str, tuple[int, RateLimiter]] = {}
        self._lock = threading.Lock()

    def of(self, user: str, rate: int | None) -> RateLimiter:
        """The limiter that all connections of `user` share; a new one when the user's `rate` is another one now."""
        if rate is None:
            return RateLimiter(None)
        with self._lock:
            known = self._limiters.get(user)
            if known is None or known[0] != rate:
                known = self._limiters[user] = rate, RateLimiter(rate, counts_content=True)
            return known[1]


class Messages(Protocol):
    """A source of messages that can let answers leave; `sft.wire.channel.Channel` is one."""

    @property
    def bytes_posted(self) -> int: ...

    def hurry(self) -> None: ...


def limited(
    channel: Messages,
    messages: Iterator[tuple[_Message, memoryview] | None],
    limiter: RateLimiter,
    content_of: Callable[[_Message], int] = lambda message: 0,
) -> Iterator[tuple[_Message, memoryview] | None]:
    """The same messages within the limit. A message is paid for once it was dealt with, together with its answers.

    `content_of`: how many bytes of a file a message stands for.
    """
    if not limiter.is_limited:
        yield from messages
        return
    due, posted = 0, channel.bytes_posted
    for arrived in messages:
        if arrived is not None:
            due += weight(_MESSAGE_HEADER + len(arrived[1]), content_of(arrived[0]))
        yield arrived
        due, posted = due + channel.bytes_posted - posted, channel.bytes_posted
        if due >= _PAID_AT_ONCE or arrived is None:
            channel.hurry()  # what was answered need not wait
            limiter.spend(due)
            due = 0
    limiter.spend(due)  # what came right before the end
