"""TREE and BRANCH: everything below a folder, page by page.

Rules: a name in a BRANCH comes with its depth, not with its whole path, which is the one before it up to that depth.
Whether the entries of all pages make a tree is judged by who reads them (`sft/client/branches.py`).
"""

from typing import Annotated, Literal, NamedTuple, Protocol

from msgspec import Meta

from sft.common.errors import ProtocolViolation
from sft.common.names import MAX_DEPTH, are_plain, why_not_allowed
from sft.wire.bodies import FILE, LINK, Control, Digest, Id, Kind, Mode, Path, Size, Time
from sft.wire.protocol import BRANCH_ENTRIES_LIMIT
from sft.wire.spelling import is_spelled

_ALL = ("all",)  # in the place of an empty path, which stands for the whole folder

NodeKind = Literal["file", "folder", "link"]
Depth = Annotated[int, Meta(ge=1, le=MAX_DEPTH)]


class Tree(Control, frozen=True):
    """All that lies below `path` and comes behind `after`, a path below it: folders before their content.

    `digests`: with the digest of each file.
    """

    KIND = Kind.TREE
    id: Id
    path: Path
    after: Path | None
    digests: bool = False

    def check(self) -> None:
        if self.after == ():
            raise ProtocolViolation("nothing comes before everything")

    def why_not(self) -> str:
        return why_not_allowed((*self.path, *(self.after or ())) or _ALL)


class Shown(Protocol):
    """One name at the receiver, in a BRANCH or an ENTRY."""

    @property
    def kind(self) -> NodeKind: ...
    @property
    def size(self) -> int: ...
    @property
    def target(self) -> str | None: ...


def check_shown(entry: Shown) -> None:
    """Raises ProtocolViolation when the fields of one name do not fit each other."""
    if (entry.target is None) == (entry.kind == LINK):
        raise ProtocolViolation("a target that is not a link's, or a link without one")
    if entry.size and entry.kind != FILE:
        raise ProtocolViolation("a size of what has none")
    if entry.target is not None and not is_spelled(entry.target):
        raise ProtocolViolation("a target that can't be shown")


class Node(NamedTuple):
    """One name in a BRANCH. `depth`: how many names its path has below the folder that was asked for.

    `target`: where a link leads, spelled for people; None for anything else. `sha256`: of a file, if it was asked for.
    It is a tuple, so that a client compares many at once with what it has itself.
    """

    depth: Depth
    name: str
    kind: NodeKind
    size: Size
    mtime: Time
    mode: Mode
    target: str | None
    sha256: Digest | None = None


class Branch(Control, frozen=True):
    """One page of a tree; `more` says that another TREE, behind the last of these, would bring more."""

    KIND = Kind.BRANCH
    id: Id
    entries: Annotated[tuple[Node, ...], Meta(max_length=BRANCH_ENTRIES_LIMIT)]
    more: bool

    def check(self) -> None:
        for node in self.entries:
            check_shown(node)
            if node.kind != FILE and node.sha256 is not None:
                raise ProtocolViolation("a digest of what has none")

    def why_not(self) -> str:
        if are_plain([node.name for node in self.entries]):
            return ""
        return next(filter(None, (why_not_allowed((node.name,)) for node in self.entries)), "")
