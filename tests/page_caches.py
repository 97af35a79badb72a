"""Machines that share a file system, in one process: each open file has a cache of its own, as a kernel elsewhere has.

What is read stays in the cache until `posix_fadvise` drops it; what is written reaches the disk at `fsync`. Only
ledgers and journals are cached: their machines meet there.
"""

import os
from pathlib import Path

import pytest

from sft.disk import coherent, journal
from sft.disk.journal import JOURNAL
from sft.disk.ledger import LEDGER


class PageCaches:
    """From now on."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self._pages: dict[int, bytes] = {}
        self._dirty: set[int] = set()
        self._real = {name: getattr(os, name) for name in ("pread", "pwrite", "fsync", "close")}
        for name in self._real:
            patched.setattr(os, name, getattr(self, name))
        patched.setattr(os, "posix_fadvise", self.advise)
        for module in (coherent, journal):
            patched.setattr(module, "may_be_shared", lambda descriptor: True)

    def _is_cached(self, descriptor: int) -> bool:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        return name == LEDGER or name.endswith(JOURNAL)

    def _read(self, descriptor: int) -> bytes:
        if descriptor not in self._pages:
            self._pages[descriptor] = self._real["pread"](descriptor, 1 << 20, 0)
        return self._pages[descriptor]

    def pread(self, descriptor: int, size: int, offset: int) -> bytes:
        if not self._is_cached(descriptor):
            return self._real["pread"](descriptor, size, offset)  # type: ignore[no-any-return]
        return self._read(descriptor)[offset : offset + size]

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        if not self._is_cached(descriptor):
            return self._real["pwrite"](descriptor, data, offset)  # type: ignore[no-any-return]
        before = self._read(descriptor).ljust(offset, b"\0")
        self._pages[descriptor] = before[:offset] + data + before[offset + len(data) :]
        self._dirty.add(descriptor)
        return len(data)

    def fsync(self, descriptor: int) -> None:
        if descriptor in self._dirty:
            self._dirty.discard(descriptor)
            self._real["pwrite"](descriptor, self._pages[descriptor], 0)
        self._real["fsync"](descriptor)

    def close(self, descriptor: int) -> None:
        self._pages.pop(descriptor, None)
        self._dirty.discard(descriptor)
        self._real["close"](descriptor)

    def advise(self, descriptor: int, offset: int, size: int, advice: int) -> None:
        if advice == os.POSIX_FADV_DONTNEED and descriptor not in self._dirty:
            self._pages.pop(descriptor, None)
