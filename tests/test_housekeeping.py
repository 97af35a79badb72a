"""The background task of the server, and the accept loop: whatever fails in them, the server goes on."""

import contextlib
import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from logged_lines import Lines
from processes import HOME, Server, check_no_traceback, clean_environment, knock, make, wait_until

from sft.accounts.store import Accounts
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from sft.server import housekeeping
from sft.server.housekeeping import Housekeeping

SILENT = 110
HURRY = """
import sys, server
from sft.server import housekeeping, listener
housekeeping._EVERY = housekeeping._RETRY = housekeeping._LONGEST_RETRY = 0.05
listener.most_for = lambda files, wanted: wanted  # no places are kept for others
sys.exit(server.main(sys.argv[1:]))
"""
CLUMSY = """
import sys, server
from sft.server import listener
class Clumsy(listener.Connection):
    def __init__(self, shared, link, ticket, source, number, is_proxied):
        if number == 1:
            raise MemoryError
        if number == 2:
            raise ValueError("nobody expected this")
        super().__init__(shared, link, ticket, source, number, is_proxied)
listener.Connection = Clumsy
sys.exit(server.main(sys.argv[1:]))
"""

LATE = """
import socket, sys, server
from sft.server import listener
class Clumsy(listener.Connection):
    def __init__(self, shared, link, ticket, source, number, is_proxied):
        raise ValueError("nobody expected this")
listener.Connection = Clumsy
accept_waiting = listener.Listener._accept_waiting
def accept_one_more(self, listening):
    self.late = socket.create_connection(listening.getsockname())
    accept_waiting(self, listening)
listener.Listener._accept_waiting = accept_one_more
sys.exit(server.main(sys.argv[1:]))
"""


@contextlib.contextmanager
def changed_server(folder: Path, accounts: Path, code: str, descriptors: int) -> Iterator[tuple[Server, int]]:
    """A server process that runs `code`, and its port."""
    server = Server(folder, accounts)
    command = [sys.executable, "-c", code, *server.settings, "--port=0", "--listen=127.0.0.1"]
    process = subprocess.Popen(
        ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *command],
        cwd=HOME,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    server.process = process
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "listening" in line, process.communicate()
        yield server, int(line.rpartition(":")[2])
        assert process.poll() is None, process.communicate()
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=30)
        check_no_traceback(errors)
    assert process.returncode == 0


def test_server_outlives_housekeeping_without_a_free_descriptor(server: Server, tmp_path: Path) -> None:
    with changed_server(tmp_path / "server", server.accounts, HURRY, 64) as (hurried, port):
        old = make(hurried.storage / ".partial/alice/abandoned", 100)
        with contextlib.ExitStack() as opened:
            for _ in range(SILENT):
                opened.enter_context(socket.create_connection(("127.0.0.1", port)))
            wait_until(
                lambda: f"stale partial files failed, and is tried again: {os.strerror(errno.EMFILE)}" in hurried.told()
            )
        make(old, 100)
        wait_until(lambda: not old.exists())
        knock(port)
    check_no_traceback(hurried.told())


def test_server_outlives_whatever_accepting_a_connection_raises(server: Server, tmp_path: Path) -> None:
    with changed_server(tmp_path / "server", server.accounts, CLUMSY, 1024) as (clumsy, port):
        for _ in range(3):
            knock(port)
        assert clumsy.told().count("can't accept a connection: MemoryError()") == 1
        assert clumsy.told().count("a bug: a connection could not be accepted") == 1
        assert clumsy.told().count("no login: the connection was lost") == 1


def test_server_stops_in_order_though_it_can_not_accept_who_waits(server: Server, tmp_path: Path) -> None:
    with changed_server(tmp_path / "server", server.accounts, LATE, 1024) as (stopped, _):
        pass
    assert stopped.told().count("a bug: a connection could not be accepted") == 1
    assert stopped.told().splitlines()[-1].endswith("INFO stopped")


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (OSError(errno.EIO, "Input/output error"), "removing stale partial files failed, and is tried again: Input"),
        (MemoryError(), "removing stale partial files failed, and is tried again: MemoryError()"),
        (ValueError(), "a bug: removing stale partial files failed, and is tried again"),
    ],
)
def test_housekeeping_that_fails_is_logged_and_tried_again(
    storage: Storage, server: Server, monkeypatch: pytest.MonkeyPatch, problem: Exception, said: str
) -> None:
    log, lines, tries = logging.Logger("test"), Lines(), iter([problem, problem])
    log.addHandler(lines)

    def sweep() -> int:
        if (each := next(tries, None)) is not None:
            raise each
        return 7

    monkeypatch.setattr(storage, "sweep", sweep)
    accounts = Accounts(server.accounts)
    keeping = Housekeeping(storage, accounts, log, retry=0.01)
    keeping.start()
    wait_until(lambda: any("removed 7" in line for line in lines.lines))
    assert keeping.stop(10)
    assert len([line for line in lines.lines if line.startswith(said)]) == 2


def test_pauses_after_failures_grow_up_to_an_hour(
    storage: Storage, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping = Housekeeping(storage, Accounts(server.accounts), logging.Logger("test"))
    pauses: list[float] = []

    class Stopping:
        def is_set(self) -> bool:
            return len(pauses) > 9

        def wait(self, seconds: float) -> None:
            pauses.append(seconds)

    def fail() -> int:
        if len(pauses) == 8:
            return 0
        raise OSError(errno.EMFILE, "no descriptor")

    monkeypatch.setattr(storage, "sweep", fail)
    monkeypatch.setattr(keeping, "_stopping", Stopping())
    keeping._run()
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, housekeeping._EVERY, 60]


def test_sweep_goes_through_the_others_and_then_says_what_it_could_not_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(Storage(tmp_path / "received", Rules())) as storage:
        for name in ("alice", "bob", "carol"):
            make(tmp_path / "received/.partial" / name / "abandoned", 10)
        opening = os.open

        def without_bob(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if path == "bob":
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return opening(path, flags, mode, dir_fd=dir_fd)

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", without_bob)
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                storage.sweep()
        left = [path.parent.name for path in (tmp_path / "received/.partial").rglob("abandoned")]
        assert left == ["bob"]
        assert storage.sweep() == 1
