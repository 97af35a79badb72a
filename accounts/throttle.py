"""Who may try to log in: a charge for each try, given back when it succeeds.

    per user and source        20 charges, then the next after a minute, doubling to an hour
    per source                100 charges, then the same
    per user, all sources   1,000 charges a day; then one an hour for all sources that never logged in as that user

Rules: a try is checked against all three and charged to all three in one step, before anything is computed from the
password's remains; what is refused is not charged. Success gives back its own charge, once, and resets nothing else.
What nobody was charged for during a day is forgotten; when the tables are full, the least recently charged goes first.
What counts for a user who has an account is never pushed out, however many names are invented. An exception is a
refusal. A source is an IPv4 address or an IPv6 /64. This room knows no password, no socket and no account, and its
clock is an argument. Each process counts for itself.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from accounts.origin import origin_of

_HOUR = 3600.0
_DAY_HOURS = 24


class _Tries:
    """The charges of one (user, source) or one source that were not given back, and when the next is allowed."""

    __slots__ = ("charged_at", "count", "newest", "not_before")

    def __init__(self) -> None:
        self.count = 0
        self.charged_at = 0.0
        self.not_before = 0.0
        self.newest: object = None

    def idle_since(self) -> float:
        return self.charged_at

    def allows(self, limit: int, now: float) -> bool:
        return self.count < limit or now >= self.not_before

    def charge(self, now: float, wait: float) -> Callable[[], None]:
        """Count one try, after which `wait` seconds must pass. Returns what gives it back."""
        before = self.newest, self.charged_at, self.not_before
        mine = object()
        self.count += 1
        self.newest, self.charged_at, self.not_before = mine, now, now + wait

        def give_back() -> None:
            self.count -= 1
            if self.newest is mine:
                self.newest, self.charged_at, self.not_before = before

        return give_back


class _User:
    """The charges of one user over all sources, by the hour, and the sources that have logged in as that user."""

    __slots__ = ("charged_at", "homes", "hours", "late_at", "newest")

    def __init__(self) -> None:
        self.hours: dict[int, int] = {}
        self.late_at = 0.0
        self.newest: object = None
        self.homes: OrderedDict[bytes, None] = OrderedDict()
        self.charged_at = 0.0

    def idle_since(self) -> float:
        return self.charged_at

    def is_late(self, limit: int, now: float) -> bool:
        """Whether the day's charges are used up. The day is the hour that runs and the 24 before it."""
        oldest = int(now // _HOUR) - _DAY_HOURS
        self.hours = {hour: count for hour, count in self.hours.items() if hour >= oldest}
        return sum(self.hours.values()) >= limit

    def charge(self, now: float, late: bool) -> Callable[[], None]:
        """Count one try; a late one is the only one of this hour. Returns what gives it back."""
        before = self.newest, self.late_at
        hour, mine = int(now // _HOUR), object()
        self.hours[hour] = self.hours.get(hour, 0) + 1
        self.charged_at = now
        if late:
            self.newest, self.late_at = mine, now + _HOUR

        def give_back() -> None:
            if self.hours.get(hour):
                self.hours[hour] -= 1
            if self.newest is mine:
                self.newest, self.late_at = before

        return give_back


class _Counts(Protocol):
    def idle_since(self) -> float: ...


_Entry = TypeVar("_Entry", bound=_Counts)


class _Table(Generic[_Entry]):
    """At most `capacity` entries, the most recently charged ones."""

    def __init__(self, make: Callable[[], _Entry], capacity: int, forget_after: float) -> None:
        self._make, self._capacity, self._forget_after = make, capacity, forget_after
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def look(self, key: Hashable, now: float) -> _Entry:
        """The entry of that key; when there is none, or it is forgotten, a fresh one that the table does not hold."""
        entry = self._entries.get(key)
        return self._make() if entry is None or self._idle(entry, now) else entry

    def keep(self, key: Hashable, entry: _Entry, now: float) -> None:
        """Hold the entry, just charged, as the last one to be pushed out."""
        self._entries[key] = entry
        self._entries.move_to_end(key)
        while len(self._entries) > self._capacity or self._idle(next(iter(self._entries.values())), now):
            self._entries.popitem(last=False)

    def drop(self, key: Hashable, entry: _Entry) -> None:
        if self._entries.get(key) is entry:
            del self._entries[key]

    def _idle(self, entry: _Entry, now: float) -> bool:
        return now - entry.idle_since() >= self._forget_after


class Charge:
    """One try that was allowed. Hand it to `Throttle.refund` when its login succeeds; else let it go."""

    __slots__ = ("_give_back",)

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def _take(self) -> Callable[[], None] | None:
        give_back, self._give_back = self._give_back, None
        return give_back


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
        # An hour more, because a day's charges are counted by the hour: else a name could be told from an account's.
        self._strangers = _Table(_User, capacity, forget_after + _HOUR)
        # As many as there are accounts: nobody else can make one of these.
        self._known: dict[bytes, _User] = {}

    def __len__(self) -> int:
        """How many entries the bounded tables hold."""
        return len(self._pairs) + len(self._sources) + len(self._strangers)

    def charge(self, user: bytes, source: str, known: bool) -> Charge | None:
        """Check and charge one try, in one step; None when it is refused. `known` says that `user` has an account."""
        try:
            with self._lock:
                return self._charge(user, origin_of(source), known, self._clock())
        except Exception:
            # Whatever went wrong here, an attacker may have led to it: it must not open the door.
            return None

    def refund(self, charge: Charge) -> None:
        """Give back what that try was charged, once; its source has now logged in as its user."""
        with self._lock:
            give_back = charge._take()
            if give_back is not None:
                give_back()

    def _charge(self, user: bytes, place: bytes, known: bool, now: float) -> Charge | None:
        whole = self._known.get(user, _User()) if known else self._strangers.look(user, now)
        pair, origin = self._pairs.look((user, place), now), self._sources.look(place, now)
        late = place not in whole.homes and whole.is_late(self._per_user, now)
        if late and now < whole.late_at:
            return None
        if not pair.allows(self._per_pair, now) or not origin.allows(self._per_source, now):
            return None

        refunds = (
            pair.charge(now, self._wait(pair.count + 1 - self._per_pair)),
            origin.charge(now, self._wait(origin.count + 1 - self._per_source)),
            whole.charge(now, late),
        )
        self._pairs.keep((user, place), pair, now)
        self._sources.keep(place, origin, now)
        if known:
            self._known[user] = whole
        else:
            self._strangers.keep(user, whole, now)

        def give_back() -> None:
            for refund in refunds:
                refund()
            # An entry without a charge says nothing: honest use leaves nothing in the tables.
            if not pair.count:
                self._pairs.drop((user, place), pair)
            if not origin.count:
                self._sources.drop(place, origin)
            whole.homes[place] = None
            whole.homes.move_to_end(place)
            while len(whole.homes) > self._homes_per_user:
                whole.homes.popitem(last=False)

        return Charge(give_back)

    def _wait(self, over: int) -> float:
        """The wait after the last free charge (`over` is 0) and after each one beyond it."""
        if over < 0:
            return 0.0
        # Beyond 2^30 the longest wait has long been reached; a larger power would overflow.
        return min(self._longest_wait, self._first_wait * 2.0 ** min(over, 30))
