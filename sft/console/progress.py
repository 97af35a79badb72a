"""The progress display of a transfer: a bar with bytes, rate and time left, or "stalled" while nothing moves.

Rules: nothing is shown unless the caller asks for it. Text is escaped by the function given. A thread
of its own looks whether bytes still move, because a bar is otherwise drawn only when they do; it draws nothing once the
bar is taken away. It writes no line itself.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

_STALLED_SECONDS = 3.0  # without a byte, after which a rate would be an old one
_LOOK_SECONDS = 1.0
_USUAL_COLUMNS, _MOST_COLUMNS = 80, 300
_ROWS = 20  # with fewer, tqdm shows "(more hidden)" instead of the bar
_STALLED = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, stalled]"
_STALLED_WITHOUT_TOTAL = "{desc}: {n_fmt} [{elapsed}, stalled]"


def _columns() -> int:
    """How wide a bar may be: one column less than the terminal; as usual where it does not know its size."""
    try:
        found = os.get_terminal_size(2).columns
    except OSError:
        found = 0
    return max(1, min(found or _USUAL_COLUMNS, _MOST_COLUMNS) - 1)


def _bar(total: int | None, note: Callable[[str], None]) -> Any:
    """A bar of tqdm; None, with a note, where tqdm can't be used."""
    try:
        from tqdm import tqdm  # 40 ms that a pipe need not pay

        return tqdm(
            total=total,
            unit="B",
            unit_scale=True,
            unit_divisor=1000,
            ncols=_columns(),
            nrows=_ROWS,
            leave=False,
            mininterval=0.1,
        )
    except ImportError:
        note("no progress bar: tqdm is not installed. Run: python -m pip install -r requirements.lock")
    except Exception as problem:  # a variable TQDM_..., which tqdm takes for its settings, may be anything
        note(f"no progress bar: tqdm fails ({problem}). Check the variables TQDM_...")
    return None


class ProgressBar:
    """A bar on standard error, if `shown`."""

    def __init__(
        self,
        total: int | None,
        shown: bool,
        note: Callable[[str], None],
        escape: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`note` is called with the reason when there is no bar."""
        self._bar: Any = _bar(total, note) if shown else None
        self.is_shown = self._bar is not None
        self._escape, self._clock = escape, clock
        self._moved_at = clock()
        self._is_stalled = False
        self._over = threading.Event()
        self._lock = threading.RLock()
        if self.is_shown:
            try:
                threading.Thread(target=self._watch, name="progress", daemon=True).start()
            except RuntimeError:  # no thread for it: the bar stays as it is while nothing moves
                self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Say "stalled" instead of a rate when nothing has moved for some seconds."""
        with self._lock:
            if self._bar is not None and self._clock() - self._moved_at >= _STALLED_SECONDS:
                self._is_stalled, self._bar.ncols = True, _columns()
                self._bar.bar_format = _STALLED if self._bar.total else _STALLED_WITHOUT_TOTAL
                self._bar.refresh()

    def name(self, what: str) -> None:
        """Say what is being done now."""
        with self._lock:
            if self._bar is not None:
                self._bar.set_description_str(self._escape(what)[-40:], refresh=False)

    def more(self, count: int) -> None:
        """`count` more bytes are to come than was known."""
        with self._lock:
            if self._bar is not None:
                self._bar.total = (self._bar.total or 0) + count

    def advance(self, count: int) -> None:
        """`count` more bytes are done."""
        with self._lock:
            if self._bar is not None:
                self._moved_at, self._bar.ncols = self._clock(), _columns()  # the window may be another one now
                if self._is_stalled:
                    self._is_stalled, self._bar.bar_format = False, None
                self._bar.update(count)

    def close(self) -> None:
        """Take the bar away; what is printed next starts on a clean line."""
        self._over.set()
        with self._lock:
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def above(self, write: Callable[[], None]) -> None:
        """Write lines above the bar."""
        with self._lock:
            if self._bar is not None:
                self._bar.clear()
            write()
            if self._bar is not None:
                self._bar.refresh()
