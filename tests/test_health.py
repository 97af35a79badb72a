"""Whether a server says that it can take files, by HTTP."""

import http.client
import logging
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from http import HTTPStatus
from pathlib import Path

import pytest
from logged_lines import lines_of

from sft.accounts.store import Accounts
from sft.common.errors import Code, Refused, UsageError
from sft.common.places import Place
from sft.disk.storage import Storage
from sft.server.health import Health
from sft.server.http_answers import Answer, HttpAnswers

LOG = logging.getLogger("test_health")
LOG.propagate = False
LOG.setLevel(logging.INFO)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    with lines_of(LOG) as lines:
        yield lines


class Disk:
    """A storage whose trials do what a test wants."""

    def __init__(self) -> None:
        self.trials = 0
        self.problem: Exception | None = None
        self.hangs = threading.Event()
        self.hangs.set()

    def try_out(self) -> None:
        self.trials += 1
        assert self.hangs.wait(20)
        if self.problem is not None:
            raise self.problem


class Names:
    """Accounts that can be read, or not."""

    problem: Refused | None = None

    def find(self, _: bytes) -> None:
        if self.problem is not None:
            raise self.problem


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def names() -> Names:
    return Names()


def health_of(disk: Disk, names: Names, stopping: list[bool], seconds: float = 10) -> Health:
    return Health(names, disk, lambda: bool(stopping), LOG, seconds)  # type: ignore[arg-type]


def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each question need a trial of its own."""
    monkeypatch.setattr("sft.server.health._FRESH_SECONDS", -1.0)


def test_trial_that_succeeds_is_200_and_is_not_repeated_within_a_second(disk: Disk, names: Names) -> None:
    health = health_of(disk, names, [])
    assert [health.answer() for _ in range(3)] == [Answer(HTTPStatus.OK, "ready")] * 3
    assert disk.trials == 1


def test_trouble_is_503_with_its_reason_and_passes(
    disk: Disk, names: Names, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    fresh(monkeypatch)
    health = health_of(disk, names, [])
    for problem, words in [
        (Refused(Code.NO_SPACE, why="No space left on device"), "No space left on device"),
        (Refused(Code.UNAVAILABLE, why="/srv: it is on another disk than before"), "/srv: it is on another disk"),
        (OSError(24, "Too many open files"), "Too many open files"),
        (KeyError("x"), "a bug"),
    ]:
        disk.problem = problem
        answer = health.answer()
        assert answer.status is HTTPStatus.SERVICE_UNAVAILABLE and words in answer.text
    disk.problem, names.problem = None, Refused(Code.UNAVAILABLE, why="accounts.txt is gone")
    assert health.answer() == Answer(HTTPStatus.SERVICE_UNAVAILABLE, "accounts.txt is gone")
    names.problem = None
    assert health.answer().status is HTTPStatus.OK
    assert logged == ["not ready: No space left on device", "ready again"]


def test_trial_that_does_not_end_is_503_and_nobody_waits_for_it_twice(
    disk: Disk, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh(monkeypatch)
    health = health_of(disk, names, [], seconds=0.05)
    disk.hangs.clear()
    for _ in range(3):
        answer = health.answer()
        assert answer.status is HTTPStatus.SERVICE_UNAVAILABLE and "has not answered for" in answer.text
    assert disk.trials == 1, "another thread would hang with it"
    disk.hangs.set()
    while health.answer().status is not HTTPStatus.OK:
        pass


def test_server_that_stops_says_so_without_a_trial(disk: Disk, names: Names) -> None:
    assert health_of(disk, names, [True]).answer().status is HTTPStatus.SERVICE_UNAVAILABLE
    assert disk.trials == 0


def test_storage_that_is_moved_away_is_no_storage_until_it_is_back(
    storage: Storage, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh(monkeypatch)
    accounts = Accounts.create(tmp_path / "accounts")
    health = Health(accounts, storage, lambda: False, LOG, 10)
    assert health.answer().status is HTTPStatus.OK
    assert list((root / ".partial").iterdir()) == [], "a trial leaves nothing"
    away = root.rename(tmp_path / "away")
    answer = health.answer()
    assert answer.status is HTTPStatus.SERVICE_UNAVAILABLE and str(root) in answer.text
    away.rename(root)
    assert health.answer().status is HTTPStatus.OK


@pytest.fixture
def answers() -> Iterator[HttpAnswers]:
    """A server with one path."""
    with closing(HttpAnswers("health", Place("127.0.0.1", 0))) as made:
        made.serve({"/health": lambda: Answer(HTTPStatus.OK, "ready")})
        yield made


def asked(port: int, method: str, path: str) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "/health", (200, "ready\n")),
        ("GET", "/health?from=nagios", (200, "ready\n")),
        ("HEAD", "/health", (200, "")),
        ("GET", "/", (404, "nothing is here\n")),
        ("GET", "/health/../etc/passwd", (404, "nothing is here\n")),
    ],
)
def test_path_is_answered_or_not_found(answers: HttpAnswers, method: str, path: str, answer: tuple[int, str]) -> None:
    assert asked(answers.place.port, method, path) == answer


@pytest.mark.parametrize(
    "request_text", [b"", b"\0" * 100, b"GET\r\n\r\n", b"POST /health HTTP/1.1\r\n\r\n", b"x" * 70_000]
)
def test_what_is_no_request_leaves_the_next_one_its_answer(
    answers: HttpAnswers, request_text: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", answers.place.port), 10) as line:
        line.sendall(request_text)
        line.shutdown(socket.SHUT_WR)
        while line.recv(1 << 16):
            pass
    assert asked(answers.place.port, "GET", "/health") == (200, "ready\n")
    assert capfd.readouterr() == ("", "")


def test_many_silent_connections_keep_few_threads_and_nobody_out(answers: HttpAnswers) -> None:
    before = threading.active_count()
    lines = [socket.create_connection(("127.0.0.1", answers.place.port), 10) for _ in range(40)]
    assert asked(answers.place.port, "GET", "/health") == (200, "ready\n")
    for line in lines[:24]:
        assert line.recv(1) == b"", "the oldest are closed"
    assert threading.active_count() - before <= 16
    for line in lines:
        line.close()


def test_request_that_trickles_is_ended_like_a_silent_one() -> None:
    with closing(HttpAnswers("health", Place("127.0.0.1", 0), seconds=0.1)) as answers:
        answers.serve({})
        with socket.create_connection(("127.0.0.1", answers.place.port), 10) as line:
            line.sendall(b"GET /health HTTP/1.1\r\nX: ")
            for _ in range(200):
                if select.select([line], [], [], 0.02)[0]:
                    break
                with suppress(OSError):
                    line.sendall(b"x")
            else:
                pytest.fail("it is still waited for")
            with suppress(ConnectionResetError):
                assert line.recv(1) == b""


def test_answers_under_way_are_not_ended_for_more_requests() -> None:
    goes_on, begun = threading.Event(), threading.Semaphore(0)

    def slowly() -> Answer:
        begun.release()
        assert goes_on.wait(10)
        return Answer(HTTPStatus.OK, "slow")

    with closing(HttpAnswers("health", Place("127.0.0.1", 0))) as answers, ExitStack() as opened:
        answers.serve({"/slow": slowly})
        lines = []
        for _ in range(16):
            line = opened.enter_context(socket.create_connection(("127.0.0.1", answers.place.port), 10))
            line.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
            lines.append(line)
        for _ in lines:
            assert begun.acquire(timeout=10)
        with socket.create_connection(("127.0.0.1", answers.place.port), 10) as more:
            assert more.recv(1) == b"", "all places are taken"
        goes_on.set()
        for line in lines:
            assert line.recv(15) == b"HTTP/1.0 200 OK"


def test_place_that_is_taken_is_an_error_with_its_setting(answers: HttpAnswers) -> None:
    with pytest.raises(UsageError, match=r"health: can't listen on 127.0.0.1:\d+ \(Address already in use\)"):
        HttpAnswers("health", Place("127.0.0.1", answers.place.port))
    with pytest.raises(UsageError, match=r"health: can't listen on nowhere.invalid:80"):
        HttpAnswers("health", Place("nowhere.invalid", 80))
