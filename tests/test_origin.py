"""Addresses, and the source that each counts as."""

import pytest
from tables import each_row

from sft.server.origin import origin_of, read_origin, shown_origin


@each_row(
    ("address", "expected"),
    [
        ("127.0.0.1", "7f000001"),
        ("0.0.0.0", "00000000"),
        ("255.255.255.255", "ffffffff"),
        ("::ffff:127.0.0.1", "7f000001"),
        ("::ffff:c000:0201", "c0000201"),
        ("::1", "0000000000000000"),
        ("2001:db8::1", "20010db800000000"),
        ("2001:db8:1:2:3:4:5:6", "20010db800010002"),
        ("2001:DB8:1:2::", "20010db800010002"),
        ("fe80::1%eth0", "fe80000000000000"),
        ("fe80::1%1", "fe80000000000000"),
    ],
)
def test_address_counts_as(address: str, expected: str) -> None:
    assert origin_of(address).hex() == expected


def test_one_64_is_one_source_and_its_neighbour_another() -> None:
    assert origin_of("2001:db8:0:1::1") == origin_of("2001:db8:0:1:ffff:ffff:ffff:ffff")
    assert origin_of("2001:db8:0:1::1") != origin_of("2001:db8:0:2::1")


@each_row(
    ("address", "shown"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_source_is_shown_as(address: str, shown: str) -> None:
    assert shown_origin(address) == shown


def test_mapped_address_is_the_ipv4_one() -> None:
    assert origin_of("::ffff:192.0.2.7") == origin_of("192.0.2.7") != origin_of("192.0.2.8")


def test_ipv4_and_ipv6_never_count_as_one() -> None:
    assert len(origin_of("32.1.13.184")) != len(origin_of("2001:db8::"))


@each_row(
    "nonsense",
    ["", "localhost", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.4/24", "01.2.3.4", "::1/64", "[::1]", "1.2.3.4:80"]
    + [" 127.0.0.1", "127.0.0.1\n", "1", "2130706433", "0x7f.1", "::g", ":::", "fe80::1%", "١.٢.٣.٤"],
    ids=ascii,
)
def test_nonsense_is_refused(nonsense: str) -> None:
    with pytest.raises(ValueError):
        origin_of(nonsense)


@each_row("text", ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8:1:2::", "2001:db8:1:2::9"])
def test_source_is_named_by_an_address(text: str) -> None:
    assert read_origin(text) == origin_of(text)


def test_source_is_named_as_it_is_shown() -> None:
    for address in ("192.0.2.7", "2001:db8:1:2:3::"):
        assert read_origin(shown_origin(address)) == origin_of(address)


@each_row("text", ["alice", "", "192.0.2.0/24", "2001:db8::/48", "2001:db8::1/64", "192.0.2.7:22", "1"])
def test_anything_else_names_no_source(text: str) -> None:
    assert read_origin(text) is None
