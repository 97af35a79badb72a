"""Limits for log lines that a peer can cause at will, such as one for each file that is refused.

Rules: the first lines of a kind are logged as they are; those beyond the limit are counted, and the count is one line.
So nobody can push everything else out of a log that is rotated. It writes nothing itself.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from sft.common.sizes import counted

_BURST = 200
_REFILL_SECONDS = 10.0
_INFO, _WARNING, _ERROR = 20, 30, 40  # the levels of the standard library, which --help need not load


class Log(Protocol):
    """A logger of the standard library, or an adapter of one."""

    def log(self, level: int, msg: object, /, *args: object) -> None: ...


class LineLimit:
    """How many lines of a kind may be logged: `burst` at once, and one more every ten seconds; the rest is counted."""

    def __init__(self, burst: int = _BURST, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._most, self._left, self._since = float(burst), float(burst), clock()
        self._left_out = 0
        self._lock = threading.Lock()

    def may(self) -> bool:
        """Whether a line may be logged now; else it is counted."""
        with self._lock:
            now = self._clock()
            self._left = min(self._most, self._left + (now - self._since) / _REFILL_SECONDS)
            self._since = now
            if self._left < 1:
                self._left_out += 1
                return False
            self._left -= 1
            return True

    def left_out(self) -> int:
        """How many lines were counted since this was asked last."""
        with self._lock:
            count, self._left_out = self._left_out, 0
            return count


class LineLimits:
    """A limit for each user, whatever the number of connections."""

    def __init__(self) -> None:
        self._limits: dict[str, LineLimit] = {}
        self._lock = threading.Lock()

    def of(self, user: str) -> LineLimit:
        """What all connections of `user` share."""
        with self._lock:
            return self._limits.setdefault(user, LineLimit())


class Sparing:
    """Logs what others can cause at will, within a limit that several logs may share."""

    def __init__(self, log: Log, limit: LineLimit | None = None) -> None:
        self._log, self._limit = log, limit or LineLimit()

    def log(self, level: int, text: str, *values: object) -> None:
        """Log the line, or count it."""
        if self._limit.may():
            self.tell()
            self._log.log(level, text, *values)

    def info(self, text: str, *values: object) -> None:
        """The same, of something that is no trouble."""
        self.log(_INFO, text, *values)

    def warning(self, text: str, *values: object) -> None:
        """The same, of a peer's trouble."""
        self.log(_WARNING, text, *values)

    def error(self, text: str, *values: object) -> None:
        """The same, of our own trouble."""
        self.log(_ERROR, text, *values)

    def tell(self) -> None:
        """Log how many lines were left out since the last time."""
        if count := self._limit.left_out():
            self._log.log(_WARNING, "%s of this kind left out", counted(count, "more line", ""))
