"""Two ends of a connection for the tests: real sockets, and an end that is spoken by hand.

Rules: no fixed port, no sleep; whatever hangs is ended by `no_hang` instead of holding up the whole run.
"""

import contextlib
import gc
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType

from processes import wait_until

import sft.wire.outbox
from crypto_utils import TAG_SIZE, RecordCipher, digest, mac
from sft.common.errors import TransferError
from sft.wire.channel import Channel
from sft.wire.content import DATA_HEADER_SIZE, Data, write_data_header
from sft.wire.messages import (
    BYE_MESSAGE,
    Cancel,
    End,
    Entries,
    Entry,
    Message,
    Ping,
    Put,
    decode_message,
    file_mac_begin,
    file_mac_rest,
    split_record,
)
from sft.wire.protocol import DATA_SIZE, HEADER_SIZE, RECORD_FRAME_LIMIT, frame_header, frame_size
from sft.wire.workers import Engine

C2S, S2C, FILE_SECRET = b"c" * 32, b"s" * 32, b"f" * 32
MEMORY = 64 << 20
SECONDS = 40


@contextlib.contextmanager
def no_hang(seconds: int = SECONDS) -> Iterator[None]:
    """Raise TimeoutError in the main thread, whatever it waits for, when the block takes too long."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"still waiting after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tcp_pair(buffers: int = 0) -> tuple[socket.socket, socket.socket]:
    """Two connected sockets; with `buffers`, each direction's are as small as that, if the system lets them."""
    with socket.socket() as listener:
        near = socket.socket()
        if buffers:
            for sock in (listener, near):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    return near, far


def seal(cipher: RecordCipher, number: int, text: bytes) -> bytes:
    """One record as it stands on the wire."""
    header, text_and_tag = frame_header(len(text) + TAG_SIZE), bytearray(text)
    tag = cipher.seal(number, header, memoryview(text_and_tag))
    return header + bytes(text_and_tag) + tag


def data(id: int, offset: int, content: bytes) -> bytes:
    """A DATA message."""
    return piece(id, offset, len(content), content)


def piece(id: int, offset: int, size: int, content: bytes = b"") -> bytes:
    """A DATA that stands for `size` bytes; with less content than that, for a frame or for zeros."""
    message = bytearray(DATA_HEADER_SIZE) + content
    write_data_header(memoryview(message), id, offset, size, len(content))
    return bytes(message)


def end(put: Put, content: bytes, body: bytes | None = None, secret: bytes = FILE_SECRET) -> End:
    """The END that belongs to `put` and `content`."""
    sha256 = digest(content)
    proof = mac(secret, *file_mac_begin(put.body() if body is None else body), *file_mac_rest(len(content), sha256))
    return End(put.id, len(content), sha256, proof)


class Raw:
    """An end spoken by hand: it seals and opens its records itself, and says whatever it likes."""

    def __init__(self, sock: socket.socket, send_secret: bytes, receive_secret: bytes) -> None:
        self.sock = sock
        self.sock.settimeout(SECONDS / 2)
        self.sealer, self.opener = RecordCipher(send_secret), RecordCipher(receive_secret)
        self.said = self.heard = 0
        self._waiting: list[Message] = []

    def say(self, *messages: bytes) -> None:
        """All of them in one record."""
        self.sock.sendall(seal(self.sealer, self.said, b"".join(messages)))
        self.said += 1

    def _exactly(self, size: int) -> bytes:
        got = b""
        while len(got) < size and (piece := self.sock.recv(size - len(got))):
            got += piece
        return got

    def record(self) -> list[Message]:
        """The messages of the next record; none at the end."""
        try:
            header = self._exactly(HEADER_SIZE)
            if len(header) < HEADER_SIZE:
                return []
            size = frame_size(header, TAG_SIZE + 1, RECORD_FRAME_LIMIT)
            whole = bytearray(self._exactly(size))
        except ConnectionResetError:
            return []
        if len(whole) < size:
            return []
        text = memoryview(whole)[:-TAG_SIZE]
        self.opener.open(self.heard, header, text, whole[-TAG_SIZE:])
        self.heard += 1
        return [decode_message(kind, body) for kind, body in split_record(text)]

    def hear(self) -> Message | None:
        """The next message, None at the end. Signs of life are left out: they come when the machine is busy."""
        while isinstance(message := self.hear_any(), Ping):
            pass
        return message

    def hear_any(self) -> Message | None:
        """The next message, also a sign of life; None at the end."""
        while not self._waiting:
            self._waiting = self.record()
            if not self._waiting:
                return None
        return self._waiting.pop(0)

    def hear_all(self) -> list[Message]:
        """Every message until the end."""
        return list(iter(self.hear, None))

    def stop(self) -> None:
        """End the sending side, without a word."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Gone."""
        self.sock.close()


def close_all(*channels: Channel) -> None:
    """Close channels beside each other, as two processes would: each waits for the other's end."""
    threads = [threading.Thread(target=channel.close) for channel in channels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)


def check_nothing_is_left(engine: Engine, *channels: Channel) -> None:
    """After the close: every buffer is back, every thread has ended, every socket is closed."""
    if engine.buffer_pool.taken:
        gc.collect()  # a message that was being looked at when it ended may still hold its record
    for channel in channels:
        assert (channel._inbox._buffers.held, channel._outbox._buffers.held) == (0, 0)
        assert not channel._reader.is_alive()
        assert not channel._writer.is_alive()
        assert channel._sock.fileno() == -1
    assert engine.buffer_pool.taken == 0


def listing(size: int) -> Entries:
    """A message whose body has about so many bytes."""
    names = (f"{number:0240}" for number in range(size // 290))
    return Entries(1, tuple(Entry(name, "file", 0, 0) for name in names), False)


LISTING = listing(60_000)


class Against:
    """A channel, and at its other end a peer that is spoken by hand."""

    def __init__(self, engine: Engine, buffers: int = 0) -> None:
        near, far = tcp_pair(buffers)
        self.engine = engine
        self.channel = Channel(near, C2S, S2C, engine)
        self.raw = Raw(far, S2C, C2S)

    def collect(self) -> tuple[list[Message | bytes], TransferError | None]:
        """What the channel delivers (content as bytes), and what ended it."""
        got: list[Message | bytes] = []
        try:
            for arrived in self.channel.messages():
                if arrived is not None:
                    message = arrived[0]
                    got.append(bytes(message.plain()) if isinstance(message, Data) else message)
        except TransferError as problem:
            return got, problem.with_traceback(None)
        return got, None

    def close(self) -> None:
        self.raw.close()
        self.channel.close()
        check_nothing_is_left(self.engine, self.channel)


def delivered(channel: Channel) -> list[Message | bytes]:
    got: list[Message | bytes] = []
    for arrived in channel.messages():
        if arrived is not None:
            message = arrived[0]
            got.append(bytes(message.plain()) if isinstance(message, Data) else message)
    return got


def send_content(channel: Channel, content: bytes, id: int = 1) -> None:
    offset = 0
    while offset < len(content):
        space = channel.content_space(min(DATA_SIZE, len(content) - offset))
        space[:] = content[offset : offset + len(space)]
        channel.content_done(id, offset, len(space))
        offset += len(space)


def produce(channel: Channel, content: bytes) -> None:
    send_content(channel, content)
    channel.say_bye()


class Answering:
    """A consumer that gives 60 kB for each message, to a peer that has asked 300 times and reads nothing yet."""

    ANSWER = LISTING.encode()

    def __init__(self, engine: Engine) -> None:
        self.against = Against(engine, buffers=4096)
        self.given = self.most = 0
        self.problem: TransferError | None = None
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()
        self.against.raw.say(*[Cancel(1).encode()] * 150)
        self.against.raw.say(*[Cancel(1).encode()] * 150, BYE_MESSAGE)
        wait_until(lambda: self.most > sft.wire.outbox._UNREAD_BYTES)

    def _answer(self) -> None:
        channel = self.against.channel
        try:
            for arrived in channel.messages():
                if arrived is not None:
                    channel.post(self.ANSWER)
                    self.given, self.most = self.given + 1, max(self.most, channel._outbox._answer_bytes)
            channel.say_bye()
        except TransferError as problem:
            self.problem = problem.with_traceback(None)

    def finish(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert self.most <= sft.wire.outbox._UNREAD_BYTES + len(self.ANSWER)
        self.against.close()
