"""`--exclude` when fetching: what is excluded does not travel, and stays where it is, at either end."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeServer
from processes import Client, Server, make


@pytest.fixture
def proj(server: Server, box: str) -> Iterator[Path]:
    """A folder at the receiver."""
    top = server.path(box, "proj")
    for name in ("a.c", "a.o", "build/x", "src/b.c", "src/b.o", "src/deep/c"):
        make(top / name)
    (top / "empty").mkdir()
    (top / "src").chmod(0o750)
    os.utime(top / "src", ns=(0, 1_500_000_000_000_000_000))
    yield top
    shutil.rmtree(top)


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


TAKEN = {"a.c", "src", "src/b.c", "src/deep", "src/deep/c", "empty"}


@pytest.mark.parametrize("flags", [[], ["-u"]], ids=["all", "update"])
def test_what_is_excluded_does_not_come(client: Client, proj: Path, box: str, tmp_path: Path, flags: list[str]) -> None:
    patterns = ["--exclude=*.o", "--exclude=/build/"]
    result = client(*flags, *patterns, "--get", f"{box}/proj", "back/", cwd=tmp_path)
    assert (result.status, result.err) == (0, "") and "3 files fetched" in result.out
    back = tmp_path / "back/proj"
    assert below(back) == TAKEN
    assert (back / "src").stat().st_mtime_ns == 1_500_000_000_000_000_000
    assert (back / "src").stat().st_mode & 0o777 == 0o750
    assert (back / "a.c").stat().st_mtime_ns == (proj / "a.c").stat().st_mtime_ns
    again = client(*flags, *patterns, "--get", f"{box}/proj", "back/", cwd=tmp_path)
    assert again.status == 0 and below(back) == TAKEN
    make(proj / "src/b.c", 999)
    changed = client(*flags, *patterns, "--get", f"{box}/proj", "back/", cwd=tmp_path)
    assert changed.status == (0 if flags else 1)
    assert flags or "src/b.c exists already here" in changed.err
    assert ((back / "src/b.c").stat().st_size == 999) == bool(flags)


def test_excluded_names_are_not_removed_with_delete(client: Client, proj: Path, box: str, tmp_path: Path) -> None:
    back = tmp_path / "proj"
    for name in ("own.o", "build/own", "old/x", "old/own.o", "src/old"):
        make(back / name)
    patterns = ["--exclude=*.o", "--exclude=build"]
    result = client("-u", "--delete", *patterns, "--get", f"{box}/proj", ".", cwd=tmp_path)
    assert (result.status, result.err) == (0, "")
    assert below(back) == {*TAKEN, "own.o", "build", "build/own", "old", "old/own.o"}


def test_named_file_that_a_pattern_matches_is_skipped(client: Client, proj: Path, box: str, tmp_path: Path) -> None:
    result = client("--exclude=*.o", "--get", f"{box}/proj/a.c", f"{box}/proj/a.o", "back/", cwd=tmp_path)
    assert result.status == 0 and f"skipped: {box}/proj/a.o: excluded\n" in result.out + result.err
    assert below(tmp_path / "back") == {"a.c"}


def test_dry_run_leaves_out_the_same(client: Client, proj: Path, box: str, tmp_path: Path) -> None:
    result = client("-n", "--exclude=*.o", "--exclude=build", "--get", f"{box}/proj", "back/", cwd=tmp_path)
    assert result.status == 0 and ".o" not in result.out and "build" not in result.out and "src/b.c" in result.out
    assert not (tmp_path / "back").exists()


def test_excluding_needs_the_right_to_list(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server()
    server.add("getter", "--rights=get")
    make(server.path("d/a", user="getter"))
    result = Client(server.port, tmp_path / "c", "getter")("--exclude=b", "--get", "d", f"{tmp_path}/back/")
    assert result.status == 1 and "it lacks the right list" in result.err


@pytest.mark.parametrize("flags", [[], ["-u"]], ids=["all", "update"])
def test_whole_folder_under_a_new_name_is_made_now(make_server: MakeServer, tmp_path: Path, flags: list[str]) -> None:
    """Nobody tells the time of an account's own folder."""
    server = make_server()
    client, new, empty = Client(server.port, tmp_path / "client"), tmp_path / "new", tmp_path / "empty"
    make(server.path("d/a"))
    os.utime(server.path("d"), ns=(0, 1_500_000_000_000_000_000))
    for pattern, to in (("*.o", new), ("*", empty)):
        result = client(*flags, f"--exclude={pattern}", "--get", ".", to)
        assert (result.status, result.err) == (0, "")
    assert (below(new), below(empty)) == ({"d", "d/a"}, set())
    assert (new / "d").stat().st_mtime_ns == 1_500_000_000_000_000_000
    assert min(new.stat().st_mtime_ns, empty.stat().st_mtime_ns) > 1_600_000_000_000_000_000


def test_folder_that_gets_a_new_one_keeps_its_time(client: Client, proj: Path, box: str, tmp_path: Path) -> None:
    fetch = ("-u", "--exclude=*.o", "--get", f"{box}/proj", "back/")
    client(*fetch, cwd=tmp_path)
    (proj / "src/new").mkdir()
    os.utime(proj / "src", ns=(0, 1_500_000_000_000_000_000))
    assert client(*fetch, cwd=tmp_path).status == 0
    assert (tmp_path / "back/proj/src/new").is_dir()
    assert (tmp_path / "back/proj/src").stat().st_mtime_ns == 1_500_000_000_000_000_000
    assert client("-n", *fetch, cwd=tmp_path).err == "nothing would be done\n"
