"""The worker threads and the buffer pool: two buffers for everybody, a limit for all, and no work left undone."""

import contextlib
import os
import threading
from collections.abc import Iterator

import pytest
from peers import (
    C2S,
    MEMORY,
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

import sft.wire.channel
import sft.wire.workers
from sft.common.errors import (
    NoThread,
)
from sft.wire.channel import Channel
from sft.wire.protocol import DATA_SIZE
from sft.wire.workers import BufferPool, Buffers, Engine

pytestmark = pytest.mark.usefixtures("watched")


def several(buffers: Buffers, count: int) -> list[bytearray]:
    """So many buffers, each of which may be had at once."""
    taken = [buffers.take() for _ in range(count)]
    return [buffer for buffer in taken if buffer is not None]


# --- the buffer pool ---


def test_every_direction_has_two_buffers_and_more_only_while_the_limit_allows() -> None:
    pool = BufferPool(3 * sft.wire.workers._BUFFER_SIZE)
    greedy, late = Buffers(pool, 10), Buffers(pool, 10)
    mine, theirs = several(greedy, 3), several(late, 2)
    assert (len(mine), len(theirs)) == (3, 2)
    blocked: list[bytearray | None] = []
    waiting = threading.Thread(target=lambda: blocked.append(greedy.take()))
    waiting.start()
    for buffers, taken in ((late, theirs), (greedy, mine[1:])):
        for buffer in taken:
            buffers.give_back(buffer)
    waiting.join(10)
    assert len(blocked) == 1
    assert blocked[0] is not None


def test_direction_has_a_limit_of_its_own_and_its_end_wakes_who_waits() -> None:
    buffers = Buffers(BufferPool(1 << 40), 4)
    assert len(several(buffers, 4)) == 4
    got: list[bytearray | None] = []
    waiting = threading.Thread(target=lambda: got.append(buffers.take()))
    waiting.start()
    buffers.end()
    waiting.join(10)
    assert got == [None]
    assert buffers.held == 4


def test_ended_direction_gets_no_buffer() -> None:
    buffers = Buffers(BufferPool(1 << 40), 4)
    buffers.end()
    assert buffers.take() is None


def test_spare_buffers_stay_within_the_limit() -> None:
    pool = BufferPool(3 * sft.wire.workers._BUFFER_SIZE)
    buffers = Buffers(pool, 3)
    for buffer in several(buffers, 3):
        buffers.give_back(buffer)
    assert len(pool.spare) <= 3
    assert pool.taken == 0


def test_smallest_memory_still_moves_content() -> None:
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
    assert len(engine.buffer_pool.spare) <= 1
    engine.close()


def test_buffer_is_not_used_again_while_a_worker_still_writes_into_it(engine: Engine) -> None:
    """Every worker is kept busy, so that the arrived record is surely not opened yet when the channel closes."""
    go_on = threading.Event()
    busy = [engine.pool.submit(go_on.wait, 20) for _ in range(engine.workers)]
    against = Against(engine)
    against.raw.say(data(1, 0, b"x" * 100_000))
    with against.channel._life.lock:
        while not against.channel._inbox._queue:
            against.channel._inbox._to_take.wait(0.01)
    against.raw.close()
    against.channel.close()
    buffers = engine.buffers()
    taken = several(buffers, 2)
    for buffer in taken:
        buffer[:] = b"u" * len(buffer)
    go_on.set()
    assert all(each.result() for each in busy)
    engine.pool.shutdown(wait=True)
    assert all(buffer == b"u" * len(buffer) for buffer in taken), "the next connection's bytes were overwritten"
    for buffer in taken:
        buffers.give_back(buffer)


# --- the worker threads ---


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


@contextlib.contextmanager
def all_busy(engine: Engine) -> Iterator[None]:
    """No worker has time for anything new."""
    busy, over = threading.Barrier(engine.workers + 1), threading.Event()
    for _ in range(engine.workers):
        engine.pool.submit(lambda: (busy.wait(), over.wait()))
    busy.wait()
    try:
        yield
    finally:
        over.set()


@pytest.mark.parametrize("closed", ["before", "meanwhile"])
def test_work_that_a_closed_engine_left_undone_is_done_by_the_thread_that_needs_it(
    pair: tuple[Channel, Channel], engine: Engine, closed: str
) -> None:
    one, two = pair
    content = os.urandom(100_000)  # for a worker
    with all_busy(engine):
        if closed == "before":
            engine.close()
        send_content(one, content)
        one.say_bye()
        engine.close()
        assert delivered(two) == [content]
