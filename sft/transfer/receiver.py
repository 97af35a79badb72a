"""The receiving half of a transfer: judging, comparing, writing, verifying, publishing in groups, receipts.

Rules: it always reads and its answers never wait; the window bounds them. Digest and HMAC are computed over what was
written, from a file's first byte to its last, and nothing is published before both are right. Whatever ends the
connection, what is not whole stays hidden, and is kept only where it can be resumed. The server receives so, and the
client when it asked to GET. This module knows no socket, no address and no account: it is given the function that says
whether and where a file may arrive.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from crypto_utils import Mac, equal
from sft.common.errors import Code, ProtocolViolation, Refused
from sft.common.open_files import few_left_from
from sft.common.rate_limit import RateLimiter, limited
from sft.disk.folders import ExistingFile
from sft.disk.temporary import DeliveredBefore, Incoming, Settled, TemporaryFile, Unpublished, end_file
from sft.transfer.answers import Answers
from sft.transfer.arriving import Arriving
from sft.transfer.batches import Batches
from sft.transfer.events import (
    IDLE,
    CutOff,
    Missed,
    NotGiven,
    Progress,
    ReceiveEvent,
    Rejected,
    Resumed,
    Started,
    TimeLost,
    Withdrawn,
)
from sft.transfer.groups import Begun, Folder, Groups, Published
from sft.transfer.hashing import Hashing
from sft.transfer.places import Places, Share
from sft.transfer.states import Receiving
from sft.wire.batch import Batch, content_of
from sft.wire.channel import Arrived, Channel
from sft.wire.content import Data
from sft.wire.messages import (
    BYE_MESSAGE,
    FILE,
    FOLDER,
    LINK,
    Accept,
    Cancel,
    Check,
    End,
    Kind,
    Message,
    Misnamed,
    Omitted,
    Put,
    Refuse,
    file_mac_begin,
)
from sft.wire.protocol import CHECK_LIMIT, OPEN_LIMIT, WINDOW

if TYPE_CHECKING:
    from hashlib import _Hash


class Receiver:
    """Receives over one channel into one folder, in the calling thread."""

    def __init__(
        self,
        channel: Channel,
        messages: Iterator[Arrived | None],
        file_secret: bytes,
        folder: Folder,
        place: Callable[[Put | Misnamed], Incoming],
        on_event: Callable[[ReceiveEvent], None],
        limiter: RateLimiter,
        share: Share | None = None,
        zstd: bool = True,
        links: bool = True,
    ) -> None:
        """`place(put)` says where a PUT lands. It raises Refused for that one and each Misnamed, or Ended for all.

        `zstd`: whether content may come compressed; `links`: whether links may come.
        """
        self._channel, self._mac, self._folder = channel, Mac(file_secret), folder
        self._messages = limited(channel, messages, limiter, content_of)
        self._place, self._on_event, self._limiter = place, on_event, limiter
        self._zstd, self._links = zstd, links
        self._share = share or Places().of("")
        self._unplaced: deque[tuple[int, Arriving]] = deque()  # those that wait for one; they are not answered yet
        self._open: dict[int, Arriving] = {}
        self._complete = Groups(folder)
        self._batches = Batches(channel, self._mac, folder, place, on_event, self._complete, self._answer_all)
        self._few_left = few_left_from()  # descriptors
        self._last_id = 0
        self._answers = Answers(channel, on_event)
        self._hashing = Hashing(lambda: channel.ended)

    def run(self, first: Arrived | None = None) -> None:
        """Take what is sent until the sender's BYE, then say ours. Raises ConnectionTrouble, IntegrityError, Ended."""
        try:
            if first is not None:
                self._take(*first)
            for arrived in self._messages:
                if arrived is None:
                    self._publish()
                    self._on_event(IDLE)
                else:
                    self._take(*arrived)
                if self._unplaced or arrived is None:
                    self._begin_unplaced()
            if self._open:
                raise ProtocolViolation("BYE before the end of a file")
            posted = self._channel.bytes_posted
            self._publish()
            for path in self._folder.finish_folders():
                self._on_event(TimeLost(path))
            self._limiter.spend(self._channel.bytes_posted - posted, self._channel.hurry)
            self._channel.post(BYE_MESSAGE)
        except BaseException:
            if not (self._open or len(self._complete)):
                self._folder.finish_folders()  # everything that was announced is there: only BYE was lost
            raise
        finally:
            self._keep_what_can_be_resumed()

    def _keep_what_can_be_resumed(self) -> None:
        self._share.keep(0)
        self._hashing.stop()  # before its descriptors are closed
        complete = self._complete.unpublished()
        with contextlib.ExitStack() as ends:  # each of them, whatever goes wrong with another
            ends.callback(self._batches.cut_off)
            for owner, at, file in reversed(complete):
                ends.callback(self._keep, owner.put_at(at), file)
            for arriving in reversed(self._open.values()):
                if arriving.partial is not None:
                    ends.callback(self._keep, arriving.put, arriving.partial)

    def _keep(self, put: Put, partial: Unpublished) -> None:
        kept = partial.keep()
        if put.kind != FOLDER:
            self._on_event(CutOff(put, partial.size, kept))

    def _take(self, message: Message, body: memoryview) -> None:
        if not self._zstd and isinstance(message, Data | Batch) and message.is_frame:
            raise ProtocolViolation("compressed content that was not asked for")
        if not self._links and isinstance(message, Put) and message.kind == LINK:
            raise ProtocolViolation("a link that was not asked for")
        if isinstance(message, Data):
            self._data(message)
        elif isinstance(message, Batch):
            self._announced(message.id, len(message.files))
            self._batches.take(message)
        elif isinstance(message, Put):
            self._put(message, bytes(body))
        elif isinstance(message, Misnamed) and message.kind is Kind.PUT:
            self._misnamed(message)
        elif isinstance(message, End):
            self._end(message)
        elif isinstance(message, Check):
            self._compare(message)
        elif isinstance(message, Cancel):
            self._cancel(message)
        elif isinstance(message, Refuse):
            self._on_event(NotGiven(message.id, Refused(message.code)))
        elif isinstance(message, Omitted):
            self._on_event(Missed(message))
        else:
            raise ProtocolViolation("a message that no sender sends")

    def _opened(self, id: int) -> Arriving:
        arriving = self._open.get(id)
        if arriving is None:
            raise ProtocolViolation("a message about a file that was not announced")
        return arriving

    # --- PUT and what is there already ---

    def _announced(self, id: int, count: int = 1) -> None:
        """Raises ProtocolViolation for an id that may not come now; `count`: of its files."""
        if id <= self._last_id:
            raise ProtocolViolation("an id that is not higher than the last")
        self._last_id = id
        if len(self._open) + len(self._complete) + self._batches.settled + count > WINDOW:
            raise ProtocolViolation("more files under way than the window holds")
        if len(self._open) >= OPEN_LIMIT:
            raise ProtocolViolation("more files begun and not ended than may be")

    def _misnamed(self, put: Misnamed) -> None:
        """Refuse a path that is not allowed; no more than its id is kept."""
        self._announced(put.id)
        try:
            self._place(put)
        except Refused as problem:
            if put.is_open:
                self._open[put.id] = arriving = Arriving(None)
                arriving.sent(Kind.REFUSE)
            self._on_event(Rejected(put, problem))
            self._channel.post(Refuse(put.id, problem.code).encode())
            return
        raise RuntimeError("a name that is not allowed got a place")

    def _put(self, put: Put, body: bytes) -> None:
        self._announced(put.id)
        is_file = put.kind == FILE
        arriving = Arriving(put, body, self._mac.begin(*file_mac_begin(body)) if is_file else None)
        if is_file:
            self._open[put.id] = arriving
        try:
            incoming = arriving.incoming = self._place(put)
            if put.kind == FOLDER:
                self._is_whole(arriving, self._folder.begin_folder(incoming))
                return
            if put.target is not None:
                self._is_whole(arriving, self._folder.begin_link(incoming, put.target))
                return
            self._on_event(Started(put, put.size))
            if not arriving.is_small and (self._unplaced or not self._share.take_for(arriving)):
                self._unplaced.append((put.id, arriving))
                return
            self._begun(arriving, self._folder.begin(incoming, arriving.is_resumable))
        except Refused as problem:
            self._answers.refuse(arriving, problem)

    def _begin_unplaced(self) -> None:
        """Begin those that waited for a place, in their order, as long as there are places."""
        self._share.free_unneeded()
        while self._unplaced:
            id, arriving = self._unplaced[0]
            incoming = arriving.incoming
            if incoming is not None and self._open.get(id) is arriving:  # else it was cancelled
                if not self._share.take_for(arriving):
                    if all(each.is_small for each in self._complete):
                        return
                    self._publish()  # what is whole gives its place back
                    if not self._share.take_for(arriving):
                        return
                try:
                    self._begun(arriving, self._folder.begin(incoming, arriving.is_resumable))
                except Refused as problem:
                    self._answers.refuse(arriving, problem)
            self._unplaced.popleft()

    def _begun(self, arriving: Arriving, begun: Begun) -> None:
        """Go on with what the folder has said."""
        if isinstance(begun, Settled):
            self._answers.receipt(arriving, begun, begun.word)
        elif isinstance(begun, ExistingFile):
            arriving.existing = self._hashing.of_existing(arriving, begun)
            self._ask(arriving, begun.size)
        elif isinstance(begun, DeliveredBefore):
            arriving.before = begun.settled
            self._ask(arriving, begun.settled.size)
        else:
            arriving.partial = begun
            if begun.descriptor >= self._few_left:
                self._publish()  # what is whole gives its descriptors back
            self._offer(arriving, begun)

    def _offer(self, arriving: Arriving, partial: TemporaryFile) -> None:
        """Ask for the digest of what was kept; without anything kept, ask for the content."""
        if partial.offers and arriving.checks < CHECK_LIMIT:
            size = partial.offers[0]
            arriving.kept = self._hashing.of_kept(arriving, partial, size)
            self._ask(arriving, size)
        else:
            self._accept(arriving, partial, 0)

    def _ask(self, arriving: Arriving, size: int) -> None:
        arriving.sent(Kind.CHECK)
        arriving.check_size = size
        arriving.checks += 1
        self._channel.post(Check(arriving.put.id, size, None).encode())

    def _accept(self, arriving: Arriving, partial: TemporaryFile, offset: int) -> None:
        arriving.sent(Kind.ACCEPT)
        if arriving.is_resumable:
            partial.resume_from(offset)
        arriving.size = offset
        if offset:
            self._on_event(Resumed(arriving.put, offset))
        if not arriving.is_small:
            self._channel.post(Accept(arriving.put.id, offset).encode())

    def _compare(self, check: Check) -> None:
        """The sender's digest of as many bytes as were asked for."""
        arriving = self._opened(check.id)
        arriving.got(Kind.CHECK)
        if check.size != arriving.check_size or check.sha256 is None:
            raise ProtocolViolation("CHECK of another size than was asked for, or without a digest")
        self._channel.hurry()  # our own reading may still take a while
        try:
            if arriving.before is not None:
                self._compare_existing(arriving, check.sha256, arriving.before.sha256 or b"")
            elif arriving.existing is not None:
                ours = arriving.existing.result()
                self._channel.check()  # a reading that was stopped has no digest worth comparing
                self._compare_existing(arriving, check.sha256, ours)
            elif arriving.partial is not None and arriving.kept is not None:
                kept = arriving.kept.result()
                self._channel.check()
                self._compare_kept(arriving, arriving.partial, check, kept)
        except Refused as problem:
            self._answers.refuse(arriving, problem)

    def _compare_existing(self, arriving: Arriving, theirs: bytes, ours: bytes) -> None:
        before, arriving.before, arriving.existing = arriving.before, None, None
        incoming = arriving.incoming
        if incoming is None:
            raise RuntimeError("compared before it was placed")
        if equal(theirs, ours):
            path = incoming.path if before is None else before.path
            self._answers.receipt(arriving, Settled(path, size=arriving.put.size or 0, sha256=ours), "already")
        else:
            self._begun(arriving, self._folder.begin_anyway(incoming, arriving.is_resumable))

    def _compare_kept(self, arriving: Arriving, partial: TemporaryFile, check: Check, ours: "_Hash") -> None:
        arriving.kept = None
        if check.sha256 is not None and equal(check.sha256, ours.digest()):
            arriving.digest = ours
            self._accept(arriving, partial, check.size)
        else:  # torn by a power cut, or the source has changed: try less, then start again
            partial.offers = partial.offers[1:]
            self._offer(arriving, partial)

    # --- content ---

    def _data(self, data: Data) -> None:
        arriving = self._opened(data.id)
        arriving.count(data)
        if arriving.partial is None:
            return
        try:
            if arriving.put.size is not None and arriving.size > arriving.put.size:
                raise Refused(Code.SIZE, why="more than was announced")
            arriving.write(data, arriving.partial)
        except Refused as problem:
            self._answers.refuse(arriving, problem)
            return
        if not arriving.is_small and self._complete.has_flushed:
            self._answer_all(self._complete.publish_flushing())  # it may be long until another group is full
        self._on_event(Progress(arriving.put, data.size))

    def _end(self, end: End) -> None:
        arriving = self._opened(end.id)
        arriving.got(Kind.END)
        del self._open[end.id]
        partial = arriving.partial
        if partial is None:
            return
        try:
            partial.sha256 = arriving.verify(end, self._mac)
        except Refused as problem:
            self._answers.refuse(arriving, problem)
            return
        self._is_whole(arriving, partial)

    def _is_whole(self, arriving: Arriving, file: Unpublished) -> None:
        """It is published with its group."""
        self._complete.add(arriving, file)
        if self._complete.is_full:
            self._answer_all(self._complete.flush_ahead())
        elif file.descriptor >= self._few_left:
            self._publish()

    def _cancel(self, cancel: Cancel) -> None:
        arriving = self._opened(cancel.id)
        put = None if arriving.got(Kind.CANCEL) is Receiving.DEAF else arriving.put
        del self._open[cancel.id]
        arriving.withdraw()
        if arriving.partial is not None:
            end_file(arriving.partial, cancel.code)
        if put is not None:
            self._on_event(Withdrawn(put, cancel.code))

    # --- answers ---

    def _publish(self) -> None:
        self._answer_all(self._complete.publish())

    def _answer_all(self, published: Iterator[Published]) -> None:
        """Answer each group before the next one is waited for: the disk may take a while."""
        self._channel.hurry()
        for group in published:
            self._answers.group(group, self._batches)
            self._on_event(IDLE)
            self._channel.hurry()
