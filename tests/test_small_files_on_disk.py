"""Small files that come as a whole: reserved together, stored in one go, and each with an outcome of its own."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from quota_files import on_disk, written

from crypto_utils import digest
from sft.common.errors import Refused
from sft.disk.amounts import NO_QUOTA, Quota
from sft.disk.ledger import Ledger
from sft.disk.receipts import RECEIPTS
from sft.disk.root import PARTIAL_AREA
from sft.disk.small_files import SmallFile
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled, Whole
from sft.disk.user_folder import Rules, UserFolder

pytestmark = pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no files without a name")

LEAST = 512


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "received"


@contextlib.contextmanager
def alice_of(root: Path, quota: Quota = NO_QUOTA, rules: Rules | None = None) -> Iterator[UserFolder]:
    with (
        contextlib.closing(Storage(root, rules or Rules())) as storage,
        contextlib.closing(storage.user("alice", quota=quota)) as folder,
    ):
        yield folder


def whole(name: str, content: bytes = b"new", policy: str = "fail") -> Whole:
    incoming = Incoming(bytes(16), tuple(name.split("/")), len(content), 5, 0o640, policy)
    return Whole(incoming, memoryview(content), digest(content))


def words(folder: UserFolder, *files: Whole) -> list[str]:
    """What became of each, in one word: stored all at once, and published."""
    found: list[str] = []
    for each in folder.take(files):
        outcome = each if isinstance(each, Settled | Refused) else folder.publish([each])[0]
        found.append(str(outcome.code) if isinstance(outcome, Refused) else outcome.word)
    return found


def left_of(root: Path) -> list[str]:
    """What has a name in the staging area, beside the account's own files."""
    area = root / PARTIAL_AREA / "alice"
    return [each.name for each in area.iterdir() if each.name != RECEIPTS and not each.name.startswith("ledger")]


def test_files_that_fit_are_reserved_in_one_step(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = Ledger.reserve

    def reserve(ledger: Ledger, wanted: Any, quota: Quota) -> None:
        asked.append(wanted.files)
        real(ledger, wanted, quota)

    monkeypatch.setattr(Ledger, "reserve", reserve)
    with alice_of(root, Quota(20 * LEAST, None)) as folder:
        assert words(folder, *(whole(f"d/{number}") for number in range(10))) == ["stored"] * 10
    assert asked == [10, 1]  # the files, and their folder
    assert written(root) == on_disk(root)


def test_of_files_that_are_too_much_together_those_that_fit_are_stored(root: Path) -> None:
    with alice_of(root, Quota(4 * LEAST, None)) as folder:
        assert words(folder, whole("a"), whole("b")) == ["stored", "stored"]
        again = [whole("a"), whole("c"), whole("d"), whole("e"), whole("b")]
        assert words(folder, *again) == ["already", "stored", "quota", "quota", "already"]
    assert written(root) == on_disk(root)


def test_free_space_is_looked_at_for_all_together(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Disk:
        f_bavail, f_frsize = 10, 1

    with alice_of(root, rules=Rules(free_space=1)) as folder:
        monkeypatch.setattr(os, "fstatvfs", lambda descriptor: Disk)
        assert words(folder, whole("a", b"123"), whole("b", b"123456789a")) == ["stored", "no-space"]


@pytest.mark.parametrize("quota", [NO_QUOTA, Quota(100 * LEAST, None)], ids=["no quota", "a quota"])
def test_file_that_can_not_be_written_leaves_nothing_and_the_others_are_stored(
    root: Path, monkeypatch: pytest.MonkeyPatch, quota: Quota
) -> None:
    write = os.write

    def failing(descriptor: int, content: Any) -> int:
        if bytes(content) == b"bad":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", failing)
    before = os.listdir("/dev/fd")
    with alice_of(root, quota) as folder:
        assert words(folder, whole("a"), whole("b", b"bad"), whole("c")) == ["stored", "unavailable", "stored"]
    assert sorted(os.listdir(root / "alice")) == ["a", "c"]
    assert os.listdir("/dev/fd") == before
    if quota != NO_QUOTA:
        assert written(root) == on_disk(root)


def test_files_that_are_never_published_give_back_what_was_reserved(root: Path) -> None:
    with alice_of(root, Quota(100 * LEAST, None)) as folder:
        taken = folder.take([whole("a"), whole("b")])
        assert all(isinstance(each, SmallFile) and not each.keep() for each in taken)
    assert written(root) == on_disk(root)


def test_short_writes_are_gone_on_with(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with alice_of(root) as folder:
        monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:2]))
        assert words(folder, whole("a", b"1234567")) == ["stored"]
    assert (root / "alice/a").read_bytes() == b"1234567"


def test_replacing_that_fails_leaves_no_name_in_the_staging_area(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any, **more: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with alice_of(root) as folder:
        assert words(folder, whole("a", b"old")) == ["stored"]
        assert words(folder, whole("a", b"other", policy="replace")) == ["stored"]
        monkeypatch.setattr(os, "replace", failing)
        assert words(folder, whole("a", b"newest", policy="replace")) == ["unavailable"]
    assert (root / "alice/a").read_bytes() == b"other"
    assert left_of(root) == []


def test_paths_that_are_not_allowed_here_are_refused_each_by_itself(root: Path) -> None:
    with alice_of(root, rules=Rules(portable_names=True, max_file_size=4)) as folder:
        files = [whole("good"), whole("con"), whole("large", b"12345"), whole("../x"), whole("end")]
        assert words(folder, *files) == ["stored", "name-not-portable", "too-large", "name", "stored"]
    with alice_of(root) as folder:
        assert words(folder, whole("a/.hidden"), whole("a/.."), whole("é")) == ["stored", "name", "stored"]


@pytest.mark.parametrize("policy", ["fail", "replace"])
@pytest.mark.parametrize("is_gone", [False, True], ids=["once", "each time"])
def test_folder_that_is_removed_while_a_file_is_published_is_made_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, policy: str, is_gone: bool
) -> None:
    with alice_of(root) as folder:
        (taken,) = folder.take([whole("d/a", policy=policy)])
        assert isinstance(taken, SmallFile)
        call = "rename" if policy == "replace" else "link"
        real, times = getattr(SmallFile, call), 0

        def overtaken(self: SmallFile, name: str, at: int) -> None:
            nonlocal times
            times += 1
            if times == 1 or is_gone:
                (root / "alice/d").rmdir()
            real(self, name, at)

        monkeypatch.setattr(SmallFile, call, overtaken)
        (outcome,) = folder.publish([taken])
    assert isinstance(outcome, Refused) is is_gone and times == 2
    assert is_gone or (root / "alice/d/a").read_bytes() == b"new"
    assert left_of(root) == []
