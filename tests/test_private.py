"""Files of our own: opened through no link, and only when nobody else has a hand in them."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeServer
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import HOME, Client, Server, clean_environment

from sft.accounts.format import RIGHTS, Account, sum_of
from sft.accounts.store import Accounts
from sft.common.errors import Code, Refused, UsageError
from sft.common.private_files import check_area
from sft.console.log import open_log
from sft.disk.journal import key_of
from sft.disk.partials import PartialFile
from sft.disk.receipts import RECEIPTS, Delivery, Receipts
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled, TemporaryFile
from sft.disk.user_folder import Rules, UserFolder
from sft.wire.pake import Registration

AREA = Path("received/.partial")
KEY = "0" * 64

# What the server opens itself, below the folder of a server that has run.
OWN = {
    "accounts": Path("accounts.txt"),
    "log": Path("server.log"),
    "staging area": AREA,
    "a user's area": AREA / "alice",
    "journal": AREA / "alice" / f"{KEY}.journal",
    "bytes on their way": AREA / "alice" / f"{KEY}.{'0' * 16}",
    "receipts": AREA / "alice" / RECEIPTS,
    "ledger": AREA / "alice/ledger",
    "lock of the ledger": AREA / "alice/ledger.lock",
    "process": AREA / ".holder-0123456789abcdef",
}


def make_link(path: Path) -> None:
    path.rename(path.with_name("target"))
    path.symlink_to("target")


def make_pipe(path: Path) -> None:
    remove(path)
    os.mkfifo(path, 0o600)


def make_folder(path: Path) -> None:
    remove(path)
    path.mkdir(0o700)


def give_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 12345, -1)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


TRAPS: dict[str, tuple[Callable[[Path], None], str]] = {
    "link": (make_link, "a symbolic link"),
    "pipe": (make_pipe, "not a regular file"),
    "folder": (make_folder, "not a regular file"),
    "another owner": (give_away, "belongs to another user (uid 12345)"),
    "readable": (lambda path: path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o040), "open to other users"),
    "writable": (lambda path: path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o002), "open to other users"),
}


def can_be(own: str, trap: str) -> bool:
    """Bytes on their way may have the mode of the published file; folders are folders."""
    if own == "bytes on their way":
        return trap not in ("readable", "writable")
    return trap != "folder" or own not in ("staging area", "a user's area", "process")


def make_ran(place: Path) -> Path:
    """What a server leaves behind."""
    place.mkdir(exist_ok=True)
    registration = Registration.of(3, 5)
    Accounts.create(place / "accounts.txt").add(Account("alice", registration, frozenset(RIGHTS), None, None))
    (place / AREA / "alice").mkdir(parents=True)
    for folder in (AREA, AREA / "alice"):
        (place / folder).chmod(0o700)
    for own in OWN.values():
        if not (place / own).exists():
            (place / own).touch(0o600)
    return place


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    return make_ran(tmp_path)


START_EACH = """
import contextlib, io, json, sys
sys.path.insert(0, sys.argv[1])
import server
for folder in sys.argv[2:]:
    files = [f"--accounts={folder}/accounts.txt", f"--storage={folder}/received", f"--server-log={folder}/server.log"]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        status = server.main([*files, "--listen=256.0.0.1", "--port=0"])
    print(json.dumps([status, said.getvalue()]), flush=True)
"""
CASES = [("nothing", "nothing"), *((own, trap) for own in OWN for trap in TRAPS if can_be(own, trap))]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[int, str]]:
    """What became of a server that was started, for each trap; it can listen nowhere, so that each ends at once."""
    base, places = tmp_path_factory.mktemp("started"), []
    for number, (own, trap) in enumerate(CASES):
        places.append(make_ran(base / str(number)))
        if own in OWN and (trap != "another owner" or os.geteuid() == 0):
            TRAPS[trap][0](places[-1] / OWN[own])
    command = [sys.executable, "-c", START_EACH, str(HOME), *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean_environment())
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {case: (status, said) for case, (status, said) in zip(CASES, found, strict=True)}


@pytest.mark.parametrize(("own", "trap"), CASES)
def test_server_does_not_start_and_says_why(
    started: dict[tuple[str, str], tuple[int, str]], own: str, trap: str
) -> None:
    status, said = started[own, trap]
    assert status == 2 and len(said.splitlines()) == 1
    if own == "nothing":
        assert "256.0.0.1 is not an address of this machine" in said, "it came as far as the listening"
        return
    if trap == "another owner" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    assert OWN[own].name in said or own == "staging area"
    if own != "staging area" or trap not in ("link", "pipe"):  # a folder, which is opened before it is looked at
        assert TRAPS[trap][1] in said


def test_client_goes_on_without_a_log_that_others_can_read(server: Server, client: Client, box: str) -> None:
    client.log.touch(0o644)
    client.log.chmod(0o644)
    result = client(client.log.with_name("password of alice"), f"{box}/")
    assert result.status == 0 and "delivered: " in result.out
    (line,) = result.err.splitlines()
    assert line.startswith(f"warning: the log {client.log} is open to other users") and "without a log" in line
    assert client.log.read_bytes() == b""


@pytest.mark.parametrize("trap", TRAPS)
def test_refuse_log_that_is_not_ours_alone(tmp_path: Path, trap: str) -> None:
    (tmp_path / "log").touch(0o600)
    make, words = TRAPS[trap]
    make(tmp_path / "log")
    with pytest.raises(UsageError) as caught:
        open_log("test.private", tmp_path / "log", "info")
    assert words in caught.value.cause and str(tmp_path / "log") in caught.value.cause and caught.value.remedy


@pytest.mark.parametrize("trap", [trap for trap in TRAPS if trap != "folder"])
def test_refuse_lock_of_the_accounts_that_is_not_ours_alone(ran: Path, trap: str) -> None:
    TRAPS[trap][0](ran / "accounts.txt.lock")
    with pytest.raises(UsageError) as caught:
        Accounts(ran / "accounts.txt").remove("alice")
    assert TRAPS[trap][1] in caught.value.cause
    assert Accounts(ran / "accounts.txt").names() == ["alice"]


@pytest.mark.parametrize("trap", TRAPS)
def test_refuse_journal_that_is_not_ours_alone(tmp_path: Path, trap: str) -> None:
    """Found under way, at a server that runs: that file is refused, and the reason is for the log."""
    storage = Storage(tmp_path / "received", Rules())
    folder = storage.user("alice")
    incoming = Incoming(b"t" * 16, ("a",), 100_000, None, None, "fail")
    partial = folder.begin(incoming, True)
    assert isinstance(partial, TemporaryFile)
    partial.resume_from(0)
    partial.write(memoryview(bytes(1000)))
    assert partial.keep()
    (journal,) = (tmp_path / AREA / "alice").glob("*.journal")
    before = journal.read_bytes()
    TRAPS[trap][0](journal)
    with pytest.raises(Refused) as caught:
        folder.begin(incoming, True)
    assert caught.value.code is Code.STORAGE and TRAPS[trap][1] in caught.value.why
    if trap == "link":
        assert journal.with_name("target").read_bytes() == before
    folder.close()
    storage.close()


@pytest.mark.parametrize("trap", TRAPS)
def test_receipts_that_are_not_ours_alone_are_neither_believed_nor_written(tmp_path: Path, trap: str) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    receipt = Delivery(b"t" * 16, ("a",), ("a.1",), 5, bytes(32))
    Receipts(descriptor).remember([receipt])
    assert Receipts(descriptor).find(b"t" * 16, ("a",)) == receipt
    before = (tmp_path / RECEIPTS).read_bytes()
    TRAPS[trap][0](tmp_path / RECEIPTS)
    assert Receipts(descriptor).find(b"t" * 16, ("a",)) is None
    Receipts(descriptor).remember([receipt])
    if trap in ("link", "another owner", "readable", "writable"):
        assert (tmp_path / RECEIPTS).read_bytes() == before
    os.close(descriptor)


def test_damaged_account_is_shut_out_alone_with_a_line_in_the_log(
    make_server: MakeServer, client: Client, tmp_path: Path, box: str
) -> None:
    server = make_server()
    server.add("bob")
    text = server.accounts.read_text()
    bobs = next(line for line in text.splitlines() if line.startswith("bob "))
    server.accounts.write_text(text.replace(bobs, bobs.replace(" w0=", " w0=" + "f" * 64 + " x=")))
    source = tmp_path / "a"
    source.write_bytes(b"a")
    bob = Client(server.port, tmp_path / "bob", "bob")
    assert bob("--retries=0", source, f"{box}/").status == 3
    assert client.at(server.port)(source, f"{box}/").status == 0
    assert "an account can't log in" in server.told() and "line 3 (bob)" in server.told()
    assert server.stop() == 0


LINE = "alice w0={w0} L={L} w0M={w0M} w0N={w0N} may=put,get,list quota=- rate=- quota-files=7 largest=8 connections=9"


@settings(max_examples=60)
@given(st.data())
def test_account_line_with_any_change_is_refused_or_means_what_it_says(data: st.DataObject) -> None:
    import tempfile

    kept = Registration.of(3, 5)
    good = LINE.format(w0=kept.w0.hex(), L=kept.L.hex(), w0M=kept.w0M.hex(), w0N=kept.w0N.hex()).encode()
    if data.draw(st.booleans()):
        good += f" sum={sum_of(kept)}".encode()
    at = data.draw(st.integers(0, len(good) - 1))
    cut = data.draw(st.integers(0, 3))
    bad = good[:at] + data.draw(st.binary(max_size=3).filter(lambda new: b"\n" not in new)) + good[at + cut :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "accounts.txt"
        Accounts.create(path).add(Account("carol", kept, frozenset(RIGHTS), None, None))
        with path.open("ab") as file:
            file.write(bad + b"\n")
        told: list[str] = []
        opened = Accounts(path, told.append)
        assert opened.find(b"carol") is not None
        for account in opened.all():
            account.registration.check()
            assert all(limit is None or limit > 0 for limit in (account.quota, account.largest, account.connections))
        assert len(opened.all()) + len(opened.damaged) == 2 and len(told) == len(opened.damaged)


@pytest.mark.parametrize("size", [3, None, 70_000])
def test_file_that_is_just_replacing_another_keeps_no_server_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None
) -> None:
    storage = Storage(tmp_path / "received", Rules(file_mode=0o644))
    replace, looked = os.replace, []

    def look_then_replace(*args: Any, **options: Any) -> None:
        check_area(tmp_path / "received/.partial")
        looked.append(True)
        replace(*args, **options)

    try:
        folder = storage.user("alice")
        (tmp_path / "received/alice/a").write_bytes(b"old")
        partial = folder.begin(Incoming(bytes(16), ("a",), size, None, None, "replace"), (size or 0) > 65_536)
        if not isinstance(partial, TemporaryFile):
            partial = folder.begin_anyway(Incoming(bytes(16), ("a",), size, None, None, "replace"), False)
        partial.write(memoryview(bytes(size or 3)))
        partial.sha256 = bytes(32)
        monkeypatch.setattr(os, "replace", look_then_replace)
        assert isinstance(folder.publish([partial])[0], Settled) and looked
        folder.close()
    finally:
        storage.close()


@pytest.mark.parametrize("policy", ["fail", "rename", "replace", "skip"])
def test_hidden_name_of_a_large_file_tells_nothing(alice: UserFolder, tmp_path: Path, policy: str) -> None:
    """It is the hash of its path; with `rename` one of several."""
    path = ("folder", "wages.ods")
    partial = alice.begin(Incoming(b"t" * 16, path, 70_000, None, None, policy), resumable=True)
    assert isinstance(partial, PartialFile)
    area = tmp_path / AREA / "alice"
    names = {key_of(entry.name) for entry in area.iterdir()} - {RECEIPTS}
    partial.discard()
    assert names == {partial.name} and re.fullmatch("[0-9a-f]{64}", partial.name)
