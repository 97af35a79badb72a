"""Lines that wait until the login is through."""

import pytest

from sft.console.waiting import Waiting


@pytest.fixture
def written() -> list[str]:
    return []


@pytest.fixture
def waiting(written: list[str]) -> Waiting:
    return Waiting(lambda *lines: written.extend(lines))


def test_line_is_written_at_once_unless_lines_are_held(waiting: Waiting, written: list[str]) -> None:
    waiting.add("a")
    assert written == ["a"]
    waiting.hold()
    waiting.add("b", "c")
    assert written == ["a"]
    waiting.release()
    waiting.add("d")
    assert written == ["a", "b", "c", "d"]


def test_what_was_taken_is_not_written_too_and_nothing_waits_any_more(waiting: Waiting, written: list[str]) -> None:
    waiting.hold()
    waiting.add("a")
    assert waiting.take() == ["a"]
    waiting.add("b")
    waiting.release()
    assert written == ["b"]


def test_no_more_than_a_thousand_lines_wait(waiting: Waiting, written: list[str]) -> None:
    waiting.hold()
    for number in range(1001):
        waiting.add(str(number))
    assert written == [str(number) for number in range(1001)]
    waiting.add("last")
    assert written[-1] == "last"
