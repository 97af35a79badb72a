"""What an update changes at the receiver once everything is sent: times and modes of what is there, and removals.

Rules: nothing is removed unless everything was sent, and nothing when more would be removed than may be, or when a
folder that was named has nothing here: a disk that is not mounted looks the same. What is in a folder goes before it,
and nothing goes together with anything else: a folder that has got something new stays. What is not as it was compared
stays, too: it is looked at again just before. Each folder that something was removed from gets its time again.
Questions run ahead of their answers; a connection that breaks leaves those without one to the next.
"""

import contextlib
import itertools
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from sft.client.comparing import Entry
from sft.client.making_way import MakingWay
from sft.client.refusals import not_changed
from sft.client.second_look import changed_since
from sft.client.sending_plan import SendingPlan
from sft.common.errors import (
    PASSING_CODES,
    Code,
    ConnectionTrouble,
    PeerStopped,
    ProtocolViolation,
    Refused,
    TransferError,
    UsageError,
)
from sft.common.names import PathParts, spelling_of
from sft.common.parsers import as_whole
from sft.common.sizes import counted
from sft.common.text import show_path
from sft.console.reporter import Reporter
from sft.wire.protocol import MAX_INTEGER

if TYPE_CHECKING:  # a client sends its hello before it loads the messages
    from sft.transfer.items import Item
    from sft.wire.channel import Channel
    from sft.wire.messages import Control, Message

_MAX_REMOVED = 1000  # without --max-delete, and without --delete
_AHEAD = 256  # questions that wait for their answers
_NOT_REMOVED = {
    Code.NOT_EMPTY: (
        "{path} on the receiver is not empty: something in it is new, or neither a file, a folder nor a link",
        "Run the same command again, or look there",
    ),
    Code.DENIED: (
        "your account may not remove {path} on the receiver",
        "Ask the receiver's owner for the right remove",
    ),
}
_MAY_NOT_LIST = ("your account may not list what is on the receiver", "Ask its owner for the right list")


_OWNERS = 0o700  # bits that no umask takes away, but the receiver's `file_mode` may
_FEW_MODES = 16  # that are set where nothing has such bits; if that helps, the next run sets the others


class _Change(NamedTuple):
    """`is_removal`: or that gets another time or mode; with `is_again` the time that a removal took from a folder."""

    path: PathParts
    is_removal: bool = False
    mtime: int | None = None
    mode: int | None = None
    is_again: bool = False

    def question(self, id: int) -> "Control":
        """It, as it is asked for."""
        from sft.wire.change_messages import Remove, SetAttributes

        return Remove(id, self.path, False) if self.is_removal else SetAttributes(id, self.path, self.mtime, self.mode)


def most_removed(max_removed: str | None) -> int:
    """What --max-delete says, as it was typed; None: it was not given. Raises UsageError."""
    try:
        return _MAX_REMOVED if max_removed is None else as_whole(0, MAX_INTEGER)(max_removed)
    except ValueError as problem:
        raise UsageError(f"--max-delete: {max_removed} {problem}", "Such as 5000") from None


class Finishing:
    """Collects what is to be changed; then does it."""

    def __init__(self, reporter: Reporter, removes: bool, max_removed: str | None) -> None:
        """`max_removed`: how much may be removed, as it was typed. Raises UsageError."""
        self._reporter, self._removes = reporter, removes
        self._max_removed = most_removed(max_removed)
        self.way: MakingWay[Item] = MakingWay(removes)
        self._sets: list[_Change] = []
        self._extra: dict[PathParts, Entry] = {}  # as they were there when they were compared
        self._empty: str | None = None  # a folder that was named, has nothing here, and has something there
        self._sent: set[int] = set()  # hashes of new names, as a disk may spell them
        self._extra_count = 0
        self._times: dict[PathParts, int] = {}  # of folders that something is removed from
        self._modes: dict[tuple[str, int], list[tuple[PathParts, int]]] = {}  # by kind, and the bits that are missing
        self._given = {"file": 0, "folder": 0}  # permission bits that one of them has at the receiver
        self._left: deque[_Change] = deque()
        self._not_set = self._not_removed = 0  # because the account may not

    # --- what is to be done ---

    def set(self, path: PathParts, mtime: int | None, mode: int | None) -> None:
        """That gets another time or mode."""
        self._sets.append(_Change(path, False, mtime, mode))

    def see_mode(self, kind: str, mode: int) -> None:
        """Something of that kind has these permission bits there."""
        if kind in self._given:
            self._given[kind] |= mode

    def set_mode(self, path: PathParts, kind: str, mode: int, there: int) -> None:
        """That has other permission bits there. Where some are only missing, the receiver's umask may take them."""
        missing = 0 if there & ~mode else mode & ~there
        self._modes.setdefault((kind, missing), []).append((path, mode))

    def sent(self, path: PathParts) -> None:
        """That was not there, under this spelling."""
        if self._removes:
            self._sent.add(spelling_of(path))

    def remove(self, path: PathParts, there: Entry, folder_time: int | None) -> None:
        """Only the receiver has that. `folder_time`: of the folder that it is in, if that is here."""
        self.way.holds(path)
        self._remove(path, there, folder_time)

    def make_way(self, path: PathParts, there: Entry, folder_time: int | None) -> None:
        """That is there, and of another kind than what is to come in its place."""
        self.way.paths[path] = there
        self._remove(path, there, folder_time)

    def _remove(self, path: PathParts, there: Entry, folder_time: int | None) -> None:
        if self._removes:
            self._extra_count += 1
            if self._extra_count <= self._max_removed:
                self._extra[path] = there
                if folder_time is not None and len(path) > 1:
                    self._times[path[:-1]] = folder_time

    def spare(self, path: PathParts) -> None:
        """Only the receiver has that, and it stays: so do the folders that it is in."""
        self.way.holds(path, stays=True)
        for depth in range(1, len(path)):
            if path[:depth] in self._extra:
                del self._extra[path[:depth]]
                self._extra_count -= 1

    def is_empty_here(self, name: str) -> None:
        """That folder was named, nothing of it is sent, and the receiver has something below it."""
        self._empty = self._empty or name

    def remove_nothing(self) -> None:
        """It is not known what only the receiver has."""
        self._removes = False

    def can_not_list(self) -> None:
        """The same, because the account may not."""
        if self._removes:
            self._reporter.failed("--delete", Refused(Code.DENIED, "", "", _MAY_NOT_LIST))
        self._removes = False

    # --- doing it ---

    def prepare(self) -> bool:
        """Decide what is done; whether there is anything. Called once everything is sent, or has failed."""
        changes = [*self._sets, *(_Change(path, False, None, mode) for path, _, mode in self._modes_to_set())]
        if self._may_remove():
            changes += [_Change(path, True) for path in reversed(self._extra)]
            changes += [_Change(path, False, mtime, is_again=True) for path, mtime in self._times.items()]
        else:
            self._extra = self.way.going(self._reporter, self._max_removed)
            changes += [_Change(path, True) for path in reversed(self._extra)]
        self._left = deque(changes)
        return bool(changes)

    def tell(self, plan: SendingPlan) -> None:
        """Tell what would be done."""
        for path, kind, _ in self._modes_to_set():
            plan.tell_set(path, kind)
        may_remove = self._may_remove()
        for path in self._extra if may_remove else self.way.going(self._reporter, self._max_removed):
            self.way.gone(path)
        if may_remove:
            for path, there in reversed(self._extra.items()):
                plan.tell_removal(path, there.kind)
        plan.tell_waiting(self.way.blocked)

    def _modes_to_set(self) -> Iterator[tuple[PathParts, str, int]]:
        for (kind, missing), files in self._modes.items():
            most: int | None = None
            if missing and not missing & self._given[kind]:  # it may be that the receiver gives nothing such bits
                most = _FEW_MODES if missing & _OWNERS else 0
            yield from ((path, kind, mode) for path, mode in files[:most])

    def _may_remove(self) -> bool:
        self.way.is_forbidden = not self._decide_removal()
        return not self.way.is_forbidden

    def _decide_removal(self) -> bool:
        if not self._removes:
            return False
        for path in [path for path in self._extra if spelling_of(path) in self._sent]:
            self.spare((*path, ""))  # on a disk that knows one name for both it is what was sent
        if not self._extra_count:
            return False
        would = f"{counted(self._extra_count, 'name')} would be removed"
        if self._reporter.failed_count:
            self._reporter.note(f"nothing was removed, because not everything was sent ({would})")
        elif self._empty is not None:
            cause, remedy = (
                f"nothing was removed: {self._empty} is empty here",
                "Check its disk, or remove there by hand",
            )
            self._reporter.failed("--delete", TransferError(f"{cause} ({would})", remedy))
        elif self._extra_count > self._max_removed:
            allowed = f"--max-delete allows {self._max_removed:,}: look with --dry-run, or allow more"
            self._reporter.failed("--delete", TransferError(f"nothing was removed: {would}", allowed))
        else:
            return True
        return False

    def run(self, channel: "Channel") -> None:
        """Do what is not done yet. Raises ConnectionTrouble, ProtocolViolation, PeerStopped."""
        messages = (arrived[0] for arrived in channel.messages() if arrived is not None)
        before = sum(1 for _ in itertools.takewhile(lambda change: not change.is_removal, self._left))
        last_id = self._change(channel, messages, before, 0)
        last_id = self._look_again(channel, messages, last_id)
        self._change(channel, messages, len(self._left), last_id)
        channel.say_bye()
        with contextlib.suppress(ConnectionTrouble):  # all that was asked for is answered, with or without a BYE
            if next(messages, None) is not None:
                raise ProtocolViolation("a message behind the last answer")
        self._tell_denied()

    def _change(self, channel: "Channel", messages: "Iterator[Message]", count: int, last_id: int) -> int:
        """Do so many changes, the first of which has an id one above `last_id`; the id of the last one."""
        left, asked, answered = self._left, 0, 0
        while answered < count:
            while asked < min(count, answered + _AHEAD):
                channel.post(left[asked - answered].question(last_id + asked + 1).encode())
                asked += 1
            self._answered(left[0], last_id + answered + 1, next(messages, None))
            left.popleft()
            answered += 1
        return last_id + count

    def _look_again(self, channel: "Channel", messages: "Iterator[Message]", last_id: int) -> int:
        """Keep what is not as it was compared, with the folders that it is in; the id of the last question."""
        extra = {change.path: self._extra[change.path] for change in self._left if change.is_removal}
        if not extra:
            return last_id
        look = changed_since(extra, channel, messages, last_id)
        if look.is_denied:
            self._reporter.failed("--delete", Refused(Code.DENIED, "", "", _MAY_NOT_LIST))
        stay = set(extra) if look.is_denied else set()
        for path in look.changed:
            shown = show_path(path)
            words = (f"{shown} on the receiver has changed meanwhile and was not removed", "Run the same command again")
            problem = Refused(Code.CHANGED, shown, "", words)
            if not self.way.stuck(path, problem):
                self._reporter.failed(shown, problem)
            stay.update(path[:depth] for depth in range(1, len(path) + 1))
        self._left = deque(each for each in self._left if not (each.is_removal and each.path in stay))
        return look.last_id

    def _answered(self, change: _Change, id: int, answer: object) -> None:
        from sft.wire.change_messages import Done
        from sft.wire.messages import Refuse

        if isinstance(answer, Refuse) and answer.id == id:
            if answer.code in PASSING_CODES:
                raise PeerStopped(answer.code)
            self._refused(change, Refused(answer.code))
        elif not isinstance(answer, Done) or answer.id != id or answer.count != 1:
            raise ProtocolViolation("no answer to a change")
        elif change.is_removal:
            self.way.gone(change.path)
            self._reporter.removed(show_path(change.path), 1)
        elif not change.is_again:
            self._reporter.was_set(show_path(change.path))

    def _refused(self, change: _Change, problem: Refused) -> None:
        path = show_path(change.path)
        if problem.code is Code.NOT_FOUND:  # the answer of an earlier connection was lost, or it is gone by now
            if change.is_removal:
                self.way.gone(change.path)
                self._reporter.removed(path, None)
        elif change.is_removal and self.way.stuck(change.path, self._told(change, problem)):
            pass
        elif problem.code is Code.DENIED and not change.is_removal:
            self._not_set += 1
        elif problem.code is Code.DENIED and self._not_removed:
            self._not_removed += 1
            self._reporter.failed_beside(1)
        else:
            self._not_removed += problem.code is Code.DENIED
            self._reporter.failed(path, self._told(change, problem))

    @staticmethod
    def _told(change: _Change, problem: Refused) -> Refused:
        path, words = show_path(change.path), _NOT_REMOVED.get(problem.code) if change.is_removal else None
        return not_changed(problem, path) if words is None else Refused(problem.code, path, problem.why, words)

    def _tell_denied(self) -> None:
        if self._not_set:
            lacks = "your account lacks the rights get and replace"
            self._reporter.note(f"{self._not_set:,} of the times and modes there were not set: {lacks}")
        if self._not_removed > 1:
            self._reporter.note(f"{self._not_removed - 1:,} more were not removed, for the same reason")
