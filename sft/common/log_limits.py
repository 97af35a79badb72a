"""Limits for log lines that a peer can cause at will, such as one for each file that is refused.

Rules: the first lines of a kind are logged as they are; those beyond the limit are counted, and the count is one line.
So no peer can push everything else out of a log that is rotated. Peers without an account are distinguished by the
source that the caller names; the number of sources that are remembered is bounded, because an attacker chooses them.
Nothing is written here.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol

from sft.common.log_events import LogEvent
from sft.common.sizes import counted

_BURST = 200
_REFILL_SECONDS = 10.0
_MOST_SOURCES = 1024
_NAMED_SOURCES = 3  # in the line about what was left out
_TELL_SECONDS = 60.0
_INFO, _WARNING, _ERROR = 20, 30, 40  # the levels of the standard library, which --help need not load


class Log(Protocol):
    """A logger of the standard library, or an adapter of one."""

    def log(self, level: int, msg: object, /, *args: object) -> None: ...


class LineRate(NamedTuple):
    """So many lines at once, and one more every so many seconds."""

    burst: int
    refill: float


class _Bucket:
    """The lines that a rate still allows."""

    def __init__(self, rate: LineRate, now: float) -> None:
        self._rate, self._left, self._since = rate, float(rate.burst), now

    def take(self, now: float) -> bool:
        """Whether one more line is allowed; it is used up then."""
        self._left = min(float(self._rate.burst), self._left + (now - self._since) / self._rate.refill)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class LineLimit:
    """How many lines of a kind may be logged: `burst` at once, and one more every ten seconds; the rest is counted."""

    def __init__(self, burst: int = _BURST, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bucket = _Bucket(LineRate(burst, _REFILL_SECONDS), clock())
        self._left_out = 0
        self._lock = threading.Lock()

    def may(self) -> bool:
        """Whether a line may be logged now; else it is counted."""
        with self._lock:
            allowed = self._bucket.take(self._clock())
            self._left_out += not allowed
            return allowed

    def left_out(self) -> int:
        """How many lines were counted since this was asked last."""
        with self._lock:
            count, self._left_out = self._left_out, 0
            return count


class Sparing:
    """Logs what others can cause at will, within a limit that several logs may share."""

    def __init__(self, log: Log, limit: LineLimit | None = None) -> None:
        self._log, self._limit = log, limit or LineLimit()

    def log(self, level: int, text: str | LogEvent | Callable[[], LogEvent], *values: object) -> None:
        """Log the line, or count it; one that is only counted need not be made."""
        if self._limit.may():
            self.tell()
            self._log.log(level, text() if callable(text) else text, *values)

    def info(self, text: str | LogEvent | Callable[[], LogEvent], *values: object) -> None:
        """The same, of something that is no trouble."""
        self.log(_INFO, text, *values)

    def warning(self, text: str | LogEvent, *values: object) -> None:
        """The same, of a peer's trouble."""
        self.log(_WARNING, text, *values)

    def error(self, text: str, *values: object) -> None:
        """The same, of our own trouble."""
        self.log(_ERROR, text, *values)

    def tell(self) -> None:
        """Log how many lines were left out since the last time."""
        if count := self._limit.left_out():
            self._log.log(_WARNING, "%s of this kind left out", counted(count, "more line", ""))


class LineKind(NamedTuple):
    """Lines of one kind that peers without an account can cause: how many of one source, and how many in all."""

    name: str  # in the line about those that were left out
    per_source: LineRate
    total: LineRate


# A program that looks for guesses (deploy/fail2ban) bans after 20 of them, so a source's limit is far above that; and
# connections that only make noise use up nothing of it. A day of either kind at full rate is under 3 MB of log.
REFUSED_LOGINS = LineKind("refused logins", LineRate(60, 60.0), LineRate(2_000, 10.0))
NO_LOGIN = LineKind("connections without a login", LineRate(20, 60.0), LineRate(500, 10.0))


class _LeftOut:
    """Counts by source what was not logged, for a bounded number of sources."""

    def __init__(self, now: float) -> None:
        self.since = now
        self._named: dict[str, int] = {}
        self._others = 0

    def add(self, source: str) -> None:
        if source in self._named or len(self._named) < _MOST_SOURCES:
            self._named[source] = self._named.get(source, 0) + 1
        else:
            self._others += 1

    def shown(self) -> str:
        """`1,234 more from 192.0.2.1, 70 more from others`."""
        first = sorted(self._named, key=self._named.__getitem__, reverse=True)[:_NAMED_SOURCES]
        parts = [f"{self._named[source]:,} more from {source}" for source in first]
        if others := self._others + sum(self._named.values()) - sum(self._named[source] for source in first):
            parts.append(f"{others:,} more from others")
        return ", ".join(parts)


class _Strangers:
    """What peers without an account may still cause of one kind, and what was left out."""

    def __init__(self, kind: LineKind, now: float) -> None:
        self._kind = kind
        self._total = _Bucket(kind.total, now)
        self._sources: OrderedDict[str, _Bucket] = OrderedDict()  # the one heard of longest ago first
        self._left_out: _LeftOut | None = None

    def may(self, source: str, now: float) -> bool:
        bucket = self._sources.pop(source, None) or _Bucket(self._kind.per_source, now)
        self._sources[source] = bucket
        if len(self._sources) > _MOST_SOURCES:  # who comes back after so many others is limited by the total alone
            self._sources.popitem(last=False)
        if bucket.take(now) and self._total.take(now):
            return True
        self._left_out = self._left_out or _LeftOut(now)
        self._left_out.add(source)
        return False

    def summary(self, now: float, at_once: bool) -> str:
        """A line about what was left out for a minute, or so far; empty when there is nothing to say."""
        left_out = self._left_out
        if left_out is None or (now - left_out.since < _TELL_SECONDS and not at_once):
            return ""
        self._left_out = None
        return f"{self._kind.name}, not logged one by one in the last {now - left_out.since:.0f} s: {left_out.shown()}"


class SourceLimits:
    """Logs what peers without an account can cause: the first lines of each source, then how many more there were."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        """`log` is for the lines about what was left out. Call `tell` now and then."""
        self._log, self._clock = log, clock
        self._kinds: dict[LineKind, _Strangers] = {}
        self._lock = threading.Lock()

    def may(self, kind: LineKind, source: str) -> bool:
        """Whether a line of that kind, caused by `source`, may be logged now; else it is counted."""
        with self._lock:
            now = self._clock()
            return self._kinds.setdefault(kind, _Strangers(kind, now)).may(source, now)

    def tell(self, at_once: bool = False) -> None:
        """Log how many lines were left out, if that goes on for a minute, or `at_once`."""
        with self._lock:
            now = self._clock()
            lines = [strangers.summary(now, at_once) for strangers in self._kinds.values()]
        for line in filter(None, lines):
            self._log.log(_WARNING, "%s", line)
