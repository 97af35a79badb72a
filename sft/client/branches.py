"""What lies below one folder at the receiver, read page by page, over as many connections as it takes.

Rules: nothing that the receiver says is believed before it fits to what it has said before. Paths come in one order,
each once, and below folders only; whatever breaks that, or is no answer, breaks the protocol. Of what was read no more
is kept than the last path, so any number of entries may come.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from sft.client.comparing import Entry
from sft.common.errors import ProtocolViolation, Refused
from sft.common.names import MAX_COMPONENT, MAX_DEPTH, MAX_PATH, PathParts, size_of
from sft.wire.protocol import OMITTED_LIMIT
from sft.wire.spelling import spell

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

    def __init__(self, path: PathParts, after: PathParts = (), digests: bool = False, ahead: bool = False) -> None:
        """`after`: a path below `path`, or none; what comes behind it. `digests`: with those of files.

        `ahead`: the next page is asked for as soon as one is here; then all have to be read.
        """
        self.path, self._digests, self._ahead = path, digests, ahead
        self.last_id = 0  # of the TREEs in this connection
        self.is_whole = False  # everything was read
        self._last = after  # the path that was read last
        self._is_folder = True  # whether it is a folder's

    def pages(self, channel: "Channel", messages: "Iterator[Message]", id: int = 0) -> Iterator[Page]:
        """What was not read yet, in this connection; the first TREE has an id one above `id`.

        Raises Refused for a REFUSE, ConnectionTrouble, ProtocolViolation.
        """
        from sft.wire.messages import Refuse

        self.last_id = id
        is_asked = False
        while not self.is_whole:
            if not is_asked:
                self._ask(channel)
            answer = next(messages, None)
            if isinstance(answer, Refuse) and answer.id == self.last_id:
                raise Refused(answer.code)
            omitted, branch = _page(self.last_id, answer, messages)
            entries = [(self._judged(node), node) for node in branch.entries]
            self.is_whole = not branch.more
            is_asked = self._ahead and not self.is_whole
            if is_asked:
                self._ask(channel)
            yield Page(omitted, entries)

    def _ask(self, channel: "Channel") -> None:
        from sft.wire.tree_messages import Tree

        self.last_id += 1
        channel.post(Tree(self.last_id, self.path, self._last or None, self._digests).encode())

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


def entry_of(node: "Node") -> Entry:
    """What the receiver has at one path."""
    return Entry(node.kind, node.size, node.mtime, node.mode, node.target, node.sha256)


def link_entry(target: str) -> Entry:
    """A link with that target, as it is compared: spelled as a BRANCH has it, and whatever its time."""
    return Entry("link", target=spell((target,)))


class BranchEntries(Iterator[tuple[PathParts, Entry]]):
    """What lies below one folder at the receiver, as one side of a comparison, over as many connections as it takes."""

    def __init__(
        self, path: PathParts, digests: bool = False, told: "Callable[[Omitted], None]" = lambda omitted: None
    ) -> None:
        """`told` is called for what the receiver leaves out."""
        self._branches, self._told = Branches(path, digests=digests, ahead=digests), told
        self._pages: Iterator[Page] = iter(())
        self._page: Iterator[tuple[PathParts, Node]] = iter(())

    def connect(self, channel: "Channel", messages: "Iterator[Message]", id: int) -> None:
        """Go on in this connection, whose last question was `id`."""
        self._branches.last_id = id
        self._pages = self._branches.pages(channel, messages, id)

    @property
    def last_id(self) -> int:
        """Of the questions in this connection."""
        return self._branches.last_id

    def end(self) -> None:
        """Nothing more is read."""
        self._branches.is_whole = True

    def __next__(self) -> tuple[PathParts, Entry]:
        """Raises Refused for a REFUSE, ConnectionTrouble, ProtocolViolation."""
        while (found := next(self._page, None)) is None:
            if self._branches.is_whole:
                raise StopIteration
            if (page := next(self._pages, None)) is None:
                raise StopIteration
            for omitted in page.omitted:
                self._told(omitted)
            self._page = iter(page.entries)
        path, node = found
        return path, entry_of(node)


class Glimpses:
    """Looks up single names at the receiver: of each folder pages are read, up to the one that the name is in."""

    def __init__(self, digests: bool = False) -> None:
        self._digests = digests
        self._folder: PathParts | None = None
        self._from, self._to = "", ""  # the names that are known: those behind `_from`, up to `_to` or to the end
        self._is_last = False
        self._entries: dict[str, Entry] = {}
        self.last_id = 0  # of the questions in this connection

    def find(self, path: PathParts, channel: "Channel", messages: "Iterator[Message]") -> Entry | None:
        """What has the path there; None: nothing. Raises Refused, ConnectionTrouble, ProtocolViolation."""
        *above, name = path
        folder = tuple(above)
        is_known = folder == self._folder and self._from < name and (self._is_last or name <= self._to)
        if not is_known:
            before = just_before(name)
            branches = Branches(folder, (before,) if before else (), self._digests)
            self._folder, self._to = None, before
            self._entries = {}
            try:
                for page in branches.pages(channel, messages, self.last_id):
                    self._entries |= {path[0]: entry_of(node) for path, node in page.entries if len(path) == 1}
                    self._to = page.entries[-1][0][0] if page.entries else name
                    if self._to >= name:
                        break  # before it may come all that is in a folder, whose name is that but for a space
            finally:
                self.last_id = branches.last_id
            self._folder, self._from, self._is_last = folder, before, branches.is_whole
        return self._entries.get(name)


def just_before(name: str) -> str:
    """A name that is allowed and comes before that one in a TREE, with few names between them; empty: there is none.

    >>> just_before("b") < "b"
    True
    """
    code = ord(name[-1]) - 1
    while code >= 0x20 and (chr(code) == "/" or 0x7F <= code <= 0x9F or 0xD800 <= code <= 0xDFFF):  # not in a name
        code -= 1
    if code < 0x20:
        return name[:-1] if name[:-1] not in (".", "..") else ""
    last = "\U0010ffff"
    before = name[:-1] + chr(code)
    return before + last if len((before + last).encode()) <= MAX_COMPONENT else before
