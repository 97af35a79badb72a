"""A user's staging area: the folder of temporary files, and what owners that have ended left there.

    small-<hex>       the bytes of a temporary file
    <key>.<attempt>   those of one that can be resumed
    <key>.journal     beside them (`sft/disk/journal.py`)
    try-<hex>         empty, for a moment: what the file system can do is found out with it
    link-<hex>        a received symbolic link, for a moment (`sft/disk/links.py`)

Rules: an owner keeps a `flock` on its file, or is known to this process. If a lock can be taken, no live process owns
the file; while we hold it, its name is not removed. Only files that can be opened are removed. The caller passes the
descriptor of the folder; no path is walked here.
"""

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from crypto_utils import random_bytes
from sft.common.open_files import close
from sft.common.private_files import HIDDEN_LINK
from sft.disk.coherent import links_of
from sft.disk.durable import set_time
from sft.disk.folders import PathParts
from sft.disk.journal import JOURNAL, Journal, key_of, name_of_bytes
from sft.disk.moving import link_or_move
from sft.disk.parents import ANONYMOUS, Parent, fit, open_anonymous
from sft.disk.passing import PASSING_ERRORS
from sft.disk.reservations import Reservation
from sft.disk.visible_files import VisibleFiles

try:
    import fcntl
except ImportError:  # Windows, where only sending works; `sft/disk/storage.py` reports it
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None
TRIAL, SMALL = "try-", "small-"
PRIVATE = 0o600
CREATE_FLAGS = os.O_RDWR | sum(getattr(os, flag, 0) for flag in ("O_CREAT", "O_EXCL", "O_NOFOLLOW", "O_CLOEXEC"))
_LINK_SECONDS = 60.0  # a hidden link is replaced in the next system call
_AGAIN = PASSING_ERRORS | {errno.ENOSPC}  # errors after which sweeping is worth another try


def lock(descriptor: int) -> bool:
    """Lock an open file until it is closed; whether no other descriptor has it locked."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def link_anonymous(descriptor: int, name: str, folder: int) -> None:
    """Give a file without a name one in `folder`, never in place of a file. Raises FileExistsError, other OSError."""
    os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=folder, follow_symlinks=True)


def hide_anonymous(descriptor: int, staging: int) -> str:
    """Give an open file without a name one in the open staging area, to be renamed from there; the name.

    It has to stay until then: a file that has lost its only name can't get another one.
    """
    lock(descriptor)
    name = f"{SMALL}{random_bytes(16).hex()}"
    link_anonymous(descriptor, name, staging)
    return name


class Owner(Protocol):
    """The connection that writes a partial file; `sft.disk.partials.PartialFile` is one."""

    name: str
    reservation: Reservation

    def lose(self) -> None: ...


class StagingArea:
    """The temporary files in the folder of a descriptor. Safe to use from several threads."""

    # The owner of each key in this process, for file systems whose locks belong to the process: by the folder's device
    # and inode.
    _owners: dict[tuple[int, int, str], Owner] = {}
    _owners_lock = threading.Lock()

    def __init__(
        self, folder: int, visible: VisibleFiles | None = None, may_move: bool = False, keeps_modes: bool = True
    ) -> None:
        """`visible`: where the files will be published.

        `may_move`: the file system may have no hard links. `keeps_modes`: it knows owners and modes.
        """
        self.folder, self.may_move, self.keeps_modes = folder, may_move, keeps_modes
        self._visible = visible
        state = os.fstat(folder)
        self._place = (state.st_dev, state.st_ino)
        self._has_anonymous: bool | None = None if ANONYMOUS else False

    # --- owners ---

    def set_owner(self, owner: Owner) -> Owner | None:
        """Make it the owner of its key; which one was it before."""
        slot = (*self._place, owner.name)
        with self._owners_lock:
            before = self._owners.get(slot)
            self._owners[slot] = owner
            return before

    def owner_of(self, key: str) -> Owner | None:
        """The owner of a key in this process."""
        with self._owners_lock:
            return self._owners.get((*self._place, key))

    def release(self, owner: Owner) -> None:
        """It owns its key no more, if it ever did."""
        slot = (*self._place, owner.name)
        with self._owners_lock:
            if self._owners.get(slot) is owner:
                del self._owners[slot]

    # --- files without a name ---

    @property
    def has_anonymous(self) -> bool:
        """Whether files without a name can be made here, and be given one: found out once, by trying."""
        if self._has_anonymous is None:
            self._has_anonymous = self._try_anonymous()
        return self._has_anonymous

    def _try_anonymous(self) -> bool:
        name = TRIAL + random_bytes(8).hex()
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            descriptor = open_anonymous(self.folder)
            opened.callback(close, descriptor)
            link_anonymous(descriptor, name, self.folder)
            os.unlink(name, dir_fd=self.folder)
            return True
        return False

    def open_anonymous(self, path: PathParts) -> int:
        """A new file without a name, with the group of the folder where `path` will be published.

        Only where `has_anonymous`. Raises OSError, Refused.
        """
        if self._visible is not None:
            folder = self._visible.nearest(path[:-1])
            try:
                if os.fstat(folder).st_dev == self._place[0]:
                    with contextlib.suppress(PermissionError):
                        return open_anonymous(folder)
            finally:
                close(folder)
        return open_anonymous(self.folder)

    def create(self, name: str, path: PathParts) -> tuple[int, bool]:
        """A new file with that name here, to be published as `path`; and whether we could lock it.

        Raises FileExistsError, other OSError, Refused.
        """
        is_anonymous = self.has_anonymous
        if is_anonymous:
            descriptor = self.open_anonymous(path)
        else:
            descriptor = os.open(name, CREATE_FLAGS, PRIVATE, dir_fd=self.folder)
        try:
            is_locked = lock(descriptor)
            if is_anonymous:
                link_anonymous(descriptor, name, self.folder)
        except BaseException:
            close(descriptor)
            raise
        return descriptor, is_locked

    # --- publishing ---

    def fit(self, descriptor: int, bits: int, parent: Parent | None, mtime: int | None) -> bool:
        """Give a file what `parent` gives one that is made with `bits`, and its time; whether it has the time now.

        Raises OSError; not for the mode and time of a file system that keeps no modes.
        """
        lenient = contextlib.nullcontext() if self.keeps_modes else contextlib.suppress(OSError)
        with lenient:
            fit(descriptor, bits, parent)
        has_time = False
        with lenient:
            has_time = set_time(descriptor, mtime)
        return has_time

    def link(self, key: str, name: str, folder: int) -> bool:
        """Make a file of a key visible as `name` in `folder`; whether it still has its key.

        Raises FileExistsError, other OSError.
        """
        if self.may_move:
            return link_or_move(key, self.folder, name, folder)
        os.link(key, name, src_dir_fd=self.folder, dst_dir_fd=folder, follow_symlinks=False)
        return True

    def remove(self, name: str) -> bool:
        """Whether a file of our own is gone. What can't be removed counts as kept, and is swept later."""
        try:
            os.unlink(name, dir_fd=self.folder)
        except FileNotFoundError:
            pass
        except OSError:
            return False
        return True

    # --- what has no owner ---

    def sweep(self, older_than: float, spared: frozenset[str] = frozenset()) -> int:
        """Remove files without an owner: those that can't be resumed, and the others if `older_than` so many seconds.

        Returns how many. Raises OSError when some could not be looked at, such as without a free descriptor.
        """
        removed, problem = 0, None
        for key, names in self._found(spared).items():
            try:
                if key.startswith(HIDDEN_LINK):
                    removed += self._remove_link(key)
                else:
                    removed += self._remove_ownerless(key, names, older_than)
            except (BlockingIOError, PermissionError, FileNotFoundError):  # it has an owner, is not ours, or is gone
                continue
            except OSError as found:
                problem = problem or (found if found.errno in _AGAIN else None)
        if problem is not None:
            raise problem
        return removed

    def _remove_link(self, name: str) -> bool:
        """Remove a link that a crash has left: its owner needs it for a moment only. Raises OSError."""
        state = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
        if not stat.S_ISLNK(state.st_mode) or time.time() - state.st_ctime < _LINK_SECONDS:
            return False
        os.unlink(name, dir_fd=self.folder)
        return True

    def _found(self, spared: frozenset[str]) -> dict[str, list[str]]:
        """The files that are here by key, without journals."""
        found: dict[str, list[str]] = {}
        for name in sorted({*os.listdir(self.folder)} - spared):
            names = found.setdefault(key_of(name), [])
            if not name.endswith(JOURNAL):
                names.append(name)
        return found

    def sizes_of_ownerless(self, spared: frozenset[str]) -> Iterator[int]:
        """The size of each file without an owner that is not published. Raises OSError when it can't be found out."""
        for key, names in self._found(spared).items():
            if self.owner_of(key) is not None or key.startswith((TRIAL, HIDDEN_LINK)):
                continue
            for name in names:
                with contextlib.suppress(BlockingIOError, PermissionError), contextlib.ExitStack() as opened:
                    held = self._lock(name, opened)
                    if held is not None and held.links == 1:
                        yield held.state.st_size

    def _remove_ownerless(self, key: str, names: list[str], older_than: float) -> int:
        """Remove what is there of a key, unless it can be resumed and is younger; how many files of bytes.

        Raises BlockingIOError, OSError.
        """
        if self.owner_of(key) is not None:
            raise BlockingIOError
        with contextlib.ExitStack() as opened:
            journal = self._lock(key + JOURNAL, opened)
            there = [(name, held) for name in names if (held := self._lock(name, opened)) is not None]
            kept = None if journal is None else Journal.read(journal.descriptor)
            removed = 0
            for name, held in there:
                if kept is not None and journal is not None and name == name_of_bytes(key, kept.attempt):
                    age = time.time() - max(held.state.st_mtime, journal.state.st_mtime)
                    if held.links == 1 and age < older_than:
                        journal = None  # it stays with its bytes
                        continue
                os.unlink(name, dir_fd=self.folder)
                removed += 1
            if journal is not None:
                os.unlink(key + JOURNAL, dir_fd=self.folder)
            return removed

    def remove_bytes(self, key: str) -> None:
        """Remove what is there of a key and has no owner, for who has its journal locked. Raises OSError."""
        for name in self._found(frozenset()).get(key, ()):
            with contextlib.suppress(BlockingIOError), contextlib.ExitStack() as opened:
                if self._lock(name, opened) is not None:
                    os.unlink(name, dir_fd=self.folder)

    def _lock(self, name: str, opened: contextlib.ExitStack) -> "_Held | None":
        """Lock a file, until `opened` ends; None when there is none."""
        flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            try:
                descriptor = os.open(name, os.O_RDWR | flags, dir_fd=self.folder)
            except PermissionError:  # a finished one; reading is enough for a lock, except on some network disks
                descriptor = os.open(name, os.O_RDONLY | flags, dir_fd=self.folder)
            opened.callback(close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            state = os.fstat(descriptor)
            if os.path.samestat(state, os.stat(name, dir_fd=self.folder, follow_symlinks=False)):
                return _Held(descriptor, state, links_of(descriptor))
        except FileNotFoundError:
            return None
        raise BlockingIOError  # another file of that name, just made


class _Held(NamedTuple):
    """A file without an owner, open and locked."""

    descriptor: int
    state: os.stat_result
    links: int
