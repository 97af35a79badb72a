"""Which addresses and port a server listens on, and its errors when it can't."""

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator

import pytest

import sft.server.listener
from sft.common.errors import UsageError
from sft.server.listener import listen

Listen = Callable[[str, int], list[socket.socket]]
needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")


@pytest.fixture
def opened() -> Iterator[Listen]:
    """`listen`, whose sockets are closed at the end of the test."""
    with contextlib.ExitStack() as cleanup:
        yield lambda addresses, port: [cleanup.enter_context(each) for each in listen(addresses, port)]


def places(listening: list[socket.socket]) -> set[tuple[str, int]]:
    """Address and port of each."""
    return {each.getsockname()[:2] for each in listening}


@needs_ipv6
def test_without_an_address_it_listens_on_all_of_both_kinds_with_one_port(opened: Listen) -> None:
    listening = opened("", 0)
    port = listening[0].getsockname()[1]
    assert places(listening) == {("::", port), ("0.0.0.0", port)}


@needs_ipv6
def test_free_port_that_is_taken_at_the_second_address_gives_way_to_another(
    opened: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        really, first = sft.server.listener._listen_on, [taken]

        def taken_first(address: str, port: int) -> socket.socket:
            return really(address, first.pop() if first else port)

        monkeypatch.setattr(sft.server.listener, "_listen_on", taken_first)
        listening = opened("::1, 127.0.0.1", 0)
        port = listening[0].getsockname()[1]
        assert places(listening) == {("::1", port), ("127.0.0.1", port)} and port != taken and not first


@needs_ipv6
def test_port_that_is_taken_at_one_kind_of_address_is_not_left_out(opened: Listen) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6) as other:
        taken = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"can't listen on :: port {taken}"):
            opened("", taken)
        opened("0.0.0.0", taken)[0].close()  # nothing of it was kept


def test_machine_without_ipv6_listens_on_the_rest(opened: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    really = sft.server.listener._listen_on

    def without_ipv6(address: str, port: int) -> socket.socket:
        if ":" in address:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        return really(address, port)

    monkeypatch.setattr(sft.server.listener, "_listen_on", without_ipv6)
    assert {address for address, _ in places(opened("", 0))} == {"0.0.0.0"}
    with pytest.raises(UsageError, match="listen: ::1 is not an address of this machine"):
        opened("127.0.0.1, ::1", 0)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "can't listen on 127.0.0.1 port 80 ({}). Choose a --port above 1023, or give this program"),
        (errno.EADDRINUSE, "can't listen on 127.0.0.1 port 80 ({}). Another server may use it: stop that one"),
        (errno.ENOBUFS, "can't listen on 127.0.0.1 port 80 ({}). Give addresses of this machine"),
        (errno.EADDRNOTAVAIL, "listen: 127.0.0.1 is not an address of this machine. Give addresses of this machine"),
    ],
)
def test_port_that_can_not_be_had_is_said_with_what_helps(
    monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(sft.server.listener, "_listen_on", refuse)
    with pytest.raises(UsageError) as caught:
        listen("127.0.0.1", 80)
    assert str(caught.value).startswith(words.format(os.strerror(number)))
