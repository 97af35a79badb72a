"""The throttle's limits, its waits, and what a success gives back."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice

import pytest

import sft.server.throttle
from sft.server.origin import origin_of
from sft.server.throttle import Charge, Throttle

HERE = "192.0.2.1"
SMALL = 300  # entries of a table that is soon full
DAY = 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(clock)


def must(charge: Charge | None) -> Charge:
    assert charge is not None
    return charge


def sources() -> Iterable[str]:
    return (f"10.{high}.{middle}.{low}" for high in range(256) for middle in range(256) for low in range(256))


def log_in(throttle: Throttle, user: bytes = b"alice", source: str = HERE) -> bool:
    charge = throttle.charge(user, source)
    if charge is not None:
        charge.give_back()
    return charge is not None


def test_twenty_wrong_tries_are_free_and_the_next_is_refused(throttle: Throttle) -> None:
    verdicts = [throttle.charge(b"alice", HERE) is not None for _ in range(25)]
    assert verdicts == [True] * 20 + [False] * 5


def test_waits_begin_at_a_minute_and_double_to_an_hour(throttle: Throttle, clock: Clock) -> None:
    for _ in range(20):
        must(throttle.charge(b"alice", HERE))
    for wait in (60, 120, 240, 480, 960, 1920, 3600, 3600, 3600):
        clock.now += wait - 0.5
        assert throttle.charge(b"alice", HERE) is None
        clock.now += 0.5
        must(throttle.charge(b"alice", HERE))
        assert throttle.charge(b"alice", HERE) is None


def test_refused_tries_are_not_charged(throttle: Throttle, clock: Clock) -> None:
    for _ in range(20):
        must(throttle.charge(b"alice", HERE))
    for _ in range(500):
        assert throttle.charge(b"alice", HERE) is None
    clock.now += 60
    must(throttle.charge(b"alice", HERE))


def test_another_user_and_another_source_are_not_held_up(throttle: Throttle) -> None:
    for _ in range(20):
        must(throttle.charge(b"alice", HERE))
    must(throttle.charge(b"bob", HERE))
    must(throttle.charge(b"alice", "192.0.2.2"))


def test_source_is_refused_after_a_hundred_tries_at_any_names(throttle: Throttle, clock: Clock) -> None:
    for number in range(100):
        must(throttle.charge(b"user%d" % number, HERE))
    assert throttle.charge(b"another", HERE) is None
    must(throttle.charge(b"another", "192.0.2.2"))
    for wait in (60, 120, 240):
        clock.now += wait
        must(throttle.charge(b"another", HERE))
        assert throttle.charge(b"yet another", HERE) is None


def test_names_that_nobody_has_are_throttled_like_an_account(clock: Clock) -> None:
    """An account is a name that somebody has logged in as, from elsewhere."""
    verdicts = []
    for known in (True, False):
        clock.now, throttle = 1_000_000.0, Throttle(clock)
        if known:
            assert log_in(throttle, source="198.51.100.9")
        seen = []
        for number in range(3000):
            clock.now += 40 if number % 500 else 40_000
            seen.append(throttle.charge(b"alice", f"10.0.0.{number % 60}") is not None)
        verdicts.append(seen)
    assert verdicts[0] == verdicts[1] and len(set(verdicts[0])) == 2


def test_after_a_flood_of_invented_names_an_account_and_a_name_share_one_fate(clock: Clock) -> None:
    verdicts = []
    for known in (True, False):
        clock.now, throttle = 3600.0 * 300, Throttle(clock, capacity=SMALL)
        if known:
            assert log_in(throttle, source="198.51.100.9")
        assert spread(throttle, b"alice", 2000) == 1001
        flood(throttle)
        verdicts.append([throttle.charge(b"alice", f"10.9.0.{number}") is not None for number in range(9)])
    assert verdicts[0] == verdicts[1] == [False] * 9


def test_flood_of_invented_names_gives_no_fresh_guesses_at_a_pair(clock: Clock) -> None:
    throttle = Throttle(clock, capacity=SMALL)
    assert [throttle.charge(b"alice", HERE) is not None for _ in range(21)] == [True] * 20 + [False]
    flood(throttle)
    assert throttle.charge(b"alice", HERE) is None


def flood(throttle: Throttle) -> None:
    """Twice as many names and addresses as a small table holds, one try for each."""
    for number in range(2 * SMALL):
        must(throttle.charge(b"invented%d" % number, f"172.{number // 250}.9.{number % 250}"))


def test_honest_logins_are_never_used_up(throttle: Throttle) -> None:
    assert all(log_in(throttle) for _ in range(5000))
    assert len(throttle) == 0


def test_success_gives_back_its_own_charge_only(throttle: Throttle) -> None:
    for _ in range(15):
        must(throttle.charge(b"alice", HERE))
    assert log_in(throttle)
    verdicts = [throttle.charge(b"alice", HERE) is not None for _ in range(6)]
    assert verdicts == [True] * 5 + [False]


def test_charge_is_given_back_once(throttle: Throttle) -> None:
    charges = [must(throttle.charge(b"alice", HERE)) for _ in range(20)]
    for _ in range(20):
        charges[0].give_back()
    must(throttle.charge(b"alice", HERE))
    assert throttle.charge(b"alice", HERE) is None


def test_success_undoes_the_wait_of_its_own_charge(throttle: Throttle, clock: Clock) -> None:
    for _ in range(20):
        must(throttle.charge(b"alice", HERE))
    clock.now += 60
    assert all(log_in(throttle) for _ in range(10))
    must(throttle.charge(b"alice", HERE))
    assert not log_in(throttle)


def test_success_leaves_the_wait_of_a_later_charge(throttle: Throttle, clock: Clock) -> None:
    for _ in range(20):
        must(throttle.charge(b"alice", HERE))
    clock.now += 60
    mine = must(throttle.charge(b"alice", HERE))
    clock.now += 120
    must(throttle.charge(b"alice", HERE))
    mine.give_back()
    assert throttle.charge(b"alice", HERE) is None
    clock.now += 239
    assert throttle.charge(b"alice", HERE) is None
    clock.now += 1
    must(throttle.charge(b"alice", HERE))


def test_success_leaves_the_hour_of_a_later_late_try(throttle: Throttle, clock: Clock) -> None:
    clock.now = 3600.0 * 300
    assert spread(throttle, b"alice", 2000) == 1001
    clock.now += 3600
    mine = must(throttle.charge(b"alice", "198.51.100.1"))
    clock.now += 3600
    must(throttle.charge(b"alice", "198.51.100.2"))
    mine.give_back()
    assert throttle.charge(b"alice", "198.51.100.3") is None


def test_guesser_behind_the_same_address_gains_nothing_by_others_logins(throttle: Throttle) -> None:
    guesses = 0
    for _ in range(200):
        log_in(throttle)
        guesses += throttle.charge(b"alice", HERE) is not None
        log_in(throttle, b"bob")
    assert guesses == 20


def spread(throttle: Throttle, user: bytes, tries: int) -> int:
    """So many wrong tries, ten from each source; how many were allowed."""
    allowed = 0
    for source in islice(sources(), tries // 10):
        allowed += sum(throttle.charge(user, source) is not None for _ in range(10))
    return allowed


def test_user_gets_a_thousand_wrong_tries_a_day_then_one_an_hour(throttle: Throttle, clock: Clock) -> None:
    clock.now = 3600.0 * 300
    assert spread(throttle, b"alice", 3000) == 1001
    for hour in range(1, 24):
        clock.now = 3600.0 * (300 + hour)
        places = [f"172.16.{hour}.{number}" for number in range(50)]
        assert [throttle.charge(b"alice", place) is not None for place in places] == [True] + [False] * 49
    must(throttle.charge(b"bob", "192.0.2.77"))
    clock.now = 3600.0 * (300 + 25)
    assert all(throttle.charge(b"alice", f"172.17.0.{number}") for number in range(50))


def test_no_day_sees_more_than_a_thousand_free_tries(throttle: Throttle, clock: Clock) -> None:
    charged: list[float] = []
    for source in islice(sources(), 6000):
        clock.now += 30
        if throttle.charge(b"alice", source) is not None:
            charged.append(clock.now)
    for start in charged:
        assert sum(start <= moment < start + DAY for moment in charged) <= 1000 + 25


def test_sources_that_logged_in_before_are_not_shut_out_by_a_thousand_tries(throttle: Throttle) -> None:
    assert log_in(throttle, source=HERE)
    spread(throttle, b"alice", 2000)
    assert all(log_in(throttle, source=HERE) for _ in range(50))
    assert not log_in(throttle, source="198.51.100.1")
    assert not log_in(throttle, b"alice", "198.51.100.2")


def test_login_as_one_user_makes_no_home_for_another(throttle: Throttle) -> None:
    assert log_in(throttle, b"bob", HERE)
    spread(throttle, b"alice", 2000)
    assert not log_in(throttle, b"alice", HERE)


def test_success_in_the_one_try_of_the_hour_gives_it_back(throttle: Throttle) -> None:
    spread(throttle, b"alice", 1000)
    assert log_in(throttle, source="198.51.100.1")
    must(throttle.charge(b"alice", "198.51.100.2"))
    assert not log_in(throttle, source="198.51.100.3")
    assert log_in(throttle, source="198.51.100.1")


def test_homes_of_a_user_are_bounded(clock: Clock) -> None:
    throttle = Throttle(clock, homes_per_user=2, per_user_a_day=3)
    for source in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        assert log_in(throttle, source=source)
    for number in range(4):
        must(throttle.charge(b"alice", f"10.1.0.{number}"))
    assert [log_in(throttle, source=f"10.0.0.{number}") for number in (1, 2, 3)] == [False, True, True]


def test_home_that_is_used_again_is_not_the_first_to_be_forgotten(clock: Clock) -> None:
    throttle = Throttle(clock, homes_per_user=2, per_user_a_day=3)
    for source in ("10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.3"):
        assert log_in(throttle, source=source)
    for number in range(4):
        must(throttle.charge(b"alice", f"10.1.0.{number}"))
    assert [log_in(throttle, source=f"10.0.0.{number}") for number in (1, 2, 3)] == [True, False, True]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("2001:db8:0:1::1", "2001:0DB8:0000:0001::2", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("::1", "127.0.0.1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_what_counts_as_one_source(throttle: Throttle, one: str, other: str, same: bool) -> None:
    for _ in range(20):
        must(throttle.charge(b"alice", one))
    assert (throttle.charge(b"alice", other) is None) == same


@pytest.mark.parametrize("source", ["", "somewhere", "192.0.2.1:80", "1.2.3", "192.0.2.01", "::g", "/run/socket"])
def test_reject_source_that_is_no_address(throttle: Throttle, source: str) -> None:
    assert throttle.charge(b"alice", source) is None


def test_exception_is_a_refusal() -> None:
    def broken() -> float:
        raise RuntimeError

    assert Throttle(broken).charge(b"alice", HERE) is None


def test_entries_are_forgotten_after_an_idle_day(throttle: Throttle, clock: Clock) -> None:
    for _ in range(20):
        must(throttle.charge(b"alice", HERE))
    clock.now += DAY - 1
    must(throttle.charge(b"alice", HERE))
    assert throttle.charge(b"alice", HERE) is None
    clock.now += DAY
    assert sum(throttle.charge(b"alice", HERE) is not None for _ in range(30)) == 20


def test_daily_user_is_not_punished_for_a_typo_now_and_then(throttle: Throttle, clock: Clock) -> None:
    for _ in range(200):
        must(throttle.charge(b"alice", HERE))
        for _ in range(25):
            clock.now += 3600
            assert log_in(throttle)


def test_idle_entries_leave_the_tables(throttle: Throttle, clock: Clock) -> None:
    spread(throttle, b"nobody", 1000)
    assert len(throttle) == 201
    clock.now += DAY + 3600
    must(throttle.charge(b"alice", HERE))
    must(throttle.charge(b"another", HERE))
    assert len(throttle) == 5


def test_tables_are_bounded_and_the_fewest_charges_are_taken_over_first(clock: Clock) -> None:
    throttle = Throttle(clock, capacity=10)
    for _ in range(20):
        must(throttle.charge(b"alice", HERE))
    for number in range(60):
        throttle.charge(b"x%d" % number, f"10.0.{number % 256}.1")
        assert len(throttle) <= 30
    assert throttle.charge(b"alice", HERE) is None
    must(throttle.charge(b"new", "198.51.100.7"))


def test_no_try_is_ever_forgotten_however_full_the_tables_are(clock: Clock) -> None:
    """Each name between which an attacker changes pushes out the others; their charges stay."""
    throttle = Throttle(clock, capacity=10, per_source=10_000, per_user_a_day=10_000)
    names = [b"user%d" % number for number in range(30)]
    allowed = sum(throttle.charge(name, HERE) is not None for _ in range(100) for name in names)
    assert allowed <= 10 * 20


def check_tables(throttle: Throttle) -> None:
    """An entry under a number of charges that it no longer has would one day refuse every new name."""
    for table in (throttle._pairs, throttle._sources, throttle._users):
        placed = Counter((key, count) for count, keys in table._by_count.items() for key in keys)
        assert placed == Counter(table._counts.items())
        assert table._counts.keys() == table._entries.keys()


def test_entry_that_a_refund_makes_idle_is_replaced_in_every_index(throttle: Throttle, clock: Clock) -> None:
    for _ in range(2):
        must(throttle.charge(b"alice", HERE))
    clock.now += 3600
    must(throttle.charge(b"bob", "198.51.100.7"))
    clock.now += 3600
    assert log_in(throttle)
    clock.now += DAY - 5400  # alice's charges are older than a day, and bob's, which come first, are not
    must(throttle.charge(b"alice", HERE))
    check_tables(throttle)


def test_tables_agree_after_any_charges_and_idle_hours(clock: Clock) -> None:
    throttle, open_charges = Throttle(clock, capacity=6), list[Charge]()
    chance = random.Random(7)  # noqa: S311 -- no secret
    for _ in range(500):
        clock.now += chance.choice([0, 0, 3600, DAY / 3])
        charge = throttle.charge(b"user%d" % chance.randrange(4), f"10.0.0.{chance.randrange(4)}")
        if charge is not None:
            open_charges.append(charge)
        if open_charges and chance.random() < 0.4:
            open_charges.pop(chance.randrange(len(open_charges))).give_back()
        check_tables(throttle)


def test_name_that_is_new_in_a_full_table_can_log_in(clock: Clock) -> None:
    throttle = Throttle(clock, capacity=10)
    for number in range(1000):
        throttle.charge(b"x%d" % number, f"10.0.{number % 256}.1")
    clock.now += 61
    assert all(log_in(throttle, b"bob", "198.51.100.7") for _ in range(50))
    assert len(throttle) <= 30


def test_charge_whose_entry_was_taken_over_is_given_back_once(clock: Clock) -> None:
    throttle = Throttle(clock, capacity=1)
    early = must(throttle.charge(b"alice", HERE))
    must(throttle.charge(b"x", HERE))
    early.give_back()
    early.give_back()
    verdicts = [throttle.charge(b"alice", HERE) is not None for _ in range(20)]
    assert verdicts == [True] * 19 + [False]


def in_parallel(count: int, job: Callable[[], None]) -> None:
    start = threading.Barrier(count)

    def run() -> None:
        start.wait()
        job()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_twenty_parallel_honest_logins_all_succeed(throttle: Throttle) -> None:
    verdicts: list[bool] = []
    everybody_is_charged = threading.Barrier(20)

    def honest() -> None:
        charge = throttle.charge(b"alice", HERE)
        everybody_is_charged.wait()
        verdicts.append(charge is not None)
        if charge is not None:
            charge.give_back()

    for _ in range(10):
        in_parallel(20, honest)
    assert verdicts == [True] * 200
    assert len(throttle) == 0


def test_parallel_guesses_get_no_more_than_serial_ones(throttle: Throttle) -> None:
    allowed: list[Charge] = []

    def guess() -> None:
        for _ in range(50):
            charge = throttle.charge(b"alice", HERE)
            if charge is not None:
                allowed.append(charge)

    in_parallel(16, guess)
    assert len(allowed) == 20


def test_between_the_check_and_the_charge_no_other_guess_gets_in(
    throttle: Throttle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two guesses for the last charge, the second one begun when the first was just found to be allowed."""
    for _ in range(19):
        must(throttle.charge(b"alice", HERE))
    allows, other = sft.server.throttle._Tries.allows, threading.Thread(target=lambda: guess())
    allowed: list[Charge] = []

    def guess() -> None:
        charge = throttle.charge(b"alice", HERE)
        if charge is not None:
            allowed.append(charge)

    def allows_and_is_overtaken(tries: sft.server.throttle._Tries, limit: int, now: float) -> bool:
        verdict = allows(tries, limit, now)
        if other.ident is None:
            other.start()
            other.join(0.3)  # it ends in that time, unless it has to wait for us
        return verdict

    monkeypatch.setattr(sft.server.throttle._Tries, "allows", allows_and_is_overtaken)
    guess()
    other.join()
    assert len(allowed) == 1


def test_charge_is_given_back_once_by_many_threads(throttle: Throttle) -> None:
    charges = [must(throttle.charge(b"alice", HERE)) for _ in range(20)]
    in_parallel(16, lambda: charges[0].give_back())
    must(throttle.charge(b"alice", HERE))
    assert throttle.charge(b"alice", HERE) is None


def test_forgotten_source_and_name_begin_again_and_others_do_not(throttle: Throttle) -> None:
    there = "192.0.2.2"
    for user, source in ((b"alice", HERE), (b"alice", there), (b"bob", HERE)):
        for _ in range(20):
            must(throttle.charge(user, source))
    assert throttle.forget_source(origin_of(HERE)) == 40
    assert throttle.charge(b"alice", there) is None
    assert must(throttle.charge(b"alice", HERE)) and must(throttle.charge(b"bob", HERE))
    assert throttle.forget_user(b"alice") == 41
    assert must(throttle.charge(b"alice", there))
    assert throttle.forget_user(b"nobody") == throttle.forget_source(origin_of("2001:db8::1")) == 0


def test_charge_that_was_forgotten_is_given_back_without_effect(throttle: Throttle) -> None:
    charge = must(throttle.charge(b"alice", HERE))
    throttle.forget_source(origin_of(HERE))
    throttle.forget_user(b"alice")
    must(throttle.charge(b"alice", HERE))
    before = len(throttle)
    charge.give_back()
    assert len(throttle) == before


def test_full_table_goes_on_after_entries_were_forgotten(clock: Clock) -> None:
    throttle = Throttle(clock, capacity=3)
    for number in range(9):
        must(throttle.charge(b"%d" % number, f"192.0.2.{number}"))
    for number in range(9):
        throttle.forget_source(origin_of(f"192.0.2.{number}"))
        throttle.forget_user(b"%d" % number)
    assert len(throttle) == 0
    for number in range(9):
        must(throttle.charge(b"%d" % number, f"192.0.2.{number}"))
