"""DATA, to bytes and back: a piece of a file as it is, as one zstd frame, or as zeros, of which there is no content.

Rules: the sizes that a peer announces are checked before anything is decoded, allocated or hashed. What one DATA stands
for is at most 2^20 bytes, whatever it takes on the wire.
"""

import struct
from typing import NamedTuple

from sft.common.errors import ProtocolViolation
from sft.common.zeros import zeros
from sft.wire.bodies import Kind
from sft.wire.compression import check_frame, decoded
from sft.wire.protocol import DATA_SIZE, MAX_ID, MAX_INTEGER

DATA_TYPE = int(Kind.DATA)
_FIELDS = struct.Struct(">IQI")
_HEADER = struct.Struct(">BIIQI")
DATA_HEADER_SIZE = _HEADER.size


class Data(NamedTuple):
    """`size` bytes of `id` at `offset`. `content`: as it came, to be used before the record's buffer is given back."""

    id: int
    offset: int
    size: int
    content: memoryview

    @property
    def is_zeros(self) -> bool:
        """Whether it stands for zero bytes, and has no content."""
        return not self.content

    @property
    def is_frame(self) -> bool:
        """Whether its content is compressed."""
        return 0 < len(self.content) < self.size

    def plain(self) -> memoryview:
        """The bytes that it stands for. Raises ProtocolViolation for a frame that does not hold as many."""
        if self.is_zeros:
            return zeros(self.size)
        return memoryview(decoded(self.content, self.size)) if self.is_frame else self.content


def read_data(body: memoryview) -> Data:
    """The body of a DATA. Raises ProtocolViolation for one that no DATA has; a frame is looked at, not decoded."""
    if len(body) < _FIELDS.size:
        raise ProtocolViolation("content that is cut short")
    id, offset, size = _FIELDS.unpack_from(body)
    data = Data(id, offset, size, body[_FIELDS.size :])
    if not 0 < size <= DATA_SIZE or len(data.content) > size:
        raise ProtocolViolation("content of a wrong size")
    if not 1 <= id <= MAX_ID or offset > MAX_INTEGER - size:
        raise ProtocolViolation("content for an impossible place")
    if data.is_frame:
        check_frame(data.content, size)
    return data


def write_data_header(into: memoryview, id: int, offset: int, size: int, on_wire: int) -> None:
    """Write what stands before the content of a DATA: `size` bytes of a file, of which `on_wire` bytes follow."""
    _HEADER.pack_into(into, 0, DATA_TYPE, _FIELDS.size + on_wire, id, offset, size)


def zeros_message(id: int, offset: int, size: int) -> bytes:
    """A DATA of `size` zero bytes."""
    return _HEADER.pack(DATA_TYPE, _FIELDS.size, id, offset, size)
