"""The lines that a program shows: results on standard output, everything else on standard error; and how it ends.

Rules: each line is escaped. Results go to standard output; questions, progress, warnings and errors to standard error.
A result that can't be written is an error at the end of the program, never a traceback. No password, key or content is
given to this module.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn, TextIO

from sft.common import signals
from sft.common.errors import NoMemory, OutputError, TransferError, UsageError
from sft.common.text import cut, escape
from sft.console.output import write_all

_LINE_BYTES = 5_000


def _write(stream: TextIO | None, *lines: str) -> None:
    """Raises OSError."""
    write_all(stream, "\n".join([*map(escape, lines), ""]))


def _write_result(stream: TextIO | None, *lines: str) -> None:
    if _unwritten:
        return  # what was written behind a gap would look whole
    try:
        _write(stream, *lines)
    except OSError as problem:  # the work goes on; `ended` tells of it
        _unwritten.append(problem)


_unwritten: list[OSError] = []  # the first error that a result met


def say(*lines: str) -> None:
    """Lines of result, on standard output. When they can't be written, `ended` reports it."""
    _write_result(sys.stdout, *lines)


def say_beside(*lines: str) -> None:
    """Lines of result, on standard error, because standard output is taken by content."""
    _write_result(sys.stderr, *lines)


def is_unsaid() -> bool:
    """Whether a result could not be written, so that more of them are useless."""
    return bool(_unwritten)


def announce(*lines: str) -> None:
    """Lines on standard output that no program depends on, such as where the server listens."""
    try:
        _write(sys.stdout, *lines)
    except OSError as problem:
        if sys.stdout is not None and problem.errno != errno.EPIPE:  # else it was closed on purpose
            warn(f"can't write to standard output ({problem.strerror})")


def output_descriptor() -> int:
    """Where content can be written as a result. Raises UsageError."""
    if sys.stdout is None:
        raise UsageError("standard output is closed", "Name a file as TARGET")
    return sys.stdout.fileno()


def _short(line: str) -> str:
    """No screen full of one name."""
    return cut(escape(line), _LINE_BYTES)


def warn(line: str) -> None:
    """One line of warning, on standard error."""
    note(f"warning: {line}")


def note(*lines: str) -> None:
    """Lines that are neither result nor trouble, on standard error."""
    with contextlib.suppress(OSError):  # there is nowhere left to say that
        _write(sys.stderr, *map(_short, lines))


def draw(text: str) -> None:
    """A text on the line of the cursor, on standard error; what is escaped in it was before."""
    with contextlib.suppress(OSError):
        write_all(sys.stderr, text)


def as_shown(name: str) -> str:
    """A name as it is drawn: escaped, also where standard error has no such character."""
    encoding = (sys.stderr and sys.stderr.encoding) or "utf-8"
    return escape(name).encode(encoding, "backslashreplace").decode(encoding)


def fail(problem: TransferError, what: str = "") -> None:
    """One line: cause, then remedy, on standard error."""
    note(*lines_of(problem, what))


def lines_of(problem: TransferError, what: str = "") -> list[str]:
    """What `fail` writes."""
    return [f"error: {what + ': ' if what else ''}{problem}", *problem.consequences]


def ended(program: Callable[[], int]) -> int:
    """The exit status of `program`; an error of ours is shown as its one line, and so is an interruption.

    If results could not be written the status is not 0. Only a reader that has left on purpose, such as `head`, gets no
    error line.
    """
    _unwritten.clear()
    status = _status_of(program)
    if _unwritten:
        problem = _unwritten.pop()
        if problem.errno != errno.EPIPE:
            fail(OutputError(f"can't write to standard output ({problem.strerror})"))
        status = status or OutputError.exit_status
    return status


def _status_of(program: Callable[[], int]) -> int:
    try:
        try:
            signals.end_by_exception()
            return program()
        finally:
            signals.end_at_once()
    except SystemExit as stop:  # of argparse, which has printed an error or the help
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except TransferError as problem:
        fail(problem)
        return problem.exit_status
    except MemoryError:
        fail(NoMemory())
        return NoMemory.exit_status
    except KeyboardInterrupt as stop:
        word, status = signals.ended_by(stop)
        note(word)
        return status


def leave(status: int) -> NoReturn:
    """End the process at once: to take the interpreter apart would take longer than to send a small file."""
    signals.ignore()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # its reader has left, or it was never there
            stream.flush()
    os._exit(status)


def is_interactive() -> bool:
    """Whether a person sees what is written to standard error, and types what is read."""
    with contextlib.suppress(ValueError):  # a closed stream
        return is_terminal() and sys.stdin is not None and sys.stdin.isatty()
    return False


def is_terminal() -> bool:
    """Whether a person sees what is written to standard error."""
    return sys.stderr is not None and sys.stderr.isatty()
