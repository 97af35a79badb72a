"""Text to the standard streams: all of it, or an error; and what stands for those that are closed.

Rules: a stream that does not block is waited for, so that everything arrives however slowly it is read. An error is
raised here, and reported by `sft/console/screen.py`. It escapes nothing.
"""

import contextlib
import errno
import os
import select
from collections.abc import Callable
from typing import TextIO


def fill_closed_streams() -> None:
    """Take the numbers of standard streams that were closed when we were started, or the next file opened gets one.

    It would be read as standard input, or errors would be written into it. A program that uses one of them still fails.
    """
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):  # there is nothing to fill it with
                os.open(os.devnull, flags)  # the lowest number that is free


def write_all(stream: TextIO | None, text: str) -> None:
    """Write `text`, and what others have left in the stream's buffer. Raises OSError."""
    if stream is None:  # closed before we were started
        raise OSError(errno.EBADF, "it is closed")
    encoding = stream.encoding or "utf-8"
    content = text.encode(encoding, "backslashreplace")
    try:
        descriptor = _descriptor_of(stream)
        if descriptor is None:
            stream.write(content.decode(encoding))
            stream.flush()
            return
        while not _is_done(stream.flush, descriptor):
            pass
    except ValueError:
        raise OSError(errno.EBADF, "it is closed") from None
    left = memoryview(content)

    def write() -> None:
        nonlocal left
        left = left[os.write(descriptor, left) :]

    while left:
        _is_done(write, descriptor)


def _descriptor_of(stream: TextIO) -> int | None:
    """None where only the stream itself may write: a stream of a test, or Windows, whose console has its own ways."""
    if os.name == "nt":
        return None
    with contextlib.suppress(OSError):
        return stream.fileno()
    return None


def _is_done(write: Callable[[], None], descriptor: int) -> bool:
    """Whether it was written; if not, return when the descriptor takes more."""
    try:
        write()
    except BlockingIOError:
        select.select([], [descriptor], [])
        return False
    return True
