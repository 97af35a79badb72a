"""What a walk finds here for a comparison, some way ahead of it: one thing after the other, or many files at once.

Rules: one thread calls `look`, another one the rest. Files come from the walk in runs; of a run that has one of our own
files in it, each is looked at by itself.
"""

import itertools
from collections import deque
from collections.abc import Callable

from sft.client.ahead import Ahead
from sft.client.own_logs import OwnFiles
from sft.client.sources import NamedSource
from sft.common.names import PathParts
from sft.disk.tree import Files, Line, Walked

_NONE = Files("", (), [], 0, [])


class Here:
    """What is found in the sources of one run."""

    def __init__(self, own_files: OwnFiles, is_over: Callable[[], bool]) -> None:
        """`is_over`: nothing more is wanted."""
        self._own_files, self._is_over = own_files, is_over
        self._ahead: Ahead[tuple[NamedSource, Walked | Files]] = Ahead(is_over)
        self._files, self._at = _NONE, 0  # those that were found last, and the next of them
        self._has_own = False  # some of these are

    def look(self, sources: deque[NamedSource]) -> None:
        """Walk the sources, some way ahead of the comparison."""
        try:
            while sources:
                source = sources.popleft()
                for each in itertools.chain([source.first], source.below):
                    if self._is_over():
                        return
                    self._ahead.put((source, each), len(each.lines) if isinstance(each, Files) else 1)
            self._ahead.end()
        finally:
            self._ahead.fail()

    def next_source(self) -> tuple[NamedSource, Walked] | None:
        """The next source, of which nothing was taken yet, and what it is; None behind the last."""
        next_one = self._ahead.peek()
        if next_one is None:
            return None
        source, first = next_one
        if isinstance(first, Files):
            raise RuntimeError("files without their folder")
        return source, first

    def pass_by(self) -> None:
        """Go on to what is behind that source's own name."""
        self._ahead.pass_by()

    def next_of(self, source: NamedSource) -> Walked | None:
        """What comes next below a source; None at its end."""
        while self._at >= len(self._files.lines):
            if (next_one := self._ahead.peek()) is None or next_one[0] is not source:
                return None
            self._ahead.pass_by()
            if not isinstance(next_one[1], Files):
                return next_one[1]
            self._go_to(next_one[1])
        self._at += 1
        return self._files.at(self._at - 1)

    def files_of(self, source: NamedSource) -> tuple[PathParts, list[Line]] | None:
        """A folder below a source and files that come next in it, if any do; they stay the next ones."""
        if self._at >= len(self._files.lines):
            next_one = self._ahead.peek()
            if next_one is None or next_one[0] is not source or not isinstance(next_one[1], Files):
                return None
            self._ahead.pass_by()
            self._go_to(next_one[1])
        return None if self._has_own else (self._files.folder, self._files.lines[self._at :])

    def pass_files_by(self, count: int) -> None:
        """Go on behind so many of these files."""
        self._at += count

    def _go_to(self, files: Files) -> None:
        self._files, self._at = files, 0
        self._has_own = not self._own_files.has_none(files)
