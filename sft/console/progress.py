"""The progress display of a transfer: one line with files, bytes, rate and time left, or "stalled" while nothing moves.

Rules: nothing is shown unless the caller asks for it. Names are escaped before. A thread of its own looks whether bytes
still move, because the line is otherwise drawn only when they do; it draws nothing once the display is taken away.
What the line says is decided by `sft/console/progress_line.py`; it is written by the function given.
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable

from sft.console.progress_line import Progress, columns_of, progress_line, searching
from sft.console.screen import as_shown, draw, is_terminal

_STALLED_SECONDS = 3.0  # without a byte, after which a rate would be an old one
_RATE_SECONDS = 10.0  # that a rate is an average of
_LOOK_SECONDS = 1.0
_DRAW_SECONDS = 0.1
_USUAL_COLUMNS, _MOST_COLUMNS = 80, 300

Found = Callable[[], tuple[int, int]]  # files and bytes


def _columns() -> int:
    """How wide a line may be: one column less than the terminal; as usual where it does not know its size."""
    try:
        found = os.get_terminal_size(2).columns
    except OSError:
        found = 0
    return max(1, min(found or _USUAL_COLUMNS, _MOST_COLUMNS) - 1)


class ProgressBar:
    """A line on standard error, if `shown`."""

    def __init__(
        self,
        shown: bool,
        draw: Callable[[str], None],
        escape: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
        columns: Callable[[], int] = _columns,
    ) -> None:
        """`draw` writes a text that stays on the cursor's line."""
        self.is_shown = shown
        self._draw_text, self._escape, self._clock, self._columns = draw, escape, clock, columns
        self._name = ""
        self._bytes = self._files = 0
        self._bytes_total: int | None = None
        self._files_total: int | None = None
        self._found: Found | None = None  # while that is still searched
        self._moved_at = self._drawn_at = clock()
        self._marks: deque[tuple[float, int]] = deque([(self._moved_at, 0)])
        self._width = 0  # of what stands on the line
        self._over = threading.Event()
        self._lock = threading.RLock()
        if shown:
            try:
                threading.Thread(target=self._watch, name="progress", daemon=True).start()
            except RuntimeError:  # no thread for it: the line stays as it is while nothing moves
                self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Draw it anew: nothing may have moved for some seconds."""
        with self._lock:
            if self.is_shown:
                self._draw()

    def search(self, found: Found) -> None:
        """What is to come is still searched; `found()`: how many files and bytes so far."""
        with self._lock:
            self._found = found

    def begin(self, total: int | None, files: int | None) -> None:
        """So many bytes in so many files are to come."""
        with self._lock:
            self._found, self._bytes_total, self._files_total, self._files = None, total, files, 0
            self._moved_at, self._drawn_at = self._clock(), -math.inf  # the first bytes are shown at once
            self._marks = deque([(self._moved_at, self._bytes)])

    def name(self, what: str) -> None:
        """Say what is being done now."""
        if self.is_shown:
            self._name = what

    def more(self, count: int, files: int) -> None:
        """So many more bytes and files are to come than was known."""
        with self._lock:
            self._bytes_total = (self._bytes_total or 0) + count
            self._files_total = (self._files_total or 0) + files

    def file_done(self) -> None:
        """One more file is settled."""
        if self.is_shown:
            with self._lock:
                self._files += 1

    def advance(self, count: int) -> None:
        """`count` more bytes are done."""
        if not self.is_shown:
            return
        with self._lock:
            self._bytes += count
            self._moved_at = now = self._clock()
            if now - self._drawn_at >= _DRAW_SECONDS:
                self._draw()

    def _draw(self) -> None:
        now, columns = self._clock(), self._columns()
        self._drawn_at = now
        if self._found is not None:
            line = searching(*self._found(), columns)
        else:
            is_stalled = now - self._moved_at >= _STALLED_SECONDS
            known = (self._escape(self._name), self._bytes, self._bytes_total, self._files, self._files_total)
            line = progress_line(Progress(*known, self._rate(now), is_stalled), columns)
        blanks = " " * (min(self._width, columns) - columns_of(line))
        self._width = columns_of(line)
        self._draw_text(f"\r{line}{blanks}")

    def _rate(self, now: float) -> float | None:
        """Bytes per second of the last seconds; None when nothing has moved yet."""
        self._marks.append((now, self._bytes))
        while len(self._marks) > 2 and now - self._marks[1][0] >= _RATE_SECONDS:
            self._marks.popleft()
        before, count = self._marks[0]
        return (self._bytes - count) / (now - before) if now > before and self._bytes > count else None

    def _clear(self) -> None:
        if self._width:
            self._draw_text(f"\r{' ' * min(self._width, self._columns())}\r")
            self._width = 0

    def close(self) -> None:
        """Take the line away; what is printed next starts on a clean one."""
        self._over.set()
        with self._lock:
            self._clear()
            self.is_shown = False

    def above(self, write: Callable[[], None]) -> None:
        """Write lines above it."""
        with self._lock:
            was_drawn = self._width > 0
            self._clear()
            write()
            if was_drawn:
                self._draw()


def open_progress(shown: bool) -> ProgressBar:
    """A progress display; nothing in a pipe or when not `shown`."""
    return ProgressBar(shown and is_terminal(), draw, as_shown)
