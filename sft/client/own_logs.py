"""This program's own files, which are never sent: its log, the receipts, and what an interrupted fetch has left.

Rules: the first two are known by device and inode, whatever path leads to them.
"""

import glob
import stat
from pathlib import Path

from sft.common.names import LOCAL_PARTIAL_AREA
from sft.disk.tree import Files, Found


class OwnFiles:
    """Those of one run."""

    def __init__(self, logs: set[tuple[int, int]]) -> None:
        """`logs`: device and inode of each of the log's files."""
        self._known = dict.fromkeys(logs, "this program's own log")

    def add(self, identity: tuple[int, int], what: str) -> None:
        """One more, which is `what`."""
        self._known[identity] = what

    def what(self, identity: tuple[int, int]) -> str | None:
        """What that file is; None for one that is not ours."""
        return self._known.get(identity)

    def has(self, found: Found) -> bool:
        """Whether something that was found below a source is not sent."""
        is_known = not found.is_folder and bool(found.parts) and found.identity in self._known
        return is_known or LOCAL_PARTIAL_AREA in found.parts

    def has_none(self, files: Files) -> bool:
        """Whether all of these are sent."""
        is_known = any(device == files.device and inode in files.inodes for device, inode in self._known)
        return not is_known and LOCAL_PARTIAL_AREA not in (*files.folder, *[line[1] for line in files.lines])


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
