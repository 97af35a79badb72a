"""Symbolic links on their way in: made under their name in one step, and never followed.

    link-<hex>        in the staging area, for a moment, while it takes the place of another thing

Rules: what a link says is written as it came, and is no path to anything here. There is nothing to flush but the folder
that it gets into. A crash leaves nothing but that hidden name, which is swept.
"""

import contextlib
import errno
import os
import stat
from contextlib import AbstractContextManager

from crypto_utils import digest, random_bytes
from sft.common.errors import Code, Refused
from sft.common.private_files import HIDDEN_LINK
from sft.disk.decisions import Existing
from sft.disk.folders import existing_of
from sft.disk.parents import Parent
from sft.disk.reservations import NOT_RESERVED, Reservation
from sft.disk.staging import StagingArea
from sft.disk.temporary import Incoming

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # of a disk that has none, such as FAT


class Link:
    """One link; does what `sft.disk.temporary.Unpublished` lists, as a file without content."""

    def __init__(self, area: StagingArea, incoming: Incoming, target: str) -> None:
        self.incoming = incoming
        self.size = 0
        self.sha256: bytes | None = digest(
            b"link\0" + target.encode()
        )  # for this end alone; no file of that size has it
        self.is_different = False
        self.reservation: Reservation = NOT_RESERVED
        self.refusal: Refused | None = None
        self.has_time = self.is_finished = True
        self.descriptor = -1
        self._area, self._target = area, target

    def existing(self, there: os.stat_result | None, name: str, folder: int) -> Existing:
        """What has that name in an open folder: the same is a link with the same target. Raises OSError."""
        if there is None or not stat.S_ISLNK(there.st_mode):
            return existing_of(there, None)
        with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
            if os.readlink(os.fsencode(name), dir_fd=folder) == self._target.encode():
                return Existing.SAME
        return Existing.OTHER

    def link(self, name: str, folder: int) -> None:
        self._make(name, folder)

    def rename(self, name: str, folder: int) -> None:
        hidden = HIDDEN_LINK + random_bytes(16).hex()
        self._make(hidden, self._area.folder)
        try:
            os.replace(hidden, name, src_dir_fd=self._area.folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(hidden, dir_fd=self._area.folder)
            raise

    def _make(self, name: str, folder: int) -> None:
        """Raises FileExistsError, other OSError, Refused."""
        try:
            os.symlink(self._target.encode(), os.fsencode(name), dir_fd=folder)
        except OSError as problem:
            if problem.errno not in _NO_LINKS:
                raise
            raise Refused(Code.STORAGE, why="its disk has no symbolic links") from None
        if (mtime := self.incoming.mtime) is not None:
            try:
                os.utime(name, ns=(mtime, mtime), dir_fd=folder, follow_symlinks=False)
            except (OSError, OverflowError, NotImplementedError):  # not every disk keeps times of links
                self.has_time = False

    def finish(self, bits: int, parent: Parent | None = None) -> int:
        return self.descriptor

    def publishing(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def is_same_file(self, other: os.stat_result) -> bool:
        return False

    def discard(self) -> None:
        reservation, self.reservation = self.reservation, NOT_RESERVED
        if reservation is not NOT_RESERVED:
            with contextlib.suppress(OSError), reservation.ending():
                reservation.end(None)

    def keep(self) -> bool:
        self.discard()
        return False
