"""A folder that was named on the command line, and what has become of all in it: one line instead of one for each file.

Rules: each thing that was found in it is settled once; folders do not count as files. It writes nothing, and any
thread may call it.
"""

import threading
from collections import Counter

from sft.common.sizes import counted

_ARRIVED = ("delivered", "there already", "unchanged")
_SHOWN = (*_ARRIVED, "skipped", "failed")


class NamedFolder:
    """How many files below one folder were delivered, were there already, were skipped or have failed."""

    def __init__(self, path: str) -> None:
        """`path`: where the folder goes, as the line shows it."""
        self._path = path if path.endswith("/") else f"{path or '.'}/"
        self._counts: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._found: int | None = None  # once all of it is
        self._settled = 0
        self._is_told = False
        self._lock = threading.Lock()

    def found(self, count: int) -> None:
        """There are so many things in it, each of which is settled once, and no more."""
        with self._lock:
            self._found = count

    def settle(self, word: str, size: int = 0, count: int = 1) -> bool:
        """So many are `delivered`, `there already`, `unchanged`, `skipped` or `failed`; or they are a `folder`.

        Whether these were the last ones, as far as is known.
        """
        with self._lock:
            self._settled += count
            self._counts[word] += count
            self._bytes[word] += size
            return self._settled == self._found

    def line(self, is_over: bool = False) -> str | None:
        """The line, once, when nothing in it is left to do or the run `is_over`; None when there is none to print."""
        with self._lock:
            is_whole = self._found is not None and self._settled >= self._found
            if self._is_told or not (is_whole or is_over):
                return None
            self._is_told = True
            return self._shown(is_whole)

    def _shown(self, is_whole: bool) -> str | None:
        main = next((word for word in (*_ARRIVED, *(["skipped"] if is_whole else [])) if self._counts[word]), None)
        if main is None:
            if not is_whole or self._counts["failed"]:
                return None  # the reasons have lines of their own
            main = "delivered"  # a folder without a file
        size = f", {counted(self._bytes[main], 'byte')}" if main != "skipped" else ""
        others = [f", {self._counts[word]:,} {word}" for word in _SHOWN if word != main and self._counts[word]]
        head = f"{main}{'' if is_whole else ' in part'}: {self._path}"
        return f"{head}  {counted(self._counts[main], 'file')}{size}{''.join(others)}"
