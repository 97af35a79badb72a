"""The PROXY protocol's headers: what they say, and that no byte behind them is read."""

import contextlib
import io
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import each_row

from sft.common.errors import ProtocolViolation
from sft.wire.proxy_header import read_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BEHIND = b"the client's first frame"


def binary(command: int, family: int, behind: bytes, size: int | None = None) -> bytes:
    """A header of version 2."""
    return SIGNATURE + struct.pack(">BBH", command, family, len(behind) if size is None else size) + behind


V4 = socket.inet_pton(socket.AF_INET, "203.0.113.9") + socket.inet_pton(socket.AF_INET, "192.0.2.1") + bytes(4)
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::9") + socket.inet_pton(socket.AF_INET6, "::1") + bytes(4)
MAPPED = socket.inet_pton(socket.AF_INET6, "::ffff:203.0.113.9") + V6[16:]
MORE = b"\x03\x00\x04abcd"  # a checksum, and anything else that may follow

ADDRESSES = [
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 50000 7380\r\n", "203.0.113.9"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY TCP6 2001:db8::9 ::1 0 65535\r\n", "2001:db8::9"),
    (b"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:192.0.2.1 50000 7380\r\n", "203.0.113.9"),
    (b"PROXY TCP6 ::ffff:cb00:7109 ::1 50000 7380\r\n", "203.0.113.9"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    (binary(0x21, 0x11, V4), "203.0.113.9"),
    (binary(0x21, 0x11, V4 + MORE), "203.0.113.9"),
    (binary(0x21, 0x21, V6), "2001:db8::9"),
    (binary(0x21, 0x21, V6 + bytes(4060)), "2001:db8::9"),
    (binary(0x21, 0x21, MAPPED), "203.0.113.9"),
    (binary(0x21, 0x31, bytes(216)), None),
    (binary(0x21, 0x00, b""), None),
    (binary(0x20, 0x00, b""), None),
    (binary(0x20, 0x11, V4), None),
    (binary(0x20, 0xFF, MORE), None),
]
REFUSED = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    bytes(200),
    b"PROXY TCP4 203.0.113.9 192.0.2.1 50000\r\n",
    b"PROXY TCP4 203.0.113.9 192.0.2.1 50000 7380 1\r\n",
    b"PROXY TCP4 203.0.113.9 192.0.2.1 50000 65536\r\n",
    b"PROXY TCP4 203.0.113.9 192.0.2.1 050 7380\r\n",
    b"PROXY TCP4 203.0.113.9 192.0.2.1 -1 7380\r\n",
    b"PROXY TCP4 2001:db8::9 192.0.2.1 50000 7380\r\n",
    b"PROXY TCP4 203.0.113.999 192.0.2.1 50000 7380\r\n",
    b"PROXY TCP6 203.0.113.9 192.0.2.1 50000 7380\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 50000 7380\r\n",
    b"PROXY TCP6 fe80::1%\x1b[2Jalice@192.0.2.1: ::1 50000 7380\r\n",
    b"PROXY TCP6 fe80::1 ::1%1 50000 7380\r\n",
    b"PROXY TCP4  203.0.113.9 192.0.2.1 50000 7380\r\n",
    b"PROXY UDP4 203.0.113.9 192.0.2.1 50000 7380\r\n",
    b"PROXY  \r\n" + bytes(100),
    b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n",
    binary(0x11, 0x11, V4),
    binary(0x22, 0x11, V4),
    binary(0x21, 0x12, V4),
    binary(0x21, 0x11, V4[:-1]),
    binary(0x21, 0x21, V4),
    binary(0x21, 0x31, bytes(215)),
    binary(0x21, 0xFF, bytes(4096)),
    binary(0x21, 0x11, V4, 4097),
    binary(0x21, 0x11, V4, 0xFFFF),
]


class Line:
    """Bytes that come in any number; the end of them is an end of the connection."""

    def __init__(self, text: bytes) -> None:
        self.rest = io.BytesIO(text)

    def exactly(self, size: int) -> bytes:
        got = self.rest.read(size)
        if len(got) < size:
            raise EOFError
        return got


@each_row(("header", "address"), ADDRESSES)
def test_header_names_the_client_and_ends_where_it_ends(header: bytes, address: str | None) -> None:
    line = Line(header + BEHIND)
    assert read_proxy_header(line.exactly) == address
    assert line.rest.read() == BEHIND


@pytest.mark.parametrize(("header", "address"), ADDRESSES)
def test_header_cut_at_any_byte_waits_for_the_rest(header: bytes, address: str | None) -> None:
    for size in range(len(header)):
        with pytest.raises(EOFError):
            read_proxy_header(Line(header[:size]).exactly)


@each_row("header", REFUSED)
def test_anything_else_is_refused_before_more_than_its_ceiling_is_read(header: bytes) -> None:
    line = Line(header + bytes(70_000))
    with pytest.raises(ProtocolViolation):
        read_proxy_header(line.exactly)
    assert line.rest.tell() <= 16 + 4096


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\0"]))
def test_any_bytes_are_a_header_or_refused(text: bytes, begin: bytes) -> None:
    with contextlib.suppress(ProtocolViolation, EOFError):
        read_proxy_header(Line(begin + text).exactly)
