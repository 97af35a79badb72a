"""Where a file has no bytes on the disk, or need not have any: holes, for reading and for writing.

Rules: a hole is worth the trouble from 64 KiB on; a smaller one is read and written like other zeros. Where the system
does not know about holes, a file has none.
"""

import errno
import os
import stat
from collections.abc import Iterator

from sft.common.zeros import ZEROS_SIZE, are_zeros

HOLE_LEAST = 64 * 1024
_BLOCK = 512  # of `st_blocks`
_SEEK_DATA, _SEEK_HOLE = getattr(os, "SEEK_DATA", -1), getattr(os, "SEEK_HOLE", -1)


def may_have_holes(state: os.stat_result) -> bool:
    """Whether the file has less on the disk than its size: only then is it worth asking where."""
    if _SEEK_DATA < 0 or not stat.S_ISREG(state.st_mode):
        return False
    return getattr(state, "st_blocks", state.st_size) * _BLOCK < state.st_size


def run_at(descriptor: int, at: int, size: int) -> tuple[int, bool]:
    """How many bytes from `at` on are of one kind, and whether that is a hole. Moves the descriptor's position.

    `size` is the file's. Holes that are too small count as content; of content no more than 1 MiB is looked through.
    Raises OSError.
    """
    start = _next_data(descriptor, at, size)
    if start - at >= HOLE_LEAST:
        return start - at, True
    end = at
    while end < size and end - at < ZEROS_SIZE:
        end = min(_seek(descriptor, start, _SEEK_HOLE, size), size)
        start = _next_data(descriptor, end, size)
        if start - end >= HOLE_LEAST:
            break
        end = start
    return end - at, False


def _next_data(descriptor: int, at: int, size: int) -> int:
    """Where content goes on from `at`; `size` where no more comes."""
    return min(_seek(descriptor, at, _SEEK_DATA, size), size) if at < size else size


def _seek(descriptor: int, at: int, what: int, size: int) -> int:
    if at >= size:
        return size
    try:
        return os.lseek(descriptor, at, what)
    except OSError as problem:
        if problem.errno == errno.ENXIO:  # nothing of the kind behind it
            return size
        if problem.errno in (errno.EINVAL, errno.ENOTSUP):  # this file system does not know
            return at if what == _SEEK_DATA else size
        raise


def without_holes(content: memoryview, at: int) -> Iterator[tuple[int, int]]:
    """The parts of `content` that must be written, as (start, end); what lies between them, and behind, is zero.

    `at` is its offset in the file: whole blocks of 64 KiB are left out, counted from the file's start.
    """
    start, size = 0, len(content)
    block = -at % HOLE_LEAST
    while block + HOLE_LEAST <= size:
        if not content[block] and are_zeros(content[block : block + HOLE_LEAST]):
            if start < block:
                yield start, block
            start = block + HOLE_LEAST
        block += HOLE_LEAST
    if start < size:
        yield start, size


def write_without_holes(descriptor: int, content: memoryview, at: int) -> None:
    """Write it at the offset `at`, where the file has nothing yet but a hole. Raises OSError."""
    for start, end in without_holes(content, at):
        while start < end:
            start += os.pwrite(descriptor, content[start:end], at + start)
