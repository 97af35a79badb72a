"""Disks that fail while a file is read: the error names the end whose disk it is, and the receiver's is tried again.

One file lies in a folder of its own, whose calls fail, so that nothing else meets the fault.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import Call, Machine, compile_library, missing
from processes import MIB, ONCE, Client, Server, make

CAUSE = "the receiver can't use its accounts or its storage at the moment"
SMALL, LARGE = 1000, 3 * MIB + 5
AGAIN = "--retries=5"
BAD = "0-bad"  # the folder; it comes first

# The call that fails, how many pass before, and the size of the file.
FAULTS: list[tuple[Call, int, int]] = [
    ("open", 0, SMALL),
    ("open", 0, LARGE),
    ("read", 0, SMALL),
    ("read", 0, LARGE),
    ("read", 2, LARGE),
    ("names", 0, SMALL),
]
IDS = ["opening small", "opening large", "small", "start of large", "middle of large", "folder"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why := missing():
        pytest.skip(why)
    return compile_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def broken(library: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Machine]]:
    """A server that can't read what lies in one folder of alice's, once that is ordered."""
    folder = tmp_path_factory.mktemp("unreadable")
    made = Server(folder, server.accounts)
    with contextlib.closing(Machine(library, folder / "control", made.path("box", BAD))) as machine:
        made.environment = machine.environment
        made.start()
        yield made, machine
        machine.heal()
        assert made.stop() == 0
        made.close()


def there(server: Server, size: int) -> dict[str, bytes]:
    """What lies in alice's `box`: the file that can't be read, and others."""
    sizes = {f"{BAD}/a": size, "b": SMALL, "c": 200_000}
    for name, each in sizes.items():
        path = server.path("box", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path, each)
    return {name: server.path("box", name).read_bytes() for name in sizes}


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("call", "skip", "size"), FAULTS, ids=IDS)
def test_fetching_goes_on_once_the_receivers_disk_can_be_read_again(
    broken: tuple[Server, Machine], tmp_path: Path, folder: Path, call: Call, skip: int, size: int
) -> None:
    server, machine = broken
    expected, client = there(server, size), Client(server.port, tmp_path / "client")
    machine.fail(call, errno.EIO, skip, times=1)
    result = client("--get", AGAIN, "box", folder / "got")
    assert machine.hits(call) == 1
    assert (result.status, result.err) == (0, f"{CAUSE}: trying again in 1 s (1 of 5)\n"), result
    assert files_in(folder / "got") == expected
    assert os.strerror(errno.EIO) in server.told()
    assert ("resumed: " in result.out) == (skip > 0), "what was there is not sent again"


@pytest.mark.parametrize(("call", "skip", "size"), FAULTS, ids=IDS)
@pytest.mark.parametrize("error", [errno.EIO, pytest.param(errno.ESTALE, marks=pytest.mark.long)])
def test_fetching_from_a_broken_disk_is_said_of_the_receiver_and_the_rest_arrives(
    broken: tuple[Server, Machine], tmp_path: Path, folder: Path, call: Call, skip: int, size: int, error: int
) -> None:
    server, machine = broken
    expected, client = there(server, size), Client(server.port, tmp_path / "client")
    machine.fail(call, error, skip)
    before = server.told().count("not given: ")
    result = client("--get", ONCE, "box", folder / "got")
    bad = f"box/{BAD}" if call == "names" else f"box/{BAD}/a"
    error_line = f"error: {CAUSE}. Try again later; the reason is in its server.log"
    assert (result.status, result.err.splitlines()) == (4, [error_line, f"not delivered: {bad}"])
    del expected[f"{BAD}/a"]
    arrived = {name: content for name, content in files_in(folder / "got").items() if not name.startswith(".")}
    assert arrived == expected
    assert os.strerror(error) in server.told()
    assert server.told().count("not given: ") == before + 1, "it is logged once"
    machine.heal()


@pytest.mark.parametrize(("skip", "status"), [(0, 0), (2, 5)])
def test_standard_output_is_whole_or_exit_5_when_the_receivers_disk_breaks(
    broken: tuple[Server, Machine], tmp_path: Path, skip: int, status: int
) -> None:
    """As long as nothing was written, another try is as good as the first."""
    server, machine = broken
    expected, client = there(server, LARGE), Client(server.port, tmp_path / "client")
    machine.fail("read", errno.EIO, skip, times=1)
    with (tmp_path / "out").open("wb") as out:
        result = client.start("--get", AGAIN, f"box/{BAD}/a", "-", stdout=out).finish()
    assert result.status == status and CAUSE in result.err, result
    assert status == 0 or "what was written to standard output is not whole" in result.err
    written = (tmp_path / "out").read_bytes()
    assert written == expected[f"{BAD}/a"][: None if status == 0 else len(written)]


def test_listing_of_a_folder_that_can_not_be_read_is_tried_again(
    broken: tuple[Server, Machine], tmp_path: Path
) -> None:
    server, machine = broken
    there(server, SMALL)
    client = Client(server.port, tmp_path / "client")
    machine.fail("names", errno.EIO, times=1)
    result = client("--list", AGAIN, f"box/{BAD}")
    assert (result.status, result.err) == (0, f"{CAUSE}: trying again in 1 s (1 of 5)\n")
    assert result.out.split()[-1] == "a"


@pytest.mark.parametrize(("call", "skip", "size"), FAULTS, ids=IDS)
def test_sending_from_a_broken_disk_is_said_of_this_machine_and_the_rest_arrives(
    server: Server, library: Path, client: Client, folder: Path, box: str, call: Call, skip: int, size: int
) -> None:
    bad = make_below(folder / "tree", size)
    with contextlib.closing(Machine(library, folder / "control", bad.parent)) as machine:
        client.environment = machine.environment
        machine.fail(call, errno.EIO, skip)
        result = client(folder / "tree", f"{box}/")
        assert machine.hits(call) >= 1
    shown = bad.parent if call == "names" else bad
    said = f"error: {shown} can't be read (Input/output error). Check the disk that it is on\n"
    assert (result.status, result.err) == (1, said)
    assert files_in(server.path(box)) == {"tree/b": (folder / "tree/b").read_bytes()}
    client.environment = {}
    again = client(folder / "tree", f"{box}/")
    assert again.status == 0 and server.path(box, "tree", BAD, "a").read_bytes() == bad.read_bytes()


def make_below(tree: Path, size: int) -> Path:
    (tree / BAD).mkdir(parents=True)
    make(tree / "b", SMALL)
    return make(tree / BAD / "a", size)
