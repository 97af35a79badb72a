"""Groups of whole files on their way to be visible: flushed beside the caller, and never with the last descriptors."""

import errno
import hashlib
import os
import resource
import threading
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

import pytest

import sft.disk.durable
import sft.disk.publish
from sft.common.errors import Code, Refused
from sft.disk.parents import Parent
from sft.disk.partials import PartialFile
from sft.disk.temporary import Incoming, Settled, TemporaryFile
from sft.disk.user_folder import UserFolder

LIMIT = 30.0


@pytest.fixture
def home(tmp_path: Path, alice: UserFolder) -> Path:
    return tmp_path / "received/alice"


def whole(alice: UserFolder, count: int, pipes: bool = False) -> list[TemporaryFile]:
    """So many files, announced and written, as by a connection that has had the right ENDs."""
    group: list[TemporaryFile] = []
    for number in range(count):
        content = b"%d" % number
        size = None if pipes else len(content)
        partial = alice.begin(Incoming(os.urandom(16), (f"{number}",), size, 5, 0o640, "fail"), resumable=False)
        assert isinstance(partial, TemporaryFile)
        partial.write(memoryview(content))
        partial.sha256 = hashlib.sha256(content).digest()
        group.append(partial)
    return group


def word(outcome: Settled | Refused) -> str:
    return str(outcome.code) if isinstance(outcome, Refused) else outcome.path[-1]


def flush_with(monkeypatch: pytest.MonkeyPatch, work: Callable[[list[int]], list[OSError | None]]) -> None:
    monkeypatch.setattr(sft.disk.publish, "flush_all", lambda descriptors, file_system: iter(work(descriptors)))


class Flushed:
    """What was flushed while `there` was visible: inodes, and 0 for the whole file system."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, there: Path) -> None:
        self.inodes: set[int] = set()
        self.fail_at = -1  # this inode's flush
        fsync = os.fsync

        def flush(descriptor: int) -> None:
            inode = os.fstat(descriptor).st_ino
            if there.exists():
                self.inodes.add(inode)
            if inode == self.fail_at:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            fsync(descriptor)

        def flush_all(descriptor: int) -> int:
            if there.exists():
                self.inodes.add(0)
            return 0

        monkeypatch.setattr(os, "fsync", flush)
        monkeypatch.setattr(sft.disk.durable, "_syncfs", flush_all)


def in_folders(alice: UserFolder, count: int) -> list[TemporaryFile]:
    """A whole file in each of so many folders."""
    group: list[TemporaryFile] = []
    for number in range(count):
        incoming = Incoming(os.urandom(16), ("below", f"{number}", "file"), 1, 5, 0o640, "fail")
        partial = alice.begin(incoming, resumable=False)
        assert isinstance(partial, TemporaryFile)
        partial.write(memoryview(b"x"))
        partial.sha256 = hashlib.sha256(b"x").digest()
        group.append(partial)
    return group


@pytest.mark.parametrize("count", [1, 20])
def test_folders_are_flushed_behind_the_file_and_before_its_receipt(
    alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    last = home / f"below/{count - 1}/file"
    flushed = Flushed(monkeypatch, last)
    assert all(isinstance(outcome, Settled) for outcome in alice.publish(in_folders(alice, count)))
    above = [last.parents[depth].stat().st_ino for depth in range(4)]
    assert 0 in flushed.inodes or flushed.inodes >= set(above)


def test_file_whose_folder_can_not_be_flushed_has_no_receipt(
    alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = in_folders(alice, 2)
    flushed = Flushed(monkeypatch, home)
    (home / "below/1").mkdir(parents=True)
    flushed.fail_at = (home / "below/1").stat().st_ino
    assert [word(outcome) for outcome in alice.publish(group)] == ["file", str(Code.UNAVAILABLE)]


def test_caller_goes_on_while_bytes_are_flushed_and_nothing_is_visible_before(
    alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, threads = threading.Event(), []

    def work(descriptors: list[int]) -> list[OSError | None]:
        assert may_end.wait(LIMIT)
        threads.append(threading.current_thread())
        return [None] * len(descriptors)

    flush_with(monkeypatch, work)
    batch = alice.start_publishing(whole(alice, 3))
    assert (batch.count, batch.is_flushed, os.listdir(home)) == (3, False, [])
    may_end.set()
    assert [word(outcome) for outcome in alice.finish_publishing(batch)] == ["0", "1", "2"]
    assert batch.is_flushed
    assert sorted(os.listdir(home)) == ["0", "1", "2"]
    assert threads != [threading.current_thread()]


def test_failed_flush_beside_the_caller_refuses_only_the_guilty(
    alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = whole(alice, 4)

    def refuse(bits: int, parent: object) -> int:
        raise Refused(Code.NO_SPACE)

    monkeypatch.setattr(group[0], "finish", refuse)
    flush_with(monkeypatch, lambda descriptors: [None, OSError(errno.EIO, "broken"), None])
    batch = alice.start_publishing(group)
    assert [word(outcome) for outcome in alice.finish_publishing(batch)] == ["no-space", "1", "unavailable", "3"]
    assert sorted(os.listdir(home)) == ["1", "3"]


@pytest.mark.parametrize("surprise", [RuntimeError("a bug"), MemoryError()], ids=repr)
def test_surprise_beside_the_caller_is_raised_by_finish_and_nothing_is_visible(
    alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch, surprise: Exception
) -> None:
    def work(descriptors: list[int]) -> list[OSError | None]:
        raise surprise

    flush_with(monkeypatch, work)
    group = whole(alice, 2)
    batch = alice.start_publishing(group)
    batch.settle()
    assert batch.is_flushed
    with pytest.raises(type(surprise)):
        alice.finish_publishing(batch)
    assert os.listdir(home) == []
    for partial in group:
        partial.keep()


def test_settle_returns_only_when_no_descriptor_is_used_any_more(
    alice: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()

    def work(descriptors: list[int]) -> list[OSError | None]:
        assert may_end.wait(LIMIT)
        return [None] * len(descriptors)

    flush_with(monkeypatch, work)
    group = whole(alice, 1)
    batch = alice.start_publishing(group)
    settled = threading.Thread(target=batch.settle)
    settled.start()
    settled.join(0.1)
    assert settled.is_alive()
    may_end.set()
    settled.join(LIMIT)
    assert not settled.is_alive() and batch.is_flushed
    group[0].keep()


def test_without_a_thread_it_is_flushed_when_it_is_finished(
    alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    flushed: list[int] = []

    def work(descriptors: list[int]) -> list[OSError | None]:
        flushed.extend(descriptors)
        return [None] * len(descriptors)

    flush_with(monkeypatch, work)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    batch = alice.start_publishing(whole(alice, 3))
    assert (batch.is_flushed, flushed) == (False, [])
    assert [word(outcome) for outcome in alice.finish_publishing(batch)] == ["0", "1", "2"]
    assert len(flushed) == 3


@pytest.fixture
def few_descriptors(alice: UserFolder) -> Iterator[None]:
    """This process may have 40 more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir("/dev/fd")))
    free = (number for number in count() if number not in taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(islice(free, 40, None)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


needs_unnamed = pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="small files have descriptors from the start")


@needs_unnamed
@pytest.mark.usefixtures("few_descriptors")
def test_group_of_more_files_than_descriptors_is_published_whole(alice: UserFolder, home: Path) -> None:
    outcomes = alice.publish(whole(alice, 200))
    assert [word(outcome) for outcome in outcomes] == [f"{number}" for number in range(200)]
    assert len(os.listdir(home)) == 200


@needs_unnamed
@pytest.mark.usefixtures("few_descriptors")
def test_group_that_is_flushed_meanwhile_leaves_descriptors_to_others(alice: UserFolder) -> None:
    group = whole(alice, 200)
    batch = alice.start_publishing(group)
    assert 10 <= batch.count <= 40
    spare = [os.dup(alice.area.folder) for _ in range(10)]
    for descriptor in spare:
        os.close(descriptor)
    assert len(alice.finish_publishing(batch)) == batch.count
    assert len(alice.publish(group[batch.count :])) == 200 - batch.count


@pytest.mark.usefixtures("few_descriptors")
def test_file_that_takes_one_of_the_last_descriptors_ends_its_group(alice: UserFolder) -> None:
    """Each of these has had its own from the first byte on."""
    group = whole(alice, 30, pipes=True)
    batch = alice.start_publishing(group)
    assert 1 <= batch.count < 30
    alice.finish_publishing(batch)
    alice.publish(group[batch.count :])


@pytest.mark.parametrize(("error", "stays"), [(errno.EIO, True), (errno.ENOSPC, False)])
def test_large_file_whose_flush_fails_is_kept_when_the_trouble_may_pass(
    alice: UserFolder, monkeypatch: pytest.MonkeyPatch, error: int, stays: bool
) -> None:
    incoming = Incoming(b"t" * 16, ("large",), 200_000, 0, None, "fail")
    file = alice.begin(incoming, resumable=True)
    assert isinstance(file, PartialFile)
    file.write(memoryview(bytes(200_000)))
    file.sha256 = hashlib.sha256(bytes(200_000)).digest()
    flush_with(monkeypatch, lambda descriptors: [OSError(error, os.strerror(error))])
    (outcome,) = alice.publish([file])
    assert isinstance(outcome, Refused)
    again = alice.begin(incoming, resumable=True)
    assert isinstance(again, PartialFile)
    assert bool(again.offers) is stays
    again.discard()


def test_folder_whose_mode_can_not_be_found_out_refuses_its_files_and_is_closed(
    alice: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Parent, "__init__", fail)
    assert [word(each) for each in alice.publish(whole(alice, 2))] == [Code.UNAVAILABLE] * 2
