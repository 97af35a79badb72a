"""Removing, moving and changing what is visible: what is gone, what stays, and what nothing ever reaches."""

import contextlib
import errno
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import quota_files
from made_folders import make_folder
from quota_files import ENDLESS, on_disk, opened, put, written

from sft.common.errors import Code, ConnectionTrouble, Refused
from sft.disk import changes, folders, measuring, moving, removal, walking
from sft.disk.amounts import Amount, Quota
from sft.disk.listing_rate import ListingRate
from sft.disk.measuring import measure
from sft.disk.removals import Removals
from sft.disk.storage import Storage
from sft.disk.temporary import Settled
from sft.disk.user_folder import Rules, UserFolder

SECRET = b"nobody may read or change this"


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


@pytest.fixture
def folder(storage: Storage) -> Iterator[UserFolder]:
    """A connection of alice, whose account has no quota."""
    with contextlib.closing(storage.user("alice")) as made:
        yield made


@pytest.fixture
def home(root: Path, folder: UserFolder) -> Path:
    return root / "alice"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the storage, which must be as it was in the end."""
    made = tmp_path / "outside"
    fill(made, {"secret": SECRET, "d/secret": SECRET})
    yield made
    assert {str(each.relative_to(made)) for each in made.rglob("*")} == {"secret", "d", "d/secret"}
    assert (made / "secret").read_bytes() == (made / "d/secret").read_bytes() == SECRET


def fill(place: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)


def names_in(home: Path) -> set[str]:
    return {os.path.relpath(os.path.join(at, name), home) for at, *both in os.walk(home) for name in chain(*both)}


def remove(folder: UserFolder, name: str, recursive: bool = False, check: Callable[[], None] = lambda: None) -> int:
    """How many things are gone."""
    one = folder.changes.removal(check)
    folder.changes.remove(tuple(name.split("/")), recursive, one)
    return one.count


def move(folder: UserFolder, name: str, to: str) -> None:
    folder.changes.move(tuple(name.split("/")), tuple(to.split("/")), lambda: None)


def code_of(work: Callable[[], object]) -> Code:
    with pytest.raises(Refused) as caught:
        work()
    return caught.value.code


# --- removing ---------------------------------------------------------------------------------------------------------


def test_file_link_and_empty_folder_are_removed_and_nothing_beside_them(
    folder: UserFolder, home: Path, outside: Path
) -> None:
    fill(home, {"a": b"1", "d/b": b"2"})
    (home / "empty").mkdir()
    (home / "link").symlink_to(outside)
    (home / "broken").symlink_to("nothing")
    os.mkfifo(home / "fifo")
    for name in ("a", "empty", "link", "broken", "fifo"):
        assert remove(folder, name) == 1
    assert names_in(home) == {"d", "d/b"}


def test_folder_with_content_is_removed_on_request_only(folder: UserFolder, home: Path, outside: Path) -> None:
    fill(home, {"d/a": b"1", "d/e/f/b": b"2", "d/e/c": b"3", "other": b"4"})
    (home / "d/e/link").symlink_to(outside)
    (home / "d/e/f/up").symlink_to("../../..")
    os.mkfifo(home / "d/fifo")
    (home / "d/empty").mkdir()
    os.mkdir(os.fsencode(home / "d") + b"/\xff\n")
    before = names_in(home)
    assert code_of(lambda: remove(folder, "d")) is Code.NOT_EMPTY
    assert names_in(home) == before
    assert remove(folder, "d", recursive=True) == len(before) - 1
    assert names_in(home) == {"other"}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("missing", Code.NOT_FOUND),
        ("missing/a", Code.NOT_FOUND),
        ("a/b", Code.NOT_FOLDER),
        ("link/secret", Code.LINK),
        ("link/d", Code.LINK),
        ("..", Code.NAME),
        ("d/..", Code.NAME),
        ("../bob", Code.NAME),
        ("../.partial", Code.NAME),
        ("", Code.NAME),
    ],
)
def test_refuse_to_remove_what_is_not_below_the_users_folder(
    folder: UserFolder, home: Path, outside: Path, storage: Storage, name: str, code: Code
) -> None:
    fill(home, {"a": b"1", "d/b": b"2"})
    (home / "link").symlink_to(outside)
    storage.user("bob").close()
    before = names_in(home.parent)
    assert code_of(lambda: remove(folder, name, recursive=True)) is code
    assert names_in(home.parent) == before


def test_users_folder_itself_has_no_path_to_remove_or_move(folder: UserFolder, home: Path) -> None:
    fill(home, {"a": b"1"})
    one = folder.changes.removal(lambda: None)
    for work in (
        lambda: folder.changes.remove((), True, one),
        lambda: folder.changes.move((), ("b",), lambda: None),
        lambda: folder.changes.move(("a",), (), lambda: None),
        lambda: folder.changes.set((), 0, None),
    ):
        assert code_of(work) is Code.NAME
    assert names_in(home) == {"a"}


def test_folder_that_becomes_a_link_before_it_is_entered_is_not_followed(
    folder: UserFolder, home: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(home, {"d/e/a": b"1", "d/b": b"2"})
    real = folders.open_folder

    def replaced(parent: int, name: str, create: int | None = None) -> int:
        if name == "e":
            shutil.rmtree(home / "d/e", ignore_errors=True)
            with contextlib.suppress(FileExistsError):
                (home / "d/e").symlink_to(outside)
        return real(parent, name, create)

    monkeypatch.setattr(walking, "open_folder", replaced)
    remove(folder, "d", recursive=True)
    assert names_in(home) == set()


def test_file_that_becomes_a_link_before_it_is_removed_is_not_followed(
    folder: UserFolder, home: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(home, {"a": b"1"})
    real = os.unlink

    def replaced(name: Any, *, dir_fd: int | None = None) -> None:
        if name == "a" and not (home / "a").is_symlink():
            real(home / "a")
            (home / "a").symlink_to(outside / "secret")
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", replaced)
    remove(folder, "a")
    assert names_in(home) == set()


def test_folder_that_is_moved_away_while_it_is_emptied_ends_the_removal(
    folder: UserFolder, home: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `..` leads to another place by then, where nothing is touched."""
    fill(home, {"d/e/f/a": b"1"})
    real = walking.Place.leave

    def moved(place: walking.Place) -> None:
        if (home / "d/e/f").exists():
            os.rename(home / "d/e", outside / "moved")
        real(place)

    monkeypatch.setattr(walking.Place, "leave", moved)
    assert code_of(lambda: remove(folder, "d", recursive=True)) is Code.BUSY
    assert names_in(home) == {"d"}
    (outside / "moved").rmdir()


@pytest.mark.parametrize("filled", [1, 100], ids=["once", "all the time"])
def test_folder_that_is_filled_while_it_is_emptied_is_emptied_again_a_few_times(
    folder: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch, filled: int
) -> None:
    fill(home, {"d/a": b"1"})
    real, times = walking.Place.leave, 0

    def refill(place: walking.Place) -> None:
        nonlocal times
        times += 1
        if times <= filled:
            fill(home, {"d/new": b"2"})
        real(place)

    monkeypatch.setattr(walking.Place, "leave", refill)
    if filled == 1:
        assert remove(folder, "d", recursive=True) == 3
        assert names_in(home) == set()
    else:
        assert code_of(lambda: remove(folder, "d", recursive=True)) is Code.NOT_EMPTY
        assert names_in(home) == {"d", "d/new"}


def test_deep_folder_is_removed_with_few_descriptors(folder: UserFolder, home: Path) -> None:
    at = os.open(home, os.O_RDONLY)
    for _ in range(700):  # deeper than a path may be long, and not too deep for what clears up after the tests
        os.mkdir("deep-folder", dir_fd=at)
        below = os.open("deep-folder", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    before, most = len(os.listdir("/dev/fd")), 0

    def look() -> None:
        nonlocal most
        most = max(most, len(os.listdir("/dev/fd")))

    assert remove(folder, "deep-folder", True, look) == 700
    assert names_in(home) == set()
    assert most <= before + 4


def make_chain(home: Path, depth: int, files: bool = False) -> None:
    at = os.open(home, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deep-folder", dir_fd=at)
        below = os.open("deep-folder", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
        if files:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)


def calls_of(work: Callable[[], object]) -> int:
    """How many functions are called, and generators gone on with."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def test_counting_and_removing_cost_as_much_as_there_are_folders_at_any_depth(folder: UserFolder, home: Path) -> None:
    costs: list[tuple[int, int]] = []
    for depth in (150, 600):
        make_chain(home, depth)
        counting = calls_of(lambda: measure_of(home))
        costs.append((counting, calls_of(lambda: remove(folder, "deep-folder", True))))
    for few, many in zip(*costs, strict=True):
        assert many < 5 * few


@pytest.mark.parametrize("files", [False, True], ids=["nothing", "a file in each"])
def test_way_down_on_which_nothing_is_removed_is_paid_for(folder: UserFolder, home: Path, files: bool) -> None:
    """Who hangs up before anything is gone can't keep the server busy by doing it again."""
    make_chain(home, 300, files)
    now = used = waited = 0.0

    def spent() -> float:
        nonlocal used
        used += 0.02  # seconds of processor time in each step
        return used

    def wait(seconds: float) -> None:
        nonlocal now, waited
        now, waited = now + seconds, waited + seconds

    one = removal.Removal(folder.allowance, ListingRate(lambda: now, spent, wait), lambda: None)
    with folder.visible.folder(()) as top:
        one.remove("deep-folder", top, True)
    assert one.count == (600 if files else 300)
    if files:
        assert waited == 0
    else:
        assert waited >= 299 * 0.02 * 5 - 2.0 - 1


@pytest.mark.parametrize("most", [1, 5])
def test_more_folders_than_are_kept_in_memory_are_removed_and_counted_all_the_same(
    folder: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    for module in (removal, measuring):
        monkeypatch.setattr(module, "_MOST_NAMES", most)
        monkeypatch.setattr(module, "_LEAST_NAMES", 1)
    fill(home, {f"d/{one}/{two}/x": b"1" * 600 for one in range(7) for two in range(11)})
    assert folder.changes.used(lambda: None) == measure_of(home)
    assert remove(folder, "d", recursive=True) == 1 + 7 + 2 * 77
    assert names_in(home) == set()


def test_removal_that_is_ended_leaves_what_is_not_gone_and_the_same_again_ends_it(
    folder: UserFolder, home: Path
) -> None:
    fill(home, {f"d/{name}/{number}": b"1" for name in "ab" for number in range(1000)})
    left = 6

    def ended() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise ConnectionTrouble("the connection has ended")

    with pytest.raises(ConnectionTrouble):
        remove(folder, "d", True, ended)
    assert 0 < len(names_in(home)) < 2003
    remove(folder, "d", True)
    assert names_in(home) == set()


def measure_of(home: Path) -> Amount:
    at = os.open(home, os.O_RDONLY)
    try:
        return measure(at, 512)
    finally:
        os.close(at)


# --- the quota --------------------------------------------------------------------------------------------------------


def test_what_is_removed_is_free_again_at_once(storage: Storage, root: Path) -> None:
    quota = Quota(11_000, 6)
    with opened(storage, quota) as folder, opened(storage, quota) as other:
        for name in ("d/a", "d/e/b", "c"):
            put(folder, name, 3000)
        (root / "alice/link").symlink_to("c")
        storage.ledgers.recount("alice")
        assert isinstance(put(other, "new", 3000), Refused)
        assert folder.changes.used(lambda: None) == Amount(10_536, 6)
        assert remove(folder, "d", recursive=True) == 4
        assert folder.changes.used(lambda: None) == Amount(3512, 2)
        assert not isinstance(put(other, "new", 3000), Refused)
        assert (remove(other, "c"), remove(other, "link")) == (1, 1)
    assert written(root) == on_disk(root) == Amount(3000, 1)


def test_replacing_what_another_connection_removes_credits_one_of_them(storage: Storage, root: Path) -> None:
    with opened(storage, ENDLESS) as folder, opened(storage, ENDLESS) as other:
        put(folder, "a", 5000)
        assert remove(other, "a") == 1
        put(folder, "a", 100, "replace")
        assert remove(other, "a") == 1
        assert code_of(lambda: remove(folder, "a")) is Code.NOT_FOUND
    assert written(root) == on_disk(root) == Amount()


def test_folder_that_another_connection_has_removed_is_charged_when_it_is_made_again(
    storage: Storage, root: Path
) -> None:
    """Else an account could make as many as it likes, and be credited for each when it removes it."""
    with opened(storage, ENDLESS) as folder, opened(storage, ENDLESS) as other:
        put(folder, "d/e/a", 0)
        put(folder, "d/e/b", 0)  # from now on it is known to be there
        for _ in range(3):
            remove(other, "d", recursive=True)
            put(folder, "d/e/a", 0)
            make_folder(folder, ("d", "e"), None, None)
    assert written(root) == on_disk(root)


def test_folder_above_one_that_was_announced_is_charged_when_it_was_removed_meanwhile(
    storage: Storage, root: Path
) -> None:
    with opened(storage, ENDLESS) as folder, opened(storage, ENDLESS) as other:
        make_folder(other, ("d",), None, None)
        partial = quota_files.begin(folder, "d/e/a", 100)
        remove(other, "d")
        folder.publish([quota_files.fill(partial, 100)])
    assert written(root) == on_disk(root)


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("policy", ["fail", "replace"])
def test_folder_that_is_removed_while_a_file_is_published_is_made_again(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch, size: int, policy: str
) -> None:
    with opened(storage, ENDLESS) as folder, opened(storage, ENDLESS) as other:
        partial = quota_files.fill(quota_files.begin(folder, "d/a", size, policy), size)
        call = "rename" if policy == "replace" else "link"
        real, times = getattr(type(partial), call), 0

        def overtaken(self: Any, name: str, at: int) -> None:
            nonlocal times
            times += 1
            if times == 1:
                remove(other, "d", recursive=True)
            real(self, name, at)

        monkeypatch.setattr(type(partial), call, overtaken)
        (outcome,) = folder.publish([partial])
        assert isinstance(outcome, Settled), outcome
    assert times == 2 and (root / "alice/d/a").stat().st_size == size
    assert written(root) == on_disk(root)


def test_moving_makes_missing_folders_within_the_quota_and_changes_no_count_else(storage: Storage, root: Path) -> None:
    with opened(storage, Quota(None, 3)) as folder:
        put(folder, "a", 100)
        move(folder, "a", "b")
        move(folder, "b", "d/e/c")
        assert code_of(lambda: move(folder, "d/e/c", "f/g")) is Code.QUOTA
    assert written(root) == on_disk(root) and on_disk(root).files == 3


def test_use_is_the_same_with_and_without_a_quota(storage: Storage, root: Path) -> None:
    with contextlib.closing(storage.user("alice")) as folder:
        for name, size in (("a", 0), ("d/b", 1000), ("d/e/c", 70_000)):
            put(folder, name, size)
        (root / "alice/link").symlink_to("a")
        without = folder.changes.used(lambda: None)
        assert folder.changes.free() == os.statvfs(root).f_bavail * os.statvfs(root).f_frsize
    with opened(storage, ENDLESS) as folder:
        assert folder.changes.used(lambda: None) == without == Amount(73_048, 6)


# --- moving -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["renameat2", "no renameat2"])
def mover(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(moving, "_move", None)
    elif moving._move is None:
        pytest.skip("this system has no such call")


@pytest.mark.usefixtures("mover")
def test_file_link_and_folder_are_moved_with_what_is_in_them(folder: UserFolder, home: Path, outside: Path) -> None:
    fill(home, {"a": b"1", "d/b": b"2"})
    (home / "link").symlink_to(outside)
    for name, to in (("a", "c"), ("link", "d/link"), ("d", "new/folder/e")):
        move(folder, name, to)
    assert (home / "c").read_bytes() == b"1"
    assert (home / "new/folder/e/b").read_bytes() == b"2"
    assert os.readlink(home / "new/folder/e/link") == str(outside)
    assert names_in(home) == {"c", "new", "new/folder", "new/folder/e", "new/folder/e/b", "new/folder/e/link"}


@pytest.mark.usefixtures("mover")
@pytest.mark.parametrize(
    ("name", "to", "code"),
    [
        ("a", "b", Code.EXISTS),
        ("a", "a", Code.EXISTS),
        ("a", "link", Code.EXISTS),
        ("d", "b", Code.EXISTS),
        ("d", "d", Code.EXISTS),
        ("a", "d", Code.IS_FOLDER),
        ("d", "empty", Code.IS_FOLDER),
        ("d", "d/e", Code.INSIDE),
        ("d", "d/x/y/z", Code.INSIDE),
        ("missing", "new/c", Code.NOT_FOUND),
        ("missing/a", "c", Code.NOT_FOUND),
        ("a", "b/c", Code.NOT_FOLDER),
        ("a/x", "c", Code.NOT_FOLDER),
        ("link/secret", "c", Code.LINK),
        ("a", "link/c", Code.LINK),
        ("../bob/x", "c", Code.NAME),
        ("a", "../bob/c", Code.NAME),
        ("a", "../.partial/alice/c", Code.NAME),
    ],
)
def test_refuse_move_and_change_nothing(
    folder: UserFolder, home: Path, outside: Path, name: str, to: str, code: Code
) -> None:
    fill(home, {"a": b"1", "b": b"2", "d/c": b"3"})
    (home / "empty").mkdir()
    (home / "link").symlink_to(outside)
    before = names_in(home.parent)
    assert code_of(lambda: move(folder, name, to)) is code
    assert names_in(home.parent) == before
    assert ((home / "a").read_bytes(), (home / "b").read_bytes()) == (b"1", b"2")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_name_that_is_taken_in_the_last_moment_is_never_replaced(
    folder: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Also where the system can't move without replacing."""
    fill(home, {"a": b"1", "d/c": b"3"})
    monkeypatch.setattr(moving, "_move", None)
    call = "link" if what == "file" else "rename"
    real = getattr(os, call)

    def overtaken(*words: Any, **more: Any) -> None:
        fill(home, {"to": b"theirs"} if what == "file" else {"to/theirs": b"theirs"})
        real(*words, **more)

    monkeypatch.setattr(os, call, overtaken)
    assert code_of(lambda: move(folder, "a" if what == "file" else "d", "to")) in (Code.EXISTS, Code.IS_FOLDER)
    assert names_in(home) == {"a", "d", "d/c", "to"} | ({"to/theirs"} if what == "folder" else set())


@pytest.mark.parametrize("what", ["file", "folder"])
def test_process_that_dies_while_it_moves_loses_nothing(
    folder: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Where the system can't move in one step; before each call that changes a name."""
    monkeypatch.setattr(moving, "_move", None)
    name, states = "old", []
    for number in range(1, 5):
        shutil.rmtree(home)
        home.mkdir()
        os.dup2(at := os.open(home, os.O_RDONLY), folder.visible.descriptor)
        os.close(at)
        fill(home, {"old": b"content"} if what == "file" else {"old/a": b"content"})
        child = os.fork()
        if child == 0:
            _die_at_call(number)
            with contextlib.suppress(BaseException):
                move(folder, name, "new")
            os._exit(0)
        os.waitpid(child, 0)
        states.append(names_in(home))
        whole = [each for each in home.rglob("*") if each.is_file()]
        assert whole and {each.read_bytes() for each in whole} == {b"content"}
    below = set() if what == "file" else {"/a"}
    old, new = ({each + more for more in {"", *below}} for each in ("old", "new"))
    between = {"old", "new"} if what == "file" else {"old", "old/a", "new"}
    assert states == [old, between, new, new]


def _die_at_call(number: int) -> None:
    """The process ends in front of that call, as by a kill."""
    left = number

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(9)
            return real(*words, **more)

        return call

    for name in ("link", "unlink", "mkdir", "rename", "replace", "rmdir"):
        setattr(os, name, dying(getattr(os, name)))


def test_portable_names_hold_for_what_is_moved(tmp_path: Path) -> None:
    with (
        contextlib.closing(Storage(tmp_path / "received", Rules(portable_names=True))) as storage,
        contextlib.closing(storage.user("alice")) as folder,
    ):
        fill(tmp_path / "received/alice", {"nul": b"1"})
        assert code_of(lambda: move(folder, "nul", "con")) is Code.NAME_NOT_PORTABLE
        move(folder, "nul", "a")
    assert names_in(tmp_path / "received/alice") == {"a"}


@pytest.mark.parametrize(
    ("below", "to", "code"),
    [
        ("/".join("x" * 249), "/".join("y" * 6), None),
        ("/".join("x" * 249), "/".join("y" * 7), Code.NAME),
        ("/".join(["x" * 200] * 19), "y" * 200, None),
        ("/".join(["x" * 200] * 20), "y" * 75, None),
        ("/".join(["x" * 200] * 20), "y" * 76, Code.NAME),
    ],
    ids=["255 deep", "256 deep", "short", "4,096 bytes", "4,097 bytes"],
)
def test_nothing_below_gets_a_path_that_is_longer_than_one_may_be(
    folder: UserFolder, home: Path, below: str, to: str, code: Code | None
) -> None:
    make_folder(folder, ("d", *below.split("/")), None, None)
    (home / "d/a").touch()
    if code is None:
        move(folder, "d", to)
        assert (home / to / "a").exists()
        move(folder, to, "d")
    else:
        assert code_of(lambda: move(folder, "d", to)) is code
        assert os.listdir(home) == ["d"]


def test_folder_that_lies_too_deep_can_be_moved_upwards(folder: UserFolder, home: Path) -> None:
    make_folder(folder, ("a", "b", *"x" * 250), None, None)
    (home / "y/y/y/y").mkdir(parents=True)
    (home / "a").rename(home / "y/y/y/y/a")
    move(folder, "y/y/y/y/a", "y/y/a")
    assert (home / "y/y/a/b").exists()


@pytest.mark.parametrize(
    ("name", "to", "moves"),
    [
        ("d", "moved", False),
        ("d/e", "moved", False),
        ("d/e/f/a", "moved", False),
        ("above", "moved", False),
        ("other", "d/e/new", False),
        ("D/e", "moved", False),
        ("other", "moved", True),
        ("dd", "moved", True),
    ],
)
def test_nothing_is_moved_out_of_or_into_what_is_being_removed(
    storage: Storage, folder: UserFolder, home: Path, name: str, to: str, moves: bool
) -> None:
    """By another connection: the removal would go on wherever the folder is."""
    top = "above/" if name == "above" else ""
    fill(home, {f"{top}d/e/f/a": b"1", f"{top}d/e/f/b": b"2", "other": b"3", "dd": b"4"})
    if name.startswith("D"):  # which a disk may take for the same name
        fill(home, {"D/e/f": b"5"})
    codes: list[Code | None] = []

    def look() -> None:
        if not codes:
            try:
                move(other, name, to)
                codes.append(None)
            except Refused as problem:
                codes.append(problem.code)

    with contextlib.closing(storage.user("alice")) as other:
        remove(folder, f"{top}d", True, look)
        assert codes == [None if moves else Code.BUSY]
        assert (home / "moved").exists() == moves
        fill(home, {"new/a": b"1"})
        move(other, "new", "again")  # it has ended


def test_removal_waits_for_a_move_that_is_being_done() -> None:
    running = Removals()
    order: list[str] = []

    def removal() -> None:
        with running.removing(("a",)):
            order.append("removed")

    thread = threading.Thread(target=removal)
    with running.moving(("a", "b"), ("c",)):
        thread.start()
        thread.join(0.05)
        order.append("moved")
    thread.join()
    assert order == ["moved", "removed"]


@pytest.mark.parametrize("what", ["old", "new", "new/folder"])
def test_moved_is_done_also_when_another_connection_moves_or_removes_the_folders_then(
    folder: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    fill(home, {"old/a": b"1"})
    real = moving.rename_new

    def overtaken(*words: Any) -> None:
        real(*words)
        (home / what).rename(home / "elsewhere") if what != "old" else (home / what).rmdir()

    monkeypatch.setattr(changes, "rename_new", overtaken)
    move(folder, "old/a", "new/folder/b")
    assert [each.name for each in home.rglob("*") if each.is_file()] == ["b"]


def test_removed_is_done_also_when_another_connection_removes_the_folder_then(
    folder: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(home, {"d/a": b"1"})
    real = removal.Removal.remove

    def overtaken(*words: Any) -> None:
        real(*words)
        (home / "d").rmdir()

    monkeypatch.setattr(removal.Removal, "remove", overtaken)
    assert remove(folder, "d/a") == 1


def test_all_folders_that_a_move_has_made_are_flushed_wherever_they_are(
    folder: UserFolder, home: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(home, {"old/a": b"1"})
    flushed: set[str] = set()

    def flush(descriptor: int) -> None:
        flushed.add(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), root))

    monkeypatch.setattr(folders, "flush", flush)
    monkeypatch.setattr(changes, "flush", flush)
    move(folder, "old/a", "new/folder/b")
    assert flushed == {".", "alice", "alice/old", "alice/new", "alice/new/folder"}


# --- time and bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file_mode", "asked", "found"),
    [
        ("a", None, 0o777, 0o755),
        ("a", None, 0o4666, 0o644),
        ("a", None, 0, 0o400),
        ("a", 0o640, 0o666, 0o640),
        ("a", 0o640, 0o600, 0o600),
        ("d", None, 0o777, 0o755),
        ("d", None, 0, 0o500),
        ("d", None, 0o555, 0o555),
        ("d", 0o640, 0o7770, 0o750),
    ],
)
def test_bits_are_given_as_to_one_that_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, file_mode: int | None, asked: int, found: int
) -> None:
    umask = os.umask(0o022)
    try:
        storage = Storage(tmp_path / "received", Rules(file_mode=file_mode))
    finally:
        os.umask(umask)
    with contextlib.closing(storage), contextlib.closing(storage.user("alice")) as folder:
        home = tmp_path / "received/alice"
        fill(home, {"a": b"1", "d/b": b"2"})
        before = (home / name).stat().st_mtime_ns
        assert folder.changes.set((name,), None, asked)
        state = (home / name).stat()
        assert (stat.S_IMODE(state.st_mode), state.st_mtime_ns) == (found, before)


def test_set_group_bit_of_a_folder_stays(folder: UserFolder, home: Path) -> None:
    (home / "d").mkdir()
    (home / "d").chmod(0o2755)
    folder.changes.set(("d",), None, 0o700)
    assert stat.S_IMODE((home / "d").stat().st_mode) == 0o2700


def test_time_is_given_and_the_bits_stay(folder: UserFolder, home: Path) -> None:
    fill(home, {"a": b"1", "d/b": b"2"})
    for name in ("a", "d"):
        before = (home / name).stat().st_mode
        assert folder.changes.set((name,), 1_234_567_890_123_456_789, None)
        assert (home / name).stat().st_mtime_ns == 1_234_567_890_123_456_789
        assert (home / name).stat().st_mode == before
    assert (home / "d/b").stat().st_mtime_ns != 1_234_567_890_123_456_789


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("missing", Code.NOT_FOUND),
        ("fifo", Code.NOT_FOUND),
        ("link", Code.LINK),
        ("link/secret", Code.LINK),
        ("../bob", Code.NAME),
    ],
)
def test_refuse_to_set_what_is_neither_file_nor_folder(
    folder: UserFolder, home: Path, outside: Path, name: str, code: Code
) -> None:
    (home / "link").symlink_to(outside)
    os.mkfifo(home / "fifo")
    before = outside.stat(), (outside / "secret").stat()
    assert code_of(lambda: folder.changes.set(tuple(name.split("/")), 0, 0o777)) is code
    assert (outside.stat().st_mode, outside.stat().st_mtime) == (before[0].st_mode, before[0].st_mtime)
    assert (outside / "secret").stat().st_mode == before[1].st_mode


def test_file_that_becomes_a_link_before_it_is_opened_is_not_changed(
    folder: UserFolder, home: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(home, {"a": b"1"})
    real = os.open

    def replaced(name: Any, *words: Any, **more: Any) -> int:
        if name == "a":
            (home / "a").unlink(missing_ok=True)
            (home / "a").symlink_to(outside / "secret")
        return real(name, *words, **more)

    mode = (outside / "secret").stat().st_mode
    monkeypatch.setattr(os, "open", replaced)
    assert code_of(lambda: folder.changes.set(("a",), 0, 0o777)) is Code.NOT_FOUND
    assert (outside / "secret").stat().st_mode == mode


# --- what fails -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["remove", "move", "set"])
def test_what_can_not_be_flushed_is_no_success(
    folder: UserFolder, home: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    fill(home, {"a": b"1"})

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", fail)
    works: dict[str, Callable[[], object]] = {
        "remove": lambda: remove(folder, "a"),
        "move": lambda: move(folder, "a", "b"),
        "set": lambda: folder.changes.set(("a",), 0, None),
    }
    assert code_of(works[what]) in (Code.STORAGE, Code.UNAVAILABLE)
