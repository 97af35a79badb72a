"""Everything below a folder, in order, from any place on, whatever is done to it meanwhile."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sft.common.errors import Code, Refused
from sft.disk import tree_walk
from sft.disk.tree_walk import LeftOut, Node, Read, TreeWalk
from sft.disk.visible_files import VisibleFiles

Parts = tuple[str, ...]


def at_once(work: Callable[[], tuple[list[str], list[str]]]) -> tuple[list[str], list[str]]:
    return work()


@pytest.fixture
def visible(tmp_path: Path) -> Iterator[VisibleFiles]:
    """The files below `tmp_path`; the folder's descriptor is the only one that is open in the end."""
    before = len(os.listdir("/dev/fd"))
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield VisibleFiles(descriptor)
    os.close(descriptor)
    assert len(os.listdir("/dev/fd")) == before


def made(root: Path, *paths: str) -> None:
    """Files; a path that ends in a slash is a folder."""
    for path in paths:
        place = root / path
        (place if path.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            place.write_bytes(path.encode())


def walked(
    visible: VisibleFiles, path: Parts = (), after: Parts = (), page: int = 1 << 30, read: Read = at_once
) -> tuple[list[Parts], list[LeftOut]]:
    """The paths below `path`, and what is left out; with a pause after each `page` steps."""
    walk = TreeWalk(visible, path, after, read)
    found: list[Parts] = []
    left_out: list[LeftOut] = []
    place, steps = after, 0
    while (step := walk.next()) is not None:
        if isinstance(step, Node):
            place = (*place[: step.depth - 1], step.name)
            assert len(place) == step.depth
            found.append(place)
        else:
            left_out.append(step)
        steps += 1
        if steps % page == 0:
            walk.pause()
    walk.pause()
    return found, left_out


def everything(root: Path) -> list[Parts]:
    """In the order of the protocol: a folder before its content, names in the order of their bytes."""
    paths = [path.relative_to(root).parts for path in root.rglob("*")]
    return sorted(paths, key=lambda path: [part.encode() for part in path])


WIDE = ["a/", "a/b", "a/b.c", "a-/x", "a.txt", "a/c/d/e", "b/c/d/", "é/\U0001f600", "~", "z/z/z/z", "z/z/y", "Z"]


@pytest.mark.parametrize("page", [1, 2, 3, 1 << 30])
def test_all_is_found_once_and_in_order_with_any_pauses(visible: VisibleFiles, tmp_path: Path, page: int) -> None:
    made(tmp_path, *WIDE)
    assert walked(visible, page=page) == (everything(tmp_path), [])
    below = [path[1:] for path in everything(tmp_path) if path[:1] == ("z",) and len(path) > 1]
    assert walked(visible, ("z",), page=page) == (below, [])


def test_walk_goes_on_behind_every_path_that_is_or_could_be_there(visible: VisibleFiles, tmp_path: Path) -> None:
    made(tmp_path, *WIDE)
    paths = everything(tmp_path)
    places = {*paths, *((*path, extra) for path in paths for extra in ("0", "zzz")), ("0",), ("zzz",), ("m", "m", "m")}
    places |= {(*path[:-1], path[-1] + "!") for path in paths} | {("\U0010ffff",)}

    def key(path: Parts) -> list[bytes]:
        return [part.encode() for part in path]

    for place in places:
        assert walked(visible, after=place) == ([path for path in paths if key(path) > key(place)], []), place


@pytest.mark.parametrize("most", [1, 2, 1 << 30])
def test_files_in_one_go_are_those_that_come_one_by_one(visible: VisibleFiles, tmp_path: Path, most: int) -> None:
    made(tmp_path, *WIDE, *(f"z/{number:03}" for number in range(100)))
    os.mkfifo(tmp_path / "z/050 fifo")
    (tmp_path / "z/060 link").symlink_to("060")
    one_by_one, in_one_go = TreeWalk(visible, (), (), at_once), TreeWalk(visible, (), (), at_once)
    while True:
        files = in_one_go.files(most)
        assert len(files) <= most
        for depth, name, size, mtime, mode in files:
            assert one_by_one.next() == Node(depth, name, "file", size, mtime, mode, None)
        step = one_by_one.next()
        assert in_one_go.next() == step
        if step is None:
            break
        if isinstance(step, Node) and step.name == "040":
            in_one_go.pause()
            assert in_one_go.files(most) == []


def test_files_in_one_go_end_before_one_that_vanishes(visible: VisibleFiles, tmp_path: Path) -> None:
    made(tmp_path, "a", "b", "c", "d")
    walk = TreeWalk(visible, (), (), at_once)
    (tmp_path / "c").unlink()
    assert [name for _, name, *_ in walk.files(9)] == ["a", "b"]
    step = walk.next()
    assert isinstance(step, Node)
    assert (step.name, walk.next()) == ("d", None)
    walk.pause()


def test_node_tells_kind_size_time_and_mode(visible: VisibleFiles, tmp_path: Path) -> None:
    made(tmp_path, "d/", "f")
    (tmp_path / "l").symlink_to("../elsewhere")
    (tmp_path / "f").chmod(0o640)
    (tmp_path / "d").chmod(0o750)
    os.utime(tmp_path / "f", ns=(1, 2))
    os.utime(tmp_path / "d", ns=(1, -3))
    os.utime(tmp_path / "l", ns=(1, 4), follow_symlinks=False)
    walk = TreeWalk(visible, (), (), at_once)
    assert [walk.next() for _ in range(4)] == [
        Node(1, "d", "folder", 0, -3, 0o750, None),
        Node(1, "f", "file", 1, 2, 0o640, None),
        Node(1, "l", "link", 0, 4, 0o777, "../elsewhere"),
        None,
    ]
    assert walk.next() is None
    walk.pause()


def test_no_link_is_followed(visible: VisibleFiles, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    made(outside, "secret/x")
    made(tmp_path, "in/")
    (tmp_path / "in/out").symlink_to(outside)
    (tmp_path / "loop").symlink_to(".")
    os.mkfifo(tmp_path / "fifo")
    assert walked(visible) == ([("in",), ("in", "out"), ("loop",)], [LeftOut((), ["fifo"], Code.SPECIAL)])
    assert walked(visible, after=("in", "out", "secret")) == ([("loop",)], [])
    for path, code in ((("in", "out"), Code.LINK), (("loop", "in"), Code.LINK), (("fifo",), Code.NOT_FOLDER)):
        with pytest.raises(Refused) as refused:
            TreeWalk(visible, path, (), at_once)
        assert refused.value.code is code
    with pytest.raises(Refused) as refused:
        TreeWalk(visible, ("missing",), (), at_once)
    assert refused.value.code is Code.NOT_FOUND


def test_folder_that_becomes_a_link_before_it_is_entered_is_not_entered(
    visible: VisibleFiles, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    made(outside, "secret")
    for pauses in (False, True):
        made(tmp_path, "a/x", "b/")
        walk = TreeWalk(visible, (), (), at_once)
        assert isinstance(walk.next(), Node)
        if pauses:
            walk.pause()
        shutil.rmtree(tmp_path / "a")
        (tmp_path / "a").symlink_to(outside)
        step = walk.next()
        assert isinstance(step, Node) and step.name == "b"
        assert walk.next() is None
        walk.pause()
        (tmp_path / "a").unlink()


@pytest.mark.parametrize("gone", ["d/d", "d", "d/d/d/2"])
def test_what_vanishes_during_a_pause_is_left_out(visible: VisibleFiles, tmp_path: Path, gone: str) -> None:
    made(tmp_path, "d/d/d/1", "d/d/d/2", "d/d/d/3", "d/d/e", "d/f", "g")
    walk = TreeWalk(visible, (), (), at_once)
    for _ in range(4):
        step = walk.next()
    assert isinstance(step, Node) and step.name == "1"
    walk.pause()
    place = tmp_path / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    left: list[str] = []
    while (step := walk.next()) is not None:
        assert isinstance(step, Node)
        left.append(step.name)
    walk.pause()
    assert left == {"d/d": ["f", "g"], "d": ["g"], "d/d/d/2": ["3", "e", "f", "g"]}[gone]


def test_names_that_can_not_be_sent_are_told_once(visible: VisibleFiles, tmp_path: Path) -> None:
    made(tmp_path, "d/a", "d/e/b", "d/f", "z")
    for folder in ("d", "d/e"):
        (tmp_path / folder / "bad\n").touch()
        os.close(os.open(os.fsencode(tmp_path / folder) + b"/\xff", os.O_CREAT))
    bad = ["bad\n", "\udcff"]
    paths = everything_sent(tmp_path)
    both = [LeftOut(("d",), bad, Code.NAME), LeftOut(("d", "e"), bad, Code.NAME)]
    assert walked(visible) == (paths, both)
    assert walked(visible, after=("d",)) == (paths[1:], both)
    assert walked(visible, after=("d", "a")) == (paths[2:], both[1:])
    assert walked(visible, after=("d", "e", "b")) == (paths[4:], [])


def everything_sent(root: Path) -> list[Parts]:
    bad = {"bad\n", "\udcff"}
    paths = [path for path in root.rglob("*") if path.name not in bad]
    return sorted((path.relative_to(root).parts for path in paths), key=lambda path: [part.encode() for part in path])


def test_what_can_not_be_read_is_named_and_the_rest_is_found(
    visible: VisibleFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "a/1", "a/2", "a/3", "b/x", "c")
    looked, listed = os.stat, os.listdir

    def look(name: str, **more: Any) -> os.stat_result:
        if name in ("1", "2"):
            raise PermissionError(13, "no")
        return looked(name, **more)

    def names_in(folder: int) -> list[str]:
        names = listed(folder)
        if names == ["x"]:
            raise PermissionError(13, "no")
        return names

    monkeypatch.setattr(os, "stat", look)
    monkeypatch.setattr(os, "listdir", names_in)
    for page in (1, 1 << 30):
        assert walked(visible, page=page) == (
            [("a",), ("a", "3"), ("b",), ("c",)],
            [LeftOut(("a",), ["1", "2"], Code.UNREADABLE), LeftOut((), ["b"], Code.UNREADABLE)],
        )


def test_storage_that_is_gone_for_a_moment_loses_nothing(
    visible: VisibleFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "a/1", "a/2")
    walk = TreeWalk(visible, (), (), at_once)
    assert isinstance(walk.next(), Node) and isinstance(walk.next(), Node)
    walk.pause()

    def fail(*arguments: object, **more: object) -> int:
        raise OSError(24, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(Refused) as refused:
            walk.next()
        assert refused.value.code is Code.UNAVAILABLE
    step = walk.next()
    walk.pause()
    assert isinstance(step, Node) and step.name == "2"


def test_folder_that_can_not_be_entered_for_a_moment_is_not_left_out(visible: VisibleFiles, tmp_path: Path) -> None:
    made(tmp_path, "a/1", "b")
    walk = TreeWalk(visible, (), (), at_once)
    assert isinstance(step := walk.next(), Node) and step.name == "a"
    real = os.open

    def fail(path: Any, *more: Any, **options: Any) -> int:
        if path == "a":
            raise OSError(errno.EMFILE, "no more")
        return real(path, *more, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(Refused) as refused:
            walk.next()
    walk.pause()
    assert refused.value.code is Code.UNAVAILABLE
    names = [step.name for step in iter(walk.next, None) if isinstance(step, Node)]
    walk.pause()
    assert names == ["1", "b"]


@pytest.mark.parametrize("memory", [0, 10, 1 << 20])
def test_names_over_the_memory_are_read_again_and_nothing_is_lost(
    visible: VisibleFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr(tree_walk, "_NAMES_MEMORY", memory)
    made(
        tmp_path, *WIDE, *(f"deep/{'/'.join('ab'[number % 2] * depth)}/x" for depth in range(1, 9) for number in (0, 1))
    )
    reads = 0

    def counted(work: Callable[[], tuple[list[str], list[str]]]) -> tuple[list[str], list[str]]:
        nonlocal reads
        reads += 1
        return work()

    assert walked(visible, page=3, read=counted) == (everything(tmp_path), [])
    folders = 1 + sum(path.is_dir() for path in tmp_path.rglob("*"))
    assert (reads == folders) is (memory == 1 << 20)
    assert reads <= 2 * folders + 20


def test_few_descriptors_are_open_and_few_are_opened_in_a_deep_tree(
    visible: VisibleFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each folder has another name behind the one that leads down, so the walk comes back to each."""
    depth = 120
    made(tmp_path, "/".join("d" * depth) + "/")
    folder = tmp_path
    for _ in range(depth):
        (folder / "e").touch()
        folder /= "d"
    opened, calls, most = os.open, 0, 0
    before = len(os.listdir("/dev/fd"))

    def counted(*arguments: object, **more: int) -> int:
        nonlocal calls, most
        calls, most = calls + 1, max(most, len(os.listdir("/dev/fd")) - before)
        return opened(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", counted)
    found, _ = walked(visible)
    assert len(found) == 2 * depth
    assert most <= tree_walk._MOST_OPEN + 2
    assert calls <= 2 * depth + depth * depth / tree_walk._MOST_OPEN
