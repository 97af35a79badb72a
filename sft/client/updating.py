"""Sending only what has changed: what is found here is compared with what the receiver has, path by path.

    thread `looking`    walks the sources, some way ahead
    main thread         reads TREE, compares, and keeps what differs: that is sent then

Rules: what has the same size and time is left alone. Nothing is kept of it, so a million files take little memory. What
has another time is offered or compared by its digest, and gets its time behind that. A folder is announced when
something is sent into it, because that gives it another time. Where the account may not list, each file is asked for by
its digest. What a comparison has come to is kept when a connection breaks.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sft.client.branches import BranchEntries, Glimpses, link_entry
from sft.client.comparing import (
    HIDDEN,
    Criteria,
    Difference,
    Entry,
    Pair,
    Paired,
    Way,
    difference,
    has_other_mode,
    mode_there,
    paired,
    way_for,
)
from sft.client.finishing import Finishing
from sft.client.here import Here
from sft.client.own_logs import OwnFiles
from sft.client.sending_plan import SendingPlan
from sft.client.sources import NamedSource, counts
from sft.common.errors import PASSING_CODES, Code, PeerStopped, Refused, SourceError
from sft.common.names import PathParts
from sft.common.text import show_path
from sft.console.named import NamedFolder
from sft.console.reporter import Reporter
from sft.disk.tree import Found, Tree, Walked
from sft.transfer.items import Item
from sft.wire.protocol import UNASKED_LIMIT, nearest_time

if TYPE_CHECKING:  # a client sends its hello before it loads the messages
    from sft.wire.channel import Channel
    from sft.wire.messages import Message


class Sending(NamedTuple):
    """What the comparison asks of an upload.

    `take` makes an item of what was found, which is in `left` then, or reports why not. `own_files` are never sent.
    `is_excluded`: nor is that path below a source, a folder or not. `is_over`: nothing more is wanted.
    """

    take: Callable[[Walked, Tree, PathParts, NamedFolder | None], Item | None]
    left: dict[Item, None]
    own_files: OwnFiles
    is_excluded: Callable[[PathParts, bool], bool]
    is_over: Callable[[], bool]


@dataclass(slots=True)
class _Folder:
    """A folder here, on the way down to what is compared."""

    found: Found
    is_announced: bool
    behind: PathParts | None = None  # something in the way there, without which it can't come


@dataclass(slots=True)
class _Comparison:
    """Of one source that is a folder."""

    source: NamedSource
    theirs: BranchEntries
    pairs: Paired
    above: list[_Folder] = field(default_factory=list)  # from the source on
    excluded: PathParts | None = None  # the last path that only the receiver has, and a pattern leaves out
    has_any_here: bool = False  # that is compared
    has_extra: bool = False  # that only the receiver has, and no pattern leaves out


class Updating:
    """The comparison of one run."""

    def __init__(
        self,
        reporter: Reporter,
        keeps_modes: bool,
        finishing: Finishing,
        sending: Sending,
        plan: SendingPlan | None = None,
    ) -> None:
        """`finishing`: what is done once everything is sent. `plan`: shows what would be done, and nothing is."""
        self._plan = plan
        self._reporter, self._keeps_modes, self._finishing, self._sending = reporter, keeps_modes, finishing, sending
        self._criteria = Criteria(modes=0o777 if keeps_modes else 0)
        self._here = Here(sending.own_files, sending.is_over)
        self._count = 0  # of the things in this source that are settled, or will be
        self._glimpses = Glimpses()
        self._comparison: _Comparison | None = None
        self._found: tuple[Entry, Found] | None = None  # what was read here last
        self._aged: dict[Item, Found] = {}  # of another time than there, or of one that is not known
        self.is_blind = False  # the account may not list
        self._modes_seen: set[int] = set()  # of files that are the same

    def look(self, sources: deque[NamedSource]) -> None:
        """Walk the sources, some way ahead of the comparison."""
        self._here.look(sources)

    # --- comparing ---

    def compare(self, channel: "Channel", messages: "Iterator[Message]") -> int:
        """Compare what is not compared yet; the id of the last question in this connection.

        Raises ConnectionTrouble, ProtocolViolation, PeerStopped.
        """
        last_id = self._glimpses.last_id = 0
        while True:
            if self._comparison is None:
                if (next_one := self._here.next_source()) is None:
                    return last_id
                source, seen = next_one
                if not isinstance(seen, Found) or not seen.is_folder:
                    self._glimpses.last_id = last_id
                    self._compare_file(source, seen, channel, messages)
                    last_id = self._glimpses.last_id
                    self._here.pass_by()
                    continue
                self._comparison = self._begin(source, seen)
            theirs = self._comparison.theirs
            theirs.connect(channel, messages, last_id)
            self._go_on(self._comparison)
            self._end(self._comparison)
            last_id, self._comparison = theirs.last_id, None

    def _take(self, source: NamedSource, found: Walked) -> Item | None:
        """Make an item of it, or report why not."""
        self._count += counts(found, source.place)
        return self._sending.take(found, source.tree, source.place, source.folder)

    def _end(self, comparison: _Comparison) -> None:
        """All of it is compared."""
        source = comparison.source
        if comparison.has_extra and not comparison.has_any_here:
            self._finishing.is_empty_here(source.first.path)
        if source.folder is not None and self._plan is None:
            self._reporter.folder_found(source.folder, self._count)
        self._count = 0

    def _begin(self, source: NamedSource, found: Found) -> _Comparison:
        if self._plan is None:
            self._take(source, found)
        self._here.pass_by()
        theirs = BranchEntries(source.place)
        if self.is_blind:
            theirs.end()
        return _Comparison(source, theirs, paired(self._ours(source), theirs), [_Folder(found, True)])

    def _go_on(self, comparison: _Comparison) -> None:
        while True:
            try:
                self._leave_same(comparison)
                for pair in comparison.pairs:
                    self._judge(comparison, pair)
                    self._leave_same(comparison)
                return
            except Refused as problem:
                self._take_refusal(problem)
                if self._plan is not None and comparison.source.place:
                    self._tell_source(self._plan, comparison.source, problem.code)
                comparison.theirs.end()  # the rest is sent as if nothing were there

    def _take_refusal(self, problem: Refused) -> None:
        """There is no folder, or none that can be listed by this account."""
        if problem.code in PASSING_CODES:
            raise PeerStopped(problem.code)
        if problem.code is Code.DENIED:
            self.is_blind = True
            self._finishing.can_not_list()
        elif problem.code is not Code.NOT_FOUND:
            self._finishing.remove_nothing()

    def _ours(self, source: NamedSource) -> Iterator[tuple[PathParts, Entry]]:
        """What is here below a source; what can't be compared is reported on the way."""
        while (seen := self._here.next_of(source)) is not None:
            if isinstance(seen, Found) and not self._sending.own_files.has(seen):
                entry = self._entry(seen)
                self._found = entry, seen
                yield seen.parts, entry
            else:
                self._take(source, seen)
                if not isinstance(seen, SourceError) and seen.parts:
                    yield seen.parts, HIDDEN

    def _leave_same(self, comparison: _Comparison) -> None:
        """Leave alone the files that come next at both ends and are the same, as long as there are any.

        For most files this is all: 5 us of CPU at this end, walk included, and not 30.
        """
        source = comparison.source
        if self._plan is not None or self._reporter.names_unchanged(source.folder):
            return
        while comparison.pairs.is_between and (files := self._here.files_of(source)) is not None:
            folder, lines = files
            if not (count := comparison.theirs.pass_by(folder, lines)):
                return
            self._here.pass_files_by(count)
            self._count += count
            comparison.has_any_here = True
            for mode in {line[5] for line in lines[:count]}:
                self._see_mode(mode)
            self._reporter.unchanged_files(count, sum([line[3] for line in lines[:count]]), source.folder)

    def _see_mode(self, mode: int) -> None:
        if mode not in self._modes_seen:
            self._modes_seen.add(mode)
            self._finishing.see_mode("file", mode)

    def _entry(self, found: Found) -> Entry:
        mode = found.mode if self._keeps_modes else None
        if found.is_folder:
            return Entry("folder", 0, nearest_time(found.mtime), mode)
        if found.leads_to is not None:
            return link_entry(found.leads_to)
        return Entry("file", found.size, nearest_time(found.mtime), mode)

    # --- what becomes of a path ---

    def _judge(self, comparison: _Comparison, pair: Pair) -> None:
        source, above, depth = comparison.source, comparison.above, len(pair.path)
        path = (*source.place, *pair.path)
        del above[depth:]
        parent = above[-1] if len(above) == depth else None
        if pair.receiver is not None and pair.sender is None:
            is_here = parent is not None and parent.found.parts == pair.path[:-1]
            self._only_there(comparison, pair.path, pair.receiver, parent.found if parent and is_here else None)
            return
        comparison.has_any_here = True
        if parent is None or self._found is None or self._found[0] is not pair.sender:
            raise RuntimeError("a path without its folder")
        found = self._found[1]
        if pair.sender == pair.receiver and pair.sender.kind == "file" and self._plan is None:
            self._leave(source, found, path, pair.sender)  # as most are: 35 us of both threads, not 43
            return
        what = difference(pair.sender, pair.receiver, self._criteria)
        if self.is_blind and not found.is_folder:
            what = Difference.TIME
        is_sent = what not in (Difference.NONE, Difference.MODE)
        if is_sent and not parent.is_announced and self._plan is None:
            self._take(source, parent.found)
            parent.is_announced = True
        behind = parent.behind or self._behind(path, what, pair, parent.found)
        self._act(source, found, path, what, pair, behind)
        if found.is_folder:
            above.append(_Folder(found, is_sent, behind))

    def _behind(self, path: PathParts, what: Difference, pair: Pair, folder: Found) -> PathParts | None:
        """The path itself, if what has it there is to be removed first, because it is of another kind."""
        is_update = self._plan is None or self._plan.is_update
        if what is not Difference.KIND or pair.sender is None or pair.receiver is None or not is_update:
            return None
        if way_for(pair.sender, pair.receiver, self._finishing.way.deletes) not in (Way.AFTER, Way.WITH_ALL):
            return None
        self._finishing.make_way(path, pair.receiver, nearest_time(folder.mtime))
        return path

    def _only_there(self, comparison: _Comparison, path: PathParts, there: Entry, folder: Found | None) -> None:
        """`folder`: the one here with the name of that which it is in there."""
        source, excluded = comparison.source, comparison.excluded
        if excluded is not None and path[: len(excluded)] == excluded:
            return
        if self._sending.is_excluded(path, there.kind == "folder"):
            comparison.excluded = path
            self._finishing.spare((*source.place, *path))
        else:
            comparison.has_extra = True
            time = None if folder is None else nearest_time(folder.mtime)
            self._finishing.remove((*source.place, *path), there, time)

    def _compare_file(
        self, source: NamedSource, found: Walked, channel: "Channel", messages: "Iterator[Message]"
    ) -> None:
        """A file that was named itself."""
        if not isinstance(found, Found):
            self._take(source, found)
            return
        there = None
        if not self.is_blind:
            try:
                there = self._glimpses.find(source.place, channel, messages)
            except Refused as problem:
                self._take_refusal(problem)
        ours = self._entry(found)
        what = Difference.TIME if self.is_blind else difference(ours, there, self._criteria)
        self._act(source, found, source.place, what, Pair(source.place, ours, there))

    def _leave(self, source: NamedSource, found: Found, path: PathParts, ours: Entry) -> None:
        """A file of which everything is the same."""
        if ours.mode is not None:
            self._see_mode(ours.mode)
        self._count += 1
        self._reporter.unchanged(found.path, show_path(path), found.size, source.folder)

    def _act(
        self,
        source: NamedSource,
        found: Found,
        path: PathParts,
        what: Difference,
        pair: Pair,
        behind: PathParts | None = None,
    ) -> None:
        """`behind`: something in the way, for whose removal it waits."""
        if pair.sender is not None and pair.receiver is not None:
            self._compare_modes(path, pair.sender, pair.receiver, what)
        if self._plan is not None:
            self._tell(self._plan, found, path, what, pair, behind)
            return
        if what is Difference.NEW:
            self._finishing.sent(path)
        if what in (Difference.NONE, Difference.MODE):
            if not found.is_folder:
                self._count += 1
                self._reporter.unchanged(found.path, show_path(path), found.size, source.folder)
            return
        item = self._take(source, found)
        if item is not None and behind is not None:
            del self._sending.left[item]
            self._finishing.way.waiting[item] = behind
        if item is not None and what is Difference.TIME and item.kind == "file":
            self._aged[item] = found

    def _tell_source(self, plan: SendingPlan, source: NamedSource, code: Code) -> None:
        """What becomes of a folder that is not there, or can't be listed."""
        there = {Code.NOT_FOLDER: "file", Code.LINK: "link", Code.NOT_FOUND: ""}.get(code)
        if there is not None:
            what = Difference.KIND if there else Difference.NEW
            plan.tell(source.first.path, source.place, "folder", None, what, there)

    def _tell(
        self,
        plan: SendingPlan,
        found: Found,
        path: PathParts,
        what: Difference,
        pair: Pair,
        behind: PathParts | None,
    ) -> None:
        kind = "folder" if found.is_folder else "file" if found.leads_to is None else "link"
        size = found.size if kind == "file" else None
        if self.is_blind:
            plan.tell_unknown(found.path, path, kind, size)
        elif behind is not None:
            plan.wait(behind, found.path, path, kind, size, what)
        else:
            plan.tell(found.path, path, kind, size, what, pair.receiver.kind if pair.receiver is not None else "")

    def _compare_modes(self, path: PathParts, ours: Entry, theirs: Entry, what: Difference) -> None:
        """A file that is sent, or found to be there, gets its mode then; a folder that is there keeps its own."""
        if theirs.kind == ours.kind != "link":
            self._finishing.see_mode(ours.kind, theirs.mode or 0)
        is_settled_so = what is Difference.MODE or (what is Difference.TIME and ours.kind == "folder")
        if is_settled_so and has_other_mode(ours, theirs, self._criteria.modes):
            self._finishing.set_mode(path, ours.kind, mode_there(ours), theirs.mode or 0)

    # --- while it is sent ---

    def is_worth_offering(self, item: Item) -> bool:
        """Whether a file is offered by its digest first."""
        return item in self._aged and item.found_size is not None and item.found_size <= UNASKED_LIMIT

    def is_there(self, item: Item) -> None:
        """The receiver has the same content under its name: it gets time and mode of what is here."""
        if (found := self._aged.get(item)) is not None:
            mode = found.mode if self._keeps_modes else None
            self._finishing.set(item.target, nearest_time(found.mtime), mode)
