"""The quota of one account: never exceeded, never lost, and given back."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_folders import make_folder
from quota_files import (
    ENDLESS,
    LARGE,
    Disk,
    begin,
    fill,
    incoming,
    leave_partial,
    ledger_file,
    on_disk,
    opened,
    put,
    refuses,
    written,
)

from sft.common.errors import Code, Refused
from sft.disk import amounts
from sft.disk import ledger as ledgers
from sft.disk.amounts import Amount, Quota
from sft.disk.journal import JOURNAL, key_of
from sft.disk.root import PARTIAL_AREA
from sft.disk.storage import Storage
from sft.disk.temporary import Settled, TemporaryFile
from sft.disk.user_folder import Rules, UserFolder

pytestmark = pytest.mark.usefixtures("exact")

# --- what counts ------------------------------------------------------------------------------------------------------


def test_quota_of_bytes_is_reached_to_the_last_byte_and_not_passed(storage: Storage, root: Path) -> None:
    with opened(storage, Quota(200_000)) as folder:
        assert not refuses(put(folder, "a", 150_000))
        assert refuses(put(folder, "b", 50_001))
        assert not refuses(put(folder, "c", 50_000))
        assert refuses(put(folder, "d", 1))
        assert not refuses(put(folder, "empty", 0))
    assert written(root) == on_disk(root) == Amount(200_000, 3)


def test_quota_of_files_counts_folders_too(storage: Storage, root: Path) -> None:
    with opened(storage, Quota(None, 5)) as folder:
        assert not refuses(put(folder, "x/y/a", 10))
        make_folder(folder, ("x", "z"), None, None)
        make_folder(folder, ("x", "z"), None, None)
        assert not refuses(put(folder, "x/y/b", 10))
        assert refuses(put(folder, "x/y/c", 10))
        with pytest.raises(Refused) as caught:
            make_folder(folder, ("n",), None, None)
        assert caught.value.code is Code.QUOTA and not (root / "alice/n").exists()
    assert written(root) == on_disk(root) == Amount(20, 5)


def test_folder_that_is_removed_is_reserved_again_above_one_that_is_not_made_yet(storage: Storage) -> None:
    with opened(storage, ENDLESS) as folder:
        assert not refuses(put(folder, "x/a", 10))
        begin(folder, "x/y/b", 10).discard()  # x/y stays reserved until the connection ends
        folder.changes.remove(("x",), True, folder.changes.removal(lambda: None))
        begun = begin(folder, "x/y/b", 10)
        ledger = folder.allowance._ledger
        assert ledger is not None and (used := ledger.used()) is not None
        assert used - ledger._spare == Amount(10, 3)
        begun.discard()


@pytest.mark.parametrize("size", [100, LARGE])
def test_announced_size_is_reserved_before_a_byte_has_come(storage: Storage, size: int) -> None:
    with opened(storage, Quota(size + 50)) as folder, opened(storage, Quota(size + 50)) as other:
        partial = begin(folder, "a", size)
        assert refuses(put(other, "b", 51))
        partial.discard()
        assert not refuses(put(other, "b", 51))


def test_pipe_reserves_as_it_grows(storage: Storage, root: Path) -> None:
    with opened(storage, Quota(3 << 20)) as folder, opened(storage, Quota(3 << 20)) as other:
        pipe = begin(folder, "pipe", None)
        fill(pipe, 2 << 20)
        assert refuses(put(other, "a", (1 << 20) + 1))
        assert not refuses(put(other, "b", 1 << 20))
        with pytest.raises(Refused) as caught:
            pipe.write(memoryview(b"x"))
        assert caught.value.code is Code.QUOTA
        pipe.discard()
        assert not refuses(put(other, "c", 2 << 20, announced=False))
    assert written(root) == on_disk(root) == Amount(3 << 20, 2)


def test_kept_partial_file_counts_by_its_bytes_and_is_resumed_within_its_own(storage: Storage, root: Path) -> None:
    quota, transfer = Quota(100_000), b"t" * 16
    with opened(storage, quota) as folder:
        partial = begin(folder, "a", 90_000, transfer=transfer)
        fill(partial, 40_000)
        assert partial.keep()
    assert written(root) == on_disk(root) == Amount(40_000, 1)
    with opened(storage, quota) as folder:
        assert refuses(put(folder, "b", 60_001))
        partial = begin(folder, "a", 90_000, transfer=transfer)
        assert refuses(put(folder, "b", 10_001))
        fill(partial, 90_000)
        assert isinstance(folder.publish([partial])[0], Settled)
    assert written(root) == on_disk(root) == Amount(90_000, 1)


def test_empty_partial_file_of_a_process_that_died_counts_once_when_it_is_taken_up(
    storage: Storage, root: Path
) -> None:
    with opened(storage, ENDLESS) as folder:
        partial = begin(folder, "a", 90_000)
        leave_partial(root, "b")
        assert storage.ledgers.recount("alice") == Amount(0, 1)
        other = begin(folder, "b", 90_000)
        outcomes = folder.publish([fill(partial, 90_000), fill(other, 90_000)])
        assert all(isinstance(each, Settled) for each in outcomes)
    assert written(root) == on_disk(root) == Amount(180_000, 2)


def test_resuming_what_does_not_fit_any_more_is_refused_and_keeps_its_bytes(storage: Storage, root: Path) -> None:
    with opened(storage, ENDLESS) as folder:
        fill(begin(folder, "a", 90_000), 40_000).keep()
        assert not refuses(put(folder, "b", 30_000))
    with opened(storage, Quota(100_000)) as folder, pytest.raises(Refused) as caught:
        begin(folder, "a", 90_000)
    assert caught.value.code is Code.QUOTA
    assert written(root) == on_disk(root) == Amount(70_000, 2)


def test_connection_that_takes_over_needs_nothing_twice(storage: Storage, root: Path) -> None:
    quota, transfer = Quota(100_000), b"t" * 16
    with opened(storage, quota) as old, opened(storage, quota) as new:
        first = fill(begin(old, "a", 90_000, transfer=transfer), 40_000)
        second = begin(new, "a", 90_000, transfer=transfer)
        assert not first.keep()
        assert refuses(put(old, "b", 10_001))
        fill(second, 90_000)
        assert isinstance(new.publish([second])[0], Settled)
    assert written(root) == on_disk(root) == Amount(90_000, 1)


def test_replaced_file_is_credited_when_the_new_one_is_there(storage: Storage, root: Path) -> None:
    with opened(storage, Quota(100_000)) as folder:
        assert not refuses(put(folder, "a", 60_000))
        assert refuses(put(folder, "a", 50_000, "replace")), "both are there for a while"
        assert not refuses(put(folder, "a", 40_000, "replace"))
        assert not refuses(put(folder, "b", 60_000))
    assert written(root) == on_disk(root) == Amount(100_000, 2)


@pytest.mark.parametrize("policy", ["fail", "skip", "rename"])
def test_what_is_there_already_or_skipped_uses_nothing_more(storage: Storage, root: Path, policy: str) -> None:
    content = b"the same"
    with opened(storage, Quota(3 * len(content), 2)) as folder:
        for _ in range(5):
            partial = folder.begin(incoming("a", len(content), policy), resumable=False)
            if isinstance(partial, TemporaryFile):
                partial.write(memoryview(content))
                partial.sha256 = hashlib.sha256(content).digest()
                assert isinstance(folder.publish([partial])[0], Settled)
    assert written(root) == on_disk(root) == Amount(len(content), 1)


def test_file_that_fails_gives_back_what_it_reserved(storage: Storage, root: Path) -> None:
    with opened(storage, Quota(100_000)) as folder:
        for _ in range(3):
            first, second = begin(folder, "a", 40_000), begin(folder, "a", 40_001)
            outcomes = folder.publish([fill(first, 40_000), fill(second, 40_001)])
            assert [isinstance(each, Refused) for each in outcomes] == [False, True]
            (root / "alice/a").unlink()
            storage.ledgers.recount("alice")
    assert written(root) == on_disk(root) == Amount()


def test_what_was_removed_by_hand_is_free_after_a_recount(storage: Storage, root: Path) -> None:
    with opened(storage, Quota(100_000)) as folder:
        assert not refuses(put(folder, "x/a", 100_000))
        (root / "alice/x/a").unlink()
        assert refuses(put(folder, "b", 1))
        assert storage.ledgers.recount("alice") == Amount(0, 1)
        assert not refuses(put(folder, "b", 100_000))
    assert written(root) == on_disk(root) == Amount(100_000, 2)


def test_recount_spares_what_is_on_its_way(storage: Storage, root: Path) -> None:
    with opened(storage, Quota(200_000)) as folder, opened(storage, Quota(200_000)) as other:
        large = fill(begin(folder, "a", 90_000), 50_000)
        pipe = fill(begin(folder, "pipe", None), 10_000)
        small = begin(folder, "s", 60_000)
        assert storage.ledgers.recount("alice") == Amount()
        assert refuses(put(other, "b", 40_001))
        assert not refuses(put(other, "c", 40_000))
        outcomes = folder.publish([fill(large, 90_000), pipe, fill(small, 60_000)])
        assert all(isinstance(each, Settled) for each in outcomes)
    assert written(root) == on_disk(root) == Amount(200_000, 4)


def test_links_count_as_empty_files_and_what_they_lead_to_does_not(
    storage: Storage, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/huge").write_bytes(bytes(5000))
    with opened(storage, ENDLESS) as folder:
        put(folder, "a", 10)
        (root / "alice/link").symlink_to(tmp_path / "outside")
        (root / "alice/file").symlink_to(tmp_path / "outside/huge")
        os.mkfifo(root / "alice/fifo")
        assert storage.ledgers.recount("alice") == Amount(10, 3)


# --- without a quota, and with one that comes and goes ----------------------------------------------------------------


def test_account_without_a_quota_has_no_ledger(storage: Storage, root: Path) -> None:
    with opened(storage, amounts.NO_QUOTA) as folder:
        assert not refuses(put(folder, "a", 10))
    assert not ledger_file(root).exists()
    assert [each.name for each in (root / PARTIAL_AREA).iterdir()] == ["alice"]


def test_what_was_sent_without_a_quota_is_counted_when_one_comes(storage: Storage, root: Path) -> None:
    for quota, name in ((ENDLESS, "a"), (amounts.NO_QUOTA, "b"), (Quota(30), "c")):
        with opened(storage, quota) as folder:
            assert not refuses(put(folder, name, 10))
    assert written(root) == on_disk(root) == Amount(30, 3)


def test_many_small_files_cost_few_writes(storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    before = os.pwrite

    def counting(descriptor: int, text: bytes, at: int) -> int:
        nonlocal count
        count += bytes(text[:8]) == b'{"bytes"'
        return before(descriptor, text, at)

    monkeypatch.setattr(os, "pwrite", counting)
    with opened(storage, Quota(1 << 30, 100_000)) as folder:
        for group in range(4):
            partials = [fill(begin(folder, f"{group}-{number}", 100), 100) for number in range(256)]
            assert all(isinstance(each, Settled) for each in folder.publish(partials))
    assert written(root) == on_disk(root) == Amount(102_400, 1024)
    assert count <= 14, "one for each group, one for what is reserved in advance, and a few at both ends"


# --- what is wrong with the files -------------------------------------------------------------------------------------


DAMAGES = {
    "empty": b"",
    "torn": b'{"bytes": 5, "fi',
    "negative": b'{"bytes": -5, "files": 0, "holders": {}}',
    "text": b'{"bytes": "5", "files": 0, "holders": {}}',
    "true": b'{"bytes": true, "files": 0, "holders": {}}',
    "path": b'{"bytes": 0, "files": 0, "holders": {"../../x": [0, 0]}}',
    "short holder": b'{"bytes": 0, "files": 0, "holders": {".holder-0123456789abcdef": [0]}}',
    "no holders": b'{"bytes": 0, "files": 0, "holders": 5}',
    "a list": b"[]",
    "nesting": b"[" * 100_000,
    "dead holder": b'{"bytes": 0, "files": 0, "holders": {".holder-0123456789abcdef": [0, 0]}}',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_ledger_is_counted_anew(storage: Storage, root: Path, damage: str) -> None:
    with opened(storage, ENDLESS) as folder:
        put(folder, "a", 60)
    ledger_file(root).write_bytes(DAMAGES[damage])
    with opened(storage, Quota(100)) as folder:
        assert refuses(put(folder, "b", 41))
    assert written(root) == on_disk(root) == Amount(60, 1)


@pytest.mark.parametrize("damage", ["empty", "gone"])
def test_refuse_while_the_ledger_is_damaged_under_way(storage: Storage, root: Path, damage: str) -> None:
    with opened(storage, ENDLESS) as folder:
        put(folder, "a", 60)
        if damage == "gone":
            ledger_file(root).unlink()
        else:
            os.truncate(ledger_file(root), 0)
        outcome = put(folder, "b", 100 << 20)
        assert isinstance(outcome, Refused) and outcome.code is Code.STORAGE
    with opened(storage, Quota(100)) as folder:
        assert refuses(put(folder, "b", 41))
    assert written(root) == on_disk(root)


@pytest.mark.parametrize("name", [ledgers.LEDGER, ledgers.GATE])
@pytest.mark.parametrize("trap", ["link", "folder", "fifo", "readable", "of another user"])
def test_refuse_ledger_that_is_not_ours_alone(
    storage: Storage, root: Path, tmp_path: Path, name: str, trap: str
) -> None:
    with opened(storage, ENDLESS):
        pass
    path, target = root / PARTIAL_AREA / "alice" / name, tmp_path / "precious"
    target.write_bytes(b"precious")
    if trap == "readable":
        path.chmod(0o640)
    elif trap == "of another user":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(path, 12345, -1)
    else:
        path.unlink()
        make: dict[str, Callable[[], object]] = {
            "link": lambda: path.symlink_to(target),
            "folder": path.mkdir,
            "fifo": lambda: os.mkfifo(path),
        }
        make[trap]()
    with pytest.raises(Refused) as caught:
        storage.user("alice", quota=ENDLESS)
    assert caught.value.code is Code.STORAGE and "ledger" in caught.value.why
    storage.user("alice").close()  # who has no quota needs none
    assert target.read_bytes() == b"precious"


# --- free space -------------------------------------------------------------------------------------------------------


def test_space_that_must_stay_free_is_kept_when_announced_and_while_growing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(root, Rules(free_space=1 << 30))
    disk = Disk((1 << 30) + 100_000)
    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: disk)
    for quota in (amounts.NO_QUOTA, ENDLESS):
        with opened(storage, quota) as folder:
            for size in (100_001, 1 << 40):
                outcome = put(folder, "a", size)
                assert isinstance(outcome, Refused) and outcome.code is Code.NO_SPACE
            assert isinstance(put(folder, "b", 100_000, "replace"), Settled)
            for size in (90_000, 0):
                partial = begin(folder, "c", size or None)
                disk.f_bavail -= 100_001
                with pytest.raises(Refused) as caught:
                    fill(partial, 9 << 20)
                assert caught.value.code is Code.NO_SPACE and partial.size <= 4 << 20
                partial.discard()
                disk.f_bavail += 100_001
    storage.close()


# --- failures ---------------------------------------------------------------------------------------------------------


def test_group_is_refused_and_given_back_when_the_ledger_fails(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(storage, Quota(1_000_000)) as folder:
        assert not refuses(put(folder, "first", 1)), "from here on the process has a file that says it is there"
        before = len(os.listdir("/dev/fd"))
        sizes = {"small": 1000, "large": 100_000, "pipe": None}
        group = [fill(begin(folder, name, size), size or 500) for name, size in sizes.items()]

        def fail(*_: object) -> None:
            raise OSError(errno.ENOLCK, "no locks")

        with monkeypatch.context() as patched:
            patched.setattr("sft.disk.ledger.Gate.moving", fail)
            outcomes = folder.publish(group)
            assert [outcome.code for outcome in outcomes if isinstance(outcome, Refused)] == [Code.STORAGE] * 3
            assert len(os.listdir("/dev/fd")) == before
        assert not refuses(put(folder, "all", 999_999)), "nothing stays reserved"
    assert on_disk(root) == Amount(1_000_000, 2)


@pytest.mark.parametrize("what", ["kept", "visible"])
def test_counting_without_a_free_descriptor_fails_and_tells_no_smaller_number(
    storage: Storage, root: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(storage, ENDLESS) as folder:
        put(folder, "a/b/c", 100)
        fill(begin(folder, "kept", LARGE), LARGE - 1).keep()
        (kept,) = (
            name for name in os.listdir(root / PARTIAL_AREA / "alice") if key_of(name) != name.removesuffix(JOURNAL)
        )
        wanted, real = ("b" if what == "visible" else kept), os.open

        def none_is_free(name: Any, *arguments: Any, **options: Any) -> int:
            if name == wanted:
                raise OSError(errno.EMFILE, "too many open files")
            return real(name, *arguments, **options)

        monkeypatch.setattr(os, "open", none_is_free)
        with pytest.raises(Refused) as caught:
            storage.ledgers.recount("alice")
        assert caught.value.code is Code.UNAVAILABLE
        monkeypatch.undo()
    assert written(root) == on_disk(root)


@pytest.mark.parametrize("size", [100, None, LARGE])
@pytest.mark.parametrize("fault", ["memory", "close", "lock"])
def test_failure_at_the_end_leaks_no_reservation_and_no_descriptor(
    storage: Storage, root: Path, fault: str, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(storage, ENDLESS) as folder:
        put(folder, "a", 10)
        before = len(os.listdir("/dev/fd"))
        if fault == "memory":

            def fail(*arguments: Any) -> None:
                raise MemoryError

            monkeypatch.setattr(folder.allowance, "reserve_folders", fail)
            with pytest.raises(MemoryError):
                begin(folder, "x/b", size)
        else:
            partial = begin(folder, "b", size)
            fill(partial, 50)
            called, real_close, real_flock = [], os.close, fcntl.flock

            def close(descriptor: int) -> None:
                real_close(descriptor)
                called.append(True)
                raise OSError(errno.EIO, "input/output error")

            def flock(descriptor: int, operation: int) -> None:
                if operation == fcntl.LOCK_SH:
                    called.append(True)
                    raise OSError(errno.ENOLCK, "no locks available")
                real_flock(descriptor, operation)

            with monkeypatch.context() as faults:
                if fault == "close":
                    faults.setattr(os, "close", close)
                else:
                    faults.setattr(fcntl, "flock", flock)
                partial.keep()
            assert called or size == 100  # which is in memory
        monkeypatch.undo()
        assert len(os.listdir("/dev/fd")) == before
    assert written(root) == on_disk(root)


def test_failed_writing_of_the_ledger_is_not_repeated_after_a_count(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(errno.EIO, "input/output error")

    with opened(storage, ENDLESS) as folder:
        partial = fill(begin(folder, "a", 100), 100)
        with monkeypatch.context() as faults:
            faults.setattr(ledgers._State, "write", fail)
            assert isinstance(folder.publish([partial])[0], Settled)
        assert storage.ledgers.recount("alice") == Amount(100, 1)
        put(folder, "b", 10)
    assert written(root) == on_disk(root) == Amount(110, 2)


@pytest.mark.parametrize("policy", ["fail", "skip", "rename", "replace"])
def test_small_file_that_is_there_already_needs_no_room_when_the_quota_is_used_up(
    storage: Storage, root: Path, policy: str
) -> None:
    content = b"the same"

    def send(folder: UserFolder, name: str, content: bytes) -> Settled | Refused:
        try:
            partial = folder.begin(incoming(name, len(content), policy), resumable=False)
        except Refused as problem:
            return problem
        assert isinstance(partial, TemporaryFile)
        partial.write(memoryview(content))
        partial.sha256 = hashlib.sha256(content).digest()
        return folder.publish([partial])[0]

    with opened(storage, Quota(len(content), 1)) as folder:
        send(folder, "a", content)
        there = send(folder, "a", content)
        assert isinstance(there, Settled) and (there.skipped if policy == "skip" else there.already)
        if policy != "skip":
            assert refuses(send(folder, "a", b"an other"))
        assert refuses(send(folder, "b", content))
    assert written(root) == on_disk(root) == Amount(len(content), 1)
    with contextlib.closing(storage.user("alice", private=True, quota=Quota(len(content), 1))) as drop:
        assert policy == "replace" or refuses(send(drop, "a", content)), "it would tell what lies there"


def test_folders_that_are_announced_and_never_made_can_not_fill_the_memory(storage: Storage, root: Path) -> None:
    with opened(storage, Quota(1 << 40)) as folder:
        refused = 0
        for number in range(60):
            try:
                begin(folder, "/".join([str(number), *["a"] * 252, "x"]), 10).discard()
            except Refused as problem:
                assert problem.code is Code.QUOTA
                refused += 1
        assert refused == 60 - 10_000 // 253
        assert not refuses(put(folder, "0/a/b", 10))
    assert written(root) == on_disk(root)


# --- a root that is opened anew ---------------------------------------------------------------------------------------


def test_reopened_root_leaves_no_descriptor_of_the_old_ledgers_open(tmp_path: Path) -> None:
    root = tmp_path / "received"
    before = len(os.listdir("/dev/fd"))
    storage = Storage(root, Rules())
    for _ in range(3):
        with contextlib.closing(storage.user("alice", quota=ENDLESS)) as folder:
            assert isinstance(put(folder, "a", 1), Settled)
        shutil.rmtree(root)
        root.mkdir()
    open_before = len(os.listdir("/dev/fd"))
    with contextlib.closing(storage.user("alice", quota=ENDLESS)) as folder:
        put(folder, "a", 1)
    assert len(os.listdir("/dev/fd")) == open_before
    storage.close()
    assert len(os.listdir("/dev/fd")) == before


def test_connection_of_the_old_root_may_outlive_its_ledgers(tmp_path: Path) -> None:
    root = tmp_path / "received"
    before = len(os.listdir("/dev/fd"))
    storage = Storage(root, Rules())
    old = storage.user("alice", quota=ENDLESS)
    put(old, "a", 1)
    shutil.rmtree(root)
    root.mkdir()
    storage.user("alice", quota=ENDLESS).close()
    old.close()
    storage.close()
    assert len(os.listdir("/dev/fd")) == before
