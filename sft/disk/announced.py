"""What the folders that one connection has announced shall be like: modes when they are made, times at the end.

Rules: bounded in bytes, whatever the paths. When it is full, those that were announced first get their times early; not
those above the newest one, for their content is still on its way. It opens nothing.
"""

from sft.disk.folders import PathParts
from sft.disk.permissions import folder_bits

_ROOM = 8 << 20
_EACH = 240  # bytes of one without its path: two objects and its place in the table


class Announced:
    """By path; the last word on a path holds."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[int | None, int]] = {}
        self._size = 0

    def add(self, path: PathParts, mtime: int | None, mode: int | None) -> None:
        """That folder was announced; its mode counts when it is made from now on."""
        key = _key(path)
        if key not in self._known:
            self._size += len(key) + _EACH
        self._known[key] = mtime, folder_bits(mode)

    def bits_of(self, path: PathParts) -> int:
        """The mode to make that folder with."""
        return self._known.get(_key(path), (None, folder_bits(None)))[1]

    def take(self) -> list[tuple[PathParts, int]]:
        """All, with the times that are known; they are forgotten here."""
        self._size = 0
        known, self._known = self._known, {}
        return [(_path(key), mtime) for key, (mtime, _) in known.items() if mtime is not None]

    def take_early(self, newest: PathParts) -> list[tuple[PathParts, int]]:
        """Those that there is no room for any more, now that `newest` comes; mostly none."""
        if self._size <= _ROOM:
            return []
        above = {_key(newest[:depth]) for depth in range(1, len(newest))}
        first = [key for key in list(self._known)[: len(self._known) // 2] if key not in above]
        taken = [(key, self._known.pop(key)[0]) for key in first]
        self._size -= sum(len(key) + _EACH for key in first)
        return [(_path(key), mtime) for key, mtime in taken if mtime is not None]


def _key(path: PathParts) -> bytes:
    return "/".join(path).encode()


def _path(key: bytes) -> PathParts:
    return tuple(key.decode().split("/"))
