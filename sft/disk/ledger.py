"""What one account has used of its quota: one file, locked, for all connections of all processes.

    ledger            {"bytes": …, "files": …, "holders": {process: [bytes, files]}}, in the user's partial area
    ledger.lock       held shared while something moves between on its way and counted, alone while all is counted
    .holder-<hex>     in the folder above: one for each process that has reserved anything, locked as long as it lives

`bytes` and `files` is what lies on the disk, kept partial files included, each with 512 bytes at least; a holder's
share is what it has reserved beyond that. Their sum never passes the quota, and never is less than what the disk holds.

Rules: who can't reserve gets nothing, in one step under one lock. A process reserves a little more than was asked for
and spends that without touching the file, so that many small files cost few locks. What a process that died had
reserved is void: its lock is gone, and whoever notices counts again. So is a file that is missing or damaged; nothing
in it has to survive a crash, it only has to show that one happened. Accounts without a quota have no ledger. This room
knows no name and no path: how to count is told by the caller, and so are the limits.
"""

import contextlib
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sft.common.errors import Code, Refused, UsageError
from sft.common.private_files import open_private

try:
    import fcntl
except ImportError:  # Windows, where only sending works; `sft/disk/storage.py` says so
    fcntl = None  # type: ignore[assignment]

LEDGER = "ledger"
GATE = "ledger.lock"
_LARGEST = 1 << 20  # of the file, which holds one line of 60 bytes for each process
_MOST_SPARE_BYTES, _MOST_SPARE_FILES = 8 << 20, 256
_SPARE_PART = 16  # of what is free: reserved in advance by one process, and so kept from another for a while
_LONGEST_TURN = 0.25  # seconds, after which nobody joins those who move things
_HOLDER = re.compile(r"\.holder-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Amount:
    """So many bytes in so many files. A folder counts as a file."""

    bytes: int = 0
    files: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.bytes + other.bytes, self.files + other.files)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.bytes - other.bytes, self.files - other.files)

    def least(self, most: "Amount") -> "Amount":
        """The smaller of the two, for bytes and for files."""
        return Amount(min(self.bytes, most.bytes), min(self.files, most.files))

    def beyond(self, limit: "Amount") -> "Amount":
        """What of it is more than `limit`."""
        return Amount(max(self.bytes - limit.bytes, 0), max(self.files - limit.files, 0))


NOTHING = Amount()
LEAST_BYTES = 512  # that a file or folder counts for; else a quota of bytes allowed any number of empty ones


def file_of(size: int) -> Amount:
    """What a file of `size` bytes counts for; a folder counts like an empty file."""
    return Amount(max(size, LEAST_BYTES), 1)


def folders_of(count: int) -> Amount:
    """What so many folders count for."""
    return Amount(count * LEAST_BYTES, count)


_MOST_SPARE = Amount(_MOST_SPARE_BYTES, _MOST_SPARE_FILES)


@dataclass(frozen=True, slots=True)
class Quota:
    """What an account may use; None means no limit."""

    bytes: int | None = None
    files: int | None = None

    def left(self, used: Amount) -> Amount:
        """What may still be used; less than nothing when it is too much already."""
        endless = 1 << 63
        return Amount(
            (endless if self.bytes is None else self.bytes) - used.bytes,
            (endless if self.files is None else self.files) - used.files,
        )


NO_QUOTA = Quota()


class Holders:
    """The processes that use one storage, as files in a folder: one that can be locked has died."""

    def __init__(self, folder: int) -> None:
        """Makes nothing yet. `folder` stays the caller's."""
        self._folder = folder
        self._mine: tuple[str, int] | None = None
        self._lock = threading.Lock()

    def mine(self) -> str:
        """The name of this process, whose lock is held until `close`. Raises OSError."""
        with self._lock:
            while self._mine is None:
                name = f".holder-{secrets.token_hex(8)}"
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(name, flags, 0o600, dir_fd=self._folder)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.fstat(descriptor).st_nlink:
                    self._mine = name, descriptor
                else:  # taken for a dead one before it was locked
                    os.close(descriptor)
            return self._mine[0]

    def known(self) -> str | None:
        """The name of this process, if it has one yet."""
        return None if self._mine is None else self._mine[0]

    def lives(self, name: str) -> bool:
        """Whether that process holds its lock; the file of a dead one goes. Raises OSError."""
        if name == self.known():
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
        finally:
            os.close(descriptor)

    def sweep(self) -> None:
        """Remove the files of processes that have died. Raises OSError."""
        for name in filter(_HOLDER.fullmatch, os.listdir(self._folder)):
            self.lives(name)

    def close(self) -> None:
        """This process holds nothing any more."""
        with self._lock:
            if self._mine is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._mine[0], dir_fd=self._folder)
                os.close(self._mine[1])
                self._mine = None


@dataclass(slots=True)
class _State:
    """What the file says."""

    counted: Amount = NOTHING
    holders: dict[str, Amount] = field(default_factory=dict)

    @classmethod
    def read(cls, descriptor: int) -> "_State | None":
        """None when it is empty or damaged."""
        try:
            found = json.loads(os.pread(descriptor, _LARGEST, 0))
            counted = _amount(found["bytes"], found["files"])
            holders = {name: _amount(*each) for name, each in found["holders"].items() if _HOLDER.fullmatch(name)}
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return None
        return cls(counted, holders) if len(holders) == len(found["holders"]) else None

    def write(self, descriptor: int) -> None:
        """In one step for every process that lives; a power cut may tear it, which `read` sees."""
        holders = {name: [each.bytes, each.files] for name, each in self.holders.items()}
        text = json.dumps({"bytes": self.counted.bytes, "files": self.counted.files, "holders": holders}).encode()
        os.pwrite(descriptor, text.ljust(os.fstat(descriptor).st_size), 0)

    @property
    def used(self) -> Amount:
        return sum(self.holders.values(), self.counted)


def _amount(bytes: object, files: object) -> Amount:
    if type(bytes) is not int or type(files) is not int or bytes < 0 or files < 0:
        raise ValueError
    return Amount(bytes, files)


class _Gate:
    """Many may move things at once, in this process and in others; nobody while somebody counts.

    Those of one process that come one upon the other let go of the lock now and then, else whoever counts in another
    process would wait as long as they are busy.
    """

    def __init__(self, descriptor: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._descriptor, self._clock = descriptor, clock
        self._let_go_at = 0.0
        self._changed = threading.Condition()
        self._inside = 0
        self._counting = False
        self._thread = threading.local()

    @contextlib.contextmanager
    def moving(self) -> Iterator[bool]:
        """May be nested; true for the outermost. Raises OSError."""
        if getattr(self._thread, "inside", False):
            yield False
            return
        with self._changed:
            while self._counting or (self._inside and self._clock() >= self._let_go_at):
                self._changed.wait()
            if not self._inside:
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)
                self._let_go_at = self._clock() + _LONGEST_TURN
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
        """Never inside `moving`. Raises OSError."""
        with self._changed:
            while self._counting:
                self._changed.wait()
            self._counting = True  # from now on nobody comes in
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


class Ledger:
    """One user's ledger, for all threads of this process. Every method raises OSError for the disk's errors."""

    def __init__(self, folder: int, holders: Holders, count: Callable[[], Amount]) -> None:
        """`folder`: the user's partial area, which stays the caller's. `count` tells what lies on the disk.

        Raises UsageError when the files are not ours alone, OSError.
        """
        self._holders, self._count = holders, count
        self.connections = 0  # counted by the caller
        flags = os.O_RDWR | os.O_CREAT
        self._file = open_private(Path(LEDGER), flags, "the ledger of a user", folder)
        try:
            self._gate_file = open_private(Path(GATE), flags, "the lock of a user's ledger", folder)
        except BaseException:
            os.close(self._file)
            raise
        self._gate = _Gate(self._gate_file)
        self._lock = threading.RLock()
        self._mine = NOTHING  # as the file has it: spare, and all holds, and what is not noted yet
        self._spare = NOTHING
        self._noted_later = NOTHING  # what has moved from mine to counted since the last writing

    @contextlib.contextmanager
    def _locked(self) -> Iterator[_State | None]:
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                is_there = os.fstat(self._file).st_nlink > 0
                yield _State.read(self._file) if is_there else None
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _write(self, state: _State, mine: Amount) -> None:
        """Write `state` with our share, whatever stood there: so what somebody has mended comes right by itself."""
        if mine == NOTHING:
            state.holders.pop(self._holders.known() or "", None)
            state.write(self._file)
        else:
            name = self._holders.mine()
            is_new = name not in state.holders
            state.holders[name] = mine
            state.write(self._file)
            if is_new:  # after a power cut it must be seen that somebody was at work
                os.fsync(self._file)
        self._mine = mine

    # --- for those who have something on its way ---

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """Whatever is begun, published, kept or dropped, is so inside of this, and noted at its end. May be nested."""
        with self._gate.moving() as outermost:
            try:
                yield
            finally:
                if outermost:
                    # A failure is made good the next time: until then too much is counted, never too little.
                    with contextlib.suppress(OSError):
                        self._note()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Only one at a time replaces a file or makes folders, so that one is credited, or charged, for each."""
        with self._locked():
            yield

    def take(self, wanted: Amount, quota: Quota) -> None:
        """Reserve. Raises Refused (QUOTA; STORAGE when the ledger can't be used)."""
        with self._lock:
            missing = wanted.beyond(self._spare)
            if missing != NOTHING:
                with self._locked() as state:
                    self._reserve(_usable(state), missing, quota)
            self._spare -= wanted

    def _reserve(self, state: _State, missing: Amount, quota: Quota) -> None:
        left = quota.left(state.used + missing)
        if (missing.bytes and left.bytes < 0) or (missing.files and left.files < 0):
            raise Refused(Code.QUOTA)
        part = Amount(max(left.bytes, 0) // _SPARE_PART, max(left.files, 0) // _SPARE_PART)
        more = missing + part.least(_MOST_SPARE)
        self._write(state, self._mine + more)
        self._spare += more

    def give(self, amount: Amount) -> None:
        """What was reserved is not needed."""
        with self._lock:
            self._spare += amount

    def count(self, amount: Amount) -> None:
        """What was reserved lies on the disk now, visible or kept."""
        with self._lock:
            self._noted_later += amount

    def credit(self, amount: Amount) -> None:
        """What was counted is gone from the disk, or on its way again: it may be used anew by this process."""
        with self._lock:
            self._noted_later -= amount
            self._spare += amount

    def _note(self) -> None:
        with self._lock:
            excess = self._spare.beyond(_MOST_SPARE) if self.connections else self._spare
            if (self._noted_later, excess) == (NOTHING, NOTHING):
                return
            with self._locked() as state:
                early = NOTHING  # credited for what another one has counted, and not noted yet
                if state is None:  # it is counted again before anybody gets anything more
                    self._mine -= self._noted_later + excess
                else:
                    noted = state.counted + self._noted_later
                    state.counted = noted.beyond(NOTHING)
                    early = noted - state.counted
                    self._write(state, self._mine - (self._noted_later - early) - excess)
            self._spare -= excess
            self._noted_later = early

    # --- counting ---

    def mend(self) -> bool:
        """Count again, if a process died with something reserved, or the file is damaged or missing; whether it was so.

        Never inside `moving`.
        """
        with self._locked() as state:
            sound = state is not None and all(map(self._holders.lives, state.holders))
        if not sound:
            self.recount()
        return not sound

    def recount(self) -> Amount:
        """Count what lies on the disk, while nothing is published or kept. Never inside `moving`."""
        with self._gate.counting():
            counted = self._count()
            with self._locked() as state:
                known = {} if state is None else state.holders
                live = {name: each for name, each in known.items() if self._holders.lives(name)}
                self._write(_State(counted, live), self._mine - self._noted_later)
                self._noted_later = NOTHING  # left by a note that failed, and counted now
        return counted

    def used(self) -> Amount | None:
        """What is counted and reserved; None when nobody knows."""
        with self._locked() as state:
            return None if state is None else state.used

    def close(self) -> None:
        """Give back what is spare, and the descriptors. Nothing may be on its way."""
        try:
            with contextlib.suppress(OSError):
                self.connections = 0
                self._note()
        finally:
            os.close(self._file)
            os.close(self._gate_file)


def _usable(state: _State | None) -> _State:
    if state is None:
        raise Refused(Code.STORAGE, why="the ledger is damaged; run: python server.py recount")
    return state


def forget(folder: int) -> None:
    """An account without a quota is about to write: what a ledger from before says is not true any more."""
    with contextlib.suppress(OSError, UsageError):
        descriptor = open_private(Path(LEDGER), os.O_WRONLY, "the ledger of a user", folder)
        try:
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)


class Hold:
    """What is reserved for one file on its way, until it is published, kept or dropped."""

    def __init__(self, ledger: Ledger, quota: Quota, before: "Hold | None" = None, found: int | None = None) -> None:
        """`before`: the hold of whom it takes over from. `found`: bytes kept earlier, which are counted already."""
        self._ledger, self._quota = ledger, quota
        self._amount = NOTHING
        with ledger._lock:
            if before is not None:
                self._amount, before._amount = before._amount, NOTHING
            if found is not None:
                there = file_of(found)
                ledger.credit(there)
                ledger._spare -= there
                self._amount += there

    def grow(self, size: int) -> None:
        """Let it be so large. Raises Refused (QUOTA), OSError."""
        with self._ledger._lock:
            more = file_of(size).beyond(self._amount)
            if more != NOTHING:
                self._ledger.take(more, self._quota)
                self._amount += more

    def published(self, size: int) -> None:
        """It is visible now."""
        with self._ledger._lock:
            done = file_of(size)
            self._ledger.count(done)
            self._amount -= done

    def end(self, close: Callable[[], int | None]) -> None:
        """It ends: `close()` tells how many of its bytes stay on the disk, None when it leaves nothing."""
        with contextlib.ExitStack() as inside:
            with contextlib.suppress(OSError):  # no lock to be had: what it holds is given back all the same
                inside.enter_context(self._ledger.moving())
            stays = None
            try:
                stays = close()
            finally:
                with self._ledger._lock:
                    amount, self._amount = self._amount, NOTHING
                    if stays is not None:
                        self._ledger.count(file_of(stays))
                        amount -= file_of(stays)
                    self._ledger.give(amount)
