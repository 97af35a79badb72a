"""What is changed at the receiver: removed, moved; and how much is used there. Over as many connections as it takes.

Rules: each question waits for its answer, and another connection goes on with those that have none. An answer that was
lost is not guessed: what was to be removed and is not there any more is removed, and what was to be moved is looked for
under its new name. Names that can't be meant are rejected before anything is sent.
"""

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from sft.client.refusals import not_changed, not_moved, usage_not_given
from sft.client.targets import checked_parts
from sft.common.errors import (
    PASSING_CODES,
    Code,
    ConnectionTrouble,
    PeerStopped,
    ProtocolViolation,
    Refused,
    UsageError,
)
from sft.common.names import PathParts
from sft.common.text import show_path
from sft.console.reporter import Reporter

if TYPE_CHECKING:  # a client sends its hello before it loads the messages
    from sft.wire.change_messages import Amounts, Done
    from sft.wire.channel import Channel
    from sft.wire.messages import Control

_ALL = "; '*' in quotes is all but names that begin with a dot"
_AGAIN = "all of it is done, or the same command does the rest"


class ChangeJob(Protocol):
    """One of the jobs below; `kept` is shown when it is interrupted."""

    kept: str

    def run(self, channel: "Channel") -> None:
        """Do what is not done yet. Raises ConnectionTrouble, ProtocolViolation."""


class _Questions:
    """Questions on one connection, one after the other."""

    def __init__(self, channel: "Channel") -> None:
        self._channel = channel
        self._messages = (arrived[0] for arrived in channel.messages() if arrived is not None)
        self._last = 0

    def ask(self, question: "Callable[[int], Control]") -> "Done | Amounts":
        """The answer to the question with the id that it is given.

        Raises Refused, PeerStopped for what may pass, ConnectionTrouble, ProtocolViolation.
        """
        from sft.wire.change_messages import Amounts, Done, Usage
        from sft.wire.messages import Refuse

        self._last += 1
        asked = question(self._last)
        self._channel.post(asked.encode())
        answer = next(self._messages, None)
        if isinstance(answer, Refuse) and answer.id == self._last:
            if answer.code in PASSING_CODES:
                raise PeerStopped(answer.code)
            raise Refused(answer.code)
        right = Amounts if isinstance(asked, Usage) else Done
        if not isinstance(answer, right) or answer.id != self._last:
            raise ProtocolViolation(f"no answer to {asked.KIND.name}")
        return answer

    def change(self, question: "Callable[[int], Control]", is_one: bool) -> int:
        """How many things were changed, one or more; `is_one`: not more. Raises the same."""
        from sft.wire.change_messages import Done

        answer = self.ask(question)
        if not isinstance(answer, Done) or answer.count < 1 or (is_one and answer.count > 1):
            raise ProtocolViolation("a count of changes that can't be")
        return answer.count

    def end(self) -> None:
        """No more questions. Raises ProtocolViolation."""
        self._channel.say_bye()
        with contextlib.suppress(ConnectionTrouble):  # all that was asked for is answered, with or without a BYE
            if next(self._messages, None) is not None:
                raise ProtocolViolation("a message behind the last answer")


class Removing:
    """Removes what was named."""

    kept = "what is gone is gone; the same command removes the rest"

    def __init__(
        self, reporter: Reporter, names: list[str], recursive: bool, confirm: Callable[[str], bool] | None
    ) -> None:
        """`confirm` is asked before a folder is removed with what is in it, by its path; None: nobody is.

        Raises UsageError.
        """
        self._reporter, self._recursive, self._confirm = reporter, recursive, confirm
        self._left = [(name, _inside(name, "removed", _ALL)) for name in names]
        self._asked: set[PathParts] = set()  # whose answer was lost, perhaps

    def run(self, channel: "Channel") -> None:
        questions = _Questions(channel)
        while self._left:
            name, path = self._left[0]
            was_asked = path in self._asked
            try:
                count = self._remove(questions, path)
            except Refused as problem:
                if problem.code is Code.NOT_FOUND and was_asked:
                    self._reporter.removed(name, None)
                else:
                    self._reporter.failed(name, not_changed(problem, show_path(path), self._recursive))
            else:
                if count is None:
                    self._reporter.skipped(name, "it was not confirmed")
                else:
                    self._reporter.removed(name, count)
            self._asked.discard(path)
            self._left.pop(0)
        questions.end()

    def _remove(self, questions: _Questions, path: PathParts) -> int | None:
        """How much is gone; None when a person has said no."""
        from sft.wire.change_messages import Remove

        self._asked.add(path)
        if self._confirm is not None or not self._recursive:
            try:
                return questions.change(lambda number: Remove(number, path, False), is_one=True)
            except Refused as problem:
                if problem.code is not Code.NOT_EMPTY or self._confirm is None or not self._recursive:
                    raise
            if not self._confirm(show_path(path)):
                return None
        return questions.change(lambda number: Remove(number, path, True), is_one=False)


class Moving:
    """Gives one thing another name, or moves it into a folder."""

    kept = _AGAIN

    def __init__(self, reporter: Reporter, name: str, new_name: str) -> None:
        """Raises UsageError for a move onto itself or into itself, and for names that no receiver allows."""
        self._reporter, self._name = reporter, name
        self._path, to = _inside(name, "moved"), checked_parts(new_name)
        self._is_into = os.path.basename(new_name) in ("", ".", "..")
        self._to = (*to, self._path[-1]) if self._is_into else to
        self._check()
        self._was_asked = self._is_done = False

    def _check(self) -> None:
        if self._to == self._path:
            raise UsageError(f"{show_path(self._path)} has that name already", "Choose another")
        if self._to[: len(self._path)] == self._path:
            raise UsageError(f"{show_path(self._path)} can't be moved into itself", "Choose another folder")

    def run(self, channel: "Channel") -> None:
        questions = _Questions(channel)
        if not self._is_done:
            try:
                self._move(questions)
            except Refused as problem:
                paths = show_path(self._path), show_path(self._to)
                self._reporter.failed(self._name, not_moved(problem, *paths))
            else:
                self._reporter.moved_there(self._name, show_path(self._to))
            self._is_done = True
        questions.end()

    def _move(self, questions: _Questions) -> None:
        from sft.wire.change_messages import Move

        was_asked, self._was_asked = self._was_asked, True
        try:
            questions.change(lambda number: Move(number, self._path, self._to), is_one=True)
        except Refused as problem:
            if problem.code is Code.NOT_FOUND and was_asked and self._is_there(questions):
                return  # the answer was lost
            if problem.code is not Code.IS_FOLDER or self._is_into:
                raise
            self._to, self._is_into = (*self._to, self._path[-1]), True
            self._check()
            questions.change(lambda number: Move(number, self._path, self._to), is_one=True)

    def _is_there(self, questions: _Questions) -> bool:
        """Whether something has the new name: then it can't be moved onto itself, and else it is not found."""
        from sft.wire.change_messages import Move

        try:
            questions.change(lambda number: Move(number, self._to, self._to), is_one=True)
        except Refused as problem:
            return problem.code is Code.EXISTS
        raise ProtocolViolation("a move onto itself")


class Counting:
    """Asks how much is used, and of which quota."""

    kept = "nothing was changed"

    def __init__(self, reporter: Reporter, human: bool) -> None:
        self._reporter, self._human = reporter, human
        self._is_done = False

    def run(self, channel: "Channel") -> None:
        from sft.wire.change_messages import Amounts, Usage

        questions = _Questions(channel)
        if not self._is_done:
            try:
                answer = questions.ask(Usage)
            except Refused as problem:
                self._reporter.failed("usage", usage_not_given(problem))
            else:
                if not isinstance(answer, Amounts):
                    raise ProtocolViolation("no answer to USAGE")
                amounts = answer.bytes, answer.files, answer.quota_bytes, answer.quota_files, answer.free
                self._reporter.used(*amounts, human=self._human)
            self._is_done = True
        questions.end()


def _inside(name: str, what: str, more: str = "") -> PathParts:
    """The components of a name in the user's folder. Raises UsageError, also for the folder itself: `HOST:` or `.`."""
    path = checked_parts(name)
    if not path:
        raise UsageError(f"your whole folder on the receiver can't be {what}", f"Name what is in it{more}")
    return path
