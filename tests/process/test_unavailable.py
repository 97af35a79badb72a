"""The server's own trouble: accounts or a storage that can't be used now. It is no wrong password, and it passes."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer
from processes import (
    LIMIT,
    ONCE,
    Client,
    Fault,
    Running,
    Server,
    knock,
    login_received,
    login_sent,
    make,
    wait_until,
)

from sft.common.errors import Code, Refused
from sft.disk.root import PARTIAL_AREA, Root

CAUSE = "the receiver can't use its accounts or its storage at the moment"


def tried_again(running: Running) -> str:
    """The first line of a client's standard error."""
    assert running.process.stderr is not None
    return str(running.process.stderr.readline())


@pytest.mark.parametrize("user", ["alice", "nobody"])
def test_accounts_that_can_not_be_read_are_the_servers_trouble_for_every_name(
    make_server: MakeServer, client: Client, folder: Path, tmp_path: Path, user: str
) -> None:
    server, source = make_server(), make(folder / "a")
    other = Client(server.port, tmp_path / "other", user)
    server.accounts.chmod(0o644)
    result = other(ONCE, source, "a")
    assert (result.status, result.err) == (4, f"error: {CAUSE}. Try again later; the reason is in its server.log\n")
    assert "open to other users" in server.told() and "refused" not in server.told()
    running = other.start(source, "a")
    assert tried_again(running).startswith(f"{CAUSE}: trying again in ")
    server.accounts.chmod(0o600)
    assert running.finish().status == (0 if user == "alice" else 3)
    assert server.path("a").exists() == (user == "alice")


def test_storage_that_is_gone_is_tried_again_and_used_once_it_is_back(
    make_server: MakeServer, client: Client, folder: Path
) -> None:
    server, source = make_server(), make(folder / "a", 100_000)
    client = client.at(server.port)
    assert client(source, "a").status == 0
    shutil.rmtree(server.storage)
    for arguments in ([source, "b"], ["--get", "a", folder / "back"], ["--list"]):
        result = client(ONCE, *arguments)
        assert result.status == 4 and CAUSE in result.err, result
    running = client.start(source, "b")
    assert tried_again(running).startswith(f"{CAUSE}: trying again in ")
    server.storage.mkdir()
    assert running.finish().status == 0
    assert server.path("b").read_bytes() == source.read_bytes()
    assert server.stop() == 0


@pytest.mark.parametrize("then", ["it comes back", "another one is made"])
def test_storage_that_was_renamed_receives_nothing_more(
    make_server: MakeServer, client: Client, folder: Path, tmp_path: Path, then: str
) -> None:
    server, source, renamed = make_server(), make(folder / "a", 100_000), tmp_path / "renamed"
    client = client.at(server.port)
    assert client(source, "a").status == 0
    server.storage.rename(renamed)
    for arguments in ([source, "b"], ["--get", "a", folder / "back"], ["--list"]):
        result = client(ONCE, *arguments)
        assert result.status == 4 and CAUSE in result.err, result
    assert f"{server.storage}: No such file or directory" in server.told()
    if then == "it comes back":
        renamed.rename(server.storage)
    else:
        server.storage.mkdir()
    assert client(source, "b").status == 0
    assert server.path("b").read_bytes() == source.read_bytes()
    assert server.path("a").exists() == (then == "it comes back") and not (renamed / "alice" / "b").exists()


@pytest.mark.parametrize("gone", [shutil.rmtree, lambda place: place.rename(f"{place} before")], ids=["gone", "moved"])
def test_folder_of_another_disk_is_not_taken_for_the_storage_without_its_area(
    tmp_path: Path, gone: Callable[[Path], object]
) -> None:
    if os.stat(tmp_path).st_dev == os.stat("/tmp").st_dev:
        pytest.skip("there is one file system only")
    place = tmp_path / "received"
    root = Root(place)
    with tempfile.TemporaryDirectory(dir="/tmp") as elsewhere:
        assert not root.reopen_if_dead()
        gone(place)
        place.symlink_to(elsewhere)
        with pytest.raises(Refused, match="another disk") as caught:
            root.reopen_if_dead()
        assert caught.value.code is Code.UNAVAILABLE and os.listdir(elsewhere) == []
        os.mkdir(f"{elsewhere}/{PARTIAL_AREA}", 0o700)
        assert root.reopen_if_dead() and not root.reopen_if_dead()
        assert os.path.samestat(os.fstat(root.descriptor), os.stat(elsewhere))
    root.close()


# --- Before and at the first login ------------------------------------------------------------------------------------


def test_receiver_that_is_just_starting_is_waited_for(make_server: MakeServer, client: Client, folder: Path) -> None:
    server, source = make_server(), make(folder / "a")
    assert server.stop() == 0
    running = client.at(server.port).start(source, "a")
    assert tried_again(running) == f"connection to 127.0.0.1:{server.port} refused: trying again in 1 s\n"
    server.start(f"--port={server.port}")
    assert running.finish().status == 0
    assert server.path("a").read_bytes() == source.read_bytes()


def test_nobody_at_that_port_ends_after_some_seconds_and_by_retries_before(
    server: Server, client: Client, folder: Path
) -> None:
    source = make(folder / "a")
    with_none = client.at(1)(ONCE, source, "a")
    assert (with_none.status, with_none.err.count("\n")) == (4, 1)
    with_one = client.at(1)("--retries=1", source, "a")
    assert (with_one.status, with_one.err.count("trying again"), with_one.err.count("\n")) == (4, 1, 2)
    result = client.at(1)(source, "a")
    *notes, last = result.err.splitlines()
    assert result.status == 4 and last.startswith("error: connection to 127.0.0.1:1 refused.")
    assert len(notes) in (2, 3, 4) and all(": trying again in " in note for note in notes)


@pytest.mark.parametrize(
    ("way", "at"),
    [("up", 3), ("up", login_sent() - 20), ("down", 0), ("down", 500), ("down", login_received() - 5)],
    ids=["in the hello", "in the last proof", "no answer", "in the answer", "in the server's proof"],
)
def test_cut_in_the_middle_of_a_login_is_tried_again(
    server: Server, client: Client, proxy: MakeProxy, folder: Path, box: str, way: str, at: int
) -> None:
    fault = Fault("cut", at)
    line = proxy(server.port, up=fault if way == "up" else None, down=fault if way == "down" else None)
    source = make(folder / "a")
    result = client.at(line.port)(source, f"{box}/a")
    assert result.status == 0 and line.connections == 2, result
    assert result.err.count("\n") == 1 and ": trying again in 1 s" in result.err
    assert server.path(box, "a").read_bytes() == source.read_bytes()


def test_wrong_password_ends_at_once(server: Server, tmp_path: Path, folder: Path) -> None:
    result = Client(server.port, tmp_path / "other", password="another one")(make(folder / "a"), "a")
    assert result.status == 3 and result.err.count("\n") == 1


def test_busy_server_is_waited_for(make_server: MakeServer, client: Client, proxy: MakeProxy, folder: Path) -> None:
    server, source = make_server("--max-connections=1"), make(folder / "a")
    line = proxy(server.port, up=Fault("hold", login_sent()))
    first = client.at(line.port).start(source, "first")
    wait_until(lambda: "logged in" in server.told())
    second = client.at(server.port).start(source, "second")
    assert tried_again(second) == "the server is busy: trying again in 1 s\n"
    line.release()
    assert (first.finish().status, second.finish().status) == (0, 0)
    assert server.path("second").exists()


# --- The server stops -------------------------------------------------------------------------------------------------


def test_login_under_way_at_the_stop_ends_and_is_told_that_the_server_stops(
    make_server: MakeServer, client: Client, proxy: MakeProxy, folder: Path
) -> None:
    server = make_server()
    line = proxy(server.port, up=Fault("hold", login_sent() - 20))
    running = client.at(line.port).start(ONCE, make(folder / "a"), "a")
    line.wait_reached()
    server.signal(signal.SIGTERM)
    wait_until(lambda: "stopping; 1 connection" in server.told())
    wait_until(lambda: server.errors() != "")
    said = "stopping; 1 connection may go on for 10 s, or until another Ctrl-C\n"
    assert server.errors() == said, "somebody who has pressed Ctrl-C once is not left waiting"
    line.release()
    result = running.finish()
    assert (result.status, result.err) == (4, "error: the receiver is shutting down. Try again when it is back\n")
    assert server.ended() == 0


def test_silent_connection_does_not_hold_up_the_stop(make_server: MakeServer) -> None:
    server = make_server("--grace=20")
    knock(server.port)
    with socket.create_connection(("127.0.0.1", server.port)):
        server.signal(signal.SIGTERM)
        assert server.ended(10) == 0


# --- a mount that is taken away ---


def mounted(*arguments: str | Path) -> bool:
    """Run mount or umount; whether that worked."""
    return not subprocess.run(arguments, capture_output=True, check=False).returncode


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None], Callable[[], None]]]:
    """A mount, and what takes it away, also while it is used, and puts it back."""
    disk, place = tmp_path / "disk", tmp_path / "mounted"
    for each in (disk, place):
        each.mkdir()
    if os.getuid() or not mounted("mount", "-t", "tmpfs", "none", disk):
        pytest.skip("needs root, and a system that lets it mount")

    def put_back() -> None:
        assert mounted("mount", "--bind", disk, place)

    def take_away() -> None:
        assert mounted("umount", "--lazy", place)

    put_back()
    yield place, take_away, put_back
    for each in (place, disk):
        mounted("umount", "--lazy", each)


@pytest.mark.parametrize("below", ["", "received"], ids=["the mount itself", "a folder in it"])
def test_storage_that_was_unmounted_is_unhealthy_and_used_again_once_it_is_mounted(
    make_server: MakeServer,
    client: Client,
    folder: Path,
    mount: tuple[Path, Callable[[], None], Callable[[], None]],
    below: str,
) -> None:
    place, take_away, put_back = mount
    server = make_server("--health=127.0.0.1:0", storage=place / below)
    assert server.process is not None and server.process.stdout is not None
    while not (line := server.process.stdout.readline()).startswith("health at "):
        assert line
    health = line.split()[-1]

    def is_healthy() -> bool:
        try:
            with urllib.request.urlopen(health, timeout=LIMIT) as answer:  # noqa: S310 -- it is http
                return bool(answer.status == 200)
        except urllib.error.HTTPError as problem:
            assert problem.code == 503
            problem.close()
            return False

    client, source = client.at(server.port), make(folder / "a", 100_000)
    assert is_healthy() and client(source, "a").status == 0
    take_away()
    wait_until(lambda: not is_healthy())
    for arguments in ([source, "b"], ["--get", "a", folder / "back"], ["--list"]):
        result = client(ONCE, *arguments)
        assert result.status == 4 and CAUSE in result.err, result
    assert "refused" not in server.told()
    assert os.listdir(place) == [], "nothing arrives in what lies under the mount"
    running = client.start(source, "b")
    assert tried_again(running).startswith(f"{CAUSE}: trying again in ")
    put_back()
    assert running.finish().status == 0
    wait_until(is_healthy)
    assert (place / below / "alice/b").read_bytes() == source.read_bytes()
    assert server.stop() == 0
