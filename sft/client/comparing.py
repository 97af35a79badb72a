"""Two trees, the sender's and the receiver's, compared path by path: what differs, and in which respect.

Rules: both come as streams in the order of TREE, folders before their content and names in the order of their UTF-8
bytes, so any number of entries takes the memory of two. What the sender has and does not send stands in its stream as
HIDDEN, and is left out together with what the receiver has at its path and below. Nothing here reads, sends, changes or
removes anything.
"""

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Literal, NamedTuple

from sft.common.names import PathParts

_OWNER_BITS = {"file": 0o400, "folder": 0o500}  # that a receiver always gives


class Entry(NamedTuple):
    """What has a path. `mtime` in ns; each of the last four is None where it is not known."""

    kind: Literal["file", "folder", "link", "hidden"]
    size: int = 0
    mtime: int | None = None
    mode: int | None = None
    target: str | None = None
    sha256: bytes | None = None


HIDDEN = Entry("hidden")  # excluded, unreadable, or of a kind that is not sent

Entries = Iterable[tuple[PathParts, Entry]]


class Criteria(NamedTuple):
    """What is compared beside kinds, sizes, targets of links, and digests where both are known.

    `modes`: the permission bits that count.
    """

    times: bool = True
    modes: int = 0


class Difference(Enum):
    """What is different, the weightiest thing first; the value is the word for people."""

    EXTRA = "extra"  # only the receiver has it
    NEW = "new"  # only the sender has it
    KIND = "kind"
    SIZE = "size"
    CONTENT = "content"
    TARGET = "target"  # of a link
    TIME = "time"
    MODE = "mode"  # and nothing else
    NONE = "none"


class Way(Enum):
    """How something of another kind is replaced at the receiver, by an update."""

    OVER = "in one step"
    AFTER = "once it is removed: a file, a link, or a folder that is empty"
    WITH_ALL = "once it is removed together with all that is in it"
    NEVER = "not at all"


class Pair(NamedTuple):
    """One path, and what each end has there: at least one of them something."""

    path: PathParts
    sender: Entry | None
    receiver: Entry | None


class _End:
    """The entries of one end, of which the next one is known; what reading raises leaves it as it was."""

    def __init__(self, entries: Entries) -> None:
        self._entries = iter(entries)
        self._last: PathParts | None = None
        self.is_read = False  # the next one
        self._next: tuple[PathParts, Entry] | None = None

    def next(self) -> tuple[PathParts, Entry] | None:
        """The next entry, which stays the next one; None at the end."""
        if not self.is_read:
            self._next = next(self._entries, None)
            self.is_read = True
            if self._next is not None:
                path = self._next[0]
                if self._last is not None and path <= self._last:  # the order of UTF-8 bytes is that of code points
                    raise RuntimeError(f"two trees are compared, and one is out of order behind {self._last}")
                self._last = path
        return self._next

    def pass_by(self) -> None:
        """Go on to the one behind it."""
        self.is_read = False


class Paired(Iterator[Pair]):
    """Each path of either end, in order, but for what is hidden.

    What reading an end raises comes through, and the next call goes on where it was, if that end can. Raises
    RuntimeError when an end is out of order: what is missing there could not be told from what comes late.
    """

    def __init__(self, sender: Entries, receiver: Entries) -> None:
        self._sender, self._receiver = _End(sender), _End(receiver)
        self._hidden: PathParts | None = None  # the last path that is

    @property
    def is_between(self) -> bool:
        """Whether no entry was read ahead, so that what comes next and is the same at both ends may be passed by."""
        return not self._sender.is_read and not self._receiver.is_read

    def __next__(self) -> Pair:
        while True:
            here, there = self._sender.next(), self._receiver.next()
            if there is not None and self._hidden is not None and there[0][: len(self._hidden)] == self._hidden:
                self._receiver.pass_by()
            elif here is None or (there is not None and there[0] < here[0]):
                if there is None:
                    raise StopIteration
                self._receiver.pass_by()
                return Pair(there[0], None, there[1])
            elif here[1] is HIDDEN:
                self._sender.pass_by()
                self._hidden = here[0]
            else:
                self._sender.pass_by()
                if there is None or here[0] < there[0]:
                    return Pair(here[0], here[1], None)
                self._receiver.pass_by()
                return Pair(here[0], here[1], there[1])


def paired(sender: Entries, receiver: Entries) -> Paired:
    """Both ends' entries, path by path."""
    return Paired(sender, receiver)


def difference(sender: Entry | None, receiver: Entry | None, criteria: Criteria) -> Difference:
    """The weightiest difference between what both ends have at one path."""
    if sender is None or receiver is None:
        return Difference.EXTRA if sender is None else Difference.NEW
    if sender.kind != receiver.kind:
        return Difference.KIND
    if sender.size != receiver.size:
        return Difference.SIZE
    if None not in (sender.sha256, receiver.sha256) and sender.sha256 != receiver.sha256:
        return Difference.CONTENT
    if sender.target != receiver.target:
        return Difference.TARGET
    if criteria.times and not is_same_time(sender.mtime, receiver.mtime):
        return Difference.TIME
    return Difference.MODE if has_other_mode(sender, receiver, criteria.modes) else Difference.NONE


def way_for(sender: Entry, receiver: Entry, deletes: bool) -> Way:
    """How the receiver's thing is replaced by the sender's, which is of another kind. `deletes`: with --delete.

    As rsync does: a folder with something in it goes only with --delete, and nothing else needs that.
    """
    if "hidden" in (sender.kind, receiver.kind):
        return Way.NEVER
    if receiver.kind == "folder":
        return Way.WITH_ALL if deletes else Way.AFTER
    return Way.AFTER if sender.kind == "folder" else Way.OVER


def is_same_time(sender: int | None, receiver: int | None) -> bool:
    """Whether both have exactly the same time; so, if one is unknown.

    A disk that keeps whole seconds has another time than the sender for ever: its files are compared by their digests
    each time. Whatever came near enough would also be the time of a file that was written a moment later. Setting the
    time again costs one question, and fails nothing: such a disk takes the time that it can keep, without an error.
    """
    return sender is None or receiver is None or sender == receiver


def has_other_mode(sender: Entry, receiver: Entry, bits: int) -> bool:
    """Whether two files or folders differ in one of these permission bits."""
    if sender.mode is None or receiver.mode is None or sender.kind not in _OWNER_BITS:
        return False
    return bool((mode_there(sender) ^ receiver.mode) & bits)


def mode_there(sender: Entry) -> int:
    """The permission bits that the receiver is asked for: its owner can always read a file, and list a folder."""
    return (sender.mode or 0) | _OWNER_BITS.get(sender.kind, 0)
