"""Who may use what arrives: as if it had been made in its folder by hand, less what its sender takes away."""

import hashlib
import os
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer
from made_folders import make_folder
from processes import MIB, ONCE, Client, Fault, make, run_python, wait_until
from tables import each_row

from sft.disk import anonymous
from sft.disk.local import open_local
from sft.disk.permissions import (
    ACCESS_ACL,
    DEFAULT_ACL,
    GROUP,
    GROUP_OBJ,
    MASK,
    OTHER,
    USER,
    USER_OBJ,
    file_bits,
    folder_bits,
    masked,
)
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled, TemporaryFile
from sft.disk.user_folder import Rules, UserFolder

NOBODY = 0xFFFFFFFF
SOMEBODY = 54321
IS_ROOT = os.geteuid() == 0


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def default(user: int, group: int, other: int, named: int | None = None, mask: int = 7) -> bytes:
    """As `setfacl -d` writes it; `named`: what SOMEBODY may do."""
    more = [] if named is None else [(USER, named, SOMEBODY)]
    most = [] if named is None else [(MASK, mask, NOBODY)]
    return acl((USER_OBJ, user, NOBODY), *more, (GROUP_OBJ, group, NOBODY), *most, (OTHER, other, NOBODY))


ACLS = {
    "closed to others": default(7, 5, 0),
    "open to somebody": default(7, 5, 0, 6),
    "less than its owner has": default(6, 4, 4, 4, 4),
    "all": default(7, 7, 7, 7),
    "a group": acl(
        (USER_OBJ, 7, NOBODY), (GROUP_OBJ, 0, NOBODY), (GROUP, 6, SOMEBODY), (MASK, 6, NOBODY), (OTHER, 0, NOBODY)
    ),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder on a disk that knows ACLs."""
    try:
        os.setxattr(tmp_path, DEFAULT_ACL, ACLS["all"])
        os.removexattr(tmp_path, DEFAULT_ACL)
    except (OSError, AttributeError):
        pytest.skip("this file system has no ACLs")
    return tmp_path


def rights(path: Path) -> tuple[str, int, bytes | None]:
    """Mode, group and ACL."""
    state = path.stat()
    try:
        found: bytes | None = os.getxattr(path, ACCESS_ACL)
    except OSError:
        found = None
    return oct(state.st_mode), state.st_gid, found


def by_hand(folder: Path, bits: int) -> tuple[str, int, bytes | None]:
    """What the system gives a file that is made there."""
    os.close(os.open(folder / "by hand", os.O_CREAT | os.O_EXCL, bits))
    try:
        return rights(folder / "by hand")
    finally:
        (folder / "by hand").unlink()


def incoming(*path: str, size: int | None = 3, mode: int | None = None, policy: str = "fail") -> Incoming:
    return Incoming(os.urandom(16), path, size, None, mode, policy)


def filled(begun: object) -> TemporaryFile:
    assert isinstance(begun, TemporaryFile)
    begun.resume_from(0)
    begun.write(memoryview(b"new"))
    begun.sha256 = hashlib.sha256(b"new").digest()
    return begun


def arrive(folder: UserFolder, announced: Incoming, resumable: bool = False) -> None:
    (outcome,) = folder.publish([filled(folder.begin(announced, resumable))])
    assert isinstance(outcome, Settled), outcome


def as_small(folder: UserFolder, *path: str, **more: object) -> None:
    arrive(folder, incoming(*path, **more))  # type: ignore[arg-type]


def as_spilled(folder: UserFolder, *path: str, **more: object) -> None:
    """A small file that did not fit into memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anonymous, "_MOST_IN_MEMORY", 0)
        as_small(folder, *path, **more)


def as_pipe(folder: UserFolder, *path: str, **more: object) -> None:
    arrive(folder, incoming(*path, size=None, **more))  # type: ignore[arg-type]


def as_large(folder: UserFolder, *path: str, **more: object) -> None:
    arrive(folder, incoming(*path, **more), resumable=True)  # type: ignore[arg-type]


def as_resumed(folder: UserFolder, *path: str, **more: object) -> None:
    """A large one, of which an earlier connection has left something."""
    first = folder.begin(incoming(*path, **more), True)  # type: ignore[arg-type]
    assert filled(first).keep()
    as_large(folder, *path, **more)


def as_named(folder: UserFolder, *path: str, **more: object) -> None:
    """A small one where every file needs a name from the start."""
    folder.area._has_anonymous = False
    as_small(folder, *path, **more)
    as_large(folder, *path[:-1], f"{path[-1]} large", **more)
    folder.area._has_anonymous = None


WAYS = [as_small, as_spilled, as_pipe, as_large, as_resumed, as_named]
Way = Callable[..., None]


@pytest.fixture
def alices(place: Path) -> Iterator[UserFolder]:
    storage = Storage(place / "received", Rules())
    folder = storage.user("alice")
    yield folder
    folder.close()
    storage.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ACLS)
def test_file_below_a_default_acl_has_what_one_made_by_hand_has(
    alices: UserFolder, place: Path, way: Way, name: str
) -> None:
    there = place / "received/alice/inbox"
    there.mkdir()
    os.setxattr(there, DEFAULT_ACL, ACLS[name])
    for mode in (None, 0o640, 0o777, 0o000):
        for policy in ("fail", "replace", "rename"):
            way(alices, "inbox", f"{mode} {policy}", mode=mode, policy=policy)
            assert rights(there / f"{mode} {policy}") == by_hand(there, file_bits(mode))
            if way is as_named:
                assert rights(there / f"{mode} {policy} large") == by_hand(there, file_bits(mode))


@pytest.mark.parametrize("way", WAYS)
def test_missing_folders_hand_the_default_acl_down(alices: UserFolder, place: Path, way: Way) -> None:
    there = place / "received/alice"
    os.setxattr(there, DEFAULT_ACL, ACLS["open to somebody"])
    way(alices, "new", "below", "a", mode=0o600)
    assert rights(there / "new/below/a") == by_hand(there, 0o600)
    (there / "made").mkdir()
    assert rights(there / "new") == rights(there / "new/below") == rights(there / "made")
    assert os.getxattr(there / "new/below", DEFAULT_ACL) == ACLS["open to somebody"]


@pytest.mark.parametrize("way", WAYS)
def test_acl_of_the_hidden_area_does_not_come_along(place: Path, way: Way) -> None:
    """The folder that holds everything has one, and one user's folder has none any more."""
    root = place / "received"
    root.mkdir()
    os.setxattr(root, DEFAULT_ACL, ACLS["open to somebody"])
    storage = Storage(root, Rules())
    folder = storage.user("alice")
    os.removexattr(root / "alice", DEFAULT_ACL)
    way(folder, "a", mode=0o644)
    assert rights(root / "alice/a") == by_hand(root / "alice", 0o644)
    folder.close()
    storage.close()


@pytest.mark.parametrize("mode", [None, 0o750, 0o700, 0o000, 0o777])
def test_folder_keeps_group_bit_and_acl_of_its_parent(alices: UserFolder, place: Path, mode: int | None) -> None:
    there = place / "received/alice"
    there.chmod(0o2775)
    os.setxattr(there, DEFAULT_ACL, ACLS["open to somebody"])
    make_folder(alices, ("photos",), None, mode)
    alices.finish_folders()
    os.mkdir(there / "by hand", folder_bits(mode))
    if mode == 0:
        (there / "by hand").chmod(stat.S_IMODE((there / "by hand").stat().st_mode) & ~0o200)
    assert rights(there / "photos") == rights(there / "by hand")
    assert (there / "photos").stat().st_mode & stat.S_ISGID


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a folder to a group that the server is not in")
def test_file_in_a_setgid_folder_has_its_group_though_the_server_is_not_in_it() -> None:
    """In a process that is root no longer: one for all ways, each with a folder of its own."""
    code = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_permissions as tests
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
root = Path(sys.argv[1]) / "received"
ways = [way.__name__ for way in tests.WAYS[:-1]]
for way in ways:
    (root / way).mkdir(parents=True)
    os.chown(root / way, 65534, {SOMEBODY})
    os.chmod(root / way, 0o2770)
os.chown(root, 65534, 65534)
os.setgroups([]), os.setgid(65534), os.setuid(65534)
storage = Storage(root, Rules())
for way in ways:
    getattr(tests, way)(storage.user(way), "new", "a", mode=0o640)
    for name in ("new", "new/a"):
        state = (root / way / name).stat()
        print(way, name, state.st_gid, oct(state.st_mode))
"""
    with tempfile.TemporaryDirectory(dir="/tmp") as at:
        os.chmod(at, 0o755)
        found = run_python(code, at).splitlines()
    kinds = ("new", "0o42755"), ("new/a", "0o100640")
    assert found == [f"{way.__name__} {name} {SOMEBODY} {mode}" for way in WAYS[:-1] for name, mode in kinds]


@pytest.mark.skipif(not IS_ROOT, reason="only root may give a file to any group")
def test_file_with_a_name_gets_the_group_of_a_setgid_folder(alices: UserFolder, place: Path) -> None:
    there = place / "received/alice"
    os.chown(there, -1, SOMEBODY)
    there.chmod(0o2770)
    as_named(alices, "a", mode=0o640)
    assert [(there / name).stat().st_gid for name in ("a", "a large")] == [SOMEBODY, SOMEBODY]


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a folder to a group that the server is not in")
def test_file_in_a_folder_of_another_group_has_ours_without_the_setgid_bit(alices: UserFolder, place: Path) -> None:
    there = place / "received/alice"
    os.chown(there, -1, SOMEBODY)
    there.chmod(0o770)
    as_named(alices, "a", mode=0o640)
    assert [(there / name).stat().st_gid for name in ("a", "a large")] == [os.getegid()] * 2


@pytest.mark.parametrize(
    ("fixed", "asked", "expected"), [(0o666, None, 0o666), (0o660, 0o777, 0o660), (0o644, 0, 0o400)]
)
@pytest.mark.parametrize("way", WAYS)
def test_bits_of_the_settings_stand_for_the_umask(
    place: Path, way: Way, fixed: int, asked: int | None, expected: int
) -> None:
    storage = Storage(place / "received", Rules(file_mode=fixed))
    folder = storage.user("alice")
    way(folder, "a", mode=asked)
    assert stat.S_IMODE((place / "received/alice/a").stat().st_mode) == expected
    os.setxattr(place / "received/alice", DEFAULT_ACL, ACLS["closed to others"])
    way(folder, "b", mode=asked)
    assert rights(place / "received/alice/b") == by_hand(place / "received/alice", expected)
    folder.close()
    storage.close()


def test_default_acl_that_can_not_be_read_refuses_the_file(
    alices: UserFolder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(5, "broken")

    monkeypatch.setattr(os, "getxattr", fail)
    (outcome,) = alices.publish([filled(alices.begin(incoming("a"), True))])
    assert not isinstance(outcome, Settled)
    assert os.listdir(place / "received/alice") == []


@each_row("broken", [b"", b"\x03\0\0\0", ACLS["all"][:-1], b"\x01" + ACLS["all"][1:]])
def test_refuse_acl_that_can_not_be_read(broken: bytes) -> None:
    with pytest.raises(OSError, match="ACL"):
        masked(broken, 0o666)


def test_fetched_file_and_folder_have_what_their_folder_here_gives(place: Path) -> None:
    base = place / "here"
    base.mkdir()
    os.setxattr(base, DEFAULT_ACL, ACLS["open to somebody"])
    folder = open_local(base, Rules())
    make_folder(folder, ("private",), None, 0o700)
    for way in WAYS[:-1]:
        way(folder, "private", way.__name__, mode=0o644)
        assert rights(base / "private" / way.__name__) == by_hand(base / "private", 0o644)
    os.mkdir(base / "by hand", 0o700)
    assert rights(base / "private") == rights(base / "by hand")
    folder.close()


# --- private while it arrives, with its times at the end --------------------------------------------------------------

THEN = 1_500_000_000 * 10**9


def private_tree(source: Path, size: int) -> Path:
    """A private folder with a large file, beside an open one that is whole before."""
    make(source / "a open" / "small", 3)
    make(source / "private" / "inner" / "large", size)
    for number, path in enumerate((source / "private" / "inner", source / "private", source / "a open", source)):
        if path.name in ("private", "inner"):
            path.chmod(0o700)
        os.utime(path, ns=(THEN + number, THEN + number))
    return source


def modes_and_times(place: Path, *names: str) -> dict[str, tuple[str, int]]:
    states = {name: (place / name).stat() for name in names}
    return {name: (oct(stat.S_IMODE(state.st_mode)), state.st_mtime_ns) for name, state in states.items()}


FOLDERS = (".", "private", "private/inner", "a open")


def test_private_folder_is_private_from_the_start_and_the_same_command_sets_times(
    make_server: MakeServer, client: Client, proxy: MakeProxy, folder: Path
) -> None:
    server, source = make_server(), private_tree(folder / "tree", 8 * MIB)
    line = proxy(server.port, up=Fault("hold", 4 * MIB))
    running = client.at(line.port).start(ONCE, source, "tree")
    line.wait_reached()
    there = server.path("tree")
    wait_until((there / "private/inner").exists)
    assert [stat.S_IMODE((there / name).stat().st_mode) for name in FOLDERS[1:3]] == [0o700, 0o700]
    running.kill()
    running.finish()
    line.cut()
    line.release()
    wait_until(lambda: "cut off: tree/private/inner/large" in server.told())
    assert [stat.S_IMODE((there / name).stat().st_mode) for name in FOLDERS[1:3]] == [0o700, 0o700]
    assert client.at(server.port)(source, "tree").status == 0
    assert modes_and_times(there, *FOLDERS) == modes_and_times(source, *FOLDERS)


def test_folders_have_their_times_after_a_reconnection(
    make_server: MakeServer, client: Client, proxy: MakeProxy, folder: Path
) -> None:
    server, source = make_server(), private_tree(folder / "tree", 8 * MIB)
    line = proxy(server.port, up=Fault("cut", 4 * MIB))
    result = client.at(line.port)(source, "tree")
    assert (result.status, line.connections) == (0, 2), result
    assert modes_and_times(server.path("tree"), *FOLDERS) == modes_and_times(source, *FOLDERS)


def test_fetched_folders_have_modes_and_times_after_a_reconnection(
    make_server: MakeServer, client: Client, proxy: MakeProxy, tmp_path: Path
) -> None:
    server = make_server()
    source = private_tree(server.path("tree"), 8 * MIB)
    line = proxy(server.port, down=Fault("cut", 4 * MIB))
    result = client.at(line.port)("--get", "tree", tmp_path / "here")
    assert (result.status, line.connections) == (0, 2), result
    assert modes_and_times(tmp_path / "here", *FOLDERS) == modes_and_times(source, *FOLDERS)
