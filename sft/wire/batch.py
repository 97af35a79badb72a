"""Small files, many in one message, to bytes and back: BATCH, which announces and brings them, and RECEIPTS.

    BATCH     u32 h ‖ HMAC ‖ header of h bytes ‖ contents, back to back, or one zstd frame of them

Rules: those of `sft/wire/messages.py`. A path that is not allowed is the trouble of its one file: it is named here, and
the others go on.
"""

import struct
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, get_args

import msgspec
from msgspec import Meta

from crypto_utils import DIGEST_SIZE
from sft.common.errors import Code, ProtocolViolation
from sft.common.names import MAX_DEPTH, MAX_PATH, are_plain_paths, why_not_allowed
from sft.wire.bodies import (
    MESSAGE_HEADER,
    Control,
    Digest,
    Id,
    Kind,
    Mode,
    Path,
    PolicyWord,
    Time,
    TransferId,
    read_body,
)
from sft.wire.compression import check_frame, decoded
from sft.wire.content import Data
from sft.wire.protocol import BATCH_CONTENT, BATCH_FILES, BATCH_HEADER_LIMIT, RECORD_TEXT_LIMIT, UNASKED_LIMIT

_HEADER_SIZE = struct.Struct(">I")
_BEFORE_HEADER = _HEADER_SIZE.size + DIGEST_SIZE
BATCH_OVERHEAD = MESSAGE_HEADER.size + _BEFORE_HEADER  # bytes of a BATCH beside its header and contents
BATCH_SPACE = RECORD_TEXT_LIMIT - BATCH_OVERHEAD  # for header and contents together
_EACH, _COMPONENT = 64, 3  # bytes of one file's header beside its path, and of one component beside its text, at most
_LONGEST_PATH = MAX_PATH + _COMPONENT * MAX_DEPTH
MOST_HEADER_SPACE = _EACH + _LONGEST_PATH  # bytes that a file takes of a header, whatever its path

SmallSize = Annotated[int, Meta(ge=0, le=UNASKED_LIMIT)]
BatchWord = Literal["stored", "already", "skipped", "wanted"]
BATCH_WORDS: tuple[BatchWord, ...] = get_args(BatchWord)
_WORDS = frozenset([*BATCH_WORDS, *(code.value for code in Code)])
_NAMED = ("stored", "already")  # outcomes that may have another name


class BatchFile(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """One file of a BATCH. `with_content` False: it is offered, and comes later if it is wanted."""

    path: Path
    size: SmallSize
    mtime: Time | None
    mode: Mode | None
    sha256: Digest
    with_content: bool


class BatchHeader(Control, frozen=True):
    """What a BATCH announces; its HMAC covers these bytes."""

    KIND = Kind.BATCH
    id: Id
    transfer: TransferId
    policy: PolicyWord
    files: Annotated[tuple[BatchFile, ...], Meta(min_length=1, max_length=BATCH_FILES)]

    @property
    def content_size(self) -> int:
        """Bytes of all contents that come with it."""
        return sum([file.size for file in self.files if file.with_content])


class Batch(msgspec.Struct, frozen=True, gc=False):
    """A BATCH as it arrived. `contents` is a view into the record, to be used before its buffer is given back.

    `not_allowed`: which files have a path that is not allowed, and why. `size`: bytes of all contents.
    """

    KIND: ClassVar[Kind] = Kind.BATCH
    id: int
    transfer: bytes
    policy: PolicyWord
    files: tuple[BatchFile, ...]
    not_allowed: dict[int, str]
    mac: bytes
    header: bytes
    size: int
    contents: memoryview

    @property
    def is_frame(self) -> bool:
        """Whether its contents are compressed."""
        return len(self.contents) < self.size

    def plain(self) -> memoryview:
        """The contents themselves. Raises ProtocolViolation for a frame that does not hold as many bytes."""
        return memoryview(decoded(self.contents, self.size)) if self.is_frame else self.contents


class Outcome(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """What became of one file: a word or code. `name`: the last component that it got, None for the announced one."""

    word: str
    name: str | None = None


class Receipts(Control, frozen=True):
    """What became of the files of a BATCH, in their order. `sha256`: over the digests of what is there now."""

    KIND = Kind.RECEIPTS
    id: Id
    time: Time
    sha256: Digest
    outcomes: Annotated[tuple[Outcome, ...], Meta(min_length=1, max_length=BATCH_FILES)]

    def check(self) -> None:
        for outcome in self.outcomes:
            if outcome.word not in _WORDS:
                raise ProtocolViolation("an outcome that no file has")
            if outcome.name is not None and outcome.word not in _NAMED:
                raise ProtocolViolation("a name for a file that is not there")

    def why_not(self) -> str:
        named = (outcome.name for outcome in self.outcomes if outcome.name is not None)
        return next(filter(None, (why_not_allowed((name,)) for name in named)), "")


def content_of(message: object) -> int:
    """How many bytes of files a message stands for, or has the receiver compare."""
    if isinstance(message, Batch):
        return sum([file.size for file in message.files])
    return message.size if isinstance(message, Data) else 0


def header_space(path: Path) -> int:
    """Bytes that one file takes of a header, at most."""
    return _EACH + len("".join(path).encode()) + _COMPONENT * len(path)


def name_space(name: str) -> int:
    """Bytes that one more component takes of it, at most."""
    return _COMPONENT + (len(name) if name.isascii() else len(name.encode()))


def batch_mac_input(header: bytes) -> tuple[bytes, ...]:
    """What the HMAC of a BATCH is computed over: label ‖ length ‖ header as sent."""
    return b"sft1 batch", len(header).to_bytes(8, "big"), header


def write_batch(into: memoryview, mac: bytes, header: bytes, contents: Iterable[bytes]) -> None:
    """Write the whole message, which fills `into` exactly."""
    MESSAGE_HEADER.pack_into(into, 0, Kind.BATCH, len(into) - MESSAGE_HEADER.size)
    rest = b"".join((_HEADER_SIZE.pack(len(header)), mac, header, *contents))
    into[MESSAGE_HEADER.size :] = rest


_DECODER = msgspec.msgpack.Decoder(BatchHeader)


def read_batch(body: memoryview) -> Batch:
    """Raises ProtocolViolation."""
    if len(body) < _BEFORE_HEADER:
        raise ProtocolViolation("a batch that ends before its header")
    (size,) = _HEADER_SIZE.unpack_from(body)
    if size > BATCH_HEADER_LIMIT or size > len(body) - _BEFORE_HEADER:
        raise ProtocolViolation("a batch with a header over its ceiling, or longer than itself")
    raw = bytes(body[_BEFORE_HEADER : _BEFORE_HEADER + size])
    header = read_body(_DECODER, raw)
    contents = body[_BEFORE_HEADER + size :]
    content_size = header.content_size
    if content_size > BATCH_CONTENT or len(contents) > content_size:
        raise ProtocolViolation("contents of another size than a batch announces, or over their ceiling")
    if len(contents) < content_size:
        check_frame(contents, content_size)
    if len({file.path for file in header.files}) < len(header.files):
        raise ProtocolViolation("a path that is twice in a batch")
    not_allowed: dict[int, str] = {}
    if not are_plain_paths([file.path for file in header.files]):
        not_allowed = {at: why for at, file in enumerate(header.files) if (why := why_not_allowed(file.path))}
    mac = bytes(body[_HEADER_SIZE.size : _BEFORE_HEADER])
    return Batch(header.id, header.transfer, header.policy, header.files, not_allowed, mac, raw, content_size, contents)
