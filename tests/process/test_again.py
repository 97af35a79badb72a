"""The same folder again: what is there already is not sent, and what is not there is, whatever the policy says."""

import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer
from processes import Client, Fault, Result, Server, make

POLICIES = ("fail", "rename", "replace", "skip")
COUNT, SIZE = 40, 20_000
LOGIN = 8_000  # bytes, more than its frames have


@pytest.fixture
def album(folder: Path) -> Path:
    """A folder of small files, some empty, in folders of their own."""
    for number in range(COUNT):
        make(folder / "album" / f"{number % 4}" / f"é{number:02}", SIZE if number % 8 else 0)
    (folder / "album" / "empty").mkdir()
    return folder / "album"


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def words(result: Result) -> dict[str, int]:
    """How many lines of each kind a verbose run has printed, beside that of the folder and the last one."""
    found: dict[str, int] = {}
    for line in result.out.splitlines()[:-1] + result.err.splitlines():
        word = line.partition(":")[0]
        if not re.search(r"/  \d+ files?\b", line):
            found[word] = found.get(word, 0) + 1
    return found


@pytest.mark.parametrize("policy", POLICIES)
def test_unchanged_files_are_not_sent_again(
    server: Server, client: Client, album: Path, box: str, proxy: MakeProxy, policy: str
) -> None:
    assert client("--quiet", album, f"{box}/").status == 0
    line = proxy(server.port)
    result = client.at(line.port)("-v", f"--if-exists={policy}", album, f"{box}/")
    assert (result.status, result.err) == (0, "")
    assert words(result) == {"skipped" if policy == "skip" else "there already": COUNT}
    assert content_of(server.path(box, "album")) == content_of(album)
    assert line.passed[0] < LOGIN + 150 * COUNT
    assert line.passed[1] < LOGIN + 150 * COUNT


# What becomes of a file of another size, of one of the same size with other bytes, and of one that is new, by policy.
CHANGED = {
    "fail": ("error", "error", "delivered"),
    "rename": ("delivered", "delivered", "delivered"),
    "replace": ("delivered", "delivered", "delivered"),
    "skip": ("skipped", "skipped", "delivered"),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_changed_files_are_sent_as_the_policy_says(
    server: Server, client: Client, album: Path, box: str, policy: str
) -> None:
    assert client("--quiet", album, f"{box}/").status == 0
    there = server.path(box, "album")
    before = content_of(there)
    longer, other, new = "1/é01", "2/é02", "3/new"
    (album / longer).write_bytes(b"longer" * SIZE)
    (album / other).write_bytes(bytes(SIZE))
    make(album / new, 300)
    shutil.copystat(album / "3/é03", album / other)
    result = client("-v", f"--if-exists={policy}", album, f"{box}/")
    assert result.status == (1 if policy == "fail" else 0)
    expected = {"skipped" if policy == "skip" else "there already": COUNT - 2}
    for word in CHANGED[policy]:
        expected[word] = expected.get(word, 0) + 1
    assert words(result) == expected
    mine, found = content_of(album), content_of(there)
    for name in (longer, other):
        renamed = {"1/é01": "1/é01.1", "2/é02": "2/é02.1"}[name]
        assert found[name] == (mine[name] if policy == "replace" else before[name])
        assert found.pop(renamed, None) == (mine[name] if policy == "rename" else None)
    assert found.pop(new) == mine[new]
    assert set(found) == set(before)


def test_files_in_the_place_of_folders_and_links_are_what_they_were_without_an_offer(
    server: Server, client: Client, album: Path, box: str
) -> None:
    """A folder has the name of a file that is sent, a file that of a folder, a link the name of another."""
    there = server.path(box, "album")
    (there / "0" / "é00").mkdir(parents=True)
    make(there / "1", 5)
    (there / "2").mkdir()
    (there / "2" / "é02").symlink_to("nowhere")
    for policy in POLICIES:
        result = client(f"--if-exists={policy}", album, f"{box}/")
        alone = client(f"--if-exists={policy}", album / "0" / "é00", f"{box}/album/0/")
        assert ("is a folder on the receiver" in result.err) == ("is a folder on the receiver" in alone.err), policy
        assert "a part of" in result.err and "is a file on the receiver, not a folder" in result.err
    assert (there / "1").read_bytes() != b"" and (there / "0" / "é00").is_dir()


def test_what_is_not_there_costs_one_question_and_a_single_file_none(
    server: Server, client: Client, album: Path, box: str, proxy: MakeProxy
) -> None:
    first = proxy(server.port)
    assert client.at(first.port)("--quiet", album, f"{box}/").status == 0
    assert first.passed[0] > COUNT * SIZE * 3 // 4
    assert content_of(server.path(box, "album")) == content_of(album)
    again = proxy(server.port)
    result = client.at(again.port)(album / "1" / "é01", f"{box}/album/1/")
    assert words(result) == {"there already": 1}
    assert again.passed[0] > SIZE


def test_many_named_files_are_looked_for_where_they_go(
    server: Server, client: Client, album: Path, box: str, proxy: MakeProxy
) -> None:
    files = sorted((album / "1").iterdir())
    assert client("--quiet", *files, f"{box}/").status == 0
    line = proxy(server.port)
    result = client.at(line.port)(*files, f"{box}/")
    assert words(result) == {"there already": len(files)}
    assert line.passed[0] < LOGIN + 200 * len(files)


@pytest.mark.parametrize("flags", [["--drop-only"], ["--no-list"], ["--no-get"]])
def test_account_that_may_not_list_or_get_sends_all_of_it(
    make_server: MakeServer, tmp_path: Path, album: Path, flags: list[str]
) -> None:
    server = make_server()
    if flags == ["--drop-only"]:
        server.add("other", *flags)
    else:
        server.add("other")
        text = server.accounts.read_text()
        rights = "put,list" if flags == ["--no-get"] else "put,get"
        changed = [
            line.replace("put,get,list", rights) if line.startswith("other ") else line for line in text.splitlines()
        ]
        server.accounts.write_text("\n".join(changed) + "\n")
    client = Client(server.port, tmp_path / "other", "other")
    assert client("--quiet", album, "in/").status == 0
    result = client("-v", album, "in/")
    assert result.status == 0
    if flags == ["--no-list"]:
        assert words(result) == {"there already": COUNT}
    else:
        assert words(result) == {"delivered": COUNT}
    assert server.stop() == 0


def test_interrupted_run_offers_and_sends_the_rest(
    server: Server, client: Client, album: Path, box: str, proxy: MakeProxy
) -> None:
    assert client("--quiet", album, f"{box}/").status == 0
    for name in ("0/é04", "3/é39"):
        (album / name).write_bytes(os.urandom(50_000))
    for at in (LOGIN, LOGIN + 2_000, LOGIN + 60_000):
        line = proxy(server.port, up=Fault("cut", at))
        result = client.at(line.port)("--retries=2", "--if-exists=replace", album, f"{box}/")
        assert result.status == 0
        assert content_of(server.path(box, "album")) == content_of(album)


# --- fetching ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["album", "another name"])
def test_unchanged_files_are_not_fetched_again(
    server: Server, client: Client, album: Path, box: str, proxy: MakeProxy, tmp_path: Path, policy: str, name: str
) -> None:
    target = f"{tmp_path}/here/" if name == "album" else str(tmp_path / name)
    here = tmp_path / "here/album" if name == "album" else tmp_path / name
    assert client("--quiet", album, f"{box}/").status == 0
    first = proxy(server.port)
    assert client.at(first.port)("--quiet", "--get", f"{box}/album", target).status == 0
    assert content_of(here) == content_of(album)
    assert first.passed[1] > COUNT * SIZE * 3 // 4
    there = server.path(box, "album")
    (there / "1/é01").write_bytes(b"changed" * 100)
    before = (here / "1/é01").read_bytes()
    line = proxy(server.port)
    result = client.at(line.port)("-v", f"--if-exists={policy}", "--get", f"{box}/album", target)
    assert result.status == (1 if policy == "fail" else 0)
    expected = {"skipped" if policy == "skip" else "there already": COUNT - 1}
    word = CHANGED[policy][0]
    expected[word] = expected.get(word, 0) + 1
    assert words(result) == expected
    found = content_of(here)
    changed = b"changed" * 100
    assert found.pop("1/é01") == (changed if policy == "replace" else before)
    assert found.pop("1/é01.1", None) == (changed if policy == "rename" else None)
    assert line.passed[1] < LOGIN + 200 * COUNT


def test_all_of_a_folder_is_fetched_again_into_one_that_has_it(
    server: Server, make_server: MakeServer, client: Client, album: Path, proxy: MakeProxy, tmp_path: Path
) -> None:
    server = make_server()
    client = client.at(server.port)
    assert client("--quiet", album, ".").status == 0
    for target in (f"{tmp_path}/here/", str(tmp_path / "named")):
        sizes: list[int] = []
        for _ in range(2):
            line = proxy(server.port)
            assert client.at(line.port)("--quiet", "--get", ".", target).status == 0
            sizes.append(line.passed[1])
        assert sizes[0] > COUNT * SIZE * 3 // 4 and sizes[1] < LOGIN + 200 * COUNT
    assert content_of(tmp_path / "here") == content_of(tmp_path / "named") == content_of(album.parent)
    assert server.stop() == 0
