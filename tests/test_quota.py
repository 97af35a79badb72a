"""A quota of bytes bounds the number of files, too: each file and folder counts as 512 bytes at least."""

import contextlib
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeServer
from made_folders import make_folder
from processes import Client, make, wait_until
from quota_files import begin, fill, on_disk, put, refuses, written

from sft.common.errors import Refused
from sft.disk.amounts import Amount, Quota
from sft.disk.root import PARTIAL_AREA
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules, UserFolder

LEAST = 512


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "received"


@contextlib.contextmanager
def limited(root: Path, files: int) -> Iterator[UserFolder]:
    """Alice's folder, with a quota of bytes for so many empty files."""
    with (
        contextlib.closing(Storage(root, Rules())) as storage,
        contextlib.closing(storage.user("alice", quota=Quota(files * LEAST, None))) as folder,
    ):
        yield folder


def is_full(folder: UserFolder, name: str) -> bool:
    return refuses(put(folder, name, 0))


def test_empty_files_use_up_a_quota_of_bytes(root: Path) -> None:
    with limited(root, 3) as folder:
        assert [is_full(folder, name) for name in "abcd"] == [False, False, False, True]
    assert written(root) == on_disk(root) == Amount(3 * LEAST, 3)


def test_empty_folders_use_up_a_quota_of_bytes(root: Path) -> None:
    with limited(root, 3) as folder:
        make_folder(folder, ("a", "b"), None, None)
        make_folder(folder, ("c",), None, None)
        with pytest.raises(Refused, match="quota"):
            make_folder(folder, ("d",), None, None)
        assert is_full(folder, "a/b/file")
    assert written(root) == on_disk(root) == Amount(3 * LEAST, 3)


def test_replacing_an_empty_file_gives_back_what_it_counted_for(root: Path) -> None:
    with limited(root, 2) as folder:
        for size in (0, 511, 512, 100, 0):
            put(folder, "a", size, "replace")
    assert written(root) == on_disk(root) == Amount(LEAST, 1)


def test_staging_area_that_is_made_to_count_is_private(root: Path) -> None:
    with contextlib.closing(Storage(root, Rules())) as storage:
        assert storage.ledgers.recount("bob") == Amount()
    assert stat.S_IMODE((root / PARTIAL_AREA / "bob").stat().st_mode) == 0o700


def test_users_says_how_small_files_count(make_server: MakeServer, client: Client, folder: Path) -> None:
    server = make_server()
    assert "512 bytes" not in server.command("users").err
    assert server.command("limits", "alice", "--quota=1500").status == 0
    sources = [make(folder / name, 1) for name in "abc"]
    result = client.at(server.port)(*sources, "./")
    assert result.status == 1 and result.err.count("quota on the receiver is used up") == 1
    wait_until(lambda: "done, " in server.told())
    said = server.command("users")
    assert "1.0 kB in 2 files" in said.out
    assert "each file and folder uses 512 bytes at least" in said.err


def test_parts_of_interrupted_transfers_are_shown_and_dropped_on_request(
    make_server: MakeServer, client: Client, folder: Path
) -> None:
    server = make_server("--grace=0")
    for flags in (["alice", "--quota=1G"], ["alice", "--rate=1M"]):
        assert server.command("limits", *flags).status == 0
    assert "kept of" not in server.command("users").out
    running = client.at(server.port).start("--retries=0", make(folder / "large", 50_000_000), "./")
    parts = server.storage / ".partial/alice"
    wait_until(
        lambda: any(
            path.stat().st_size for path in parts.glob("*") if len(path.stem) == 64 and path.suffix != ".journal"
        )
    )
    running.kill()
    wait_until(lambda: "kept for another try" in server.told())
    shown = server.command("users").out
    assert re.search(r"  [\d.]+ [kM]B in 1 file  of 1 GB  1 MB/s  [\d.]+ [kM]B kept of 1 interrupted transfer\n", shown)
    dropped = server.command("recount", "alice", "--drop-parts").out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in dropped] == ["removed 1 partial file", "0 B in 0 files"]
    assert not [path for path in parts.glob("*") if len(path.name) >= 64]


def test_part_that_a_transfer_writes_to_is_neither_counted_as_kept_nor_dropped(root: Path) -> None:
    with (
        contextlib.closing(Storage(root, Rules())) as storage,
        contextlib.closing(storage.user("alice")) as folder,
    ):
        assert (storage.kept("alice"), storage.drop_kept("nobody")) == (Amount(), 0)
        partial = fill(begin(folder, "a", 200_000), 100_000)
        assert (storage.kept("alice"), storage.drop_kept("alice")) == (Amount(), 0)
        assert partial.keep()
        assert (storage.kept("alice"), storage.kept("nobody")) == (Amount(100_000, 1), Amount())
        assert (storage.drop_kept("alice"), storage.kept("alice")) == (1, Amount())


def test_between_the_look_at_what_is_spare_and_the_taking_nobody_else_takes_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that want more than half of what is left, the second one begun when the first was found to fit."""
    quota, half = Quota(100, None), Amount(60)
    beyond, other = Amount.beyond, threading.Thread(target=lambda: take())
    taken: list[Amount] = []

    def take() -> None:
        with contextlib.suppress(Refused):
            ledger.reserve(half, quota)
            taken.append(half)

    def beyond_and_is_overtaken(wanted: Amount, limit: Amount) -> Amount:
        missing = beyond(wanted, limit)
        if wanted is half and other.ident is None:
            other.start()
            other.join(0.3)  # it ends in that time, unless it has to wait for us
        return missing

    with (
        contextlib.closing(Storage(root, Rules())) as storage,
        contextlib.closing(storage.user("alice", quota=quota)),
        contextlib.ExitStack() as entered,
    ):
        ledger = storage.ledgers.enter("alice")
        entered.callback(storage.ledgers.leave, "alice")
        ledger.reserve(Amount(100), quota)
        ledger.give_back(Amount(100))
        monkeypatch.setattr(Amount, "beyond", beyond_and_is_overtaken)
        take()
        other.join()
        assert len(taken) == 1
        ledger.give_back(half)
