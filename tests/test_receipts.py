"""Receipts that were lost are repeated, and the file is not stored twice."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from partial_files import CONTENT, DAY, ONE, TWO, again, announced, begin, commit, fill, left, published, renamed

from sft.common.values import replace
from sft.disk import receipts
from sft.disk.anonymous import AnonymousFile
from sft.disk.partials import PartialFile
from sft.disk.receipts import RECEIPTS, Delivery, Receipts
from sft.disk.storage import Storage
from sft.disk.temporary import DeliveredBefore, Settled, TemporaryFile
from sft.disk.user_folder import UserFolder


def age(place: Path, seconds: int) -> None:
    """Make all receipts that much older."""
    file = place / receipts.RECEIPTS
    _, *lines = [line for line in file.read_text().splitlines() if line]
    older = [json.dumps([each[0], each[1] - seconds, *each[2:]]) for each in map(json.loads, lines)]
    file.write_text("\n".join([f"receipts {os.urandom(16).hex()}", *older, ""]))


@pytest.mark.parametrize("private", [False, True], ids=["", "drop-only"])
def test_lost_receipt_is_repeated_and_not_the_file(storage: Storage, home: Path, private: bool) -> None:
    home.mkdir()
    (home / "db.dump").write_bytes(b"older")
    first = published("db.1.dump", content=b"new")
    for expected in (first, again(first), again(first)):
        folder = storage.user("alice", private)
        assert renamed(folder) == expected
        folder.close()
    assert sorted(os.listdir(home)) == ["db.1.dump", "db.dump"]
    folder = storage.user("alice", private)
    assert renamed(folder, TWO, b"two") == published("db.2.dump", content=b"two")
    folder.close()


@pytest.mark.parametrize("private", [False, True], ids=["", "drop-only"])
def test_small_file_that_was_edited_after_a_lost_receipt_is_stored(storage: Storage, home: Path, private: bool) -> None:
    """Its size is the same: only its content tells that the receipt is of another one."""
    for content in (b"new", b"NEW", b"NEW"):
        folder = storage.user("alice", private)
        last = renamed(folder, content=content)
        folder.close()
    assert {path.name: path.read_bytes() for path in home.iterdir()} == {"db.dump": b"new", "db.1.dump": b"NEW"}
    assert last == again(published("db.1.dump", content=b"NEW"))


@pytest.mark.parametrize("size", [3, 70_000])
def test_lost_receipt_is_repeated_to_a_drop_only_account_that_wanted_to_replace(storage: Storage, size: int) -> None:
    """It learns nothing from the file itself, which would be refused as one that it may not replace."""
    incoming, words = replace(announced(policy="replace"), size=size), []
    for _ in range(2):
        folder = storage.user("alice", private=True)
        begun = folder.begin(incoming, size > 65_536)
        if isinstance(begun, TemporaryFile):
            begun.write(memoryview(content := b"x" * size))
            begun.sha256 = hashlib.sha256(content).digest()
            outcome = commit(folder, begun)
        else:
            assert isinstance(begun, DeliveredBefore)
            outcome = begun.settled
        words.append(outcome.word if isinstance(outcome, Settled) else outcome.code)
        folder.close()
    assert words == ["stored", "already"]


def test_lost_receipt_of_a_large_file_is_repeated_for_the_same_content(
    alice: UserFolder, home: Path, place: Path
) -> None:
    (home / "big").write_bytes(b"older")
    incoming = announced(policy="rename")
    assert commit(alice, fill(begin(alice, incoming))) == published("big.1")
    assert alice.begin(incoming, resumable=True) == DeliveredBefore(again(published("big.1")))
    assert left(place) == []


def test_large_file_that_was_edited_after_a_lost_receipt_is_stored(alice: UserFolder, home: Path) -> None:
    incoming, other = announced(policy="rename"), CONTENT[::-1]
    assert commit(alice, fill(begin(alice, incoming))) == published("big")
    assert isinstance(alice.begin(incoming, resumable=True), DeliveredBefore)
    partial = alice.begin_anyway(incoming, resumable=True)
    assert isinstance(partial, PartialFile)
    assert commit(alice, fill(partial, other)) == published("big.1", content=other)


def test_receipt_is_repeated_after_the_file_was_taken_away(alice: UserFolder, home: Path) -> None:
    first = renamed(alice)
    (home / "db.dump").unlink()
    assert renamed(alice) == again(first)
    assert os.listdir(home) == []


def test_receipt_of_a_pipe_is_repeated(alice: UserFolder) -> None:
    assert renamed(alice, size=None) == published("db.dump", content=b"new")
    assert renamed(alice, size=None) == again(published("db.dump", content=b"new"))


def test_receipt_of_another_size_is_of_another_file(alice: UserFolder) -> None:
    renamed(alice)
    assert renamed(alice, content=b"longer", size=6) == published("db.1.dump", content=b"longer")


@pytest.mark.parametrize("policy", ["fail", "skip", "replace"])
def test_other_policies_need_no_receipts(alice: UserFolder, home: Path, place: Path, policy: str) -> None:
    partial = alice.begin(announced(ONE, "small", size=3, policy=policy), resumable=False)
    assert isinstance(partial, AnonymousFile)
    partial.write(memoryview(b"new"))
    partial.sha256 = hashlib.sha256(b"new").digest()
    assert isinstance(commit(alice, partial), Settled)
    assert not (place / receipts.RECEIPTS).exists()


def test_receipts_are_kept_for_a_day(alice: UserFolder, place: Path, home: Path) -> None:
    first = renamed(alice)
    age(place, DAY - 60)
    os.unlink(home / "db.dump")
    assert renamed(alice) == again(first)
    age(place, DAY + 1)
    assert renamed(alice) == first


def test_receipts_are_pruned_by_age_and_bounded(
    alice: UserFolder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "_PRUNED_AT", 2000)
    renamed(alice)
    age(place, DAY + 1)
    for number in range(100):
        renamed(alice, b"%016d" % number, b"%03d" % number)
        assert (place / receipts.RECEIPTS).stat().st_size < 2500
    text = (place / receipts.RECEIPTS).read_text()
    assert b"new".hex() not in text and hashlib.sha256(b"new").hexdigest() not in text
    assert renamed(alice, b"%016d" % 99, b"099").path == ("db.100.dump",)
    assert renamed(alice, b"%016d" % 98, b"098").path == ("db.99.dump",)
    assert len(text.splitlines()) >= 5


def test_torn_receipts_cost_no_more_than_a_second_copy(alice: UserFolder, place: Path) -> None:
    renamed(alice)
    file = place / receipts.RECEIPTS
    whole = file.read_bytes()
    head = b"receipts %s\n" % (b"0" * 32)
    key = whole.split(b'"')[1]
    odd = (b"", b"\0" * 100, b"\xff" * 9, b'["%s", 1e9]\n' % key, b"[" * 5000)
    for torn in (*odd, *(head + each for each in odd), whole[:-20], whole[:20]):
        file.write_bytes(torn)
        second = renamed(alice, content=b"two")
        assert second.sha256 == hashlib.sha256(b"two").digest()
        assert renamed(alice, content=b"two") == again(second)
        for path in (place.parent.parent / "alice").iterdir():
            path.unlink()
    lines = (b'["%s", 9e12, 7, "x", []]', b'["%s", 9e12]', b'["%s", 9000000000000, ["db.dump"], ["a"], 3, "xyz"]')
    for line in lines:
        file.write_bytes(head + line % key + b"\n")
        assert renamed(alice).path == ("db.dump",)


def test_receipts_of_another_process_are_seen(storage: Storage, alice: UserFolder) -> None:
    assert renamed(alice, TWO).path == ("db.dump",)
    another = storage.user("alice")
    first = renamed(another, ONE, b"one")
    assert renamed(alice, ONE, b"one") == again(first)
    another.close()


def test_each_line_is_read_once_however_often_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What 4 MiB of receipts cost, they cost once."""
    place = os.open(tmp_path, os.O_RDONLY)
    try:
        mine, other = Receipts(place), Receipts(place)
        for number in range(20):
            other.remember([Delivery(b"%08d%08d" % (number, at), ("a",), ("a",), 3, bytes(32)) for at in range(200)])
        size = (tmp_path / RECEIPTS).stat().st_size
        read = 0
        pread = os.pread

        def counting(descriptor: int, count: int, offset: int) -> bytes:
            nonlocal read
            piece = pread(descriptor, count, offset)
            read += len(piece) if count > receipts._HEAD_SIZE else 0
            return piece

        monkeypatch.setattr(os, "pread", counting)
        assert mine.find(b"n" * 16, ("a",)) is None
        assert size - 100 <= read <= size + 100
        read = 0
        for number in range(100):
            new = Delivery(b"new %012d" % number, ("a",), ("a.1",), 3, bytes(32))
            other.remember([new])
            assert mine.find(b"n" * 16, ("a",)) is None
        assert read < 100 * 250
        assert mine.find(new[0], ("a",)) == new and mine.find(new[0], ("b",)) is None
    finally:
        os.close(place)


def test_receipts_that_were_pruned_by_another_are_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "_PRUNED_AT", 1000)
    place = os.open(tmp_path, os.O_RDONLY)
    try:
        mine, other = Receipts(place), Receipts(place)
        for number in range(100):
            new = Delivery(b"new %012d" % number, ("a",), ("a.1",), number, bytes(32))
            other.remember([new])
            assert mine.find(new[0], ("a",)) == new
        assert mine.find(b"new %012d" % 1, ("a",)) is None
    finally:
        os.close(place)
