"""Places for large files on their way, each of which needs two open files: a budget of the process, shared by accounts.

Rules: half of the open files that the process may have are for large files; the rest is for logins, connections and
small files. An account gets at most as many places as it leaves free, so one alone takes half, and the next still finds
some. Each connection has one in any case, so that it goes on. Who gets none waits, and nothing is refused for it.
"""

import sys
import threading
from collections import Counter

_EACH = 2  # descriptors: the bytes, and the journal


def limit_of_process() -> int:
    """How many places there are."""
    try:
        import resource
    except ImportError:  # Windows, where nothing is received
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft // 2 // _EACH


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


class Share:
    """The places of one connection, for its one thread."""

    def __init__(self, places: Places, account: str) -> None:
        self._places, self._account = places, account
        self.held = 0

    def take(self) -> bool:
        """One more, if there is one."""
        if not self._places.take(self._account, not self.held):
            return False
        self.held += 1
        return True

    def keep(self, count: int) -> None:
        """Only so many are still needed."""
        if count < self.held:
            self._places.give(self._account, self.held - count)
            self.held = count
