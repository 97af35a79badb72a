"""A folder whose account may learn nothing of what lies there."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from stored_files import TRAPS, Outcome, announced, code_of, commit, sha256, tree, using, written

from sft.common.errors import Code, Refused
from sft.common.values import replace
from sft.disk.folders import state_of
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled, TemporaryFile
from sft.disk.user_folder import UserFolder

pytestmark = pytest.mark.usefixtures("watched")  # a FIFO that is waited for is a failure, and no end of the tests


@pytest.fixture
def private(storage: Storage) -> Iterator[UserFolder]:
    """Alice's folder, for an account that may learn nothing of what lies there."""
    with using(storage, private=True) as folder:
        yield folder


def in_private(folder: UserFolder, incoming: Incoming, resumable: bool, content: bytes = b"new") -> Outcome:
    partial = folder.begin(incoming, resumable)
    assert isinstance(partial, TemporaryFile)
    (outcome,) = commit(folder, written(partial, content))
    return outcome


@pytest.mark.parametrize("resumable", [True, False], ids=["large", "small"])
@pytest.mark.parametrize("policy", ["fail", "skip", "rename"])
@pytest.mark.parametrize("there", ["same", "other", "folder", "live link", "dangling link", "fifo"])
def test_private_folder_reveals_nothing_but_a_new_name(
    private: UserFolder, home: Path, outside: Path, there: str, policy: str, resumable: bool
) -> None:
    if there in TRAPS:
        TRAPS[there](home / "a", outside)
    elif there == "folder":
        (home / "a").mkdir()
    else:
        (home / "a").write_bytes(b"new" if there == "same" else b"old")
    before = (home / "a").lstat()
    assert in_private(private, announced("a", policy=policy), resumable) == Settled(("a.1",))
    assert (home / "a.1").read_bytes() == b"new"
    assert (home / "a").lstat() == before
    assert (outside / "target").read_bytes() == b"precious"


@pytest.mark.parametrize("resumable", [True, False], ids=["large", "small"])
@pytest.mark.parametrize("there", [False, True], ids=["free", "taken"])
def test_private_folder_replaces_nothing(private: UserFolder, home: Path, there: bool, resumable: bool) -> None:
    if there:
        (home / "a").write_bytes(b"old")
    try:
        outcome = in_private(private, announced("a", policy="replace"), resumable)
    except Refused as problem:  # a large one before its content comes
        outcome = problem
    assert outcome == Settled(("a",)) if not there else code_of(outcome) is Code.NOT_REPLACED
    assert (home / "a").read_bytes() == (b"old" if there else b"new") and tree(home) == {"a"}


@pytest.mark.parametrize("resumable", [True, False], ids=["large", "small"])
@pytest.mark.parametrize("is_private", [True, False])
def test_name_taken_in_the_last_moment_is_not_replaced_without_the_right(
    storage: Storage, home: Path, monkeypatch: pytest.MonkeyPatch, is_private: bool, resumable: bool
) -> None:
    """Whether it is put there before the name is looked at or right behind that look."""
    look, names = state_of, list[str]()

    def look_and_put(name: str, folder: int) -> os.stat_result | None:
        names.append(name)
        state = look(name, folder)
        (home / name).write_bytes(b"old")
        return state

    with using(storage, private=is_private) as folder:
        before, behind = (
            folder.begin(replace(announced(name, policy="replace"), may_replace=False), resumable)
            for name in ("before", "behind")
        )
        (home / "before").write_bytes(b"old")
        (outcome,) = commit(folder, written(before))
        assert code_of(outcome) is Code.NOT_REPLACED
        names.clear()
        monkeypatch.setattr("sft.disk.publish.state_of", look_and_put)
        (outcome,) = commit(folder, written(behind))
    assert (home / "before").read_bytes() == b"old" and tree(home) == {"before", "behind"}
    assert (home / "behind").read_bytes() == (b"old" if names else b"new")


def test_private_folder_takes_a_free_name_as_it_is(private: UserFolder, home: Path) -> None:
    assert in_private(private, announced("d", "a"), resumable=True) == Settled(("d", "a"))
    assert in_private(private, announced("d", "a"), resumable=True) == Settled(("d", "a.1"))
    assert tree(home) == {"d", "d/a", "d/a.1"}


def test_private_folder_resumes_what_was_cut_off(private: UserFolder, home: Path) -> None:
    (home / "a").write_bytes(b"old")
    partial = private.begin(announced("a", size=6), resumable=True)
    written(partial, b"new").keep()
    partial = private.begin(announced("a", size=6), resumable=True)
    assert isinstance(partial, TemporaryFile)
    assert partial.offers == [3]
    partial.resume_from(3)
    partial.write(memoryview(b"est"))
    partial.sha256 = sha256(b"newest")
    assert commit(private, partial) == [Settled(("a.1",))]
    assert (home / "a.1").read_bytes() == b"newest"
