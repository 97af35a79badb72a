"""The accounts file on the disk: made, read again, replaced, and what happens while it can't be used."""

import errno
import itertools
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tables import each_row

import sft.accounts.store
from crypto_utils import mac
from sft.accounts.format import RIGHTS, Account
from sft.accounts.store import Accounts, Stamp, must_read, read_at
from sft.common.errors import Code, Refused, UsageError
from sft.wire.pake import Registration

REGISTRATION = Registration.of(3, 5)
OTHER = Registration.of(7, 11)


def account(name: str, registration: Registration = REGISTRATION) -> Account:
    return Account(name, registration, frozenset(RIGHTS), None, None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "accounts.txt"


@pytest.fixture
def three(path: Path) -> Path:
    made = Accounts.create(path)
    for name in ("alice", "bob", "carol"):
        made.add(account(name))
    return path


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Whatever is read or written, and whatever fails, every descriptor is closed."""
    before = sorted(os.listdir("/dev/fd"))
    yield
    assert sorted(os.listdir("/dev/fd")) == before


def unhurried() -> Callable[[], int]:
    """A clock by which there are 20 ms between any two looks: a young file is read again at each."""
    return itertools.count(time.time_ns(), 20_000_000).__next__


def rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """What an editor does: the lines in place, same file."""
    path.write_text("".join(line + "\n" for line in change(path.read_text().splitlines())))


def test_created_file_is_private_and_has_the_documented_first_line(path: Path) -> None:
    Accounts.create(path, random=lambda size: bytes([7]) * size)
    assert path.read_text() == f"secure-file-transfer-accounts 1 profile=1 secret={'07' * 32}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_file_is_private_under_any_umask(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the moment on when it is made: `os.open` is looked at, too."""
    modes: list[int] = []
    opened = os.open

    def look(*arguments: Any, **named: Any) -> int:
        descriptor = opened(*arguments, **named)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", look)
    before = os.umask(0)
    try:
        Accounts.create(path).add(account("alice"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(modes) == {0o600}


def test_create_never_overwrites(three: Path) -> None:
    before = three.read_bytes()
    assert Accounts.create(three).names() == ["alice", "bob", "carol"]
    assert three.read_bytes() == before


def test_create_makes_nothing_behind_a_broken_link(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    assert Accounts.exists(path)
    with pytest.raises(UsageError, match="symbolic link"):
        Accounts.create(path)
    assert not (tmp_path / "elsewhere").exists()


def test_parallel_creates_agree_on_one_secret(path: Path) -> None:
    salts: list[bytes] = []
    run_all([lambda: salts.append(Accounts.create(path).salt(b"alice")) for _ in range(8)])
    assert len(salts) == 8 and len(set(salts)) == 1


def test_open_needs_a_file(path: Path) -> None:
    assert not Accounts.exists(path)
    with pytest.raises(UsageError, match="adduser"):
        Accounts(path)


def test_no_writer_leaves_a_second_copy_of_the_secrets(three: Path) -> None:
    assert sorted(found.name for found in three.parent.iterdir()) == ["accounts.txt", "accounts.txt.lock"]


def test_rest_of_a_dead_writer_is_no_obstacle(three: Path) -> None:
    left = three.with_name("accounts.txt.new")
    left.write_text("half")
    Accounts(three).remove("bob")
    assert not left.exists() and Accounts(three).names() == ["alice", "carol"]


def test_failed_write_keeps_the_old_file(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, opened = three.read_bytes(), Accounts(three)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UsageError, match="No space left"):
            opened.remove("bob")
    assert three.read_bytes() == before and not three.with_name("accounts.txt.new").exists()


def test_new_password_keeps_the_rest_of_the_account(path: Path) -> None:
    made = Accounts.create(path)
    made.add(Account("alice", REGISTRATION, frozenset({"get"}), 1, 2))
    made.change("alice", {"registration": OTHER})
    assert Accounts(path).find(b"alice") == Account("alice", OTHER, frozenset({"get"}), 1, 2)


def run_all(jobs: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_parallel_adds_lose_nothing(path: Path) -> None:
    shared = Accounts.create(path)
    names = [f"user{number}" for number in range(16)]
    # Half as threads of one server, half as commands of their own.
    handles = [shared if number % 2 else Accounts(path) for number in range(16)]
    run_all([lambda h=h, n=n: h.add(account(n)) for h, n in zip(handles, names, strict=True)])  # type: ignore[misc]
    assert sorted(Accounts(path).names()) == sorted(names)


def test_change_by_another_process_is_seen_at_once(three: Path) -> None:
    server, command = Accounts(three), Accounts(three)
    command.add(account("dave"))
    assert server.find(b"dave") == account("dave")
    command.change("dave", {"registration": OTHER})
    assert server.find(b"dave") == account("dave", OTHER)
    command.remove("dave")
    assert server.find(b"dave") is None


def test_edit_in_place_of_the_same_size_is_seen(three: Path) -> None:
    server = Accounts(three, clock_ns=unhurried())
    assert server.find(b"bob") is not None
    found = three.stat()
    rewrite(three, lambda lines: [line.replace("bob", "rob") for line in lines])
    os.utime(three, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert server.find(b"bob") is None and server.find(b"rob") is not None


def test_unchanged_file_is_read_once(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Accounts(three, clock_ns=lambda: 1 << 62)
    assert server.find(b"alice") is not None
    monkeypatch.setattr(sft.accounts.store, "_load", lambda _: pytest.fail("read again"))
    assert server.find(b"alice") is not None and server.find(b"nobody") is None


def test_change_within_one_tick_of_the_clock_is_seen_20_ms_later(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft.accounts.store, "_stamp", lambda _: (1, 2, 3, 10**18, 10**18))
    now = 10**18
    server = Accounts(three, clock_ns=lambda: now)
    for step in (20_000_000, -1):  # the second: a clock that was set back
        whole = three.read_text()
        assert server.find(b"bob") is not None
        rewrite(three, lambda lines: [line for line in lines if not line.startswith("bob")])
        now += step
        assert server.find(b"bob") is None
        three.write_text(whole)
        now += 20_000_000


STAMP, OTHER_STAMP, TICK, AGAIN = (1, 2, 3, 4, 10**18), (1, 9, 3, 4, 10**18), 3 * 10**9, 2 * 10**7


@each_row(
    ("read_after", "looked_after", "stamp", "verdict"),
    [
        (TICK + 1, TICK + 1, STAMP, False),  # old when it was read, and the same now
        (TICK + 1, 10**15, STAMP, False),
        (TICK + 1, TICK + 1, OTHER_STAMP, True),
        (TICK + 1, TICK + 1, None, True),
        (TICK, TICK, STAMP, False),  # young when it was read: again, but not at once
        (TICK, TICK + AGAIN - 1, STAMP, False),
        (TICK, TICK + AGAIN, STAMP, True),
        (TICK, TICK - 1, STAMP, True),  # the clock was set back
        (0, 0, OTHER_STAMP, True),
    ],
)
def test_file_is_read_again_unless_it_is_known_not_to_have_changed(
    read_after: int, looked_after: int, stamp: Stamp | None, verdict: bool
) -> None:
    """Both times in ns after the last change of the file."""
    assert must_read(read_at(STAMP, 10**18 + read_after), stamp, 10**18 + looked_after) == verdict
    assert must_read(read_at(None, 10**18 + read_after), stamp, 10**18 + looked_after), "it could not be looked at"


def test_large_file_that_is_young_is_read_again_in_a_tenth_of_the_time_at_most() -> None:
    last = read_at(STAMP, 10**18, took=10**8)
    assert not must_read(last, STAMP, 10**18 + 10**9 - 1)
    assert must_read(last, STAMP, 10**18 + 10**9)
    assert must_read(last, OTHER_STAMP, 10**18 + 1), "a change that shows is seen at once"


def test_young_file_is_not_read_at_each_request(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = sft.accounts.store._load
    loads: list[Path] = []

    def counted(path: Path) -> bytes:
        loads.append(path)
        return load(path)

    monkeypatch.setattr(sft.accounts.store, "_load", counted)
    ticks = itertools.count(three.stat().st_ctime_ns, 1_000_000)
    server = Accounts(three, clock_ns=ticks.__next__)
    for _ in range(5000):  # a request each millisecond
        assert server.find(b"alice") is not None
    assert 140 <= len(loads) <= 160, "every 20 ms for three seconds, then no more"


def test_only_changed_lines_are_checked_again(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Accounts(three)
    checked: list[Registration] = []
    original = Registration.check

    def check(kept: Registration) -> None:
        checked.append(kept)
        original(kept)

    monkeypatch.setattr(Registration, "check", check)
    rewrite(three, lambda lines: [*lines, re.sub(" sum=.*", "", lines[1].replace("alice", "dave"))])
    assert server.find(b"dave") is not None and server.find(b"alice") is not None
    assert len(checked) == 1


def test_salt_is_the_mac_of_any_name_and_never_changes(three: Path) -> None:
    server = Accounts(three)
    secret = bytes.fromhex(three.read_text().split("secret=")[1][:64])
    names = [b"alice", b"nobody", b"", b"\xff\0", b"x" * 300]
    salts = [server.salt(name) for name in names]
    assert salts == [mac(secret, name) for name in names]
    server.remove("alice")
    server.add(account("alice", OTHER))
    assert [server.salt(name) for name in names] == salts == [Accounts(three).salt(name) for name in names]


@pytest.mark.parametrize("name", [b"", b"nobody", b"Alice", b"alice ", b"\xff", b"alice\n", b"alice w0"])
def test_unknown_name_finds_nobody(three: Path, name: bytes) -> None:
    assert Accounts(three).find(name) is None


def test_dummy_is_a_sound_registration_that_differs_each_time(three: Path) -> None:
    one, other = Accounts(three).dummy, Accounts(three).dummy
    one.check()
    assert one != other


def test_errors_and_texts_show_no_secret(three: Path) -> None:
    opened = Accounts(three)
    assert REGISTRATION.w0.hex() not in repr(opened.find(b"alice")) and "w0" not in repr(opened.all())


def test_file_that_ends_in_a_cut_line_is_not_written_over(path: Path) -> None:
    made = Accounts.create(path)
    made.add(account("alice"))
    made.add(replace(account("bob"), rate=1000))
    path.write_bytes(path.read_bytes()[:-2])
    server = Accounts(path)
    assert server.names() == ["alice"] and server.damaged[0].name == "bob"
    before = path.read_bytes()
    with pytest.raises(UsageError, match="last line"):
        server.add(account("dave"))
    assert path.read_bytes() == before


def test_damage_is_reported_once_per_reading(three: Path) -> None:
    told: list[str] = []
    server = Accounts(three, report=told.append)
    rewrite(three, lambda lines: [*lines[:2], "bob w0=00", *lines[3:]])
    for _ in range(5):
        assert server.find(b"bob") is None
    assert len(told) == 1
    rewrite(three, lambda lines: [*lines, "dave"])
    server.find(b"bob")
    assert len(told) == 3


def make_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


UNUSABLE: dict[str, Callable[[Path], None]] = {
    "symbolic link": make_link,
    "folder": make_folder,
    "pipe": make_pipe,
    "readable by the group": lambda path: path.chmod(0o640),
    "readable by others": lambda path: path.chmod(0o604),
    "writable by others": lambda path: path.chmod(0o602),
    "gone": lambda path: path.unlink(),
    "first line damaged": lambda path: rewrite(path, lambda lines: ["?", *lines[1:]]),
}


@pytest.mark.parametrize("how", UNUSABLE)
def test_reject_unusable_file(three: Path, how: str) -> None:
    UNUSABLE[how](three)
    with pytest.raises(UsageError) as caught:
        Accounts(three)
    assert caught.value.remedy and str(three) in caught.value.cause


@pytest.mark.parametrize("how", UNUSABLE)
def test_running_server_lets_nobody_in_while_the_file_is_unusable(three: Path, how: str) -> None:
    kept = three.read_bytes()
    told: list[str] = []
    server = Accounts(three, report=told.append, clock_ns=unhurried())
    salt = server.salt(b"alice")
    UNUSABLE[how](three)
    for name in (b"alice", b"alice", b"nobody"):
        with pytest.raises(Refused) as caught:
            server.find(name)
        assert caught.value.code is Code.UNAVAILABLE
        assert server.names() == []
    assert server.salt(b"alice") == salt and server.trouble
    assert len(told) == 1 and "nobody can log in" in told[0]
    with pytest.raises(UsageError):
        server.remove("alice")

    if three.is_dir():
        three.rmdir()
    else:
        three.unlink(missing_ok=True)
    three.touch(0o600)
    three.write_bytes(kept)
    assert server.find(b"alice") == account("alice") and not server.trouble


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.EACCES])
def test_changed_file_that_can_not_be_opened_lets_nobody_in(
    three: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    now = [time.time_ns()]
    server = Accounts(three, clock_ns=lambda: now[0])
    Accounts(three).remove("alice")
    now[0] += 60 * 10**9  # it is not read again because it is young
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(code, os.strerror(code))))
        for name in (b"alice", b"bob", b"nobody"):
            with pytest.raises(Refused, match=os.strerror(code)) as caught:
                server.find(name)
            assert caught.value.code is Code.UNAVAILABLE
    # The file is the same as when it could not be read, and is read all the same.
    assert server.find(b"alice") is None and server.find(b"bob") == account("bob")


def test_file_that_has_not_changed_need_not_be_opened(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = three.stat().st_ctime_ns + 60 * 10**9  # long enough ago for a change to show
    server = Accounts(three, clock_ns=lambda: now)
    assert server.find(b"alice") is not None
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("it was opened"))
    assert server.find(b"alice") is not None and server.find(b"nobody") is None


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_file_that_can_not_be_looked_for_is_not_called_missing(
    three: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "lstat", lambda *_: (_ for _ in ()).throw(OSError(code, os.strerror(code))))
    with pytest.raises(UsageError, match=os.strerror(code)):
        Accounts.exists(three)


def test_reject_file_of_another_user(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(three, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UsageError, match="another user"):
        Accounts(three)


def test_reject_link_in_place_of_the_lock(three: Path) -> None:
    lock = three.with_name("accounts.txt.lock")
    lock.unlink()
    lock.symlink_to("victim")
    with pytest.raises(UsageError):
        Accounts(three).remove("bob")
    assert not three.with_name("victim").exists()


def test_reject_change_when_the_secret_is_another_one(three: Path) -> None:
    opened = Accounts(three)
    three.unlink()
    Accounts.create(three)
    with pytest.raises(UsageError, match="again"):
        opened.add(account("dave"))
    assert Accounts(three).names() == []


def test_finds_never_fail_while_the_file_is_changed(three: Path) -> None:
    server, command = Accounts(three), Accounts(three)
    wrong: list[object] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            if server.find(b"alice") != account("alice"):
                wrong.append(server.trouble)

    def change() -> None:
        try:
            for number in range(10):
                command.add(account(f"user{number}"))
                command.remove(f"user{number}")
        finally:
            over.set()

    run_all([look, look, change])
    assert wrong == []
