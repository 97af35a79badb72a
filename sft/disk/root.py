"""The root folder of a storage and its staging areas, as two open descriptors; opened anew when they are dead.

Rules: the two numbers stay the same for the life of the process, whatever they lead to, so users of them go on. They
are dead when nothing can be reached from them any more, or when the root's path does not lead to them: a disk was
unmounted or mounted anew, the folder was renamed, or put back from a backup. What has the root's path then is used only
if it can be the same storage: an empty folder on another disk may be the one that the storage should be mounted on.
"""

import contextlib
import errno
import os
from pathlib import Path

from crypto_utils import random_bytes
from sft.common.errors import Code, Refused, UsageError
from sft.common.flushing import flush
from sft.common.open_files import close
from sft.common.private_files import check_area
from sft.disk.durable import disk_errors
from sft.disk.folders import open_folder, state_of
from sft.disk.passing import SHORT
from sft.disk.staging import TRIAL

PARTIAL_AREA = ".partial"
_FLAGS = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_DIRECTORY", "O_CLOEXEC"))


class Root:
    """`descriptor` of the root and `staging` of the staging areas, open until `close`."""

    def __init__(self, path: Path) -> None:
        """Make the folders when they are missing. Raises UsageError when they can't be used."""
        self._path = path
        with contextlib.ExitStack() as opened:
            try:
                path.mkdir(parents=True, exist_ok=True)
                self.descriptor = os.open(path, _FLAGS)
                opened.callback(close, self.descriptor)
                self.staging = open_folder(self.descriptor, PARTIAL_AREA, create=0o700)
                opened.callback(close, self.staging)
                self._device = os.fstat(self.descriptor).st_dev
            except OSError as problem:
                raise _unusable(path, problem.strerror or str(problem)) from None
            except Refused as problem:
                raise _unusable(path, problem.cause) from None
            try:
                self.try_out()
            except OSError as problem:
                raise UsageError(
                    f"{path} can't hold what arrives ({problem.strerror})",
                    "Use a folder that can be written to, on a file system with hard links",
                ) from None
            opened.pop_all()

    def try_out(self) -> None:
        """Write, flush and link a file, as one that arrives; without hard links nothing could be published.

        Raises OSError.
        """
        one, two = (TRIAL + random_bytes(8).hex() for _ in range(2))
        place = self.staging
        try:
            descriptor = os.open(one, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=place)
            try:
                os.write(descriptor, one.encode())
                flush(descriptor)
            finally:
                close(descriptor)
            os.link(one, two, src_dir_fd=place, dst_dir_fd=place)
        finally:
            for name in (one, two):
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=place)

    def reopen_if_dead(self) -> bool:
        """Whether the descriptors were dead, and lead to what has the root's path now. For one thread at a time.

        Raises Refused (UNAVAILABLE) when they are dead and that can't be used.
        """
        if not self._is_dead():
            return False
        try:
            with disk_errors(), contextlib.ExitStack() as opened:
                self._reopen(opened)
        except Refused as problem:
            raise Refused(Code.UNAVAILABLE, why=f"{self._path}: {problem.why or problem.cause}") from None
        return True

    def _reopen(self, opened: contextlib.ExitStack) -> None:
        root = os.open(self._path, _FLAGS)
        opened.callback(close, root)
        device = os.fstat(root).st_dev
        if device != self._device and state_of(PARTIAL_AREA, root) is None:
            raise Refused(Code.UNAVAILABLE, why="it is on another disk than before; is the storage mounted?")
        staging = open_folder(root, PARTIAL_AREA, create=0o700)
        opened.callback(close, staging)
        check_area(self._path / PARTIAL_AREA)
        os.dup2(root, self.descriptor, inheritable=False)
        os.dup2(staging, self.staging, inheritable=False)
        self._device = device

    def has_moved(self) -> bool:
        """Whether the root's path leads nowhere or to another folder; False where that can't be found out."""
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self.descriptor))
        except OSError as problem:
            return problem.errno in (errno.ENOENT, errno.ENOTDIR)

    def _is_dead(self) -> bool:
        if self.has_moved():
            return True
        try:
            there = os.stat(PARTIAL_AREA, dir_fd=self.descriptor, follow_symlinks=False)
            return not os.path.samestat(there, os.fstat(self.staging))
        except OSError as problem:
            return problem.errno not in SHORT

    def close(self) -> None:
        """Give back the descriptors."""
        close(self.descriptor)
        close(self.staging)


def _unusable(path: Path, why: str) -> UsageError:
    return UsageError(f"can't use the storage folder {path} ({why})", "Repair it, or name another")
