"""The log file of a program: one line for each event, in a file that only its owner can read.

Rules: a line is escaped, begins with its time in UTC, has at most 5,000 bytes in the file (a long name can't push other
lines out) and is written in one call, so that lines of several processes do not mix. When the log can't be written,
that is reported once and the work goes on. No password, key or content is given to this module. It prints nothing.
"""

import io
import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sft.common.errors import UsageError
from sft.common.private_files import open_private
from sft.common.text import cut, escape
from sft.console.screen import warn

_LOG_BYTES = 5_000_000
_LOG_KEPT = 3
_LINE_BYTES = 5_000  # a printable path of 4,096 bytes stays whole

# Our lines name no thread, process or source line, so `logging` need not find them out for each record.
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
logging._srcfile = None


class _OneLine(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO text`. A record whose message is a list of events becomes as many lines."""

    _second, _shown = -1, ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        second = int(record.created)
        if second != self._second:  # strftime is half the cost of a line, and many lines fall into one second
            self._second, self._shown = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._shown}.{int(record.msecs):03d}Z"

    def format(self, record: logging.LogRecord) -> str:
        text: str | None = getattr(record, "text", None)
        if text is None:  # the handler formats a record twice, the first time for its length
            if isinstance(record.msg, list):
                head = f"{self.formatTime(record)} {record.levelname} "
                text = "\n".join([_line(head + event) for event in record.msg])
            else:
                text = _line(super().format(record))
            record.text = text
        return text


def _line(text: str) -> str:
    return cut(escape(text), _LINE_BYTES)


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """The rotating file of the standard library, opened with mode 0600 and never through a link."""

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        """`complain` gets one line when the file can't be written later. Raises OSError, UsageError."""
        self._path, self._complain, self._has_complained = path, complain, False
        super().__init__(path, maxBytes=_LOG_BYTES, backupCount=_LOG_KEPT, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> io.TextIOWrapper:
        descriptor = open_private(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, f"the log {self._path}")
        # Unbuffered: each text is one call of write, whatever its length.
        raw = io.FileIO(descriptor, "a")
        return io.TextIOWrapper(raw, self.encoding, self.errors, newline="\n", write_through=True)

    def reopen(self) -> None:
        """Open the file of that name; when that fails, complain, and go on with the one that is open."""
        self.acquire()
        try:
            opened = self._open()
        except (OSError, UsageError):
            self.handleError(logging.makeLogRecord({}))
        else:
            if self.stream is not None:
                self.stream.close()
            self.stream, self._has_complained = opened, False
        finally:
            self.release()

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._has_complained:
            self._has_complained = True
            problem = sys.exc_info()[1]
            reason = problem.strerror if isinstance(problem, OSError) else problem
            self._complain(f"can't write to {self._path} ({reason})")


def open_log(
    name: str, path: Path, level: str, makes_folder: bool = False, complain: Callable[[str], None] = warn
) -> logging.Logger:
    """The log of one program, rotated at 5 MB with three old files. Raises UsageError when its file can't be used.

    With `makes_folder` a missing folder is created, closed to other users. `complain` gets one line when writing fails
    later.
    """
    log = logging.getLogger(name)
    log.setLevel(level.upper())
    log.propagate = False
    try:
        if makes_folder:
            os.makedirs(path.parent, 0o700, exist_ok=True)
        handler = _PrivateFile(path, complain)
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise UsageError(f"can't write the log {path} ({reason})", "Name another file, or correct its folder") from None
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    for old in log.handlers[:]:
        log.removeHandler(old)
        old.close()
    log.addHandler(handler)
    return log


def reopen_log(log: logging.Logger) -> None:
    """Open its file again, which may have been renamed or removed."""
    for handler in log.handlers:
        if isinstance(handler, _PrivateFile):
            handler.reopen()


def no_log(name: str) -> logging.Logger:
    """A log that keeps nothing, for when none is wanted or its file can't be used."""
    log = logging.getLogger(name)
    log.propagate = False
    log.addHandler(logging.NullHandler())
    return log
