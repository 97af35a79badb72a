"""Refused logins in the log of a real server, as the filter that is shipped for fail2ban reads them."""

import configparser
import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeServer
from processes import PASSWORD, Client, Server, make, wait_until
from speaker import ClientLogin, Ended, Line, log_in

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy/fail2ban"
FILTER = DEPLOY / "filter.d/secure-file-transfer.conf"
JAIL = DEPLOY / "jail.d/secure-file-transfer.conf"

# What fail2ban makes of these, as far as our filter uses them.
DATES = {"Y": r"\d{4}", "m": r"\d\d", "d": r"\d\d", "H": r"\d\d", "M": r"\d\d", "S": r"\d\d", "f": r"\d{1,6}", "z": "Z"}
ADDRESS = r"(?P<address>(?:\d{1,3}\.){3}\d{1,3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]+)"


def banned(lines: str) -> list[str]:
    """The addresses of the lines that the filter matches: the date goes, then the rest is looked at."""
    parser = configparser.ConfigParser()
    parser.read(FILTER)
    date = re.sub("%([A-Za-z])", lambda found: DATES[found[1]], parser["Definition"]["datepattern"])
    pattern = parser["Definition"]["failregex"].replace("<ADDR>", ADDRESS)
    found = []
    for line in lines.splitlines():
        assert re.match(date, line), line
        if match := re.search(pattern, re.sub(date, "", line, count=1)):
            found.append(match["address"])
    return found


@pytest.fixture(scope="module")
def guessed(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("guessed"), server.accounts)
    made.start()
    yield made
    made.close()


class Log:
    """What the log of a server has said since."""

    def __init__(self, server: Server) -> None:
        self._server, self._before = server, len(server.told())

    def line_with(self, text: str) -> str:
        wait_until(lambda: text in self._server.told()[self._before :])
        (line,) = [each for each in self._server.told()[self._before :].splitlines() if text in each]
        return line

    def all(self) -> str:
        return self._server.told()[self._before :]


@pytest.fixture
def log(guessed: Server) -> Log:
    return Log(guessed)


@pytest.mark.parametrize("user", ["alice", "nobody"])
def test_own_client_with_a_wrong_password_is_logged_by_name_and_matched(
    guessed: Server, log: Log, tmp_path: Path, user: str
) -> None:
    client = Client(guessed.port, tmp_path / "client", user, "a wrong password")
    assert client(make(tmp_path / "a"), "a").status == 3
    line = log.line_with(" refused: ")
    assert line.endswith(f" 127.0.0.1: login as {user} refused: wrong password or unknown user")
    assert banned(log.all()) == ["127.0.0.1"]


def test_proof_of_a_wrong_password_is_matched(guessed: Server, log: Log) -> None:
    with Line(guessed.port, "127.0.9.1") as line:
        login = ClientLogin("alice", None)
        line.send(login.hello())
        login.hear_hello(line.login_frame())
        line.send(login.share())
        line.login_frame()
        line.send(b"\0\0\0\x20" + bytes(32))
        log.line_with(" refused: ")
    assert banned(log.all()) == ["127.0.9.1"]


def test_login_that_the_throttle_refuses_is_matched(guessed: Server, log: Log) -> None:
    for _ in range(21):
        with Line(guessed.port, "127.0.9.2") as line:
            login = ClientLogin("throttled", None)
            line.send(login.hello())
            login.hear_hello(line.login_frame())
            line.send(login.share())
            line.rest() if _ == 20 else line.login_frame()
    log.line_with("login as throttled refused: too many attempts")
    assert banned(log.all()) == ["127.0.9.2"] * 21


def test_noise_from_an_address_does_not_hide_its_guesses(guessed: Server, log: Log) -> None:
    for _ in range(50):
        with Line(guessed.port, "127.0.9.7") as line:
            line.send(b"\0")
    tries = int(re.findall(r"maxretry = (\d+)", JAIL.read_text())[0])
    for number in range(tries):
        with Line(guessed.port, "127.0.9.7") as line:
            login = ClientLogin(f"guessed-{number}", None)
            line.send(login.hello())
            login.hear_hello(line.login_frame())
            line.send(login.share())
            line.login_frame()
    wait_until(lambda: len(banned(log.all())) == tries)
    assert set(banned(log.all())) == {"127.0.9.7"}


def test_flood_of_guesses_is_matched_often_enough_and_then_counted(make_server: MakeServer) -> None:
    server = make_server()
    for _ in range(120):  # after twenty the throttle refuses, which costs nobody anything
        with Line(server.port, "127.0.9.8") as line:
            login = ClientLogin("throttled", None)
            line.send(login.hello())
            login.hear_hello(line.login_frame())
            line.send(login.share())
            with contextlib.suppress(Ended):
                line.login_frame()
    server.stop()
    matched = banned(server.told())
    assert 60 <= len(matched) <= 62 and set(matched) == {"127.0.9.8"}
    (counted,) = re.findall(r"refused logins, .*: (\d+) more from 127\.0\.9\.8$", server.told(), re.MULTILINE)
    assert len(matched) + int(counted) == 120


def test_good_login_and_one_that_tries_no_password_are_not_matched(guessed: Server, log: Log) -> None:
    with Line(guessed.port, "127.0.9.3") as line:
        log_in(line, "alice", PASSWORD).farewell()
    with Line(guessed.port, "127.0.9.4") as line:
        login = ClientLogin("alice", PASSWORD)
        line.send(login.hello())
        line.login_frame()
    log.line_with("127.0.9.4: no login as alice: the connection was lost")
    with Line(guessed.port, "127.0.9.5"):
        pass
    log.line_with("127.0.9.5: no login: the connection was lost")
    assert banned(log.all()) == []


@pytest.mark.parametrize(
    "name",
    [b"x refused: too many attempts", b"\nWARNING #1 6.6.6.6: login as", b" 6.6.6.6: login as x refused", b"\xff\x1b"],
)
def test_name_can_not_put_another_address_into_the_log(guessed: Server, log: Log, name: bytes) -> None:
    with Line(guessed.port, "127.0.9.6") as line:
        login = ClientLogin(name, None)
        line.send(login.hello())
        login.hear_hello(line.login_frame())
        line.send(login.share())
        line.login_frame()
    wait_until(lambda: log.all().endswith("wrong password or unknown user\n"))
    assert banned(log.all()) == ["127.0.9.6"]


def test_line_that_operations_shows_is_what_the_filter_knows() -> None:
    shown = (DEPLOY.parent.parent / "docs/OPERATIONS.md").read_text()
    lines = [
        line for line in re.findall(r"^\| `(#\d+ [^`]*)`", shown, re.M) if " refused: " in line and "login" in line
    ]
    assert len(lines) == 2
    stamped = "\n".join(f"2026-01-31T12:00:00.123Z WARNING {line}" for line in lines)
    assert banned(stamped) == ["203.0.113.9"] * 2
    assert banned("2026-01-31T12:00:00.123Z WARNING #7 2001:db8::7: login as a refused: too many attempts") == [
        "2001:db8::7"
    ]


@pytest.mark.skipif(shutil.which("fail2ban-regex") is None, reason="fail2ban is not installed")
def test_fail2ban_itself_matches_what_the_filter_promises(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(
        "2026-01-31T12:00:00.123Z WARNING #1 203.0.113.9: login as a refused: wrong password or unknown user\n"
        "2026-01-31T12:00:00.124Z INFO #2 alice@203.0.113.9: logged in\n"
        "2026-01-31T12:00:00.125Z WARNING #3 2001:db8::7: login as b refused: too many attempts\n"
    )
    done = subprocess.run(["fail2ban-regex", str(log), str(FILTER)], capture_output=True, text=True, timeout=60)
    assert "2 matched, 1 missed" in done.stdout, done.stdout
