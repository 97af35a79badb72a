"""`--dry-run`: it tells what sending would do, and does nothing at either end."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer, serving
from processes import USER, Client, Fault, Result, Server, login_sent, make
from test_update import SECOND, state_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with an account that may remove, too."""
    made = Server(tmp_path_factory.mktemp("server"))
    made.add(USER, "--rights=put,get,list,replace,remove")
    with serving(made):
        yield made


@pytest.fixture
def tree(folder: Path) -> Path:
    for name in ("a", "d/b", "d/e/c", "f"):
        make(folder / "tree" / name, 30)
    for number, path in enumerate(sorted((folder / "tree").rglob("*"), reverse=True)):
        os.utime(path, ns=(0, (1_700_000_000 + number) * SECOND))
    return folder / "tree"


@pytest.fixture
def changed(server: Server, client: Client, tree: Path, box: str) -> Path:
    """It was sent, and then one thing of each kind has changed."""
    assert client("-q", tree, f"{box}/").status == 0
    (tree / "a").write_bytes(b"longer" * 10)
    os.utime(tree / "d/b", ns=(0, 5 * SECOND))
    shutil.rmtree(tree / "d/e")
    (tree / "f").chmod(0o600)
    make(tree / "new/file", 7)
    return tree


def planned(result: Result) -> list[tuple[str, str, str]]:
    """Action, path and reason of each event."""
    events = [json.loads(line) for line in result.out.splitlines()]
    return [(each["action"], each["path"], each["why"]) for each in events if each["event"] == "planned"]


def states(server: Server, box: str, here: Path) -> object:
    return state_of(server.path(box)), state_of(here), server.partials()


def test_update_is_told_and_nothing_is_changed(server: Server, client: Client, changed: Path, box: str) -> None:
    before = states(server, box, changed)
    result = client("-n", "-u", "--delete", "--json", changed, f"{box}/")
    assert (result.status, result.err) == (0, "2 files would be sent, 67 B; 4 other changes\n")
    assert planned(result) == [
        ("replace", f"{box}/tree/a", "size"),
        ("compare", f"{box}/tree/d/b", "time"),
        ("send", f"{box}/tree/new", "new"),
        ("send", f"{box}/tree/new/file", "new"),
        ("set", f"{box}/tree/f", "mode"),
        ("remove", f"{box}/tree/d/e/c", "extra"),
        ("remove", f"{box}/tree/d/e", "extra"),
    ]
    assert states(server, box, changed) == before
    assert client("-u", "--delete", changed, f"{box}/").status == 0
    assert planned(client("-n", "-u", "--delete", "--json", changed, f"{box}/")) == []


@pytest.mark.parametrize(
    ("policy", "same", "other"),
    [
        ("rename", "compare", "send"),
        ("replace", "compare", "replace"),
        ("skip", "skip", "skip"),
        ("fail", "compare", ""),
    ],
)
def test_names_that_are_taken_are_told_by_policy(
    server: Server, client: Client, changed: Path, box: str, policy: str, same: str, other: str
) -> None:
    before = states(server, box, changed)
    result = client("-n", "--json", f"--if-exists={policy}", changed, f"{box}/")
    assert result.status == (0 if other else 1)
    lines = {path.removeprefix(f"{box}/tree/"): action for action, path, _ in planned(result)}
    assert lines == {"d/b": same, "f": same, "new": "send", "new/file": "send"} | ({"a": other} if other else {})
    assert ("exists already on the receiver" in result.out) == (policy == "fail")
    assert states(server, box, changed) == before


def test_person_reads_a_line_for_each(server: Server, client: Client, changed: Path, box: str) -> None:
    result = client("-n", "-u", "--delete", changed, f"{box}/")
    assert result.out.splitlines() == [
        f"would replace: {box}/tree/a with {changed}/a  60 bytes  (size)",
        f"would compare the content: {changed}/d/b with {box}/tree/d/b  30 bytes  (time)",
        f"would send: {changed}/new/ as {box}/tree/new/  (new)",
        f"would send: {changed}/new/file as {box}/tree/new/file  7 bytes  (new)",
        f"would set: {box}/tree/f  (mode)",
        f"would remove: {box}/tree/d/e/c",
        f"would remove: {box}/tree/d/e/",
    ]
    assert result.err == "2 files would be sent, 67 B; 4 other changes\n"


def test_what_is_not_there_at_all_is_new(server: Server, client: Client, tree: Path, box: str) -> None:
    result = client("-n", "--json", tree, tree / "a", f"{box}/")
    assert (result.status, len(planned(result))) == (0, 8)
    assert {(action, why) for action, _, why in planned(result)} == {("send", "new")}
    assert not server.path(box).exists()


def test_what_would_fail_fails(server: Server, client: Client, tree: Path, box: str) -> None:
    there = server.path(box, "tree")
    (there / "a").mkdir(parents=True)
    make(there / "d", 5)
    before = states(server, box, tree)
    result = client("-n", "--if-exists=replace", "--json", tree, f"{box}/")
    assert result.status == 1
    assert planned(result) == [("send", f"{box}/tree/f", "new")]
    assert "is a folder on the receiver" in result.out and "is a file on the receiver, not a folder" in result.out
    assert states(server, box, tree) == before


def test_removal_of_too_much_is_told_as_an_error(server: Server, client: Client, changed: Path, box: str) -> None:
    result = client("-n", "-u", "--delete", "--max-delete=1", changed, f"{box}/")
    assert result.status == 1
    assert "would remove" not in result.out and "2 names would be removed" in result.err


def test_account_that_may_not_list_is_told_so(make_server: MakeServer, tmp_path: Path, tree: Path) -> None:
    server = make_server()
    server.add("bob", "--rights=put,get,replace")
    bob = Client(server.port, tmp_path / "bob", user="bob")
    result = bob("-n", "-u", "--json", tree, "in/")
    assert (result.status, {(action, why) for action, _, why in planned(result)}) == (
        0,
        {("send", "what is there is not known")},
    )
    assert not server.path("in", user="bob").exists()


def test_cut_changes_nothing_about_the_plan(
    server: Server, client: Client, changed: Path, box: str, proxy: MakeProxy
) -> None:
    whole = planned(client("-n", "-u", "--json", changed, f"{box}/"))
    line = proxy(server.port, up=Fault("cut", login_sent() + 20))
    assert planned(client.at(line.port)("-n", "-u", "--json", "--retries=3", changed, f"{box}/")) == whole != []
