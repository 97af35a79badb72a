"""What was delivered in the last day, by transfer id and path: a lost receipt is repeated, instead of the file.

    receipts          "receipts" and a random number, which changes when older lines are dropped; then one line each:
                      key, time, path asked for, path, size, SHA-256

The key is a hash of the transfer id and the path asked for, because one transfer id may stand for many files.

Rules: nothing depends on it. A line that is torn, too old or gone costs a second copy of a file, no more; so does a
file that is not ours alone, which is neither read nor written. A process reads each line once, however often the file
grows. The caller passes the descriptor of the folder; no path is walked here.
"""

import contextlib
import json
import os
import re
import threading
import time
from pathlib import Path
from typing import NamedTuple

from crypto_utils import digest, random_bytes
from sft.common.errors import UsageError
from sft.common.names import PathParts
from sft.common.open_files import close
from sft.common.private_files import open_private
from sft.disk.coherent import forget_cached

try:
    import fcntl
except ImportError:  # Windows, where only sending works; `sft/disk/storage.py` reports it
    fcntl = None  # type: ignore[assignment]

RECEIPTS = "receipts"
_KEPT_SECONDS = 24 * 3600
_PRUNED_AT = 4 << 20
_LONGEST = 128 << 10  # bytes of a line: two paths of 4 KiB, each byte of them escaped
_WHAT = "the receipts of a user"
_HEAD = re.compile(rb"receipts [0-9a-f]{32}\n")
_HEAD_SIZE = 42
_KEY_SIZE = 32  # hex digits


Asked = tuple[bytes, PathParts]  # transfer id, and the path asked for


class Delivery(NamedTuple):
    """One file that was delivered: asked for under one path, published under perhaps another."""

    transfer: bytes
    asked: PathParts
    path: PathParts
    size: int
    sha256: bytes


class ReceiptIndex:
    """Where in the file the lines are, as far as it was read. All connections of a user may share one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._head = b""
        self._size = 0
        self._places: dict[bytes, int] = {}

    def read_on(self, descriptor: int) -> None:
        """Note where the lines are that were not read yet. Raises OSError."""
        forget_cached(descriptor)
        head = os.pread(descriptor, _HEAD_SIZE, 0)
        if head != self._head or os.fstat(descriptor).st_size < self._size:
            self._head, self._size, self._places = head, _HEAD_SIZE, {}
        if not _HEAD.fullmatch(head):
            return
        while piece := os.pread(descriptor, _PRUNED_AT, self._size):
            start = 0
            while (end := piece.find(b"\n", start)) >= 0:
                if end > start:
                    self._places[piece[start + 2 : start + 2 + _KEY_SIZE]] = self._size + start
                start = end + 1
            self._size += start
            if not start:  # a torn line, so far
                break

    def place_of(self, key: str) -> int | None:
        """Where the last line with that key begins."""
        return self._places.get(key.encode())


class Receipts:
    """One user's receipts, in the folder of a descriptor."""

    def __init__(self, folder: int, index: ReceiptIndex | None = None) -> None:
        self._folder, self._index = folder, index or ReceiptIndex()

    def remember(self, done: list[Delivery]) -> None:
        """Keep them for a day, if possible."""
        with contextlib.suppress(OSError, UsageError):
            if done:
                self._append(done)

    def _append(self, done: list[Delivery]) -> None:
        now = int(time.time())
        lines = [
            json.dumps([_key(each.transfer, each.asked), now, each.asked, each.path, each.size, each.sha256.hex()])
            for each in done
        ]
        descriptor = open_private(Path(RECEIPTS), os.O_RDWR | os.O_CREAT | os.O_APPEND, _WHAT, self._folder)
        with contextlib.closing(os.fdopen(descriptor, "r+b", 0)) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            head = b""
            if os.fstat(descriptor).st_size > _PRUNED_AT or not _HEAD.fullmatch(os.pread(descriptor, _HEAD_SIZE, 0)):
                lines = [*_newest([line for line in _lines(descriptor) if _is_young(line, now)]), *lines]
                head = f"receipts {random_bytes(16).hex()}\n".encode()
                file.truncate(0)
            text = memoryview(head + "\n".join(["", *lines, ""]).encode())  # behind a torn line, a new one
            while text:
                text = text[os.write(descriptor, text) :]

    def find(self, transfer: bytes, asked: PathParts) -> Delivery | None:
        """What that transfer to that path has delivered; None when that is not known any more."""
        return self.find_all([(transfer, asked)])[0]

    def find_all(self, wanted: list[Asked]) -> list[Delivery | None]:
        """The same for many, in one look."""
        try:
            descriptor = open_private(Path(RECEIPTS), os.O_RDONLY, _WHAT, self._folder)
        except (OSError, UsageError):
            return [None] * len(wanted)
        try:
            with self._index.lock:
                self._index.read_on(descriptor)
                places = [self._index.place_of(_key(*asked)) for asked in wanted]
            return [
                None if place is None else _at(place, descriptor, asked)
                for place, asked in zip(places, wanted, strict=True)
            ]
        except OSError:
            return [None] * len(wanted)
        finally:
            close(descriptor)


def _key(transfer: bytes, asked: PathParts) -> str:
    return digest(transfer + "/".join(asked).encode()).hex()[:_KEY_SIZE]


def _at(place: int, descriptor: int, asked: Asked) -> Delivery | None:
    """The delivery of the line there, if it is that of `asked`. Raises OSError."""
    line = os.pread(descriptor, _LONGEST, place).split(b"\n", 1)[0]
    found = _read(line.decode("ascii", "replace"), asked[0])
    return found if found is not None and found[:2] == asked else None


def _read(line: str, transfer: bytes) -> Delivery | None:
    """The delivery of a line; None when it is torn, damaged, too old, or of another transfer."""
    if not line or not _is_young(line, int(time.time())):
        return None
    try:
        key, _, asked, path, size, sha256 = json.loads(line)
        found = Delivery(transfer, tuple(asked), tuple(path), size, bytes.fromhex(sha256))
    except (ValueError, TypeError):
        return None
    are_paths = all(type(each) is list and each and all(type(part) is str for part in each) for each in (asked, path))
    is_whole = are_paths and type(size) is int and size >= 0
    return found if is_whole and key == _key(transfer, found.asked) else None


def _lines(descriptor: int) -> list[str]:
    pieces, at = [], 0
    while piece := os.pread(descriptor, _PRUNED_AT, at):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces).decode("ascii", "replace").splitlines()


def _newest(lines: list[str]) -> list[str]:
    """The last of them, as many as fill half of what is allowed."""
    left = _PRUNED_AT // 2
    for count, line in enumerate(reversed(lines)):
        left -= len(line) + 1
        if left < 0:
            return lines[len(lines) - count :]
    return lines


def _is_young(line: str, now: int) -> bool:
    try:
        written = json.loads(line)[1]
        return type(written) is int and now - written < _KEPT_SECONDS
    except (ValueError, TypeError, LookupError, RecursionError):
        return False
