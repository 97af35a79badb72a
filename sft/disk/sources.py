"""Files and standard input, read to be sent; a file that changes meanwhile is noticed.

Rules: only regular files are sent, and standard input; a FIFO or device is an error before it can block. A file is sent
as it was when it was opened: when its size or time differs afterwards, the transfer of that file fails instead of
mixing two states. One that has grown, such as a log, is sent as far as it went then, if that is still the same when it
is read again. Some file systems report a wrong size (/proc, /sys, some of FUSE); that shows at the end of the
content. Holes are not read. Standard input is read as it comes, once.
"""

import errno
import os
import stat
from typing import Protocol

from sft.common.errors import Code, SourceError
from sft.common.open_files import close
from sft.disk.holes import may_have_holes, run_at
from sft.disk.passing import PASSING_ERRORS

PERMISSIONS = 0o777
MAX_RUN = (1 << 63) - 1  # bytes of one kind: to the end, wherever that is
OPEN_FLAGS = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_BINARY", "O_NONBLOCK", "O_CLOEXEC"))


class Source(Protocol):
    """Something to read from its start. `size` and `mtime` (ns) are None for a pipe."""

    size: int | None
    mtime: int | None
    mode: int | None
    is_grown: bool  # so was found by `read_small`

    def read_into(self, view: memoryview) -> int:
        """Fill as much of `view` as there still is; less than its size only at the end. Raises SourceError."""

    def read_small(self, size: int) -> bytes:
        """All of it at once, and closed, of a file that says to have `size` bytes; more or fewer if it has such.

        Of one that has grown, as many as it had; `is_grown` says so. Raises SourceError, also when it has changed.
        """

    def run(self) -> tuple[int, bool]:
        """How many bytes of one kind come next, and whether they are a hole, whose zeros need not be read.

        Raises SourceError.
        """

    def go_to(self, offset: int) -> None:
        """Go on at `offset`. Raises SourceError."""

    def skip(self, count: int) -> None:
        """Leave out so many bytes of a hole. Raises SourceError."""

    def check_unchanged(self) -> None:
        """Raises SourceError when it is not as it was when it was opened."""

    def has_grown(self) -> bool:
        """Whether it has more bytes than when it was opened. Raises SourceError when it has changed otherwise."""

    def as_stream(self) -> None:
        """Forget its size, which is not that of its content: it ends where reading ends."""

    def close(self) -> None:
        """Close it."""


class FileSource:
    """An open regular file and its state at that moment: `size` in bytes, `mtime` in ns, `mode` as permission bits."""

    def __init__(self, name: str, descriptor: int) -> None:
        """Takes over the descriptor. Raises SourceError for anything but a regular file."""
        self._name = name
        try:
            state = os.fstat(descriptor)
        except OSError as problem:
            close(descriptor)
            raise unreadable(name, problem) from None
        if not stat.S_ISREG(state.st_mode):
            close(descriptor)
            kind = "a folder" if stat.S_ISDIR(state.st_mode) else "not a regular file"
            raise SourceError(f"{name} is {kind}", "Only files and folders can be sent")
        self._descriptor, self._at_opening = descriptor, state
        self.size: int | None = state.st_size
        self.mtime: int | None = state.st_mtime_ns
        self.mode: int | None = state.st_mode & PERMISSIONS
        self._at = 0  # where reading goes on
        self._run = (0, False)  # where what comes now ends, and whether it is a hole
        self.is_grown = False

    @property
    def identity(self) -> tuple[int, int]:
        """Its device and inode."""
        return self._at_opening.st_dev, self._at_opening.st_ino

    def read_into(self, view: memoryview) -> int:
        try:
            count = read_fully(self._descriptor, view)
        except OSError as problem:
            raise unreadable(self._name, problem) from None
        self._at += count
        return count

    def run(self) -> tuple[int, bool]:
        if self.size is None or not may_have_holes(self._at_opening):
            return MAX_RUN, False
        end, is_hole = self._run
        if not self._at < end:
            try:
                count, is_hole = run_at(self._descriptor, self._at, self.size)
                os.lseek(self._descriptor, self._at, os.SEEK_SET)
            except OSError as problem:
                raise unreadable(self._name, problem) from None
            end = self._at + count
            self._run = end, is_hole
        return end - self._at, is_hole

    def read_small(self, size: int) -> bytes:
        try:
            content = os.read(self._descriptor, size + 1)
            while len(content) < size and (more := os.read(self._descriptor, size + 1 - len(content))):
                content += more
            self.is_grown = self.has_grown()
            if self.is_grown:
                content = content[:size]
                if os.pread(self._descriptor, size, 0) != content:
                    raise changed(self._name)
            return content
        except OSError as problem:
            raise unreadable(self._name, problem) from None
        finally:
            self.close()

    def go_to(self, offset: int) -> None:
        try:
            self._at = os.lseek(self._descriptor, offset, os.SEEK_SET)
        except OSError as problem:
            raise unreadable(self._name, problem) from None
        self._run = (0, False)

    def skip(self, count: int) -> None:
        try:
            self._at = os.lseek(self._descriptor, count, os.SEEK_CUR)
        except OSError as problem:
            raise unreadable(self._name, problem) from None

    def check_unchanged(self) -> None:
        if self.has_grown():
            raise changed(self._name)

    def has_grown(self) -> bool:
        try:
            now = os.fstat(self._descriptor)
        except OSError as problem:
            raise unreadable(self._name, problem) from None
        before = self._at_opening
        if now.st_size > before.st_size:
            return True
        if now.st_mtime_ns != before.st_mtime_ns or now.st_size != before.st_size:
            raise changed(self._name)
        return False

    def as_stream(self) -> None:
        self.size = None

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            close(descriptor)


class PipeSource:
    """A stream of unknown length, such as standard input. It can be read once."""

    def __init__(self, descriptor: int) -> None:
        """Raises SourceError for a folder, or when it is closed."""
        try:
            if hasattr(os, "set_blocking"):
                os.set_blocking(descriptor, True)  # else a pause of the writer would look like the end
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise IsADirectoryError
        except OSError as problem:
            raise unreadable("standard input", problem) from None
        self._descriptor = descriptor
        self.size: int | None = None
        self.mtime: int | None = None
        self.mode: int | None = None
        self.begun = self.is_grown = False

    def read_into(self, view: memoryview) -> int:
        self.begun = True
        try:
            return read_fully(self._descriptor, view)
        except OSError as problem:
            raise unreadable("standard input", problem) from None

    def read_small(self, size: int) -> bytes:
        raise NotImplementedError

    def run(self) -> tuple[int, bool]:
        return MAX_RUN, False

    def skip(self, count: int) -> None:
        raise NotImplementedError

    def go_to(self, offset: int) -> None:
        if offset or self.begun:
            raise SourceError("standard input can't be read again", "Start the whole command again")

    def check_unchanged(self) -> None:
        pass

    def has_grown(self) -> bool:
        return False

    def as_stream(self) -> None:
        pass

    def close(self) -> None:
        pass


def read_fully(descriptor: int, view: memoryview) -> int:
    """Fill `view`; less than its size only at the end. Raises OSError."""
    got = 0
    while got < len(view) and (count := _read_some(descriptor, view[got:])):
        got += count
    return got


if hasattr(os, "readv"):

    def _read_some(descriptor: int, view: memoryview) -> int:
        return os.readv(descriptor, [view])

else:  # Windows

    def _read_some(descriptor: int, view: memoryview) -> int:
        content = os.read(descriptor, len(view))
        view[: len(content)] = content
        return len(content)


def changed(name: str) -> SourceError:
    """The error for a file that changed while it was sent."""
    return SourceError(
        f"{name} changed while it was read", "Send it again when no program writes to it", code=Code.CHANGED
    )


def unreadable(name: str, problem: OSError) -> SourceError:
    """The error for something that can't be read."""
    if isinstance(problem, FileNotFoundError | NotADirectoryError):
        return SourceError(f"{name} does not exist", "Check its name", name)
    if isinstance(problem, IsADirectoryError):
        return SourceError(f"{name} is a folder", "Only files can be read", name)
    if isinstance(problem, PermissionError):
        return SourceError(f"{name} can't be read: permission denied", "Ask for the right to read it", name)
    code = Code.UNAVAILABLE if problem.errno in PASSING_ERRORS else Code.UNREADABLE
    remedy = "Check its links" if problem.errno == errno.ELOOP else "Check the disk that it is on"
    return SourceError(f"{name} can't be read ({problem.strerror})", remedy, name, code)
