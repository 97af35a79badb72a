"""What lies below one folder at the receiver, read page by page, over as many connections as it takes.

Rules: nothing that the receiver says is believed before it fits to what it has said before. Paths come in one order,
each once, and below folders only; whatever breaks that, or is no answer, breaks the protocol. Of what was read no more
is kept than the last path, so any number of entries may come.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from sft.common.errors import ProtocolViolation, Refused
from sft.common.names import MAX_DEPTH, MAX_PATH, PathParts, size_of
from sft.wire.protocol import OMITTED_LIMIT

if TYPE_CHECKING:  # a client sends its hello before it loads the messages
    from sft.wire.channel import Channel
    from sft.wire.messages import Message, Omitted
    from sft.wire.tree_messages import Branch, Node


class Page(NamedTuple):
    """What one BRANCH has brought: what is left out, and the entries, each with its path below the folder."""

    omitted: "list[Omitted]"
    entries: "list[tuple[PathParts, Node]]"


class Branches:
    """The reading of one tree."""

    def __init__(self, path: PathParts) -> None:
        self.path = path
        self.last_id = 0  # of the TREEs in this connection
        self.is_whole = False  # everything was read
        self._last: PathParts = ()  # the path that was read last
        self._is_folder = True  # whether it is a folder's

    def pages(self, channel: "Channel", messages: "Iterator[Message]", id: int = 0) -> Iterator[Page]:
        """What was not read yet, in this connection; the first TREE has an id one above `id`.

        Raises Refused for a REFUSE, ConnectionTrouble, ProtocolViolation.
        """
        from sft.wire.messages import Refuse
        from sft.wire.tree_messages import Tree

        self.last_id = id
        while not self.is_whole:
            self.last_id += 1
            channel.post(Tree(self.last_id, self.path, self._last or None).encode())
            answer = next(messages, None)
            if isinstance(answer, Refuse) and answer.id == self.last_id:
                raise Refused(answer.code)
            omitted, branch = _page(self.last_id, answer, messages)
            entries = [(self._judged(node), node) for node in branch.entries]
            self.is_whole = not branch.more
            yield Page(omitted, entries)

    def _judged(self, node: "Node") -> PathParts:
        """The path of the next entry. Raises ProtocolViolation for one that can't come here."""
        depth, name, last = node.depth, node.name, self._last
        if depth > len(last):
            if depth > len(last) + 1 or not self._is_folder:
                raise ProtocolViolation("an entry below something that is not a folder")
        elif name.encode() <= last[depth - 1].encode():
            raise ProtocolViolation("a tree that is out of its order")
        path = (*last[: depth - 1], name)
        whole = (*self.path, *path)
        if len(whole) > MAX_DEPTH or size_of(whole) > MAX_PATH:
            raise ProtocolViolation("a path in a tree that is not allowed")
        self._last, self._is_folder = path, node.kind == "folder"
        return path


def _page(id: int, message: "Message | None", messages: "Iterator[Message]") -> "tuple[list[Omitted], Branch]":
    """The answer to the TREE with that `id`: what is left out, then the page. Raises ProtocolViolation."""
    from sft.wire.messages import Omitted
    from sft.wire.tree_messages import Branch

    omitted: list[Omitted] = []
    while isinstance(message, Omitted) and message.id == id and len(omitted) < OMITTED_LIMIT:
        omitted.append(message)
        message = next(messages, None)
    if not isinstance(message, Branch) or message.id != id or (message.more and not message.entries):
        raise ProtocolViolation("no answer to TREE")
    return omitted, message
