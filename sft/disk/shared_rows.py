"""Small numbers that several server processes share: tables of rows in one file of fixed size, under one lock.

    header | rows of the first table | rows of the second table | ...

A row begins with its key of 16 bytes, made of `hash_of`; all zeros: it is free. Each key belongs into one bucket of 16
rows. The hash has a key of its own in each file, so nobody outside can choose what shares a bucket.

Rules: where one machine has the file system for itself nothing is flushed: the numbers matter to processes that live,
and after a power cut older ones are as good. Where machines share it, `sft/disk/coherent.py` lets each see what the
others have written. A process that is killed leaves whole rows and no lock. Nobody waits longer than a second for other
threads and other processes together, so one that is stopped while it has the lock holds up nobody for good. What the
rows mean is not known here.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from crypto_utils import random_bytes
from sft.common.errors import UsageError
from sft.common.open_files import close
from sft.common.private_files import open_private
from sft.disk.coherent import forget_cached, hand_on

KEY_BYTES = 16
WAYS = 16  # rows of a bucket

_HEADER = struct.Struct("8s16s")
_HEADER_BYTES = 4096
_MAGIC = b"sft rows"
_LOCK_SECONDS = 1.0
_PAUSE = 0.001
_LOOK_SECONDS = 1.0  # so often it is looked whether the file is still the one of its name


class Shape(NamedTuple):
    """One table: how many buckets, and how many bytes a row has."""

    buckets: int
    row: int

    @property
    def size(self) -> int:
        """Bytes of the whole table."""
        return self.buckets * WAYS * self.row


class SharedRows:
    """One file of tables. Safe to use from several threads at once."""

    def __init__(self, path: Path, shapes: Sequence[Shape]) -> None:
        self._path, self._shapes = path, shapes
        self._starts = [_HEADER_BYTES + sum(each.size for each in shapes[:at]) for at in range(len(shapes))]
        self._size = _HEADER_BYTES + sum(each.size for each in shapes)
        self._lock = threading.Lock()  # guards the fields below, and is held while the file is locked
        self._file = -1
        self._looked_at = 0.0
        self._key = b""

    @contextlib.contextmanager
    def locked(self) -> Iterator["LockedRows"]:
        """The tables, as long as nobody else has them. Raises OSError, UsageError when they can't be had."""
        end = time.monotonic() + _LOCK_SECONDS
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            raise OSError(errno.ETIMEDOUT, "another login has waited for them for a second")
        try:
            try:
                self._open()
                self._take_lock(end)
                try:
                    self._read_header()
                    yield LockedRows(self._file, self._shapes, self._starts)
                    hand_on(self._file)
                finally:
                    fcntl.flock(self._file, fcntl.LOCK_UN)
            except (OSError, UsageError):
                self._close()  # a mount that is gone: the next one opens it anew
                raise
        finally:
            self._lock.release()

    def hash_of(self, *parts: bytes) -> bytes:
        """Eight bytes that stand for these; only under the lock, which has read the key."""
        hashed = hashlib.blake2b(key=self._key, digest_size=8)
        for part in parts:
            hashed.update(len(part).to_bytes(4, "big") + part)
        return hashed.digest()

    def close(self) -> None:
        """Close the file, which is opened again when it is needed."""
        with self._lock:
            self._close()

    def _open(self) -> None:
        now = time.monotonic()
        if self._file >= 0 and now - self._looked_at > _LOOK_SECONDS:
            self._looked_at = now
            if not self._has_its_name():
                self._close()
        if self._file < 0:
            self._file, self._looked_at = open_private(self._path, os.O_RDWR | os.O_CREAT), now

    def _has_its_name(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path, follow_symlinks=False), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        if self._file >= 0:
            with contextlib.suppress(OSError):
                close(self._file)
            self._file = -1

    def _take_lock(self, end: float) -> None:
        while True:
            try:
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise OSError(errno.ETIMEDOUT, "another process has them locked for a second") from None
                time.sleep(_PAUSE)

    def _read_header(self) -> None:
        """Read the key; a file that is new, or not one of ours, begins with one."""
        forget_cached(self._file)
        found = os.fstat(self._file)
        header = os.pread(self._file, _HEADER.size, 0)
        if len(header) == _HEADER.size and header.startswith(_MAGIC) and found.st_size == self._size:
            self._key = header[-16:]
            return
        self._key = random_bytes(16)
        os.ftruncate(self._file, 0)
        os.ftruncate(self._file, self._size)  # a hole: rows that nobody has used take no space
        os.pwrite(self._file, _HEADER.pack(_MAGIC, self._key), 0)


class LockedRows:
    """The tables while they are locked. Methods raise OSError."""

    def __init__(self, file: int, shapes: Sequence[Shape], starts: Sequence[int]) -> None:
        self._file, self._shapes, self._starts = file, shapes, starts

    def bucket(self, table: int, key: bytes) -> tuple[int, list[bytes]]:
        """The number of the first row of a key's bucket, and its rows."""
        shape = self._shapes[table]
        chosen = int.from_bytes(key[:8], "big") ^ int.from_bytes(key[8:], "big")
        first = chosen % shape.buckets * WAYS
        return first, self._read(table, first, WAYS)

    def all(self, table: int) -> Iterator[tuple[int, bytes]]:
        """Each row that is not free, with its number."""
        for bucket in range(self._shapes[table].buckets):
            for at, row in enumerate(self._read(table, bucket * WAYS, WAYS)):
                if any(row[:KEY_BYTES]):
                    yield bucket * WAYS + at, row

    def write(self, table: int, number: int, row: bytes) -> None:
        """Replace one row; an empty one frees it."""
        shape = self._shapes[table]
        os.pwrite(self._file, row.ljust(shape.row, b"\0"), self._starts[table] + number * shape.row)

    def _read(self, table: int, first: int, count: int) -> list[bytes]:
        shape = self._shapes[table]
        size = count * shape.row
        data = os.pread(self._file, size, self._starts[table] + first * shape.row).ljust(size, b"\0")
        return [data[at : at + shape.row] for at in range(0, size, shape.row)]
