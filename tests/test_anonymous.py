"""AnonymousFile files and pipes on their way: without a name until they are published, and flushed together."""

import errno
import hashlib
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sft.disk.durable
from sft.common import flushing
from sft.common.errors import Code, Refused
from sft.disk import anonymous
from sft.disk.anonymous import AnonymousFile
from sft.disk.receipts import RECEIPTS
from sft.disk.root import PARTIAL_AREA
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled, TemporaryFile
from sft.disk.user_folder import UserFolder

PROJECT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no files without a name")


@pytest.fixture
def folder(alice: UserFolder) -> UserFolder:
    return alice


@pytest.fixture
def home(tmp_path: Path, folder: UserFolder) -> Path:
    return tmp_path / "received/alice"


@pytest.fixture
def left(tmp_path: Path) -> Callable[[], list[str]]:
    """What has a name in alice's staging area; receipts are there on purpose."""
    return lambda: [name for name in os.listdir(tmp_path / "received" / PARTIAL_AREA / "alice") if name != RECEIPTS]


def begun(
    folder: UserFolder, name: str = "a", content: bytes = b"new", policy: str = "fail", pipe: bool = False
) -> TemporaryFile:
    """Announced and written, as by a connection that has had the right END."""
    incoming = Incoming(os.urandom(16), (name,), None if pipe else len(content), 5, 0o640, policy)
    partial = folder.begin(incoming, resumable=False)
    assert isinstance(partial, TemporaryFile)
    if content:
        partial.write(memoryview(content))
    partial.sha256 = hashlib.sha256(content).digest()
    return partial


def word(outcome: Settled | Refused) -> str:
    """What became of it, in one word; for a stored one its name."""
    if isinstance(outcome, Refused):
        return str(outcome.code)
    return "skipped" if outcome.skipped else "already" if outcome.already else outcome.path[-1]


def words(folder: UserFolder, *group: TemporaryFile) -> list[str]:
    return [word(outcome) for outcome in folder.publish(group)]


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, when: Callable[..., bool]) -> None:
    """Let a function of the system fail with the error `number` for the arguments that `when` picks."""
    real: Any = getattr(os, name)

    def call(*arguments: Any, **more: Any) -> Any:
        if when(*arguments, **more):
            raise OSError(number, os.strerror(number))
        return real(*arguments, **more)

    monkeypatch.setattr(os, name, call)


# --- without a name ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pipe", [False, True], ids=["small", "pipe"])
def test_small_file_has_no_name_until_it_is_published(
    folder: UserFolder, home: Path, left: Callable[[], list[str]], pipe: bool
) -> None:
    partial = begun(folder, pipe=pipe)
    assert left() == []
    descriptor = partial.finish(0o640)
    assert (left(), os.listdir(home)) == ([], [])
    assert os.fstat(descriptor).st_nlink == 0
    assert words(folder, partial) == ["a"]
    state = (home / "a").stat()
    assert (stat.S_IMODE(state.st_mode), state.st_mtime_ns, state.st_nlink) == (0o640, 5, 1)
    assert (home / "a").read_bytes() == b"new"
    assert left() == []


def test_bytes_are_private_before_they_are_whole(folder: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anonymous, "_MOST_IN_MEMORY", 0)
    partial = begun(folder)
    assert stat.S_IMODE(os.fstat(partial.descriptor).st_mode) == 0o600
    partial.discard()


@pytest.mark.parametrize("pipe", [False, True], ids=["small", "pipe"])
@pytest.mark.parametrize("finished", [False, True], ids=["begun", "finished"])
def test_discard_leaves_nothing(
    folder: UserFolder, home: Path, left: Callable[[], list[str]], pipe: bool, finished: bool
) -> None:
    before = len(os.listdir("/dev/fd"))
    partial = begun(folder, pipe=pipe)
    if finished:
        partial.finish(0o644)
    partial.discard()
    partial.discard()
    assert len(os.listdir("/dev/fd")) == before
    assert (left(), os.listdir(home)) == ([], [])


def test_small_file_is_not_kept(folder: UserFolder, left: Callable[[], list[str]]) -> None:
    assert not begun(folder).keep()
    assert left() == []


def test_crash_leaves_nothing(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from sft.disk.temporary import Incoming
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
folder = Storage(Path(sys.argv[1]), Rules()).user("alice")
for size in (3, None):
    partial = folder.begin(Incoming(os.urandom(16), ("a",), size, None, None, "fail"), False)
    partial.write(memoryview(b"new"))
    partial.finish(0o644)
os._exit(7)
"""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "r"], cwd=PROJECT, env=environment, timeout=60)
    assert done.returncode == 7
    assert os.listdir(tmp_path / "r" / PARTIAL_AREA / "alice") == os.listdir(tmp_path / "r/alice") == []


def test_memory_is_bounded_and_what_is_over_it_is_published_right(
    folder: UserFolder, home: Path, left: Callable[[], list[str]]
) -> None:
    contents = {f"{number}": bytes([number]) * 65_536 for number in range(48)}
    before = len(os.listdir("/dev/fd"))
    group = [begun(folder, name, content) for name, content in contents.items()]
    assert folder.anonymous.in_memory == anonymous._MOST_IN_MEMORY == 32 * 65_536
    assert len(os.listdir("/dev/fd")) == before + 16
    assert left() == []
    assert words(folder, *group) == list(contents)
    assert {path.name: path.read_bytes() for path in home.iterdir()} == contents
    assert len(os.listdir("/dev/fd")) == before


# --- policies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["fail", "skip", "rename", "replace"])
def test_policy_decides_at_the_end(folder: UserFolder, home: Path, left: Callable[[], list[str]], policy: str) -> None:
    (home / "other").write_bytes(b"older")
    (home / "same").write_bytes(b"new")
    (home / "folder").mkdir()
    found = words(folder, *(begun(folder, name, policy=policy) for name in ("free", "other", "same", "folder")))
    assert (
        found
        == {
            "fail": ["free", "exists", "already", "is-folder"],
            "skip": ["free", "skipped", "skipped", "is-folder"],
            "rename": ["free", "other.1", "already", "is-folder"],
            "replace": ["free", "other", "already", "is-folder"],
        }[policy]
    )
    assert (home / "other").read_bytes() == (b"new" if policy == "replace" else b"older")
    assert (home / "folder").is_dir()
    assert left() == []


def test_sender_that_may_not_look_gets_another_name_beside_a_folder(storage: Storage, folder: UserFolder) -> None:
    private = storage.user("alice", private=True)
    os.mkdir("a", dir_fd=folder.visible.descriptor)
    assert words(private, begun(private)) == ["a.1"]
    private.close()


def test_of_two_connections_at_one_name_exactly_one_publishes(storage: Storage, folder: UserFolder, home: Path) -> None:
    """Both are whole and flushed before either may publish."""
    both, found = threading.Barrier(2), []

    def publish(content: bytes) -> None:
        mine = storage.user("alice")
        partial = begun(mine, content=content)
        both.wait(30)
        found.append(words(mine, partial))
        mine.close()

    threads = [threading.Thread(target=publish, args=(content,)) for content in (b"one", b"two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == [["a"], ["exists"]]
    assert (home / "a").read_bytes() in (b"one", b"two")


def test_files_of_many_folders_hold_few_descriptors(
    folder: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_now, link = [0], os.link

    def counted(*arguments: Any, **more: Any) -> None:
        open_now.append(len(os.listdir("/dev/fd")))
        link(*arguments, **more)

    group = []
    for number in range(100):
        incoming = Incoming(os.urandom(16), (f"{number}", "a"), 0, None, None, "fail")
        group.append(folder.begin(incoming, resumable=False))
    monkeypatch.setattr(os, "link", counted)
    before = len(os.listdir("/dev/fd"))
    for partial in group:
        assert isinstance(partial, AnonymousFile)
        partial.sha256 = bytes(32)
    assert words(folder, *(each for each in group if isinstance(each, TemporaryFile))) == ["a"] * 100
    assert open_now[-1] <= before + 20, "the files before this one are closed"


# --- systems and disks that cannot ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL])
@pytest.mark.parametrize("lacks", ["open", "link"])
@pytest.mark.parametrize("pipe", [False, True], ids=["small", "pipe"])
def test_name_is_used_where_files_without_one_cannot_be(
    folder: UserFolder,
    home: Path,
    left: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    lacks: str,
    number: int,
    pipe: bool,
) -> None:
    def unnamed(path: Any, *arguments: Any, **more: Any) -> bool:
        return path == "." if lacks == "open" else str(path).startswith("/proc/")

    failing(monkeypatch, lacks, number, unnamed)
    incoming = Incoming(os.urandom(16), ("a",), None if pipe else 3, None, None, "fail")
    partial = folder.begin(incoming, resumable=False)
    assert isinstance(partial, TemporaryFile)
    partial.write(memoryview(b"new"))
    partial.sha256 = hashlib.sha256(b"new").digest()
    assert len(left()) == 1
    assert words(folder, partial) == ["a"]
    assert left() == []


def test_file_system_that_loses_support_later_refuses_and_leaves_nothing(
    folder: UserFolder, home: Path, left: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = begun(folder, "one"), begun(folder, "two")
    assert words(folder, first) == ["one"]
    failing(monkeypatch, "open", errno.EOPNOTSUPP, lambda path, *_, **__: path == ".")
    assert words(folder, second) == ["storage"]
    assert (left(), os.listdir(home)) == ([], ["one"])


@pytest.mark.parametrize("step", ["write", "utime", "link", "replace"])
def test_full_disk_refuses_that_one_and_leaves_nothing(
    folder: UserFolder, home: Path, left: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    policy = "replace" if step == "replace" else "fail"
    one, two = begun(folder, "one", policy=policy), begun(folder, "two", policy=policy)
    calls: list[int] = []

    def first(*arguments: Any, **more: Any) -> bool:
        calls.append(1)
        return len(calls) == 1

    failing(monkeypatch, step, errno.ENOSPC, first)
    assert words(folder, one, two) == ["no-space", "two"]
    assert (left(), os.listdir(home)) == ([], ["two"])


def test_full_disk_while_bytes_spill_is_told(folder: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anonymous, "_MOST_IN_MEMORY", 0)
    failing(monkeypatch, "write", errno.ENOSPC, lambda *_: True)
    partial = folder.begin(Incoming(os.urandom(16), ("a",), 3, None, None, "fail"), resumable=False)
    assert isinstance(partial, AnonymousFile)
    with pytest.raises(Refused) as caught:
        partial.write(memoryview(b"new"))
    assert caught.value.code is Code.NO_SPACE
    partial.discard()


# --- flushes ----------------------------------------------------------------------------------------------------------


class Flushes:
    """What was flushed: each file or folder by itself, and whole file systems. `bad`: inodes whose disk fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, syncfs: int = 0) -> None:
        self.single: list[tuple[int, bool]] = []
        self.whole, self.bad = 0, set[int]()
        fsync = os.fsync

        def flush(descriptor: int) -> None:
            state = os.fstat(descriptor)
            self.single.append((state.st_ino, stat.S_ISREG(state.st_mode)))
            if state.st_ino in self.bad:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            fsync(descriptor)

        def flush_whole(descriptor: int) -> int:
            self.whole += 1
            return syncfs

        monkeypatch.setattr(os, "fsync", flush)
        monkeypatch.setattr(sft.disk.durable, "_syncfs", flush_whole)

    @property
    def files(self) -> int:
        return sum(is_file for _, is_file in self.single)


@pytest.mark.skipif(
    sft.disk.durable._syncfs is None, reason="this system does not tell the errors of a whole file system"
)
@pytest.mark.parametrize(("count", "files", "whole"), [(7, 7, 0), (8, 0, 1), (100, 0, 1)])
def test_many_files_are_flushed_at_once_and_few_each(
    folder: UserFolder, monkeypatch: pytest.MonkeyPatch, count: int, files: int, whole: int
) -> None:
    flushes = Flushes(monkeypatch)
    group = [begun(folder, f"{number}") for number in range(count)]
    assert len(words(folder, *group)) == count
    assert (flushes.files, flushes.whole) == (files, whole)


@pytest.mark.parametrize("kind", [0x65735546, 0x794C7630, 0x6969, -1], ids=["fuse", "overlay", "nfs", "unknown"])
def test_each_file_is_flushed_where_a_flush_of_all_may_not_tell(
    folder: UserFolder, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    flushes = Flushes(monkeypatch)
    monkeypatch.setattr(sft.disk.durable, "kind_of", lambda descriptor: kind)
    words(folder, *(begun(folder, f"{number}") for number in range(20)))
    assert (flushes.files, flushes.whole) == (20, 0)


def test_failed_flush_of_all_asks_each_and_refuses_only_the_guilty(
    folder: UserFolder, home: Path, left: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    flushes = Flushes(monkeypatch, syncfs=-1)
    group = [begun(folder, f"{number}") for number in range(10)]
    flushes.bad.add(os.fstat(group[3].finish(0o644)).st_ino)
    assert words(folder, *group) == ["unavailable" if number == 3 else f"{number}" for number in range(10)]
    assert flushes.files == 10
    assert "3" not in os.listdir(home)
    assert left() == []


@pytest.mark.skipif(
    sft.disk.durable._syncfs is None, reason="this system does not tell the errors of a whole file system"
)
def test_error_told_while_another_group_was_flushed_is_not_forgotten(
    folder: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system tells it once: to the group that is flushed first, whose files are sound."""
    flushes, told = Flushes(monkeypatch), iter([-1])
    monkeypatch.setattr(sft.disk.durable, "_syncfs", lambda descriptor: next(told, 0))
    first = [begun(folder, f"first {number}") for number in range(10)]
    second = [begun(folder, f"{number}") for number in range(10)]
    flushes.bad.add(os.fstat(second[3].finish(0o644)).st_ino)
    begun_first, begun_second = folder.start_publishing(first), folder.start_publishing(second)
    assert all(isinstance(outcome, Settled) for outcome in folder.finish_publishing(begun_first))
    assert [word(outcome) for outcome in folder.finish_publishing(begun_second)] == [
        "unavailable" if number == 3 else f"{number}" for number in range(10)
    ]
    assert flushes.files == 20


@pytest.mark.parametrize("count", [2, 20])
def test_nothing_is_visible_before_all_is_flushed(
    folder: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    seen: list[list[str]] = []
    real = flushing.flush

    def looked(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            seen.append(os.listdir(home))
        real(descriptor)

    def looked_whole(descriptor: int) -> int:
        seen.append(os.listdir(home))
        return 0

    monkeypatch.setattr(sft.disk.durable, "flush", looked)
    monkeypatch.setattr(sft.disk.durable, "_syncfs", looked_whole)
    words(folder, *(begun(folder, f"{number}") for number in range(count)))
    assert seen
    assert all(names == [] for names in seen)
    assert len(os.listdir(home)) == count


def test_problem_of_one_file_leaves_the_others_order(folder: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that could not be finished is not among those that are flushed; the others keep their own verdicts."""
    flushes = Flushes(monkeypatch)
    group = [begun(folder, f"{number}") for number in range(4)]
    flushes.bad.add(os.fstat(group[2].finish(0o644)).st_ino)
    monkeypatch.setattr(group[0], "finish", _refuse)
    assert words(folder, *group) == ["no-space", "1", "unavailable", "3"]


def _refuse(bits: int, parent: object) -> int:
    raise Refused(Code.NO_SPACE)
