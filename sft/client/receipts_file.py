"""The file in which the client keeps receipts, for --receipts: opened to be appended to.

Rules: it is the user's own file, and its lines stay whole: what comes behind a torn one begins a new one.
"""

import contextlib
import os
from pathlib import Path
from typing import TextIO

from sft.common.errors import UsageError


def open_receipts(path: Path) -> TextIO:
    """The file of kept receipts, to append lines to. Raises UsageError."""
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as problem:
        raise UsageError(f"can't write the receipts to {path} ({problem.strerror})", "Name another file") from None
    if _is_torn(path):  # by a kill, or a full disk: what comes now is a line of its own
        file.write("\n")
    return file


def _is_torn(path: Path) -> bool:
    """Whether the last line of a regular file has no end."""
    with contextlib.suppress(OSError):
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read() != b"\n"
    return False
