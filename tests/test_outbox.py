"""What leaves on a channel: records and answers, in order, and never waiting for a peer that does not read."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from peers import LISTING, Against, Answering, delivered, listing, send_content

import sft.wire.channel
import sft.wire.outbox
import sft.wire.silence
import sft.wire.workers
from sft.common.errors import (
    ConnectionTrouble,
    TransferError,
)
from sft.wire.channel import Channel
from sft.wire.messages import (
    BYE_MESSAGE,
    PING_MESSAGE,
    Bye,
    Cancel,
    ListFolder,
    Message,
    Ping,
)
from sft.wire.protocol import CONTROL_LIMIT, DATA_SIZE
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


def test_space_that_is_not_named_is_not_sent(pair: tuple[Channel, Channel]) -> None:
    """As when a file turns out shorter than it was: the space is used again."""
    one, two = pair
    one.content_space(1000)[:] = b"x" * 1000
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


def wakes(channel: Channel, waiting: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts from now on how often the writer is woken; so many records are here already, and no more will come."""
    with channel._life.lock:
        assert channel._inbox._to_take.wait_for(lambda: len(channel._inbox._queue) == waiting, 30)
    count, notify = [0], channel._outbox._to_write.notify

    def counted() -> None:
        count[0] += bool(channel._outbox._answers)
        notify()

    monkeypatch.setattr(channel._outbox._to_write, "notify", counted)
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
    with engine.buffer_pool.changed:  # until nothing more can be had
        while against.channel._outbox._buffers.held < 2:
            engine.buffer_pool.changed.wait(0.01)
    against.channel.fail(ConnectionTrouble("over"))
    producer.join(10)
    assert [str(each) for each in problems] == ["over"]
    against.close()


def test_post_never_waits_even_when_the_peer_reads_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft.wire.channel, "_DRAIN_SECONDS", 0.2)
    against = Against(engine, buffers=4096)
    message = ListFolder(1, (), "n" * 500).encode()
    assert sft.wire.outbox._MOST_ANSWERS * len(message) < sft.wire.outbox._MOST_ANSWER_BYTES, (
        "even if none has left yet"
    )

    def post() -> None:
        for _ in range(sft.wire.outbox._MOST_ANSWERS):
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
        for posted in range(sft.wire.outbox._MOST_ANSWERS + 10_000):  # noqa: B007
            against.channel.post(message)
    assert posted >= sft.wire.outbox._MOST_ANSWERS
    assert isinstance(against.collect()[1], ConnectionTrouble)
    against.close()


def test_failed_post_wakes_the_consumer(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft.wire.channel, "_DRAIN_SECONDS", 0.2)
    monkeypatch.setattr(sft.wire.outbox, "_MOST_ANSWERS", 3)
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


def test_ping_is_sent_after_silence_and_keeps_the_peer_waiting(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft.wire.outbox, "PING_AFTER", 0.2)
    monkeypatch.setattr(sft.wire.silence, "SILENCE_LIMIT", 1)
    against = Against(engine)
    started = time.monotonic()
    while time.monotonic() - started < 1.3:  # longer than the limit, paced by the pings themselves
        assert against.raw.hear_any() == Ping()
        against.raw.say(PING_MESSAGE)
    against.raw.say(Cancel(1).encode(), BYE_MESSAGE)
    assert against.collect() == ([Cancel(1)], None)
    against.close()
