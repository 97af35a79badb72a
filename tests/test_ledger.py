"""The quota of one account: never exceeded and never lost, however processes race and die."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sft.common.errors import Code, Refused
from sft.disk import amounts, folders, visible_files
from sft.disk import ledger as ledgers
from sft.disk.amounts import Amount, Quota
from sft.disk.anonymous import AnonymousFile
from sft.disk.ledger_locks import Gate
from sft.disk.partials import PartialFile
from sft.disk.quota import NOT_TEMPORARY
from sft.disk.root import PARTIAL_AREA
from sft.disk.staging import TRIAL, StagingArea
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled, TemporaryFile
from sft.disk.user_folder import Rules, UserFolder

ROOM = Path(__file__).resolve().parent.parent
LARGE = 70_000  # more than what may not be resumed
ENDLESS = Quota(1 << 60, 1 << 40)


def on_disk(root: Path, user: str = "alice") -> Amount:
    """What lies there of one user: files and folders, and bytes on their way."""
    below = list((root / user).rglob("*"))
    area = root / PARTIAL_AREA / user
    partials = [
        each
        for each in area.iterdir()
        if each.name not in NOT_TEMPORARY and each.suffix != ".journal" and not each.name.startswith(TRIAL)
    ]
    files = [each for each in below if each.is_file()] + [each for each in partials if each.stat().st_nlink == 1]
    folders = [each for each in below if each.is_dir()]
    sizes = [each.stat().st_size for each in files] + [0] * len(folders)
    return Amount(sum(max(size, amounts.LEAST_BYTES) for size in sizes), len(sizes))


def ledger_file(root: Path, user: str = "alice") -> Path:
    return root / PARTIAL_AREA / user / ledgers.LEDGER


def written(root: Path, user: str = "alice") -> Amount:
    """What the file says, with nobody at work."""
    said = json.loads(ledger_file(root, user).read_text())
    assert said["holders"] == {}
    return Amount(said["bytes"], said["files"])


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Each file counts for as many bytes as it has, so that small numbers do; `test_quota.py` has the others."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(amounts, "LEAST_BYTES", 0)
        yield


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "received"


@pytest.fixture
def storage(root: Path) -> Iterator[Storage]:
    before = len(os.listdir("/dev/fd"))
    made = Storage(root, Rules())
    yield made
    made.close()
    assert len(os.listdir("/dev/fd")) == before, "descriptors leak"


@contextlib.contextmanager
def opened(storage: Storage, quota: Quota) -> Iterator[UserFolder]:
    """A connection of alice."""
    folder = storage.user("alice", quota=quota)
    try:
        yield folder
    finally:
        folder.close()


def incoming(name: str, size: int | None, policy: str = "fail", transfer: bytes = b"") -> Incoming:
    return Incoming(transfer or os.urandom(16), tuple(name.split("/")), size, None, None, policy)


def begin(
    folder: UserFolder, name: str, size: int | None, policy: str = "fail", transfer: bytes = b""
) -> TemporaryFile:
    """As the receiver begins a file."""
    resumable = size is not None and size > 65_536
    partial = folder.begin(incoming(name, size, policy, transfer), resumable)
    if not isinstance(partial, TemporaryFile):
        partial = folder.begin_anyway(incoming(name, size, policy, transfer), resumable)
    if resumable:
        partial.resume_from(max(partial.offers, default=0))
    return partial


def fill(partial: TemporaryFile, size: int) -> TemporaryFile:
    """Bytes that no other file has."""
    while partial.size < size:
        partial.write(memoryview(os.urandom(min(1 << 16, size - partial.size))))
    partial.sha256 = hashlib.sha256(os.urandom(8)).digest()
    return partial


def put(folder: UserFolder, name: str, size: int, policy: str = "fail", announced: bool = True) -> Settled | Refused:
    """A whole file, announced with its size or as a pipe."""
    try:
        partial = begin(folder, name, size if announced else None, policy)
    except Refused as problem:
        return problem
    try:
        fill(partial, size)
    except Refused as problem:
        partial.discard()
        return problem
    return folder.publish([partial])[0]


def refuses(outcome: Settled | Refused) -> bool:
    assert isinstance(outcome, Settled) or outcome.code is Code.QUOTA, outcome
    return isinstance(outcome, Refused)


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
        folder.make_folder(("x", "z"), None, None)
        folder.make_folder(("x", "z"), None, None)
        assert not refuses(put(folder, "x/y/b", 10))
        assert refuses(put(folder, "x/y/c", 10))
        with pytest.raises(Refused) as caught:
            folder.make_folder(("n",), None, None)
        assert caught.value.code is Code.QUOTA and not (root / "alice/n").exists()
    assert written(root) == on_disk(root) == Amount(20, 5)


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
        (root / PARTIAL_AREA / "alice" / hashlib.sha256(b"pathb").hexdigest()).touch(0o600)
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


def test_replacing_one_file_at_the_same_time_credits_it_once(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one is about to replace it, having seen how large it is, another one tries to be faster."""

    def replace_it() -> None:
        with opened(storage, ENDLESS) as folder:
            assert not refuses(put(folder, "a", 10, "replace"))

    other, before, calls = threading.Thread(target=replace_it), os.replace, []

    def slow(*words: Any, **more: Any) -> None:
        calls.append(words)
        if len(calls) == 1:
            other.start()
            other.join(0.3)
        before(*words, **more)

    with opened(storage, ENDLESS) as folder:
        put(folder, "a", 1 << 20)
        put(folder, "b", 1 << 20)
        monkeypatch.setattr(os, "replace", slow)
        assert not refuses(put(folder, "a", 5, "replace"))
        other.join()
    assert len(calls) == 2
    assert written(root) == on_disk(root)


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


def test_links_and_what_they_lead_to_are_not_counted(storage: Storage, root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/huge").write_bytes(bytes(5000))
    with opened(storage, ENDLESS) as folder:
        put(folder, "a", 10)
        (root / "alice/link").symlink_to(tmp_path / "outside")
        (root / "alice/file").symlink_to(tmp_path / "outside/huge")
        os.mkfifo(root / "alice/fifo")
        assert storage.ledgers.recount("alice") == Amount(10, 1)


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


class Disk:
    """What `fstatvfs` says is free."""

    f_frsize = 1

    def __init__(self, free: int) -> None:
        self.f_bavail = free


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


# --- races ------------------------------------------------------------------------------------------------------------


WAITERS = {
    "reserve": (ledgers.LEDGER, fcntl.LOCK_EX),
    "publish": (ledgers.GATE, fcntl.LOCK_EX),
    "count": (ledgers.GATE, fcntl.LOCK_SH),
}


@pytest.mark.parametrize("what", WAITERS)
def test_changing_the_ledger_waits_for_other_processes(storage: Storage, root: Path, what: str) -> None:
    """Another process is another open file: it counts, or reserves, or publishes."""
    name, lock = WAITERS[what]
    with opened(storage, Quota(1_000_000)) as folder:
        small = fill(begin(folder, "a", 10), 10)
        work: dict[str, Callable[[], object]] = {
            "reserve": lambda: put(folder, "b", 60_000),
            "publish": lambda: folder.publish([small]),
            "count": lambda: storage.ledgers.recount("alice"),
        }
        waiting = threading.Thread(target=work[what])
        with (ledger_file(root).with_name(name)).open("r+b") as other:
            fcntl.flock(other, lock)
            waiting.start()
            waiting.join(0.2)
            assert waiting.is_alive()
        waiting.join()
        small.discard()


def test_counting_waits_for_those_who_publish_in_this_process(storage: Storage, root: Path) -> None:
    told: list[Amount] = []
    with opened(storage, ENDLESS) as folder:
        counting = threading.Thread(target=lambda: told.append(storage.ledgers.recount("alice")))
        with folder.allowance.moving():
            assert not refuses(put(folder, "a", 10))
            counting.start()
            counting.join(0.2)
            assert not told
        counting.join()
    assert told == [Amount(10, 1)]


WORKER = """
import os, random, sys, threading
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from pathlib import Path
from sft.disk.amounts import Quota
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from sft.common.errors import Code, Refused
from test_ledger import begin, fill, put
root, seed, most = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
storage, told = Storage(root, Rules()), []
def work(number):
    dice = random.Random(seed * 100 + number)
    for turn in range(6):
        folder = storage.user("alice", quota=Quota(most, 60))
        for each in range(4):
            shared = dice.random() < 0.4
            name = f"{dice.randrange(2)}/{dice.randrange(3)}" if shared else f"{seed}-{number}-{turn}-{each}"
            size = dice.choice([0, 3000, 30_000, 100_000])
            if dice.random() < 0.2:
                try:
                    fill(begin(folder, name, 100_000), dice.randrange(100_000)).keep()
                except Refused as problem:
                    told.append(problem.code)
            else:
                outcome = put(folder, name, size, dice.choice(["fail", "replace", "rename"]), dice.random() < 0.7)
                told.append(getattr(outcome, "code", None))
        if dice.random() < 0.2:
            storage.ledgers.recount("alice")
        folder.close()
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
storage.close()
assert set(told) <= {None, Code.QUOTA, Code.EXISTS, Code.BUSY}, set(told)
print(told.count(None), told.count(Code.QUOTA))
"""


def test_sixteen_connections_of_two_processes_never_pass_one_quota(root: Path) -> None:
    """They send, replace, keep, resume and count at once; somebody else looks at the disk all the time."""
    most = 700_000
    Storage(root, Rules()).close()
    (root / "alice").mkdir()
    (root / PARTIAL_AREA / "alice").mkdir(mode=0o700)
    command = [sys.executable, "-c", WORKER, str(ROOM), str(root)]
    workers = [subprocess.Popen([*command, seed, str(most)], stdout=subprocess.PIPE, text=True) for seed in "12"]
    seen = 0
    try:
        while any(worker.poll() is None for worker in workers):
            with contextlib.suppress(OSError):  # what vanishes while one looks
                visible = [each for each in (root / "alice").rglob("*") if each.is_file()]
                seen = max(seen, sum(each.stat().st_size for each in visible))
        told = [worker.communicate(timeout=60)[0].split() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert [worker.returncode for worker in workers] == [0, 0]
    taken, refused = (sum(map(int, counts)) for counts in zip(*told, strict=True))
    assert taken and refused, "some of either"
    there = on_disk(root)
    assert there.bytes <= most and there.files <= 60 and seen <= most
    said = written(root)
    assert said.bytes >= there.bytes and said.files >= there.files
    storage = Storage(root, Rules())
    assert storage.ledgers.recount("alice") == there
    storage.close()


CRASHES = """
import os, signal, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
import fcntl, shutil
from pathlib import Path
from sft.disk.amounts import Amount
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from test_ledger import ENDLESS, begin, fill, on_disk, put, written
base = Path(sys.argv[2])

def deal(root):
    storage = Storage(root, Rules())
    folder = storage.user("alice", quota=ENDLESS)
    group = [fill(begin(folder, f"x/{number}", 1000), 1000) for number in range(3)]
    folder.publish(group)
    put(folder, "large", 100_000)
    put(folder, "x/1", 500, "replace")
    put(folder, "pipe", 200_000, announced=False)
    fill(begin(folder, "half", 100_000, transfer=b"t" * 16), 50_000).keep()
    fill(begin(folder, "half", 100_000, transfer=b"t" * 16), 60_000).keep()
    half = fill(begin(folder, "half", 100_000, transfer=b"t" * 16), 100_000)
    folder.publish([half])
    begin(folder, "dropped", 80_000).discard()
    storage.ledgers.recount("alice")
    folder.close()
    folder = storage.user("alice", quota=ENDLESS)  # which reserves nothing, and removes
    folder.changes.move(("x", "0"), ("y", "z", "0"))
    for path in (("large",), ("x",), ("y", "z")):
        folder.changes.remove(path, True, folder.changes.removal(lambda: None))
    folder.close()
    storage.close()

def dying(number):
    left = number
    def counted(call):
        def calling(*words, **more):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*words, **more)
        return calling
    for module, names in ((os, "open pwrite link replace unlink mkdir rmdir ftruncate close"), (fcntl, "flock")):
        for name in names.split():
            setattr(module, name, counted(getattr(module, name)))

number, step = 1, int(sys.argv[3])
while True:
    root = base / str(number)
    child = os.fork()
    if child == 0:
        dying(number)
        deal(root)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    storage = Storage(root, Rules())
    folder = storage.user("alice", quota=ENDLESS)
    held = folder.allowance._ledger.used()
    there = on_disk(root)
    assert held == there, (number, held, there)
    folder.close()
    assert written(root) == there, number
    assert storage.sweep() >= 0 and storage.ledgers.recount("alice") == on_disk(root), number
    assert not [name for name in os.listdir(root / ".partial") if name.startswith(".holder")], number
    storage.close()
    shutil.rmtree(root)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    number += step
print(number)
"""


def die_at_calls(place: Path, step: int) -> None:
    command = [sys.executable, "-c", CRASHES, str(ROOM), str(place), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200, "so many calls were died before"


def test_ledger_equals_the_disk_after_a_kill_at_any_call(tmp_path: Path) -> None:
    """A process dies before a call that changes something; the next connection finds a ledger that is right."""
    die_at_calls(tmp_path, 11)


@pytest.mark.long
def test_ledger_equals_the_disk_after_a_kill_at_every_call(tmp_path: Path) -> None:
    die_at_calls(tmp_path, 1)


def test_process_that_died_with_everything_reserved_refuses_nobody(root: Path, storage: Storage) -> None:
    script = """
import os, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from pathlib import Path
from sft.disk.amounts import Quota
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from test_ledger import begin
folder = Storage(Path(sys.argv[2]), Rules()).user("alice", quota=Quota(100_000))
partial = begin(folder, "a", 100_000)
print("reserved", flush=True)
sys.stdin.read()
"""
    with opened(storage, Quota(100_000)) as folder:
        command = [sys.executable, "-c", script, str(ROOM), str(root)]
        other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None and other.stdout.readline() == "reserved\n"
        assert refuses(put(folder, "b", 1))
        other.kill()
        other.communicate()
        assert not refuses(put(folder, "b", 100_000)), "on the same connection, without a restart"


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


# --- against a model --------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "x/a", "x/y/b"])
SIZES = st.sampled_from([0, 1, 50, 5_000, 66_000, 90_000])
QUOTA = Quota(250_000, 9)


class Model(RuleBasedStateMachine):
    """One process; what it must have reserved and counted is known at any time."""

    @initialize()
    def start(self) -> None:
        import tempfile

        self.place = tempfile.TemporaryDirectory()
        self.root = Path(self.place.name) / "received"
        self.storage = Storage(self.root, Rules())
        self.folder = self.storage.user("alice", quota=QUOTA)
        self.visible: dict[str, int] = {}
        self.folders: set[str] = set()  # there, or reserved for by this connection
        self.kept: dict[str, int] = {}
        self.under_way: dict[str, tuple[TemporaryFile, int]] = {}

    def expected(self) -> Amount:
        sizes = [*self.visible.values(), *self.kept.values(), *(size for _, size in self.under_way.values())]
        return Amount(sum(sizes), len(sizes) + len(self.folders))

    def fits(self, more: Amount) -> bool:
        left = QUOTA.left(self.expected() + more)
        return (left.bytes >= 0 or not more.bytes) and (left.files >= 0 or not more.files)

    @rule(name=NAMES, size=SIZES, pipe=st.booleans(), policy=st.sampled_from(["fail", "replace"]))
    def begin(self, name: str, size: int, pipe: bool, policy: str) -> None:
        if name in self.under_way:
            return
        there = self.visible.get(name)
        if there is not None and policy == "fail":
            return
        resumable = size > 65_536 and not pipe
        found = self.kept.get(name, 0) if resumable else 0
        parents = {str(each) for each in Path(name).parents} - {".", *self.folders}
        need = Amount(max(0 if pipe else size, found) - found, 0 if resumable and name in self.kept else 1)
        fits = self.fits(need) and self.fits(Amount(need.bytes, need.files + len(parents)))
        try:
            partial = begin(self.folder, name, None if pipe else size, policy)
        except Refused as problem:
            assert problem.code is Code.QUOTA and not fits
            if resumable and self.kept.get(name) == 0:  # nothing to resume from
                del self.kept[name]
            return
        assert fits
        if resumable:
            self.kept.pop(name, None)
        self.folders |= parents
        self.under_way[name] = partial, max(0 if pipe else size, found)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), how=st.sampled_from(["commit", "discard", "keep", "grow"]))
    def end(self, data: st.DataObject, how: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.under_way)))
        partial, size = self.under_way.pop(name)
        length = size if partial.incoming.size is not None else data.draw(st.sampled_from([0, 10, 70_000, 200_000]))
        length = max(length, partial.size)
        if how == "keep":
            length = (partial.size + length) // 2
        more = Amount(max(length - size, 0), 0)
        self.under_way[name] = partial, size
        fits = self.fits(more)
        try:
            fill(partial, length)
        except Refused as problem:
            assert problem.code is Code.QUOTA and not fits
            del self.under_way[name]
            partial.discard()
            return
        assert fits or partial.incoming.size is not None
        if how == "grow":
            self.under_way[name] = partial, max(size, length)
            return
        del self.under_way[name]
        if how == "discard":
            partial.discard()
        elif how == "keep":
            if partial.keep():
                self.kept[name] = length
        else:
            if partial.incoming.size is not None and length < partial.incoming.size:
                fill(partial, partial.incoming.size)
            parents = {str(each) for each in Path(name).parents} - {".", *self.folders}  # which were removed meanwhile
            (outcome,) = self.folder.publish([partial])
            if isinstance(outcome, Settled):
                self.visible[name] = partial.size
                self.folders |= parents
            else:
                assert outcome.code is Code.EXISTS or (outcome.code is Code.QUOTA and parents)

    @precondition(lambda self: self.visible)
    @rule(data=st.data())
    def remove_by_hand(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.visible)))
        (self.root / "alice" / name).unlink()
        del self.visible[name]
        self.recount()

    @precondition(lambda self: self.visible)
    @rule(data=st.data(), to=NAMES)
    def move(self, data: st.DataObject, to: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.visible)))
        parents = {str(each) for each in Path(to).parents} - {".", *self.folders}
        fits = self.fits(Amount(0, len(parents)))
        try:
            self.folder.changes.move(tuple(name.split("/")), tuple(to.split("/")))
        except Refused as problem:
            if problem.code is Code.QUOTA:
                assert not fits
                return
            assert problem.code is Code.EXISTS and to in self.visible
        else:
            assert to not in self.visible
            self.visible[to] = self.visible.pop(name)
        self.folders |= parents

    @precondition(lambda self: self.visible or self.folders)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        home = self.root / "alice"
        name = data.draw(st.sampled_from(sorted([*self.visible, *self.folders])))
        there = {str(each.relative_to(home)) for each in home.rglob("*") if each.is_dir()}
        try:
            self.folder.changes.remove(tuple(name.split("/")), True, self.folder.changes.removal(lambda: None))
        except Refused as problem:
            assert problem.code is Code.NOT_FOUND and name not in there | set(self.visible)
            return
        gone = {each for each in (*self.visible, *there) if each == name or each.startswith(f"{name}/")}
        self.folders -= gone & there
        self.visible = {each: size for each, size in self.visible.items() if each not in gone}

    @rule()
    def recount(self) -> None:
        self.storage.ledgers.recount("alice")

    @rule(how=st.sampled_from(["end", "die"]))
    def connect_anew(self, how: str) -> None:
        """The connection ends, or its process dies: then a new one counts what lies there."""
        for name, (partial, _) in list(self.under_way.items()):
            if how == "end":
                if partial.keep():
                    self.kept[name] = partial.size
            else:
                for descriptor in (partial.descriptor, getattr(partial, "_journal_descriptor", -1)):
                    if descriptor >= 0:
                        os.close(descriptor)
                if isinstance(partial, PartialFile):
                    self.kept[name] = partial.size
                elif isinstance(partial, AnonymousFile) and partial._name:  # stays until the sweep
                    self.kept[partial._name] = partial.size
        self.under_way.clear()
        if how == "die":
            StagingArea._owners.clear()
            ledger = self.folder.allowance._ledger
            assert ledger is not None
            ledger._write_down = lambda spare: None  # type: ignore[method-assign]
            mine = self.storage.ledgers._processes._ours
            if mine is not None:
                os.close(mine[1])
                self.storage.ledgers._processes._ours = None
        self.folder.close()
        self.folder, home = self.storage.user("alice", quota=QUOTA), self.root / "alice"
        self.folders = {str(each.relative_to(home)) for each in home.rglob("*") if each.is_dir()}

    @invariant()
    def ledger_is_right(self) -> None:
        if not hasattr(self, "folder"):
            return
        ledger = self.folder.allowance._ledger
        assert ledger is not None
        used = ledger.used()
        assert used is not None
        assert used - ledger._spare == self.expected()
        there = on_disk(self.root)
        assert there.bytes <= used.bytes <= 250_000
        assert there.files <= used.files <= 9

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            for partial, _ in self.under_way.values():
                partial.discard()
            self.folder.close()
            self.storage.close()
            self.place.cleanup()


def test_ledger_follows_the_model() -> None:
    few = settings(max_examples=20, stateful_step_count=25, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Model, settings=few)


@pytest.mark.long
def test_ledger_follows_the_model_for_long() -> None:
    many = settings(max_examples=600, stateful_step_count=50, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Model, settings=many)


def test_threads_that_publish_without_a_pause_let_another_process_count(tmp_path: Path) -> None:
    file = tmp_path / "gate"
    with contextlib.ExitStack() as opened:
        ours, theirs = (os.open(file, os.O_RDWR | os.O_CREAT, 0o600) for _ in range(2))
        for descriptor in (ours, theirs):
            opened.callback(os.close, descriptor)
        now, waits, came_in = [0.0], threading.Event(), threading.Event()
        gate = Gate(ours, lambda: now[0])
        wait = gate._changed.wait

        def tell_and_wait(timeout: float | None = None) -> bool:
            waits.set()
            return wait(timeout)

        gate._changed.wait = tell_and_wait  # type: ignore[method-assign]

        def join() -> None:
            with gate.moving():
                came_in.set()

        late = threading.Thread(target=join)
        with gate.moving():
            now[0] = 60
            late.start()
            assert waits.wait(30) and not came_in.is_set()
            with gate.moving():  # a thread that is inside does not wait for itself
                pass
        late.join(30)
        assert came_in.is_set()
        fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("what", ["kept", "visible"])
def test_counting_without_a_free_descriptor_fails_and_tells_no_smaller_number(
    storage: Storage, root: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(storage, ENDLESS) as folder:
        put(folder, "a/b/c", 100)
        fill(begin(folder, "kept", LARGE), LARGE - 1).keep()
        wanted, real = ("b" if what == "visible" else hashlib.sha256(b"pathkept").hexdigest()), os.open

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


def test_folder_that_two_connections_make_at_the_same_time_is_counted_once(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, real = threading.Barrier(2), folders.open_folder

    def meet(parent: int, name: str, create: int | None = None) -> int:
        if create is not None and name == "new":
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(0.2)  # in vain, when only one is there at a time
        return real(parent, name, create)

    with opened(storage, ENDLESS) as one, opened(storage, ENDLESS) as other:
        partials = [fill(begin(folder, f"new/{at}", 10), 10) for at, folder in enumerate((one, other))]
        monkeypatch.setattr(visible_files, "open_folder", meet)
        threads = [
            threading.Thread(target=folder.publish, args=([partial],))
            for folder, partial in zip((one, other), partials, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert written(root) == on_disk(root) == Amount(20, 3)


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


def test_connection_that_takes_over_while_the_other_one_closes_is_not_counted_twice(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer, taken = os.urandom(16), []
    with opened(storage, ENDLESS) as old, opened(storage, ENDLESS) as new:
        partial = fill(begin(old, "a", 100_000, transfer=transfer), LARGE)
        taker = threading.Thread(target=lambda: taken.append(begin(new, "a", 100_000, transfer=transfer)))
        fstat, measured = os.fstat, partial.descriptor

        def take_over_when_measured(descriptor: int) -> os.stat_result:
            found = fstat(descriptor)
            if descriptor == measured and threading.current_thread() is not taker and not taker.ident:
                taker.start()
                taker.join(0.2)  # in vain, when it has to wait
            return found

        monkeypatch.setattr(os, "fstat", take_over_when_measured)
        monkeypatch.setattr(partial, "_make_durable", lambda: None)
        partial.keep()
        taker.join()
        monkeypatch.undo()
        assert isinstance(new.publish([fill(taken[0], 100_000)])[0], Settled)
    assert written(root) == on_disk(root) == Amount(100_000, 1)


def test_credit_that_is_written_before_its_file_is_counted_is_not_lost(storage: Storage, root: Path) -> None:
    with opened(storage, ENDLESS) as folder:
        ledger = storage.ledgers.enter("alice")
        ledger.reserve(Amount(100, 1), ENDLESS)
        with ledger.moving():
            ledger.credit(Amount(100, 1))
        with ledger.moving():
            ledger.count(Amount(100, 1))
        storage.ledgers.leave("alice")
        put(folder, "a", 10)
    assert written(root) == on_disk(root) == Amount(10, 1)


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


def test_threads_that_meet_a_dead_root_at_once_all_get_their_folder(tmp_path: Path) -> None:
    root = tmp_path / "received"
    storage = Storage(root, Rules())
    for _ in range(5):
        storage.user("alice", quota=ENDLESS).close()
        shutil.rmtree(root)
        root.mkdir()
        ready = threading.Barrier(8)
        opened: list[UserFolder] = []

        def enter(ready: threading.Barrier = ready, opened: list[UserFolder] = opened) -> None:
            ready.wait()
            opened.append(storage.user("alice", quota=ENDLESS))

        threads = [threading.Thread(target=enter) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(opened) == 8
        for folder in opened:
            folder.close()
    storage.close()
