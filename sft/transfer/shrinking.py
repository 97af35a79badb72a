"""Whether the next piece of a file is compressed: a decision, and what it is made of.

Rules: by itself a sender compresses only while the line is what everything waits for, and only what shrinks, so that
no transfer takes longer for it. The decision is a pure function; its figures are measured as pieces are sent.
"""

from typing import Literal

Compress = Literal["auto", "on", "off"]

# Implementation constants: the other end does not notice them.
_WAITING_LEAST = 2  # records that wait for the line: then it has enough to send while a piece is compressed
_SAVED_LEAST = 0.1  # of a piece: a file whose pieces shrink by less is not worth it
_PROBE_EVERY = 32  # pieces, after which such a file is tried again
_MARGIN = 1.5  # times the work must be worth it: the receiver has some, too, and often on the same machine
_SAVED_AT_FIRST = 0.8  # of text, to begin with: the first piece shows better
_EFFORT_AT_FIRST = 4e-9  # seconds per byte
_KEPT = 0.5  # of a figure, when it is measured again


def is_worth_trying(
    compress: Compress, waiting: int, line: float, effort: float, saved: float, since_last: int
) -> bool:
    """Whether to compress the next piece.

    `waiting`: records that wait for the line; `line`: seconds that it takes for a byte; `effort`: seconds that
    compressing a byte takes; `saved`: how much of a piece of this file vanished at the last try, 0 to 1; `since_last`:
    pieces that were sent as they are since then.
    """
    if compress != "auto":
        return compress == "on"
    if waiting < _WAITING_LEAST:
        return False
    if saved < _SAVED_LEAST:
        return since_last >= _PROBE_EVERY
    return saved * line > _MARGIN * effort


class Shrinking:
    """The figures of one connection's sender. `done` may be called by any thread; each figure is one assignment."""

    def __init__(self, compress: Compress) -> None:
        self.compress = compress
        self._effort = _EFFORT_AT_FIRST
        self._saved = _SAVED_AT_FIRST
        self._since_last = 0

    def begin_file(self) -> None:
        """Another file comes: what was measured of the last one tells nothing about it."""
        self._saved, self._since_last = _SAVED_AT_FIRST, 0

    def tries(self, waiting: int, line: float) -> bool:
        """Whether the next piece is compressed; see `is_worth_trying`."""
        tries = is_worth_trying(self.compress, waiting, line, self._effort, self._saved, self._since_last)
        self._since_last = 0 if tries else self._since_last + 1
        return tries

    def done(self, size: int, smaller: int, seconds: float) -> None:
        """A piece of `size` bytes became a frame of `smaller` bytes in so many seconds."""
        self._effort += _KEPT * (seconds / size - self._effort)
        self._saved = max(0.0, 1 - smaller / size)
