"""What a fetch with --delete removes here: noted while trees are compared, and removed once everything has arrived.

Rules: nothing is removed unless everything was compared and has arrived, nothing if it were more than may be, and
nothing while the receiver shows a folder as empty that is not empty here: a disk that is not mounted there looks the
same. What has the name of something that came, but for its spelling, stays with all that is in it: many disks know one
name for both. What is in a folder goes before it, and each thing by itself. A folder that something was removed from
gets its time at the receiver.
"""

import contextlib
from collections.abc import Callable

from sft.client.comparing import Difference, Entry
from sft.client.findings import Finding, Findings
from sft.client.local_tree import LocalChanges
from sft.common.errors import Code, Refused, TransferError
from sft.common.names import PathParts, spelling_of
from sft.common.sizes import counted
from sft.console.reporter import Reporter


class Extras:
    """What only this end has."""

    def __init__(
        self, reporter: Reporter, findings: Findings, shown: Callable[[PathParts], str], removes: bool, most: int
    ) -> None:
        """`shown(path)`: how a person finds that path here. `removes`: whether it is removed, and `most`: how much."""
        self._reporter, self._findings, self._shown = reporter, findings, shown
        self._removes, self._most = removes, most
        self._noted: list[tuple[PathParts, Entry]] = []
        self._count = 0
        self._new: set[int] = set()  # what was not here under its name, as a disk may spell it
        self._folders: dict[PathParts, int] = {}  # that something is removed from, with their times

    def note(self, finding: Finding) -> None:
        """One finding: what only this end has may be removed, and what only the receiver has protects its name."""
        if not self._removes:
            return
        if finding.what is Difference.NEW:
            self._new.add(spelling_of(finding.here))
        if finding.what is not Difference.EXTRA or finding.ours is None:
            return
        self._count += 1
        if self._count <= self._most:
            self._noted.append((finding.here, finding.ours))
            if finding.folder is not None and finding.folder[1] is not None:
                self._folders[finding.folder[0]] = finding.folder[1]

    def remove(self, changes: LocalChanges) -> None:
        """Remove it, if that may be."""
        if not self._may_remove():
            return
        for here, was in reversed(self._noted):
            shown = self._shown(here)
            try:
                if changes.remove(here, was):
                    self._reporter.removed(shown, 1)
            except Refused as problem:
                cause = "it has changed since it was compared" if problem.code is Code.CHANGED else problem.cause
                words = (f"{shown} was not removed: {cause}", "Run the same command again")
                self._reporter.failed(shown, Refused(problem.code, shown, "", words))
        for folder, mtime in self._folders.items():
            with contextlib.suppress(Refused):  # it is a time, and all else is done
                changes.set(folder, mtime, None)

    def tell(self, tell: Callable[[PathParts, str], None]) -> None:
        """Call `tell` with path and kind of each thing that would be removed, if that may be."""
        if self._may_remove():
            for here, was in reversed(self._noted):
                tell(here, was.kind)

    def _spare(self) -> None:
        """Forget what may be the same file or folder as one that came, and what is in such a folder."""
        if self._count <= self._most:  # else not all is noted, and nothing is removed
            self._noted = [(here, was) for here, was in self._noted if not self._is_protected(here)]
            self._count = len(self._noted)

    def _is_protected(self, here: PathParts) -> bool:
        return any(spelling_of(here[:size]) in self._new for size in range(1, len(here) + 1))

    def _may_remove(self) -> bool:
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
