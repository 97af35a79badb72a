"""What the limit of open files of a process is shared out for: large files on their way, connections and logins.

Rules: half of the open files are for large files on their way, two for each; the rest is for connections, logins and
small files. An account gets at most as many places for large files as it leaves free, so one alone takes half, and the
next still finds some. Each connection has one in any case, so that it goes on. A file that gets none waits, and nothing
is refused for it. It opens nothing.
"""

import threading
from collections import Counter
from typing import Protocol

from sft.common.open_files import limit_of_files
from sft.common.values import value

# Implementation constants, in descriptors.
_EACH = 2  # for a large file: the bytes, and the journal; one that is sent needs only one
_OF_A_CONNECTION = 10  # socket, 2 folders, 1 to walk with, 4 of an account with a quota, 2 of its first large file
_OF_THE_PROCESS = 20  # streams, log, listening sockets, the root of the storage, ledgers, housekeeping


@value
class Most:
    """How many connections there may be at once: logged in, of one user, not logged in, and hearing "busy"."""

    connections: int
    per_user: int
    logins: int
    closing: int


def most_for(files: int, wanted: Most) -> Most:
    """As many of `wanted` as that limit of open files allows, and one of each at least."""
    rest = files // 2  # the other half is for large files
    logins = max(1, min(wanted.logins, rest // 4))
    closing = max(1, min(wanted.closing, rest // 8))
    connections = max(1, min(wanted.connections, (rest - _OF_THE_PROCESS - logins - closing) // _OF_A_CONNECTION))
    is_less = connections < wanted.connections
    per_user = min(wanted.per_user, max(1, connections // 2)) if is_less else wanted.per_user
    return Most(connections, per_user, logins, closing)


def limit_of_process() -> int:
    """How many places for large files there are."""
    return limit_of_files() // 2 // _EACH


class Places:
    """The places of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def of(self, account: str) -> "Share":
        """What one connection of `account` takes from."""
        return Share(self, account)

    def take(self, account: str, is_first: bool) -> bool:
        """One for `account`; without a question if it `is_first` of its connection."""
        with self._lock:
            free = limit_of_process() - self._taken.total()
            if not is_first and self._taken[account] >= free - 1:
                return False
            self._taken[account] += 1
            return True

    def give(self, account: str, count: int) -> None:
        """So many are free again."""
        with self._lock:
            self._taken[account] -= count
            if not self._taken[account]:
                del self._taken[account]


class Holder(Protocol):
    """A file that may hold a place."""

    @property
    def needs_descriptors(self) -> bool: ...


class Share:
    """The places of one connection, for its one thread."""

    def __init__(self, places: Places, account: str) -> None:
        self._places, self._account = places, account
        self.held = 0
        self._holders: list[Holder] = []  # that a place was taken for

    def take_for(self, holder: "Holder") -> bool:
        """One for `holder`, if there is one, until it needs no descriptors any more."""
        self.free_unneeded()
        if not self.take():
            return False
        self._holders.append(holder)
        return True

    def free_unneeded(self) -> None:
        """Give back those of holders that need none any more."""
        self._holders = [holder for holder in self._holders if holder.needs_descriptors]
        self.keep(len(self._holders))

    def take(self) -> bool:
        """One more, if there is one."""
        if not self._places.take(self._account, not self.held):
            return False
        self.held += 1
        return True

    def holds(self, count: int) -> bool:
        """Whether `count` places are held; one that is missing is taken, if there is one."""
        return self.held >= count or self.take()

    def keep(self, count: int) -> None:
        """Only so many are still needed."""
        if count < self.held:
            self._places.give(self._account, self.held - count)
            self.held = count
