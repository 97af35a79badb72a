"""Watches the accounts of logged-in connections, and ends those whose account was changed or removed.

Rules: it looks five times a second in a thread of its own, so it does not matter what a connection is doing or waiting
for. A connection ends, too, when its folder gets its first quota or loses its last one by a change of another account:
whether its files are counted was decided at its login. An accounts file that can't be used ends all connections, but
only after a second: an editor may be replacing it. A failure is logged, and the next look follows. No socket and no
password is known here.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from sft.accounts.format import Account
from sft.accounts.store import Accounts
from sft.common.errors import Code, threads_needed

_LOOK_SECONDS = 0.2
_UNUSABLE_SECONDS = 1.0


class Watched(Protocol):
    """One connection."""

    @property
    def account(self) -> Account | None:
        """The account as it was at the login; None before."""

    @property
    def is_counted(self) -> bool | None:
        """Whether it counts what it puts into its folder; None before that is decided."""

    def expel(self, code: Code) -> None:
        """End it, and send the reason; must not wait. Called again at every look until it has ended."""


class Watch:
    """Looks at the accounts of all connections that `connections()` returns."""

    def __init__(
        self,
        accounts: Accounts,
        connections: Callable[[], Iterable[Watched]],
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._accounts, self._connections, self._log, self._clock = accounts, connections, log, clock
        self._unusable_since: float | None = None

    def start(self) -> None:
        """Look five times a second from now on, until the process ends. Raises NoThread."""
        with threads_needed():
            threading.Thread(target=self._run, name="accounts", daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(_LOOK_SECONDS):
            try:
                self.look()
            except Exception:
                self._log.exception("a bug: looking at the accounts has failed")

    def look(self) -> None:
        """End each connection whose account is not as it was."""
        connections = list(self._connections())
        found = self._accounts.by_name() if connections else {}
        counted = self._accounts.counted_folders() if connections else frozenset()
        if self._is_unusable():
            return
        for connection in connections:
            before = connection.account
            if before is None:
                continue
            now, is_counted = found.get(before.name.encode()), connection.is_counted
            has_changed = now is not before and now != before
            if has_changed or is_counted not in (None, before.home in counted):
                # If the accounts file can't be read, the account may still be there: the client may try again.
                connection.expel(Code.UNAVAILABLE if self._accounts.trouble else Code.ACCOUNT)

    def _is_unusable(self) -> bool:
        """Whether the accounts file can't be used, for less than a second so far."""
        if not self._accounts.trouble:
            self._unusable_since = None
            return False
        if self._unusable_since is None:
            self._unusable_since = self._clock()
        return self._clock() - self._unusable_since < _UNUSABLE_SECONDS
