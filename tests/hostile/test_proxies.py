"""Connections that come through a proxy: each counts for its own client, and only trusted proxies name clients."""

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest
from conftest import MakeServer
from processes import PASSWORD, USER, Server, wait_until
from speaker import ClientLogin, Ended, Line, log_in

from sft.common.errors import ConnectionTrouble
from sft.server.admission import Admission
from sft.wire.sockets import Link

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
NO_HEADER, MISPLACED = "no PROXY header from a trusted proxy", "a PROXY header where none belongs"


def header(client: str) -> bytes:
    """A header of version 2 for an IPv4 client."""
    addresses = socket.inet_aton(client) + socket.inet_aton("192.0.2.1") + bytes(4)
    return SIGNATURE + struct.pack(">BBH", 0x21, 0x11, len(addresses)) + addresses


def local() -> bytes:
    """One for a connection of the proxy's own."""
    return SIGNATURE + struct.pack(">BBH", 0x20, 0, 0)


@contextlib.contextmanager
def from_client(server: Server, client: str) -> Iterator[Line]:
    """A connection through the proxy."""
    with Line(server.port) as line:
        line.send(header(client))
        yield line


@pytest.fixture
def proxied(make_server: MakeServer) -> Server:
    return make_server("--trusted-proxies=127.0.0.1, 192.0.2.0/24", "--max-logins-per-source=2", "--log-level=debug")


@pytest.mark.parametrize("first", [header("203.0.113.9"), b"PROXY TCP4 203.0.113.9 192.0.2.1 50000 7380\r\n"])
def test_login_through_a_trusted_proxy_is_the_clients_own(proxied: Server, first: bytes) -> None:
    with Line(proxied.port) as line:
        line.send(first)
        log_in(line, USER, PASSWORD)
        wait_until(lambda: f"{USER}@203.0.113.9: logged in" in proxied.told())


def test_trusted_proxy_without_a_header_is_refused(proxied: Server) -> None:
    with Line(proxied.port) as line:
        line.send(ClientLogin(USER, PASSWORD).hello())
        assert line.rest() in ((b"", "closed"), (b"", "reset"))
    wait_until(lambda: NO_HEADER in proxied.told())


def test_header_of_anybody_else_is_refused(make_server: MakeServer) -> None:
    server = make_server("--trusted-proxies=192.0.2.1")
    for first in (header("203.0.113.9"), b"PROXY TCP4 203.0.113.9 192.0.2.1 50000 7380\r\n"):
        with Line(server.port) as line:
            line.send(first + ClientLogin(USER, PASSWORD).hello())
            assert line.rest() in ((b"", "closed"), (b"", "reset"))
    wait_until(lambda: server.told().count(f"127.0.0.1: no login: the other end broke the protocol: {MISPLACED}") == 2)
    with Line(server.port) as line:
        log_in(line, USER, PASSWORD)


def test_places_and_guesses_are_counted_by_client_and_not_by_proxy(proxied: Server) -> None:
    with contextlib.ExitStack() as opened:
        for number in range(8):  # of two that one source may have
            line = opened.enter_context(from_client(proxied, f"203.0.113.{number}"))
            line.send(ClientLogin(USER, PASSWORD).hello())
            line.login_frame()
        for _ in range(2):
            line = opened.enter_context(from_client(proxied, "198.51.100.7"))
            line.send(ClientLogin(USER, PASSWORD).hello())
            line.login_frame()
        with from_client(proxied, "198.51.100.7") as line:
            assert line.rest()[0].endswith(b"\2"), "busy"
    wait_until(lambda: "198.51.100.7: busy: turned away" in proxied.told())


def test_guesses_behind_the_proxy_lock_out_their_own_address_alone(make_server: MakeServer) -> None:
    proxied = make_server("--trusted-proxies=127.0.0.1")
    for _ in range(21):
        login = ClientLogin(USER, None)
        with from_client(proxied, "203.0.113.66") as line, contextlib.suppress(Ended):
            line.send(login.hello())
            login.hear_hello(line.login_frame())
            line.send(login.share())
            line.login_frame()
    wait_until(lambda: f"203.0.113.66: login as {USER} refused: too many attempts" in proxied.told())
    with from_client(proxied, "203.0.113.67") as line:
        log_in(line, USER, PASSWORD)


def test_looking_whether_somebody_listens_leaves_no_line_in_the_log(proxied: Server) -> None:
    for first in (b"", local(), local()[:9]):
        with Line(proxied.port) as line:
            line.send(first)
    with from_client(proxied, "203.0.113.9") as line:
        log_in(line, USER, PASSWORD)
        wait_until(lambda: "logged in" in proxied.told())
    assert proxied.stop() == 0  # every connection is done with
    lines = [line for line in proxied.told().splitlines() if " #" in line]
    assert lines and [line for line in lines if " DEBUG " not in line and "203.0.113.9" not in line] == []


def test_proxys_own_connection_can_log_in(proxied: Server) -> None:
    with Line(proxied.port) as line:
        line.send(local())
        log_in(line, USER, PASSWORD)
        wait_until(lambda: f"{USER}@127.0.0.1: logged in" in proxied.told())


def test_header_that_trickles_has_the_deadline_of_a_frame() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(header("203.0.113.9")[:20])
        with pytest.raises(ConnectionTrouble, match="the login took too long"):
            Link(near, float("inf"), step=0.05).receive_proxy_header()


def test_client_that_is_known_later_takes_a_place_of_its_own_source() -> None:
    admission, out = Admission(10, 4, 1, clock=lambda: 0.0), list[str]()
    first, second = (admission.enter(b"proxy", lambda: out.append("proxy"), is_proxy=True) for _ in range(2))
    assert first is not None and second is not None, "a proxy has more places than one source"
    assert first.comes_from(b"client") and not second.comes_from(b"client")
    assert second.comes_from(b"other") is False, "it is out"
    third = admission.enter(b"proxy", lambda: None, is_proxy=True)
    assert third is not None and third.comes_from(b"other")
    first.leave()
    third.leave()
    assert [admission.enter(bytes([number]), lambda: None) is not None for number in range(5)] == [True] * 4 + [False]
    assert out == []
