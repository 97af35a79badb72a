"""The messages inside records, to bytes and back: docs/PROTOCOL.md in code, in its order.

Rules: the body of a control message is a MessagePack array of its fields, in the one shortest encoding. A reader takes
nothing else: each type, range and length is checked while it reads, and what it has read is written again and compared.
Every announced length meets its ceiling before anything of that size is made. Every name of a peer is judged here
(`sft/common/names.py`): no message with a name that is not allowed leaves this module, and of such a path no more is
kept than a log needs. This module knows no socket, no file, no clock and no key.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from sft.common.errors import Code, ProtocolViolation
from sft.common.names import MAX_DEPTH, is_link_target, why_not_allowed
from sft.wire.batch import Batch, Receipts, read_batch
from sft.wire.bodies import FILE as FILE  # also for those who import from here
from sft.wire.bodies import FOLDER as FOLDER
from sft.wire.bodies import LINK as LINK
from sft.wire.bodies import MESSAGE_HEADER, Digest, Id, Mode, Path, Rates, Size, Time, TransferId, ceiling_of, read_body
from sft.wire.bodies import Control as Control
from sft.wire.bodies import Kind as Kind
from sft.wire.bodies import PolicyWord as PolicyWord
from sft.wire.bodies import encode_message as encode_message
from sft.wire.change_messages import Change, Move, Remove, SetAttributes
from sft.wire.content import DATA_TYPE, Data, read_data
from sft.wire.protocol import ENTRIES_LIMIT
from sft.wire.spelling import is_spelled
from sft.wire.tree_messages import Branch, NodeKind, Tree, check_shown

_BATCH = int(Kind.BATCH)
_CONTENT = (DATA_TYPE, _BATCH)  # which are bounded by the record
MESSAGE_HEADER_SIZE = MESSAGE_HEADER.size
_ALL = ("all",)  # in the place of an empty path, which stands for the whole folder
_SHOWN = 200  # characters of a path that is not allowed

PutKind = Literal["file", "folder", "link"]
ReceiptOutcome = Literal["stored", "already", "skipped", "folder"]
POLICIES: tuple[PolicyWord, ...] = get_args(PolicyWord)
OUTCOMES: tuple[ReceiptOutcome, ...] = get_args(ReceiptOutcome)


class Put(Control, frozen=True):
    """A file or folder is coming, or a link is here. `size` None: a pipe. `mtime` in ns since 1970.

    `mode`: permission bits. `target`: what a link says, which is neither followed nor judged; None for anything else.
    """

    KIND = Kind.PUT
    id: Id
    transfer: TransferId
    path: Path
    kind: PutKind
    size: Size | None
    mtime: Time | None
    mode: Mode | None
    policy: PolicyWord
    target: str | None = None

    def check(self) -> None:
        if self.kind != FILE and self.size is not None:
            raise ProtocolViolation("a folder or link with a size")
        if (self.kind == LINK) != (self.target is not None):
            raise ProtocolViolation("a target that is not a link's, or a link without one")
        if self.target is not None and (self.mode is not None or not is_link_target(self.target)):
            raise ProtocolViolation("a link with permission bits, or with a target that none can have")

    def why_not(self) -> str:
        return why_not_allowed(self.path)


class End(Control, frozen=True):
    """The content of `id` is complete. `mac` covers the PUT as sent, the size and the digest."""

    KIND = Kind.END
    id: Id
    size: Size
    sha256: Digest
    mac: Digest


class Cancel(Control, frozen=True):
    """The sender withdraws `id`, because of `code`; None: its content is not wanted, or comes again as a stream."""

    KIND = Kind.CANCEL
    id: Id
    code: Code | None = None


class Accept(Control, frozen=True):
    """Content of `id` is wanted from `offset`."""

    KIND = Kind.ACCEPT
    id: Id
    offset: Size


class Refuse(Control, frozen=True):
    """`id` is not taken, or failed."""

    KIND = Kind.REFUSE
    id: Id
    code: Code


class Check(Control, frozen=True):
    """Receiver: what is the digest of your first `size` bytes? (sha256 null.) Sender: this."""

    KIND = Kind.CHECK
    id: Id
    size: Size
    sha256: Digest | None


class Receipt(Control, frozen=True):
    """Decrypted, verified, flushed to the disk and visible under `path`. `time` in ns since 1970."""

    KIND = Kind.RECEIPT
    id: Id
    path: Path
    size: Size
    sha256: Digest | None
    time: Time
    outcome: ReceiptOutcome

    def why_not(self) -> str:
        return why_not_allowed(self.path)


class Get(Control, frozen=True):
    """The server is asked to become the sender of `path`, an empty one for all; `more`: another GET follows.

    `zstd`: the content may come compressed. `offers`: small files are to be offered before their content comes.
    `depth`: with so many of its last components the names of what is sent begin; 0 for the empty path alone.
    `links`: links are wanted, too.
    """

    KIND = Kind.GET
    id: Id
    path: Path
    more: bool
    zstd: bool
    offers: bool = False
    depth: Annotated[int, Meta(ge=0, le=MAX_DEPTH)] = 1
    links: bool = False

    def check(self) -> None:
        if not min(1, len(self.path)) <= self.depth <= len(self.path):
            raise ProtocolViolation("more components than a path has, or none")

    def why_not(self) -> str:
        return why_not_allowed(self.path or _ALL)


class ListFolder(Control, frozen=True):
    """The names in `path` that come behind `after`, in the order of their UTF-8 bytes."""

    KIND = Kind.LIST
    id: Id
    path: Path
    after: str | None

    def why_not(self) -> str:
        return why_not_allowed(self.path or _ALL) or ("" if self.after is None else why_not_allowed((self.after,)))


class Entry(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """One name in an ENTRY message. `target`: where a link leads, spelled for people; None for anything else."""

    name: str
    kind: NodeKind
    size: Size
    mtime: Time
    target: str | None = None


class Entries(Control, frozen=True):
    """One page of a listing; `more` says that another LIST, behind the last name, would bring more."""

    KIND = Kind.ENTRY
    id: Id
    entries: Annotated[tuple[Entry, ...], Meta(max_length=ENTRIES_LIMIT)]
    more: bool

    def check(self) -> None:
        for entry in self.entries:
            check_shown(entry)

    def why_not(self) -> str:
        return next(filter(None, (why_not_allowed((entry.name,)) for entry in self.entries)), "")


class Omitted(Control, frozen=True):
    """Something that a GET, LIST or TREE asked for is there and can't be given: its name, spelled for people, and why.

    `more`: so many others in the same folder have the same fate, and are not named.
    """

    KIND = Kind.OMITTED
    id: Id
    name: str
    code: Code
    more: Size

    def check(self) -> None:
        if not is_spelled(self.name):
            raise ProtocolViolation("a name that can't be shown")


class Rate(Control, frozen=True):
    """The server is asked to send no more than so many bytes per second in this connection."""

    KIND = Kind.RATE
    rate: Rates


class Error(Control, frozen=True):
    """The connection ends, and why."""

    KIND = Kind.ERROR
    code: Code


class Ping(msgspec.Struct, frozen=True, gc=False):
    """A sign of life, with an empty body."""


class Bye(msgspec.Struct, frozen=True, gc=False):
    """This direction ends here, with an empty body. A direction that stops without it was cut."""


_WithPath = Put | Get | ListFolder | Tree | Remove | Move | SetAttributes  # to which REFUSE is an answer


class Misnamed(msgspec.Struct, frozen=True, gc=False):
    """A request, or a file, with a path that is not allowed: what the answer to it needs, and nothing else of it.

    A path that is refused may be as long as its message, and thousands may come.
    """

    kind: Kind
    id: int
    is_open: bool  # a PUT of a file: an END or CANCEL closes its id
    more: bool  # a GET, and another one follows
    shown: str  # how the path begins, for a log
    why: str

    @classmethod
    def of(cls, asked: _WithPath, why: str) -> "Misnamed":
        shown = _briefly(asked.path)
        is_open = isinstance(asked, Put) and asked.kind == FILE
        return cls(asked.KIND, asked.id, is_open, isinstance(asked, Get) and asked.more, shown, why)

    @classmethod
    def in_batch(cls, batch: Batch, at: int) -> "Misnamed":
        """The file at that place of a BATCH."""
        return cls(Kind.BATCH, batch.id, False, False, _briefly(batch.files[at].path), batch.not_allowed[at])


def _briefly(path: Path) -> str:
    shown = "/".join(path)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."


Message = (
    Put
    | Data
    | End
    | Cancel
    | Accept
    | Refuse
    | Check
    | Receipt
    | Batch
    | Receipts
    | Get
    | ListFolder
    | Entries
    | Tree
    | Branch
    | Change
    | Omitted
    | Rate
    | Error
    | Ping
    | Bye
    | Misnamed
)

_DECODERS: dict[int, msgspec.msgpack.Decoder[Control]] = {
    shape.KIND: msgspec.msgpack.Decoder(shape)
    for shape in (
        Put,
        End,
        Cancel,
        Accept,
        Refuse,
        Check,
        Receipt,
        Receipts,
        Get,
        ListFolder,
        Entries,
        Tree,
        Branch,
        *get_args(Change),
        Omitted,
        Rate,
        Error,
    )
}
_EMPTY: dict[int, Ping | Bye] = {Kind.PING: Ping(), Kind.BYE: Bye()}


PING_MESSAGE = encode_message(Kind.PING, b"")
BYE_MESSAGE = encode_message(Kind.BYE, b"")


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
        kind, size = MESSAGE_HEADER.unpack_from(text, at)
        at += MESSAGE_HEADER_SIZE
        if size > end - at:
            raise ProtocolViolation("a message longer than its record")
        if kind not in _CONTENT and size > ceiling_of(kind):
            raise ProtocolViolation("a control message over its ceiling")
        yield kind, text[at : at + size]
        at += size


def decode_message(kind: int, body: memoryview) -> Message:
    """One message. Raises ProtocolViolation for an unknown type and for every body that its type does not have.

    A path that is not allowed gives a Misnamed; where nobody can refuse it (RECEIPT, ENTRY, BRANCH) it is a violation.
    """
    if kind == DATA_TYPE:
        return read_data(body)
    if kind == _BATCH:
        return read_batch(body)
    decoder = _DECODERS.get(kind)
    if decoder is not None:
        return _judged(read_body(decoder, body))
    empty = _EMPTY.get(kind)
    if empty is None:
        raise ProtocolViolation("a message of an unknown type")
    if body:
        raise ProtocolViolation("a body where none belongs")
    return empty


def _judged(message: Control) -> Message:
    if why := message.why_not():
        if isinstance(message, _WithPath):
            return Misnamed.of(message, why)
        raise ProtocolViolation(f"a name that is not allowed: {why}")
    return message  # type: ignore[return-value]


def file_mac_begin(put_body: bytes) -> tuple[bytes, ...]:
    """What the HMAC of END is computed over first: label ‖ length ‖ PUT body as sent."""
    return b"sft1 file", len(put_body).to_bytes(8, "big"), put_body


def file_mac_rest(size: int, sha256: bytes) -> tuple[bytes, ...]:
    """And then: size ‖ digest."""
    return size.to_bytes(8, "big"), sha256
