"""How a connection ends, by the error that ends it; and when what became of a client's files is written to the log."""

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
from peers import Against
from processes import wait_until
from tables import each_row

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
from sft.common.log_limits import Sparing
from sft.server.connection_log import ReceiveLog
from sft.server.session import Connection, ending_of
from sft.transfer.events import IDLE, Delivered
from sft.wire.messages import FILE, Cancel, Put, Receipt
from sft.wire.workers import Engine

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


@each_row(("problem", "code", "level", "begins"), ENDINGS, ids=lambda each: getattr(each, "cause", ""))
def test_connection_ends_with_this_code_and_this_line(
    problem: TransferError, code: Code | None, level: int, begins: str
) -> None:
    assert ending_of(problem) == (code, level, begins + problem.cause)


def test_lines_that_wait_for_a_pause_are_bounded() -> None:
    written: list[int] = []
    log = cast(Any, SimpleNamespace(isEnabledFor=lambda level: False, info=lambda lines: written.append(len(lines))))
    received = ReceiveLog(log, Sparing(log))
    put = Put(1, bytes(16), ("a",), FILE, 1, None, None, "fail")
    stored = Delivered(put, Receipt(1, ("a",), 1, bytes(32), 0, "stored"))
    for _ in range(512 + 3):
        received.on_event(stored)
    assert written == [512]
    received.on_event(IDLE)
    assert written == [512, 3]


def test_server_that_stops_uses_nothing_more_of_what_has_arrived(engine: Engine) -> None:
    against = Against(engine)
    against.raw.say(Cancel(1).encode())
    messages = against.channel.messages()
    assert next(arrived for arrived in messages if arrived is not None)[0] == Cancel(1)
    against.raw.say(Cancel(2).encode())
    wait_until(lambda: not against.channel._inbox.is_idle)
    Connection.cut_off(cast(Connection, SimpleNamespace(_channel=against.channel)))
    with pytest.raises(Ended):
        next(messages)
    against.raw.close()
    against.channel.close()
