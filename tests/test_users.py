"""The accounts file: what is kept, what is refused, and who is shut out by which damage."""

import errno
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sft.accounts.store
from crypto_utils import mac
from sft.accounts.store import RIGHTS, Account, Accounts, check_username
from sft.common.errors import Code, Refused, UsageError
from sft.wire.pake import ORDER, Registration

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
        Accounts.open(path)


def test_account_survives_the_file(path: Path) -> None:
    kept = Account("alice", REGISTRATION, frozenset({"put"}), 10**12, 5_000_000)
    Accounts.create(path).add(kept)
    assert Accounts.open(path).find(b"alice") == kept
    assert " rights=put quota=1000000000000 rate=5000000\n" in path.read_text()


def test_limits_that_came_later_survive_the_file_too(path: Path) -> None:
    kept = Account("alice", REGISTRATION, frozenset({"put"}), None, None, 1000, 10**9, 4)
    Accounts.create(path).add(kept)
    assert Accounts.open(path).find(b"alice") == kept
    assert " quota=- rate=- quota-files=1000 largest=1000000000 connections=4\n" in path.read_text()
    Accounts.open(path).change("alice", {"quota": 5, "largest": None})
    assert Accounts.open(path).find(b"alice") == replace(kept, quota=5, largest=None)


def test_account_line_has_the_documented_form(path: Path) -> None:
    Accounts.create(path).add(account("alice"))
    kept = REGISTRATION
    assert path.read_text().splitlines()[1] == (
        f"alice w0={kept.w0.hex()} L={kept.L.hex()} w0M={kept.w0M.hex()} w0N={kept.w0N.hex()}"
        " rights=put,get,list quota=- rate=-"
    )


def test_no_writer_leaves_a_second_copy_of_the_secrets(three: Path) -> None:
    assert sorted(found.name for found in three.parent.iterdir()) == ["accounts.txt", "accounts.txt.lock"]


def test_rest_of_a_dead_writer_is_no_obstacle(three: Path) -> None:
    left = three.with_name("accounts.txt.new")
    left.write_text("half")
    Accounts.open(three).remove("bob")
    assert not left.exists() and Accounts.open(three).names() == ["alice", "carol"]


def test_failed_write_keeps_the_old_file(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, opened = three.read_bytes(), Accounts.open(three)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UsageError, match="No space left"):
            opened.remove("bob")
    assert three.read_bytes() == before and not three.with_name("accounts.txt.new").exists()


@pytest.mark.parametrize("name", ["a", "0", "alice", "a.b-c_d", "x" * 32, "console", "com", "lpt10", "a.con"])
def test_accept_username(name: str) -> None:
    check_username(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".a", "-a", "_a", "Alice", "a b", "a/b", "a\n", "\na", "a\0", "é", "x" * 33, "a:b", "a=b", "٣"]
    + ["a.", "a..", "con", "nul", "aux", "prn", "com1", "lpt9", "com0", "con.txt", "nul.", "com1.a.b"],
)
def test_reject_username(name: str, path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        check_username(name)
    assert caught.value.remedy
    with pytest.raises(UsageError):
        Accounts.create(path).add(account(name))


def test_reject_second_account_of_a_name(three: Path) -> None:
    with pytest.raises(UsageError, match="passwd bob"):
        Accounts.open(three).add(account("bob", OTHER))
    assert Accounts.open(three).find(b"bob") == account("bob")


@pytest.mark.parametrize(
    "bad",
    [
        replace(account("dave"), rights=frozenset({"delete"})),
        replace(account("dave"), rights=frozenset()),
        replace(account("dave"), rights=frozenset({"put quota=1"})),
        replace(account("dave"), quota=-1),
        replace(account("dave"), quota=10**18),
        replace(account("dave"), rate=0),
        replace(account("dave"), registration=REGISTRATION._replace(w0=OTHER.w0)),
    ],
)
def test_reject_account_that_could_not_be_read_back(three: Path, bad: Account) -> None:
    before = three.read_bytes()
    with pytest.raises(UsageError, match="dave"):
        Accounts.open(three).add(bad)
    assert three.read_bytes() == before


def test_new_password_keeps_the_rest_of_the_account(path: Path) -> None:
    made = Accounts.create(path)
    made.add(Account("alice", REGISTRATION, frozenset({"get"}), 1, 2))
    made.replace_password("alice", OTHER)
    assert Accounts.open(path).find(b"alice") == Account("alice", OTHER, frozenset({"get"}), 1, 2)


def test_removed_account_is_gone_and_the_others_are_not(three: Path) -> None:
    opened = Accounts.open(three)
    opened.remove("bob")
    assert opened.find(b"bob") is None and opened.names() == ["alice", "carol"]


@pytest.mark.parametrize("name", ["dave", "", "ALICE", "\ud800"])
def test_reject_change_of_an_unknown_account(three: Path, name: str) -> None:
    opened = Accounts.open(three)
    with pytest.raises(UsageError):
        opened.remove(name)
    with pytest.raises(UsageError):
        opened.replace_password(name, OTHER)


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
    handles = [shared if number % 2 else Accounts.open(path) for number in range(16)]
    run_all([lambda h=h, n=n: h.add(account(n)) for h, n in zip(handles, names, strict=True)])  # type: ignore[misc]
    assert sorted(Accounts.open(path).names()) == sorted(names)


def test_change_by_another_process_is_seen_at_once(three: Path) -> None:
    server, command = Accounts.open(three), Accounts.open(three)
    command.add(account("dave"))
    assert server.find(b"dave") == account("dave")
    command.replace_password("dave", OTHER)
    assert server.find(b"dave") == account("dave", OTHER)
    command.remove("dave")
    assert server.find(b"dave") is None


def test_edit_in_place_of_the_same_size_is_seen(three: Path) -> None:
    server = Accounts.open(three, clock_ns=unhurried())
    assert server.find(b"bob") is not None
    found = three.stat()
    rewrite(three, lambda lines: [line.replace("bob", "rob") for line in lines])
    os.utime(three, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert server.find(b"bob") is None and server.find(b"rob") is not None


def test_unchanged_file_is_read_once(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Accounts.open(three, clock_ns=lambda: 1 << 62)
    assert server.find(b"alice") is not None
    monkeypatch.setattr(sft.accounts.store, "_load", lambda _: pytest.fail("read again"))
    assert server.find(b"alice") is not None and server.find(b"nobody") is None


def test_change_within_one_tick_of_the_clock_is_seen_20_ms_later(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft.accounts.store, "_stamp", lambda _: (1, 2, 3, 10**18, 10**18))
    now = 10**18
    server = Accounts.open(three, clock_ns=lambda: now)
    for step in (20_000_000, -1):  # the second: a clock that was set back
        whole = three.read_text()
        assert server.find(b"bob") is not None
        rewrite(three, lambda lines: [line for line in lines if not line.startswith("bob")])
        now += step
        assert server.find(b"bob") is None
        three.write_text(whole)
        now += 20_000_000


def test_young_file_is_not_read_at_each_request(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = sft.accounts.store._load
    loads: list[Path] = []

    def counted(path: Path) -> bytes:
        loads.append(path)
        return load(path)

    monkeypatch.setattr(sft.accounts.store, "_load", counted)
    ticks = itertools.count(three.stat().st_ctime_ns, 1_000_000)
    server = Accounts.open(three, clock_ns=ticks.__next__)
    for _ in range(5000):  # a request each millisecond
        assert server.find(b"alice") is not None
    assert 140 <= len(loads) <= 160, "every 20 ms for three seconds, then no more"


def test_only_changed_lines_are_checked_again(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Accounts.open(three)
    checked: list[Registration] = []
    original = Registration.check

    def check(kept: Registration) -> None:
        checked.append(kept)
        original(kept)

    monkeypatch.setattr(Registration, "check", check)
    rewrite(three, lambda lines: [*lines, lines[1].replace("alice", "dave")])
    assert server.find(b"dave") is not None and server.find(b"alice") is not None
    assert len(checked) == 1


def test_salt_is_the_mac_of_any_name_and_never_changes(three: Path) -> None:
    server = Accounts.open(three)
    secret = bytes.fromhex(three.read_text().split("secret=")[1][:64])
    names = [b"alice", b"nobody", b"", b"\xff\0", b"x" * 300]
    salts = [server.salt(name) for name in names]
    assert salts == [mac(secret, name) for name in names]
    server.remove("alice")
    server.add(account("alice", OTHER))
    assert [server.salt(name) for name in names] == salts == [Accounts.open(three).salt(name) for name in names]


@pytest.mark.parametrize("name", [b"", b"nobody", b"Alice", b"alice ", b"\xff", b"alice\n", b"alice w0"])
def test_unknown_name_finds_nobody(three: Path, name: bytes) -> None:
    assert Accounts.open(three).find(name) is None


def test_dummy_is_a_sound_registration_that_differs_each_time(three: Path) -> None:
    one, other = Accounts.open(three).dummy, Accounts.open(three).dummy
    one.check()
    assert one != other


def test_errors_and_texts_show_no_secret(three: Path) -> None:
    opened = Accounts.open(three)
    assert REGISTRATION.w0.hex() not in repr(opened.find(b"alice")) and "w0" not in repr(opened.all())


DAMAGES: dict[str, Callable[[str], str]] = {
    "unknown field": lambda line: line + " admin=yes",
    "field without a value": lambda line: line.replace("quota=-", "quota"),
    "missing field": lambda line: line.replace(" quota=-", ""),
    "two fields": lambda line: line + " rate=-",
    "bad hex": lambda line: line.replace("w0=0", "w0=g"),
    "upper-case hex": lambda line: line.replace(REGISTRATION.L.hex(), REGISTRATION.L.hex().upper()),
    "short hex": lambda line: line.replace("w0=00", "w0="),
    "w0 that does not match": lambda line: line.replace(REGISTRATION.w0.hex(), OTHER.w0.hex()),
    "w0 of zero": lambda line: line.replace(REGISTRATION.w0.hex(), "0" * 64),
    "w0 of n": lambda line: line.replace(REGISTRATION.w0.hex(), f"{ORDER:064x}"),
    "w0 above n": lambda line: line.replace(REGISTRATION.w0.hex(), "f" * 64),
    "w0M off the curve": lambda line: line.replace(REGISTRATION.w0M.hex(), "04" + "1" * 128),
    "line cut in a point": lambda line: line[: line.index("w0N") + 70],
    "quota of nothing": lambda line: line.replace("quota=-", "quota=0"),
    "files of nothing": lambda line: line + " quota-files=0",
    "negative largest": lambda line: line + " largest=-1",
    "connections of nothing": lambda line: line + " connections=0",
    "connections twice": lambda line: line + " connections=1 connections=2",
    "point off the curve": lambda line: line.replace(REGISTRATION.L.hex(), "04" + "1" * 128),
    "point at infinity": lambda line: line.replace(REGISTRATION.L.hex(), "04" + "0" * 128),
    "unknown right": lambda line: line.replace("put,get", "put,delete"),
    "right twice": lambda line: line.replace("put,get", "put,put"),
    "no right": lambda line: line.replace("put,get,list", ""),
    "negative quota": lambda line: line.replace("quota=-", "quota=-5"),
    "quota with a zero before it": lambda line: line.replace("quota=-", "quota=05"),
    "quota with a unit": lambda line: line.replace("quota=-", "quota=5G"),
    "huge quota": lambda line: line.replace("quota=-", "quota=" + "9" * 5000),
    "quota in other digits": lambda line: line.replace("quota=-", "quota=\u0663"),
    "rate of nothing": lambda line: line.replace("rate=-", "rate=0"),
    "two spaces": lambda line: line.replace(" quota", "  quota"),
    "space at the end": lambda line: line + " ",
    "carriage return": lambda line: line + "\r",
    "tab": lambda line: line.replace(" quota", "\tquota"),
    "name only": lambda line: line.split(" ")[0],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_line_shuts_out_that_account_alone(three: Path, damage: str) -> None:
    lines = three.read_bytes().decode().split("\n")
    lines[2] = DAMAGES[damage](lines[2])
    three.write_bytes("\n".join(lines).encode())
    told: list[str] = []
    server = Accounts.open(three, report=told.append)
    assert server.find(b"bob") is None
    assert server.find(b"alice") == account("alice") and server.find(b"carol") == account("carol")
    assert [(damaged.line, damaged.name) for damaged in server.damaged] == [(3, "bob")]
    assert len(told) == 1 and "line 3 (bob)" in told[0]
    assert REGISTRATION.w0.hex() not in told[0] and REGISTRATION.L.hex() not in told[0]


@pytest.mark.parametrize("line", ["", " ", "# comment", "Bob w0=00", "con w0=00", "\x1b[31m w0=00", "é"])
def test_line_without_a_name_shuts_out_nobody(three: Path, line: str) -> None:
    rewrite(three, lambda lines: [*lines[:2], line, *lines[2:]])
    server = Accounts.open(three)
    assert server.names() == ["alice", "bob", "carol"]
    assert [str(damaged) for damaged in server.damaged] == ["line 3: it does not begin with a username"]


@pytest.mark.parametrize("second", ["sound", "damaged"])
def test_name_that_is_there_twice_is_shut_out(three: Path, second: str) -> None:
    rewrite(three, lambda lines: [*lines, lines[1] if second == "sound" else "alice w0=00"])
    server = Accounts.open(three)
    assert server.names() == ["bob", "carol"]
    assert [(damaged.line, damaged.name) for damaged in server.damaged] == [(2, "alice"), (5, "alice")]


def test_cut_last_line_shuts_out_that_account_and_is_not_written_over(path: Path) -> None:
    made = Accounts.create(path)
    made.add(account("alice"))
    made.add(replace(account("bob"), rate=1000))
    path.write_bytes(path.read_bytes()[:-2])
    server = Accounts.open(path)
    assert server.names() == ["alice"] and server.damaged[0].name == "bob"
    before = path.read_bytes()
    with pytest.raises(UsageError, match="last line"):
        server.add(account("dave"))
    assert path.read_bytes() == before


def test_damaged_lines_survive_a_change_of_another_account(three: Path) -> None:
    rewrite(three, lambda lines: [*lines[:2], "bob w0=00", *lines[3:]])
    Accounts.open(three).add(account("dave"))
    assert three.read_text().splitlines()[2] == "bob w0=00"


def test_damaged_account_can_only_be_removed(three: Path) -> None:
    rewrite(three, lambda lines: [*lines[:2], "bob w0=00", *lines[3:]])
    opened = Accounts.open(three)
    with pytest.raises(UsageError, match="already"):
        opened.add(account("bob"))
    with pytest.raises(UsageError, match="deluser bob"):
        opened.replace_password("bob", OTHER)
    opened.remove("bob")
    opened.add(account("bob"))
    assert opened.damaged == [] and opened.find(b"bob") == account("bob")


def test_damage_is_told_once_per_reading(three: Path) -> None:
    told: list[str] = []
    server = Accounts.open(three, report=told.append)
    rewrite(three, lambda lines: [*lines[:2], "bob w0=00", *lines[3:]])
    for _ in range(5):
        assert server.find(b"bob") is None
    assert len(told) == 1
    rewrite(three, lambda lines: [*lines, "dave"])
    server.find(b"bob")
    assert len(told) == 3


HEADS = [
    "",
    "\n",
    "secure-file-transfer-accounts 1 profile=1 secret=" + "0" * 63,
    "secure-file-transfer-accounts 1 profile=1 secret=" + "0" * 64 + " ",
    "secure-file-transfer-accounts 1 profile=1 secret=" + "G" * 64,
    "secure-file-transfer-accounts 1 profile=2 secret=" + "0" * 64,
    "secure-file-transfer-accounts 1 profile=01 secret=" + "0" * 64 + "x",
    "secure-file-transfer-accounts 2 profile=1 secret=" + "0" * 64,
    "alice w0=00",
    "\xff\xfe",
]


@pytest.mark.parametrize("head", HEADS)
def test_reject_file_with_a_damaged_first_line(three: Path, head: str) -> None:
    rewrite(three, lambda lines: [head, *lines[1:]])
    with pytest.raises(UsageError) as caught:
        Accounts.open(three)
    assert caught.value.remedy and str(three) in caught.value.cause


def test_reject_empty_and_cut_first_line(path: Path) -> None:
    Accounts.create(path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(UsageError):
            Accounts.open(path)


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
        Accounts.open(three)
    assert caught.value.remedy and str(three) in caught.value.cause


@pytest.mark.parametrize("how", UNUSABLE)
def test_running_server_lets_nobody_in_while_the_file_is_unusable(three: Path, how: str) -> None:
    kept = three.read_bytes()
    told: list[str] = []
    server = Accounts.open(three, report=told.append, clock_ns=unhurried())
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
def test_changed_file_that_can_not_be_opened_is_no_answer(
    three: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    now = [time.time_ns()]
    server = Accounts.open(three, clock_ns=lambda: now[0])
    Accounts.open(three).remove("alice")
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
    server = Accounts.open(three, clock_ns=lambda: now)
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
        Accounts.open(three)


def test_reject_link_in_place_of_the_lock(three: Path) -> None:
    lock = three.with_name("accounts.txt.lock")
    lock.unlink()
    lock.symlink_to("victim")
    with pytest.raises(UsageError):
        Accounts.open(three).remove("bob")
    assert not three.with_name("victim").exists()


def test_reject_change_when_the_secret_is_another_one(three: Path) -> None:
    opened = Accounts.open(three)
    three.unlink()
    Accounts.create(three)
    with pytest.raises(UsageError, match="again"):
        opened.add(account("dave"))
    assert Accounts.open(three).names() == []


def test_finds_never_fail_while_the_file_is_changed(three: Path) -> None:
    server, command = Accounts.open(three), Accounts.open(three)
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
