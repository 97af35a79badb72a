"""All that one user can reach: what is visible below their folder, and the files and folders that they send.

Rules: a path is judged before anything is done with it. What a taken name means is decided in `sft/disk/decisions.py`;
before the content comes for large files, whose digests are compared then, and when they are published for small ones,
whose content is here before an answer could be. What was delivered before, and its receipt lost, is known by its digest
and never by its size alone. No socket, no key and no account is known here.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from sft.common.errors import Code, Refused
from sft.common.names import are_plain_paths, judge_path
from sft.common.open_files import few_left_from
from sft.common.values import replace
from sft.disk.amounts import NO_QUOTA, Quota
from sft.disk.anonymous import AnonymousFile, AnonymousFiles
from sft.disk.changes import Changes
from sft.disk.decisions import Action, Existing, Policy, decide, may_need_no_space
from sft.disk.durable import FileSystem, disk_errors
from sft.disk.folders import ExistingFile, FolderFlush, PathParts, existing_of, state_of
from sft.disk.grown import OldFile
from sft.disk.ledger import Ledger
from sft.disk.links import Link
from sft.disk.listing_rate import ListingRate
from sft.disk.new_folders import MadeFolder, NewFolders
from sft.disk.offers import Offered, Offers
from sft.disk.partials import PartialFile, begin_partial
from sft.disk.publish import GroupFlush, Publisher
from sft.disk.quota import Allowance
from sft.disk.receipts import Receipts
from sft.disk.removals import Removals
from sft.disk.small_files import SmallFiles
from sft.disk.staging import StagingArea
from sft.disk.temporary import DeliveredBefore, Incoming, Outcome, Settled, TemporaryFile, Unpublished, Whole
from sft.disk.visible_files import VisibleFiles


@dataclass(frozen=True, slots=True)
class Rules:
    """What a folder allows. `private`: its sender, `account`, may learn nothing of what lies there, and what is kept of
    its files no other account finds.

    `free_space`: bytes that stay free on the disk; `stale`: seconds after which a kept partial file is removed.
    """

    portable_names: bool = False
    file_mode: int | None = None
    max_file_size: int = (1 << 63) - 1
    private: bool = False
    account: str = ""
    free_space: int = 0
    stale: float = 7 * 24 * 3600
    quota: Quota = NO_QUOTA


class UserFolder:
    """One user's folder, for one connection; not for several threads at once."""

    def __init__(
        self,
        rules: Rules,
        umask: int,
        visible: VisibleFiles,
        area: StagingArea,
        opened: contextlib.ExitStack,
        above: Sequence[int] = (),
        ledger: Ledger | None = None,
        receipts: Receipts | None = None,
        listing_rate: ListingRate | None = None,
        removals: Removals | None = None,
    ) -> None:
        """`above`: open folders over it, which are flushed with it. `receipts` None: no receipt is ever repeated.

        `opened` is closed with it.
        """
        self._rules, self._opened, self._receipts = rules, opened, receipts
        self.visible, self.area = visible, area
        self.listing_rate = listing_rate or ListingRate()
        self.anonymous = AnonymousFiles(area)
        self.allowance = Allowance(visible, rules.free_space, rules.quota, ledger)
        self.flush = FolderFlush(visible.descriptor, above, FileSystem(area.folder))
        self.new_folders = NewFolders(visible, self.allowance, receipts)
        self._offers = Offers(rules.portable_names, visible, self.flush)
        self.publisher = Publisher(
            visible,
            area.folder,
            self.new_folders,
            self.flush,
            self.allowance,
            receipts,
            rules.private,
            rules.file_mode,
            umask,
        )
        self._small_files = SmallFiles(area, self.allowance, self.publisher)
        self.changes = Changes(
            visible,
            area,
            self.new_folders,
            self.flush,
            self.allowance,
            rules.portable_names,
            rules.file_mode,
            umask,
            self.listing_rate,
            removals or Removals(),
        )

    @property
    def quota(self) -> Quota:
        """What the account may use."""
        return self._rules.quota

    def close(self) -> None:
        """Give back the descriptors, and what was reserved and not used."""
        self.allowance.close()
        self._opened.close()

    # --- beginning a file ---

    def begin(self, incoming: Incoming, resumable: bool) -> TemporaryFile | Settled | ExistingFile | DeliveredBefore:
        """Judge an announced file. Raises Refused.

        Settled: its content is not needed. ExistingFile: a file of that size is there. DeliveredBefore: this transfer
        has delivered one of that size. Compare digests, then call `begin_anyway` if they differ.
        """
        rules = self._rules
        incoming = self._judged(incoming)
        if resumable:
            (before,) = self.publisher.delivered_before([(incoming, incoming.size, None)])
            if before is not None:
                return DeliveredBefore(before)
        is_small = not resumable and incoming.size is not None
        if is_small or (rules.private and incoming.policy != Policy.REPLACE):
            return self._begin(incoming, resumable)
        existing = self._existing(incoming)
        action = self._decide(incoming, existing)
        if action is Action.COMPARE:
            if (there := self._open_existing(incoming)) is not None:
                return there
            action = self._decide(incoming, Existing.OTHER)
        if action is Action.SKIP:
            return Settled(incoming.path, skipped=True)
        file = self._begin(incoming, resumable)
        if action is Action.REPLACE and isinstance(file, PartialFile):
            self._offer_old(file)
        return file

    def _offer_old(self, file: PartialFile) -> None:
        """Where nothing was kept of it, it may have grown from the file that it replaces."""
        if not file.offers and (old := OldFile.of(self.visible, file.incoming.path, file.incoming.size)) is not None:
            file.old, file.offers = old, [old.size]

    def begin_anyway(self, incoming: Incoming, resumable: bool) -> TemporaryFile:
        """What was compared is another file: go on by the sender's policy. Raises Refused."""
        incoming = self._judged(incoming)
        self._decide(incoming, Existing.OTHER)
        file = self._begin(incoming, resumable)
        file.is_different = True
        return file

    def _judged(self, incoming: Incoming) -> Incoming:
        """It, with the policy that its folder lets it have. Raises Refused."""
        rules = self._rules
        judge_path(incoming.path, rules.portable_names)
        if (incoming.size or 0) > rules.max_file_size:
            raise Refused(Code.TOO_LARGE)
        if rules.private and incoming.policy != Policy.REPLACE:
            incoming = replace(incoming, policy=Policy.RENAME)
        return incoming

    def _existing(self, incoming: Incoming) -> Existing:
        return existing_of(self.visible.state_of_path(incoming.path), incoming.size)

    def _existing_for(self, link: Link) -> Existing:
        path = link.incoming.path
        try:
            with self.visible.folder(path[:-1]) as folder:
                return link.existing(state_of(path[-1], folder), path[-1], folder)
        except Refused as problem:
            if problem.code is Code.NOT_FOUND:
                return Existing.NOTHING
            raise

    def _decide(self, incoming: Incoming, existing: Existing) -> Action:
        action = decide(incoming.policy, existing, self._rules.private, incoming.may_replace)
        if isinstance(action, Code):
            raise Refused(action)
        return action

    def _open_existing(self, incoming: Incoming) -> ExistingFile | None:
        """The file to compare with; None when it can't be read, such as one of another owner."""
        with contextlib.suppress(Refused):
            above = incoming.path[:-1]
            if failed := self.flush.flush({above}):  # a receipt for "already there" promises that it is on the disk
                raise failed[above]
            return ExistingFile(self.visible.open_file(incoming.path), incoming.size or 0)
        return None

    def _begin(self, incoming: Incoming, resumable: bool) -> TemporaryFile:
        if resumable:
            return self.allowance.try_twice(lambda: self._begin_partial(incoming))
        return self._begin_anonymous(incoming)

    def _begin_anonymous(self, incoming: Incoming) -> AnonymousFile:
        file = self.anonymous.begin(incoming, self._rules.max_file_size)
        if self.allowance.is_limited:
            with disk_errors():
                self._reserve_anonymous(file)
        return file

    def _begin_partial(self, incoming: Incoming) -> TemporaryFile:
        with disk_errors(), self.allowance.moving():
            kept_for = self._rules.account if self._rules.private else ""
            file = begin_partial(self.area, incoming, self.allowance.reservation(), kept_for)
            self._reserve(file)
        return file

    def _reserve_anonymous(self, file: TemporaryFile) -> None:
        """Without quota a small file is taken all the same if it may turn out to be there already."""

        def reserve() -> None:
            file.reservation = self.allowance.reservation()
            self._reserve(file)

        try:
            self.allowance.try_twice(reserve)
        except Refused as problem:
            incoming, rules = file.incoming, self._rules
            if problem.code is not Code.QUOTA or incoming.size is None or rules.private:
                raise
            if not may_need_no_space(decide(incoming.policy, self._existing(incoming), False, incoming.may_replace)):
                raise
            file.refusal = problem

    def _reserve(self, file: TemporaryFile) -> None:
        """Raises Refused, OSError; what was reserved is given back then, and kept bytes stay."""
        try:
            self.allowance.reserve(file)
        except BaseException:
            file.keep()
            raise

    def begin_link(self, incoming: Incoming, target: str) -> Link:
        """A symbolic link with that target, to be published like a file. Raises Refused."""
        link = Link(self.area, replace(self._judged(incoming), size=0), target)
        if self.allowance.is_limited:
            with disk_errors():
                self._reserve_link(link)
        return link

    def _reserve_link(self, link: Link) -> None:
        """Without quota one is taken all the same if it may turn out to be there already."""
        incoming, rules = link.incoming, self._rules
        try:
            (link.reservation,) = self.allowance.try_twice(lambda: self.allowance.reserve_together([incoming]))
        except Refused as problem:
            if problem.code is not Code.QUOTA or rules.private:
                raise
            if not may_need_no_space(decide(incoming.policy, self._existing_for(link), False, incoming.may_replace)):
                raise
            link.refusal = problem

    # --- small files that are here as a whole ---

    def take(self, files: Sequence[Whole]) -> list[Unpublished | Outcome]:
        """Store the first of some files, at least one, to be published; for each its file, or what became of it.

        It stops behind a file that got one of the last descriptors: publish, then come with the others. What it raises
        leaves nothing of them.
        """
        judged = self._all_judged([whole.incoming for whole in files])
        before = self.publisher.delivered_before(
            [
                (whole.incoming if isinstance(each, Refused) else each, len(whole.content), whole.sha256)
                for each, whole in zip(judged, files, strict=True)
            ]
        )
        taken: list[Unpublished | Outcome | None] = [
            each if isinstance(each, Refused) else settled for each, settled in zip(judged, before, strict=True)
        ]
        left = [
            (incoming, whole)
            for incoming, whole, settled in zip(judged, files, taken, strict=True)
            if settled is None and not isinstance(incoming, Refused)
        ]
        stored = iter(self._stored(left) if left else ())
        outcomes: list[Unpublished | Outcome] = []
        for settled in taken:
            if settled is None and (settled := next(stored, None)) is None:
                break
            outcomes.append(settled)
        return outcomes

    def _all_judged(self, incomings: list[Incoming]) -> list[Incoming | Refused]:
        """Each with the policy that its folder lets it have, or why it may not come."""
        rules = self._rules
        is_plain = are_plain_paths([each.path for each in incomings]) and not (rules.portable_names or rules.private)
        if is_plain and max([each.size or 0 for each in incomings]) <= rules.max_file_size:
            return [*incomings]
        return [self._judged_or_refused(each) for each in incomings]

    def _judged_or_refused(self, incoming: Incoming) -> Incoming | Refused:
        try:
            return self._judged(incoming)
        except Refused as problem:
            return problem

    def _stored(self, files: list[tuple[Incoming, Whole]]) -> Sequence[Unpublished | Refused]:
        """The first of them, to be published; of those that are refused nothing is left."""
        reserved = self._small_files.reserve([incoming for incoming, _ in files])
        if reserved is not None:
            return self._small_files.store(files, reserved)
        few_left = few_left_from()
        stored: list[Unpublished | Refused] = []
        with contextlib.ExitStack() as undo:
            for incoming, whole in files:
                try:
                    file = self._begin_anonymous(incoming)
                except Refused as problem:
                    stored.append(problem)
                    continue
                undo.callback(file.discard)
                try:
                    file.write(whole.content)
                except Refused as problem:
                    file.discard()
                    stored.append(problem)
                    continue
                file.sha256 = whole.sha256
                stored.append(file)
                if file.descriptor >= few_left:
                    break
            undo.pop_all()
        return stored

    def have(self, offered: Sequence[Offered]) -> list[Outcome | None]:
        """For each file that is offered: what becomes of it without its content; None when the content is wanted."""
        return [None] * len(offered) if self._rules.private else self._offers.judge(offered)

    # --- publishing ---

    def publish(self, group: Sequence[Unpublished]) -> list[Outcome]:
        """Make a group of whole files visible and durable; for each what became of it."""
        return self.publisher.publish(group)

    def start_publishing(self, group: Sequence[Unpublished]) -> GroupFlush:
        """Begin with the group's first files, whose bytes are flushed in the background."""
        return self.publisher.start(group)

    def finish_publishing(self, group: GroupFlush) -> list[Outcome]:
        """Make the flushed files of a group visible and durable; for each what became of it."""
        return self.publisher.finish(group)

    # --- folders ---

    def begin_folder(self, incoming: Incoming) -> MadeFolder:
        """Make a folder, unless it is there, to be published with a group. Raises Refused.

        Its time is set by `finish_folders`. What is there gives way to one that may replace, as far as permission bits
        forbid it.
        """
        return self.new_folders.begin(incoming, self._rules.portable_names)

    def finish_folders(self) -> list[PathParts]:
        """Set the times of the folders that were announced. Returns those whose time the disk can't hold."""
        return self.new_folders.finish()
