"""A small file on its way: in memory until it is whole and verified, then on the disk without a name, then published.

Rules: nobody resumes it, so it has no journal and no lock. Memory is bounded by what one connection may hold; what is
over that goes to the disk at once. A file without a name is gone with its descriptor, so a crash leaves nothing. Only
where the system can link such a file (Linux; `PartialArea.open_unnamed`).
"""

import contextlib
import os

from crypto_utils import random_bytes
from sft.common.errors import Refused
from sft.disk.durable import disk_errors, refusal, set_time
from sft.disk.parents import Parent, fit
from sft.disk.partials import Incoming, Partial, PartialArea, link_unnamed, lock

_MOST_HELD = 2 << 20


class Held:
    """How many bytes of small files one connection has in memory."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Small(Partial):
    """The bytes of one small file."""

    # What most of them never change.
    sha256: bytes | None = None
    kept: list[int] = []
    resumable = compared = has_name = is_shared = False
    has_time = True
    refusal: Refused | None = None
    hold = before = found = None
    _journal_descriptor = -1
    _temporary = ""

    def __init__(self, area: PartialArea, incoming: Incoming, held: Held) -> None:
        # Not the other one's beginning: there are ten thousand of these in a second, and they need none of it.
        self._area, self.incoming, self._held = area, incoming, held
        self.size = 0
        self._content = b""
        self._descriptor = -1

    def write(self, content: memoryview) -> None:
        """Append `content`. Raises Refused."""
        self.size += len(content)
        if self._descriptor < 0 and self._held.count + len(content) <= _MOST_HELD:
            self._held.count += len(content)
            self._content += content
            return
        if self.refusal is not None:
            raise self.refusal
        with disk_errors():
            self._to_disk()
            _write_all(self._descriptor, content)

    def _to_disk(self) -> None:
        if self._descriptor < 0:
            self._descriptor = self._area.open_unnamed(self.incoming.path)
        content, self._content = self._content, b""
        self._held.count -= len(content)
        if content:
            _write_all(self._descriptor, content)

    def finish(self, bits: int, parent: Parent | None = None) -> int:
        """Put it on the disk, with mode and time; its descriptor, to be flushed. Raises Refused."""
        try:
            if parent is None or self._descriptor >= 0:
                self._to_disk()
                fit(self._descriptor, bits, parent)
            else:
                self._descriptor = parent.make(bits)
                self._to_disk()
            descriptor = self._descriptor
            self.has_time = set_time(descriptor, self.incoming.mtime)
        except OSError as problem:
            raise refusal(problem) from problem
        return descriptor

    def link(self, name: str, folder: int) -> None:
        """Make it visible as `name` in `folder`, which never replaces. Raises FileExistsError and other OSError."""
        link_unnamed(self._descriptor, name, folder)

    def rename(self, name: str, folder: int) -> None:
        """Make it visible as `name` in `folder`, in place of the file that may be there. Raises OSError."""
        area = self._area
        lock(self._descriptor)
        self._temporary = f"small-{random_bytes(16).hex()}"  # only a name can take another's place
        self.link(self._temporary, area.folder)
        os.replace(self._temporary, name, src_dir_fd=area.folder, dst_dir_fd=folder)
        self._temporary = ""

    def is_same_file(self, other: os.stat_result) -> bool:
        """Whether `other` is this very file: never, for it was published by nobody else."""
        return False

    def discard(self) -> None:
        """Give back what it holds; a published file stays visible. It may be called again."""
        self.close()

    def _close(self) -> None:
        self._held.count -= len(self._content)
        self._content = b""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                os.close(descriptor)
            except OSError:
                pass
        if self._temporary:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._area.folder)
            self._temporary = ""

    def keep(self) -> bool:
        """The connection has ended: nobody comes back for a small file."""
        self.discard()
        return False


def _write_all(descriptor: int, content: memoryview | bytes) -> None:
    while (count := os.write(descriptor, content)) < len(content):
        content = content[count:]
