"""The control socket: who can connect, what is left alone, and what a process that misbehaves can do."""

import json
import logging
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import run_python

from sft.common.errors import TransferError
from sft.server.control import Answer, Control, Request, ask

Open = Callable[..., Control]


class Logged(logging.Handler):
    """The lines of the server's log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture
def logged() -> Logged:
    return Logged()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name, for a socket's path."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def accounts(place: Path) -> Path:
    return place / "accounts.txt"


@pytest.fixture
def open_control(accounts: Path, logged: Logged) -> Iterator[Open]:
    log = logging.Logger("test")
    log.addHandler(logged)
    opened: list[Control] = []

    def open_it(
        answer: Callable[[Request], Answer] = lambda request: {"echo": request}, at: Path = accounts
    ) -> Control:
        opened.append(Control(at, answer, log))
        opened[-1].start()
        return opened[-1]

    yield open_it
    for each in opened:
        each.close()


def socket_of(accounts: Path) -> Path:
    return accounts.with_name("accounts.txt.control")


def say(accounts: Path, data: bytes, then_end: bool = True) -> bytes:
    """What a process hears that says that."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(socket_of(accounts)))
        sock.sendall(data)
        if then_end:
            sock.shutdown(socket.SHUT_WR)
        return sock.recv(4096)


def test_answer_comes_back_and_the_socket_goes_at_the_end(accounts: Path, open_control: Open) -> None:
    control = open_control()
    assert ask(accounts, {"command": "status"}) == {"echo": {"command": "status"}}
    assert ask(accounts, {"command": "é"}) == {"echo": {"command": "é"}}
    control.close()
    assert not socket_of(accounts).exists()
    with pytest.raises(TransferError, match="no server with the accounts ") as caught:
        ask(accounts, {})
    assert caught.value.exit_status == 1


def test_socket_is_never_open_to_others(accounts: Path, open_control: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    bind = socket.socket.bind

    def noted(self: socket.socket, address: Any) -> None:
        bind(self, address)
        modes.append(stat.S_IMODE(os.lstat(address).st_mode))

    monkeypatch.setattr(socket.socket, "bind", noted)
    before = os.umask(0)
    try:
        open_control()
        assert os.umask(0) == 0, "the umask is as it was"
    finally:
        os.umask(before)
    assert modes == [0o600]


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
def test_other_user_can_not_connect(accounts: Path, open_control: Open) -> None:
    accounts.parent.chmod(0o755)
    open_control()
    code = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except PermissionError:
    print("refused")
"""
    assert run_python(code, socket_of(accounts)) == "refused"
    os.chmod(socket_of(accounts), 0o777)  # whatever the mode, who connects is looked at
    code = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
try:
    sock.sendall(b'{}\\n')
    print(sock.recv(99))
except OSError:
    print(b"")
"""
    assert run_python(code, socket_of(accounts)) == "b''"


def test_socket_of_a_killed_server_is_replaced(accounts: Path, open_control: Open) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(socket_of(accounts)))
        killed.listen()
    open_control()
    assert ask(accounts, {"a": 1}) == {"echo": {"a": 1}}


def test_socket_of_a_server_that_runs_is_left_alone(accounts: Path, open_control: Open, logged: Logged) -> None:
    open_control(lambda request: {"first": True})
    second = open_control(lambda request: {"second": True})
    assert "another server with these accounts" in logged.text()
    assert ask(accounts, {}) == {"first": True}
    second.close()
    assert ask(accounts, {}) == {"first": True}


@pytest.mark.parametrize("what", ["link", "link to nothing", "file", "folder"])
def test_anything_else_of_that_name_is_left_alone(
    accounts: Path, open_control: Open, logged: Logged, what: str
) -> None:
    there, target = socket_of(accounts), accounts.parent / "target"
    if what == "folder":
        there.mkdir()
    elif what == "file":
        there.write_text("kept")
    else:
        there.symlink_to(target)
    if what == "link":
        with socket.socket(socket.AF_UNIX) as killed:  # what it leads to would be replaced
            killed.bind(str(target))
    before = there.lstat()
    open_control().close()
    assert "something else has the name" in logged.text()
    assert there.lstat() == before
    assert target.exists() == (what == "link")


def test_server_goes_on_without_where_the_path_is_too_long(place: Path, open_control: Open, logged: Logged) -> None:
    folder = place / ("x" * 100)
    folder.mkdir()
    open_control(at=folder / "accounts.txt")
    assert "longer than 107 bytes" in logged.text()
    with pytest.raises(TransferError, match="longer than 107 bytes"):
        ask(folder / "accounts.txt", {})


def test_server_goes_on_without_where_the_disk_has_no_sockets(
    accounts: Path, open_control: Open, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: socket.socket, address: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    open_control()
    assert "no control socket" in logged.text() and "Operation not permitted" in logged.text()


BAD = {
    "nothing": b"",
    "no end": b'{"command": "status"}',
    "no JSON": b"status\n",
    "too much": b"x" * 1000 + b"\n",
    "not UTF-8": b'"\xff"\n',
    "deep": b"[" * 500 + b"\n",
}


@pytest.mark.parametrize("what", BAD)
def test_request_that_makes_no_sense_gets_no_answer_and_stops_nobody(
    accounts: Path, open_control: Open, what: str, logged: Logged
) -> None:
    open_control()
    try:
        assert say(accounts, BAD[what]) == b""
    except ConnectionError:
        pass  # closed with bytes unread
    assert ask(accounts, {}) == {"echo": {}}
    assert "bug" not in logged.text()


@pytest.mark.parametrize("value", [[], 1, None, "status"])
def test_request_that_is_no_object_is_an_empty_one(accounts: Path, open_control: Open, value: object) -> None:
    open_control()
    assert json.loads(say(accounts, json.dumps(value).encode() + b"\n", then_end=False)) == {"echo": {}}


def test_process_that_says_nothing_stops_nobody(accounts: Path, open_control: Open) -> None:
    open_control()
    with socket.socket(socket.AF_UNIX) as stuck, socket.socket(socket.AF_UNIX) as other:
        for each in (stuck, other):
            each.connect(str(socket_of(accounts)))
        stuck.sendall(b"{")
        assert ask(accounts, {}) == {"echo": {}}


def test_fault_in_an_answer_is_logged_and_the_next_request_is_answered(
    accounts: Path, open_control: Open, logged: Logged
) -> None:
    def answer(request: Request) -> Answer:
        if request:
            raise KeyError("a fault")
        return {"fine": True}

    open_control(answer)
    with pytest.raises(TransferError, match="no whole answer"):
        ask(accounts, {"a": 1})
    assert "a bug" in logged.text()
    assert ask(accounts, {}) == {"fine": True}


def test_answer_that_says_the_request_is_unknown_is_an_error(accounts: Path, open_control: Open) -> None:
    open_control(lambda request: {"problem": "not understood"})
    with pytest.raises(TransferError, match="does not know that request"):
        ask(accounts, {"command": "of tomorrow"})
