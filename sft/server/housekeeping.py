"""The server's background task: at its start and once a day, remove stale partial files and recount the quotas.

Rules: it runs in a thread of its own. No error ends the thread or reaches the accept loop: a failure is logged and
retried, with growing pauses. No connection is known here.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial

from sft.accounts.store import Accounts
from sft.common.background import BackgroundTask
from sft.common.errors import Refused, reason_of
from sft.common.sizes import counted
from sft.disk.storage import Storage
from sft.server.admin import has_quota

_EVERY = 24 * 3600.0
_RETRY, _LONGEST_RETRY = 60.0, 3600.0


class Housekeeping:
    """Call `start` once, and `stop` at the end."""

    def __init__(
        self,
        storage: Storage,
        accounts: Accounts,
        log: logging.Logger,
        every: float | None = None,
        retry: float | None = None,
    ) -> None:
        """`every`, `retry`: seconds between two runs, and before the first new try after a failure."""
        self._storage, self._accounts, self._log = storage, accounts, log
        self._every, self._retry = every or _EVERY, retry or _RETRY
        self._stopping = threading.Event()
        self._work: BackgroundTask | None = None

    def start(self) -> None:
        """Begin. Raises NoThread."""
        self._work = BackgroundTask("housekeeping", self._run)

    def stop(self, seconds: float) -> bool:
        """Start no more work, and wait up to that long for the work in progress. Whether it has ended."""
        self._stopping.set()
        return self._work is None or self._work.wait(seconds)

    def _run(self) -> None:
        retry = self._retry
        while not self._stopping.is_set():
            has_swept = self._try("removing stale partial files", self._sweep)
            has_counted = self._recount_all()
            if has_swept and has_counted:
                retry = self._retry
                self._stopping.wait(self._every)
            else:
                self._stopping.wait(retry)
                retry = min(2 * retry, _LONGEST_RETRY)

    def _try(self, what: str, work: Callable[[], None]) -> bool:
        """Whether it succeeded. A failure is logged; a lack of memory or descriptors is not logged as a bug."""
        try:
            work()
        except (OSError, MemoryError) as problem:
            self._log.error("%s failed, and is tried again: %s", what, reason_of(problem))
        except Refused as problem:
            self._log.error("%s failed, and is tried again: %s", what, problem.cause)
        except Exception:
            self._log.exception("a bug: %s failed, and is tried again", what)
        else:
            return True
        return False

    def _sweep(self) -> None:
        if removed := self._storage.sweep():
            self._log.info("removed %s of transfers that were cut off", counted(removed, "partial file", ""))

    def _recount_all(self) -> bool:
        """Recount the folders of accounts with a quota: files may have been added or removed by hand.

        Whether all succeeded.
        """
        names: dict[str, None] = {}
        done = self._try(
            "reading the accounts",
            lambda: names.update({each.home: None for each in self._accounts.all() if has_quota(each)}),
        )
        done &= not self._accounts.trouble  # then it is not known whom to count
        for name in names:
            if self._stopping.is_set():
                break
            done &= self._try(f"counting what {name} has", partial(self._recount, name))
        return done

    def _recount(self, name: str) -> None:
        used = self._storage.ledgers.recount(name)
        self._log.info("counted %s: %s in %s", name, counted(used.bytes, "byte", ""), counted(used.files, "file", ""))
