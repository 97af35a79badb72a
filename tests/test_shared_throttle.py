"""Attempts that several servers count together: as one throttle would, also after a kill, in a file of bounded size."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import HOME, wait_until

from sft.common.errors import UsageError
from sft.disk.shared_rows import WAYS, Shape, SharedRows
from sft.server.shared_throttle import SHAPES, SharedThrottle
from sft.server.throttle import Charge, Throttle

HERE, THERE = b"\x7f\0\0\1", b"\x7f\0\0\2"
SMALL = tuple(Shape(1, each.row) for each in SHAPES)
START = 1_800_000_000.0


class Clock:
    now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "attempts"


@pytest.fixture
def three(place: Path, clock: Clock) -> list[SharedThrottle]:
    """As of three servers."""
    return [SharedThrottle(place, clock) for _ in range(3)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nobody waits for the lock."""
    monkeypatch.setattr("sft.disk.shared_rows._LOCK_SECONDS", 0.0)
    return monkeypatch


def must(charge: Charge | None) -> Charge:
    assert charge is not None
    return charge


def tries(throttles: list[SharedThrottle], user: bytes, source: bytes, most: int = 2_000) -> int:
    """How many attempts in turn are allowed, up to the first that is not."""
    for count in range(most):
        if throttles[count % len(throttles)].charge(user, source) is None:
            return count
    return most


def test_three_servers_allow_together_what_one_would(three: list[SharedThrottle], clock: Clock) -> None:
    assert tries(three, b"alice", HERE) == 20
    for wait in (60, 120, 240):
        clock.now += wait - 1
        assert [each.charge(b"alice", HERE) for each in three] == [None] * 3
        clock.now += 1
        assert tries(three, b"alice", HERE) == 1
    assert tries(three, b"alice", THERE) == 20
    assert tries(three, b"bob", HERE) == 20


def test_source_and_user_have_their_limits_over_all_servers(three: list[SharedThrottle]) -> None:
    for number in range(100):
        must(three[number % 3].charge(b"user %d" % number, HERE))
    assert three[0].charge(b"another", HERE) is None
    spread = [three[at % 3].charge(b"alice", (at // 10).to_bytes(4, "big")) for at in range(1_100)]
    assert sum(each is not None for each in spread) == 1_000 + 1  # one an hour beyond it


@pytest.mark.parametrize("seed", range(8))
def test_any_sequence_gets_the_answers_of_one_throttle(place: Path, seed: int) -> None:
    """Throttle is the model: the same attempts, successes and pauses, with tables that do not fill."""
    chance, clock = random.Random(seed), Clock()  # noqa: S311 -- no secret
    model = Throttle(clock, per_user_and_source=4, per_source=9, per_user_a_day=12)
    shared = [SharedThrottle(place, clock, per_user_and_source=4, per_source=9, per_user_a_day=12) for _ in range(2)]
    open_charges: list[tuple[Charge, Charge]] = []
    refused = 0
    for _ in range(1_500):
        clock.now += chance.choice([0, 0, 0, 1, 30, 61, 4_000, 90_000 if chance.random() < 0.02 else 0])
        user, source = chance.choice([b"a", b"b"]), chance.randrange(1, 6)
        expected = model.charge(user, f"10.0.0.{source}")
        found = chance.choice(shared).charge(user, bytes([10, 0, 0, source]))
        assert (expected is None) == (found is None)
        if expected is not None and found is not None:
            open_charges.append((expected, found))
        else:
            refused += 1
        if open_charges and chance.random() < 0.3:
            one, other = open_charges.pop(chance.randrange(len(open_charges)))
            one.give_back()
            other.give_back()
            if chance.random() < 0.2:
                other.give_back()  # has no effect
    assert refused > 100


def test_honest_logins_leave_nothing_but_a_home(three: list[SharedThrottle]) -> None:
    for number in range(300):
        must(three[number % 3].charge(b"alice", HERE)).give_back()
    assert tries(three, b"alice", HERE) == 20


def test_source_that_has_logged_in_at_one_server_is_at_home_at_all(place: Path, clock: Clock) -> None:
    one, other = (SharedThrottle(place, clock, per_user_a_day=30) for _ in range(2))
    must(one.charge(b"alice", HERE)).give_back()
    for number in range(30):
        must(one.charge(b"alice", number.to_bytes(4, "big")))
    must(one.charge(b"alice", b"late"))  # the one of the hour
    assert other.charge(b"alice", b"more") is None
    must(other.charge(b"alice", HERE))


def test_forgotten_source_and_name_begin_again(three: list[SharedThrottle]) -> None:
    assert tries(three, b"alice", HERE) == 20
    assert three[1].forget_source(THERE) == 0 and three[1].forget_source(HERE) == 20
    assert tries(three, b"alice", HERE) == 20
    assert three[2].forget_user(b"alice") == 40
    assert three[0].forget_source(HERE) == 20
    assert tries(three, b"alice", HERE) == 20


def test_flood_of_invented_names_neither_grows_the_file_nor_gives_fresh_attempts(place: Path, clock: Clock) -> None:
    throttle = SharedThrottle(place, clock, shapes=SMALL, per_source=10**6)
    assert tries([throttle], b"alice", HERE) == 20
    size = place.stat().st_size
    for number in range(40 * WAYS):
        throttle.charge(b"invented %d" % number, number.to_bytes(4, "big"))
    assert place.stat().st_size == size
    again = tries([throttle], b"alice", HERE)
    assert again == 0, "whatever entry it takes over, that has more attempts than are free"


def test_file_of_all_tables_has_a_ceiling() -> None:
    assert sum(each.size for each in SHAPES) < 12 << 20


@pytest.mark.parametrize("step", [-86_400, 90_000])
def test_clock_that_jumps_locks_nobody_out_for_long(three: list[SharedThrottle], clock: Clock, step: float) -> None:
    assert tries(three, b"alice", HERE) == 20
    clock.now += step
    assert tries(three, b"alice", HERE) == 20


def test_server_that_is_killed_at_any_moment_leaves_counts_that_hold(place: Path) -> None:
    """Processes that charge as fast as they can; what is allowed in all is never more than the limit."""
    code = """
import os, sys
from pathlib import Path
from sft.server.shared_throttle import SharedThrottle
throttle = SharedThrottle(Path(sys.argv[1]), lambda: 1_800_000_000.0)
os.write(1, b"begun\\n")
while True:
    os.write(1, b"refused\\n" if throttle.charge(b"alice", b"here") is None else b"allowed\\n")
"""
    allowed = 0
    for round in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(place)],
            stdout=subprocess.PIPE,
            cwd=HOME,
            env={**os.environ, "PYTHONPATH": str(HOME)},
        ) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(5)]
            process.kill()
            lines += process.stdout.read().splitlines(keepends=True)
        allowed += lines.count(b"allowed\n")
        assert lines[0] == b"begun\n" and (round > 0 or allowed > 0)
    assert allowed <= 20
    throttle = SharedThrottle(place, Clock())
    assert throttle.charge(b"alice", b"here") is None
    assert throttle.forget_user(b"alice") >= allowed


def test_process_that_is_stopped_with_the_lock_holds_up_each_of_many_for_a_second(place: Path) -> None:
    holder, other = SharedRows(place, SMALL), SharedRows(place, SMALL)

    def wait(_: int) -> None:
        with pytest.raises(OSError, match="for a second"), other.locked():
            pass

    began = time.monotonic()
    with holder.locked(), ThreadPoolExecutor(40) as waiters:
        assert len(list(waiters.map(wait, range(40)))) == 40
    assert time.monotonic() - began < 20, "they do not wait in turn"
    with other.locked():
        pass


def test_after_a_failure_the_file_is_left_alone_for_a_while(
    place: Path, clock: Clock, quick: pytest.MonkeyPatch
) -> None:
    throttle, holder = SharedThrottle(place, clock), SharedRows(place, SHAPES)
    quick.setattr("sft.server.shared_throttle._REST_SECONDS", 1e6)
    with holder.locked(), pytest.raises(OSError, match="has them locked"):
        throttle.charge(b"alice", HERE)
    with pytest.raises(OSError, match="a moment ago"):
        throttle.charge(b"alice", HERE)
    assert throttle.forget_user(b"alice") == 0, "who asks for it is served"


@pytest.mark.parametrize("count", [1, 25])
def test_login_that_could_not_be_given_back_is_as_soon_as_the_file_can_be_had(
    place: Path, clock: Clock, quick: pytest.MonkeyPatch, count: int
) -> None:
    throttle, holder = SharedThrottle(place, clock), SharedRows(place, SHAPES)
    quick.setattr("sft.server.shared_throttle._REST_SECONDS", 0.0)
    for _ in range(count):
        charge = must(throttle.charge(b"alice", HERE))
        with holder.locked():
            charge.give_back()
    assert tries([throttle], b"alice", HERE) == 20


@pytest.mark.parametrize("damage", ["gone", "another", "empty", "cut", "noise"])
def test_file_that_was_removed_or_damaged_is_begun_anew(
    place: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr("sft.disk.shared_rows._LOOK_SECONDS", -1.0)
    throttle = SharedThrottle(place, clock)
    assert tries([throttle], b"alice", HERE) == 20
    whole = place.read_bytes()
    place.with_name("new").touch(0o600)
    damaging: dict[str, Callable[[], object]] = {
        "gone": place.unlink,
        "another": lambda: place.with_name("new").rename(place),
        "empty": lambda: os.truncate(place, 0),
        "cut": lambda: os.truncate(place, len(whole) - 1),
        "noise": lambda: place.write_bytes(os.urandom(len(whole))),
    }
    damaging[damage]()
    assert tries([throttle, SharedThrottle(place, clock)], b"alice", HERE) == 20


def test_rows_of_noise_break_nothing(place: Path, clock: Clock) -> None:
    throttle = SharedThrottle(place, clock, shapes=SMALL)
    must(throttle.charge(b"alice", HERE)).give_back()
    with place.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(place.stat().st_size - 4096))
    for number in range(50):
        charge = throttle.charge(b"user %d" % number, HERE)
        if charge is not None:
            charge.give_back()
    throttle.forget_source(HERE)
    throttle.forget_user(b"alice")


def test_file_of_another_user_or_a_link_is_not_used(place: Path, clock: Clock) -> None:
    place.symlink_to("elsewhere")
    with pytest.raises(UsageError):
        SharedThrottle(place, clock).charge(b"alice", HERE)
    place.unlink()
    place.touch(0o644)
    place.chmod(0o644)
    with pytest.raises(UsageError):
        SharedThrottle(place, clock).charge(b"alice", HERE)


def test_names_and_addresses_do_not_stand_in_the_file(three: list[SharedThrottle], place: Path) -> None:
    tries(three, b"a very secret name", b"here" * 2)
    wait_until(lambda: place.stat().st_size)
    assert b"secret" not in place.read_bytes() and b"herehere" not in place.read_bytes()
