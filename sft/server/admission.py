"""How many connections there may be: not logged in yet (in all, and of one source), and logged in (and of one user).

    a new connection      when
    busy                  all places of logged-in connections are taken
    silent of source      its source has all the logins that one source may have
    free                  else, if not all logins are taken
    newest of largest     else, if a source has at least two logins more than its own has: that source loses its newest
    silent of all         else, among the sources that have no fewer logins than its own

"Silent": the login that has been silent longest is disconnected, if that is at least a second; if not, busy. So a few
addresses that connect without end can't keep others out, nor can many that connect and send nothing.

Rules: counting and deciding are one step under one lock. This module knows no socket: it is given the function that
disconnects a connection, and the name of its source.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import NamedTuple

_SILENT_SECONDS = 1.0


class Way(Enum):
    """How a new connection gets a place: the table above."""

    BUSY = auto()
    SILENT_OF_SOURCE = auto()
    FREE = auto()
    NEWEST_OF_LARGEST = auto()
    SILENT_OF_ALL = auto()


class Limits(NamedTuple):
    """The most connections: logged in, not logged in, and not logged in of one source."""

    logged_in: int
    logins: int
    logins_of_source: int


def way_in(limits: Limits, logged_in: int, logins: int, of_source: int, of_largest: int) -> Way:
    """How a connection gets a place, by the numbers of connections before it.

    `of_source`: logins of its own source, `of_largest`: of the source that has the most.
    """
    if logged_in >= limits.logged_in:
        return Way.BUSY
    if of_source >= limits.logins_of_source:
        return Way.SILENT_OF_SOURCE
    if logins < limits.logins:
        return Way.FREE
    if of_largest > of_source + 1:  # with a difference of one the two would push each other out in turn
        return Way.NEWEST_OF_LARGEST
    return Way.SILENT_OF_ALL


class _State(Enum):
    LOGIN = auto()
    LOGGED_IN = auto()
    GONE = auto()


class Ticket:
    """One connection's place. Use `progress`, `logged_in` and `leave`, in that order."""

    def __init__(self, owner: "Admission", source: bytes, disconnect: Callable[[], None]) -> None:
        self._owner, self.source, self.disconnect = owner, source, disconnect
        self.last_heard = owner.clock()
        self.state = _State.LOGIN
        self.user = ""

    def progress(self) -> None:
        """A step of the login was completed: the connection is not a silent one."""
        self.last_heard = self._owner.clock()

    def comes_from(self, source: bytes) -> bool:
        """It is a connection of `source`, as a proxy has said; False when that has its places taken already."""
        return self._owner.assign(self, source)

    def logged_in(self, user: str = "", most: int | None = None) -> bool:
        """Move from the logins to the logged-in; False when those are full, or this user has `most` already."""
        return self._owner.move(self, user, most)

    def leave(self) -> None:
        """The connection has ended."""
        self._owner.remove(self)


class Admission:
    """The places of one server process."""

    def __init__(
        self,
        max_connections: int,
        max_logins: int,
        max_logins_per_source: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = Limits(max_connections, max_logins, max_logins_per_source)
        self.clock = clock
        self._lock = threading.Lock()
        self._logins: dict[bytes, dict[Ticket, None]] = {}  # by source, the oldest first
        self._login_count = 0
        self._users: Counter[str] = Counter()  # logged-in connections

    def limit(self, max_connections: int, max_logins: int, max_logins_per_source: int) -> None:
        """Let other limits hold for the connections that come; nobody who is in is disconnected for that."""
        with self._lock:
            self._limits = Limits(max_connections, max_logins, max_logins_per_source)

    def enter(self, source: bytes, disconnect: Callable[[], None], is_proxy: bool = False) -> Ticket | None:
        """A place for a new connection, or None for "busy". `disconnect` is called to take it back; must not wait.

        `is_proxy`: the source is a proxy, and the client's own is assigned as soon as it is known.
        """
        with self._lock:
            if not self._make_place(source, is_proxy):
                return None
            ticket = Ticket(self, source, disconnect)
            self._begin_login(ticket)
            return ticket

    def assign(self, ticket: Ticket, source: bytes) -> bool:
        """See Ticket.comes_from."""
        with self._lock:
            if ticket.state is not _State.LOGIN:
                return False
            self._end_login(ticket)
            if not self._make_place(source):
                return False
            ticket.source, ticket.state = source, _State.LOGIN
            self._begin_login(ticket)
            return True

    def _begin_login(self, ticket: Ticket) -> None:
        self._logins.setdefault(ticket.source, {})[ticket] = None
        self._login_count += 1

    def _make_place(self, source: bytes, is_proxy: bool = False) -> bool:
        own = {} if is_proxy else self._logins.get(source, {})
        largest = max(self._logins.values(), key=len, default={})
        way = way_in(self._limits, self._users.total(), self._login_count, len(own), len(largest))
        if way is Way.FREE:
            return True
        if way is Way.BUSY:
            return False
        if way is Way.NEWEST_OF_LARGEST:
            self._disconnect(next(reversed(largest)))
            return True
        if way is Way.SILENT_OF_SOURCE:
            return self._disconnect_silent(own)
        sources = (tickets for tickets in self._logins.values() if len(tickets) >= len(own))
        return self._disconnect_silent(ticket for tickets in sources for ticket in tickets)

    def _disconnect_silent(self, tickets: Iterable[Ticket]) -> bool:
        longest = min(tickets, key=lambda ticket: ticket.last_heard)
        if self.clock() - longest.last_heard < _SILENT_SECONDS:
            return False
        self._disconnect(longest)
        return True

    def _disconnect(self, ticket: Ticket) -> None:
        self._end_login(ticket)
        ticket.disconnect()

    def _end_login(self, ticket: Ticket) -> None:
        tickets = self._logins[ticket.source]
        del tickets[ticket]
        if not tickets:
            del self._logins[ticket.source]
        self._login_count -= 1
        ticket.state = _State.GONE

    def move(self, ticket: Ticket, user: str, most: int | None) -> bool:
        """See Ticket.logged_in."""
        with self._lock:
            if ticket.state is not _State.LOGIN:
                return False
            self._end_login(ticket)
            is_full = self._users.total() >= self._limits.logged_in
            if is_full or (most is not None and self._users[user] >= most):
                return False
            self._users[user] += 1
            ticket.state, ticket.user = _State.LOGGED_IN, user
            return True

    def remove(self, ticket: Ticket) -> None:
        """See Ticket.leave."""
        with self._lock:
            if ticket.state is _State.LOGIN:
                self._end_login(ticket)
            elif ticket.state is _State.LOGGED_IN:
                self._users[ticket.user] -= 1
                if not self._users[ticket.user]:
                    del self._users[ticket.user]
                ticket.state = _State.GONE
