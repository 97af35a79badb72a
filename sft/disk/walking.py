"""A place in a tree of folders, from which it goes down and up again: one open folder, however deep the tree is.

Rules: down by a name in the open folder, never through a link. Up by `..`, which must be the folder that it came down
from: where another connection has moved a folder meanwhile, the walk ends. Names come from the disk or were judged
before (`sft/common/names.py`).
"""

import os

from sft.common.errors import Code, Refused
from sft.common.open_files import close
from sft.disk.folders import open_folder

_UP = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC"))


class Place:
    """One folder at a time; `descriptor` is it. Use it as a context manager, or `close` it."""

    def __init__(self, folder: int) -> None:
        """Begin in an open folder, which stays the caller's. Raises OSError."""
        self.descriptor = os.dup(folder)
        self._above: list[tuple[int, int]] = []  # device and inode of each folder that it came through

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def enter(self, name: str) -> None:
        """Go down. Raises Refused (LINK, NOT_FOLDER, NOT_FOUND), OSError; it stays where it is then."""
        below = open_folder(self.descriptor, name)
        self._above.append(_identity(self.descriptor))
        self._go(below)

    def leave(self) -> None:
        """Go up. Raises Refused (BUSY) when the folder is somewhere else by now, OSError."""
        try:
            above = os.open("..", _UP, dir_fd=self.descriptor)
        except FileNotFoundError:
            raise Refused(Code.BUSY, why="a folder was removed meanwhile") from None
        if _identity(above) != self._above[-1]:
            close(above)
            raise Refused(Code.BUSY, why="a folder was moved meanwhile")
        self._above.pop()
        self._go(above)

    def _go(self, descriptor: int) -> None:
        before, self.descriptor = self.descriptor, descriptor
        close(before)

    def close(self) -> None:
        """Close the folder that it is in."""
        close(self.descriptor)


def _identity(folder: int) -> tuple[int, int]:
    state = os.fstat(folder)
    return state.st_dev, state.st_ino
