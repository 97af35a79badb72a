"""Folders that their owner may not write to: they arrive so, and are updated, emptied and fetched all the same."""

import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeProxy, serving
from processes import MIB, USER, Client, Fault, Result, Server, login_sent, make, wait_until
from test_another_kind import Both

USERS = {USER: "put,get,list,replace,remove", "appender": "put,get,list", "dropper": "put"}
MODES = {"": 0o555, "d": 0o500, "d/e": 0o555, "open": 0o755}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with an account that may remove, too, and two that may do less in the same folder."""
    made = Server(tmp_path_factory.mktemp("server"))
    for user, rights in USERS.items():
        made.add(user, f"--rights={rights}", f"--folder={USER}")
    with serving(made):
        yield made


def modes(tree: Path) -> dict[str, int]:
    return {name: stat.S_IMODE((tree / name).stat().st_mode) for name in MODES}


def names(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}


def set_modes(tree: Path, closed: bool = True) -> None:
    for name, mode in MODES.items():
        (tree / name).chmod(mode if closed else mode | 0o200)


@pytest.fixture(params=["sent", "fetched"])
def ways(
    request: pytest.FixtureRequest, server: Server, client: Client, box: str, folder: Path
) -> Iterator[tuple[Path, Path, Both]]:
    """The tree that others follow, the one that follows, and what brings that about."""
    here, there = folder / "tree", server.path(box, "tree")
    origin, copy = (here, there) if request.param == "sent" else (there, here)
    for name in ("a", "d/b", "d/e/c", "open/f"):
        make(origin / name, 30)
    folder.mkdir(exist_ok=True)
    set_modes(origin)

    def bring(*options: str) -> Result:
        if origin == here:
            return client("--json", *options, here, f"{box}/")
        return client("--get", "--json", *options, f"{box}/tree", f"{folder}/")

    yield origin, copy, bring
    for tree in (origin, copy):
        set_modes(tree, closed=False)


def events(result: Result) -> list[str]:
    return [json.loads(line)["event"] for line in result.out.splitlines()]


@pytest.mark.parametrize("first", [[], ["-u"]])
def test_closed_folders_arrive_closed_and_an_update_finds_nothing_to_do(
    ways: tuple[Path, Path, Both], first: list[str]
) -> None:
    _, copy, bring = ways
    assert bring(*first).status == 0
    assert modes(copy) == MODES
    assert bring("-u", "--dry-run").err == "nothing would be done\n"
    result = bring("-u")
    assert (result.status, set(events(result))) == (0, {"summary"})
    assert modes(copy) == MODES


def test_changes_in_closed_folders_arrive_and_they_are_closed_again(ways: tuple[Path, Path, Both]) -> None:
    origin, copy, bring = ways
    bring("-u")
    set_modes(origin, closed=False)
    (origin / "d/b").write_bytes(b"changed")
    make(origin / "d/e/new", 5)
    make(origin / "new", 5)
    (origin / "d/e/c").unlink()
    (origin / "a").unlink()
    set_modes(origin)
    result = bring("-u", "--delete")
    assert (result.status, result.err) == (0, "")
    assert names(copy) == names(origin) and (copy / "d/b").read_bytes() == b"changed"
    assert modes(copy) == MODES


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("there", [None, 0o555, 0o755])
def test_closed_folder_is_closed_though_the_connection_broke(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str, user: str, there: int | None
) -> None:
    """One that was there before has its mode again."""
    may_replace = user == USER
    source, copy = make(folder / "closed/large", 6 * MIB).parent, server.path(box, "closed")
    source.chmod(0o555)
    if there is not None:
        copy.mkdir(parents=True)
        copy.chmod(there)
    line = proxy(server.port, up=Fault("cut", login_sent(user) + 2 * MIB))
    result = Client(line.port, folder / "client", user)(source, f"{box}/")
    assert line.reached.is_set()
    assert stat.S_IMODE(copy.stat().st_mode) == (there or 0o555)
    if there != 0o555 or may_replace or os.geteuid() == 0:
        assert (result.status, (copy / "large").stat().st_size) == (0, 6 * MIB)
    for each in (source, copy):
        each.chmod(0o755)


def test_killed_client_leaves_a_folder_that_was_closed_as_it_was_for_who_may_not_replace(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    source, copy = make(folder / "closed/large", 30 * MIB).parent, server.path(box, "closed")
    source.chmod(0o555)
    copy.mkdir(parents=True)
    copy.chmod(0o555)
    line = proxy(server.port, up=Fault("hold", login_sent("appender") + 2 * MIB))
    running = Client(line.port, folder / "client", "appender").start(source, f"{box}/")
    line.wait_reached()
    running.kill(signal.SIGKILL)
    running.finish()
    line.cut()
    wait_until(lambda: f"appender@127.0.0.1: folder {box}/closed" in server.told())
    assert stat.S_IMODE(copy.stat().st_mode) == 0o555
    for each in (source, copy):
        each.chmod(0o755)


def test_folder_that_was_left_open_is_closed_and_one_that_was_closed_is_opened(ways: tuple[Path, Path, Both]) -> None:
    _, copy, bring = ways
    bring("-u")
    (copy / "d/e").chmod(0o755)
    (copy / "open").chmod(0o555)
    result = bring("-u")
    assert (result.status, modes(copy)) == (0, MODES)
    os.utime(copy / "open/f", ns=(0, 5))
    (copy / "open").chmod(0o555)
    assert bring("-u").status == 0
    assert modes(copy) == MODES
