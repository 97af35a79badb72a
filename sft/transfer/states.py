"""The states of an announced id at either end, and the messages that lead from one to the next.

Rules: `*_GETS` has the messages that the other end may send in a state, `*_SENDS` those that this end may. What is not
in a table is a violation when it comes, and a fault of ours when it is sent. PROTOCOL.md, section 15, shows the same
tables. An id that was never announced has no state. Nothing here acts: `sender.py` and `receiver.py` do.
"""

from collections.abc import Mapping
from enum import IntEnum, auto
from typing import TypeVar

from sft.common.errors import ProtocolViolation
from sft.wire.messages import Kind


class Sending(IntEnum):
    """The state of an id at the sender."""

    ANNOUNCED = auto()  # the PUT of a large file is sent, or its last CHECK is answered: waits for ACCEPT
    ASKED = auto()  # a CHECK is here and not answered yet
    SENDING = auto()  # content goes out; a small file's from its PUT on
    SENT = auto()  # END is sent; a folder or link is in this state from its PUT on
    ANSWERED = auto()  # RECEIPT or REFUSE is here before the END or CANCEL that closes the id
    CLOSED = auto()


class Receiving(IntEnum):
    """The state of an id at the receiver."""

    ANNOUNCED = auto()  # the PUT is here and not answered yet, or the answer to CHECK is
    ASKED = auto()  # CHECK is sent
    TAKING = auto()  # content is wanted; a small file's from its PUT on
    DEAF = auto()  # RECEIPT or REFUSE is sent; what comes before END or CANCEL is read and thrown away
    WAITING = auto()  # END is here, and all is right: will be published with its group; of a folder or link: the PUT is
    CLOSED = auto()


_State = TypeVar("_State", Sending, Receiving)
Table = Mapping[_State, Mapping[Kind, _State]]

_ANY_ANSWER = (Kind.ACCEPT, Kind.CHECK, Kind.REFUSE, Kind.RECEIPT)  # that may have crossed our CANCEL

SENDER_GETS: Table[Sending] = {
    Sending.ANNOUNCED: {
        Kind.ACCEPT: Sending.SENDING,
        Kind.CHECK: Sending.ASKED,
        Kind.REFUSE: Sending.ANSWERED,
        Kind.RECEIPT: Sending.ANSWERED,
    },
    Sending.ASKED: {Kind.REFUSE: Sending.ANSWERED, Kind.RECEIPT: Sending.ANSWERED},
    Sending.SENDING: {Kind.REFUSE: Sending.ANSWERED, Kind.RECEIPT: Sending.ANSWERED},
    Sending.SENT: {Kind.REFUSE: Sending.CLOSED, Kind.RECEIPT: Sending.CLOSED},
    Sending.ANSWERED: dict.fromkeys(_ANY_ANSWER, Sending.ANSWERED),
    Sending.CLOSED: dict.fromkeys(_ANY_ANSWER, Sending.CLOSED),
}
SENDER_SENDS: Table[Sending] = {
    Sending.ANNOUNCED: {Kind.CANCEL: Sending.CLOSED},
    Sending.ASKED: {Kind.CHECK: Sending.ANNOUNCED, Kind.CANCEL: Sending.CLOSED},
    Sending.SENDING: {Kind.DATA: Sending.SENDING, Kind.END: Sending.SENT, Kind.CANCEL: Sending.CLOSED},
    Sending.SENT: {},
    Sending.ANSWERED: {Kind.DATA: Sending.ANSWERED, Kind.END: Sending.CLOSED, Kind.CANCEL: Sending.CLOSED},
    Sending.CLOSED: {},
}

RECEIVER_GETS: Table[Receiving] = {
    Receiving.ANNOUNCED: {Kind.CANCEL: Receiving.CLOSED},
    Receiving.ASKED: {Kind.CHECK: Receiving.ANNOUNCED, Kind.CANCEL: Receiving.CLOSED},
    Receiving.TAKING: {Kind.DATA: Receiving.TAKING, Kind.END: Receiving.WAITING, Kind.CANCEL: Receiving.CLOSED},
    Receiving.DEAF: {Kind.DATA: Receiving.DEAF, Kind.END: Receiving.CLOSED, Kind.CANCEL: Receiving.CLOSED},
    Receiving.WAITING: {},
    Receiving.CLOSED: {},
}
RECEIVER_SENDS: Table[Receiving] = {
    Receiving.ANNOUNCED: {
        Kind.ACCEPT: Receiving.TAKING,
        Kind.CHECK: Receiving.ASKED,
        Kind.REFUSE: Receiving.DEAF,
        Kind.RECEIPT: Receiving.DEAF,
    },
    Receiving.ASKED: {},
    Receiving.TAKING: {Kind.REFUSE: Receiving.DEAF, Kind.RECEIPT: Receiving.DEAF},
    Receiving.DEAF: {},
    Receiving.WAITING: {Kind.REFUSE: Receiving.CLOSED, Kind.RECEIPT: Receiving.CLOSED},
    Receiving.CLOSED: {},
}


def after_getting(table: Table[_State], state: _State, kind: Kind) -> _State:
    """The state that a message of the other end leads to. Raises ProtocolViolation for one that may not come."""
    after = table[state].get(kind)
    if after is None:
        raise ProtocolViolation(f"{kind.name} about a file that is {state.name.lower()}")
    return after


def after_sending(table: Table[_State], state: _State, kind: Kind) -> _State:
    """The state that a message of this end leads to. Raises RuntimeError for one that it may not send."""
    after = table[state].get(kind)
    if after is None:
        raise RuntimeError(f"{kind.name} sent about a file that is {state.name.lower()}")
    return after
