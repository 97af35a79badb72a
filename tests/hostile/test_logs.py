"""What a hostile peer can do to a log: fill it. Lines are short, and refusals beyond some are counted in one line."""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from conftest import MakeServer
from processes import PASSWORD, Client, Server, make, wait_until
from scene import Stage
from speaker import (
    ClientLogin,
    Ended,
    Line,
    Session,
    batch,
    batch_file,
    batch_header,
    body_of,
    control,
    data,
    message,
    put_fields,
)
from test_hostile_server import hostile, served

from sft.server.listener import Listener

LONG = ["\U0010ffff" * 63] * 16  # allowed: 4,048 bytes, and ten characters for each as a log shows it
MANY = 260
LONGEST_LINE = 5_000


@pytest.fixture
def stage(make_server: MakeServer) -> Stage:
    return Stage(make_server())  # what others have caused counts, too


def check_sparing(told: str, kind: str, most: int) -> None:
    """At most so many lines of that kind, each of them short, and all the others counted in one."""
    lines = told.splitlines()
    assert max(len(line.encode()) for line in lines) <= LONGEST_LINE
    refusals = [line for line in lines if kind in line]
    assert 100 <= len(refusals) <= most
    assert max(len(line.encode()) for line in refusals) < 1_000
    assert len(refusals) + sum(map(int, re.findall(r"(\d+) more lines of this kind left out", told))) == MANY


@contextlib.contextmanager
def heard(stage: Stage) -> Iterator[Session]:
    """A session that is over and logged when this ends."""
    with stage.session() as session:
        yield session
        session.farewell()
    wait_until(lambda: ": done, " in stage.told().splitlines()[-1])


def test_refused_files_with_long_names_leave_the_log_readable(stage: Stage) -> None:
    with heard(stage) as session:
        for id in range(1, MANY + 1):
            session.say(control("PUT", **put_fields(id, [*LONG, "x" * 255], 0)), control("CANCEL", id=id, code=None))
        for id in range(1, MANY + 1):
            session.expect("REFUSE", id=id, code="name")
    check_sparing(stage.told(), "refused: ", 210)


def offer(session: Session, id: int, name: str) -> None:
    header = batch_header(id, [batch_file([name], b"x", offered=True)])
    session.say(message("BATCH", batch(session.file_key, header, b"")))
    assert session.expect("RECEIPTS", id=id)["outcomes"] == [["already", None]]


def test_offered_file_that_is_there_is_logged_at_once(stage: Stage) -> None:
    (stage.home / "there").write_bytes(b"x")
    with stage.session() as session:
        offer(session, 1, "there")
        wait_until(lambda: ": already there, 1 byte, SHA-256 " in stage.told())
        session.farewell()


def test_offers_without_end_leave_the_log_readable(stage: Stage) -> None:
    (stage.home / ("x" * 255)).write_bytes(b"x")
    with heard(stage) as session:
        for id in range(1, MANY + 1):
            offer(session, id, "x" * 255)
    check_sparing(stage.told(), ": already ", 210)


def test_reconnecting_does_not_reset_the_limit_of_log_lines(stage: Stage) -> None:
    for _ in range(2):
        with heard(stage) as session:
            for id in range(1, 151):
                session.say(control("PUT", **put_fields(id, [".."], 0)), control("CANCEL", id=id, code=None))
            for id in range(1, 151):
                session.expect("REFUSE", id=id)
    assert stage.told().count("refused: ") <= 210
    assert "more lines of this kind left out" in stage.told().splitlines()[-2]


def test_requests_that_are_refused_leave_the_log_readable(stage: Stage) -> None:
    with stage.session() as session:
        for id in range(1, MANY + 1):
            session.say(control("GET", id=id, path=[*LONG, "x" * 255], more=id < MANY))
        for id in range(1, MANY + 1):
            session.expect("REFUSE", id=id, code="name")
        session.expect("BYE")
        session.say(message("BYE"))
    wait_until(lambda: ": done, " in stage.told().splitlines()[-1])
    check_sparing(stage.told(), "not given: ", 210)


def test_stored_file_with_the_longest_name_is_one_short_line_with_its_digest(stage: Stage) -> None:
    with heard(stage) as session:
        receipt = session.send(1, LONG, b"content")
    lines = [line for line in stage.told().splitlines() if ": stored " in line]
    assert len(lines) == 1 and len(lines[0].encode()) <= LONGEST_LINE
    assert lines[0].endswith(f", 7 bytes, SHA-256 {receipt['sha256'].hex()}")


def giving_what_nobody_asked_for(session: Session) -> None:
    with contextlib.suppress(Ended):
        session.hear()
        for id in range(1, 600):
            body = body_of(put_fields(id, ["elsewhere", "\u202e" * 80, "y" * 200, str(id)], 1, policy="skip"))
            session.say(message("PUT", body), data(id, 0, b"x"), session.end(body, b"x"))
        session.say(message("BYE"))
        session.hear_all()


def test_log_of_a_client_survives_a_server_that_gives_what_nobody_asked_for(tmp_path: Path) -> None:
    with hostile(served(giving_what_nobody_asked_for)) as impostor:
        client = Client(impostor.port, tmp_path / "client")
        client.log.parent.mkdir(parents=True, exist_ok=True)
        result = client("--retries=0", "--get", "box", f"{tmp_path}/")
    assert result.status != 0
    lines = client.log.read_text().splitlines()
    assert max(len(line.encode()) for line in lines) <= 1_100  # two names of 500 bytes, and the time
    assert len([line for line in lines if "nobody asked for it" in line]) <= 505


def test_client_that_is_refused_everything_logs_some_and_counts_the_others(
    server: Server, client: Client, folder: Path, box: str
) -> None:
    server.path(box).parent.mkdir(exist_ok=True)
    server.path(box).write_text("a file, so nothing can go below it")
    for number in range(600):
        make(folder / f"{number}", 1)
    result = client("-v", folder, box)
    assert result.status == 1 and result.err.count("\n") >= 600
    told = client.log.read_text()
    refused = [line for line in told.splitlines() if "is a file, not a folder" in line]
    assert len(refused) <= 505
    assert "more lines of this kind left out" in told


# --- Before a login ---------------------------------------------------------------------------------------------------

GARBAGE = (b"", b"\0\0", b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\3\1\1\1")


def knock_with(port: int, source: str, words: bytes) -> None:
    """Say that, and wait for the end."""
    with Line(port, source) as line:
        line.send(words)
        with contextlib.suppress(OSError):
            line.sock.shutdown(socket.SHUT_WR)
        line.rest()


def left_out(told: str) -> int:
    """How many lines the log says that it has not."""
    return sum(int(count.replace(",", "")) for count in re.findall(r"([\d,]+) more from", told))


def test_connections_without_a_login_are_counted_beyond_some_for_each_source(make_server: MakeServer) -> None:
    server = make_server()
    for number in range(200):
        knock_with(server.port, "127.0.8.1", GARBAGE[number % len(GARBAGE)])
    knock_with(server.port, "127.0.8.2", b"")
    server.stop()
    lines = [line for line in server.told().splitlines() if ": no login: " in line]
    assert len([line for line in lines if " 127.0.8.1: " in line]) in (20, 21)  # one more a minute
    assert len([line for line in lines if " 127.0.8.2: " in line]) == 1
    assert len(lines) + left_out(server.told()) == 201
    assert re.search(
        r" WARNING connections without a login, .* \d+ more from 127\.0\.8\.1$", server.told(), re.MULTILINE
    )


def test_connections_that_are_turned_away_are_counted_too(make_server: MakeServer) -> None:
    server = make_server("--max-logins=1", "--max-logins-per-source=1")
    with Line(server.port, "127.0.8.3") as first:
        hello = ClientLogin("alice", PASSWORD).hello()
        for _ in range(100):
            with Line(server.port, "127.0.8.3") as line:
                line.rest()
                first.send(hello[:1])
    server.stop()
    lines = [line for line in server.told().splitlines() if "busy: turned away a connection from 127.0.8.3" in line]
    assert len(lines) <= 22
    assert len(lines) + left_out(server.told()) + server.told().count(": no login: ") >= 101


def test_accounts_that_can_not_be_read_fill_no_log_either(make_server: MakeServer) -> None:
    server = make_server()
    server.accounts.chmod(0o644)
    hello = ClientLogin("alice", PASSWORD).hello()
    for _ in range(60):
        knock_with(server.port, "127.0.8.4", hello)
    server.accounts.chmod(0o600)
    server.stop()
    lines = [
        line for line in server.told().splitlines() if "no login: the accounts or the storage can't be used" in line
    ]
    assert len(lines) in (20, 21) and len(lines) + left_out(server.told()) == 60


def test_count_of_what_was_left_out_is_told_while_nobody_connects() -> None:
    looks, started = list[float](), time.monotonic()

    def tell() -> None:
        looks.append(time.monotonic())
        signals.stops = len(looks) >= 3

    near, far = socket.socketpair()
    signals = SimpleNamespace(waker=near, stops=0, takes_reload=lambda: False, wait=lambda _: None)
    loop = SimpleNamespace(_signals=signals, _background=SimpleNamespace(start=lambda: None))
    loop.shared = SimpleNamespace(strangers=SimpleNamespace(tell=tell))
    with near, far:
        watchdog = threading.Timer(10, far.send, [b"x"])  # wakes a loop that waits for connections only
        watchdog.start()
        Listener._accept_until(cast(Listener, loop), [], lambda: bool(signals.stops), 0.01)
        watchdog.cancel()
    assert looks[-1] - started < 5
