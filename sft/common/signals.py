"""How a signal ends a program: at once while it is loaded, by an exception while it works, not at all at its end.

Rules: a program calls `end_at_once` before it imports anything that takes time, so that no traceback shows what was
being imported; what comes while Python itself starts can't be caught. A signal that is ignored at the start, as by
nohup, stays ignored. This module loads nothing: `signal` takes 8 ms, in which a signal would still show a traceback.
"""

import _signal  # type: ignore[import-not-found]  # what `signal` is made of
import os

TYPE_CHECKING = False  # as `typing` has it, which need not be loaded
if TYPE_CHECKING:
    from types import FrameType

SIGINT: int = _signal.SIGINT
SIGTERM: int = _signal.SIGTERM
SIGHUP: int | None = getattr(_signal, "SIGHUP", None)  # Windows has none

_STATUS = 128  # the exit status of a program that a signal has ended, less the signal's number
_USUAL = (_signal.SIG_DFL, _signal.default_int_handler)

_ours: list[int] = []  # the signals that a program has named and that were not ignored


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: it ends a client as Ctrl-C does, with a word and an exit status of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def end_at_once(*numbers: int | None) -> None:
    """From now on these signals, and those named before, end the process with their word and their exit status."""
    _ours.extend(number for number in numbers if number is not None and _signal.getsignal(number) in _USUAL)
    _handle_by(_end)


def end_by_exception() -> None:
    """From now on the signals that were named raise KeyboardInterrupt, or Terminated, in the main thread."""
    _handle_by(_raise)


def ignore() -> None:
    """From now on the signals that were named do nothing: everything is done, so they come too late."""
    _handle_by(_signal.SIG_IGN)


def ended_by(stop: KeyboardInterrupt) -> tuple[str, int]:
    """What a person reads when a signal has ended the run, and the exit status."""
    return _word_and_status(stop.number if isinstance(stop, Terminated) else SIGINT)


def _handle_by(handler: object) -> None:
    for number in _ours:
        _signal.signal(number, handler)


def _end(number: int, frame: "FrameType | None") -> None:
    word, status = _word_and_status(number)
    _handle_by(_signal.SIG_DFL)  # the next one ends a process whose standard error takes nothing
    try:
        os.write(2, f"{word}\n".encode())
    finally:
        os._exit(status)


def _raise(number: int, frame: "FrameType | None") -> None:
    raise KeyboardInterrupt if number == SIGINT else Terminated(number)


def _word_and_status(number: int) -> tuple[str, int]:
    return "interrupted" if number == SIGINT else "terminated", _STATUS + number
