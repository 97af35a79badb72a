"""What one thread finds and another takes: in order, a bounded number of them, and never a part for the whole."""

import threading

import pytest
from tables import each_row

from sft.client.ahead import Ahead

MANY = 100_000


def taken(ahead: Ahead[int]) -> list[int]:
    found = []
    while (each := ahead.peek()) is not None:
        assert ahead.peek() == each
        ahead.pass_by()
        found.append(each)
    return found


def test_things_are_taken_in_their_order_while_few_wait() -> None:
    ahead, most = Ahead[int](lambda: False), 0

    def find() -> None:
        for number in range(MANY):
            ahead.put(number)
        ahead.end()
        ahead.fail()  # behind the end it means nothing

    thread = threading.Thread(target=find)
    thread.start()
    found = []
    while (each := ahead.peek()) is not None:
        ahead.pass_by()
        found.append(each)
        most = max(most, len(ahead._waiting))
    thread.join()
    assert found == list(range(MANY)) and most <= 64


@each_row("count", [0, 1, 1000])
def test_part_of_what_there_is_is_never_all_of_it(count: int) -> None:
    ahead = Ahead[int](lambda: False)
    for number in range(count):
        ahead.put(number)
    ahead.fail()
    with pytest.raises(RuntimeError, match="not everything was found"):
        taken(ahead)


def test_nobody_waits_for_somebody_who_takes_nothing_any_more() -> None:
    ahead, is_over = Ahead[int](lambda: is_over), True
    for number in range(MANY):
        ahead.put(number)
