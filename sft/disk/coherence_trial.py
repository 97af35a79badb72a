"""Whether processes that use one storage see each other's locks and writes; without that no quota holds.

Rules: tried at a server's start, between it and a child of it, before it has threads. One mount can't show how long
another machine's kernel keeps what it has read (docs/OPERATIONS.md has what to set). What is made is removed again;
what a start that was killed has left is removed by a later one.
"""

import contextlib
import os
import time
from collections.abc import Callable

from crypto_utils import random_bytes
from sft.common.open_files import close
from sft.disk.coherent import forget_cached, hand_on
from sft.disk.staging import TRIAL

try:
    import fcntl
except ImportError:  # Windows, where only sending works; `sft/disk/storage.py` reports it
    fcntl = None  # type: ignore[assignment]

_FIRST, _SECOND = b"first", b"answer"
_TRIAL_SECONDS = 60.0  # a file is locked just after it was made
_SEEN, _NO_LOCK, _NO_WRITE = 0, 1, 2
_WHY = {
    _NO_LOCK: "a lock that one process has keeps no other from taking it",
    _NO_WRITE: "one process does not see what another has written",
}
_UNKNOWN = "a process that uses it has failed"


def why_incoherent(folder: int) -> str:
    """Why quotas can't be kept in the open folder; empty when nothing speaks against it. Raises OSError."""
    _sweep(folder)
    name = TRIAL + random_bytes(8).hex()
    with contextlib.ExitStack() as opened:
        ours = _open(name, folder, os.O_CREAT | os.O_EXCL)
        opened.callback(close, ours)
        opened.callback(_remove, name, folder)
        fcntl.flock(ours, fcntl.LOCK_EX)
        _write(ours, _FIRST)
        if (status := _run(lambda: _second_process(name, folder))) != _SEEN:
            return _WHY.get(status, _UNKNOWN)
        return "" if _read(ours) == _SECOND else _WHY[_NO_WRITE]


def _sweep(folder: int) -> None:
    """Remove the files of trials that have ended; one that goes on is locked, or was just made."""
    for name in os.listdir(folder):
        if name.startswith(TRIAL):
            with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
                found = _open(name, folder)
                opened.callback(close, found)
                fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(found).st_mtime > _TRIAL_SECONDS:
                    os.unlink(name, dir_fd=folder)


def _second_process(name: str, folder: int) -> int:
    """What the child finds while the parent has the lock."""
    theirs = _open(name, folder)
    try:
        fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _NO_LOCK
    except BlockingIOError:
        pass
    if _read(theirs) != _FIRST:
        return _NO_WRITE
    _write(theirs, _SECOND)
    return _SEEN


def _run(work: Callable[[], int]) -> int:
    """The exit status of a child that does it."""
    child = os.fork()
    if not child:
        status = -1
        with contextlib.suppress(BaseException):
            status = work()
        os._exit(status & 0xFF)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _open(name: str, folder: int, more: int = 0) -> int:
    return os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | more, 0o600, dir_fd=folder)


def _write(descriptor: int, text: bytes) -> None:
    os.pwrite(descriptor, text, 0)
    hand_on(descriptor)


def _read(descriptor: int) -> bytes:
    forget_cached(descriptor)
    return os.pread(descriptor, 100, 0)


def _remove(name: str, folder: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)
