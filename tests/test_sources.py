"""What is sent: only regular files, read as they were when they were opened; and what a walk finds."""

import inspect
import os
import select
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import wait_until
from source_files import close_folders, open_source
from tables import each_row

from sft.common.errors import SourceError
from sft.disk.source_folders import Folders
from sft.disk.sources import FileSource, PipeSource, changed, unreadable
from sft.disk.tree import Found, Skipped, Tree, Walked


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def refused(path: Path) -> str:
    """The error about `path`, which can't be sent; no descriptor of it stays open."""
    before = open_descriptors()
    with pytest.raises(SourceError) as caught:
        open_source(path)
    assert open_descriptors() == before
    assert str(path) in caught.value.cause
    assert caught.value.remedy
    return caught.value.cause


def write(path: Path, content: bytes) -> FileSource:
    path.write_bytes(content)
    return open_source(path)


def test_missing_file_is_told_as_such(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "missing")


def test_link_to_nothing_is_told_as_missing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    assert "does not exist" in refused(tmp_path / "link")


def test_folder_is_told_as_such(tmp_path: Path) -> None:
    assert "folder" in refused(tmp_path)


def test_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    refused(tmp_path / "file" / "below")


def test_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refused(tmp_path / "fifo")


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_device_is_refused(device: str) -> None:
    assert "not a regular file" in refused(Path(device))


def test_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's whole path has to be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        refused(tmp_path / "socket")


def test_unreadable_file_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "secret").chmod(0)
    if os.access(tmp_path / "secret", os.R_OK):
        pytest.skip("this user may read everything")
    assert "permission" in refused(tmp_path / "secret")


def test_link_to_a_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    source = open_source(tmp_path / "link")
    state = (tmp_path / "file").stat()
    assert source.identity == (state.st_dev, state.st_ino)
    assert source.size == 7
    source.close()


def test_state_is_that_of_the_opening(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "file").chmod(0o4640)
    os.utime(tmp_path / "file", ns=(1, 1_600_000_000_123_456_789))
    source = open_source(tmp_path / "file")
    state = (tmp_path / "file").stat()
    assert (source.size, source.mtime) == (5, state.st_mtime_ns)
    assert source.mode == stat.S_IMODE(state.st_mode) & 0o777 == 0o640
    source.check_unchanged()
    source.close()
    source.close()


def test_read_into_fills_and_then_falls_short_at_the_end(tmp_path: Path) -> None:
    content = os.urandom(10_000)
    source = write(tmp_path / "file", content)
    buffer = bytearray(6_000)
    assert source.read_into(memoryview(buffer)) == 6_000
    assert bytes(buffer) == content[:6_000]
    assert source.read_into(memoryview(buffer)) == 4_000
    assert bytes(buffer[:4_000]) == content[6_000:]
    assert source.read_into(memoryview(buffer)) == 0
    assert source.read_into(memoryview(buffer)[:0]) == 0
    source.check_unchanged()
    source.close()


def test_empty_file_is_read_as_empty(tmp_path: Path) -> None:
    source = write(tmp_path / "file", b"")
    assert source.size == 0
    assert source.read_into(memoryview(bytearray(10))) == 0
    source.check_unchanged()
    source.close()


@pytest.mark.parametrize("change", ["grown", "shrunk", "emptied", "rewritten", "touched back"])
def test_changed_file_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "file"
    source = write(path, b"12345")
    if change == "grown":
        with path.open("ab") as file:
            file.write(b"6")
    elif change in ("shrunk", "emptied"):
        os.truncate(path, 4 if change == "shrunk" else 0)
    else:  # the size stays; the clock of the disk may be too coarse to show it by itself
        path.write_bytes(b"54321")
        assert source.mtime is not None
        earlier = source.mtime - 10**9
        os.utime(path, ns=(earlier, earlier) if change == "touched back" else (source.mtime + 10**9,) * 2)
    with pytest.raises(SourceError) as caught:
        source.check_unchanged()
    assert "changed" in caught.value.cause
    source.close()


def test_removed_or_replaced_file_is_still_sent_as_it_was(tmp_path: Path) -> None:
    source = write(tmp_path / "file", b"12345")
    (tmp_path / "other").write_bytes(b"other content")
    os.replace(tmp_path / "other", tmp_path / "file")
    buffer = bytearray(5)
    assert source.read_into(memoryview(buffer)) == 5
    assert bytes(buffer) == b"12345"
    source.check_unchanged()
    source.close()


def test_changed_names_the_file_and_a_remedy(tmp_path: Path) -> None:
    problem = changed(str(tmp_path / "file"))
    assert str(tmp_path / "file") in problem.cause
    assert problem.remedy


def test_source_goes_on_anywhere(tmp_path: Path) -> None:
    source = write(tmp_path / "file", b"0123456789")
    buffer = bytearray(4)
    for offset, expected in ((6, b"6789"), (0, b"0123"), (3, b"3456")):
        source.go_to(offset)
        assert source.read_into(memoryview(buffer)) == 4
        assert bytes(buffer) == expected
    source.go_to(10)
    assert source.read_into(memoryview(buffer)) == 0
    source.close()


def test_descriptor_that_is_no_file_is_closed(tmp_path: Path) -> None:
    before = open_descriptors()
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(SourceError):
            FileSource("it", os.open(path, os.O_RDONLY))
    assert open_descriptors() == before


# --- pipes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The end to read from, and the one to write to, which the test closes."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def test_pipe_is_read_to_its_end_in_whole_pieces(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    content = os.urandom(300_000)

    def feed() -> None:
        for start in range(0, len(content), 777):
            os.write(writing, content[start : start + 777])
        os.close(writing)

    feeding = threading.Thread(target=feed)
    feeding.start()
    source = PipeSource(reading)
    assert (source.size, source.mtime, source.mode) == (None, None, None)
    buffer, got = bytearray(100_000), b""
    for _ in range(3):
        assert source.read_into(memoryview(buffer)) == 100_000
        got += buffer
    assert source.read_into(memoryview(buffer)) == 0
    assert got == content
    feeding.join(30)
    source.check_unchanged()
    source.close()
    os.fstat(reading)  # it is not ours to close


def test_pause_of_a_pipe_that_does_not_block_is_not_its_end(pipe: tuple[int, int]) -> None:
    """The program that started this one may have left its standard input so."""
    reading, writing = pipe
    os.set_blocking(reading, False)
    source = PipeSource(reading)
    os.write(writing, b"123")
    got: list[int] = []
    buffer = bytearray(6)
    reader = threading.Thread(target=lambda: got.append(source.read_into(memoryview(buffer))))
    reader.start()
    wait_until(lambda: not select.select([reading], [], [], 0)[0])
    os.write(writing, b"456")
    os.close(writing)
    reader.join(30)
    assert (got, bytes(buffer)) == ([6], b"123456")


def test_pipe_is_read_once(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    source = PipeSource(reading)
    source.go_to(0)
    with pytest.raises(SourceError):
        source.go_to(1)
    os.close(writing)
    assert source.read_into(memoryview(bytearray(1))) == 0
    with pytest.raises(SourceError):
        source.go_to(0)


def test_standard_input_that_is_a_folder_or_closed_is_told(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(SourceError) as caught:
        PipeSource(descriptor)
    assert "standard input is a folder" in caught.value.cause
    os.close(descriptor)
    with pytest.raises(SourceError):
        PipeSource(descriptor)


def test_pipe_that_cannot_be_read_is_told(pipe: tuple[int, int]) -> None:
    source = PipeSource(pipe[1])
    with pytest.raises(SourceError) as caught:
        source.read_into(memoryview(bytearray(1)))
    assert "standard input can't be read" in caught.value.cause
    os.close(pipe[1])


# --- walking ----------------------------------------------------------------------------------------------------------


def walk(name: str, follow: bool) -> Iterator[Walked]:
    """What a walk finds; nothing stays open."""
    folders = Folders()
    try:
        yield from Tree(name, follow, folders).walk()
    finally:
        close_folders(folders)


def walked(root: Path, follow: bool = False) -> list[str]:
    """What a walk finds, one word each: `a`, `d/`, `-skipped`, `!trouble`."""
    return [word(each, root) for each in walk(str(root), follow)]


def word(each: Walked, root: Path) -> str:
    if isinstance(each, SourceError):
        assert each.remedy
        return f"!{each.cause}"
    name = os.path.relpath(each.path, root)
    if isinstance(each, Skipped):
        assert each.why
        return f"-{name}"
    assert name == ("/".join(each.parts) or ".")
    return name + ("/" if each.is_folder else "")


@pytest.fixture
def stocked(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "b/d").mkdir(parents=True)
    for name in ("a", "b.", "b/c", "b/d/e", "B"):
        (root / name).write_bytes(name.encode())
    (root / "empty").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(b"outside")
    return root


def test_walk_finds_folders_before_their_content_and_names_in_order(stocked: Path) -> None:
    assert walked(stocked) == ["./", "B", "a", "b/", "b/c", "b/d/", "b/d/e", "b.", "empty/"]


def test_walk_of_a_file_is_that_file(stocked: Path) -> None:
    (found,) = walk(str(stocked / "a"), False)
    state = (stocked / "a").stat()
    assert found == Found(
        str(stocked / "a"), (), False, 1, state.st_mtime_ns, stat.S_IMODE(state.st_mode), (state.st_dev, state.st_ino)
    )


def identity(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_dev, state.st_ino


def test_walk_tells_size_time_and_mode(stocked: Path) -> None:
    (stocked / "a").chmod(0o4751)
    (stocked / "b").chmod(0o1750)
    for name in ("a", "b"):
        os.utime(stocked / name, ns=(1, 7 * 10**9))
    found = {each.parts: each for each in walk(str(stocked), False) if isinstance(each, Found)}
    assert found["a",] == Found(str(stocked / "a"), ("a",), False, 1, 7 * 10**9, 0o751, identity(stocked / "a"))
    assert found["b",] == Found(str(stocked / "b"), ("b",), True, 0, 7 * 10**9, 0o750, identity(stocked / "b"))


@pytest.mark.parametrize("follow", [False, True])
def test_root_that_is_a_link_is_entered(stocked: Path, tmp_path: Path, follow: bool) -> None:
    (tmp_path / "link").symlink_to("outside")
    assert walked(tmp_path / "link", follow) == ["./", "file"]


def test_links_are_skipped_with_a_reason(stocked: Path) -> None:
    (stocked / "b/file").symlink_to("../../outside/file")
    (stocked / "b/folder").symlink_to("../../outside")
    (stocked / "b/gone").symlink_to("missing")
    (stocked / "b/loop").symlink_to("loop")
    found = walked(stocked / "b")
    assert found == ["./", "c", "d/", "d/e", "-file", "-folder", "-gone", "-loop"]
    (why,) = {each.why for each in walk(str(stocked / "b"), False) if isinstance(each, Skipped)}
    assert "--follow" in why


def test_followed_links_stand_for_what_they_lead_to(stocked: Path) -> None:
    (stocked / "b/file").symlink_to("../../outside/file")
    (stocked / "b/folder").symlink_to("../../outside")
    (stocked / "b/gone").symlink_to("missing")
    (stocked / "b/loop").symlink_to("loop")
    *found, gone, loop = walked(stocked / "b", follow=True)
    assert found == ["./", "c", "d/", "d/e", "file", "folder/", "folder/file"]
    assert gone == f"!{stocked}/b/gone does not exist"
    assert loop.startswith(f"!{stocked}/b/loop can't be read")


def test_folder_that_a_followed_link_leads_back_to_is_skipped(stocked: Path) -> None:
    (stocked / "b/d/self").symlink_to(".")
    (stocked / "b/d/up").symlink_to("../..")
    (stocked / "b/d/beside").symlink_to("../../empty")
    found = walked(stocked, follow=True)
    assert found == [
        *["./", "B", "a", "b/", "b/c", "b/d/", "b/d/beside/", "b/d/e", "-b/d/self", "-b/d/up", "b.", "empty/"]
    ]


def test_two_links_that_lead_to_each_other_end(stocked: Path) -> None:
    for one, two in (("x", "y"), ("y", "x")):
        (stocked / one).mkdir()
        (stocked / one / "to").symlink_to(f"../{two}")
    found = walked(stocked, follow=True)
    assert [name for name in found if "to" in name] == ["x/to/", "-x/to/to", "y/to/", "-y/to/to"]


def test_fifo_socket_and_device_are_skipped(stocked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(stocked / "empty/fifo")
    (stocked / "empty/null").symlink_to("/dev/null")
    monkeypatch.chdir(stocked / "empty")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert walked(stocked / "empty", follow=True) == ["./", "-fifo", "-null", "-socket"]
    assert walked(stocked / "empty/fifo") == ["-."]
    below = [each.is_source for each in walk(str(stocked / "empty"), False) if isinstance(each, Skipped)]
    assert below == [False, False, False]
    (itself,) = walk(str(stocked / "empty/fifo"), False)
    assert isinstance(itself, Skipped)
    assert itself.is_source


def test_missing_root_is_told(tmp_path: Path) -> None:
    assert walked(tmp_path / "missing") == [f"!{tmp_path}/missing does not exist"]
    (tmp_path / "file").touch()
    assert walked(tmp_path / "file" / "x") == [f"!{tmp_path}/file/x does not exist"]
    (tmp_path / "link").symlink_to("missing")
    assert walked(tmp_path / "link") == [f"!{tmp_path}/link does not exist"]


def test_what_vanishes_during_a_walk_is_told_and_the_rest_is_found(stocked: Path) -> None:
    found = walk(str(stocked), False)
    for expected in ("./", "B", "a", "b/", "b/c"):
        assert word(next(found), stocked) == expected
    (stocked / "b/d/e").unlink()
    (stocked / "b/d").rmdir()
    assert word(next(found), stocked) == f"!{stocked}/b/d does not exist"
    assert word(next(found), stocked) == "b."
    assert word(next(found), stocked) == "empty/"
    (stocked / "empty").rmdir()  # between its finding and its listing
    assert word(next(found), stocked) == f"!{stocked}/empty does not exist"
    assert list(found) == []


def test_unreadable_folder_is_told_and_the_rest_is_found(stocked: Path) -> None:
    (stocked / "b").chmod(0)
    try:
        if os.access(stocked / "b", os.R_OK):
            pytest.skip("this user may read everything")
        found = walked(stocked)
    finally:
        (stocked / "b").chmod(0o700)
    assert found == ["./", "B", "a", "b/", f"!{stocked}/b can't be read: permission denied", "b.", "empty/"]


def test_name_that_is_not_utf8_appears(stocked: Path) -> None:
    name = os.fsdecode(b"\xff\xfe")
    (stocked / "empty" / name).write_bytes(b"1")
    assert walked(stocked / "empty") == ["./", name]


def test_walk_goes_deeper_than_the_interpreter_calls(tmp_path: Path) -> None:
    tmp_path.joinpath(*["d"] * 200).mkdir(parents=True)
    limit, depth = sys.getrecursionlimit(), len(inspect.stack(0))
    sys.setrecursionlimit(depth + 100)
    try:
        found = [len(each.parts) for each in walk(str(tmp_path), False) if isinstance(each, Found)]
    finally:
        sys.setrecursionlimit(limit)
    assert found == list(range(201))


def test_walk_leaks_no_descriptor(stocked: Path) -> None:
    before = open_descriptors()
    next(walk(str(stocked), False))
    walked(stocked)
    assert open_descriptors() == before


@each_row(
    ("problem", "words"),
    [
        (FileNotFoundError(2, "x"), "does not exist"),
        (IsADirectoryError(21, "x"), "is a folder"),
        (PermissionError(13, "x"), "permission denied"),
        (OSError(5, "broken disk"), "broken disk"),
    ],
)
def test_each_trouble_names_the_file_and_a_remedy(problem: OSError, words: str) -> None:
    told = unreadable("name", problem)
    assert told.cause.startswith("name ")
    assert words in told.cause
    assert told.remedy
