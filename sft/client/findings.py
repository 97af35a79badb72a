"""What differs between the receiver's trees and what is here: the comparison behind a fetch that knows what it needs.

Rules: nothing is kept of what was compared but the folders above, so a million entries take little memory. A connection
that breaks costs no comparison that was made. What the receiver leaves out is reported, and what has its name here is
no finding; nor is what only this end has, where another thing goes that was named. Nothing is asked for, changed or
removed by this module.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sft.client.branches import Glimpses
from sft.client.comparing import Criteria, Difference, Entry, Pair, Paired, difference, paired
from sft.client.local_tree import LocalEntries, entry_here
from sft.client.missing import Missing, report_omitted
from sft.client.receivers_entries import ReceiversEntries
from sft.client.refusals import SKIPPED, not_given
from sft.common.errors import PASSING_CODES, Code, PeerStopped, ProtocolViolation, Refused
from sft.common.exclusions import Exclusions
from sft.common.names import PathParts, spelling_of
from sft.common.text import show_path
from sft.console.named import NamedFolder
from sft.console.reporter import Reporter
from sft.wire.spelling import spell

if TYPE_CHECKING:  # a client sends its hello before it loads the messages
    from sft.disk.visible_files import VisibleFiles
    from sft.wire.channel import Channel
    from sft.wire.messages import Message, Omitted

_NOTHING = Exclusions()
_MOST_UNGIVEN = 10_000  # names that are remembered


class Finding(NamedTuple):
    """One difference, or that there is none.

    `path`: at the receiver, of which `depth` components are the name that people read; `here`: where it is or goes.
    `there` and `ours`: what both ends have; neither: it is asked for without a comparison, whatever it is. `folder`:
    the one that it lies in, if both ends have that, with its time there. `below`: its path below what was named.
    """

    what: Difference
    path: PathParts
    depth: int
    here: PathParts
    there: Entry | None = None
    ours: Entry | None = None
    folder: tuple[PathParts, int | None] | None = None
    below: PathParts = ()

    @property
    def name(self) -> PathParts:
        """How the names of what comes begin when it is asked for."""
        return self.path[len(self.path) - self.depth :]


class _Root(NamedTuple):
    """What a comparison is about: something that was named, or what lies `below` such, and waited for its place here.

    `here`: where it goes; None: where its name leads. `is_free`: what is there counts as gone.
    """

    path: PathParts
    depth: int
    here: PathParts | None = None
    folder: tuple[PathParts, int | None] | None = None
    below: PathParts = ()
    is_free: bool = False

    @property
    def name(self) -> PathParts:
        """How the names of what comes begin when it is asked for."""
        return self.path[len(self.path) - self.depth :]


class _Comparison:
    """Of one folder that was named and is at both ends."""

    def __init__(
        self, here: PathParts, theirs: ReceiversEntries, ours: LocalEntries | None, root: _Root, mtime: int | None
    ) -> None:
        """`ours`: None when nothing is here. `mtime`: of the folder itself there, if that is known."""
        self.here, self.theirs, self.ours, self.root, self.mtime = here, theirs, ours, root, mtime
        self.pairs: Paired = paired(theirs, () if ours is None else ours)
        self.above: list[tuple[PathParts, Entry]] = []  # folders on the way down, as they are there
        self.passed: PathParts | None = None  # a folder whose content needs no look
        self.has_extra = False


class Findings:
    """The comparison of everything that was named, over as many connections as it takes."""

    def __init__(
        self,
        reporter: Reporter,
        missing: Missing,
        names: "Sequence[tuple[PathParts, int]]",
        place: Callable[[PathParts], PathParts],
        visible: "VisibleFiles | None",
        criteria: Criteria,
        in_whole: bool = True,
        links: bool = False,
        exclusions: Exclusions = _NOTHING,
        digests: bool = False,
    ) -> None:
        """`names`: each with the number of its last components that people read; `place(name)`: where that goes here.

        `in_whole`: a folder that is not here is one finding, whatever is in it, and so is what can't be compared; else
        everything is found by itself, and what can't be has failed. `visible`: None when nothing is here. `links`: they
        are compared, too. `exclusions`: what they match is no finding, at either end. `digests`: each
        file of the receiver's comes with its own.
        """
        self._reporter, self._missing, self._place, self._visible = reporter, missing, place, visible
        self._criteria, self.in_whole, self._links, self._exclusions = criteria, in_whole, links, exclusions
        self._digests = digests
        self._left = deque(_Root(path, depth) for path, depth in names)
        self._named_at: dict[int, list[PathParts]] = {}  # what goes to a place here, by the spelling of that
        for name, depth in names if len(names) > 1 else []:
            with contextlib.suppress(Refused):  # then nothing goes there
                self._named_at.setdefault(spelling_of(place(name[len(name) - depth :])), []).append(name)
        self._comparison: _Comparison | None = None
        self._glimpses = Glimpses(digests)
        self._ungiven: set[PathParts] = set()  # where the receiver has something that it does not send
        self._partly: set[PathParts] = set()  # folders in which it has such things beside those
        self._knows_ungiven = True
        self.is_blind = False  # the account may not list
        self.is_certain = True  # all that the receiver has was compared, as far as it can tell
        self.empty: list[PathParts] = []  # named folders that are empty there, and not here
        self.are_listed = False  # what was named comes from a list, and patterns are about all of its path there
        self.within: Callable[[PathParts], NamedFolder | None] = lambda name: None  # the named folder that has it in it
        self.stays: Callable[[PathParts], None] = lambda here: None  # called for what only this end has, and keeps

    @property
    def is_over(self) -> bool:
        """Whether everything is compared."""
        return not self._left

    def again(self, finding: Finding, is_free: bool) -> None:
        """Find what was behind something in the way here; `is_free`: that is not gone, and counts as gone."""
        path, here, folder, below = finding.path, finding.here, finding.folder, finding.below
        self._left.append(_Root(path, finding.depth, here, folder, below, is_free))

    def pause(self) -> None:
        """Close what is open here."""
        if self._comparison is not None and self._comparison.ours is not None:
            self._comparison.ours.pause()

    def read(self, channel: "Channel", messages: "Iterator[Message]") -> Iterator[Finding]:
        """What is not found yet; stop reading whenever enough is found.

        Raises ConnectionTrouble, ProtocolViolation, PeerStopped, TransferError for what can't be read here.
        """
        self._glimpses.last_id = 0
        while self._left:
            root, finding = self._left[0], None
            try:
                if self._comparison is None:
                    finding = self._start(root, channel, messages)
                else:
                    yield from self._compare(root.path, self._comparison, channel, messages)
                    self._comparison = None
            except Refused as problem:
                finding = self._take_refusal(root, problem)
                self._comparison = None
            if self._comparison is None:
                self._left.popleft()  # before it is yielded: who stops reading there does not get it again
            if finding is not None:
                yield finding

    # --- what was named ---

    def _start(self, root: _Root, channel: "Channel", messages: "Iterator[Message]") -> Finding | None:
        """Begin a comparison of what is a folder at both ends, or tell about what was named itself. Raises Refused."""
        name = root.path
        here = self._place(root.name) if root.here is None else root.here
        ours = None if root.is_free else self._look(here)
        found = Finding(Difference.NEW, name, root.depth, here, None, ours, root.folder, root.below)
        if not self.in_whole:
            there = self._glimpses.find(name, channel, messages) if name else Entry("folder")
            if there is None or (there.kind == "link" and not self._links):
                raise Refused(Code.NOT_FOUND if there is None else Code.LINK)
            if self._is_excluded(root, there.kind == "folder"):
                self._reporter.skipped(show_path(name), "excluded")
                return None
            found = found._replace(what=difference(there, ours, self._criteria), there=there)
            if there.kind == "folder" and found.what is not Difference.KIND:
                return self._begin(root, found)
            return found
        if self.is_blind or ours is None or ours.kind not in ("file", "folder"):
            return found
        there = self._glimpses.find(name, channel, messages) if name else Entry("folder")
        if there is None or there.kind == "link" or there.kind != ours.kind:
            return found
        found = found._replace(what=difference(there, ours, self._criteria), there=there)
        return self._begin(root, found) if ours.kind == "folder" else found

    def _is_excluded(self, root: _Root, is_folder: bool) -> bool:
        if self.are_listed:
            above = root.path[: len(root.path) - root.depth][-1:]  # the folder that the list is about
            is_outside = bool(above) and self._exclusions.is_source_excluded(above[0], True)
            return is_outside or self._exclusions.is_below_excluded(root.name, is_folder)
        return bool(root.path) and not root.below and self._exclusions.is_source_excluded(root.path[-1], is_folder)

    def _in_patterns(self, root: _Root) -> PathParts:
        """The path of that as patterns are about it."""
        return root.name if self.are_listed else root.below

    def _look(self, here: PathParts) -> Entry | None:
        """What has that path here. Raises Refused."""
        if self._visible is None:
            return None
        return entry_here(self._visible, here) if here else Entry("folder")

    def _begin(self, root: _Root, found: Finding) -> Finding | None:
        """Begin to compare what is in a folder; what is to be said about itself. Raises Refused."""
        name, here, ours = root.path, found.here, found.ours

        def skipped(path: PathParts) -> None:
            within = self.within((*root.name, *path))
            self._reporter.skipped(show_path((*name, *path)), SKIPPED[Code.LINK], within)

        skip = None if self._links else skipped
        told, how = (
            lambda omission: self._omitted(root, omission),
            (self._exclusions, self._digests, self._in_patterns(root)),
        )
        theirs = ReceiversEntries(name, told, skip, *how)
        entries = None if self._visible is None or ours is None else LocalEntries(self._visible, here)
        mtime = None if found.there is None else found.there.mtime
        self._comparison = _Comparison(here, theirs, entries, root, mtime)
        return found if here and found.what is not Difference.NONE else None

    def _take_refusal(self, root: _Root, problem: Refused) -> Finding | None:
        """It is asked for without a comparison: the answer to that says what is wrong with it, if anything is."""
        name, begun = root.path, self._comparison
        self.is_certain = False
        if problem.code in PASSING_CODES:
            raise PeerStopped(problem.code)
        # In the middle it is gone by now, or the account's right is.
        if not self.in_whole or (begun is not None and begun.theirs.count):
            shown = show_path(name) or "your folder"
            self._missing.fail(shown, not_given(problem, shown, "list"))
            return None
        self.is_blind = self.is_blind or problem.code is Code.DENIED
        here = root.here or () if begun is None else begun.here
        return Finding(Difference.NEW, name, root.depth, here)

    # --- what lies in a folder ---

    def _compare(
        self, name: PathParts, comparison: _Comparison, channel: "Channel", messages: "Iterator[Message]"
    ) -> Iterator[Finding]:
        theirs = comparison.theirs
        theirs.connect(channel, messages, self._glimpses.last_id)
        try:
            for pair in comparison.pairs:
                if (finding := self._judge(name, comparison, pair)) is not None:
                    yield finding
        finally:
            self._glimpses.last_id = theirs.last_id
        if not theirs.count and comparison.has_extra:
            self.empty.append(comparison.here)

    def _judge(self, name: PathParts, comparison: _Comparison, pair: Pair) -> Finding | None:
        path, there, ours = pair.path, pair.sender, pair.receiver
        if comparison.passed is not None and path[: len(comparison.passed)] == comparison.passed:
            return None
        del comparison.above[len(path) - 1 :]
        if len(comparison.above) < len(path) - 1 and there is not None:
            raise ProtocolViolation("a path in a tree without its folder")
        folder = self._folder(comparison, path)
        what = difference(there, ours, self._criteria)
        whole, below = (*name, *path), (*comparison.root.below, *path)
        if there is None and self._is_of_another(name, (*comparison.here, *path)):
            comparison.passed = path
            return None
        if there is None:
            if ours is not None and self._stays(ours, (*self._in_patterns(comparison.root), *path)):
                self.stays((*comparison.here, *path))
                comparison.passed = path
                return None
            comparison.has_extra = True
            if self._may_be_ungiven(name, whole):
                return None
        if what is Difference.KIND:
            if self._digests or (there is not None and there.kind == "folder"):
                comparison.passed = path  # what is in it comes once it has its place here
        elif there is not None and there.kind == "folder":
            if self.in_whole and what is Difference.NEW:
                comparison.passed = path
            else:
                comparison.above.append((path, there))
            if what is Difference.NONE:
                return None
        depth = len(path) + comparison.root.depth
        return Finding(what, whole, depth, (*comparison.here, *path), there, ours, folder, below)

    def _stays(self, ours: Entry, path: PathParts) -> bool:
        """Whether what only this end has is no difference: it is excluded, or neither file, folder nor link."""
        return ours.kind == "hidden" or self._exclusions.is_excluded(path, ours.kind == "folder")

    def _is_of_another(self, name: PathParts, here: PathParts) -> bool:
        """Whether that is where something else goes that was named, or in it."""
        if not self._named_at:
            return False
        places = (spelling_of(here[:size]) for size in range(len(here) + 1))
        return any(other != name for place in places for other in self._named_at.get(place, ()))

    @staticmethod
    def _folder(comparison: _Comparison, path: PathParts) -> tuple[PathParts, int | None] | None:
        """The folder of a path, if it is at both ends."""
        if len(path) == 1:
            return comparison.here, comparison.mtime
        if len(comparison.above) < len(path) - 1:
            return None
        above, entry = comparison.above[len(path) - 2]
        return (*comparison.here, *above), entry.mtime

    def _omitted(self, root: _Root, omission: "Omitted") -> None:
        """The receiver has something that it does not send."""
        name = root.path
        if self._exclusions.is_below_excluded((*self._in_patterns(root), *omission.name.split("/"))):
            return
        shown = "/".join((*name, omission.name))
        if omission.code in SKIPPED:
            self._missing.skip(omission, shown, self.within((*root.name, *omission.name.split("/"))))
        else:
            self.is_certain = False
            report_omitted(self._reporter, omission, shown, self._missing.fail)
        path = (*name, *omission.name.split("/"))
        if "\\" in omission.name or omission.more:
            self.is_certain = False
        if len(self._ungiven) < _MOST_UNGIVEN:
            self._ungiven.add(path)
            if omission.more:
                self._partly.add(path[:-1])
        else:
            self.is_certain = self._knows_ungiven = False

    def _may_be_ungiven(self, name: PathParts, whole: PathParts) -> bool:
        """Whether the receiver has something at that path, below the one that was named, that it did not send.

        Where digests tell what is extra, it is enough that it may; what is removed depends on `is_certain` as well.
        """
        depths = range(len(name), len(whole))
        whole = (*name, *(spell((part,)) for part in whole[len(name) :]))
        is_known = any(whole[: depth + 1] in self._ungiven for depth in depths)
        may_be = self._digests and (not self._knows_ungiven or any(whole[:depth] in self._partly for depth in depths))
        return is_known or may_be
