"""What a fetch with --delete removes here: noted while trees are compared, and removed once everything has arrived.

Rules: nothing is removed unless everything was compared and has arrived, nothing if it were more than may be, and
nothing while the receiver shows a folder as empty that is not empty here: a disk that is not mounted there looks the
same. What has the name of something that came, but for its spelling, stays with all that is in it: many disks know one
name for both. What is in a folder goes before it, and each thing by itself. A folder that something was removed from
gets its time at the receiver.
"""

import contextlib
from collections.abc import Callable

from sft.client.comparing import Difference, Entry, Way, way_for
from sft.client.findings import Finding, Findings
from sft.client.local_tree import LocalChanges
from sft.client.making_way import MakingWay
from sft.common.errors import Code, Refused, TransferError
from sft.common.names import PathParts, spelling_of
from sft.common.sizes import counted
from sft.console.reporter import Reporter


class Extras:
    """What only this end has."""

    def __init__(
        self,
        reporter: Reporter,
        findings: Findings,
        shown: Callable[[PathParts], str],
        removes: bool,
        most: int,
        is_update: bool = True,
        is_ours: Callable[[PathParts], bool] = lambda here: False,
    ) -> None:
        """`shown(path)`: how a person finds that path here. `removes`: whether it is removed, and `most`: how much.

        `is_update`: what is of another kind here makes way for what comes, but for what was named itself.
        `is_ours(path)`: that is a log or the receipts of this program, and stays.
        """
        self._reporter, self._findings, self._shown = reporter, findings, shown
        self._removes, self._most, self._makes_way = removes, most, is_update
        self._is_ours = is_ours
        self.way: MakingWay[Finding] = MakingWay(removes, "here", shown)
        findings.stays = self._stays
        self._noted: dict[PathParts, Entry] = {}
        self._count = 0
        self._new: set[int] = set()  # what was not here under its name, as a disk may spell it
        self._folders: dict[PathParts, int] = {}  # that something is removed from, with their times

    def note(self, finding: Finding) -> bool:
        """One finding: what only this end has may be removed, and what only the receiver has protects its name.

        Whether it waits: what is of another kind here is removed first, and what is in that, too.
        """
        what, there, ours, here = finding.what, finding.there, finding.ours, finding.here
        if what is Difference.NEW and self._removes:
            self._new.add(spelling_of(here))
        if ours is None or what not in (Difference.EXTRA, Difference.KIND):
            return False
        if there is None:
            self.way.holds(here)
            if (self._removes or self.way.paths) and ours.kind == "file" and self._is_ours(here):
                self._stays(here)
                return False
        elif self._makes_way and finding.below and way_for(there, ours, self._removes) in (Way.AFTER, Way.WITH_ALL):
            self.way.paths[here], self.way.waiting[finding] = ours, here
            if ours.kind == "file" and self._is_ours(here):
                self.way.stuck(here, self._kept_by_us(here))
                return True
        else:
            return False
        if self._removes:
            self._count += 1
            if self._count <= self._most:
                self._noted[here] = ours
                if finding.folder is not None and finding.folder[1] is not None:
                    self._folders[finding.folder[0]] = finding.folder[1]
        return there is not None

    def _kept_by_us(self, here: PathParts) -> Refused:
        shown = self._shown(here)
        words = (f"{shown} is a log or the receipts of this program, and stays", "Write that to another place")
        return Refused(Code.EXISTS, shown, "", words)

    def _stays(self, here: PathParts) -> None:
        """Only this end has that, and keeps it: so it keeps the folders that it is in."""
        self.way.holds(here, stays=True)
        for depth in range(1, len(here)):
            if self._noted.pop(here[:depth], None) is not None:
                self._count -= 1

    def remove(self, changes: LocalChanges) -> None:
        """Remove it, if that may be. Nothing waits for anything from then on."""
        going = self._noted if self._may_remove() else self.way.going(self._reporter, self._most)
        for here, was in reversed(going.items()):
            try:
                if changes.remove(here, was):
                    self._reporter.removed(self._shown(here), 1)
                if changes.is_free(here):
                    self.way.gone(here)
            except Refused as problem:
                self._not_removed(here, problem)
        self._makes_way = False
        for folder, mtime in self._folders.items() if going is self._noted else ():
            with contextlib.suppress(Refused):  # it is a time, and all else is done
                changes.set(folder, mtime, None)

    def _not_removed(self, here: PathParts, problem: Refused) -> None:
        shown = self._shown(here)
        cause = "it has changed since it was compared" if problem.code is Code.CHANGED else problem.cause
        words = (f"{shown} was not removed: {cause}", "Run the same command again")
        told = Refused(problem.code, shown, "", words)
        if not self.way.stuck(here, told):
            self._reporter.failed(shown, told)

    def tell(self, tell: Callable[[PathParts, str], None]) -> None:
        """Call `tell` with path and kind of each thing that would be removed, if that may be."""
        may_remove = self._may_remove()
        going = self._noted if may_remove else self.way.going(self._reporter, self._most)
        for here, was in reversed(going.items()):
            if may_remove:
                tell(here, was.kind)
            self.way.gone(here)
        self._makes_way = False

    def _spare(self) -> None:
        """Forget what may be the same file or folder as one that came, and what is in such a folder."""
        if self._count <= self._most:  # else not all is noted, and nothing is removed
            self._noted = {here: was for here, was in self._noted.items() if not self._is_protected(here)}
            self._count = len(self._noted)

    def _is_protected(self, here: PathParts) -> bool:
        return any(spelling_of(here[:size]) in self._new for size in range(1, len(here) + 1))

    def _may_remove(self) -> bool:
        self.way.is_forbidden = not self._decide()
        return not self.way.is_forbidden

    def _decide(self) -> bool:
        """Whether anything may be removed; says why not."""
        if not self._removes:
            return False
        self._spare()
        if self._findings.is_blind:
            words = ("your account may not list what is on the receiver", "Ask its owner for the right list")
            self._reporter.failed("--delete", Refused(Code.DENIED, "", "nothing was removed", words))
            return False
        if not self._count:
            return False
        would = f"{counted(self._count, 'name')} here would be removed"
        if self._reporter.failed_count:
            self._reporter.note(f"nothing was removed, because not everything was fetched ({would})")
            return False
        if not self._findings.is_certain:
            cause = f"nothing was removed: the receiver has not told all names that it leaves out ({would})"
            remedy = "Remove by hand what is not needed"
        elif self._findings.empty:
            shown = self._shown(self._findings.empty[0])
            cause = f"nothing was removed: on the receiver, what {shown} comes from is empty ({would})"
            remedy = "Check its disk, or remove the content by hand"
        elif self._count > self._most:
            cause = f"nothing was removed: {would}"
            remedy = f"--max-delete allows {self._most:,}: look with --dry-run, or allow more"
        else:
            return True
        self._reporter.failed("--delete", TransferError(cause, remedy))
        return False
