"""A record is read in one go where it can be, and always as if message by message."""

import contextlib

import pytest
from fuzz.messages import in_one_go, one_by_one
from hypothesis import given
from hypothesis import strategies as st

from crypto_utils import digest
from errors import ProtocolViolation
from wire.messages import BYE_MESSAGE, PING_MESSAGE, Cancel, End, Put, write_data_header
from wire.protocol import DATA_SIZE, UNASKED_LIMIT
from wire.records import Whole, messages_of

TRANSFER = bytes(range(16))


def put(id: int, size: int | None) -> bytes:
    return Put(id, TRANSFER, ("folder", f"{id}.txt"), "file", size, 1_700_000_000_000_000_000, 0o640, "fail").encode()


def data(id: int, offset: int, content: bytes) -> bytes:
    room = bytearray(17 + len(content))
    write_data_header(memoryview(room), id, offset, len(content))
    room[17:] = content
    return bytes(room)


def end(id: int, content: bytes) -> bytes:
    return End(id, len(content), digest(content), bytes(32)).encode()


def small(id: int, content: bytes) -> bytes:
    return put(id, len(content)) + data(id, 0, content) + end(id, content)


def kinds(text: bytes) -> list[type]:
    """Of the messages that are read in one go, up to one that is refused."""
    found: list[type] = []
    with contextlib.suppress(ProtocolViolation):
        found.extend(type(message) for _, message, _ in messages_of(memoryview(text)))
    return found


def test_small_file_in_one_piece_is_one_message() -> None:
    text = small(1, b"a") + small(2, b"b" * UNASKED_LIMIT) + BYE_MESSAGE
    assert kinds(text)[:2] == [Whole, Whole]
    (_, first, body), *_ = messages_of(memoryview(text))
    assert isinstance(first, Whole)
    assert bytes(body) == bytes(first.body) == put(1, 1)[5:]
    assert (bytes(first.content), first.put.id, first.end.sha256) == (b"a", 1, digest(b"a"))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(put(1, 0) + end(1, b""), id="empty"),
        pytest.param(put(1, 3) + data(1, 0, b"abc"), id="no END"),
        pytest.param(put(1, 3) + data(2, 0, b"abc") + end(1, b"abc"), id="content of another"),
        pytest.param(put(1, 3) + data(1, 0, b"abc") + end(2, b"abc"), id="END of another"),
        pytest.param(put(1, 3) + data(1, 1, b"abc") + end(1, b"abc"), id="from another offset"),
        pytest.param(put(1, 4) + data(1, 0, b"abc") + end(1, b"abc"), id="less than announced"),
        pytest.param(put(1, 2) + data(1, 0, b"abc") + end(1, b"abc"), id="more than announced"),
        pytest.param(put(1, 6) + data(1, 0, b"abc") + data(1, 3, b"abc") + end(1, b"abcabc"), id="two pieces"),
        pytest.param(put(1, None) + data(1, 0, b"abc") + end(1, b"abc"), id="a pipe"),
        pytest.param(put(1, 3) + PING_MESSAGE + data(1, 0, b"abc") + end(1, b"abc"), id="something between"),
        pytest.param(put(1, 3) + data(1, 0, b"abc") + Cancel(1).encode(), id="withdrawn"),
        pytest.param(put(1, 3).replace(b"file", b"fold") + data(1, 0, b"abc") + end(1, b"abc"), id="damaged PUT"),
        pytest.param(put(1, 3) + data(1, 0, b"abc") + end(1, b"abc").replace(b"mac", b"mad"), id="damaged END"),
        pytest.param(
            put(1, 65537) + data(1, 0, bytes(UNASKED_LIMIT + 1)) + end(1, bytes(UNASKED_LIMIT + 1)), id="too large"
        ),
        pytest.param(put(1, DATA_SIZE) + data(1, 0, bytes(DATA_SIZE)), id="large"),
    ],
)
def test_anything_else_is_read_message_by_message(text: bytes) -> None:
    assert Whole not in kinds(text)
    assert in_one_go(text) == one_by_one(text)


@pytest.mark.parametrize("at", range(len(small(1, b"abc"))))
def test_record_cut_at_any_byte_says_the_same(at: int) -> None:
    text = small(1, b"abc")[:at]
    assert in_one_go(text) == one_by_one(text)
    assert ProtocolViolation in in_one_go(text) or at in (len(put(1, 3)), len(put(1, 3)) + 20)


@pytest.mark.parametrize("bit", range(8))
def test_record_with_any_bit_flipped_says_the_same(bit: int) -> None:
    text = bytearray(small(1, b"abc") + small(2, b"d"))
    for at in range(len(text)):
        text[at] ^= 1 << bit
        assert in_one_go(bytes(text)) == one_by_one(bytes(text))
        text[at] ^= 1 << bit


pieces = st.one_of(
    st.builds(small, st.integers(1, 9), st.binary(min_size=1, max_size=20)),
    st.builds(put, st.integers(1, 9), st.none() | st.integers(0, 20)),
    st.builds(data, st.integers(1, 9), st.integers(0, 3), st.binary(min_size=1, max_size=20)),
    st.builds(end, st.integers(1, 9), st.binary(max_size=20)),
    st.sampled_from([PING_MESSAGE, BYE_MESSAGE, Cancel(3).encode()]),
)


@given(st.lists(pieces, max_size=6).map(b"".join), st.binary(max_size=12))
def test_any_record_says_the_same(text: bytes, tail: bytes) -> None:
    assert in_one_go(text + tail) == one_by_one(text + tail)
