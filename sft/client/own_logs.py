"""The files of this program's own log, which are never sent.

Rules: they are known by device and inode, whatever path leads to them.
"""

import glob
import stat
from pathlib import Path


def files_of_log(place: Path | None) -> set[tuple[int, int]]:
    """Device and inode of the log at `place` and of those that were rotated away."""
    if place is None:
        return set()
    found = (identity_of_file(path) for path in (place, *place.parent.glob(glob.escape(place.name) + ".*")))
    return {identity for identity in found if identity is not None}


def identity_of_file(path: Path) -> tuple[int, int] | None:
    """Device and inode of a regular file; None when there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return (state.st_dev, state.st_ino) if stat.S_ISREG(state.st_mode) else None
