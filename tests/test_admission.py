"""How many connections may be there at once, and which one is disconnected for another."""

import threading
from itertools import product

from tables import each_row

from sft.server.admission import Admission, Limits, Ticket, Way, way_in


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Door:
    """An Admission, its clock, and who was disconnected."""

    def __init__(self, inside: int = 2, logins: int = 3, per_source: int = 2) -> None:
        self.clock = Clock()
        self.admission = Admission(inside, logins, per_source, self.clock)
        self.out: list[str] = []

    def enter(self, name: str, source: bytes = b"") -> Ticket | None:
        return self.admission.enter(source or name.encode(), lambda: self.out.append(name))

    def must(self, name: str, source: bytes = b"") -> Ticket:
        ticket = self.enter(name, source)
        assert ticket is not None
        return ticket


LIMITS = Limits(logged_in=2, logins=6, logins_of_source=4)


def test_way_in_is_the_first_row_of_the_table_that_holds() -> None:
    for logged_in, logins, of_source, of_largest in product(range(4), range(8), range(6), range(6)):
        rows = [
            (Way.BUSY, logged_in >= 2),
            (Way.SILENT_OF_SOURCE, of_source >= 4),
            (Way.FREE, logins < 6),
            (Way.NEWEST_OF_LARGEST, of_largest - of_source >= 2),
            (Way.SILENT_OF_ALL, True),
        ]
        expected = next(way for way, holds in rows if holds)
        assert way_in(LIMITS, logged_in, logins, of_source, of_largest) is expected


def test_logins_have_a_limit_in_all() -> None:
    door = Door()
    tickets = [door.must(name) for name in "abc"]
    assert door.enter("d") is None
    tickets[1].leave()
    assert door.enter("d") is not None
    assert door.enter("e") is None
    assert door.out == []


def test_logins_have_a_limit_for_each_source() -> None:
    door = Door()
    tickets = [door.must(name, b"one") for name in "ab"]
    assert door.enter("c", b"one") is None
    assert door.enter("c", b"two") is not None
    tickets[0].leave()
    assert door.enter("d", b"one") is not None


def test_connection_that_is_silent_for_a_second_is_disconnected_for_another() -> None:
    door = Door()
    for name in "abc":
        door.must(name)
        door.clock.now += 0.1
    door.clock.now = 1000.99
    assert door.enter("d") is None
    door.clock.now = 1001.0
    assert door.enter("d") is not None
    assert door.out == ["a"]


def test_progress_of_a_login_spares_it() -> None:
    door = Door()
    first = door.must("a")
    door.clock.now += 0.5
    for name in "bc":
        door.must(name)
        door.clock.now += 0.1
    door.clock.now += 2
    first.progress()
    assert door.enter("d") is not None
    assert door.out == ["b"]


def test_source_with_all_its_logins_loses_its_own_silent_one() -> None:
    door = Door()
    door.must("other", b"two")
    door.clock.now += 5
    for name in "ab":
        door.must(name, b"one")
        door.clock.now += 0.1
    assert door.enter("c", b"one") is None
    assert door.out == []
    door.clock.now += 1
    assert door.enter("c", b"one") is not None
    assert door.out == ["a"]


def test_logged_in_frees_the_place_of_the_login() -> None:
    door = Door(inside=10)
    for name in "abcde":
        assert door.must(name, b"one").logged_in()


def test_logged_in_have_a_limit_too() -> None:
    door = Door(inside=2)
    first, second, third = (door.must(name) for name in "abc")
    assert first.logged_in()
    assert second.logged_in()
    assert not third.logged_in()
    assert door.enter("d") is None, "full inside: busy from the first moment"
    third.leave()
    assert door.enter("d") is None
    first.leave()
    assert door.must("d").logged_in()


def test_disconnected_login_never_gets_in() -> None:
    door = Door(logins=1)
    first = door.must("a")
    door.clock.now += 1
    second = door.must("b")
    assert door.out == ["a"]
    assert not first.logged_in()
    first.leave()
    assert second.logged_in()


def test_leaving_twice_frees_one_place_only() -> None:
    door = Door(inside=1, logins=1)
    ticket = door.must("a")
    assert ticket.logged_in()
    ticket.leave()
    ticket.leave()
    first = door.must("b")
    assert first.logged_in()
    assert door.enter("c") is None
    first.leave()
    waiting = door.must("d")
    waiting.leave()
    waiting.leave()
    door.must("e")
    assert door.enter("f") is None


def test_logging_in_twice_counts_once() -> None:
    door = Door(inside=2)
    ticket = door.must("a")
    assert ticket.logged_in()
    assert not ticket.logged_in()
    ticket.leave()
    assert door.must("b").logged_in()
    assert door.must("c").logged_in()


def test_sources_that_left_are_forgotten() -> None:
    door = Door(logins=1)
    for number in range(100):
        door.must("x", b"%d" % number).leave()
    assert not door.admission._logins


@each_row("logins", [1, 5, 50])
def test_many_threads_never_get_more_places_than_there_are(logins: int) -> None:
    admission = Admission(1000, logins, 1000)
    got: list[Ticket] = []
    together = threading.Barrier(16)

    def work() -> None:
        together.wait(30)
        for _ in range(20):
            ticket = admission.enter(b"one", lambda: None)
            if ticket is not None:
                got.append(ticket)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(got) == logins


def test_logged_in_of_one_user_have_a_limit_that_is_not_another_ones() -> None:
    door = Door(inside=4, logins=4)
    tickets = [door.must(name) for name in "abcd"]
    assert tickets[0].logged_in("alice", 1)
    assert not tickets[1].logged_in("alice", 1)
    assert tickets[2].logged_in("bob", 1)
    tickets[1].leave()
    tickets[0].leave()
    assert tickets[3].logged_in("alice", 1), "the one that was refused took no place"
    for ticket in tickets[2:]:
        ticket.leave()
    assert not door.admission._users


def test_newest_of_the_largest_source_is_disconnected_for_a_smaller_one() -> None:
    door = Door(logins=6, per_source=4)
    for number in range(4):
        door.must(f"large {number}", b"large")
    for number in range(2):
        door.must(f"small {number}", b"small")
    door.must("other", b"other")
    assert door.out == ["large 3"]
    door.must("another", b"another")
    assert door.out == ["large 3", "large 2"]


def test_no_connection_of_a_smaller_source_is_disconnected_for_a_large_one() -> None:
    door = Door(logins=6, per_source=10)
    door.must("small", b"small")
    door.clock.now += 5
    for number in range(5):
        door.must(f"large {number}", b"large")
    assert door.enter("large 5", b"large") is None
    door.clock.now += 5
    door.must("large 6", b"large")
    assert door.out == ["large 0"]


def test_sources_of_one_size_do_not_push_each_other_out() -> None:
    door = Door(logins=4, per_source=4)
    for name in ("a", "b"):
        for _ in range(2):
            door.must(name, name.encode())
    assert door.enter("c", b"a") is None and door.enter("d", b"b") is None
    door.must("e", b"c")
    assert len(door.out) == 1
    assert door.enter("f", b"d") is not None
    assert door.enter("g", b"e") is None, "each source has one, and none of them is silent for a second"


def test_four_sources_that_connect_without_end_turn_no_honest_login_away() -> None:
    """Each 50 times a second, and silent until the deadline; an honest login takes half a second."""
    clock = Clock()
    admission = Admission(256, 128, 48, clock)
    turned_away, honest, put_out, done = 0, list[tuple[float, Ticket]](), list[str](), 0
    hostile = list[tuple[float, Ticket]]()
    for step in range(20 * 200):
        clock.now += 0.005
        for until, ticket in [each for each in hostile if each[0] < clock.now]:
            ticket.leave()
            hostile.remove((until, ticket))
        if (entered := admission.enter(b"hostile %d" % (step % 4), lambda: None)) is not None:
            hostile.append((clock.now + 10, entered))
        if step % 20 == 0:
            source = b"honest %d" % (step // 20 % 50)
            if (entered := admission.enter(source, lambda: put_out.append("honest"))) is None:
                turned_away += 1
            else:
                honest.append((clock.now + 0.5, entered))
        for until, ticket in [each for each in honest if each[0] < clock.now]:
            assert ticket.logged_in("alice")
            ticket.leave()
            done += 1
            honest.remove((until, ticket))
    assert (turned_away, put_out) == (0, [])
    assert done > 180
