"""Messages over sealed records, both ways beside each other, once the login is done.

    producer -> buffer -> seal (workers) -> writer thread -> socket -> reader thread -> open (workers) -> consumer

Rules: the reader thread never waits for the writer; `post` never waits, so a consumer may always answer, but it gets no
further message while the other end leaves too many answers unread. A frame's length meets its ceiling before a buffer
of that size is taken. A record is looked at only after its tag was found right. The first failure ends all of it, once,
and is what every caller gets. Silence is noticed by `sft/wire/silence.py`, in every state, and broken by PING. This
module knows nothing of files, users and accounts.
"""

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

from crypto_utils import TAG_SIZE, RecordCipher
from sft.common.errors import Code, ConnectionTrouble, PeerStopped, ProtocolViolation, TransferError, forget_frames
from sft.wire.messages import (
    BYE_MESSAGE,
    DATA_HEADER_SIZE,
    PING_MESSAGE,
    Bye,
    Error,
    Kind,
    Message,
    decode_message,
    split_record,
    write_data_header,
)
from sft.wire.protocol import (
    HEADER_SIZE,
    PING_AFTER,
    RECORD_FRAME_LIMIT,
    RECORD_TEXT_LIMIT,
    WINDOW,
    frame_header,
    frame_size,
)
from sft.wire.record import Record
from sft.wire.silence import LOOK_EVERY, Silence
from sft.wire.sockets import lost
from sft.wire.workers import Engine

_OURS = frozenset([Kind.PING, Kind.ERROR, Kind.BYE])  # the channel's own business

# Implementation constants: the other end does not notice them.
_INLINE = 32 * 1024  # a record up to this size is not worth a worker nor a large buffer
_RECORDS_AHEAD = 64
_MOST_ANSWERS = 4 * WINDOW
_MOST_ANSWER_BYTES = 16 << 20
# Of answers that may wait to leave while the consumer goes on: more than a sender ever posts, for if both ends waited,
# neither would read.
_UNREAD_BYTES = 1 << 20
_DRAIN_SECONDS = 2.0


class Channel:
    """Messages over records. One thread may produce content, one may consume; any may `post`."""

    def __init__(self, sock: socket.socket, send_secret: bytes, receive_secret: bytes, engine: Engine) -> None:
        self._sock, self._engine = sock, engine
        self._sealer, self._opener = RecordCipher(send_secret), RecordCipher(receive_secret)
        # One lock, and a condition for each thread that waits under it, so that none is woken for another's sake.
        self._lock = threading.RLock()
        self._to_write = threading.Condition(self._lock)  # the writer: something has come to be sent
        self._to_take = threading.Condition(self._lock)  # the consumer: something has arrived, or left
        self._to_read = threading.Condition(self._lock)  # the reader: there is room for another record
        self._error: BaseException | None = None  # what every caller gets
        self._broken = False  # nothing can be sent or received any more
        self._is_cut = False  # what has arrived is not wanted any more
        # sending
        self._out = engine.lease()
        self._current: bytearray | None = None
        self._filled = 0
        self._answers: deque[bytes] = deque()
        self._answer_bytes = 0
        self._consumer = 0  # the thread that is at a message: its answers gather until it is through with the record
        self._sending: deque[Record] = deque()
        self._next_sent = 0
        self._no_more = False
        # receiving
        self._in = engine.lease()
        self._arrived: deque[Record] = deque()
        self._ended = False  # the other end has closed, or is not listened to any more
        self.bytes_sent = 0
        self.bytes_posted = 0  # in messages that did not have to wait
        self.bytes_received = 0

        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._silence = Silence(sock)
        self._reader = threading.Thread(target=self._guarded, args=(self._read_all,), name="reader", daemon=True)
        self._writer = threading.Thread(target=self._guarded, args=(self._write_all,), name="writer", daemon=True)
        self._reader.start()
        self._writer.start()

    # --- for everybody ---

    def post(self, *messages: bytes) -> None:
        """Send small messages soon, without waiting. The protocol's window bounds the queue of an honest peer.

        What the consumer posts at a record leaves when it is through with that, or calls `hurry`: one record for many
        answers. Raises what ended the channel, when more than the window is due.
        """
        size = sum(map(len, messages))
        with self._lock:
            self.bytes_posted += size
            self._answer_bytes += size
            full = len(self._answers) > _MOST_ANSWERS or self._answer_bytes > _MOST_ANSWER_BYTES
            if not full:
                self._answers.extend(messages)
                if self._consumer != threading.get_ident():
                    self._to_write.notify()
        if full:
            self.stop(ConnectionTrouble("the other end asks and does not read", "Send it again"))
            self.check()

    def hurry(self) -> None:
        """Let what was posted leave now: the consumer is going to be busy with something else."""
        if self._answers:
            with self._lock:
                self._to_write.notify()

    def fail(self, problem: BaseException) -> None:
        """End both directions with `problem`, unless an earlier one has; every waiting thread wakes up."""
        with self._lock:
            self._broken = True
        self.stop(problem)
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def stop(self, problem: BaseException) -> None:
        """Let every caller get `problem`, unless an earlier one came; the socket is left for a last word by `close`."""
        with self._lock:
            if self._error is None:
                self._error = problem
            self._wake_all()
        for lease in (self._out, self._in):
            self._engine.budget.end(lease)

    def cut(self, problem: BaseException) -> None:
        """Like `stop`, and what has arrived already is not looked at any more."""
        self._is_cut = True
        self.stop(problem)

    def _wake_all(self) -> None:
        """With the lock held: something has ended."""
        for condition in (self._to_write, self._to_take, self._to_read):
            condition.notify_all()

    @property
    def ended(self) -> bool:
        """Whether something has ended the channel."""
        return self._error is not None

    def check(self) -> None:
        """Raise what ended the channel, if anything did."""
        if self._error is not None:
            raise self._error

    def close(self, code: Code | None = None) -> None:
        """Send what is posted (and ERROR with `code`), end the sending side, drain, close. Never raises."""
        with self._lock:
            if self._no_more:
                return
            if code is not None:
                self._answers.append(Error(code).encode())
            self._no_more = True
            self._wake_all()
        self._writer.join(_DRAIN_SECONDS)
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        self.stop(lost())
        self._reader.join(_DRAIN_SECONDS)  # it throws away what still arrives
        self.fail(lost())
        self._reader.join(_DRAIN_SECONDS)
        self._writer.join(_DRAIN_SECONDS)
        self._give_back_all()
        self._sock.close()
        if self._error is not None:
            forget_frames(self._error)

    def _give_back_all(self) -> None:
        with self._lock:
            left = [(self._out, record) for record in self._sending] + [(self._in, record) for record in self._arrived]
            self._sending.clear()
            self._arrived.clear()
        for lease, record in left:
            if record.future is not None and not record.future.cancel():
                with contextlib.suppress(TransferError):
                    record.future.result()  # no worker may touch a buffer that is somebody else's already
            if record.leased:
                self._engine.budget.give_back(lease, record.buffer)
        if self._current is not None:
            self._engine.budget.give_back(self._out, self._current)
            self._current = None

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as problem:
            self.fail(lost(problem))
        except BaseException as problem:  # any other error in a stage is the connection's, too
            self.fail(problem)

    def _begin(self, work: Callable[[Record], None], record: Record) -> None:
        """Let a worker do that. Raises what ended the channel, when the engine is closed."""
        with contextlib.suppress(RuntimeError):
            record.future = self._engine.pool.submit(work, record)
            return
        self.stop(lost())
        self.check()

    def _have_done(self, work: Callable[[Record], None], record: Record) -> None:
        """Wait for the worker that has begun it, or do it here. Raises like `_begin`, and what `work` does."""
        if record.future is None:
            work(record)
            return
        with contextlib.suppress(CancelledError):
            record.future.result()
            return
        self.stop(lost())
        self.check()

    def _release(self, record: Record) -> None:
        if record.leased:
            self._engine.budget.give_back(self._in, record.buffer)

    # --- for the producer of content ---

    def send(self, message: bytes) -> None:
        """Send a message in order with the content. Raises what ended the channel."""
        self.room(len(message))[:] = message
        self._filled += len(message)

    def done(self, size: int) -> None:
        """The first `size` bytes of the room are messages."""
        self._filled += size

    def content_room(self, size: int) -> memoryview:
        """A view of `size` bytes to be filled with content, then named by `content_done`."""
        return self.room(DATA_HEADER_SIZE + size)[DATA_HEADER_SIZE:]

    def content_done(self, id: int, offset: int, size: int) -> None:
        """The first `size` bytes of the room are content of `id` at `offset`."""
        write_data_header(self.room(DATA_HEADER_SIZE), id, offset, size)
        self._filled += DATA_HEADER_SIZE + size

    def flush(self) -> None:
        """Let what was sent so far leave; call it before waiting for an answer."""
        if self._current is None or not self._filled:
            return
        with self._lock:
            self._seal_later(self._current, self._filled, leased=True)
            self._current, self._filled = None, 0

    def room(self, size: int) -> memoryview:
        """A view of `size` bytes to be filled with whole messages, back to back, then named by `done`.

        They are behind what the current record holds, or at the front of a fresh one.
        """
        if self._error is not None:
            raise self._error
        if self._filled + size > RECORD_TEXT_LIMIT:
            self.flush()
        if self._current is None:
            self._current = self._engine.budget.take(self._out)
            if self._current is None:
                self.check()
                raise lost()
        start = HEADER_SIZE + self._filled
        return memoryview(self._current)[start : start + size]

    def _seal_later(self, buffer: bytearray, size: int, leased: bool) -> None:
        """Give the record the next number and put it in line; called with the lock held."""
        record = Record(buffer, size, self._next_sent, leased)
        if size > _INLINE:
            self._begin(self._seal, record)
        self._next_sent += 1  # not before: the number of a record that never leaves belongs to the last word
        self._sending.append(record)
        self._to_write.notify()

    def _seal(self, record: Record) -> None:
        header = frame_header(record.size + TAG_SIZE)
        record.buffer[:HEADER_SIZE] = header
        record.tag()[:] = self._sealer.seal(record.number, header, record.text())

    # --- the writer thread ---

    def _write_all(self) -> None:
        last = time.monotonic()
        while (record := self._next_record(last)) is not None:
            try:
                self._have_done(self._seal, record)
                self._silence.send_all(record.whole())
            finally:
                if record.leased:
                    self._engine.budget.give_back(self._out, record.buffer)
            last = time.monotonic()
            self.bytes_sent += HEADER_SIZE + record.size + TAG_SIZE

    def _next_record(self, last: float) -> Record | None:
        """The next record in line; waits for one, and makes a PING after 10 s without. None at the end."""
        with self._lock:
            while True:
                if self._broken:
                    return None
                if self._answers:
                    self._pack_answers()
                if self._sending:
                    return self._sending.popleft()
                if self._no_more:
                    return None
                left = last + PING_AFTER - time.monotonic()
                if left <= 0:
                    self._answers.append(PING_MESSAGE)
                else:
                    self._to_write.wait(left)

    def _pack_answers(self) -> None:
        """Answers into one record of their own, as many as fit."""
        taken, size = [], 0
        while self._answers and size + len(self._answers[0]) <= _INLINE + RECORD_TEXT_LIMIT // 2:
            taken.append(self._answers.popleft())
            size += len(taken[-1])
        self._answer_bytes = max(0, self._answer_bytes - size)
        self._to_take.notify()
        buffer = bytearray(HEADER_SIZE) + b"".join(taken) + bytes(TAG_SIZE)
        self._seal_later(buffer, size, leased=False)

    # --- the reader thread ---

    def _read_all(self) -> None:
        try:
            self._read_records()
        except ProtocolViolation as problem:  # there is still something to be said to the other end
            self.stop(problem)
        scratch = memoryview(bytearray(_INLINE))
        while not self._broken and self._silence.receive_into(scratch):
            pass  # nobody wants it, but unread bytes at a close would turn into a reset
        with self._lock:
            self._ended = True
            self._wake_all()

    def _read_records(self) -> None:
        """Put each record in line until the other end closes, or until nobody wants any more."""
        number = 0
        header = bytearray(HEADER_SIZE)
        while self._fill(memoryview(header)):
            size = frame_size(header, TAG_SIZE + 1, RECORD_FRAME_LIMIT) - TAG_SIZE
            leased = size > _INLINE
            buffer = self._leased_to_read() if leased else bytearray(HEADER_SIZE + size + TAG_SIZE)
            if buffer is None:
                return
            buffer[:HEADER_SIZE] = header
            record = Record(buffer, size, number, leased)
            number += 1
            if self._no_more:
                self._release(record)
                return
            try:
                if not self._fill(record.whole()[HEADER_SIZE:]):
                    raise lost()
                if leased:
                    self._begin(self._open, record)
            except BaseException:
                self._release(record)
                raise
            self.bytes_received += HEADER_SIZE + size + TAG_SIZE
            with self._lock:
                while len(self._arrived) >= _RECORDS_AHEAD and not self._broken and not self._no_more:
                    self._to_read.wait(LOOK_EVERY)
                    self._silence.look()
                self._arrived.append(record)
                self._to_take.notify()

    def _leased_to_read(self) -> bytearray | None:
        """A large buffer; None when nothing more is to be read."""
        return self._engine.budget.take(self._in, self._silence.look)

    def _fill(self, view: memoryview) -> bool:
        """Receive until `view` is full. False when the other end has closed before its first byte."""
        got = 0
        while got < len(view):
            count = self._silence.receive_into(view[got:])
            if not count:
                if got:
                    raise lost()
                return False
            got += count
        return True

    def _open(self, record: Record) -> None:
        self._opener.open(record.number, record.header(), record.text(), record.tag())

    # --- for the consumer ---

    def messages(self) -> Iterator[tuple[Message, memoryview] | None]:
        """Each message with its raw body, good until the next is asked for; None when no complete record waits.

        Ends with the other end's BYE. Raises ConnectionTrouble for an end without one, PeerStopped for its ERROR,
        IntegrityError for a record that fails its authentication, ProtocolViolation.
        """
        while True:
            self._consumer = threading.get_ident()
            if not self._arrived and not self._is_cut:
                yield None
            self._consumer = 0
            self.hurry()
            record = self._wait_for_record()
            self._consumer = threading.get_ident()
            try:
                self._have_done(self._open, record)
                said_bye = False
                for kind, body in split_record(record.text()):
                    if self._is_cut:
                        self.check()
                    if said_bye:
                        raise ProtocolViolation("a message behind BYE")
                    message = decode_message(kind, body)
                    if kind not in _OURS:
                        if self._answer_bytes > _UNREAD_BYTES:
                            self._wait_until_answers_left()
                        yield message, body
                    elif isinstance(message, Error):
                        raise PeerStopped(message.code)
                    elif isinstance(message, Bye):
                        said_bye = True
                if said_bye:
                    return
            except BaseException as problem:
                if isinstance(problem, TransferError):
                    self.stop(problem)
                raise
            finally:
                self._consumer = 0
                self.hurry()
                self._release(record)

    def _wait_for_record(self) -> Record:
        with self._lock:
            while not self._arrived:
                if self._ended and self._error is None:
                    self._error = lost()
                self.check()
                self._to_take.wait()
            record = self._arrived.popleft()
            self._to_read.notify()
            return record

    def _wait_until_answers_left(self) -> None:
        """Raises what ended the channel, or ConnectionTrouble when the other end has closed: it reads no answer."""
        with self._lock:
            self._to_write.notify()
            while self._answer_bytes > _UNREAD_BYTES:
                self.check()
                if self._ended:
                    raise lost()
                self._to_take.wait()

    def say_bye(self) -> None:
        """Nothing more comes from this end."""
        self.flush()
        self.post(BYE_MESSAGE)
