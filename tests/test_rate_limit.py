"""The limit of bytes per second, on a clock that only goes when somebody waits."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sft.common.rate_limit
from sft.common.rate_limit import RateLimiter, RateLimiters


class Clock:
    """A clock that is moved by hand, and by those that wait on it."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.waits: list[float] = []

    def read(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.waits.append(seconds)
        self.now += seconds


def limited(rate: int | None) -> tuple[Clock, RateLimiter]:
    clock = Clock()
    return clock, RateLimiter(rate, clock.read, clock.wait)


def test_no_limit_never_waits() -> None:
    clock, limiter = limited(None)
    for _ in range(100):
        limiter.spend(1 << 40)
    assert clock.waits == []


def test_bytes_take_as_long_as_the_rate_says() -> None:
    clock, limiter = limited(1_000)
    for _ in range(50):
        limiter.spend(100)
    assert clock.now == pytest.approx(1_005)


def test_piece_larger_than_the_rate_is_waited_for_in_one() -> None:
    clock, limiter = limited(1_000)
    limiter.spend(10_000)
    assert clock.waits == [pytest.approx(10)]


def test_nothing_costs_nothing() -> None:
    clock, limiter = limited(1)
    limiter.spend(0)
    assert clock.waits == []


def test_time_that_went_by_anyway_is_not_waited_for_again() -> None:
    clock, limiter = limited(1_000)
    limiter.spend(100)
    clock.now += 0.05
    limiter.spend(100)
    assert clock.waits == [pytest.approx(0.1), pytest.approx(0.05)]


def test_long_pause_is_worth_a_quarter_of_a_second_and_no_more() -> None:
    clock, limiter = limited(1_000)
    clock.now += 3_600
    limiter.spend(250)
    assert clock.waits == []
    limiter.spend(1_000)
    assert clock.waits == [pytest.approx(1)]


@given(st.integers(1, 1 << 40), st.lists(st.tuples(st.integers(0, 1 << 20), st.floats(0, 10)), max_size=30))
def test_never_faster_than_the_rate_and_a_quarter_of_a_second(rate: int, spent: list[tuple[int, float]]) -> None:
    clock, limiter = limited(rate)
    total, start = 0, clock.now
    for count, pause in spent:
        clock.now += pause
        limiter.spend(count)
        total += count
        assert total / rate <= clock.now - start + 0.25 + 1e-6


@given(st.integers(1, 1 << 30), st.lists(st.integers(0, 1 << 20), min_size=1, max_size=30))
def test_who_spends_without_a_pause_is_not_held_up_longer_than_the_rate_says(rate: int, spent: list[int]) -> None:
    clock, limiter = limited(rate)
    start = clock.now
    for count in spent:
        limiter.spend(count)
    assert clock.now - start <= sum(spent) / rate * (1 + 1e-9) + 1e-6


def test_turn_ends_with_its_connection_and_not_after_the_wait() -> None:
    clock, limiter = limited(1)
    ended = False

    def has_ended() -> bool:
        nonlocal ended
        ended = clock.now > 1_010
        return ended

    limiter.for_connection(has_ended).spend(1_000_000)
    assert ended and clock.now < 1_011


def test_turns_share_one_rate_and_come_after_each_other() -> None:
    clock, limiter = limited(1_000)
    one, two = limiter.for_connection(lambda: False), limiter.for_connection(lambda: False)
    for _ in range(5):
        one.spend(1_000)
        two.spend(1_000)
    assert clock.now == pytest.approx(1_010)


def test_account_pays_for_a_sixteenth_of_the_content_and_a_limit_of_the_connection_for_what_is_sent() -> None:
    clock = Clock()
    account = RateLimiter(1_000, clock.read, clock.wait, counts_content=True)
    account.spend(21, content=160_000)
    assert clock.now == pytest.approx(1_010)
    account.spend(10_000, content=16_000)
    assert clock.now == pytest.approx(1_020)
    slower = RateLimiter(None, clock.read, clock.wait).within(1_000)
    slower.spend(1_000, content=1 << 40)
    assert clock.now == pytest.approx(1_021)
    account.within(100).spend(21, content=16_000)
    assert clock.now == pytest.approx(1_021.75)  # it had rested for a second, which is worth a quarter


def test_connections_of_one_user_share_a_limit_and_others_do_not() -> None:
    limiters = RateLimiters()
    alice, again, bob, none = (limiters.of(*who) for who in (("alice", 5), ("alice", 5), ("bob", 5), ("eve", None)))
    assert alice is again is not bob
    assert not none.is_limited
    assert limiters.of("alice", 6) is not alice


def test_user_who_reconnects_still_owes_what_came_before() -> None:
    limiters = RateLimiters()
    owed = limiters.of("alice", 5)._buckets[0].pay(1_000, 0)
    gc.collect()
    assert limiters.of("alice", 5)._buckets[0].pay(1, 0) > owed


class Hurried:
    """A channel that counts how often its answers were let go."""

    def __init__(self) -> None:
        self.count = self.bytes_posted = 0

    def hurry(self) -> None:
        self.count += 1


def test_every_byte_of_every_message_counts() -> None:
    channel = Hurried()
    clock, limiter = limited(1_000)
    messages: list[tuple[str, memoryview] | None] = [
        ("PUT", memoryview(bytes(9_995))),
        ("END", memoryview(bytes(95))),
        None,
        ("PING", memoryview(b"")),
    ]
    times = []
    for arrived in sft.common.rate_limit.limited(channel, iter(messages), limiter):
        times.append(clock.now)
        assert arrived is None or isinstance(arrived[0], str)
    start = times[0]
    assert [round(each - start, 6) for each in times] == [0, 10, 10, 10.1]
    assert channel.count == 2, "answers leave before the wait"


def test_answers_count_like_what_they_answer() -> None:
    channel = Hurried()
    clock, limiter = limited(1_000)
    started, times = clock.now, []
    for arrived in sft.common.rate_limit.limited(channel, iter([("END", memoryview(bytes(995))), None, None]), limiter):
        times.append(round(clock.now - started, 6))
        channel.bytes_posted += 500 if arrived else 2_000
    assert times == [0, 0, 3.5] and clock.now - started == pytest.approx(5.5)


def test_limit_beside_the_shared_one_is_for_that_connection_alone() -> None:
    clock, shared = limited(1_000)
    slow, fast = shared.within(100), shared.within(10_000)
    assert (slow.bytes_in(1), fast.bytes_in(1), shared.bytes_in(1)) == (100, 1_000, 1_000)
    slow.spend(100)
    assert clock.now == pytest.approx(1_001)
    clock.now += 1
    shared.spend(1_250)
    assert clock.now == pytest.approx(1_003), "the slow one owes nothing for others"
    fast.spend(1_000)
    assert clock.now == pytest.approx(1_004), "and nobody gets more than what is shared"
    unlimited, alone = limited(None)
    alone.within(10).spend(10)
    assert unlimited.now == pytest.approx(1_001)


def test_messages_without_a_limit_pass_as_they_are() -> None:
    messages: list[tuple[str, memoryview] | None] = [("PUT", memoryview(bytes(10_000))), None]
    assert list(sft.common.rate_limit.limited(Hurried(), iter(messages), RateLimiter(None))) == messages
