"""Counted attempts that the administrator lets the server forget."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import PASSWORD, USER, Server, wait_until
from speaker import ClientLogin, Ended, Line, log_in

THROTTLED = f"login as {USER} refused: too many attempts"


@pytest.fixture
def server(accounts: dict[str, Path]) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="sft-") as folder:
        made = Server(Path(folder), accounts[USER]).start()
        wait_until(made.accounts.with_name("accounts.txt.control").exists)
        yield made
        made.close()


def lock_out(server: Server) -> None:
    """Guess until this address can't log in as that user."""
    before = server.told().count(THROTTLED)
    for _ in range(21):
        login = ClientLogin(USER, None)
        with Line(server.port) as line, contextlib.suppress(Ended):
            line.send(login.hello())
            login.hear_hello(line.login_frame())
            line.send(login.share())
            line.login_frame()
    wait_until(lambda: server.told().count(THROTTLED) > before)
    assert not can_log_in(server)


def can_log_in(server: Server) -> bool:
    with Line(server.port) as line:
        try:
            log_in(line, USER, PASSWORD)
        except (Ended, AssertionError):
            return False
    return True


@pytest.mark.parametrize("whom", ["127.0.0.1", "::ffff:127.0.0.1", USER])
def test_unban_lets_in_whom_guesses_have_locked_out(server: Server, whom: str) -> None:
    lock_out(server)
    other = "192.0.2.7" if whom != USER else "bob"
    assert server.command("unban", other).out == f"no attempt of {other} was counted\n"
    assert not can_log_in(server)
    done = server.command("unban", whom)
    assert (done.status, done.out) == (0, f"forgot 20 attempts of {whom}\n")
    assert f"unban {whom}: 20 attempts forgotten" in server.told()
    assert can_log_in(server)
    lock_out(server)
