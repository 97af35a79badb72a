"""One table of messages and bytes drives writers and readers; each reader is fed whole, cut short, and with a tail."""

import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tables import each_row

from sft.common.errors import Code, ProtocolViolation
from sft.wire.batch import BATCH_WORDS, Outcome, Receipts
from sft.wire.change_messages import Amounts, Done, Move, Remove, SetAttributes, Usage
from sft.wire.content import DATA_HEADER_SIZE, Data, write_data_header
from sft.wire.messages import (
    BYE_MESSAGE,
    MESSAGE_HEADER_SIZE,
    OUTCOMES,
    PING_MESSAGE,
    POLICIES,
    Accept,
    Bye,
    Cancel,
    Check,
    Control,
    End,
    Entries,
    Entry,
    Error,
    Get,
    Kind,
    ListFolder,
    Message,
    Misnamed,
    Omitted,
    Ping,
    Put,
    Rate,
    Receipt,
    Refuse,
    decode_message,
    encode_message,
    file_mac_begin,
    file_mac_rest,
    split_record,
)
from sft.wire.protocol import BRANCH_LIMIT, CONTROL_LIMIT, DATA_SIZE, MAX_ID, MAX_INTEGER, MAX_MODE
from sft.wire.tree_messages import Branch, Node, Tree

TRANSFER = bytes(range(16))
SHA256 = bytes(range(32))
MAC = bytes(range(0xE0, 0x100))

PUT = Put(1, TRANSFER, ("a", "b.txt"), "file", 5, 1700000000000000000, 0o640, "fail")
PIPE = Put(MAX_ID, TRANSFER, ("é\\☃\U0001f600",), "file", None, None, None, "rename")
FOLDER = Put(2, TRANSFER, ("d",), "folder", None, -1, 0, "skip")
PUT_LINK = Put(3, TRANSFER, ("l",), "link", None, 7, None, "replace", "../é\n//.")
RECEIPT = Receipt(7, ("db.1.dump",), MAX_INTEGER, SHA256, 12, "stored")
EMPTY_RECEIPT = Receipt(7, ("x",), 0, None, -MAX_INTEGER, "folder")
TWO_ENTRIES = Entries(6, (Entry("a", "file", 3, 4), Entry('"', "link", 0, -5, "é")), True)
LINK = Node(2, "l", "link", 0, 1, 0o777, "../\\x5c")
BRANCH = Branch(
    3, (Node(1, "d", "folder", 0, 2, 0o755, None), LINK, Node(1, "é", "file", 300, -1, 0, None, SHA256)), True
)

NIL, NO, YES = b"\xc0", b"\xc2", b"\xc3"
MOST = b"\xcf\x7f" + b"\xff" * 7  # 2^63 - 1
LEAST = b"\xd3\x80" + b"\0" * 6 + b"\1"  # -(2^63 - 1)
BIN_TRANSFER, BIN_SHA256, BIN_MAC = b"\xc4\x10" + TRANSFER, b"\xc4\x20" + SHA256, b"\xc4\x20" + MAC

# (message, type byte, the first byte of the body, its fields), both ways.
ROWS: list[tuple[Control, int, bytes, list[bytes]]] = [
    (
        PUT,
        1,
        b"\x99",
        [
            *(b"\1", BIN_TRANSFER, b"\x92\xa1a\xa5b.txt", b"\xa4file"),
            *(b"\5", b"\xcf\x17\x97\x9c\xfe\x36\x2a\0\0", b"\xcd\1\xa0", b"\xa4fail", NIL),
        ],
    ),
    (
        PIPE,
        1,
        b"\x99",
        [
            *(b"\xce\xff\xff\xff\xff", BIN_TRANSFER, b"\x91\xaa\xc3\xa9\\\xe2\x98\x83\xf0\x9f\x98\x80"),
            *(b"\xa4file", NIL, NIL, NIL, b"\xa6rename", NIL),
        ],
    ),
    (
        FOLDER,
        1,
        b"\x99",
        [b"\2", BIN_TRANSFER, b"\x91\xa1d", b"\xa6folder", NIL, b"\xff", b"\0", b"\xa4skip", NIL],
    ),
    (
        PUT_LINK,
        1,
        b"\x99",
        [b"\3", BIN_TRANSFER, b"\x91\xa1l", b"\xa4link", NIL, b"\7", NIL, b"\xa7replace", b"\xa9../\xc3\xa9\n//."],
    ),
    (End(3, 128, SHA256, MAC), 3, b"\x94", [b"\3", b"\xcc\x80", BIN_SHA256, BIN_MAC]),
    (Cancel(127), 4, b"\x92", [b"\x7f", NIL]),
    (Cancel(9, Code.CHANGED), 4, b"\x92", [b"\t", b"\xa7changed"]),
    (Accept(255, 0), 5, b"\x92", [b"\xcc\xff", b"\0"]),
    (Accept(256, MAX_INTEGER), 5, b"\x92", [b"\xcd\1\0", MOST]),
    (Refuse(65535, Code.IS_FOLDER), 6, b"\x92", [b"\xcd\xff\xff", b"\xa9is-folder"]),
    (Refuse(65536, Code.NO_SPACE), 6, b"\x92", [b"\xce\0\1\0\0", b"\xa8no-space"]),
    (Check(5, 2**32 - 1, None), 7, b"\x93", [b"\5", b"\xce\xff\xff\xff\xff", NIL]),
    (Check(5, 2**32, SHA256), 7, b"\x93", [b"\5", b"\xcf\0\0\0\1\0\0\0\0", BIN_SHA256]),
    (RECEIPT, 8, b"\x96", [b"\7", b"\x91\xa9db.1.dump", MOST, BIN_SHA256, b"\x0c", b"\xa6stored"]),
    (EMPTY_RECEIPT, 8, b"\x96", [b"\7", b"\x91\xa1x", b"\0", NIL, LEAST, b"\xa6folder"]),
    (Get(1, ("a", "b"), True, True), 9, b"\x97", [b"\1", b"\x92\xa1a\xa1b", YES, YES, NO, b"\1", NO]),
    (Get(1, ("a",), False, False, True), 9, b"\x97", [b"\1", b"\x91\xa1a", NO, NO, YES, b"\1", NO]),
    (Get(MAX_ID, (), False, False, False, 0), 9, b"\x97", [b"\xce\xff\xff\xff\xff", b"\x90", NO, NO, NO, b"\0", NO]),
    (Get(1, ("a",) * 15, False, True), 9, b"\x97", [b"\1", b"\x9f" + b"\xa1a" * 15, NO, YES, NO, b"\1", NO]),
    (Get(1, ("a",) * 16, False, True), 9, b"\x97", [b"\1", b"\xdc\0\x10" + b"\xa1a" * 16, NO, YES, NO, b"\1", NO]),
    (Get(1, ("n" * 31,), False, True), 9, b"\x97", [b"\1", b"\x91\xbf" + b"n" * 31, NO, YES, NO, b"\1", NO]),
    (Get(1, ("n" * 32,), False, True), 9, b"\x97", [b"\1", b"\x91\xd9\x20" + b"n" * 32, NO, YES, NO, b"\1", NO]),
    (Get(1, ("n" * 255,), False, True), 9, b"\x97", [b"\1", b"\x91\xd9\xff" + b"n" * 255, NO, YES, NO, b"\1", NO]),
    (Get(1, ("a", "b"), False, True, False, 2), 9, b"\x97", [b"\1", b"\x92\xa1a\xa1b", NO, YES, NO, b"\2", NO]),
    (Get(1, ("a",), False, False, False, 1, True), 9, b"\x97", [b"\1", b"\x91\xa1a", NO, NO, NO, b"\1", YES]),
    (ListFolder(1, (), None), 10, b"\x93", [b"\1", b"\x90", NIL]),
    (ListFolder(2, ("a",), "b"), 10, b"\x93", [b"\2", b"\x91\xa1a", b"\xa1b"]),
    (TWO_ENTRIES, 11, b"\x93", [b"\6", b'\x92\x95\xa1a\xa4file\3\4\xc0\x95\xa1"\xa4link\0\xfb\xa2\xc3\xa9', YES]),
    (Entries(1, (), False), 11, b"\x93", [b"\1", b"\x90", NO]),
    (
        Entries(1, (Entry("a", "file", 0, -32), Entry("b", "file", 0, -33)), False),
        11,
        b"\x93",
        [b"\1", b"\x92\x95\xa1a\xa4file\0\xe0\xc0\x95\xa1b\xa4file\0\xd0\xdf\xc0", NO],
    ),
    (
        Entries(1, (Entry("a", "file", 0, -128), Entry("b", "file", 0, -129)), False),
        11,
        b"\x93",
        [b"\1", b"\x92\x95\xa1a\xa4file\0\xd0\x80\xc0\x95\xa1b\xa4file\0\xd1\xff\x7f\xc0", NO],
    ),
    (
        Entries(1, (Entry("a", "file", 0, -(2**15)), Entry("b", "file", 0, -(2**15) - 1)), False),
        11,
        b"\x93",
        [b"\1", b"\x92\x95\xa1a\xa4file\0\xd1\x80\0\xc0\x95\xa1b\xa4file\0\xd2\xff\xff\x7f\xff\xc0", NO],
    ),
    (
        Entries(1, (Entry("a", "file", 0, -(2**31)), Entry("b", "file", 0, -(2**31) - 1)), False),
        11,
        b"\x93",
        [
            *(
                b"\1",
                b"\x92\x95\xa1a\xa4file\0\xd2\x80\0\0\0\xc0"
                + b"\x95\xa1b\xa4file\0\xd3\xff\xff\xff\xff\x7f\xff\xff\xff\xc0",
            ),
            NO,
        ],
    ),
    (Tree(1, (), None), 19, b"\x94", [b"\1", b"\x90", NIL, NO]),
    (Tree(2, ("a",), ("b", "c"), True), 19, b"\x94", [b"\2", b"\x91\xa1a", b"\x92\xa1b\xa1c", YES]),
    (Branch(1, (), False), 20, b"\x93", [b"\1", b"\x90", NO]),
    (
        BRANCH,
        20,
        b"\x93",
        [
            b"\3",
            b"\x93\x98\1\xa1d\xa6folder\0\2\xcd\1\xed\xc0\xc0"
            + b"\x98\2\xa1l\xa4link\0\1\xcd\1\xff\xa7../\\x5c\xc0"
            + b"\x98\1\xa2\xc3\xa9\xa4file\xcd\1\x2c\xff\0\xc0"
            + BIN_SHA256,
            YES,
        ],
    ),
    (Remove(1, ("a",), False), 21, b"\x93", [b"\1", b"\x91\xa1a", NO]),
    (Remove(MAX_ID, ("a", "b"), True), 21, b"\x93", [b"\xce\xff\xff\xff\xff", b"\x92\xa1a\xa1b", YES]),
    (Move(2, ("a",), ("b", "c")), 22, b"\x93", [b"\2", b"\x91\xa1a", b"\x92\xa1b\xa1c"]),
    (Usage(3), 23, b"\x91", [b"\3"]),
    (Amounts(3, 0, 1, None, None, None), 24, b"\x96", [b"\3", b"\0", b"\1", NIL, NIL, NIL]),
    (Amounts(3, 128, 256, MAX_INTEGER, 7, 0), 24, b"\x96", [b"\3", b"\xcc\x80", b"\xcd\1\0", MOST, b"\7", b"\0"]),
    (SetAttributes(4, ("a",), -1, None), 25, b"\x94", [b"\4", b"\x91\xa1a", b"\xff", NIL]),
    (SetAttributes(4, ("a",), None, 0o777), 25, b"\x94", [b"\4", b"\x91\xa1a", NIL, b"\xcd\1\xff"]),
    (Done(5, 1), 26, b"\x92", [b"\5", b"\1"]),
    (Omitted(6, "a/\\xff", Code.NAME, 3), 15, b"\x94", [b"\6", b"\xa6a/\\xff", b"\xa4name", b"\3"]),
    (Error(Code.STOPPING), 13, b"\x91", [b"\xa8stopping"]),
    (
        Receipts(9, 12, SHA256, (Outcome("stored"), Outcome("already", "a.1"), Outcome("wanted"), Outcome("name"))),
        18,
        b"\x94",
        [
            *(b"\t", b"\x0c", BIN_SHA256),
            b"\x94\x92\xa6stored\xc0\x92\xa7already\xa3a.1\x92\xa6wanted\xc0\x92\xa4name\xc0",
        ],
    ),
    (
        Receipts(1, 0, SHA256, (Outcome("skipped"),)),
        18,
        b"\x94",
        [b"\1", b"\0", BIN_SHA256, b"\x91\x92\xa7skipped\xc0"],
    ),
    (Rate(1), 16, b"\x91", [b"\1"]),
    (Rate(MAX_INTEGER), 16, b"\x91", [MOST]),
]
EMPTY: list[tuple[Ping | Bye, int, bytes]] = [(Ping(), 12, b""), (Bye(), 14, b"")]
CONTROLS = [(message, kind, first + b"".join(fields)) for message, kind, first, fields in ROWS]
TABLE: list[tuple[Control | Ping | Bye, int, bytes]] = [*CONTROLS, *EMPTY]
_EMPTY = {Ping: PING_MESSAGE, Bye: BYE_MESSAGE}


def encode(message: Message | Control) -> bytes:
    """The whole message, as a sender writes it."""
    if isinstance(message, Data):
        whole = bytearray(DATA_HEADER_SIZE) + message.content
        write_data_header(memoryview(whole), message.id, message.offset, message.size, len(message.content))
        return bytes(whole)
    return message.encode() if isinstance(message, Control) else _EMPTY[type(message)]


def decode(record: bytes | bytearray) -> list[Message]:
    """Every message of a record, as a receiver reads it."""
    return [decode_message(kind, body) for kind, body in split_record(memoryview(record))]


def body_of(kind: int, body: bytes) -> Message:
    return decode_message(kind, memoryview(body))


def refused(kind: int, body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        body_of(kind, body)


# --- Messages, both ways ----------------------------------------------------------------------------------------------


def test_headers_and_types_are_the_specifications() -> None:
    assert (MESSAGE_HEADER_SIZE, DATA_HEADER_SIZE) == (5, 21)
    assert [kind.value for kind in Kind] == [*range(1, 27)]


def test_table_has_every_type() -> None:
    assert {kind for _, kind, _ in TABLE} == set(Kind) - {Kind.DATA, Kind.BATCH}


@each_row(("message", "kind", "body"), TABLE)
def test_message_both_ways(message: Control | Ping | Bye, kind: int, body: bytes) -> None:
    whole = bytes([kind]) + len(body).to_bytes(4, "big") + body
    assert encode(message) == whole
    assert decode(whole) == [message]
    if isinstance(message, Control):
        assert message.body() == body
        assert kind == message.KIND


@each_row(("id", "offset", "content"), [(1, 0, b"x"), (MAX_ID, MAX_INTEGER - 3, b"abc"), (7, 2**40, bytes(DATA_SIZE))])
def test_data_both_ways(id: int, offset: int, content: bytes) -> None:
    whole = b"\2" + struct.pack(">IIQI", 16 + len(content), id, offset, len(content)) + content
    message = Data(id, offset, len(content), memoryview(content))
    assert encode(message) == whole
    assert decode(whole) == [message]


def test_data_is_a_view_and_no_copy() -> None:
    record = bytearray(encode(Data(1, 0, 6, memoryview(b"before"))))
    (message,) = decode(record)
    assert isinstance(message, Data)
    record[-6:] = b"behind"
    assert bytes(message.content) == b"behind"


@each_row(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(struct.pack(">IQI", 1, 0, 1)[:-1], id="header cut"),
        pytest.param(struct.pack(">IQI", 1, 0, 0), id="of nothing"),
        pytest.param(struct.pack(">IQI", 1, 0, DATA_SIZE + 1), id="more zeros than one may stand for"),
        pytest.param(struct.pack(">IQI", 1, 0, 2**32 - 1), id="far more zeros"),
        pytest.param(struct.pack(">IQI", 1, 0, 1) + b"xx", id="more content than it stands for"),
        pytest.param(struct.pack(">IQI", 1, 0, 0) + b"x", id="content, and a size of nothing"),
        pytest.param(struct.pack(">IQI", 1, 0, DATA_SIZE + 1) + bytes(DATA_SIZE + 1), id="a byte too much"),
        pytest.param(struct.pack(">IQI", 0, 0, 1) + b"x", id="id 0"),
        pytest.param(struct.pack(">IQI", 1, MAX_INTEGER, 1) + b"x", id="end over the range"),
        pytest.param(struct.pack(">IQI", 1, MAX_INTEGER - 1, 2), id="end of zeros over the range"),
        pytest.param(struct.pack(">IQI", 1, MAX_INTEGER + 1, 1) + b"x", id="offset over the range"),
        pytest.param(struct.pack(">IQI", 1, 2**64 - 1, 1) + b"x", id="offset of 2^64-1"),
        pytest.param(struct.pack(">IQI", 1, 0, 20) + b"this is no frame", id="content cut, which is no frame"),
    ],
)
def test_reject_data(body: bytes) -> None:
    refused(Kind.DATA, body)


@each_row(("message", "kind", "body"), TABLE)
def test_reject_record_cut_at_any_byte(message: Control | Ping | Bye, kind: int, body: bytes) -> None:
    whole = encode(message)
    for size in range(len(whole)):
        with pytest.raises(ProtocolViolation):
            decode(whole[:size])
        with pytest.raises(ProtocolViolation):
            decode(PING_MESSAGE + whole[:size] if size else b"")


@each_row(("message", "kind", "body"), TABLE)
def test_reject_record_with_a_tail(message: Control | Ping | Bye, kind: int, body: bytes) -> None:
    whole = encode(message)
    for tail in (b"\0", b"\0" * 4, b"\x0c\0\0\0\1", whole[:-1]):
        with pytest.raises(ProtocolViolation):
            decode(whole + tail)


@each_row(("message", "kind", "body"), TABLE)
def test_reject_body_cut_at_any_byte_or_with_a_tail(message: Control | Ping | Bye, kind: int, body: bytes) -> None:
    for size in range(len(body)):
        refused(kind, body[:size])
    for tail in (b"\0", b" ", b"\xc0", b"\xc1", b"\x90", b"\xff", body or b"\x90"):
        refused(kind, body + tail)


@each_row("kind", [Kind.PING, Kind.BYE])
@each_row("body", [b"\0", b"\x90", b"\xc0", b" "])
def test_reject_body_where_none_belongs(kind: Kind, body: bytes) -> None:
    refused(kind, body)


@each_row("body", [b"", b"\x90", b"\x91\1"])
def test_reject_unknown_type(body: bytes) -> None:
    for kind in set(range(256)) - set(Kind):
        refused(kind, body)


def test_record_of_every_message_is_read_in_order() -> None:
    data = Data(1, 5, 7, memoryview(b"content"))
    record = b"".join(encode(message) for message, _, _ in TABLE) + encode(data) + BYE_MESSAGE
    assert decode(record) == [*(message for message, _, _ in TABLE), data, Bye()]


def test_reject_empty_record() -> None:
    with pytest.raises(ProtocolViolation):
        decode(b"")


def test_messages_before_the_damage_are_still_read() -> None:
    pieces = split_record(memoryview(PING_MESSAGE + b"\x0c\0\0\0\1"))
    assert next(pieces)[0] == Kind.PING
    with pytest.raises(ProtocolViolation):
        next(pieces)


@each_row("announced", [1, CONTROL_LIMIT, 2**31, 2**32 - 1])
@each_row("kind", [1, 2, 12, 255])
def test_reject_message_longer_than_its_record(kind: int, announced: int) -> None:
    with pytest.raises(ProtocolViolation):
        decode(struct.pack(">BI", kind, announced))


WITH_CEILINGS = [kind for kind in Kind if kind not in (Kind.DATA, Kind.BATCH, Kind.BRANCH)]


@each_row("kind", [*WITH_CEILINGS, 0, 255])
def test_reject_control_over_its_ceiling(kind: int) -> None:
    with pytest.raises(ProtocolViolation):
        list(split_record(memoryview(struct.pack(">BI", kind, CONTROL_LIMIT + 1) + bytes(CONTROL_LIMIT + 1))))
    at_ceiling = struct.pack(">BI", kind, CONTROL_LIMIT) + bytes(CONTROL_LIMIT)
    assert [(number, len(body)) for number, body in split_record(memoryview(at_ceiling))] == [(kind, CONTROL_LIMIT)]


def test_writer_keeps_to_the_ceiling_of_control_messages() -> None:
    rest = len(Get(1, ("n" * 256,), False, True).body()) - 256  # of a name of 256 bytes or more
    longest = CONTROL_LIMIT - rest
    assert len(Get(1, ("n" * longest,), False, True).encode()) == MESSAGE_HEADER_SIZE + CONTROL_LIMIT
    with pytest.raises(ProtocolViolation):
        Get(1, ("n" * (longest + 1),), False, True).encode()
    with pytest.raises(ProtocolViolation):
        encode_message(Kind.ERROR, bytes(CONTROL_LIMIT + 1))


def test_name_without_utf8_is_not_written() -> None:
    for message in (replace(PUT, path=("a\ud800",)), Omitted(1, "\udcff", Code.NAME, 0)):
        with pytest.raises(ProtocolViolation):
            message.encode()


def test_mac_input_separates_its_parts() -> None:
    assert b"".join((*file_mac_begin(b"(put)"), *file_mac_rest(258, SHA256))) == (
        b"sft1 file" + b"\0\0\0\0\0\0\0\5(put)" + b"\0\0\0\0\0\0\1\2" + SHA256
    )


BAD_NAMES = ("", ".", "..", "/", "a/b", "a\0", "a\nb", "\x1b[2J", "\x85", "n" * 256, "\U0001f600" * 64)

# --- What no body may hold --------------------------------------------------------------------------------------------


def packed(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def longer(number: int) -> list[bytes]:
    """Every way to write an integer that is not the one to use."""
    right, found = packed(number), []
    for unsigned, signed, size in ((0xCC, 0xD0, 1), (0xCD, 0xD1, 2), (0xCE, 0xD2, 4), (0xCF, 0xD3, 8)):
        if 0 <= number < 1 << 8 * size:
            found.append(bytes([unsigned]) + number.to_bytes(size, "big"))
        if abs(2 * number + 1) < 1 << 8 * size:
            found.append(bytes([signed]) + number.to_bytes(size, "big", signed=True))
    return [each for each in found if each != right]


def longer_text(text: str) -> list[bytes]:
    """Of up to 31 bytes."""
    return [
        first + len(text.encode()).to_bytes(size, "big") + text.encode()
        for first, size in ((b"\xd9", 1), (b"\xda", 2), (b"\xdb", 4))
    ]


def longer_bin(data: bytes) -> list[bytes]:
    return [b"\xc5" + len(data).to_bytes(2, "big") + data, b"\xc6" + len(data).to_bytes(4, "big") + data]


EXTENSIONS = [b"\xd4\1x", b"\xd5\1xx", b"\xd6\xff\0\0\0\1", b"\xd7\xff" + bytes(8), b"\xd8\1" + bytes(16), b"\xc7\0\1"]
EXTENSIONS += [b"\xc7\x0c\xff" + bytes(12), b"\xc8\0\1\1x", b"\xc9\0\0\0\1\1x"]
FLOATS = [packed(number) for number in (0.0, -0.0, 1.0, 5.0, 1e300, float("nan"), float("inf"))] + [b"\xca\x3f\x80\0\0"]
HUGE = [first + b"\xff\xff\xff\xff" for first in (b"\xc6", b"\xc9", b"\xdb", b"\xdd", b"\xdf")]
HUGE += [first + b"\xff\xff" for first in (b"\xc5", b"\xc8", b"\xda", b"\xdc", b"\xde")]
NOTHING = [b"", b"\xc1", b"\1\1", b"\xcc", b"\xcf\0", b"\xa1", b"\x91", b"\xc4", b"\xd9", b"\x81\xa1a"]
NEVER = [*EXTENSIONS, *FLOATS, *HUGE, *NOTHING, b"\x80", packed({"a": 1}), packed([[[]]])]

BAD_TEXTS = [b"\xa1\xff", b"\xa1\xc3", b"\xa3\xed\xa0\x80", b"\xa2\xc0\x80", b"\xa4\xf4\x90\x80\x80", b"\xa1\x80"]
BAD_TEXTS += [b"\xa6\xed\xa0\xbd\xed\xb8\x80", *longer_text("a")]
NOT_A_TEXT = [*NEVER, *BAD_TEXTS, NO, YES, b"\1", b"\xff", b"\x90", packed(["a"]), packed(b"a")]
NOT_AN_INTEGER = [*NEVER, NO, YES, packed("1"), packed(b"1"), packed([1]), b"\x90", packed(2**64 - 1)]
NOT_A_FLAG = [*NEVER, NIL, b"\0", b"\1", b"\xff", packed("true"), b"\x90"]
NOT_A_PATH = [
    *NEVER,
    NIL,
    YES,
    b"\1",
    packed("a"),
    packed(b"a"),
    packed([1]),
    packed([None]),
    packed([[]]),
    packed([["a"]]),
]
NOT_A_PATH += [packed([b"a"]), packed(["a", 1]), b"\xdc\0\1\xa1a", b"\xdd\0\0\0\1\xa1a", b"\x92\xa1a"]
NOT_A_PATH += [b"\x91" + text for text in BAD_TEXTS]


def not_bytes(size: int) -> list[bytes]:
    data = bytes(range(size))
    others = [data[:-1], data + b"\0", b"", data * 2]
    return [
        *NEVER,
        *map(packed, others),
        *longer_bin(data),
        packed("a" * size),
        packed(data.hex()),
        packed(list(data)),
        YES,
    ]


def not_a_word(*words: str) -> list[bytes]:
    wrong = [wrong for word in words for wrong in (word.upper(), word.title(), f"{word} ", word[:-1], f"{word}\0")]
    bins, numbers = [packed(word.encode()) for word in words], [packed(at) for at in range(len(words))]
    return [*NOT_A_TEXT, *map(packed, [*wrong, "", "no such"]), *bins, *numbers, *map(packed, [[words[0]]])]


def outside(least: int, most: int) -> list[bytes]:
    """Integers beyond a range that stay in what MessagePack has."""
    return [packed(number) for number in (least - 1, most + 1, -(2**63)) if -(2**63) <= number < 2**64]


ID = [*NOT_AN_INTEGER, NIL, *outside(1, MAX_ID)]
SIZE = [*NOT_AN_INTEGER, *outside(0, MAX_INTEGER)]
TIME = [*NOT_AN_INTEGER, *outside(-MAX_INTEGER, MAX_INTEGER)]
HASH = not_bytes(32)
CODE = not_a_word(*Code)

NODE = [b"\x91\x98", b"\1", b"\xa1a", b"\xa4file", b"\1", b"\1", b"\0", NIL, NIL]  # the entries of a BRANCH: one file
NODE_KINDS = ("file", "folder", "link")

# What each field of a message does not take.
WRONG: dict[int, list[list[bytes]]] = {
    Kind.PUT: [
        *(ID, [*not_bytes(16), NIL], NOT_A_PATH, [*not_a_word("file", "folder", "link"), NIL], SIZE, TIME),
        *([*NOT_AN_INTEGER, *outside(0, MAX_MODE)], [*not_a_word(*POLICIES), NIL]),
        [*NOT_A_TEXT, packed(""), packed("a\0"), packed("é" * 2048)],  # of a link; in any other message none at all
    ],
    Kind.END: [ID, [*SIZE, NIL], [*HASH, NIL], [*HASH, NIL]],
    Kind.CANCEL: [ID, CODE],
    Kind.ACCEPT: [ID, [*SIZE, NIL]],
    Kind.REFUSE: [ID, [*CODE, NIL]],
    Kind.CHECK: [ID, [*SIZE, NIL], HASH],
    Kind.RECEIPT: [ID, NOT_A_PATH, [*SIZE, NIL], HASH, [*TIME, NIL], [*not_a_word(*OUTCOMES), NIL]],
    Kind.RECEIPTS: [
        ID,
        [*TIME, NIL],
        [*HASH, NIL],
        [
            *(*NEVER, NIL, YES, b"\1", b"\x90", packed("a"), packed([1]), packed([None]), packed([[]]), packed(["a"])),
            *(packed([["stored"]]), packed([["stored", None, None]]), packed([{"stored": None}])),
            *(b"\x91\x92" + word + NIL for word in [*not_a_word(*BATCH_WORDS, *Code), packed("folder"), NIL]),
            *(b"\x91\x92\xa6stored" + name for name in NOT_A_TEXT),
            *(b"\x91\x92" + packed(word) + packed("a") for word in ("skipped", "wanted", "name")),
            *(b"\x91\x92\xa6stored" + packed(name) for name in BAD_NAMES),
            *(form + b"\x92\xa6stored\xc0" for form in (b"\xdc\0\1", b"\xdd\0\0\0\1")),
            packed([["stored", None]] * 513),
        ],
    ],
    Kind.GET: [
        *(ID, NOT_A_PATH, NOT_A_FLAG, NOT_A_FLAG, NOT_A_FLAG),
        [*NOT_AN_INTEGER, NIL, *outside(0, 255)],
        NOT_A_FLAG,
    ],
    Kind.LIST: [ID, NOT_A_PATH, NOT_A_TEXT],
    Kind.ENTRY: [
        ID,
        [
            *(*NEVER, NIL, YES, b"\1", packed("a"), packed([1]), packed([None]), packed([[]]), packed(["a"])),
            *(packed([["a", "file", 1, 1, 1]]), packed([["a", "file", 1, 1]]), packed([{"a": 1}])),
            packed([["a", "file", 1, 1, None, 1]]),
            *(b"\x91\x95" + name + b"\xa4file\1\1\xc0" for name in [*NOT_A_TEXT, NIL]),
            *(b"\x91\x95\xa1a" + kind + b"\0\1\xc0" for kind in [*not_a_word(*NODE_KINDS), NIL]),
            *(b"\x91\x95\xa1a\xa4file" + size + b"\1\xc0" for size in [*SIZE, *longer(1), NIL]),
            *(b"\x91\x95\xa1a\xa4file\1" + mtime + NIL for mtime in [*TIME, *longer(1), NIL]),
            *(b"\x91" + form + b"\xa1a\xa4file\1\1\xc0" for form in (b"\xdc\0\5", b"\xdd\0\0\0\5")),
            *(form + b"\x95\xa1a\xa4file\1\1\xc0" for form in (b"\xdc\0\1", b"\xdd\0\0\0\1")),
        ],
        NOT_A_FLAG,
    ],
    Kind.TREE: [ID, NOT_A_PATH, [*(bad for bad in NOT_A_PATH if bad != NIL), packed([])], NOT_A_FLAG],
    Kind.BRANCH: [
        ID,
        [
            *(*NEVER, NIL, YES, b"\1", packed("a"), packed([1]), packed([None]), packed([[]]), packed(["a"])),
            *(
                packed([[1, "a", "file", 1, 1, 0, None, 1]]),
                packed([[1, "a", "file", 1, 1, 0, None]]),
                packed([[1, "a", "file", 1, 1, 0]]),
                packed([{"a": 1}]),
            ),
            *(NODE[0] + depth + b"".join(NODE[2:]) for depth in [*NOT_AN_INTEGER, NIL, *outside(1, 255), *longer(1)]),
            *(b"".join(NODE[:2]) + name + b"".join(NODE[3:]) for name in [*NOT_A_TEXT, NIL]),
            *(b"".join(NODE[:3]) + kind + b"".join(NODE[4:]) for kind in [*not_a_word(*NODE_KINDS), NIL]),
            *(b"".join(NODE[:4]) + size + b"".join(NODE[5:]) for size in [*SIZE, *longer(1), NIL]),
            *(b"".join(NODE[:5]) + mtime + b"".join(NODE[6:]) for mtime in [*TIME, *longer(1), NIL]),
            *(b"".join(NODE[:6]) + mode + NIL + NIL for mode in [*NOT_AN_INTEGER, NIL, *outside(0, MAX_MODE)]),
            *(b"".join(NODE[:7]) + target + NIL for target in [*NOT_A_TEXT, packed("a"), packed("")]),
            *(b"".join(NODE[:8]) + sha256 for sha256 in HASH),
            *(form + b"".join(NODE[1:]) for form in (b"\x91\xdc\0\x08", b"\x91\xdd\0\0\0\x08")),
            *(form + NODE[0][1:] + b"".join(NODE[1:]) for form in (b"\xdc\0\1", b"\xdd\0\0\0\1")),
        ],
        NOT_A_FLAG,
    ],
    Kind.REMOVE: [ID, NOT_A_PATH, NOT_A_FLAG],
    Kind.MOVE: [ID, NOT_A_PATH, NOT_A_PATH],
    Kind.USAGE: [ID],
    Kind.AMOUNTS: [ID, [*SIZE, NIL], [*SIZE, NIL], SIZE, SIZE, SIZE],
    Kind.SET: [ID, NOT_A_PATH, TIME, [*NOT_AN_INTEGER, *outside(0, MAX_MODE)]],
    Kind.DONE: [ID, [*SIZE, NIL]],
    Kind.ERROR: [[*CODE, NIL]],
    Kind.OMITTED: [
        ID,
        [*NOT_A_TEXT, NIL, packed(""), packed("a\n"), packed("a\x9f"), packed("a" * 4097)],
        [*CODE, NIL],
        [*SIZE, NIL],
    ],
    Kind.RATE: [[*NOT_AN_INTEGER, NIL, *outside(1, MAX_INTEGER)]],
}


@each_row(("message", "kind", "first", "fields"), ROWS)
def test_reject_every_wrong_value_in_every_field(
    message: Control, kind: int, first: bytes, fields: list[bytes]
) -> None:
    assert len(WRONG[kind]) == len(fields)
    for at, wrong in enumerate(WRONG[kind]):
        for bad in wrong:
            refused(kind, first + b"".join([*fields[:at], bad, *fields[at + 1 :]]))


@each_row(("message", "kind", "first", "fields"), ROWS)
def test_reject_every_longer_form_of_a_field(message: Control, kind: int, first: bytes, fields: list[bytes]) -> None:
    for at, right in enumerate(fields):
        value: Any = msgspec.msgpack.decode(right)
        forms: list[bytes] = []
        if isinstance(value, int) and not isinstance(value, bool):
            forms = longer(value)
        elif isinstance(value, str):
            forms = longer_text(value)
        elif isinstance(value, bytes):
            forms = longer_bin(value)
        elif isinstance(value, list):
            items = b"".join(map(packed, value))
            forms = [b"\xdd" + len(value).to_bytes(4, "big") + items]
            forms += [b"\xdc" + len(value).to_bytes(2, "big") + items] if len(value) < 16 else []
        for form in forms:
            assert msgspec.msgpack.decode(form) == value
            refused(kind, first + b"".join([*fields[:at], form, *fields[at + 1 :]]))


@each_row(("message", "kind", "first", "fields"), ROWS)
def test_reject_fields_left_out_added_or_exchanged(
    message: Control, kind: int, first: bytes, fields: list[bytes]
) -> None:
    count = len(fields)
    body = b"".join(fields)
    for at in range(count):
        less = b"".join([*fields[:at], *fields[at + 1 :]])
        refused(kind, bytes([0x90 + count - 1]) + less)
        refused(kind, first + less)
        more = b"".join([*fields[:at], NIL, *fields[at:]])
        refused(kind, bytes([0x90 + count + 1]) + more)
        refused(kind, first + more)
    for more in (NIL, b"\0", b"\x90", fields[-1]):
        refused(kind, bytes([0x90 + count + 1]) + body + more)
    for other in (b"\xdc\0" + bytes([count]), b"\xdd\0\0\0" + bytes([count]), b"\x91" + first, b"", b"\x90", *HUGE):
        refused(kind, other + body)
    refused(kind, bytes([0x80 + count]) + b"".join(packed(at) + field for at, field in enumerate(fields)))
    names: tuple[str, ...] = type(message).__struct_fields__
    refused(kind, packed(dict(zip(names, map(msgspec.msgpack.decode, fields), strict=True))))
    refused(kind, msgspec.json.encode(message))


@each_row(("message", "kind", "body"), CONTROLS)
def test_reject_body_that_is_no_array(message: Control, kind: int, body: bytes) -> None:
    for bad in (
        NIL,
        NO,
        YES,
        b"\0",
        b"\xff",
        b"\x90",
        b"\x80",
        packed("a"),
        packed(b"a"),
        packed(body),
        b"\x91" + body,
    ):
        refused(kind, bad)
    for bad in (*NEVER, body[1:], b"\0" + body, body + b"\0", body + body, bytes(len(body)), b"\xff" * len(body)):
        refused(kind, bad)


BORDERS: list[tuple[int, Callable[[int], Control], int, int]] = [
    (Kind.PUT, lambda n: replace(PUT, id=n), 1, MAX_ID),
    (Kind.PUT, lambda n: replace(PUT, size=n), 0, MAX_INTEGER),
    (Kind.PUT, lambda n: replace(PUT, mtime=n), -MAX_INTEGER, MAX_INTEGER),
    (Kind.PUT, lambda n: replace(PUT, mode=n), 0, MAX_MODE),
    (Kind.END, lambda n: End(1, n, SHA256, MAC), 0, MAX_INTEGER),
    (Kind.ACCEPT, lambda n: Accept(1, n), 0, MAX_INTEGER),
    (Kind.CHECK, lambda n: Check(1, n, None), 0, MAX_INTEGER),
    (Kind.RECEIPT, lambda n: replace(RECEIPT, size=n), 0, MAX_INTEGER),
    (Kind.RECEIPT, lambda n: replace(RECEIPT, time=n), -MAX_INTEGER, MAX_INTEGER),
    (Kind.ENTRY, lambda n: Entries(1, (Entry("a", "file", n, 0),), False), 0, MAX_INTEGER),
    (Kind.ENTRY, lambda n: Entries(1, (Entry("a", "file", 0, n),), False), -MAX_INTEGER, MAX_INTEGER),
    (Kind.BRANCH, lambda n: Branch(1, (Node(n, "a", "file", 0, 0, 0, None),), False), 1, 255),
    (Kind.BRANCH, lambda n: Branch(1, (Node(1, "a", "file", n, 0, 0, None),), False), 0, MAX_INTEGER),
    (Kind.BRANCH, lambda n: Branch(1, (Node(1, "a", "link", 0, n, 0, "b"),), False), -MAX_INTEGER, MAX_INTEGER),
    (Kind.BRANCH, lambda n: Branch(1, (Node(1, "a", "folder", 0, 0, n, None),), False), 0, MAX_MODE),
    (Kind.AMOUNTS, lambda n: Amounts(1, n, 0, n, n, n), 0, MAX_INTEGER),
    (Kind.AMOUNTS, lambda n: Amounts(1, 0, n, None, None, n), 0, MAX_INTEGER),
    (Kind.SET, lambda n: SetAttributes(1, ("a",), n, None), -MAX_INTEGER, MAX_INTEGER),
    (Kind.SET, lambda n: SetAttributes(1, ("a",), None, n), 0, MAX_MODE),
    (Kind.DONE, lambda n: Done(1, n), 0, MAX_INTEGER),
    (Kind.OMITTED, lambda n: Omitted(1, "a", Code.NAME, n), 0, MAX_INTEGER),
    (Kind.RATE, lambda n: Rate(n), 1, MAX_INTEGER),
]


@each_row(("kind", "made", "least", "most"), BORDERS)
def test_field_is_taken_up_to_its_borders_and_no_further(
    kind: int, made: Callable[[int], Control], least: int, most: int
) -> None:
    steps = [1 << bits for bits in range(64)] + [-(1 << bits) for bits in range(64)]
    for number in sorted({near for step in [0, least, most, *steps] for near in (step - 1, step, step + 1)}):
        if not -(2**63) <= number < 2**64:
            continue
        if least <= number <= most:
            assert body_of(kind, made(number).body()) == made(number)
        else:
            refused(kind, made(number).body())


def test_reject_folder_with_a_size() -> None:
    refused(1, replace(FOLDER, size=0).body())


def test_reject_put_whose_fields_do_not_fit_its_kind() -> None:
    for each in (PUT, PIPE, FOLDER):
        refused(1, replace(each, target="a").body())
        refused(1, replace(each, kind="link").body())
    for wrong in ({"target": None}, {"size": 0}, {"mode": 0o777}, {"kind": "file"}, {"kind": "folder"}):
        refused(1, replace(PUT_LINK, **wrong).body())


@each_row("target", ["/", "..", "../../etc/passwd", "a" * 4095, "é" * 2047, "\n\x1b[2J", "a//b/", " "])
def test_target_of_a_link_is_taken_as_it_is(target: str) -> None:
    link = replace(PUT_LINK, target=target)
    assert body_of(Kind.PUT, link.body()) == link


@each_row(
    "node",
    [
        *(
            Node(1, "a", "file", 0, 0, 0, "b"),
            Node(1, "a", "folder", 0, 0, 0, "b"),
            Node(1, "a", "link", 0, 0, 0, None),
            Node(1, "a", "link", 0, 0, 0, "b", SHA256),
            Node(1, "a", "folder", 0, 0, 0, None, SHA256),
        ),
        *(Node(1, "a", "folder", 1, 0, 0, None), Node(1, "a", "link", 1, 0, 0, "b")),
        *(Node(1, "a", "link", 0, 0, 0, target) for target in ("", "a\x1b[2J", "\x85", "a" * 4097)),
    ],
)
def test_reject_branch_whose_fields_do_not_fit_each_other(node: Node) -> None:
    refused(Kind.BRANCH, Branch(1, (node,), False).body())


@each_row(
    "entry",
    [
        *(Entry("a", "file", 0, 0, "b"), Entry("a", "folder", 0, 0, "b"), Entry("a", "link", 0, 0)),
        *(Entry("a", "folder", 1, 0), Entry("a", "link", 1, 0, "b")),
        *(Entry("a", "link", 0, 0, target) for target in ("", "a\x1b[2J", "\x85", "a" * 4097)),
    ],
)
def test_reject_entry_whose_fields_do_not_fit_each_other(entry: Entry) -> None:
    refused(Kind.ENTRY, Entries(1, (entry,), False).body())


def test_branch_has_its_own_ceilings() -> None:
    nodes = tuple(Node(1, f"{number:04}", "file", 0, 0, 0, None) for number in range(8193))
    refused(Kind.BRANCH, Branch(1, nodes, False).body())
    assert isinstance(body_of(Kind.BRANCH, Branch(1, nodes[:-1], False).body()), Branch)
    long = tuple(Node(1, f"{number:0200}", "file", 0, 0, 0, None) for number in range(1240))
    while len(Branch(1, long, False).body()) > BRANCH_LIMIT:
        with pytest.raises(ProtocolViolation):
            Branch(1, long, False).encode()
        long = long[:-1]
    assert BRANCH_LIMIT - 300 < len(Branch(1, long, False).encode()) - MESSAGE_HEADER_SIZE <= BRANCH_LIMIT
    assert decode(Branch(1, long, False).encode()) == [Branch(1, long, False)]
    at_ceiling, over = (
        struct.pack(">BI", Kind.BRANCH, BRANCH_LIMIT + more) + bytes(BRANCH_LIMIT + 1) for more in (0, 1)
    )
    assert next(split_record(memoryview(at_ceiling)))[0] == Kind.BRANCH
    with pytest.raises(ProtocolViolation):
        list(split_record(memoryview(over)))


@each_row("opening", [b"\x91", b"\x81\xa1a", b"\x93\1\x91", b"\xdd\0\0\0\1", b"\xdc\xff\xff", b"\xdf\0\0\0\1\xa1a"])
def test_reject_deep_nesting(opening: bytes) -> None:
    for _, kind, _ in CONTROLS:
        refused(kind, (opening * CONTROL_LIMIT)[:CONTROL_LIMIT])
        refused(kind, b"\x93\1" + (opening * CONTROL_LIMIT)[: CONTROL_LIMIT - 2])


@pytest.mark.parametrize("header", HUGE, ids=bytes.hex)
def test_announced_length_takes_no_memory(header: bytes) -> None:
    """Of what a header of 5 bytes announces, nothing is made before it is there."""
    tracemalloc.start()
    try:
        for _, kind, first, fields in ROWS:
            for at in range(len(fields)):
                refused(kind, first + b"".join([*fields[:at], header, *fields[at + 1 :]]))
            refused(kind, header + b"".join(fields))
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@each_row(("path", "depth"), [((), 1), (("a",), 0), (("a",), 2), (("a", "b"), 3), ((".",), 0), (("..", "a"), 3)])
def test_reject_get_that_is_deeper_than_its_path(path: tuple[str, ...], depth: int) -> None:
    refused(Kind.GET, packed([1, path, False, False, False, depth]))


def test_largest_bodies_cost_little_memory_while_they_are_read() -> None:
    """64 KiB of names of one letter each, and of entries: one message is read at a time."""
    names = b"\xdc\x55\x00" + b"\xa2\xc4\x80" * 0x5500
    entries = b"\xdc\x17\x00" + b"\x95\xa1a\xa4file\0\0\xc0" * 0x1700
    tracemalloc.start()
    try:
        assert isinstance(body_of(Kind.GET, b"\x97\1" + names + NO * 3 + b"\1" + NO), Misnamed)
        refused(Kind.RECEIPT, b"\x96\1" + names + b"\0\xc0\0\xa6folder")
        refused(Kind.ENTRY, b"\x93\1" + entries + NO)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


# --- Names ------------------------------------------------------------------------------------------------------------

BAD_PATHS = [
    *[path for bad in BAD_NAMES for path in ((bad,), ("a", bad), (bad, "a"))],
    ("a",) * 256,
    ("n" * 255,) * 17,
    ("\u0434",) * 13_080,
]


@each_row("path", BAD_PATHS, ids=range(len(BAD_PATHS)))
@each_row(
    ("message", "answer"),
    [
        (PUT, (Kind.PUT, 1, True, False)),
        (FOLDER, (Kind.PUT, 2, False, False)),
        (Get(3, (), True, True, False, 1), (Kind.GET, 3, False, True)),
        (Get(4, (), False, True, False, 1), (Kind.GET, 4, False, False)),
        (ListFolder(5, (), None), (Kind.LIST, 5, False, False)),
        (Tree(6, (), None), (Kind.TREE, 6, False, False)),
        (Remove(7, ("a",), True), (Kind.REMOVE, 7, False, False)),
        (Move(8, ("a",), ("b",)), (Kind.MOVE, 8, False, False)),
        (SetAttributes(9, ("a",), 1, 1), (Kind.SET, 9, False, False)),
    ],
    ids=["file", "folder", "get", "last get", "list", "tree", "remove", "move", "set"],
)
def test_of_a_path_that_is_not_allowed_only_its_id_is_kept(
    message: Put | Get | ListFolder | Tree | Remove | Move | SetAttributes,
    answer: tuple[Kind, int, bool, bool],
    path: tuple[str, ...],
) -> None:
    found = body_of(message.KIND, replace(message, path=path).body())
    assert isinstance(found, Misnamed)
    assert (found.kind, found.id, found.is_open, found.more) == answer
    assert found.why
    assert "/".join(path).startswith(found.shown.removesuffix("..."))
    assert len(found.shown) <= 203


@each_row("path", [(), *BAD_PATHS], ids=range(len(BAD_PATHS) + 1))
def test_reject_receipt_with_a_path_that_is_not_allowed(path: tuple[str, ...]) -> None:
    for receipt in (RECEIPT, EMPTY_RECEIPT):
        refused(Kind.RECEIPT, replace(receipt, path=path).body())


def test_path_that_is_missing_is_not_allowed_for_a_put_and_means_everything_elsewhere() -> None:
    for changing in (PUT, Remove(1, ("a",), True), Move(1, ("a",), ("b",)), SetAttributes(1, ("a",), 1, None)):
        assert isinstance(body_of(changing.KIND, replace(changing, path=()).body()), Misnamed)
    assert body_of(Kind.GET, Get(1, (), False, True, False, 0).body()) == Get(1, (), False, True, False, 0)


@each_row("name", BAD_NAMES)
def test_reject_listing_with_a_name_that_is_not_allowed(name: str) -> None:
    refused(Kind.ENTRY, Entries(1, (Entry("a", "file", 1, 1), Entry(name, "file", 1, 1)), False).body())


@each_row("name", BAD_NAMES)
def test_reject_branch_with_a_name_that_is_not_allowed(name: str) -> None:
    first = Node(1, "a", "file", 1, 1, 0, None)
    refused(Kind.BRANCH, Branch(1, (first, first._replace(name=name)), False).body())


@each_row("name", BAD_NAMES)
def test_tree_behind_a_path_that_is_not_allowed_is_not_given(name: str) -> None:
    assert isinstance(body_of(Kind.TREE, Tree(1, (), ("a", name)).body()), Misnamed)


@each_row("path", [(), *BAD_PATHS], ids=range(len(BAD_PATHS) + 1))
def test_move_to_a_path_that_is_not_allowed_is_not_made(path: tuple[str, ...]) -> None:
    found = body_of(Kind.MOVE, Move(1, ("a",), path).body())
    assert isinstance(found, Misnamed) and found.shown == "a"


def test_reject_set_of_nothing() -> None:
    refused(Kind.SET, SetAttributes(1, ("a",), None, None).body())


@each_row("name", BAD_NAMES)
def test_listing_behind_a_name_that_is_not_allowed_is_not_given(name: str) -> None:
    assert isinstance(body_of(Kind.LIST, ListFolder(1, (), name).body()), Misnamed)


def test_reject_more_entries_than_a_page_has() -> None:
    page = Entries(1, tuple(Entry(f"{number:03}", "file", 1, 1) for number in range(501)), False)
    refused(Kind.ENTRY, page.body())
    assert isinstance(body_of(Kind.ENTRY, replace(page, entries=page.entries[1:]).body()), Entries)


def test_reject_a_wrong_field_beside_a_path_that_is_not_allowed() -> None:
    refused(Kind.PUT, replace(PUT, path=("..",), policy="burn").body())
    refused(Kind.PUT, replace(FOLDER, path=("..",), size=1).body())


# --- Whatever arrives -------------------------------------------------------------------------------------------------

ids = st.integers(1, MAX_ID)
sizes = st.integers(0, MAX_INTEGER)
times = st.integers(-MAX_INTEGER, MAX_INTEGER)
hashes = st.binary(min_size=32, max_size=32)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=20)
names = names.filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=5).map(tuple)
kinds = st.sampled_from(["file", "folder"])
codes = st.sampled_from(Code)
modes = st.integers(0, MAX_MODE)
nodes = st.one_of(
    st.builds(Node, st.integers(1, 255), names, st.just("file"), sizes, times, modes, st.none(), st.none()),
    st.builds(Node, st.integers(1, 255), names, st.just("folder"), st.just(0), times, modes, st.none(), st.none()),
    st.builds(Node, st.integers(1, 255), names, st.just("link"), st.just(0), times, modes, names, st.none()),
)

entries = st.one_of(
    st.builds(Entry, names, st.just("file"), sizes, times, st.none()),
    st.builds(Entry, names, st.just("folder"), st.just(0), times, st.none()),
    st.builds(Entry, names, st.just("link"), st.just(0), times, names),
)


def data_of(id: int, offset: int, content: bytes) -> Data:
    return Data(id, offset, len(content), memoryview(content))


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Put,
        ids,
        st.binary(min_size=16, max_size=16),
        paths,
        kinds,
        st.none() | sizes,
        st.none() | times,
        st.none() | st.integers(0, MAX_MODE),
        st.sampled_from(POLICIES),
    ).filter(lambda put: put.kind == "file" or put.size is None),
    st.builds(data_of, ids, st.integers(0, MAX_INTEGER - DATA_SIZE), st.binary(min_size=1, max_size=64)),
    st.builds(Data, ids, st.integers(0, MAX_INTEGER - DATA_SIZE), st.integers(1, DATA_SIZE), st.just(memoryview(b""))),
    st.builds(End, ids, sizes, hashes, hashes),
    st.builds(Cancel, ids, st.none() | codes),
    st.builds(Accept, ids, sizes),
    st.builds(Refuse, ids, codes),
    st.builds(Check, ids, sizes, st.none() | hashes),
    st.builds(Receipt, ids, paths, sizes, st.none() | hashes, times, st.sampled_from(OUTCOMES)),
    st.builds(Get, ids, paths, st.booleans(), st.booleans(), st.booleans(), st.just(1)),
    st.builds(Get, ids, st.just(()), st.booleans(), st.booleans(), st.booleans(), st.just(0)),
    st.builds(ListFolder, ids, paths | st.just(()), st.none() | names),
    st.builds(Entries, ids, st.lists(entries, max_size=4).map(tuple), st.booleans()),
    st.builds(Tree, ids, paths | st.just(()), st.none() | paths),
    st.builds(Branch, ids, st.lists(nodes, max_size=4).map(tuple), st.booleans()),
    st.builds(Omitted, ids, names, codes, sizes),
    st.builds(Rate, st.integers(1, MAX_INTEGER)),
    st.builds(Error, codes),
    st.just(Ping()),
    st.just(Bye()),
)


@settings(max_examples=100)
@given(st.lists(messages, min_size=1, max_size=8))
def test_every_record_survives_the_wire(record: list[Message]) -> None:
    assert decode(b"".join(map(encode, record))) == record


def only_refused(reader: Callable[[], object]) -> None:
    """Anything but ProtocolViolation that leaves a reader is a bug of ours, and fails the test by itself."""
    with suppress(ProtocolViolation):
        reader()


@settings(max_examples=300)
@given(st.lists(messages, min_size=1, max_size=3), st.data())
def test_damaged_record_is_read_or_refused(record: list[Message], data: st.DataObject) -> None:
    whole = bytearray(b"".join(map(encode, record)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    only_refused(lambda: decode(bytes(whole)))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
bodies = st.binary(max_size=100) | values.map(packed)


def only_as_written(kind: int, body: bytes) -> None:
    """A body is refused, or what was read from it is written as exactly those bytes."""
    with suppress(ProtocolViolation):
        message = body_of(kind, body)
        if isinstance(message, Misnamed):
            assert packed(msgspec.msgpack.decode(body)) == body
        else:
            assert encode(message) == bytes([kind]) + len(body).to_bytes(4, "big") + body


@settings(max_examples=60)
@given(bodies)
def test_arbitrary_body_of_every_type_is_read_or_refused(body: bytes) -> None:
    for kind in range(17):
        only_as_written(kind, body)


@settings(max_examples=200)
@given(st.sampled_from(ROWS), st.data())
def test_any_value_in_any_field_has_one_encoding_or_is_refused(
    row: tuple[Control, int, bytes, list[bytes]], data: st.DataObject
) -> None:
    _, kind, first, fields = row
    at = data.draw(st.integers(0, len(fields) - 1))
    only_as_written(kind, first + b"".join([*fields[:at], data.draw(bodies), *fields[at + 1 :]]))


@settings(max_examples=300)
@given(st.sampled_from(CONTROLS), st.data())
def test_body_with_some_bytes_changed_has_one_encoding_or_is_refused(
    row: tuple[Control, int, bytes], data: st.DataObject
) -> None:
    """Bytes changed, doubled or cut, and headers of MessagePack put in between."""
    _, kind, body = row
    changed = bytearray(body)
    pieces = [
        b"\xc0",
        b"\xc4",
        b"\xcc",
        b"\xcd\0",
        b"\xce\0\0\0",
        b"\xd0",
        b"\xd9",
        b"\xda\0",
        b"\xdc\0",
        b"\xdd\0\0\0",
        b"\x91",
        b"\xa1",
    ]
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(changed)))
        end = data.draw(st.integers(start, min(len(changed), start + 3)))
        changed[start:end] = data.draw(st.sampled_from(pieces) | st.binary(max_size=2))
    only_as_written(kind, bytes(changed))


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_arbitrary_record_is_read_or_refused(record: bytes) -> None:
    only_refused(lambda: decode(record))
