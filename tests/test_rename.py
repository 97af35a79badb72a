"""The policy `rename`: files to one name do not compete, and a lost receipt is that of its path."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer
from processes import MIB, ONCE, Client, Fault, make, wait_until

from sft.common.errors import Code, Refused
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled, TemporaryFile
from sft.disk.user_folder import UserFolder

ONE, TWO, THREE = (bytes([number]) * 16 for number in (1, 2, 3))


def announced(transfer: bytes, *path: str, policy: str = "rename", size: int = 6, mtime: int | None = 1) -> Incoming:
    return Incoming(transfer, path or ("big",), size, mtime, None, policy)


def begun(folder: UserFolder, incoming: Incoming, content: bytes = b"") -> TemporaryFile:
    partial = folder.begin(incoming, resumable=True)
    assert isinstance(partial, TemporaryFile)
    if content:
        partial.resume_from(0)
        partial.write(memoryview(content))
    return partial


def ended(folder: UserFolder, partial: TemporaryFile, content: bytes) -> Settled | Refused:
    partial.write(memoryview(content)[partial.size :])
    partial.sha256 = hashlib.sha256(content).digest()
    (outcome,) = folder.publish([partial])
    return outcome


def name_of(outcome: Settled | Refused) -> str:
    assert isinstance(outcome, Settled), outcome
    return outcome.path[-1]


@pytest.fixture
def others(storage: Storage) -> Iterator[list[UserFolder]]:
    """Alice's folder, over two more connections."""
    with contextlib.ExitStack() as opened:
        folders = [storage.user("alice") for _ in range(2)]
        for folder in folders:
            opened.callback(folder.close)
        yield folders


@pytest.fixture
def home(alice: UserFolder, storage: Storage, tmp_path: Path) -> Path:
    return tmp_path / "received/alice"


def test_long_transfers_to_one_name_each_get_a_name_of_their_own(
    alice: UserFolder, others: list[UserFolder], home: Path
) -> None:
    folders = [alice, *others]
    partials = [begun(folder, announced(bytes([n]) * 16, mtime=n), b"%d..." % n) for n, folder in enumerate(folders)]
    names = [name_of(ended(folders[n], partials[n], b"%d...!!" % n)) for n in (1, 0, 2)]
    assert names == ["big", "big.1", "big.2"]
    assert [(home / name).read_bytes() for name in names] == [b"1...!!", b"0...!!", b"2...!!"]


@pytest.mark.parametrize("policy", ["fail", "replace"])
def test_rename_does_not_compete_with_the_other_policies(
    alice: UserFolder, others: list[UserFolder], policy: str
) -> None:
    one = begun(alice, announced(ONE), b"one")
    two = begun(others[0], announced(TWO, policy=policy), b"two")
    with pytest.raises(Refused) as caught:
        others[1].begin(announced(THREE, policy=policy), resumable=True)
    assert caught.value.code is Code.BUSY
    assert name_of(ended(others[0], two, b"twotwo")) == "big"
    assert name_of(ended(alice, one, b"oneone")) == "big.1"


def test_each_interrupted_transfer_finds_its_own_bytes(alice: UserFolder) -> None:
    first, second = begun(alice, announced(ONE, mtime=1), b"one"), begun(alice, announced(TWO, mtime=2), b"two2")
    assert first.keep() and second.keep()
    again = begun(alice, announced(TWO, mtime=2))
    assert again.offers == [4]
    again.keep()
    new_run = begun(alice, announced(THREE, mtime=1))  # another transfer id, the same source
    assert new_run.offers == [3]
    new_run.keep()
    new_source = begun(alice, announced(b"4" * 16, mtime=4))
    assert new_source.offers == []
    new_source.discard()
    assert [begun(alice, announced(number, mtime=at)).keep() for number, at in ((TWO, 2), (THREE, 1))] == [True, True]


def test_same_transfer_takes_over_also_beside_others(alice: UserFolder, others: list[UserFolder]) -> None:
    beside, old = begun(alice, announced(ONE, mtime=1), b"one"), begun(alice, announced(TWO, mtime=2), b"two")
    new = begun(others[0], announced(TWO, mtime=2))
    assert new.offers == [3]
    with pytest.raises(Refused):
        old.write(memoryview(b"late"))
    new.resume_from(3)
    assert name_of(ended(others[0], new, b"twotwo")) == "big"
    old.discard()
    beside.discard()


def test_more_than_may_be_at_once_are_busy(alice: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sft.disk.partial_names._MOST_AT_ONCE", 3)
    partials = [begun(alice, announced(bytes([n]) * 16, mtime=n), b"%d" % n) for n in range(3)]
    with pytest.raises(Refused) as caught:
        alice.begin(announced(b"9" * 16, mtime=9), resumable=True)
    assert caught.value.code is Code.BUSY
    for partial in partials:
        partial.discard()


# --- receipts that were lost ------------------------------------------------------------------------------------------


def stored(folder: UserFolder, transfer: bytes, *path: str, content: bytes = b"new") -> str:
    """The name of a small file, sent now or before."""
    incoming = Incoming(transfer, path, len(content), None, None, "rename")
    partial = folder.begin(incoming, resumable=False)
    if isinstance(partial, Settled):
        return "/".join(partial.path)
    assert isinstance(partial, TemporaryFile)
    partial.write(memoryview(content))
    partial.sha256 = hashlib.sha256(content).digest()
    (outcome,) = folder.publish([partial])
    assert isinstance(outcome, Settled), outcome
    return "/".join(outcome.path) + (" already" if outcome.already else "")


def test_receipt_of_another_path_is_of_another_file(alice: UserFolder, home: Path) -> None:
    assert stored(alice, ONE, "a", content=b"one") == "a"
    assert stored(alice, ONE, "b", content=b"two") == "b"
    assert stored(alice, ONE, "x", "a", content=b"six") == "x/a"
    assert [(home / name).read_bytes() for name in ("a", "b", "x/a")] == [b"one", b"two", b"six"]


def test_receipt_is_found_by_the_path_that_was_asked_for(alice: UserFolder, home: Path) -> None:
    (home / "a").write_bytes(b"old")
    assert stored(alice, ONE, "a") == "a.1"
    assert stored(alice, ONE, "a") == "a.1 already"
    assert stored(alice, ONE, "a.1", content=b"two") == "a.1.1"


@pytest.mark.parametrize("private", [False, True])
def test_file_that_an_older_connection_publishes_meanwhile_is_not_stored_twice(
    storage: Storage, alice: UserFolder, home: Path, private: bool
) -> None:
    (home / "a").write_bytes(b"old")
    late = storage.user("alice", private)
    incoming = Incoming(ONE, ("a",), 3, None, None, "rename")
    partial = late.begin(incoming, resumable=False)
    assert isinstance(partial, TemporaryFile)
    partial.write(memoryview(b"new"))
    assert stored(alice, ONE, "a") == "a.1"
    outcome = ended(late, partial, b"new")
    assert name_of(outcome) == "a.1" and isinstance(outcome, Settled) and outcome.already
    assert sorted(os.listdir(home)) == ["a", "a.1"]
    late.close()


# --- both programs ----------------------------------------------------------------------------------------------------


def test_second_long_transfer_to_one_name_is_delivered_beside_the_first(
    make_server: MakeServer, client: Client, folder: Path, proxy: MakeProxy
) -> None:
    server = make_server()
    one, two = make(folder / "one", 8 * MIB), make(folder / "two", 8 * MIB + 1)
    line = proxy(server.port, up=Fault("hold", 4 * MIB))
    first = client.at(line.port).start(ONCE, "--if-exists=rename", one, "big")
    line.wait_reached()
    wait_until(lambda: server.partials() != [])
    result = client.at(server.port)(ONCE, "--if-exists=rename", two, "big")
    assert result.status == 0 and "under way" not in result.err, result
    line.release()
    assert first.finish().status == 0
    assert server.path("big").read_bytes() == two.read_bytes()
    assert server.path("big.1").read_bytes() == one.read_bytes()
    assert server.partials() == []
