"""The log of a program: lines for later, in a file that is the program's alone.

Rules: one event is one line, escaped, with its time in UTC; a line reaches the file in one write. No line is longer
than 5,000 bytes as it stands in the file: names can't push the rest out of the log. The file belongs to the user who
runs the program, and nobody else may read it. When it can't be written, that is said once, and the work goes on. This
module prints nothing itself, and is given no password, key or content.
"""

import contextlib
import io
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sft.common.errors import UsageError
from sft.common.private_files import open_private
from sft.console.report import cut, escape, warn

_LOG_BYTES = 5_000_000
_LOG_KEPT = 3
_LINE_BYTES = 5_000  # a path of 4,096 bytes stays whole, if what it holds is printable

# What no line of ours says need not be found out for each line: logging's own advice for programs in a hurry.
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
logging._srcfile = None


class _OneLine(logging.Formatter):
    """One event, one line, in UTC: `2026-01-31T12:00:00.123Z INFO text`. A list of events is as many lines."""

    _second, _shown = -1, ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        second = int(record.created)
        if second != self._second:  # many lines fall into one second, and strftime is half of what a line costs
            self._second, self._shown = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._shown}.{int(record.msecs):03d}Z"

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.msg, list):
            head = f"{self.formatTime(record)} {record.levelname} "
            return "\n".join([_line(head + event) for event in record.msg])
        return _line(super().format(record))


def _line(text: str) -> str:
    return cut(escape(text), _LINE_BYTES)


class _PrivateFile(logging.Handler):
    """Appends to a file, which is moved to `.1` before it grows too large, that one to `.2`, and so on.

    The library's own does the same, but loads for it what sends logs over networks: 6 ms of every start.
    """

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        """`complain` has one line when it can't be written any more. Raises OSError, UsageError."""
        super().__init__()
        self._path, self._complain, self._complained = path, complain, False
        self.stream: io.FileIO | None = self._open()

    def _open(self) -> io.FileIO:
        return io.FileIO(open_private(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, f"the log {self._path}"), "a")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
            if self.stream is not None and os.fstat(self.stream.fileno()).st_size + len(line) > _LOG_BYTES:
                self._rotate()
            if self.stream is None:
                self.stream = self._open()
            self.stream.write(line)
        except Exception:
            self.handleError(record)

    def _rotate(self) -> None:
        self._close_file()
        for number in range(_LOG_KEPT, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._path}.{number - 1}" if number > 1 else self._path, f"{self._path}.{number}")

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._complained:
            self._complained = True
            problem = sys.exc_info()[1]
            reason = problem.strerror if isinstance(problem, OSError) else problem
            self._complain(f"can't write to {self._path} ({reason})")

    def _close_file(self) -> None:
        file, self.stream = self.stream, None
        if file is not None:
            file.close()

    def close(self) -> None:
        self._close_file()
        super().close()


def open_log(
    name: str, path: Path, level: str, makes_folder: bool = False, complain: Callable[[str], None] = warn
) -> logging.Logger:
    """The log of one program, rotated at 5 MB. Raises UsageError when its file can't be used.

    With `makes_folder` a missing folder is made, closed to others. `complain` has one line when writing fails later.
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
        raise UsageError(f"can't write the log {path} ({reason})", "Name another file, or mend its folder") from None
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    for old in log.handlers[:]:
        log.removeHandler(old)
        old.close()
    log.addHandler(handler)
    return log


def no_log(name: str) -> logging.Logger:
    """A log that keeps nothing, for when its file can't be used and the work goes on."""
    log = logging.getLogger(name)
    log.propagate = False
    log.addHandler(logging.NullHandler())
    return log
