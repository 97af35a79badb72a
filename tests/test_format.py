"""The format of the accounts file as tables: what each line means, and what each change makes of the lines."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from tables import each_row

from sft.accounts.format import (
    RIGHTS,
    Account,
    Contents,
    added,
    changed,
    check_account_name,
    join,
    line_of,
    name_of,
    parse,
    removed,
    sum_of,
)
from sft.common.errors import IntegrityError, UsageError
from sft.wire.pake import ORDER, Registration

REGISTRATION = Registration.of(3, 5)
OTHER = Registration.of(7, 11)
SECRET = bytes(range(32))


def account(name: str, registration: Registration = REGISTRATION) -> Account:
    return Account(name, registration, frozenset(RIGHTS), None, None)


ALICE, BOB, CAROL = (account(name) for name in ("alice", "bob", "carol"))
THREE = (line_of(ALICE), line_of(BOB), line_of(CAROL))


def without_sum(line: bytes) -> bytes:
    """As it was written before there were sums."""
    return re.sub(b" sum=[0-9a-f]{16}", b"", line)


def contents_of(*lines: bytes) -> Contents:
    return parse(join(1, SECRET, lines), {})


# --- an account and its line ------------------------------------------------------------------------------------------

LINES = [
    (ALICE, "may=put,get,list,replace,remove,links quota=- rate=-"),
    (
        Account("alice", REGISTRATION, frozenset({"put"}), 10**12, 5_000_000),
        "may=put quota=1000000000000 rate=5000000",
    ),
    (
        Account("alice", REGISTRATION, frozenset({"get", "list"}), None, None, 1000, 10**9, 4),
        "may=get,list quota=- rate=- quota-files=1000 largest=1000000000 connections=4",
    ),
]


@pytest.mark.parametrize(("kept", "end"), LINES, ids=[end for _, end in LINES])
def test_account_has_the_documented_line_and_the_line_gives_the_account(kept: Account, end: str) -> None:
    points = " ".join(f"{key}={getattr(REGISTRATION, key).hex()}" for key in ("w0", "L", "w0M", "w0N"))
    whole = b"".join(getattr(REGISTRATION, key) for key in ("w0", "L", "w0M", "w0N"))
    assert line_of(kept) == f"alice {points} {end} sum={hashlib.sha256(whole).hexdigest()[:16]}".encode()
    assert contents_of(without_sum(line_of(kept))).accounts == {b"alice": kept}
    assert contents_of(line_of(kept)).accounts == {b"alice": kept}


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("put,get,list", "put,get,list,replace"),
        ("put,get", "put,get,replace"),
        ("put", "put"),
        ("put,list", "put,list"),
        ("get,list", "get,list"),
    ],
)
def test_line_of_the_time_before_replacing_was_a_right_allows_what_it_allowed(before: str, now: str) -> None:
    old = line_of(ALICE).replace(b"may=put,get,list,replace,remove,links", b"rights=" + before.encode())
    found = contents_of(old).accounts[b"alice"]
    assert found.rights == frozenset(now.split(","))
    assert f" may={now} ".encode() in line_of(found)


@each_row(
    ("bytes", "files", "counted"), [(None, None, False), (1, None, True), (None, 1, True), (1, 1, True), (0, 0, True)]
)
def test_either_quota_has_what_an_account_sends_counted(bytes: int | None, files: int | None, counted: bool) -> None:
    assert Account("alice", Registration.of(3, 5), frozenset(), bytes, None, quota_files=files).has_quota is counted


def test_file_begins_with_the_documented_line() -> None:
    assert join(1, SECRET) == f"secure-file-transfer-accounts 1 profile=1 secret={SECRET.hex()}\n".encode()
    assert parse(join(1, SECRET), {}) == Contents(1, SECRET)


@each_row(
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
def test_reject_account_that_could_not_be_read_back(bad: Account) -> None:
    with pytest.raises(UsageError, match="dave"):
        line_of(bad)


@each_row("name", ["a", "0", "alice", "a.b-c_d", "x" * 32, "console", "com", "lpt10", "a.con"])
def test_accept_username(name: str) -> None:
    check_account_name(name)


@each_row(
    "name",
    ["", ".", "..", ".a", "-a", "_a", "Alice", "a b", "a/b", "a\n", "\na", "a\0", "é", "x" * 33, "a:b", "a=b", "٣"]
    + ["a.", "a..", "con", "nul", "aux", "prn", "com1", "lpt9", "com0", "con.txt", "nul.", "com1.a.b"],
)
def test_reject_username(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_account_name(name)
    assert caught.value.remedy
    with pytest.raises(UsageError):
        added(contents_of(), account(name))
    assert name_of(name.encode() + b" w0=00") != name or not name


# --- damage -----------------------------------------------------------------------------------------------------------

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
    "no right": lambda line: line.replace("put,get,list,replace,remove", ""),
    "no rights at all": lambda line: line.replace(" may=put,get,list,replace,remove", ""),
    "rights of both times": lambda line: line.replace(" quota=", " rights=put quota="),
    "new right in an old line": lambda line: line.replace("may=", "rights="),
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
    "sum of another": lambda line: re.sub("( sum=.*)?$", f" sum={sum_of(OTHER)}", line),
    "short sum": lambda line: re.sub("( sum=.*)?$", " sum=00", line),
    "name only": lambda line: line.split(" ")[0],
}


@each_row("with_sum", [True, False])
@each_row("damage", DAMAGES)
def test_damaged_line_locks_out_that_account_alone(damage: str, with_sum: bool) -> None:
    line = THREE[1] if with_sum else without_sum(THREE[1])
    found = contents_of(THREE[0], DAMAGES[damage](line.decode()).encode(), THREE[2])
    assert found.accounts == {b"alice": ALICE, b"carol": CAROL}
    assert [(damaged.line, damaged.name) for damaged in found.damaged] == [(3, "bob")]
    shown = str(found.damaged[0])
    assert shown.startswith("line 3 (bob): ")
    assert REGISTRATION.w0.hex() not in shown and REGISTRATION.L.hex() not in shown


@each_row("line", ["", " ", "# comment", "Bob w0=00", "con w0=00", "\x1b[31m w0=00", "\u00e9"])
def test_line_without_a_name_locks_out_no_account(line: str) -> None:
    found = contents_of(THREE[0], line.encode(), *THREE[1:])
    assert list(found.accounts) == [b"alice", b"bob", b"carol"]
    assert [str(damaged) for damaged in found.damaged] == ["line 3: it does not begin with a username"]


@pytest.mark.parametrize("second", [THREE[0], b"alice w0=00"], ids=["sound", "damaged"])
def test_name_that_is_there_twice_is_locked_out(second: bytes) -> None:
    found = contents_of(*THREE, second)
    assert list(found.accounts) == [b"bob", b"carol"]
    assert [(damaged.line, damaged.name) for damaged in found.damaged] == [(2, "alice"), (5, "alice")]


def test_last_line_is_believed_only_with_its_end() -> None:
    whole = join(1, SECRET, (THREE[0], line_of(replace(BOB, rate=1000))))
    for size in range(1, 8):
        found = parse(whole[:-size], {})
        assert list(found.accounts) == [b"alice"] and not found.ends_whole
        assert found.damaged[0].name == "bob" and "ends in the middle" in found.damaged[0].why


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


@each_row("head", HEADS)
def test_reject_file_with_a_damaged_first_line(head: str) -> None:
    with pytest.raises(IntegrityError, match=r"its (first line|format)"):
        parse(b"".join(line + b"\n" for line in (head.encode(), *THREE)), {})


def test_reject_first_line_that_is_cut_short() -> None:
    whole = join(1, SECRET)
    for size in range(len(whole)):
        with pytest.raises(IntegrityError):
            parse(whole[:size], {})


# --- changes ----------------------------------------------------------------------------------------------------------

BROKEN = b"bob w0=00"
WITH_BROKEN = contents_of(THREE[0], BROKEN, THREE[2])
DAVE = account("dave")

CHANGES: dict[str, tuple[Callable[[], tuple[bytes, ...]], tuple[bytes, ...] | str]] = {
    "add": (lambda: added(contents_of(*THREE), DAVE), (*THREE, line_of(DAVE))),
    "add beside a damaged line": (lambda: added(WITH_BROKEN, DAVE), (*WITH_BROKEN.lines, line_of(DAVE))),
    "add a name that is taken": (lambda: added(contents_of(*THREE), account("bob", OTHER)), "passwd bob"),
    "add the name of a damaged line": (lambda: added(WITH_BROKEN, BOB), "already"),
    "change a password": (
        lambda: changed(contents_of(*THREE), "bob", {"registration": OTHER}),
        (THREE[0], line_of(account("bob", OTHER)), THREE[2]),
    ),
    "change limits": (
        lambda: changed(contents_of(line_of(replace(BOB, rate=1, largest=2))), "bob", {"quota": 5, "largest": None}),
        (line_of(replace(BOB, rate=1, quota=5)),),
    ),
    "change beside a damaged line": (
        lambda: changed(WITH_BROKEN, "carol", {"quota": 1}),
        (THREE[0], BROKEN, line_of(replace(CAROL, quota=1))),
    ),
    "change a damaged line": (lambda: changed(WITH_BROKEN, "bob", {"quota": 1}), "deluser bob"),
    "remove": (lambda: removed(contents_of(*THREE), "bob"), (THREE[0], THREE[2])),
    "remove a damaged line": (lambda: removed(WITH_BROKEN, "bob"), (THREE[0], THREE[2])),
    "remove a name that is there twice": (lambda: removed(contents_of(*THREE, BROKEN), "bob"), (THREE[0], THREE[2])),
}
CHANGES |= {
    f"{verb} {name!r}": (change, "there is no account")
    for name in ("dave", "", "ALICE", "\ud800")
    for verb, change in (
        ("change", lambda name=name: changed(contents_of(*THREE, b""), name, {})),
        ("remove", lambda name=name: removed(contents_of(*THREE, b""), name)),
    )
}


@each_row("change", CHANGES)
def test_change_makes_these_lines_or_is_rejected(change: str) -> None:
    make, expected = CHANGES[change]
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=expected):
            make()
    else:
        assert make() == expected
