"""Lists of networks and places to listen, as they are written."""

import pytest
from tables import each_row

from sft.common.networks import parse_networks
from sft.common.places import Place, parse_place


@each_row(
    ("text", "address", "is_in"),
    [
        ("", "192.0.2.1", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        (" 10.0.0.0/8 , fd00::/64,", "10.200.0.1", True),
        ("10.0.0.0/8, fd00::/64", "fd00::1", True),
        ("10.0.0.0/8, fd00::/64", "fd00:0:0:1::1", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("0.0.0.0/0", "::1", False),
    ],
)
def test_address_is_in_a_list_of_networks(text: str, address: str, is_in: bool) -> None:
    networks = parse_networks(text)
    assert (address in networks) is is_in and str(networks) == text


@each_row("part", ["x", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "fd00::/129", "proxy.example"])
def test_what_is_no_network_is_named(part: str) -> None:
    with pytest.raises(ValueError, match=f"has {part} in it, which is neither an address nor a network"):
        parse_networks(f"192.0.2.1, {part}")


@each_row(
    ("text", "place"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0)), ("nas:65535", ("nas", 65535))],
)
def test_place_is_read_and_shown_as_it_was_written(text: str, place: tuple[str, int]) -> None:
    assert parse_place(text) == Place(*place) and str(parse_place(text)) == text


@each_row("text", ["", "80", ":80", "nas", "nas:", "nas:x", "nas:65536", "::1:80", "[::1]", "[nas]:80", "a:-1"])
def test_what_is_no_place_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        parse_place(text)
