"""Symbolic links that arrive: what they replace and count for, and that nothing follows one."""

import errno
import os
import time
from pathlib import Path

import pytest
from made_folders import make_folder
from quota_files import on_disk
from quota_files import opened as with_quota
from quota_files import written as written_down

from sft.common.errors import Code, Refused, UsageError
from sft.common.private_files import HIDDEN_LINK, check_area
from sft.disk.amounts import Amount, Quota
from sft.disk.root import PARTIAL_AREA
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled
from sft.disk.user_folder import UserFolder

MTIME = 1_234_567_890_123_456_789
HIDDEN = HIDDEN_LINK + "0" * 32

Outcome = Settled | Refused


def put_link(
    folder: UserFolder, *path: str, target: str = "new", policy: str = "fail", transfer: bytes = b"", may: bool = True
) -> Outcome:
    incoming = Incoming(transfer or os.urandom(16), path, None, MTIME, None, policy, may)
    try:
        (outcome,) = folder.publish([folder.begin_link(incoming, target)])
    except Refused as problem:
        return problem
    return outcome


def word_of(outcome: Outcome) -> str:
    if isinstance(outcome, Refused):
        return outcome.code
    return outcome.word if outcome.path == ("x",) else f"{outcome.word} as {'/'.join(outcome.path)}"


def state(path: Path) -> str:
    if path.is_symlink():
        return f"-> {os.readlink(path)}"
    return "folder" if path.is_dir() else path.read_text() if path.is_file() else "fifo" if path.exists() else "nothing"


def lay(path: Path, what: str) -> None:
    if what.startswith("-> "):
        path.symlink_to(what[3:])
    elif what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what != "nothing":
        path.write_text(what)


FREE, SAME, OTHER, FILE, FOLDER, FIFO = "nothing", "-> new", "-> old", "bytes", "folder", "fifo"
STORED, ALREADY, NUMBERED = "stored", "already", "stored as x.1"
# For each policy what becomes of a link to `new`, by what has its name.
MATRIX = {
    "fail": {FREE: STORED, SAME: ALREADY, OTHER: "exists", FILE: "exists", FOLDER: "is-folder", FIFO: "exists"},
    "rename": {FREE: STORED, SAME: ALREADY, OTHER: NUMBERED, FILE: NUMBERED, FOLDER: "is-folder", FIFO: NUMBERED},
    "replace": {FREE: STORED, SAME: ALREADY, OTHER: STORED, FILE: STORED, FOLDER: "is-folder", FIFO: "special"},
    "skip": {FREE: STORED, SAME: "skipped", OTHER: "skipped", FILE: "skipped", FOLDER: "is-folder", FIFO: "skipped"},
}


@pytest.mark.parametrize("policy", MATRIX)
@pytest.mark.parametrize("there", MATRIX["fail"])
def test_name_that_is_taken_by(alice: UserFolder, home: Path, policy: str, there: str) -> None:
    lay(home / "x", there)
    expected = MATRIX[policy][there]
    assert word_of(put_link(alice, "x", policy=policy)) == expected
    assert state(home / "x") == ("-> new" if expected == STORED else there)
    assert state(home / "x.1") == ("-> new" if expected == NUMBERED else "nothing")
    assert os.listdir(home.parent / PARTIAL_AREA / "alice") in ([], ["receipts"])


@pytest.mark.parametrize("there", [OTHER, FILE])
def test_without_the_right_to_replace_nothing_is_replaced(alice: UserFolder, home: Path, there: str) -> None:
    lay(home / "x", there)
    assert word_of(put_link(alice, "x", policy="replace", may=False)) == "not-replaced"
    assert state(home / "x") == there


def test_account_that_may_not_read_learns_only_that_a_name_is_taken(storage: Storage, home: Path) -> None:
    private = storage.user("alice", private=True)
    try:
        for there in (SAME, FILE, FOLDER):
            lay(home / "x", there)
            assert word_of(put_link(private, "x", policy="fail")) == NUMBERED
            (home / "x.1").unlink()
            (home / "x").rmdir() if there == FOLDER else (home / "x").unlink()
    finally:
        private.close()


@pytest.mark.parametrize("target", ["/", "..", "/etc/passwd", "a//b/./", "é\n", "x" * 4095, "\\", "nowhere"])
def test_target_is_kept_as_it_came_with_its_time(alice: UserFolder, home: Path, target: str) -> None:
    assert word_of(put_link(alice, "x", target=target)) == STORED
    assert (os.readlink(home / "x"), (home / "x").lstat().st_mtime_ns) == (target, MTIME)


def test_lost_receipt_of_a_renamed_link_is_found_again(alice: UserFolder, home: Path) -> None:
    lay(home / "x", FILE)
    for expected in (NUMBERED, "already as x.1"):
        assert word_of(put_link(alice, "x", policy="rename", transfer=b"t" * 16)) == expected
    assert word_of(put_link(alice, "x", target="other", policy="rename", transfer=b"t" * 16)) == "stored as x.2"


def test_what_lies_below_a_links_name_never_gets_behind_it(alice: UserFolder, home: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    assert word_of(put_link(alice, "x", target=str(tmp_path / "outside"))) == STORED
    assert word_of(put_link(alice, "x", "y")) == "link"
    with pytest.raises(Refused) as refused:
        make_folder(alice, ("x", "d"), None, None)
    assert refused.value.code is Code.LINK
    assert os.listdir(tmp_path / "outside") == []


def test_disk_without_links_is_a_refusal_of_the_link(
    alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "symlink", fail)
    outcome = put_link(alice, "x")
    assert isinstance(outcome, Refused) and (outcome.code, outcome.why) == (
        Code.STORAGE,
        "its disk has no symbolic links",
    )
    assert os.listdir(home) == []


def test_folder_is_flushed_before_a_link_counts_as_stored(
    alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "d").mkdir()
    flushed: list[tuple[int, str]] = []

    def note(descriptor: int) -> None:
        flushed.append((os.fstat(descriptor).st_ino, state(home / "d" / "x")))

    monkeypatch.setattr("sft.disk.folders.flush", note)
    assert isinstance(put_link(alice, "d", "x"), Settled)
    assert ((home / "d").stat().st_ino, "-> new") in flushed


# --- quotas -----------------------------------------------------------------------------------------------------------


def test_link_counts_as_an_empty_file_until_it_is_removed_or_replaced(storage: Storage, tmp_path: Path) -> None:
    root = tmp_path / "received"
    with with_quota(storage, Quota(10_000, 10)) as folder:
        assert isinstance(put_link(folder, "d", "x", target="t" * 600), Settled)
        assert isinstance(put_link(folder, "d", "y"), Settled)
        assert isinstance(put_link(folder, "d", "y", target="other", policy="replace"), Settled)
    assert written_down(root) == on_disk(root) == Amount(3 * 512, 3)
    assert storage.ledgers.recount("alice") == Amount(3 * 512, 3)
    with with_quota(storage, Quota(10_000, 10)) as folder:
        (root / "alice" / "d" / "file").write_bytes(b"x" * 5000)
        storage.ledgers.recount("alice")
        assert isinstance(put_link(folder, "d", "file", policy="replace"), Settled)
        folder.changes.remove(("d", "x"), False, folder.changes.removal(lambda: None))
    assert written_down(root) == on_disk(root) == Amount(3 * 512, 3)


def test_quota_that_is_used_up_refuses_a_link_but_not_one_that_is_there(storage: Storage) -> None:
    with with_quota(storage, Quota(None, 2)) as folder:
        assert isinstance(put_link(folder, "a"), Settled) and isinstance(put_link(folder, "b"), Settled)
        refused = put_link(folder, "c")
        assert isinstance(refused, Refused) and refused.code is Code.QUOTA
        again = put_link(folder, "a")
        assert isinstance(again, Settled) and again.already


# --- what a crash leaves ----------------------------------------------------------------------------------------------


def test_hidden_link_that_a_crash_has_left_is_swept_and_stops_nothing(
    storage: Storage, alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    area = home.parent / PARTIAL_AREA
    (area / "alice" / HIDDEN).symlink_to(home)
    check_area(area)
    assert storage.kept("alice") == Amount()
    assert storage.sweep() == 0
    later = time.time() + 100
    monkeypatch.setattr(time, "time", lambda: later)
    assert storage.sweep() == 1
    assert not os.path.lexists(area / "alice" / HIDDEN)


@pytest.mark.parametrize("name", ["link", HIDDEN + "0", "0" * 64])
def test_any_other_link_in_the_hidden_area_is_an_error(alice: UserFolder, home: Path, name: str) -> None:
    area = home.parent / PARTIAL_AREA
    (area / "alice" / name).symlink_to(home)
    with pytest.raises(UsageError, match="is a symbolic link"):
        check_area(area)
