"""Faults of the machine itself: disks that are full or broken, no descriptors, no threads, a clock that jumps.

The rule behind all of these: a failure gives the right exit status and one line; a file is there complete or
not at all; nothing stays of what failed; and once the fault is gone, the same server serves the same command.
"""

import contextlib
import errno
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import MakeProxy, MakeServer
from machine import Call, Machine, compile_library, missing
from processes import (
    HOME,
    MIB,
    ONCE,
    USER,
    Client,
    Fault,
    Result,
    Server,
    Terminal,
    check_no_traceback,
    clean_environment,
    knock,
    login_received,
    make,
    run,
    wait_until,
)

from sft.common.errors import ConnectionTrouble
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from sft.wire.handshake import ClientHandshake
from sft.wire.sockets import Link
from sft.wire.workers import Engine

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

DISK_CALLS: tuple[Call, ...] = ("write", "flush", "link", "flush folder", "create", "folder")
FULL, BROKEN, OVER_QUOTA = errno.ENOSPC, errno.EIO, errno.EDQUOT
SAID = {
    FULL: "the receiver's disk is full. Free some space there",
    OVER_QUOTA: "the receiver's disk is full. Free some space there",
    BROKEN: "the receiver can't use its accounts or its storage at the moment. Try again later; the reason is in its",
}
SMALL, LARGE = 1000, 300_000  # the first is sent unasked; the second is announced, kept and resumed
DAY = 24 * 3600.0


def long(*values: object) -> "ParameterSet":
    """Values that only `make test-long` tries."""
    return pytest.param(*values, marks=pytest.mark.long)


MakeMachine = Callable[[Path], Machine]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why := missing():
        pytest.skip(why)
    return compile_library(tmp_path_factory.mktemp("library"))


@pytest.fixture
def make_machine(library: Path, tmp_path: Path) -> Iterator[MakeMachine]:
    """Makes faults below a folder."""
    made: list[Machine] = []

    def make(folder: Path) -> Machine:
        made.append(Machine(library, tmp_path / f"control {len(made)}", folder))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def shared(library: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Machine]]:
    """A server whose machine can be broken, and what breaks it."""
    folder = tmp_path_factory.mktemp("faulty")
    broken = Server(folder, server.accounts)
    machine = Machine(library, folder / "control", broken.storage)
    broken.environment = machine.environment
    with contextlib.closing(Storage(broken.storage, Rules())) as storage:
        storage.user(USER).close()  # what fails is a file, not the login of who has no folder yet
    broken.start()
    try:
        yield broken, machine
        machine.heal()
        assert broken.stop() == 0
        assert broken.errors() == ""
    finally:
        broken.close()
        machine.close()


@pytest.fixture
def faulty(shared: tuple[Server, Machine]) -> Iterator[tuple[Server, Machine]]:
    """The same, and whole again after each test."""
    yield shared
    shared[1].heal()


def guess(port: int, user: str) -> bool:
    """Try a wrong password; whether the server has answered the guess."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        link = Link(sock, time.monotonic() + 20)
        handshake = ClientHandshake(user, lambda salt, profile: (1, 2))
        link.send(handshake.hello())
        link.send(handshake.share(link.receive()))
        with contextlib.suppress(ConnectionTrouble):
            link.receive()
            return True
    return False


def sources_in(folder: Path) -> list[Path]:
    return [make(folder / "small", SMALL), make(folder / "large", LARGE)]


def put_there(server: Server, box: str, sources: dict[str, Path]) -> None:
    """Let files lie in a folder of the user, as if they had been sent."""
    server.path(box).mkdir(parents=True)
    for name, source in sources.items():
        shutil.copyfile(source, server.path(box, name))


def check_whole_or_not_there(server: Server, box: str, sources: list[Path], result: Result) -> None:
    """Each file is there complete or not at all, and "delivered" is printed for exactly those that are there."""
    names = {source.name for source in sources}
    assert {path.name for path in server.path(box).rglob("*")} <= names
    for source in sources:
        there = server.path(box, source.name)
        assert not there.exists() or there.read_bytes() == source.read_bytes()
        assert there.exists() or f"{box}/{source.name}  " not in result.out
        told = f"{source}: " in result.err or f"not delivered: {source}\n" in result.err
        assert result.status == 0 or told or f"delivered: {box}/{source.name}  " in result.out


def check_repaired(server: Server, client: Client, box: str, sources: list[Path], *flags: str) -> None:
    """Without the fault, the same command is a success, and nothing is left of what failed."""
    result = client(*flags, *sources, f"{box}/")
    assert (result.status, result.err) == (0, "")
    for source in sources:
        assert server.path(box, source.name).read_bytes() == source.read_bytes()
    assert server.partials() == []
    check_no_traceback(server.told())
    assert "a bug" not in server.told()


# --- Disks ------------------------------------------------------------------------------------------------------------


def check_fault(
    server: Server, machine: Machine, folder: Path, box: str, call: Call, error: int, flags: tuple[str, ...] = ()
) -> None:
    client = Client(server.port, folder / "client")
    sources = sources_in(folder)
    machine.fail(call, error)
    result = client(*flags, ONCE, *sources, f"{box}/")
    assert machine.hits(call) >= 1 and "delivered:" not in result.out
    lines = result.err.splitlines()
    if error == BROKEN:  # worth another try, as the server's own trouble
        assert result.status == 4 and lines[1:] == [f"not delivered: {source}" for source in sources], lines
        assert SAID[error] in lines[0]
    else:
        assert result.status == 1
        assert len(lines) == len(sources) and all(SAID[error] in line for line in lines), lines
    assert all(str(source) in result.err for source in sources)
    assert os.strerror(error) in server.told()
    check_whole_or_not_there(server, box, sources, result)
    assert error == BROKEN or server.partials() == []  # what is worth another try is kept for it
    machine.heal()
    check_repaired(server, client, box, sources, *flags)


@pytest.mark.parametrize(("call", "error"), [("write", OVER_QUOTA), ("flush folder", BROKEN)])
def test_fault_of_the_disk_is_said_and_the_server_lives_on(
    faulty: tuple[Server, Machine], folder: Path, box: str, call: Call, error: int
) -> None:
    check_fault(*faulty, folder, box, call, error)


@pytest.mark.long
@pytest.mark.parametrize("call", [*DISK_CALLS, "rename"])
@pytest.mark.parametrize("error", [FULL, BROKEN, OVER_QUOTA])
def test_every_fault_of_the_disk_is_said_and_the_server_lives_on(
    faulty: tuple[Server, Machine], folder: Path, box: str, call: Call, error: int
) -> None:
    check_fault(*faulty, folder, box, call, error, ("--if-exists=replace",) if call == "rename" else ())


@pytest.mark.long
@pytest.mark.parametrize("call", [*DISK_CALLS, "rename"])
def test_fault_of_any_single_call_leaves_whole_files_and_no_rest(
    faulty: tuple[Server, Machine], folder: Path, box: str, call: Call
) -> None:
    server, machine = faulty
    client, sources = Client(server.port, folder / "client"), sources_in(folder)
    flags = ("--if-exists=replace",) if call == "rename" else ()
    for skip in count():
        place = f"{box}/{skip}"
        machine.fail(call, BROKEN, skip, 1)
        result = client(*flags, ONCE, *sources, f"{place}/")
        if not machine.hits(call):
            assert skip and result.status == 0
            break
        machine.heal()
        assert result.status in (0, 4)
        check_whole_or_not_there(server, place, sources, result)
        check_repaired(server, client, place, sources, *flags)


@pytest.mark.long
def test_hidden_name_that_can_not_be_removed_is_swept_later(
    make_machine: MakeMachine, server: Server, tmp_path: Path, folder: Path
) -> None:
    other = Server(tmp_path / "server", server.accounts)
    machine = make_machine(other.storage)
    other.environment = machine.environment
    try:
        client, sources = Client(other.start().port, tmp_path / "client"), sources_in(folder)
        machine.fail("remove", BROKEN)
        result = client(*sources, "box/")
        assert machine.hits("remove") >= 1 and result.status == 0
        check_whole_or_not_there(other, "box", sources, result)
        assert other.partials()
        machine.heal()
        assert other.stop() == 0
        other.start()
        wait_until(lambda: not other.partials())
        check_repaired(other, client.at(other.port), "box", sources)
        assert other.stop() == 0
    finally:
        other.close()


@pytest.mark.parametrize("call", ["write", long("flush"), long("link"), long("flush folder")])
def test_pipe_into_a_broken_disk_is_no_delivery(
    faulty: tuple[Server, Machine], client: Client, folder: Path, box: str, call: Call
) -> None:
    server, machine = faulty
    source = make(folder / "a", LARGE)
    machine.fail(call, FULL)
    with source.open("rb") as piped:
        result = client.at(server.port).start("-", f"{box}/a", stdin=piped).finish()
    assert result.status == 1 and "delivered:" not in result.out and SAID[FULL] in result.err
    check_whole_or_not_there(server, box, [source], Result(0, result.out, ""))
    assert server.partials() == []
    machine.heal()
    with source.open("rb") as piped:
        again = client.at(server.port).start("--if-exists=replace", "-", f"{box}/a", stdin=piped)
        assert again.finish().status == 0
    assert server.path(box, "a").read_bytes() == source.read_bytes() and server.partials() == []


def test_replacing_on_a_broken_disk_keeps_the_old_file(
    faulty: tuple[Server, Machine], client: Client, folder: Path, box: str
) -> None:
    server, machine = faulty
    old, new = make(folder / "a", LARGE), make(folder / "b", LARGE)
    there = server.path(box, "name")
    put_there(server, box, {"name": old})
    machine.fail("rename", BROKEN)
    result = client.at(server.port)(ONCE, "--if-exists=replace", new, f"{box}/name")
    assert result.status == 4 and "delivered:" not in result.out and SAID[BROKEN] in result.err
    assert there.read_bytes() == old.read_bytes()
    machine.heal()
    result = client.at(server.port)("--if-exists=replace", new, f"{box}/name")
    assert result.status == 0 and "resumed: " in result.out, "what may pass keeps the bytes"
    assert there.read_bytes() == new.read_bytes() and server.partials() == []


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("write", FULL),
        ("create", errno.EACCES),
        long("write", errno.EFBIG),
        long("folder", errno.EROFS),
        long("flush", BROKEN),
        long("link", BROKEN),
        long("flush folder", OVER_QUOTA),
    ],
)
def test_fetching_to_a_broken_disk_is_said_of_this_machine(
    server: Server, client: Client, make_machine: MakeMachine, folder: Path, box: str, call: Call, error: int
) -> None:
    sources, target = sources_in(folder), folder / "fetched"
    put_there(server, box, {source.name: source for source in sources})
    machine = make_machine(folder)
    client.environment = machine.environment
    machine.fail(call, error)
    result = client("--get", box, target)
    assert machine.hits(call) >= 1
    assert result.status == 1 and "receiver" not in result.err and "delivered:" not in result.out
    for line in result.err.splitlines():
        assert str(folder) in line and " here (" in line and f"({os.strerror(error)})" in line
    for source in sources:
        there = target / source.name
        assert not there.exists() or there.read_bytes() == source.read_bytes()
    machine.heal()
    assert client("--get", box, target).status == 0
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        source.name: source.read_bytes() for source in sources
    }


@pytest.mark.parametrize("pattern", [[], ["--exclude=*.o"]], ids=["as a whole", "one by one"])
def test_empty_folder_that_can_not_be_made_here_has_failed(
    server: Server, client: Client, make_machine: MakeMachine, folder: Path, box: str, pattern: list[str]
) -> None:
    make(server.path(box, "tree/a"), SMALL)
    fetch = ("--get", "-u", *pattern, f"{box}/tree", f"{folder}/")
    assert client(*fetch).status == 0
    server.path(box, "tree/empty").mkdir()
    machine = make_machine(folder / "tree")
    client.environment = machine.environment
    machine.fail("folder", BROKEN)
    result = client(*fetch)
    (line,) = result.err.splitlines()
    assert result.status == 1 and f"{folder}/tree/empty can't be written here" in line
    machine.heal()
    assert client(*fetch).status == 0 and (folder / "tree/empty").is_dir()


def test_fetching_to_a_disk_without_hard_links_is_delivered(
    server: Server, client: Client, make_machine: MakeMachine, folder: Path, box: str
) -> None:
    """As on FAT."""
    sources, target = sources_in(folder), folder / "fetched"
    put_there(server, box, {source.name: source for source in sources})
    machine = make_machine(folder)
    client.environment = machine.environment
    machine.fail("link", errno.EPERM)
    assert client("--get", box, target).status == 0
    assert machine.hits("link") >= len(sources)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        source.name: source.read_bytes() for source in sources
    }


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, FULL])
def test_target_folder_that_takes_nothing_is_said_of_this_machine(
    client: Client, make_machine: MakeMachine, folder: Path, error: int
) -> None:
    """Nothing was asked of the receiver yet."""
    machine = make_machine(folder)
    client.environment = machine.environment
    machine.fail("folder", error)
    result = client("--get", "a", f"{folder}/")
    assert machine.hits("folder") >= 1
    assert result.status == 1
    assert result.err.startswith("error: ") and f"the folder {folder} " in result.err
    assert f"here ({os.strerror(error)}). " in result.err and result.err.count("\n") == 1


def test_log_that_can_not_be_written_stops_no_transfer(
    make_machine: MakeMachine, server: Server, client: Client, tmp_path: Path, folder: Path
) -> None:
    other = Server(tmp_path / "server", server.accounts)
    machine = make_machine(other.log)
    other.environment = machine.environment
    try:
        other.start()
        machine.fail("write", FULL)
        source = make(folder / "a", LARGE)
        result = client.at(other.port)(source, "a")
        assert (result.status, result.err) == (0, "")
        assert other.path("a").read_bytes() == source.read_bytes()
        assert other.stop() == 0
        assert machine.hits("write") > 1
        said = other.errors().splitlines()
        assert len(said) == 1 and os.strerror(FULL) in said[0]
    finally:
        other.close()


@pytest.mark.parametrize("call", ["write", long("create"), long("flush"), long("rename"), long("flush folder")])
@pytest.mark.parametrize("command", ["passwd", long("adduser"), long("deluser")])
def test_account_command_on_a_broken_disk_locks_nobody_out(
    make_machine: MakeMachine, server: Server, tmp_path: Path, call: Call, command: str
) -> None:
    other = Server(tmp_path / "server", server.accounts)
    before = other.accounts.read_bytes()
    machine = make_machine(other.folder)
    machine.fail(call, FULL)
    name, typed = ("bob" if command == "adduser" else "alice"), "another long password\n"
    password = [] if command == "deluser" else ["--password-file=-"]
    arguments = [*other.settings, command, name, *password]
    result = run("server.py", *arguments, typed=typed, environment=clean_environment(**machine.environment))
    assert machine.hits(call) >= 1
    assert result.status in (1, 2) and len(result.err.splitlines()) == 1 and os.strerror(FULL) in result.err, result
    # Behind the renaming it is done, and only whether it outlasts a power cut is not known.
    assert (other.accounts.read_bytes() == before) == (call != "flush folder")
    assert {each.name for each in other.folder.iterdir()} <= {"accounts.txt", "accounts.txt.lock", "server.log"}
    machine.heal()
    assert run("server.py", *other.settings, "users").status == 0


# --- Descriptors and threads ------------------------------------------------------------------------------------------


def open_descriptors(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def check_refused_or_lost(server: Server, box: str, sources: list[Path], result: Result) -> None:
    """Exit 0, 1 or 4, a line for each thing that is not there and one for the connection; nothing that is not whole."""
    assert result.status in (0, 1, 4) and len(result.err.splitlines()) <= 1 + len(sources), result
    check_whole_or_not_there(server, box, sources, Result(0, result.out, "") if result.status == 4 else result)


IDLE_SOCKETS = 3  # one that listens, and two to wake it; where its path is short enough one for commands, too
needs_limits = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only on Linux one process limits another")


def is_socket(descriptor: Path) -> bool:
    try:
        return os.readlink(descriptor).startswith("socket:")
    except FileNotFoundError:  # closed meanwhile
        return False


@contextlib.contextmanager
def few_descriptors(server: Server, more: int) -> Iterator[None]:
    """As long as this lasts the server can open so many more."""
    assert server.process is not None
    process = server.process.pid
    place = Path(f"/proc/{process}/fd")
    knock(server.port)  # a server that accepts has raised its own limit, and has swept
    idle = IDLE_SOCKETS + server.accounts.with_name("accounts.txt.control").exists()
    wait_until(lambda: sum(is_socket(each) for each in place.iterdir()) == idle)
    most = resource.prlimit(process, resource.RLIMIT_NOFILE)
    taken = {int(each.name) for each in place.iterdir()}
    free = (number for number in count() if number not in taken)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (next(islice(free, more, None)), most[1]))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_NOFILE, most)


@needs_limits
def test_server_without_descriptors_takes_the_connection_when_there_are_some(
    make_server: MakeServer, client: Client, folder: Path
) -> None:
    server, source = make_server(), make(folder / "a", LARGE)
    with few_descriptors(server, 0):
        running = client.at(server.port).start(source, "a")
        wait_until(lambda: f"can't accept a connection: {os.strerror(errno.EMFILE)}" in server.told())
    assert running.finish().status == 0
    assert server.path("a").read_bytes() == source.read_bytes()
    assert server.stop() == 0


@needs_limits
@pytest.mark.parametrize("more", [2, long(range(1, 16))])
def test_server_with_few_descriptors_refuses_and_lives_on(
    make_server: MakeServer, client: Client, folder: Path, more: int | range
) -> None:
    server, sources = make_server(), sources_in(folder)
    for each in [more] if isinstance(more, int) else more:
        with few_descriptors(server, each):
            result = client.at(server.port)("--retries=0", *sources, "box/")
        check_refused_or_lost(server, "box", sources, result)
        wait_until(lambda: not server.partials() or server.has_missed("box", "large"))
        assert result.status == 4 or not server.partials()  # what is worth another try is kept for it
        check_repaired(server, client.at(server.port), "box", sources)
        shutil.rmtree(server.path("box"))
    assert server.stop() == 0


def test_client_takes_more_descriptors_than_it_was_given_to_fetch_many_files(
    server: Server, client: Client, folder: Path, box: str
) -> None:
    sources = [make(folder / str(number), 66_000) for number in range(60)]
    put_there(server, box, {source.name: source for source in sources})
    command = [sys.executable, HOME / "client.py", *client.flags, "--get", box, folder / "fetched"]
    few = ["sh", "-c", 'ulimit -S -n 48 && exec "$@"', "sh", *map(str, command)]
    fetched = subprocess.run(few, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (fetched.returncode, fetched.stderr) == (0, "")
    assert {each.name: each.read_bytes() for each in (folder / "fetched").iterdir()} == {
        source.name: source.read_bytes() for source in sources
    }


THREADS = [1, long(range(8))]


@pytest.mark.parametrize("skip", THREADS)
def test_server_without_threads_says_so_and_lives_on(
    make_machine: MakeMachine, server: Server, tmp_path: Path, folder: Path, skip: int | range
) -> None:
    for each in [skip] if isinstance(skip, int) else skip:
        other = Server(tmp_path / f"server {each}", server.accounts)
        machine = make_machine(other.storage)
        other.environment = machine.environment
        try:
            client, sources = Client(other.start().port, tmp_path / "client"), sources_in(folder)
            machine.fail("thread", errno.EAGAIN, each)
            result = client("--retries=0", *sources, "box/")
            check_refused_or_lost(other, "box", sources, result)
            assert (result.status == 4) == (machine.hits("thread") > 0)
            assert result.status == 0 or "thread" in other.told()
            machine.heal()
            check_repaired(other, client, "box", sources)
            assert other.stop() == 0
        finally:
            other.close()


@pytest.mark.parametrize("skip", [0, 1])
def test_server_without_threads_for_its_work_never_says_that_it_listens(
    make_machine: MakeMachine, server: Server, tmp_path: Path, skip: int
) -> None:
    other = Server(tmp_path / "server", server.accounts)
    machine = make_machine(other.storage)
    machine.fail("thread", errno.EAGAIN, skip)
    arguments = [*other.settings, "--port=0", "--listen=127.0.0.1"]
    result = run("server.py", *arguments, environment=clean_environment(**machine.environment))
    assert machine.hits("thread") == 1
    said = "error: can't start a thread (system limit). Close programs, or raise ulimit -u\n"
    assert (result.status, result.out, result.err) == (1, "", said)


def test_first_start_without_threads_makes_no_account(make_machine: MakeMachine, tmp_path: Path) -> None:
    """Its password would be on the screen of a server that did not start."""
    other = Server(tmp_path / "server")
    machine = make_machine(other.storage)
    machine.fail("thread", errno.EAGAIN)
    environment = clean_environment(**machine.environment)
    arguments = [*other.settings, "--port=0", "--listen=127.0.0.1"]
    with Terminal("server.py", *arguments, environment=environment) as terminal:
        assert terminal.finish() == 1
    assert machine.hits("thread") == 1
    assert terminal.screen == "error: can't start a thread (system limit). Close programs, or raise ulimit -u\n"
    assert not other.accounts.exists()


@pytest.mark.parametrize("skip", [0, 1])
def test_server_that_starts_without_threads_says_so_and_starts_them_later(
    make_machine: MakeMachine, server: Server, tmp_path: Path, folder: Path, skip: int
) -> None:
    other = Server(tmp_path / "server", server.accounts)
    machine = make_machine(other.storage)
    other.environment = machine.environment
    with contextlib.closing(Engine(MIB)) as engine:  # a server has as many workers before it listens
        machine.fail("thread", errno.EAGAIN, engine.workers + skip)
    try:
        client, sources = Client(other.start().port, tmp_path / "client"), sources_in(folder)
        what = ["watching the accounts", "housekeeping"][skip]
        wait_until(lambda: f"no thread yet for {what}, tried again every second: " in other.told())
        assert client("--retries=0", *sources, "box/").status == 4
        machine.heal()
        wait_until(lambda: "housekeeping runs now" in other.told())
        assert ("watching the accounts runs now" in other.told()) == (skip == 0)
        check_repaired(other, client, "box", sources)
        assert other.stop() == 0
    finally:
        other.close()


@pytest.mark.parametrize("skip", THREADS)
def test_client_without_threads_says_so_in_one_line(
    make_machine: MakeMachine, server: Server, client: Client, folder: Path, box: str, skip: int | range
) -> None:
    sources, machine = sources_in(folder), make_machine(folder)
    client.environment = machine.environment
    for each in [skip] if isinstance(skip, int) else skip:
        machine.fail("thread", errno.EAGAIN, each)
        result = client("--retries=0", *sources, f"{box}/{each}/")
        assert (result.status == 1) == (machine.hits("thread") > 0), result
        if result.status:
            cause, *left = result.err.splitlines()
            assert cause == "error: can't start a thread (system limit). Close programs, or raise ulimit -u"
            assert all(line.startswith("not delivered: ") for line in left)
        machine.heal()
        check_repaired(server, client, f"{box}/{each}", sources)


# --- Clocks -----------------------------------------------------------------------------------------------------------


CLOCKS = [-20 * 365 * DAY, long(-1.0), long(30 * DAY), long(150 * 365 * DAY)]


@pytest.mark.parametrize("jump", CLOCKS)
def test_clock_that_jumps_in_the_middle_harms_no_transfer(
    faulty: tuple[Server, Machine], proxy: MakeProxy, folder: Path, box: str, jump: float
) -> None:
    server, machine = faulty
    source, small = make(folder / "large", 8 * MIB), make(folder / "small", SMALL)
    line = proxy(server.port, up=Fault("hold", 4 * MIB))
    client = Client(line.port, folder / "client")
    client.environment = machine.environment
    running = client.start(source, small, f"{box}/")
    line.wait_reached()
    machine.set_clock(jump)
    line.release()
    result = running.finish()
    assert (result.status, result.err) == (0, "")
    check_repaired(server, client, box, [source, small])


@pytest.mark.parametrize("jump", [6 * DAY, long(-20 * 365 * DAY)])
def test_kept_bytes_outlive_a_clock_that_jumps_less_than_their_age(
    faulty: tuple[Server, Machine], proxy: MakeProxy, folder: Path, box: str, jump: float
) -> None:
    server, machine = faulty
    source = make(folder / "a", 8 * MIB)
    line = proxy(server.port, up=Fault("cut", 6 * MIB))
    client = Client(line.port, folder / "client")
    assert client("--retries=0", source, f"{box}/").status == 4
    wait_until(lambda: f"cut off: {box}/a, " in server.told())
    assert server.stop() == 0
    machine.set_clock(jump)
    server.start()
    result = client.at(server.port)(source, f"{box}/")
    assert result.status == 0 and "resumed: " in result.out
    assert server.path(box, "a").read_bytes() == source.read_bytes() and server.partials() == []


def test_guesses_are_counted_whatever_the_wall_clock_says(faulty: tuple[Server, Machine], folder: Path) -> None:
    server, machine = faulty
    guesser = partial(guess, server.port, "nobody")
    for _ in range(20):
        assert guesser()
    machine.set_clock(2 * DAY)
    assert not guesser()
    machine.set_clock(-2 * DAY)
    assert not guesser()


@pytest.mark.long
def test_lost_receipt_is_repeated_whatever_the_clock_has_done_since(
    faulty: tuple[Server, Machine], proxy: MakeProxy, folder: Path, box: str
) -> None:
    server, machine = faulty
    source = make(folder / "a", LARGE)
    line = proxy(server.port, down=Fault("hold", login_received() + 100))
    running = Client(line.port, folder / "client").start("--if-exists=rename", source, f"{box}/")
    wait_until(lambda: f"stored {box}/a, " in server.told())
    machine.set_clock(-20 * 365 * DAY)
    line.cut()
    line.release()
    result = running.finish()
    assert result.status == 0 and f"there already: {box}/a  " in result.out
    assert os.listdir(server.path(box)) == ["a"]


@needs_limits
@pytest.mark.parametrize("size", [10, 60_000], ids=["in memory until they are whole", "more than fit there"])
def test_many_small_files_need_no_more_descriptors_than_the_server_may_have(
    make_server: MakeServer, client: Client, folder: Path, size: int
) -> None:
    server = make_server()
    for number in range(300):
        make(folder / f"d/{number}", size)
    with few_descriptors(server, 60):
        assert client.at(server.port)(folder / "d", "d").status == 0
    assert len(list(server.path("d").iterdir())) == 300
    assert server.stop() == 0
