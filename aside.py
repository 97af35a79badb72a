"""A piece of work beside what the caller does meanwhile, in a thread of its own.

Rules: what it raises is raised again where its result is waited for, and nowhere else. Nobody who ends waits for it:
the thread is a daemon. It knows nothing of the work.
"""

import threading
from collections.abc import Callable

from errors import NoThread


class Aside:
    """Work that is being done; `wait` for it."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        """Begin. Raises NoThread."""
        self._work = work
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as problem:
            if NoThread.is_why(problem):
                raise NoThread from None
            raise

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as problem:
            self._problem = problem

    def wait(self) -> None:
        """Return when it is done. Raises what it raised."""
        self._thread.join()
        if self._problem is not None:
            raise self._problem
