"""`--get --dry-run`: what a fetch would do, and nothing is changed at either end."""

import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import MakeServer
from processes import Client, Result, Server, make
from test_fetch_update import told
from test_update import SECOND, counts, state_of

WHOLE = [
    ("fetch", "tree", "folder", None, "new"),
    ("fetch", "tree/a", "file", 30, "new"),
    ("fetch", "tree/d", "folder", None, "new"),
    ("fetch", "tree/d/b", "file", 30, "new"),
    ("fetch", "tree/d/e", "folder", None, "new"),
    ("fetch", "tree/d/e/c", "file", 30, "new"),
]


@pytest.fixture
def there(server: Server, box: str) -> Path:
    place = server.path(box, "tree")
    for name in ("a", "d/b", "d/e/c"):
        make(place / name, 30)
        os.utime(place / name, ns=(0, 1_700_000_000 * SECOND))
    return place


def plan(client: Client, *arguments: str | Path) -> Result:
    return client("--get", "--dry-run", "--json", *arguments)


def planned(result: Result) -> list[tuple[str, str, str, int | None, str]]:
    events = [each for each in map(json.loads, result.out.splitlines()) if each["event"] == "planned"]
    return [(each["action"], each["name"] or each["path"], each["kind"], each["size"], each["why"]) for each in events]


@pytest.mark.parametrize("flags", [[], ["-u"], ["-u", "--delete"]], ids=" ".join)
def test_nothing_is_here_yet_and_nothing_is_made(
    client: Client, there: Path, tmp_path: Path, box: str, flags: list[str]
) -> None:
    result = plan(client, *flags, f"{box}/tree", f"{tmp_path}/here/")
    assert (result.status, planned(result)) == (0, WHOLE)
    assert result.err == "3 files would come, 90 B\n"
    assert not (tmp_path / "here").exists()
    (tmp_path / "here").mkdir()
    assert planned(plan(client, *flags, f"{box}/tree", f"{tmp_path}/here/")) == WHOLE
    assert list((tmp_path / "here").iterdir()) == []


def test_update_tells_each_difference_and_changes_nothing(
    client: Client, server: Server, there: Path, tmp_path: Path, box: str
) -> None:
    here = tmp_path / "here"
    assert client("--get", f"{box}/tree", f"{here}/").status == 0
    make(there / "a", 50)
    os.utime(there / "d/b", ns=(0, 5 * SECOND))
    (there / "d/e/c").chmod(0o600)
    make(there / "new", 7)
    make(here / "tree/mine/x", 7)
    make(here / "tree/d/f/full")
    (there / "d/f").write_bytes(b"a file")
    before = state_of(here), state_of(there), server.log.read_text().count("given")
    result = plan(client, "-u", f"{box}/tree", f"{here}/")
    assert planned(result) == [
        ("replace", "tree/a", "file", 50, "size"),
        ("compare", "tree/d/b", "file", 30, "time"),
        ("set", "tree/d/e/c", "file", 30, "mode"),
        ("fetch", "tree/new", "file", 7, "new"),
    ]
    assert result.status == 1 and told(result, "failed") == ["tree/d/f"]
    result = plan(client, "-u", "--delete", f"{box}/tree", f"{here}/")
    assert result.status == 0
    assert planned(result)[-5:] == [
        ("remove", f"{here}/tree/mine/x", "file", None, "extra"),
        ("remove", f"{here}/tree/mine", "folder", None, "extra"),
        ("remove", f"{here}/tree/d/f/full", "file", None, "extra"),
        ("remove", f"{here}/tree/d/f", "folder", None, "extra"),
        ("replace", "tree/d/f", "file", 6, "kind"),
    ]
    after = state_of(here), state_of(there), server.log.read_text().count("given")
    assert {name: each[2] for name, each in after[0].items()} == {name: each[2] for name, each in before[0].items()}
    assert after[1:] == before[1:]
    assert sorted(path.name for path in here.iterdir()) == ["tree"]


@pytest.mark.parametrize(
    ("policy", "actions"),
    [
        ("fail", ["compare", "compare"]),
        ("rename", ["fetch", "compare", "compare"]),
        ("replace", ["replace", "compare", "compare"]),
        ("skip", ["skip", "skip", "skip"]),
    ],
)
def test_taken_name_is_told_as_it_would_be_dealt_with(
    client: Client, there: Path, tmp_path: Path, box: str, policy: str, actions: list[str]
) -> None:
    here = tmp_path / "here"
    client("--get", f"{box}/tree", f"{here}/")
    make(there / "a", 50)
    result = plan(client, f"--if-exists={policy}", f"{box}/tree", f"{here}/")
    assert [each[0] for each in planned(result)] == actions
    assert (result.status, told(result, "failed")) == ((1, ["tree/a"]) if policy == "fail" else (0, []))
    real = client("--get", f"--if-exists={policy}", f"{box}/tree", f"{here}/")
    assert real.status == result.status


def test_lines_for_people(client: Client, there: Path, tmp_path: Path, box: str) -> None:
    here = tmp_path / "here"
    client("--get", f"{box}/tree", f"{here}/")
    make(there / "a", 50)
    shutil.rmtree(there / "d/e")
    (there / "d/empty").mkdir()
    result = client("--get", "-u", "--delete", "-n", f"{box}/tree", f"{here}/")
    assert result.out.splitlines() == [
        f"would replace: {here}/tree/a with tree/a  50 bytes  (size)",
        f"would fetch: tree/d/empty/ to {here}/tree/d/empty/  (new)",
        f"would remove: {here}/tree/d/e/c",
        f"would remove: {here}/tree/d/e/",
    ]
    assert result.err == "1 file would come, 50 B; 2 other changes\n"


@pytest.mark.parametrize("name", ["no", "tree/link", "tree/a/b"])
def test_name_that_can_not_be_fetched_fails_alike(
    client: Client, there: Path, tmp_path: Path, box: str, name: str
) -> None:
    (there / "link").symlink_to("a")
    (tmp_path / "here").mkdir()
    real = client("--get", f"{box}/{name}", f"{tmp_path}/here/")
    dry = client("--get", "-n", f"{box}/{name}", f"{tmp_path}/here/")
    assert (dry.status, dry.err) == (real.status, real.err) and dry.status == 1


def test_single_file_and_whole_folder(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server()
    client = Client(server.port, tmp_path / "client")
    make(server.path("tree/a"), 30)
    assert planned(plan(client, "tree/a", f"{tmp_path}/b")) == [("fetch", "a", "file", 30, "new")]
    result = plan(client, ".", f"{tmp_path}/here/")
    assert (result.status, planned(result)) == (0, WHOLE[:2])
    assert not counts(result)


@pytest.mark.parametrize("target", ["no/such/", "file/x"])
def test_target_that_can_not_be_used_is_refused_before_the_network(client: Client, tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    nobody = client.at(1)
    real, dry = (nobody("--get", *flags, "a", f"{tmp_path}/{target}") for flags in ([], ["-n"]))
    assert (dry.status, dry.err) == (real.status, real.err) and dry.status != 4
    assert nobody("--get", "-n", "a", "-").status == 2
