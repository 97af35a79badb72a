"""A table in one test: every row runs, and each that fails is named."""

import pytest
from tables import each_row


def test_every_row_of_two_tables_runs() -> None:
    seen: list[tuple[int, str]] = []

    @each_row("number", [1, 2])
    @each_row(("letter", "more"), [("a", 0), pytest.param("b", 0, id="last")])
    def test(number: int, letter: str, more: int) -> None:
        seen.append((number, letter))

    test()  # type: ignore[call-arg]
    assert seen == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]


def test_rows_behind_one_that_fails_run_too_and_each_that_fails_is_named() -> None:
    seen: list[int] = []

    @each_row("number", [1, pytest.param(2, id="the even one"), 3])
    def test(number: int) -> None:
        seen.append(number)
        if number == 3:
            pytest.fail("as pytest.raises does")
        assert number == 1

    with pytest.raises(BaseExceptionGroup, match="2 of 3 rows fail") as caught:
        test()  # type: ignore[call-arg]
    assert seen == [1, 2, 3]
    notes = [problem.__notes__ for problem in caught.value.exceptions]
    assert notes == [["in the row the even one"], ["in the row number=3"]]


def test_only_row_that_fails_is_the_failure_itself_and_is_named() -> None:
    @each_row("number", [1, 2], ids=["one", "two"])
    def test(number: int) -> None:
        assert number == 1

    with pytest.raises(AssertionError) as caught:
        test()  # type: ignore[call-arg]
    assert caught.value.__notes__ == ["in the row two"]


@each_row("number", [1])
def test_fixtures_are_given_as_to_any_test(request: pytest.FixtureRequest, number: int) -> None:
    assert (request.node.name, number) == ("test_fixtures_are_given_as_to_any_test", 1)


def test_table_without_a_row_is_no_test() -> None:
    with pytest.raises(AssertionError):
        each_row("number", [])
