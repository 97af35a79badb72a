"""The folders that a group of files is going to, so that each file has its folder's group and ACL from the start.

Rules: a folder that is missing is not made for it: the nearest one above says the same, because what it gives to a new
folder that one gives on. It must be on the file system of what is on its way, which is flushed at once and where names
are given; else the file is made there, and fitted. A few are open at a time.
"""

import contextlib
import os
from collections.abc import Callable
from types import TracebackType

from sft.disk.durable import disk_errors
from sft.disk.folders import PathParts
from sft.disk.permissions import give_as_made_in, has_default_acl

UNNAMED = getattr(os, "O_TMPFILE", 0) if os.path.isdir("/proc/self/fd") else 0
_MOST_OPEN = 4  # files of one folder mostly come together


def open_unnamed(folder: int, bits: int = 0o600) -> int:
    """A new file without a name in an open folder, which is gone with its descriptor. Raises OSError."""
    return os.open(".", os.O_RDWR | os.O_CLOEXEC | UNNAMED, bits, dir_fd=folder)


class Parent:
    """One open folder. `area`: the folder of what is on its way. `umask` None: the bits are as they are said to be."""

    def __init__(self, descriptor: int, area: int, umask: int | None) -> None:
        """Raises OSError."""
        self.descriptor, self._area, self._umask = descriptor, area, umask
        self._is_beside = os.fstat(descriptor).st_dev == os.fstat(area).st_dev
        self._is_exact = umask is not None or has_default_acl(descriptor)

    def make(self, bits: int) -> int:
        """A new file without a name, with what this folder gives one that is made with `bits`. Raises OSError."""
        if self._is_beside:
            with contextlib.suppress(PermissionError):  # giving it a name will say so
                descriptor = open_unnamed(self.descriptor, bits)
                if not self._is_exact:
                    os.fchmod(descriptor, bits)
                return descriptor
        descriptor = open_unnamed(self._area)
        try:
            self.fit(descriptor, bits)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def fit(self, descriptor: int, bits: int) -> None:
        """Give the same to a file that was made elsewhere, or for its owner alone. Raises OSError."""
        give_as_made_in(self.descriptor, descriptor, bits, self._umask or 0)


def fit(descriptor: int, bits: int, parent: Parent | None) -> None:
    """Give a file what `parent` gives one that is made with `bits`; those bits where none is known. Raises OSError."""
    if parent is None:
        os.fchmod(descriptor, bits)
    else:
        parent.fit(descriptor, bits)


class Parents:
    """Of one group. They are open until it ends."""

    def __init__(self, nearest: Callable[[PathParts], int], area: int, umask: int | None) -> None:
        """`nearest(path)`: a new descriptor of that folder, or of the nearest one above it that is there."""
        self._nearest, self._area, self._umask = nearest, area, umask
        self._open: dict[PathParts, Parent] = {}

    def of(self, path: PathParts) -> Parent:
        """The folder `path`. Raises Refused."""
        parent = self._open.get(path)
        return self._look(path) if parent is None else parent

    def _look(self, path: PathParts) -> Parent:
        if len(self._open) >= _MOST_OPEN:
            self.close()
        with disk_errors():
            descriptor = self._nearest(path)
            try:
                parent = self._open[path] = Parent(descriptor, self._area, self._umask)
            except BaseException:
                os.close(descriptor)
                raise
        return parent

    def close(self) -> None:
        """Give back the descriptors."""
        opened, self._open = self._open, {}
        for parent in opened.values():
            os.close(parent.descriptor)

    def __enter__(self) -> "Parents":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
