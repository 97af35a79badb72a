"""The receiver's disk, on a real one: what is published, what is refused, and that nothing else is ever left."""

import contextlib
import errno
import fcntl
import hashlib
import inspect
import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers import no_hang
from processes import run_python, run_python_on_small_disk
from tables import each_row

from sft.common.errors import Code, Refused, SourceError, UsageError
from sft.common.names import LOCAL_PARTIAL_AREA
from sft.common.values import replace
from sft.disk.durable import refusal
from sft.disk.folders import ExistingFile, Seen, state_of
from sft.disk.local import open_local
from sft.disk.receipts import RECEIPTS
from sft.disk.root import PARTIAL_AREA
from sft.disk.sources import FileSource
from sft.disk.staging import SMALL
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled, TemporaryFile
from sft.disk.user_folder import Rules, UserFolder
from sft.disk.visible_files import VisibleFiles
from sft.transfer.groups import Begun

Outcome = Settled | Refused


@contextlib.contextmanager
def opened(root: Path, rules: Rules | None = None) -> Iterator[Storage]:
    """A Storage whose descriptors are given back, which the process that serves leaves to its own end."""
    storage = Storage(root, rules or Rules())
    try:
        yield storage
    finally:
        storage.close()


@contextlib.contextmanager
def using(storage: Storage, name: str = "alice", private: bool = False) -> Iterator[UserFolder]:
    folder = storage.user(name, private)
    try:
        yield folder
    finally:
        folder.close()


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    """A FIFO that is waited for is a failure, and no end of the tests."""
    with no_hang(120):
        yield


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "received"


@pytest.fixture
def storage(root: Path) -> Iterator[Storage]:
    with opened(root) as storage:
        yield storage


@pytest.fixture
def folder(storage: Storage) -> Iterator[UserFolder]:
    with using(storage) as folder:
        yield folder


@pytest.fixture
def home(root: Path, folder: UserFolder) -> Path:
    """Where alice's files become visible."""
    return root / "alice"


def announced(
    *path: str,
    size: int | None = 3,
    policy: str = "fail",
    mtime: int | None = None,
    mode: int | None = None,
    transfer: bytes | None = None,
) -> Incoming:
    return Incoming(transfer or os.urandom(16), path, size, mtime, mode, policy)


def written(partial: Begun, content: bytes = b"new") -> TemporaryFile:
    assert isinstance(partial, TemporaryFile)
    partial.write(memoryview(content))
    partial.sha256 = hashlib.sha256(content).digest()
    return partial


def begun(folder: UserFolder, incoming: Incoming, content: bytes = b"new") -> TemporaryFile:
    return written(folder.begin(incoming, resumable=False), content)


def commit(folder: UserFolder, *group: TemporaryFile) -> list[Outcome]:
    """What has become of each; size and digest are judged here."""
    outcomes = folder.publish(list(group))
    for outcome, partial in zip(outcomes, group, strict=True):
        if isinstance(outcome, Settled) and not outcome.skipped:
            assert (outcome.size, outcome.sha256) == (partial.size, partial.sha256)
    return [without_digest(outcome) for outcome in outcomes]


def without_digest(outcome: Outcome) -> Outcome:
    return replace(outcome, size=0, sha256=None) if isinstance(outcome, Settled) else outcome


def put(folder: UserFolder, *path: str, content: bytes = b"new", policy: str = "fail", **more: object) -> Outcome:
    """Announce, write and commit one small file: what became of it."""
    try:
        partial = folder.begin(announced(*path, policy=policy, **more), resumable=False)  # type: ignore[arg-type]
        if isinstance(partial, Settled):
            return without_digest(partial)
        (outcome,) = commit(folder, written(partial, content))
    except Refused as problem:
        return problem
    return outcome


def code_of(outcome: Outcome) -> Code:
    assert isinstance(outcome, Refused), outcome
    return outcome.code


def left(root: Path) -> list[str]:
    """What lies in the staging areas of all users; receipts are there on purpose."""
    return [str(each.relative_to(root)) for each in (root / PARTIAL_AREA).glob("*/*") if each.name != RECEIPTS]


def tree(place: Path) -> set[str]:
    found = set()
    for above, folders, files in os.walk(place):
        found |= {os.path.relpath(os.path.join(above, name), place) for name in (*folders, *files)}
    return found


@contextlib.contextmanager
def with_umask(folder: UserFolder, umask: int) -> Iterator[None]:
    """As if the server had been started with it."""
    before = os.umask(umask)
    folder.publisher.umask = umask
    try:
        yield
    finally:
        os.umask(before)


def hidden_name(area: int) -> str:
    """The name of a file that can't be resumed, where it needs one."""
    (found,) = (name for name in os.listdir(area) if name.startswith(SMALL))
    return found


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


# --- publishing -------------------------------------------------------------------------------------------------------


def test_commit_publishes_the_whole_file_and_leaves_no_partial(folder: UserFolder, home: Path, root: Path) -> None:
    content = os.urandom(3 << 20)
    partial = folder.begin(announced("inbox", "deep", "out.bin", size=len(content)), resumable=True)
    assert isinstance(partial, TemporaryFile)
    for start in range(0, len(content), 1 << 20):
        partial.write(memoryview(content)[start : start + (1 << 20)])
    assert partial.size == len(content)
    assert tree(home) == set()
    partial.sha256 = hashlib.sha256(content).digest()
    assert commit(folder, partial) == [Settled(("inbox", "deep", "out.bin"))]
    assert (home / "inbox/deep/out.bin").read_bytes() == content
    assert (home / "inbox/deep/out.bin").stat().st_nlink == 1
    assert left(root) == []


def test_empty_file_is_published(folder: UserFolder, home: Path, root: Path) -> None:
    partial = folder.begin(announced("empty", size=0), resumable=False)
    assert isinstance(partial, TemporaryFile)
    assert left(root) == []
    assert commit(folder, partial) == [Settled(("empty",))]
    assert (home / "empty").read_bytes() == b""


@pytest.mark.parametrize("mtime", [0, 1_700_000_000_123_456_789, -1_000_000_000, 4_000_000_000 * 10**9])
def test_time_is_the_senders(folder: UserFolder, home: Path, mtime: int) -> None:
    assert isinstance(put(folder, "a", mtime=mtime), Settled)
    assert (home / "a").stat().st_mtime_ns // 10**9 == mtime // 10**9


# What is there, what is announced, whether its sender may replace: what it has meanwhile, and in the end.
CLOSED_FOLDERS = [
    (0o555, 0o555, False, 0o755, 0o555),
    (0o555, 0o555, True, 0o755, 0o555),
    (0o555, 0o755, True, 0o755, 0o755),
    (0o555, None, True, 0o755, 0o555),
    (0o555, 0o755, False, 0o555, 0o555),  # the receiver's owner may have closed it
    (0o555, None, False, 0o555, 0o555),
    (0o511, 0o500, False, 0o711, 0o511),
    (0o755, 0o555, True, 0o755, 0o755),  # SET changes that
]


@pytest.mark.parametrize(("there", "sent", "may_replace", "meanwhile", "last"), CLOSED_FOLDERS)
def test_closed_folder_is_writable_while_something_comes_and_is_closed_again(
    folder: UserFolder, home: Path, there: int, sent: int | None, may_replace: bool, meanwhile: int, last: int
) -> None:
    (home / "a").mkdir()
    (home / "a").chmod(there)
    for _ in range(2):
        folder.make_folder(("a",), None, sent, may_replace)
        assert stat.S_IMODE((home / "a").stat().st_mode) == meanwhile
    folder.finish_folders()
    assert stat.S_IMODE((home / "a").stat().st_mode) == last


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
        folder.make_folder(path[:depth], 5, 0o555, True)
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


@pytest.mark.parametrize("mtime", [(1 << 63) - 1, -(1 << 63) + 1])
def test_time_that_no_disk_holds_does_not_stop_the_file(folder: UserFolder, home: Path, mtime: int) -> None:
    assert isinstance(put(folder, "a", mtime=mtime), Settled)
    assert (home / "a").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("file_mode", "sent", "expected"),
    [
        (0o640, None, 0o640),
        (0o640, 0o644, 0o640),
        (0o640, 0o600, 0o600),
        (0o600, 0o7777, 0o600),
        (0o666, 0o4755, 0o644),
        (0o644, 0o000, 0o400),
        (0o644, 0o200, 0o600),
        (0o400, None, 0o400),
    ],
)
def test_mode_of_the_sender_only_restricts(root: Path, file_mode: int, sent: int | None, expected: int) -> None:
    with opened(root, Rules(file_mode=file_mode)) as storage, using(storage) as folder:
        assert isinstance(put(folder, "a", mode=sent), Settled)
    assert stat.S_IMODE((root / "alice/a").stat().st_mode) == expected


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(("umask", "expected"), [(0o022, "644"), (0o077, "600"), (0o007, "660")])
def test_mode_is_0666_less_the_umask(tmp_path: Path, umask: int, expected: str, named: bool) -> None:
    """Also of what has been in the hidden area, with a name there, before it became visible."""
    code = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[1]))
import sft.disk.partials
if sys.argv[3] == "True":
    sft.disk.staging.ANONYMOUS = 0
from sft.disk.temporary import Incoming
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
folder = Storage(Path(sys.argv[2]), Rules()).user("alice")
folder.publish([folder.begin(Incoming(b"t" * 16, ("d", "a"), 0, None, None, "fail"), False)])
print(f"{os.stat(sys.argv[2] + '/alice/d/a').st_mode & 0o7777:o}", f"{os.umask(0):o}")
"""
    assert run_python(code, umask, tmp_path / "r", named) == f"{expected} {umask:o}"


@pytest.mark.usefixtures("named")
def test_partial_is_private_and_named_by_hash_only(folder: UserFolder, root: Path) -> None:
    partial = begun(folder, announced("secret-name.txt", mode=0o644))
    (name,) = left(root)
    assert "secret" not in name
    assert "txt" not in name
    assert stat.S_IMODE((root / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((root / PARTIAL_AREA).stat().st_mode) == 0o700
    assert stat.S_IMODE((root / name).parent.stat().st_mode) == 0o700
    partial.discard()


@pytest.mark.usefixtures("named")
def test_same_transfer_twice_at_once_has_two_files(folder: UserFolder, home: Path, root: Path) -> None:
    first = begun(folder, announced("a", transfer=b"t" * 16), b"one")
    second = begun(folder, announced("a", transfer=b"t" * 16), b"two")
    assert len(left(root)) == 2
    second.discard()
    assert len(left(root)) == 1
    other = begun(folder, announced("b", transfer=b"t" * 16), b"two")
    assert commit(folder, first, other) == [Settled(("a",)), Settled(("b",))]
    assert ((home / "a").read_bytes(), (home / "b").read_bytes()) == (b"one", b"two")


def test_names_stay_as_they_were_sent(folder: UserFolder, home: Path) -> None:
    names = {"cafe\u0301", "caf\u00e9", "-rf", ".hidden", "a:b", "back\\slash", 'q"q', "📦", " x ", "\u202egpj"}
    for name in names:
        assert put(folder, name, content=name.encode()) == Settled((name,))
    assert set(os.listdir(home)) == names
    assert all((home / name).read_bytes() == name.encode() for name in names)


def test_longest_name_and_deepest_path_are_taken(folder: UserFolder, home: Path) -> None:
    deep = ("d",) * 254 + ("é" * 127,)
    assert put(folder, *deep) == Settled(deep)
    assert home.joinpath(*deep).read_bytes() == b"new"


# --- policies ---------------------------------------------------------------------------------------------------------


def test_fail_refuses_a_taken_name_before_the_content(folder: UserFolder, home: Path, root: Path) -> None:
    (home / "a").write_bytes(b"older")
    for size, resumable in ((3, True), (None, False)):
        with pytest.raises(Refused) as caught:
            folder.begin(announced("a", size=size), resumable)
        assert caught.value.code is Code.EXISTS
    assert (home / "a").read_bytes() == b"older"
    assert left(root) == []


def test_skip_says_so_before_the_content(folder: UserFolder, home: Path) -> None:
    (home / "a").write_bytes(b"old")
    assert folder.begin(announced("a", policy="skip"), resumable=True) == Settled(("a",), skipped=True)
    assert (home / "a").read_bytes() == b"old"


def test_rename_takes_the_next_free_number(folder: UserFolder, home: Path) -> None:
    for number, name in enumerate(("db.dump", "db.1.dump", "db.2.dump")):
        assert put(folder, "db.dump", content=b"%d" % number, policy="rename") == Settled((name,))
        assert (home / name).read_bytes() == b"%d" % number


def test_replace_replaces_in_one_step(folder: UserFolder, home: Path, root: Path) -> None:
    (home / "a").write_bytes(b"old")
    before = (home / "a").stat().st_ino
    with (home / "a").open("rb") as reader:
        assert put(folder, "a", policy="replace") == Settled(("a",))
        assert reader.read() == b"old"
    assert (home / "a").read_bytes() == b"new"
    assert (home / "a").stat().st_ino != before
    assert left(root) == []


@pytest.mark.parametrize("policy", ["fail", "rename", "replace", "skip"])
def test_each_policy_publishes_under_a_free_name(folder: UserFolder, home: Path, policy: str) -> None:
    assert put(folder, "d", "a", policy=policy) == Settled(("d", "a"))
    assert (home / "d/a").read_bytes() == b"new"


RACES: dict[str, tuple[Outcome | Code, set[str]]] = {
    "fail": (Code.EXISTS, {"a"}),
    "skip": (Settled(("a",), skipped=True), {"a"}),
    "rename": (Settled(("a.1",)), {"a", "a.1"}),
    "replace": (Settled(("a",)), {"a"}),
}


@pytest.mark.parametrize("policy", RACES)
def test_name_taken_between_announcement_and_commit(folder: UserFolder, home: Path, root: Path, policy: str) -> None:
    expected, names = RACES[policy]
    partial = begun(folder, announced("a", policy=policy))
    (home / "a").write_bytes(b"old")
    (outcome,) = commit(folder, partial)
    assert (outcome.code if isinstance(outcome, Refused) else outcome) == expected
    assert tree(home) == names
    assert (home / "a").read_bytes() == (b"new" if policy == "replace" else b"old")
    assert left(root) == []


@pytest.mark.parametrize("policy", ["fail", "rename", "replace", "skip"])
def test_folder_with_that_name_is_never_replaced(folder: UserFolder, home: Path, root: Path, policy: str) -> None:
    (home / "a").mkdir()
    assert code_of(put(folder, "a", policy=policy)) is Code.IS_FOLDER
    assert (home / "a").is_dir()
    assert left(root) == []


@pytest.mark.parametrize("policy", ["fail", "replace", "skip"])
def test_folder_appears_before_the_commit(folder: UserFolder, home: Path, root: Path, policy: str) -> None:
    partial = begun(folder, announced("a", policy=policy))
    (home / "a").mkdir()
    (outcome,) = commit(folder, partial)
    assert code_of(outcome) is Code.IS_FOLDER
    assert tree(home) == {"a"}
    assert left(root) == []


def test_file_where_a_folder_is_needed(folder: UserFolder, home: Path, root: Path) -> None:
    (home / "a").write_bytes(b"old")
    for policy in RACES:
        assert code_of(put(folder, "a", "b", policy=policy)) is Code.NOT_FOLDER
    partial = begun(folder, announced("c", "d"))
    (home / "c").write_bytes(b"old")
    (outcome,) = commit(folder, partial)
    assert code_of(outcome) is Code.NOT_FOLDER
    assert tree(home) == {"a", "c"}
    assert left(root) == []


@pytest.mark.usefixtures("named")
def test_published_file_whose_partial_name_remains_is_no_collision(folder: UserFolder, home: Path) -> None:
    """As after a crash between the link and the removal of the partial's name."""
    partial = begun(folder, announced("a"))
    os.link(hidden_name(folder.area.folder), home / "a", src_dir_fd=folder.area.folder)
    assert commit(folder, partial) == [Settled(("a",))]
    assert (home / "a").read_bytes() == b"new"
    assert (home / "a").stat().st_nlink == 1


# --- links, FIFOs and other traps -------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    place.mkdir()
    (place / "target").write_bytes(b"precious")
    return place


TRAPS: dict[str, Callable[[Path, Path], None]] = {
    "live link": lambda place, outside: place.symlink_to(outside / "target"),
    "dangling link": lambda place, outside: place.symlink_to(outside / "missing"),
    "link to a folder": lambda place, outside: place.symlink_to(outside),
    "link to itself": lambda place, outside: place.symlink_to(place),
    "fifo": lambda place, outside: os.mkfifo(place),
}

AT_A_TRAP: dict[str, Outcome | Code] = {
    "fail": Code.EXISTS,
    "skip": Settled(("a",), skipped=True),
    "rename": Settled(("a.1",)),
    "replace": Settled(("a",)),  # in place of the link itself; of a special file SPECIAL
}


@pytest.mark.parametrize("late", [False, True], ids=["before", "between"])
@pytest.mark.parametrize("policy", AT_A_TRAP)
@pytest.mark.parametrize("trap", TRAPS)
def test_trap_at_the_final_name_is_never_followed(
    folder: UserFolder, home: Path, root: Path, outside: Path, trap: str, policy: str, late: bool
) -> None:
    if late:
        partial = begun(folder, announced("a", policy=policy))
        TRAPS[trap](home / "a", outside)
        (outcome,) = commit(folder, partial)
    else:
        TRAPS[trap](home / "a", outside)
        outcome = put(folder, "a", policy=policy)
    expected = Code.SPECIAL if (trap, policy) == ("fifo", "replace") else AT_A_TRAP[policy]
    assert (outcome.code if isinstance(outcome, Refused) else outcome) == expected
    assert stat.S_ISREG((home / "a").lstat().st_mode) is (expected == Settled(("a",)))
    if isinstance(outcome, Settled) and not outcome.skipped:
        made = home / outcome.path[-1]
        assert stat.S_ISREG(made.lstat().st_mode)
        assert made.read_bytes() == b"new"
    assert tree(outside) == {"target"}
    assert (outside / "target").read_bytes() == b"precious"
    assert left(root) == []


@pytest.mark.parametrize("late", [False, True], ids=["before", "between"])
@pytest.mark.parametrize("path", [("a", "b"), ("a", "b", "c"), ("x", "a", "b")], ids="/".join)
@pytest.mark.parametrize("trap", TRAPS)
def test_trap_in_the_path_is_never_walked(
    folder: UserFolder, home: Path, root: Path, outside: Path, trap: str, path: tuple[str, ...], late: bool
) -> None:
    (home / "x").mkdir()
    place = home / "x/a" if path[0] == "x" else home / "a"
    for policy in AT_A_TRAP:
        if late:
            partial = begun(folder, announced(*path, policy=policy))
            TRAPS[trap](place, outside)
            (outcome,) = commit(folder, partial)
        else:
            TRAPS[trap](place, outside)
            outcome = put(folder, *path, policy=policy)
        assert code_of(outcome) is (Code.NOT_FOLDER if trap == "fifo" else Code.LINK)
        place.unlink()
    assert tree(outside) == {"target"}
    assert tree(home) == {"x"}
    assert left(root) == []


@pytest.mark.parametrize("trap", TRAPS)
def test_users_folder_that_is_a_trap_is_refused(storage: Storage, root: Path, outside: Path, trap: str) -> None:
    TRAPS[trap](root / "mallory", outside)
    with pytest.raises(Refused) as caught:
        storage.user("mallory")
    assert caught.value.code is (Code.NOT_FOLDER if trap == "fifo" else Code.LINK)
    assert tree(outside) == {"target"}


@pytest.mark.parametrize("trap", TRAPS)
def test_users_partial_area_that_is_a_trap_is_refused(storage: Storage, root: Path, outside: Path, trap: str) -> None:
    TRAPS[trap](root / PARTIAL_AREA / "mallory", outside)
    before = open_descriptors()
    with pytest.raises(Refused):
        storage.user("mallory")
    assert open_descriptors() == before
    assert tree(outside) == {"target"}


def test_users_cannot_reach_each_other(storage: Storage, root: Path) -> None:
    with using(storage, "alice") as alice, using(storage, "bob") as bob:
        assert put(alice, "a", content=b"alice") == Settled(("a",))
        assert put(bob, "a", content=b"bob") == Settled(("a",))
        for path in ((("..", "bob", "a")), (".", "a"), ("../bob/a",), ("/", "a"), ("",), ()):
            assert code_of(put(alice, *path, policy="replace")) is Code.NAME
    assert (root / "bob/a").read_bytes() == b"bob"


def test_portable_names_are_a_setting(root: Path) -> None:
    with opened(root, Rules(portable_names=True)) as storage, using(storage) as folder:
        assert code_of(put(folder, "a:b")) is Code.NAME_NOT_PORTABLE
        assert code_of(put(folder, "con.txt", "x")) is Code.NAME_NOT_PORTABLE
        assert put(folder, "fine.txt") == Settled(("fine.txt",))


# --- what is there already --------------------------------------------------------------------------------------------


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@pytest.mark.parametrize("policy", ["fail", "rename", "replace"])
def test_large_file_of_equal_size_is_compared_first(folder: UserFolder, home: Path, root: Path, policy: str) -> None:
    (home / "a").write_bytes(b"old")
    before = open_descriptors()
    existing = folder.begin(announced("a", policy=policy), resumable=True)
    assert isinstance(existing, ExistingFile)
    assert existing.size == 3
    assert existing.digest() == sha256(b"old")
    assert open_descriptors() == before
    assert left(root) == []


AFTER_ALL: dict[str, tuple[Outcome | Code, set[str]]] = {
    "fail": (Code.EXISTS, {"a"}),
    "rename": (Settled(("a.1",)), {"a", "a.1"}),
    "replace": (Settled(("a",)), {"a"}),
}


@pytest.mark.parametrize("policy", AFTER_ALL)
def test_file_that_differs_from_the_existing_one_goes_on_by_policy(folder: UserFolder, home: Path, policy: str) -> None:
    expected, names = AFTER_ALL[policy]
    (home / "a").write_bytes(b"old")
    incoming = announced("a", policy=policy)
    existing = folder.begin(incoming, resumable=True)
    assert isinstance(existing, ExistingFile)
    assert existing.digest() != sha256(b"new")
    try:
        (outcome,) = commit(folder, written(folder.begin_anyway(incoming, resumable=True)))
    except Refused as problem:
        outcome = problem
    assert (outcome.code if isinstance(outcome, Refused) else outcome) == expected
    assert tree(home) == names
    assert (home / "a").read_bytes() == (b"new" if policy == "replace" else b"old")


def test_what_was_compared_once_is_not_read_again(
    folder: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a disk image of any size."""
    (home / "a").write_bytes(b"old")
    incoming = announced("a", policy="replace")
    existing = folder.begin(incoming, resumable=True)
    assert isinstance(existing, ExistingFile)
    existing.digest()
    partial = written(folder.begin_anyway(incoming, resumable=True))
    monkeypatch.setattr(ExistingFile, "digest", lambda existing: pytest.fail("read again"))
    assert commit(folder, partial) == [Settled(("a",))]
    assert (home / "a").read_bytes() == b"new"


@pytest.mark.parametrize("policy", ["fail", "rename", "replace"])
def test_file_of_another_size_is_not_read(folder: UserFolder, home: Path, policy: str) -> None:
    (home / "a").write_bytes(b"older")
    for size in (3, None):
        try:
            begun = folder.begin(announced("a", size=size, policy=policy), resumable=True)
        except Refused as problem:
            assert (policy, problem.code) == ("fail", Code.EXISTS)
        else:
            assert isinstance(begun, TemporaryFile)
            begun.discard()


@pytest.mark.parametrize("policy", ["fail", "rename", "replace"])
def test_small_file_that_is_there_already_is_not_stored_again(
    folder: UserFolder, home: Path, root: Path, policy: str
) -> None:
    (home / "a").write_bytes(b"new")
    before = (home / "a").stat()
    assert put(folder, "a", policy=policy) == Settled(("a",), already=True)
    after = (home / "a").stat()
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    assert tree(home) == {"a"}
    assert left(root) == []


def test_small_file_that_is_there_already_is_skipped_unread(folder: UserFolder, home: Path) -> None:
    (home / "a").write_bytes(b"old")
    assert put(folder, "a", policy="skip") == Settled(("a",), skipped=True)


def test_small_file_of_equal_size_that_differs_goes_on_by_policy(folder: UserFolder, home: Path) -> None:
    (home / "a").write_bytes(b"old")
    assert code_of(put(folder, "a")) is Code.EXISTS
    assert put(folder, "a", policy="rename") == Settled(("a.1",))
    assert put(folder, "a", policy="rename", content=b"few") == Settled(("a.2",))
    assert put(folder, "a", policy="replace") == Settled(("a",))
    assert (home / "a").read_bytes() == b"new"


@pytest.mark.parametrize("policy", ["fail", "skip", "rename", "replace"])
def test_same_file_that_appears_before_the_commit_is_already_there(folder: UserFolder, home: Path, policy: str) -> None:
    partial = written(folder.begin(announced("a", policy=policy), resumable=True))
    (home / "a").write_bytes(b"new")
    skipped = policy == "skip"
    assert commit(folder, partial) == [Settled(("a",), skipped=skipped, already=not skipped)]
    assert tree(home) == {"a"}


def test_same_pipe_is_already_there(folder: UserFolder, home: Path) -> None:
    (home / "a").write_bytes(b"new")
    assert put(folder, "a", size=None, policy="replace") == Settled(("a",), already=True)
    assert put(folder, "a", size=None, policy="rename") == Settled(("a",), already=True)


@pytest.mark.parametrize("trap", ["live link", "link to a folder", "fifo"])
def test_trap_of_equal_size_is_not_compared(folder: UserFolder, home: Path, outside: Path, trap: str) -> None:
    TRAPS[trap](home / "a", outside)
    size = (home / "a").lstat().st_size
    with pytest.raises(Refused) as caught:
        folder.begin(announced("a", size=size), resumable=True)
    assert caught.value.code is Code.EXISTS


def test_existing_file_that_became_a_fifo_is_refused_without_waiting(
    folder: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seam for that moment is the opening."""
    (home / "a").write_bytes(b"old")
    look = VisibleFiles.state_of_path

    def swap(self: VisibleFiles, path: tuple[str, ...]) -> os.stat_result | None:
        state = look(self, path)
        (home / "a").unlink()
        os.mkfifo(home / "a")
        return state

    monkeypatch.setattr(VisibleFiles, "state_of_path", swap)
    before = open_descriptors()
    existing = folder.begin(announced("a"), resumable=True)
    assert isinstance(existing, ExistingFile)
    with pytest.raises(Refused):
        existing.digest()
    assert open_descriptors() == before


def test_existing_file_that_cannot_be_opened_counts_as_another_one(
    folder: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of another owner. Root may open everything, so that one call is made to fail."""
    (home / "a").write_bytes(b"old")

    def closed(self: VisibleFiles, path: tuple[str, ...]) -> int:
        raise Refused(Code.STORAGE)

    monkeypatch.setattr(VisibleFiles, "open_file", closed)
    with pytest.raises(Refused) as caught:
        folder.begin(announced("a"), resumable=True)
    assert caught.value.code is Code.EXISTS
    partial = folder.begin(announced("a", policy="rename"), resumable=True)
    assert isinstance(partial, TemporaryFile)
    assert commit(folder, written(partial)) == [Settled(("a.1",))]


# --- drop-only --------------------------------------------------------------------------------------------------------


@pytest.fixture
def private(storage: Storage) -> Iterator[UserFolder]:
    """Alice's folder, for an account that may learn nothing of what lies there."""
    with using(storage, private=True) as folder:
        yield folder


def in_private(folder: UserFolder, incoming: Incoming, resumable: bool, content: bytes = b"new") -> Outcome:
    partial = folder.begin(incoming, resumable)
    assert isinstance(partial, TemporaryFile)
    (outcome,) = commit(folder, written(partial, content))
    return outcome


@pytest.mark.parametrize("resumable", [True, False], ids=["large", "small"])
@pytest.mark.parametrize("policy", ["fail", "skip", "rename"])
@pytest.mark.parametrize("there", ["same", "other", "folder", "live link", "dangling link", "fifo"])
def test_private_folder_reveals_nothing_but_a_new_name(
    private: UserFolder, home: Path, outside: Path, there: str, policy: str, resumable: bool
) -> None:
    if there in TRAPS:
        TRAPS[there](home / "a", outside)
    elif there == "folder":
        (home / "a").mkdir()
    else:
        (home / "a").write_bytes(b"new" if there == "same" else b"old")
    before = (home / "a").lstat()
    assert in_private(private, announced("a", policy=policy), resumable) == Settled(("a.1",))
    assert (home / "a.1").read_bytes() == b"new"
    assert (home / "a").lstat() == before
    assert (outside / "target").read_bytes() == b"precious"


@pytest.mark.parametrize("resumable", [True, False], ids=["large", "small"])
@pytest.mark.parametrize("there", [False, True], ids=["free", "taken"])
def test_private_folder_replaces_nothing(private: UserFolder, home: Path, there: bool, resumable: bool) -> None:
    if there:
        (home / "a").write_bytes(b"old")
    try:
        outcome = in_private(private, announced("a", policy="replace"), resumable)
    except Refused as problem:  # a large one before its content comes
        outcome = problem
    assert outcome == Settled(("a",)) if not there else code_of(outcome) is Code.NOT_REPLACED
    assert (home / "a").read_bytes() == (b"old" if there else b"new") and tree(home) == {"a"}


@pytest.mark.parametrize("resumable", [True, False], ids=["large", "small"])
@pytest.mark.parametrize("is_private", [True, False])
def test_name_taken_in_the_last_moment_is_not_replaced_without_the_right(
    storage: Storage, home: Path, monkeypatch: pytest.MonkeyPatch, is_private: bool, resumable: bool
) -> None:
    """Whether it is put there before the name is looked at or right behind that look."""
    look, names = state_of, list[str]()

    def look_and_put(name: str, folder: int) -> os.stat_result | None:
        names.append(name)
        state = look(name, folder)
        (home / name).write_bytes(b"old")
        return state

    with using(storage, private=is_private) as folder:
        before, behind = (
            folder.begin(replace(announced(name, policy="replace"), may_replace=False), resumable)
            for name in ("before", "behind")
        )
        (home / "before").write_bytes(b"old")
        (outcome,) = commit(folder, written(before))
        assert code_of(outcome) is Code.NOT_REPLACED
        names.clear()
        monkeypatch.setattr("sft.disk.publish.state_of", look_and_put)
        (outcome,) = commit(folder, written(behind))
    assert (home / "before").read_bytes() == b"old" and tree(home) == {"before", "behind"}
    assert (home / "behind").read_bytes() == (b"old" if names else b"new")


def test_private_folder_takes_a_free_name_as_it_is(private: UserFolder, home: Path) -> None:
    assert in_private(private, announced("d", "a"), resumable=True) == Settled(("d", "a"))
    assert in_private(private, announced("d", "a"), resumable=True) == Settled(("d", "a.1"))
    assert tree(home) == {"d", "d/a", "d/a.1"}


def test_private_folder_resumes_what_was_cut_off(private: UserFolder, home: Path) -> None:
    (home / "a").write_bytes(b"old")
    partial = private.begin(announced("a", size=6), resumable=True)
    written(partial, b"new").keep()
    partial = private.begin(announced("a", size=6), resumable=True)
    assert isinstance(partial, TemporaryFile)
    assert partial.offers == [3]
    partial.resume_from(3)
    partial.write(memoryview(b"est"))
    partial.sha256 = sha256(b"newest")
    assert commit(private, partial) == [Settled(("a.1",))]
    assert (home / "a.1").read_bytes() == b"newest"


# --- execute bits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("umask", "sent", "expected"),
    [
        (0o022, 0o755, 0o755),
        (0o077, 0o755, 0o700),
        (0o027, 0o777, 0o750),
        (0o022, 0o111, 0o511),
        (0o022, 0o7755, 0o755),
        (0o000, 0o7777, 0o777),
        (0o022, 0o644, 0o644),
        (0o022, None, 0o644),
        (0o000, None, 0o666),
    ],
)
def test_execute_bits_of_the_sender_are_kept_less_the_umask(
    folder: UserFolder, home: Path, umask: int, sent: int | None, expected: int
) -> None:
    with with_umask(folder, umask):
        assert isinstance(put(folder, "a", mode=sent), Settled)
    assert stat.S_IMODE((home / "a").stat().st_mode) == expected


# --- folders ----------------------------------------------------------------------------------------------------------

SECOND = 10**9


def test_folders_get_their_times_and_modes_after_their_content(folder: UserFolder, home: Path) -> None:
    folder.make_folder(("a",), 1 * SECOND, 0o555)
    assert stat.S_IMODE((home / "a").stat().st_mode) == 0o755  # until its content is there
    folder.make_folder(("a", "b"), 2 * SECOND, 0o700)
    folder.make_folder(("a", "b", "c"), 3 * SECOND, None)
    assert put(folder, "a", "b", "file") == Settled(("a", "b", "file"))
    assert put(folder, "a", "file") == Settled(("a", "file"))
    folder.finish_folders()
    states = [home.joinpath(*path).stat() for path in ("a", "ab", "abc")]
    assert [state.st_mtime_ns for state in states] == [1 * SECOND, 2 * SECOND, 3 * SECOND]
    assert [stat.S_IMODE(state.st_mode) for state in states[:2]] == [0o555, 0o700]
    (home / "a").touch()
    after = (home / "a").stat().st_mtime_ns
    folder.finish_folders()
    assert (home / "a").stat().st_mtime_ns == after


def test_folders_that_wait_for_their_times_are_bounded(
    folder: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sft.disk.new_folders._MOST_BYTES", 3 * 250)
    for number in range(10):
        folder.make_folder((str(number),), number * SECOND, None)
        assert len(folder.new_folders.announced._known) <= 4
    folder.finish_folders()
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
    folder: UserFolder, home: Path, umask: int, sent: int, expected: int
) -> None:
    with with_umask(folder, umask):
        folder.make_folder(("a",), None, sent)
    assert stat.S_IMODE((home / "a").stat().st_mode) == expected | 0o700
    folder.finish_folders()
    assert stat.S_IMODE((home / "a").stat().st_mode) == expected


def test_folder_above_a_folder_is_made_too(folder: UserFolder, home: Path) -> None:
    folder.make_folder(("a", "b", "c"), 7 * SECOND, None)
    folder.finish_folders()
    assert tree(home) == {"a", "a/b", "a/b/c"}
    assert (home / "a/b/c").stat().st_mtime_ns == 7 * SECOND


def test_folder_that_is_there_is_merged_and_keeps_its_mode(folder: UserFolder, home: Path) -> None:
    (home / "a").mkdir()
    (home / "a").chmod(0o711)
    (home / "a/kept").write_bytes(b"kept")
    folder.make_folder(("a",), 7 * SECOND, 0o755)
    folder.finish_folders()
    assert tree(home) == {"a", "a/kept"}
    assert stat.S_IMODE((home / "a").stat().st_mode) == 0o711
    assert (home / "a").stat().st_mtime_ns == 7 * SECOND


@pytest.mark.parametrize("mtime", [(1 << 63) - 1, -(1 << 63) + 1, 1 << 70])
def test_time_that_no_disk_holds_does_not_stop_the_folder(folder: UserFolder, home: Path, mtime: int) -> None:
    folder.make_folder(("a",), mtime, 0o700)
    folder.make_folder(("b",), 7 * SECOND, None)
    folder.finish_folders()
    assert (home / "b").stat().st_mtime_ns == 7 * SECOND


@pytest.mark.parametrize("trap", ["file", *TRAPS])
def test_folder_where_something_else_is_is_refused(folder: UserFolder, home: Path, outside: Path, trap: str) -> None:
    (home / "b").mkdir()
    for place in (home / "a", home / "b/a"):
        if trap == "file":
            place.write_bytes(b"old")
        else:
            TRAPS[trap](place, outside)
    for path in (("a",), ("a", "new"), ("b", "a"), ("b", "a", "new", "new")):
        with pytest.raises(Refused) as caught:
            folder.make_folder(path, 5, 0o700)
        assert caught.value.code is (Code.LINK if "link" in trap else Code.NOT_FOLDER)
    folder.finish_folders()
    assert tree(outside) == {"target"}
    assert tree(home) == {"a", "b", "b/a"}


def test_folder_that_became_a_link_gets_no_time_and_no_mode(folder: UserFolder, home: Path, outside: Path) -> None:
    before = outside.stat()
    folder.make_folder(("a",), 5, 0o700)
    folder.make_folder(("b",), 5, 0o700)
    folder.make_folder(("c",), 5 * SECOND, 0o700)
    (home / "a").rmdir()
    (home / "a").symlink_to(outside)
    (home / "b").rmdir()
    folder.finish_folders()
    assert outside.stat() == before
    assert (home / "c").stat().st_mtime_ns == 5 * SECOND


@pytest.mark.parametrize("path", [(), ("..",), ("a", ""), ("a/b",), ("a\n",), (".",)])
def test_name_of_a_folder_is_judged(folder: UserFolder, home: Path, path: tuple[str, ...]) -> None:
    with pytest.raises(Refused) as caught:
        folder.make_folder(path, None, None)
    assert caught.value.code is Code.NAME
    assert tree(home) == set()


# --- giving -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stocked(folder: UserFolder, home: Path, outside: Path) -> UserFolder:
    """A folder with something of everything."""
    (home / "b/d").mkdir(parents=True)
    (home / "a").write_bytes(b"12345")
    (home / "b/d/e").write_bytes(b"")
    (home / "b/c").write_bytes(b"c")
    (home / "b.").write_bytes(b"")
    (home / "z").mkdir()
    for name, trap in TRAPS.items():
        trap(home / f"b/{name}", outside)
        trap(home / name, outside)
    (home / "a").chmod(0o4750)
    os.utime(home / "a", ns=(1, 7 * SECOND))
    return folder


def paths(found: Iterator[Seen]) -> list[str]:
    return ["/".join(seen.path) + ("/" if seen.is_folder else "") for seen in found]


def test_walk_finds_files_and_folders_in_order_and_nothing_else(stocked: UserFolder) -> None:
    below = ["b/", "b/c", "b/d/", "b/d/e"]
    assert paths(stocked.visible.walk(())) == ["a", *below, "b.", "z/"]
    assert paths(stocked.visible.walk(("b",))) == below
    assert paths(stocked.visible.walk(("b", "d", "e"))) == ["b/d/e"]
    assert paths(stocked.visible.walk(("z",))) == ["z/"]


def test_walk_goes_deeper_than_the_interpreter_calls(folder: UserFolder, home: Path) -> None:
    deep = home.joinpath(*["d"] * 200)
    deep.mkdir(parents=True)
    limit, depth = sys.getrecursionlimit(), len(inspect.stack(0))
    sys.setrecursionlimit(depth + 100)
    try:
        found = [len(seen.path) for seen in folder.visible.walk(())]
    finally:
        sys.setrecursionlimit(limit)
    assert found == list(range(1, 201))


def test_what_no_peer_may_name_does_not_end_a_walk(folder: UserFolder, home: Path) -> None:
    """The users of this machine name things as they like; the other end judges each name."""
    (home / "a\nb").mkdir()
    (home / "a\nb/c").write_bytes(b"")
    (home / "d").write_bytes(b"")
    assert paths(folder.visible.walk(())) == ["d"]


def test_seen_is_what_is_there(stocked: UserFolder) -> None:
    assert stocked.visible.look(("a",)) == Seen(("a",), False, 5, 7 * SECOND, 0o750)
    seen = stocked.visible.look(("b", "d"))
    assert seen is not None
    assert (seen.path, seen.is_folder, seen.size) == (("b", "d"), True, 0)


@pytest.mark.parametrize(
    "path", [*((trap,) for trap in TRAPS), ("gone",), ("b", "fifo"), ("link to a folder", "target")]
)
def test_trap_is_not_looked_at_and_not_walked(stocked: UserFolder, path: tuple[str, ...]) -> None:
    assert stocked.visible.look(path) is None
    with pytest.raises(Refused) as caught:
        list(stocked.visible.walk(path))
    codes = {"gone": Code.NOT_FOUND, "fifo": Code.SPECIAL, "b": Code.SPECIAL}
    assert caught.value.code is codes.get(path[0], Code.LINK)


def test_entries_are_names_in_the_order_of_their_bytes(stocked: UserFolder, home: Path) -> None:
    assert stocked.visible.names(("b",))[0] == sorted(["c", "d", *TRAPS])
    assert stocked.visible.names(())[0] == sorted(["a", "b", "b.", "z", *TRAPS])
    for name in ("\u00e9", "e\u0301", "\U0001f4e6", "\uffee"):
        (home / "z" / name).write_bytes(b"")
    assert stocked.visible.names(("z",))[0] == ["e\u0301", "\u00e9", "\uffee", "\U0001f4e6"]


def test_name_that_can_not_be_said_is_left_out_and_told(folder: UserFolder, home: Path) -> None:
    for name in (b"\xff", b"line\nfeed", b"a"):
        (home / os.fsdecode(name)).write_bytes(b"")
    assert folder.visible.names(()) == (["a"], ["line\nfeed", "\udcff"])
    missed: list[tuple[object, ...]] = []
    assert paths(folder.visible.walk((), lambda *told: missed.append(told))) == ["a"]
    assert missed == [((), ["line\nfeed", "\udcff"], Code.NAME)]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (("gone",), Code.NOT_FOUND),
        (("gone", "below"), Code.NOT_FOUND),
        (("a",), Code.NOT_FOLDER),
        (("a", "below"), Code.NOT_FOLDER),
        (("live link",), Code.LINK),
        (("link to a folder",), Code.LINK),
        (("fifo",), Code.NOT_FOLDER),
        (("..",), Code.NAME),
    ],
)
def test_entries_of_what_is_no_folder_are_refused(stocked: UserFolder, path: tuple[str, ...], code: Code) -> None:
    before = open_descriptors()
    with pytest.raises(Refused) as caught:
        stocked.visible.names(path)
    assert caught.value.code is code
    assert open_descriptors() == before


def test_what_vanishes_during_a_walk_is_left_out(stocked: UserFolder, home: Path) -> None:
    found = stocked.visible.walk(())
    assert next(found).path == ("a",)
    (home / "b/d/e").unlink()
    assert next(found).path == ("b",)
    (home / "b/c").unlink()
    assert next(found).path == ("b", "d")
    (home / "b/d").rmdir()
    (home / "b.").unlink()
    assert paths(found) == ["z/"]


def test_folder_that_becomes_a_link_during_a_walk_is_not_entered_but_told(
    stocked: UserFolder, home: Path, outside: Path
) -> None:
    missed: list[tuple[object, ...]] = []
    found = stocked.visible.walk(("z",), lambda *told: missed.append(told))
    assert next(found).path == ("z",)
    (home / "z").rmdir()
    (home / "z").symlink_to(outside)
    assert paths(found) == []
    assert missed == [((), ["z"], Code.UNREADABLE)]


def test_open_file_reads_what_was_asked_for(stocked: UserFolder) -> None:
    with os.fdopen(stocked.visible.open_file(("a",)), "rb") as file:
        assert file.read() == b"12345"
    with os.fdopen(stocked.visible.open_file(("b", "c")), "rb") as file:
        assert file.read() == b"c"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (("gone",), Code.NOT_FOUND),
        (("gone", "below"), Code.NOT_FOUND),
        (("a", "below"), Code.NOT_FOLDER),
        (("live link",), Code.LINK),
        (("dangling link",), Code.LINK),
        (("link to itself",), Code.LINK),
        (("link to a folder", "target"), Code.LINK),
        (("b", "live link"), Code.LINK),
        (("fifo", "below"), Code.NOT_FOLDER),
        (("..", "alice", "a"), Code.NAME),
        ((), Code.NAME),
    ],
)
def test_open_file_follows_no_link(stocked: UserFolder, path: tuple[str, ...], code: Code) -> None:
    before = open_descriptors()
    with pytest.raises(Refused) as caught:
        stocked.visible.open_file(path)
    assert caught.value.code is code
    assert open_descriptors() == before


@pytest.mark.parametrize("name", ["fifo", "z"])
def test_open_file_of_a_fifo_or_folder_waits_for_nobody_and_gives_no_source(stocked: UserFolder, name: str) -> None:
    before = open_descriptors()
    with pytest.raises(SourceError):
        FileSource(name, stocked.visible.open_file((name,)))
    assert open_descriptors() == before


# --- a folder of our own ----------------------------------------------------------------------------------------------


def test_local_folder_is_made_and_leaves_no_partial_area(tmp_path: Path) -> None:
    before = open_descriptors()
    folder = open_local(tmp_path / "d", Rules())
    assert os.listdir(tmp_path / "d") == [LOCAL_PARTIAL_AREA]
    assert stat.S_IMODE((tmp_path / "d" / LOCAL_PARTIAL_AREA).stat().st_mode) == 0o700
    for policy in ("fail", "rename", "replace"):
        assert isinstance(put(folder, "f", policy, policy=policy), Settled)
    folder.close()
    assert tree(tmp_path / "d") == {"f", "f/fail", "f/rename", "f/replace"}
    assert open_descriptors() == before


def test_local_folder_keeps_what_can_be_resumed(tmp_path: Path) -> None:
    for kept, content in (([], b"12"), ([2], b"34"), ([4], b"5")):
        folder = open_local(tmp_path, Rules())
        partial = folder.begin(announced("a", size=5), resumable=True)
        assert isinstance(partial, TemporaryFile)
        assert partial.offers == kept
        partial.resume_from(max(kept, default=0))
        partial.write(memoryview(content))
        if partial.size < 5:
            assert partial.keep()
        else:
            partial.sha256 = sha256(b"12345")
            assert commit(folder, partial) == [Settled(("a",))]
        folder.close()
        assert (tmp_path / LOCAL_PARTIAL_AREA).exists() is (partial.size < 5)
    assert (tmp_path / "a").read_bytes() == b"12345"


def test_stale_files_of_a_crash_in_a_local_folder_are_removed(tmp_path: Path) -> None:
    folder = open_local(tmp_path, Rules())
    (tmp_path / LOCAL_PARTIAL_AREA / "half").write_bytes(b"half")
    folder.close()
    assert os.listdir(tmp_path) == []


def test_partial_area_that_another_program_uses_stays(tmp_path: Path) -> None:
    one, two = open_local(tmp_path, Rules()), open_local(tmp_path, Rules())
    one.close()
    assert put(two, "a") == Settled(("a",))
    two.close()
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("again", [False, True], ids=["removed", "removed and made"])
def test_partial_area_that_another_program_removes_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """The seam for the moment between the opening and the lock is flock."""
    lock = fcntl.flock
    one, third = open_local(tmp_path, Rules()), []

    def close_first(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        one.close()
        assert os.listdir(tmp_path) == []
        if again:
            third.append(open_local(tmp_path, Rules()))
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", close_first)
    two = open_local(tmp_path, Rules())
    for folder in third:
        folder.close()
    assert put(two, "a") == Settled(("a",))
    two.close()
    assert os.listdir(tmp_path) == ["a"]


def test_local_folder_that_is_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    before = open_descriptors()
    for base in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(UsageError):
            open_local(base, Rules())
    assert open_descriptors() == before
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("trap", TRAPS)
def test_local_partial_area_that_is_a_trap_is_refused(tmp_path: Path, outside: Path, trap: str) -> None:
    (tmp_path / "d").mkdir()
    TRAPS[trap](tmp_path / "d" / LOCAL_PARTIAL_AREA, outside)
    before = open_descriptors()
    with pytest.raises(Refused):
        open_local(tmp_path / "d", Rules())
    assert open_descriptors() == before
    assert tree(outside) == {"target"}


def test_connection_goes_on_in_a_storage_that_is_renamed_and_the_next_one_does_not(tmp_path: Path) -> None:
    root, renamed = tmp_path / "received", tmp_path / "renamed"
    storage = Storage(root, Rules())
    with contextlib.closing(storage.user("alice")) as old:
        root.rename(renamed)
        with pytest.raises(Refused) as caught:
            storage.user("alice")
        assert caught.value.code is Code.UNAVAILABLE
        root.mkdir()
        with contextlib.closing(storage.user("alice")) as new:
            assert (put(old, "a"), put(new, "b")) == (Settled(("a",)), Settled(("b",)))
    assert (tree(renamed / "alice"), tree(root / "alice")) == ({"a"}, {"b"})
    storage.close()


# --- discard and sweep ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("named")
def test_discard_leaves_nothing(folder: UserFolder, home: Path, root: Path) -> None:
    before = open_descriptors()
    partial = begun(folder, announced("deep", "a"))
    assert len(left(root)) == 1
    partial.discard()
    partial.discard()
    assert left(root) == []
    assert tree(home) == set()
    assert open_descriptors() == before


def test_discard_before_the_first_byte_leaves_nothing(folder: UserFolder, home: Path, root: Path) -> None:
    partial = folder.begin(announced("a"), resumable=False)
    assert isinstance(partial, TemporaryFile)
    partial.discard()
    assert (left(root), tree(home)) == ([], set())


@pytest.mark.usefixtures("named")
def test_sweep_removes_what_nobody_holds(storage: Storage, folder: UserFolder, root: Path) -> None:
    for user in ("alice", "gone"):
        (root / PARTIAL_AREA / user).mkdir(exist_ok=True)
        (root / PARTIAL_AREA / user / "stale").write_bytes(b"half")
    held = begun(folder, announced("a"))
    assert storage.sweep() == 2
    assert len(left(root)) == 1
    assert commit(folder, held) == [Settled(("a",))]
    assert storage.sweep() == 0


def test_sweep_spares_what_another_process_holds(storage: Storage, folder: UserFolder, root: Path) -> None:
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
    storage: Storage, folder: UserFolder, root: Path, home: Path, outside: Path
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
    storage: Storage, folder: UserFolder, root: Path, home: Path
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
    storage: Storage, folder: UserFolder, home: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making a partial and locking it another process may sweep it; the seam for that moment is flock."""
    partial = folder.begin(announced("a"), resumable=False)
    lock = fcntl.flock

    def sweep_first(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        assert storage.sweep() == 1
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    assert commit(folder, written(partial)) == [Settled(("a",))]
    assert fcntl.flock is lock
    assert (home / "a").read_bytes() == b"new"
    assert left(root) == []


# --- limits and full disks --------------------------------------------------------------------------------------------


def test_max_file_size_is_the_last_size_taken(root: Path) -> None:
    with opened(root, Rules(max_file_size=100)) as storage, using(storage) as folder:
        assert code_of(put(folder, "a", size=101)) is Code.TOO_LARGE
        assert isinstance(put(folder, "a", size=100), Settled)


def test_more_than_the_disk_has_free_is_refused_before_the_content(folder: UserFolder, root: Path) -> None:
    with pytest.raises(Refused) as caught:
        folder.begin(announced("a", size=1 << 62), resumable=True)
    assert caught.value.code is Code.NO_SPACE
    assert left(root) == []


FULL_DISK = """
import os, sys
from pathlib import Path
from sft.disk.temporary import Incoming
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from sft.common.errors import Refused
root = Path(sys.argv[1]) / "r"
folder = Storage(root, Rules()).user("alice")
small = folder.begin(Incoming(b"s" * 16, ("small",), 5, None, None, "fail"), False)
small.write(memoryview(b"small"))
for resumable in (False, True):
    large = folder.begin(Incoming(b"l" * 16, ("large",), 1000, None, None, "fail"), resumable)
    try:
        for _ in range(64):
            large.write(memoryview(bytes(100_000)))
        print("written")
    except Refused as problem:
        large.discard()
        print(problem.code, end=" ")
outcome, = folder.publish([small])
print(type(outcome).__name__, sorted(os.listdir(root / "alice")), len(os.listdir(root / ".partial/alice")))
"""


def test_full_disk_refuses_the_file_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("needs a small file system")
    done = run_python_on_small_disk(FULL_DISK, tmp_path / "small", "size=1m,nr_inodes=64")
    if done is None:
        pytest.skip("no file system can be mounted here")
    assert done == "no-space no-space Settled ['small'] 0"


def test_file_over_the_systems_limit_is_refused_and_keeps_nothing(tmp_path: Path) -> None:
    code = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
    assert run_python(code + FULL_DISK, tmp_path) == "too-large too-large Settled ['small'] 0"


@each_row(
    ("number", "code"),
    [
        (errno.ENOSPC, Code.NO_SPACE),
        (errno.EDQUOT, Code.NO_SPACE),
        (errno.ENAMETOOLONG, Code.NAME),
        (errno.EILSEQ, Code.NAME),
        (errno.EFBIG, Code.TOO_LARGE),
        (errno.EIO, Code.UNAVAILABLE),
        (errno.EROFS, Code.UNAVAILABLE),
    ],
)
def test_each_error_of_the_disk_has_its_code(number: int, code: Code) -> None:
    assert refusal(OSError(number, "words")).code is code
    assert refusal(OSError("words")).code is Code.STORAGE


def test_failed_flush_of_the_bytes_publishes_nothing(
    folder: UserFolder, home: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails at fsync can't be had here, so that one call is made to fail."""

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    partial = begun(folder, announced("a"))
    monkeypatch.setattr(os, "fsync", broken)
    (outcome,) = commit(folder, partial)
    assert code_of(outcome) is Code.UNAVAILABLE
    assert (tree(home), left(root)) == (set(), [])


# --- groups -----------------------------------------------------------------------------------------------------------


def test_failing_member_of_a_group_leaves_the_others(folder: UserFolder, home: Path, root: Path) -> None:
    names = ["a", "b", "c", "d", "e"]
    group = [begun(folder, announced(name, "file"), name.encode()) for name in names]
    (home / "b").write_bytes(b"in the way")
    (home / "d").mkdir()
    (home / "d" / "file").write_bytes(b"old")
    outcomes = commit(folder, *group)
    assert [outcome.code if isinstance(outcome, Refused) else outcome for outcome in outcomes] == [
        Settled(("a", "file")),
        Code.NOT_FOLDER,
        Settled(("c", "file")),
        Code.EXISTS,
        Settled(("e", "file")),
    ]
    assert [(home / name / "file").read_bytes() for name in "acde"] == [b"a", b"c", b"old", b"e"]
    assert left(root) == []


def test_two_of_one_group_for_one_name_do_not_mix(folder: UserFolder, home: Path) -> None:
    one, two = begun(folder, announced("a"), b"one"), begun(folder, announced("a"), b"two")
    outcomes = commit(folder, one, two)
    assert outcomes[0] == Settled(("a",))
    assert code_of(outcomes[1]) is Code.EXISTS
    assert (home / "a").read_bytes() == b"one"


def test_empty_group_is_nothing(folder: UserFolder) -> None:
    assert folder.publish([]) == []


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
            for policy in RACES:
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
            folder.make_folder(("x", "new"), 5, 0o700)
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


def test_deep_path_takes_few_descriptors(folder: UserFolder) -> None:
    """A peer chooses the depth; the process has one limit for all of its connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir("/dev/fd")))
    free = (number for number in count() if number not in taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(islice(free, 20, None)), hard))
    try:
        outcome = put(folder, *("d",) * 200, "a")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert isinstance(outcome, Settled), outcome


# --- whatever the path ------------------------------------------------------------------------------------------------

COMPONENTS = st.one_of(
    st.sampled_from(["..", ".", "", "/", "link", "file", "d", "../..", "/tmp/x", "a\0b", "\ud800", "\n", "~", "-"]),
    st.text(max_size=6),
    st.text("./\0a", max_size=5),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.lists(COMPONENTS, max_size=5).map(tuple), st.sampled_from(["fail", "rename", "replace", "skip"]))
def test_nothing_outside_the_users_folder_is_ever_made(
    tmp_path: Path, root: Path, folder: UserFolder, outside: Path, path: tuple[str, ...], policy: str
) -> None:
    home = root / "alice"
    if not (home / "link").is_symlink():  # the first time
        (home / "link").symlink_to(outside)
        (home / "file").write_bytes(b"old")
    outcome = put(folder, *path, policy=policy)
    partials = f"received/{PARTIAL_AREA}"
    around = {name for name in tree(tmp_path) if not name.startswith("received/alice/")}
    around -= {f"{partials}/alice/{RECEIPTS}"}
    assert around == {"outside", "outside/target", "received", "received/alice", partials, f"{partials}/alice"}
    assert (outside / "target").read_bytes() == b"precious"
    if isinstance(outcome, Settled) and not outcome.skipped:
        assert home.joinpath(*outcome.path).read_bytes() == b"new"
        assert home.joinpath(*outcome.path).resolve().is_relative_to(home.resolve())
