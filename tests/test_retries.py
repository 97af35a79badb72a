"""When a connection is tried again: every failure, before and after the first login, at every age of the run."""

import math

from tables import each_row

from sft.client.retries import Again, GiveUp, Reached, after, reached_by
from sft.common.errors import (
    Code,
    ConnectionTrouble,
    Failure,
    IntegrityError,
    LoginRefused,
    PeerStopped,
    ProtocolViolation,
    TransferError,
    UsageError,
)

NOBODY, SERVER, LOGGED_IN = Reached.NOBODY, Reached.SERVER, Reached.LOGGED_IN
HOST, UNREACHED, BUSY, LOST, FINAL = Failure


def trouble(failure: Failure) -> ConnectionTrouble:
    return ConnectionTrouble("it failed", "", failure)


# What failed, how far the run has come, seconds since it began, failures in a row: the pause, or the exit status.
MATRIX: list[tuple[TransferError, Reached, float, int, float | int]] = [
    (trouble(HOST), NOBODY, 0, 1, 4),
    (trouble(HOST), SERVER, 0, 2, 4),
    (trouble(HOST), LOGGED_IN, 0, 1, 1.0),
    (trouble(UNREACHED), NOBODY, 0, 1, 1.0),
    (trouble(UNREACHED), NOBODY, 1, 2, 2.0),
    (trouble(UNREACHED), NOBODY, 4.9, 3, 2.0),
    (trouble(UNREACHED), NOBODY, 5, 4, 4),
    (trouble(UNREACHED), NOBODY, 10, 1, 4),  # one attempt that nobody answered has taken all the time there is
    (trouble(UNREACHED), SERVER, 10, 3, 4.0),  # it has answered before: it is being started again
    (trouble(UNREACHED), SERVER, 60, 7, 4),
    (trouble(UNREACHED), LOGGED_IN, 900, 3, 4.0),
    (trouble(BUSY), SERVER, 0, 1, 1.0),
    (trouble(BUSY), SERVER, 20, 5, 15.0),
    (trouble(BUSY), SERVER, 59.9, 9, 15.0),
    (trouble(BUSY), SERVER, 60, 9, 4),
    (trouble(LOST), SERVER, 0, 1, 1.0),
    (trouble(LOST), SERVER, 59.9, 4, 8.0),
    (trouble(LOST), SERVER, 60, 4, 4),
    (trouble(LOST), LOGGED_IN, 0, 1, 1.0),
    (trouble(LOST), LOGGED_IN, 9e9, 6, 30.0),
    (trouble(LOST), LOGGED_IN, 9e9, 24, 30.0),
    (trouble(LOST), LOGGED_IN, 0, 25, 4),
    (trouble(FINAL), SERVER, 0, 1, 4),
    (trouble(FINAL), LOGGED_IN, 0, 1, 4),
    (LoginRefused(), SERVER, 0, 1, 3),
    (LoginRefused(), LOGGED_IN, 0, 1, 3),
    (UsageError("a profile"), SERVER, 0, 1, 2),
    (IntegrityError("a tag"), LOGGED_IN, 0, 1, 5),
    (ProtocolViolation("a rule"), LOGGED_IN, 0, 1, 5),
    (PeerStopped(Code.STOPPING), LOGGED_IN, 0, 1, 1.0),
    (PeerStopped(Code.FULL), LOGGED_IN, 0, 2, 2.0),
    (PeerStopped(Code.UNAVAILABLE), LOGGED_IN, 0, 1, 1.0),
    (PeerStopped(Code.UNAVAILABLE), SERVER, 0, 1, 1.0),
    (PeerStopped(Code.ACCOUNT), LOGGED_IN, 0, 1, 1.0),
    (PeerStopped(Code.KICKED), LOGGED_IN, 0, 1, 4),
    (PeerStopped(Code.STORAGE), LOGGED_IN, 0, 1, 4),
    (PeerStopped(Code.INTERNAL), LOGGED_IN, 0, 1, 4),
    (PeerStopped(Code.PROTOCOL), LOGGED_IN, 0, 1, 5),
    (PeerStopped(Code.INTEGRITY), LOGGED_IN, 0, 1, 5),
]


@each_row(("problem", "reached", "seconds", "tries", "expected"), MATRIX)
def test_failure_is_tried_again_or_ends(
    problem: TransferError, reached: Reached, seconds: float, tries: int, expected: float | int
) -> None:
    decided = after(problem, reached, seconds, tries, 24)
    assert decided == (Again(expected) if isinstance(expected, float) else GiveUp(expected))


@each_row("failure", Failure)
@each_row("reached", Reached)
@each_row("retries", [0, 1, 3])
def test_number_of_retries_holds_before_and_after_the_login(failure: Failure, reached: Reached, retries: int) -> None:
    ends = failure is FINAL or (failure is HOST and reached is not LOGGED_IN)
    for tries in range(1, retries + 1):
        assert isinstance(after(trouble(failure), reached, 0, tries, retries), GiveUp if ends else Again)
    assert after(trouble(failure), reached, 0, retries + 1, retries) == GiveUp(4)


@each_row("reached", Reached)
@each_row("failure", [UNREACHED, BUSY, LOST])
def test_pause_varies_by_a_quarter_and_never_overflows(reached: Reached, failure: Failure) -> None:
    for tries in (1, 2, 9, 1_000_000):
        pauses = [after(trouble(failure), reached, 0, tries, 1_000_000, chance) for chance in (0.0, 0.5, 1.0)]
        least, middle, most = (each.pause if isinstance(each, Again) else math.nan for each in pauses)
        assert (least, most) == (middle * 0.75, middle * 1.25) and 0 < middle <= 30


def test_server_that_answers_once_has_been_reached_for_good() -> None:
    reached = NOBODY
    steps = [(UNREACHED, NOBODY), (HOST, NOBODY), (BUSY, SERVER), (UNREACHED, SERVER)]
    for failure, expected in steps:
        reached = reached_by(trouble(failure), reached)
        assert reached is expected
    assert reached_by(trouble(LOST), NOBODY) is SERVER and reached_by(trouble(LOST), LOGGED_IN) is LOGGED_IN
