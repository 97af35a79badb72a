"""Messages over sealed records, both ways at once, after the login: an outbox and an inbox with one life.

    producer --> outbox --> socket --> the other end's inbox --> consumer

Rules: one thread may produce and one may consume, any may `post`. The first error ends both directions, once, and is
what every caller gets; `sft/wire/life.py` says what still happens after it. Silence is noticed in every state
(`sft/wire/silence.py`). This module knows nothing of files, users and accounts.

Threads: it starts the outbox's `writer` and the inbox's `reader`; `close` ends both and waits for them.
Locks: one, the lifecycle's, for the channel, its outbox and its inbox.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Generator, Iterator

from sft.common.errors import Code, PeerStopped, ProtocolViolation, TransferError
from sft.wire.batch import content_of
from sft.wire.content import DATA_HEADER_SIZE, write_data_header, zeros_message
from sft.wire.inbox import Inbox
from sft.wire.life import Ending, Lifecycle
from sft.wire.messages import (
    BYE_MESSAGE,
    Bye,
    Error,
    Kind,
    Message,
    decode_message,
    split_record,
)
from sft.wire.outbox import Outbox, Shrinks
from sft.wire.protocol import RECORD_CONTENT_LIMIT
from sft.wire.silence import WatchedSocket
from sft.wire.sockets import lost
from sft.wire.workers import Engine

_OURS = frozenset([Kind.PING, Kind.ERROR, Kind.BYE])  # messages to the channel itself
_DRAIN_SECONDS = 2.0
# What the system buffers beyond what is on the line: as much as a record. With its usual megabytes a slow line looks
# fast for seconds, and what could be compressed leaves as it is (64 MiB of logs at 20 Mbit/s: 14.4 against 8.6 s).
_UNSENT_BYTES = 1 << 20

Arrived = tuple[Message, memoryview]


class Channel:
    """Messages over records. One thread may produce content, one may consume; any may `post`."""

    def __init__(self, sock: socket.socket, send_secret: bytes, receive_secret: bytes, engine: Engine) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        self._sock, self._life, watched = sock, Lifecycle(), WatchedSocket(sock)
        self._outbox = Outbox(self._life, watched, send_secret, engine)
        self._inbox = Inbox(self._life, watched, receive_secret, engine)
        self._reader = threading.Thread(target=self._run, args=(self._inbox.read,), name="reader", daemon=True)
        self._writer = threading.Thread(target=self._run, args=(self._outbox.write,), name="writer", daemon=True)
        self._reader.start()
        self._writer.start()

    def _run(self, work: Callable[[], None]) -> None:
        """One of the two threads; whatever it meets ends the channel."""
        try:
            work()
        except OSError as problem:
            self.fail(lost(problem))
        except BaseException as problem:
            self.fail(problem)

    # --- for any thread ---

    def post(self, *messages: bytes) -> None:
        """Send small messages soon, without waiting. The protocol's window bounds the queue of an honest peer.

        What the consumer posts at a record leaves when it is through with that, or calls `hurry`: one record for many
        answers. Raises what ended the channel, when more than the window is due.
        """
        self._outbox.post(*messages)

    def hurry(self) -> None:
        """Let what was posted leave now: the consumer is going to be busy with something else."""
        self._outbox.hurry()

    def stop(self, problem: BaseException) -> None:
        """Let every caller get `problem`; what has arrived is still delivered, and what was posted leaves."""
        self._life.end(Ending.STOP, problem)

    def cut(self, problem: BaseException) -> None:
        """Like `stop`, and nothing that has arrived is delivered any more."""
        self._life.end(Ending.CUT, problem)

    def fail(self, problem: BaseException) -> None:
        """Like `stop`, and nothing leaves or arrives any more: both directions of the socket end now."""
        self._life.end(Ending.FAIL, problem)
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Raise what ended the channel, if anything did."""
        self._life.check()

    @property
    def ended(self) -> bool:
        """Whether something has ended the channel."""
        return self._life.has_ended

    @property
    def bytes_sent(self) -> int:
        """Of all records that have left, headers and tags included."""
        return self._outbox.bytes_sent

    @property
    def bytes_posted(self) -> int:
        """Of all messages that were posted."""
        return self._outbox.bytes_posted

    @property
    def bytes_received(self) -> int:
        """Of all records that have arrived, headers and tags included."""
        return self._inbox.bytes_received

    @property
    def waiting(self) -> int:
        """How many records wait for the line."""
        return self._outbox.waiting

    @property
    def line_seconds(self) -> float:
        """How long the line takes for a byte, at present."""
        return self._outbox.line_seconds

    # --- for the producer ---

    def space(self, size: int) -> memoryview:
        """A view of `size` bytes to be filled with whole messages, back to back, then named by `done`.

        It is good until the next call. Raises what ended the channel.
        """
        return self._outbox.space(size)

    def done(self, size: int) -> None:
        """The first `size` bytes of the space are messages."""
        self._outbox.done(size)

    def content_space(self, size: int, alone: bool = False) -> memoryview:
        """A view of `size` bytes to be filled with content, then named by `content_done`. Raises like `space`.

        `alone`: in a record of its own.
        """
        if alone:
            self._outbox.flush()
        return self._outbox.space(DATA_HEADER_SIZE + size)[DATA_HEADER_SIZE:]

    def content_done(self, id: int, offset: int, size: int) -> None:
        """The first `size` bytes of the space are content of `id` at `offset`."""
        write_data_header(self._outbox.space(DATA_HEADER_SIZE), id, offset, size, size)
        self._outbox.done(DATA_HEADER_SIZE + size)

    def compress(self, shrinks: Shrinks) -> None:
        """Let a worker compress the record that is being filled, which is one message, and let it leave."""
        self._outbox.flush(shrinks)

    def compress_now(self, shrinks: Shrinks) -> int:
        """Compress the record that is being filled, which is one message; how many bytes it takes then."""
        return self._outbox.shrink(shrinks)

    def send_zeros(self, id: int, offset: int, size: int) -> int:
        """Send `size` zero bytes of `id`, without content; how many bytes that takes. Raises like `space`."""
        self.send(message := zeros_message(id, offset, size))
        return len(message)

    def send(self, message: bytes) -> None:
        """Send a message in order with the content. Raises like `space`."""
        self._outbox.space(len(message))[:] = message
        self._outbox.done(len(message))

    def flush(self) -> None:
        """Let what was sent so far leave; call it before waiting for an answer."""
        self._outbox.flush()

    def say_bye(self) -> None:
        """Nothing more comes from this end."""
        self.flush()
        self.post(BYE_MESSAGE)

    # --- for the consumer ---

    def messages(self) -> Iterator[Arrived | None]:
        """Each message with its raw body, good until the next is asked for; None when no complete record waits.

        Ends with the other end's BYE. Raises ConnectionTrouble for an end without one, PeerStopped for its ERROR,
        IntegrityError for a record that fails its authentication, ProtocolViolation.
        """
        has_said_bye = False
        while not has_said_bye:
            if self._inbox.is_idle:
                with self._outbox.gathering():
                    yield None
            record = self._inbox.take()
            try:
                with self._outbox.gathering():
                    record.finish()
                    has_said_bye = yield from self._messages_of(record.text())
            except TransferError as problem:
                self.stop(problem)
                raise
            finally:
                record.release()

    def _messages_of(self, text: memoryview) -> Generator[Arrived, None, bool]:
        """The messages of one record for the consumer, and in the end whether it held BYE."""
        has_said_bye, content = False, 0
        for kind, body in split_record(text):
            if not self._life.state.delivers:
                self.check()
            if has_said_bye:
                raise ProtocolViolation("a message behind BYE")
            message = decode_message(kind, body)
            content += content_of(message)
            if content > RECORD_CONTENT_LIMIT:
                raise ProtocolViolation("a record that stands for more content than one may")
            if kind not in _OURS:
                self._outbox.wait_until_read()
                yield message, body
            elif isinstance(message, Error):
                raise PeerStopped(message.code)
            elif isinstance(message, Bye):
                has_said_bye = True
        return has_said_bye

    # --- the end ---

    def close(self, code: Code | None = None) -> None:
        """Send what was posted (and ERROR with `code`), wait a moment for the other end, close. Never raises."""
        if code is not None and not self._life.is_closed:
            self._outbox.last_word(Error(code).encode())
        self._life.end(Ending.CLOSE, lost())
        sent = -1
        while self._writer.is_alive() and sent != self._outbox.bytes_sent:  # it goes on for a slow reader that reads
            sent = self._outbox.bytes_sent
            self._writer.join(_DRAIN_SECONDS)
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        self._reader.join(_DRAIN_SECONDS)  # the other end has closed, too
        self.fail(lost())  # neither waits any longer
        self._reader.join(_DRAIN_SECONDS)
        self._writer.join(_DRAIN_SECONDS)
        self._outbox.release()
        self._inbox.release()
        self._sock.close()
        self._life.forget_frames()
