"""A record on its way, in the buffer that it is sealed or opened in.

Rules: its parts are views of the buffer, so nothing is copied. It knows no key and no socket.
"""

from concurrent.futures import Future

from crypto_utils import TAG_SIZE
from sft.wire.protocol import HEADER_SIZE


class Record:
    """A record in a buffer: header, text, tag, back to back. `future` is None when it is done without a worker."""

    __slots__ = ("buffer", "future", "leased", "number", "size")

    def __init__(self, buffer: bytearray, size: int, number: int, leased: bool) -> None:
        self.buffer, self.size, self.number, self.leased = buffer, size, number, leased
        self.future: Future[None] | None = None

    def header(self) -> bytes:
        return bytes(self.buffer[:HEADER_SIZE])

    def text(self) -> memoryview:
        return memoryview(self.buffer)[HEADER_SIZE : HEADER_SIZE + self.size]

    def tag(self) -> memoryview:
        return memoryview(self.buffer)[HEADER_SIZE + self.size : HEADER_SIZE + self.size + TAG_SIZE]

    def whole(self) -> memoryview:
        return memoryview(self.buffer)[: HEADER_SIZE + self.size + TAG_SIZE]
