"""Lines about the sources that wait until the login is through: if it fails, why comes first, and they come behind.

Rules: no more wait than a screen scrolls by at once; beyond that all are written. Any thread may call it.
"""

import threading
from collections.abc import Callable

_MOST = 1000


class Waiting:
    """Writes lines at once, or later."""

    def __init__(self, write: Callable[..., None]) -> None:
        """`write(*lines)` writes them."""
        self._write = write
        self._lines: list[str] = []
        self._is_holding = False
        self._lock = threading.RLock()

    def hold(self) -> None:
        """From now on lines wait."""
        self._is_holding = True

    def add(self, *lines: str) -> None:
        """Write these, now or when they need not wait any more."""
        with self._lock:
            self._lines += lines
            if not self._is_holding or len(self._lines) > _MOST:
                self.release()

    def release(self) -> None:
        """Write what waits; from now on nothing does."""
        if lines := self.take():
            self._write(*lines)

    def take(self) -> list[str]:
        """The lines that wait, for the caller to write; from now on none does."""
        with self._lock:
            lines, self._lines, self._is_holding = self._lines, [], False
            return lines
