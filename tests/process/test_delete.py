"""`--delete`: what an update removes at the receiver, and everything that it leaves there."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer, serving
from processes import USER, Client, Fault, Result, Server, login_sent, make
from test_update import SECOND, counts, state_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with an account that may remove, too."""
    made = Server(tmp_path_factory.mktemp("server"))
    made.add(USER, "--rights=put,get,list,replace,remove")
    with serving(made):
        yield made


@pytest.fixture
def tree(folder: Path) -> Path:
    for name in ("a", "d/b", "d/e/c", "f/g/h", "i"):
        make(folder / "tree" / name, 30)
    for number, path in enumerate(sorted((folder / "tree").rglob("*"), reverse=True)):
        os.utime(path, ns=(0, (1_700_000_000 + number) * SECOND))
    return folder / "tree"


def delete(client: Client, *arguments: str | Path) -> Result:
    return client("-u", "--delete", "--json", *arguments)


def removed(result: Result) -> list[str]:
    events = map(json.loads, result.out.splitlines())
    return [event["name"] for event in events if event["event"] == "removed"]


def test_what_is_not_here_any_more_is_removed_there(server: Server, client: Client, tree: Path, box: str) -> None:
    delete(client, tree, f"{box}/")
    beside = make(server.path(box, "beside"), 5)
    shutil.rmtree(tree / "f")
    (tree / "d/e/c").unlink()
    (tree / "i").unlink()
    make(tree / "new", 7)
    result = delete(client, tree, f"{box}/")
    assert (result.status, result.err) == (0, "")
    assert counts(result) == {"delivered": 1, "unchanged": 2}
    assert removed(result) == [f"{box}/tree/{name}" for name in ("i", "f/g/h", "f/g", "f", "d/e/c")]
    assert state_of(server.path(box, "tree")) == state_of(tree)
    assert beside.exists()
    assert counts(delete(client, tree, f"{box}/")) == {"unchanged": 3}


def test_nothing_is_removed_that_lies_beside_what_was_sent(
    server: Server, client: Client, tree: Path, box: str
) -> None:
    """Of a file only its own path is compared, and of a folder what is below it."""
    client("--quiet", tree, f"{box}/")
    result = delete(client, tree / "d", tree / "a", f"{box}/tree/")
    assert (result.status, removed(result)) == (0, [])
    assert counts(result) == {"unchanged": 3}
    assert state_of(server.path(box, "tree")).keys() == state_of(tree).keys()


@pytest.mark.parametrize("is_linked", [True, False])
def test_what_is_here_and_not_sent_protects_its_name_there(
    server: Server, client: Client, tree: Path, box: str, is_linked: bool
) -> None:
    client("--quiet", tree, f"{box}/")
    shutil.rmtree(tree / "f")
    (tree / "i").unlink()
    if is_linked:
        (tree / "f").symlink_to("d")
        (tree / "i").symlink_to("a")
    else:
        os.mkfifo(tree / "f")
        os.mkfifo(tree / "i")
    result = delete(client, tree, f"{box}/")
    assert (result.status, removed(result)) == (0, [])
    assert counts(result) == {"unchanged": 3, "skipped": 2}
    assert server.path(box, "tree/f/g/h").exists() and server.path(box, "tree/i").exists()


def test_what_a_pattern_excludes_stays_with_the_folders_that_it_is_in(
    server: Server, client: Client, tree: Path, box: str
) -> None:
    """Whether it is here or not, and what is in an excluded folder, too."""
    make(tree / "f/g/kept.o")
    make(tree / "out/x/y")
    make(tree / "f/gone")
    client("--quiet", tree, f"{box}/")
    shutil.rmtree(tree / "f")
    (tree / "i").unlink()
    (tree / "out/x/y").unlink()
    result = delete(client, "--exclude=*.o", "--exclude=out/", tree, f"{box}/")
    assert (result.status, result.err) == (0, "")
    assert removed(result) == [f"{box}/tree/{name}" for name in ("i", "f/gone", "f/g/h")]
    assert server.path(box, "tree/f/g/kept.o").exists() and server.path(box, "tree/out/x/y").exists()


def test_nothing_is_removed_when_something_was_not_sent(server: Server, client: Client, tree: Path, box: str) -> None:
    client("--quiet", tree, f"{box}/")
    (tree / "i").unlink()
    (tree / "a").unlink()
    (tree / "a\n").touch()
    result = delete(client, tree, f"{box}/")
    assert (result.status, removed(result)) == (1, [])
    assert "nothing was removed, because not everything was sent (2 names would be removed)" in result.err
    assert server.path(box, "tree/a").exists() and server.path(box, "tree/i").exists()


def test_nothing_is_removed_when_it_would_be_more_than_may_be(
    server: Server, client: Client, tree: Path, box: str
) -> None:
    client("--quiet", tree, f"{box}/")
    shutil.rmtree(tree / "f")
    make(tree / "new", 7)
    result = client("-u", "--delete", "--max-delete=2", tree, f"{box}/")
    assert result.status == 1
    assert "--delete: nothing was removed: 3 names would be removed. --max-delete allows 2" in result.err
    assert server.path(box, "tree/f/g/h").exists() and server.path(box, "tree/new").exists()
    result = delete(client, "--max-delete=3", tree, f"{box}/")
    assert (result.status, len(removed(result))) == (0, 3)
    result = client("-u", "--delete", "--max-delete=two", tree, f"{box}/")
    assert (result.status, result.err.splitlines()) == (
        2,
        ["error: --max-delete: two is not a whole number (0 to 9223372036854775807). Such as 5000"],
    )


def test_a_thousand_things_are_removed_without_being_asked_for_and_no_more(
    server: Server, client: Client, folder: Path, box: str
) -> None:
    make(folder / "tree/here", 1)
    for number in range(1001):
        make(server.path(box, f"tree/{number}"), 1)
    result = delete(client, folder / "tree", f"{box}/")
    assert (result.status, removed(result)) == (1, [])
    server.path(box, "tree/0").unlink()
    result = delete(client, folder / "tree", f"{box}/")
    assert (result.status, len(removed(result))) == (0, 1000)
    assert [path.name for path in server.path(box, "tree").iterdir()] == ["here"]


@pytest.mark.parametrize("has_something_excluded", [False, True])
def test_nothing_is_removed_while_the_folder_here_is_empty(
    server: Server, client: Client, tree: Path, box: str, has_something_excluded: bool
) -> None:
    """A disk that is not mounted looks the same."""
    client("--quiet", tree, f"{box}/")
    shutil.rmtree(tree)
    tree.mkdir()
    if has_something_excluded:
        make(tree / "lost", 1)
    for more in ((), ("--dry-run",)):
        result = delete(client, *more, "--exclude=lost", tree, f"{box}/")
        assert (result.status, removed(result)) == (1, [])
        assert f"nothing was removed: {tree} is empty here (9 names would be removed)" in result.out + result.err
    assert server.path(box, "tree/f/g/h").exists()
    (tree / "d").mkdir()
    assert delete(client, tree, f"{box}/").status == 0


@pytest.mark.parametrize("behind", [60, 130, 200])
def test_interrupted_removal_is_ended_by_the_same_command(
    server: Server, client: Client, tree: Path, box: str, proxy: MakeProxy, behind: int
) -> None:
    """Whatever was asked for and answered by then; the last connection is that which removes."""
    delete(client, tree, f"{box}/")
    shutil.rmtree(tree / "d")
    shutil.rmtree(tree / "f")
    os.utime(tree, ns=(0, 9 * SECOND))
    line = proxy(server.port, up=Fault("cut", login_sent() + behind))
    client.at(line.port)("-u", "--delete", "--retries=0", tree, f"{box}/")
    result = delete(client, tree, f"{box}/")
    assert result.status == 0
    assert state_of(server.path(box, "tree")) == state_of(tree)


def test_account_that_may_not_remove_is_refused_in_one_line(
    make_server: MakeServer, tmp_path: Path, tree: Path
) -> None:
    server = make_server()
    server.add("bob", "--rights=put,get,list,replace")
    bob = Client(server.port, tmp_path / "bob", user="bob")
    bob("--quiet", tree, "in/")
    shutil.rmtree(tree / "f")
    result = bob("-u", "--delete", tree, "in/")
    assert result.status == 1
    assert [line for line in result.err.splitlines() if "error" in line] == [
        "error: your account may not remove in/tree/f/g/h on the receiver. "
        "Ask the receiver's owner for the right remove"
    ]
    assert "2 more were not removed, for the same reason" in result.err
    assert server.path("in/tree/f/g/h", user="bob").exists()


def test_account_that_may_not_list_removes_nothing(make_server: MakeServer, tmp_path: Path, tree: Path) -> None:
    server = make_server()
    server.add("bob", "--rights=put,get,replace,remove")
    bob = Client(server.port, tmp_path / "bob", user="bob")
    bob("--quiet", tree, "in/")
    shutil.rmtree(tree / "f")
    result = bob("-u", "--delete", tree, "in/")
    assert result.status == 1
    assert "--delete: your account may not list what is on the receiver" in result.err
    assert server.path("in/tree/f/g/h", user="bob").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--delete"], "--delete goes only with --update"),
        (["-u", "--max-delete=5"], "--max-delete goes only with --delete"),
        (["-u", "--delete", "--files-from=list"], "--delete does not go with --files-from"),
        (["-u", "--if-exists=skip"], "--update does not go with --if-exists"),
        (["--list", "--delete"], "--delete does not go with --list"),
    ],
)
def test_options_without_a_meaning_are_refused(client: Client, tree: Path, arguments: list[str], error: str) -> None:
    names: list[str | Path] = [] if "--list" in arguments else [tree, "in/"]
    result = client(*arguments, *names)
    assert (result.status, result.err.startswith(f"error: {error}")) == (2, True)


def test_standard_input_is_never_compared(client: Client) -> None:
    result = client("-u", "-", "in/a")
    assert (result.status, "--update does not go with standard input" in result.err) == (2, True)
