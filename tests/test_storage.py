"""The storage folder: what it may be, what is swept there, many users at once, and no descriptor that leaks."""

import contextlib
import fcntl
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import threading
from itertools import count, islice
from pathlib import Path

import pytest
from made_folders import make_folder
from partial_files import open_descriptors
from processes import run_python
from stored_files import TRAPS, Outcome, announced, begun, commit, left, opened, put, tree, using, written

from sft.common.errors import Code, Refused, UsageError
from sft.disk.folders import ExistingFile
from sft.disk.root import PARTIAL_AREA
from sft.disk.storage import Storage
from sft.disk.temporary import Settled, TemporaryFile
from sft.disk.user_folder import Rules, UserFolder

pytestmark = pytest.mark.usefixtures("watched")  # a FIFO that is waited for is a failure, and no end of the tests


# --- discard and sweep ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("named")
def test_discard_leaves_nothing(alice: UserFolder, home: Path, root: Path) -> None:
    before = open_descriptors()
    partial = begun(alice, announced("deep", "a"))
    assert len(left(root)) == 1
    partial.discard()
    partial.discard()
    assert left(root) == []
    assert tree(home) == set()
    assert open_descriptors() == before


def test_discard_before_the_first_byte_leaves_nothing(alice: UserFolder, home: Path, root: Path) -> None:
    partial = alice.begin(announced("a"), resumable=False)
    assert isinstance(partial, TemporaryFile)
    partial.discard()
    assert (left(root), tree(home)) == ([], set())


@pytest.mark.usefixtures("named")
def test_sweep_removes_what_nobody_holds(storage: Storage, alice: UserFolder, root: Path) -> None:
    for user in ("alice", "gone"):
        (root / PARTIAL_AREA / user).mkdir(exist_ok=True)
        (root / PARTIAL_AREA / user / "stale").write_bytes(b"half")
    held = begun(alice, announced("a"))
    assert storage.sweep() == 2
    assert len(left(root)) == 1
    assert commit(alice, held) == [Settled(("a",))]
    assert storage.sweep() == 0


def test_sweep_spares_what_another_process_holds(storage: Storage, alice: UserFolder, root: Path) -> None:
    stale = root / PARTIAL_AREA / "alice/other"
    stale.write_bytes(b"half")
    code = "import fcntl, sys; f = open(sys.argv[1], 'rb+'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True)"
    other = subprocess.Popen(
        [sys.executable, "-c", code + "; sys.stdin.read()", str(stale)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"held\n"
        assert storage.sweep() == 0
        assert stale.exists()
        other.stdin.close()
        other.wait(timeout=30)
    assert storage.sweep() == 1
    assert not stale.exists()


def test_sweep_spares_what_another_descriptor_of_this_process_holds(storage: Storage, root: Path) -> None:
    with using(storage):
        stale = root / PARTIAL_AREA / "alice/other"
        stale.write_bytes(b"half")
        with stale.open("rb") as holder:
            fcntl.flock(holder, fcntl.LOCK_EX)
            assert storage.sweep() == 0
        assert storage.sweep() == 1


def test_sweep_leaves_traps_and_published_files_alone(
    storage: Storage, alice: UserFolder, root: Path, home: Path, outside: Path
) -> None:
    (home / "kept").write_bytes(b"kept")
    (root / PARTIAL_AREA / "mallory").symlink_to(outside)
    (root / PARTIAL_AREA / "alice/link").symlink_to(outside / "target")
    (root / PARTIAL_AREA / "alice/folder").mkdir()
    (root / PARTIAL_AREA / "file").write_bytes(b"")
    before = open_descriptors()
    storage.sweep()
    assert open_descriptors() == before
    assert (home / "kept").read_bytes() == b"kept"
    assert tree(outside) == {"target"}


def test_sweep_removes_the_second_name_of_a_published_file_only(
    storage: Storage, alice: UserFolder, root: Path, home: Path
) -> None:
    (home / "a").write_bytes(b"done")
    os.link(home / "a", root / PARTIAL_AREA / "alice/stale")
    assert storage.sweep() == 1
    assert (home / "a").read_bytes() == b"done"


def test_sweep_removes_a_finished_read_only_partial_without_roots_rights() -> None:
    """A crash after `finish` and before the link leaves a partial that its owner may not write to."""
    place = Path(tempfile.mkdtemp(prefix="sweep-"))  # tmp_path is closed to other users
    code = """
import os, sys
from pathlib import Path
from sft.disk import staging
from sft.disk.temporary import Incoming
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
staging.ANONYMOUS = 0
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
root = Path(sys.argv[1]) / "r"
folder = Storage(root, Rules()).user("alice")
if os.fork() == 0:
    partial = folder.begin(Incoming(b"t" * 16, ("a",), 3, None, 0o444, "fail"), False)
    partial.write(memoryview(b"new"))
    partial.finish(0o444)
    os._exit(0)
os.wait()
left = len(os.listdir(root / ".partial/alice"))
print(left, Storage(root, Rules()).sweep(), len(os.listdir(root / ".partial/alice")))
"""
    try:
        place.chmod(0o777)
        assert run_python(code, place) == "1 1 0"
    finally:
        for above, folders, files in os.walk(place, topdown=False):
            for name in files:
                os.unlink(os.path.join(above, name))
            for name in folders:
                os.rmdir(os.path.join(above, name))
        place.rmdir()


@pytest.mark.usefixtures("named")
def test_partial_swept_before_its_lock_is_made_again(
    storage: Storage, alice: UserFolder, home: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making a partial and locking it another process may sweep it; the seam for that moment is flock."""
    partial = alice.begin(announced("a"), resumable=False)
    lock = fcntl.flock

    def sweep_first(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        assert storage.sweep() == 1
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    assert commit(alice, written(partial)) == [Settled(("a",))]
    assert fcntl.flock is lock
    assert (home / "a").read_bytes() == b"new"
    assert left(root) == []


# --- many at once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["fail", "rename", "replace", "skip"])
def test_many_threads_and_one_name_never_mix(storage: Storage, root: Path, policy: str) -> None:
    many, size = 32, 70_000
    outcomes: list[Outcome | None] = [None] * many
    together = threading.Barrier(many)

    def work(number: int) -> None:
        with using(storage) as folder:
            together.wait(30)
            try:
                partial = folder.begin(announced("d", "a", size=size, policy=policy), resumable=False)
            except Refused as problem:
                outcomes[number] = problem
                return
            if isinstance(partial, Settled):
                outcomes[number] = partial
                return
            assert isinstance(partial, TemporaryFile)
            for _ in range(7):
                partial.write(memoryview(bytes([number]) * (size // 7)))
            partial.sha256 = hashlib.sha256(bytes([number]) * size).digest()
            (outcomes[number],) = commit(folder, partial)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    stored = {
        number: outcome
        for number, outcome in enumerate(outcomes)
        if isinstance(outcome, Settled) and not outcome.skipped
    }
    contents = {path.name: path.read_bytes() for path in (root / "alice/d").iterdir()}
    assert all(content == content[:1] * size for content in contents.values())
    if policy in ("fail", "skip"):
        assert len(stored) == 1
        assert contents == {"a": bytes([next(iter(stored))]) * size}
        rest = [outcome for number, outcome in enumerate(outcomes) if number not in stored]
        for outcome in rest:
            if policy == "skip":
                assert outcome == Settled(("d", "a"), skipped=True)
            else:
                assert isinstance(outcome, Refused)
                assert outcome.code is Code.EXISTS
    elif policy == "rename":
        assert len(stored) == many
        assert {outcome.path[-1]: bytes([number]) * size for number, outcome in stored.items()} == contents
    else:
        assert len(stored) == many
        assert list(contents) == ["a"]
    assert left(root) == []


# --- the root ---------------------------------------------------------------------------------------------------------


def test_root_that_is_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError):
            Storage(root, Rules())
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("trap", TRAPS)
def test_partial_area_that_is_a_trap_is_a_usage_error(root: Path, outside: Path, trap: str) -> None:
    root.mkdir()
    TRAPS[trap](root / PARTIAL_AREA, outside)
    with pytest.raises(UsageError):
        Storage(root, Rules())
    assert tree(outside) == {"target"}


def test_unusable_root_leaks_no_descriptor(root: Path, outside: Path) -> None:
    root.mkdir()
    (root / PARTIAL_AREA).symlink_to(outside)
    before = open_descriptors()
    with pytest.raises(UsageError):
        Storage(root, Rules())
    assert open_descriptors() == before


def test_root_that_cannot_be_written_to_is_a_usage_error() -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs a folder that nobody can write to")
    with pytest.raises(UsageError):
        Storage(Path("/proc/self"), Rules())
    with pytest.raises(UsageError):
        Storage(Path("/proc/nothing/there"), Rules())


def test_root_is_made_with_the_folders_above_it_and_used_again(tmp_path: Path) -> None:
    root = tmp_path / "a/b/c"
    for name in ("one", "two"):
        with opened(root) as storage, using(storage) as folder:
            assert put(folder, name) == Settled((name,))
    assert tree(root) == {PARTIAL_AREA, f"{PARTIAL_AREA}/alice", "alice", "alice/one", "alice/two"}


def test_root_may_be_a_link_of_its_owner(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "received").symlink_to(tmp_path / "disk")
    with opened(tmp_path / "received") as storage, using(storage) as folder:
        assert put(folder, "a") == Settled(("a",))
    assert (tmp_path / "disk/alice/a").read_bytes() == b"new"


# --- descriptors ------------------------------------------------------------------------------------------------------


def test_no_way_through_leaks_a_descriptor(storage: Storage, root: Path, outside: Path) -> None:
    def everything() -> None:
        with using(storage) as folder:
            home = root / "alice"
            for policy in ("fail", "rename", "replace", "skip"):
                put(folder, "x", "y", "z", policy=policy)
                put(folder, "link", "a", policy=policy)
                put(folder, "x", policy=policy)
                put(folder, "x", "y", "z", "w", policy=policy)
                put(folder, "big", size=1 << 62)
                put(folder, "..", policy=policy)
            begun(folder, announced("a", "b")).discard()
            group = [begun(folder, announced("g", f"{number}", policy="replace")) for number in range(5)]
            folder.publish(group)
            twice = announced("twice", policy="replace", transfer=b"t" * 16)
            first, second = begun(folder, twice), folder.begin(twice, resumable=False)
            assert isinstance(second, TemporaryFile)
            with contextlib.suppress(Refused):
                second.write(memoryview(b"x"))
            second.discard()
            folder.publish([first])
            (home / "twice").unlink()
            large = folder.begin(announced("large", policy="replace"), resumable=True)
            assert isinstance(large, TemporaryFile)
            large.write(memoryview(b"la"))
            large.keep()
            with contextlib.suppress(Refused):
                folder.begin(announced("large", size=1 << 62), resumable=True)
            large = folder.begin(announced("large", policy="replace"), resumable=True)
            assert isinstance(large, TemporaryFile)
            large.resume_from(2)
            folder.publish([written(large, b"r")])
            existing = folder.begin(announced("large", policy="replace"), resumable=True)
            assert isinstance(existing, ExistingFile)
            existing.digest()
            (home / "large").unlink()
            make_folder(folder, ("x", "new"), 5, 0o700)
            folder.finish_folders()
            list(folder.visible.walk(()))
            for path in ((), ("x",), ("link",), ("x", "y", "z", "w"), ("gone",)):
                with contextlib.suppress(Refused):
                    folder.visible.names(path)
                with contextlib.suppress(Refused):
                    os.close(folder.visible.open_file(path))
        storage.sweep()

    with using(storage):
        (root / "alice/link").symlink_to(outside)
    everything()
    before = open_descriptors()
    everything()
    assert open_descriptors() == before


def test_deep_path_takes_few_descriptors(alice: UserFolder) -> None:
    """A peer chooses the depth; the process has one limit for all of its connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir("/dev/fd")))
    free = (number for number in count() if number not in taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(islice(free, 20, None)), hard))
    try:
        outcome = put(alice, *("d",) * 200, "a")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert isinstance(outcome, Settled), outcome
