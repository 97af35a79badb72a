"""What goes wrong on the way: processes that die, lines that fail or lie, full disks, many at once.

The rule behind all of these: a file is there whole or not at all, the client never says "delivered" when it is not, and
what is half stays hidden: of a large file until the same command comes again, of a small one not at all.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer
from processes import (
    BYE_RECORD,
    MIB,
    ONCE,
    Argument,
    Client,
    Fault,
    Proxy,
    Result,
    Running,
    Server,
    login_received,
    login_sent,
    make,
    wait_until,
)

LARGE = 30_000_000  # more than what the sockets on the way can hold
LONG = pytest.mark.long  # single cases
INTEGRITY = 5


def check_only_whole(server: Server, box: str, source: Path, result: Result) -> None:
    """The file is there complete or not at all; after "delivered" it is there."""
    there = server.path(box, source.name)
    if there.exists():
        assert there.read_bytes() == source.read_bytes()
    else:
        assert result.status != 0 and "delivered:" not in result.out
        check_hidden(server, box)


def check_hidden(server: Server, box: str) -> None:
    """Nothing of what was cut off is visible, neither a file nor a folder made for it."""
    assert not server.path(box).exists()


def check_resumes(server: Server, client: Client, source: Path, box: str) -> None:
    """The same command goes on from what was kept, and then nothing is left of it."""
    wait_until(lambda: server.has_missed(box, source.name))
    kept = server.kept(box, source.name)
    assert kept.stat().st_mode & 0o7777 == 0o600 and kept.stat().st_size > 0
    assert source.read_bytes().startswith(kept.read_bytes())
    result = client(source, f"{box}/")
    assert result.status == 0 and f"resumed: {source} from " in result.out
    assert server.path(box, source.name).read_bytes() == source.read_bytes()
    assert server.partials() == []


def held_up(server: Server, proxy: MakeProxy, client: Client, *arguments: Argument) -> tuple[Proxy, Running]:
    """A client that sends a large file, of which the server has some bytes when the line begins to hold the rest."""
    line = proxy(server.port, up=Fault("hold", 5 * MIB))
    running = client.at(line.port).start(*arguments)
    line.wait_reached()
    wait_until(server.partials)
    return line, running


# --- Processes that die -----------------------------------------------------------------------------------------------


def test_killed_client_leaves_no_file(server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str) -> None:
    source = make(folder / "a", LARGE)
    line, running = held_up(server, proxy, client, source, f"{box}/")
    check_hidden(server, box)
    running.kill(signal.SIGKILL)
    assert running.finish().status == -signal.SIGKILL
    line.cut()
    wait_until(lambda: server.has_missed(box, "a"))
    check_hidden(server, box)
    check_resumes(server, client, source, box)


def test_killed_server_leaves_no_file_and_its_successor_keeps_what_can_be_resumed(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path
) -> None:
    server = make_server()
    line = proxy(server.port, up=Fault("hold", 5 * MIB))
    source = make(folder / "a", LARGE)
    running = client.at(line.port).start(ONCE, source, "b")
    line.wait_reached()
    wait_until(lambda: server.kept("b").exists() and server.kept("b").stat().st_size > 3 * MIB)
    server.kill()
    result = running.finish()
    assert result.status == 4 and "the connection was lost" in result.err and "delivered" not in result.out
    assert len(server.partials()) == 2 and not server.path("b").exists()
    orphan = server.kept("b").with_name("small-" + "0" * 32)
    orphan.write_bytes(b"bytes of a small file, which nobody can resume")
    server.start()
    wait_until(lambda: "removed 1 partial file of" in server.told())
    assert server.kept("b").exists() and not orphan.exists()
    result = client.at(server.port)(source, "b")
    assert result.status == 0 and f"resumed: {source} from " in result.out
    assert server.path("b").read_bytes() == source.read_bytes()
    assert server.partials() == []
    assert server.stop() == 0


def test_sweep_leaves_alone_what_another_server_works_on(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path
) -> None:
    server = make_server()
    source = make(folder / "a", LARGE)
    line, running = held_up(server, proxy, client, source, "b")
    other = make_server(storage=server.storage)
    assert len(server.partials()) == 2 and client.at(other.port)(make(folder / "c"), "c").status == 0
    line.release()
    assert running.finish().status == 0
    assert server.path("b").read_bytes() == source.read_bytes()


def test_stop_cuts_off_a_stalled_transfer_after_the_grace_period(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path
) -> None:
    server = make_server("--grace=1")
    source = make(folder / "a", LARGE)
    line, running = held_up(server, proxy, client, ONCE, source, "b")
    before = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.ended() == 0
    assert 0.9 < time.monotonic() - before < 6
    assert "cut off: b, " in server.told() and "stopped" in server.told()
    assert server.kept("b").exists() and not server.path("b").exists()
    line.cut()
    assert running.finish().status == 4
    assert client.at(server.start().port)(source, "b").status == 0
    assert server.path("b").read_bytes() == source.read_bytes() and server.partials() == []


def test_stop_lets_a_transfer_end_and_begins_no_other(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path
) -> None:
    server = make_server()
    source = make(folder / "a", LARGE)
    line, running = held_up(server, proxy, client, source, "b")
    server.signal(signal.SIGTERM)
    wait_until(lambda: "stopping; 1 connection" in server.told())
    assert client.at(server.port)(ONCE, source, "c").status == 4
    line.release()
    result = running.finish()
    assert (result.status, result.err) == (0, "")
    assert server.path("b").read_bytes() == source.read_bytes()
    assert server.ended() == 0


def test_second_signal_does_not_wait(make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path) -> None:
    server = make_server("--grace=3600")
    line = proxy(server.port, up=Fault("hold", 5 * MIB))
    running = client.at(line.port).start(ONCE, make(folder / "a", LARGE), "b")
    line.wait_reached()
    server.signal(signal.SIGTERM)
    wait_until(lambda: "stopping; 1 connection" in server.told())
    server.signal(signal.SIGTERM)
    assert server.ended(10) == 0
    assert "cut off: b, " in server.told() and not server.path("b").exists()
    line.cut()
    assert running.finish().status == 4


def check_kept(server: Server, client: Client, source: Path, box: str, direction: str, at: int) -> None:
    """Nothing is visible; what came before a fault behind the first mebibyte is good, and kept; else nothing is."""
    check_hidden(server, box)
    if direction == "up" and at > login_sent() + MIB:
        check_resumes(server, client, source, box)
    else:
        wait_until(lambda: not server.partials())


# --- Lines that fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "at"),
    [
        pytest.param("up", 2, id="inside the first header"),
        pytest.param("up", 700, id="inside the first frame", marks=LONG),
        pytest.param("up", login_sent() - 10, id="inside the last frame of the login", marks=LONG),
        pytest.param("up", login_sent(), id="before the first record"),
        pytest.param("up", login_sent() + 2, id="inside a record's header", marks=LONG),
        pytest.param("up", login_sent() + 200, id="inside the first record"),
        pytest.param("up", login_sent() + 2 * MIB, id="inside the content"),
        pytest.param("down", 300, id="inside the server's first frame"),
        pytest.param("down", login_received() - 1, id="inside the server's last frame of the login", marks=LONG),
        pytest.param("down", login_received(), id="before the first answer", marks=LONG),
        pytest.param("down", login_received() + 10, id="inside the first answer"),
    ],
)
def test_cut_connection_is_exit_4_and_leaves_no_half_file(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str, direction: str, at: int
) -> None:
    line = proxy(server.port, **{direction: Fault("cut", at)})
    source = make(folder / "a", 3 * MIB)
    result = client.at(line.port)(ONCE, source, f"{box}/")
    assert line.reached.is_set()
    assert result.status == 4 and len(result.err.splitlines()) == 1, result
    check_only_whole(server, box, source, result)
    check_kept(server, client, source, box, direction, at)


@pytest.mark.parametrize("kind", ["small file", "pipe"])
def test_cut_of_what_can_not_be_resumed_leaves_nothing_at_all(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path, box: str, kind: str
) -> None:
    server = make_server()
    source = make(folder / "a", 60_000 if kind == "small file" else 3 * MIB)
    line = proxy(server.port, up=Fault("cut", login_sent() + source.stat().st_size // 2))
    name = "-" if kind == "pipe" else source
    with source.open("rb") as content_of:
        result = client.at(line.port).start(ONCE, name, f"{box}/b", stdin=content_of).finish()
    assert line.reached.is_set() and result.status == 4 and len(result.err.splitlines()) == 1, result
    check_hidden(server, box)
    assert server.stop() == 0
    assert server.partials() == []


def test_lost_connection_gives_up_its_place_at_once(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path
) -> None:
    server = make_server("--max-connections=1")
    line = proxy(server.port, up=Fault("cut", login_sent()))
    assert client.at(line.port)(ONCE, make(folder / "a"), "b").status == 4
    wait_until(lambda: "done," in server.told())
    ended, done = (
        datetime.fromisoformat(told.split(" ", 1)[0])
        for told in server.told().splitlines()
        if "ended: the connection was lost" in told or "done," in told
    )
    assert (done - ended).total_seconds() < 1


def test_after_a_cut_before_bye_the_same_command_succeeds(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    source = make(folder / "a", 1000)
    whole = proxy(server.port)
    assert client.at(whole.port)(source, f"{box}/one/").status == 0
    line = proxy(server.port, up=Fault("cut", whole.passed[0] - BYE_RECORD))
    result = client.at(line.port)(ONCE, source, f"{box}/two/")
    assert line.reached.is_set()
    assert result.status in (0, 4), "the receipt comes before the farewell or behind it"
    assert f"delivered: {box}/two/a" not in result.out or server.path(box, "two", "a").exists()
    again = client(source, f"{box}/two/")
    assert again.status == 0 and f"{box}/two/a" in again.out
    assert server.path(box, "two", "a").read_bytes() == source.read_bytes()
    wait_until(lambda: not server.partials())


@pytest.mark.parametrize(
    ("direction", "at"),
    [
        pytest.param("up", login_sent(), id="length of the first record", marks=LONG),
        pytest.param("up", login_sent() + 40, id="announcement"),
        pytest.param("up", login_sent() + MIB // 2, id="first content", marks=LONG),
        pytest.param("up", login_sent() + 2 * MIB, id="content"),
        pytest.param("down", login_received(), id="length of the first answer"),
        pytest.param("down", login_received() + 8, id="answer", marks=LONG),
    ],
)
def test_changed_byte_after_the_login_is_an_integrity_failure(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str, direction: str, at: int
) -> None:
    line = proxy(server.port, **{direction: Fault("flip", at)})
    source = make(folder / "a", 3 * MIB)
    result = client.at(line.port)(ONCE, source, f"{box}/")
    assert line.reached.is_set()
    assert result.status in (4, INTEGRITY) and result.out == "" and len(result.err.splitlines()) == 1
    if direction == "down":
        assert result.status == INTEGRITY
    check_kept(server, client, source, box, direction, at)


@pytest.mark.parametrize(
    ("direction", "at"),
    [
        pytest.param("up", 1000, id="the client's key"),
        pytest.param("up", login_sent() - 1, id="the client's proof", marks=LONG),
        pytest.param("down", 30, id="the salt", marks=LONG),
        pytest.param("down", login_received() - 1, id="the server's proof"),
    ],
)
def test_changed_byte_in_the_login_never_lets_anything_through(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str, direction: str, at: int
) -> None:
    line = proxy(server.port, **{direction: Fault("flip", at)})
    result = client.at(line.port)(ONCE, make(folder / "a"), f"{box}/")
    assert line.reached.is_set()
    assert result.status in (3, 4) and result.out == "" and len(result.err.splitlines()) == 1
    assert not server.path(box).exists()


def test_folder_that_reaches_nobody_is_told_behind_the_cause_in_a_few_lines(client: Client, folder: Path) -> None:
    for number in range(25):
        make(folder / "d" / f"{number:02}")
    result = client.at(1)("d", "there", cwd=folder)
    assert (result.status, result.out) == (4, "")
    cause, *left = [line for line in result.err.splitlines() if ": trying again in " not in line]
    assert cause.startswith("error: connection to 127.0.0.1:1 refused")
    assert left == [*(f"not delivered: d/{number:02}" for number in range(5)), "not delivered: and 20 more (-v)"]
    result = client.at(1)("-v", "d", "there", cwd=folder)
    assert result.err.count("not delivered: d/") == 25


# --- What changes meanwhile -------------------------------------------------------------------------------------------


def test_account_removed_meanwhile_ends_the_connection_and_the_next_login_is_refused(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    server = make_server()
    line = proxy(server.port, up=Fault("hold", login_sent()))
    sources = [make(folder / name) for name in ("a", "b")]
    running = client.at(line.port).start(*sources, f"{box}/")
    wait_until(lambda: "logged in" in server.told())
    assert server.command("deluser", "alice").status == 0
    line.wait_reached()
    line.release()
    result = running.finish()
    assert (result.status, result.out) == (3, "")
    assert "your account was changed or removed on the receiver: trying again in " in result.err
    assert "error: login refused: " in result.err
    assert [f"not delivered: {source}" in result.err for source in sources] == [True, True]
    assert not server.path(box).exists() and server.partials() == []
    assert server.stop() == 0


def test_source_that_changes_while_it_is_sent_is_withdrawn(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    line = proxy(server.port, up=Fault("hold", 2 * MIB))
    large, small = make(folder / "large", LARGE), make(folder / "small")
    running = client.at(line.port).start(large, small, f"{box}/")
    line.wait_reached()
    os.truncate(large, LARGE - 1)
    line.release()
    result = running.finish()
    assert result.status == 1 and f"{large} changed while it was read" in result.err
    assert os.listdir(server.path(box)) == ["small"]
    wait_until(lambda: not server.partials())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place, mount = tmp_path / "disk", shutil.which("mount")
    place.mkdir()
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount")
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_full_disk_refuses_what_does_not_fit_and_takes_the_rest(
    small_disk: Path, make_server: MakeServer, client: Client, folder: Path
) -> None:
    server = make_server(storage=small_disk / "received")
    # The first never fits; of the next two each would fit alone, so that the disk fills up in the middle of one.
    sizes = {"never": 8 * MIB, "one": 3 * MIB - 7, "two": 3 * MIB - 7, "small": 1000, "small too": 70_000}
    sources = [make(folder / name, size) for name, size in sizes.items()]
    result = client.at(server.port)(*sources, "box/")
    assert result.status == 1
    lines = result.err.splitlines()
    assert len(lines) == 2 and all("the receiver's disk is full. Free some space there" in line for line in lines)
    assert str(folder / "never") in result.err
    arrived = set(os.listdir(server.path("box")))
    assert arrived in ({"one", "small", "small too"}, {"two", "small", "small too"})
    for source in sources:
        assert source.name not in arrived or server.path("box", source.name).read_bytes() == source.read_bytes()
    assert server.partials() == []
    assert server.stop() == 0


# --- Many at once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [6, pytest.param(20, marks=LONG)])
def test_many_clients_at_once_are_all_served(
    server: Server, client: Client, folder: Path, box: str, count: int
) -> None:
    sources = [make(folder / f"file {number}", 100_000 + number) for number in range(count)]
    running = [client.start("--quiet", source, f"{box}/") for source in sources]
    assert [each.finish() for each in running] == [Result(0, "", "")] * count
    for source in sources:
        assert server.path(box, source.name).read_bytes() == source.read_bytes()


@pytest.mark.parametrize("count", [4, pytest.param(12, marks=LONG)])
def test_of_many_writers_of_one_name_exactly_one_is_delivered(
    server: Server, client: Client, folder: Path, box: str, count: int
) -> None:
    sources = [make(folder / f"file {number}", 70_000) for number in range(count)]
    running = [client.start(source, f"{box}/name") for source in sources]
    results = [each.finish() for each in running]
    won = [source for source, result in zip(sources, results, strict=True) if result.status == 0]
    assert len(won) == 1
    assert server.path(box, "name").read_bytes() == won[0].read_bytes()
    for result in results:
        if result.status:
            assert result.status == 1 and result.out.count("delivered:") == 0
            assert "exists already on the receiver" in result.err
    assert os.listdir(server.path(box)) == ["name"]
    assert server.partials() == []


def test_silent_connections_keep_nobody_out(make_server: MakeServer, client: Client, folder: Path) -> None:
    server = make_server("--max-logins=4", "--max-logins-per-source=4")
    source, honest = make(folder / "a"), client.at(server.port)
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
    try:
        # Less than the deadline of the silent ones, and without tries that would last until then.
        wait_until(lambda: honest("--retries=0", source, "a").status == 0, 8)
    finally:
        for each in silent:
            each.close()
    assert server.path("a").read_bytes() == source.read_bytes()
    assert server.stop() == 0


@pytest.mark.long
def test_silent_connection_is_closed_at_the_deadline_of_the_login(server: Server) -> None:
    with (
        socket.create_connection(("127.0.0.1", server.port)) as silent,
        socket.create_connection(("127.0.0.1", server.port)) as slow,
    ):
        silent.settimeout(20)
        slow.settimeout(0.5)
        slow.sendall(b"\0\0\x04\xb0")  # a frame of 1,200 bytes, of which one comes each half second
        before = time.monotonic()
        while time.monotonic() - before < 20:
            try:
                slow.sendall(b"\0")
                if not slow.recv(1):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert 8 < time.monotonic() - before < 13
        assert silent.recv(1) == b""
