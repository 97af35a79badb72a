"""Folders that are made: their modes at once, their times when their content is there."""

import contextlib
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from made_folders import make_folder
from processes import run_python
from stored_files import SECOND, TRAPS, put, tree, with_umask

from sft.common.errors import Code, Refused
from sft.disk.storage import Storage
from sft.disk.temporary import Settled
from sft.disk.user_folder import UserFolder

pytestmark = pytest.mark.usefixtures("watched")  # a FIFO that is waited for is a failure, and no end of the tests


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# What is announced, with which policy, and what was there: what it has meanwhile, and in the end. PROTOCOL has these
# as a table. Without the right to replace, what was there has its mode meanwhile and in the end.
_ANY = ("fail", "rename", "skip", "replace")
CLOSED_FOLDERS = [
    *[(0o555, policy, 0o555, 0o755, 0o555) for policy in _ANY],
    *[(0o500, policy, 0o511, 0o711, 0o511) for policy in _ANY],
    *[(0o555, policy, 0o755, 0o755, 0o755) for policy in _ANY[:3]],
    (0o555, "replace", 0o755, 0o755, 0o555),
    *[(0o755, policy, 0o755, 0o755, 0o755) for policy in _ANY],
    *[(None, policy, 0o755, 0o755, 0o755) for policy in _ANY],
    *[(sent, policy, 0o555, 0o555, 0o555) for sent in (0o755, None) for policy in _ANY[:3]],
    (0o755, "replace", 0o555, 0o755, 0o755),
    (None, "replace", 0o555, 0o755, 0o555),
]


@pytest.mark.parametrize(("sent", "policy", "there", "meanwhile", "last"), CLOSED_FOLDERS)
def test_folder_that_was_there_is_opened_and_closed_for_who_may_replace(
    alice: UserFolder, home: Path, sent: int | None, policy: str, there: int, meanwhile: int, last: int
) -> None:
    (home / "a").mkdir()
    (home / "a").chmod(there)
    for _ in range(2):
        make_folder(alice, ("a",), None, sent, policy)
        assert mode_of(home / "a") == meanwhile
    alice.finish_folders()
    assert mode_of(home / "a") == last


@pytest.mark.parametrize("there", [0o555, 0o755])
@pytest.mark.parametrize("policy", _ANY)
@pytest.mark.parametrize("sent", [0o555, 0o755, None])
def test_folder_that_was_there_keeps_its_mode_from_who_may_not_replace(
    alice: UserFolder, home: Path, sent: int | None, policy: str, there: int
) -> None:
    (home / "a").mkdir()
    (home / "a").chmod(there)
    make_folder(alice, ("a",), None, sent, policy, may_replace=False)
    assert mode_of(home / "a") == there
    alice.finish_folders()
    assert mode_of(home / "a") == there


@pytest.mark.parametrize(("transfer", "last"), [(b"t" * 16, 0o555), (b"u" * 16, 0o755)])
def test_folder_that_a_broken_connection_made_is_closed_by_the_same_transfer_without_any_right(
    storage: Storage, home: Path, transfer: bytes, last: int
) -> None:
    with contextlib.closing(storage.user("alice")) as broken:
        make_folder(broken, ("a",), None, 0o555, may_replace=False)
    assert mode_of(home / "a") == 0o755
    with contextlib.closing(storage.user("alice")) as again:
        make_folder(again, ("a",), None, 0o555, may_replace=False, transfer=transfer)
        again.finish_folders()
    assert mode_of(home / "a") == last


def test_closed_folders_take_files_and_lose_them_without_roots_rights() -> None:
    """In a process that is root no longer: sent, sent into again, removed in part, and removed as a whole."""
    place = Path(tempfile.mkdtemp(prefix="closed-"))  # tmp_path is closed to other users
    code = """
import os, sys
from pathlib import Path
from sft.disk.temporary import Incoming, Whole
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from crypto_utils import digest
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
os.umask(0o022)
folder = Storage(Path(sys.argv[1]) / "r", Rules()).user("alice")
home = Path(sys.argv[1]) / "r/alice"

def send(*path, content=b"new"):
    for depth in range(1, len(path)):
        made = folder.begin_folder(Incoming(b"t" * 16, path[:depth], None, 5, 0o555, "replace"))
        folder.publish([made])
    for policy in ("replace", "fail"):
        incoming = Incoming(b"t" * 16, path, len(content), None, 0o644, policy)
        (file,) = folder.take([Whole(incoming, content, digest(content))])
        print(folder.publish([file])[0].word)
    folder.finish_folders()

send("a", "b", "c")
send("a", "b", "d")
modes = lambda: print(*[oct((home / name).stat().st_mode & 0o777) for name in ("a", "a/b")])
modes()
folder.changes.remove(("a", "b", "c"), False, folder.changes.removal(lambda: None))
print(os.listdir(home / "a/b"))
modes()
folder.changes.remove(("a",), True, folder.changes.removal(lambda: None))
print(os.listdir(home))
"""
    try:
        place.chmod(0o777)
        said = run_python(code, place).split("\n")
        assert said == [*["stored", "already"] * 2, *["0o555 0o555", "['d']"], "0o555 0o555", "[]"]
    finally:
        shutil.rmtree(place)


def test_folders_get_their_times_and_modes_after_their_content(alice: UserFolder, home: Path) -> None:
    make_folder(alice, ("a",), 1 * SECOND, 0o555)
    assert stat.S_IMODE((home / "a").stat().st_mode) == 0o755  # until its content is there
    make_folder(alice, ("a", "b"), 2 * SECOND, 0o700)
    make_folder(alice, ("a", "b", "c"), 3 * SECOND, None)
    assert put(alice, "a", "b", "file") == Settled(("a", "b", "file"))
    assert put(alice, "a", "file") == Settled(("a", "file"))
    alice.finish_folders()
    states = [home.joinpath(*path).stat() for path in ("a", "ab", "abc")]
    assert [state.st_mtime_ns for state in states] == [1 * SECOND, 2 * SECOND, 3 * SECOND]
    assert [stat.S_IMODE(state.st_mode) for state in states[:2]] == [0o555, 0o700]
    (home / "a").touch()
    after = (home / "a").stat().st_mtime_ns
    alice.finish_folders()
    assert (home / "a").stat().st_mtime_ns == after


def test_folders_that_wait_for_their_times_are_bounded(
    alice: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sft.disk.new_folders._MOST_BYTES", 3 * 250)
    for number in range(10):
        make_folder(alice, (str(number),), number * SECOND, None)
        assert len(alice.new_folders.announced._known) <= 4
    alice.finish_folders()
    assert [(home / str(number)).stat().st_mtime_ns for number in range(10)] == [n * SECOND for n in range(10)]


@pytest.mark.parametrize(
    ("umask", "sent", "expected"),
    [
        (0o022, 0o777, 0o755),
        (0o077, 0o755, 0o700),
        (0o022, 0o000, 0o500),
        (0o077, 0o555, 0o500),
        (0o022, 0o7777, 0o755),
    ],
)
def test_mode_of_a_folder_only_restricts_and_stays_ours(
    alice: UserFolder, home: Path, umask: int, sent: int, expected: int
) -> None:
    with with_umask(alice, umask):
        make_folder(alice, ("a",), None, sent)
    assert stat.S_IMODE((home / "a").stat().st_mode) == expected | 0o700
    alice.finish_folders()
    assert stat.S_IMODE((home / "a").stat().st_mode) == expected


def test_folder_above_a_folder_is_made_too(alice: UserFolder, home: Path) -> None:
    make_folder(alice, ("a", "b", "c"), 7 * SECOND, None)
    alice.finish_folders()
    assert tree(home) == {"a", "a/b", "a/b/c"}
    assert (home / "a/b/c").stat().st_mtime_ns == 7 * SECOND


def test_folder_that_is_there_is_merged_and_keeps_its_mode(alice: UserFolder, home: Path) -> None:
    (home / "a").mkdir()
    (home / "a").chmod(0o711)
    (home / "a/kept").write_bytes(b"kept")
    make_folder(alice, ("a",), 7 * SECOND, 0o755)
    alice.finish_folders()
    assert tree(home) == {"a", "a/kept"}
    assert stat.S_IMODE((home / "a").stat().st_mode) == 0o711
    assert (home / "a").stat().st_mtime_ns == 7 * SECOND


@pytest.mark.parametrize("mtime", [(1 << 63) - 1, -(1 << 63) + 1, 1 << 70])
def test_time_that_no_disk_holds_does_not_stop_the_folder(alice: UserFolder, home: Path, mtime: int) -> None:
    make_folder(alice, ("a",), mtime, 0o700)
    make_folder(alice, ("b",), 7 * SECOND, None)
    alice.finish_folders()
    assert (home / "b").stat().st_mtime_ns == 7 * SECOND


@pytest.mark.parametrize("trap", ["file", *TRAPS])
def test_folder_where_something_else_is_is_refused(alice: UserFolder, home: Path, outside: Path, trap: str) -> None:
    (home / "b").mkdir()
    for place in (home / "a", home / "b/a"):
        if trap == "file":
            place.write_bytes(b"old")
        else:
            TRAPS[trap](place, outside)
    for path in (("a",), ("a", "new"), ("b", "a"), ("b", "a", "new", "new")):
        with pytest.raises(Refused) as caught:
            make_folder(alice, path, 5, 0o700)
        assert caught.value.code is (Code.LINK if "link" in trap else Code.NOT_FOLDER)
    alice.finish_folders()
    assert tree(outside) == {"target"}
    assert tree(home) == {"a", "b", "b/a"}


def test_folder_that_became_a_link_gets_no_time_and_no_mode(alice: UserFolder, home: Path, outside: Path) -> None:
    before = outside.stat()
    make_folder(alice, ("a",), 5, 0o700)
    make_folder(alice, ("b",), 5, 0o700)
    make_folder(alice, ("c",), 5 * SECOND, 0o700)
    (home / "a").rmdir()
    (home / "a").symlink_to(outside)
    (home / "b").rmdir()
    alice.finish_folders()
    assert outside.stat() == before
    assert (home / "c").stat().st_mtime_ns == 5 * SECOND


@pytest.mark.parametrize("path", [(), ("..",), ("a", ""), ("a/b",), ("a\n",), (".",)])
def test_name_of_a_folder_is_judged(alice: UserFolder, home: Path, path: tuple[str, ...]) -> None:
    with pytest.raises(Refused) as caught:
        make_folder(alice, path, None, None)
    assert caught.value.code is Code.NAME
    assert tree(home) == set()
