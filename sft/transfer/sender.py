"""The sending half of a transfer: announcing, comparing, content, and what becomes of each item.

    sender                                   receiver
    PUT id 1, PUT id 2, ...    ------->      judge the name
                               <-------      ACCEPT from an offset, REFUSE, or RECEIPT at once
                               <-------      CHECK: what is the digest of your first n bytes?
    CHECK: this                ------->
    DATA ... END               ------->      write and hash; then digest, HMAC, flush, publish
                               <-------      RECEIPT, or REFUSE
    BYE, when all is sent      ------->
                               <-------      the last RECEIPTs, BYE

Rules: PUTs run ahead of content, and a small file's content follows its PUT unasked. Each PUT of a file is closed by
exactly one END or CANCEL. One item's trouble never ends the connection. An item is delivered when its RECEIPT is here
and names the digest that was sent, not before. The client sends so, and the server when it is asked to GET.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from crypto_utils import Mac, digest, new_digest
from sft.common.errors import ProtocolViolation, Refused, SourceError, TransferError
from sft.common.rate_limit import RateLimiter
from sft.disk.sources import Source
from sft.transfer.events import (
    IDLE,
    Checked,
    Delivered,
    Failed,
    Progress,
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
from sft.transfer.pieces import Pieces
from sft.transfer.places import Places, Share
from sft.transfer.shrinking import Compress
from sft.transfer.states import Sending
from sft.wire.channel import Arrived, Channel
from sft.wire.content import DATA_HEADER_SIZE, write_data_header
from sft.wire.messages import (
    END_SIZE_LIMIT,
    Accept,
    Cancel,
    Check,
    Kind,
    Message,
    Receipt,
    Refuse,
)
from sft.wire.protocol import WINDOW

_WAITING_LARGE = 32  # large files announced ahead of their content, each with an open descriptor
_ROOM = 16  # once the window is full, this part of it has to be free before more is announced
_OPEN_MEMORY = 4 << 20  # of what is announced and not settled; reached only by paths near their limits


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
    ) -> None:
        """`messages`: the channel's, from the point on where the caller has left them."""
        self._channel, self._messages, self._on_event, self._limiter = channel, messages, on_event, limiter
        self._mac = Mac(file_secret)
        self._pieces = Pieces(channel, limiter, on_event, compress)
        # Of the thread that reads and packs:
        self._share = share or Places().of("")  # a place for each of `_waiting`, and one for the next file
        self._waiting = 0  # large files that are announced and not begun
        self._again: deque[Item] = deque()  # to be sent as streams
        # Of both threads, changed under the lock, like the state of each Outgoing:
        self._changed = threading.Condition()
        self._last_id = 0
        self._open: dict[int, Outgoing] = {}  # until they are answered and closed
        self._memory = 0  # of all of them
        self._todo: deque[Outgoing] = deque()  # answered, and the next message about it is ours
        self._enough = -1  # the packing thread waits until no more than this are open
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
            while self._again or self._unfinished():
                if self._again:
                    self._announce(self._again.popleft())
                else:
                    self._wait_and_serve()
            self._channel.say_bye()
            self._answers.join()
            self._raise_problem()
            if self._open:
                raise ProtocolViolation("BYE before the last receipt")
        except TransferError as problem:
            # What the other end said last, which the other thread may be reading now, is the better reason.
            self._channel.stop(problem)
            self._answers.join()
            self._raise_problem()
            raise
        finally:
            for outgoing in list(self._open.values()):
                if outgoing.source is not None:
                    outgoing.source.close()
            self._share.keep(0)

    def _unfinished(self) -> bool:
        """Whether the END or CANCEL of an item is still to be sent."""
        with self._changed:
            return any(outgoing.state is not Sending.SENT for outgoing in self._open.values())

    def _raise_problem(self) -> None:
        if self._problem is not None:
            raise self._problem

    # --- the thread that reads and packs ---

    def _announce(self, item: Item) -> None:
        """Send a PUT, and for a small file its content."""
        while self._is_full() or self._waiting >= _WAITING_LARGE or not self._share.holds(self._waiting + 1):
            self._wait_and_serve()
        try:
            item.judge()
            source = item.open() if item.open is not None else None
        except (Refused, SourceError) as problem:
            self._on_event(Failed(item, problem))
            return
        if source is not None and item.is_stream:
            source.as_stream()
        outgoing = Outgoing(item, source, self._last_id + 1)
        message, has_other_time = outgoing.put(self._mac)
        if has_other_time:
            self._on_event(TimeClamped(item))
        with self._changed:
            self._last_id = outgoing.id
            self._open[outgoing.id] = outgoing
            self._memory += outgoing.memory
        self._on_event(Started(item, outgoing.size))
        is_small = outgoing.state is Sending.SENDING
        if source is not None and is_small and (outgoing.size or 0) <= self._pieces.most:
            self._send_in_one(outgoing, source, message, outgoing.size or 0)
            return
        self._waiting += not outgoing.is_begun
        self._channel.send(message)
        self._spend(len(message))
        if source is not None and is_small:
            self._send_content(outgoing, source)

    def _spend(self, count: int) -> None:
        """Wait until bytes that were sent are within the limit; they leave before, not together with the next ones."""
        self._limiter.spend(count, self._channel.flush)

    def _is_full(self) -> bool:
        return len(self._open) >= WINDOW or self._memory >= _OPEN_MEMORY

    def _wait_and_serve(self) -> None:
        """Wait until an answer asks for something, or enough items are closed to go on; send what is asked for."""
        with self._changed:
            if not self._todo:
                self._channel.flush()
                self._enough = len(self._open) - (max(1, len(self._open) // _ROOM) if self._is_full() else 1)
                self._changed.wait_for(lambda: self._todo or len(self._open) <= self._enough or self._over)
                self._enough = -1
        self._serve()

    def _serve(self) -> bool:
        """Send what the next answer asks for; False when there is none."""
        with self._changed:
            if not self._todo:
                self._raise_problem()
                self._channel.check()
                if self._over and self._open:
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

    def _send_in_one(self, outgoing: Outgoing, source: Source, message: bytes, size: int) -> None:
        """A small file in one piece of a record: PUT, content and END; or CANCEL, when it can't be read as it was.

        Nothing, when its content has another size: then it is announced again, as a stream.
        """
        start = len(message)
        content_at = start + DATA_HEADER_SIZE
        space = self._channel.space(content_at + size + 1 + END_SIZE_LIMIT)
        space[:start] = message
        content = space[content_at : content_at + size]
        try:
            count = source.read_into(space[content_at : content_at + size + 1])
            source.check_unchanged()
        except SourceError as problem:
            self._channel.done(start)
            self._withdraw(outgoing, source, problem)
            return
        source.close()
        if count != size:
            if self._close(outgoing, Kind.CANCEL) is not Sending.ANSWERED:
                self._send_as_stream(outgoing)
            return
        end = start
        if size:
            write_data_header(space[start:], outgoing.id, 0, size, size)
            end = content_at + size
        last = self._end(outgoing, size, digest(content))
        space[end : end + len(last)] = last
        self._channel.done(end + len(last))
        if size:
            self._on_event(Progress(outgoing.item, size))
        self._spend(end + len(last))

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

    def _send_as_stream(self, outgoing: Outgoing) -> None:
        """Announce it again, later."""
        outgoing.item.is_stream = True
        self._again.append(outgoing.item)

    def _withdraw(self, outgoing: Outgoing, source: Source, problem: SourceError | OtherSize | None) -> None:
        """CANCEL: it was answered before its END, or there is a problem with its source."""
        before = self._close(outgoing, Kind.CANCEL)
        if before is not Sending.ANSWERED:
            if isinstance(problem, SourceError):
                self._on_event(Failed(outgoing.item, problem))
            else:
                self._send_as_stream(outgoing)
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
            if size is None:
                self._withdraw(outgoing, source, None)
                return
            source.check_unchanged()
        except (SourceError, OtherSize) as problem:
            self._withdraw(outgoing, source, problem)
            return
        source.close()
        sha256 = outgoing.digest.digest()
        last = self._end(outgoing, size, sha256)
        self._on_event(Sealed(outgoing.item, size, sha256))
        self._channel.send(last)
        self._spend(len(last))

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
            self._forget_if_closed(outgoing)
        self._share.keep(self._waiting + 1)
        return before

    def _forget_if_closed(self, outgoing: Outgoing) -> None:
        """Under the lock."""
        if outgoing.state is Sending.CLOSED and self._open.pop(outgoing.id, None) is not None:
            self._memory -= outgoing.memory
            if len(self._open) <= self._enough:
                self._changed.notify_all()

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

    def _answer(self, answer: Message) -> None:
        if not isinstance(answer, Accept | Check | Refuse | Receipt):
            raise ProtocolViolation("a message that no receiver sends")
        with self._changed:
            if answer.id > self._last_id:
                raise ProtocolViolation("an answer about nothing of ours")
            outgoing = self._open.get(answer.id)
            if outgoing is None:
                return  # it crossed our CANCEL
            before = outgoing.got(answer)
            if before in (Sending.ANNOUNCED, Sending.ASKED):
                self._todo.append(outgoing)
                self._changed.notify_all()
            self._forget_if_closed(outgoing)
        if before not in (Sending.ANSWERED, Sending.CLOSED):
            if isinstance(answer, Refuse):
                self._on_event(Failed(outgoing.item, Refused(answer.code)))
            elif isinstance(answer, Receipt):
                self._on_event(Delivered(outgoing.item, answer))
