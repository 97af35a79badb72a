"""Limits for log lines: what is let through, what is counted, and when the count is told."""

from sft.common.log_limits import LineLimit, LineLimits, Sparing


class Told:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, level: int, text: object, /, *values: object) -> None:
        self.lines.append(str(text) % values)


def test_lines_beyond_the_burst_are_counted_and_told_with_the_next_one() -> None:
    now, told = [0.0], Told()
    sparing = Sparing(told, LineLimit(3, lambda: now[0]))
    for number in range(10):
        sparing.info("line %d", number)
    assert told.lines == ["line 0", "line 1", "line 2"]
    now[0] = 10.0
    sparing.warning("later")
    sparing.error("too soon")
    sparing.tell()
    sparing.tell()
    assert told.lines[3:] == [
        "7 more lines of this kind left out",
        "later",
        "1 more line of this kind left out",
    ]


def test_limit_never_saves_more_than_its_burst() -> None:
    now = [0.0]
    limit = LineLimit(3, lambda: now[0])
    now[0] = 1e9
    assert [limit.may() for _ in range(5)] == [True, True, True, False, False]


def test_connections_of_a_user_share_one_limit_and_other_users_have_their_own() -> None:
    limits = LineLimits()
    assert limits.of("alice") is limits.of("alice")
    assert limits.of("alice") is not limits.of("bob")
