"""A file's content, piece by piece, into DATA: what is read, what is only counted, and how large each piece is.

Rules: holes are not read, and whatever is zero is sent as zeros. `sft/transfer/shrinking.py` says what is compressed. A
sender with a limit makes small pieces, so that they leave evenly. Only the thread that reads and packs uses this.
"""

import time
from collections.abc import Callable

from sft.common.rate_limit import RateLimiter
from sft.common.zeros import are_zeros, zeros
from sft.disk.sources import Source
from sft.transfer.events import Progress, SendEvent
from sft.transfer.hashing import OtherSize
from sft.transfer.outgoing import Outgoing
from sft.transfer.shrinking import Compress, Shrinking
from sft.transfer.states import Sending
from sft.wire.channel import Channel
from sft.wire.content import DATA_HEADER_SIZE
from sft.wire.outbox import Shrinks
from sft.wire.protocol import DATA_LEAST, DATA_SIZE, MAX_INTEGER

# Implementation constants: the other end does not notice them.
_PIECE_SECONDS = 1 / 8  # of a limit's bytes leave in one record, so that they leave evenly
_UNKNOWN_SECONDS = 0.25  # from the first piece on: it costs 1 GiB of text on loopback less than 0.1 s
_ZEROS_TOGETHER = 16 << 20  # bytes of zeros in one record, which the other end hashes while more are hashed here


def next_piece(run: int, is_hole: bool, left: int, most: int) -> tuple[int, bool]:
    """How many bytes the next DATA stands for, and whether it is a hole, which is not read.

    `run` bytes of one kind come next, a hole or not; `left` bytes are left of the file. One DATA holds at most `most`
    bytes of content; zeros take no place. Only the last DATA may be smaller than `DATA_LEAST`, so what is shorter is
    read together with what comes behind it.
    """
    run = min(run, left)
    if is_hole and (run >= DATA_LEAST or run == left):
        return min(run, DATA_SIZE), True
    return min(max(run, DATA_LEAST), left, most), False


class Pieces:
    """Sends the content of one file after the other over one channel."""

    def __init__(
        self,
        channel: Channel,
        limiter: RateLimiter,
        on_event: Callable[[SendEvent], None],
        compress: Compress,
    ) -> None:
        self._channel, self._limiter, self._on_event = channel, limiter, on_event
        self._shrinking, self._shrinking_batches = Shrinking(compress), Shrinking(compress)
        self._known_from = 0.0  # when the line has shown its speed
        # As large as may be without a limit: in pieces of 256 KiB 1 GiB takes 9.9 CPU seconds of both ends, else 8.8.
        self.most = max(DATA_LEAST, int(min(DATA_SIZE, limiter.bytes_in(_PIECE_SECONDS))))  # of content, in one DATA
        self._beyond = memoryview(bytearray(1))
        self._zeros = 0  # bytes that were sent as zeros since a record left for their sake

    def send(self, outgoing: Outgoing, source: Source, offset: int) -> int | None:
        """Send it from `offset` on, and hash it; the size of the file once all is sent.

        None when the receiver has answered meanwhile. Raises SourceError, OtherSize, and what ended the channel.
        """
        announced = outgoing.size
        self._shrinking.begin_file()
        while announced is None or offset < announced:
            if outgoing.state is not Sending.SENDING:
                return None
            size, is_hole = next_piece(*source.run(), (announced or MAX_INTEGER) - offset, self.most)
            shrinks = not is_hole and self._tries_to_shrink(self._shrinking)
            if is_hole:
                source.skip(size)
                content = zeros(size)
            else:
                space = self._channel.content_space(size, alone=shrinks)
                content = space[: source.read_into(space)]
            if len(content) < size and announced is not None:
                source.check_unchanged()
                raise OtherSize
            if content:
                self._send_piece(outgoing, offset, content, is_hole, shrinks)
                offset += len(content)
            if len(content) < size:
                break
        if announced is not None and source.read_into(self._beyond) and not source.has_grown():
            raise OtherSize
        return offset

    def tries_to_shrink_batch(self, size: int) -> bool:
        """Whether to compress the next batch, whose contents have `size` bytes; then it gets a record of its own."""
        tries = size >= DATA_LEAST and self._tries_to_shrink(self._shrinking_batches)
        if tries:
            self._channel.flush()
        return tries

    def shrink_batch(self, size: int, content_size: int) -> int:
        """Compress the contents of the batch that is in the record; how many bytes it takes, where that counts."""
        return self._compress(Shrinks(size - content_size, self._shrinking_batches.done), size)

    def _tries_to_shrink(self, shrinking: Shrinking) -> bool:
        """Whether to compress the next piece.

        With a limit, that is the line, and always waited for. So is a line that has not shown its speed yet: to begin
        with, everything vanishes quickly into buffers.
        """
        self._known_from = self._known_from or time.monotonic() + _UNKNOWN_SECONDS
        waiting, line = self._channel.waiting, self._channel.line_seconds
        if self._limiter.is_limited:
            waiting, line = MAX_INTEGER, max(line, 1 / self._limiter.bytes_in(1))
        elif time.monotonic() < self._known_from:
            waiting, line = MAX_INTEGER, 1.0
        return shrinking.tries(waiting, line)

    def _compress(self, shrinks: Shrinks, size: int) -> int:
        """Compress the record; how many bytes it takes, where that counts. A worker does it, where it does not."""
        if self._limiter.is_limited:
            return self._channel.compress_now(shrinks)
        self._channel.compress(shrinks)
        return size

    def _send_piece(self, outgoing: Outgoing, offset: int, content: memoryview, is_hole: bool, shrinks: bool) -> None:
        """One DATA, of what is in the space for content, or of zeros."""
        count = len(content)
        sent = DATA_HEADER_SIZE + count
        outgoing.digest.update(content)
        if is_hole or are_zeros(content):
            sent = self._channel.send_zeros(outgoing.id, offset, count)
            self._zeros += count
            if self._zeros >= _ZEROS_TOGETHER:
                self._channel.flush()
                self._zeros = 0
        else:
            self._channel.content_done(outgoing.id, offset, count)
            if shrinks:
                sent = self._compress(Shrinks(DATA_HEADER_SIZE, self._shrinking.done), sent)
        self._on_event(Progress(outgoing.item, count))
        self._limiter.spend(sent, self._channel.flush, count)
