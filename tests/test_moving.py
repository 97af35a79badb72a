"""Fetching onto a disk without hard links, or without owners and modes, such as FAT, and nothing is lost."""

import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sft.common.errors import Code, Refused
from sft.common.names import LOCAL_PARTIAL_AREA
from sft.disk import moving
from sft.disk.folders import ExistingFile
from sft.disk.local import open_local
from sft.disk.moving import link_or_move, move_new
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled, TemporaryFile
from sft.disk.user_folder import Rules, UserFolder


@pytest.fixture(params=[True, False], ids=["renameat2", "no renameat2"])
def no_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", link)
    if not request.param:
        monkeypatch.setattr(moving, "_move", None)
    elif moving._move is None:
        pytest.skip("this system has no such call")


@pytest.fixture
def no_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is open to everybody, as its mount says, and can't be closed."""
    opened = os.open

    def open_it(path: Any, flags: int, *arguments: Any, **more: Any) -> int:
        descriptor = opened(path, flags, *arguments, **more)
        if flags & os.O_CREAT:
            fchmod(descriptor, 0o755)
        return descriptor

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no modes here")

    fchmod = os.fchmod
    monkeypatch.setattr(os, "open", open_it)
    monkeypatch.setattr(os, "fchmod", refuse)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


@pytest.fixture
def folder(here: Path, request: pytest.FixtureRequest) -> Iterator[UserFolder]:
    for name in ("no_links", "no_modes"):
        if name in request.fixturenames:
            request.getfixturevalue(name)
    made = open_local(here, Rules())
    yield made
    made.close()
    assert not (here / LOCAL_PARTIAL_AREA).exists()


def fetched(folder: UserFolder, name: str, content: bytes = b"new", policy: str = "fail", large: bool = False) -> str:
    """What has become of a file that was fetched."""
    incoming = Incoming(os.urandom(16), (name,), len(content), 10**18, 0o644, policy)
    try:
        partial = folder.begin(incoming, large)
    except Refused as problem:
        return problem.code
    if isinstance(partial, Settled):
        return "skipped"
    if not isinstance(partial, TemporaryFile):
        assert isinstance(partial, ExistingFile)
        partial.digest()
        try:
            partial = folder.begin_anyway(incoming, large)
        except Refused as problem:
            return problem.code
    if large:
        partial.resume_from(0)
    partial.write(memoryview(content))
    partial.sha256 = hashlib.sha256(content).digest()
    (outcome,) = folder.publish([partial])
    if isinstance(outcome, Refused):
        return outcome.code
    return "already" if outcome.already else "skipped" if outcome.skipped else outcome.path[-1]


def content_of(here: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in here.iterdir() if path.is_file()}


@pytest.mark.usefixtures("no_links")
@pytest.mark.parametrize("large", [False, True])
def test_files_are_published_and_none_is_replaced_unasked(folder: UserFolder, here: Path, large: bool) -> None:
    assert fetched(folder, "a", b"one", large=large) == "a"
    assert fetched(folder, "a", b"two", large=large) == Code.EXISTS
    assert fetched(folder, "a", b"two", "rename", large) == "a.1"
    assert fetched(folder, "a", b"six", "replace", large) == "a"
    assert fetched(folder, "a", b"ten", "skip", large) == "skipped"
    assert content_of(here) == {"a": b"six", "a.1": b"two"}
    assert (here / "a.1").stat().st_mtime_ns == 10**18


@pytest.mark.usefixtures("no_links")
def test_name_taken_in_the_last_moment_stays(folder: UserFolder, here: Path) -> None:
    incoming = Incoming(b"t" * 16, ("a",), 3, None, None, "rename")
    partial = folder.begin(incoming, True)
    assert isinstance(partial, TemporaryFile)
    partial.resume_from(0)
    partial.write(memoryview(b"new"))
    partial.sha256 = hashlib.sha256(b"new").digest()
    (here / "a").write_bytes(b"old")
    (outcome,) = folder.publish([partial])
    assert isinstance(outcome, Settled) and outcome.path == ("a.1",)
    assert content_of(here) == {"a": b"old", "a.1": b"new"}


@pytest.mark.usefixtures("no_links", "no_modes")
@pytest.mark.parametrize("large", [False, True])
def test_disk_without_owners_and_modes_takes_files_and_their_times(folder: UserFolder, here: Path, large: bool) -> None:
    assert not folder.area.keeps_modes
    assert fetched(folder, "a", b"one", large=large) == "a"
    assert content_of(here) == {"a": b"one"}
    assert (here / "a").stat().st_mtime_ns == 10**18


@pytest.mark.usefixtures("no_modes")
def test_part_that_was_kept_without_modes_is_gone_on_with(folder: UserFolder) -> None:
    incoming = Incoming(b"t" * 16, ("a",), 6, 1, None, "fail")
    partial = folder.begin(incoming, True)
    assert isinstance(partial, TemporaryFile)
    partial.write(memoryview(b"one"))
    assert partial.keep()
    again = folder.begin(incoming, True)
    assert isinstance(again, TemporaryFile) and again.offers == [3]
    again.discard()


def test_journal_that_is_open_to_others_is_refused_where_modes_are_kept(folder: UserFolder, here: Path) -> None:
    assert folder.area.keeps_modes
    incoming = Incoming(b"t" * 16, ("a",), 6, 1, None, "fail")
    partial = folder.begin(incoming, True)
    assert isinstance(partial, TemporaryFile)
    partial.write(memoryview(b"one"))
    partial.keep()
    (journal,) = (here / LOCAL_PARTIAL_AREA).glob("*.journal")
    journal.chmod(0o644)
    assert fetched(folder, "a", large=True) == Code.STORAGE
    for path in (here / LOCAL_PARTIAL_AREA).iterdir():
        path.unlink()


def test_receiver_never_moves(alice: UserFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries links at its start; what fails later is refused."""
    assert not alice.area.may_move and alice.area.keeps_modes

    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    assert alice.area.has_anonymous in (True, False)
    monkeypatch.setattr(os, "link", link)
    assert [fetched(alice, "a", large=large) for large in (False, True)] == [Code.STORAGE] * 2
    assert content_of(tmp_path / "received/alice") == {}


def test_disk_without_hard_links_keeps_the_server_from_starting(tmp_path: Path, no_links: None) -> None:
    with pytest.raises(Exception, match="hard links"):
        Storage(tmp_path / "received", Rules())


# --- the move itself --------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.usefixtures("no_links")
def test_move_takes_no_name_that_is_taken(tmp_path: Path, place: int) -> None:
    (tmp_path / "file").write_bytes(b"new")
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    for name in ("old", "link", "folder"):
        with pytest.raises(FileExistsError):
            move_new("file", place, name, place)
    move_new("file", place, "new", place)
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "new", "old"]
    assert (tmp_path / "new").read_bytes() == b"new" and (tmp_path / "old").read_bytes() == b"old"


@pytest.mark.parametrize("is_ours", [True, False])
def test_move_that_fails_takes_only_its_own_empty_file_away(
    tmp_path: Path, place: int, monkeypatch: pytest.MonkeyPatch, is_ours: bool
) -> None:
    monkeypatch.setattr(moving, "_move", None)
    (tmp_path / "file").write_bytes(b"new")

    def replace(*_: object, **__: object) -> None:
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
        if not is_ours:
            (tmp_path / "new").unlink()
            (tmp_path / "new").write_bytes(b"somebody's")
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="broken"):
        move_new("file", place, "new", place)
    assert sorted(os.listdir(tmp_path)) == (["file"] if is_ours else ["file", "new"])


@pytest.mark.skipif(moving._move is None, reason="this system has no such call")
def test_move_that_the_disk_does_not_know_is_done_in_two_steps(
    tmp_path: Path, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As exFAT does it through FUSE."""

    def refuse(*_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(moving, "_move", refuse)
    (tmp_path / "file").write_bytes(b"new")
    move_new("file", place, "new", place)
    assert os.listdir(tmp_path) == ["new"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EEXIST, errno.ENOSPC])
def test_second_name_that_fails_for_another_reason_than_the_kind_of_disk_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(number, "broken")

    (tmp_path / "old").write_bytes(b"old")
    monkeypatch.setattr(os, "link", link)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError) as caught:
        link_or_move("old", descriptor, "new", descriptor)
    os.close(descriptor)
    assert caught.value.errno == number
    assert os.listdir(tmp_path) == ["old"]
