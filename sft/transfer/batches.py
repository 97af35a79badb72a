"""The BATCHes of one connection at the receiving end: judged, stored, and answered when all of their files are settled.

    BATCH --> HMAC --> each file: place, digest --> offered: compared | stored --> published with a group --> RECEIPTS

Rules: one file's trouble is its own, except a wrong HMAC, which is the trouble of all. The content is used while its
record is here: it is on the disk, not flushed yet, when `take` returns. Only the thread that receives uses this.
"""

import time
from collections.abc import Callable, Iterator

from crypto_utils import Mac, digest, equal
from sft.common.errors import Code, Refused
from sft.common.open_files import few_left_from
from sft.disk.offers import Offered
from sft.disk.temporary import Incoming, Settled, TemporaryFile, Whole
from sft.disk.temporary import Outcome as DiskOutcome
from sft.transfer.arriving_batch import ArrivingBatch
from sft.transfer.events import BatchSettled, BatchStarted, ReceiveEvent, TimeLost
from sft.transfer.groups import Folder, Groups, Published
from sft.wire.batch import Batch, batch_mac_input
from sft.wire.channel import Channel
from sft.wire.messages import Misnamed, Put


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

    def take(self, batch: Batch) -> None:
        """Judge and store the files of a BATCH. Raises Ended, ProtocolViolation."""
        arriving = ArrivingBatch(batch)
        if not equal(batch.mac, self._mac.finish(self._mac.begin(*batch_mac_input(batch.header)))):
            for at in range(arriving.count):
                self._settle(arriving, at, Refused(Code.INTEGRITY))
            return
        incomings = [self._placed(arriving, at) for at in range(arriving.count)]
        files = [(put, put.size or 0) for put in arriving.puts if isinstance(put, Put)]
        self._on_event(BatchStarted(files, batch.size))
        self._judge_offers(arriving, batch, incomings)
        self._store(arriving, self._whole(arriving, batch, batch.plain(), incomings))

    def settle(self, arriving: ArrivingBatch, at: int, file: TemporaryFile, outcome: DiskOutcome) -> None:
        """A file was published, or could not be."""
        if isinstance(outcome, Settled) and outcome.word == "stored" and not file.has_time:
            self._on_event(TimeLost(outcome.path))
        self._settle(arriving, at, outcome)

    def _settle(self, arriving: ArrivingBatch, at: int, outcome: DiskOutcome | None) -> None:
        """Note the outcome of one file; with the last one the RECEIPTS go out."""
        arriving.settle(at, outcome)
        self.settled += 1
        if not arriving.left:
            self.settled -= arriving.count
            receipts, results = arriving.answer(time.time_ns())
            self._on_event(BatchSettled(results))
            self._channel.post(receipts.encode())

    def _placed(self, arriving: ArrivingBatch, at: int) -> Incoming | Refused:
        put = arriving.puts[at]
        try:
            incoming = self._place(put)
        except Refused as problem:
            return problem
        if isinstance(put, Misnamed):
            raise RuntimeError("a name that is not allowed got a place")
        arriving.placed(at, incoming)
        return incoming

    def _judge_offers(self, arriving: ArrivingBatch, batch: Batch, incomings: list[Incoming | Refused]) -> None:
        places, offered = list[int](), list[Offered]()
        for at, (file, incoming) in enumerate(zip(batch.files, incomings, strict=True)):
            if file.with_content:
                continue
            if isinstance(incoming, Refused):
                self._settle(arriving, at, incoming)
            else:
                places.append(at)
                offered.append(Offered(incoming, file.sha256))
        if offered:
            self._channel.hurry()  # it may take a while
            for at, outcome in zip(places, self._folder.have(offered), strict=True):
                self._settle(arriving, at, outcome)

    def _whole(
        self, arriving: ArrivingBatch, batch: Batch, contents: memoryview, incomings: list[Incoming | Refused]
    ) -> list[tuple[int, Whole]]:
        """The files that are to be stored, each with its place in the batch."""
        wholes: list[tuple[int, Whole]] = []
        start = 0
        for at, (file, incoming) in enumerate(zip(batch.files, incomings, strict=True)):
            if not file.with_content:
                continue
            content = contents[start : start + file.size]
            start += file.size
            if isinstance(incoming, Refused):
                self._settle(arriving, at, incoming)
            elif not equal(digest(content), file.sha256):
                self._settle(arriving, at, Refused(Code.INTEGRITY))
            else:
                wholes.append((at, Whole(incoming, content, file.sha256)))
        return wholes

    def _store(self, arriving: ArrivingBatch, wholes: list[tuple[int, Whole]]) -> None:
        few_left = few_left_from()
        while wholes:
            taken = self._folder.take([whole for _, whole in wholes])
            last = -1
            for (at, _), file in zip(wholes, taken, strict=False):
                if isinstance(file, Settled | Refused):
                    self._settle(arriving, at, file)
                else:
                    self._complete.add(arriving, file, at)
                    last = file.descriptor
            wholes = wholes[len(taken) :]
            if wholes or last >= few_left:
                self._answer_all(self._complete.publish())  # what is whole gives its descriptors back
            elif self._complete.is_full:
                self._answer_all(self._complete.flush_ahead())
