"""Limits for log lines: what is let through, what is counted, and when the count is written."""

import re

from sft.common.log_events import LogEvent
from sft.common.log_limits import (
    NO_LOGIN,
    REFUSED_LOGINS,
    LineKind,
    LineLimit,
    LineRate,
    SourceLimits,
    Sparing,
)

KIND = LineKind("odd things", LineRate(3, 60.0), LineRate(10, 5.0))
FAIL2BAN_TRIES = 20  # deploy/fail2ban


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


# --- Peers without an account -----------------------------------------------------------------------------------------


def test_first_lines_of_each_source_are_logged_and_the_rest_is_counted_each_minute() -> None:
    now, told = [0.0], Told()
    limits = SourceLimits(told, lambda: now[0])
    assert [limits.may(KIND, "192.0.2.1") for _ in range(5)] == [True, True, True, False, False]
    assert [limits.may(KIND, "192.0.2.2") for _ in range(4)] == [True, True, True, False]
    now[0] = 59.9
    limits.tell()
    assert told.lines == []
    now[0] = 60.0
    limits.tell()
    limits.tell(at_once=True)
    counts = "2 more from 192.0.2.1, 1 more from 192.0.2.2"
    assert told.lines == [f"odd things, not logged one by one in the last 60 s: {counts}"]
    assert [limits.may(KIND, "192.0.2.1") for _ in range(2)] == [True, False]  # one more each minute
    limits.tell(at_once=True)
    assert told.lines[1:] == ["odd things, not logged one by one in the last 0 s: 1 more from 192.0.2.1"]


def test_all_sources_together_have_a_limit_too_and_the_largest_are_named() -> None:
    now, told = [0.0], Told()
    limits = SourceLimits(told, lambda: now[0])
    let_through = sum(limits.may(KIND, f"source {number}") for number in range(1, 101) for _ in range(number))
    assert let_through == 10
    limits.tell(at_once=True)
    named = "100 more from source 100, 99 more from source 99, 98 more from source 98"
    others = 5050 - let_through - 297
    assert told.lines == [f"odd things, not logged one by one in the last 0 s: {named}, {others:,} more from others"]


def test_flood_from_endless_sources_is_bounded_in_lines_and_memory_and_all_of_it_counted() -> None:
    now, told = [0.0], Told()
    limits = SourceLimits(told, lambda: now[0])
    tries, let_through = 40_000, 0
    for number in range(tries):
        now[0] += 3600 / tries
        let_through += limits.may(KIND, str(number))
        limits.tell()
    limits.tell(at_once=True)
    assert let_through <= KIND.total.burst + 3600 / KIND.total.refill
    assert len(told.lines) <= 60
    counts = [int(count.replace(",", "")) for line in told.lines for count in re.findall(r"([\d,]+) more from", line)]
    assert let_through + sum(counts) == tries
    strangers = limits._kinds[KIND]
    assert len(strangers._sources) <= 1024 and strangers._left_out is None


def test_one_minute_of_a_flood_remembers_a_bounded_number_of_sources() -> None:
    told = Told()
    limits = SourceLimits(told, lambda: 0.0)
    let_through = sum(limits.may(KIND, str(number)) for number in range(5_000))
    left_out = limits._kinds[KIND]._left_out
    assert left_out is not None and len(left_out._named) == 1024
    limits.tell(at_once=True)
    assert told.lines[0].endswith(f"{5_000 - let_through - 3:,} more from others")


def test_kinds_do_not_use_up_each_others_lines_and_a_ban_comes_long_before_the_limit() -> None:
    limits = SourceLimits(Told(), lambda: 0.0)
    for _ in range(1_000):
        limits.may(NO_LOGIN, "192.0.2.1")
    assert sum(limits.may(REFUSED_LOGINS, "192.0.2.1") for _ in range(1_000)) >= 2 * FAIL2BAN_TRIES


def test_a_day_of_a_flood_rotates_no_log_away() -> None:
    line, file, kept = 400, 5_000_000, 4  # bytes of a line at most: a name has 32, of four characters each when escaped
    for kind in (NO_LOGIN, REFUSED_LOGINS):
        assert (kind.total.burst + 24 * 3600 / kind.total.refill + 24 * 60) * line < file * kept / 4


def test_line_that_is_only_counted_is_not_made() -> None:
    told, made = Told(), list[int]()

    def line() -> LogEvent:
        made.append(1)
        return LogEvent("already", "already a")

    sparing = Sparing(told, LineLimit(2))
    for _ in range(5):
        sparing.info(line)
    assert len(made) == 2 == len(told.lines)
