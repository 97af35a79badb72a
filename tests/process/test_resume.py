"""What is cut off goes on: processes killed at any point, lines that break or fall silent, sources that change.

The bytes that cross the line are counted, so that "resumed" means that they were not sent again.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer
from processes import (
    MIB,
    ONCE,
    PASSWORD,
    USER,
    Client,
    Fault,
    Proxy,
    Running,
    Server,
    content,
    login_received,
    login_sent,
    make,
    wait_until,
)

LONG = pytest.mark.long  # single cases
NOTHING_MUCH = 20_000  # bytes of a connection that sends no content


def cut_off(server: Server, name: str) -> Callable[[], bool]:
    """Whether the server has missed the client that sent `name`."""
    return lambda: server.has_missed(*name.split("/"))


def interrupted(server: Server, line: Proxy, client: Client, *arguments: str | Path, name: str) -> None:
    """Run a command that loses its connection to the line's fault, so that something of `name` is kept."""
    result = client.at(line.port)(ONCE, *arguments)
    assert result.status == 4, result
    wait_until(cut_off(server, name))
    assert not server.path(name).exists() and server.kept(name).stat().st_size > 0


# --- Killed at any point, then the same command again -----------------------------------------------------------------


VICTIMS = ("client", "server", "server in a hurry")
IN_MEMORY = 80 * MIB  # what a server may hold that is not written yet, the socket's own memory included


def kill_and_go_on(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, size: int, number: int, seconds: float
) -> str:
    """One round: kill one end at a random point, then give the same command again. What it has cost, as a line."""
    point, victim = random.Random(number).randrange(login_sent(), size - MIB), VICTIMS[number % 3]  # noqa: S311 -- for a test
    source, name = make(folder / f"source {number}", size), f"file {number}"
    there = server.path(name)

    def size_of_kept() -> int:
        partial = server.kept(name)
        return partial.stat().st_size if partial.exists() else 0

    line = proxy(server.port, up=Fault("hold", point))
    running = client.at(line.port).start(ONCE, source, name)
    line.wait_reached()
    if victim == "client":
        running.kill()
        assert running.finish(seconds).status == -signal.SIGKILL
        line.cut()
        line.release()
        wait_until(cut_off(server, name))
    else:
        if victim == "server":  # what is in its memory only is lost with it; let that be little
            wait_until(lambda: size_of_kept() > point - 2 * MIB)
        server.kill()
        assert running.finish(seconds).status == 4
        line.release()
        line.target = server.start().port
    assert not there.exists()
    kept = size_of_kept()
    before = line.passed[0]
    result = client.at(line.port)(source, name, seconds=seconds)
    crossed = line.passed[0]
    told = f"{victim} killed at {point / size:.1%}, kept {kept / size:.1%}: {crossed / size:.4f} x size crossed"
    assert result.status == 0, (told, result)
    assert result.out.count("resumed: ") == (kept > 0), (told, result)
    assert there.read_bytes() == source.read_bytes(), told
    assert crossed - before < 1.01 * (size - kept) + NOTHING_MUCH, told  # nothing that was kept is sent again
    assert crossed < (size + IN_MEMORY if victim == "server in a hurry" else 1.1 * size), told
    assert server.partials() == []
    for each in (source, there):
        each.unlink()
    return told


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=LONG), pytest.param(2, marks=LONG)])
def test_killed_at_a_random_point_the_same_command_goes_on(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path, number: int
) -> None:
    server = make_server()
    kill_and_go_on(server, proxy, client, folder, 32_000_000, number, 30)
    assert server.stop() == 0


@pytest.mark.long
def test_killed_at_twenty_random_points_the_same_command_goes_on(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path
) -> None:
    server = make_server()
    for number in range(20):
        print(kill_and_go_on(server, proxy, client, folder, 200_000_000, number, 120))
    assert server.stop() == 0


# --- A client that runs on --------------------------------------------------------------------------------------------


def test_running_client_outlives_a_killed_server(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path
) -> None:
    server, size = make_server(), 32_000_000
    line = proxy(server.port, up=Fault("hold", 20_000_000))
    source = make(folder / "a", size)
    running = client.at(line.port).start(source, "b")
    line.wait_reached()
    wait_until(lambda: server.kept("b").stat().st_size > 18_000_000)
    server.kill()
    line.release()
    line.target = server.start(f"--port={server.port}").port
    result = running.finish()
    assert result.status == 0 and result.err.splitlines(), result
    first, *more = result.err.splitlines()
    assert first.startswith("the connection was lost") and first.endswith(": trying again in 1 s (1 of 24)"), first
    assert all(": trying again in " in told for told in more)  # the server may not be back for the first
    assert f"resumed: {source} from " in result.out and "1 file delivered" in result.out
    assert server.path("b").read_bytes() == source.read_bytes() and server.partials() == []
    assert line.passed[0] < 1.1 * size
    assert server.stop() == 0


def test_tries_are_told_and_end(make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path) -> None:
    server = make_server()
    line = proxy(server.port, up=Fault("hold", 3 * MIB))
    running = client.at(line.port).start("--retries=2", make(folder / "a", 32_000_000), "b")
    line.wait_reached()
    server.kill()
    result = running.finish()
    assert result.status == 4 and result.out == ""
    told = result.err.splitlines()
    assert [line.endswith((" in 1 s (1 of 2)", " in 2 s (2 of 2)")) for line in told[:2]] == [True, True], told
    assert len(told) == 3 and told[2].startswith("error: ")


def test_client_whose_side_alone_was_lost_takes_over_at_once(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    line = proxy(server.port, up=Fault("strand", 12_000_000))
    source = make(folder / "a", 32_000_000)
    result = client.at(line.port)(source, f"{box}/b", seconds=15)
    assert (result.status, len(result.err.splitlines())) == (0, 1), result
    assert f"resumed: {source} from " in result.out
    assert server.path(box, "b").read_bytes() == source.read_bytes()
    assert line.passed[0] < 1.1 * 32_000_000
    line.close()
    wait_until(lambda: server.partials() == [])
    assert server.path(box, "b").read_bytes() == source.read_bytes()


@pytest.mark.long
def test_new_client_waits_until_the_silent_one_is_missed(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    line = proxy(server.port, up=Fault("silence", 12_000_000))
    source = make(folder / "a", 32_000_000)
    running = client.at(line.port).start(source, f"{box}/b")
    line.wait_reached()
    running.kill()
    running.finish()
    result = client.at(line.port)(source, f"{box}/b", seconds=60)
    assert result.status == 0, result
    told = result.err.splitlines()
    assert told and set(told) == {f"another transfer to {box}/b is under way on the receiver: trying again"}
    assert f"resumed: {source} from " in result.out
    assert server.path(box, "b").read_bytes() == source.read_bytes()
    assert server.partials() == []


@pytest.mark.long
def test_silent_line_is_left_and_the_client_goes_on(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    line = proxy(server.port, up=Fault("silence", 12_000_000))
    source = make(folder / "a", 32_000_000)
    result = client.at(line.port)(source, f"{box}/b", seconds=60)
    assert result.status == 0, result
    assert "no sign of life from the other end for 30 seconds: trying again in 1 s" in result.err
    assert f"resumed: {source} from " in result.out
    assert server.path(box, "b").read_bytes() == source.read_bytes()


def test_changed_password_ends_the_running_client(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path
) -> None:
    server = make_server()
    line = proxy(server.port, up=Fault("hold", 5 * MIB))
    running = client.at(line.port).start(make(folder / "a", 32_000_000), "b")
    line.wait_reached()
    changed = server.command("passwd", "alice", "--password-file", "-", typed="another one, much better\n")
    assert changed.status == 0, changed
    result = running.finish()
    line.release()
    changed_word, refused = result.err.splitlines()
    assert changed_word.startswith("your account was changed or removed on the receiver: trying again in "), result
    assert result.status == 3 and refused.startswith("error: login refused: "), result
    assert line.connections == 2 and not server.path("b").exists()
    assert server.stop() == 0


def test_transfer_goes_on_by_itself_when_only_the_limits_of_its_account_change(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path
) -> None:
    server = make_server()
    line = proxy(server.port, up=Fault("hold", 5 * MIB))
    running = client.at(line.port).start(make(folder / "a", 32_000_000), "b")
    line.wait_reached()
    changed = server.command("limits", "alice", "--quota", "10G")
    assert changed.status == 0, changed
    result = running.finish()
    line.release()
    assert result.status == 0 and "your account was changed" in result.err, result
    assert server.path("b").read_bytes() == (folder / "a").read_bytes()
    assert server.stop() == 0


def test_lost_receipt_is_repeated_and_not_the_file(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path
) -> None:
    server = make_server()
    server.add("drop", "--drop-only")
    dropping = Client(server.port, folder.parent / "drop", "drop")
    cases = [
        (client, "alice", "rename", 3 * MIB),
        (client, "alice", "rename", 1000),
        (dropping, "drop", "rename", 3 * MIB),
    ]
    running = []
    for number, (each, user, policy, size) in enumerate(cases):
        source, there = make(folder / f"{number}", size), server.path(f"{number}.bin", user=user)
        # A small file has one answer, its receipt; a large one is accepted first.
        line = proxy(server.port, down=Fault("hold", login_received() + (80 if size > 1000 else 3)))
        running.append(each.at(line.port).start(f"--if-exists={policy}", source, there.name))
        wait_until(there.exists)
        line.cut()
        line.release()
    for number, (_, user, _, _) in enumerate(cases):
        result, there = running[number].finish(), server.path(f"{number}.bin", user=user)
        assert result.status == 0 and ": trying again in 1 s" in result.err, (number, result)
        assert f"there already: {there.name}  " in result.out and ", 1 there already\n" in result.out, (number, result)
        assert there.read_bytes() == (folder / f"{number}").read_bytes()
        assert [path.name for path in there.parent.glob(f"{number}*")] == [there.name], (number, result)
    assert server.partials() == []
    assert server.stop() == 0


# --- Sources that change between two attempts -------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["prefix", "appended", pytest.param("shrunk to less", marks=LONG), "shrunk"])
def test_source_that_changed_between_two_attempts(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str, change: str
) -> None:
    source, name = make(folder / "a", 10_000_000), f"{box} changed"
    interrupted(server, proxy(server.port, up=Fault("cut", 6 * MIB)), client, source, name, name=name)
    kept = server.kept(name).stat().st_size
    assert 4 * MIB < kept < 6 * MIB
    with source.open("r+b") as file:
        if change == "prefix":
            file.seek(100_000)
            file.write(b"something else")
        if change == "appended":
            file.seek(0, os.SEEK_END)
            file.write(content(MIB))
        if change.startswith("shrunk"):
            file.truncate(2 * MIB if change == "shrunk to less" else 8 * MIB)
    os.utime(source)
    size = source.stat().st_size
    line = proxy(server.port)
    result = client.at(line.port)(source, name)
    assert (result.status, result.err) == (0, ""), result
    assert server.path(name).read_bytes() == source.read_bytes() and server.partials() == []
    if change == "prefix":
        again = f"starting again: {source} is not what an earlier attempt has left behind"
        assert result.out.splitlines().count(again) == 1 and "resumed" not in result.out
        assert size < line.passed[0] < 1.1 * size
    else:
        assert f"resumed: {source} from " in result.out and "starting again" not in result.out
        assert line.passed[0] < size - min(kept, size) + 1.1 * MIB


def test_torn_partial_is_sent_again(server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str) -> None:
    source, name = make(folder / "a", 10_000_000), f"{box} torn"
    interrupted(server, proxy(server.port, up=Fault("cut", 6 * MIB)), client, source, name, name=name)
    with server.kept(name).open("r+b") as file:  # what a power cut may leave
        file.seek(3 * MIB)
        file.write(bytes(MIB))
    result = client(source, name)
    assert (result.status, result.err) == (0, "") and f"starting again: {source} " in result.out
    assert server.path(name).read_bytes() == source.read_bytes() and server.partials() == []


def test_source_that_changes_while_it_is_sent_is_not_delivered(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    def shrink(file: Path) -> None:
        os.truncate(file, 9 * MIB)

    def rewrite(file: Path) -> None:
        with file.open("r+b") as opened:
            opened.write(b"x")

    for number, change in enumerate((shrink, rewrite)):
        source = make(folder / f"{number}", 32_000_000)
        line = proxy(server.port, up=Fault("hold", 8 * MIB))
        running = client.at(line.port).start(source, f"{box}/")
        line.wait_reached()
        change(source)
        line.release()
        result = running.finish()
        assert result.status == 1 and "delivered:" not in result.out
        assert result.err == (
            f"error: {source} changed while it was read. Send it again when no program writes to it\n"
        ), result
    wait_until(lambda: server.partials() == [])
    assert not server.path(box).exists()


# --- Names that are taken ---------------------------------------------------------------------------------------------


def test_of_two_clients_with_one_target_one_is_told(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    first, second = make(folder / "first", 32_000_000), make(folder / "second", 31_000_000)
    line = proxy(server.port, up=Fault("hold", 8 * MIB))
    running = client.at(line.port).start(first, f"{box}/name")
    line.wait_reached()
    wait_until(lambda: server.kept(box, "name").exists())
    other = client.start(second, f"{box}/name")
    assert other.process.stderr is not None
    note = f"another transfer to {box}/name is under way on the receiver: trying again\n"
    assert other.process.stderr.readline() == note
    line.release()
    assert running.finish().status == 0
    result = other.finish()
    assert result.status == 1 and "exists already on the receiver" in result.err.splitlines()[-1]
    assert os.listdir(server.path(box)) == ["name"]
    assert server.path(box, "name").read_bytes() == first.read_bytes()
    assert server.partials() == []


def test_what_is_there_already_is_not_sent_again(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    sources = [make(folder / "large", 10_000_000), make(folder / "small", 1000), make(folder / "empty", 0)]
    result = client(*sources, box)
    assert result.status == 0 and "there already" not in result.out

    def states() -> dict[str, tuple[int, int, int]]:
        found = {path.name: path.stat() for path in server.path(box).iterdir()}
        return {name: (state.st_ino, state.st_size, state.st_mtime_ns) for name, state in found.items()}

    before = states()
    line = proxy(server.port)
    os.utime(sources[0])  # the content counts, and not the time
    result = client.at(line.port)("--if-exists=rename", *sources, box)
    assert (result.status, result.err) == (0, "")
    for source in sources:
        assert f"there already: {box}/{source.name}  {source.stat().st_size:,} bytes  SHA-256 " in result.out
    assert line.passed[0] < NOTHING_MUCH
    assert states() == before
    changed = bytearray(sources[0].read_bytes())
    changed[5_000_000] ^= 1
    sources[0].write_bytes(changed)
    line = proxy(server.port)
    assert client.at(line.port)(sources[0], f"{box}/").status == 1
    assert line.passed[0] < NOTHING_MUCH
    assert client("--if-exists=replace", sources[0], f"{box}/").status == 0
    assert server.path(box, "large").read_bytes() == changed
    assert server.partials() == []


def test_many_files_cut_in_the_middle_are_all_there_once_after_the_same_command(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path
) -> None:
    server = make_server()
    sizes = [0, 1, 70_000, 40_000, 3 * MIB, 500, 5 * MIB, 65_537, 65_536] * 4
    sources = [make(folder / f"{number:02}", size) for number, size in enumerate(sizes)]
    line = proxy(server.port, up=Fault("cut", 20 * MIB))
    result = client.at(line.port)("--if-exists=rename", *sources, "box/")
    assert result.status == 0 and len(result.err.splitlines()) == 1, result
    assert sorted(os.listdir(server.path("box"))) == [source.name for source in sources]
    for source in sources:
        assert server.path("box", source.name).read_bytes() == source.read_bytes()
    assert line.passed[0] < 1.25 * sum(sizes)
    assert server.partials() == []
    assert server.stop() == 0


# --- Rate -------------------------------------------------------------------------------------------------------------


def test_limit_is_kept(server: Server, client: Client, folder: Path, box: str) -> None:
    before = time.monotonic()
    result = client("--limit=1M", make(folder / "a", 3 * MIB), f"{box}/")
    assert result.status == 0 and time.monotonic() - before >= 2


def test_connection_made_again_needs_no_second_password(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    line = proxy(server.port, up=Fault("cut", 3 * MIB))
    reading, writing = os.pipe()
    os.write(writing, PASSWORD.encode() + b"\n")
    os.close(writing)
    flags = [*client.at(line.port).settings, f"--user={USER}", f"--password-fd={reading}"]
    running = Running("client.py", *flags, make(folder / "a", 5 * MIB), f"{box}/", pass_fds=[reading])
    os.close(reading)
    result = running.finish()
    assert (result.status, len(result.err.splitlines()), line.connections) == (0, 1, 2), result
