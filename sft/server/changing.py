"""Answers REMOVE, MOVE, USAGE and SET, for one connection: with DONE or AMOUNTS, or with REFUSE.

Rules: before each the account's rights to it are checked, by the function given. DONE is sent when the change is on the
disk itself. What was removed is logged, also when the removal ends before its time; what a client can repeat at will is
logged sparingly. This module knows no socket and no account.
"""

from collections.abc import Callable, Iterator

from sft.common.errors import Code, Refused
from sft.common.log_events import LogEvent
from sft.common.names import PathParts
from sft.common.sizes import counted
from sft.common.text import briefly, show_briefly, show_path
from sft.disk.removal import Removal
from sft.disk.user_folder import UserFolder
from sft.wire.change_messages import Amounts, Done, Move, Remove, SetAttributes, Usage
from sft.wire.channel import Channel
from sft.wire.messages import Kind, Misnamed, Refuse

# The rights that each needs. Moving takes a name away and gives one; SET tells whether a name is there.
_RIGHTS = {Kind.REMOVE: ("remove",), Kind.MOVE: ("remove", "put"), Kind.USAGE: ("list",), Kind.SET: ("replace", "get")}
_WORDS = {Kind.REMOVE: "removed", Kind.MOVE: "moved", Kind.USAGE: "counted", Kind.SET: "set"}

Request = Remove | Move | Usage | SetAttributes | Misnamed


class Changing:
    """Does what one client wants changed."""

    def __init__(
        self,
        channel: Channel,
        folder: UserFolder,
        admit: Callable[[str], None],
        log: Callable[..., None],
        log_sparingly: Callable[..., None],
    ) -> None:
        """`admit(right)` raises Refused for one request, or Ended for the connection."""
        self._channel, self._folder, self._admit = channel, folder, admit
        self._log, self._log_sparingly = log, log_sparingly

    def answer(self, request: Request) -> Iterator[bytes]:
        """Do it; the message to send. Raises Ended, ConnectionTrouble."""
        kind = request.kind if isinstance(request, Misnamed) else request.KIND
        self._channel.hurry()  # it may take long: what was answered before need not wait
        try:
            for right in _RIGHTS[kind]:
                self._admit(right)
            yield self._do(request).encode()
        except Refused as problem:
            text, reason = f"not {_WORDS[kind]}: {_name(request)}: {problem.cause}", problem.cause
            self._log_sparingly(LogEvent(f"not {_WORDS[kind]}", text, path=_name(request), reason=reason))
            yield Refuse(request.id, problem.code).encode()

    def _do(self, request: Request) -> Done | Amounts:
        changes = self._folder.changes
        if isinstance(request, Misnamed):
            raise Refused(Code.NAME, why=request.why)
        if isinstance(request, Usage):
            return self._usage(request)
        if isinstance(request, Remove):
            return Done(request.id, self._remove(request.path, request.recursive))
        if isinstance(request, Move):
            changes.move(request.path, request.to, self._channel.check)
            path, to = show_briefly(request.path), show_briefly(request.to)
            self._log_sparingly(LogEvent("moved", f"moved {path} to {to}", path=path, to=to))
        else:
            if not changes.set(request.path, request.mtime, request.mode):
                self._log_sparingly("the disk can't hold the time of %s", show_briefly(request.path))
            path, what = show_briefly(request.path), _what(request)
            self._log_sparingly(LogEvent("set", f"set {what} of {path}", path=path, what=what))
        return Done(request.id, 1)

    def _remove(self, path: PathParts, recursive: bool) -> int:
        removal = self._folder.changes.removal(self._channel.check)
        try:
            self._folder.changes.remove(path, recursive, removal)
        except BaseException:
            if removal.count:
                self._log(_removed("began to remove", path, removal))
            raise
        log = self._log if removal.files else self._log_sparingly
        log(_removed("removed", path, removal))
        return removal.count

    def _usage(self, request: Usage) -> Amounts:
        folder = self._folder
        used = folder.changes.used(self._channel.check)
        quota = folder.quota
        return Amounts(request.id, used.bytes, used.files, quota.bytes, quota.files, folder.changes.free())


def _name(request: Request) -> str:
    if isinstance(request, Misnamed):
        return briefly(request.shown)
    return "all that is there" if isinstance(request, Usage) else show_briefly(request.path)


def _removed(event: str, path: PathParts, removal: Removal) -> LogEvent:
    """What is gone, and how much."""
    shown, others = show_path(path), removal.count - removal.files
    text = f"{event} {shown}: {counted(removal.files, 'file', '')}, {counted(others, 'other name', '')}"
    return LogEvent(event, text, path=shown, files=removal.files, others=others)


def _what(request: SetAttributes) -> str:
    return " and ".join(
        word for word, value in (("the time", request.mtime), ("the mode", request.mode)) if value is not None
    )
