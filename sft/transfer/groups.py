"""Complete files, published in groups: while the bytes of one group are flushed, the next one fills.

    add --> the group that fills --> its bytes flushed in the background --> made visible: outcomes

Rules: what is published is given back with its outcome, and is answered before the next group is waited for. A group is
forgotten only once its outcomes are known, so that whatever goes wrong, its files still end with the connection. Only
the thread that receives uses this, and it takes everything that an iterator of outcomes gives.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from sft.common.errors import Refused
from sft.disk.folders import ExistingFile, PathParts
from sft.disk.offers import Offered
from sft.disk.publish import GroupFlush
from sft.disk.temporary import DeliveredBefore, Incoming, Outcome, Settled, TemporaryFile, Unpublished, Whole
from sft.transfer.arriving import Arriving
from sft.transfer.arriving_batch import ArrivingBatch

# Implementation constants.
_GROUP_FILES = 512
_GROUP_BYTES = 8 << 20
_GROUP_MEMORY = 512 << 10  # of what was announced; reached only by paths near their limits

Begun = TemporaryFile | Settled | ExistingFile | DeliveredBefore
Owner = Arriving | ArrivingBatch
Group = list[tuple[Owner, int, Unpublished]]  # with the place of the file in its batch
Published = list[tuple[Owner, int, Unpublished, Outcome]]


class Folder(Protocol):
    """Where files arrive; `sft.disk.user_folder.UserFolder` is one."""

    def begin(self, incoming: Incoming, resumable: bool) -> Begun: ...
    def begin_anyway(self, incoming: Incoming, resumable: bool) -> TemporaryFile: ...
    def begin_link(self, incoming: Incoming, target: str) -> Unpublished: ...
    def take(self, files: Sequence[Whole]) -> list[Unpublished | Outcome]: ...  # of the first files
    def have(self, offered: Sequence[Offered]) -> list[Outcome | None]: ...  # None: the content is wanted
    def publish(self, group: Sequence[Unpublished]) -> list[Outcome]: ...
    def start_publishing(self, group: Sequence[Unpublished]) -> GroupFlush | None: ...  # None: nothing to flush
    def finish_publishing(self, group: GroupFlush) -> list[Outcome]: ...
    def begin_folder(self, incoming: Incoming) -> Unpublished: ...
    def finish_folders(self) -> list[PathParts]: ...  # those whose time the disk can't hold


def make_folders(folder: Folder, wanted: Iterable[Incoming]) -> list[tuple[PathParts, Refused]]:
    """Make folders, durable before this returns; those that could not be made, each with the reason."""
    made: list[Unpublished] = []
    failed: list[tuple[PathParts, Refused]] = []
    for incoming in wanted:
        try:
            made.append(folder.begin_folder(incoming))
        except Refused as problem:
            failed.append((incoming.path, problem))
    outcomes = zip(made, folder.publish(made), strict=True)
    return failed + [(new.incoming.path, outcome) for new, outcome in outcomes if isinstance(outcome, Refused)]


class Groups:
    """The complete files of one connection that are not published yet."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._filling: Group = []
        self._bytes = self._memory = 0  # of the group that fills
        self._flushing: deque[tuple[Group, GroupFlush]] = deque()

    def __len__(self) -> int:
        return len(self._filling) + sum(flush.count for _, flush in self._flushing)

    def __iter__(self) -> Iterator[Owner]:
        for group in (self._filling, *(group for group, _ in self._flushing)):
            yield from (owner for owner, _, _ in group)

    def add(self, owner: Owner, file: Unpublished, at: int = 0) -> None:
        """One more file, complete and verified; `at`: its place in a batch."""
        self._filling.append((owner, at, file))
        self._bytes += file.size
        self._memory += owner.memory

    @property
    def is_full(self) -> bool:
        """Whether the group that fills is to be flushed."""
        return len(self._filling) >= _GROUP_FILES or self._bytes >= _GROUP_BYTES or self._memory >= _GROUP_MEMORY

    @property
    def has_flushed(self) -> bool:
        """Whether the bytes of a group are on the disk, and it could be published without waiting."""
        return bool(self._flushing) and self._flushing[0][1].is_flushed

    def flush_ahead(self) -> Iterator[Published]:
        """Let the bytes of the group that fills go to the disk, and publish the one before meanwhile."""
        flush = self._folder.start_publishing([file for _, _, file in self._filling])
        if flush is not None:
            self._flushing.append((self._filling[: flush.count], flush))
            self._fill(self._filling[flush.count :])
            yield from self.publish_flushing(leave=1)
        if self._filling:
            yield from self.publish()

    def publish_flushing(self, leave: int = 0) -> Iterator[Published]:
        """Publish the groups whose bytes are on their way to the disk, until `leave` of them are left."""
        while len(self._flushing) > leave:
            group, flush = self._flushing[0]
            outcomes = self._folder.finish_publishing(flush)
            self._flushing.popleft()
            yield _with_outcomes(group, outcomes)

    def publish(self) -> Iterator[Published]:
        """Publish everything."""
        yield from self.publish_flushing()
        if self._filling:
            outcomes = self._folder.publish([file for _, _, file in self._filling])
            group = self._filling
            self._fill([])
            yield _with_outcomes(group, outcomes)

    def unpublished(self) -> Group:
        """What the end of the connection finds here, once no flush uses its descriptors any more."""
        for _, flush in self._flushing:
            flush.settle()
        return self._filling + [each for group, _ in self._flushing for each in group]

    def _fill(self, group: Group) -> None:
        self._filling = group
        self._bytes = sum(file.size for _, _, file in group)
        self._memory = sum(owner.memory for owner, _, _ in group)


def _with_outcomes(group: Group, outcomes: list[Outcome]) -> Published:
    return [(owner, at, file, outcome) for (owner, at, file), outcome in zip(group, outcomes, strict=True)]
