"""The locks around a ledger: which processes use the storage, and no publishing during a count.

    .holder-<hex>     beside the users' staging areas: one file per process that has reserved anything, locked (flock)
                      as long as the process lives

Rules: a lock file that can be locked belongs to a process that has died, and is removed. Descriptors of folders come
from the caller. These classes read and write no ledger.
"""

import contextlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator

from sft.common.open_files import close
from sft.disk.coherent import links_of

try:
    import fcntl
except ImportError:  # Windows, where only sending works; `sft/disk/storage.py` reports it
    fcntl = None  # type: ignore[assignment]

PROCESS_NAME = re.compile(r"\.holder-[0-9a-f]{16}")
_LONGEST_TURN = 0.25  # seconds, after which no other thread joins those that publish


class Processes:
    """The processes that use one storage, by their lock files in one folder."""

    def __init__(self, folder: int) -> None:
        """Makes no file yet. `folder` stays the caller's."""
        self._folder = folder
        self._ours: tuple[str, int] | None = None
        self._lock = threading.Lock()

    def our_name(self) -> str:
        """The name of this process, locked until `close`; the file is made at the first call. Raises OSError."""
        with self._lock:
            while self._ours is None:
                name = f".holder-{secrets.token_hex(8)}"
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(name, flags, 0o600, dir_fd=self._folder)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                    is_there = links_of(descriptor) > 0
                except BaseException:
                    close(descriptor)
                    raise
                if is_there:
                    self._ours = name, descriptor
                else:  # another process took it for a dead one's before it was locked
                    close(descriptor)
            return self._ours[0]

    def our_name_if_any(self) -> str | None:
        """The name of this process; None when it has none yet."""
        return None if self._ours is None else self._ours[0]

    def is_alive(self, name: str) -> bool:
        """Whether that process holds its lock. The file of a dead process is removed. Raises OSError."""
        if name == self.our_name_if_any():
            return True
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._folder)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)
            return False
        except BlockingIOError:
            return True
        except FileNotFoundError:  # ceph-fuse says so of an open file that another machine has removed
            return False
        finally:
            close(descriptor)

    def sweep(self) -> None:
        """Remove the files of dead processes. Raises OSError."""
        for name in filter(PROCESS_NAME.fullmatch, os.listdir(self._folder)):
            self.is_alive(name)

    def close(self) -> None:
        """Remove the file of this process, which has nothing reserved any more."""
        with self._lock:
            if self._ours is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._ours[0], dir_fd=self._folder)
                close(self._ours[1])
                self._ours = None


class Gate:
    """Any number of threads and processes may publish at once, but none while one counts what is on the disk.

    The threads of one process share one lock of the file. They release it now and then, because a process that counts
    would otherwise wait as long as this one is busy.
    """

    def __init__(self, descriptor: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`descriptor`: the lock file, which stays the caller's."""
        self._descriptor, self._clock = descriptor, clock
        self._turn_ends = 0.0
        self._changed = threading.Condition()
        self._inside = 0
        self._counting = False
        self._thread = threading.local()

    @contextlib.contextmanager
    def moving(self) -> Iterator[bool]:
        """Around whatever begins, publishes, keeps or removes files. May be nested; true for the outermost.

        Raises OSError.
        """
        if getattr(self._thread, "inside", False):
            yield False
            return
        with self._changed:
            while self._counting or (self._inside and self._clock() >= self._turn_ends):
                self._changed.wait()
            if not self._inside:
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)
                self._turn_ends = self._clock() + _LONGEST_TURN
            self._inside += 1
        self._thread.inside = True
        try:
            yield True
        finally:
            self._thread.inside = False
            with self._changed:
                self._inside -= 1
                if not self._inside:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)
                    self._changed.notify_all()

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Around counting. Never inside `moving`. Raises OSError."""
        with self._changed:
            while self._counting:
                self._changed.wait()
            self._counting = True  # from now on no thread enters `moving`
            while self._inside:
                self._changed.wait()
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            with self._changed:
                self._counting = False
                self._changed.notify_all()
