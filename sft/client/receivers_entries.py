"""What lies below one folder at the receiver, as a fetch compares it: what is left out hides what has its name here.

Rules: what is excluded, and a link that is not wanted, is hidden with all below it. Only the folder that is left out
now is remembered.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sft.client.branches import Branches, Page, entry_of
from sft.client.comparing import HIDDEN, Entry
from sft.common.exclusions import Exclusions
from sft.common.names import PathParts

if TYPE_CHECKING:  # a client sends its hello before it loads the messages
    from sft.wire.channel import Channel
    from sft.wire.messages import Message, Omitted
    from sft.wire.tree_messages import Node


class ReceiversEntries(Iterator[tuple[PathParts, Entry]]):
    """What lies below one folder at the receiver."""

    def __init__(
        self,
        path: PathParts,
        told: "Callable[[Omitted], None]",
        skipped: Callable[[PathParts], None] | None,
        exclusions: Exclusions,
        digests: bool,
        below: PathParts = (),
    ) -> None:
        """`skipped`: links are hidden, and that is called for each; None: they are compared.

        `below`: the path of that folder as `exclusions` are about it.
        """
        self._branches = Branches(path, digests=digests, ahead=digests)
        self._told, self._skipped, self._exclusions, self._below = told, skipped, exclusions, below
        self._excluded: PathParts | None = None  # the last folder that is
        self._pages: Iterator[Page] = iter(())
        self._page: Iterator[tuple[PathParts, Node]] = iter(())
        self.count = 0  # of entries

    def connect(self, channel: "Channel", messages: "Iterator[Message]", id: int) -> None:
        """Go on in this connection, whose last question was `id`."""
        self._branches.last_id = id
        self._pages = self._branches.pages(channel, messages, id)

    @property
    def last_id(self) -> int:
        """Of the questions in this connection."""
        return self._branches.last_id

    def __next__(self) -> tuple[PathParts, Entry]:
        """Raises Refused for a REFUSE, ConnectionTrouble, ProtocolViolation."""
        path, node = self._next()
        while self._excluded is not None and path[: len(self._excluded)] == self._excluded:
            path, node = self._next()
        if self._exclusions.is_excluded((*self._below, *path), node.kind == "folder"):
            self._excluded = path
            return path, HIDDEN
        if node.kind == "link" and self._skipped is not None:
            self._skipped(path)
            return path, HIDDEN
        if node.kind == "link":
            return path, Entry("link", target=node.target)
        return path, entry_of(node)

    def _next(self) -> "tuple[PathParts, Node]":
        """The next entry of the receiver's. Raises the same, and StopIteration."""
        while (found := next(self._page, None)) is None:
            if self._branches.is_whole or (page := next(self._pages, None)) is None:
                raise StopIteration
            for omitted in page.omitted:
                self._told(omitted)
            self._page = iter(page.entries)
        self.count += 1
        return found
