"""The log of a program: one line for each event, in a file that only its owner can read, or on standard error.

Rules: what is logged together is written in one call, so that lines of several processes do not mix. When the log can't
be written, that is reported once and the work goes on. No password, key or content is given to this module.
"""

import io
import logging
import logging.handlers
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from sft.common.errors import UsageError
from sft.common.private_files import open_private
from sft.console.log_lines import JournalLines, TextLines
from sft.console.screen import warn

STANDARD_ERROR = Path("-")


@dataclass(frozen=True)
class LogStyle:
    """Bytes after which a file is rotated, how many old ones are kept, and what makes the lines."""

    size: int = 5_000_000
    kept: int = 3
    lines: type[TextLines] = TextLines


_PLAIN = LogStyle()

# Our lines name no thread, process or source line, so `logging` need not find them out for each record.
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
logging._srcfile = None


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """The rotating file of the standard library, opened with mode 0600 and never through a link."""

    def __init__(self, path: Path, complain: Callable[[str], None], style: LogStyle) -> None:
        """`complain` gets one line when the file can't be written later. Raises OSError, UsageError."""
        self._path, self._complain, self._has_complained = path, complain, False
        size, kept = style.size, style.kept
        super().__init__(path, maxBytes=size, backupCount=kept, encoding="utf-8", errors="backslashreplace")

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


class _StandardError(logging.StreamHandler[TextIO]):
    """Standard error; when it can't be written, there is nowhere to complain."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def open_log(
    name: str,
    path: Path,
    level: str,
    makes_folder: bool = False,
    complain: Callable[[str], None] = warn,
    style: LogStyle = _PLAIN,
) -> logging.Logger:
    """The log of one program, in a file that is rotated, or on standard error.

    With `makes_folder` a missing folder is created, closed to other users. `complain` gets one line when writing fails
    later. Raises UsageError when the file can't be used.
    """
    handler: logging.Handler
    if path == STANDARD_ERROR:
        handler = _StandardError(sys.stderr)
        if style.lines is TextLines and "JOURNAL_STREAM" in os.environ:
            handler.setFormatter(JournalLines())
    else:
        handler = _file(path, makes_folder, complain, style)
    log = _empty(name)
    log.setLevel(level.upper())
    _add(log, handler, style)
    return log


def add_audit_log(log: logging.Logger, path: Path, style: LogStyle, complain: Callable[[str], None] = warn) -> None:
    """Write what is marked (`audit` in `extra`) to a file of its own, too. Raises UsageError when it can't be used."""
    handler = _file(path, False, complain, style)
    handler.addFilter(lambda record: getattr(record, "audit", False))
    _add(log, handler, style)


def _add(log: logging.Logger, handler: logging.Handler, style: LogStyle) -> None:
    if handler.formatter is None:
        handler.setFormatter(style.lines())
    log.addHandler(handler)


def _file(path: Path, makes_folder: bool, complain: Callable[[str], None], style: LogStyle) -> _PrivateFile:
    try:
        if makes_folder:
            os.makedirs(path.parent, 0o700, exist_ok=True)
        return _PrivateFile(path, complain, style)
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise UsageError(f"can't write the log {path} ({reason})", "Name another file, or correct its folder") from None


def reopen_log(log: logging.Logger) -> None:
    """Open its file again, which may have been renamed or removed."""
    for handler in log.handlers:
        if isinstance(handler, _PrivateFile):
            handler.reopen()


def no_log(name: str) -> logging.Logger:
    """A log that keeps nothing, for when none is wanted or its file can't be used."""
    log = _empty(name)
    log.addHandler(logging.NullHandler())
    return log


def _empty(name: str) -> logging.Logger:
    log = logging.getLogger(name)
    log.propagate = False
    for old in log.handlers[:]:
        log.removeHandler(old)
        old.close()
    return log
