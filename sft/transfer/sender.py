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
and names the digest that was sent, and not before. The client sends so, and the server when it is asked to GET. This
room knows no socket, no address and no account.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

from crypto_utils import Mac, digest, new_digest
from sft.common.errors import IntegrityError, ProtocolViolation, Refused, SourceError, TransferError
from sft.common.rate_limit import Pace
from sft.disk.sources import Source
from sft.transfer.items import Item
from sft.transfer.outgoing import Outgoing
from sft.transfer.places import Places, Share
from sft.wire.canonical import write_end, write_put
from sft.wire.channel import Channel
from sft.wire.messages import (
    DATA_HEADER_SIZE,
    END_SIZE_LIMIT,
    FILE,
    FOLDER,
    Accept,
    Cancel,
    Check,
    Kind,
    Message,
    Receipt,
    Refuse,
    encode_message,
    file_mac_begin,
    file_mac_rest,
    write_data_header,
)
from sft.wire.protocol import CHECK_LIMIT, DATA_LEAST, DATA_SIZE, MAX_INTEGER, WINDOW, nearest_time

_WAITING_LARGE = 32  # large files announced ahead of their content, each with an open descriptor
_ROOM = 16  # once the window is full, this part of it has to be free before more is announced
_OPEN_MEMORY = 4 << 20  # of what is announced and not settled; reached only by paths near their limits
_PIECE_SECONDS = 1 / 8  # of a limit's bytes leave in one record, so that they leave evenly
_ANSWERS = (Receipt, Accept, Refuse, Check)

Arrived = tuple[Message, memoryview] | None


class _OtherSize(Exception):
    """A source has not changed, and its content has another size than its file system says."""


class Events(Protocol):
    """Told, from any thread, what becomes of each item: every item ends in one `delivered` or one `failed`."""

    def started(self, item: Item, size: int | None) -> None: ...
    def checking(self, item: Item, count: int) -> None: ...
    def resumed(self, item: Item, offset: int) -> None: ...
    def restarted(self, item: Item) -> None: ...
    def progress(self, item: Item, count: int) -> None: ...
    def sealed(self, item: Item, size: int, sha256: bytes) -> None: ...
    def delivered(self, item: Item, receipt: Receipt) -> None: ...
    def failed(self, item: Item, problem: TransferError) -> None: ...
    def time_changed(self, item: Item) -> None: ...  # to the nearest that a PUT can say
    def pause(self) -> None: ...  # nothing more has arrived for now


class Sender:
    """Sends items over one channel: the calling thread reads and packs, another takes the answers."""

    def __init__(
        self,
        channel: Channel,
        messages: Iterator[Arrived],
        file_secret: bytes,
        events: Events,
        pace: Pace,
        share: Share | None = None,
    ) -> None:
        """`messages`: the channel's, from the point on where the caller has left them."""
        self._share = share or Places().of("")  # a place for each of `_waiting`, and one for the next file
        self._channel, self._messages, self._mac, self._events, self._pace = (
            channel,
            messages,
            Mac(file_secret),
            events,
            pace,
        )
        self._piece = max(DATA_LEAST, int(min(DATA_SIZE, pace.share(_PIECE_SECONDS))))  # of content, in one DATA
        self._lock = threading.Lock()
        self._state = threading.Condition(self._lock)
        self._is_awaited = False  # by the thread that packs: what it needs may be here now
        self._open: dict[int, Outgoing] = {}
        self._memory = 0  # of all that is open
        self._todo: deque[tuple[Outgoing, Message | None]] = deque()
        self._again: deque[Item] = deque()  # streams, as their content has shown
        self._beyond = memoryview(bytearray(1))
        self._waiting = 0
        self._last_id = 0
        self._over = False
        self._problem: BaseException | None = None
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
                    if not self._serve(wait=False):
                        break
            while self._again or self._unfinished():
                if self._again:
                    self._announce(self._again.popleft())
                else:
                    self._serve(wait=True)
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
        """Whether something is still to be said about an item: its END or CANCEL; a receipt needs no answer."""
        with self._state:
            return any(not outgoing.closed for outgoing in self._open.values())

    def _raise_problem(self) -> None:
        if self._problem is not None:
            raise self._problem

    # --- the thread that reads and packs ---

    def _announce(self, item: Item) -> None:
        """Send a PUT, and for a small file its content."""
        while self._is_full() or self._waiting >= _WAITING_LARGE or not self._has_place():
            self._serve(wait=True)
        try:
            item.judge()
            source = item.open() if item.open is not None else None
        except (Refused, SourceError) as problem:
            self._events.failed(item, problem)
            return
        self._last_id += 1
        if source is None:
            kind, size, mtime, mode = FOLDER, None, item.mtime, item.mode
        else:
            if item.is_stream:
                source.as_stream()
            kind, size, mtime = FILE, source.size, source.mtime
            mode = None if source.mode is None else source.mode & item.mode_mask
        if mtime is not None and abs(mtime) > MAX_INTEGER:
            mtime = nearest_time(mtime)
            self._events.time_changed(item)
        id = self._last_id
        body = write_put(id, item.transfer, item.target, kind, size, mtime, mode, item.policy).encode()
        message = encode_message(Kind.PUT, body)
        outgoing = Outgoing(item, source, id, size, body, self._mac.begin(*file_mac_begin(body)))
        with self._lock:
            self._open[id] = outgoing
            self._memory += outgoing.memory
        self._events.started(item, size)
        if source is not None and outgoing.unasked and (size or 0) <= self._piece:
            outgoing.begun = True
            self._send_unasked(outgoing, source, message, size or 0)
            return
        outgoing.digest = new_digest()
        self._waiting += not outgoing.unasked
        self._channel.send(message)
        self._spend(len(message))
        if source is not None and outgoing.unasked:
            outgoing.begun = True
            self._send_content(outgoing, source, 0)

    def _spend(self, count: int) -> None:
        """Wait until bytes that were sent are within the limit; they leave before, not together with the next ones."""
        self._pace.spend(count, self._channel.flush)

    def _is_full(self) -> bool:
        return len(self._open) >= WINDOW or self._memory >= _OPEN_MEMORY

    def _has_place(self) -> bool:
        """Whether another file may be opened; how large it is shows only then."""
        return self._share.held > self._waiting or self._share.take()

    def _send_unasked(self, outgoing: Outgoing, source: Source, message: bytes, size: int) -> None:
        """A small file, in one piece of a record: PUT, content and END; or CANCEL, when it can't be read as it was.

        Nothing, when its content has another size: then it is announced again, as a stream.
        """
        start = len(message)
        content_at = start + DATA_HEADER_SIZE
        room = self._channel.room(content_at + size + 1 + END_SIZE_LIMIT)
        room[:start] = message
        content = room[content_at : content_at + size]
        try:
            count = source.read_into(room[content_at : content_at + size + 1])
            source.check_unchanged()
            source.close()
            if count != size:
                self._send_as_stream(outgoing)
                self._close(outgoing)
                return
        except SourceError as problem:
            self._channel.done(start)
            self._withdraw(outgoing, source, problem)
            return
        end = start
        if size:
            write_data_header(room[start:], outgoing.id, 0, size)
            end = content_at + size
        last = self._last_word(outgoing, size, digest(content))
        room[end : end + len(last)] = last
        self._channel.done(end + len(last))
        if size:
            self._events.progress(outgoing.item, size)
        self._close(outgoing)
        self._spend(end + len(last))

    def _serve(self, wait: bool) -> bool:
        """Do one thing that an answer asks for, if there is one. With `wait`, until something happens."""
        with self._state:
            if not self._todo and wait:
                self._channel.flush()
                enough = len(self._open) - (max(1, len(self._open) // _ROOM) if self._is_full() else 1)
                self._is_awaited = True
                while not self._todo and len(self._open) > enough and not self._over:
                    self._state.wait()
                self._is_awaited = False
            if not self._todo:
                self._raise_problem()
                self._channel.check()
                if self._over and self._open:
                    raise ProtocolViolation("BYE before the last receipt")
                return False
            outgoing, message = self._todo.popleft()
            if outgoing.begun:
                return True  # an answer that came behind the one that was acted on
            if not isinstance(message, Check):
                self._waiting -= 1
                outgoing.begun = True
        source = outgoing.source
        if source is None:
            return True
        if isinstance(message, Check) and not outgoing.settled:
            self._answer_check(outgoing, source, message)
        elif not isinstance(message, Check):
            self._send_content(outgoing, source, message.offset if isinstance(message, Accept) else 0)
        return True

    def _answer_check(self, outgoing: Outgoing, source: Source, check: Check) -> None:
        """Hash the first bytes of the source, as many as the receiver has, and say the digest."""
        room = memoryview(bytearray(DATA_SIZE))
        digest, done = new_digest(), 0
        try:
            source.go_to(0)
            while done < check.size:
                piece = room[: min(DATA_SIZE, check.size - done)]
                self._channel.check()
                if outgoing.settled:  # refused meanwhile: `_send_content` withdraws it
                    return
                if source.read_into(piece) < len(piece):
                    source.check_unchanged()
                    raise _OtherSize
                digest.update(piece)
                done += len(piece)
                self._events.checking(outgoing.item, len(piece))
        except (SourceError, _OtherSize) as problem:
            with self._state:
                outgoing.begun = True
                self._waiting -= 1
            self._withdraw(outgoing, source, problem)
            return
        with self._state:
            outgoing.digest, outgoing.checked, outgoing.asked = digest, done, False
        self._channel.send(Check(outgoing.id, done, digest.digest()).encode())
        self._channel.flush()

    def _send_as_stream(self, outgoing: Outgoing) -> None:
        """Announce it again, later, unless something has become of it already."""
        if self._settle(outgoing):
            outgoing.item.is_stream = True
            self._again.append(outgoing.item)

    def _withdraw(self, outgoing: Outgoing, source: Source, problem: SourceError | _OtherSize | None) -> None:
        if isinstance(problem, _OtherSize):
            self._send_as_stream(outgoing)
        elif problem is not None and self._settle(outgoing):
            self._events.failed(outgoing.item, problem)
        source.close()
        code = problem.code if isinstance(problem, SourceError) else None
        self._channel.send(Cancel(outgoing.id, code).encode())
        self._close(outgoing)

    def _send_content(self, outgoing: Outgoing, source: Source, offset: int) -> None:
        """DATA from `offset` and END; or CANCEL, when it was settled meanwhile or can't be read as it was."""
        if outgoing.settled:
            self._withdraw(outgoing, source, None)
            return
        try:
            if offset:
                self._events.resumed(outgoing.item, offset)
            elif outgoing.checked:
                if outgoing.checked != outgoing.size:  # what was kept is of another file, or of an older state
                    self._events.restarted(outgoing.item)
                with self._state:
                    outgoing.digest, outgoing.checked = new_digest(), 0
                source.go_to(0)
            size = self._send_data(outgoing, source, offset)
            if size is None:
                self._withdraw(outgoing, source, None)
                return
            source.check_unchanged()
        except (SourceError, _OtherSize) as problem:
            self._withdraw(outgoing, source, problem)
            return
        self._end(outgoing, source, size)

    def _end(self, outgoing: Outgoing, source: Source, size: int) -> None:
        source.close()
        sha256 = outgoing.digest.digest()
        last = self._last_word(outgoing, size, sha256)
        self._events.sealed(outgoing.item, size, sha256)
        self._channel.send(last)
        self._close(outgoing)
        self._spend(len(last))

    def _last_word(self, outgoing: Outgoing, size: int, sha256: bytes) -> bytes:
        """END for what was read to its end."""
        outgoing.sha256 = outgoing.item.sha256 = sha256
        outgoing.size = size  # now that of a pipe is known, too
        proof = self._mac.finish(outgoing.proof, *file_mac_rest(size, sha256))
        return encode_message(Kind.END, write_end(outgoing.id, size, sha256, proof).encode())

    def _send_data(self, outgoing: Outgoing, source: Source, offset: int) -> int | None:
        """The final size once the whole content is sent; None when the receiver has settled it meanwhile."""
        announced = outgoing.size
        while announced is None or offset < announced:
            if outgoing.settled:
                return None
            room = self._channel.content_room(min(self._piece, (announced or MAX_INTEGER) - offset))
            count = source.read_into(room)
            if count < len(room) and announced is not None:
                source.check_unchanged()
                raise _OtherSize
            if count:
                outgoing.digest.update(room[:count])
                self._channel.content_done(outgoing.id, offset, count)
                offset += count
                self._events.progress(outgoing.item, count)
                self._spend(DATA_HEADER_SIZE + count)
            if count < len(room):
                break
        if announced is not None and source.read_into(self._beyond):
            source.check_unchanged()
            raise _OtherSize
        return offset

    def _settle(self, outgoing: Outgoing) -> bool:
        """Nothing more is expected from the receiver about this item; True the first time, to tell about it once."""
        with self._lock:
            first, outgoing.settled = not outgoing.settled, True
            self._forget(outgoing)
            return first

    def _close(self, outgoing: Outgoing) -> None:
        with self._lock:
            outgoing.closed = True
            self._forget(outgoing)
        self._share.keep(self._waiting + 1)

    def _forget(self, outgoing: Outgoing) -> None:
        if outgoing.settled and outgoing.closed:
            if self._open.pop(outgoing.id, None) is not None:
                self._memory -= outgoing.memory
            if self._is_awaited:
                self._state.notify_all()

    # --- the thread that takes the answers ---

    def _take_answers(self) -> None:
        try:
            for arrived in self._messages:
                if arrived is not None:
                    self._answer(arrived[0])
                else:
                    self._events.pause()
            self._events.pause()
        except BaseException as problem:  # whatever it is, the sending thread raises it
            self._problem = problem
            self._channel.stop(problem)
        with self._state:
            self._over = True
            self._state.notify_all()

    def _answer(self, message: Message) -> None:
        if not isinstance(message, _ANSWERS):
            raise ProtocolViolation("a message that no receiver sends")
        if message.id > self._last_id:
            raise ProtocolViolation("an answer about nothing of ours")
        outgoing = self._open.get(message.id)
        if outgoing is None or outgoing.settled:
            return  # it crossed our CANCEL
        if isinstance(message, Refuse):
            problem = Refused(message.code)
            if self._settle(outgoing):
                self._events.failed(outgoing.item, problem)
        elif isinstance(message, Receipt):
            self._check_receipt(outgoing, message)
            if self._settle(outgoing):
                self._events.delivered(outgoing.item, message)
        else:
            self._check_offset(outgoing, message)
        if not outgoing.unasked and not outgoing.begun:
            with self._state:
                self._todo.append((outgoing, message))
                self._state.notify_all()

    @staticmethod
    def _check_offset(outgoing: Outgoing, message: Accept | Check) -> None:
        """Raises ProtocolViolation for an offset that the receiver can't mean, or may not name any more."""
        if isinstance(message, Accept):
            may_be = message.offset in (0, outgoing.checked)
        else:
            may_be = not outgoing.unasked and 0 < message.size <= (outgoing.size or 0) and message.sha256 is None
        if not may_be or outgoing.asked or outgoing.accepted:
            raise ProtocolViolation("content wanted from where none was offered")
        outgoing.asked = isinstance(message, Check)
        outgoing.checks += outgoing.asked
        if outgoing.checks > CHECK_LIMIT:
            raise ProtocolViolation(f"more than {CHECK_LIMIT} CHECKs of one file")
        outgoing.accepted = not outgoing.asked and not outgoing.unasked

    @staticmethod
    def _check_receipt(outgoing: Outgoing, receipt: Receipt) -> None:
        """Raises IntegrityError when the receipt is not for what was sent, where it was to go.

        The receiver may choose another last name (`rename`, and always for accounts that may not look).
        """
        item = outgoing.item
        matches = len(receipt.path) == len(item.target) and receipt.path[:-1] == item.target[:-1]
        if receipt.outcome in ("folder", "skipped") or item.policy == "replace":
            matches = matches and receipt.path == item.target
        if receipt.outcome == "folder":
            matches = matches and outgoing.source is None
        elif receipt.outcome == "skipped":
            matches = matches and outgoing.source is not None and item.policy == "skip"
        else:
            whole = outgoing.digest.digest() if outgoing.checked and outgoing.checked == outgoing.size else None
            known = [digest for digest in (outgoing.sha256, item.sha256, whole) if digest is not None]
            matches = matches and receipt.sha256 in known
            matches = matches and receipt.size == outgoing.size
        if not matches:
            raise IntegrityError(f"the receipt for {item.name} does not match what was sent")
