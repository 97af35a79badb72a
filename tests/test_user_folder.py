"""A user's folder at the receiver: what is published, under which name, and that nothing else is ever left."""

import hashlib
import os
import stat
from pathlib import Path

import pytest
from processes import run_python
from stored_files import (
    Outcome,
    announced,
    begun,
    code_of,
    commit,
    hidden_name,
    left,
    opened,
    put,
    tree,
    using,
    with_umask,
)

from sft.common.errors import Code, Refused
from sft.disk.root import PARTIAL_AREA
from sft.disk.temporary import Settled, TemporaryFile
from sft.disk.user_folder import Rules, UserFolder

# --- publishing -------------------------------------------------------------------------------------------------------


def test_commit_publishes_the_whole_file_and_leaves_no_partial(alice: UserFolder, home: Path, root: Path) -> None:
    content = os.urandom(3 << 20)
    partial = alice.begin(announced("inbox", "deep", "out.bin", size=len(content)), resumable=True)
    assert isinstance(partial, TemporaryFile)
    for start in range(0, len(content), 1 << 20):
        partial.write(memoryview(content)[start : start + (1 << 20)])
    assert partial.size == len(content)
    assert tree(home) == set()
    partial.sha256 = hashlib.sha256(content).digest()
    assert commit(alice, partial) == [Settled(("inbox", "deep", "out.bin"))]
    assert (home / "inbox/deep/out.bin").read_bytes() == content
    assert (home / "inbox/deep/out.bin").stat().st_nlink == 1
    assert left(root) == []


def test_empty_file_is_published(alice: UserFolder, home: Path, root: Path) -> None:
    partial = alice.begin(announced("empty", size=0), resumable=False)
    assert isinstance(partial, TemporaryFile)
    assert left(root) == []
    assert commit(alice, partial) == [Settled(("empty",))]
    assert (home / "empty").read_bytes() == b""


@pytest.mark.parametrize("mtime", [0, 1_700_000_000_123_456_789, -1_000_000_000, 4_000_000_000 * 10**9])
def test_time_is_the_senders(alice: UserFolder, home: Path, mtime: int) -> None:
    assert isinstance(put(alice, "a", mtime=mtime), Settled)
    assert (home / "a").stat().st_mtime_ns // 10**9 == mtime // 10**9


@pytest.mark.parametrize("mtime", [(1 << 63) - 1, -(1 << 63) + 1])
def test_time_that_no_disk_holds_does_not_stop_the_file(alice: UserFolder, home: Path, mtime: int) -> None:
    assert isinstance(put(alice, "a", mtime=mtime), Settled)
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
def test_partial_is_private_and_named_by_hash_only(alice: UserFolder, root: Path) -> None:
    partial = begun(alice, announced("secret-name.txt", mode=0o644))
    (name,) = left(root)
    assert "secret" not in name
    assert "txt" not in name
    assert stat.S_IMODE((root / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((root / PARTIAL_AREA).stat().st_mode) == 0o700
    assert stat.S_IMODE((root / name).parent.stat().st_mode) == 0o700
    partial.discard()


@pytest.mark.usefixtures("named")
def test_same_transfer_twice_at_once_has_two_files(alice: UserFolder, home: Path, root: Path) -> None:
    first = begun(alice, announced("a", transfer=b"t" * 16), b"one")
    second = begun(alice, announced("a", transfer=b"t" * 16), b"two")
    assert len(left(root)) == 2
    second.discard()
    assert len(left(root)) == 1
    other = begun(alice, announced("b", transfer=b"t" * 16), b"two")
    assert commit(alice, first, other) == [Settled(("a",)), Settled(("b",))]
    assert ((home / "a").read_bytes(), (home / "b").read_bytes()) == (b"one", b"two")


def test_names_stay_as_they_were_sent(alice: UserFolder, home: Path) -> None:
    names = {"cafe\u0301", "caf\u00e9", "-rf", ".hidden", "a:b", "back\\slash", 'q"q', "📦", " x ", "\u202egpj"}
    for name in names:
        assert put(alice, name, content=name.encode()) == Settled((name,))
    assert set(os.listdir(home)) == names
    assert all((home / name).read_bytes() == name.encode() for name in names)


def test_longest_name_and_deepest_path_are_taken(alice: UserFolder, home: Path) -> None:
    deep = ("d",) * 254 + ("é" * 127,)
    assert put(alice, *deep) == Settled(deep)
    assert home.joinpath(*deep).read_bytes() == b"new"


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
    alice: UserFolder, home: Path, umask: int, sent: int | None, expected: int
) -> None:
    with with_umask(alice, umask):
        assert isinstance(put(alice, "a", mode=sent), Settled)
    assert stat.S_IMODE((home / "a").stat().st_mode) == expected


# --- policies ---------------------------------------------------------------------------------------------------------


def test_fail_refuses_a_taken_name_before_the_content(alice: UserFolder, home: Path, root: Path) -> None:
    (home / "a").write_bytes(b"older")
    for size, resumable in ((3, True), (None, False)):
        with pytest.raises(Refused) as caught:
            alice.begin(announced("a", size=size), resumable)
        assert caught.value.code is Code.EXISTS
    assert (home / "a").read_bytes() == b"older"
    assert left(root) == []


def test_skip_says_so_before_the_content(alice: UserFolder, home: Path) -> None:
    (home / "a").write_bytes(b"old")
    assert alice.begin(announced("a", policy="skip"), resumable=True) == Settled(("a",), skipped=True)
    assert (home / "a").read_bytes() == b"old"


def test_rename_takes_the_next_free_number(alice: UserFolder, home: Path) -> None:
    for number, name in enumerate(("db.dump", "db.1.dump", "db.2.dump")):
        assert put(alice, "db.dump", content=b"%d" % number, policy="rename") == Settled((name,))
        assert (home / name).read_bytes() == b"%d" % number


def test_replace_replaces_in_one_step(alice: UserFolder, home: Path, root: Path) -> None:
    (home / "a").write_bytes(b"old")
    before = (home / "a").stat().st_ino
    with (home / "a").open("rb") as reader:
        assert put(alice, "a", policy="replace") == Settled(("a",))
        assert reader.read() == b"old"
    assert (home / "a").read_bytes() == b"new"
    assert (home / "a").stat().st_ino != before
    assert left(root) == []


@pytest.mark.parametrize("policy", ["fail", "rename", "replace", "skip"])
def test_each_policy_publishes_under_a_free_name(alice: UserFolder, home: Path, policy: str) -> None:
    assert put(alice, "d", "a", policy=policy) == Settled(("d", "a"))
    assert (home / "d/a").read_bytes() == b"new"


RACES: dict[str, tuple[Outcome | Code, set[str]]] = {
    "fail": (Code.EXISTS, {"a"}),
    "skip": (Settled(("a",), skipped=True), {"a"}),
    "rename": (Settled(("a.1",)), {"a", "a.1"}),
    "replace": (Settled(("a",)), {"a"}),
}


@pytest.mark.parametrize("policy", RACES)
def test_name_taken_between_announcement_and_commit(alice: UserFolder, home: Path, root: Path, policy: str) -> None:
    expected, names = RACES[policy]
    partial = begun(alice, announced("a", policy=policy))
    (home / "a").write_bytes(b"old")
    (outcome,) = commit(alice, partial)
    assert (outcome.code if isinstance(outcome, Refused) else outcome) == expected
    assert tree(home) == names
    assert (home / "a").read_bytes() == (b"new" if policy == "replace" else b"old")
    assert left(root) == []


@pytest.mark.parametrize("policy", ["fail", "rename", "replace", "skip"])
def test_folder_with_that_name_is_never_replaced(alice: UserFolder, home: Path, root: Path, policy: str) -> None:
    (home / "a").mkdir()
    assert code_of(put(alice, "a", policy=policy)) is Code.IS_FOLDER
    assert (home / "a").is_dir()
    assert left(root) == []


@pytest.mark.parametrize("policy", ["fail", "replace", "skip"])
def test_folder_appears_before_the_commit(alice: UserFolder, home: Path, root: Path, policy: str) -> None:
    partial = begun(alice, announced("a", policy=policy))
    (home / "a").mkdir()
    (outcome,) = commit(alice, partial)
    assert code_of(outcome) is Code.IS_FOLDER
    assert tree(home) == {"a"}
    assert left(root) == []


def test_file_where_a_folder_is_needed(alice: UserFolder, home: Path, root: Path) -> None:
    (home / "a").write_bytes(b"old")
    for policy in RACES:
        assert code_of(put(alice, "a", "b", policy=policy)) is Code.NOT_FOLDER
    partial = begun(alice, announced("c", "d"))
    (home / "c").write_bytes(b"old")
    (outcome,) = commit(alice, partial)
    assert code_of(outcome) is Code.NOT_FOLDER
    assert tree(home) == {"a", "c"}
    assert left(root) == []


@pytest.mark.usefixtures("named")
def test_published_file_whose_partial_name_remains_is_no_collision(alice: UserFolder, home: Path) -> None:
    """As after a crash between the link and the removal of the partial's name."""
    partial = begun(alice, announced("a"))
    os.link(hidden_name(alice.area.folder), home / "a", src_dir_fd=alice.area.folder)
    assert commit(alice, partial) == [Settled(("a",))]
    assert (home / "a").read_bytes() == b"new"
    assert (home / "a").stat().st_nlink == 1


# --- groups -----------------------------------------------------------------------------------------------------------


def test_failing_member_of_a_group_leaves_the_others(alice: UserFolder, home: Path, root: Path) -> None:
    names = ["a", "b", "c", "d", "e"]
    group = [begun(alice, announced(name, "file"), name.encode()) for name in names]
    (home / "b").write_bytes(b"in the way")
    (home / "d").mkdir()
    (home / "d" / "file").write_bytes(b"old")
    outcomes = commit(alice, *group)
    assert [outcome.code if isinstance(outcome, Refused) else outcome for outcome in outcomes] == [
        Settled(("a", "file")),
        Code.NOT_FOLDER,
        Settled(("c", "file")),
        Code.EXISTS,
        Settled(("e", "file")),
    ]
    assert [(home / name / "file").read_bytes() for name in "acde"] == [b"a", b"c", b"old", b"e"]
    assert left(root) == []


def test_two_of_one_group_for_one_name_do_not_mix(alice: UserFolder, home: Path) -> None:
    one, two = begun(alice, announced("a"), b"one"), begun(alice, announced("a"), b"two")
    outcomes = commit(alice, one, two)
    assert outcomes[0] == Settled(("a",))
    assert code_of(outcomes[1]) is Code.EXISTS
    assert (home / "a").read_bytes() == b"one"


def test_empty_group_is_nothing(alice: UserFolder) -> None:
    assert alice.publish([]) == []
