"""What all messages are made of: types, ceilings, the types of fields, and the body that is an array of them.

Rules: a body has one encoding, the shortest. A name of a peer is judged where its message is read
(`sft/wire/messages.py`). This module knows no single message, no socket, no file, no clock and no key.
"""

import struct
from enum import IntEnum
from typing import Annotated, ClassVar, Literal, TypeVar

import msgspec
from msgspec import Meta

from crypto_utils import DIGEST_SIZE
from sft.common.errors import ProtocolViolation
from sft.wire.protocol import BRANCH_LIMIT, CONTROL_LIMIT, MAX_ID, MAX_INTEGER, MAX_MODE, TRANSFER_ID_SIZE


class Kind(IntEnum):
    """The first byte of a message."""

    PUT = 1
    DATA = 2
    END = 3
    CANCEL = 4
    ACCEPT = 5
    REFUSE = 6
    CHECK = 7
    RECEIPT = 8
    GET = 9
    LIST = 10
    ENTRY = 11
    PING = 12
    ERROR = 13
    BYE = 14
    OMITTED = 15
    RATE = 16
    BATCH = 17
    RECEIPTS = 18
    TREE = 19
    BRANCH = 20
    REMOVE = 21
    MOVE = 22
    USAGE = 23
    AMOUNTS = 24
    SET = 25
    DONE = 26


_CEILINGS: dict[int, int] = {Kind.BRANCH: BRANCH_LIMIT}  # of those that have their own
MESSAGE_HEADER = struct.Struct(">BI")

FILE: Literal["file"] = "file"
FOLDER: Literal["folder"] = "folder"
LINK: Literal["link"] = "link"
Id = Annotated[int, Meta(ge=1, le=MAX_ID)]
Size = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Time = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Mode = Annotated[int, Meta(ge=0, le=MAX_MODE)]
Rates = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
TransferId = Annotated[bytes, Meta(min_length=TRANSFER_ID_SIZE, max_length=TRANSFER_ID_SIZE)]
Digest = Annotated[bytes, Meta(min_length=DIGEST_SIZE, max_length=DIGEST_SIZE)]
Path = tuple[str, ...]
PolicyWord = Literal["fail", "rename", "replace", "skip"]

ENCODER = msgspec.msgpack.Encoder()


class Control(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Base of the messages with a body: an array with exactly the fields of the class, in their order."""

    KIND: ClassVar[Kind]

    def check(self) -> None:
        """Whether the fields fit each other, which no field shows by itself. Raises ProtocolViolation."""

    def why_not(self) -> str:
        """Why a name in it is not allowed; empty when all are."""
        return ""

    def body(self) -> bytes:
        """The body alone. Raises ProtocolViolation for a name that has no UTF-8."""
        try:
            return ENCODER.encode(self)
        except UnicodeEncodeError:
            raise ProtocolViolation("a lone surrogate") from None

    def encode(self) -> bytes:
        """The whole message. Raises ProtocolViolation over the ceiling of its type."""
        return encode_message(self.KIND, self.body())


def ceiling_of(kind: int) -> int:
    """How many bytes the body of a message other than DATA has at most."""
    return _CEILINGS.get(kind, CONTROL_LIMIT)


Body = TypeVar("Body", bound=Control)


def encode_message(kind: Kind, body: bytes) -> bytes:
    """type ‖ length ‖ body. Raises ProtocolViolation when the body is over the ceiling of its type."""
    if len(body) > ceiling_of(kind):
        raise ProtocolViolation("a control message over its ceiling")
    return MESSAGE_HEADER.pack(kind, len(body)) + body


def read_body(decoder: "msgspec.msgpack.Decoder[Body]", body: memoryview | bytes) -> Body:
    """Raises ProtocolViolation for a body that its type does not have, or not in its shortest form."""
    try:
        message = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ProtocolViolation("a body that its type does not have") from None
    if ENCODER.encode(message) != body:  # longer forms of the same; and fields that have a default, left out
        raise ProtocolViolation("a body that is not in its shortest form")
    message.check()
    return message
