"""A reader that can't read the results never gets exit status 0, and a slow one gets all of them."""

import fcntl
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import HOME, PASSWORD, Client, Running, Server, clean_environment, make, run, wait_until

FULL = "error: can't write to standard output (No space left on device)\n"
CLOSED = "error: can't write to standard output (it is closed)\n"

CLIENT = {
    "help": ["--help"],
    "settings": ["--show-config"],
    "list": ["--list", "{box}"],
    "list as events": ["--list", "--json", "{box}"],
    "dry run": ["--dry-run", "{tree}", "{box}/new"],
    "send": ["{tree}", "{box}/sent"],
    "send as events": ["--json", "{tree}", "{box}/sent as events"],
    "get": ["--get", "{box}", "{back}/"],
    "get as events": ["--get", "--json", "{box}", "{back}/"],
}
SERVER = {
    "help": ["adduser", "--help"],
    "settings": ["--show-config"],
    "users": ["users"],
    "add": ["adduser", "bob", "--password-file=-"],
}


@pytest.fixture
def full() -> Iterator[int]:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs a device that is always full")
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def unread() -> Iterator[int]:
    """A pipe that nobody reads from."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.fixture
def sending(server: Server, client: Client, folder: Path, box: str) -> Callable[..., Running]:
    """Starts one of the client's jobs by its name."""
    for number in range(3):
        make(folder / "tree" / str(number))
        make(server.path(box, str(number)))
    places = {"box": box, "tree": folder / "tree", "back": folder / "back"}

    def start(job: str, stdout: int) -> Running:
        return client.start(*[argument.format(**places) for argument in CLIENT[job]], stdout=stdout)

    return start


@pytest.mark.parametrize("job", CLIENT)
def test_client_that_can_not_tell_its_results_says_so(sending: Callable[..., Running], full: int, job: str) -> None:
    result = sending(job, stdout=full).finish()
    assert (result.status, result.err.removeprefix("3 files would be sent, 60 B\n")) == (1, FULL)


@pytest.mark.parametrize("job", ["help", "list as events", "send"])
def test_client_whose_reader_has_left_says_nothing(sending: Callable[..., Running], unread: int, job: str) -> None:
    result = sending(job, stdout=unread).finish()
    assert (result.status, result.err) == (1, "")


def closed(*command: str | Path, typed: str = "", cwd: Path | None = None) -> tuple[int, str]:
    """Status and errors of a program whose standard output is closed."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, *map(str, command)],
        input=typed,
        capture_output=True,
        text=True,
        timeout=30,
        env=clean_environment(),
        cwd=cwd,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("job", [["--help"], ["--show-config"]], ids=" ".join)
def test_client_whose_standard_output_is_closed_says_so(tmp_path: Path, job: list[str]) -> None:
    make(tmp_path / "a")
    told = closed(HOME / "client.py", f"--client-log={tmp_path / 'log'}", *job, cwd=tmp_path)
    assert told == (1, CLOSED)


def test_transfers_go_on_when_results_can_not_be_told(
    server: Server, client: Client, folder: Path, box: str, full: int
) -> None:
    for number in range(600):
        make(folder / "many" / str(number))
    for flags in ([], ["--json"]):
        result = client.start(*flags, folder / "many", f"{box}/{len(flags)}", stdout=full).finish()
        assert (result.status, result.err) == (1, FULL)
        assert len(os.listdir(server.path(box, str(len(flags))))) == 600
    result = client.start("--quiet", folder / "many", f"{box}/quiet", stdout=full).finish()
    assert (result.status, result.err) == (0, ""), "there was nothing to say"


def test_failure_is_said_even_when_its_event_can_not_be_written(
    client: Client, folder: Path, box: str, full: int
) -> None:
    result = client.start("--json", folder / "missing", f"{box}/x", stdout=full).finish()
    assert result.status == 1
    assert result.err == f"error: {folder / 'missing'} does not exist. Check its name\n{FULL}"


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["lines", "events"])
def test_pipe_that_does_not_block_gets_everything(client: Client, folder: Path, box: str, flags: list[str]) -> None:
    """Nobody reads before far more than the pipe holds has been said."""
    for number in range(400):
        make(folder / "many" / f"{number}-{'n' * 200}")
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    running = client.start(*flags, "-v", folder / "many", box, stdout=writing)
    wait_until(lambda: _is_full(writing))
    os.close(writing)
    got = bytearray()
    while piece := os.read(reading, 1 << 16):
        got += piece
    os.close(reading)
    result = running.finish()
    assert (result.status, result.err) == (0, "")
    lines = got.decode().splitlines()
    if flags:
        assert sum(json.loads(line)["event"] == "delivered" for line in lines) == 400
    else:
        assert sum(line.startswith("delivered: ") and "SHA-256" in line for line in lines) == 400


def _is_full(pipe: int) -> bool:
    return not select.select([], [pipe], [], 0)[1]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_help_and_errors_arrive_in_a_pipe_that_does_not_block(tmp_path: Path, stream: str) -> None:
    missing = [f"{tmp_path}/{number}" for number in range(300)]
    job = ["--help", "all"] if stream == "stdout" else ["-v", "--dry-run", *missing, "x/"]
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: writing}
    command = [sys.executable, str(HOME / "client.py"), f"--client-log={tmp_path / 'log'}", *job]
    process = subprocess.Popen(command, env=clean_environment(), **streams)  # type: ignore[call-overload]
    wait_until(lambda: _is_full(writing))
    os.close(writing)
    got = bytearray()
    while piece := os.read(reading, 1 << 16):
        got += piece
    os.close(reading)
    assert process.wait(30) == (0 if stream == "stdout" else 1)
    if stream == "stdout":
        assert got.decode() == run("client.py", "--help", "all").out
    else:
        assert got.decode().count(" does not exist. Check its name\n") == 300


def test_server_that_can_not_tell_its_results_says_so(make_server: Callable[..., Server], full: int) -> None:
    server = make_server()
    for job in SERVER.values():
        running = Running("server.py", *server.settings, *job, typed=PASSWORD + "\n", stdout=full)
        result = running.finish()
        assert (result.status, result.err) == (1, FULL), job
    assert closed(HOME / "server.py", *server.settings, "users") == (1, CLOSED)


def test_server_serves_without_standard_output(server: Server, tmp_path: Path, full: int) -> None:
    """What it announces there nobody depends on."""
    flags = [f"--accounts={server.accounts}", f"--storage={tmp_path / 'received'}", f"--server-log={tmp_path / 'log'}"]
    running = Running("server.py", *flags, "--port=0", "--listen=127.0.0.1", stdout=full)
    wait_until(lambda: (tmp_path / "log").exists() and "listening on" in (tmp_path / "log").read_text())
    running.kill(15)
    result = running.finish()
    assert result.status == 0
    assert result.err == 2 * "warning: can't write to standard output (No space left on device)\n"
