"""Runs a function in a thread of its own while the caller goes on.

Rules: what the function raises is raised again where its result is waited for, and nowhere else. The thread is a
daemon, so the program can end without waiting for it.
"""

import threading
from collections.abc import Callable

from sft.common.errors import threads_needed


class BackgroundTask:
    """A function that runs in a thread of its own; `wait` for it."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        """Begin. Raises NoThread."""
        self._work = work
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        with threads_needed():
            self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as problem:
            self._problem = problem

    def wait(self, seconds: float | None = None) -> bool:
        """Return when it is done, or False after so many seconds. Raises what it raised."""
        self._thread.join(seconds)
        if self._problem is not None:
            raise self._problem
        return not self._thread.is_alive()
