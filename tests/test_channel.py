"""The channel over real sockets: what passes, which error every caller gets, and a close that leaves nothing."""

import os
import threading
import time
import weakref

import pytest
from peers import (
    C2S,
    LISTING,
    S2C,
    Against,
    check_nothing_is_left,
    close_all,
    data,
    delivered,
    produce,
    send_content,
    tcp_pair,
)
from processes import wait_until

import crypto_utils
import sft.wire.channel
import sft.wire.workers
from sft.common.errors import (
    Code,
    ConnectionTrouble,
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
    Error,
    Kind,
    Message,
    encode_message,
)
from sft.wire.protocol import DATA_SIZE
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


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


def test_error_is_raised_anew_in_every_caller_with_the_first_as_its_cause(against: Against) -> None:
    first = PeerStopped(Code.FULL)
    against.channel.fail(first)
    against.channel.fail(ConnectionTrouble("second"))
    against.channel._reader.join(10)  # it has seen the end that this brought about
    raised = [against.collect()[1]]
    for call in (against.channel.check, lambda: against.channel.send(b"x"), lambda: list(against.channel.messages())):
        with pytest.raises(PeerStopped) as caught:
            call()
        raised.append(caught.value)
    assert len({id(each) for each in raised}) == 4 and first not in raised
    for each in raised:
        assert isinstance(each, PeerStopped) and each.__cause__ is first
        assert (str(each), each.code, each.failure) == (str(first), first.code, first.failure)
    assert first.__traceback__ is None


def test_frames_of_what_ended_the_channel_and_of_what_that_came_from_are_let_go(against: Against) -> None:
    against.raw.say(encode_message(Kind.PUT, b"no array"))
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


def test_close_goes_on_for_a_peer_that_reads_slowly(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the close waits for the writer, the peer takes one record more; this is all that it reads."""
    monkeypatch.setattr(sft.wire.channel, "_DRAIN_SECONDS", 0)
    against, heard = Against(engine, buffers=4096), list[Message]()
    writer = against.channel._writer

    class Waited:
        """The writer's thread, for who waits for it."""

        is_alive = staticmethod(writer.is_alive)

        def join(self, seconds: float) -> None:
            sent = against.channel.bytes_sent
            heard.extend(against.raw.record())
            wait_until(lambda: against.channel.bytes_sent > sent or not writer.is_alive())

    against.channel._writer = Waited()  # type: ignore[assignment]
    for _ in range(100):
        against.channel.post(LISTING.encode())
    against.channel.close(Code.STOPPING)
    against.channel._writer = writer
    heard += against.raw.hear_all()
    assert heard == [*[LISTING] * 100, Error(Code.STOPPING)]
    against.raw.close()
    check_nothing_is_left(engine, against.channel)


def test_close_gives_back_what_was_not_consumed(against: Against) -> None:
    for _ in range(6):
        against.raw.say(data(1, 0, b"x" * 100_000))
    against.channel.content_space(10)
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
