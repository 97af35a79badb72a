"""What arrives on a channel: records in order and as they were sealed, or an end; silence is one."""

import os
import time
from collections.abc import Callable

import pytest
from peers import Against, data, seal

import sft.wire.silence
import sft.wire.workers
from crypto_utils import RecordCipher
from sft.common.errors import (
    ConnectionTrouble,
    IntegrityError,
    ProtocolViolation,
    TransferError,
)
from sft.wire.messages import (
    BYE_MESSAGE,
    PING_MESSAGE,
    Cancel,
)
from sft.wire.protocol import DATA_SIZE, RECORD_FRAME_LIMIT, frame, frame_header
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


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


@pytest.mark.parametrize("number", [(1 << 20) - 1, 1 << 20, (1 << 21) + 5, (1 << 48) - 1])
def test_record_of_an_epoch_fails_at_the_same_place_of_another(number: int, against: Against) -> None:
    """Sealed by hand far ahead, because nobody can send 2^20 records in a test: the first record is number 0."""
    against.raw.sock.sendall(seal(against.raw.sealer, number, Cancel(1).encode()))
    got, problem = against.collect()
    assert got == []
    assert isinstance(problem, IntegrityError)


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
    assert against.channel._inbox._buffers.held == 0
    assert against.engine.buffer_pool.spare == [], "no buffer was ever made"


def test_longest_frame_is_read_into_a_pooled_buffer(against: Against) -> None:
    against.raw.say(data(1, 0, b"x" * DATA_SIZE), *[PING_MESSAGE] * ((4096 - 17) // 5))
    against.raw.say(BYE_MESSAGE)
    assert against.collect() == ([b"x" * DATA_SIZE], None)


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
