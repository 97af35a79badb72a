"""The line of progress: everything that fits, whole, in any width."""

import pytest
from tables import each_row

from sft.console.progress_line import Progress, columns_of, cut_middle, duration, progress_line, searching

FULL = Progress("photos/2026/the sea at night.jpg", 1_200_000_000, 3_400_000_000, 12, 340, 12_300_000.0)
WIDE = FULL._replace(name="\u6f22\u5b57" * 30)


@each_row(
    ("columns", "line"),
    [
        (
            120,
            " 35%  1.2 GB of 3.4 GB  12 of 340 files  12.3 MB/s  2:59 left  photos/2026/the sea at night.jpg",
        ),
        (79, " 35%  1.2 GB of 3.4 GB  12 of 340 files  12.3 MB/s  2:59 left  photos/...ht.jpg"),
        (65, " 35%  1.2 GB of 3.4 GB  12 of 340 files  12.3 MB/s  2:59 left"),
        (45, " 35%  1.2 GB of 3.4 GB  12.3 MB/s  2:59 left"),
        (40, " 35%  12.3 MB/s  2:59 left  photo....jpg"),
        (29, " 35%  12.3 MB/s  2:59 left"),
        (19, " 35%  12.3 MB/s"),
        (4, " 35%"),
    ],
)
def test_line_has_what_there_is_room_for(columns: int, line: str) -> None:
    assert progress_line(FULL, columns) == line


@each_row("columns", range(1, 200))
def test_line_never_takes_more_columns_than_there_are(columns: int) -> None:
    for now in (FULL, WIDE, FULL._replace(bytes_total=None), FULL._replace(is_stalled=True), FULL._replace(rate=None)):
        assert columns_of(progress_line(now, columns)) <= columns
    assert columns_of(searching(12_345, 6_000_000, columns)) <= columns


def test_line_says_only_what_is_known() -> None:
    assert progress_line(Progress("", 0, 100, 0, 1, None), 79) == "  0%  0 B of 100 B"
    assert progress_line(Progress("-", 5000, None, 0, None, 100.0), 79) == "5.0 kB  100 B/s  -"
    assert progress_line(FULL._replace(is_stalled=True), 55) == " 35%  1.2 GB of 3.4 GB  12 of 340 files  stalled"
    assert progress_line(Progress("", 0, 0, 3, 9, None), 79) == "0 B  3 of 9 files", "empty files"


def test_what_was_found_so_far_is_counted() -> None:
    assert searching(12_345, 6_000_000, 79) == "12,345 files  6.0 MB  found so far"
    assert searching(12_345, 6_000_000, 19) == "12,345 files"


def test_name_is_cut_in_its_middle() -> None:
    assert cut_middle("photos/2026/sea.jpg", 19) == "photos/2026/sea.jpg"
    assert cut_middle("photos/2026/sea.jpg", 15) == "photos...ea.jpg"
    assert cut_middle("\u6f22" * 10, 11) == "\u6f22\u6f22...\u6f22\u6f22"
    assert cut_middle("abcdef", 4) == "abcd"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (7.4, "0:07"), (161, "2:41"), (10_961, "3:02:41"), (100_000, "27:46:40"), (5e5, "5 days")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
