"""zstd for the tests: the library, wherever this Python has it."""

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["bomb", "frame", "zstd"]

_MOST = 1 << 17  # bytes of one block


def frame(content: bytes, level: int = 1) -> bytes:
    """One frame, with the size of its content."""
    return zstd.compress(content, level=level)


def bomb(size: int, said: int | None = None) -> bytes:
    """A frame of a few kilobytes that becomes so many zeros; its header says `said`, if that is given.

    It is made by hand (RFC 8878, 3.1.1), for the library takes 0.4 s for 1 GiB: a header with a size of 4 bytes and a
    window of 2^19, then blocks that are one byte again and again.
    """
    made = bytearray(b"\x28\xb5\x2f\xfd\x80\x48" + (size if said is None else said).to_bytes(4, "little"))
    for first in range(0, size, _MOST):
        last = first + _MOST >= size
        made += (min(_MOST, size - first) << 3 | 1 << 1 | last).to_bytes(3, "little") + b"\0"
    return bytes(made)
