"""What arrives on a channel: records read in order by one thread, opened by workers, taken by the consumer.

    socket --> reader thread --> record --> queue --> worker: open --> consumer: take

Rules: the reader never waits for the writer. A frame's length meets its ceiling before a buffer of that size is taken.
A record is looked at only after its tag was found right. What nobody wants any more is read and thrown away, because
unread bytes at a close would turn into a reset that overtakes our last words. This module knows no message.

Threads: `reader` runs `read`, from the start of the channel until the other end has closed or the socket is shut.
Locks: the channel's (`sft/wire/life.py`) guards the queue. `bytes_received` belongs to the reader.
"""

from collections import deque

from crypto_utils import TAG_SIZE, RecordCipher
from sft.common.errors import ProtocolViolation
from sft.wire.life import Ending, Lifecycle
from sft.wire.protocol import HEADER_SIZE, RECORD_FRAME_LIMIT, frame_size
from sft.wire.silence import LOOK_EVERY, WatchedSocket
from sft.wire.sockets import lost
from sft.wire.workers import SMALL_RECORD, Engine, Record

_RECORDS_AHEAD = 64  # that may wait for the consumer; the other end does not notice it


class Inbox:
    """The receiving side of a channel."""

    def __init__(self, life: Lifecycle, sock: WatchedSocket, secret: bytes, engine: Engine) -> None:
        self._life, self._sock, self._engine = life, sock, engine
        self._cipher = RecordCipher(secret)
        self._buffers = engine.buffers()
        life.ends(self._buffers)
        self._to_take = life.condition()  # the consumer waits: a record has arrived
        self._to_read = life.condition()  # the reader waits: another record fits into the queue
        self._queue: deque[Record] = deque()
        self.bytes_received = 0

    # --- for the consumer ---

    @property
    def is_idle(self) -> bool:
        """Whether the consumer would have to wait for the next record."""
        return not self._queue and self._life.state.delivers

    def take(self) -> Record:
        """The next record, to be finished and released; waits for it.

        Raises what ended the channel, or ConnectionTrouble when the other end has closed.
        """
        with self._life.lock:
            while not (self._queue and self._life.state.delivers):
                if self._life.is_half_closed:
                    self._life.end(Ending.STOP, lost())
                self._life.check()
                self._to_take.wait()
            self._to_read.notify()
            return self._queue.popleft()

    # --- for the channel ---

    def read(self) -> None:
        """Put each record into the queue while it may be delivered, and throw away what comes then.

        Raises ConnectionTrouble, OSError.
        """
        try:
            self._read_records()
        except ProtocolViolation as problem:  # there is still something to be said to the other end
            self._life.end(Ending.STOP, problem)
        scratch = memoryview(bytearray(SMALL_RECORD))
        while self._life.state.sends and self._sock.receive_into(scratch):
            pass
        self._life.half_close()

    def release(self) -> None:
        """Give back all buffers, once the reader has ended."""
        for record in self._queue:
            record.release()
        self._queue.clear()

    # --- the reader thread ---

    def _read_records(self) -> None:
        number = 0
        header = bytearray(HEADER_SIZE)
        while self._fill(memoryview(header)):
            size = frame_size(header, TAG_SIZE + 1, RECORD_FRAME_LIMIT) - TAG_SIZE
            record = self._begin_record(number, size)
            if record is None:
                return
            try:
                record.buffer[:HEADER_SIZE] = header
                if not self._fill(record.whole()[HEADER_SIZE:]):
                    raise lost()
                record.start(self._engine)
                self.bytes_received += len(record.whole())
                self._put_in_queue(record)
            except BaseException:
                record.release()
                raise
            number += 1

    def _begin_record(self, number: int, size: int) -> Record | None:
        """A record to be read into; waits for a buffer if it is large. None when it would not be delivered."""
        if not self._life.state.delivers:
            return None
        if size <= SMALL_RECORD:
            return Record(number, size, self._open, bytearray(HEADER_SIZE + size + TAG_SIZE), None)
        buffer = self._buffers.take(self._sock.look)
        return None if buffer is None else Record(number, size, self._open, buffer, self._buffers)

    def _fill(self, view: memoryview) -> bool:
        """Receive until `view` is full. False when the other end has closed before its first byte."""
        got = 0
        while got < len(view):
            count = self._sock.receive_into(view[got:])
            if not count:
                if got:
                    raise lost()
                return False
            got += count
        return True

    def _put_in_queue(self, record: Record) -> None:
        with self._life.lock:
            while len(self._queue) >= _RECORDS_AHEAD and self._life.state.delivers:
                self._to_read.wait(LOOK_EVERY)
                self._sock.look()
            self._queue.append(record)
            self._to_take.notify()

    def _open(self, record: Record) -> None:
        self._cipher.open(record.number, record.header(), record.text(), record.tag())
