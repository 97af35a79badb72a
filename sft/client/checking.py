"""`--check`: whether both ends have the same, by the digests of files; nothing is sent, fetched or changed.

    receiver    TREE with digests, asked for a page ahead
    here        walks, and reads each file that has the same size at both ends, at the same time

Rules: times and permission bits do not count. What can't be read at either end has failed, and is not called missing.
Of what is compared one page is kept, and the next one, so there may be any number of files of any size.
"""

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sft.client.branches import BranchEntries, Glimpses, link_entry
from sft.client.comparing import HIDDEN, Criteria, Difference, Entry, Pair, Paired, difference, paired
from sft.client.missing import report_omitted
from sft.client.own_logs import files_of_log
from sft.client.parting import part
from sft.client.refusals import SKIPPED, not_given
from sft.client.targets import remote_paths
from sft.common.errors import PASSING_CODES, Code, PeerStopped, ProtocolViolation, Refused, SourceError
from sft.common.names import LOCAL_PARTIAL_AREA, PathParts
from sft.common.text import show_path
from sft.console.command_line import PIPE
from sft.console.reporter import Reporter
from sft.disk.source_folders import Folders
from sft.disk.sources import FileSource, Source, changed
from sft.disk.tree import Excluded, Found, Skipped, Tree
from sft.wire.spelling import spell

if TYPE_CHECKING:
    import argparse

    from sft.client.findings import Finding, Findings
    from sft.client.missing import Missing
    from sft.disk.visible_files import VisibleFiles
    from sft.wire.channel import Channel
    from sft.wire.messages import Message, Omitted

CONTENT_ALONE = Criteria(times=False)
_WORDS = {Difference.NEW: "missing", Difference.EXTRA: "extra"}  # at the receiving end; else it is different
_MOST_UNREAD = 10_000  # names that the receiver can't give


class Verdicts:
    """What a check has found: a line for each difference, and how many there are."""

    def __init__(self, reporter: Reporter, quiet: bool) -> None:
        self._reporter, self._quiet = reporter, quiet
        self._counts = {"same": 0, "different": 0, "missing": 0, "extra": 0}

    def same(self) -> None:
        """A file or link is the same."""
        self._counts["same"] += 1

    def differs(self, what: Difference, path: str, kind: str) -> None:
        """Something is not; the exit status says so."""
        word = _WORDS.get(what, "different")
        self._counts[word] += 1
        self._reporter.status = max(self._reporter.status, Refused.exit_status)
        why = f" ({what.value})" if word == "different" else ""
        line = f"{word}: {path}{'/' if kind == 'folder' else ''}{why}"
        self._tell(line, "checked", outcome=word, path=path, kind=kind, why=what.value)

    def end(self) -> None:
        """The last line."""
        line = ", ".join(f"{count:,} {word}" for word, count in self._counts.items() if count or word == "same")
        self._tell(line, "verdict", **self._counts)

    def _tell(self, line: str, event: str, **fields: object) -> None:
        if not self._quiet:
            self._reporter.told(line, event, **fields)


def digest_of(source: Source, size: int, name: str) -> bytes:
    """The SHA-256 of a file that should have so many bytes; it is closed. Raises SourceError."""
    from sft.transfer.hashing import OtherSize, hash_source

    with contextlib.closing(source):
        try:
            running = hash_source(source, size, lambda: True, lambda _: None)
            source.check_unchanged()
        except OtherSize:
            running = None
        if running is None or source.size != size:
            raise changed(name)
        return running.digest()


class _Named(NamedTuple):
    """One source, and its path at the receiver."""

    tree: Tree
    place: PathParts


class _Unread:
    """What the receiver has and can't give."""

    def __init__(self) -> None:
        self._names: set[str] = set()  # spelled
        self._folders: set[str] = set()  # that have such names beside those
        self._is_full = False

    def add(self, name: str, has_more: bool) -> None:
        """It is called that, below what is compared. `has_more`: so may be anything beside it."""
        self._is_full = self._is_full or len(self._names) >= _MOST_UNREAD
        if not self._is_full:
            self._names.add(name)
            if has_more:
                self._folders.add(name.rpartition("/")[0])

    def may_have(self, parts: PathParts) -> bool:
        """Whether it may be there, although TREE does not show it."""
        above = [spell(parts[:depth]) for depth in range(len(parts))]
        names = {*above[1:], spell(parts)} if parts else set()
        return self._is_full or not self._names.isdisjoint(names) or not self._folders.isdisjoint(above)


class CheckingThere:
    """Whether the receiver has what is here."""

    kept = "nothing was changed"

    def __init__(
        self, reporter: Reporter, options: "argparse.Namespace", names: list[str], log: Path | None = None
    ) -> None:
        """`log`: our own, which is never sent. Raises UsageError."""
        from sft.disk.chosen import choose

        self._reporter, self._verdicts = reporter, Verdicts(reporter, options.quiet)
        self._chosen, opened = choose(options), Folders()
        self._logs = files_of_log(log)
        self._left = deque(
            _Named(Tree(str(Path(source)), options.follow, opened, self._chosen, options.links), place)
            for source, place in remote_paths(names[:-1], names[-1])
            if source != PIPE
        )
        self._theirs: BranchEntries | None = None  # of the folder that is compared
        self._pairs: Paired | None = None
        self._found: dict[PathParts, Found] = {}  # of the last names here
        self._unread = _Unread()
        self._glimpses = Glimpses(digests=True)
        self._last_id = 0  # of the questions in this connection

    def run(self, channel: "Channel") -> None:
        """Compare what is not compared yet. Raises ConnectionTrouble, ProtocolViolation, PeerStopped."""
        answers = (arrived[0] for arrived in channel.messages() if arrived is not None)
        self._last_id = 0
        while self._left:
            self._check(self._left[0], channel, answers)
            self._left.popleft()
        part(channel, answers)
        self._verdicts.end()

    def _check(self, named: _Named, channel: "Channel", answers: "Iterator[Message]") -> None:
        if self._theirs is None or self._pairs is None:
            walk = named.tree.walk()
            first = next(walk)
            if not isinstance(first, Found):
                self._report(first)
                return
            if not first.is_folder:
                self._glimpses.last_id = self._last_id
                self._compare_one(named, first, channel, answers)
                self._last_id = self._glimpses.last_id
                return
            self._unread = _Unread()
            self._theirs = BranchEntries(named.place, True, functools.partial(self._omitted, named.place))
            self._pairs = paired(self._ours(walk), self._theirs)
        self._theirs.connect(channel, answers, self._last_id)
        self._compare(named, self._theirs, self._pairs)
        self._last_id = self._theirs.last_id
        self._theirs = self._pairs = None

    def _ours(self, walk: Iterator[object]) -> Iterator[tuple[PathParts, Entry]]:
        for seen in walk:
            if isinstance(seen, Found) and not self._is_left_out(seen):
                self._found = {**dict(list(self._found.items())[-1:]), seen.parts: seen}
                yield seen.parts, _entry_of(seen)
                continue
            self._report(seen)
            if isinstance(seen, Found | Skipped | Excluded) and seen.parts:
                yield seen.parts, HIDDEN

    def _is_left_out(self, found: Found) -> bool:
        return LOCAL_PARTIAL_AREA in found.parts or self._is_log(found)

    def _is_log(self, found: Found) -> bool:
        return not found.is_folder and found.identity in self._logs

    def _report(self, seen: object) -> None:
        if isinstance(seen, Found):
            if self._is_log(seen):
                self._reporter.skipped(seen.path, "this program's own log", is_wanted=True)
        elif isinstance(seen, SourceError):
            self._reporter.failed(seen.name, seen)
        elif isinstance(seen, Skipped) and seen.is_source:
            problem = SourceError(f"{seen.path} is {seen.why}", "Only files and folders can be compared")
            self._reporter.failed(seen.path, problem)
        elif isinstance(seen, Skipped):
            self._reporter.skipped(seen.path, seen.why)

    def _omitted(self, place: PathParts, omitted: "Omitted") -> None:
        if omitted.code in SKIPPED:
            return
        report_omitted(self._reporter, omitted, "/".join((*place, omitted.name)))
        self._unread.add(omitted.name, bool(omitted.more))

    def _compare(self, named: _Named, theirs: BranchEntries, pairs: Paired) -> None:
        while True:
            try:
                for pair in pairs:
                    self._judge(named, pair)
                return
            except Refused as problem:
                self._take_refusal(named, problem)
                if problem.code is not Code.NOT_FOUND:
                    return
                theirs.end()  # all that is here is missing there

    def _take_refusal(self, named: _Named, problem: Refused) -> None:
        if problem.code in PASSING_CODES:
            raise PeerStopped(problem.code)
        path = show_path(named.place) or "your folder"
        if problem.code is Code.NOT_FOLDER:
            self._verdicts.differs(Difference.KIND, path, "folder")
        elif problem.code is not Code.NOT_FOUND:
            self._reporter.failed(path, not_given(problem, path, "list, or get"))

    def _compare_one(self, named: _Named, found: Found, channel: "Channel", answers: "Iterator[Message]") -> None:
        """A file or link that was named itself."""
        there = None
        try:
            there = self._glimpses.find(named.place, channel, answers)
        except Refused as problem:
            self._take_refusal(named, problem)
            if problem.code is not Code.NOT_FOUND:
                return
        self._found = {(): found}
        self._judge(named, Pair((), _entry_of(found), there))

    def _judge(self, named: _Named, pair: Pair) -> None:
        ours, theirs, parts = pair.sender, pair.receiver, pair.path
        path = show_path((*named.place, *parts))
        what = difference(ours, theirs, CONTENT_ALONE)
        if ours is None and theirs is not None:
            is_chosen = self._chosen.names is None
            if is_chosen and not self._chosen.exclusions.is_excluded(parts, theirs.kind == "folder"):
                self._verdicts.differs(what, path, theirs.kind)
            return
        if ours is None or (theirs is None and self._unread.may_have(parts)):
            return
        if what is Difference.NONE and ours.kind == "file" and theirs is not None:
            found, tree = self._found[parts], named.tree
            try:
                digest = digest_of(tree.open(found.path, found.parts), found.size, found.path)
            except SourceError as problem:
                self._reporter.failed(found.path, problem)
                return
            what = _by_digest(digest, theirs)
        if what is not Difference.NONE:
            self._verdicts.differs(what, path, ours.kind)
        elif ours.kind != "folder":
            self._verdicts.same()


class CheckingHere:
    """Whether what is here is what the receiver has: `--get --check`."""

    def __init__(
        self,
        verdicts: Verdicts,
        missing: "Missing",
        findings: "Findings",
        visible: "VisibleFiles | None",
        shown: Callable[[PathParts], str],
    ) -> None:
        """`findings`: with digests. `shown(path)`: how a person finds that path here."""
        self._verdicts, self._missing, self._findings = verdicts, missing, findings
        self._visible, self._shown = visible, shown

    def read(self, channel: "Channel") -> None:
        """Compare what is not compared yet. Raises ConnectionTrouble, ProtocolViolation, PeerStopped."""
        answers = (arrived[0] for arrived in channel.messages() if arrived is not None)
        try:
            for finding in self._findings.read(channel, answers):
                self._judge(finding)
        finally:
            self._findings.pause()
        part(channel, answers)

    def end(self) -> None:
        """The last line."""
        self._verdicts.end()

    def _judge(self, finding: "Finding") -> None:
        what, there, ours = finding.what, finding.there, finding.ours
        entry, path = there or ours, self._shown(finding.here)
        if what is Difference.NONE and there is not None and there.kind == "file" and self._visible is not None:
            try:
                source = FileSource(path, self._visible.open_file(finding.here))
                what = _by_digest(digest_of(source, there.size, path), there)
            except (Refused, SourceError) as problem:
                self._missing.fail(path, problem)
                return
        if what is not Difference.NONE:
            self._verdicts.differs(what, path, "file" if entry is None else entry.kind)
        elif there is not None and there.kind != "folder":
            self._verdicts.same()


def _entry_of(found: Found) -> Entry:
    if found.leads_to is not None:
        return link_entry(found.leads_to)
    return Entry("folder") if found.is_folder else Entry("file", found.size)


def _by_digest(digest: bytes, theirs: Entry) -> Difference:
    if theirs.sha256 is None:
        raise ProtocolViolation("a file without its digest")
    return Difference.NONE if digest == theirs.sha256 else Difference.CONTENT
