"""What becomes of a name that is taken, and of a partial file that an earlier attempt left.

Rules: each question has one function and one answer for each case. The functions are pure: their callers look at the
disk, ask, and act. Nothing here opens, compares or removes anything.
"""

from enum import Enum, StrEnum, auto

from sft.common.errors import Code

# --- a name that is taken ---


class Policy(StrEnum):
    """What the sender wants when the name of its file is taken."""

    FAIL = "fail"
    RENAME = "rename"  # take the next free name
    REPLACE = "replace"
    SKIP = "skip"


class Existing(Enum):
    """What has the name."""

    NOTHING = auto()
    SAME_SIZE = auto()  # a regular file of the same size, not compared yet
    SAME = auto()  # a regular file with the same bytes
    OTHER = auto()  # a regular file with other bytes
    FOLDER = auto()
    LINK = auto()  # a symbolic link, wherever it leads
    SPECIAL = auto()  # a FIFO, socket or device


class Action(Enum):
    """What to do with the file."""

    STORE = auto()  # under this name
    REPLACE = auto()  # under this name, in place of what has it
    NEXT_NAME = auto()  # try the next free name
    COMPARE = auto()  # compare the bytes, then ask again with SAME or OTHER
    ALREADY = auto()  # it is there: store nothing
    SKIP = auto()  # something is there: store nothing


NEEDS_NO_SPACE = frozenset([Action.ALREADY, Action.SKIP])

_CASES = tuple(Existing)
# `replace` replaces files, and links themselves. A special file was put there on purpose, and is no older version.
_TABLE: dict[str, tuple[Action | Code, ...]] = {
    # NOTHING, SAME_SIZE, SAME, OTHER, FOLDER, LINK, SPECIAL
    Policy.FAIL: (Action.STORE, Action.COMPARE, Action.ALREADY, Code.EXISTS, Code.IS_FOLDER, *[Code.EXISTS] * 2),
    Policy.RENAME: (
        *(Action.STORE, Action.COMPARE, Action.ALREADY, Action.NEXT_NAME, Code.IS_FOLDER),
        *[Action.NEXT_NAME] * 2,
    ),
    Policy.REPLACE: (
        *(Action.STORE, Action.COMPARE, Action.ALREADY, Action.REPLACE, Code.IS_FOLDER),
        *(Action.REPLACE, Code.SPECIAL),
    ),
    Policy.SKIP: (Action.STORE, Action.SKIP, Action.SKIP, Action.SKIP, Code.IS_FOLDER, *[Action.SKIP] * 2),
}


def decide(policy: str, existing: Existing, is_private: bool, may_replace: bool = True) -> Action | Code:
    """What to do with a file whose name has `existing`; a Code is the refusal. `may_replace`: the sender's right.

    In a private folder the sender learns nothing but that a name is taken, so nothing is compared, skipped or replaced.
    """
    if not is_private:
        action = _TABLE[policy][_CASES.index(existing)]
        return Code.NOT_REPLACED if action is Action.REPLACE and not may_replace else action
    if existing is Existing.NOTHING:
        return Action.STORE
    return Code.NOT_REPLACED if policy == Policy.REPLACE else Action.NEXT_NAME


def may_need_no_space(action: Action | Code) -> bool:
    """Whether a file may turn out, once it is here, to be one that is not stored."""
    return action is Action.COMPARE or action in NEEDS_NO_SPACE


# --- a partial file ---


class JournalOf(Enum):
    """Whose journal lies beside the bytes."""

    NONE = auto()  # there is none, or it was torn by a power cut
    THIS_TRANSFER = auto()
    ANOTHER_TRANSFER = auto()
    REMOVED = auto()  # its owner has removed it since we opened it


class OwnedBy(Enum):
    """Which connection has the partial file now."""

    NONE = auto()
    IN_THIS_PROCESS = auto()
    IN_ANOTHER_PROCESS = auto()


class Bytes(Enum):
    """What is under the hidden name."""

    UNSEEN = auto()  # not opened yet
    MISSING = auto()
    NEW = auto()  # just made by us
    KEPT = auto()  # left by an earlier attempt, or written by another connection at the moment
    PUBLISHED = auto()  # it has a second name: its owner published it and died
    REMOVED = auto()  # it was removed since we opened it


class Step(Enum):
    """What to do next."""

    WAIT = auto()  # refuse with BUSY: the client tries again later
    OPEN = auto()
    CREATE = auto()
    FORGET_NAME = auto()  # remove the hidden name of what is published
    CLOSE = auto()
    START = auto()  # from the first byte, whatever lies there
    RESUME = auto()  # offer what lies there
    TAKE_OVER = auto()  # the same, and the older connection of this transfer loses it

    @property
    def is_not_last(self) -> bool:
        """Whether the caller looks and asks again after it."""
        return self in _LOOK_AGAIN


_LOOK_AGAIN = frozenset([Step.OPEN, Step.CREATE, Step.FORGET_NAME, Step.CLOSE])


def take_up(journal: JournalOf, owner: OwnedBy, bytes: Bytes) -> Step:
    """The next step of a connection that wants to write a partial file.

    Only the same transfer may take a file from its owner: its older connection is dead and does not know it yet.
    """
    if journal is JournalOf.REMOVED:
        return Step.WAIT
    if owner is not OwnedBy.NONE and journal is not JournalOf.THIS_TRANSFER:
        return Step.WAIT
    if bytes is Bytes.KEPT and journal is not JournalOf.NONE:
        return Step.RESUME if owner is OwnedBy.NONE else Step.TAKE_OVER
    return {
        Bytes.UNSEEN: Step.OPEN,
        Bytes.MISSING: Step.CREATE,
        Bytes.NEW: Step.START,
        Bytes.KEPT: Step.START,
        Bytes.PUBLISHED: Step.FORGET_NAME,
        Bytes.REMOVED: Step.CLOSE,
    }[bytes]


def offers(there: int, durable: int) -> list[int]:
    """The offsets to resume from, best first: all that is there, then what was flushed; none when nothing is there."""
    return sorted({there, min(durable, there)} - {0}, reverse=True)
