"""How many connections there may be: not logged in yet (in all, and from one source), and logged in (and of one user).

Rules: counting and deciding are one step under one lock. When all places for logins are taken, the source with the most
of them loses its newest connection to a source with fewer: a few addresses that connect without end can't keep others
out. Among sources with as many or more, the connection that has been silent longest, and for a second at least, is
closed: many connections that stay silent can't keep others out either. No socket is known here: the caller passes a
function that disconnects, and the name of the source.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable

_PATIENCE = 1.0


class Ticket:
    """One connection's place. Use `progress`, `logged_in` and `leave`, in that order."""

    def __init__(self, owner: "Admission", source: bytes, put_out: Callable[[], None]) -> None:
        self._owner, self.source, self.put_out = owner, source, put_out
        self.last_heard = owner.clock()
        self.inside = False
        self.user = ""

    def progress(self) -> None:
        """A step of the login was completed: the connection is not a silent one."""
        self.last_heard = self._owner.clock()

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
        self._max_connections, self._max_logins, self._max_per_source = (
            max_connections,
            max_logins,
            max_logins_per_source,
        )
        self.clock = clock
        self._lock = threading.Lock()
        self._logins: dict[bytes, dict[Ticket, None]] = {}  # by source, the oldest first
        self._login_count = 0
        self._users: Counter[str] = Counter()
        self._inside = 0

    def enter(self, source: bytes, put_out: Callable[[], None]) -> Ticket | None:
        """A place for a new connection, or None when it gets "busy". `put_out` must not wait."""
        with self._lock:
            if self._inside >= self._max_connections:
                return None
            own = self._logins.get(source, {})
            if len(own) >= self._max_per_source:
                if not self._put_out_silent(list(own)):
                    return None
            elif self._login_count >= self._max_logins and not self._make_room(len(own)):
                return None
            ticket = Ticket(self, source, put_out)
            self._logins.setdefault(source, {})[ticket] = None
            self._login_count += 1
            return ticket

    def _make_room(self, own: int) -> bool:
        """For a source that has so many logins already. Returns whether there is room now."""
        largest = max(self._logins.values(), key=len)
        if len(largest) > own + 1:  # else the two would push each other out in turn
            self._put_out(next(reversed(largest)))
            return True
        others = (tickets for tickets in self._logins.values() if len(tickets) >= own)
        return self._put_out_silent([ticket for tickets in others for ticket in tickets])

    def _put_out_silent(self, tickets: list[Ticket]) -> bool:
        oldest = min(tickets, key=lambda ticket: ticket.last_heard)
        if self.clock() - oldest.last_heard < _PATIENCE:
            return False
        self._put_out(oldest)
        return True

    def _put_out(self, ticket: Ticket) -> None:
        self._forget_login(ticket)
        ticket.put_out()

    def _forget_login(self, ticket: Ticket) -> bool:
        tickets = self._logins.get(ticket.source, {})
        if ticket not in tickets:
            return False
        del tickets[ticket]
        self._login_count -= 1
        if not tickets:
            del self._logins[ticket.source]
        return True

    def move(self, ticket: Ticket, user: str, most: int | None) -> bool:
        """See Ticket.logged_in."""
        with self._lock:
            if not self._forget_login(ticket) or self._inside >= self._max_connections:
                return False
            if most is not None and self._users[user] >= most:
                return False
            self._inside += 1
            self._users[user] += 1
            ticket.inside, ticket.user = True, user
            return True

    def remove(self, ticket: Ticket) -> None:
        """See Ticket.leave."""
        with self._lock:
            if ticket.inside:
                ticket.inside = False
                self._inside -= 1
                self._users[ticket.user] -= 1
                if not self._users[ticket.user]:
                    del self._users[ticket.user]
            else:
                self._forget_login(ticket)
