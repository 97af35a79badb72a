"""Guesses at three receivers with one storage, which count them together; and what happens when they can't."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import ONCE, PASSWORD, USER, Client, Server, make, wait_until
from speaker import ClientLogin, Ended, Line, log_in

from sft.disk.root import PARTIAL_AREA

COUNTS = ".attempts"


@pytest.fixture
def three(accounts: dict[str, Path], tmp_path: Path) -> Iterator[list[Server]]:
    """Three with one storage and one accounts file."""
    made: list[Server] = []
    for number in range(3):
        server = Server(tmp_path / f"{number}", accounts[USER], tmp_path / "received")
        server.accounts = made[0].accounts if made else server.accounts
        made.append(server.start("--shared-counts=yes"))
    yield made
    for each in made:
        each.close()


def guess(server: Server, source: str, user: str = USER) -> bool:
    """One wrong password; whether the server has looked at it."""
    login = ClientLogin(user, None)
    with Line(server.port, source) as line:
        try:
            line.send(login.hello())
            login.hear_hello(line.login_frame())
            line.send(login.share())
            line.login_frame()
        except Ended:
            return False
    return True


def lets_in(server: Server, source: str) -> bool:
    with Line(server.port, source) as line, contextlib.suppress(Ended, AssertionError):
        log_in(line, USER, PASSWORD).farewell()
        return True
    return False


def test_guesses_at_three_receivers_are_limited_as_at_one_and_outlive_a_kill(three: list[Server]) -> None:
    looked_at = [guess(three[number % 3], "127.0.0.20") for number in range(30)]
    assert looked_at == [True] * 20 + [False] * 10
    assert not any(lets_in(each, "127.0.0.20") for each in three)
    assert all(lets_in(each, "127.0.0.21") for each in three), "others are not locked out"
    three[0].kill()
    three[0].start("--shared-counts=yes")
    assert not lets_in(three[0], "127.0.0.20")
    assert sum("too many attempts" in each.told() for each in three) == 3
    assert all(each.stop() == 0 for each in three)


def test_honest_logins_at_three_receivers_are_never_used_up(three: list[Server]) -> None:
    for number in range(45):
        assert lets_in(three[number % 3], "127.0.0.22")


def test_unban_at_one_receiver_is_for_all(three: list[Server]) -> None:
    """One of the three has the control socket; the guesses are at each of them."""
    wait_until(three[0].accounts.with_name("accounts.txt.control").exists)
    for server in three:
        assert [guess(server, "127.0.0.23") for _ in range(21)] == [True] * 20 + [False]
        done = server.command("unban", "127.0.0.23")
        assert (done.status, done.out) == (0, "forgot 20 attempts of 127.0.0.23\n")
        assert all(lets_in(each, "127.0.0.23") for each in three)


def test_counts_that_can_not_be_shared_leave_each_receiver_its_own_and_refuse_nobody(
    three: list[Server], tmp_path: Path
) -> None:
    server, place = three[0], tmp_path / "received" / PARTIAL_AREA / COUNTS
    client = Client(server.port, tmp_path / "client")
    assert client(make(tmp_path / "a"), "a").status == 0
    place.unlink()
    place.mkdir()
    wait_until(lambda: lets_in(server, "127.0.0.24") and "counted by this server alone for now" in server.told())
    assert client(ONCE, tmp_path / "a", "b").status == 0
    place.rmdir()
    wait_until(lambda: lets_in(server, "127.0.0.25") and "together with the other servers again" in server.told())
    assert oct(os.stat(place).st_mode & 0o777) == "0o600"
    assert server.stop() == 0
