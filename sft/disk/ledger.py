"""How much of its quota one account has used: one locked file, for all connections of all processes.

    ledger            {"bytes": …, "files": …, "holders": {process: [bytes, files]}}, in the user's staging area
    ledger.lock       locked shared by those who publish, alone by the one who counts (`sft/disk/ledger_locks.py`)

`bytes` and `files` is what lies on the disk, kept partial files included; the share of a process is what it has
reserved beyond that. Invariant: what the disk holds <= counted + all shares <= quota.

Rules: reserving is one step under one lock; what can't be reserved completely is refused. A process reserves a little
more than was asked for, and spends that without touching the file, so that many small files cost few locks. What a
process that died had reserved is void: the next connection sees that its lock is gone, and counts again. The same holds
for a file that is missing or damaged; nothing in it has to survive a crash, it only has to show that there was one.
Accounts without a quota have no ledger. The caller passes the limits, and the function that counts.
"""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sft.common.errors import Code, Refused, UsageError
from sft.common.open_files import close
from sft.common.private_files import open_private
from sft.disk.amounts import NOTHING, Amount, Quota, file_of
from sft.disk.coherent import forget_cached, hand_on, links_of
from sft.disk.ledger_locks import PROCESS_NAME, Gate, Processes

try:
    import fcntl
except ImportError:  # Windows, where only sending works; `sft/disk/storage.py` reports it
    fcntl = None  # type: ignore[assignment]

LEDGER = "ledger"
GATE = "ledger.lock"
_LARGEST = 1 << 20  # of the file, which has 60 bytes for each process
_MOST_SPARE = Amount(8 << 20, 256)
_SPARE_PART = 16  # of what is free: reserved in advance by one process, and so kept from the others for a while


@dataclass(slots=True)
class _State:
    """What the file holds."""

    counted: Amount = NOTHING
    shares: dict[str, Amount] = field(default_factory=dict)

    @classmethod
    def read(cls, descriptor: int) -> "_State | None":
        """None when it is empty or damaged."""
        forget_cached(descriptor)
        try:
            found = json.loads(os.pread(descriptor, _LARGEST, 0))
            counted = _amount(found["bytes"], found["files"])
            shares = {name: _amount(*each) for name, each in found["holders"].items() if PROCESS_NAME.fullmatch(name)}
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return None
        return cls(counted, shares) if len(shares) == len(found["holders"]) else None

    def write(self, descriptor: int) -> None:
        """Replace the content in one step, as other processes see it; a power cut may tear it, which `read` notices."""
        shares = {name: [each.bytes, each.files] for name, each in self.shares.items()}
        text = json.dumps({"bytes": self.counted.bytes, "files": self.counted.files, "holders": shares}).encode()
        os.pwrite(descriptor, text.ljust(os.fstat(descriptor).st_size), 0)
        hand_on(descriptor)

    def count(self, moved: Amount) -> Amount:
        """Add `moved` to what is counted; what could not be subtracted, because the count does not go below 0."""
        total = self.counted + moved
        self.counted = total.beyond(NOTHING)
        return total - self.counted

    @property
    def used(self) -> Amount:
        return sum(self.shares.values(), self.counted)


def _amount(bytes: object, files: object) -> Amount:
    if type(bytes) is not int or type(files) is not int or bytes < 0 or files < 0:
        raise ValueError
    return Amount(bytes, files)


class Ledger:
    """One user's ledger, for all threads of this process. Every method raises OSError for the disk's errors.

    Invariant, once everything is written down: our share = spare + what the reservations of our files hold.
    """

    def __init__(self, folder: int, processes: Processes, count: Callable[[], Amount]) -> None:
        """`folder`: the user's staging area, which stays the caller's. `count` counts what lies on the disk.

        Raises UsageError when the files are not ours alone, OSError.
        """
        self._processes, self._count = processes, count
        flags = os.O_RDWR | os.O_CREAT
        self._file = open_private(Path(LEDGER), flags, "the ledger of a user", folder)
        try:
            self._gate_file = open_private(Path(GATE), flags, "the lock of a user's ledger", folder)
        except BaseException:
            close(self._file)
            raise
        self._gate = Gate(self._gate_file)
        self.lock = threading.RLock()  # also taken by those who change several numbers in one step
        self._share = NOTHING  # ours, as the file has it
        self._spare = NOTHING  # of it: reserved, and not given to any file
        self._moved = NOTHING  # from reserved to counted, since the file was last written
        self._is_marked = False  # the file has our name with a share of nothing

    @contextlib.contextmanager
    def _locked(self) -> Iterator[_State | None]:
        with self.lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                is_there = links_of(self._file) > 0
                yield _State.read(self._file) if is_there else None
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _write(self, state: _State, share: Amount) -> None:
        """Write `state` with our share, whatever the file had for it: a file repaired by hand comes right by itself."""
        if share == NOTHING:
            state.shares.pop(self._processes.our_name_if_any() or "", None)
            state.write(self._file)
        else:
            name = self._processes.our_name()
            is_new = name not in state.shares
            state.shares[name] = share
            state.write(self._file)
            if is_new:  # after a power cut it must show that a process was at work
                os.fsync(self._file)
        self._share, self._is_marked = share, False

    # --- for files on their way ---

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """Around whatever begins, publishes, keeps or removes files; written down at its end. May be nested."""
        with self._gate.moving() as is_outermost:
            try:
                yield
            finally:
                if is_outermost:
                    # After a failure the next one writes it: until then too much is counted, never too little.
                    with contextlib.suppress(OSError):
                        self._write_down(_MOST_SPARE)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Around replacing a file or making folders: only one connection is credited, or charged, for each."""
        with self._locked():
            yield

    @contextlib.contextmanager
    def removing(self) -> Iterator[None]:
        """Around removing: one connection is credited for each, and if this process dies in it, it is counted again."""
        with self._locked() as state:
            if state is not None and self._share == NOTHING and not self._is_marked:
                with contextlib.suppress(OSError):  # a full disk keeps nobody from removing
                    self._mark(state)
            yield

    def _mark(self, state: _State) -> None:
        state.shares[self._processes.our_name()] = NOTHING
        state.write(self._file)
        os.fsync(self._file)
        self._is_marked = True

    def reserve(self, wanted: Amount, quota: Quota) -> None:
        """Raises Refused (QUOTA; STORAGE when the ledger can't be used)."""
        with self.lock:
            missing = wanted.beyond(self._spare)
            if missing != NOTHING:
                with self._locked() as state:
                    self._enlarge(_usable(state), missing, quota)
            self._spare -= wanted

    def _enlarge(self, state: _State, missing: Amount, quota: Quota) -> None:
        left = quota.left(state.used + missing)
        if (missing.bytes and left.bytes < 0) or (missing.files and left.files < 0):
            raise Refused(Code.QUOTA)
        in_advance = Amount(max(left.bytes, 0) // _SPARE_PART, max(left.files, 0) // _SPARE_PART)
        more = missing + in_advance.least(_MOST_SPARE)
        self._write(state, self._share + more)
        self._spare += more

    def give_back(self, amount: Amount) -> None:
        """What was reserved is not needed."""
        with self.lock:
            self._spare += amount

    def count(self, amount: Amount) -> None:
        """What was reserved lies on the disk now, visible or kept."""
        with self.lock:
            self._moved += amount

    def credit(self, amount: Amount) -> None:
        """What was counted is gone from the disk; this process may use it for something else."""
        with self.lock:
            self._moved -= amount
            self._spare += amount

    def reserve_counted(self, size: int) -> Amount:
        """A kept file of `size` bytes is on its way again: it is reserved now, and not counted. What that comes to."""
        with self.lock:
            self._moved -= file_of(size)
            return file_of(size)

    def _write_down(self, spare: Amount) -> None:
        """Write what moved, and give back what is reserved beyond `spare`."""
        with self.lock:
            excess = self._spare.beyond(spare)
            if (self._moved, excess) == (NOTHING, NOTHING) and not (self._is_marked and spare == NOTHING):
                return
            with self._locked() as state:
                if state is None:  # damaged: it is counted anew before anybody gets more
                    missing = NOTHING
                    self._share -= self._moved + excess
                else:
                    # Credited for a file that another process has published and not yet written down.
                    missing = state.count(self._moved)
                    self._write(state, self._share - (self._moved - missing) - excess)
            self._spare -= excess
            self._moved = missing

    # --- counting ---

    def repair(self) -> bool:
        """Count again if a process died with something reserved, or the file is damaged or missing; whether it did.

        Never inside `moving`.
        """
        with self._locked() as state:
            is_sound = state is not None and all(map(self._processes.is_alive, state.shares))
        if not is_sound:
            self.recount()
        return not is_sound

    def recount(self) -> Amount:
        """Count what lies on the disk, while nothing is published or kept. Never inside `moving`."""
        with self._gate.counting():
            counted = self._count()
            with self._locked() as state:
                shares = {} if state is None else state.shares
                alive = {name: each for name, each in shares.items() if self._processes.is_alive(name)}
                self._write(_State(counted, alive), self._share - self._moved)
                self._moved = NOTHING  # left by a writing that failed, and counted now
        return counted

    def used(self) -> Amount | None:
        """What is counted and reserved; None when the file is damaged or missing."""
        with self._locked() as state:
            return None if state is None else state.used

    def in_use(self) -> Amount:
        """What lies on the disk or is on its way, without what this process has reserved in advance.

        Counted anew when the file is damaged or missing. Never inside `moving`.
        """
        with self._locked() as state:
            if state is not None:
                return state.used - self._spare
        return self.recount()

    def close(self) -> None:
        """Give back what is spare, and the descriptors. Nothing may be on its way."""
        with contextlib.ExitStack() as opened:
            for each in (self._file, self._gate_file):
                opened.callback(close, each)
            with contextlib.suppress(OSError):
                self._write_down(NOTHING)


def _usable(state: _State | None) -> _State:
    if state is None:
        raise Refused(Code.STORAGE, why="the ledger is damaged; run: python server.py recount")
    return state


def invalidate(folder: int) -> None:
    """Empty the ledger, if there is one: an account without a quota is about to write, and won't count it."""
    with contextlib.suppress(OSError, UsageError):
        descriptor = open_private(Path(LEDGER), os.O_WRONLY, "the ledger of a user", folder)
        try:
            os.ftruncate(descriptor, 0)
        finally:
            close(descriptor)
