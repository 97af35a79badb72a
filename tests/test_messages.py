"""One table of messages and bytes drives writers and readers; each reader is fed whole, cut short, and with a tail."""

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.common.errors import Code, ProtocolViolation
from sft.wire.canonical import Reader, read_end, read_put, read_receipt
from sft.wire.messages import (
    BYE_MESSAGE,
    DATA_HEADER_SIZE,
    MESSAGE_HEADER_SIZE,
    OUTCOMES,
    PING_MESSAGE,
    POLICIES,
    Accept,
    Bye,
    Cancel,
    Check,
    Control,
    Data,
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
    _fields_of,
    decode_message,
    encode_message,
    file_mac_begin,
    file_mac_rest,
    split_record,
    write_data_header,
)
from sft.wire.protocol import CONTROL_LIMIT, DATA_SIZE, MAX_ID, MAX_INTEGER, MAX_MODE
from sft.wire.strict_json import read_json

TRANSFER = bytes(range(16))
SHA256 = bytes(range(32))
MAC = bytes(range(0xE0, 0x100))
TRANSFER_HEX = b"000102030405060708090a0b0c0d0e0f"
SHA256_HEX = b"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
MAC_HEX = b"e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"

PUT = Put(1, TRANSFER, ("a", "b.txt"), "file", 5, 1700000000000000000, 0o640, "fail")
PIPE = Put(MAX_ID, TRANSFER, ("é\\☃\U0001f600",), "file", None, None, None, "rename")
FOLDER = Put(2, TRANSFER, ("d",), "folder", None, -1, 0, "skip")
RECEIPT = Receipt(7, ("db.1.dump",), MAX_INTEGER, SHA256, 12, "stored")
EMPTY_RECEIPT = Receipt(7, ("x",), 0, None, -MAX_INTEGER, "folder")
TWO_ENTRIES = Entries(6, (Entry("a", "file", 3, 4), Entry('"', "folder", 0, -5)), True)

# (message, type byte, body), both ways.
TABLE: list[tuple[Control | Ping | Bye, int, bytes]] = [
    (
        PUT,
        1,
        b'{"id":1,"transfer":"' + TRANSFER_HEX + b'","path":["a","b.txt"],"kind":"file","size":5,'
        b'"mtime":1700000000000000000,"mode":416,"policy":"fail"}',
    ),
    (
        PIPE,
        1,
        b'{"id":4294967295,"transfer":"' + TRANSFER_HEX + b'","path":["\xc3\xa9\\\\\xe2\x98\x83\xf0\x9f\x98\x80"],'
        b'"kind":"file","size":null,"mtime":null,"mode":null,"policy":"rename"}',
    ),
    (
        FOLDER,
        1,
        b'{"id":2,"transfer":"' + TRANSFER_HEX + b'","path":["d"],"kind":"folder","size":null,"mtime":-1,"mode":0,'
        b'"policy":"skip"}',
    ),
    (End(3, 5, SHA256, MAC), 3, b'{"id":3,"size":5,"sha256":"' + SHA256_HEX + b'","mac":"' + MAC_HEX + b'"}'),
    (Cancel(9), 4, b'{"id":9,"code":null}'),
    (Cancel(9, Code.CHANGED), 4, b'{"id":9,"code":"changed"}'),
    (Rate(1), 16, b'{"rate":1}'),
    (Rate(MAX_INTEGER), 16, b'{"rate":9223372036854775807}'),
    (Accept(1, 0), 5, b'{"id":1,"offset":0}'),
    (Accept(1, MAX_INTEGER), 5, b'{"id":1,"offset":9223372036854775807}'),
    (Refuse(4, Code.IS_FOLDER), 6, b'{"id":4,"code":"is-folder"}'),
    (Refuse(4, Code.NO_SPACE), 6, b'{"id":4,"code":"no-space"}'),
    (Check(5, 100, None), 7, b'{"id":5,"size":100,"sha256":null}'),
    (Check(5, 100, SHA256), 7, b'{"id":5,"size":100,"sha256":"' + SHA256_HEX + b'"}'),
    (
        RECEIPT,
        8,
        b'{"id":7,"path":["db.1.dump"],"size":9223372036854775807,"sha256":"' + SHA256_HEX + b'","time":12,'
        b'"outcome":"stored"}',
    ),
    (
        EMPTY_RECEIPT,
        8,
        b'{"id":7,"path":["x"],"size":0,"sha256":null,"time":-9223372036854775807,"outcome":"folder"}',
    ),
    (Get(1, ("a", "b"), True), 9, b'{"id":1,"path":["a","b"],"more":true}'),
    (Get(MAX_ID, (), False), 9, b'{"id":4294967295,"path":[],"more":false}'),
    (ListFolder(1, (), None), 10, b'{"id":1,"path":[],"after":null}'),
    (ListFolder(2, ("a",), "b"), 10, b'{"id":2,"path":["a"],"after":"b"}'),
    (
        TWO_ENTRIES,
        11,
        b'{"id":6,"entries":[{"name":"a","kind":"file","size":3,"mtime":4},'
        b'{"name":"\\"","kind":"folder","size":0,"mtime":-5}],"more":true}',
    ),
    (Entries(1, (), False), 11, b'{"id":1,"entries":[],"more":false}'),
    (Omitted(6, "a/\\xff", Code.NAME, 3), 15, b'{"id":6,"name":"a/\\\\xff","code":"name","more":3}'),
    (Ping(), 12, b""),
    (Error(Code.STOPPING), 13, b'{"code":"stopping"}'),
    (Bye(), 14, b""),
]
CONTROLS = [(message, kind, body) for message, kind, body in TABLE if isinstance(message, Control)]
_EMPTY = {Ping: PING_MESSAGE, Bye: BYE_MESSAGE}


def encode(message: Message | Control) -> bytes:
    """The whole message, as a sender writes it."""
    if isinstance(message, Data):
        whole = bytearray(DATA_HEADER_SIZE) + message.content
        write_data_header(memoryview(whole), message.id, message.offset, len(message.content))
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
    assert (MESSAGE_HEADER_SIZE, DATA_HEADER_SIZE) == (5, 17)
    assert [kind.value for kind in Kind] == list(range(1, 17))


def test_table_has_every_type() -> None:
    assert {kind for _, kind, _ in TABLE} == set(Kind) - {Kind.DATA}


@pytest.mark.parametrize(("message", "kind", "body"), TABLE)
def test_message_both_ways(message: Control | Ping | Bye, kind: int, body: bytes) -> None:
    whole = bytes([kind]) + len(body).to_bytes(4, "big") + body
    assert encode(message) == whole
    assert decode(whole) == [message]
    if isinstance(message, Control):
        assert message.body() == body
        assert kind == message.KIND


@pytest.mark.parametrize(
    ("id", "offset", "content"), [(1, 0, b"x"), (MAX_ID, MAX_INTEGER - 3, b"abc"), (7, 2**40, bytes(DATA_SIZE))]
)
def test_data_both_ways(id: int, offset: int, content: bytes) -> None:
    whole = b"\2" + struct.pack(">IIQ", 12 + len(content), id, offset) + content
    message = Data(id, offset, memoryview(content))
    assert encode(message) == whole
    assert decode(whole) == [message]


def test_data_is_a_view_and_no_copy() -> None:
    record = bytearray(encode(Data(1, 0, memoryview(b"before"))))
    (message,) = decode(record)
    assert isinstance(message, Data)
    record[-6:] = b"behind"
    assert bytes(message.content) == b"behind"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(struct.pack(">IQ", 1, 0)[:-1], id="header cut"),
        pytest.param(struct.pack(">IQ", 1, 0), id="no content"),
        pytest.param(struct.pack(">IQ", 1, 0) + bytes(DATA_SIZE + 1), id="a byte too much"),
        pytest.param(struct.pack(">IQ", 0, 0) + b"x", id="id 0"),
        pytest.param(struct.pack(">IQ", 1, MAX_INTEGER) + b"x", id="end over the range"),
        pytest.param(struct.pack(">IQ", 1, MAX_INTEGER + 1) + b"x", id="offset over the range"),
        pytest.param(struct.pack(">IQ", 1, 2**64 - 1) + b"x", id="offset of 2^64-1"),
    ],
)
def test_reject_data(body: bytes) -> None:
    refused(Kind.DATA, body)


@pytest.mark.parametrize(("message", "kind", "body"), TABLE)
def test_reject_record_cut_at_any_byte(message: Control | Ping | Bye, kind: int, body: bytes) -> None:
    whole = encode(message)
    for size in range(len(whole)):
        with pytest.raises(ProtocolViolation):
            decode(whole[:size])
        with pytest.raises(ProtocolViolation):
            decode(PING_MESSAGE + whole[:size] if size else b"")


@pytest.mark.parametrize(("message", "kind", "body"), TABLE)
def test_reject_record_with_a_tail(message: Control | Ping | Bye, kind: int, body: bytes) -> None:
    whole = encode(message)
    for tail in (b"\0", b"\0" * 4, b"\x0c\0\0\0\1", whole[:-1]):
        with pytest.raises(ProtocolViolation):
            decode(whole + tail)


@pytest.mark.parametrize(("message", "kind", "body"), TABLE)
def test_reject_body_cut_at_any_byte_or_with_a_tail(message: Control | Ping | Bye, kind: int, body: bytes) -> None:
    for size in range(len(body)):
        refused(kind, body[:size])
    for tail in (b"\0", b" ", b"\n", b",", b"}", b"{}", b"null", body or b"{}"):
        refused(kind, body + tail)


@pytest.mark.parametrize("kind", [Kind.PING, Kind.BYE])
@pytest.mark.parametrize("body", [b"\0", b"{}", b"null", b" "])
def test_reject_body_where_none_belongs(kind: Kind, body: bytes) -> None:
    refused(kind, body)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"id":1}'])
def test_reject_unknown_type(body: bytes) -> None:
    for kind in (0, *range(16, 256)):
        refused(kind, body)


def test_record_of_every_message_is_read_in_order() -> None:
    data = Data(1, 5, memoryview(b"content"))
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


@pytest.mark.parametrize("announced", [1, CONTROL_LIMIT, 2**31, 2**32 - 1])
@pytest.mark.parametrize("kind", [1, 2, 12, 255])
def test_reject_message_longer_than_its_record(kind: int, announced: int) -> None:
    with pytest.raises(ProtocolViolation):
        decode(struct.pack(">BI", kind, announced))


@pytest.mark.parametrize("kind", [*(kind for kind in range(1, 16) if kind != Kind.DATA), 0, 255])
def test_reject_control_over_its_ceiling(kind: int) -> None:
    with pytest.raises(ProtocolViolation):
        list(split_record(memoryview(struct.pack(">BI", kind, CONTROL_LIMIT + 1) + bytes(CONTROL_LIMIT + 1))))
    at_ceiling = struct.pack(">BI", kind, CONTROL_LIMIT) + bytes(CONTROL_LIMIT)
    assert [(number, len(body)) for number, body in split_record(memoryview(at_ceiling))] == [(kind, CONTROL_LIMIT)]


def test_writer_keeps_to_the_ceiling_of_control_messages() -> None:
    room = CONTROL_LIMIT - len(Get(1, ("",), False).body())
    assert len(Get(1, ("n" * room,), False).encode()) == MESSAGE_HEADER_SIZE + CONTROL_LIMIT
    with pytest.raises(ProtocolViolation):
        Get(1, ("n" * (room + 1),), False).encode()
    with pytest.raises(ProtocolViolation):
        encode_message(Kind.ERROR, bytes(CONTROL_LIMIT + 1))


def test_mac_input_separates_its_parts() -> None:
    assert b"".join((*file_mac_begin(b"{put}"), *file_mac_rest(258, SHA256))) == (
        b"sft1 file" + b"\0\0\0\0\0\0\0\5{put}" + b"\0\0\0\0\0\0\1\2" + SHA256
    )


# --- The strict reader ------------------------------------------------------------------------------------------------

_SURROGATES = [rb"\ud800", rb"\udfff", rb"a\udc80", rb"\udc00\ud800"]
_PUT_BODY, _END_BODY, _RECEIPT_BODY = (
    next(body for message, _, body in TABLE if message == wanted) for wanted in (PUT, End(3, 5, SHA256, MAC), RECEIPT)
)
_ENTRY_BODY = b'{"id":1,"entries":[{"name":"a","kind":"file","size":3,"mtime":4}],"more":true}'

_GET_BODY = b'{"id":1,"path":["a"],"more":true}'
_LIST_BODY = b'{"id":1,"path":["a"],"after":"b"}'

# (type, a body that is right, what to replace in it, by what), each replacement a reason to refuse it.
NOT_AN_INTEGER = [
    b"true", b"false", b"null", b"1.0", b"1.5", b"1e3", b"1E3", b"1e999", b"0e0", b"-0.0", b"NaN", b"Infinity",
    b"-Infinity", b"nan", b'"1"', b"[1]", b"{}", b"01", b"+1", b"0x1", b"1_000", b"", b"-", b"1 1", b"\xd9\xa1",
    b"9" * 19 + b"9", b"9" * 21, b"9" * 5000, b"-" + b"9" * 5000, b"1" + b"0" * 60000,
]  # fmt: skip
NOT_A_FLAG = [b"1", b"0", b"null", b'"true"', b"True", b"[]"]
NOT_A_TEXT = [b"true", b"null", b"1", b"[]", b"{}", b'["a"]', b'"a', b"'a'", b'"\n"', b'"\0"', b'"\xff"', b'"\xc0\xae"']
NOT_A_TEXT += [b'"\xed\xa0\x80"', rb'"\x41"', rb'"\u00g0"', rb'"\u00"', *(b'"' + text + b'"' for text in _SURROGATES)]
NOT_A_PATH = [b"null", b'"a"', b"{}", b"1", b"[1]", b"[null]", b"[[]]", b'[["a"]]', b'["a",]', b'["a" "b"]', b"[true]"]
NOT_A_PATH += [b'["' + text + b'"]' for text in _SURROGATES]
NOT_A_HASH = [
    b"true", b"1", b"[]", b'""', b'"' + SHA256_HEX.upper() + b'"', b'"' + SHA256_HEX[:-1] + b'"',
    b'"' + SHA256_HEX[:-2] + b'"', b'"' + SHA256_HEX + b'0"', b'"' + SHA256_HEX + b'00"',
    b'"' + SHA256_HEX[:-1] + b'g"',
    b'"0x' + SHA256_HEX[2:] + b'"', b'" ' + SHA256_HEX[1:] + b'"', b'"' + SHA256_HEX[:-1] + b'F"',
    b'"' + "٣".encode() * 64 + b'"', b'"' + SHA256_HEX[:-1] + b'\\n"', b'"' + SHA256_HEX[:-6] + b'\\ud800"',
]  # fmt: skip

REPLACEMENTS: list[tuple[int, bytes, bytes, list[bytes]]] = [
    (1, _PUT_BODY, b'"id":1', [b'"id":' + bad for bad in (*NOT_AN_INTEGER, b"0", b"-1", b"4294967296")]),
    (1, _PUT_BODY, b'"size":5', [b'"size":' + bad for bad in NOT_AN_INTEGER if bad != b"null"]),
    (1, _PUT_BODY, b'"size":5', [b'"size":-1', b'"size":9223372036854775808']),
    (1, _PUT_BODY, b"1700000000000000000", [bad for bad in NOT_AN_INTEGER if bad != b"null"]),
    (1, _PUT_BODY, b"1700000000000000000", [b"9223372036854775808", b"-9223372036854775808"]),
    (1, _PUT_BODY, b'"mode":416', [b'"mode":' + bad for bad in (b"-1", b"4096", b"true", b"416.0", b'"0640"')]),
    (1, _PUT_BODY, b'["a","b.txt"]', NOT_A_PATH),
    (1, _PUT_BODY, b'"file"', [b'"File"', b'"link"', b'""', b"null", b"1", b'["file"]', b'"file "', b'"fi\\u0000le"']),
    (1, _PUT_BODY, b'"fail"', [b'"FAIL"', b'"overwrite"', b'""', b"null", b"0", b'{"fail":1}', b'"fail","x":1']),
    (1, _PUT_BODY, b'"' + TRANSFER_HEX + b'"', [*NOT_A_HASH, b"null", b'"' + SHA256_HEX + b'"']),
    (3, _END_BODY, b'"' + SHA256_HEX + b'"', [*NOT_A_HASH, b"null"]),
    (3, _END_BODY, b'"' + MAC_HEX + b'"', [*NOT_A_HASH, b"null"]),
    (3, _END_BODY, b'"size":5', [b'"size":' + bad for bad in (*NOT_AN_INTEGER, b"-1", b"9223372036854775808")]),
    (5, b'{"id":1,"offset":0}', b":0", [b":" + bad for bad in (*NOT_AN_INTEGER, b"-1", b"9223372036854775808")]),
    (6, b'{"id":4,"code":"link"}', b'"link"', [*NOT_A_TEXT, b'"Link"', b'"LINK"', b'"no such"', b'""', b'"link "']),
    (7, b'{"id":5,"size":1,"sha256":null}', b"null", NOT_A_HASH),
    (8, _RECEIPT_BODY, b'"stored"', [b'"STORED"', b'"done"', b"null", b"true", b'""', b'["stored"]']),
    (8, _RECEIPT_BODY, b'["db.1.dump"]', NOT_A_PATH),
    (8, _RECEIPT_BODY, b'"time":12', [b'"time":' + bad for bad in NOT_AN_INTEGER]),
    (9, _GET_BODY, b'["a"]', NOT_A_PATH),
    (9, _GET_BODY, b'"more":true', [b'"more":' + bad for bad in NOT_A_FLAG]),
    (9, _GET_BODY, b'"id":1', [b'"id":' + bad for bad in (*NOT_AN_INTEGER, b"0", b"-1", b"4294967296")]),
    (10, _LIST_BODY, b'"b"', [bad for bad in NOT_A_TEXT if bad != b"null"]),
    (10, _LIST_BODY, b'["a"]', NOT_A_PATH),
    (10, _LIST_BODY, b'"id":1', [b'"id":' + bad for bad in (*NOT_AN_INTEGER, b"0", b"-1", b"4294967296")]),
    (11, _ENTRY_BODY, b'"name":"a"', [b'"name":' + bad for bad in NOT_A_TEXT]),
    (11, _ENTRY_BODY, b'"name":"a"', [b'"name":"a","name":"a"', b'"Name":"a"', b'"name":"a","x":1', b'"x":"a"']),
    (11, _ENTRY_BODY, b'"size":3', [b'"size":' + bad for bad in (*NOT_AN_INTEGER, b"-1")]),
    (11, _ENTRY_BODY, b'"more":true', [b'"more":' + bad for bad in NOT_A_FLAG]),
    (11, _ENTRY_BODY, b'"id":1', [b'"id":' + bad for bad in (*NOT_AN_INTEGER, b"0", b"-1", b"4294967296")]),
    (
        11,
        b'{"id":1,"entries":[],"more":true}',
        b"[]",
        [b"{}", b"null", b"[[]]", b"[null]", b"[1]", b'["a"]', b"[{}]", b"1"],
    ),
    (13, b'{"code":"busy"}', b'"busy"', [*NOT_A_TEXT, b'"Busy"', b'"Code.BUSY"']),
]


@pytest.mark.parametrize(("kind", "right", "old", "new"), REPLACEMENTS)
def test_reject_field(kind: int, right: bytes, old: bytes, new: list[bytes]) -> None:
    body_of(kind, right)
    assert right.count(old) == 1
    for replacement in new:
        refused(kind, right.replace(old, replacement))


def test_reject_folder_with_a_size() -> None:
    refused(1, FOLDER.body().replace(b'"size":null', b'"size":0'))


@pytest.mark.parametrize(("message", "kind", "body"), CONTROLS)
def test_reject_missing_unknown_or_duplicate_field(message: Control, kind: int, body: bytes) -> None:
    whole = json.loads(body)
    for name in whole:
        less = {key: value for key, value in whole.items() if key != name}
        refused(kind, json.dumps(less).encode())
        refused(kind, json.dumps({**less, name.upper(): whole[name]}).encode())
        again = json.dumps({name: whole[name]}).encode()
        refused(kind, again[:-1] + b"," + body[1:])
        refused(kind, body[:-1] + b"," + again[1:])
    for unknown in (b'"x":1', b'"":null', b'"__class__":"x"', b'"KIND":1', b'"\\ud800":1', b'"id ":1'):
        refused(kind, body[:-1] + b"," + unknown + b"}")
    refused(kind, b"{}")


@pytest.mark.parametrize(("message", "kind", "body"), CONTROLS)
def test_reject_body_that_is_no_plain_object(message: Control, kind: int, body: bytes) -> None:
    for bad in (
        b"[" + body + b"]",
        b"[]",
        b"null",
        b"true",
        b"1",
        b'"' + b"a" * 8 + b'"',
        b"",
        b" ",
        b"{",
        body[1:],
        body[:-1],
        body[:-1] + b",}",
        b"{,}",
        b" " + body,
        b"\n" + body,
        b"\xef\xbb\xbf" + body,
        b"\0" + body,
        body + b"\0",
        body + b"\n",
        body + body,
        body.decode().encode("utf-16"),
        body.decode().encode("utf-16-le"),
        body.decode().encode("utf-32"),
        b"//\n" + body,
        body.replace(b'"', b"'"),
        json.dumps(list(json.loads(body).items())).encode(),
        bytes(len(body)),
        b"\xff" * len(body),
    ):
        refused(kind, bad)


@pytest.mark.parametrize("depth", [100, 5_000, 60_000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"id":[', b'{"id":1,"path":['])
def test_reject_deep_nesting(opening: bytes, depth: int) -> None:
    for _, kind, _ in CONTROLS:
        refused(kind, (opening + b"[" * depth)[:CONTROL_LIMIT])
        refused(kind, (opening * depth)[:CONTROL_LIMIT])
    refused(Kind.GET, b'{"id":1,"more":false,"path":' + b"[" * (depth // 2) + b"]" * (depth // 2) + b"}")


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\x80"])
def test_reject_bad_utf8(bad: bytes) -> None:
    refused(Kind.GET, b'{"id":1,"more":false,"path":["' + bad + b'"]}')
    refused(Kind.GET, _GET_BODY + bad)


@pytest.mark.parametrize(("message", "kind", "body"), CONTROLS)
def test_fields_may_stand_in_any_order_and_apart(message: Control, kind: int, body: bytes) -> None:
    whole = json.loads(body)
    assert body_of(kind, json.dumps(dict(reversed(whole.items())), indent=1).encode()) == message


def test_text_survives_however_it_is_escaped() -> None:
    escaped = rb'{"id":1,"path":["\ud83d\ude00\u00e9\u0022","\u002f"],"more":false}'
    assert body_of(Kind.GET, escaped.replace(rb',"\u002f"', b"")) == Get(1, ('\U0001f600é"',), False)
    found = body_of(Kind.GET, escaped)
    assert isinstance(found, Misnamed)
    assert (found.shown, found.why) == ('\U0001f600é"//', "a slash in a name")


# --- Names ------------------------------------------------------------------------------------------------------------

BAD_NAMES = ("", ".", "..", "/", "a/b", "a\0", "a\nb", "\x1b[2J", "\x85", "n" * 256, "\U0001f600" * 64)
BAD_PATHS = [
    *[path for bad in BAD_NAMES for path in ((bad,), ("a", bad), (bad, "a"))],
    ("a",) * 256,
    ("n" * 255,) * 17,
    ("\u0434",) * 13_080,
]


@pytest.mark.parametrize("path", BAD_PATHS, ids=range(len(BAD_PATHS)))
@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (PUT, (Kind.PUT, 1, True, False)),
        (FOLDER, (Kind.PUT, 2, False, False)),
        (Get(3, (), True), (Kind.GET, 3, False, True)),
        (Get(4, (), False), (Kind.GET, 4, False, False)),
        (ListFolder(5, (), None), (Kind.LIST, 5, False, False)),
    ],
    ids=["file", "folder", "get", "last get", "list"],
)
def test_of_a_path_that_is_not_allowed_only_its_id_is_kept(
    message: Put | Get | ListFolder, answer: tuple[Kind, int, bool, bool], path: tuple[str, ...]
) -> None:
    found = body_of(message.KIND, replace(message, path=path).body())
    assert isinstance(found, Misnamed)
    assert (found.kind, found.id, found.is_open, found.more) == answer
    assert found.why
    assert "/".join(path).startswith(found.shown.removesuffix("..."))
    assert len(found.shown) <= 203


@pytest.mark.parametrize("path", [(), *BAD_PATHS], ids=range(len(BAD_PATHS) + 1))
def test_reject_receipt_with_a_path_that_is_not_allowed(path: tuple[str, ...]) -> None:
    for receipt in (RECEIPT, EMPTY_RECEIPT):
        refused(Kind.RECEIPT, replace(receipt, path=path).body())


def test_path_that_is_missing_is_not_allowed_for_a_put_and_means_everything_elsewhere() -> None:
    assert isinstance(body_of(Kind.PUT, replace(PUT, path=()).body()), Misnamed)
    assert body_of(Kind.GET, Get(1, (), False).body()) == Get(1, (), False)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_reject_listing_with_a_name_that_is_not_allowed(name: str) -> None:
    refused(Kind.ENTRY, Entries(1, (Entry("a", "file", 1, 1), Entry(name, "file", 1, 1)), False).body())


@pytest.mark.parametrize("name", BAD_NAMES)
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
    st.builds(Data, ids, st.integers(0, MAX_INTEGER - 64), st.binary(min_size=1, max_size=64).map(memoryview)),
    st.builds(End, ids, sizes, hashes, hashes),
    st.builds(Cancel, ids),
    st.builds(Accept, ids, sizes),
    st.builds(Refuse, ids, codes),
    st.builds(Check, ids, sizes, st.none() | hashes),
    st.builds(Receipt, ids, paths, sizes, st.none() | hashes, times, st.sampled_from(OUTCOMES)),
    st.builds(Get, ids, paths | st.just(()), st.booleans()),
    st.builds(ListFolder, ids, paths | st.just(()), st.none() | names),
    st.builds(
        Entries, ids, st.lists(st.builds(Entry, names, kinds, sizes, times), max_size=4).map(tuple), st.booleans()
    ),
    st.builds(Error, codes),
    st.just(Ping()),
    st.just(Bye()),
)


@settings(max_examples=300)
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


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
bodies = st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode())


@settings(max_examples=60)
@given(bodies)
def test_arbitrary_body_of_every_type_is_read_or_refused(body: bytes) -> None:
    for kind in range(16):
        only_refused(lambda kind=kind: body_of(kind, body))  # type: ignore[misc]


@settings(max_examples=300)
@given(st.sampled_from(CONTROLS), st.data())
def test_any_value_in_any_field_is_read_or_refused(row: tuple[Control, int, bytes], data: st.DataObject) -> None:
    _, kind, body = row
    whole = json.loads(body)
    whole[data.draw(st.sampled_from(sorted(whole)))] = data.draw(json_values)
    only_refused(lambda: body_of(kind, json.dumps(whole).encode()))


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_arbitrary_record_is_read_or_refused(record: bytes) -> None:
    only_refused(lambda: decode(record))


# --- the quick readers take what the strict one takes -----------------------------------------------------------------

QUICK: dict[Kind, tuple[type[Control], Reader]] = {
    Kind.PUT: (Put, read_put),
    Kind.END: (End, read_end),
    Kind.RECEIPT: (Receipt, read_receipt),
}
FILE_PUT = Put(3, TRANSFER, ("a b", ",", '"', "é\u2028", "\\n"), "file", 7, 1700000000000000000, 0o644, "replace")
STORED = Receipt(3, ("a", ",", "\x7f"), 7, SHA256, 1700000000000000000, "already")


def slowly(kind: Kind, body: bytes) -> Control | None:
    """What the strict reader makes of a body; None when it refuses it."""
    with suppress(ProtocolViolation):
        found: Control = _fields_of(QUICK[kind][0], read_json(memoryview(body)))
        found.check()
        return found
    return None


def quickly(kind: Kind, body: bytes) -> Control | None:
    shape, read = QUICK[kind]
    fields = read(memoryview(body))
    return None if fields is None else shape(*fields)


SAID = End(3, 5, SHA256, MAC)
PLAIN = [PUT, SAID, STORED, Receipt(9, ("a", "", "b"), 0, SHA256, 1, "stored")]


@pytest.mark.parametrize("message", PLAIN, ids=lambda message: type(message).__name__)
def test_plain_body_is_read_quickly_and_the_same(message: Control) -> None:
    assert quickly(message.KIND, message.body()) == message == slowly(message.KIND, message.body())


@given(st.sampled_from([PUT, FILE_PUT, SAID, STORED, RECEIPT]), st.data())
@settings(max_examples=300)
def test_quick_reader_takes_nothing_that_the_strict_one_refuses(message: Control, data: st.DataObject) -> None:
    """Bytes changed, doubled, cut, and pieces that JSON knows put in between."""
    body = bytearray(message.body())
    pieces = [
        b'"',
        b"\\",
        b",",
        b'","',
        b"0",
        b"-",
        b" ",
        b"9" * 19,
        b"null",
        b"\xff",
        b"\xc3\xa9",
        b"\n",
        b"[",
        b"1e3",
    ]
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(len(body), start + 3)))
        body[start:end] = data.draw(st.sampled_from(pieces) | st.binary(max_size=2))
    found = quickly(message.KIND, bytes(body))
    assert found is None or found == slowly(message.KIND, bytes(body))


@given(st.lists(st.text(), max_size=5))
def test_path_of_any_text_is_read_quickly_or_not_at_all(path: list[str]) -> None:
    body = json.dumps(path, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    whole = PUT.body().replace(b'["a","b.txt"]', body)
    found = quickly(Kind.PUT, whole)
    assert found is None or found == slowly(Kind.PUT, whole) == replace(PUT, path=tuple(path))
