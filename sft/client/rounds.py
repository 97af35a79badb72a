"""What a fetch with --update or --exclude asks for and changes here, by what its comparison finds.

    TREE ...   until enough differs, or everything is compared
    GET ...    of what differs, and no more; the next round in another connection, if there is more

Rules: a folder that is not here is asked for as a whole, unless something may be left out of it. What has other
permission bits, and nothing else, gets them without a question. What turns out to have the same content gets its time.
Little is kept of what was compared, and of what is asked for no more than one round.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sft.client.comparing import Criteria, Difference, Entry, Way, has_other_mode, mode_there, way_for
from sft.client.extras import Extras
from sft.client.findings import Finding, Findings
from sft.client.local_tree import LocalChanges
from sft.client.missing import Missing
from sft.client.refusals import refused_here
from sft.common.errors import Code, Refused
from sft.common.names import PathParts, size_of
from sft.common.text import show_path
from sft.console.reporter import Reporter
from sft.wire.protocol import ASKED_LIMIT

if TYPE_CHECKING:
    from sft.console.named import NamedFolder
    from sft.disk.temporary import Incoming
    from sft.wire.channel import Channel
    from sft.wire.messages import Message

_MOST_ASKED = 16_384  # in one connection: some 8 MB here


class Asked(NamedTuple):
    """One GET: what comes is called by the last `depth` components of `path`, and what lies below."""

    path: PathParts
    depth: int
    offers: bool = False

    @property
    def name(self) -> PathParts:
        """How the names of what comes begin."""
        return self.path[len(self.path) - self.depth :]


def asked_for(named: Sequence[PathParts], below: Sequence[PathParts]) -> list[Asked]:
    """All that was named; with `below` what lies there, below the one name."""
    if below:
        return [Asked((*named[0], *each), len(each)) for each in below]
    return [Asked(path, min(1, len(path))) for path in named]


class Rounds:
    """One run with --update."""

    def __init__(
        self,
        reporter: Reporter,
        missing: Missing,
        findings: Findings,
        changes: LocalChanges,
        shown: Callable[[PathParts], str],
        within: "Callable[[PathParts], NamedFolder | None]",
        criteria: Criteria,
        extras: Extras,
        takes_all: bool = False,
    ) -> None:
        """`shown(path)`: how a person finds that path here. `within(name)`: the named folder that has it in it.

        `takes_all`: every file is asked for, whatever is here.
        """
        self._reporter, self._missing, self._findings, self._changes = reporter, missing, findings, changes
        self._shown, self._within, self._criteria = shown, within, criteria
        self._extras, self.takes_all = extras, takes_all
        self.folders: dict[PathParts, int | None] = {}  # that get something in this round, with their times if known
        self.modes: dict[PathParts, int] = {}  # of those that are made, where modes are kept
        self._made: dict[PathParts, PathParts] = {}  # those, with their names
        self._asked: list[Asked] = []  # in a round that is not compared to its end yet
        self._is_begun = False  # that round
        self._has_removed = False

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be compared now."""
        return self._findings.is_over

    @property
    def is_last(self) -> bool:
        """Whether nothing is left to be compared, now or later."""
        return self._findings.is_over and not self._extras.way.waiting

    def next(self, channel: "Channel", messages: "Iterator[Message]") -> list[Asked]:
        """Compare on, and change what needs no content; what is to be asked for then.

        Raises ConnectionTrouble, ProtocolViolation, PeerStopped, TransferError.
        """
        if not self._is_begun:
            self.folders.clear()
            self.modes.clear()
            self._made.clear()
        self._is_begun, asked = True, self._asked
        size = sum(size_of(each.path) for each in asked)
        try:
            for finding in self._findings.read(channel, messages):
                if self._act(finding):
                    asked.append(Asked(finding.path, finding.depth, self._is_worth_offering(finding)))
                    size += size_of(finding.path)
                if len(asked) >= _MOST_ASKED or len(self.folders) >= _MOST_ASKED or size > ASKED_LIMIT // 2:
                    break
        finally:
            self._findings.pause()
        self._is_begun, self._asked = False, []
        return asked

    def _is_worth_offering(self, finding: Finding) -> bool:
        has_one = finding.ours is not None and finding.what in (Difference.TIME, Difference.MODE, Difference.NONE)
        return has_one or (finding.there is None and self._findings.is_blind)

    def _act(self, finding: Finding) -> bool:
        """Whether it is to be asked for."""
        what, there, ours = finding.what, finding.there, finding.ours
        if self._extras.note(finding) or what is Difference.EXTRA:
            return False
        if self.takes_all and there is not None and there.kind != "folder":
            return self._ask(finding)
        if what is Difference.NONE:
            self._unchanged(finding)
            return False
        if what is Difference.KIND and not is_replaced_at_once(finding):
            problem = refused_here(in_the_way(finding), self._shown(finding.here))
            self._missing.fail(show_path(finding.name), problem, self._within(finding.name))
            return False
        if there is not None and ours is not None and (there.kind == "folder" or what is Difference.MODE):
            if what is Difference.TIME and there.mtime is not None:
                self.folders[finding.here] = there.mtime
            if has_other_mode(there, ours, self._criteria.modes):
                self._change(finding.name, finding.here, None, mode_there(there))
            if what is Difference.MODE and there.kind == "file":
                self._unchanged(finding)
            return False
        if there is not None and there.kind == "folder" and not self._findings.in_whole:
            self._make(finding, there)
            return False
        return self._ask(finding)

    def _ask(self, finding: Finding) -> bool:
        self._put_into(finding.folder)
        return True

    def _put_into(self, folder: tuple[PathParts, int | None] | None) -> None:
        """Something new comes into that folder, which gets its time there behind that."""
        if folder is not None and folder[1] is not None:
            self.folders[folder[0]] = folder[1]

    def _make(self, finding: Finding, there: Entry) -> None:
        """A folder that is not here; what is in it comes by itself."""
        here = finding.here
        self._put_into(finding.folder)
        self.folders[here] = there.mtime
        self._made[here] = finding.name
        if self._criteria.modes and there.mode is not None:
            self.modes[here] = there.mode

    def _unchanged(self, finding: Finding) -> None:
        name, size = finding.name, 0 if finding.there is None else finding.there.size
        self._reporter.unchanged(show_path(name), self._shown(finding.here), size, self._within(name))

    def folders_to_make(self) -> "Iterator[Incoming]":
        """Those that get something in this round."""
        from sft.disk.temporary import Incoming

        for place, mtime in self.folders.items():
            yield Incoming(b"", place, None, mtime, self.modes.get(place), "replace")

    def not_made(self, here: PathParts, problem: Refused) -> None:
        """A folder of this round could not be made; of one that is there already, what comes into it tells."""
        if (name := self._made.get(here)) is not None:
            self._missing.fail(show_path(name), refused_here(problem, self._shown(here)), self._within(name))

    def remove_extra(self) -> bool:
        """Remove what only this end has, and what is in the way; whether there is more to find now.

        Call it whenever everything is found and has arrived.
        """
        if not self._has_removed:
            self._has_removed = True
            self._extras.remove(self._changes)
            for finding, here in self._extras.way.take_waiting().items():
                if (problem := self._extras.way.blocked(here)) is None:
                    self._findings.again(finding, is_free=False)
                else:
                    self._missing.fail(show_path(finding.name), problem, self._within(finding.name))
        return not self._findings.is_over

    def is_there(self, name: PathParts, here: PathParts, mtime: int | None, mode: int | None) -> None:
        """A file that was asked for has the same content here: it gets time and mode of the receiver's."""
        if mtime is not None or mode is not None:
            self._change(name, here, mtime, mode)

    def _change(self, name: PathParts, here: PathParts, mtime: int | None, mode: int | None) -> None:
        try:
            if not self._changes.set(here, mtime, mode):
                self._reporter.note(f"{self._shown(here)}: its time can't be kept by the disk here")
            self._reporter.was_set(self._shown(here))
        except Refused as problem:
            self._missing.fail(show_path(name), refused_here(problem, self._shown(here)))


def is_replaced_at_once(finding: Finding) -> bool:
    """Whether what is here is replaced in one step, though it is of another kind: a link and a file."""
    there, ours = finding.there, finding.ours
    return there is not None and ours is not None and way_for(there, ours, deletes=False) is Way.OVER


def in_the_way(finding: Finding) -> Refused:
    """Why what is here can't be replaced."""
    if finding.ours is not None and finding.ours.kind == "folder":
        return Refused(Code.IS_FOLDER)
    if finding.ours is not None and finding.ours.kind == "link":
        return Refused(Code.LINK)
    if finding.ours is not None and finding.ours.kind == "hidden":
        return Refused(Code.SPECIAL)
    return Refused(Code.NOT_FOLDER)
