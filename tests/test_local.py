"""A folder of this machine that files are fetched into, and its hidden area."""

import contextlib
import fcntl
import os
import stat
from pathlib import Path

import pytest
from partial_files import open_descriptors
from stored_files import TRAPS, announced, commit, put, sha256, tree

from sft.common.errors import Code, Refused, UsageError
from sft.common.names import LOCAL_PARTIAL_AREA
from sft.disk.local import look_at_local, open_local
from sft.disk.storage import Storage
from sft.disk.temporary import Settled, TemporaryFile
from sft.disk.user_folder import Rules

pytestmark = pytest.mark.usefixtures("watched")  # a FIFO that is waited for is a failure, and no end of the tests


def test_local_folder_is_made_and_leaves_no_partial_area(tmp_path: Path) -> None:
    before = open_descriptors()
    folder = open_local(tmp_path / "d", Rules())
    assert os.listdir(tmp_path / "d") == [LOCAL_PARTIAL_AREA]
    assert stat.S_IMODE((tmp_path / "d" / LOCAL_PARTIAL_AREA).stat().st_mode) == 0o700
    for policy in ("fail", "rename", "replace"):
        assert isinstance(put(folder, "f", policy, policy=policy), Settled)
    folder.close()
    assert tree(tmp_path / "d") == {"f", "f/fail", "f/rename", "f/replace"}
    assert open_descriptors() == before


def test_local_folder_keeps_what_can_be_resumed(tmp_path: Path) -> None:
    for kept, content in (([], b"12"), ([2], b"34"), ([4], b"5")):
        folder = open_local(tmp_path, Rules())
        partial = folder.begin(announced("a", size=5), resumable=True)
        assert isinstance(partial, TemporaryFile)
        assert partial.offers == kept
        partial.resume_from(max(kept, default=0))
        partial.write(memoryview(content))
        if partial.size < 5:
            assert partial.keep()
        else:
            partial.sha256 = sha256(b"12345")
            assert commit(folder, partial) == [Settled(("a",))]
        folder.close()
        assert (tmp_path / LOCAL_PARTIAL_AREA).exists() is (partial.size < 5)
    assert (tmp_path / "a").read_bytes() == b"12345"


def test_stale_files_of_a_crash_in_a_local_folder_are_removed(tmp_path: Path) -> None:
    folder = open_local(tmp_path, Rules())
    (tmp_path / LOCAL_PARTIAL_AREA / "half").write_bytes(b"half")
    folder.close()
    assert os.listdir(tmp_path) == []


def test_partial_area_that_another_program_uses_stays(tmp_path: Path) -> None:
    one, two = open_local(tmp_path, Rules()), open_local(tmp_path, Rules())
    one.close()
    assert put(two, "a") == Settled(("a",))
    two.close()
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("again", [False, True], ids=["removed", "removed and made"])
def test_partial_area_that_another_program_removes_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """The seam for the moment between the opening and the lock is flock."""
    lock = fcntl.flock
    one, third = open_local(tmp_path, Rules()), []

    def close_first(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        one.close()
        assert os.listdir(tmp_path) == []
        if again:
            third.append(open_local(tmp_path, Rules()))
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", close_first)
    two = open_local(tmp_path, Rules())
    for folder in third:
        folder.close()
    assert put(two, "a") == Settled(("a",))
    two.close()
    assert os.listdir(tmp_path) == ["a"]


def test_local_folder_that_is_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    before = open_descriptors()
    for base in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(UsageError):
            open_local(base, Rules())
    assert open_descriptors() == before
    assert (tmp_path / "file").read_bytes() == b"old"


def test_local_folder_that_would_be_made_is_looked_at_where_it_could_be_made_only(tmp_path: Path) -> None:
    with look_at_local(tmp_path / "new") as found:
        assert found is None
    for look in (look_at_local, lambda base: contextlib.closing(open_local(base, Rules()))):
        with pytest.raises(UsageError) as caught, look(tmp_path / "gone" / "new"):
            pass
        assert f"{tmp_path}/gone" in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("trap", TRAPS)
def test_local_partial_area_that_is_a_trap_is_refused(tmp_path: Path, outside: Path, trap: str) -> None:
    (tmp_path / "d").mkdir()
    TRAPS[trap](tmp_path / "d" / LOCAL_PARTIAL_AREA, outside)
    before = open_descriptors()
    with pytest.raises(Refused):
        open_local(tmp_path / "d", Rules())
    assert open_descriptors() == before
    assert tree(outside) == {"target"}


def test_connection_goes_on_in_a_storage_that_is_renamed_and_the_next_one_does_not(tmp_path: Path) -> None:
    root, renamed = tmp_path / "received", tmp_path / "renamed"
    storage = Storage(root, Rules())
    with contextlib.closing(storage.user("alice")) as old:
        root.rename(renamed)
        with pytest.raises(Refused) as caught:
            storage.user("alice")
        assert caught.value.code is Code.UNAVAILABLE
        root.mkdir()
        with contextlib.closing(storage.user("alice")) as new:
            assert (put(old, "a"), put(new, "b")) == (Settled(("a",)), Settled(("b",)))
    assert (tree(renamed / "alice"), tree(root / "alice")) == ({"a"}, {"b"})
    storage.close()
