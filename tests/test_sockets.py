"""Reaching a host: all its addresses in turn, which failure is reported, and the frames of a login."""

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RunHere
from peers import tcp_pair
from processes import ONCE, Client, Server, make
from tables import each_row

from config import ClientSettings, load
from sft.common.errors import ConnectionTrouble, Failure, ProtocolViolation
from sft.wire.protocol import LOGIN_FRAME_LIMIT, frame, frame_header
from sft.wire.sockets import Address, Link, close_gently, connect, in_turn

V4, V6 = socket.AF_INET, socket.AF_INET6


@contextlib.contextmanager
def deaf() -> Iterator[int]:
    """A port of this machine that does not answer: its queue of connections is full, and nobody takes any."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.fixture
def deaf_port() -> Iterator[int]:
    with deaf() as port:
        with socket.socket() as trial:
            trial.settimeout(0.2)
            try:
                trial.connect(("127.0.0.1", port))
            except TimeoutError:
                yield port
                return
        pytest.skip("this system answers although the queue is full")


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def addresses(*ports: int) -> list[Address]:
    return [(V4, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in ports]


def resolve(monkeypatch: pytest.MonkeyPatch, found: list[Address]) -> None:
    """Every host has these addresses."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def test_families_take_turns_from_the_first_address_on() -> None:
    def of(*families: int) -> list[Address]:
        return [(family, 1, 6, "", (str(number), 1)) for number, family in enumerate(families)]

    def order(*families: int) -> list[str]:
        return [address[4][0] for address in in_turn(of(*families))]

    assert order(V6, V6, V6, V4, V4) == ["0", "3", "1", "4", "2"]
    assert order(V4, V4, V6) == ["0", "2", "1"]
    assert order(V4) == ["0"] and order() == []


def test_dead_first_address_costs_a_moment(monkeypatch: pytest.MonkeyPatch, deaf_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        resolve(monkeypatch, addresses(deaf_port, listener.getsockname()[1]))
        before = time.monotonic()
        with connect("several", 1, 20) as sock:
            assert 0.2 < time.monotonic() - before < 3
            assert sock.getpeername() == listener.getsockname() and sock.gettimeout() is None


def test_refused_first_address_costs_nothing(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        unknown: Address = (V6, socket.SOCK_STREAM, 255, "", ("::1", 1))  # no such protocol here
        resolve(monkeypatch, [unknown, *addresses(closed_port, listener.getsockname()[1])])
        before = time.monotonic()
        with connect("several", 1, 20) as sock:
            assert sock.getpeername() == listener.getsockname() and time.monotonic() - before < 0.2


def test_late_answer_of_the_first_address_still_wins(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        resolve(monkeypatch, addresses(listener.getsockname()[1], closed_port))
        with connect("several", 1, 20) as sock:
            assert sock.getpeername() == listener.getsockname()


def test_of_several_failures_a_refusal_is_told(
    monkeypatch: pytest.MonkeyPatch, deaf_port: int, closed_port: int
) -> None:
    resolve(monkeypatch, addresses(deaf_port, closed_port))
    with pytest.raises(ConnectionTrouble, match="connection to several:1 refused") as caught:
        connect("several", 1, 0.5)
    assert caught.value.failure is Failure.UNREACHED


def test_no_answer_in_time_is_told_as_such(monkeypatch: pytest.MonkeyPatch, deaf_port: int) -> None:
    resolve(monkeypatch, addresses(deaf_port))
    with pytest.raises(ConnectionTrouble, match="no answer from several:1 in 1 seconds") as caught:
        connect("several", 1, 1)
    assert caught.value.failure is Failure.UNREACHED


def test_host_without_an_address_is_unknown() -> None:
    with pytest.raises(ConnectionTrouble, match="unknown host") as caught:
        connect("no-such-host.invalid", 1, 1)
    assert caught.value.failure is Failure.UNKNOWN_HOST


@pytest.mark.parametrize(("quiet", "lines"), [([], 2), (["--quiet"], 1)])
def test_connection_that_takes_over_a_second_is_announced(
    server: Server, client: Client, folder: Path, deaf_port: int, quiet: list[str], lines: int
) -> None:
    result = client.at(deaf_port)(ONCE, *quiet, "--connect-timeout=2", make(folder / "a"), "a")
    said = result.err.splitlines()
    assert result.status == 4 and len(said) == lines
    assert said[:-1] == [f"connecting to 127.0.0.1:{deaf_port} ..."][: lines - 1]
    assert said[-1].startswith(f"error: no answer from 127.0.0.1:{deaf_port} in 2 seconds.")


# --- The deadlines of a login -----------------------------------------------------------------------------------------


def test_each_frame_has_its_own_time_and_all_together_have_a_total(monkeypatch: pytest.MonkeyPatch) -> None:
    now, (near, far) = [1_000.0], socket.socketpair()
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with near, far:
        link = Link(near, 1_030.0, 10)
        for _ in range(3):  # what this end computes between two frames is not the other end's slowness
            far.sendall(frame(b"a"))
            assert link.receive() == frame(b"a")
            link.send(frame(b"b"))
            now[0] += 9.9
        far.sendall(frame(b"a"))
        assert link.receive() == frame(b"a")
        now[0] += 0.4
        far.sendall(frame(b"a"))
        with pytest.raises(ConnectionTrouble, match="too long"):
            link.receive()


@pytest.mark.parametrize("sent", [b"", frame(b"abc")[:5]], ids=["nothing", "half a frame"])
def test_frame_that_does_not_come_in_its_time_ends_the_login(sent: bytes) -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(sent)
        before = time.monotonic()
        with pytest.raises(ConnectionTrouble, match="too long"):
            Link(near, before + 60, 0.2).receive()
        assert 0.2 <= time.monotonic() - before < 10


def test_close_gently_lets_the_last_word_arrive() -> None:
    near, far = tcp_pair()
    far.sendall(b"unread" * 1000)  # a close with unread bytes becomes a reset that overtakes the last word
    near.sendall(b"last word")
    closing = threading.Thread(target=close_gently, args=(near,))
    closing.start()
    assert far.recv(100) == b"last word"
    assert far.recv(100) == b""
    far.close()
    closing.join(10)
    assert near.fileno() == -1


@contextlib.contextmanager
def linked(seconds: float = 10) -> Iterator[tuple[Link, socket.socket]]:
    near, far = tcp_pair()
    try:
        yield Link(near, time.monotonic() + seconds), far
    finally:
        near.close()
        far.close()


@each_row("size", [1, 100, LOGIN_FRAME_LIMIT])
def test_link_passes_whole_frames(size: int) -> None:
    with linked() as (link, far):
        whole = frame(b"x" * size)
        far.sendall(whole + frame(b"next"))
        assert link.receive() == whole
        assert link.receive() == frame(b"next")
        link.send(whole)
        assert far.recv(len(whole), socket.MSG_WAITALL) == whole


def test_link_reads_not_a_byte_past_its_frame() -> None:
    with linked() as (link, far):
        far.sendall(frame(b"x") + b"record")
        link.receive()
        assert link.sock.recv(100) == b"record"


@each_row("size", [0, LOGIN_FRAME_LIMIT + 1, 1 << 31, (1 << 32) - 1])
def test_link_refuses_a_frame_of_a_wrong_length(size: int) -> None:
    with linked() as (link, far):
        far.sendall(frame_header(size))
        with pytest.raises(ProtocolViolation):
            link.receive()


@each_row("sent", [b"", b"\0\0", frame_header(10), frame(b"x" * 10)[:-1]], ids=repr)
def test_link_tells_a_cut(sent: bytes) -> None:
    with linked() as (link, far):
        far.sendall(sent)
        far.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionTrouble):
            link.receive()


def test_links_deadline_is_absolute_and_not_for_each_byte() -> None:
    with linked(0.5) as (link, far):
        over = threading.Event()

        def drip() -> None:
            far.sendall(frame_header(LOGIN_FRAME_LIMIT))
            while not over.wait(0.05):
                with contextlib.suppress(OSError):
                    far.sendall(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        started = time.monotonic()
        with pytest.raises(ConnectionTrouble, match="too long"):
            link.receive()
        assert time.monotonic() - started < 2
        over.set()
        dripping.join(10)
        with pytest.raises(ConnectionTrouble, match="too long"):
            link.send(b"x")


def test_link_gives_up_sending_at_its_deadline_and_sends_nothing_after_half_a_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    near, far = tcp_pair(4096)
    with near, far:
        link = Link(near, time.monotonic() + 0.3)
        with pytest.raises(ConnectionTrouble, match="too long"):
            link.send(bytes(32 << 20))
        monkeypatch.setattr(link, "_last", math.inf)  # as if the clock had gone too fast
        with pytest.raises(ConnectionTrouble, match="lost"):
            link.send(b"another frame")
        near.close()
        assert b"another" not in b"".join(iter(lambda: far.recv(1 << 20), b""))


# --- IPv6 in brackets -------------------------------------------------------------------------------------------------


def host_from(tmp_path: Path, origin: str, text: str) -> str:
    flags, environment = dict[str, str | None](), {"SFT_CONFIG": os.devnull}
    file: str | None = None
    if origin == "flag":
        flags["host"] = text
    elif origin == "variable":
        environment["SFT_HOST"] = text
    else:
        (tmp_path / "settings.toml").write_text(f'host = "{text}"\n')
        file = str(tmp_path / "settings.toml")
    return load(ClientSettings, flags, environment, file).values.host


@pytest.mark.parametrize("origin", ["flag", "variable", "file"])
@pytest.mark.parametrize(
    ("text", "host"), [("[::1]", "::1"), ("::1", "::1"), ("[fe80::1%lo]", "fe80::1%lo"), ("nas", "nas")]
)
def test_host_is_taken_with_brackets_and_without(tmp_path: Path, origin: str, text: str, host: str) -> None:
    assert host_from(tmp_path, origin, text) == host


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nas:7380", "contains a port: write --host nas --port 7380"),
        ("alice@nas", "contains a username: write --user alice --host nas"),
        ("alice@[::1]", "contains a username: write --user alice --host [::1]"),
    ],
)
def test_host_with_a_port_or_a_username_says_where_they_belong(
    run_here: RunHere, tmp_path: Path, text: str, words: str
) -> None:
    result = run_here("client.py", f"--host={text}", "a", "b", cwd=tmp_path)
    assert result.status == 2 and result.err.startswith(f'error: --host: "{text}" {words}. ')
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("text", ["[::1]:7380", "[::1", "[nas]", "[]", "[127.0.0.1]"])
def test_reject_brackets_around_something_else(run_here: RunHere, tmp_path: Path, text: str) -> None:
    result = run_here("client.py", f"--host={text}", "a", "b", cwd=tmp_path)
    assert result.status == 2 and "in brackets" in result.err
