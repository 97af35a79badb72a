"""Silence is noticed in every state of a channel; what only looks like silence is not taken for it."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from peers import S2C, Against, Answering, Raw, data, no_hang, seal, tcp_pair
from processes import wait_until

import sft.wire.channel
import sft.wire.inbox
import sft.wire.silence
import sft.wire.workers
from crypto_utils import RecordCipher
from sft.common.errors import ConnectionTrouble
from sft.wire.content import Data
from sft.wire.messages import BYE_MESSAGE, PING_MESSAGE, Cancel, Message
from sft.wire.protocol import DATA_SIZE, RECORD_FRAME_LIMIT, frame_header
from sft.wire.silence import WatchedSocket
from sft.wire.workers import Engine

LIMIT = 1.5
LONGER = 2.2  # with the last look behind the limit


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Silence is a second and a half long, and looked for ten times as often."""
    monkeypatch.setattr(sft.wire.silence, "SILENCE_LIMIT", LIMIT)
    for module in (sft.wire.inbox, sft.wire.workers, sft.wire.silence):
        monkeypatch.setattr(module, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(sft.wire.channel, "_DRAIN_SECONDS", 0.2)
    with no_hang():
        yield


class Busy:
    """A consumer that takes the first message and is busy with it until `go_on`: a slow disk, or a rate limit."""

    def __init__(self, against: Against) -> None:
        self.against = against
        self.got: list[Message] = []
        self.sizes: list[int] = []
        self.problem: BaseException | None = None
        self._may_go_on = threading.Event()
        self._thread = threading.Thread(target=self._consume)
        self._thread.start()

    def _consume(self) -> None:
        try:
            for arrived in self.against.channel.messages():
                if arrived is not None:
                    message = arrived[0]
                    if isinstance(message, Data):
                        self.sizes.append(message.size)
                    else:
                        self.got.append(message)
                    del message, arrived
                    self._may_go_on.wait()
        except ConnectionTrouble as problem:
            self.problem = problem.with_traceback(None)

    def go_on(self) -> None:
        self._may_go_on.set()

    def finish(self) -> None:
        self.go_on()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.against.close()


def say_many(raw: Raw, count: int) -> None:
    """More records than are read ahead."""
    for number in range(1, count + 1):
        raw.say(Cancel(number).encode())


MANY = sft.wire.inbox._RECORDS_AHEAD + 10


def waits_for_room(busy: Busy) -> bool:
    assert not busy.against.channel.ended, busy.against.channel._life._error
    return len(busy.against.channel._inbox._queue) >= sft.wire.inbox._RECORDS_AHEAD


def keep_alive(raw: Raw, seconds: float) -> None:
    """PING, as often as an honest end does, for so long."""
    until, never = time.monotonic() + seconds, threading.Event()
    while time.monotonic() < until:
        raw.say(PING_MESSAGE)
        never.wait(LIMIT / 4)


def check_silent(against: Against, started: float) -> None:
    wait_until(lambda: against.channel.ended, 10)
    assert time.monotonic() - started > LIMIT - 0.1
    assert isinstance(against.channel._life._error, ConnectionTrouble)
    assert "no sign of life" in against.channel._life._error.cause


def test_peer_that_asks_reads_nothing_and_falls_silent_is_left(engine: Engine) -> None:
    answering = Answering(engine)
    check_silent(answering.against, time.monotonic() - LIMIT)
    answering.finish()
    assert isinstance(answering.problem, ConnectionTrouble) and answering.given < 300


def test_silence_is_noticed_while_the_reader_waits_for_room(engine: Engine) -> None:
    busy, started = Busy(Against(engine)), time.monotonic()
    say_many(busy.against.raw, MANY)
    wait_until(lambda: waits_for_room(busy))
    check_silent(busy.against, started)
    busy.finish()
    assert isinstance(busy.problem, ConnectionTrouble)


def test_peer_that_lives_is_kept_while_the_reader_waits_for_room(engine: Engine) -> None:
    busy = Busy(Against(engine))
    say_many(busy.against.raw, MANY)
    wait_until(lambda: waits_for_room(busy))
    keep_alive(busy.against.raw, LONGER)
    assert not busy.against.channel.ended
    busy.against.raw.say(BYE_MESSAGE)
    busy.finish()
    assert (len(busy.got), busy.problem) == (MANY, None)


def test_peer_that_has_sent_all_and_closed_its_side_is_not_silent(engine: Engine) -> None:
    busy = Busy(Against(engine))
    say_many(busy.against.raw, MANY)
    busy.against.raw.say(BYE_MESSAGE)
    busy.against.raw.stop()
    wait_until(lambda: waits_for_room(busy))
    threading.Event().wait(LONGER)
    assert not busy.against.channel.ended
    busy.finish()
    assert (len(busy.got), busy.problem) == (MANY, None)


def test_peer_that_has_no_room_to_say_that_it_lives_is_not_silent(engine: Engine) -> None:
    texts, cipher = [*[Cancel(1).encode() * 100] * 1_000, BYE_MESSAGE], RecordCipher(S2C)
    records = b"".join(seal(cipher, number, text) for number, text in enumerate(texts))
    busy = Busy(Against(engine, buffers=65_536))
    saying = threading.Thread(target=lambda: busy.against.raw.sock.sendall(records))
    saying.start()
    wait_until(lambda: waits_for_room(busy))
    threading.Event().wait(LONGER)
    assert saying.is_alive(), "it is the one who waits"
    assert not busy.against.channel.ended
    busy.go_on()
    saying.join(20)
    busy.finish()
    assert (len(busy.got), busy.problem) == (100_000, None)


def test_silence_is_noticed_while_the_reader_waits_for_a_buffer() -> None:
    engine = Engine(1)
    try:
        busy, started = Busy(Against(engine)), time.monotonic()
        for number in range(2):  # two buffers are always there
            busy.against.raw.say(data(1, number * 40_000, bytes(40_000)))
        busy.against.raw.sock.sendall(frame_header(RECORD_FRAME_LIMIT) + b"begun")
        wait_until(lambda: busy.sizes and busy.against.channel._inbox._buffers.held == 2)
        check_silent(busy.against, started)
        busy.finish()
        assert isinstance(busy.problem, ConnectionTrouble)
    finally:
        engine.close()


def produce_until_it_ends(against: Against, problems: list[BaseException]) -> None:
    try:
        while True:
            against.channel.content_space(DATA_SIZE)[:] = bytes(DATA_SIZE)
            against.channel.content_done(1, 0, DATA_SIZE)
    except ConnectionTrouble as problem:
        problems.append(problem)


PEERS: dict[str, Callable[[Raw], object]] = {
    "silent": lambda raw: None,
    "with its side closed": lambda raw: raw.stop(),
}


@pytest.mark.parametrize("peer", PEERS)
def test_writer_that_is_blocked_by_a_silent_peer_ends(engine: Engine, peer: str) -> None:
    against, problems = Against(engine, buffers=4096), list[BaseException]()
    producing = threading.Thread(target=produce_until_it_ends, args=(against, problems))
    producing.start()
    PEERS[peer](against.raw)
    producing.join(10)
    assert len(problems) == 1
    against.close()


def test_writer_that_is_blocked_waits_as_long_as_the_peer_lives(engine: Engine) -> None:
    against = Against(engine, buffers=4096)
    for number in range(3):
        against.channel.content_space(DATA_SIZE)[:] = bytes(DATA_SIZE)
        against.channel.content_done(1, number * DATA_SIZE, DATA_SIZE)
    against.channel.flush()
    keep_alive(against.raw, LONGER)
    assert not against.channel.ended
    for _ in range(3):
        assert isinstance(against.raw.hear(), Data)
    against.close()


def test_slow_line_that_takes_longer_than_the_limit_for_a_record_is_no_silence() -> None:
    """Only a byte in 30 s is asked for, not a record."""
    near, far = tcp_pair(4096)
    problems: list[BaseException] = []

    def send() -> None:
        try:
            WatchedSocket(near).send_all(memoryview(bytes(1 << 20)))
        except (ConnectionTrouble, OSError) as problem:
            problems.append(problem)

    sending, started, never = threading.Thread(target=send), time.monotonic(), threading.Event()
    with near, far:
        sending.start()
        while time.monotonic() - started < 2 * LONGER:
            assert far.recv(2048)
            never.wait(0.05)
        assert sending.is_alive() and problems == []
        stopped = time.monotonic()
        sending.join(10)
        assert isinstance(problems[0], ConnectionTrouble) and time.monotonic() - stopped > LIMIT - 0.2
