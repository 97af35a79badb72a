"""The limits on logins, counted for all servers that share a storage; the limits are those of `sft/server/throttle.py`.

    table      key                 kept
    pairs      user and source     attempts, the last one, when the next is allowed
    sources    source              the same
    users      user                attempts by the hour of the last day, and the last beyond the limit
    homes      user and source     when that source last logged in as that user

Rules: checking and counting are one step under one lock, for all servers. In a full bucket a new entry takes over the
one with the fewest attempts, with its count and wait, so no count is ever too low; the file never grows. Times are
those of the machines' clocks: an entry from the future, beyond what clocks may differ, is forgotten. Names and
addresses stand in the file as keyed hashes only. After a failure the file is left alone for some seconds, so that not
every login waits for it; an attempt that could not be given back is given back as soon as the file can be had.
"""

import contextlib
import errno
import os
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from sft.common.errors import UsageError
from sft.disk.shared_rows import KEY_BYTES, LockedRows, Shape, SharedRows
from sft.server.throttle import Charge, wait_after

_PAIRS, _SOURCES, _USERS, _HOMES = range(4)
_TRIES = struct.Struct("<16s8sIdd8s")  # the fields of _Tries
_DAY = struct.Struct("<16s8sIdd8s25H")  # those of _Day
_HOME = struct.Struct("<16sd")
_HOURS = 25  # the current one and the 24 before it
_HOUR, _DAY_SECONDS = 3600, 86400.0
_SKEW = 300.0  # seconds that clocks may differ
_MOST_COUNT = 0xFFFF
_REST_SECONDS = 5.0  # after a failure
_MOST_OWED = 4096  # charges to be given back; beyond it the oldest stay
_NO_HALF = bytes(8)
SHAPES = (
    Shape(2048, _TRIES.size),
    Shape(2048, _TRIES.size),
    Shape(2048, _DAY.size),
    Shape(4096, _HOME.size),
)


class _Tries(NamedTuple):
    """The attempts of one (user, source) or one source.

    `born` marks the entry and `which` its last attempt, for who may give one back.
    """

    key: bytes = bytes(KEY_BYTES)
    born: bytes = _NO_HALF
    attempts: int = 0
    at: float = 0.0
    next_at: float = 0.0
    which: bytes = _NO_HALF

    @classmethod
    def read(cls, row: bytes) -> "_Tries":
        return cls(*_TRIES.unpack(row))

    def row(self) -> bytes:
        return _TRIES.pack(*self) if self.attempts else b""

    def is_idle(self, now: float) -> bool:
        return not -_SKEW <= now - self.at < _DAY_SECONDS

    def allows(self, limit: int, now: float) -> bool:
        return self.attempts < limit or now >= self.next_at

    def charged(self, key: bytes, now: float, wait: float, which: bytes) -> "_Tries":
        return _Tries(key, self.born if self.attempts else which, self.attempts + 1, now, now + wait, which)

    def given_back(self, which: bytes, before: "_Tries") -> "_Tries":
        """Without one attempt; if that is the last, its wait goes, too."""
        attempts = self.attempts - 1
        if self.which != which:
            return self._replace(attempts=attempts)
        return self._replace(attempts=attempts, at=before.at, next_at=before.next_at, which=before.which)


class _Day(NamedTuple):
    """The attempts at one user from everywhere, by the hour, the newest first; `hour` is the number of that."""

    key: bytes = bytes(KEY_BYTES)
    born: bytes = _NO_HALF
    hour: int = 0
    at: float = 0.0
    next_late_at: float = 0.0
    which: bytes = _NO_HALF
    counts: tuple[int, ...] = (0,) * _HOURS

    @classmethod
    def read(cls, row: bytes) -> "_Day":
        key, born, hour, at, next_late_at, which, *counts = _DAY.unpack(row)
        return cls(key, born, hour, at, next_late_at, which, tuple(counts))

    @property
    def attempts(self) -> int:
        return sum(self.counts)

    def row(self) -> bytes:
        return _DAY.pack(*self[:6], *self.counts) if self.attempts else b""

    def is_idle(self, now: float) -> bool:
        return not -_SKEW <= now - self.at < _DAY_SECONDS + _HOUR

    def as_of(self, now: float) -> "_Day":
        """With the hours that have passed."""
        hour = int(now // _HOUR)
        passed = min(max(hour - self.hour, 0), _HOURS)
        return self._replace(hour=max(hour, self.hour), counts=((0,) * passed + self.counts)[:_HOURS])

    def charged(self, key: bytes, now: float, late: bool, which: bytes) -> "_Day":
        first, *rest = self.counts
        born = self.born if self.attempts else which
        day = self._replace(key=key, born=born, at=now, counts=(min(first + 1, _MOST_COUNT), *rest))
        return day._replace(next_late_at=now + _HOUR, which=which) if late else day

    def given_back(self, which: bytes, hour: int, before: "_Day") -> "_Day":
        counts, at = list(self.counts), self.hour - hour
        if 0 <= at < _HOURS and counts[at]:
            counts[at] -= 1
        day = self._replace(counts=tuple(counts))
        return day._replace(next_late_at=before.next_late_at, which=before.which) if self.which == which else day


_Entry = TypeVar("_Entry", _Tries, _Day)


class SharedThrottle:
    """Counts tries to log in, in a file that several servers share. Safe to use from several threads at once."""

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.time,
        *,
        per_user_and_source: int = 20,
        per_source: int = 100,
        per_user_a_day: int = 1000,
        shapes: Sequence[Shape] = SHAPES,
    ) -> None:
        self._clock, self._rows = clock, SharedRows(path, shapes)
        self._per_pair, self._per_source, self._per_user = per_user_and_source, per_source, per_user_a_day
        self._owed: deque[Callable[[LockedRows], None]] = deque(maxlen=_MOST_OWED)
        self._rests_until = 0.0

    def charge(self, user: bytes, source: bytes) -> Charge | None:
        """Check and charge one try, in one step; None when it is refused. Raises OSError, UsageError."""
        with self._locked() as rows:
            return self._charge(rows, self._half(b"user", user), self._half(b"source", source), self._clock())

    def forget_source(self, source: bytes) -> int:
        """As of Throttle. Raises OSError, UsageError."""
        with self._locked(insist=True) as rows:
            half = self._half(b"source", source)
            _free(rows, _PAIRS, lambda key: key[8:] == half)
            return sum(_Tries.read(row).attempts for row in _free(rows, _SOURCES, lambda key: key[:8] == half))

    def forget_user(self, user: bytes) -> int:
        """As of Throttle. Raises OSError, UsageError."""
        with self._locked(insist=True) as rows:
            half = self._half(b"user", user)
            _free(rows, _PAIRS, lambda key: key[:8] == half)
            return sum(_Day.read(row).attempts for row in _free(rows, _USERS, lambda key: key[:8] == half))

    def close(self) -> None:
        """Close the file."""
        self._rows.close()

    @contextlib.contextmanager
    def _locked(self, insist: bool = False) -> Iterator[LockedRows]:
        """The rows, with all that is owed given back; soon after a failure only for who insists."""
        if not insist and time.monotonic() < self._rests_until:
            raise OSError(errno.EAGAIN, "they were in trouble a moment ago")
        try:
            with self._rows.locked() as rows:
                while self._owed:
                    self._owed.popleft()(rows)  # if it fails in the middle, it stays charged rather than go twice
                yield rows
        except (OSError, UsageError):
            self._rests_until = time.monotonic() + _REST_SECONDS
            raise

    def _half(self, kind: bytes, name: bytes) -> bytes:
        return self._rows.hash_of(kind, name)

    def _charge(self, rows: LockedRows, user: bytes, source: bytes, now: float) -> Charge | None:
        keys = user + source, source + _NO_HALF, user + _NO_HALF
        at_pair, pair = _find(rows, _PAIRS, keys[0], _Tries, now)
        at_source, origin = _find(rows, _SOURCES, keys[1], _Tries, now)
        at_user, day = _find(rows, _USERS, keys[2], _Day, now)
        day = day.as_of(now)
        late = day.attempts >= self._per_user and not _is_home(rows, keys[0])
        if late and now < day.next_late_at:
            return None
        if not pair.allows(self._per_pair, now) or not origin.allows(self._per_source, now):
            return None
        which = os.urandom(8)
        charged = (
            pair.charged(keys[0], now, wait_after(pair.attempts + 1 - self._per_pair), which),
            origin.charged(keys[1], now, wait_after(origin.attempts + 1 - self._per_source), which),
            day.charged(keys[2], now, late, which),
        )
        rows.write(_PAIRS, at_pair, charged[0].row())
        rows.write(_SOURCES, at_source, charged[1].row())
        rows.write(_USERS, at_user, charged[2].row())
        given = False

        def give_back_to(rows: LockedRows) -> None:
            nonlocal given
            if given:
                return
            given = True
            for table, mine, before in ((_PAIRS, charged[0], pair), (_SOURCES, charged[1], origin)):
                if (found := _own(rows, table, mine)) is not None:
                    rows.write(table, found[0], _Tries.read(found[1]).given_back(which, before).row())
            if (found := _own(rows, _USERS, charged[2])) is not None:
                rows.write(_USERS, found[0], _Day.read(found[1]).given_back(which, charged[2].hour, day).row())
            _remember_home(rows, keys[0], now)

        def give_back() -> None:
            self._owed.append(give_back_to)
            with contextlib.suppress(OSError, UsageError), self._locked():
                pass

        return Charge(give_back)


def _find(rows: LockedRows, table: int, key: bytes, shape: type[_Entry], now: float) -> tuple[int, _Entry]:
    """The entry that counts for a key, with its row: its own, a new one, or in a full bucket one to be taken over."""
    first, bucket = rows.bucket(table, key)
    entries = [shape.read(row) for row in bucket]
    free = fewest = None
    for at, entry in enumerate(entries):
        is_free = not any(entry.key) or entry.is_idle(now)
        if entry.key == key:
            return first + at, shape() if is_free else entry
        if is_free:
            free = at if free is None else free
        elif fewest is None or entry.attempts < entries[fewest].attempts:
            fewest = at
    if free is not None or fewest is None:
        return first + (free or 0), shape()
    return first + fewest, entries[fewest]


def _own(rows: LockedRows, table: int, entry: _Tries | _Day) -> tuple[int, bytes] | None:
    """The row of that very entry; None when it is gone, or was taken over."""
    first, bucket = rows.bucket(table, entry.key)
    mine = entry.key + entry.born
    return next(((first + at, row) for at, row in enumerate(bucket) if row.startswith(mine)), None)


def _free(rows: LockedRows, table: int, is_meant: Callable[[bytes], bool]) -> list[bytes]:
    """Free the rows whose keys are meant; what they were."""
    meant = [(number, row) for number, row in rows.all(table) if is_meant(row[:KEY_BYTES])]
    for number, _ in meant:
        rows.write(table, number, b"")
    return [row for _, row in meant]


def _is_home(rows: LockedRows, key: bytes) -> bool:
    return any(row[:KEY_BYTES] == key for row in rows.bucket(_HOMES, key)[1])


def _remember_home(rows: LockedRows, key: bytes, now: float) -> None:
    """In a full bucket in the place of the one that was used longest ago."""
    first, bucket = rows.bucket(_HOMES, key)
    homes = [_HOME.unpack(row) for row in bucket]
    for home, at in homes:
        if home == key and abs(now - at) < _HOUR:
            return
    oldest = min(range(len(homes)), key=lambda at: (homes[at][0] != key, homes[at][1]))
    rows.write(_HOMES, first + oldest, _HOME.pack(key, now))
