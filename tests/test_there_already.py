"""What is there already: compared before it is stored again, and what becomes of one that differs."""

import os
from pathlib import Path

import pytest
from partial_files import open_descriptors
from stored_files import TRAPS, Outcome, announced, code_of, commit, left, put, sha256, tree, written

from sft.common.errors import Code, Refused
from sft.disk.folders import ExistingFile
from sft.disk.temporary import Settled, TemporaryFile
from sft.disk.user_folder import UserFolder
from sft.disk.visible_files import VisibleFiles

pytestmark = pytest.mark.usefixtures("watched")  # a FIFO that is waited for is a failure, and no end of the tests


@pytest.mark.parametrize("policy", ["fail", "rename", "replace"])
def test_large_file_of_equal_size_is_compared_first(alice: UserFolder, home: Path, root: Path, policy: str) -> None:
    (home / "a").write_bytes(b"old")
    before = open_descriptors()
    existing = alice.begin(announced("a", policy=policy), resumable=True)
    assert isinstance(existing, ExistingFile)
    assert existing.size == 3
    assert existing.digest() == sha256(b"old")
    assert open_descriptors() == before
    assert left(root) == []


AFTER_ALL: dict[str, tuple[Outcome | Code, set[str]]] = {
    "fail": (Code.EXISTS, {"a"}),
    "rename": (Settled(("a.1",)), {"a", "a.1"}),
    "replace": (Settled(("a",)), {"a"}),
}


@pytest.mark.parametrize("policy", AFTER_ALL)
def test_file_that_differs_from_the_existing_one_goes_on_by_policy(alice: UserFolder, home: Path, policy: str) -> None:
    expected, names = AFTER_ALL[policy]
    (home / "a").write_bytes(b"old")
    incoming = announced("a", policy=policy)
    existing = alice.begin(incoming, resumable=True)
    assert isinstance(existing, ExistingFile)
    assert existing.digest() != sha256(b"new")
    try:
        (outcome,) = commit(alice, written(alice.begin_anyway(incoming, resumable=True)))
    except Refused as problem:
        outcome = problem
    assert (outcome.code if isinstance(outcome, Refused) else outcome) == expected
    assert tree(home) == names
    assert (home / "a").read_bytes() == (b"new" if policy == "replace" else b"old")


def test_what_was_compared_once_is_not_read_again(
    alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a disk image of any size."""
    (home / "a").write_bytes(b"old")
    incoming = announced("a", policy="replace")
    existing = alice.begin(incoming, resumable=True)
    assert isinstance(existing, ExistingFile)
    existing.digest()
    partial = written(alice.begin_anyway(incoming, resumable=True))
    monkeypatch.setattr(ExistingFile, "digest", lambda existing: pytest.fail("read again"))
    assert commit(alice, partial) == [Settled(("a",))]
    assert (home / "a").read_bytes() == b"new"


@pytest.mark.parametrize("policy", ["fail", "rename", "replace"])
def test_file_of_another_size_is_not_read(alice: UserFolder, home: Path, policy: str) -> None:
    (home / "a").write_bytes(b"older")
    for size in (3, None):
        try:
            begun = alice.begin(announced("a", size=size, policy=policy), resumable=True)
        except Refused as problem:
            assert (policy, problem.code) == ("fail", Code.EXISTS)
        else:
            assert isinstance(begun, TemporaryFile)
            begun.discard()


@pytest.mark.parametrize("policy", ["fail", "rename", "replace"])
def test_small_file_that_is_there_already_is_not_stored_again(
    alice: UserFolder, home: Path, root: Path, policy: str
) -> None:
    (home / "a").write_bytes(b"new")
    before = (home / "a").stat()
    assert put(alice, "a", policy=policy) == Settled(("a",), already=True)
    after = (home / "a").stat()
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    assert tree(home) == {"a"}
    assert left(root) == []


def test_small_file_that_is_there_already_is_skipped_unread(alice: UserFolder, home: Path) -> None:
    (home / "a").write_bytes(b"old")
    assert put(alice, "a", policy="skip") == Settled(("a",), skipped=True)


def test_small_file_of_equal_size_that_differs_goes_on_by_policy(alice: UserFolder, home: Path) -> None:
    (home / "a").write_bytes(b"old")
    assert code_of(put(alice, "a")) is Code.EXISTS
    assert put(alice, "a", policy="rename") == Settled(("a.1",))
    assert put(alice, "a", policy="rename", content=b"few") == Settled(("a.2",))
    assert put(alice, "a", policy="replace") == Settled(("a",))
    assert (home / "a").read_bytes() == b"new"


@pytest.mark.parametrize("policy", ["fail", "skip", "rename", "replace"])
def test_same_file_that_appears_before_the_commit_is_already_there(alice: UserFolder, home: Path, policy: str) -> None:
    partial = written(alice.begin(announced("a", policy=policy), resumable=True))
    (home / "a").write_bytes(b"new")
    skipped = policy == "skip"
    assert commit(alice, partial) == [Settled(("a",), skipped=skipped, already=not skipped)]
    assert tree(home) == {"a"}


def test_same_pipe_is_already_there(alice: UserFolder, home: Path) -> None:
    (home / "a").write_bytes(b"new")
    assert put(alice, "a", size=None, policy="replace") == Settled(("a",), already=True)
    assert put(alice, "a", size=None, policy="rename") == Settled(("a",), already=True)


@pytest.mark.parametrize("trap", ["live link", "link to a folder", "fifo"])
def test_trap_of_equal_size_is_not_compared(alice: UserFolder, home: Path, outside: Path, trap: str) -> None:
    TRAPS[trap](home / "a", outside)
    size = (home / "a").lstat().st_size
    with pytest.raises(Refused) as caught:
        alice.begin(announced("a", size=size), resumable=True)
    assert caught.value.code is Code.EXISTS


def test_existing_file_that_became_a_fifo_is_refused_without_waiting(
    alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seam for that moment is the opening."""
    (home / "a").write_bytes(b"old")
    look = VisibleFiles.state_of_path

    def swap(self: VisibleFiles, path: tuple[str, ...]) -> os.stat_result | None:
        state = look(self, path)
        (home / "a").unlink()
        os.mkfifo(home / "a")
        return state

    monkeypatch.setattr(VisibleFiles, "state_of_path", swap)
    before = open_descriptors()
    existing = alice.begin(announced("a"), resumable=True)
    assert isinstance(existing, ExistingFile)
    with pytest.raises(Refused):
        existing.digest()
    assert open_descriptors() == before


def test_existing_file_that_cannot_be_opened_counts_as_another_one(
    alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of another owner. Root may open everything, so that one call is made to fail."""
    (home / "a").write_bytes(b"old")

    def closed(self: VisibleFiles, path: tuple[str, ...]) -> int:
        raise Refused(Code.STORAGE)

    monkeypatch.setattr(VisibleFiles, "open_file", closed)
    with pytest.raises(Refused) as caught:
        alice.begin(announced("a"), resumable=True)
    assert caught.value.code is Code.EXISTS
    partial = alice.begin(announced("a", policy="rename"), resumable=True)
    assert isinstance(partial, TemporaryFile)
    assert commit(alice, written(partial)) == [Settled(("a.1",))]
