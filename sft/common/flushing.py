"""Flushing one open file or folder to the disk itself.

Rules: nothing counts as flushed before the system has reported success. Nothing is opened but the folder of a file that
was just appended to.
"""

import contextlib
import os
import stat
import sys
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows, where only sending works; `sft/disk/storage.py` says so
    fcntl = None  # type: ignore[assignment]


def flush(descriptor: int) -> None:
    """Flush an open file or folder to the disk. Raises OSError."""
    if sys.platform == "darwin":  # there fsync leaves the bytes in the drive's own memory
        with contextlib.suppress(OSError):  # a file system that does not know the stronger one
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def flush_folder(path: str | os.PathLike[str]) -> None:
    """Flush the names in a folder, where the system can. Raises OSError."""
    if sys.platform != "win32":
        folder = os.open(path, os.O_RDONLY)
        try:
            flush(folder)
        finally:
            os.close(folder)


def flush_with_name(file: TextIO) -> None:
    """Flush a regular file that was appended to, and its folder, since its name may be new. Raises OSError."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        flush(file.fileno())
        flush_folder(os.path.dirname(file.name) or ".")
