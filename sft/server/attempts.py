"""Who may try to log in: by this server's own counts, or by those that several servers share, if they do.

Rules: shared counts decide alone, so whom one server is asked to forget is let in by all. The server's own go along for
the time when the others can't be had, because their disk is in trouble: then they decide, and the log says so once.
That a password is wrong is never said for that reason.
"""

import logging
from pathlib import Path

from sft.common.errors import UsageError, reason_of
from sft.server.origin import origin_of
from sft.server.shared_throttle import SharedThrottle
from sft.server.throttle import Charge, Throttle


class Attempts:
    """One for a server process. Safe to use from several threads at once."""

    def __init__(self, log: logging.Logger, shared: Path | None = None) -> None:
        """`shared`: the file with the counts of all servers; None: this one counts alone."""
        self._log, self._own = log, Throttle()
        self._shared = None if shared is None else SharedThrottle(shared)
        self._is_alone = False  # as the log says

    def charge(self, user: bytes, source: str) -> Charge | None:
        """Check and charge one try, in one step; None when it is refused."""
        if self._shared is None:
            return self._own.charge(user, source)
        try:
            shared = self._shared.charge(user, origin_of(source))
        except (OSError, UsageError) as problem:
            self._tell(problem)
            return self._own.charge(user, source)
        except Exception:  # as in Throttle: it may be an attacker's doing
            return None
        self._tell(None)
        if shared is None:
            return None
        own = self._own.charge(user, source)

        def give_back() -> None:
            shared.give_back()
            if own is not None:
                own.give_back()

        return Charge(give_back)

    def forget_source(self, source: bytes) -> int:
        """Forget what one source has tried, at any names; how many attempts were counted for it."""
        own = self._own.forget_source(source)
        try:
            return max(own, 0 if self._shared is None else self._shared.forget_source(source))
        except (OSError, UsageError) as problem:
            self._tell(problem)
            return own

    def forget_user(self, user: bytes) -> int:
        """Forget what was tried at one name, from anywhere; how many attempts were counted for it."""
        own = self._own.forget_user(user)
        try:
            return max(own, 0 if self._shared is None else self._shared.forget_user(user))
        except (OSError, UsageError) as problem:
            self._tell(problem)
            return own

    def _tell(self, problem: OSError | UsageError | None) -> None:
        if (problem is not None) != self._is_alone:
            self._is_alone = problem is not None
            if problem is None:
                self._log.info("attempts at logins are counted together with the other servers again")
            else:
                reason = problem.cause if isinstance(problem, UsageError) else reason_of(problem)
                self._log.error("attempts at logins are counted by this server alone for now: %s", reason)
