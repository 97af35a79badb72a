"""Large files on their way, which a later attempt can resume: the bytes, the journal beside them, and their one owner.

    <key>.<attempt>   the bytes, mode 0600 until they are verified; `key` is the hash of the path, with `rename` of the
                      path and a number, for an account that may not fetch of its name, too
    <key>.journal     transfer id, size and time of the source, durable offset, generation, attempt

Rules: the owner keeps a `flock` on the bytes. The same transfer takes a file over at once, by raising the generation,
which an older owner reads before each write; another transfer is refused until the owner is gone
(`sft/disk/decisions.py`). Taking over, publishing and removing exclude each other by a short `flock` on the journal.
An older owner in another process may have read the generation just before, and write late: what was taken over from one
is read again before it is published, once that process has closed it. Zeros, and blocks of 64 KiB of them in content,
become holes. A file with a second name is published already, and is never written to. What was kept is only an offer:
both ends compare its digest before they go on from it. No path is walked here.
"""

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from sft.common.errors import Code, Refused
from sft.common.flushing import flush
from sft.common.open_files import close
from sft.common.private_files import open_private
from sft.disk.coherent import links_of
from sft.disk.decisions import Bytes, JournalOf, OwnedBy, Step, offers, take_up
from sft.disk.durable import disk_errors
from sft.disk.grown import OldFile, digest_of_first
from sft.disk.holes import write_without_holes
from sft.disk.journal import JOURNAL, JOURNAL_WORDS, Journal, empty, name_of_bytes, new_attempt
from sft.disk.parents import Parent
from sft.disk.partial_names import names_for
from sft.disk.reservations import NOT_RESERVED, Reservation
from sft.disk.staging import PRIVATE, StagingArea, lock
from sft.disk.temporary import Incoming

try:
    import fcntl
except ImportError:  # Windows, where only sending works; `sft/disk/storage.py` reports it
    fcntl = None  # type: ignore[assignment]

_DURABLE_EVERY = 128 << 20  # bytes between two flushes, after which they can be resumed even from a power cut
_OPEN_FLAGS = os.O_RDWR | sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_CLOEXEC"))
_LOCK_FLAGS = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"))


def begin_partial(
    area: StagingArea, incoming: Incoming, reservation: Reservation = NOT_RESERVED, kept_for: str = ""
) -> "PartialFile":
    """The partial file of `incoming`, owned, with what was kept of it. Raises Refused (BUSY while it has an owner).

    `reservation` gets what was reserved or counted for it before. `kept_for`: the account that alone may find it again.
    """
    for name in names_for(area, incoming, kept_for):
        partial = PartialFile(area, incoming, name, reservation)
        try:
            with disk_errors():
                partial.take_up()
            return partial
        except Refused as problem:
            if problem.code is not Code.BUSY:
                raise
    raise Refused(Code.BUSY)


class PartialFile:
    """One large file, for one connection; does what `sft.disk.temporary.TemporaryFile` lists."""

    def __init__(self, area: StagingArea, incoming: Incoming, name: str, reservation: Reservation) -> None:
        self.incoming, self.name = incoming, name
        self.size = 0
        self.sha256: bytes | None = None
        self.offers: list[int] = []
        self.is_shared = self.is_different = self.is_finished = False
        self.reservation = reservation
        self.refusal: Refused | None = None
        self.has_time = True
        self._area = area
        self._attempt = ""  # "": there are no bytes
        self._has_name = False  # the hidden one
        self._descriptor = self._journal_descriptor = -1
        self._journal: Journal | None = None
        self._locked, self._durable = False, 0
        self.old: OldFile | None = None  # whose content is offered, and not compared yet
        self._lost = False  # a newer connection of the same transfer owns it
        self._writing = threading.Lock()

    @property
    def descriptor(self) -> int:
        return self._descriptor

    @property
    def _bytes_name(self) -> str:
        return name_of_bytes(self.name, self._attempt)

    # --- becoming the owner ---

    def take_up(self) -> None:
        """Open or make the file, and become its owner. Raises Refused (BUSY), OSError."""
        area = self._area
        flags, name = os.O_RDWR | os.O_CREAT, Path(self.name + JOURNAL)
        self._journal_descriptor = open_private(name, flags, JOURNAL_WORDS, area.folder, area.keeps_modes)
        try:
            with self._journal_lock(), contextlib.ExitStack() as undo:
                self._take_up_locked(undo)
                undo.pop_all()
        except BaseException:
            self.close()
            raise

    def _take_up_locked(self, undo: contextlib.ExitStack) -> None:
        found = Journal.read(self._journal_descriptor)
        if found is None and os.fstat(self._journal_descriptor).st_size:  # torn: nothing tells of its bytes any more
            self._area.remove_bytes(self.name)
        self._attempt = "" if found is None else found.attempt
        is_there = os.access(self._bytes_name, os.F_OK, dir_fd=self._area.folder)
        if not is_there and self._journal_of(found) is not JournalOf.REMOVED:
            undo.callback(self._remove)  # else a journal without bytes would stay
        kept, bytes = found, Bytes.UNSEEN  # `kept`: the journal, as long as it belongs to the bytes that are there
        while (step := take_up(self._journal_of(found), self._owner(), bytes)).is_not_last:
            if step is Step.OPEN:
                bytes = self._open_bytes()
                continue
            kept = None
            if step is Step.CREATE:
                bytes = self._create_bytes()
                continue
            if step is Step.FORGET_NAME:
                os.unlink(self._bytes_name, dir_fd=self._area.folder)
            self._close_bytes()
            self._attempt, bytes = "", Bytes.MISSING
        if step is Step.WAIT:
            raise Refused(Code.BUSY)
        size = self._become_owner(bytes is Bytes.KEPT)
        most = size if self.incoming.size is None else min(size, self.incoming.size)
        durable = 0 if kept is None else min(kept.durable, most)
        if kept is not None:
            self.offers = offers(most, durable)
        if not self.offers:
            os.ftruncate(self._descriptor, 0)
            undo.callback(self._remove)
        self._write_journal(durable, 1 if found is None else found.generation + 1)

    def _journal_of(self, journal: Journal | None) -> JournalOf:
        if not links_of(self._journal_descriptor):
            return JournalOf.REMOVED
        if journal is None:
            return JournalOf.NONE
        return (
            JournalOf.THIS_TRANSFER if journal.transfer == self.incoming.transfer.hex() else JournalOf.ANOTHER_TRANSFER
        )

    def _owner(self) -> OwnedBy:
        """The bytes must not be opened while this process owns them: some file systems drop its lock at the closing."""
        if self._area.owner_of(self.name) is not None:
            return OwnedBy.IN_THIS_PROCESS
        return OwnedBy.IN_ANOTHER_PROCESS if self._descriptor >= 0 and not self._locked else OwnedBy.NONE

    def _open_bytes(self) -> Bytes:
        if not self._attempt:
            return Bytes.MISSING
        try:
            self._descriptor = os.open(self._bytes_name, _OPEN_FLAGS, dir_fd=self._area.folder)
        except FileNotFoundError:
            return Bytes.MISSING
        except PermissionError:
            self._make_writable()
            return Bytes.UNSEEN
        self._has_name = True
        self._locked = lock(self._descriptor)
        links = links_of(self._descriptor)
        return Bytes.REMOVED if links == 0 else Bytes.PUBLISHED if links > 1 else Bytes.KEPT

    def _create_bytes(self) -> Bytes:
        self._attempt = new_attempt()
        self._descriptor, self._locked = self._area.create(self._bytes_name, self.incoming.path)
        self._has_name = True
        return Bytes.NEW if links_of(self._descriptor) else Bytes.REMOVED

    def _make_writable(self) -> None:
        """It was finished, read-only as its sender wished, but not published. Raises Refused (BUSY), OSError."""
        descriptor = os.open(self._bytes_name, _LOCK_FLAGS, dir_fd=self._area.folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if links_of(descriptor) == 1:
                os.fchmod(descriptor, PRIVATE)
            else:
                os.unlink(self._bytes_name, dir_fd=self._area.folder)
        except BlockingIOError:
            raise Refused(Code.BUSY) from None
        finally:
            close(descriptor)

    def _close_bytes(self) -> None:
        descriptor, self._descriptor, self._locked = self._descriptor, -1, False
        if descriptor >= 0:
            close(descriptor)

    def _become_owner(self, is_kept: bool) -> int:
        """The bytes that are there. The owner in this process, if there is one, loses them, and what it reserved."""
        before = self._area.set_owner(self)
        if before is not None:
            before.lose()
            self._locked = lock(self._descriptor)
        size = os.fstat(self._descriptor).st_size
        if before is not None:
            self.reservation.inherit(before.reservation)
        elif is_kept and self._locked:
            self.reservation.inherit_counted(size)
        self.is_shared = not self._locked
        return size

    def _write_journal(self, durable: int, generation: int) -> None:
        incoming = self.incoming
        transfer, size = incoming.transfer.hex(), incoming.size or 0
        self._journal = Journal(transfer, size, incoming.mtime, durable, generation, self._attempt)
        self._journal.write(self._journal_descriptor)

    # --- staying the owner ---

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
    def publishing(self) -> Iterator[None]:
        """No connection takes the file over as long as this lasts. Raises Refused (BUSY) when a newer one has."""
        with self._journal_lock():
            self._check_owner()
            yield

    def lose(self) -> None:
        """A newer connection of the same transfer owns the file: nothing more is written through this one.

        The lock is released, too, as this one may stay open for long.
        """
        with self._writing:
            self._lost = True
            if self._locked:
                self._locked = False
                with contextlib.suppress(OSError):
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _check_owner(self) -> None:
        """Raises Refused (BUSY) once a newer connection, in this process or another, has taken over."""
        journal = None if self._lost or self._journal_descriptor < 0 else self._journal
        if journal is None or not journal.is_last(self._journal_descriptor):
            self._lost = True
            raise Refused(Code.BUSY, why="taken over by a newer connection")
        if not self._locked:
            self._locked = lock(self._descriptor)

    @contextlib.contextmanager
    def _owning(self) -> Iterator[None]:
        """Around each write."""
        with self._writing:
            self._check_owner()
            yield

    # --- resuming ---

    def digest_of_kept(self, size: int, goes_on: Callable[[], bool] = lambda: True) -> "hashlib._Hash":
        with disk_errors():
            if self.old is None:
                return digest_of_first(self._descriptor, size, goes_on)
            return self.old.digest_of_copy(self._descriptor, size, goes_on, self._owning)

    def resume_from(self, offset: int) -> None:
        with disk_errors(), self.publishing():
            if self._journal is not None and self._journal.durable > offset:
                self._journal.durable = offset
                self._journal.write(self._journal_descriptor)
            os.ftruncate(self._descriptor, offset)
            self.size = self._durable = offset
            self.offers, self.old = [], None

    # --- writing ---

    def write(self, content: memoryview) -> None:
        self._append(len(content), lambda: write_without_holes(self._descriptor, content, self.size))

    def write_zeros(self, count: int) -> None:
        self._append(count, lambda: None)

    def _append(self, count: int, write: Callable[[], None]) -> None:
        """`count` more bytes; what `write` leaves out becomes a hole."""
        with disk_errors():
            with self._owning():
                if (size := self.size + count) > self.reservation.covered:
                    self.reservation.cover(size)
                write()
                self.size = size
            if self.size - self._durable >= _DURABLE_EVERY:
                self._make_durable()

    def _extend(self) -> None:
        """Give the file its size, where it ends in a hole; no newer owner writes to it meanwhile."""
        with self.publishing():
            if os.fstat(self._descriptor).st_size < self.size:
                os.ftruncate(self._descriptor, self.size)

    def _make_durable(self) -> None:
        self._extend()
        flush(self._descriptor)
        with self.publishing():
            self._durable = self.size
            if self._journal is not None:
                self._journal.durable = self.size
                self._journal.write(self._journal_descriptor)

    def finish(self, bits: int, parent: Parent | None = None) -> int:
        with disk_errors():
            self._extend()
            if self.is_shared:
                self._verify_alone()
            with self.publishing(), self._writing:
                self.has_time = self._area.fit(self._descriptor, bits, parent, self.incoming.mtime)
        return self._descriptor

    def _verify_alone(self) -> None:
        """Verify what is on the disk, once no other process can write to it. Raises Refused (UNAVAILABLE), OSError."""
        with self.publishing():
            if not self._locked:
                raise Refused(Code.UNAVAILABLE, why="another process has the file open")
            size = os.fstat(self._descriptor).st_size
        if size != self.size or self.digest_of_kept(size).digest() != self.sha256:
            raise Refused(Code.UNAVAILABLE, why="another process has written to the file")

    # --- publishing ---

    def link(self, name: str, folder: int) -> None:
        self._has_name = self._area.link(self._bytes_name, name, folder)

    def rename(self, name: str, folder: int) -> None:
        os.replace(self._bytes_name, name, src_dir_fd=self._area.folder, dst_dir_fd=folder)
        self._has_name = False

    def is_same_file(self, other: os.stat_result) -> bool:
        return os.path.samestat(os.fstat(self._descriptor), other)

    # --- the end ---

    def discard(self) -> None:
        """Remove it, unless a newer connection owns it; a published file stays visible. May be called again."""
        with contextlib.closing(self), contextlib.suppress(OSError, Refused), self.publishing():
            self._remove()

    def _remove(self) -> None:
        if self._has_name:
            self._has_name = not self._area.remove(self._bytes_name)
        with contextlib.suppress(OSError):  # it only spares another machine a look
            empty(self._journal_descriptor)
        self._area.remove(self.name + JOURNAL)

    def keep(self) -> bool:
        if self._journal_descriptor < 0 or self.old is not None or not (self.size or self.offers):
            self.discard()
            return False
        with contextlib.closing(self), contextlib.suppress(OSError, Refused):
            if self.size:
                self._make_durable()
        return not self._lost

    def close(self) -> None:
        """Close the files, and give back the lock and what was reserved; the bytes stay. May be called again."""
        with contextlib.suppress(OSError), self.reservation.ending(), contextlib.ExitStack() as locked:
            with contextlib.suppress(OSError):
                locked.enter_context(self._journal_lock())
            reservation, self.reservation = self.reservation, NOT_RESERVED  # no other connection takes it meanwhile
            stays = None
            try:
                stays = self._stays()
            finally:
                self._close()
                reservation.end(stays)

    def _stays(self) -> int | None:
        """How many bytes stay as kept ones, None if there are none, or another connection owns them. Raises OSError."""
        if self._area.owner_of(self.name) is not self or not self._has_name:
            return None
        ours, last = self._journal, Journal.read(self._journal_descriptor)
        if ours is not None and last is not None and last.generation > ours.generation:  # of another process
            return None
        return os.fstat(self._descriptor).st_size if links_of(self._descriptor) == 1 else None

    def _close(self) -> None:
        self._area.release(self)
        with self._writing:
            self._locked = False
            descriptors = (self._descriptor, self._journal_descriptor)
            self._descriptor = self._journal_descriptor = -1
        for descriptor in descriptors:
            if descriptor >= 0:
                close(descriptor)
