"""zstd for the tests: the library, wherever this Python has it."""

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["frame", "zstd"]


def frame(content: bytes, level: int = 1) -> bytes:
    """One frame, with the size of its content."""
    return zstd.compress(content, level=level)
