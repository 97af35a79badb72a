"""The lines of a log, made of what is logged, for people and for systemd's journal.

    2026-01-31T12:00:00.123Z INFO #13 alice@203.0.113.9: stored a.txt, 3 bytes, SHA-256 ...

Rules: an event is one line, whatever stands in it, and has at most 5,000 bytes, so that a long name can't push other
lines out. A list of events is as many lines. `extra` of a call may have a `head`, which stands before the text.
"""

import logging
import time

from sft.common.log_events import LogEvent
from sft.common.text import cut, escape

LINE_BYTES = 5_000  # a printable path of 4,096 bytes stays whole
# How the journal learns a line's level: sd-daemon(3).
_JOURNAL_LEVELS = {logging.DEBUG: "<7>", logging.INFO: "<6>", logging.WARNING: "<4>", logging.ERROR: "<3>"}


class TextLines(logging.Formatter):
    """For people, with the time in UTC."""

    _second, _shown = -1, ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        second = int(record.created)
        if second != self._second:  # strftime is half the cost of a line, and many lines fall into one second
            self._second, self._shown = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._shown}.{int(record.msecs):03d}Z"

    def format(self, record: logging.LogRecord) -> str:
        made: tuple[logging.Formatter, str] | None = getattr(record, "made", None)
        if made is None or made[0] is not self:  # a handler formats a record twice, the first time for its length
            made = record.made = (self, "\n".join(self._lines(record)))
        return made[1]

    def _lines(self, record: logging.LogRecord) -> list[str]:
        head = f"{self._begin(record)}{record.levelname} {getattr(record, 'head', '')}"
        return [cut(escape(f"{head}{event}"), LINE_BYTES) for event in events_of(record)]

    def _begin(self, record: logging.LogRecord) -> str:
        return f"{self.formatTime(record)} "


class JournalLines(TextLines):
    """For the journal, which has the times itself."""

    def _begin(self, record: logging.LogRecord) -> str:
        return _JOURNAL_LEVELS.get(record.levelno, "")


def events_of(record: logging.LogRecord) -> list[LogEvent | str]:
    """What a record says: some events, one, or a text with its values and a traceback."""
    said: object = record.msg
    if isinstance(said, list):
        return said
    if isinstance(said, LogEvent):
        return [said]
    trace = "\n" + logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
    return [record.getMessage() + trace]
