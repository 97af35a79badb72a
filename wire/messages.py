"""The messages inside records, to bytes and back: docs/PROTOCOL.md in code, in its order.

Rules: one writer and one strict reader for each message; a reader ends exactly at the end, and whatever it does not
accept it refuses with ProtocolViolation. Every announced length meets its ceiling before anything of that size is
made. This room knows no socket, no file, no clock and no key.
"""

import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, ClassVar, TypeVar

from crypto_utils import DIGEST_SIZE
from errors import Code, ProtocolViolation
from values import value
from wire.canonical import Reader, read_end, read_put, read_receipt, write_end, write_put, write_receipt
from wire.protocol import CONTROL_LIMIT, DATA_SIZE, MAX_ID, MAX_INTEGER, MAX_MODE, TRANSFER_ID_SIZE
from wire.strict_json import read_json, write_fields


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


_DATA = int(Kind.DATA)
_MESSAGE_HEADER = struct.Struct(">BI")
_DATA_FIELDS = struct.Struct(">IQ")
_DATA_HEADER = struct.Struct(">BIIQ")
MESSAGE_HEADER_SIZE = _MESSAGE_HEADER.size
DATA_HEADER_SIZE = _DATA_HEADER.size
END_SIZE_LIMIT = 256  # no END is longer

FILE, FOLDER = "file", "folder"
POLICIES = ("fail", "rename", "replace", "skip")
OUTCOMES = ("stored", "already", "skipped", "folder")

FieldCheck = Callable[[Any], Any]
_Shape = TypeVar("_Shape")


def _range(least: int, most: int) -> FieldCheck:
    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ProtocolViolation("a field that is no integer in its range")
        return value

    return check


def _one_of(*words: str) -> FieldCheck:
    def check(value: Any) -> str:
        if type(value) is not str or value not in words:
            raise ProtocolViolation("a field with an unknown word")
        return value

    return check


def _or_null(check: FieldCheck) -> FieldCheck:
    return lambda value: None if value is None else check(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ProtocolViolation("a field that is no text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ProtocolViolation("a lone surrogate") from None
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ProtocolViolation("a field that is neither true nor false")
    return value


def _hex(size: int) -> FieldCheck:
    def check(value: Any) -> bytes:
        try:
            found = bytes.fromhex(value)
        except (TypeError, ValueError):
            found = b""
        if len(found) != size or found.hex() != value:  # blanks and capitals are other bytes for the same value
            raise ProtocolViolation(f"a field that is not {size} bytes in lower-case hex")
        return found

    return check


def _path(value: Any) -> tuple[str, ...]:
    if type(value) is not list:
        raise ProtocolViolation("a path that is no list")
    return tuple(_text(part) for part in value)


def _entries(value: Any) -> "tuple[Entry, ...]":
    if type(value) is not list:
        raise ProtocolViolation("entries that are no list")
    return tuple(_fields_of(Entry, item) for item in value)


_ID = _range(1, MAX_ID)
_SIZE = _range(0, MAX_INTEGER)
_TIME = _range(-MAX_INTEGER, MAX_INTEGER)


def _fields_of(shape: type[_Shape], value: Any) -> _Shape:
    """`value` as an object with exactly the fields of `shape`, each checked; they are in CHECKS in the same order."""
    checks: dict[str, FieldCheck] = shape.CHECKS  # type: ignore[attr-defined]
    if type(value) is not dict or value.keys() != checks.keys():
        raise ProtocolViolation("a body with other fields than its type has")
    return shape(*[check(value[name]) for name, check in checks.items()])


@value
class Control:
    """Base of the messages with a JSON body: the same fields, each always present, and nothing else."""

    KIND: ClassVar[Kind]
    CHECKS: ClassVar[dict[str, FieldCheck]]

    def check(self) -> None:
        """What no field shows by itself: whether they fit each other. Raises ProtocolViolation."""

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
        "transfer": _hex(TRANSFER_ID_SIZE),
        "path": _path,
        "kind": _one_of(FILE, FOLDER),
        "size": _or_null(_SIZE),
        "mtime": _or_null(_TIME),
        "mode": _or_null(_range(0, MAX_MODE)),
        "policy": _one_of(*POLICIES),
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


@value
class End(Control):
    """The content of `id` is complete. `mac` covers the PUT as sent, the size and the digest."""

    KIND = Kind.END
    CHECKS = {"id": _ID, "size": _SIZE, "sha256": _hex(DIGEST_SIZE), "mac": _hex(DIGEST_SIZE)}
    id: int
    size: int
    sha256: bytes
    mac: bytes

    def text(self) -> str:
        return write_end(self.id, self.size, self.sha256, self.mac)


@value
class Cancel(Control):
    """The sender withdraws `id`, or has stopped after a REFUSE."""

    KIND = Kind.CANCEL
    CHECKS = {"id": _ID}
    id: int


@value
class Accept(Control):
    """Content of `id` is wanted from `offset`."""

    KIND = Kind.ACCEPT
    CHECKS = {"id": _ID, "offset": _SIZE}
    id: int
    offset: int


def _code(value: Any) -> Code:
    try:
        return Code(_text(value))
    except ValueError:
        raise ProtocolViolation("an unknown code") from None


@value
class Refuse(Control):
    """`id` is not taken, or failed."""

    KIND = Kind.REFUSE
    CHECKS = {"id": _ID, "code": _code}
    id: int
    code: Code


@value
class Check(Control):
    """Receiver: what is the digest of your first `size` bytes? (sha256 null.) Sender: this."""

    KIND = Kind.CHECK
    CHECKS = {"id": _ID, "size": _SIZE, "sha256": _or_null(_hex(DIGEST_SIZE))}
    id: int
    size: int
    sha256: bytes | None


@value
class Receipt(Control):
    """Decrypted, verified, flushed to the disk and visible under `path`. `time` in ns since 1970."""

    KIND = Kind.RECEIPT
    CHECKS = {
        "id": _ID,
        "path": _path,
        "size": _SIZE,
        "sha256": _or_null(_hex(DIGEST_SIZE)),
        "time": _TIME,
        "outcome": _one_of(*OUTCOMES),
    }
    id: int
    path: tuple[str, ...]
    size: int
    sha256: bytes | None
    time: int
    outcome: str

    def text(self) -> str:
        return write_receipt(self.id, self.path, self.size, self.sha256, self.time, self.outcome)


@value
class Get(Control):
    """The server is asked to become the sender of `path`, an empty one for all; `more`: another GET follows."""

    KIND = Kind.GET
    CHECKS = {"id": _ID, "path": _path, "more": _flag}
    id: int
    path: tuple[str, ...]
    more: bool


@value
class ListFolder(Control):
    """The names in `path` that come behind `after`, in the order of their UTF-8 bytes."""

    KIND = Kind.LIST
    CHECKS = {"id": _ID, "path": _path, "after": _or_null(_text)}
    id: int
    path: tuple[str, ...]
    after: str | None


@value
class Entry:
    """One name in an ENTRY message."""

    CHECKS: ClassVar[dict[str, FieldCheck]] = {
        "name": _text,
        "kind": _one_of(FILE, FOLDER),
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
    CHECKS = {"id": _ID, "entries": _entries, "more": _flag}
    id: int
    entries: tuple[Entry, ...]
    more: bool


@value
class Error(Control):
    """The connection ends, and why."""

    KIND = Kind.ERROR
    CHECKS = {"code": _code}
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


Message = (
    Put | Data | End | Cancel | Accept | Refuse | Check | Receipt | Get | ListFolder | Entries | Error | Ping | Bye
)

_CONTROLS: dict[int, type[Control]] = {
    shape.KIND: shape for shape in (Put, End, Cancel, Accept, Refuse, Check, Receipt, Get, ListFolder, Entries, Error)
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
    """One message. Raises ProtocolViolation for an unknown type and for every body that its type does not have."""
    if kind == _DATA:
        size = len(body) - _DATA_FIELDS.size
        if not 0 < size <= DATA_SIZE:
            raise ProtocolViolation("content of a wrong size")
        id, offset = _DATA_FIELDS.unpack_from(body)
        if not 1 <= id <= MAX_ID or offset > MAX_INTEGER - size:
            raise ProtocolViolation("content for an impossible place")
        return Data(id, offset, body[_DATA_FIELDS.size :])
    quick = _QUICK.get(kind)
    if quick is not None and (fields := quick[1](body)) is not None:
        return quick[0](*fields)  # type: ignore[return-value]
    shape = _CONTROLS.get(kind)
    if shape is not None:
        message = _fields_of(shape, read_json(body))
        message.check()
        return message  # type: ignore[return-value]
    empty = _EMPTY.get(kind)
    if empty is None:
        raise ProtocolViolation("a message of an unknown type")
    if body:
        raise ProtocolViolation("a body where none belongs")
    return empty


def file_mac_input(put_body: bytes, size: int, sha256: bytes) -> tuple[bytes, ...]:
    """What the HMAC of END is computed over: label ‖ length ‖ PUT body as sent ‖ size ‖ digest."""
    return b"sft1 file", len(put_body).to_bytes(8, "big"), put_body, size.to_bytes(8, "big"), sha256
