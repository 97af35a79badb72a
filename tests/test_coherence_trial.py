"""Storages on which processes do not see each other's locks or writes: no quota is kept there, and a line says so."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sft.common.errors import Code, Refused
from sft.disk.amounts import Quota
from sft.disk.coherence_trial import why_incoherent
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules

LOCKS, WRITES = "a lock that one process has", "one process does not see"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    assert os.listdir(descriptor) == []
    os.close(descriptor)


def test_nothing_speaks_against_a_disk_of_this_machine(folder: int) -> None:
    assert why_incoherent(folder) == ""


def test_locks_that_lock_nothing_are_found(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, how: None)
    assert why_incoherent(folder).startswith(LOCKS)


def test_writes_that_stay_with_their_process_are_found(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda descriptor, text, offset: len(text))
    assert why_incoherent(folder).startswith(WRITES)


def test_answer_that_does_not_arrive_is_found(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, real = os.getpid(), os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda *arguments: real(*arguments) if os.getpid() == parent else len(arguments[1])
    )
    assert why_incoherent(folder).startswith(WRITES)


def test_child_that_fails_is_no_proof(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, real = os.getpid(), os.open

    def fail(*arguments: object, **options: object) -> int:
        if os.getpid() != parent:
            raise OSError
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", fail)
    assert "failed" in why_incoherent(folder)


def test_file_that_a_killed_start_has_left_is_removed_and_one_in_use_is_not(tmp_path: Path) -> None:
    for name in ("try-old", "try-new", "try-locked", "other"):
        (tmp_path / name).touch(0o600)
        if name != "try-new":
            os.utime(tmp_path / name, (0, 0))
    (tmp_path / "try-link").symlink_to("other")
    (tmp_path / "alice").mkdir()
    folder = os.open(tmp_path, os.O_RDONLY)
    with (tmp_path / "try-locked").open("rb") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        assert why_incoherent(folder) == ""
    os.close(folder)
    assert sorted(os.listdir(tmp_path)) == ["alice", "other", "try-link", "try-locked", "try-new"]


def test_quota_is_refused_where_it_can_not_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Storage(tmp_path / "received", Rules())) as storage:
        with monkeypatch.context() as patched:
            patched.setattr(fcntl, "flock", lambda descriptor, how: None)
            assert storage.try_sharing()[1].startswith(LOCKS)
        with pytest.raises(Refused) as caught:
            storage.user("alice", quota=Quota(1000, 10))
        assert caught.value.code is Code.STORAGE
        storage.user("alice").close()
