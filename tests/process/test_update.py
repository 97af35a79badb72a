"""`--update`: of what is sent again only what has changed goes; the rest is left alone, and nothing else happens."""

import json
import os
import re
import shlex
import shutil
import stat
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer
from processes import Client, Fault, Result, Server, make

COUNT = 12
LOGIN = 8_000  # bytes, more than its frames have
SECOND = 1_000_000_000


@pytest.fixture
def album(folder: Path) -> Path:
    """Small files in folders of their own, a large one, an empty one and an empty folder."""
    for number in range(COUNT):
        make(folder / "album" / f"{number % 3}" / f"é{number:02}", 20_000 if number % 8 else 0)
    make(folder / "album" / "1" / "large", 300_000)
    (folder / "album" / "empty").mkdir()
    for number, path in enumerate(sorted((folder / "album").rglob("*"), reverse=True)):
        os.utime(path, ns=(0, (1_700_000_000 + number) * SECOND + number * 1_000_003))
    return folder / "album"


def state_of(folder: Path) -> dict[str, tuple[int, int, bytes | None]]:
    """Time, permission bits and content of each file and folder."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            stat.S_IMODE(path.stat().st_mode),
            path.read_bytes() if path.is_file() else None,
        )
        for path in folder.rglob("*")
    }


def inodes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def counts(result: Result) -> dict[str, int]:
    """What the summary has, without zeros."""
    summary = json.loads(result.out.splitlines()[-1])
    words = ("delivered", "already", "unchanged", "skipped", "failed")
    return {word: summary[word] for word in words if summary.get(word)}


def update(client: Client, *arguments: str | Path) -> Result:
    return client("--update", "--json", *arguments)


def test_folder_of_which_nothing_has_changed_is_left_alone(
    server: Server, client: Client, album: Path, box: str, proxy: MakeProxy
) -> None:
    assert counts(update(client, album, f"{box}/")) == {"delivered": COUNT + 1}
    there = server.path(box, "album")
    assert state_of(there) == state_of(album)
    before = inodes(there)
    line = proxy(server.port)
    result = update(client.at(line.port), album, f"{box}/")
    assert (result.status, counts(result)) == (0, {"unchanged": COUNT + 1})
    assert inodes(there) == before and state_of(there) == state_of(album)
    assert line.passed[0] < LOGIN and line.passed[1] < LOGIN


def test_what_has_changed_is_replaced_and_nothing_else(server: Server, client: Client, album: Path, box: str) -> None:
    update(client, album, f"{box}/")
    there = server.path(box, "album")
    before = inodes(there)
    (album / "1/é01").write_bytes(b"longer" * 5000)
    (album / "2/é02").write_bytes(bytes(20_000))  # of the same size
    make(album / "new/file", 300)
    make(album / "1/big", 400_000)
    os.utime(album / "0/é03", ns=(0, 5 * SECOND + 7))  # the same content
    os.utime(album / "1/large", ns=(0, 6 * SECOND + 7))
    (album / "0/é06").chmod(0o640)
    (album / "1/é04").chmod(0o600)
    (album / "1/é04").write_bytes(b"x")
    result = update(client, album, f"{box}/")
    assert (result.status, result.err) == (0, "")
    assert counts(result) == {"delivered": 5, "already": 2, "unchanged": COUNT + 1 - 5}
    assert state_of(there) == state_of(album)
    after = inodes(there)
    assert {name for name in before if after[name] != before[name]} == {"1/é01", "2/é02", "1/é04"}
    assert counts(update(client, album, f"{box}/")) == {"unchanged": COUNT + 3}


def test_files_that_are_named_are_compared_too(
    server: Server, client: Client, album: Path, box: str, proxy: MakeProxy
) -> None:
    names = sorted((album / "1").iterdir())
    assert counts(update(client, *names, f"{box}/in/")) == {"delivered": len(names)}
    there = server.path(box, "in")
    before = inodes(there)
    line = proxy(server.port)
    assert counts(update(client.at(line.port), *names, f"{box}/in/")) == {"unchanged": len(names)}
    assert line.passed[0] < LOGIN and line.passed[1] < LOGIN
    names[0].write_bytes(b"other")
    assert counts(update(client, *names, f"{box}/in/")) == {"delivered": 1, "unchanged": len(names) - 1}
    assert counts(update(client, names[0], f"{box}/in/{names[0].name}")) == {"unchanged": 1}
    assert {name for name, inode in inodes(there).items() if before[name] != inode} == {names[0].name}
    assert (there / names[0].name).read_bytes() == b"other"


def test_other_things_there_stay_and_links_are_left_out(server: Server, client: Client, album: Path, box: str) -> None:
    update(client, album, f"{box}/")
    there = server.path(box, "album")
    make(there / "0/extra", 5)
    make(there / "more/extra", 5)
    (album / "0/link").symlink_to("é00")
    result = update(client, album, f"{box}/")
    assert counts(result) == {"unchanged": COUNT + 1, "skipped": 1}
    assert (there / "0/extra").exists() and (there / "more/extra").exists()


def test_folder_in_the_way_is_an_error_and_the_rest_is_sent(
    server: Server, client: Client, album: Path, box: str
) -> None:
    there = server.path(box, "album")
    (there / "0/é00").mkdir(parents=True)
    make(there / "2", 5)
    result = update(client, album, f"{box}/")
    assert result.status == 1
    assert counts(result) == {"delivered": COUNT + 1 - 1 - 4, "failed": 1 + 1 + 4}


@pytest.mark.parametrize("rights", ["put,get,replace", "put,get,list", "put,get", "put"])
def test_account_with_fewer_rights_updates_what_it_may(
    make_server: MakeServer, tmp_path: Path, album: Path, rights: str
) -> None:
    server = make_server()
    server.add("bob", f"--rights={rights}")
    bob = Client(server.port, tmp_path / "bob", user="bob")
    there = server.path("in", "album", user="bob")
    assert counts(update(bob, album, "in/")) == {"delivered": COUNT + 1}
    before = state_of(there)
    make(album / "0/new", 300)
    (album / "1/é01").write_bytes(b"longer" * 5000)
    os.utime(album / "1/é04", ns=(0, 5 * SECOND + 7))  # the same content
    result = update(bob, album, "in/")
    failures = [json.loads(line) for line in result.out.splitlines() if '"failed"' in line and "cause" in line]
    is_private, may_replace = "get" not in rights, "replace" in rights
    refused = 0 if may_replace else COUNT + 1 if is_private else 1
    assert (result.status, len(failures)) == (1 if refused else 0, refused)
    for failure in failures:
        words = "may not replace it" if "list" in rights else "may neither list nor replace"
        assert f"already, and your account {words}" in failure["cause"]
        remedy = "It lacks the right replace, or get beside it" if "list" in rights else "--if-exists rename instead"
        assert remedy in failure["remedy"]
    after = state_of(there)
    assert after["0/new"][2] == (album / "0/new").read_bytes()
    if may_replace:
        assert after == state_of(album)
    else:
        assert {name: each for name, each in after.items() if name not in ("0/new", "0", "1")} == {
            name: each for name, each in before.items() if name not in ("0", "1")
        }


def test_execute_bits_that_the_receivers_umask_takes_are_not_set_again_and_again(
    make_server: MakeServer, tmp_path: Path, album: Path
) -> None:
    server = make_server("--file-mode=640")
    client = Client(server.port, tmp_path / "c")
    for path in album.rglob("*"):
        path.chmod(0o775)
    update(client, album, "in/")
    assert counts(update(client, album, "in/")) == {"unchanged": COUNT + 1}
    assert server.told().count("set the mode") <= 16
    (album / "0/é00").chmod(0o400)
    assert counts(update(client, album, "in/")) == {"unchanged": COUNT + 1}
    assert stat.S_IMODE(server.path("in/album/0/é00").stat().st_mode) == 0o400


def test_file_that_has_become_executable_is_executable_there(
    server: Server, client: Client, album: Path, box: str
) -> None:
    update(client, album, f"{box}/")
    (album / "0/é00").chmod(0o755)
    assert counts(update(client, album, f"{box}/")) == {"unchanged": COUNT + 1}
    assert stat.S_IMODE(server.path(box, "album/0/é00").stat().st_mode) == 0o755


def test_modes_are_not_compared_when_none_is_kept(server: Server, client: Client, album: Path, box: str) -> None:
    update(client, album, f"{box}/")
    (album / "0/é00").chmod(0o700)
    before = state_of(server.path(box, "album"))
    assert counts(update(client, "--no-modes", album, f"{box}/")) == {"unchanged": COUNT + 1}
    assert state_of(server.path(box, "album")) == before


def test_interrupted_update_goes_on_with_the_rest(
    server: Server, client: Client, album: Path, box: str, proxy: MakeProxy
) -> None:
    update(client, album, f"{box}/")
    for path in album.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes() + b"more" * 3000)
    line = proxy(server.port, up=Fault("cut", 100_000))
    result = client.at(line.port)("--update", "--json", "--retries=3", album, f"{box}/")
    assert (result.status, counts(result)) == (0, {"delivered": COUNT + 1})
    assert state_of(server.path(box, "album")) == state_of(album)
    shutil.rmtree(album / "0")
    assert counts(update(client, album, f"{box}/")) == {"unchanged": COUNT + 1 - 4}


def test_times_and_modes_that_were_set_are_counted_and_named(
    server: Server, client: Client, album: Path, box: str, tmp_path: Path
) -> None:
    here, there = album, server.path(box, "album")
    sent: list[str | Path] = [here, f"{box}/"]
    fetched: list[str | Path] = ["--get", f"{box}/album", f"{tmp_path}/back/"]
    for origin, names, time in ((here, sent, 5 * SECOND), (there, fetched, 6 * SECOND)):
        assert client("-q", "-u", *names).status == 0
        (origin / "1/é01").chmod(0o600)
        (origin / "2/é02").chmod(0o755 if origin == here else 0o640)
        os.utime(origin / "0/é03", ns=(0, time))
        result = client("-u", "-v", *names)
        assert result.status == 0 and result.out.endswith(f", {COUNT} unchanged, 3 modes or times set\n"), result.out
        named = sorted(line.split("/")[-1] for line in result.out.splitlines() if line.startswith("set: "))
        assert named == ["é01", "é02", "é03"]
        (origin / "1/é01").chmod(0o640)
        result = update(client, *names)
        assert json.loads(result.out.splitlines()[-1])["set"] == 1
        assert "set" in [json.loads(line)["event"] for line in result.out.splitlines()]
        assert client("-u", *names).out.endswith(" unchanged\n")


ODD = [b"a\nb", b"\xff", b"x\x01 [y]*", b"!odd\n", b"space\x02 "]


def test_error_about_an_odd_name_has_the_pattern_that_leaves_it_out(
    server: Server, client: Client, folder: Path, box: str, tmp_path: Path
) -> None:
    """At either end; what it says is typed as it stands there."""
    make(folder / "tree/d/ok", 5)
    for names in ([folder / "tree", f"{box}/"], ["--get", f"{box}/tree", f"{tmp_path}/here/"]):
        origin = folder / "tree" if len(names) == 2 else server.path(box, "tree")
        for name in ODD:
            (origin / "d" / os.fsdecode(name)).touch()
        for options in (["-u"], ["-u", "-n"], ["--if-exists=skip"]):
            result = client(*options, *names)
            told = [re.search(r"leave it out: --exclude (.*)$", line) for line in result.err.splitlines()]
            patterns = [shlex.split(found[1])[0] for found in told if found is not None]
            assert (result.status, len(patterns)) == (1, len(ODD)), result.err
            result = client(*options, *(f"--exclude={pattern}" for pattern in patterns), *names)
            assert (result.status, "error" in result.err) == (0, False), result.err


def test_account_that_can_only_send_is_told_what_to_do_instead(
    make_server: MakeServer, tmp_path: Path, folder: Path
) -> None:
    server = make_server()
    server.add("bob", "--drop-only")
    bob = Client(server.port, tmp_path / "bob", user="bob")
    for name in ("a", "d/b"):
        make(folder / "tree" / name, 30)
    assert bob("-u", folder / "tree", "in/").status == 0
    make(folder / "tree/new", 30)
    result = bob("-u", folder / "tree", "in/")
    assert (result.status, server.path("in/tree/new", user="bob").exists()) == (1, True)
    lines = result.err.splitlines()
    assert len(lines) == 2 and all("may neither list nor replace" in line for line in lines), result.err
    assert all("--if-exists rename instead of --update" in line for line in lines)
    assert bob("--if-exists=rename", folder / "tree", "in/").status == 0
