"""What an upload finds at the receiver: which small files are worth an offer by their digest, before they are sent.

Rules: it is a hint and no more, for an offer is compared at the receiver, and what is not the same is sent. So what
can't be listed, or is out of proportion to what is sent, is not asked for any further, and is sent as if nothing were
there. Of each entry no more is kept than a number, 65 bytes with its place in the set, so there may be a million.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from sft.client.branches import Branches
from sft.common.errors import Refused
from sft.common.names import PathParts
from sft.disk.decisions import Existing, Policy
from sft.wire.protocol import UNASKED_LIMIT

if TYPE_CHECKING:  # a client sends its hello before it loads the messages
    from sft.wire.channel import Channel
    from sft.wire.messages import Message

_FEW_FILES = 8  # beside each other: sending them costs less than a round trip to look for them
_ENTRIES = 10_000  # that are looked at, whatever is sent
_ENTRIES_FOR_EACH = 4  # that are looked at beyond that, for each thing that is sent


def worth_offering(policy: str, size: int | None, existing: Existing) -> bool:
    """Whether a file of that size is offered first, where that was found at its path.

    With `fail` and `skip` a name that is taken decides, whatever has it: the answer comes without the content.
    """
    if size is None or size > UNASKED_LIMIT or existing is Existing.NOTHING:
        return False
    return existing in (Existing.SAME, Existing.SAME_SIZE) or policy in (Policy.FAIL, Policy.SKIP)


def places_to_look(folders: Iterable[PathParts], files: Iterable[PathParts]) -> list[PathParts]:
    """The folders at the receiver to look below, when these folders and single files are sent; none below another."""
    above: dict[PathParts, int] = {}
    for path in files:
        above[path[:-1]] = above.get(path[:-1], 0) + 1
    places = {*folders, *(folder for folder, count in above.items() if count >= _FEW_FILES)}
    return sorted(place for place in places if not any(place[:depth] in places for depth in range(len(place))))


class There:
    """What lies below the places of one upload, as far as it is known."""

    def __init__(self, policy: str) -> None:
        self._names_decide = worth_offering(policy, 0, Existing.OTHER)
        self._known: set[int] = set()  # hashes of paths, or of paths and sizes; a wrong hit costs an offer
        self._left: list[Branches] = []  # to be read
        self._seen = 0

    def look_below(self, places: Iterable[PathParts]) -> None:
        """These are to be read, in the connections that come."""
        self._left = [Branches(place) for place in places]

    def read(
        self, channel: "Channel", messages: "Iterator[Message]", count: Callable[[], int | None] = lambda: None
    ) -> int:
        """Read what is left to read; the id of the last TREE. `count()`: how much is to be sent, when that is known.

        Raises ConnectionTrouble, ProtocolViolation.
        """
        id = 0
        while self._left:
            branches = self._left[0]
            try:
                for page in branches.pages(channel, messages, id):
                    for path, node in page.entries:
                        self._add((*branches.path, *path), node.kind, node.size)
                    self._seen += len(page.entries)
                    if (most := count()) is not None and self._seen > _ENTRIES + _ENTRIES_FOR_EACH * most:
                        self._left.clear()
                        return branches.last_id
            except Refused:  # not there, or not for this account
                pass
            id = branches.last_id
            del self._left[0]
        return id

    def _add(self, path: PathParts, kind: str, size: int) -> None:
        if self._names_decide:
            self._known.add(hash(path))
        elif kind == "file" and size <= UNASKED_LIMIT:
            self._known.add(hash((path, size)))

    def is_worth_offering(self, path: PathParts, size: int | None) -> bool:
        """Whether a file that goes to `path` is offered first."""
        if not self._known or size is None or size > UNASKED_LIMIT:
            return False
        return (hash(path) if self._names_decide else hash((path, size))) in self._known
