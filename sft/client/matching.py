"""What the patterns in a command match at the receiver, asked by LIST, and by TREE below `**`.

Rules: a name that exists exactly as it was typed is that name, and no pattern. Matches come in the order of their
bytes, each once; a folder that matches stands for all that is in it. A pattern without a match is a failure of its own.
What the receiver answers is believed only in its order. Another connection begins anew with the pattern that was not
matched to its end.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sft.client.branches import Branches, just_before
from sft.client.globs import DEEP, is_pattern, literal_of, regex_of
from sft.client.listing import page_of
from sft.client.parting import part
from sft.client.refusals import not_given
from sft.client.targets import checked_parts, parts_of
from sft.common.errors import PASSING_CODES, Code, PeerStopped, ProtocolViolation, Refused
from sft.common.names import PathParts
from sft.common.text import show_path
from sft.console.reporter import Reporter
from sft.wire.protocol import GETS_LIMIT

if TYPE_CHECKING:  # a client sends its hello before it loads the messages
    from sft.wire.channel import Channel
    from sft.wire.messages import Message

_NO_MATCH = ("nothing on the receiver matches {path}", r"Check it; \ before a *, ? or [ takes its meaning away")
_LAST = "\U0010ffff" * 63  # behind every name
_NOT_THERE = (Code.NOT_FOUND, Code.NOT_FOLDER, Code.LINK, Code.NAME)


class Match(NamedTuple):
    """One thing at the receiver."""

    path: PathParts
    kind: str
    size: int
    mtime: int
    target: str | None = None  # of a link


class _Names:
    """What is in folders at the receiver, over one connection."""

    def __init__(self, channel: "Channel", links: bool) -> None:
        """`links`: with the links among them."""
        self._channel, self._links = channel, links
        self._messages: Iterator[Message] = (arrived[0] for arrived in channel.messages() if arrived is not None)
        self._last_id = 0

    def listed(self, folder: PathParts, last: str | None = None) -> Iterator[Match]:
        """What is in a folder, behind `last`; of a file, itself.

        Raises Refused, ConnectionTrouble, ProtocolViolation.
        """
        from sft.wire.messages import ListFolder, Refuse

        more = True
        while more:
            self._last_id += 1
            self._channel.post(ListFolder(self._last_id, folder, last).encode())
            answer = next(self._messages, None)
            if isinstance(answer, Refuse) and answer.id == self._last_id:
                raise Refused(answer.code)
            _, page = page_of(self._last_id, answer, self._messages)
            for entry in page.entries:
                if last is not None and entry.name.encode() <= last.encode() and last != _LAST:
                    raise ProtocolViolation("a listing that is out of its order")
                last = entry.name
                if self._links or entry.kind != "link":
                    yield Match((*folder, entry.name), entry.kind, entry.size, entry.mtime, entry.target)
            more = page.more

    def below(self, folder: PathParts) -> Iterator[Match]:
        """All that lies below a folder. Raises the same."""
        branches = Branches(folder)
        for page in branches.pages(self._channel, self._messages, self._last_id):
            self._last_id = branches.last_id
            for path, node in page.entries:
                if self._links or node.kind != "link":
                    yield Match((*folder, *path), node.kind, node.size, node.mtime, node.target)

    def find(self, path: PathParts) -> Match | None:
        """What has that path. Raises Refused for what can't be told, and the same."""
        if not path:
            return Match((), "folder", 0, 0)
        try:
            for match in self.listed(path[:-1], just_before(path[-1]) or None):
                if match.path[-1].encode() >= path[-1].encode():
                    return match if match.path == path and self._is_in_folder(match) else None
        except Refused as problem:
            if problem.code not in _NOT_THERE:
                raise
        return None

    def is_folder(self, path: PathParts) -> bool:
        """Whether that is one, and not a file, whose listing is itself. Raises what `listed` does."""
        return not path or next(self.listed(path, _LAST), None) is None

    def _is_in_folder(self, match: Match) -> bool:
        return match.path[-1:] != match.path[-2:-1] or self.is_folder(match.path[:-1])

    def end(self) -> None:
        """Say BYE. Raises ProtocolViolation."""
        part(self._channel, self._messages)


class Matching:
    """Turns the names of a command, some of them patterns, into names."""

    def __init__(self, reporter: Reporter, names: Sequence[str], links: bool) -> None:
        """`links`: a pattern matches links, too. Raises UsageError for a name that can't be meant."""
        self._reporter, self._names, self._links = reporter, list(names), links
        self.has_patterns = any(map(is_pattern, names))
        self._done = 0  # of the names
        self._paths: set[PathParts] = set()
        self.matches: list[Match] = []
        self.found: list[str] = []  # what the command is about; without a pattern known at once
        for name in names:
            if is_pattern(name):
                parts_of(name)
            elif self.has_patterns:
                checked_parts(literal_of(name))
            else:
                self.found.append(literal_of(name))

    def run(self, channel: "Channel") -> None:
        """Match what is not matched yet. Raises ConnectionTrouble, ProtocolViolation, PeerStopped."""
        names = _Names(channel, self._links)
        self.match(names)
        names.end()

    def match(self, names: _Names) -> None:
        """The same, over a connection that goes on."""
        while self._done < len(self._names):
            name = self._names[self._done]
            if is_pattern(name):
                self._match(name, names)
            else:
                self.found.append(literal_of(name))
                self._paths.add(checked_parts(literal_of(name)))
            self._done += 1

    def _match(self, pattern: str, names: _Names) -> None:
        matches: dict[PathParts, Match] = {}
        try:
            for match in _matches((), parts_of(pattern), names):
                matches[match.path] = match
                if len(matches) + len(self.found) > GETS_LIMIT:
                    raise Refused(Code.TOO_LARGE, pattern, "", _TOO_MANY)
        except Refused as problem:
            if problem.code in PASSING_CODES:
                raise PeerStopped(problem.code) from None
            told = problem if problem.path else not_given(problem, pattern, "list")
            self._reporter.failed(pattern, told)
            return
        if not matches:
            self._reporter.failed(pattern, Refused(Code.NOT_FOUND, pattern, "", _NO_MATCH))
        self.matches += [match for path, match in matches.items() if path not in self._paths]
        self.found += [_as_typed(path) for path in matches if path not in self._paths]
        self._paths.update(matches)


def _as_typed(path: PathParts) -> str:
    """A path as it would be typed, also when it looks as scp names another machine."""
    shown = show_path(path)
    return f"./{shown}" if "@" in shown and ":" in shown else shown


_TOO_MANY = (f"{{path}} matches more than {GETS_LIMIT:,} names", "Name their folder, or use several patterns")


def _matches(above: PathParts, parts: PathParts, names: _Names) -> Iterator[Match]:
    """What matches `parts` below a folder. Raises Refused for what can't be told."""
    plain = 0
    while plain < len(parts) and not is_pattern(parts[plain]):
        plain += 1
    folder, rest = (*above, *map(literal_of, parts[:plain])), parts[plain:]
    if not rest:
        match = names.find(folder)
        if match is not None:
            yield match
        return
    try:
        if DEEP in rest:
            yield from _deep(folder, rest, names)
        elif not plain or names.is_folder(folder):
            yield from _wide(folder, rest, names)
    except Refused as problem:
        if problem.code not in _NOT_THERE:
            raise


def _wide(folder: PathParts, parts: PathParts, names: _Names) -> Iterator[Match]:
    """The first part is a pattern, and there is no `**`."""
    found = list(names.listed(folder))
    literal = [match for match in found if match.path[-1] == parts[0]]
    fits = regex_of(parts[:1]).fullmatch
    for match in literal or found:
        if not literal and not fits(match.path[-1]):
            continue
        if len(parts) == 1:
            yield match
        elif match.kind == "folder":
            yield from _matches(match.path, parts[1:], names)


def _deep(folder: PathParts, parts: PathParts, names: _Names) -> Iterator[Match]:
    """What lies in a folder that matches is not looked at."""
    fits, inside = regex_of(parts).fullmatch, None
    for match in names.below(folder):
        if inside is not None and match.path[: len(inside)] == inside:
            continue
        if fits("/".join(match.path[len(folder) :])):
            inside = match.path if match.kind == "folder" else None
            yield match


class MatchListing:
    """The listing of what matches one pattern, each by its whole path; `is_deep`: with all that is in folders."""

    kept = "the list is not whole"

    def __init__(self, reporter: Reporter, pattern: str, is_deep: bool) -> None:
        """Raises UsageError for a name that can't be meant."""
        self._reporter, self._is_deep = reporter, is_deep
        self._matching = Matching(reporter, [pattern], links=True)
        self._told = 0

    def run(self, channel: "Channel") -> None:
        """Print what is not printed yet. Raises ConnectionTrouble, ProtocolViolation, PeerStopped."""
        names = _Names(channel, links=True)
        self._matching.match(names)
        for match in self._matching.matches[self._told :]:
            self._tell(match)
            if self._is_deep and match.kind == "folder":
                for each in names.below(match.path):
                    self._tell(each)
            self._told += 1
        names.end()

    def _tell(self, match: Match) -> None:
        self._reporter.listed(show_path(match.path), match.kind, match.size, match.mtime, match.target)
