"""What was published lately, by transfer id: a receipt that was lost is repeated, instead of the file.

    receipts          one line each: time, transfer id, path, size, SHA-256

Rules: a convenience, and treated so. A line that is torn, too old or gone costs a second copy of a file, no more; so
does a file that is not ours alone, which is neither read nor written. The
descriptor of the folder comes from the caller; this room walks no path.
"""

import contextlib
import json
import os
import time
from pathlib import Path

from disk.private import open_private
from errors import UsageError

try:
    import fcntl
except ImportError:  # Windows, where only sending works; `disk/storage.py` says so
    fcntl = None  # type: ignore[assignment]

RECEIPTS = "receipts"
_KEPT_SECONDS = 24 * 3600
_PRUNED_AT = 4 << 20
_WHAT = "the receipts of a user"

# Transfer id, path, size, SHA-256.
Receipt = tuple[bytes, tuple[str, ...], int, bytes]


class Receipts:
    """One user's receipts, in the folder of a descriptor."""

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._known: dict[str, str] = {}
        self._known_as: tuple[int, int, int] | None = None

    def remember(self, done: list[Receipt]) -> None:
        """Keep them for a day, if that can be."""
        with contextlib.suppress(OSError, UsageError):
            if done:
                self._append(done)

    def _append(self, done: list[Receipt]) -> None:
        now = int(time.time())
        lines = [
            json.dumps([now, transfer.hex(), path, size, sha256.hex()], ensure_ascii=True)
            for transfer, path, size, sha256 in done
        ]
        descriptor = open_private(Path(RECEIPTS), os.O_RDWR | os.O_CREAT | os.O_APPEND, _WHAT, self._folder)
        with contextlib.closing(os.fdopen(descriptor, "r+b", 0)) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_size > _PRUNED_AT:
                lines = [*_newest([line for line in _lines(file.fileno()) if _is_young(line, now)]), *lines]
                file.truncate(0)
            text = memoryview("\n".join(["", *lines, ""]).encode())  # behind a torn line, a new one
            while text:
                text = text[os.write(file.fileno(), text) :]

    def find(self, transfer: bytes) -> Receipt | None:
        """The receipt of that transfer, if it is not too old."""
        try:
            descriptor = open_private(Path(RECEIPTS), os.O_RDONLY, _WHAT, self._folder)
        except (OSError, UsageError):
            return None
        try:
            state = os.fstat(descriptor)
            if self._known_as != (state.st_ino, state.st_size, state.st_mtime_ns):
                parts = [(line.split('"', 2), line) for line in _lines(descriptor)]
                self._known = {part[1]: line for part, line in parts if len(part) == 3}
                self._known_as = (state.st_ino, state.st_size, state.st_mtime_ns)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        line = self._known.get(transfer.hex())
        if line is None or not _is_young(line, int(time.time())):
            return None
        try:
            _, _, path, size, sha256 = json.loads(line)
            found = transfer, tuple(path), size, bytes.fromhex(sha256)
        except (ValueError, TypeError):
            return None
        fair = type(path) is list and path and all(type(part) is str for part in path)
        return found if fair and type(size) is int and size >= 0 else None


def _lines(descriptor: int) -> list[str]:
    pieces, at = [], 0
    while piece := os.pread(descriptor, _PRUNED_AT, at):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces).decode("ascii", "replace").splitlines()


def _newest(lines: list[str]) -> list[str]:
    """The last of them, as many as fill half of what is allowed."""
    room = _PRUNED_AT // 2
    for count, line in enumerate(reversed(lines)):
        room -= len(line) + 1
        if room < 0:
            return lines[len(lines) - count :]
    return lines


def _is_young(line: str, now: int) -> bool:
    try:
        written = json.loads(line)[0]
        return type(written) is int and now - written < _KEPT_SECONDS
    except (ValueError, TypeError, LookupError, RecursionError):
        return False
