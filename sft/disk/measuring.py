"""Counting what lies below a folder, in steps that each read one folder, at any size and depth.

Rules: from one open folder to the next, never through a link. Memory and descriptors are bounded: of the folders in a
folder only the next names are kept, in the order of their bytes, and it is read again for those behind them. What
can't be opened is left out, and so is what vanishes meanwhile. Where a folder is moved or removed while it is counted,
the walk goes on from the nearest folder above that is still where it was.
"""

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from sft.common.errors import Refused
from sft.disk.amounts import NOTHING, Amount
from sft.disk.folders import as_seen
from sft.disk.walking import Place

_MOST_NAMES, _LEAST_NAMES = 8192, 16  # of folders that wait, at all depths together, and at each
_CHECK_EVERY = 1000  # names


@dataclass(slots=True)
class _Level:
    """A folder that is being counted: names of folders in it that come next, the last one first, and what is behind."""

    name: str = ""
    length: int = 0  # in bytes, of its path, with a slash behind each name
    folders: list[str] = field(default_factory=list)
    last: bytes | None = None  # of the names that were read before
    has_more: bool = True


class Measuring:
    """`amount` is what was counted so far; call `step` as long as there is more. Use it in a `with`.

    `depth`: how many names the deepest path below the folder has; `longest`: bytes of the longest, each name with a
    slash. Links count for these two.
    """

    def __init__(self, folder: int, least: int, check: Callable[[], None]) -> None:
        """`folder` is open, and stays the caller's; each thing counts as `least` bytes at least. Raises OSError."""
        self._folder, self._least, self._check = folder, least, check
        self._place = Place(folder)
        self._levels = [_Level()]
        self._waiting = 0  # names of folders, at all depths together
        self.amount = NOTHING
        self.depth = self.longest = 0

    def __enter__(self) -> "Measuring":
        return self

    def __exit__(self, *_: object) -> None:
        self._place.close()

    @property
    def has_more(self) -> bool:
        """Whether there is another step."""
        return bool(self._levels)

    def step(self) -> None:
        """Read one folder, and go to the next. Raises OSError."""
        level = self._levels[-1]
        if level.has_more and not level.folders:
            self._read(level)
        while self._levels and not level.folders and not level.has_more:
            self._levels.pop()
            if self._levels:
                self._go_up()
                level = self._levels[-1]
        if level.folders:
            name = level.folders.pop()
            self._waiting -= 1
            with contextlib.suppress(Refused, PermissionError):
                self._place.enter(name)
                self._levels.append(_Level(name, level.length + len(os.fsencode(name)) + 1))

    def _go_up(self) -> None:
        """To the last level; where its folder is elsewhere by now, to the nearest one above it that is not."""
        with contextlib.suppress(Refused, PermissionError):
            self._place.leave()
            return
        again = Place(self._folder)
        self._place.close()
        self._place = again
        for depth, level in enumerate(self._levels[1:], 1):
            try:
                self._place.enter(level.name)
            except (Refused, PermissionError):
                self._waiting -= sum(len(lost.folders) for lost in self._levels[depth:])
                del self._levels[depth:]
                return

    def _read(self, level: _Level) -> None:
        """Count what is in the folder, the first time; the next names of folders."""
        names: list[bytes] = []
        most = max((_MOST_NAMES - self._waiting) // 2, _LEAST_NAMES)
        size = count = longest = 0
        with os.scandir(self._place.descriptor) as entries:
            for number, entry in enumerate(entries):
                if number % _CHECK_EVERY == 0:
                    self._check()
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    if level.last is None:
                        longest = max(longest, len(os.fsencode(entry.name)) + 1)
                        state = entry.stat(follow_symlinks=False)
                        seen = as_seen((entry.name,), state)
                        if seen is None and not stat.S_ISLNK(state.st_mode):
                            continue
                        size, count = size + max(seen.size if seen else 0, self._least), count + 1
                    if entry.is_dir(follow_symlinks=False) and (name := os.fsencode(entry.name)) > (level.last or b""):
                        names.append(name)
                        if len(names) > 2 * most:
                            names = sorted(names)[: most + 1]
        self.amount += Amount(size, count)
        if longest:
            self.depth, self.longest = max(self.depth, len(self._levels)), max(self.longest, level.length + longest)
        names.sort()
        level.has_more = len(names) > most
        level.folders = [os.fsdecode(name) for name in reversed(names[:most])]
        level.last = names[:most][-1] if names else b""

        self._waiting += len(level.folders)


def measure(folder: int, least: int = 0) -> Amount:
    """All that lies below an open folder, each file and folder as `least` bytes at least. Raises OSError."""
    with Measuring(folder, least, lambda: None) as measuring:
        while measuring.has_more:
            measuring.step()
        return measuring.amount
