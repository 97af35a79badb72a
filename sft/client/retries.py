"""Whether a connection that failed is tried again, and after what pause.

    what failed                      before any answer   before the first login   afterwards
    unknown host                     end                 end                      again
    no address takes a connection    for 5 s             for a minute             again
    busy, cut or silent              for a minute        for a minute             again
    refused by proof, and the rest   end                 end                      end

Rules: pure decisions, without a clock and without a socket. Somebody who has typed a password is not asked to wait
for a host that is not there; but a receiver that has answered, or whose login has succeeded, is likely to come back.
Pauses grow, and vary a little, so that many clients of one receiver do not come back all at once. --retries bounds
every row of the table, so with 0 nothing is tried again.
"""

import math
from enum import Enum
from typing import NamedTuple

from sft.common.errors import ConnectionTrouble, Failure, TransferError

_SPREAD = 0.5  # of a pause, from a quarter below to a quarter above it


class Reached(Enum):
    """How far any connection of this run has come."""

    NOBODY = 0
    SERVER = 1
    LOGGED_IN = 2


# For how many seconds of the run a connection is tried again, and the longest pause before one.
_LIMITS = {
    Reached.NOBODY: (5.0, 2.0),  # a receiver that is started again needs a second or two
    Reached.SERVER: (60.0, 15.0),
    Reached.LOGGED_IN: (math.inf, 30.0),
}


class Again(NamedTuple):
    """Try again, after so many seconds."""

    pause: float


class GiveUp(NamedTuple):
    """Give up, with that exit status."""

    status: int


def after(
    problem: TransferError, reached: Reached, seconds: float, tries: int, retries: int, chance: float = 0.5
) -> Again | GiveUp:
    """What to do after a connection ended with `problem`.

    `reached`: by this connection and those before it. `seconds` have passed since the first one of the run was begun;
    `tries`: how many have failed in a row, this one included, without progress between them. `chance` is random,
    0 to 1.
    """
    end = GiveUp(problem.exit_status)
    if not isinstance(problem, ConnectionTrouble) or problem.failure is Failure.FINAL or tries > retries:
        return end
    lasting, longest = _LIMITS[reached]
    if seconds >= lasting or (problem.failure is Failure.UNKNOWN_HOST and reached is not Reached.LOGGED_IN):
        return end
    pause = min(2.0 ** min(tries - 1, 10), longest)
    return Again(pause * (1 + _SPREAD * (chance - 0.5)))


def reached_by(problem: TransferError, reached: Reached) -> Reached:
    """`reached`, after another connection failed with `problem` in front of the first login."""
    if reached is Reached.NOBODY and isinstance(problem, ConnectionTrouble):
        nobody = problem.failure in (Failure.UNREACHED, Failure.UNKNOWN_HOST)
        return Reached.NOBODY if nobody else Reached.SERVER
    return reached
