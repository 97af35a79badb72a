"""What is given: walks, listings and open files, and no link is followed."""

import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from partial_files import open_descriptors
from stored_files import SECOND, TRAPS

from sft.common.errors import Code, Refused, SourceError
from sft.disk.folders import Seen
from sft.disk.sources import FileSource
from sft.disk.user_folder import UserFolder

pytestmark = pytest.mark.usefixtures("watched")  # a FIFO that is waited for is a failure, and no end of the tests


@pytest.fixture
def stocked(alice: UserFolder, home: Path, outside: Path) -> UserFolder:
    """A folder with something of everything."""
    (home / "b/d").mkdir(parents=True)
    (home / "a").write_bytes(b"12345")
    (home / "b/d/e").write_bytes(b"")
    (home / "b/c").write_bytes(b"c")
    (home / "b.").write_bytes(b"")
    (home / "z").mkdir()
    for name, trap in TRAPS.items():
        trap(home / f"b/{name}", outside)
        trap(home / name, outside)
    (home / "a").chmod(0o4750)
    os.utime(home / "a", ns=(1, 7 * SECOND))
    return alice


def paths(found: Iterator[Seen]) -> list[str]:
    return ["/".join(seen.path) + ("/" if seen.is_folder else "") for seen in found]


def test_walk_finds_files_and_folders_in_order_and_nothing_else(stocked: UserFolder) -> None:
    below = ["b/", "b/c", "b/d/", "b/d/e"]
    assert paths(stocked.visible.walk(())) == ["a", *below, "b.", "z/"]
    assert paths(stocked.visible.walk(("b",))) == below
    assert paths(stocked.visible.walk(("b", "d", "e"))) == ["b/d/e"]
    assert paths(stocked.visible.walk(("z",))) == ["z/"]


def test_walk_goes_deeper_than_the_interpreter_calls(alice: UserFolder, home: Path) -> None:
    deep = home.joinpath(*["d"] * 200)
    deep.mkdir(parents=True)
    limit, depth = sys.getrecursionlimit(), len(inspect.stack(0))
    sys.setrecursionlimit(depth + 100)
    try:
        found = [len(seen.path) for seen in alice.visible.walk(())]
    finally:
        sys.setrecursionlimit(limit)
    assert found == list(range(1, 201))


def test_what_no_peer_may_name_does_not_end_a_walk(alice: UserFolder, home: Path) -> None:
    """The users of this machine name things as they like; the other end judges each name."""
    (home / "a\nb").mkdir()
    (home / "a\nb/c").write_bytes(b"")
    (home / "d").write_bytes(b"")
    assert paths(alice.visible.walk(())) == ["d"]


def test_seen_is_what_is_there(stocked: UserFolder) -> None:
    assert stocked.visible.look(("a",)) == Seen(("a",), False, 5, 7 * SECOND, 0o750)
    seen = stocked.visible.look(("b", "d"))
    assert seen is not None
    assert (seen.path, seen.is_folder, seen.size) == (("b", "d"), True, 0)


@pytest.mark.parametrize(
    "path", [*((trap,) for trap in TRAPS), ("gone",), ("b", "fifo"), ("link to a folder", "target")]
)
def test_trap_is_not_looked_at_and_not_walked(stocked: UserFolder, path: tuple[str, ...]) -> None:
    assert stocked.visible.look(path) is None
    with pytest.raises(Refused) as caught:
        list(stocked.visible.walk(path))
    codes = {"gone": Code.NOT_FOUND, "fifo": Code.SPECIAL, "b": Code.SPECIAL}
    assert caught.value.code is codes.get(path[0], Code.LINK)


def test_entries_are_names_in_the_order_of_their_bytes(stocked: UserFolder, home: Path) -> None:
    assert stocked.visible.names(("b",))[0] == sorted(["c", "d", *TRAPS])
    assert stocked.visible.names(())[0] == sorted(["a", "b", "b.", "z", *TRAPS])
    for name in ("\u00e9", "e\u0301", "\U0001f4e6", "\uffee"):
        (home / "z" / name).write_bytes(b"")
    assert stocked.visible.names(("z",))[0] == ["e\u0301", "\u00e9", "\uffee", "\U0001f4e6"]


def test_name_that_can_not_be_said_is_left_out_and_told(alice: UserFolder, home: Path) -> None:
    for name in (b"\xff", b"line\nfeed", b"a"):
        (home / os.fsdecode(name)).write_bytes(b"")
    assert alice.visible.names(()) == (["a"], ["line\nfeed", "\udcff"])
    missed: list[tuple[object, ...]] = []
    assert paths(alice.visible.walk((), lambda *told: missed.append(told))) == ["a"]
    assert missed == [((), ["line\nfeed", "\udcff"], Code.NAME)]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (("gone",), Code.NOT_FOUND),
        (("gone", "below"), Code.NOT_FOUND),
        (("a",), Code.NOT_FOLDER),
        (("a", "below"), Code.NOT_FOLDER),
        (("live link",), Code.LINK),
        (("link to a folder",), Code.LINK),
        (("fifo",), Code.NOT_FOLDER),
        (("..",), Code.NAME),
    ],
)
def test_entries_of_what_is_no_folder_are_refused(stocked: UserFolder, path: tuple[str, ...], code: Code) -> None:
    before = open_descriptors()
    with pytest.raises(Refused) as caught:
        stocked.visible.names(path)
    assert caught.value.code is code
    assert open_descriptors() == before


def test_what_vanishes_during_a_walk_is_left_out(stocked: UserFolder, home: Path) -> None:
    found = stocked.visible.walk(())
    assert next(found).path == ("a",)
    (home / "b/d/e").unlink()
    assert next(found).path == ("b",)
    (home / "b/c").unlink()
    assert next(found).path == ("b", "d")
    (home / "b/d").rmdir()
    (home / "b.").unlink()
    assert paths(found) == ["z/"]


def test_folder_that_becomes_a_link_during_a_walk_is_not_entered_but_told(
    stocked: UserFolder, home: Path, outside: Path
) -> None:
    missed: list[tuple[object, ...]] = []
    found = stocked.visible.walk(("z",), lambda *told: missed.append(told))
    assert next(found).path == ("z",)
    (home / "z").rmdir()
    (home / "z").symlink_to(outside)
    assert paths(found) == []
    assert missed == [((), ["z"], Code.UNREADABLE)]


def test_open_file_reads_what_was_asked_for(stocked: UserFolder) -> None:
    with os.fdopen(stocked.visible.open_file(("a",)), "rb") as file:
        assert file.read() == b"12345"
    with os.fdopen(stocked.visible.open_file(("b", "c")), "rb") as file:
        assert file.read() == b"c"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (("gone",), Code.NOT_FOUND),
        (("gone", "below"), Code.NOT_FOUND),
        (("a", "below"), Code.NOT_FOLDER),
        (("live link",), Code.LINK),
        (("dangling link",), Code.LINK),
        (("link to itself",), Code.LINK),
        (("link to a folder", "target"), Code.LINK),
        (("b", "live link"), Code.LINK),
        (("fifo", "below"), Code.NOT_FOLDER),
        (("..", "alice", "a"), Code.NAME),
        ((), Code.NAME),
    ],
)
def test_open_file_follows_no_link(stocked: UserFolder, path: tuple[str, ...], code: Code) -> None:
    before = open_descriptors()
    with pytest.raises(Refused) as caught:
        stocked.visible.open_file(path)
    assert caught.value.code is code
    assert open_descriptors() == before


@pytest.mark.parametrize("name", ["fifo", "z"])
def test_open_file_of_a_fifo_or_folder_waits_for_nobody_and_gives_no_source(stocked: UserFolder, name: str) -> None:
    before = open_descriptors()
    with pytest.raises(SourceError):
        FileSource(name, stocked.visible.open_file((name,)))
    assert open_descriptors() == before
