"""Files that are never resumed: small files, and pipes, whose size is not known.

    (in memory)       a small file until it is whole and verified, as far as its connection's share of memory allows
    (no name)         then, and a pipe from its first byte, a file that is gone with its descriptor
    small-<hex>       for a moment, while it takes the place of another file: only a name can do that; and from the
                      first byte on, mode 0600, where the system can't link files without a name

Rules: they have no journal, no offers and no other owner. A crash leaves nothing but a file with a name, which is
swept. Bytes that no longer fit into memory go to the disk at once.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from crypto_utils import new_digest, random_bytes
from sft.common.errors import Code, Refused
from sft.common.open_files import close
from sft.common.zeros import zeros
from sft.disk.coherent import links_of
from sft.disk.durable import disk_errors, set_time
from sft.disk.parents import Parent
from sft.disk.reservations import NOT_RESERVED, Reservation
from sft.disk.staging import SMALL, StagingArea, hide_anonymous, link_anonymous
from sft.disk.temporary import Incoming

_MOST_IN_MEMORY = 2 << 20  # bytes of one connection
_MOST_TRIES = 10
_NOTHING_TO_GUARD: AbstractContextManager[None] = contextlib.nullcontext()


class AnonymousFiles:
    """Makes the anonymous files of one connection."""

    def __init__(self, area: StagingArea) -> None:
        self.area = area
        self.in_memory = 0  # bytes of all of them

    def begin(self, incoming: Incoming, most: int) -> "AnonymousFile":
        """A file of at most `most` bytes. It takes nothing of the disk before its first byte gets there."""
        return AnonymousFile(self, incoming, most)


class AnonymousFile:
    """One small file, or what comes out of a pipe; does what `sft.disk.temporary.TemporaryFile` lists."""

    def __init__(self, files: AnonymousFiles, incoming: Incoming, most: int) -> None:
        self.incoming = incoming
        self.size = 0
        self.sha256: bytes | None = None
        self.offers: list[int] = []
        self.is_shared = False
        self.reservation: Reservation = NOT_RESERVED
        self.refusal: Refused | None = None
        self.is_different = False
        self.has_time = True
        self.is_finished = False
        self.descriptor = -1
        self._files, self._area, self._most = files, files.area, most
        self._may_be_in_memory = incoming.size is not None and files.area.has_anonymous
        self._content = b""
        self._name = ""  # while it has one in the staging area

    def write(self, content: memoryview) -> None:
        size = self.size + len(content)
        if size > self._most:
            raise Refused(Code.TOO_LARGE)
        if self._may_be_in_memory and self._files.in_memory + len(content) <= _MOST_IN_MEMORY:
            self._files.in_memory += len(content)
            self._content += content
        else:
            self._write_to_disk(content, size)
        self.size = size

    def write_zeros(self, count: int) -> None:
        size = self.size + count
        if self._may_be_in_memory or size > self._most:
            self.write(zeros(count))
            return
        with disk_errors():
            self._go_to_disk(size)
            os.ftruncate(self.descriptor, size)  # a hole: there is no other owner whose bytes it could cut off
            os.lseek(self.descriptor, size, os.SEEK_SET)
        self.size = size

    def _write_to_disk(self, content: memoryview, size: int) -> None:
        with disk_errors():
            self._go_to_disk(size)
            _write_all(self.descriptor, content)

    def _go_to_disk(self, size: int) -> None:
        """Let it be on the disk, with space for `size` bytes. Raises Refused, OSError."""
        if self.refusal is not None:
            raise self.refusal
        if self.descriptor < 0:
            self._open()
        if size > self.reservation.covered:
            self.reservation.cover(size)
        self._leave_memory()

    def _leave_memory(self) -> None:
        self._may_be_in_memory = False
        content, self._content = self._content, b""
        self._files.in_memory -= len(content)
        if content:
            _write_all(self.descriptor, content)

    def _open(self) -> None:
        """Raises Refused, OSError."""
        area = self._area
        if area.has_anonymous:
            self.descriptor = area.open_anonymous(self.incoming.path)
            return
        for _ in range(_MOST_TRIES):
            name = f"{SMALL}{random_bytes(16).hex()}"
            descriptor, is_locked = area.create(name, self.incoming.path)
            try:
                is_there = links_of(descriptor) > 0
            except BaseException:
                close(descriptor)
                raise
            if is_locked and is_there:
                self.descriptor, self._name = descriptor, name
                return
            close(descriptor)  # it was swept before it was locked
        raise Refused(Code.BUSY)

    def finish(self, bits: int, parent: Parent | None = None) -> int:
        with disk_errors():
            if self.descriptor < 0 and parent is not None and self._area.has_anonymous:
                self.descriptor = parent.make(bits)
                self._leave_memory()
                self.has_time = set_time(self.descriptor, self.incoming.mtime)
            else:
                if self.descriptor < 0:
                    self._open()
                self._leave_memory()
                self.has_time = self._area.fit(self.descriptor, bits, parent, self.incoming.mtime)
        self.is_finished = True
        return self.descriptor

    def publishing(self) -> AbstractContextManager[None]:
        return _NOTHING_TO_GUARD

    def link(self, name: str, folder: int) -> None:
        if not self._name:
            link_anonymous(self.descriptor, name, folder)
        elif not self._area.link(self._name, name, folder):
            self._name = ""

    def rename(self, name: str, folder: int) -> None:
        if not self._name:
            self._name = hide_anonymous(self.descriptor, self._area.folder)
        os.replace(self._name, name, src_dir_fd=self._area.folder, dst_dir_fd=folder)
        self._name = ""

    def is_same_file(self, other: os.stat_result) -> bool:
        return os.path.samestat(os.fstat(self.descriptor), other)

    def digest_of_kept(self, size: int, goes_on: Callable[[], bool]) -> "hashlib._Hash":
        return new_digest()

    def resume_from(self, offset: int) -> None:
        if offset:
            raise Refused(Code.UNSUPPORTED)

    def discard(self) -> None:
        reservation, self.reservation = self.reservation, NOT_RESERVED
        if reservation is NOT_RESERVED:
            self._close()
            return
        with contextlib.suppress(OSError), reservation.ending():
            self._close()
            reservation.end(None)

    def keep(self) -> bool:
        self.discard()
        return False

    def _close(self) -> None:
        self._files.in_memory -= len(self._content)
        self._content = b""
        if self._name:
            with contextlib.suppress(OSError):
                os.unlink(self._name, dir_fd=self._area.folder)
            self._name = ""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            close(descriptor)


def _write_all(descriptor: int, content: memoryview | bytes) -> None:
    while (count := os.write(descriptor, content)) < len(content):
        content = content[count:]
