"""`--get --update --delete`: what a fetch removes here, and everything that it leaves."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer
from processes import Client, Fault, Result, Server, make
from test_fetch_update import told
from test_update import SECOND, counts, state_of

AREA = ".secure-file-transfer-partial"


@pytest.fixture
def there(server: Server, box: str) -> Path:
    place = server.path(box, "tree")
    for name in ("a", "d/b", "d/e/c", "f/g/h", "i"):
        make(place / name, 30)
    for number, path in enumerate(sorted(place.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, (1_700_000_000 + number) * SECOND))
    return place


@pytest.fixture
def here(client: Client, there: Path, box: str, tmp_path: Path) -> Path:
    """The folder that it was fetched into."""
    assert client("--get", "-u", f"{box}/tree", f"{tmp_path}/here/").status == 0
    assert state_of(tmp_path / "here/tree") == state_of(there)
    return tmp_path / "here"


def delete(client: Client, *arguments: str | Path) -> Result:
    return client("--get", "-u", "--delete", "--json", *arguments)


def removed(result: Result, here: Path) -> list[str]:
    return [os.path.relpath(name, here) for name in told(result, "removed")]


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_what_is_not_there_any_more_is_removed_here(client: Client, there: Path, here: Path, box: str) -> None:
    beside = make(here / "beside", 5)
    outside = make(here.parent / "outside/x", 5)
    (here / "tree/link").symlink_to(outside.parent)
    shutil.rmtree(there / "f")
    (there / "d/e/c").unlink()
    (there / "i").unlink()
    make(there / "new", 7)
    result = delete(client, f"{box}/tree", f"{here}/")
    assert (result.status, result.err) == (0, "")
    assert counts(result) == {"delivered": 1, "unchanged": 2}
    assert removed(result, here) == [f"tree/{name}" for name in ("link", "i", "f/g/h", "f/g", "f", "d/e/c")]
    assert state_of(here / "tree") == state_of(there)
    assert beside.exists() and outside.exists()
    assert counts(delete(client, f"{box}/tree", f"{here}/")) == {"unchanged": 3}


def test_files_that_were_named_have_nothing_below_them_to_remove(
    client: Client, here: Path, box: str, there: Path
) -> None:
    result = delete(client, f"{box}/tree/a", f"{box}/tree/d", f"{here}/tree/")
    assert (result.status, removed(result, here)) == (0, [])
    assert counts(result) == {"unchanged": 3}
    assert names_in(here / "tree") == names_in(there)


def test_what_this_program_keeps_here_stays(client: Client, here: Path, box: str, there: Path) -> None:
    shutil.rmtree(there / "f")
    log = here / "tree/f/g/client.log"
    log.write_text("ours\n")
    log.chmod(0o600)
    make(here / "tree/d" / AREA / "abc", 5)
    make(here / "tree/gone" / AREA / "abc", 5)
    result = delete(client, f"--client-log={log}", f"{box}/tree", f"{here}/")
    assert (result.status, result.err) == (0, "")
    assert removed(result, here) == ["tree/f/g/h"]
    assert log.exists()
    assert (here / "tree/d" / AREA / "abc").exists() and (here / "tree/gone" / AREA / "abc").exists()


def test_receipts_of_the_very_fetch_stay(client: Client, here: Path, box: str, there: Path) -> None:
    make(there / "new", 7)
    receipts = here / "tree/d/receipts"
    for _ in range(2):
        result = delete(client, f"--receipts={receipts}", f"{box}/tree", f"{here}/")
        assert (result.status, result.err, removed(result, here)) == (0, "", [])
    assert receipts.read_text().count("\n") == 1


@pytest.mark.parametrize("is_linked", [True, False])
def test_what_is_skipped_there_protects_its_name_here(
    client: Client, here: Path, box: str, there: Path, is_linked: bool
) -> None:
    shutil.rmtree(there / "f")
    (there / "i").unlink()
    if is_linked:
        (there / "f").symlink_to("d")
        (there / "i").symlink_to("a")
    else:
        os.mkfifo(there / "f")
        os.mkfifo(there / "i")
    result = delete(client, f"{box}/tree", f"{here}/")
    assert (result.status, removed(result, here)) == (0, [])
    assert counts(result) == {"unchanged": 3, "skipped": 2}
    assert (here / "tree/f/g/h").exists() and (here / "tree/i").exists()


def test_special_files_here_are_left_alone(client: Client, here: Path, box: str) -> None:
    os.mkfifo(here / "tree/fifo")
    (here / "tree" / os.fsdecode(b"\xff")).touch()
    result = delete(client, f"{box}/tree", f"{here}/")
    assert (result.status, removed(result, here)) == (0, [])
    assert (here / "tree/fifo").exists()


@pytest.mark.parametrize("flags", [(), ("--exclude=x",)], ids=["all", "exclude"])
@pytest.mark.parametrize("new", ["tree/D/E/C", "tree/d/E/C", "tree/d/e/C"])
def test_name_that_came_in_another_spelling_protects_what_is_here(
    client: Client, here: Path, box: str, there: Path, new: str, flags: tuple[str, ...]
) -> None:
    """On a disk that knows one name for both it is what was fetched."""
    (there / "d").rename(there / "aside")
    make(there.parent / new, 30)
    shutil.rmtree(there / "aside")
    (there / "i").unlink()
    assert '"path": "tree/d/e/c"' not in client("--get", "-u", "--delete", "-n", "--json", box, f"{here}/").out
    result = delete(client, *flags, f"{box}/tree", f"{here}/")
    assert (result.status, result.err) == (0, "")
    assert {"tree/d/e/c", "tree/d/e", "tree/d"}.isdisjoint(removed(result, here)) and "tree/i" in removed(result, here)
    assert (here / new).exists() and (here / "tree/d/e/c").exists()


def test_nothing_is_removed_when_something_was_not_fetched(client: Client, here: Path, box: str, there: Path) -> None:
    (there / "i").unlink()
    (there / "a").unlink()
    (there / "a\n").touch()
    result = delete(client, f"{box}/tree", f"{here}/")
    assert (result.status, removed(result, here)) == (1, [])
    assert "nothing was removed, because not everything was fetched (2 names here would be removed)" in result.err
    assert (here / "tree/a").exists() and (here / "tree/i").exists()


@pytest.mark.parametrize("how", ["empty", "gone", "a file", "a link"])
def test_nothing_is_removed_because_of_a_disk_that_is_not_mounted_there(
    client: Client, here: Path, box: str, there: Path, how: str
) -> None:
    before = names_in(here)
    there.rename(there.parent / "aside")
    if how == "empty":
        there.mkdir()
    elif how == "a file":
        there.write_bytes(b"")
    elif how == "a link":
        there.symlink_to("aside")
    result = delete(client, f"{box}/tree", f"{here}/")
    assert (result.status, removed(result, here)) == (1, [])
    assert names_in(here) == before
    if how == "empty":
        assert f"nothing was removed: on the receiver, what {here}/tree comes from is empty" in result.out


def test_nothing_is_removed_when_it_would_be_more_than_may_be(
    client: Client, here: Path, box: str, there: Path
) -> None:
    shutil.rmtree(there / "f")
    make(there / "new", 7)
    result = client("--get", "-u", "--delete", "--max-delete=2", f"{box}/tree", f"{here}/")
    assert result.status == 1
    assert "--delete: nothing was removed: 3 names here would be removed. --max-delete allows 2" in result.err
    assert (here / "tree/f/g/h").exists() and (here / "tree/new").exists()
    result = delete(client, "--max-delete=3", f"{box}/tree", f"{here}/")
    assert (result.status, len(removed(result, here))) == (0, 3)


def test_cut_fetch_removes_nothing_and_the_same_command_ends_it(
    server: Server, client: Client, here: Path, box: str, there: Path, proxy: MakeProxy
) -> None:
    shutil.rmtree(there / "f")
    make(there / "large", 3_000_000)
    line = proxy(server.port, down=Fault("cut", 1_000_000))
    result = delete(client.at(line.port), "--retries=0", f"{box}/tree", f"{here}/")
    assert (result.status, removed(result, here)) == (4, [])
    assert (here / "tree/f/g/h").exists()
    result = delete(client, f"{box}/tree", f"{here}/")
    assert (result.status, removed(result, here)) == (0, ["tree/f/g/h", "tree/f/g", "tree/f"])
    assert state_of(here / "tree") == state_of(there)


def test_account_that_may_not_list_removes_nothing(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server()
    server.add("bob", "--rights=get")
    bob = Client(server.port, tmp_path / "bob", user="bob")
    make(server.path("tree/a", user="bob"))
    mine = make(tmp_path / "here/tree/mine")
    result = bob("--get", "-u", "--delete", "tree", f"{tmp_path}/here/")
    assert result.status == 1 and mine.exists() and (tmp_path / "here/tree/a").exists()
    assert "error: --delete: your account may not list what is on the receiver" in result.err


def test_whole_folder_is_fetched_and_what_is_only_here_goes(make_server: MakeServer, tmp_path: Path) -> None:
    """The staging area lies in the very folder."""
    server = make_server()
    client = Client(server.port, tmp_path / "client")
    make(server.path("a"), 10)
    make(server.path("d/b"), 10)
    here = tmp_path / "here"
    make(here / "mine"), make(here / "d/mine"), make(here / "e/f/mine")
    result = delete(client, ".", f"{here}/")
    assert result.status == 0 and names_in(here) == {"a", "d", "d/b"}
    assert removed(result, here) == ["mine", "e/f/mine", "e/f", "e", "d/mine"]


@pytest.mark.parametrize("names", [(".", "big/k", "other/d"), ("other/d", "big/k", ".")], ids=["first", "last"])
def test_what_one_name_brings_is_not_removed_for_another(
    make_server: MakeServer, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """The whole folder goes to the place in which the others go to theirs."""
    server = make_server()
    client = Client(server.port, tmp_path / "client")
    for name in ("a", "big/k", "d/x", "other/d/y"):
        make(server.path(name), 10)
    here = tmp_path / "here"
    expected = {"a", "big", "big/k", "d", "d/x", "d/y", "k", "other", "other/d", "other/d/y"}
    assert delete(client, *names, f"{here}/").status == 0
    assert names_in(here) == expected
    make(here / "mine")
    planned = client("--get", "-u", "--delete", "-n", *names, f"{here}/")
    assert planned.out == f"would remove: {here}/mine\n"
    again = delete(client, *names, f"{here}/")
    assert (again.status, removed(again, here), names_in(here)) == (0, ["mine"], expected)


def test_dry_run_does_not_tell_that_what_this_program_keeps_would_go(
    client: Client, here: Path, box: str, there: Path
) -> None:
    log, receipts = here / "tree/d/client.log", here / "tree/own/receipts"
    log.write_text("ours\n")
    receipts.parent.mkdir()
    for file in (log, receipts):
        file.touch()
        file.chmod(0o600)
    names = [f"{box}/tree", f"{here}/"]
    options = ["-n", f"--client-log={log}", f"--receipts={receipts}"]
    result = client("--get", "-u", "--delete", *options, *names)
    assert (result.status, result.out, result.err) == (0, "", "nothing would be done\n")
    result = client("--get", "-u", "--delete", "--max-delete=1", *options[1:], *names)
    assert (result.status, result.err) == (0, "")
    assert log.exists() and receipts.exists()


def test_line_of_a_fetched_folder_counts_what_was_skipped(client: Client, here: Path, box: str, there: Path) -> None:
    (there / "link").symlink_to("a")
    os.mkfifo(there / "d/fifo")
    for options in (["-u"], ["-u", "--exclude=nothing"], []):
        result = client("--get", *options, f"{box}/tree", f"{here}/")
        assert result.status == 0 and result.out.splitlines()[0].endswith(", 2 skipped"), result.out
