"""Links, FIFOs and other traps in the way of what is stored: never followed, walked, written to or waited for."""

import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from partial_files import open_descriptors
from stored_files import TRAPS, Outcome, announced, begun, code_of, commit, left, opened, put, tree, using

from sft.common.errors import Code, Refused
from sft.disk.receipts import RECEIPTS
from sft.disk.root import PARTIAL_AREA
from sft.disk.storage import Storage
from sft.disk.temporary import Settled
from sft.disk.user_folder import Rules, UserFolder

pytestmark = pytest.mark.usefixtures("watched")  # a FIFO that is waited for is a failure, and no end of the tests


# --- links, FIFOs and other traps -------------------------------------------------------------------------------------


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
    alice: UserFolder, home: Path, root: Path, outside: Path, trap: str, policy: str, late: bool
) -> None:
    if late:
        partial = begun(alice, announced("a", policy=policy))
        TRAPS[trap](home / "a", outside)
        (outcome,) = commit(alice, partial)
    else:
        TRAPS[trap](home / "a", outside)
        outcome = put(alice, "a", policy=policy)
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
    alice: UserFolder, home: Path, root: Path, outside: Path, trap: str, path: tuple[str, ...], late: bool
) -> None:
    (home / "x").mkdir()
    place = home / "x/a" if path[0] == "x" else home / "a"
    for policy in AT_A_TRAP:
        if late:
            partial = begun(alice, announced(*path, policy=policy))
            TRAPS[trap](place, outside)
            (outcome,) = commit(alice, partial)
        else:
            TRAPS[trap](place, outside)
            outcome = put(alice, *path, policy=policy)
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


# --- whatever the path ------------------------------------------------------------------------------------------------


COMPONENTS = st.one_of(
    st.sampled_from(["..", ".", "", "/", "link", "file", "d", "../..", "/tmp/x", "a\0b", "\ud800", "\n", "~", "-"]),
    st.text(max_size=6),
    st.text("./\0a", max_size=5),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.lists(COMPONENTS, max_size=5).map(tuple), st.sampled_from(["fail", "rename", "replace", "skip"]))
@example(("link",), "replace")
def test_nothing_outside_the_users_folder_is_ever_made(
    tmp_path: Path, root: Path, alice: UserFolder, outside: Path, path: tuple[str, ...], policy: str
) -> None:
    home = root / "alice"
    if not (home / "link").is_symlink():  # the first time, or `replace` has replaced it, which it may
        (home / "link").unlink(missing_ok=True)
        (home / "link").symlink_to(outside)
        (home / "file").write_bytes(b"old")
    outcome = put(alice, *path, policy=policy)
    partials = f"received/{PARTIAL_AREA}"
    around = {name for name in tree(tmp_path) if not name.startswith("received/alice/")}
    around -= {f"{partials}/alice/{RECEIPTS}"}
    assert around == {"outside", "outside/target", "received", "received/alice", partials, f"{partials}/alice"}
    assert (outside / "target").read_bytes() == b"precious"
    if isinstance(outcome, Settled) and not outcome.skipped:
        assert home.joinpath(*outcome.path).read_bytes() == b"new"
        assert home.joinpath(*outcome.path).resolve().is_relative_to(home.resolve())
