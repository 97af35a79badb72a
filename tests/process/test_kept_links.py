"""`--links`: symbolic links travel as links, both ways, and without it they are skipped."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import serving
from processes import USER, Client, Server, make

TREE = {"up": "../file", "sub/absolute": "/nowhere/at all", "sub/folder": "..", "odd": "a//b/./é \x1b[31m\n"}


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory, accounts: dict[str, Path]) -> Iterator[Server]:
    """A server on which `USER` may send links, too."""
    made = Server(tmp_path_factory.mktemp("owned"), accounts[USER])
    assert made.command("limits", USER, "--rights=put,get,list,replace,remove,links").status == 0
    with serving(made):
        yield made


@pytest.fixture
def owner(owned: Server, tmp_path: Path) -> Client:
    return Client(owned.port, tmp_path / "owner")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with links and a file."""
    source = tmp_path / "tree"
    make(source / "sub" / "file")
    for number, (name, says) in enumerate(TREE.items()):
        (source / name).symlink_to(says)
        os.utime(source / name, ns=(0, 1_600_000_000_000_000_000 + number), follow_symlinks=False)
    return source


def links_in(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(folder)): (os.readlink(path), path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_symlink()
    }


def test_links_travel_as_they_are_and_come_back(owned: Server, owner: Client, source: Path, box: str) -> None:
    result = owner("-v", "--links", source, box)
    assert (result.status, result.err) == (0, "")
    assert f"delivered: {box}/up -> ../file\n" in result.out
    assert result.out.count("\ndelivered: ") == 5 and "5 files delivered" in result.out
    assert all(line.isprintable() for line in result.out.splitlines())
    assert links_in(owned.path(box)) == links_in(source)
    again = owner("-v", "--links", source, box)
    assert again.status == 0 and again.out.count("there already: ") >= 5
    back = source.parent / "back"
    fetched = owner("--get", "--links", box, back)
    assert (fetched.status, fetched.err) == (0, "")
    assert links_in(back) == links_in(source)
    assert owner("-v", "--get", "--links", box, back).out.count("there already: ") >= 5


def test_without_the_option_they_are_skipped_in_both_directions(
    owned: Server, owner: Client, source: Path, box: str
) -> None:
    (owned.path(box) / "sub").mkdir(parents=True)
    (owned.path(box) / "link").symlink_to("nowhere")
    result = owner(source, box)
    assert result.status == 0 and result.err.count("(--links keeps it, --follow sends what it leads to)\n") == 4
    result = owner("--get", box, source.parent / "back")
    assert result.status == 0 and result.err.count("a symbolic link on the receiver (--links keeps it)\n") == 1
    assert links_in(source.parent / "back") == {}


def test_named_link_is_kept_with_the_option_and_followed_once_without(
    owned: Server, owner: Client, source: Path, box: str
) -> None:
    named = source.parent / "named"
    named.symlink_to("tree/sub")
    assert owner("--links", named, f"{box}/").status == 0
    assert links_in(owned.path(box)).keys() == {"named"}
    assert owner(named, f"{box}-followed/").status == 0
    assert owned.path(f"{box}-followed", "named", "file").is_file()
    dangling = source / "sub" / "absolute"
    assert owner(dangling, f"{box}/").status == 1
    assert owner("--links", dangling, f"{box}/").status == 0
    fetched = source.parent / "fetched"
    assert owner("--get", "--links", f"{box}/named", fetched).status == 0
    assert os.readlink(fetched) == "tree/sub"
    refused = owner("--get", f"{box}/named", source.parent / "other")
    assert refused.status == 1 and "is a symbolic link on the receiver" in refused.err


def test_account_without_the_right_is_told_which_one_and_what_to_do(
    server: Server, client: Client, source: Path, box: str
) -> None:
    result = client("--links", source, box)
    assert result.status == 1
    assert "your account may not make the link " in result.err and ": it lacks the right links. " in result.err
    assert "python server.py limits USER --rights +links; or leave out --links\n" in result.err
    assert server.path(box, "sub", "file").is_file() and links_in(server.path(box)) == {}


def test_follow_and_links_are_no_pair(client: Client, source: Path) -> None:
    result = client("--follow", "--links", source, "box")
    assert (result.status, result.err) == (2, "error: --links does not go with --follow. Leave one of them out\n")


def test_target_that_is_not_utf8_is_one_line_and_the_others_go(
    owned: Server, owner: Client, source: Path, box: str
) -> None:
    (source / "latin").symlink_to(b"\xe9")
    result = owner("--links", source, box)
    assert result.status == 1
    assert result.err.splitlines() == [
        f"error: {source / 'latin'} is a symbolic link whose target can't be sent "
        "(not UTF-8, or more than 4,095 bytes). Make another link, or leave it out"
    ]
    assert links_in(owned.path(box)).keys() == TREE.keys()
    (owned.path(box) / "latin").symlink_to(b"\xe9")
    fetched = owner("--get", "--links", box, source.parent / "back")
    assert fetched.status == 1 and f"{box}/latin on the receiver" in fetched.err
    assert links_in(source.parent / "back").keys() == TREE.keys()


def test_events_receipts_and_log_have_links_as_links(
    owned: Server, owner: Client, source: Path, box: str, tmp_path: Path
) -> None:
    receipts = tmp_path / "receipts"
    result = owner("--json", "--links", "--receipts", receipts, source, box)
    events = [json.loads(line) for line in result.out.splitlines()]
    links = {each["path"]: each for each in events if each["event"] == "delivered" and "target" in each}
    assert {name: each["target"] for name, each in links.items()} == {f"{box}/{name}": TREE[name] for name in TREE}
    assert {(each["size"], each["sha256"]) for each in links.values()} == {(0, None)}
    assert [json.loads(line)["path"] for line in receipts.read_text().splitlines()] == [f"{box}/sub/file"]
    assert f"stored {box}/up, a link to ../file\n" in owned.told()
    planned = owner("--dry-run", "--json", "--links", source, f"{box}-new").out.splitlines()
    assert [json.loads(each)["kind"] for each in planned[:-1]].count("link") == 4
    files = len(TREE) + 1  # in a dry run as in a real one
    assert owner("-n", "--links", source, f"{box}-new").err.startswith(f"{files} files would be sent, ")
    assert owner("--links", source, f"{box}-new").out.splitlines()[-1].startswith(f"{files} files delivered to ")


def test_links_are_listed_moved_and_removed_themselves(owned: Server, owner: Client, source: Path, box: str) -> None:
    outside = make(source.parent / "outside" / "file")
    (source / "out").symlink_to(outside.parent)
    assert owner("--links", source, box).status == 0
    for flags in (("-R", box), (box,), (f"{box}/o*",)):
        assert f"out -> {outside.parent}\n" in owner("--list", *flags).out
    assert owner("--get", f"{box}/o*", source.parent / "got").status == 1  # no match: links are fetched with --links
    assert owner("--move", f"{box}/out", f"{box}/moved").status == 0
    assert os.readlink(owned.path(box, "moved")) == str(outside.parent)
    assert owner("--get", f"{box}/moved/file", source.parent / "got").status == 1
    assert owner("--remove", "-r", "--yes", box).status == 0
    assert outside.is_file() and not owned.path(box).exists()


@pytest.mark.parametrize(("policy", "status"), [("fail", 1), ("skip", 0), ("rename", 0), ("replace", 0)])
def test_policy_holds_for_links(owned: Server, owner: Client, source: Path, box: str, policy: str, status: int) -> None:
    owned.path(box).mkdir(parents=True)
    owned.path(box, "up").symlink_to("old")
    assert owner("--if-exists", policy, "--links", source / "up", f"{box}/").status == status
    says = {name: says for name, (says, _) in links_in(owned.path(box)).items()}
    expected = {"up": "../file"} if policy == "replace" else {"up": "old"}
    assert says == expected | ({"up.1": "../file"} if policy == "rename" else {})


def test_update_compares_links_by_what_they_say(owned: Server, owner: Client, source: Path, box: str) -> None:
    flags = ("--links", "--update", "--delete")
    assert owner(*flags, source, box).status == 0
    again = owner(*flags, source, box)
    assert (again.status, again.err) == (0, "") and "0 files delivered" in again.out and "5 unchanged" in again.out
    (source / "up").unlink()
    (source / "up").symlink_to("elsewhere")
    (source / "sub" / "folder").unlink()
    changed = owner("-v", *flags, source, box)
    assert (changed.status, changed.err) == (0, "") and "1 file delivered" in changed.out
    assert f"delivered: {box}/up -> elsewhere\n" in changed.out and f"removed: {box}/sub/folder\n" in changed.out
    assert links_in(owned.path(box)) == links_in(source)
    back = source.parent / "back"
    assert owner("--get", *flags, box, back).status == 0
    assert links_in(back) == links_in(source)
    again = owner("--get", *flags, box, back)
    assert (again.status, again.err) == (0, "") and "0 files fetched" in again.out and "4 unchanged" in again.out
    (back / "up").unlink()
    (back / "up").write_text("a file")
    (back / "more").symlink_to("nowhere")
    assert owner("--get", *flags, box, back).status == 0
    assert links_in(back) == links_in(source)


@pytest.mark.parametrize("flags", [["-u"], ["--if-exists=replace"], []], ids=" ".join)
def test_link_that_takes_the_place_of_a_file_here_is_planned_as_it_is_fetched(
    owned: Server, owner: Client, box: str, tmp_path: Path, flags: list[str]
) -> None:
    here = make(tmp_path / "here/d/a")
    owned.path(box, "d").mkdir(parents=True)
    (owned.path(box, "d") / "a").symlink_to("b")
    command = ("--get", "--links", *flags, f"{box}/d", f"{tmp_path}/here/")
    planned = owner("-n", *command)
    assert planned.out == (f"would replace: {here} with d/a  (kind)\n" if flags else "")
    fetched = owner(*command)
    assert planned.status == fetched.status == (0 if flags else 1)
    assert here.is_symlink() == bool(flags)
