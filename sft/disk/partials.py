"""Bytes on their way: partial files, the journal beside each that may be resumed, and who may write to it.

    <key>             the bytes, mode 0600; for a large file `key` is the hash of its path, with `rename` of its path
                      and a number; else of its transfer id
    <key>.journal     large files only: transfer id, size and time of the source, durable offset, generation
    (no name)         a pipe's bytes, and a small file's (`sft/disk/small.py`), where the system can link such a file

Rules: a holder keeps a `flock` on the bytes; a key without a lock has no holder. The same transfer id takes over at
once, by raising the generation, which an older holder looks at before each write; another one waits until the holder
is gone. Taking over, publishing, dropping and removing exclude each other by a short `flock` on the journal. Bytes are
written at their offset, so that a late write of an older holder repeats and never moves anything.
A partial file with a second name is published already, and is never written to. What was kept is only an offer: both
ends compare its digest before they go on from it. Descriptors come from the caller; this room walks no path.
"""

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from crypto_utils import random_bytes
from sft.common.errors import Code, Refused
from sft.common.flushing import flush
from sft.common.private_files import open_private
from sft.common.values import value
from sft.disk.durable import disk_errors, set_time
from sft.disk.hidden import JOURNAL_WORDS, names_for
from sft.disk.journal import Journal
from sft.disk.leftovers import JOURNAL, TRIAL, Hold, Leftovers
from sft.disk.moving import link_or_move
from sft.disk.parents import UNNAMED, Parent, fit, open_unnamed

try:
    import fcntl
except ImportError:  # Windows, where only sending works; `sft/disk/storage.py` says so
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None
_DURABLE_EVERY = 128 << 20
_READ_SIZE = 1 << 20
_PRIVATE = 0o600
_MOST_TRIES = 10
_ENDLESS = 1 << 63
_UNNAMED = UNNAMED

PathParts = tuple[str, ...]


def _open_flags() -> int:
    return os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def lock(descriptor: int) -> bool:
    """Lock an open file against sweeps and other holders, until it is closed; whether nobody else has it locked."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def link_unnamed(descriptor: int, name: str, folder: int) -> None:
    """Give a file without a name one in `folder`, which never replaces. Raises FileExistsError and other OSError."""
    os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=folder, follow_symlinks=True)


@value
class Incoming:
    """What the sender announced of one file. `size` None: not known beforehand. `mtime` in ns."""

    transfer: bytes
    path: PathParts
    size: int | None
    mtime: int | None
    mode: int | None
    policy: str


@value
class Published:
    """A file that is visible under `path`: stored just now, `already` there, or another one and so `skipped`."""

    path: PathParts
    skipped: bool = False
    already: bool = False
    size: int = 0
    sha256: bytes | None = None


class PartialArea(Leftovers):
    """One user's partial files, in the folder of a descriptor. Safe to use from several threads."""

    def __init__(self, folder: int) -> None:
        super().__init__(folder)
        self._unnamed: bool | None = None if _UNNAMED else False
        self.nearest: Callable[[PathParts], int] | None = None  # see `sft/disk/parents.py`
        self.may_move = False  # where there are no hard links; only in a folder of our own
        self.keeps_modes = True

    def begin(self, incoming: Incoming, resumable: bool) -> "Partial":
        """A place for the bytes of `incoming`; with what was kept of it, if `resumable`. Raises Refused (BUSY)."""
        if not resumable:
            return Partial(self, incoming, hashlib.sha256(b"id" + incoming.transfer).hexdigest(), False)
        source = (incoming.size, incoming.mtime)
        names = names_for(self, incoming.path, incoming.policy == "rename", incoming.transfer, source)
        for name in names:
            partial = Partial(self, incoming, name, True)
            try:
                with disk_errors():
                    partial.take_up()
                return partial
            except Refused as problem:
                if problem.code is not Code.BUSY:
                    raise
        raise Refused(Code.BUSY)

    def open_unnamed(self, path: PathParts) -> int:
        """A new file without a name, of the group of the folder where `path` lies; -1 where that can't be.

        Raises OSError, Refused.
        """
        if not self.can_be_unnamed:
            return -1
        if self.nearest is not None:
            folder = self.nearest(path[:-1])
            try:
                if os.fstat(folder).st_dev == self._place[0]:
                    with contextlib.suppress(PermissionError):
                        return open_unnamed(folder)
            finally:
                os.close(folder)
        return open_unnamed(self.folder)

    @property
    def can_be_unnamed(self) -> bool:
        """Whether files without a name can be made here, and get one: found out once, by trying."""
        if self._unnamed is None:
            self._unnamed = self._try_unnamed()
        return self._unnamed

    def _try_unnamed(self) -> bool:
        name = TRIAL + random_bytes(8).hex()
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            descriptor = open_unnamed(self.folder)
            opened.callback(os.close, descriptor)
            link_unnamed(descriptor, name, self.folder)
            os.unlink(name, dir_fd=self.folder)
            return True
        return False


class Partial:
    """The bytes of one file on their way, for one connection.

    `size` counts the bytes that are there. `kept` are the offsets that an earlier attempt may be resumed from, best
    first; the caller compares digests, then calls `resume_from`.
    """

    def __init__(self, area: PartialArea, incoming: Incoming, name: str, resumable: bool) -> None:
        self._area, self.incoming, self.name = area, incoming, name
        self.size = 0
        self.kept: list[int] = []
        self.sha256: bytes | None = None
        self.has_name = False
        self.limit: int | None = None  # of bytes, for a pipe that did not announce how many it has
        self.compared = False  # with the visible file of its name, and found different
        self.bound = _ENDLESS  # before more bytes than that, `more` is asked
        self.more: Callable[[int], int] = lambda size: _ENDLESS
        self.hold: Hold | None = None
        self.found: int | None = None  # bytes that were there already, held by nobody
        self.before: Hold | None = None  # of whom it was taken over from, in this process
        self.refusal: Refused | None = None  # why it can't be published, unless it is there already
        self.is_shared = False  # another process still has it open
        self.has_time = True  # that of its source; not every disk can hold every time
        self._descriptor = -1
        self._journal_descriptor = -1
        self._journal: Journal | None = None
        self.resumable = resumable
        self._locked = False
        self._durable = 0
        self._lost = False
        self._writing = threading.Lock()

    # --- taking up what an earlier attempt left ---

    def take_up(self) -> None:
        """Become the holder of the key; see the rules of this room. Raises Refused (BUSY), OSError."""
        folder = self._area.folder
        flags, name = os.O_RDWR | os.O_CREAT, Path(self.name + JOURNAL)
        self._journal_descriptor = open_private(name, flags, JOURNAL_WORDS, folder, self._area.keeps_modes)
        try:
            with self._journal_lock(), contextlib.ExitStack() as undo:
                self._take_up_locked(undo)
                undo.pop_all()
        except BaseException:
            self.close()
            raise

    def _take_up_locked(self, undo: contextlib.ExitStack) -> None:
        incoming = self.incoming
        if not os.fstat(self._journal_descriptor).st_nlink:
            raise Refused(Code.BUSY)  # removed by its holder while we waited for the lock
        old = Journal.read(self._journal_descriptor)
        generation = 1 if old is None else old.generation + 1
        same = old is not None and old.transfer == incoming.transfer.hex()
        existed = os.access(self.name, os.F_OK, dir_fd=self._area.folder)
        if not existed:
            undo.callback(self._remove)  # else a journal without bytes would stay
        if not same and self._area.holder(self.name) is not None:
            raise Refused(Code.BUSY)
        self._open_bytes()
        if not self._locked and not same:
            raise Refused(Code.BUSY)
        while (links := os.fstat(self._descriptor).st_nlink) != 1:  # none: swept since it was opened
            if links > 1:  # published, and its holder died before it could say so
                os.unlink(self.name, dir_fd=self._area.folder)
            self._close_bytes()
            self._open_bytes()
            old, existed = None, False
        before = self._area.hold(self)
        if before is not None:
            before.lose()
            self.before = before.hold
        there = os.fstat(self._descriptor).st_size
        self.is_shared = before is None and not self._locked
        self.found = there if existed and before is None and self._locked else None
        limit = there if incoming.size is None else min(there, incoming.size)
        if old is None or limit == 0:
            os.ftruncate(self._descriptor, 0)
        else:
            self.kept = sorted({limit, min(old.durable, limit)} - {0}, reverse=True)
        self._journal = Journal(
            incoming.transfer.hex(),
            incoming.size or 0,
            incoming.mtime,
            min(old.durable, limit) if old is not None else 0,
            generation,
        )
        if not self.kept:
            undo.callback(self._remove)
        self._journal.write(self._journal_descriptor)

    def _open_bytes(self) -> None:
        while self._descriptor < 0:
            try:
                self._descriptor = os.open(self.name, _open_flags() & ~os.O_CREAT, dir_fd=self._area.folder)
                self._locked = lock(self._descriptor)
            except PermissionError:
                self._make_writable()
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):  # then it is to be opened after all
                    self._make_bytes()
        self.has_name = True

    def _make_bytes(self) -> None:
        """A new file under its hidden name. Raises FileExistsError and other OSError, Refused."""
        folder = self._area.folder
        descriptor = self._area.open_unnamed(self.incoming.path)
        if descriptor < 0:
            descriptor = os.open(self.name, _open_flags() | os.O_EXCL, _PRIVATE, dir_fd=folder)
            self._descriptor, self.has_name = descriptor, True
            self._locked = lock(descriptor)
            return
        locked = lock(descriptor)
        try:
            link_unnamed(descriptor, self.name, folder)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor, self._locked = descriptor, locked

    def _make_writable(self) -> None:
        """It was finished, read-only as its sender wished, and not published. Raises Refused (BUSY) when it is held."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self.name, flags, dir_fd=self._area.folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink == 1:
                os.fchmod(descriptor, _PRIVATE)
            else:
                os.unlink(self.name, dir_fd=self._area.folder)
        except BlockingIOError:
            raise Refused(Code.BUSY) from None
        finally:
            os.close(descriptor)

    def _close_bytes(self) -> None:
        descriptor, self._descriptor, self._locked = self._descriptor, -1, False
        os.close(descriptor)

    @contextlib.contextmanager
    def _journal_lock(self) -> Iterator[None]:
        """Taken before `_writing`, never while it is held."""
        if self._journal_descriptor >= 0:
            fcntl.flock(self._journal_descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if self._journal_descriptor >= 0:
                fcntl.flock(self._journal_descriptor, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """As long as this lasts nobody takes over. Raises Refused (BUSY) when somebody has."""
        with self._journal_lock():
            self._check_held()
            yield

    def lose(self) -> None:
        """Another connection of the same transfer has taken over: nothing more is written through this one."""
        with self._writing:
            self._lost = True

    def digest_of_kept(self, size: int, goes_on: Callable[[], bool] = lambda: True) -> "hashlib._Hash":
        """A running SHA-256 over the first `size` bytes that are there, while `goes_on` says so. Raises Refused."""
        digest = hashlib.sha256()
        at = 0
        with disk_errors():
            while at < size and goes_on():
                piece = os.pread(self._descriptor, min(_READ_SIZE, size - at), at)
                if not piece:
                    break
                digest.update(piece)
                at += len(piece)
        return digest

    def resume_from(self, offset: int) -> None:
        """Go on behind the first `offset` bytes; what lies behind them is dropped. Raises Refused."""
        with disk_errors(), self.held():
            if self._journal is not None and self._journal.durable > offset:
                self._journal.durable = offset
                self._journal.write(self._journal_descriptor)
            os.ftruncate(self._descriptor, offset)
            self.size = self._durable = offset
            self.kept = []

    # --- writing ---

    def write(self, content: memoryview) -> None:
        """Append `content`. Raises Refused for whatever the disk has against it, BUSY when it was taken over."""
        with disk_errors():
            with self._writing:
                if self._descriptor < 0:
                    self._open_new()
                self._check_held()
                if self.limit is not None and self.size + len(content) > self.limit:
                    raise Refused(Code.TOO_LARGE)
                if self.size + len(content) > self.bound:
                    self.bound = self.more(self.size + len(content))
                while content:
                    count = os.pwrite(self._descriptor, content, self.size)
                    self.size += count
                    content = content[count:]
            if self.resumable and self.size - self._durable >= _DURABLE_EVERY:
                self._make_durable()

    def _open_new(self) -> None:
        if self.resumable:
            raise Refused(Code.BUSY, why="given back before")
        self._descriptor = self._area.open_unnamed(self.incoming.path)
        if self._descriptor >= 0:
            return
        for _ in range(_MOST_TRIES):
            try:
                self._descriptor = os.open(self.name, _open_flags() | os.O_EXCL, _PRIVATE, dir_fd=self._area.folder)
            except FileExistsError:
                try:
                    self._area.remove_unheld(self.name)  # left by a crash
                except BlockingIOError:
                    break
                continue
            self._locked = lock(self._descriptor)
            if self._locked and os.fstat(self._descriptor).st_nlink:
                self.has_name = True
                return
            self._close_bytes()  # swept in between
        raise Refused(Code.BUSY)

    def _check_held(self) -> None:
        """Raises Refused (BUSY) once another connection, in this process or another, has taken over."""
        if not self.resumable:
            return
        journal = None if self._lost or self._journal_descriptor < 0 else self._journal
        if journal is None or not journal.is_last(self._journal_descriptor):
            self._lost = True
            raise Refused(Code.BUSY, why="taken over by a newer connection")
        if not self._locked:
            self._locked = lock(self._descriptor)

    def _make_durable(self) -> None:
        flush(self._descriptor)
        with self.held():
            self._durable = self.size
            if self._journal is not None:
                self._journal.durable = self.size
                self._journal.write(self._journal_descriptor)

    def finish(self, bits: int, parent: Parent | None = None) -> int:
        """Set the time, and what `parent` gives a file that is made with `bits`; the descriptor of what is whole now.

        It is still to be flushed. Raises Refused.
        """
        with disk_errors(), self._writing:
            if self._descriptor < 0:
                self._open_new()
            self._check_held()
            lenient = contextlib.nullcontext() if self._area.keeps_modes else contextlib.suppress(OSError)
            with lenient:
                fit(self._descriptor, bits, parent)
            self.has_time = False
            with lenient:
                self.has_time = set_time(self._descriptor, self.incoming.mtime)
        return self._descriptor

    def link(self, name: str, folder: int) -> None:
        """Make it visible as `name` in `folder`, which never replaces. Raises FileExistsError and other OSError."""
        if not self.has_name:
            link_unnamed(self._descriptor, name, folder)
        elif self._area.may_move:
            self.has_name = link_or_move(self.name, self._area.folder, name, folder)
        else:
            os.link(self.name, name, src_dir_fd=self._area.folder, dst_dir_fd=folder, follow_symlinks=False)

    def rename(self, name: str, folder: int) -> None:
        """Make it visible as `name` in `folder`, in place of the file that may be there. Raises OSError."""
        if not self.has_name:  # only a name can take another's place
            lock(self._descriptor)
            self.name = f"{self.name}-{random_bytes(8).hex()}"
            self.link(self.name, self._area.folder)
            self.has_name = True
        os.replace(self.name, name, src_dir_fd=self._area.folder, dst_dir_fd=folder)
        self.has_name = False

    def is_same_file(self, other: os.stat_result) -> bool:
        """Whether `other` is this very file, published before."""
        mine = os.fstat(self._descriptor)
        return (mine.st_dev, mine.st_ino) == (other.st_dev, other.st_ino)

    @property
    def descriptor(self) -> int:
        """Of its bytes; -1 where there is none yet."""
        return self._descriptor

    # --- the end ---

    def discard(self) -> None:
        """Remove what there is of it, unless another connection has taken over; a published file stays visible."""
        with contextlib.closing(self), contextlib.suppress(OSError, Refused):
            if self.resumable or self.has_name:
                with self.held():
                    self._remove()

    def _remove(self) -> None:
        for name in (self.name, self.name + JOURNAL) if self.resumable else (self.name,):
            if self.has_name or name != self.name:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._area.folder)
        self.has_name = False

    def keep(self) -> bool:
        """The connection has ended: keep the bytes, if they can be resumed; whether they are kept."""
        if self._journal_descriptor < 0 or not (self.size or self.kept):
            self.discard()
            return False
        with contextlib.closing(self), contextlib.suppress(OSError, Refused):
            if self.size:
                self._make_durable()
        return not self._lost

    def close(self) -> None:
        """Give back the descriptors, and with them the lock, and what was reserved. It may be called again."""
        hold, self.hold = self.hold, None
        if hold is not None:
            with contextlib.suppress(OSError):
                hold.end(self._leave)
        self._close()

    def _leave(self) -> int | None:
        """Close it; how many bytes stay, None when another connection answers for them. Nobody takes over meanwhile."""
        left = None
        with contextlib.ExitStack() as locked:
            with contextlib.suppress(OSError):
                locked.enter_context(self._journal_lock())
            with contextlib.suppress(OSError, Refused):
                self._check_held()
                if self.has_name and self._descriptor >= 0:
                    left = os.fstat(self._descriptor).st_size
            self._close()
        return left

    def _close(self) -> None:
        if self.resumable:
            self._area.release(self)
        descriptors = (self._descriptor, self._journal_descriptor)
        self._descriptor = self._journal_descriptor = -1
        for descriptor in descriptors:
            if descriptor >= 0:
                with contextlib.suppress(OSError):  # it is closed all the same; what must last was flushed before
                    os.close(descriptor)
