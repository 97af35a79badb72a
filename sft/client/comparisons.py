"""How a fetch is compared with what is here, as the options have it: to fetch a part of it, or only to tell.

Rules: what the options can't mean is an error before anything is opened. Only looking makes nothing here. With
--exclude each file is asked for by itself: what is excluded never travels.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sft.client.comparing import Criteria
from sft.client.extras import Extras
from sft.client.finishing import most_removed
from sft.client.local_tree import LocalChanges
from sft.client.own_logs import files_of_log, identity_of_file
from sft.client.plan import Plan
from sft.client.refusals import refused_here
from sft.common.errors import Refused
from sft.common.names import PathParts
from sft.console.reporter import Reporter
from sft.disk.chosen import read_exclusions
from sft.disk.sources import PERMISSIONS

if TYPE_CHECKING:
    import argparse

    from sft.client.checking import CheckingHere
    from sft.client.download import Download
    from sft.client.findings import Findings
    from sft.disk.user_folder import UserFolder
    from sft.disk.visible_files import VisibleFiles


class Comparisons:
    """What the options of one command say about it."""

    def __init__(self, reporter: Reporter, options: "argparse.Namespace", log: Path | None) -> None:
        """Raises UsageError."""
        self._reporter, self._options, self._log = reporter, options, log
        self._exclusions = read_exclusions(options.exclude_from, options.exclude)
        self._most_removed = most_removed(options.max_delete)

    @property
    def are_needed(self) -> bool:
        """Whether what is fetched comes of a comparison."""
        return bool(self._options.update or self._exclusions)

    def begin(self, download: "Download", folder: "UserFolder") -> None:
        """Have what differs from what is in `folder` fetched; without --update all that is not excluded."""
        criteria, in_whole = self._criteria(folder.area.keeps_modes), not self._exclusions
        findings = download.findings(folder.visible, criteria, in_whole, self._exclusions)
        extras = self._extras(download, findings, folder.visible)
        changes = LocalChanges(folder, self._own_files())
        download.follow(findings, criteria, changes, extras, not self._options.update)

    @contextlib.contextmanager
    def planned(self, download: "Download") -> "Iterator[Plan | CheckingHere]":
        """What the command would do, or check, to be read from the receiver. Raises Refused."""
        from sft.disk.local import look_at_local

        base, shown, is_update = download.to.base, download.to.shown, self._options.update
        try:
            with look_at_local(base, download.to.may_make_base) as visible:
                if self._options.check:
                    yield self._checking(download, visible)
                    return
                criteria = self._criteria() if is_update else Criteria()
                findings = download.findings(visible, criteria, False, self._exclusions)
                extras = self._extras(download, findings, visible)
                yield Plan(self._reporter, download.missing, findings, shown, download.policy, is_update, extras)
        except Refused as problem:
            raise refused_here(problem, f"the folder {base}") from None

    def _own_files(self) -> set[tuple[int, int]]:
        """Device and inode of each file that stays here, whatever the receiver has."""
        receipts = self._options.receipts  # a dry run does not open it
        kept = None if receipts is None else identity_of_file(Path(receipts))
        return files_of_log(self._log) | ({kept} if kept is not None else set())

    def _extras(self, download: "Download", findings: "Findings", visible: "VisibleFiles | None") -> Extras:
        options, shown, own = self._options, download.to.shown, self._own_files()

        def is_ours(here: PathParts) -> bool:
            with contextlib.suppress(Refused):
                state = None if visible is None else visible.state_of_path(here)
                return state is not None and (state.st_dev, state.st_ino) in own
            return False

        most = self._most_removed
        return Extras(self._reporter, findings, shown, options.delete, most, options.update, is_ours)

    def _checking(self, download: "Download", visible: "VisibleFiles | None") -> "CheckingHere":
        from sft.client.checking import CONTENT_ALONE, CheckingHere, Verdicts

        findings = download.findings(visible, CONTENT_ALONE, False, self._exclusions, digests=True)
        verdicts = Verdicts(self._reporter, self._options.quiet)
        return CheckingHere(verdicts, download.missing, findings, visible, download.to.shown)

    def _criteria(self, keeps_modes: bool = True) -> Criteria:
        """`keeps_modes`: whether the disk here does; modes that can't be set are not compared."""
        from sft.disk.storage import umask_of_process

        compares = keeps_modes and not self._options.no_modes
        return Criteria(modes=PERMISSIONS & ~umask_of_process() if compares else 0)
