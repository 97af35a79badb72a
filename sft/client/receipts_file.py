"""The file in which the client keeps receipts, for --receipts.

Rules: it is the user's own file, and its lines stay whole: what follows a torn line begins a new one. A line is handed
to the system at once; `flush` brings all of them to the disk.
"""

import contextlib
import os
from pathlib import Path

from sft.common.errors import UsageError


class ReceiptsFile:
    """A file that lines are appended to."""

    def __init__(self, name: str) -> None:
        """Raises UsageError when it can't be opened."""
        self.name, path = name, Path(name)
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as problem:
            raise UsageError(f"can't write the receipts to {name} ({problem.strerror})", "Name another file") from None
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


def _is_torn(path: Path) -> bool:
    """Whether the last line of a regular file has no end."""
    with contextlib.suppress(OSError):
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read() != b"\n"
    return False
