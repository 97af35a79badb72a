"""Between the walk and the opening anybody may put links there: none is followed, and few descriptors are needed."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import PASSWORD, Client, Server
from source_files import close_folders

import sft.disk.source_folders
import sft.disk.tree
from sft.client.own_logs import OwnFiles
from sft.common.errors import SourceError
from sft.common.names import LOCAL_PARTIAL_AREA, MAX_DEPTH
from sft.disk.source_folders import Folders
from sft.disk.tree import Files, Found, Skipped, Tree


@pytest.fixture
def folders() -> Iterator[Folders]:
    made = Folders()
    before = len(os.listdir("/dev/fd"))
    yield made
    close_folders(made)
    assert len(os.listdir("/dev/fd")) == before


@pytest.fixture(params=["by descriptor", "by path"])
def either(request: pytest.FixtureRequest, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """With and without what Windows lacks."""
    if request.param == "by path":
        monkeypatch.setattr(sft.disk.tree, "HAVE_DESCRIPTORS", False)
    return folders


@pytest.fixture
def proj(tmp_path: Path) -> Path:
    """A folder to be sent; beside it a folder of the same shape that nobody named."""
    for name in ("proj", "outside"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "file").write_text(f"content of {name}")
    return tmp_path / "proj"


def walked(tree: Tree) -> list[Found]:
    return [each for each in tree.walk() if isinstance(each, Found)]


def read(tree: Tree, found: Found) -> bytes:
    source = tree.open(found.path, found.parts)
    space = bytearray(100)
    count = source.read_into(memoryview(space))
    source.close()
    return bytes(space[:count])


def put_link(place: Path, target: Path) -> None:
    """A link takes the place of what was there."""
    place.rename(place.with_name(place.name + " before"))
    place.symlink_to(target)


def refused(tree: Tree, found: Found) -> str:
    with pytest.raises(SourceError) as caught:
        tree.open(found.path, found.parts)
    assert found.path in caught.value.cause
    return caught.value.cause


@pytest.mark.parametrize("place", ["sub/file", "sub"])
def test_link_put_where_a_file_or_folder_was_found_is_an_error(proj: Path, either: Folders, place: str) -> None:
    tree = Tree(str(proj), False, either)
    found = walked(tree)[-1]
    close_folders(either)  # as after many other folders
    put_link(proj / place, proj.parent / "outside" / place)
    assert "link" in refused(tree, found)


@pytest.mark.parametrize("place", ["sub", ""])
def test_link_put_where_an_open_folder_was_leads_nowhere(proj: Path, folders: Folders, place: str) -> None:
    """The folder that the walk has seen is still open, wherever it is now."""
    tree = Tree(str(proj), False, folders)
    found = walked(tree)[-1]
    put_link(proj / place, proj.parent / "outside" / place)
    assert read(tree, found) == b"content of proj"


def test_folder_that_becomes_a_link_before_it_is_entered_is_an_error(proj: Path, either: Folders) -> None:
    walk = Tree(str(proj), False, either).walk()
    assert [isinstance(next(walk), Found) for _ in range(2)] == [True, True]
    put_link(proj / "sub", proj.parent / "outside" / "sub")
    (trouble,) = walk
    assert isinstance(trouble, SourceError)
    assert "link" in trouble.cause


@pytest.mark.parametrize("place", ["sub/file", "sub"])
def test_link_put_where_a_named_file_was_found_is_an_error(proj: Path, folders: Folders, place: str) -> None:
    tree = Tree(str(proj / "sub/file"), False, folders)
    (found,) = walked(tree)
    put_link(proj / place, proj.parent / "outside" / place)
    close_folders(folders)
    assert "not there any more" in refused(tree, found)


def test_named_link_is_followed(proj: Path, either: Folders) -> None:
    (proj / "link").symlink_to("../outside/sub/file")
    tree = Tree(str(proj / "link"), False, either)
    (found,) = walked(tree)
    assert read(tree, found) == b"content of outside"


@pytest.mark.parametrize("place", ["sub/file", "sub"])
def test_followed_links_may_take_any_place(proj: Path, either: Folders, place: str) -> None:
    tree = Tree(str(proj), True, either)
    found = walked(tree)[-1]
    close_folders(either)
    put_link(proj / place, proj.parent / "outside" / place)
    assert read(tree, found) == b"content of outside"


def test_file_that_was_replaced_by_another_is_sent(proj: Path, either: Folders) -> None:
    """Editors save so."""
    tree = Tree(str(proj), False, either)
    found = walked(tree)[-1]
    (proj / "new").write_text("saved again")
    (proj / "new").replace(proj / "sub/file")
    assert read(tree, found) == b"saved again"


def test_deep_and_wide_trees_need_few_descriptors(tmp_path: Path, folders: Folders) -> None:
    deep = tmp_path.joinpath("tree", *["d"] * 200)
    deep.mkdir(parents=True)
    for place in [deep, *list(deep.parents)[:200]]:
        (place / "z").write_text("z")
    for number in range(200):
        (tmp_path / "tree" / f"w{number}").mkdir()
        (tmp_path / "tree" / f"w{number}" / "file").write_text("z")
    before, most = len(os.listdir("/dev/fd")), 0
    tree = Tree(str(tmp_path / "tree"), False, folders)
    found = [each for each in walked(tree) if not each.is_folder]
    assert len(found) == 401
    for each in found:
        assert read(tree, each) == b"z"
        most = max(most, len(os.listdir("/dev/fd")) - before)
    assert 0 < most <= 2 * sft.disk.source_folders._MOST_OPEN


def test_many_named_folders_need_few_descriptors_and_stay_the_same(tmp_path: Path, folders: Folders) -> None:
    count = 3 * sft.disk.source_folders._MOST_OPEN
    trees = []
    for number in range(count):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "file").write_text(f"{number}")
        trees.append(Tree(str(tmp_path / f"{number}"), False, folders))
    before = len(os.listdir("/dev/fd"))
    found = [walked(tree)[-1] for tree in trees]
    assert len(os.listdir("/dev/fd")) - before <= 2 * sft.disk.source_folders._MOST_OPEN
    put_link(tmp_path / "1", tmp_path / "2")
    assert "not there any more" in refused(trees[1], found[1])
    for number in {*range(count)} - {1}:
        assert read(trees[number], found[number]) == str(number).encode()


def test_folder_deeper_than_any_path_may_be_is_not_entered(tmp_path: Path, folders: Folders) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(MAX_DEPTH + 50):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    assert max(len(each.parts) for each in walked(Tree(str(tmp_path), False, folders))) == MAX_DEPTH + 1
    shutil.rmtree(tmp_path / "d")


@pytest.mark.skipif(not hasattr(os, "O_PATH") or os.getuid() == 0, reason="who may read everything needs no right")
def test_named_file_in_a_folder_that_may_only_be_passed_is_sent(proj: Path, folders: Folders) -> None:
    (proj / "sub").chmod(0o300)
    try:
        tree = Tree(str(proj / "sub/file"), False, folders)
        (found,) = walked(tree)
        assert read(tree, found) == b"content of proj"
    finally:
        (proj / "sub").chmod(0o700)


def test_link_put_there_while_the_password_is_asked_for_delivers_nothing_of_it(
    server: Server, client: Client, proj: Path, box: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    running = client.start(f"--password-file={tmp_path / 'fifo'}", proj / "sub/file", proj, f"{box}/")
    with (tmp_path / "fifo").open("w") as typed:  # it is opened to be read only after the named ones were found
        put_link(proj / "sub", tmp_path / "outside" / "sub")
        typed.write(PASSWORD + "\n")
    done = running.finish()
    assert done.status == 0
    assert server.path(box, "file").read_text() == "content of proj"
    assert not server.path(box, "proj", "sub").exists()
    assert "skipped: " in done.out


def test_files_that_follow_each_other_come_together(tmp_path: Path, folders: Folders) -> None:
    for number in range(300):
        (tmp_path / f"f{number:03}").touch()
    (tmp_path / "f010").unlink()
    (tmp_path / "f010").mkdir()
    (tmp_path / "f010" / "below").touch()
    (tmp_path / "f299").unlink()
    (tmp_path / "f299").symlink_to("f298")
    walk = list(Tree(str(tmp_path), False, folders).walk_by_runs())
    shape = [(len(each.lines), each.folder) if isinstance(each, Files) else type(each) for each in walk]
    assert shape == [Found, (10, ()), Found, (1, ("f010",)), (256, ()), (32, ()), Skipped]
    files = walk[1]
    assert isinstance(files, Files)
    state = (tmp_path / "f003").stat()
    assert files.lines[3] == (1, "f003", "file", 0, state.st_mtime_ns, state.st_mode & 0o777, None, None)
    assert files.at(3) == Found(
        str(tmp_path / "f003"),
        ("f003",),
        False,
        0,
        state.st_mtime_ns,
        state.st_mode & 0o777,
        (state.st_dev, state.st_ino),
    )


def test_own_file_among_others_is_known_by_its_inode_and_what_a_fetch_left_by_its_name(
    tmp_path: Path, folders: Folders
) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    _, files = Tree(str(tmp_path), False, folders).walk_by_runs()
    assert isinstance(files, Files)
    state = (tmp_path / "b").stat()
    own = OwnFiles({(state.st_dev + 1, state.st_ino)})
    assert own.has_none(files)
    own.add((state.st_dev, state.st_ino), "a log")
    assert not own.has_none(files)
    assert [own.has(files.at(number)) for number in range(3)] == [False, True, False]
    (tmp_path / "b").rename(tmp_path / LOCAL_PARTIAL_AREA)
    _, files = Tree(str(tmp_path), False, folders).walk_by_runs()
    assert isinstance(files, Files)
    assert not OwnFiles(set()).has_none(files)
    assert OwnFiles(set()).has_none(files._replace(lines=files.lines[1:]))
    assert not OwnFiles(set()).has_none(files._replace(lines=files.lines[1:], folder=("d", LOCAL_PARTIAL_AREA)))
