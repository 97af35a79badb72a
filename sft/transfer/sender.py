"""The sending half of a transfer: announcing, comparing, content, and what becomes of each item.

    sender                                   receiver
    PUT id 1, PUT id 2, ...    ------->      judge the name
                               <-------      ACCEPT from an offset, REFUSE, or RECEIPT at once
                               <-------      CHECK: what is the digest of your first n bytes? (answered by CHECK)
    DATA ... END               ------->      write and hash; then digest, HMAC, flush, publish
                               <-------      RECEIPT, or REFUSE
    BATCH of small files       ------->      the same for each of them
                               <-------      RECEIPTS
    BYE, when all is sent      ------->      and a BYE comes behind the last answer

Rules: PUTs run ahead of content. Each PUT of a file is closed by exactly one END or CANCEL. One item's trouble never
ends the connection. An item is delivered when its receipt is here and covers the digest that was sent, not before. The
client sends so, and the server when it is asked to GET.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from crypto_utils import Mac, new_digest, random_bytes
from sft.common.errors import ProtocolViolation, Refused, SourceError, TransferError
from sft.common.rate_limit import RateLimiter
from sft.disk.sources import Source, changed
from sft.transfer.events import (
    IDLE,
    BatchSettled,
    BatchStarted,
    Checked,
    Delivered,
    Failed,
    Grown,
    Restarted,
    Resumed,
    Sealed,
    SendEvent,
    Started,
    TimeClamped,
)
from sft.transfer.hashing import OtherSize, hash_source
from sft.transfer.items import Item
from sft.transfer.outgoing import Outgoing
from sft.transfer.outgoing_batch import OutgoingBatch, can_hold, space_for
from sft.transfer.pieces import Pieces
from sft.transfer.places import Places, Share
from sft.transfer.shrinking import Compress
from sft.transfer.states import Sending
from sft.transfer.unsettled import Unsettled
from sft.wire.batch import Receipts
from sft.wire.channel import Arrived, Channel
from sft.wire.messages import (
    Accept,
    Cancel,
    Check,
    Kind,
    Message,
    Receipt,
    Refuse,
)
from sft.wire.protocol import DATA_SIZE, TRANSFER_ID_SIZE

_WAITING_LARGE = 32  # large files announced ahead of their content, each with an open descriptor


class Sender:
    """Sends items over one channel: the calling thread reads and packs, another takes the answers."""

    def __init__(
        self,
        channel: Channel,
        messages: Iterator[Arrived | None],
        file_secret: bytes,
        on_event: Callable[[SendEvent], None],
        limiter: RateLimiter,
        share: Share | None = None,
        compress: Compress = "off",
        transfer: bytes | None = None,
        last_id: int = 0,
    ) -> None:
        """`messages`: the channel's, from the point on where the caller has left them. `transfer`: the run's id.

        `last_id`: the highest that was used in this connection."""
        self._channel, self._messages, self._on_event, self._limiter = channel, messages, on_event, limiter
        self._mac, self._transfer = Mac(file_secret), transfer or random_bytes(TRANSFER_ID_SIZE)
        self._pieces = Pieces(channel, limiter, on_event, compress)
        self._space = space_for(self._pieces.most if self._pieces.most < DATA_SIZE else None)
        self._batch = OutgoingBatch(self._space)  # that fills
        self._free_places = 0  # up to so many files in it the window is not full
        # Of the thread that reads and packs:
        self._share = share or Places().of("")  # a place for each of `_waiting`, and one for the next file
        self._waiting = 0  # large files that are announced and not begun
        self._again: deque[Item] = deque()  # to be sent as streams
        # Of both threads, changed under its lock, like the state of each Outgoing:
        self._open = Unsettled(last_id)
        self._changed = self._open.changed
        self._todo: deque[Outgoing] = deque()  # answered, and the next message about it is ours
        self._over = False  # no answer comes any more
        self._problem: BaseException | None = None  # of the thread that takes the answers
        self._answers = threading.Thread(target=self._take_answers, name="answers", daemon=True)

    def run(self, items: Iterable[Item]) -> None:
        """Send all items, and wait for the receipt of each. Raises ConnectionTrouble, IntegrityError.

        When it raises, the items without a `delivered` or `failed` yet have not arrived, as far as is known.
        """
        self._answers.start()
        try:
            for item in items:
                self._announce(item)
                while self._todo or self._over:
                    if not self._serve():
                        break
            while self._again or self._batch.count or not self._open.is_finished():
                if self._again:
                    self._announce(self._again.popleft())
                elif self._batch.count:
                    self._send_batch()
                else:
                    self._wait_and_serve()
            self._channel.say_bye()
            self._answers.join()
            self._raise_problem()
            if len(self._open):
                raise ProtocolViolation("BYE before the last receipt")
        except TransferError as problem:
            # What the other end said last, which the other thread may be reading now, is the better reason.
            self._channel.stop(problem)
            self._answers.join()
            self._raise_problem()
            raise
        finally:
            for outgoing in self._open:
                if outgoing.source is not None:
                    outgoing.source.close()
            self._share.keep(0)

    def _raise_problem(self) -> None:
        if self._problem is not None:
            raise self._problem

    # --- the thread that reads and packs ---

    def _announce(self, item: Item) -> None:
        """Add a small file to the batch that fills; send the PUT of anything else."""
        if self._batch.count >= self._free_places:
            while self._is_full():
                self._wait_and_serve()
            self._free_places = self._batch.count + self._open.free_places(self._batch.count, self._batch.memory)
        try:
            item.judge()
            source = item.open() if item.open is not None else None
        except (Refused, SourceError) as problem:
            self._on_event(Failed(item, problem))
            return
        size = None if source is None or item.is_stream else source.size
        if source is not None and size is not None and can_hold(item, size, self._space):
            self._pack(item, source, size)
            return
        if source is not None and item.is_stream:
            source.as_stream()
        outgoing = Outgoing(item, source, self._open.last_id + 1)
        message, has_other_time = outgoing.put(self._mac)
        if has_other_time:
            self._on_event(TimeClamped(item))
        self._open.add(outgoing)
        self._free_places = 0
        self._on_event(Started(item, outgoing.size))
        self._waiting += not outgoing.is_begun
        self._channel.send(message)
        self._spend(len(message))
        if source is not None and outgoing.is_begun:
            self._send_content(outgoing, source)

    def _spend(self, count: int) -> None:
        """Wait until bytes that were sent are within the limit; they leave before, not together with the next ones."""
        self._limiter.spend(count, self._channel.flush)

    def _is_full(self) -> bool:
        """Whether nothing may be announced now."""
        is_full = self._open.is_full(self._batch.count, self._batch.memory)
        return is_full or self._waiting >= _WAITING_LARGE or not self._share.holds(self._waiting + 1)

    def _wait_and_serve(self) -> None:
        """Wait until an answer asks for something, or enough items are closed to go on; send what is asked for."""
        self._send_batch()
        with self._changed:
            if not self._todo:
                self._channel.flush()
                self._open.wait(lambda: bool(self._todo) or self._over)
        self._serve()

    def _serve(self) -> bool:
        """Send what the next answer asks for; False when there is none."""
        with self._changed:
            if not self._todo:
                self._raise_problem()
                self._channel.check()
                if self._over and len(self._open):
                    raise ProtocolViolation("BYE before the last receipt")
                return False
            outgoing = self._todo.popleft()
            state, source = outgoing.state, outgoing.source
        if source is None:
            raise RuntimeError("an answer about a folder asks for nothing")
        if state is Sending.ASKED:
            self._answer_check(outgoing, source)
        elif state is Sending.SENDING:
            self._begin(outgoing)
            self._send_content(outgoing, source)
        elif state is Sending.ANSWERED:
            self._withdraw(outgoing, source, None)
        return True

    def _begin(self, outgoing: Outgoing) -> None:
        """It does not wait for ACCEPT any more."""
        self._waiting -= not outgoing.is_begun
        outgoing.is_begun = True

    def _pack(self, item: Item, source: Source, size: int) -> None:
        """Read a small file into the batch that fills, or say why that can't be."""
        try:
            content = source.read_small(size)
        except SourceError as problem:  # the other end hears of it, too: it may have asked for this file
            outgoing = Outgoing(item, source, self._open.last_id + 1)
            message, _ = outgoing.put(self._mac)
            self._open.add(outgoing)
            self._channel.send(message)
            self._withdraw(outgoing, source, problem)
            return
        if len(content) != size:
            self._send_as_stream(item)
            return
        if source.is_grown:
            self._on_event(Grown(item, size))
        while not self._batch.add(item, source, content):
            self._send_batch()

    def _send_batch(self) -> None:
        """Send the small files that were read, if there are any."""
        if not self._batch.count:
            return
        batch, self._batch, self._free_places = self._batch, OutgoingBatch(self._space), 0
        shrinks = self._pieces.tries_to_shrink_batch(batch.content_size)
        size = batch.write(self._channel.space, self._open.last_id + 1, self._transfer, self._mac)
        self._open.add(batch)
        self._channel.done(size)
        if shrinks:
            size = self._pieces.shrink_batch(size, batch.content_size)
        for item in batch.clamped:
            self._on_event(TimeClamped(item))
        self._on_event(BatchStarted(batch.sizes(), batch.content_size))
        self._channel.flush()
        self._limiter.spend(size, content=batch.hashed_size)

    def _answer_check(self, outgoing: Outgoing, source: Source) -> None:
        """Hash the first bytes of the source, as many as the receiver has, and send the digest."""
        item, size = outgoing.item, outgoing.check_size

        def is_asked() -> bool:
            self._channel.check()
            return outgoing.state is Sending.ASKED  # else it was answered meanwhile, and is in `_todo`

        try:
            running = hash_source(source, size, is_asked, lambda count: self._on_event(Checked(item, count)))
        except (SourceError, OtherSize) as problem:
            self._withdraw(outgoing, source, problem)
            return
        if running is None:
            return
        outgoing.digest = running
        sha256 = outgoing.digest.digest()
        with self._changed:
            if outgoing.state is not Sending.ASKED:
                return
            outgoing.sent(Kind.CHECK)
            outgoing.compared = size, sha256
        self._channel.send(Check(outgoing.id, size, sha256).encode())
        self._channel.flush()

    def _send_as_stream(self, item: Item) -> None:
        """Announce it again, later."""
        item.is_stream = True
        self._again.append(item)

    def _withdraw(self, outgoing: Outgoing, source: Source, problem: SourceError | OtherSize | None) -> None:
        """CANCEL: it was answered before its END, or there is a problem with its source."""
        before = self._close(outgoing, Kind.CANCEL)
        if before is not Sending.ANSWERED:
            if isinstance(problem, SourceError):
                self._on_event(Failed(outgoing.item, problem))
            else:
                self._send_as_stream(outgoing.item)
        source.close()
        code = problem.code if isinstance(problem, SourceError) else None
        self._channel.send(Cancel(outgoing.id, code).encode())

    def _send_content(self, outgoing: Outgoing, source: Source) -> None:
        """DATA from where it is wanted, and END; CANCEL, when it was answered meanwhile or can't be read as it was."""
        try:
            if outgoing.offset:
                self._on_event(Resumed(outgoing.item, outgoing.offset))
            elif outgoing.compared:
                if outgoing.compared[0] != outgoing.size:  # what was kept is of another file, or of an older state
                    self._on_event(Restarted(outgoing.item))
                with self._changed:
                    outgoing.compared = None
                outgoing.digest = new_digest()
                source.go_to(0)
            size = self._pieces.send(outgoing, source, outgoing.offset)
            if size is None or not self._is_as_sent(outgoing, source, size):
                self._withdraw(outgoing, source, None)
                return
        except (SourceError, OtherSize) as problem:
            self._withdraw(outgoing, source, problem)
            return
        source.close()
        sha256 = outgoing.digest.digest()
        last = self._end(outgoing, size, sha256)
        self._on_event(Sealed(outgoing.item, size, sha256))
        self._channel.send(last)
        self._spend(len(last))

    def _is_as_sent(self, outgoing: Outgoing, source: Source, size: int) -> bool:
        """Whether END may follow: not once it was answered. Raises SourceError, OtherSize when it has changed."""
        if not source.has_grown():
            return True

        def goes_on() -> bool:
            return outgoing.state is Sending.SENDING and not self._channel.ended

        again = hash_source(source, size, goes_on, lambda _: None)  # it may as well have been written anew
        if again is not None and again.digest() != outgoing.digest.digest():
            raise changed(outgoing.item.name)
        self._on_event(Grown(outgoing.item, size))
        return again is not None

    def _end(self, outgoing: Outgoing, size: int, sha256: bytes) -> bytes:
        """END, for what was read to its end; it goes out next. A RECEIPT may name the digest from now on."""
        last = outgoing.end(self._mac, size, sha256)
        with self._changed:
            outgoing.size, outgoing.sha256, outgoing.item.sha256 = size, sha256, sha256
        self._close(outgoing, Kind.END)
        return last

    def _close(self, outgoing: Outgoing, kind: Kind) -> Sending:
        """END or CANCEL goes out now; the state before."""
        self._begin(outgoing)
        with self._changed:
            before = outgoing.sent(kind)
            self._open.forget_if_closed(outgoing)
        self._share.keep(self._waiting + 1)
        return before

    # --- the thread that takes the answers ---

    def _take_answers(self) -> None:
        problem: BaseException | None = None
        try:
            for arrived in self._messages:
                if arrived is not None:
                    self._answer(arrived[0])
                else:
                    self._on_event(IDLE)
            self._on_event(IDLE)
        except BaseException as found:  # whatever it is, the packing thread raises it
            problem = found
            self._channel.stop(found)
        with self._changed:
            self._problem, self._over = problem, True
            self._changed.notify_all()

    def _settle(self, receipts: Receipts) -> None:
        """The files of a batch are settled; those whose content is wanted come again with it."""
        with self._changed:
            batch = self._open.find(receipts.id)
            if not isinstance(batch, OutgoingBatch):
                raise ProtocolViolation("RECEIPTS for no batch of ours")
            results, wanted = batch.answered(receipts)
            for item in wanted:
                item.offer = False
            self._again.extend(wanted)
            self._open.forget_if_closed(batch)
        self._on_event(BatchSettled(results))

    def _answer(self, answer: Message) -> None:
        if isinstance(answer, Receipts):
            self._settle(answer)
            return
        if not isinstance(answer, Accept | Check | Refuse | Receipt):
            raise ProtocolViolation("a message that no receiver sends")
        with self._changed:
            if answer.id > self._open.last_id:
                raise ProtocolViolation("an answer about nothing of ours")
            outgoing = self._open.find(answer.id)
            if outgoing is None:
                return  # it crossed our CANCEL
            if isinstance(outgoing, OutgoingBatch):
                raise ProtocolViolation("an answer about a batch that is no RECEIPTS")
            before = outgoing.got(answer)
            if before in (Sending.ANNOUNCED, Sending.ASKED):
                self._todo.append(outgoing)
                self._changed.notify_all()
            self._open.forget_if_closed(outgoing)
        if before not in (Sending.ANSWERED, Sending.CLOSED):
            if isinstance(answer, Refuse):
                self._on_event(Failed(outgoing.item, Refused(answer.code)))
            elif isinstance(answer, Receipt):
                self._on_event(Delivered(outgoing.item, answer))
