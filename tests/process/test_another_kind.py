"""`--update`: what has become another kind, file, folder or link, takes the place of the old one, at either end."""

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer, serving
from processes import USER, Client, Fault, Result, Server, login_sent, make
from test_update import SECOND

KINDS = ("file", "link", "empty folder", "full folder")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with an account that may do everything."""
    made = Server(tmp_path_factory.mktemp("server"))
    made.add(USER, "--rights=put,get,list,replace,remove,links")
    with serving(made):
        yield made


def made(kind: str, place: Path) -> None:
    """`place`, of that kind, and of no other."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    if kind == "file":
        make(place, 30)
    elif kind == "link":
        place.symlink_to("nowhere")
    else:
        place.mkdir()
        if kind == "full folder":
            make(place / "sub/b", 20)
            make(place / "a", 10)
            (place / "l").symlink_to("a")


def state_of(folder: Path) -> dict[str, object]:
    """What each thing below is, with times of all but links."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path)
        else:
            content = path.read_bytes() if path.is_file() else None
            found[str(path.relative_to(folder))] = (state.st_mtime_ns, state.st_mode, content)
    return found


def aged(tree: Path) -> Path:
    for number, path in enumerate(sorted(tree.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, (1_700_000_000 + number) * SECOND), follow_symlinks=False)
    return tree


Both = Callable[..., Result]


@pytest.fixture(params=["sent", "fetched"])
def ways(
    request: pytest.FixtureRequest, server: Server, client: Client, box: str, folder: Path
) -> tuple[Path, Path, Both]:
    """The tree that others follow, the one that follows, and what brings that about."""
    here, there = folder / "tree", server.path(box, "tree")
    here.parent.mkdir(exist_ok=True)
    if request.param == "sent":
        return here, there, lambda *options: client("-u", "--links", "--json", *options, here, f"{box}/")
    return (
        there,
        here,
        lambda *options: client("--get", "-u", "--links", "--json", *options, f"{box}/tree", f"{folder}/"),
    )


def events(result: Result, kind: str) -> list[dict[str, object]]:
    return [each for each in map(json.loads, result.out.splitlines()) if each["event"] == kind]


CHANGES = [(old, new) for old, new in itertools.product(KINDS, KINDS) if old.split()[-1] != new.split()[-1]]


@pytest.mark.parametrize(("old", "new"), CHANGES)
@pytest.mark.parametrize("deletes", [False, True])
def test_other_kind_takes_its_place(ways: tuple[Path, Path, Both], old: str, new: str, deletes: bool) -> None:
    """Without --delete all but a folder with something in it, as with rsync."""
    origin, copy, bring = ways
    make(origin / "beside", 5)
    made(old, origin / "x")
    aged(origin)
    assert bring().status == 0 and state_of(copy) == state_of(origin)
    before = state_of(copy)
    made(new, origin / "x")
    aged(origin)
    options = ["--delete"] if deletes else []
    planned = bring("--dry-run", *options)
    assert state_of(copy) == before
    result = bring(*options)
    if old == "full folder" and not deletes:
        assert (result.status, planned.status) == (1, 1)
        (failed,) = events(result, "failed")
        assert "and not empty" in str(failed["cause"]) and "--delete" in str(failed["remedy"])
        assert events(planned, "failed") == [failed]
        assert (copy / "x/sub/b").exists()
        return
    assert (result.status, result.err, planned.status) == (0, "", 0)
    assert state_of(copy) == state_of(origin)
    told = [(each["action"], os.path.basename(str(each["path"])), each["why"]) for each in events(planned, "planned")]
    assert ("replace", "x", "kind") in told
    again = bring(*options)
    assert (again.status, events(again, "delivered"), events(again, "removed")) == (0, [], [])


def old_and_new(origin: Path, copy: Path, bring: Both, old: str, new: str) -> None:
    """It was brought with the one at `x`, and then has the other."""
    make(origin / "beside", 5)
    made(old, origin / "x")
    assert bring().status == 0 and state_of(copy).keys() == state_of(origin).keys()
    made(new, origin / "x")


def test_all_in_a_folder_counts_for_the_most_that_may_be_removed(ways: tuple[Path, Path, Both]) -> None:
    origin, copy, bring = ways
    old_and_new(*ways, "full folder", "file")
    before = state_of(copy)
    make(origin / "new", 7)
    result = bring("--delete", "--max-delete=4")
    assert result.status == 1 and events(result, "removed") == []
    (total, stays) = (str(each["cause"]) for each in events(result, "failed"))
    assert "5 names" in total and "x is a folder" in stays
    assert state_of(copy).keys() == {*before, "new"}  # the rest goes on
    result = bring("--delete", "--max-delete=5")
    assert (result.status, len(events(result, "removed"))) == (0, 5)
    assert state_of(copy) == state_of(origin)


@pytest.mark.parametrize(("old", "new"), [("full folder", "file"), ("file", "full folder"), ("empty folder", "link")])
def test_nothing_goes_when_an_error_keeps_things_from_being_removed(
    ways: tuple[Path, Path, Both], old: str, new: str
) -> None:
    origin, copy, bring = ways
    make(origin / "gone", 5)
    old_and_new(*ways, old, new)
    before = state_of(copy / "x")
    (origin / "gone").unlink()
    (origin / "bad\n").touch()
    make(origin / "new", 7)
    result = bring("--delete")
    assert result.status == 1 and events(result, "removed") == []
    (stays,) = (str(each["cause"]) for each in events(result, "failed") if "bad" not in str(each["name"]))
    assert "x is a" in stays and "nothing was removed" in stays
    assert state_of(copy / "x") == before and (copy / "gone").exists() and (copy / "new").exists()
    (origin / "bad\n").unlink()
    assert bring("--delete").status == 0 and state_of(copy) == state_of(origin)


def test_conflict_that_stays_keeps_nothing_else_from_being_removed(ways: tuple[Path, Path, Both]) -> None:
    origin, copy, bring = ways
    make(origin / "gone", 5)
    old_and_new(*ways, "full folder", "file")
    (origin / "gone").unlink()
    result = bring("--delete", "--exclude=b")
    (failed,) = events(result, "failed")
    assert result.status == 1 and "something in it stays" in str(failed["cause"])
    assert not (copy / "gone").exists() and (copy / "x/sub/b").exists()


def test_what_comes_below_a_new_folder_is_excluded_and_arrives_as_ever(ways: tuple[Path, Path, Both]) -> None:
    origin, copy, bring = ways
    old_and_new(*ways, "file", "full folder")
    assert bring("--exclude=/x/sub").status == 0
    assert state_of(copy).keys() == state_of(origin).keys() - {"x/sub", "x/sub/b"}


@pytest.mark.parametrize(("old", "new"), [("full folder", "file"), ("file", "full folder"), ("link", "empty folder")])
@pytest.mark.parametrize("behind", [20, 90, 160, 230, 300])
def test_interrupted_replacement_is_ended_by_the_same_command(
    server: Server, client: Client, folder: Path, box: str, proxy: MakeProxy, old: str, new: str, behind: int
) -> None:
    """One connection compares, one removes, one sends."""
    origin, copy = folder / "tree", server.path(box, "tree")

    def bring(*options: str, by: Client = client) -> Result:
        return by("-u", "--delete", "--links", "--json", *options, origin, f"{box}/")

    old_and_new(origin, copy, bring, old, new)
    line = proxy(server.port, up=Fault("cut", login_sent() + behind))
    bring("--retries=0", by=client.at(line.port))
    assert bring().status == 0 and state_of(copy) == state_of(origin)


def test_connection_that_breaks_in_the_middle_is_made_again(
    server: Server, client: Client, folder: Path, box: str, proxy: MakeProxy
) -> None:
    origin, copy = folder / "tree", server.path(box, "tree")

    def bring(*options: str, by: Client = client) -> Result:
        return by("-u", "--delete", "--links", "--json", *options, origin, f"{box}/")

    for behind in (90, 160, 230):
        old_and_new(origin, copy, bring, "full folder", "file")
        line = proxy(server.port, up=Fault("cut", login_sent() + behind))
        assert bring(by=client.at(line.port)).status == 0 and state_of(copy) == state_of(origin)


@pytest.mark.parametrize(("old", "new"), [("full folder", "file"), ("file", "full folder")])
def test_account_that_may_not_remove_is_told_so_and_the_rest_arrives(
    make_server: MakeServer, tmp_path: Path, old: str, new: str
) -> None:
    server, origin = make_server(), tmp_path / "sources/tree"
    server.add("bob", "--rights=put,get,list,replace,links")
    bob = Client(server.port, tmp_path / "bob", user="bob")

    def bring(*options: str) -> Result:
        return bob("-u", "--links", *options, origin, "in/")

    old_and_new(origin, server.path("in/tree", user="bob"), bring, old, new)
    make(origin / "other", 5)
    before = state_of(server.path("in/tree/x", user="bob"))
    result = bring("--delete")
    assert result.status == 1
    errors = [line for line in result.err.splitlines() if "in/tree/x " in line]
    assert len(errors) == 1 and "may not remove in/tree/x on the receiver" in errors[0] and "right remove" in errors[0]
    assert state_of(server.path("in/tree/x", user="bob")) == before
    assert server.path("in/tree/other", user="bob").exists()


@pytest.mark.parametrize(("old", "new"), [("full folder", "file"), ("file", "full folder"), ("link", "empty folder")])
@pytest.mark.parametrize("behind", [20, 90, 160, 230, 300])
def test_interrupted_fetch_of_another_kind_is_ended_by_the_same_command(
    server: Server, client: Client, folder: Path, box: str, proxy: MakeProxy, old: str, new: str, behind: int
) -> None:
    origin, copy = server.path(box, "tree"), folder / "tree"

    def bring(*options: str, by: Client = client) -> Result:
        return by("--get", "-u", "--delete", "--links", "--json", *options, f"{box}/tree", f"{folder}/")

    old_and_new(origin, copy, bring, old, new)
    line = proxy(server.port, up=Fault("cut", login_sent() + behind))
    bring("--retries=0", by=client.at(line.port))
    assert bring().status == 0 and state_of(copy) == state_of(origin)


def test_our_own_log_keeps_the_folder_in_the_way(server: Server, client: Client, folder: Path, box: str) -> None:
    origin, copy = server.path(box, "tree"), folder / "tree"

    def bring(*options: str) -> Result:
        return client("--get", "-u", "--json", *options, f"{box}/tree", f"{folder}/")

    old_and_new(origin, copy, bring, "empty folder", "file")
    log = copy / "x/client.log"
    log.write_text("ours\n")
    log.chmod(0o600)
    result = bring("--delete", f"--client-log={log}")
    (failed,) = events(result, "failed")
    assert result.status == 1 and "something in it stays" in str(failed["cause"])
    assert log.exists()


@pytest.mark.parametrize("deletes", [False, True])
def test_our_own_log_in_the_place_of_a_folder_is_one_error(
    server: Server, client: Client, folder: Path, box: str, deletes: bool
) -> None:
    origin, log = server.path(box, "tree"), folder / "tree/x"
    make(origin / "x/a", 5)
    make(origin / "beside", 5)
    log.parent.mkdir(parents=True)
    log.write_text("ours\n")
    log.chmod(0o600)
    for options in (["--dry-run"], []):
        how = ["--get", "-u", "--json", f"--client-log={log}", *options, *(["--delete"] if deletes else [])]
        result = client(*how, f"{box}/tree", f"{folder}/")
        (failed,) = events(result, "failed")
        assert result.status == 1 and "x is a log or the receipts of this program" in str(failed["cause"])
        assert all("x" not in str(each["path"]).split("/") for each in events(result, "planned"))
    assert log.is_file() and (folder / "tree/beside").exists()


@pytest.mark.parametrize("own", ["log", "excluded", "fifo"])
def test_delete_is_not_advised_where_it_would_leave_something_in_the_folder(
    server: Server, client: Client, folder: Path, box: str, own: str
) -> None:
    origin, copy = server.path(box, "tree"), folder / "tree"

    def bring(*options: str) -> Result:
        return client("--get", "-u", "--json", *options, f"{box}/tree", f"{folder}/")

    old_and_new(origin, copy, bring, "empty folder", "file")
    options = ["--exclude=own"] if own == "excluded" else []
    if own == "fifo":
        os.mkfifo(copy / "x/own")
    else:
        (copy / "x/own").touch(0o600)
    options += [f"--client-log={copy}/x/own"] if own == "log" else []
    result = bring(*options)
    (failed,) = events(result, "failed")
    assert result.status == 1 and "x is a folder here, and something in it stays" in str(failed["cause"])
    assert "by hand" in str(failed["remedy"]) and (copy / "x/own").exists()


@pytest.mark.parametrize("new", ["file", "full folder"])
def test_fifo_in_the_way_is_called_what_it_is(server: Server, client: Client, folder: Path, box: str, new: str) -> None:
    origin, copy = server.path(box, "tree"), folder / "tree"
    origin.parent.mkdir(exist_ok=True)
    made(new, origin)
    folder.mkdir(exist_ok=True)
    os.mkfifo(copy)
    for options in (["-n"], ["-n", "-u"], ["-u", "--exclude=none"]):
        result = client("--get", *options, f"{box}/tree", f"{folder}/")
        assert result.status == 1 and "tree is neither a file nor a folder here" in result.err


@pytest.mark.parametrize("new", ["file", "full folder"])
def test_link_here_gives_way_without_links_too_and_what_it_leads_to_stays(
    server: Server, client: Client, folder: Path, box: str, new: str
) -> None:
    origin, copy, outside = server.path(box, "tree"), folder / "tree", folder / "outside"
    origin.mkdir(parents=True)
    made(new, origin / "x")
    copy.mkdir(parents=True)
    make(outside / "kept", 5)
    (copy / "x").symlink_to(outside)
    result = client("--get", "-u", f"{box}/tree", f"{folder}/")
    assert (result.status, (copy / "x").is_symlink()) == (0, False)
    assert [path.name for path in outside.iterdir()] == ["kept"]


def test_lines_for_a_person_name_what_is_replaced_once(server: Server, client: Client, folder: Path, box: str) -> None:
    origin, copy = folder / "tree", server.path(box, "tree")
    old_and_new(
        origin, copy, lambda *options: client("-u", "--links", *options, origin, f"{box}/"), "full folder", "file"
    )
    result = client("-u", "--delete", "--links", origin, f"{box}/")
    lines = result.out.splitlines()
    assert [line for line in lines if "removed" in line] == [
        f"removed: {box}/tree/{name}" for name in ("x/sub/b", "x/sub", "x/l", "x/a", "x")
    ]
    assert lines[-2:] == [
        f"delivered: {box}/tree/  1 file, 30 bytes, 1 unchanged",
        lines[-1],
    ]
    again = folder / "copy"
    for kind in ("full folder", "file"):
        made(kind, origin / "x")
        assert client("-u", "--delete", "--links", "-q", origin, f"{box}/").status == 0
        result = client("--get", "-u", "--delete", "--links", f"{box}/tree", f"{again}/")
    assert result.out.splitlines()[-2] == f"delivered: {again}/tree/  1 file, 30 bytes, 1 unchanged"


@pytest.mark.parametrize(("old", "new"), [("empty folder", "file"), ("file", "empty folder")])
def test_what_was_named_itself_is_not_replaced_by_another_kind(
    server: Server, client: Client, folder: Path, box: str, old: str, new: str
) -> None:
    """Perhaps a slash is missing behind the name, and it was meant to go into that folder."""
    here, there = folder / "tree", server.path(box, "tree")
    for origin, copy in ((here, there), (there, here)):
        folder.mkdir(exist_ok=True)
        server.path(box).mkdir(exist_ok=True)
        made(new, origin)
        made(old, copy)
        names: list[str | Path] = [here, f"{box}/tree"] if origin == here else ["--get", f"{box}/tree", here]
        for options in ([], ["--delete"], ["--exclude=nothing"], ["--dry-run"], ["--dry-run", "--delete"]):
            result = client("-u", *options, *names)
            assert result.status == 1 and ("is a folder" in result.err or "is a file" in result.err), (options, result)
        assert copy.is_dir() is (old != "file")


@pytest.mark.parametrize(
    ("old", "new", "bad"),
    [
        ("file", "full folder", "bad\n"),
        ("file", "full folder", "x/bad\n"),
        ("link", "empty folder", "x/bad\n"),
        ("empty folder", "file", "bad\n"),
    ],
)
def test_nothing_makes_way_without_delete_either_when_anything_has_failed(
    ways: tuple[Path, Path, Both], old: str, new: str, bad: str
) -> None:
    origin, copy, bring = ways
    old_and_new(*ways, old, new)
    before = state_of(copy)
    (origin / bad).touch()
    planned, result = bring("--dry-run"), bring()
    assert (planned.status, result.status, events(result, "removed")) == (1, 1, [])
    for each in (planned, result):
        (stays,) = (str(one["cause"]) for one in events(each, "failed") if "bad" not in str(one["name"]))
        assert "x is a" in stays and "nothing was removed" in stays
    assert state_of(copy).keys() == before.keys() and state_of(copy).get("x") == before["x"]
    (origin / bad).unlink()
    assert bring().status == 0 and state_of(copy).keys() == state_of(origin).keys()


def test_no_more_makes_way_without_delete_than_may_be_removed(ways: tuple[Path, Path, Both]) -> None:
    """A receiver that calls every file a folder does not empty a folder here."""
    origin, copy, bring = ways
    names = [f"{number:04}" for number in range(1001)]
    for name in names:
        make(origin / name, 0)
    assert bring().status == 0
    before = state_of(copy)
    for name in names:
        made("empty folder", origin / name)
    planned, result = bring("--dry-run"), bring()
    assert (planned.status, result.status, events(result, "removed")) == (1, 1, [])
    assert state_of(copy) == before
    for each in (planned, result):
        total, *rest = events(each, "failed")
        assert "1,001 names" in str(total["cause"]) and "1,000 at most" in str(total["remedy"])
        assert len(rest) == 1001 and "nothing was removed" in str(rest[0]["cause"])
