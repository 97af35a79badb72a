"""The header that a proxy puts before a connection, to say who its client is: the PROXY protocol, versions 1 and 2.

    1      PROXY TCP4 203.0.113.9 192.0.2.1 50000 7380\r\n           at most 107 bytes
    2      12 bytes ‖ version and command ‖ family ‖ u16 length ‖ addresses ‖ more, which is skipped

Source: "The PROXY protocol", HAProxy Technologies, 2020. Rules: whose headers are read is decided by the caller. What
is read has a ceiling before it is read. A header without an address (LOCAL, UNKNOWN, a Unix socket) is the proxy's own.
An IPv4 address that is mapped into IPv6 is that IPv4 address, and one with a zone is refused.
"""

import contextlib
import ipaddress
import struct
from collections.abc import Callable

from sft.common.errors import ProtocolViolation

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_REST = struct.Struct(">BBH")  # version and command, family and transport, bytes that follow
_LOCAL, _PROXY = 0x20, 0x21
_NO_FAMILY, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
_ADDRESSES = {_NO_FAMILY: 0, _TCP4: 12, _TCP6: 36, _UNIX_STREAM: 216}  # bytes of both addresses and ports
_ADDRESS_SIZES = {_TCP4: 4, _TCP6: 16}
_MOST_BEHIND = 4096  # bytes of a version 2 header behind its first 16: certificates and names take some hundreds
_MOST_LINE = 107  # bytes of a version 1 header, its end included
PROXY_BEGINNINGS = (b"PROX", _SIGNATURE[:4])  # which a connection without such a header can't have
_WORD, _END = b"PROXY ", b"\r\n"
_FAMILIES = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}
_PARTS = 6  # of a line with addresses


def read_proxy_header(exactly: Callable[[int], bytes]) -> str | None:
    """The client's address; None when the connection is the proxy's own. `exactly` reads so many bytes.

    Raises ProtocolViolation, and what `exactly` raises.
    """
    begin = exactly(len(_SIGNATURE))
    if begin == _SIGNATURE:
        return _binary(exactly)
    if begin.startswith(_WORD):
        while not begin.endswith(_END):
            if len(begin) == _MOST_LINE:
                raise ProtocolViolation("a PROXY header that is too long")
            begin += exactly(1)
        return _line(begin[: -len(_END)])
    raise ProtocolViolation("no PROXY header from a trusted proxy")


def _binary(exactly: Callable[[int], bytes]) -> str | None:
    command, family, size = _REST.unpack(exactly(_REST.size))
    if command not in (_LOCAL, _PROXY) or size > _MOST_BEHIND:
        raise ProtocolViolation("a PROXY header of an unknown version or command, or one that is too long")
    behind = exactly(size)
    if command == _LOCAL:
        return None
    if len(behind) < _ADDRESSES.get(family, _MOST_BEHIND + 1):
        raise ProtocolViolation("a PROXY header of an unknown family, or without its addresses")
    address_size = _ADDRESS_SIZES.get(family)
    return None if address_size is None else _shown(ipaddress.ip_address(behind[:address_size]))


def _line(line: bytes) -> str | None:
    parts = line.decode("ascii", "replace").split(" ")
    if parts[1] == "UNKNOWN":
        return None
    with contextlib.suppress(KeyError, ValueError):
        family = _FAMILIES[parts[1]]
        if len(parts) == _PARTS and all(_is_port(port) for port in parts[4:]) and b"%" not in line:
            address, _ = family(parts[2]), family(parts[3])
            return _shown(address)
    raise ProtocolViolation("a PROXY header that can't be read")


def _shown(address: object) -> str:
    """As the rest of the world writes it, for those who look for it in the log."""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and str(int(text)) == text and int(text) < 1 << 16
