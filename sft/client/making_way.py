"""What has another kind at the receiving end than what is to come in its place: it goes first, if it may.

Rules: it is removed when everything else has arrived, and what waits for that comes last, so an end in between leaves
the old thing, the new one, or neither, and the same command goes on from there. Nothing is removed when anything has
failed, or when it were more than may be. Without --delete only what is nothing but itself goes: a file, a link, an
empty folder. Where it stays, what waits for it has failed, with one line.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from sft.client.comparing import Entry
from sft.common.errors import Code, Refused, TransferError
from sft.common.names import PathParts
from sft.common.sizes import counted
from sft.common.text import show_path
from sft.console.reporter import Reporter

_Waiting = TypeVar("_Waiting")

_ITS_KIND = {"file": "a file", "folder": "a folder", "link": "a symbolic link"}
_NEEDS_DELETE = "With --delete it is removed together with all that is in it"
_NOTHING_REMOVED = "What kept that from being done has a line of its own: then run the same command again"
_SPARED = "Remove it by hand, or leave out what comes in its place (--exclude)"


class MakingWay(Generic[_Waiting]):
    """What is in the way in one run, and what waits for it to go."""

    def __init__(
        self, deletes: bool, where: str = "on the receiver", shown: Callable[[PathParts], str] = show_path
    ) -> None:
        """`deletes`: with --delete, folders go with what is in them. `where`: the end that it is about."""
        self.deletes, self._where, self._shown = deletes, where, shown
        self.paths: dict[PathParts, Entry] = {}  # as they were there when they were compared
        self.waiting: dict[_Waiting, PathParts] = {}  # with what each waits for
        self._full: set[PathParts] = set()  # folders with something in them
        self._kept: set[PathParts] = set()  # those with something in them that stays
        self._gone: set[PathParts] = set()
        self._stuck: dict[PathParts, Refused] = {}
        self.is_forbidden = False  # nothing at all is removed

    def holds(self, path: PathParts, stays: bool = False) -> None:
        """Only the receiver has that: a folder in the way that has it in it is not empty. `stays`: it is kept."""
        if self.paths:
            above = {path[:depth] for depth in range(1, len(path))} & self.paths.keys()
            self._full |= above
            self._kept |= above if stays else set()

    def going(self, reporter: Reporter, most: int) -> dict[PathParts, Entry]:
        """What goes by itself, without --delete: all of it or nothing. `most`: how much may."""
        if self.deletes:
            return {}
        going = {path: was for path, was in self.paths.items() if path not in self._full and path not in self._stuck}
        self.is_forbidden = bool(reporter.failed_count) or len(going) > most
        if len(going) > most and not reporter.failed_count:
            cause = f"nothing was removed: {counted(len(going), 'name')} {self._where} would have to make way"
            remedy = f"Without --delete it is {most:,} at most: look with --dry-run; --delete --max-delete allows more"
            reporter.failed("--update", TransferError(cause, remedy))
        return {} if self.is_forbidden else going

    def gone(self, path: PathParts) -> None:
        """It is removed, or would be."""
        if path in self.paths:
            self._gone.add(path)

    def stuck(self, path: PathParts, problem: Refused) -> bool:
        """It could not be removed; whether it is in the way, so that what waits for it tells."""
        if path in self.paths:
            self._stuck[path] = problem
        return path in self.paths

    def blocked(self, path: PathParts) -> Refused | None:
        """Why what is in the way there is not gone; None: it is."""
        if path in self._gone:
            return None
        if path in self._stuck:
            return self._stuck[path]
        shown = self._shown(path)
        what = f"{shown} is {_ITS_KIND[self.paths[path].kind]} {self._where}"
        if path not in self._kept and path in self._full and not self.deletes:
            words = f"{what}, and not empty", _NEEDS_DELETE
        elif path not in self._kept and self.is_forbidden:
            words = f"{what}, and nothing was removed", _NOTHING_REMOVED
        else:
            words = f"{what}, and something in it stays", _SPARED
        return Refused(Code.IS_FOLDER, shown, "", words)

    def take_waiting(self) -> dict[_Waiting, PathParts]:
        """What waits, each with what it waits for; nothing waits any more."""
        waiting = dict(self.waiting)
        self.waiting.clear()
        return waiting
