"""What leaves on a channel: messages into records, sealed by workers, sent in order by one thread.

    producer: space, done, flush --> record --> queue --> worker: seal --> writer thread --> socket
    anybody: post --> answers ----> record ----^

Rules: one thread may produce, any may `post`. `post` never waits, so a consumer can always answer; `wait_until_read`
holds a consumer back while the other end leaves its answers unread. Records are numbered in the order of the queue. A
PING leaves after 10 s without a record. This module knows nothing of files, users and accounts.

Threads: `writer` runs `write`, from the start of the channel until its life lets nothing leave any more.
Locks: the channel's (`sft/wire/life.py`) guards the answers, their size, who gathers, the queue and its numbers. The
record that is being filled belongs to the producer, `bytes_sent` and the
line's speed to the writer; others read them.
"""

import contextlib
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from crypto_utils import TAG_SIZE, RecordCipher
from sft.common.errors import ConnectionTrouble
from sft.wire.compression import shrink
from sft.wire.life import Ending, Lifecycle, State
from sft.wire.messages import PING_MESSAGE
from sft.wire.protocol import HEADER_SIZE, PING_AFTER, RECORD_TEXT_LIMIT, WINDOW, frame_header
from sft.wire.silence import WatchedSocket
from sft.wire.sockets import lost
from sft.wire.workers import SMALL_RECORD, Buffers, Engine, Record

# Implementation constants: the other end does not notice them.
_MOST_ANSWERS = 4 * WINDOW
_MOST_ANSWER_BYTES = 16 << 20
# Of answers that may wait to leave while the consumer goes on: more than a sender ever posts, for if both ends waited,
# neither would read.
_UNREAD_BYTES = 1 << 20
_ANSWERS_RECORD = SMALL_RECORD + RECORD_TEXT_LIMIT // 2  # bytes of answers in one record, at most
_REMEMBERED = 0.75  # of the line's speed, at each record


class Shrinks(NamedTuple):
    """That the content of a message, from `at` to its end, is to be compressed.

    `tell(size, smaller, seconds)` gets the size of the content, that of its frame, and how long it took.
    """

    at: int
    tell: Callable[[int, int, float], None]

    def do(self, message: memoryview) -> int:
        """Compress it in place; how long the message is then."""
        started = time.perf_counter()
        size, smaller = shrink(message, self.at)
        self.tell(len(message) - self.at, smaller, time.perf_counter() - started)
        return size


class Outbox:
    """The sending side of a channel."""

    def __init__(self, life: Lifecycle, sock: WatchedSocket, secret: bytes, engine: Engine) -> None:
        self._life, self._sock, self._engine = life, sock, engine
        self._cipher = RecordCipher(secret)
        self._buffers = engine.buffers()
        life.ends(self._buffers)
        self._to_write = life.condition()  # the writer waits: something has come to be sent
        self._to_answer = life.condition()  # the consumer waits: answers have left
        self._filling: bytearray | None = None
        self._filled = 0
        self._answers: deque[bytes] = deque()
        self._answer_bytes = 0
        self._gathering = 0  # the thread whose answers wait for more of them
        self._queue: deque[Record] = deque()
        self._next_number = 0
        self._sent_lately = 0.0, 0.0  # bytes, and the seconds that they took; those of long ago count less
        self._sending = 0, 0.0  # bytes of the record that is being sent, and since when
        self.bytes_sent = 0
        self.bytes_posted = 0

    # --- for the producer of content ---

    def space(self, size: int) -> memoryview:
        """The next `size` bytes of the record that is being filled, or the first of a new one where they don't fit.

        Waits for a buffer. Raises what ended the channel.
        """
        self._life.check()
        if self._filled + size > RECORD_TEXT_LIMIT:
            self.flush()
        if self._filling is None:
            self._filling = self._buffers.take()
            if self._filling is None:
                self._life.check()
                raise lost()
        start = HEADER_SIZE + self._filled
        return memoryview(self._filling)[start : start + size]

    def done(self, size: int) -> None:
        """Count the first `size` bytes of the space to the record."""
        self._filled += size

    def flush(self, shrinks: Shrinks | None = None) -> None:
        """Put the record that is being filled into the queue. `shrinks`: it is one message, to be compressed first."""
        if self._filling is None or not self._filled:
            return
        with self._life.lock:
            self._put_in_queue(self._filled, self._filling, self._buffers, shrinks)
        self._filling, self._filled = None, 0

    def shrink(self, shrinks: Shrinks) -> int:
        """Compress the one message that is the record being filled now; its size then."""
        if self._filling is None:
            raise RuntimeError("a record that is not being filled")
        text = memoryview(self._filling)[HEADER_SIZE : HEADER_SIZE + self._filled]
        self._filled = shrinks.do(text)
        return self._filled

    @property
    def waiting(self) -> int:
        """How many records wait for the line."""
        return len(self._queue)

    @property
    def line_seconds(self) -> float:
        """How long the line takes for a byte, by the last records, and by the one that is being sent."""
        sent, seconds = self._sent_lately
        size, since = self._sending
        now = (time.monotonic() - since) / size if size else 0.0
        return max(now, seconds / sent if sent else 0.0)

    # --- for any thread ---

    def post(self, *messages: bytes) -> None:
        """Messages for the next record of answers. Raises what ended the channel, when more than the window is due."""
        with self._life.lock:
            size = sum(map(len, messages))
            if len(self._answers) <= _MOST_ANSWERS and self._answer_bytes + size <= _MOST_ANSWER_BYTES:
                self._answers.extend(messages)
                self._answer_bytes += size
                self.bytes_posted += size
                if self._gathering != threading.get_ident():
                    self._to_write.notify()
                return
        self._life.end(Ending.STOP, ConnectionTrouble("the other end asks and does not read", "Send it again"))
        self._life.check()

    def hurry(self) -> None:
        """Wake the writer for answers that were gathered."""
        if self._answers:
            with self._life.lock:
                self._to_write.notify()

    # --- for the consumer ---

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """What this thread posts leaves at the end of the block, or at a `hurry`: one record for many answers."""
        self._gathering = threading.get_ident()
        try:
            yield
        finally:
            self._gathering = 0
            self.hurry()

    def wait_until_read(self) -> None:
        """Return when few answers wait to leave.

        Raises what ended the channel, or ConnectionTrouble when the other end has closed: it reads no answer.
        """
        if self._answer_bytes <= _UNREAD_BYTES:
            return
        with self._life.lock:
            self._to_write.notify()
            while self._answer_bytes > _UNREAD_BYTES:
                self._life.check()
                if self._life.is_half_closed:
                    raise lost()
                self._to_answer.wait()

    # --- for the channel ---

    def write(self) -> None:
        """Send records in the order of the queue, until nothing more leaves. Raises ConnectionTrouble, OSError."""
        while (record := self._next_record()) is not None:
            try:
                record.finish()
                size = len(record.whole())
                started = time.monotonic()
                self._sending = size, started
                self._sock.send_all(record.whole())
                self._note_speed(size, time.monotonic() - started)
            finally:
                record.release()
            self.bytes_sent += size

    def _note_speed(self, size: int, seconds: float) -> None:
        sent, before = self._sent_lately
        self._sent_lately = sent * _REMEMBERED + size, before * _REMEMBERED + seconds
        self._sending = 0, 0.0

    def last_word(self, message: bytes) -> None:
        """Send `message` behind everything that was posted, however much that is."""
        with self._life.lock:
            self._answers.append(message)
            self._to_write.notify()

    def release(self) -> None:
        """Give back all buffers, once the writer has ended."""
        for record in self._queue:
            record.release()
        self._queue.clear()
        if self._filling is not None:
            self._buffers.give_back(self._filling)
            self._filling = None

    # --- the writer thread ---

    def _next_record(self) -> Record | None:
        """The next record of the queue; waits for one, and makes a PING of it after 10 s. None at the end."""
        ping_at = time.monotonic() + PING_AFTER
        with self._life.lock:
            while self._life.state.sends:
                if self._answers:
                    self._pack_answers()
                if self._queue:
                    return self._queue.popleft()
                if self._life.state is State.CLOSING:
                    return None
                left = ping_at - time.monotonic()
                if left > 0:
                    self._to_write.wait(left)
                else:
                    self._answers.append(PING_MESSAGE)
            return None

    def _pack_answers(self) -> None:
        """Answers into one record of their own, as many as fit; called with the lock held."""
        taken, size = [], 0
        while self._answers and size + len(self._answers[0]) <= _ANSWERS_RECORD:
            taken.append(self._answers.popleft())
            size += len(taken[-1])
        self._answer_bytes = max(0, self._answer_bytes - size)  # PING and a last word were not counted
        self._to_answer.notify()
        self._put_in_queue(size, bytearray(HEADER_SIZE) + b"".join(taken) + bytes(TAG_SIZE), None)

    def _put_in_queue(
        self, size: int, buffer: bytearray, buffers: Buffers | None, shrinks: Shrinks | None = None
    ) -> None:
        """Number the record, and let a worker begin with it; called with the lock held."""
        work = self._seal if shrinks is None else functools.partial(self._shrink_and_seal, shrinks)
        record = Record(self._next_number, size, work, buffer, buffers)
        record.start(self._engine)
        self._next_number += 1
        self._queue.append(record)
        self._to_write.notify()

    def _shrink_and_seal(self, shrinks: Shrinks, record: Record) -> None:
        """Its number is fixed already, its size is not: nothing of a record leaves before it is sealed."""
        record.size = shrinks.do(record.text())
        self._seal(record)

    def _seal(self, record: Record) -> None:
        header = frame_header(record.size + TAG_SIZE)
        record.buffer[:HEADER_SIZE] = header
        record.tag()[:] = self._cipher.seal(record.number, header, record.text())
