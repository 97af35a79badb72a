"""The root folder of a storage, with the folders of all users.

    received/                 the root
        .partial/alice/…      alice's staging area: temporary files, receipts, ledger (`sft/disk/staging.py`)
        alice/inbox/out.txt   what alice sent (`sft/disk/user_folder.py`)

Rules: users' folders are reached from descriptor to descriptor, never through a link. A root that is dead (mounted
anew, put back from a backup) is opened again; connections keep what they have. No socket, no key and no account is
known here: only the name of a folder.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sft.common.errors import Code, Refused, UsageError
from sft.common.open_files import close
from sft.disk.amounts import NO_QUOTA, Amount, Quota
from sft.disk.coherence_trial import why_incoherent
from sft.disk.durable import disk_errors
from sft.disk.file_systems import may_be_shared
from sft.disk.folders import open_folder
from sft.disk.ledger import invalidate
from sft.disk.listing_rate import ListingRate
from sft.disk.permissions import folder_bits
from sft.disk.quota import NOT_TEMPORARY, Ledgers
from sft.disk.receipts import ReceiptIndex, Receipts
from sft.disk.removals import Removals
from sft.disk.root import Root
from sft.disk.staging import HAS_LOCKS, StagingArea
from sft.disk.user_folder import Rules, UserFolder
from sft.disk.visible_files import VisibleFiles

_MOST_INDEXES = 8  # users whose receipts were read; 4 MB each at most


class Storage:
    """The root folder. One for the process; every method may be called from several threads."""

    def __init__(self, root: Path, rules: Rules) -> None:
        """Make the folder when it is missing. Raises UsageError when it can't be used."""
        self.path, self.rules, self.umask = root, rules, umask_of_process()
        self._receipts: dict[str, ReceiptIndex] = {}
        self._listing_rates: dict[str, ListingRate] = {}
        self._removals: dict[str, Removals] = {}
        self._lock = threading.Lock()
        self._reopening = threading.Lock()
        self._why_no_quotas = ""
        self._root = Root(root)
        self.ledgers = Ledgers(self._root.descriptor, self._root.staging)

    def sweep(self) -> int:
        """Remove temporary files without an owner, except partial files that are not stale; how many there were.

        Raises OSError when some could not be looked at, after all the others were.
        """
        removed, problem = 0, None
        try:
            self.ledgers.sweep()
        except OSError as found:
            problem = found
        for user in os.listdir(self._root.staging):
            with contextlib.ExitStack() as opened:
                try:
                    folder = open_folder(self._root.staging, user)
                    opened.callback(close, folder)
                    removed += StagingArea(folder).sweep(self.rules.stale, NOT_TEMPORARY)
                except (Refused, PermissionError):  # of another owner, or no folder: not ours
                    continue
                except OSError as found:
                    problem = found
        if problem is not None:
            raise problem
        return removed

    def kept(self, name: str) -> Amount:
        """What is kept of one user's interrupted transfers, without those that go on now. Raises Refused."""
        with self._staging_of(name) as area:
            sizes = [] if area is None else list(area.sizes_of_ownerless(NOT_TEMPORARY))
            return Amount(sum(sizes), len(sizes))

    def drop_kept(self, name: str) -> int:
        """Remove what `kept` counts; how many files it was. Raises Refused."""
        with self._staging_of(name) as area:
            return 0 if area is None else area.sweep(0, NOT_TEMPORARY)

    @contextlib.contextmanager
    def _staging_of(self, name: str) -> Iterator[StagingArea | None]:
        """One user's staging area; None when there is none."""
        with disk_errors(), contextlib.ExitStack() as opened:
            try:
                folder = open_folder(self._root.staging, name)
            except Refused as problem:
                if problem.code is not Code.NOT_FOUND:
                    raise
                yield None
                return
            opened.callback(close, folder)
            yield StagingArea(folder)

    def try_out(self) -> None:
        """Write, flush and link a file, as one that arrives. Raises Refused when nothing can arrive."""
        ledgers = self.ledgers
        if self._root.has_moved():
            self._is_reopened(ledgers)
        try:
            with disk_errors():
                self._root.try_out()
        except Refused:
            if not self._is_reopened(ledgers):
                raise

    def try_sharing(self) -> tuple[bool, str]:
        """Whether other machines may use the file system; and why no quota can be kept on it, empty when one can.

        From then on accounts with a quota are refused there. For the start, while there are no threads. Raises OSError.
        """
        self._why_no_quotas = why_incoherent(self._root.staging)
        return may_be_shared(self._root.staging), self._why_no_quotas

    def free(self) -> int:
        """Free bytes on the disk. Raises OSError."""
        state = os.fstatvfs(self._root.descriptor)
        return state.f_bavail * state.f_frsize

    def user(
        self,
        name: str,
        private: bool = False,
        quota: Quota = NO_QUOTA,
        largest: int | None = None,
        counts: bool = False,
        account: str = "",
    ) -> UserFolder:
        """The folder of one user, made when missing; close it afterwards. Raises Refused.

        `largest`: bytes that a file of this user may have, if fewer than for everybody. `counts`: what is there is
        counted, though there is no quota, because somebody else who uses the folder has one. `account`: who sends.
        """
        ledgers = self.ledgers
        most = self.rules.max_file_size if largest is None else min(largest, self.rules.max_file_size)
        rules = replace(self.rules, private=private, account=account, max_file_size=most, quota=quota)
        if self._root.has_moved():  # 14 us; nobody would find what arrives where it is now
            self._is_reopened(ledgers)
        try:
            return self._user(name, rules, counts)
        except Refused:
            if not self._is_reopened(ledgers):
                raise
        return self._user(name, rules, counts)

    def _is_reopened(self, ledgers: Ledgers) -> bool:
        """Whether the root was dead when `ledgers` were in use, and is open again. Raises Refused (UNAVAILABLE)."""
        with self._reopening:
            if self.ledgers is ledgers:  # else another thread was faster
                if not self._root.reopen_if_dead():
                    return False
                self.ledgers = Ledgers(self._root.descriptor, self._root.staging)
                ledgers.close()  # its open files lie below the dead root
            return True

    def _user(self, name: str, rules: Rules, counts: bool) -> UserFolder:
        with disk_errors(), contextlib.ExitStack() as opened:
            visible = VisibleFiles(open_folder(self._root.descriptor, name, create=folder_bits(None)))
            opened.callback(close, visible.descriptor)
            staging = open_folder(self._root.staging, name, create=0o700)
            opened.callback(close, staging)
            ledger = None
            if rules.quota == NO_QUOTA and not counts:
                invalidate(staging)
            elif self._why_no_quotas:
                raise Refused(Code.STORAGE, why=f"no quota can be kept there: {self._why_no_quotas}")
            else:
                ledgers = self.ledgers
                ledger = ledgers.enter(name)
                opened.callback(ledgers.leave, name)
            kept = contextlib.ExitStack()
            made = UserFolder(
                rules,
                self.umask,
                visible,
                StagingArea(staging, visible),
                opened=kept,
                above=[self._root.descriptor],
                ledger=ledger,
                receipts=Receipts(staging, self._receipts_of(name)),
                listing_rate=self._listing_rates.setdefault(name, ListingRate()),
                removals=self._removals.setdefault(name, Removals()),
            )
            kept.callback(opened.pop_all().close)
            return made

    def _receipts_of(self, name: str) -> ReceiptIndex:
        """Where that user's receipts are: remembered for the last few users, so that few connections read them all."""
        with self._lock:
            index = self._receipts.pop(name) if name in self._receipts else ReceiptIndex()
            self._receipts[name] = index
            if len(self._receipts) > _MOST_INDEXES:
                del self._receipts[next(iter(self._receipts))]
            return index

    def close(self) -> None:
        """Give back the descriptors."""
        self.ledgers.close()
        self._root.close()


def umask_of_process() -> int:
    """The umask. Raises UsageError where nothing can be received."""
    if not HAS_LOCKS:
        raise UsageError("this system can't receive files safely", "Receive them on Linux or macOS")
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
