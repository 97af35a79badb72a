"""Folders that new files are made in, or for, so that each file has its folder's group and ACL from the start.

Rules: for a folder that is missing the nearest one above stands: what it gives to a new folder, that one passes on. A
file is made in its folder if that is on the same file system as the staging area, because the file is flushed and
linked there; else it is made in the staging area, and fitted.
"""

import os

from sft.common.open_files import close
from sft.disk.permissions import give_as_made_in, has_default_acl

# Also the cheapest way on ext4: 45 to 53 us of CPU for a file of 4 KiB, flushed 256 at a time. With a hidden name that
# is linked and removed, or renamed, it is 60 to 77.
ANONYMOUS = getattr(os, "O_TMPFILE", 0) if os.path.isdir("/proc/self/fd") else 0


def open_anonymous(folder: int, bits: int = 0o600) -> int:
    """A new file without a name in an open folder, which is gone with its descriptor. Raises OSError."""
    return os.open(".", os.O_RDWR | os.O_CLOEXEC | ANONYMOUS, bits, dir_fd=folder)


class Parent:
    """One folder that is open as long as this."""

    def __init__(self, descriptor: int, area: int, umask: int | None) -> None:
        """Takes over the descriptor. `area`: the staging area. `umask` None: modes are exact. Raises OSError."""
        self.descriptor, self._area, self._umask = descriptor, area, umask
        self._is_beside = os.fstat(descriptor).st_dev == os.fstat(area).st_dev
        self._is_exact = umask is not None or has_default_acl(descriptor)

    def make(self, bits: int) -> int:
        """A new file without a name, with what this folder gives one that is made with `bits`. Raises OSError."""
        if self._is_beside:
            try:
                descriptor = open_anonymous(self.descriptor, bits)
            except PermissionError:  # giving it a name fails, and is reported
                pass
            else:
                if not self._is_exact:
                    os.fchmod(descriptor, bits)
                return descriptor
        descriptor = open_anonymous(self._area)
        try:
            self.fit(descriptor, bits)
        except BaseException:
            close(descriptor)
            raise
        return descriptor

    def fit(self, descriptor: int, bits: int) -> None:
        """Give the same to a file that was made elsewhere, or for its owner alone. Raises OSError."""
        give_as_made_in(self.descriptor, descriptor, bits, self._umask or 0)

    def close(self) -> None:
        """Close the folder."""
        close(self.descriptor)


def fit(descriptor: int, bits: int, parent: Parent | None) -> None:
    """Give a file what `parent` gives one that is made with `bits`; those bits where none is known. Raises OSError."""
    if parent is None:
        os.fchmod(descriptor, bits)
    else:
        parent.fit(descriptor, bits)
