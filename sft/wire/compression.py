"""zstd frames: what a frame may be before it is decoded, and the library that decodes and makes them.

Rules: a frame is looked at before it is decoded, and decoded only if it says that it becomes exactly as many bytes as
were announced, so no more memory is taken than that. Every frame stands alone: no dictionary, no state. The library is
loaded when it is first used; a client may be without it. This module knows no kind of message and no socket.
"""

import functools
import importlib.util
import struct
import sys
import threading
from types import ModuleType
from typing import Any

from sft.common.errors import ProtocolViolation, UsageError
from sft.common.packages import INSTALL, check_installed
from sft.wire.protocol import DATA_SIZE

PACKAGE = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"

# Of logs, source texts and programs level 1 left 18, 28 and 42 %, -1 left 26, 34 and 50 % in about the same time, and 3
# took half as long again for 19, 26 and 38 %.
_LEVEL = 1
_LEAST_SHRUNK = 32  # what shrinks by less than this part is sent as it is, which costs the other end less
_OF_THREAD = threading.local()
_BODY_SIZE = struct.Struct(">I")
_MAGIC = b"\x28\xb5\x2f\xfd"
_WINDOW_LOG = DATA_SIZE.bit_length() - 1
_SINGLE_SEGMENT, _RESERVED, _DICTIONARY = (
    0x20,
    0x08,
    0x03,
)  # bits of the frame header's descriptor (RFC 8878, 3.1.1.1.1)
_CONTENT_SIZES = {0: (1, 0), 1: (2, 256), 2: (4, 0), 3: (8, 0)}  # its upper bits: bytes of the field, and what is added


def is_installed() -> bool:
    """Whether this end can read and make frames."""
    try:
        return importlib.util.find_spec("_zstd" if sys.version_info >= (3, 14) else PACKAGE) is not None
    except ImportError:
        return False


def check_zstd() -> None:
    """Raises UsageError, with what to do, when the library is not there."""
    if is_installed():
        return
    if sys.version_info >= (3, 14):
        raise UsageError(f"this Python has no {PACKAGE}", "Install one that was built with zstd")
    check_installed(PACKAGE)
    raise UsageError(f"{PACKAGE} can't be loaded", INSTALL)


def zstd_name() -> str:
    """`zstd`, or `no zstd`: for --version and logs."""
    return "zstd" if is_installed() else "no zstd"


def check_frame(frame: memoryview, size: int) -> None:
    """That a frame's header fits what was announced; nothing is decoded.

    Raises ProtocolViolation for anything but one that needs no dictionary, no window above 2^20, and becomes `size`
    bytes.
    """
    if frame[:4] != _MAGIC or len(frame) < 6:
        raise ProtocolViolation("compressed content that is no zstd frame")
    descriptor = frame[4]
    if descriptor & (_RESERVED | _DICTIONARY):
        raise ProtocolViolation("a zstd frame with a dictionary, or of an unknown kind")
    at, width, added = 5, *_CONTENT_SIZES[descriptor >> 6]
    if not descriptor & _SINGLE_SEGMENT:
        if _window(frame[at]) > DATA_SIZE:
            raise ProtocolViolation("a zstd frame with too large a window")
        at += 1
        width = width if descriptor >> 6 else 0
    field = frame[at : at + width]
    if not width or len(field) < width or int.from_bytes(field, "little") + added != size:
        raise ProtocolViolation("a zstd frame of another size than was announced")


def _window(byte: int) -> int:
    """The window that a window descriptor stands for (RFC 8878, 3.1.1.1.2)."""
    base = 1 << (10 + (byte >> 3))
    return base + base // 8 * (byte & 7)


def decoded(frame: memoryview, size: int) -> bytes:
    """What a frame holds, `size` bytes. Raises ProtocolViolation for one that is not whole, or not alone."""
    check_frame(frame, size)
    zstd = _library()
    decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
    try:
        content: bytes = decoder.decompress(frame, size)
        if decoder.needs_input is False and not decoder.eof:
            content += decoder.decompress(b"", 1)  # what is left when all has come out: the end, or bytes too many
    except zstd.ZstdError:
        raise ProtocolViolation("a damaged zstd frame") from None
    if not decoder.eof or decoder.unused_data or len(content) != size:
        raise ProtocolViolation("compressed content that is not exactly one zstd frame")
    return content


def _compressed(content: memoryview) -> bytes:
    """One frame of it, with its size in the header."""
    zstd = _library()
    maker = getattr(_OF_THREAD, "maker", None)
    if maker is None:  # to make one takes as long as to compress a small piece
        maker = _OF_THREAD.maker = zstd.ZstdCompressor(level=_LEVEL)
    frame: bytes = maker.compress(content, zstd.ZstdCompressor.FLUSH_FRAME)
    return frame


def shrink(message: memoryview, at: int) -> tuple[int, int]:
    """Compress the content of a whole message, from `at` to its end, in place, if that makes it smaller by a little.

    How long the message is then, and how long the frame, also where it was not worth it.
    """
    content = message[at:]
    frame = _compressed(content)
    if len(frame) > len(content) - len(content) // _LEAST_SHRUNK:
        return len(message), len(frame)
    content[: len(frame)] = frame
    size = at + len(frame)
    _BODY_SIZE.pack_into(message, 1, size - _BODY_SIZE.size - 1)  # behind the message's type
    return size, len(frame)


@functools.cache
def _library() -> Any:
    """The library's module. Raises ImportError where it is not installed."""
    found: ModuleType
    if sys.version_info >= (3, 14):
        from compression import zstd as found  # type: ignore[import-not-found,unused-ignore]
    else:
        from backports import zstd as found
    return found
