"""Harness: the bytes of the login, as frames from a socket and as each of its messages."""

import socket
import time
from collections.abc import Callable
from typing import TypeVar

from sft.common.errors import ProtocolViolation, TransferError
from sft.wire.protocol import (
    HEADER_SIZE,
    LOGIN_FRAME_LIMIT,
    RECORD_FRAME_LIMIT,
    ClientHello,
    ServerHello,
    frame,
    frame_header,
    frame_size,
    unframe,
)
from sft.wire.sockets import Link

WORDS = (b"SFTlogin", b"\x00\x00\x04\xd5", b"\x00\x00\x04\x63", b"\x00\x00\x20\x00", b"\x00\x00\x20\x01")
_SECONDS = 20.0
_T = TypeVar("_T")


def one_input(data: bytes) -> None:
    """Whatever is accepted is written back as the same bytes; whatever is not is a ProtocolViolation."""
    for reader in (ClientHello.decode, ServerHello.decode):
        message = _read(lambda reader=reader: reader(data))  # type: ignore[misc]
        assert message is None or message.encode() == data
    hello, versions = _read(lambda: ClientHello.decode(data)), _read(lambda: ClientHello.decode_versions(data))
    assert hello is None or hello.versions == versions, "every release must read the same versions"

    for ceiling in (LOGIN_FRAME_LIMIT, RECORD_FRAME_LIMIT):
        if len(data) >= HEADER_SIZE:
            size = _read(lambda ceiling=ceiling: frame_size(data[:HEADER_SIZE], 1, ceiling))  # type: ignore[misc]
            assert size is None or (1 <= size <= ceiling and frame_header(size) == data[:HEADER_SIZE])

    payload = _read(lambda: unframe(data))
    assert payload is None or frame(payload) == data
    _from_a_socket(data)


def _from_a_socket(data: bytes) -> None:
    """The frames that a login would take from this stream are its own bytes, in order, up to the fault."""
    near, far = socket.socketpair()
    with near, far:
        far.setblocking(False)
        data = data[: far.send(data)] if data else data
        far.shutdown(socket.SHUT_WR)
        link, got = Link(near, time.monotonic() + _SECONDS), b""
        try:
            while True:
                whole = link.receive()
                assert frame(unframe(whole)) == whole
                got += whole
        except TransferError:
            assert data.startswith(got)


def _read(reader: Callable[[], _T]) -> _T | None:
    try:
        return reader()
    except ProtocolViolation:
        return None
