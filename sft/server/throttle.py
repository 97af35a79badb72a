"""Limits on logins: each attempt is counted, and a successful one is subtracted again.

    per user and source        20 attempts, then the next after a minute, doubling to an hour
    per source                100 attempts, then the same
    per user, all sources   1,000 attempts a day; then one an hour for all sources that never logged in as that user

Rules: an attempt is checked against all three limits and counted in all three in one step, before anything is computed
from what the server keeps of the password; a refused attempt is not counted. A success subtracts its own attempt, once,
and resets nothing else. Entries without an attempt for a day are dropped. When a table is full, a new entry takes over
the one with the fewest attempts, its count and wait included ("space-saving"): so no count is ever too low, a flood of
invented names gives no fresh attempts, and the entries with most attempts are the last to be taken over. Known and
unknown names are treated alike: no account is looked up here. An exception counts as a refusal. A source is an IPv4
address or an IPv6 /64. The clock is an argument. Each process counts for itself, and forgets what its administrator
asks it to; `sft/server/shared_throttle.py` counts for all that share a storage.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, Protocol, TypeVar

from sft.server.origin import origin_of

_HOUR = 3600.0
_DAY_HOURS = 24

_Undo = Callable[[], None]  # gives one charge of an entry back


# --- what is charged ---


class _Last:
    """The last charge of an entry: when it was, and when the next is allowed. Each charge has one of its own."""

    __slots__ = ("at", "next_at")

    def __init__(self, at: float = 0.0, next_at: float = 0.0) -> None:
        self.at, self.next_at = at, next_at


class _Tries:
    """The charges of one (user, source) or one source, and when the next is allowed."""

    __slots__ = ("count", "key", "last")

    def __init__(self) -> None:
        self.key: Hashable = None
        self.count = 0
        self.last = _Last()

    @property
    def charged_at(self) -> float:
        return self.last.at

    def allows(self, limit: int, now: float) -> bool:
        return self.count < limit or now >= self.last.next_at

    def charge(self, now: float, wait: float) -> _Undo:
        """Count one try, after which `wait` seconds must pass."""
        before, mine = self.last, _Last(now, now + wait)
        self.last, self.count = mine, self.count + 1

        def undo() -> None:
            self.count -= 1
            if self.last is mine:  # else a later charge counts
                self.last = before

        return undo


class _Day:
    """The charges of one user over all sources, by the hour; and the last that was late."""

    __slots__ = ("charged_at", "hours", "key", "last_late")

    def __init__(self) -> None:
        self.key: Hashable = None
        self.hours: dict[int, int] = {}
        self.last_late = _Last()
        self.charged_at = 0.0

    @property
    def count(self) -> int:
        return sum(self.hours.values())

    def is_late(self, limit: int, now: float) -> bool:
        """Whether the day's charges are used up. The day is the current hour and the 24 before it."""
        oldest = int(now // _HOUR) - _DAY_HOURS
        self.hours = {hour: count for hour, count in self.hours.items() if hour >= oldest}
        return self.count >= limit

    def charge(self, now: float, late: bool) -> _Undo:
        """Count one try; a late one is the only one for an hour."""
        hour, before = int(now // _HOUR), self.last_late
        mine = self.last_late = _Last(now, now + _HOUR) if late else before
        self.hours[hour] = self.hours.get(hour, 0) + 1
        self.charged_at = now

        def undo() -> None:
            if self.hours.get(hour):  # else the hour is forgotten
                self.hours[hour] -= 1
            if self.last_late is mine:  # else a later charge counts
                self.last_late = before

        return undo


# --- the tables ---


class _Counts(Protocol):
    key: Hashable  # under which the table has it

    @property
    def charged_at(self) -> float: ...

    @property
    def count(self) -> int: ...


_Entry = TypeVar("_Entry", bound=_Counts)


class _Table(Generic[_Entry]):
    """At most `capacity` entries, those with the most charges."""

    def __init__(self, make: Callable[[], _Entry], capacity: int, forget_after: float) -> None:
        self._make, self._capacity, self._forget_after = make, capacity, forget_after
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()  # the least recently charged first
        self._by_count: dict[int, OrderedDict[Hashable, None]] = {}  # the same, for each number of charges
        self._counts: dict[Hashable, int] = {}  # the number of charges under which each is there

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: Hashable, now: float) -> _Entry:
        """The entry that counts for that key: its own, a new one, or in a full table the one to be taken over."""
        while self._entries and self._is_idle(first := next(iter(self._entries.values())), now):
            self._remove(first.key)
        entry = self._entries.get(key)
        if entry is not None:
            return self._make() if self._is_idle(entry, now) else entry
        if len(self._entries) < self._capacity:
            return self._make()
        return self._entries[next(iter(self._by_count[min(self._by_count)]))]

    def put(self, key: Hashable, entry: _Entry) -> None:
        """Keep under that key the entry that was found for it, and has just been charged."""
        self._remove(key)
        self._remove(entry.key)  # when it is taken over
        entry.key = key
        self._entries[key] = entry
        self._place(entry)

    def gave_back(self, entry: _Entry) -> None:
        """A charge of that entry was given back. An entry without charges goes: honest use leaves nothing here."""
        if self._entries.get(entry.key) is entry:
            self._forget_place(entry.key)
            if entry.count:
                self._place(entry)
            else:
                del self._entries[entry.key]

    def forget(self, is_meant: Callable[[Hashable], bool]) -> int:
        """Drop the entries whose keys are meant; how many charges those had."""
        entries = [entry for key, entry in self._entries.items() if is_meant(key)]
        for entry in entries:
            self._remove(entry.key)
        return sum(entry.count for entry in entries)

    def _place(self, entry: _Entry) -> None:
        self._counts[entry.key] = entry.count
        self._by_count.setdefault(entry.count, OrderedDict())[entry.key] = None

    def _forget_place(self, key: Hashable) -> None:
        count = self._counts.pop(key)
        del self._by_count[count][key]
        if not self._by_count[count]:
            del self._by_count[count]

    def _remove(self, key: Hashable) -> None:
        if key in self._entries:
            del self._entries[key]
            self._forget_place(key)

    def _is_idle(self, entry: _Entry, now: float) -> bool:
        return now - entry.charged_at >= self._forget_after


# --- the throttle ---


def wait_after(over: int, first: float = 60.0, longest: float = 3600.0) -> float:
    """Seconds after the last free charge (`over` is 0) and after each one beyond it."""
    if over < 0:
        return 0.0
    # Beyond 2^30 the longest wait has long been reached; a larger power would overflow.
    return min(longest, first * 2.0 ** min(over, 30))


class Charge(NamedTuple):
    """One try that was allowed. If its login succeeds, call `give_back`; else drop it."""

    give_back: Callable[[], None]  # its source has now logged in as its user; a second call does nothing


class Throttle:
    """Counts tries to log in. Safe to use from several threads at once; times are in seconds."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        per_user_and_source: int = 20,
        per_source: int = 100,
        per_user_a_day: int = 1000,
        first_wait: float = 60.0,
        longest_wait: float = 3600.0,
        forget_after: float = 86400.0,
        capacity: int = 1 << 15,
        homes_per_user: int = 256,
    ) -> None:
        self._clock = clock
        self._per_pair, self._per_source, self._per_user = per_user_and_source, per_source, per_user_a_day
        self._first_wait, self._longest_wait = first_wait, longest_wait
        self._homes_per_user = homes_per_user
        self._lock = threading.Lock()
        self._pairs = _Table(_Tries, capacity, forget_after)
        self._sources = _Table(_Tries, capacity, forget_after)
        # An hour more, because a day's charges are counted by the hour.
        self._users = _Table(_Day, capacity, forget_after + _HOUR)
        # The sources that have logged in, for each user who has: as many as there are accounts.
        self._homes: dict[bytes, OrderedDict[bytes, None]] = {}

    def __len__(self) -> int:
        """How many entries the bounded tables hold."""
        return len(self._pairs) + len(self._sources) + len(self._users)

    def charge(self, user: bytes, source: str) -> Charge | None:
        """Check and charge one try, in one step; None when it is refused."""
        try:
            with self._lock:
                return self._charge(user, origin_of(source), self._clock())
        except Exception:
            # Whatever went wrong, an attacker may have caused it: it must not allow a try.
            return None

    def forget_source(self, source: bytes) -> int:
        """Forget what one source has tried, at any names; how many attempts were counted for it.

        Those at one name stay in that name's count for the day.
        """
        with self._lock:
            self._pairs.forget(lambda key: isinstance(key, tuple) and key[1] == source)
            return self._sources.forget(lambda key: key == source)

    def forget_user(self, user: bytes) -> int:
        """Forget what was tried at one name, from anywhere; how many attempts were counted for it.

        Those of one source stay in that source's count.
        """
        with self._lock:
            self._pairs.forget(lambda key: isinstance(key, tuple) and key[0] == user)
            return self._users.forget(lambda key: key == user)

    def _charge(self, user: bytes, source: bytes, now: float) -> Charge | None:
        day = self._users.find(user, now)
        pair, origin = self._pairs.find((user, source), now), self._sources.find(source, now)
        late = source not in self._homes.get(user, ()) and day.is_late(self._per_user, now)
        if late and now < day.last_late.next_at:
            return None
        if not pair.allows(self._per_pair, now) or not origin.allows(self._per_source, now):
            return None
        undo = [
            pair.charge(now, self._wait(pair.count + 1 - self._per_pair)),
            origin.charge(now, self._wait(origin.count + 1 - self._per_source)),
            day.charge(now, late),
        ]
        self._pairs.put((user, source), pair)
        self._sources.put(source, origin)
        self._users.put(user, day)

        def give_back() -> None:
            with self._lock:
                if not undo:
                    return
                while undo:
                    undo.pop()()
                self._pairs.gave_back(pair)
                self._sources.gave_back(origin)
                self._users.gave_back(day)
                self._add_home(user, source)

        return Charge(give_back)

    def _add_home(self, user: bytes, source: bytes) -> None:
        homes = self._homes.setdefault(user, OrderedDict())
        homes[source] = None
        homes.move_to_end(source)
        while len(homes) > self._homes_per_user:
            homes.popitem(last=False)

    def _wait(self, over: int) -> float:
        return wait_after(over, self._first_wait, self._longest_wait)
