"""The life of a channel as a table: its states, what still happens in each, and how one follows another.

    state      delivers   sends   entered by
    OPEN       yes        yes     -
    STOPPED    yes        yes     STOP: callers get an error, but what arrived and what was posted still counts
    CUT        no         yes     CUT: what arrived must not be used any more; a last word still leaves
    BROKEN     yes        no      FAIL: the socket is of no use any more
    CLOSING    no         yes     CLOSE: the writer sends what was posted, then ends
    CLOSED     no         no      the last of FAIL, CUT and CLOSE that was missing

Rules: a channel only moves down this table. The first error is what every caller gets, each as a copy of its own with
the first as its cause. This module knows no socket, no record and no thread.

Locks: `Lifecycle.lock`, one for each channel, guards its state, its first error, and what the outbox and the inbox name
under it. A buffer pool's lock may be taken under it, never the other way round. It is reentrant: the thread
that holds it may find a reason to end the channel.
"""

import threading
from enum import Enum, auto
from typing import Protocol

from sft.common.errors import forget_frames, raised_anew


class State(Enum):
    """What a channel still does: `delivers` what has arrived to its consumer, `sends` what was posted."""

    OPEN = (1, True, True)
    STOPPED = (2, True, True)
    CUT = (3, False, True)
    BROKEN = (4, True, False)
    CLOSING = (5, False, True)
    CLOSED = (6, False, False)

    def __init__(self, number: int, delivers: bool, sends: bool) -> None:
        self.number, self.delivers, self.sends = number, delivers, sends


class Ending(Enum):
    """What may happen to a channel; every one of them comes with an error for its callers."""

    STOP = auto()
    CUT = auto()
    FAIL = auto()
    CLOSE = auto()


NEXT: dict[State, dict[Ending, State]] = {
    state: dict(zip(Ending, states, strict=True))
    for state, states in {
        #               STOP           CUT            FAIL           CLOSE
        State.OPEN: (State.STOPPED, State.CUT, State.BROKEN, State.CLOSING),
        State.STOPPED: (State.STOPPED, State.CUT, State.BROKEN, State.CLOSING),
        State.CUT: (State.CUT, State.CUT, State.CLOSED, State.CLOSING),
        State.BROKEN: (State.BROKEN, State.CLOSED, State.BROKEN, State.CLOSED),
        State.CLOSING: (State.CLOSING, State.CLOSING, State.CLOSED, State.CLOSING),
        State.CLOSED: (State.CLOSED, State.CLOSED, State.CLOSED, State.CLOSED),
    }.items()
}


class _Waits(Protocol):
    def end(self) -> None:
        """Wake each thread that waits on it, now and later."""


class Lifecycle:
    """The state of one channel and its first error, with the lock and the conditions that its threads share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.state = State.OPEN
        self.is_half_closed = False  # the other end has closed its side: nothing more will arrive
        self._error: BaseException | None = None
        self._conditions: list[threading.Condition] = []
        self._others: list[_Waits] = []

    def condition(self) -> threading.Condition:
        """A condition under `lock`, notified at each ending.

        One for each thread that waits, so that `notify` wakes the right one.
        """
        self._conditions.append(threading.Condition(self.lock))
        return self._conditions[-1]

    def ends(self, other: _Waits) -> None:
        """End `other`, too, with the first error."""
        self._others.append(other)

    def end(self, ending: Ending, error: BaseException) -> None:
        """Go on to the next state and wake every waiting thread. `error` is for callers, unless one came before."""
        with self.lock:
            self.state = NEXT[self.state][ending]
            self._error = self._error or error
            self._wake_all()
        for other in self._others:
            other.end()

    def half_close(self) -> None:
        """The other end has closed its side, which by itself is no error: it may have sent BYE."""
        with self.lock:
            self.is_half_closed = True
            self._wake_all()

    def _wake_all(self) -> None:
        for condition in self._conditions:
            condition.notify_all()

    @property
    def has_ended(self) -> bool:
        """Whether callers get an error."""
        return self._error is not None

    @property
    def is_closed(self) -> bool:
        """Whether the last words have been chosen, or can't leave any more."""
        return self.state in (State.CLOSING, State.CLOSED)

    def check(self) -> None:
        """Raise what ended the channel, if anything did."""
        if self._error is not None:
            raise raised_anew(self._error) from self._error

    def forget_frames(self) -> None:
        """Drop the tracebacks of the first error, whose frames hold on to what was received."""
        if self._error is not None:
            forget_frames(self._error)
