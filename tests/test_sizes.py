"""Sizes mean the same wherever they are entered and wherever they are shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import each_row

from config import ServerSettings, load
from sft.common.sizes import amount, counted, exact_size, parse_size


@each_row(
    ("text", "size"),
    [
        ("5000000", 5_000_000),
        ("64M", 64 * 10**6),
        ("64m", 64 * 10**6),
        ("64MB", 64 * 10**6),
        ("64 MiB", 64 << 20),
        ("64mib", 64 << 20),
        ("64Mi", 64 << 20),
        ("1.5G", 1_500_000_000),
        ("1.5GiB", 3 << 29),
        ("0.5k", 500),
        ("1.0005k", 1000),
        ("2G", 2 * 10**9),
        ("1k", 1000),
        ("1K", 1000),
        ("3T", 3 * 10**12),
        (" 10 K ", 10_000),
        ("10b", 10),
        (7, 7),
        (str((1 << 63) - 1), (1 << 63) - 1),
    ],
)
def test_size_is_read(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@each_row(
    "text",
    ["", "0", "-1", "0G", "-5M", "1.5", "1.5B", "1,5G", ".5G", "1.G", "0.0001k", "1e3", "M", "b", "kib", "5X", "5MM"]
    + ["10ib", "G5", "1 2", "1  k", "0x10", "1_000", "\u0663", "9" * 5000, "9" * 19 + "T"]
    + [0, -1, True, False, 1.5, None, [], 1 << 63, "9223373T", str(1 << 63), "unlimited", "1\0"],
    ids=ascii,
)
def test_refuse_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


@given(st.integers(1, (1 << 63) - 1))
def test_size_that_was_entered_is_shown_as_one_that_reads_back(size: int) -> None:
    assert parse_size(exact_size(size)) == size


@each_row(
    ("entered", "shown"),
    [
        ("10M", "10 MB"),
        ("1.5G", "1.5 GB"),
        ("900k", "900 kB"),
        ("20G", "20 GB"),
        ("10GiB", "10 GiB"),
        ("256MiB", "256 MiB"),
        ("64KiB", "64 KiB"),
        ("1.25M", "1.25 MB"),
        ("1234567", "1234567 B"),
        ("5", "5 B"),
        ("2T", "2 TB"),
    ],
)
def test_size_is_shown_as_it_was_entered(entered: str, shown: str) -> None:
    assert exact_size(parse_size(entered)) == shown


def test_settings_show_sizes_as_they_were_entered() -> None:
    flags = {"free_space": "1.5G", "max_file_size": "20GiB"}
    lines = load(ServerSettings, flags, {"SFT_CONFIG": "/dev/null"}, None).lines()
    shown = {line.split(" = ")[0].strip(): line.split(" = ")[1].split("#")[0].strip() for line in lines}
    assert shown["free_space"] == '"1.5 GB"'
    assert shown["max_file_size"] == '"20 GiB"'
    assert shown["memory"] == '"256 MiB"'


def test_what_is_counted_is_one_thing_or_several() -> None:
    assert [counted(number, "byte") for number in (0, 1, 2, 1000)] == ["0 bytes", "1 byte", "2 bytes", "1,000 bytes"]
    assert counted(1000, "byte", "") == "1000 bytes", "for a log, which programs read"


@each_row(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1500, "1.5 kB"),
        (999_900, "999.9 kB"),
        (1_000_000, "1.0 MB"),
        (2_000_000_000, "2.0 GB"),
        (3e12, "3.0 TB"),
        (5e15, "5000.0 TB"),
        (0.4, "0 B"),
    ],
)
def test_amount_for_people(count: float, shown: str) -> None:
    assert amount(count) == shown


@each_row(("count", "shown"), [(999_999, "1.0 MB"), (999.7, "1.0 kB"), (999_999_999, "1.0 GB")])
def test_amount_that_rounds_up_takes_the_next_unit(count: float, shown: str) -> None:
    assert amount(count) == shown
