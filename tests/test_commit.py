"""Groups of whole files on their way to be visible: flushed beside the caller, and never with the last descriptors."""

import errno
import hashlib
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import disk.commit
from disk.partials import Incoming, Partial, Published
from disk.storage import UserFolder
from errors import Code, Refused

LIMIT = 30.0


@pytest.fixture
def home(tmp_path: Path, alice: UserFolder) -> Path:
    return tmp_path / "received/alice"


def whole(alice: UserFolder, count: int, pipes: bool = False) -> list[Partial]:
    """So many files, announced and written, as by a connection that has had the right ENDs."""
    group: list[Partial] = []
    for number in range(count):
        content = b"%d" % number
        size = None if pipes else len(content)
        partial = alice.begin(Incoming(os.urandom(16), (f"{number}",), size, 5, 0o640, "fail"), resumable=False)
        assert isinstance(partial, Partial)
        partial.write(memoryview(content))
        partial.sha256 = hashlib.sha256(content).digest()
        group.append(partial)
    return group


def word(outcome: Published | Refused) -> str:
    return str(outcome.code) if isinstance(outcome, Refused) else outcome.path[-1]


def flush_with(monkeypatch: pytest.MonkeyPatch, work: Callable[[list[int]], list[OSError | None]]) -> None:
    monkeypatch.setattr(disk.commit, "flush_all", lambda descriptors, file_system: iter(work(descriptors)))


def test_caller_goes_on_while_bytes_are_flushed_and_nothing_is_visible_before(
    alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, threads = threading.Event(), []

    def work(descriptors: list[int]) -> list[OSError | None]:
        assert may_end.wait(LIMIT)
        threads.append(threading.current_thread())
        return [None] * len(descriptors)

    flush_with(monkeypatch, work)
    commit = alice.begin_commit(whole(alice, 3))
    assert (commit.count, commit.is_flushed, os.listdir(home)) == (3, False, [])
    may_end.set()
    assert [word(outcome) for outcome in commit.finish()] == ["0", "1", "2"]
    assert commit.is_flushed
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
    commit = alice.begin_commit(group)
    assert [word(outcome) for outcome in commit.finish()] == ["no-space", "1", "unavailable", "3"]
    assert sorted(os.listdir(home)) == ["1", "3"]


@pytest.mark.parametrize("surprise", [RuntimeError("a bug"), MemoryError()], ids=repr)
def test_surprise_beside_the_caller_is_raised_by_finish_and_nothing_is_visible(
    alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch, surprise: Exception
) -> None:
    def work(descriptors: list[int]) -> list[OSError | None]:
        raise surprise

    flush_with(monkeypatch, work)
    group = whole(alice, 2)
    commit = alice.begin_commit(group)
    commit.settle()
    assert commit.is_flushed
    with pytest.raises(type(surprise)):
        commit.finish()
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
    commit = alice.begin_commit(group)
    settled = threading.Thread(target=commit.settle)
    settled.start()
    settled.join(0.1)
    assert settled.is_alive()
    may_end.set()
    settled.join(LIMIT)
    assert not settled.is_alive() and commit.is_flushed
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
    commit = alice.begin_commit(whole(alice, 3))
    assert (commit.is_flushed, flushed) == (False, [])
    assert [word(outcome) for outcome in commit.finish()] == ["0", "1", "2"]
    assert len(flushed) == 3


@pytest.fixture
def few_descriptors(alice: UserFolder) -> Iterator[None]:
    """This process may have 40 more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(alice.area.folder)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 40, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


needs_unnamed = pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="small files have descriptors from the start")


@needs_unnamed
@pytest.mark.usefixtures("few_descriptors")
def test_group_of_more_files_than_descriptors_is_published_whole(alice: UserFolder, home: Path) -> None:
    outcomes = alice.commit(whole(alice, 200))
    assert [word(outcome) for outcome in outcomes] == [f"{number}" for number in range(200)]
    assert len(os.listdir(home)) == 200


@needs_unnamed
@pytest.mark.usefixtures("few_descriptors")
def test_group_that_is_flushed_meanwhile_leaves_descriptors_to_others(alice: UserFolder) -> None:
    group = whole(alice, 200)
    commit = alice.begin_commit(group)
    assert 10 <= commit.count <= 40
    spare = [os.dup(alice.area.folder) for _ in range(10)]
    for descriptor in spare:
        os.close(descriptor)
    assert len(commit.finish()) == commit.count
    assert len(alice.commit(group[commit.count :])) == 200 - commit.count


@pytest.mark.usefixtures("few_descriptors")
def test_file_that_takes_one_of_the_last_descriptors_ends_its_group(alice: UserFolder) -> None:
    """Each of these has had its own from the first byte on."""
    group = whole(alice, 30, pipes=True)
    commit = alice.begin_commit(group)
    assert 1 <= commit.count < 30
    commit.finish()
    alice.commit(group[commit.count :])
