"""What lies below one folder at the receiver, read page by page, over as many connections as it takes.

Rules: nothing that the receiver says is believed before it fits to what it has said before. Paths come in one order,
each once, and below folders only; whatever breaks that, or is no answer, breaks the protocol. Of what was read no more
is kept than the last path, so any number of entries may come.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sft.client.comparing import Entry
from sft.common.errors import ProtocolViolation, Refused
from sft.common.names import MAX_COMPONENT, MAX_DEPTH, MAX_PATH, PathParts, size_of
from sft.wire.protocol import OMITTED_LIMIT
from sft.wire.spelling import spell

if TYPE_CHECKING:  # a client sends its hello before it loads the messages
    from sft.disk.tree import Line
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
        self._end = after  # of the page that was read last
        self._last = after  # the path that was judged last
        self._is_folder = True  # whether it is a folder's

    def pages(self, channel: "Channel", messages: "Iterator[Message]", id: int = 0) -> Iterator[Page]:
        """What was not read yet, in this connection; the first TREE has an id one above `id`.

        Raises Refused for a REFUSE, ConnectionTrouble, ProtocolViolation.
        """
        for omitted, nodes in self.unjudged(channel, messages, id):
            yield Page(omitted, [(self.judge(node), node) for node in nodes])

    def unjudged(
        self, channel: "Channel", messages: "Iterator[Message]", id: int = 0
    ) -> "Iterator[tuple[list[Omitted], tuple[Node, ...]]]":
        """The same, of which each entry is to be given to `judge` or `pass_by`, in order, before it is believed."""
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
            self._end = _end_of(branch.entries, self._end)
            self.is_whole = not branch.more
            is_asked = self._ahead and not self.is_whole
            if is_asked:
                self._ask(channel)
            yield omitted, branch.entries

    def _ask(self, channel: "Channel") -> None:
        from sft.wire.tree_messages import Tree

        self.last_id += 1
        channel.post(Tree(self.last_id, self.path, self._end or None, self._digests).encode())

    def pass_by(self, folder: PathParts, first: "Node", last: "Node") -> bool:
        """Take files that come next in one folder, of which all are what is here, and in the order that they have here.

        False, and nothing is taken: they are in another folder. Raises ProtocolViolation.
        """
        if self._last[: len(folder)] != folder or len(folder) != first.depth - 1:
            return False
        self.judge(first)
        self._last = (*folder, last.name)
        return True

    def judge(self, node: "Node") -> PathParts:
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


def _end_of(nodes: "Sequence[Node]", before: PathParts) -> PathParts:
    """The path of the last entry of a page, behind a page that ended with `before`. Raises ProtocolViolation."""
    names: list[str] = []
    depth = 0  # of the one that was taken last
    for node in reversed(nodes):
        if not names or node.depth < depth:
            names.append(node.name)
            depth = node.depth
            if depth == 1:
                break
    if names and len(before) < depth - 1:
        raise ProtocolViolation("an entry below something that is not a folder")
    return (*before[: depth - 1], *reversed(names)) if names else before


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
        """`told` is called for what the receiver leaves out. All of it has to be read."""
        self._branches, self._told = Branches(path, digests=digests, ahead=True), told
        self._pages: Iterator[tuple[list[Omitted], tuple[Node, ...]]] = iter(())
        self._page: tuple[Node, ...] = ()
        self._at = 0

    def connect(self, channel: "Channel", messages: "Iterator[Message]", id: int) -> None:
        """Go on in this connection, whose last question was `id`."""
        self._branches.last_id = id
        self._pages = self._branches.unjudged(channel, messages, id)

    @property
    def last_id(self) -> int:
        """Of the questions in this connection."""
        return self._branches.last_id

    def end(self) -> None:
        """Nothing more is read."""
        self._branches.is_whole = True

    def __next__(self) -> tuple[PathParts, Entry]:
        """Raises Refused for a REFUSE, ConnectionTrouble, ProtocolViolation."""
        while self._at >= len(self._page):
            if self._branches.is_whole:
                raise StopIteration
            if (page := next(self._pages, None)) is None:
                raise StopIteration
            for omitted in page[0]:
                self._told(omitted)
            self._page, self._at = page[1], 0
        node = self._page[self._at]
        path = self._branches.judge(node)
        self._at += 1
        return path, entry_of(node)

    def pass_by(self, folder: PathParts, lines: "list[Line]") -> int:
        """How many of these files in a folder come next there, and are the same; they are passed by.

        None of those that come with the next page are. Raises ProtocolViolation.
        """
        nodes = self._page[self._at : self._at + len(lines)]
        same = len(nodes)
        if list(nodes) != lines[:same]:
            same = next(at for at, (node, line) in enumerate(zip(nodes, lines, strict=False)) if node != line)
        if not same or not self._branches.pass_by(folder, nodes[0], nodes[same - 1]):
            return 0
        self._at += same
        return same


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
