"""`--get --update`: of what is fetched again only what has changed comes; the rest is left alone."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer
from processes import Client, Fault, Result, Server, make
from test_update import LOGIN, SECOND, counts, inodes, state_of

COUNT = 12


@pytest.fixture
def there(server: Server, box: str) -> Path:
    """At the receiver: small files in folders of their own, a large one, an empty one and an empty folder."""
    place = server.path(box, "album")
    for number in range(COUNT):
        make(place / f"{number % 3}" / f"é{number:02}", 20_000 if number % 8 else 0)
    make(place / "1" / "large", 300_000)
    (place / "empty").mkdir()
    for number, path in enumerate(sorted(place.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, (1_700_000_000 + number) * SECOND + number * 1_000_003))
    return place


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


def fetch(client: Client, *arguments: str | Path) -> Result:
    return client("--get", "-u", "--json", *arguments)


def told(result: Result, event: str) -> list[str]:
    return [each["name"] for each in map(json.loads, result.out.splitlines()) if each["event"] == event]


def test_folder_of_which_nothing_has_changed_is_left_alone(
    server: Server, client: Client, there: Path, here: Path, box: str, proxy: MakeProxy
) -> None:
    assert counts(fetch(client, f"{box}/album", f"{here}/")) == {"delivered": COUNT + 1}
    assert state_of(here / "album") == state_of(there)
    before = inodes(here / "album")
    line = proxy(server.port)
    result = fetch(client.at(line.port), f"{box}/album", f"{here}/")
    assert (result.status, counts(result)) == (0, {"unchanged": COUNT + 1})
    assert inodes(here / "album") == before and state_of(here / "album") == state_of(there)
    assert line.passed[0] < LOGIN and line.passed[1] < LOGIN


@pytest.mark.parametrize("whole", [False, True], ids=["folder", "all of the account"])
def test_what_has_changed_is_replaced_and_nothing_else(
    make_server: MakeServer, tmp_path: Path, here: Path, whole: bool
) -> None:
    server = make_server()
    client = Client(server.port, tmp_path / "client")
    place = server.path("box", "album")
    for name, size in {"a/x": 20_000, "a/y": 300_000, "b/x": 100, "b/y": 100, "b/z": 100, "gone": 5}.items():
        make(place / name, size)
    names = (["."], here) if whole else (["box"], f"{here}/")
    fetch(client, *names[0], names[1])
    album = here / "box" / "album"
    assert state_of(album) == state_of(place)
    before = inodes(album)
    make(place / "b/x", 4_000)
    (place / "b/y").write_bytes(bytes(100))  # of the same size
    make(place / "new/deep/file", 300)
    (place / "new/empty").mkdir()
    make(place / "a/big", 400_000)
    os.utime(place / "b/z", ns=(0, 5 * SECOND + 7))  # the same content
    os.utime(place / "a/y", ns=(0, 6 * SECOND + 7))
    (place / "a/x").chmod(0o600)
    (place / "a").chmod(0o700)
    (place / "gone").unlink()
    result = fetch(client, *names[0], names[1])
    assert result.status == 0, result
    assert counts(result) == {"delivered": 4, "already": 2, "unchanged": 1}
    assert sorted(told(result, "delivered")) == [
        f"box/album/{name}" for name in ("a/big", "a/y", "b/x", "b/y", "b/z", "new/deep/file")
    ]
    assert (album / "gone").exists()
    (album / "gone").unlink()
    found, expected = state_of(album), state_of(place)
    assert found == expected
    after = inodes(album)
    assert {name for name, inode in before.items() if after.get(name) == inode} == {"a/x", "a/y", "b/z"}


def test_touched_and_grown_files_cost_little_on_the_line(
    server: Server, client: Client, there: Path, here: Path, box: str, proxy: MakeProxy
) -> None:
    fetch(client, f"{box}/album", f"{here}/")
    for path in there.rglob("é*"):
        os.utime(path, ns=(0, 3 * SECOND))
    os.utime(there / "1/large", ns=(0, 3 * SECOND))
    line = proxy(server.port)
    result = fetch(client.at(line.port), f"{box}/album", f"{here}/")
    assert counts(result) == {"already": COUNT + 1} and result.status == 0
    assert line.passed[1] < LOGIN
    assert state_of(here / "album") == state_of(there)


def test_file_that_has_grown_gets_its_new_end_alone(
    server: Server, client: Client, there: Path, here: Path, box: str, proxy: MakeProxy
) -> None:
    source = make(there / "log", 3_000_000)
    fetch(client, f"{box}/album", f"{here}/")
    with source.open("ab") as file:
        file.write(os.urandom(50_000))
    line = proxy(server.port)
    result = fetch(client.at(line.port), f"{box}/album", f"{here}/")
    assert result.status == 0 and told(result, "delivered") == ["album/log"]
    assert line.passed[1] < 50_000 + LOGIN
    assert state_of(here / "album") == state_of(there)


@pytest.mark.parametrize("change", ["same", "time", "size", "mode", "missing here"])
def test_single_file_is_compared_too(server: Server, client: Client, here: Path, box: str, change: str) -> None:
    source = make(server.path(box, "file"), 70_000)
    make(server.path(box, "beside"), 10)
    here.mkdir()
    fetch(client, f"{box}/file", f"{here}/new")
    if change == "time":
        os.utime(source, ns=(0, 7 * SECOND))
    elif change == "size":
        make(source, 80_000)
    elif change == "mode":
        source.chmod(0o600)
    elif change == "missing here":
        (here / "new").unlink()
    result = fetch(client, f"{box}/file", f"{here}/new")
    assert result.status == 0
    word = {"same": "unchanged", "mode": "unchanged", "time": "already"}.get(change, "delivered")
    assert counts(result) == {word: 1}
    assert state_of(here)["new"] == state_of(server.path(box))["file"]


def test_full_folder_in_the_way_stays_and_is_told_and_other_things_are_replaced(
    client: Client, there: Path, here: Path, box: str
) -> None:
    fetch(client, f"{box}/album", f"{here}/")
    shutil.rmtree(here / "album/0")
    (here / "album/0").write_bytes(b"a file")
    (here / "album/1/large").unlink()
    make(here / "album/1/large/mine", 5)
    (here / "album/1/é01").unlink()
    (here / "album/1/é01").symlink_to("é04")
    before = {name: content for name, (_, _, content) in state_of(here).items()}
    result = fetch(client, f"{box}/album", f"{here}/")
    assert result.status == 1
    assert told(result, "failed") == ["album/1/large"] and counts(result)["failed"] == 1
    assert (here / "album/1/large/mine").read_bytes() == before["album/1/large/mine"]
    shutil.rmtree(here / "album/1/large")
    assert fetch(client, f"{box}/album", f"{here}/").status == 0
    assert state_of(here / "album") == state_of(there)


def test_links_and_special_files_there_are_skipped(client: Client, there: Path, here: Path, box: str) -> None:
    (there / "link").symlink_to("1")
    os.mkfifo(there / "fifo")
    for _ in range(2):
        result = fetch(client, f"{box}/album", f"{here}/")
        assert (result.status, counts(result)["skipped"]) == (0, 2)
        assert sorted(told(result, "skipped")) == [f"{box}/album/fifo", f"{box}/album/link"]


def test_account_that_may_not_list_fetches_with_offers(
    make_server: MakeServer, tmp_path: Path, here: Path, proxy: MakeProxy
) -> None:
    server = make_server()
    server.add("reader", "--rights=get")
    client = Client(server.port, tmp_path / "client", user="reader")
    for number in range(20):
        make(server.path("d", f"{number}", user="reader"), 10_000)
    assert fetch(client, "d", f"{here}/").status == 0
    os.utime(server.path("d", "3", user="reader"), ns=(0, 7 * SECOND))
    line = proxy(server.port)
    result = fetch(client.at(line.port), "d", f"{here}/")
    assert result.status == 0 and counts(result) == {"already": 20}
    assert line.passed[1] < 2 * LOGIN
    assert state_of(here / "d") == state_of(server.path("d", user="reader"))


def test_update_that_loses_its_connection_goes_on(
    server: Server, client: Client, there: Path, here: Path, box: str, proxy: MakeProxy
) -> None:
    fetch(client, f"{box}/album", f"{here}/")
    for number in range(6):
        make(there / "2" / f"big{number}", 1_000_000 + number)
    line = proxy(server.port, down=Fault("cut", 3_500_000))
    result = fetch(client.at(line.port), f"{box}/album", f"{here}/")
    assert result.status == 0 and counts(result) == {"delivered": 6, "unchanged": COUNT + 1}
    assert state_of(here / "album") == state_of(there)
    assert line.passed[1] < 8_000_000


@pytest.mark.parametrize(
    "arguments",
    [
        ["--get", "-u", "a", "-"],
        ["--get", "-u", "--if-exists=skip", "a", "b"],
        ["--get", "--delete", "a", "b"],
        ["--get", "-u", "--delete", "--max-delete=x", "a", "b"],
    ],
    ids=" ".join,
)
def test_command_that_can_not_be_meant_is_refused_before_the_network(client: Client, arguments: list[str]) -> None:
    result = client.at(1)(*arguments)
    assert result.status == 2 and result.err.count("\n") == 1


@pytest.mark.parametrize("options", [[], ["--exclude=nothing"]])
def test_named_folder_gets_its_own_time_and_mode(
    client: Client, there: Path, here: Path, box: str, options: list[str]
) -> None:
    fetch(client, f"{box}/album", f"{here}/")
    before = state_of(here)
    there.chmod(0o750)
    os.utime(there, ns=(0, 77 * SECOND + 7))
    result = fetch(client, *options, f"{box}/album", f"{here}/")
    assert (result.status, (here / "album").stat().st_mtime_ns) == (0, 77 * SECOND + 7)
    assert stat.S_IMODE((here / "album").stat().st_mode) == 0o750
    make(there / "new", 5)
    os.utime(there, ns=(0, 78 * SECOND))
    assert fetch(client, *options, f"{box}/album", f"{here}/").status == 0
    assert (here / "album").stat().st_mtime_ns == 78 * SECOND
    assert state_of(here).keys() - before.keys() == {"album/new"}


@pytest.mark.parametrize("pattern", [[], ["--exclude=*.o"]], ids=["as a whole", "one by one"])
def test_special_file_here_is_no_place_and_keeps_its_folder(
    server: Server, client: Client, box: str, tmp_path: Path, pattern: list[str]
) -> None:
    """A dry run knows that, too."""
    here = tmp_path / "tree"
    make(server.path(box, "tree/a"), 30)
    make(server.path(box, "tree/d/b"), 30)
    make(here / "old/file", 5)
    for name in ("a", "d", "old/pipe"):
        os.mkfifo(here / name)
    fetch = ("-u", *pattern, "--get", f"{box}/tree", f"{tmp_path}/")
    for how in (["-n"], []):
        result = client(*how, *fetch)
        lines = result.err.splitlines()
        for name in ("a", "d"):
            assert any(f"{here}/{name} is neither a file nor a folder here" in line for line in lines)
        assert result.status == 1 and "would" not in result.out
    for name in ("a", "d"):
        (here / name).unlink()
    told = client("-n", "--delete", *fetch).out
    assert f"would remove: {here}/old/file\n" in told and f"would remove: {here}/old/\n" not in told
    done = client("--delete", *fetch)
    assert (done.status, done.err) == (0, "") and [each.name for each in (here / "old").iterdir()] == ["pipe"]
