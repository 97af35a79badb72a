"""The file in which the client keeps receipts, for --receipts.

Rules: it is the user's own file, and its lines stay whole: what follows a torn line begins a new one. A file that holds
something else is not touched. A line is handed to the system at once; `flush` brings all of them to the disk.
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from sft.common.errors import UsageError

_LONGEST_LINE = 1 << 16  # of a receipt: its two paths have 4,096 bytes each, and at most six characters for each
_FIELDS = {"name", "path", "size", "sha256"}
_BEGINNING = b'{"name": "'


class ReceiptsFile:
    """A file that lines are appended to."""

    def __init__(self, name: str) -> None:
        """Raises UsageError when it can't be opened."""
        self.name, path = name, Path(name)
        try:
            if not _may_hold_receipts(path):
                cause = f"can't write the receipts to {name}: it is there, and holds something else"
                raise UsageError(cause, "Name a new file, or one with receipts")
            self._file = path.open("a", encoding="utf-8")
        except OSError as problem:
            raise UsageError(f"can't write the receipts to {name} ({problem.strerror})", "Name another file") from None
        state = os.fstat(self._file.fileno())
        self.identity = state.st_dev, state.st_ino
        if _is_torn(path):  # by a kill, or a full disk
            self._file.write("\n")

    def append(self, *lines: str) -> None:
        """Write the lines, in one call. Raises OSError."""
        self._file.write("\n".join([*lines, ""]))
        self._file.flush()

    def flush(self) -> None:
        """Bring what was appended to the disk. Raises OSError."""
        from sft.common.flushing import flush_with_name  # not needed at a start

        flush_with_name(self._file)

    def close(self) -> None:
        """Close it, unflushed. Raises OSError."""
        self._file.close()


def check_apart(name: str, others: Iterable[str]) -> None:
    """Raises UsageError when receipts would be written to something that is sent, or fetched to."""
    with contextlib.suppress(OSError):  # without a current folder nothing can be written there
        if any(os.path.realpath(other) == os.path.realpath(name) and not os.path.isdir(other) for other in others):
            raise UsageError(f"--receipts {name} is also what is sent or fetched", "Name another file")


def _may_hold_receipts(path: Path) -> bool:
    """Whether receipts can be appended: there is nothing yet, or receipts, or a pipe or device. Raises OSError."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return True
    if not stat.S_ISREG(state.st_mode) or not state.st_size:
        return True
    with path.open("rb") as file:
        first = file.read(_LONGEST_LINE)
        file.seek(max(0, state.st_size - _LONGEST_LINE))
        last = file.read(_LONGEST_LINE)
    *whole, torn = first.split(b"\n")
    return any(map(_is_receipt, [*whole[:1], *last.rstrip(b"\n").split(b"\n")[-1:]])) or (
        not whole and torn.startswith(_BEGINNING)
    )


def _is_receipt(line: bytes) -> bool:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= _FIELDS


def _is_torn(path: Path) -> bool:
    """Whether the last line of a regular file has no end."""
    with contextlib.suppress(OSError):
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read() != b"\n"
    return False
