"""What is kept of a large file, who may go on with it, and that no two ever write one file."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from partial_files import (
    CONTENT,
    DAY,
    ONE,
    THREE,
    TWO,
    announced,
    begin,
    bytes_of,
    commit,
    cut,
    fill,
    is_busy,
    journal_of,
    left,
    published,
    refuse,
    small,
)
from processes import HOME, run_python, run_python_on_small_disk

from sft.common.errors import Code, Refused
from sft.disk import partials
from sft.disk.anonymous import AnonymousFile
from sft.disk.folders import ExistingFile
from sft.disk.partials import PartialFile, begin_partial
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled
from sft.disk.user_folder import UserFolder

pytestmark = pytest.mark.usefixtures("nothing_leaks")


# --- kept, offered, resumed -------------------------------------------------------------------------------------------


def test_cut_file_is_kept_offered_compared_and_resumed(alice: UserFolder, home: Path, place: Path) -> None:
    cut(alice)
    assert list(home.iterdir()) == []
    partial = begin(alice, announced(TWO))
    assert partial.offers[0] == 200_000
    assert partial.digest_of_kept(200_000).digest() == hashlib.sha256(CONTENT[:200_000]).digest()
    partial.resume_from(200_000)
    assert (partial.size, partial.offers) == (200_000, [])
    fill(partial)
    assert commit(alice, partial) == published("big")
    assert (home / "big").read_bytes() == CONTENT
    assert (home / "big").stat().st_nlink == 1
    assert left(place) == []


def test_running_digest_of_what_was_kept_goes_on(alice: UserFolder) -> None:
    cut(alice)
    partial = begin(alice)
    digest = partial.digest_of_kept(200_000)
    digest.update(CONTENT[200_000:])
    assert digest.digest() == hashlib.sha256(CONTENT).digest()
    partial.discard()


def test_whole_file_whose_end_was_lost_needs_nothing_more(alice: UserFolder, home: Path) -> None:
    cut(alice, len(CONTENT))
    partial = begin(alice)
    assert partial.offers[0] == len(CONTENT)
    partial.resume_from(len(CONTENT))
    assert commit(alice, fill(partial)) == published("big")
    assert (home / "big").read_bytes() == CONTENT


def test_file_is_resumed_again_and_again(alice: UserFolder, home: Path) -> None:
    for count in (1, 70_000, 70_001, 299_999):
        partial = begin(alice, announced(os.urandom(16)))
        if partial.offers:
            partial.resume_from(partial.offers[0])
        fill(partial, CONTENT[:count])
        assert partial.keep()
    partial = begin(alice)
    assert partial.offers[0] == 299_999
    partial.resume_from(299_999)
    assert isinstance(commit(alice, fill(partial)), Settled)
    assert (home / "big").read_bytes() == CONTENT


def test_offer_that_was_not_taken_is_still_there_the_next_time(alice: UserFolder) -> None:
    cut(alice)
    for _ in range(3):
        partial = begin(alice, announced(os.urandom(16)))
        assert partial.offers[0] == 200_000
        assert partial.keep()
    begin(alice).discard()


def test_refused_offer_starts_again_and_drops_what_was_there(alice: UserFolder, home: Path) -> None:
    cut(alice)
    other = os.urandom(100_000)
    partial = begin(alice, announced(TWO, size=len(other)))
    partial.resume_from(0)
    assert isinstance(commit(alice, fill(partial, other)), Settled)
    assert (home / "big").read_bytes() == other


def test_dropped_bytes_are_not_said_to_be_durable(alice: UserFolder, place: Path) -> None:
    cut(alice)
    assert json.loads(journal_of(place).read_bytes())["durable"] == 200_000
    partial = begin(alice)
    partial.resume_from(1000)
    assert json.loads(journal_of(place).read_bytes())["durable"] == 1000
    partial.discard()


def test_kept_bytes_of_a_file_that_became_smaller_are_offered_up_to_its_size(alice: UserFolder, home: Path) -> None:
    cut(alice)
    partial = begin(alice, announced(TWO, size=150_000))
    assert partial.offers == [150_000]
    partial.resume_from(150_000)
    assert isinstance(commit(alice, fill(partial, CONTENT[:150_000])), Settled)
    assert (home / "big").read_bytes() == CONTENT[:150_000]


def test_journal_tells_what_the_file_was(alice: UserFolder, place: Path) -> None:
    cut(alice)
    found = json.loads(journal_of(place).read_bytes())
    assert place / f"{journal_of(place).stem}.{found.pop('attempt')}" == bytes_of(place)
    assert found == {
        "transfer": ONE.hex(),
        "size": len(CONTENT),
        "mtime": 5,
        "durable": 200_000,
        "generation": 1,
    }
    cut(alice, 250_000, announced(TWO, mtime=None))
    found = json.loads(journal_of(place).read_bytes())
    assert (found["transfer"], found["generation"], found["mtime"]) == (TWO.hex(), 2, None)


def test_journal_is_brought_up_to_date_while_the_file_grows(
    alice: UserFolder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partials, "_DURABLE_EVERY", 100_000)
    partial = fill(begin(alice))
    assert json.loads(journal_of(place).read_bytes())["durable"] == 280_000
    partial.discard()


@pytest.mark.parametrize("path", [("a", "bc"), ("ab", "c"), ("abc",), ("a", "b", "c")], ids="/".join)
def test_kept_bytes_belong_to_one_path(alice: UserFolder, path: tuple[str, ...]) -> None:
    cut(alice, incoming=announced(ONE, "a", "b\u0301", "c"))
    partial = begin(alice, announced(ONE, *path))
    assert partial.offers == []
    partial.discard()
    begin(alice, announced(ONE, "a", "b\u0301", "c")).discard()


def test_kept_bytes_belong_to_one_user(storage: Storage, alice: UserFolder) -> None:
    cut(alice)
    bob = storage.user("bob")
    partial = begin(bob)
    assert partial.offers == []
    partial.discard()
    bob.close()


@pytest.mark.parametrize("size", [5, None], ids=["small", "pipe"])
@pytest.mark.usefixtures("named")
def test_small_file_and_pipe_are_never_kept(alice: UserFolder, place: Path, size: int | None) -> None:
    partial = alice.begin(announced(size=size), resumable=False)
    assert isinstance(partial, AnonymousFile)
    partial.write(memoryview(b"12345"))
    assert len(left(place)) == 1
    assert not partial.keep()
    assert left(place) == []


def test_nothing_written_leaves_nothing(alice: UserFolder, place: Path) -> None:
    assert not begin(alice).keep()
    assert left(place) == []


def test_withdrawn_or_refused_file_leaves_nothing(alice: UserFolder, place: Path, home: Path) -> None:
    cut(alice)
    partial = begin(alice)
    partial.discard()
    assert left(place) == []
    partial = fill(begin(alice))
    (home / "big").write_bytes(b"in the way")
    outcome = commit(alice, partial)
    assert isinstance(outcome, Refused)
    assert outcome.code is Code.EXISTS
    assert left(place) == []


def test_modes_are_private(alice: UserFolder, place: Path) -> None:
    umask = os.umask(0)
    try:
        cut(alice, incoming=announced(mode=0o777))
        assert isinstance(commit(alice, fill(begin(alice, announced(TWO, "other", policy="rename")))), Settled)
    finally:
        os.umask(umask)
    assert len(list(place.iterdir())) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o600}
    begin(alice).discard()


def test_room_for_the_rest_is_enough(alice: UserFolder, place: Path) -> None:
    assert refuse(alice, announced(size=1 << 62)) is Code.NO_SPACE
    assert left(place) == []
    cut(alice)
    assert refuse(alice, announced(size=1 << 62)) is Code.NO_SPACE
    partial = begin(alice)
    assert partial.offers[0] == 200_000
    partial.discard()


def test_broken_disk_at_the_question_for_room_leaves_nobody_holding(
    alice: UserFolder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> os.statvfs_result:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstatvfs", broken)
        assert refuse(alice, announced()) is Code.UNAVAILABLE
    assert left(place) == []
    begin(alice, announced(TWO)).discard()


# --- one holder at a time ---------------------------------------------------------------------------------------------


def test_same_transfer_takes_over_at_once(storage: Storage, alice: UserFolder, home: Path, place: Path) -> None:
    older = fill(begin(alice), CONTENT[:200_000])
    another = storage.user("alice")
    newer = begin(another)
    assert newer.offers[0] == 200_000
    assert is_busy(older)
    older.discard()
    assert len(left(place)) == 2
    newer.resume_from(200_000)
    assert commit(another, fill(newer)) == published("big")
    assert (home / "big").read_bytes() == CONTENT
    another.close()


@pytest.mark.parametrize("end", ["discard", "keep", "close", "commit", "resume_from"])
def test_older_holder_takes_nothing_from_the_newer(alice: UserFolder, home: Path, place: Path, end: str) -> None:
    older = fill(begin(alice), CONTENT[:200_000])
    newer = begin(alice)
    newer.resume_from(200_000)
    before = (bytes_of(place).read_bytes(), journal_of(place).read_bytes())
    if end == "commit":
        older.sha256 = hashlib.sha256(CONTENT[:200_000]).digest()
        outcome = commit(alice, older)
        assert isinstance(outcome, Refused)
        assert outcome.code is Code.BUSY
    elif end == "keep":
        assert not older.keep()
    elif end == "resume_from":
        with pytest.raises(Refused) as caught:
            older.resume_from(0)
        assert caught.value.code is Code.BUSY
        older.close()
    else:
        getattr(older, end)()
    assert list(home.iterdir()) == []
    assert (bytes_of(place).read_bytes(), journal_of(place).read_bytes()) == before
    assert refuse(alice, announced(TWO)) is Code.BUSY
    assert isinstance(commit(alice, fill(newer)), Settled)
    assert (home / "big").read_bytes() == CONTENT
    assert left(place) == []


def test_newest_of_many_holders_writes(alice: UserFolder, home: Path) -> None:
    holders = [begin(alice) for _ in range(5)]
    fill(holders[-1])
    assert all(is_busy(older) for older in holders[:-1])
    for older in holders[:-1]:
        older.discard()
    assert isinstance(commit(alice, holders[-1]), Settled)
    assert (home / "big").read_bytes() == CONTENT


def test_taken_over_between_flush_and_publishing_publishes_nothing(
    alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flush of a large file takes long; it is the seam for a client that comes back meanwhile."""
    older = fill(begin(alice))
    newer: list[PartialFile] = []
    flush = os.fsync

    def come_back(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", flush)
        flush(descriptor)
        newer.append(begin(alice))

    monkeypatch.setattr(os, "fsync", come_back)
    outcome = commit(alice, older)
    assert isinstance(outcome, Refused)
    assert outcome.code is Code.BUSY
    assert list(home.iterdir()) == []
    assert newer[0].offers[0] == len(CONTENT)
    newer[0].resume_from(0)
    assert isinstance(commit(alice, fill(newer[0])), Settled)
    assert (home / "big").read_bytes() == CONTENT


def test_taking_over_waits_until_publishing_is_done(
    storage: Storage, alice: UserFolder, home: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link is the seam for a client that comes back while its file is published."""
    older = fill(begin(alice))
    another = storage.user("alice")
    told: list[Code] = []
    started = threading.Event()
    lock, link = fcntl.flock, os.link

    def come_back() -> None:
        try:
            begin(another).discard()
        except Refused as problem:
            told.append(problem.code)

    thread = threading.Thread(target=come_back)

    def locking(descriptor: int, how: int) -> None:
        if threading.current_thread() is thread:
            started.set()
        lock(descriptor, how)

    def linking(*arguments: str, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool) -> None:
        thread.start()
        assert started.wait(30)
        link(*arguments, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(fcntl, "flock", locking)
    monkeypatch.setattr(os, "link", linking)
    assert commit(alice, older) == published("big")
    thread.join(30)
    assert told == [Code.BUSY]
    assert (home / "big").read_bytes() == CONTENT
    assert (home / "big").stat().st_nlink == 1
    assert left(place) == []
    another.close()


def test_taking_over_waits_for_a_write_under_way(
    storage: Storage, alice: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late write could bring back what the newer holder has dropped. The write itself is the seam."""
    older = begin(alice)
    another = storage.user("alice")
    order: list[str] = []
    waiting = threading.Event()

    def come_back() -> None:
        partial = begin(another)
        order.append(f"taken over with {partial.offers}")
        partial.discard()

    thread = threading.Thread(target=come_back)
    write, lose = os.pwrite, PartialFile.lose

    def losing(partial: PartialFile) -> None:
        waiting.set()
        lose(partial)

    def writing(descriptor: int, content: bytes, offset: int) -> int:
        if threading.current_thread() is not thread:
            thread.start()
            assert waiting.wait(30)
            order.append("written")
        return write(descriptor, content, offset)

    monkeypatch.setattr(PartialFile, "lose", losing)
    monkeypatch.setattr(os, "pwrite", writing)
    older.write(memoryview(CONTENT)[:1000])
    thread.join(30)
    assert order == ["written", "taken over with [1000]"]
    older.discard()
    another.close()


def test_journal_removed_while_another_waits_for_it_is_busy(
    alice: UserFolder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the opening and the lock of a journal its holder may drop it; the seam for that moment is flock."""
    older = fill(begin(alice), CONTENT[:1000])
    lock = fcntl.flock

    def drop_first(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        older.discard()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", drop_first)
    with pytest.raises(Refused) as caught:
        alice.begin(announced(), resumable=True)
    assert caught.value.code is Code.BUSY
    assert left(place) == []
    partial = begin(alice)
    assert partial.offers == []
    partial.discard()


def test_another_transfer_is_busy_until_the_holder_is_gone(alice: UserFolder, home: Path) -> None:
    holder = fill(begin(alice), CONTENT[:200_000])
    for _ in range(3):
        assert refuse(alice, announced(TWO)) is Code.BUSY
    holder.write(memoryview(CONTENT)[200_000:250_000])
    holder.close()
    partial = begin(alice, announced(TWO))
    assert partial.offers[0] == 250_000
    partial.resume_from(250_000)
    assert isinstance(commit(alice, fill(partial)), Settled)
    assert (home / "big").read_bytes() == CONTENT


def test_another_transfer_is_busy_after_a_take_over_too(alice: UserFolder) -> None:
    older = fill(begin(alice), CONTENT[:1000])
    newer = begin(alice)
    older.close()
    assert refuse(alice, announced(TWO)) is Code.BUSY
    newer.close()
    begin(alice, announced(TWO)).discard()


def test_everything_may_end_twice(alice: UserFolder, place: Path) -> None:
    first = fill(begin(alice), CONTENT[:1000])
    assert first.keep()
    first.close()
    second = begin(alice)
    assert not first.keep()
    first.discard()
    first.close()
    assert is_busy(first)
    assert len(left(place)) == 2
    assert second.offers[0] == 1000
    assert refuse(alice, announced(TWO)) is Code.BUSY
    second.discard()
    third = begin(alice, announced(THREE))
    second.discard()
    assert len(left(place)) == 2
    third.discard()
    third.discard()
    assert left(place) == []


def test_many_connections_of_one_transfer_publish_it_once(storage: Storage, home: Path, place: Path) -> None:
    outcomes: list[Settled | Refused] = []
    together = threading.Barrier(8)

    def work() -> None:
        folder = storage.user("alice")
        together.wait(30)
        try:
            begun = folder.begin(announced(), resumable=True)
            if isinstance(begun, PartialFile):
                try:
                    outcomes.append(commit(folder, fill(begun)))
                except Refused:
                    begun.discard()
                    raise
            elif isinstance(begun, ExistingFile):
                os.close(begun.descriptor)
        except Refused as problem:
            outcomes.append(problem)
        finally:
            folder.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert published("big") in outcomes
    others = [outcome.code for outcome in outcomes if isinstance(outcome, Refused)]
    assert set(others) <= {Code.BUSY, Code.EXISTS}
    assert (home / "big").read_bytes() == CONTENT
    assert (home / "big").stat().st_nlink == 1
    assert left(place) == []


# --- holders in other processes ---------------------------------------------------------------------------------------

HOLDER = """
import os, sys
from pathlib import Path
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from sft.disk.temporary import Incoming
from sft.common.errors import Refused
folder = Storage(Path(sys.argv[1]), Rules()).user("alice")
partial = folder.begin(Incoming(bytes.fromhex(sys.argv[2]), ("big",), 300_000, 5, None, "fail"), True)
partial.resume_from(0)
partial.write(memoryview(sys.stdin.buffer.read(200_000)))
print("held", flush=True)
for line in sys.stdin.buffer:
    try:
        print(eval(line), flush=True)
    except Refused as problem:
        print(problem.code, flush=True)
"""


class Holder:
    """Another process that holds the file `big`, with its first 200,000 bytes, and follows our commands."""

    def __init__(self, root: Path, transfer: bytes = ONE) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(root), transfer.hex()],
            cwd=HOME,
            env={**os.environ, "PYTHONPATH": str(HOME)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(CONTENT[:200_000])
        self._process.stdin.flush()
        assert self._line() == "held"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()

    def does(self, what: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(what.encode() + b"\n")
        self._process.stdin.flush()
        return self._line()

    def kill(self) -> None:
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=30)


@pytest.fixture
def holder(tmp_path: Path, home: Path) -> Iterator[Holder]:
    holder = Holder(tmp_path / "received")
    yield holder
    holder.kill()


def test_another_transfer_is_busy_while_a_process_holds_the_file(alice: UserFolder, holder: Holder) -> None:
    assert refuse(alice, announced(TWO)) is Code.BUSY
    assert holder.does("partial.size") == "200000"
    holder.kill()
    partial = begin(alice, announced(TWO))
    assert partial.offers[0] == 200_000
    assert partial.digest_of_kept(200_000).digest() == hashlib.sha256(CONTENT[:200_000]).digest()
    partial.discard()


def test_same_transfer_takes_over_from_another_process(alice: UserFolder, home: Path, holder: Holder) -> None:
    partial = begin(alice)
    assert partial.offers[0] == 200_000
    partial.resume_from(200_000)
    assert holder.does("partial.write(memoryview(b'late'))") == "busy"
    assert holder.does("partial.finish(0o644)") == "busy"
    assert holder.does("partial.close()") == "None"
    assert isinstance(commit(alice, fill(partial)), Settled)
    assert (home / "big").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("end", "answer"),
    [
        ("partial.discard()", "None"),
        ("partial.keep()", "False"),
        ("partial.close()", "None"),
        ("partial.resume_from(0)", "busy"),
        ("folder.publish([partial])[0].code", "busy"),
    ],
)
def test_older_process_takes_nothing_from_the_newer(
    alice: UserFolder, home: Path, place: Path, holder: Holder, end: str, answer: str
) -> None:
    """It has not noticed anything yet: nothing has come for it since."""
    partial = begin(alice)
    partial.resume_from(200_000)
    before = (bytes_of(place).read_bytes(), journal_of(place).read_bytes())
    assert holder.does(end) == answer
    assert (bytes_of(place).read_bytes(), journal_of(place).read_bytes()) == before
    assert holder.does("partial.close()") == "None"
    assert isinstance(commit(alice, fill(partial)), Settled)
    assert (home / "big").read_bytes() == CONTENT
    assert left(place) == []


def check_kept_and_sent_anew(folder: UserFolder, home: Path, partial: PartialFile, why: str) -> None:
    """It is not published, and the next attempt finds out what its bytes are worth."""
    outcome = commit(folder, partial)
    assert isinstance(outcome, Refused) and outcome.code is Code.UNAVAILABLE and outcome.why == why
    assert list(home.iterdir()) == []


def test_file_that_another_process_has_open_is_not_published_before_that_is_closed(
    alice: UserFolder, home: Path, holder: Holder
) -> None:
    """A write of the older owner may be under way for as long as that."""
    check_kept_and_sent_anew(alice, home, fill(begin(alice)), "another process has the file open")
    assert holder.does("partial.close()") == "None"
    again = begin(alice)
    assert again.offers == [len(CONTENT)] and not again.is_shared
    again.resume_from(len(CONTENT))
    assert isinstance(commit(alice, fill(again)), Settled)
    assert (home / "big").read_bytes() == CONTENT


@pytest.mark.parametrize("offset", [0, 200_000], ids=["started again", "resumed"])
@pytest.mark.parametrize("late", [100, 250_000, len(CONTENT) - 2], ids=["below", "above", "over the end"])
def test_late_write_of_an_older_process_is_found_before_the_file_is_published(
    alice: UserFolder, home: Path, holder: Holder, offset: int, late: int
) -> None:
    """It stalls between its look at who owns the file and its write."""
    partial = begin(alice)
    partial.resume_from(offset)
    fill(partial)
    assert holder.does(f"os.pwrite(partial.descriptor, b'late', {late})") == "4"
    assert holder.does("partial.close()") == "None"
    check_kept_and_sent_anew(alice, home, partial, "another process has written to the file")
    again = begin(alice)
    assert again.digest_of_kept(again.offers[0]).digest() != hashlib.sha256(CONTENT).digest()
    again.resume_from(0)
    assert isinstance(commit(alice, fill(again)), Settled)
    assert (home / "big").read_bytes() == CONTENT


def test_mode_is_not_changed_by_an_older_process_behind_a_take_over(
    alice: UserFolder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes a file over between the look at who owns it and the change of its mode and time."""
    older, locked = fill(begin(alice)), []
    fit = older._area.fit

    def look(*arguments: object) -> bool:
        with journal_of(place).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                locked.append(True)
        return fit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(older._area, "fit", look)
    older.finish(0o644)
    assert locked == [True]
    older.discard()


def test_take_over_by_another_process_is_noticed(tmp_path: Path, alice: UserFolder, place: Path) -> None:
    older = fill(begin(alice), CONTENT[:1000])
    newer = Holder(tmp_path / "received")
    assert is_busy(older)
    older.discard()
    assert len(left(place)) == 2
    assert newer.does("partial.write(memoryview(b'more'))") == "None"
    assert newer.does("partial.size") == "200004"
    newer.kill()
    begin(alice).discard()


def test_newer_holder_has_the_lock_as_soon_as_the_older_process_is_gone(
    tmp_path: Path, alice: UserFolder, place: Path, holder: Holder
) -> None:
    partial = begin(alice)
    partial.resume_from(200_000)
    holder.kill()
    partial.write(memoryview(CONTENT)[200_000:210_000])
    with bytes_of(place).open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    partial.discard()


def test_swept_area_keeps_what_another_process_holds(storage: Storage, place: Path, holder: Holder) -> None:
    for path in place.iterdir():
        os.utime(path, (0, 0))
    assert storage.sweep() == 0
    assert holder.does("partial.write(memoryview(b'more'))") == "None"
    holder.kill()
    for path in place.iterdir():
        os.utime(path, (0, 0))
    assert storage.sweep() == 1
    assert left(place) == []


# --- torn by a power cut ----------------------------------------------------------------------------------------------

TORN = [
    b"",
    b"{",
    b"\0" * 200,
    b"null",
    b"[]",
    b"7",
    b'{"transfer": 1}',
    b"\xff\xfe",
    b"[" * 4096,
    b'{"transfer": "%s", "size": 1, "mtime": 1, "durable": 1}' % ONE.hex().encode(),
    b'{"transfer": "%s", "size": 1, "mtime": 1, "durable": -1, "generation": 1}' % ONE.hex().encode(),
    b'{"transfer": "%s", "size": 1, "mtime": 1, "durable": true, "generation": 1}' % ONE.hex().encode(),
    b'{"transfer": 7, "size": 1, "mtime": 1, "durable": 1, "generation": 1}',
    b'{"transfer": "", "size": 1, "mtime": 1, "durable": 1, "generation": 1, "more": 1}',
    os.urandom(9000),
]


@pytest.mark.parametrize("torn", TORN, ids=range(len(TORN)))
def test_torn_journal_starts_the_file_again(alice: UserFolder, home: Path, place: Path, torn: bytes) -> None:
    cut(alice)
    journal_of(place).write_bytes(torn)
    partial = begin(alice)
    assert partial.offers == []
    assert os.fstat(partial.descriptor).st_size == 0
    fill(partial, CONTENT[:1000])
    assert partial.keep()
    partial = begin(alice)
    assert partial.offers[0] == 1000
    partial.resume_from(1000)
    assert isinstance(commit(alice, fill(partial)), Settled)
    assert (home / "big").read_bytes() == CONTENT
    alice.area.sweep(DAY)  # an empty journal tells nothing of the bytes that it had, nor that it had any
    assert left(place) == []


def test_every_truncated_journal_starts_the_file_again(alice: UserFolder, place: Path) -> None:
    cut(alice, 1000)
    whole = journal_of(place).read_bytes()
    for count in range(0, len(whole), 7):
        journal_of(place).write_bytes(whole[:count])
        partial = begin(alice)
        assert partial.offers == []
        fill(partial, CONTENT[:1000])
        assert partial.keep()
    begin(alice).discard()
    alice.area.sweep(DAY)
    assert left(place) == []


def test_torn_journal_of_a_living_holder_does_not_let_another_in(alice: UserFolder, place: Path) -> None:
    holder = fill(begin(alice), CONTENT[:1000])
    journal_of(place).write_bytes(b"")
    assert refuse(alice, announced(TWO)) is Code.BUSY
    holder.close()
    begin(alice).discard()


def test_bytes_without_a_journal_are_not_offered(alice: UserFolder, place: Path) -> None:
    cut(alice)
    journal_of(place).unlink()
    partial = begin(alice)
    assert partial.offers == []
    partial.discard()


def test_journal_without_bytes_offers_nothing(alice: UserFolder, place: Path) -> None:
    cut(alice)
    bytes_of(place).unlink()
    partial = begin(alice)
    assert partial.offers == []
    fill(partial, CONTENT[:1000])
    assert partial.keep()
    begin(alice).discard()


def test_zeros_behind_the_durable_bytes_are_found_out(alice: UserFolder, home: Path, place: Path) -> None:
    """A power cut may leave a file's size without its last bytes."""
    cut(alice, 150_000)
    os.truncate(bytes_of(place), 200_000)
    partial = begin(alice)
    assert partial.offers == [200_000, 150_000]
    assert partial.digest_of_kept(200_000).digest() != hashlib.sha256(CONTENT[:200_000]).digest()
    assert partial.digest_of_kept(150_000).digest() == hashlib.sha256(CONTENT[:150_000]).digest()
    partial.resume_from(150_000)
    assert bytes_of(place).stat().st_size == 150_000
    assert isinstance(commit(alice, fill(partial)), Settled)
    assert (home / "big").read_bytes() == CONTENT


def test_fewer_bytes_than_the_journal_says_are_offered_as_they_are(alice: UserFolder, place: Path) -> None:
    cut(alice)
    os.truncate(bytes_of(place), 1000)
    partial = begin(alice)
    assert partial.offers == [1000]
    assert partial.digest_of_kept(200_000).digest() == hashlib.sha256(CONTENT[:1000]).digest()
    partial.discard()


# --- published, but not yet forgotten ---------------------------------------------------------------------------------


def crash_after_the_link(folder: UserFolder, home: Path, place: Path, incoming: Incoming | None = None) -> None:
    partial = fill(begin(folder, incoming))
    partial.finish(0o644)
    os.link(bytes_of(place), home / "big")
    partial.close()


@pytest.mark.parametrize("transfer", [ONE, TWO], ids=["same", "another"])
def test_published_bytes_are_never_written_to_again(
    alice: UserFolder, home: Path, place: Path, transfer: bytes
) -> None:
    crash_after_the_link(alice, home, place)
    before = (home / "big").stat()
    partial = begin_partial(alice.area, announced(transfer, policy="replace"))
    assert partial.offers == []
    assert ((home / "big").read_bytes(), (home / "big").stat().st_nlink) == (CONTENT, 1)
    other = CONTENT[::-1]
    fill(partial, other)
    assert (home / "big").read_bytes() == CONTENT
    assert (home / "big").stat().st_mtime_ns == before.st_mtime_ns
    assert isinstance(commit(alice, partial), Settled)
    assert (home / "big").read_bytes() == other
    assert left(place) == []


def test_older_holder_is_lost_even_when_its_bytes_got_a_second_name(alice: UserFolder, home: Path, place: Path) -> None:
    older = fill(begin(alice))
    os.link(bytes_of(place), home / "other")
    newer = begin(alice)
    assert newer.offers == []
    assert json.loads(journal_of(place).read_bytes())["generation"] == 2
    assert is_busy(older)
    older.discard()
    assert isinstance(commit(alice, fill(newer)), Settled)
    assert (home / "other").read_bytes() == CONTENT


def test_second_name_of_a_published_file_is_swept_at_once(
    storage: Storage, alice: UserFolder, home: Path, place: Path
) -> None:
    crash_after_the_link(alice, home, place)
    assert storage.sweep() == 1
    assert left(place) == []
    assert (home / "big").read_bytes() == CONTENT


def run_as_nobody(code: str) -> str:
    """What `code` prints in a process without root's rights, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="partials-") as place:  # tmp_path is closed to other users
        os.chmod(place, 0o777)
        drop = """
import hashlib, os, sys
from pathlib import Path
from sft.disk.temporary import Incoming
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from sft.common.errors import Refused
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
root = Path(sys.argv[1]) / "r"
folder = Storage(root, Rules()).user("alice")
"""
        return run_python(drop + code, place)


@pytest.mark.parametrize("resumable", [True, False], ids=["large", "small"])
@pytest.mark.parametrize("linked", [False, True], ids=["unpublished", "published"])
def test_read_only_partial_of_a_crash_is_taken_up(resumable: bool, linked: bool) -> None:
    """A crash behind `finish` leaves a file that its owner may not open for writing."""
    code = f"""
folder.area._has_anonymous = False
def write(partial, content):
    if {resumable}:
        partial.resume_from(0)
    partial.write(memoryview(content))
    partial.sha256 = hashlib.sha256(content).digest()
    return partial
incoming = Incoming(b"1" * 16, ("a",), 3, None, 0o444, "replace")
partial = write(folder.begin(incoming, {resumable}), b"old")
partial.finish(0o444)
if {linked}:
    (name,) = (name for name in os.listdir(root / ".partial/alice") if not name.endswith(".journal"))
    os.link(root / ".partial/alice" / name, root / "alice/b")
{"partial.close()" if resumable else "os.close(partial.descriptor)"}
folder.area.sweep({60 if resumable else 0})
partial = write(folder.begin(incoming, {resumable}), b"new")
(outcome,) = folder.publish([partial])
print(type(outcome).__name__, (root / "alice/a").read_text(), oct((root / "alice/a").stat().st_mode & 0o777), end=" ")
print(len(list((root / ".partial/alice").iterdir())), (root / "alice/b").read_text() if {linked} else "")
"""
    assert run_as_nobody(code) == f"Settled new 0o444 0{' old' if linked else ''}"


def test_read_only_partial_that_is_held_is_busy_and_stays_as_it_is() -> None:
    code = """
incoming = Incoming(b"1" * 16, ("a",), 3, None, 0o444, "replace")
partial = folder.begin(incoming, True)
partial.write(memoryview(b"old"))
partial.finish(0o444)
try:
    folder.begin(incoming, True)
except Refused as problem:
    print(problem.code, end=" ")
folder.publish([partial])
print(oct((root / "alice/a").stat().st_mode & 0o777))
"""
    assert run_as_nobody(code) == "busy 0o444"


# --- small files ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("named")
def test_small_file_that_is_locked_before_its_maker_can_gets_another_name(
    alice: UserFolder, home: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making and locking it another process may be about to sweep it; the seam for that moment is flock."""
    lock = fcntl.flock
    partial = small(alice)
    with contextlib.ExitStack() as sweeping:

        def lock_first(descriptor: int, how: int) -> None:
            monkeypatch.setattr(fcntl, "flock", lock)
            (made,) = place.glob("small-*")
            lock(sweeping.enter_context(made.open("rb")), fcntl.LOCK_EX)
            made.unlink()
            lock(descriptor, how)

        monkeypatch.setattr(fcntl, "flock", lock_first)
        partial.write(memoryview(b"new"))
    assert isinstance(commit(alice, partial), Settled)
    assert (home / "small").read_bytes() == b"new" and left(place) == []


@pytest.mark.usefixtures("named")
def test_small_files_of_one_name_and_transfer_have_hidden_names_of_their_own(
    alice: UserFolder, home: Path, place: Path
) -> None:
    """Another machine may still know the hidden name of an attempt that was published."""
    first, second = small(alice), small(alice)
    first.write(memoryview(b"n"))
    second.write(memoryview(b"new"))
    assert len(left(place)) == 2
    assert commit(alice, second) == Settled(("small",), size=3, sha256=second.sha256)
    first.write(memoryview(b"ew"))
    assert commit(alice, first) == Settled(("small",), already=True, size=3, sha256=first.sha256)
    assert (home / "small").read_bytes() == b"new" and left(place) == []


# --- full disks -------------------------------------------------------------------------------------------------------

FULL_DISK = """
import os, sys
from pathlib import Path
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from sft.disk.temporary import Incoming
from sft.common.errors import Refused
root = Path(sys.argv[1]) / "r"
folder = Storage(root, Rules()).user("alice")
place, filler = root / ".partial/alice", Path(sys.argv[1]) / "filler"
def incoming(name):
    return Incoming(name[:1].encode() * 16, (name,), 5, None, None, "rename")
def fill():
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
def begin(name):
    try:
        return folder.begin(incoming(name), True)
    except Refused as problem:
        return str(problem.code)
fill()
print(begin("new"), folder.area._owners, len(os.listdir(place)))
print(begin("new"), folder.area._owners, len(os.listdir(place)))
filler.unlink()
partial = begin("cut")
partial.write(memoryview(b"1234"))
partial.write(memoryview(b"5"))
fill()
print(partial.keep(), len(os.listdir(place)))
partial = begin("cut")
print(partial.offers, partial.digest_of_kept(5).hexdigest()[:4])
partial.resume_from(5)
partial.sha256 = bytes(32)
print([type(outcome).__name__ for outcome in folder.publish([partial])], (root / "alice/cut").read_bytes())
filler.unlink()
print(begin("new").keep(), [name for name in os.listdir(place) if name != "receipts"])
"""


def test_full_disk_leaves_nothing_that_contradicts_itself(tmp_path: Path) -> None:
    done = run_python_on_small_disk(FULL_DISK, tmp_path / "small", "size=256k")
    if done is None:
        pytest.skip("no file system can be mounted here")
    digest = hashlib.sha256(b"12345").hexdigest()[:4]
    assert done.splitlines() == [
        "no-space {} 0",
        "no-space {} 0",
        "True 2",
        f"[5] {digest}",
        "['Settled'] b'12345'",
        "False []",
    ]


def test_journal_that_cannot_be_written_leaves_no_holder(
    alice: UserFolder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails just there can't be had everywhere, so that one call is made to fail."""

    def full(descriptor: int, content: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        assert refuse(alice, announced()) is Code.NO_SPACE
    assert left(place) == []
    cut(alice)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        assert refuse(alice, announced(TWO)) is Code.NO_SPACE
    partial = begin(alice, announced(TWO))
    assert partial.offers[0] == 200_000
    partial.discard()


def test_failing_flush_at_the_end_still_keeps_the_bytes(
    alice: UserFolder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    partial = fill(begin(alice), CONTENT[:1000])
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        assert partial.keep()
    assert json.loads(journal_of(place).read_bytes())["durable"] == 0
    partial = begin(alice, announced(TWO))
    assert partial.offers == [1000]
    partial.discard()
