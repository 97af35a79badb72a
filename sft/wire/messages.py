"""The messages inside records, to bytes and back: docs/PROTOCOL.md in code, in its order.

Rules: one writer and one strict reader for each message; a reader ends exactly at the end, and raises ProtocolViolation
for everything that it does not accept. Every announced length meets its ceiling before anything of that size is
allocated. Every name of a peer is judged here (`sft/common/names.py`), whatever the form of the bodies: no message with
a name that is not allowed leaves this module, and of such a path no more is kept than a log needs. This module knows no
socket, no file, no clock and no key.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, ClassVar, TypeVar

from crypto_utils import DIGEST_SIZE
from sft.common.errors import Code, ProtocolViolation
from sft.common.names import why_not_allowed
from sft.common.values import value
from sft.wire import fields
from sft.wire.canonical import Reader, read_end, read_put, read_receipt, write_end, write_put, write_receipt
from sft.wire.protocol import CONTROL_LIMIT, DATA_SIZE, ENTRIES_LIMIT, MAX_ID, MAX_INTEGER, MAX_MODE, TRANSFER_ID_SIZE
from sft.wire.strict_json import read_json, write_fields


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


_DATA = int(Kind.DATA)
_MESSAGE_HEADER = struct.Struct(">BI")
_DATA_FIELDS = struct.Struct(">IQ")
_DATA_HEADER = struct.Struct(">BIIQ")
MESSAGE_HEADER_SIZE = _MESSAGE_HEADER.size
DATA_HEADER_SIZE = _DATA_HEADER.size
END_SIZE_LIMIT = 256  # no END is longer
_ALL = ("all",)  # in the place of an empty path, which stands for the whole folder
_SHOWN = 200  # characters of a path that is not allowed

FILE, FOLDER = "file", "folder"
POLICIES = ("fail", "rename", "replace", "skip")
OUTCOMES = ("stored", "already", "skipped", "folder")

_Shape = TypeVar("_Shape")


def _entries(value: Any) -> "tuple[Entry, ...]":
    if type(value) is not list or len(value) > ENTRIES_LIMIT:
        raise ProtocolViolation("entries that are no list, or too many")
    return tuple(_fields_of(Entry, item) for item in value)


_ID = fields.integer(1, MAX_ID)
_SIZE = fields.integer(0, MAX_INTEGER)
_TIME = fields.integer(-MAX_INTEGER, MAX_INTEGER)


def _fields_of(shape: type[_Shape], value: Any) -> _Shape:
    """`value` as an object with exactly the fields of `shape`, each checked; they are in CHECKS in the same order."""
    checks: dict[str, fields.Check] = shape.CHECKS  # type: ignore[attr-defined]
    if type(value) is not dict or value.keys() != checks.keys():
        raise ProtocolViolation("a body with other fields than its type has")
    return shape(*[check(value[name]) for name, check in checks.items()])


@value
class Control:
    """Base of the messages with a JSON body: the same fields, each always present, and nothing else."""

    KIND: ClassVar[Kind]
    CHECKS: ClassVar[dict[str, fields.Check]]

    def check(self) -> None:
        """Whether the fields fit each other, which no field shows by itself. Raises ProtocolViolation."""

    def why_not(self) -> str:
        """Why a name in it is not allowed; empty when all are."""
        return ""

    def text(self) -> str:
        """The JSON body as text."""
        return write_fields(self)

    def body(self) -> bytes:
        """The JSON body alone."""
        try:
            return self.text().encode()
        except UnicodeEncodeError:
            raise ProtocolViolation("a lone surrogate") from None

    def encode(self) -> bytes:
        """The whole message. Raises ProtocolViolation over the ceiling of control messages."""
        return encode_message(self.KIND, self.body())


@value
class Put(Control):
    """A file or folder is coming. `size` None: a pipe. `mtime` in ns since 1970. `mode`: permission bits."""

    KIND = Kind.PUT
    CHECKS = {
        "id": _ID,
        "transfer": fields.hex_bytes(TRANSFER_ID_SIZE),
        "path": fields.path,
        "kind": fields.one_of(FILE, FOLDER),
        "size": fields.or_null(_SIZE),
        "mtime": fields.or_null(_TIME),
        "mode": fields.or_null(fields.integer(0, MAX_MODE)),
        "policy": fields.one_of(*POLICIES),
    }
    id: int
    transfer: bytes
    path: tuple[str, ...]
    kind: str
    size: int | None
    mtime: int | None
    mode: int | None
    policy: str

    def text(self) -> str:
        return write_put(self.id, self.transfer, self.path, self.kind, self.size, self.mtime, self.mode, self.policy)

    def check(self) -> None:
        if self.kind == FOLDER and self.size is not None:
            raise ProtocolViolation("a folder with a size")

    def why_not(self) -> str:
        return why_not_allowed(self.path)


@value
class End(Control):
    """The content of `id` is complete. `mac` covers the PUT as sent, the size and the digest."""

    KIND = Kind.END
    CHECKS = {"id": _ID, "size": _SIZE, "sha256": fields.hex_bytes(DIGEST_SIZE), "mac": fields.hex_bytes(DIGEST_SIZE)}
    id: int
    size: int
    sha256: bytes
    mac: bytes

    def text(self) -> str:
        return write_end(self.id, self.size, self.sha256, self.mac)


@value
class Cancel(Control):
    """The sender withdraws `id`, because of `code`; None: its content is not wanted, or comes again as a stream."""

    KIND = Kind.CANCEL
    CHECKS = {"id": _ID, "code": fields.or_null(fields.code)}
    id: int
    code: Code | None = None


@value
class Accept(Control):
    """Content of `id` is wanted from `offset`."""

    KIND = Kind.ACCEPT
    CHECKS = {"id": _ID, "offset": _SIZE}
    id: int
    offset: int


@value
class Refuse(Control):
    """`id` is not taken, or failed."""

    KIND = Kind.REFUSE
    CHECKS = {"id": _ID, "code": fields.code}
    id: int
    code: Code


@value
class Check(Control):
    """Receiver: what is the digest of your first `size` bytes? (sha256 null.) Sender: this."""

    KIND = Kind.CHECK
    CHECKS = {"id": _ID, "size": _SIZE, "sha256": fields.or_null(fields.hex_bytes(DIGEST_SIZE))}
    id: int
    size: int
    sha256: bytes | None


@value
class Receipt(Control):
    """Decrypted, verified, flushed to the disk and visible under `path`. `time` in ns since 1970."""

    KIND = Kind.RECEIPT
    CHECKS = {
        "id": _ID,
        "path": fields.path,
        "size": _SIZE,
        "sha256": fields.or_null(fields.hex_bytes(DIGEST_SIZE)),
        "time": _TIME,
        "outcome": fields.one_of(*OUTCOMES),
    }
    id: int
    path: tuple[str, ...]
    size: int
    sha256: bytes | None
    time: int
    outcome: str

    def text(self) -> str:
        return write_receipt(self.id, self.path, self.size, self.sha256, self.time, self.outcome)

    def why_not(self) -> str:
        return why_not_allowed(self.path)


@value
class Get(Control):
    """The server is asked to become the sender of `path`, an empty one for all; `more`: another GET follows."""

    KIND = Kind.GET
    CHECKS = {"id": _ID, "path": fields.path, "more": fields.flag}
    id: int
    path: tuple[str, ...]
    more: bool

    def why_not(self) -> str:
        return why_not_allowed(self.path or _ALL)


@value
class ListFolder(Control):
    """The names in `path` that come behind `after`, in the order of their UTF-8 bytes."""

    KIND = Kind.LIST
    CHECKS = {"id": _ID, "path": fields.path, "after": fields.or_null(fields.text)}
    id: int
    path: tuple[str, ...]
    after: str | None

    def why_not(self) -> str:
        return why_not_allowed(self.path or _ALL) or ("" if self.after is None else why_not_allowed((self.after,)))


@value
class Entry:
    """One name in an ENTRY message."""

    CHECKS: ClassVar[dict[str, fields.Check]] = {
        "name": fields.name,
        "kind": fields.one_of(FILE, FOLDER),
        "size": _SIZE,
        "mtime": _TIME,
    }
    name: str
    kind: str
    size: int
    mtime: int


@value
class Entries(Control):
    """One page of a listing; `more` says that another LIST, behind the last name, would bring more."""

    KIND = Kind.ENTRY
    CHECKS = {"id": _ID, "entries": _entries, "more": fields.flag}
    id: int
    entries: tuple[Entry, ...]
    more: bool


@value
class Omitted(Control):
    """Something that a GET or LIST asked for is there and can't be given: its name, spelled for people, and why.

    `more`: so many others in the same folder have the same fate, and are not named.
    """

    KIND = Kind.OMITTED
    CHECKS = {"id": _ID, "name": fields.spelled, "code": fields.code, "more": _SIZE}
    id: int
    name: str
    code: Code
    more: int


@value
class Rate(Control):
    """The server is asked to send no more than so many bytes per second in this connection."""

    KIND = Kind.RATE
    CHECKS = {"rate": fields.integer(1, MAX_INTEGER)}
    rate: int


@value
class Error(Control):
    """The connection ends, and why."""

    KIND = Kind.ERROR
    CHECKS = {"code": fields.code}
    code: Code


@value
class Ping:
    """A sign of life, with an empty body."""


@value
class Bye:
    """This direction ends here, with an empty body. A direction that stops without it was cut."""


@value
class Data:
    """Content of `id` at `offset`: a view into the record, to be used before the record's buffer is given back."""

    id: int
    offset: int
    content: memoryview


@value
class Misnamed:
    """A PUT, GET or LIST with a path that is not allowed: what the answer to it needs, and nothing else of it.

    A path that is refused may be as long as its message, and thousands may come.
    """

    kind: Kind
    id: int
    is_open: bool  # a PUT of a file: an END or CANCEL closes its id
    more: bool  # a GET, and another one follows
    shown: str  # how the path begins, for a log
    why: str

    @classmethod
    def of(cls, asked: "Put | Get | ListFolder", why: str) -> "Misnamed":
        shown = "/".join(asked.path)
        shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
        is_open = isinstance(asked, Put) and asked.kind == FILE
        return cls(asked.KIND, asked.id, is_open, isinstance(asked, Get) and asked.more, shown, why)


Message = (
    Put
    | Data
    | End
    | Cancel
    | Accept
    | Refuse
    | Check
    | Receipt
    | Get
    | ListFolder
    | Entries
    | Omitted
    | Rate
    | Error
    | Ping
    | Bye
    | Misnamed
)

_CONTROLS: dict[int, type[Control]] = {
    shape.KIND: shape
    for shape in (Put, End, Cancel, Accept, Refuse, Check, Receipt, Get, ListFolder, Entries, Omitted, Rate, Error)
}
_QUICK: dict[int, tuple[type[Control], Reader]] = {
    Kind.PUT: (Put, read_put),
    Kind.END: (End, read_end),
    Kind.RECEIPT: (Receipt, read_receipt),
}
_EMPTY: dict[int, Ping | Bye] = {Kind.PING: Ping(), Kind.BYE: Bye()}


def encode_message(kind: Kind, body: bytes) -> bytes:
    """type ‖ length ‖ body. Raises ProtocolViolation when the body is over the ceiling of control messages."""
    if len(body) > CONTROL_LIMIT:
        raise ProtocolViolation("a control message over its ceiling")
    return _MESSAGE_HEADER.pack(kind, len(body)) + body


PING_MESSAGE = encode_message(Kind.PING, b"")
BYE_MESSAGE = encode_message(Kind.BYE, b"")


def write_data_header(into: memoryview, id: int, offset: int, size: int) -> None:
    """Write the 17 bytes that stand before `size` bytes of content into the front of `into`."""
    _DATA_HEADER.pack_into(into, 0, _DATA, _DATA_FIELDS.size + size, id, offset)


def split_record(text: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(type, body) of each message in a record's plaintext, back to back to its exact end.

    Raises ProtocolViolation for an empty record, a length past its end or over the ceiling of its type.
    """
    if not text:
        raise ProtocolViolation("an empty record")
    at, end = 0, len(text)
    while at < end:
        if end - at < MESSAGE_HEADER_SIZE:
            raise ProtocolViolation("a record that ends inside a message")
        kind, size = _MESSAGE_HEADER.unpack_from(text, at)
        at += MESSAGE_HEADER_SIZE
        if size > end - at:
            raise ProtocolViolation("a message longer than its record")
        if kind != _DATA and size > CONTROL_LIMIT:
            raise ProtocolViolation("a control message over its ceiling")
        yield kind, text[at : at + size]
        at += size


def decode_message(kind: int, body: memoryview) -> Message:
    """One message. Raises ProtocolViolation for an unknown type and for every body that its type does not have.

    A path that is not allowed gives a Misnamed; in a RECEIPT or ENTRY, which nobody can refuse, it is a violation.
    """
    if kind == _DATA:
        size = len(body) - _DATA_FIELDS.size
        if not 0 < size <= DATA_SIZE:
            raise ProtocolViolation("content of a wrong size")
        id, offset = _DATA_FIELDS.unpack_from(body)
        if not 1 <= id <= MAX_ID or offset > MAX_INTEGER - size:
            raise ProtocolViolation("content for an impossible place")
        return Data(id, offset, body[_DATA_FIELDS.size :])
    quick = _QUICK.get(kind)
    if quick is not None and (found := quick[1](body)) is not None:
        return _judged(quick[0](*found))
    shape = _CONTROLS.get(kind)
    if shape is not None:
        message = _fields_of(shape, read_json(body))
        message.check()
        return _judged(message)
    empty = _EMPTY.get(kind)
    if empty is None:
        raise ProtocolViolation("a message of an unknown type")
    if body:
        raise ProtocolViolation("a body where none belongs")
    return empty


def _judged(message: Control) -> Message:
    if why := message.why_not():
        if isinstance(message, Put | Get | ListFolder):
            return Misnamed.of(message, why)
        raise ProtocolViolation(f"a name that is not allowed: {why}")
    return message  # type: ignore[return-value]


def file_mac_begin(put_body: bytes) -> tuple[bytes, ...]:
    """What the HMAC of END is computed over first: label ‖ length ‖ PUT body as sent."""
    return b"sft1 file", len(put_body).to_bytes(8, "big"), put_body


def file_mac_rest(size: int, sha256: bytes) -> tuple[bytes, ...]:
    """And then: size ‖ digest."""
    return size.to_bytes(8, "big"), sha256
