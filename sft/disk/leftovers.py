"""What lies in a user's partial area and is held by nobody: what a connection or a process that died has left.

Rules: whoever holds a file holds a `flock` on it, or is known to this process; what can be locked is held by nobody,
and as long as it is locked its name stays. Nothing but files that can be opened is removed. Descriptors come from the
caller; this room walks no path.
"""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from sft.disk.passing import PASSING

try:
    import fcntl
except ImportError:  # Windows, where only sending works; `sft/disk/storage.py` says so
    fcntl = None  # type: ignore[assignment]

JOURNAL = ".journal"
_AGAIN = PASSING | {errno.ENOSPC}  # worth another try
TRIAL = "try-"  # begins the name of an empty file that only shows what the file system can do


class Hold(Protocol):
    """What is reserved of a quota for one file; `sft.disk.ledger.Hold` is one."""

    def grow(self, size: int) -> None: ...
    def published(self, size: int) -> None: ...
    def end(self, close: Callable[[], int | None]) -> None: ...


class Holder(Protocol):
    """Who has bytes on their way; `sft.disk.partials.Partial` is one."""

    name: str
    hold: Hold | None

    def lose(self) -> None: ...


class Leftovers:
    """The files of one partial area, by key: the bytes, and the journal beside them."""

    # Which transfer holds a key, for file systems whose locks belong to the process: by the folder's device and inode.
    _holders: "dict[tuple[int, int, str], Holder]" = {}
    _holders_lock = threading.Lock()

    def __init__(self, folder: int) -> None:
        self.folder = folder
        state = os.fstat(folder)
        self._place = (state.st_dev, state.st_ino)

    def hold(self, partial: "Holder") -> "Holder | None":
        """Make `partial` the holder of its key; who was it before."""
        slot = (*self._place, partial.name)
        with self._holders_lock:
            before = self._holders.get(slot)
            self._holders[slot] = partial
            return before

    def holder(self, name: str) -> "Holder | None":
        """Who holds that key in this process; None when nobody does."""
        with self._holders_lock:
            return self._holders.get((*self._place, name))

    def release(self, partial: "Holder") -> None:
        """`partial` holds its key no more."""
        slot = (*self._place, partial.name)
        with self._holders_lock:
            if self._holders.get(slot) is partial:
                del self._holders[slot]

    def sweep(self, older_than: float, spared: frozenset[str] = frozenset()) -> int:
        """Remove what nobody holds: bytes that can't be resumed, and others `older_than` that many seconds.

        Raises OSError when the system could not tell of some, such as without a free descriptor.
        """
        removed, problem = 0, None
        for key in self._keys(spared):
            try:
                removed += self.remove_unheld(key, older_than)
            except (BlockingIOError, PermissionError, FileNotFoundError):  # held, not ours, or gone meanwhile
                continue
            except OSError as found:
                problem = problem or (found if found.errno in _AGAIN else None)
        if problem is not None:
            raise problem
        return removed

    def _keys(self, spared: frozenset[str]) -> list[str]:
        return sorted({name.removesuffix(JOURNAL) for name in os.listdir(self.folder)} - spared)

    def unheld(self, spared: frozenset[str]) -> Iterator[int]:
        """The size of each file that nobody holds, and nobody has published. Raises OSError when it can't be told."""
        for key in self._keys(spared):
            with contextlib.suppress(BlockingIOError, PermissionError), contextlib.ExitStack() as opened:
                if self.holder(key) is None and not key.startswith(TRIAL):
                    state = self._locked(key, opened)
                    if state is not None and state.st_nlink == 1:
                        yield state.st_size

    def remove_unheld(self, key: str, older_than: float = 0) -> bool:
        """Remove what is there of a key, unless it can be resumed and is younger. BlockingIOError when it is held."""
        if self.holder(key) is not None:
            raise BlockingIOError
        with contextlib.ExitStack() as opened:
            journal = self._locked(key + JOURNAL, opened)
            state = self._locked(key, opened)
            if state is not None and journal is not None and state.st_nlink == 1:
                age = time.time() - max(state.st_mtime, journal.st_mtime)
                if age < older_than:
                    return False
            for name, there in ((key, state), (key + JOURNAL, journal)):
                if there is not None:
                    os.unlink(name, dir_fd=self.folder)
            return state is not None

    def _locked(self, name: str, opened: contextlib.ExitStack) -> os.stat_result | None:
        """Lock a file, until `opened` ends; None when there is none. As long as it is locked, its name stays."""
        flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            try:
                descriptor = os.open(name, os.O_RDWR | flags, dir_fd=self.folder)
            except PermissionError:  # a finished one; reading is enough for a lock, but not on every network's disk
                descriptor = os.open(name, os.O_RDONLY | flags, dir_fd=self.folder)
            opened.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            state = os.fstat(descriptor)
            if os.path.samestat(state, os.stat(name, dir_fd=self.folder, follow_symlinks=False)):
                return state
        except FileNotFoundError:
            return None
        raise BlockingIOError  # another one of that name, just made
