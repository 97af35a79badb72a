"""One table of login messages and bytes drives writers and readers; each reader is fed whole, cut, and with a tail."""

import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import each_row

from sft.common.errors import ProtocolViolation
from sft.wire.protocol import (
    DATA_SIZE,
    LOGIN_FRAME_LIMIT,
    RECORD_FRAME_LIMIT,
    RECORD_TEXT_LIMIT,
    ClientHello,
    ServerHello,
    Status,
    frame,
    frame_header,
    frame_size,
    unframe,
)


def only_refused(reader: Callable[[], object]) -> None:
    """Anything but ProtocolViolation that leaves a reader is a bug of ours, and fails the test by itself."""
    with suppress(ProtocolViolation):
        reader()


# --- Frames -----------------------------------------------------------------------------------------------------------


def test_constants_are_the_specifications() -> None:
    assert (LOGIN_FRAME_LIMIT, DATA_SIZE, RECORD_TEXT_LIMIT) == (8192, 1048576, 1048576 + 4096)
    assert RECORD_FRAME_LIMIT == RECORD_TEXT_LIMIT + 16


def test_frame_is_its_length_and_its_payload() -> None:
    assert frame(b"abc") == b"\0\0\0\3abc"
    assert frame_header(0x01020304) == b"\1\2\3\4"
    assert unframe(frame(b"abc")) == b"abc"


@each_row("ceiling", [LOGIN_FRAME_LIMIT, RECORD_FRAME_LIMIT])
@each_row("least", [1, 17])
def test_frame_size_within_the_ceiling_is_taken(ceiling: int, least: int) -> None:
    for size in (least, ceiling - 1, ceiling):
        assert frame_size(struct.pack(">I", size), least, ceiling) == size
        assert frame_size(bytearray(struct.pack(">I", size)), least, ceiling) == size


@each_row("ceiling", [LOGIN_FRAME_LIMIT, RECORD_FRAME_LIMIT])
@each_row("over", [1, 2, None])
def test_reject_frame_over_ceiling(ceiling: int, over: int | None) -> None:
    for size in (2**31, 2**32 - 1) if over is None else (ceiling + over,):
        with pytest.raises(ProtocolViolation):
            frame_size(struct.pack(">I", size), 1, ceiling)


@pytest.mark.parametrize("ceiling", [LOGIN_FRAME_LIMIT, RECORD_FRAME_LIMIT])
def test_reject_frame_below_the_least(ceiling: int) -> None:
    for size, least in ((0, 1), (0, 17), (16, 17)):
        with pytest.raises(ProtocolViolation):
            frame_size(struct.pack(">I", size), least, ceiling)


@each_row(
    "whole",
    [b"", b"\0", b"\0\0\0", b"\0\0\0\0", b"\0\0\0\1", b"\0\0\0\2a", b"\0\0\0\1ab", b"\xff\xff\xff\xffabc"],
)
def test_reject_login_frame_that_is_not_as_long_as_it_says(whole: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        unframe(whole)


def test_login_frame_meets_its_ceiling() -> None:
    assert unframe(frame(bytes(LOGIN_FRAME_LIMIT))) == bytes(LOGIN_FRAME_LIMIT)
    with pytest.raises(ProtocolViolation):
        unframe(frame(bytes(LOGIN_FRAME_LIMIT + 1)))


# --- Login ------------------------------------------------------------------------------------------------------------

KEM_PUBLIC = bytes(range(256)) * 4 + bytes(160)
CIPHERTEXT = bytes(range(256)) * 4 + bytes(64)
SALT = b"s" * 32

CLIENT_HELLO = ClientHello(b"\1", b"alice", KEM_PUBLIC)
CLIENT_HELLOS = [
    (CLIENT_HELLO, b"SFTlogin" + b"\1\1" + b"\5alice" + KEM_PUBLIC),
    (ClientHello(b"\1\2\xff", b"a", KEM_PUBLIC), b"SFTlogin" + b"\3\1\2\xff" + b"\1a" + KEM_PUBLIC),
    (ClientHello(b"\7", b"n" * 32, KEM_PUBLIC), b"SFTlogin" + b"\1\7" + b"\x20" + b"n" * 32 + KEM_PUBLIC),
]
SERVER_HELLOS = [
    (ServerHello(Status.GO_ON, 1, 1, SALT, CIPHERTEXT), b"\0\1\1" + SALT + CIPHERTEXT),
    (ServerHello(Status.NO_COMMON_VERSION, spoken=b"\1\2"), b"\1\2\1\2"),
    (ServerHello(Status.NO_COMMON_VERSION), b"\1\0"),
    (ServerHello(Status.BUSY), b"\2"),
    (ServerHello(Status.UNAVAILABLE), b"\3"),
]


@each_row(("hello", "encoded"), CLIENT_HELLOS)
def test_client_hello_both_ways(hello: ClientHello, encoded: bytes) -> None:
    assert hello.encode() == encoded
    assert ClientHello.decode(encoded) == hello
    assert ClientHello.decode_versions(encoded) == hello.versions


@each_row(("hello", "encoded"), SERVER_HELLOS)
def test_server_hello_both_ways(hello: ServerHello, encoded: bytes) -> None:
    assert hello.encode() == encoded
    assert ServerHello.decode(encoded) == hello


HELLO_READERS = [(ClientHello.decode, encoded) for _, encoded in CLIENT_HELLOS]
HELLO_READERS += [(ServerHello.decode, encoded) for _, encoded in SERVER_HELLOS]  # type: ignore[misc]


@pytest.mark.parametrize(("reader", "encoded"), HELLO_READERS)
def test_reject_hello_cut_at_any_byte_or_with_a_tail(reader: Callable[[bytes], Any], encoded: bytes) -> None:
    for damaged in (*(encoded[:size] for size in range(len(encoded))), encoded + b"\0", encoded + encoded):
        with pytest.raises(ProtocolViolation):
            reader(damaged)


_REST = b"\5alice" + KEM_PUBLIC


@each_row(
    "payload",
    [
        pytest.param(b"SFTlogim\1\1" + _REST, id="wrong magic"),
        pytest.param(b"sftlogin\1\1" + _REST, id="magic in lower case"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n", id="HTTP"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="SSH"),
        pytest.param(b"SFTlogin\0" + _REST, id="no versions"),
        pytest.param(b"SFTlogin\xff" + b"\1" * 254, id="a version short"),
        pytest.param(b"SFTlogin\1\1\0" + KEM_PUBLIC, id="username of 0 bytes"),
        pytest.param(b"SFTlogin\1\1\x21" + b"n" * 33 + KEM_PUBLIC, id="username of 33 bytes"),
        pytest.param(b"SFTlogin\1\1\xff" + b"n" * 255 + KEM_PUBLIC, id="username of 255 bytes"),
        pytest.param(b"SFTlogin\1\1\5alice" + KEM_PUBLIC[1:], id="key a byte short"),
    ],
)
def test_reject_client_hello(payload: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        ClientHello.decode(payload)


def test_versions_are_read_from_a_layout_of_the_future() -> None:
    assert ClientHello.decode_versions(b"SFTlogin\2\x09\x0aentirely different") == b"\x09\x0a"
    assert ClientHello.decode_versions(b"SFTlogin\1\x09") == b"\x09"


@each_row("payload", [b"", b"SFTlogin", b"SFTlogin\0", b"SFTlogin\2\1", b"SFTlogout\1\1"])
def test_reject_versions(payload: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        ClientHello.decode_versions(payload)


@pytest.mark.parametrize("rest", [b"", b"\1\1" + SALT + CIPHERTEXT], ids=["alone", "with the rest"])
def test_reject_unknown_status(rest: bytes) -> None:
    for status in range(4, 256):
        with pytest.raises(ProtocolViolation):
            ServerHello.decode(bytes([status]) + rest)


# --- Whatever arrives -------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.binary(max_size=60), st.integers(0, 1300))
def test_arbitrary_hello_is_read_or_refused(front: bytes, size: int) -> None:
    filled = front.ljust(size, b"\1")
    for payload in (front, filled, b"SFTlogin" + front, b"SFTlogin" + filled, b"\0" + filled):
        only_refused(lambda payload=payload: ClientHello.decode(payload))  # type: ignore[misc]
        only_refused(lambda payload=payload: ClientHello.decode_versions(payload))  # type: ignore[misc]
        only_refused(lambda payload=payload: ServerHello.decode(payload))  # type: ignore[misc]
        only_refused(lambda payload=payload: unframe(payload))  # type: ignore[misc]


@settings(max_examples=50)
@given(st.binary(min_size=1, max_size=255), st.binary(min_size=1, max_size=32), st.binary(min_size=1184, max_size=1184))
def test_every_client_hello_survives_the_wire(versions: bytes, username: bytes, kem_public: bytes) -> None:
    hello = ClientHello(versions, username, kem_public)
    assert ClientHello.decode(unframe(frame(hello.encode()))) == hello
