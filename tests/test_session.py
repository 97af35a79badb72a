"""How a connection ends, by the error that ends it."""

import logging

import pytest

from sft.common.errors import (
    Code,
    ConnectionTrouble,
    Ended,
    IntegrityError,
    PeerStopped,
    ProtocolViolation,
    Refused,
    TransferError,
)
from sft.server.session import ending_of

ENDINGS: list[tuple[TransferError, Code | None, int, str]] = [
    (Ended(Code.ACCOUNT), Code.ACCOUNT, logging.WARNING, "ended: "),
    (Ended(Code.FULL), Code.FULL, logging.WARNING, "ended: "),
    (ProtocolViolation("a gap"), Code.PROTOCOL, logging.ERROR, "ended: "),
    (IntegrityError("a tag that does not fit"), Code.INTEGRITY, logging.ERROR, "ended: "),
    (Refused(Code.UNAVAILABLE), Code.UNAVAILABLE, logging.ERROR, "ended: "),
    (Refused(Code.LINK), Code.STORAGE, logging.ERROR, "can't open the user's folder: "),
    (Refused(Code.NOT_FOLDER), Code.STORAGE, logging.ERROR, "can't open the user's folder: "),
    (Refused(Code.NO_SPACE), Code.UNAVAILABLE, logging.ERROR, "can't open the user's folder: "),
    (ConnectionTrouble("the connection was lost"), None, logging.WARNING, "ended: "),
    (PeerStopped(Code.INTERNAL), None, logging.WARNING, "ended: "),
]


@pytest.mark.parametrize(("problem", "code", "level", "begins"), ENDINGS, ids=lambda each: getattr(each, "cause", ""))
def test_connection_ends_with_this_code_and_this_line(
    problem: TransferError, code: Code | None, level: int, begins: str
) -> None:
    assert ending_of(problem) == (code, level, begins + problem.cause)
