"""The BATCHes of one connection at the receiving end: judged, stored, and answered when all of their files are settled.

    BATCH --> HMAC --> each file: place, digest --> offered: compared | stored --> published with a group --> RECEIPTS

Rules: one file's trouble is its own, except a wrong HMAC, which is the trouble of all. The content is used while its
record is here: it is on the disk, not flushed yet, when `take` returns. Only the thread that receives uses this.
"""

import itertools
import time
from collections.abc import Callable, Iterator

from crypto_utils import Mac, digest, equal
from sft.common.errors import Code, Refused
from sft.common.open_files import few_left_from
from sft.disk.offers import Offered
from sft.disk.temporary import Incoming, Settled, Unpublished, Whole
from sft.disk.temporary import Outcome as DiskOutcome
from sft.transfer.arriving import Arriving
from sft.transfer.arriving_batch import ArrivingBatch
from sft.transfer.events import BatchCutOff, BatchSettled, BatchStarted, ReceiveEvent, TimeLost
from sft.transfer.groups import Folder, Groups, Owner, Published
from sft.wire.batch import Batch, batch_mac_input
from sft.wire.channel import Channel
from sft.wire.messages import Misnamed, Put

_Settled = list[tuple[int, DiskOutcome | None]]  # places in a batch, and what became of each file


class Batches:
    """Takes each BATCH of one connection."""

    def __init__(
        self,
        channel: Channel,
        mac: Mac,
        folder: Folder,
        place: Callable[[Put | Misnamed], Incoming],
        on_event: Callable[[ReceiveEvent], None],
        complete: Groups,
        answer_all: Callable[[Iterator[Published]], None],
    ) -> None:
        """`complete`: the files that wait to be published. `answer_all` answers them, and calls `settle` for ours."""
        self._channel, self._mac, self._folder, self._place = channel, mac, folder, place
        self._on_event, self._complete, self._answer_all = on_event, complete, answer_all
        self.settled = 0  # files that have an outcome, and whose batch has no RECEIPTS yet
        self._unanswered: dict[int, ArrivingBatch] = {}

    def take(self, batch: Batch) -> None:
        """Judge and store the files of a BATCH. Raises Ended, ProtocolViolation."""
        arriving = self._unanswered[batch.id] = ArrivingBatch(batch)
        if not equal(batch.mac, self._mac.finish(self._mac.begin(*batch_mac_input(batch.header)))):
            self._settle(arriving, [(at, Refused(Code.INTEGRITY)) for at in range(arriving.count)])
            return
        incomings = self._placed(arriving)
        files = [(put, put.size or 0) for put in arriving.puts if isinstance(put, Put)]
        self._on_event(BatchStarted(files, batch.size))
        self._judge_offers(arriving, batch, incomings)
        self._store(arriving, self._whole(arriving, batch, batch.plain(), incomings))

    def cut_off(self) -> None:
        """The connection has ended: say what became of files whose batch has no RECEIPTS. They may be visible."""
        now = time.time_ns()
        for arriving in self._unanswered.values():
            if results := arriving.results(now):
                self._on_event(BatchCutOff(results))
        self._unanswered.clear()

    def settle(self, published: Published) -> list[tuple[Arriving, Unpublished, DiskOutcome]]:
        """Files were published, or could not be: those of batches are settled, the others given back."""
        alone: list[tuple[Arriving, Unpublished, DiskOutcome]] = []
        for owner, together in itertools.groupby(published, _owner_of):
            if not isinstance(owner, ArrivingBatch):
                alone += [(owner, file, outcome) for _, _, file, outcome in together]
                continue
            settled: _Settled = []
            for _, at, file, outcome in together:
                if not file.has_time and isinstance(outcome, Settled) and outcome.word == "stored":
                    self._on_event(TimeLost(outcome.path))
                settled.append((at, outcome))
            self._settle(owner, settled)
        return alone

    def _settle(self, arriving: ArrivingBatch, settled: _Settled) -> None:
        """Note the outcomes of some files; with the last one the RECEIPTS go out."""
        arriving.settle(settled)
        self.settled += len(settled)
        if settled and not arriving.left:
            self.settled -= arriving.count
            del self._unanswered[arriving.id]
            receipts, results = arriving.answer(time.time_ns())
            self._on_event(BatchSettled(results))
            self._channel.post(receipts.encode())

    def _placed(self, arriving: ArrivingBatch) -> list[Incoming | Refused]:
        """Where each file is to be published, or why it may not come."""
        placed: list[Incoming | Refused] = []
        for put in arriving.puts:
            try:
                incoming = self._place(put)
            except Refused as problem:
                placed.append(problem)
                continue
            if isinstance(put, Misnamed):
                raise RuntimeError("a name that is not allowed got a place")
            placed.append(incoming)
        arriving.placed(placed)
        return placed

    def _judge_offers(self, arriving: ArrivingBatch, batch: Batch, incomings: list[Incoming | Refused]) -> None:
        places, offered = list[int](), list[Offered]()
        refused: _Settled = []
        for at, (file, incoming) in enumerate(zip(batch.files, incomings, strict=True)):
            if file.with_content:
                continue
            if isinstance(incoming, Refused):
                refused.append((at, incoming))
            else:
                places.append(at)
                offered.append(Offered(incoming, file.sha256))
        self._settle(arriving, refused)
        if offered:
            self._channel.hurry()  # it may take a while
            self._settle(arriving, list(zip(places, self._folder.have(offered), strict=True)))

    def _whole(
        self, arriving: ArrivingBatch, batch: Batch, contents: memoryview, incomings: list[Incoming | Refused]
    ) -> list[tuple[int, Whole]]:
        """The files that are to be stored, each with its place in the batch."""
        wholes: list[tuple[int, Whole]] = []
        refused: _Settled = []
        start = 0
        for at, (file, incoming) in enumerate(zip(batch.files, incomings, strict=True)):
            if not file.with_content:
                continue
            content = contents[start : start + file.size]
            start += file.size
            if isinstance(incoming, Refused):
                refused.append((at, incoming))
            elif not equal(digest(content), file.sha256):
                refused.append((at, Refused(Code.INTEGRITY)))
            else:
                wholes.append((at, Whole(incoming, content, file.sha256)))
        self._settle(arriving, refused)
        return wholes

    def _store(self, arriving: ArrivingBatch, wholes: list[tuple[int, Whole]]) -> None:
        few_left = few_left_from()
        while wholes:
            taken = self._folder.take([whole for _, whole in wholes])
            settled: _Settled = []
            last = -1
            for (at, _), file in zip(wholes, taken, strict=False):
                if isinstance(file, (Settled, Refused)):
                    settled.append((at, file))
                else:
                    self._complete.add(arriving, file, at)
                    last = file.descriptor
            self._settle(arriving, settled)
            wholes = wholes[len(taken) :]
            if wholes or last >= few_left:
                self._answer_all(self._complete.publish())  # what is whole gives its descriptors back
            elif self._complete.is_full:
                self._answer_all(self._complete.flush_ahead())


def _owner_of(published: tuple[Owner, int, Unpublished, DiskOutcome]) -> Owner:
    return published[0]
