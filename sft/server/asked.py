"""What the GETs of one connection ask for, kept until it is sent.

Rules: many thousand may come, so each takes hardly more memory than it had bytes on the wire, and all of them have a
ceiling. It knows no channel and no folder.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from sft.common.errors import ProtocolViolation
from sft.common.names import PathParts, size_of
from sft.wire.messages import Get, Misnamed
from sft.wire.protocol import ASKED_LIMIT, GETS_LIMIT

_HEAD = struct.Struct(">IBBH")  # id, depth, flags, bytes of the path
_OFFERS, _LINKS = 1, 2


class Wanted(NamedTuple):
    """One GET: `above` components of its path are not part of the names of what is sent."""

    id: int
    path: PathParts
    above: int
    offers: bool
    links: bool


class Asked:
    """The GETs that are allowed, in their order."""

    def __init__(self) -> None:
        self._packed = bytearray()
        self._count = self._size = 0

    def count(self, get: Get | Misnamed) -> None:
        """Another GET is here. Raises ProtocolViolation when that is more than a connection may ask for."""
        self._count += 1
        self._size += size_of(get.path) if isinstance(get, Get) else 0
        if self._count > GETS_LIMIT or self._size > ASKED_LIMIT:
            raise ProtocolViolation("more GETs, or longer ones, than a connection may ask for")

    def add(self, get: Get) -> None:
        """It is to be answered by what lies there."""
        path = "/".join(get.path).encode()
        flags = get.offers * _OFFERS | get.links * _LINKS
        self._packed += _HEAD.pack(get.id, get.depth, flags, len(path)) + path

    def __iter__(self) -> Iterator[Wanted]:
        at = 0
        while at < len(self._packed):
            id, depth, flags, size = _HEAD.unpack_from(self._packed, at)
            at += _HEAD.size
            path = self._packed[at : at + size].decode()
            at += size
            parts = tuple(path.split("/")) if path else ()
            yield Wanted(id, parts, len(parts) - depth, bool(flags & _OFFERS), bool(flags & _LINKS))
