"""Whether this server can take files now: for a load balancer that asks by HTTP and gets 200, or 503 with the reason.

Rules: an answer is a trial that is at most a second old: the accounts are read, and a file is written, flushed and
linked in the storage. A trial is made when somebody asks, in a thread of its own, because a dead mount may hold it
for ever: that it does not end is an answer, too. A server that stops says so at once. Only changes are logged.
"""

import logging
import threading
import time
from collections.abc import Callable
from http import HTTPStatus

from sft.accounts.store import Accounts
from sft.common.background import BackgroundTask
from sft.common.errors import NoThread, Refused, reason_of
from sft.disk.storage import Storage
from sft.server.http_answers import Answer

_FRESH_SECONDS = 1.0
_TRIAL_SECONDS = 3.0  # a disk that takes longer to flush one small file takes no other
_STOPPING = "the server is shutting down"


class Health:
    """Call `answer` from any thread."""

    def __init__(
        self,
        accounts: Accounts,
        storage: Storage,
        is_stopping: Callable[[], bool],
        log: logging.Logger,
        seconds: float = _TRIAL_SECONDS,
    ) -> None:
        """`seconds`: how long a trial may take."""
        self._accounts, self._storage, self._is_stopping, self._log = accounts, storage, is_stopping, log
        self._seconds = seconds
        self._changed = threading.Condition()  # guards the fields below
        self._begun: float | None = None  # when the trial that runs now began
        self._ended = float("-inf")  # when the last one ended
        self._trouble = ""  # what it has found
        self._told = ""  # what was logged last

    def answer(self) -> Answer:
        """200, or 503 and why."""
        trouble = _STOPPING if self._is_stopping() else self._look()
        if trouble:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, trouble)
        return Answer(HTTPStatus.OK, "ready")

    def _look(self) -> str:
        """What is wrong; empty when nothing is."""
        asked = time.monotonic()
        with self._changed:
            if self._begun is None and asked - self._ended > _FRESH_SECONDS:
                self._begin(asked)
            deadline = (self._begun or asked) + self._seconds
            while self._begun is not None and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            trouble = self._trouble
            if self._begun is not None:
                trouble = f"the storage has not answered for {time.monotonic() - self._begun:.0f} s"
            self._tell(trouble)
        return trouble

    def _tell(self, trouble: str) -> None:
        # Seconds go by while a mount hangs; that is no change.
        is_new = bool(trouble) != bool(self._told)
        self._told = trouble
        if is_new and trouble:
            self._log.error("not ready: %s", trouble)
        elif is_new:
            self._log.info("ready again")

    def _begin(self, now: float) -> None:
        self._begun = now
        try:
            BackgroundTask("trial", self._try)
        except NoThread as problem:
            self._end(problem.cause)

    def _try(self) -> None:
        trouble = "a bug: the trial has failed"
        try:
            self._accounts.find(b"")
            self._storage.try_out()
            trouble = ""
        except Refused as problem:
            trouble = problem.why or problem.cause
        except (OSError, MemoryError) as problem:
            trouble = reason_of(problem)
        finally:
            with self._changed:
                self._end(trouble)

    def _end(self, trouble: str) -> None:
        self._begun, self._ended, self._trouble = None, time.monotonic(), trouble
        self._changed.notify_all()
