"""The channel over real sockets: what passes, what every fault does, and that nothing of it is left behind."""

import contextlib
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest
from peers import C2S, MEMORY, S2C, Raw, check_nothing_is_left, close_all, data, no_hang, seal, tcp_pair
from processes import wait_until

import crypto_utils
import sft.wire.channel
import sft.wire.silence
import sft.wire.workers
from crypto_utils import RecordCipher
from sft.common.errors import (
    Code,
    ConnectionTrouble,
    IntegrityError,
    NoThread,
    PeerStopped,
    ProtocolViolation,
    TransferError,
)
from sft.wire.channel import Channel
from sft.wire.messages import (
    BYE_MESSAGE,
    PING_MESSAGE,
    Bye,
    Cancel,
    Data,
    Entries,
    Entry,
    Error,
    Kind,
    ListFolder,
    Message,
    Ping,
    encode_message,
)
from sft.wire.protocol import CONTROL_LIMIT, DATA_SIZE, LOGIN_FRAME_LIMIT, RECORD_FRAME_LIMIT, frame, frame_header
from sft.wire.sockets import Link, close_gently
from sft.wire.workers import Budget, Engine, Lease


def listing(size: int) -> Entries:
    """A message whose body has about so many bytes."""
    names = (f"{number:0240}" for number in range(size // 290))
    return Entries(1, tuple(Entry(name, "file", 0, 0) for name in names), False)


LISTING = listing(60_000)


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    with no_hang():
        yield


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
                    got.append(bytes(message.content) if isinstance(message, Data) else message)
        except TransferError as problem:
            return got, problem.with_traceback(None)
        return got, None

    def close(self) -> None:
        self.raw.close()
        self.channel.close()
        check_nothing_is_left(self.engine, self.channel)


@pytest.fixture
def against(engine: Engine) -> Iterator[Against]:
    both = Against(engine)
    yield both
    both.close()


@pytest.fixture
def pair(engine: Engine) -> Iterator[tuple[Channel, Channel]]:
    near, far = tcp_pair()
    one, two = Channel(near, C2S, S2C, engine), Channel(far, S2C, C2S, engine)
    yield one, two
    close_all(one, two)
    check_nothing_is_left(engine, one, two)


def delivered(channel: Channel) -> list[Message | bytes]:
    got: list[Message | bytes] = []
    for arrived in channel.messages():
        if arrived is not None:
            message = arrived[0]
            got.append(bytes(message.content) if isinstance(message, Data) else message)
    return got


def send_content(channel: Channel, content: bytes, id: int = 1) -> None:
    offset = 0
    while offset < len(content):
        room = channel.content_room(min(DATA_SIZE, len(content) - offset))
        room[:] = content[offset : offset + len(room)]
        channel.content_done(id, offset, len(room))
        offset += len(room)


def produce(channel: Channel, content: bytes) -> None:
    send_content(channel, content)
    channel.say_bye()


# --- what passes ------------------------------------------------------------------------------------------------------


def test_messages_pass_both_ways_in_order(pair: tuple[Channel, Channel]) -> None:
    one, two = pair
    for number in range(1, 500):
        one.send(Cancel(number).encode())
        two.post(Cancel(10_000 + number).encode())
    one.say_bye()
    two.say_bye()
    assert delivered(two) == [Cancel(number) for number in range(1, 500)]
    assert delivered(one) == [Cancel(10_000 + number) for number in range(1, 500)]


def test_content_arrives_as_it_was_sent_both_ways_at_once(pair: tuple[Channel, Channel]) -> None:
    contents = [os.urandom(5 * DATA_SIZE + 12_345), os.urandom(7 * DATA_SIZE + 1)]
    got: dict[int, list[Message | bytes]] = {}

    def produce(channel: Channel, content: bytes) -> None:
        send_content(channel, content)
        channel.send(Cancel(7).encode())
        channel.say_bye()

    def consume(number: int) -> None:
        got[number] = delivered(pair[number])

    threads = [threading.Thread(target=produce, args=both) for both in zip(pair, contents, strict=True)]
    threads += [threading.Thread(target=consume, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in (0, 1):
        *pieces, last = got[number]
        assert last == Cancel(7)
        assert b"".join(piece for piece in pieces if isinstance(piece, bytes)) == contents[1 - number]
    assert pair[0].bytes_sent == pair[1].bytes_received > len(contents[0])


def test_content_of_every_awkward_size_arrives(pair: tuple[Channel, Channel]) -> None:
    one, two = pair
    sizes = [1, 2, 32 * 1024 - 30, 32 * 1024, 32 * 1024 + 1, 64 * 1024, DATA_SIZE - 1, DATA_SIZE, DATA_SIZE, 1]
    contents = [os.urandom(size) for size in sizes]
    for number, content in enumerate(contents, 1):
        send_content(one, content, number)
        if number % 3 == 0:
            one.flush()
    one.say_bye()
    assert delivered(two) == contents


def test_room_that_is_not_named_is_not_sent(pair: tuple[Channel, Channel]) -> None:
    """As when a file turns out shorter than it was: the room is used again."""
    one, two = pair
    one.content_room(1000)[:] = b"x" * 1000
    one.send(Cancel(1).encode())
    one.say_bye()
    assert delivered(two) == [Cancel(1)]


def test_largest_messages_pass(pair: tuple[Channel, Channel]) -> None:
    one, two = pair
    fitting = listing(CONTROL_LIMIT)
    for _ in range(40):
        one.post(fitting.encode())
        one.send(fitting.encode())
    one.say_bye()
    assert delivered(two) == [fitting] * 80


def test_none_says_that_no_complete_record_waits(against: Against) -> None:
    against.raw.say(Cancel(1).encode(), Cancel(2).encode())
    found = against.channel.messages()
    seen = [next(found) for _ in range(3)]
    assert [each[0] for each in seen if each is not None] == [Cancel(1), Cancel(2)][: sum(e is not None for e in seen)]
    while None not in seen:
        seen.append(next(found))
    against.raw.say(Cancel(3).encode(), BYE_MESSAGE)
    rest = [each[0] for each in (*seen, *found) if each is not None]
    assert rest == [Cancel(1), Cancel(2), Cancel(3)]


def wakes(channel: Channel, waiting: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts from now on how often the writer is woken; so many records are here already, and no more will come."""
    with channel._lock:
        assert channel._to_take.wait_for(lambda: len(channel._arrived) == waiting, 30)
    count, notify = [0], channel._to_write.notify

    def counted() -> None:
        count[0] += bool(channel._answers)
        notify()

    monkeypatch.setattr(channel._to_write, "notify", counted)
    return count


def arriving(channel: Channel) -> Iterator[tuple[Message, memoryview]]:
    """Its messages, without the pauses between them."""
    return (arrived for arrived in channel.messages() if arrived is not None)


def test_answers_to_one_record_gather_into_one(against: Against, monkeypatch: pytest.MonkeyPatch) -> None:
    against.raw.say(*(Cancel(number).encode() for number in range(1, 101)))
    woken = wakes(against.channel, 1, monkeypatch)
    found = arriving(against.channel)
    for number in range(1, 101):
        next(found)
        against.channel.post(Cancel(number).encode())
    assert woken == [0]
    against.raw.say(BYE_MESSAGE)
    assert list(found) == []
    assert against.raw.record() == [Cancel(number) for number in range(1, 101)]


def test_answer_leaves_at_the_end_of_its_record_though_others_wait(
    against: Against, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        against.raw.say(Cancel(number).encode())
    woken = wakes(against.channel, 3, monkeypatch)
    found = arriving(against.channel)
    next(found)
    against.channel.post(Cancel(10).encode())
    assert woken == [0]
    next(found)
    assert woken[0] > 0
    assert against.raw.record() == [Cancel(10)]


def test_answer_leaves_before_its_record_ends_when_it_is_hurried(
    against: Against, monkeypatch: pytest.MonkeyPatch
) -> None:
    against.raw.say(Cancel(1).encode(), Cancel(2).encode())
    woken = wakes(against.channel, 1, monkeypatch)
    found = arriving(against.channel)
    next(found)
    against.channel.post(Cancel(10).encode())
    against.channel.hurry()
    assert woken[0] > 0
    assert against.raw.record() == [Cancel(10)]


def test_what_another_thread_posts_does_not_wait_for_the_consumer(
    against: Against, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a sender's BYE, while the thread that takes the answers is at one of them."""
    against.raw.say(Cancel(1).encode(), Cancel(2).encode())
    woken = wakes(against.channel, 1, monkeypatch)
    found = arriving(against.channel)
    next(found)
    thread = threading.Thread(target=against.channel.say_bye)
    thread.start()
    thread.join(30)
    assert woken[0] > 0
    assert against.raw.record() == [Bye()]


def test_answer_of_a_consumer_that_stops_in_the_middle_leaves_with_the_close(against: Against) -> None:
    against.raw.say(Cancel(1).encode(), Cancel(2).encode())
    found = arriving(against.channel)
    next(found)
    against.channel.post(Cancel(10).encode())
    against.channel.close()
    assert against.raw.hear() == Cancel(10)


def test_pings_are_not_delivered(against: Against) -> None:
    against.raw.say(PING_MESSAGE, Cancel(1).encode(), PING_MESSAGE)
    against.raw.say(PING_MESSAGE)
    against.raw.say(BYE_MESSAGE)
    assert against.collect() == ([Cancel(1)], None)


def test_raw_peer_hears_what_is_sent(against: Against) -> None:
    """The hand-spoken peer itself is sound, so that its faults are the faults."""
    against.channel.send(Cancel(1).encode())
    against.channel.say_bye()
    heard = [against.raw.hear(), against.raw.hear()]
    assert heard == [Cancel(1), Bye()]
    against.raw.say(data(1, 0, b"x" * 100_000), BYE_MESSAGE)
    assert against.collect() == ([b"x" * 100_000], None)


def test_records_pass_across_changes_of_the_epoch_key(
    pair: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch of 2^20 records is a terabyte, so it is made 3 records long here; which key belongs to which number
    is pinned by the tests of `RecordCipher`. Workers of both ends cross the border at the same time."""
    monkeypatch.setattr(crypto_utils, "RECORDS_PER_EPOCH", 3)
    one, two = pair
    content = os.urandom(20 * DATA_SIZE)
    producer = threading.Thread(target=produce, args=(one, content))
    producer.start()
    assert b"".join(piece for piece in delivered(two) if isinstance(piece, bytes)) == content
    producer.join()


@pytest.mark.parametrize("number", [(1 << 20) - 1, 1 << 20, (1 << 21) + 5, (1 << 48) - 1])
def test_record_of_an_epoch_fails_at_the_same_place_of_another(number: int, against: Against) -> None:
    """Sealed by hand far ahead, because nobody can send 2^20 records in a test: the first record is number 0."""
    against.raw.sock.sendall(seal(against.raw.sealer, number, Cancel(1).encode()))
    got, problem = against.collect()
    assert got == []
    assert isinstance(problem, IntegrityError)


# --- faults of records ------------------------------------------------------------------------------------------------


def swap(frames: list[bytes], one: int, two: int) -> list[bytes]:
    frames[one], frames[two] = frames[two], frames[one]
    return frames


def flip(frames: list[bytes], which: int, at: int) -> list[bytes]:
    changed = bytearray(frames[which])
    changed[at] ^= 1
    frames[which] = bytes(changed)
    return frames


def shorten(whole: bytes) -> bytes:
    """One byte less, and the header says so."""
    return frame(whole[4:-1])


def lengthen(whole: bytes) -> bytes:
    return frame(whole[4:] + b"\0")


# name: what is done to the frames of records 0 to 3, how many of them are still delivered, what ends the channel
FAULTS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int, type[TransferError]]] = {
    "first replayed": (lambda f: [f[0], *f], 1, IntegrityError),
    "last replayed": (lambda f: [*f, f[3]], 4, IntegrityError),
    "first dropped": (lambda f: f[1:], 0, IntegrityError),
    "middle dropped": (lambda f: [f[0], f[2], f[3]], 1, IntegrityError),
    "swapped": (lambda f: swap(f, 1, 2), 1, IntegrityError),
    "all reversed": (lambda f: f[::-1], 0, IntegrityError),
    "text flipped": (lambda f: flip(f, 2, 10), 2, IntegrityError),
    "last byte of the text flipped": (lambda f: flip(f, 2, -17), 2, IntegrityError),
    "tag flipped": (lambda f: flip(f, 2, -1), 2, IntegrityError),
    "shortened with its header": (lambda f: [f[0], shorten(f[1])], 1, IntegrityError),
    "lengthened with its header": (lambda f: [f[0], lengthen(f[1])], 1, IntegrityError),
    "cut inside a record": (lambda f: [f[0], f[1][:-1]], 1, ConnectionTrouble),
    "cut inside a header": (lambda f: [f[0], f[1][:3]], 1, ConnectionTrouble),
    "cut behind a header": (lambda f: [f[0], f[1][:4]], 1, ConnectionTrouble),
    "cut between records": (lambda f: f, 4, ConnectionTrouble),
    "nothing": (lambda f: [], 0, ConnectionTrouble),
    "random": (lambda f: [f[0], frame(os.urandom(100))], 1, IntegrityError),
}


@pytest.mark.parametrize("size", [10, 50_000], ids=["small", "on a worker"])
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_records_ends_the_channel_and_delivers_nothing_behind_it(
    against: Against, fault: str, size: int
) -> None:
    change, count, error = FAULTS[fault]
    contents = [bytes([number]) * size for number in range(4)]
    frames = [seal(against.raw.sealer, number, data(1, 0, each)) for number, each in enumerate(contents)]
    against.raw.sock.sendall(b"".join(change(frames)))
    against.raw.stop()
    got, problem = against.collect()
    assert got == contents[:count]
    assert isinstance(problem, error)
    assert not isinstance(problem, ProtocolViolation)
    with pytest.raises(TransferError):
        against.channel.send(Cancel(1).encode())


def test_own_records_reflected_are_refused(against: Against) -> None:
    against.channel.send(Cancel(1).encode())
    against.channel.flush()
    against.raw.sock.sendall(against.raw._exactly(4 + 5 + len(Cancel(1).body()) + 16))
    got, problem = against.collect()
    assert got == []
    assert isinstance(problem, IntegrityError)


def test_records_of_another_connection_are_refused(against: Against) -> None:
    against.raw.sock.sendall(seal(RecordCipher(b"x" * 32), 0, Cancel(1).encode()))
    got, problem = against.collect()
    assert got == []
    assert isinstance(problem, IntegrityError)


@pytest.mark.parametrize("size", [0, 1, 15, 16, RECORD_FRAME_LIMIT + 1, 1 << 31, (1 << 32) - 1])
def test_frame_of_a_wrong_length_is_refused_before_a_buffer_is_taken(against: Against, size: int) -> None:
    against.raw.sock.sendall(frame_header(size))
    got, problem = against.collect()
    assert got == []
    assert isinstance(problem, ProtocolViolation)
    assert against.channel._in.held == 0
    assert against.engine.budget._spare == [], "no buffer was ever made"


def test_longest_frame_is_read_into_a_leased_buffer(against: Against) -> None:
    against.raw.say(data(1, 0, b"x" * DATA_SIZE), *[PING_MESSAGE] * ((4096 - 17) // 5))
    against.raw.say(BYE_MESSAGE)
    assert against.collect() == ([b"x" * DATA_SIZE], None)


@pytest.mark.parametrize(
    "text",
    [b"\x63\0\0\0\0", b"\x04\0\0", b"\x04\0\0\0\x05{}", b"\x04\0\0\0\x02{}", b"\x0c\0\0\0\x01x", b"\0" * 5],
    ids=["unknown type", "cut header", "too long", "no fields", "ping with a body", "zeros"],
)
def test_sealed_nonsense_is_a_violation(against: Against, text: bytes) -> None:
    against.raw.say(Cancel(1).encode())
    against.raw.say(text)
    got, problem = against.collect()
    assert got == [Cancel(1)]
    assert isinstance(problem, ProtocolViolation)


def test_message_behind_bye_is_a_violation(against: Against) -> None:
    against.raw.say(Cancel(1).encode(), BYE_MESSAGE, Cancel(2).encode())
    got, problem = against.collect()
    assert got == [Cancel(1)]
    assert isinstance(problem, ProtocolViolation)


def test_end_without_bye_is_no_end(against: Against) -> None:
    against.raw.say(Cancel(1).encode())
    against.raw.stop()
    got, problem = against.collect()
    assert got == [Cancel(1)]
    assert isinstance(problem, ConnectionTrouble)


@pytest.mark.parametrize("code", list(Code))
def test_error_of_the_peer_is_told_with_its_code(against: Against, code: Code) -> None:
    against.raw.say(Cancel(1).encode(), Error(code).encode(), Cancel(2).encode())
    got, problem = against.collect()
    assert got == [Cancel(1)]
    assert isinstance(problem, PeerStopped)
    assert problem.code is code
    assert problem.exit_status == (5 if code in (Code.PROTOCOL, Code.INTEGRITY) else 4)


def test_cut_is_what_every_caller_gets(against: Against) -> None:
    against.raw.stop()
    assert isinstance(against.collect()[1], ConnectionTrouble)
    with pytest.raises(ConnectionTrouble):
        against.channel.check()
    with pytest.raises(ConnectionTrouble):
        list(against.channel.messages())


def test_first_failure_is_the_one_that_stays(against: Against) -> None:
    first = ConnectionTrouble("first")
    against.channel.fail(first)
    against.channel.fail(ConnectionTrouble("second"))
    against.channel._reader.join(10)  # it has seen the end that this brought about
    assert against.collect()[1] is first
    with pytest.raises(ConnectionTrouble, match="first"):
        against.channel.send(b"x")


def test_frames_of_what_ended_the_channel_and_of_what_that_came_from_are_let_go(against: Against) -> None:
    against.raw.say(encode_message(Kind.PUT, b"no JSON"))
    _, problem = against.collect()
    assert isinstance(problem, ProtocolViolation) and problem.__context__ is not None
    against.close()
    assert problem.__traceback__ is None and problem.__context__.__traceback__ is None


def test_frames_of_a_cause_are_let_go_even_when_it_is_its_own(against: Against) -> None:
    class Content:
        pass

    def fail_with(cause: BaseException | None) -> tuple[Exception, "weakref.ref[Content]"]:
        content = Content()
        try:
            raise ValueError from cause
        except ValueError as problem:
            return problem, weakref.ref(content)

    inner, one = fail_with(None)
    outer, two = fail_with(inner)
    inner.__cause__ = outer
    assert one() is not None and two() is not None
    against.channel.stop(outer)
    against.close()
    assert one() is None and two() is None


def test_failure_wakes_a_consumer_that_waits(against: Against) -> None:
    outcome: list[TransferError | None] = []
    consumer = threading.Thread(target=lambda: outcome.append(against.collect()[1]))
    consumer.start()
    against.channel.fail(ConnectionTrouble("over"))
    consumer.join(10)
    assert [str(each) for each in outcome] == ["over"]


def test_failure_wakes_a_producer_that_waits_for_room(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft.wire.channel, "_DRAIN_SECONDS", 0.3)
    against = Against(engine, buffers=4096)
    problems: list[BaseException] = []

    def produce() -> None:
        try:
            while True:
                send_content(against.channel, bytes(DATA_SIZE))
        except TransferError as problem:
            problems.append(problem.with_traceback(None))

    producer = threading.Thread(target=produce)
    producer.start()
    with engine.budget._changed:  # until nothing more can be had
        while against.channel._out.held < 2:
            engine.budget._changed.wait(0.01)
    against.channel.fail(ConnectionTrouble("over"))
    producer.join(10)
    assert [str(each) for each in problems] == ["over"]
    against.close()


# --- closing ----------------------------------------------------------------------------------------------------------


def test_close_says_what_was_posted_and_the_code_last(against: Against) -> None:
    closing = threading.Thread(target=against.channel.close, args=(Code.PROTOCOL,))
    for number in range(1, 200):
        against.channel.post(Cancel(number).encode())
    closing.start()
    heard = against.raw.hear_all()
    assert heard == [*(Cancel(number) for number in range(1, 200)), Error(Code.PROTOCOL)]
    against.raw.close()
    closing.join(10)


def test_close_twice_is_one_close(against: Against) -> None:
    against.raw.close()
    against.channel.close()
    against.channel.close(Code.INTERNAL)


def test_close_does_not_wait_for_a_peer_that_has_left(against: Against) -> None:
    against.raw.close()
    assert isinstance(against.collect()[1], ConnectionTrouble)
    started = time.monotonic()
    against.channel.close()
    assert time.monotonic() - started < 1, "there is nothing left to drain"


def test_close_gives_up_on_a_peer_that_reads_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft.wire.channel, "_DRAIN_SECONDS", 0.2)
    against = Against(engine, buffers=4096)
    for _ in range(100):
        against.channel.post(LISTING.encode())
    started = time.monotonic()
    against.channel.close(Code.STOPPING)
    assert time.monotonic() - started < 2
    check_nothing_is_left(engine, against.channel)
    against.raw.close()


def test_close_gives_back_what_was_not_consumed(against: Against) -> None:
    for _ in range(6):
        against.raw.say(data(1, 0, b"x" * 100_000))
    against.channel.content_room(10)
    against.close()


def test_buffer_is_not_used_again_while_a_worker_still_writes_into_it(engine: Engine) -> None:
    """Every worker is kept busy, so that the arrived record is surely not opened yet when the channel closes."""
    go_on = threading.Event()
    busy = [engine.pool.submit(go_on.wait, 20) for _ in range(engine.workers)]
    against = Against(engine)
    against.raw.say(data(1, 0, b"x" * 100_000))
    with against.channel._lock:
        while not against.channel._arrived:
            against.channel._to_take.wait(0.01)
    against.raw.close()
    against.channel.close()
    lease = Lease(4)
    buffers = [buffer for buffer in (engine.budget.take(lease) for _ in range(2)) if buffer is not None]
    for buffer in buffers:
        buffer[:] = b"u" * len(buffer)
    go_on.set()
    assert all(each.result() for each in busy)
    engine.pool.shutdown(wait=True)
    assert all(buffer == b"u" * len(buffer) for buffer in buffers), "the next connection's bytes were overwritten"
    for buffer in buffers:
        engine.budget.give_back(lease, buffer)


def test_close_gently_lets_the_last_word_arrive() -> None:
    near, far = tcp_pair()
    far.sendall(b"unread" * 1000)  # a close with unread bytes becomes a reset that overtakes what was said
    near.sendall(b"last word")
    closing = threading.Thread(target=close_gently, args=(near,))
    closing.start()
    assert far.recv(100) == b"last word"
    assert far.recv(100) == b""
    far.close()
    closing.join(10)
    assert near.fileno() == -1


# --- never waiting ----------------------------------------------------------------------------------------------------


def test_post_never_waits_even_when_the_peer_reads_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft.wire.channel, "_DRAIN_SECONDS", 0.2)
    against = Against(engine, buffers=4096)
    message = ListFolder(1, (), "n" * 500).encode()
    assert sft.wire.channel._MOST_ANSWERS * len(message) < sft.wire.channel._MOST_ANSWER_BYTES, (
        "even if none has left yet"
    )

    def post() -> None:
        for _ in range(sft.wire.channel._MOST_ANSWERS):
            against.channel.post(message)

    posting = threading.Thread(target=post)
    posting.start()
    posting.join(10)
    assert not posting.is_alive()
    against.raw.say(Cancel(1).encode(), BYE_MESSAGE)
    reading = threading.Thread(target=against.raw.hear_all)
    reading.start()
    assert against.collect() == ([Cancel(1)], None), "and it goes on when the peer reads"
    against.channel.close()
    reading.join(10)
    against.close()


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
        wait_until(lambda: self.most > sft.wire.channel._UNREAD_BYTES)

    def _answer(self) -> None:
        channel = self.against.channel
        try:
            for arrived in channel.messages():
                if arrived is not None:
                    channel.post(self.ANSWER)
                    self.given, self.most = self.given + 1, max(self.most, channel._answer_bytes)
            channel.say_bye()
        except TransferError as problem:
            self.problem = problem.with_traceback(None)

    def finish(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert self.most <= sft.wire.channel._UNREAD_BYTES + len(self.ANSWER)
        self.against.close()


def test_consumer_waits_while_its_answers_are_not_read_and_then_gives_all(engine: Engine) -> None:
    answering = Answering(engine)
    assert sum(message == LISTING for message in iter(answering.against.raw.hear, Bye())) == 300
    answering.finish()
    assert (answering.given, answering.problem) == (300, None)


ENDS: dict[str, Callable[[Against], object]] = {
    "failure": lambda against: against.channel.fail(ConnectionTrouble("over")),
    "stop": lambda against: against.channel.stop(ConnectionTrouble("over")),
    "peer that has closed one side": lambda against: against.raw.stop(),
    "peer that is gone": lambda against: against.raw.close(),
}


@pytest.mark.parametrize("end", ENDS)
def test_consumer_whose_answers_are_not_read_ends_with_the_channel(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(sft.wire.channel, "_DRAIN_SECONDS", 0.2)
    answering = Answering(engine)
    ENDS[end](answering.against)
    answering.finish()
    assert isinstance(answering.problem, ConnectionTrouble) and answering.given < 300


def test_peer_that_asks_without_end_and_reads_nothing_is_left(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """No honest peer can have so many answers due: the window bounds them, and so the memory of this end."""
    monkeypatch.setattr(sft.wire.channel, "_DRAIN_SECONDS", 0.2)
    against = Against(engine, buffers=4096)
    message = ListFolder(1, (), "n" * 500).encode()
    posted = 0
    with pytest.raises(ConnectionTrouble, match="does not read"):
        for posted in range(sft.wire.channel._MOST_ANSWERS + 10_000):  # noqa: B007
            against.channel.post(message)
    assert posted >= sft.wire.channel._MOST_ANSWERS
    assert isinstance(against.collect()[1], ConnectionTrouble)
    against.close()


def test_failed_post_wakes_whoever_waits(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft.wire.channel, "_DRAIN_SECONDS", 0.2)
    monkeypatch.setattr(sft.wire.channel, "_MOST_ANSWERS", 3)
    against = Against(engine, buffers=4096)
    message = LISTING.encode()
    problems: list[TransferError | None] = []
    consumer = threading.Thread(target=lambda: problems.append(against.collect()[1]), daemon=True)
    consumer.start()
    with pytest.raises(ConnectionTrouble, match="does not read"):
        while True:
            against.channel.post(message)
    consumer.join(10)
    assert [type(problem) for problem in problems] == [ConnectionTrouble]
    against.close()


def test_two_channels_that_only_post_never_lock_each_other(engine: Engine) -> None:
    near, far = tcp_pair(4096)
    one, two = Channel(near, C2S, S2C, engine), Channel(far, S2C, C2S, engine)
    for number in range(1, 5_000):
        for channel in (one, two):
            channel.post(Cancel(number).encode())
    for channel in (one, two):
        channel.say_bye()
    got: list[int] = []

    def consume(channel: Channel) -> None:
        got.append(len(delivered(channel)))

    threads = [threading.Thread(target=consume, args=(channel,)) for channel in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [4_999, 4_999]
    close_all(one, two)
    check_nothing_is_left(engine, one, two)


# --- silence ----------------------------------------------------------------------------------------------------------


def test_ping_is_sent_after_silence_and_keeps_the_peer_waiting(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft.wire.channel, "PING_AFTER", 0.2)
    monkeypatch.setattr(sft.wire.silence, "SILENCE_LIMIT", 1)
    against = Against(engine)
    started = time.monotonic()
    while time.monotonic() - started < 1.3:  # longer than the limit, paced by the pings themselves
        assert against.raw.hear() == Ping()
        against.raw.say(PING_MESSAGE)
    against.raw.say(Cancel(1).encode(), BYE_MESSAGE)
    assert against.collect() == ([Cancel(1)], None)
    against.close()


def test_silence_ends_the_connection(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft.wire.silence, "SILENCE_LIMIT", 1)
    against = Against(engine)
    started = time.monotonic()
    got, problem = against.collect()
    assert got == []
    assert isinstance(problem, ConnectionTrouble)
    assert "no sign of life" in problem.cause
    assert 0.9 < time.monotonic() - started < 5
    against.close()


def test_half_a_record_and_then_silence_ends_the_connection(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft.wire.silence, "SILENCE_LIMIT", 1)
    against = Against(engine)
    against.raw.sock.sendall(frame_header(RECORD_FRAME_LIMIT) + b"x" * 1000)
    got, problem = against.collect()
    assert got == []
    assert isinstance(problem, ConnectionTrouble)
    against.close()


# --- the budget -------------------------------------------------------------------------------------------------------


def test_every_lease_has_two_buffers_always_and_more_only_while_free() -> None:
    budget = Budget(3 * sft.wire.workers._BUFFER_SIZE)
    greedy, late = Lease(10), Lease(10)
    mine = [budget.take(greedy) for _ in range(3)]
    theirs = [budget.take(late), budget.take(late)]
    assert None not in mine + theirs
    blocked: list[bytearray | None] = []
    waiting = threading.Thread(target=lambda: blocked.append(budget.take(greedy)))
    waiting.start()
    for lease, buffers in ((late, theirs), (greedy, mine[1:])):
        for buffer in buffers:
            assert buffer is not None
            budget.give_back(lease, buffer)
    waiting.join(10)
    assert len(blocked) == 1
    assert blocked[0] is not None


def test_lease_takes_no_more_than_its_most() -> None:
    budget, lease = Budget(1 << 40), Lease(4)
    for _ in range(4):
        assert budget.take(lease) is not None
    got: list[bytearray | None] = []
    waiting = threading.Thread(target=lambda: got.append(budget.take(lease)))
    waiting.start()
    budget.end(lease)
    waiting.join(10)
    assert got == [None]
    assert lease.held == 4


def test_ended_lease_gets_nothing() -> None:
    budget, lease = Budget(1 << 40), Lease(4)
    budget.end(lease)
    assert budget.take(lease) is None


def test_smallest_budget_still_moves_content() -> None:
    engine = Engine(1)
    near, far = tcp_pair()
    one, two = Channel(near, C2S, S2C, engine), Channel(far, S2C, C2S, engine)
    content = os.urandom(6 * DATA_SIZE)
    producer = threading.Thread(target=produce, args=(one, content))
    producer.start()
    assert b"".join(piece for piece in delivered(two) if isinstance(piece, bytes)) == content
    producer.join()
    close_all(one, two)
    check_nothing_is_left(engine, one, two)
    assert len(engine.budget._spare) <= 1
    engine.close()


def test_spare_buffers_stay_within_the_budget(engine: Engine) -> None:
    budget, lease = Budget(3 * sft.wire.workers._BUFFER_SIZE), Lease(3)
    buffers = [budget.take(lease) for _ in range(3)]
    for buffer in buffers:
        assert buffer is not None
        budget.give_back(lease, buffer)
    assert len(budget._spare) <= 3
    assert budget._taken == 0


# --- the engine -------------------------------------------------------------------------------------------------------


def cipher_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("cipher")}


def test_engine_starts_all_its_threads_at_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail("a thread was started later"))
    meet = threading.Barrier(engine.workers)
    waiting = [engine.pool.submit(meet.wait) for _ in range(engine.workers)]
    assert sorted(each.result() for each in waiting) == list(range(engine.workers))


def test_engine_without_threads_for_all_its_work_ends_those_that_it_got(monkeypatch: pytest.MonkeyPatch) -> None:
    before, start = cipher_threads(), threading.Thread.start
    for most in (0, 1, 2):
        left = iter(range(most))

        def limited(thread: threading.Thread, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise RuntimeError("can't start new thread")
            start(thread)

        with monkeypatch.context() as patched:
            patched.setattr(sft.wire.workers, "_MOST_WORKERS", 3)
            patched.setattr(os, "cpu_count", lambda: 3)
            patched.setattr(threading.Thread, "start", limited)
            with pytest.raises(NoThread):
                Engine(MEMORY)
        assert cipher_threads() <= before


LARGE = data(1, 0, bytes(100_000))  # a record for a worker


def test_engine_that_is_closed_ends_who_sends(against: Against) -> None:
    against.engine.close()
    against.channel.content_room(100_000)
    against.channel.content_done(1, 0, 100_000)
    for _ in range(2):
        with pytest.raises(ConnectionTrouble, match="the connection was lost"):
            against.channel.flush()
    closing = threading.Thread(target=against.channel.close, args=(Code.STOPPING,))
    closing.start()
    assert against.raw.hear_all() == [Error(Code.STOPPING)], "the last word has the number that is next"
    against.raw.close()
    closing.join()


def test_engine_that_is_closed_ends_who_receives(against: Against) -> None:
    against.engine.close()
    against.raw.say(LARGE)
    got, problem = against.collect()
    assert got == [] and isinstance(problem, ConnectionTrouble)


def test_engine_that_is_closed_does_not_hide_the_first_cause(against: Against) -> None:
    against.channel.content_room(100_000)
    against.channel.content_done(1, 0, 100_000)
    against.channel.stop(PeerStopped(Code.FULL))
    against.engine.close()
    with pytest.raises(PeerStopped):
        against.channel.flush()


@pytest.mark.parametrize("sends", [True, False], ids=["sent", "received"])
def test_work_that_is_cancelled_at_the_engines_close_ends_the_channel(against: Against, sends: bool) -> None:
    busy, over = threading.Barrier(against.engine.workers + 1), threading.Event()
    for _ in range(against.engine.workers):
        against.engine.pool.submit(lambda: (busy.wait(), over.wait()))
    busy.wait()
    try:
        if sends:
            against.channel.content_room(100_000)
            against.channel.content_done(1, 0, 100_000)
            against.channel.flush()
        else:
            against.raw.say(LARGE)
            against.raw.stop()
            against.channel._reader.join(10)
        against.engine.close()
        got, problem = against.collect()
        assert got == [] and isinstance(problem, ConnectionTrouble)
    finally:
        over.set()


# --- the login's link -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def linked(seconds: float = 10) -> Iterator[tuple[Link, socket.socket]]:
    near, far = tcp_pair()
    try:
        yield Link(near, time.monotonic() + seconds), far
    finally:
        near.close()
        far.close()


@pytest.mark.parametrize("size", [1, 100, LOGIN_FRAME_LIMIT])
def test_link_passes_whole_frames(size: int) -> None:
    with linked() as (link, far):
        whole = frame(b"x" * size)
        far.sendall(whole + frame(b"next"))
        assert link.receive() == whole
        assert link.receive() == frame(b"next")
        link.send(whole)
        assert far.recv(len(whole), socket.MSG_WAITALL) == whole


def test_link_reads_not_a_byte_past_its_frame() -> None:
    with linked() as (link, far):
        far.sendall(frame(b"x") + b"record")
        link.receive()
        assert link._sock.recv(100) == b"record"


@pytest.mark.parametrize("size", [0, LOGIN_FRAME_LIMIT + 1, 1 << 31, (1 << 32) - 1])
def test_link_refuses_a_frame_of_a_wrong_length(size: int) -> None:
    with linked() as (link, far):
        far.sendall(frame_header(size))
        with pytest.raises(ProtocolViolation):
            link.receive()


@pytest.mark.parametrize("sent", [b"", b"\0\0", frame_header(10), frame(b"x" * 10)[:-1]], ids=repr)
def test_link_tells_a_cut(sent: bytes) -> None:
    with linked() as (link, far):
        far.sendall(sent)
        far.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionTrouble):
            link.receive()


def test_links_deadline_is_absolute_and_not_for_each_byte() -> None:
    with linked(0.5) as (link, far):
        over = threading.Event()

        def drip() -> None:
            far.sendall(frame_header(LOGIN_FRAME_LIMIT))
            while not over.wait(0.05):
                with contextlib.suppress(OSError):
                    far.sendall(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        started = time.monotonic()
        with pytest.raises(ConnectionTrouble, match="too long"):
            link.receive()
        assert time.monotonic() - started < 2
        over.set()
        dripping.join(10)
        with pytest.raises(ConnectionTrouble, match="too long"):
            link.send(b"x")


def test_link_gives_up_sending_at_its_deadline() -> None:
    near, far = tcp_pair(4096)
    with near, far, pytest.raises(ConnectionTrouble, match="too long"):
        Link(near, time.monotonic() + 0.3).send(bytes(32 << 20))
