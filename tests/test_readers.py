"""Every reader that has no harness of its own: whatever it is given is read or refused, by an error of ours."""

import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from config import ClientSettings, ServerSettings, load, settings_of
from sft.accounts.format import RIGHTS, Account, check_account_name
from sft.accounts.passwords import LONGEST, check_strength, read_password_file, read_password_variable
from sft.accounts.store import Accounts
from sft.client.targets import parts_of
from sft.common.errors import ConnectionTrouble, TransferError, UsageError
from sft.common.sizes import parse_size
from sft.common.text import escape
from sft.disk.partials import begin_partial
from sft.disk.receipts import RECEIPTS, Receipts
from sft.disk.staging import StagingArea
from sft.disk.temporary import Incoming
from sft.server.origin import origin_of
from sft.server.throttle import Charge, Throttle
from sft.wire.pake import Registration
from sft.wire.sockets import connect

few = settings(max_examples=50)
TRANSFER = b"t" * 16
SHAPES = (ClientSettings, ServerSettings)
ours = contextlib.suppress(TransferError)

# JSON with what JSON should not hold but this language's reader takes: NaN, infinities, integers without end.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """One folder for all examples, in memory where that can be."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as made:
        yield Path(made)


# --- the accounts file ------------------------------------------------------------------------------------------------

ALICE = Account("alice", Registration.of(3, 5), frozenset(RIGHTS), None, None)
BOB = Account("bob", Registration.of(7, 11), frozenset({"put"}), 1 << 30, 5_000_000)


@pytest.fixture(scope="module")
def accounts_file(place: Path) -> bytes:
    """With alice and bob in it."""
    path = place / "made.txt"
    made = Accounts.create(path)
    for account in (ALICE, BOB):
        made.add(account)
    return path.read_bytes()


def opened(place: Path, content: bytes) -> Accounts:
    path = place / "accounts.txt"
    path.write_bytes(content)
    path.chmod(0o600)
    return Accounts(path)


@few
@given(content=st.binary(max_size=200), behind_head=st.booleans())
def test_arbitrary_accounts_file_is_read_or_refused_and_lets_nobody_in(
    place: Path, accounts_file: bytes, content: bytes, behind_head: bool
) -> None:
    head = accounts_file.split(b"\n")[0] + b"\n" if behind_head else b""
    with ours:
        accounts = opened(place, head + content)
        assert behind_head
        assert accounts.names() == []
        assert len(accounts.damaged) == len(content.removesuffix(b"\n").split(b"\n") if content else [])


@few
@given(data=st.data())
def test_damaged_line_of_the_accounts_shuts_out_that_account_alone(
    place: Path, accounts_file: bytes, data: st.DataObject
) -> None:
    head, alice, bob, _ = accounts_file.split(b"\n")
    at = data.draw(st.integers(0, len(alice)))
    if data.draw(st.booleans()):  # another digit, which keeps the line in its form
        put_in, cut = data.draw(st.sampled_from(b"0123456789abcdef")).to_bytes(), 1
    else:
        put_in, cut = data.draw(st.binary(max_size=3)).replace(b"\n", b""), data.draw(st.integers(0, 3))
    accounts = opened(place, b"\n".join([head, alice[:at] + put_in + alice[at + cut :], bob, b""]))
    assert accounts.find(b"bob") == BOB
    for account in accounts.all():  # a changed name, right or limit may be read; a changed secret never
        assert account.registration in (ALICE.registration, BOB.registration)
    left = accounts.find(b"alice")
    assert left is None or left.registration == ALICE.registration


@few
@given(st.text(max_size=40) | st.text("ab1._-", max_size=34))
def test_username_is_a_safe_name_of_a_folder_or_refused(name: str) -> None:
    with ours:
        check_account_name(name)
        assert name.isascii()
        assert 1 <= len(name) <= 32
        assert not set(name) & set("/\\:\0 ")
        assert name not in (".", "..")
        assert name[-1] != "."


# --- what is kept beside files ----------------------------------------------------------------------------------------

journals = st.binary(max_size=200) | st.one_of(
    json_values,
    st.fixed_dictionaries(
        dict.fromkeys(("size", "mtime", "durable", "generation"), json_values)
        | {"transfer": st.sampled_from([TRANSFER.hex(), "0", 1])}
    ),
).map(lambda value: json.dumps(value).encode())


@few
@given(journal=journals, there=st.binary(max_size=20))
@example(journal=b"[" * 4096, there=b"x")
@example(journal=b'{"transfer":"0","size":0,"mtime":null,"durable":0,"generation":%s}' % (b"9" * 4000), there=b"x")
def test_arbitrary_journal_offers_only_what_is_there(place: Path, journal: bytes, there: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=place) as made:
        folder = os.open(made, os.O_RDONLY)
        try:
            area = StagingArea(folder)
            incoming = Incoming(TRANSFER, ("a",), 1 << 20, None, None, "fail")
            partial = begin_partial(area, incoming)
            partial.discard()
            name = partial.name
            Path(made, name).write_bytes(there)
            Path(made, name + ".journal").write_bytes(journal)
            with ours:
                partial = begin_partial(area, incoming)
                assert all(0 < offset <= len(there) for offset in partial.offers)
                partial.write(memoryview(b"more")) if not partial.offers else partial.resume_from(partial.offers[0])
                partial.discard()
        finally:
            os.close(folder)


receipt_lines = st.binary(max_size=80) | st.one_of(
    json_values,
    st.tuples(
        st.just(TRANSFER.hex()), st.just(1 << 40) | json_values, st.just(["a"]), json_values, json_values, st.just("00")
    ),
).map(lambda value: json.dumps(value).encode())


@few
@given(lines=st.lists(receipt_lines, max_size=3))
@example(lines=[json.dumps([TRANSFER.hex(), float("inf"), ["a"], ["a"], 1, "00"]).encode()])
@example(lines=[json.dumps([TRANSFER.hex(), 1 << 40, ["a"], ["a"], float("inf"), "00"]).encode()])
@example(lines=[json.dumps([TRANSFER.hex(), 1 << 40, ["a"], [1], 1, "00"]).encode()])
@example(lines=[json.dumps([TRANSFER.hex(), 1 << 40, ["a"], "ab", 1, "00"]).encode()])
@example(lines=[json.dumps([TRANSFER.hex(), 1 << 40, ["a"], ["a"], -1, "00"]).encode()])
@example(lines=[b'["' + TRANSFER.hex().encode() + b'", 1, ' + b"[" * 5000])
def test_arbitrary_receipts_are_read_or_as_if_they_were_not_there(place: Path, lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory(dir=place) as made:
        (Path(made) / RECEIPTS).write_bytes(b"\n".join([b"receipts " + b"0" * 32, *lines, b""]))
        (Path(made) / RECEIPTS).chmod(0o600)
        folder = os.open(made, os.O_RDONLY)
        try:
            found = Receipts(folder).find(TRANSFER, ("a",))
        finally:
            os.close(folder)
    if found is not None:
        transfer, asked, path, size, sha256 = found
        assert asked == ("a",)
        assert transfer == TRANSFER
        assert path and all(type(part) is str for part in path)
        assert type(size) is int and size >= 0
        assert type(sha256) is bytes


# --- settings ---------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
names_of_settings = st.sampled_from(sorted({name for shape in SHAPES for name in settings_of(shape)}))
toml_values = st.one_of(
    st.integers().map(str),
    st.booleans().map(lambda value: str(value).lower()),
    texts.map(json.dumps),
    st.sampled_from(["1e999", "nan", "[]", "{}", "0x_", "1979-05-27", "'a'", "9" * 5000, "[" * 3000, "-0", "0o777"]),
)
toml = st.binary(max_size=60) | st.lists(
    st.tuples(names_of_settings | texts, toml_values).map(" = ".join), max_size=3
).map(lambda lines: "\n".join(lines).encode())


@few
@given(content=toml)
@example(content=b"port = " + b"9" * 5000)
@example(content=b"port = " + b"[" * 5000)
def test_arbitrary_settings_file_is_read_or_refused(place: Path, content: bytes) -> None:
    file = place / "settings.toml"
    file.write_bytes(content)
    for shape in SHAPES:
        with contextlib.suppress(UsageError):
            assert "\n" not in "".join(load(shape, {}, {}, str(file)).lines()[:2])  # type: ignore[type-var]


@few
@given(name=names_of_settings, value=texts | st.integers().map(str) | st.just("9" * 5000) | st.just("~nobody/x"))
def test_arbitrary_value_of_a_setting_is_taken_within_its_range_or_refused(name: str, value: str) -> None:
    for shape in SHAPES:
        with contextlib.suppress(UsageError):
            values: Any = load(shape, {name: value}, {"SFT_CONFIG": os.devnull}, None).values  # type: ignore[type-var]
            for limit in ("port", "limit", "memory", "max_file_size", "max_connections", "max_logins"):
                number = getattr(values, limit, None)
                assert number is None or number > 0 or (limit == "port" and number == 0)


@few
@given(
    st.one_of(
        st.text(max_size=12),
        st.integers(),
        st.from_regex(r"-?[0-9_]{1,25}(\.[0-9]{0,15})? ?[kmgtKMGT]?i?[bB]?", fullmatch=True),
    )
)
def test_arbitrary_size_is_above_zero_or_refused(value: object) -> None:
    with contextlib.suppress(ValueError):
        assert 0 < parse_size(value) < 1 << 63


# --- what a user names ------------------------------------------------------------------------------------------------


@few
@given(host=st.text(max_size=80) | st.from_regex(r"\[?[0-9a-f:.]{1,40}\]?(%[a-z0-9]{1,5})?", fullmatch=True))
@example(host="")
@example(host="a" * 64)
@example(host="..")
@example(host="[::1]")
@example(host="\ud800")
def test_arbitrary_host_is_no_host_or_not_reached(host: str) -> None:
    """The names are encoded as the system's resolver has them encoded, and never asked for."""
    asked = pytest.MonkeyPatch()

    def resolver(host: str | bytes, *_: object, **__: object) -> list[object]:
        encoded = host.encode("idna") if isinstance(host, str) else host
        if b"\0" in encoded:
            raise ValueError("embedded null character")
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    with asked.context() as patched:
        patched.setattr(socket, "getaddrinfo", resolver)
        with pytest.raises((ConnectionTrouble, UsageError)) as caught:
            connect(host, 7380, 1)
    assert escape(str(caught.value)).isprintable()


@few
@given(st.text(max_size=30) | st.text("./a\\", max_size=12))
def test_arbitrary_target_has_components_that_name_something(path: str) -> None:
    with contextlib.suppress(UsageError):
        parts = parts_of(path)
        assert all(part and part != "." and "/" not in part for part in parts)
        assert parts_of("/".join(parts)) == parts or parts[:1] == ("",)


@few
@given(content=st.binary(max_size=40) | st.binary(min_size=LONGEST, max_size=LONGEST + 3))
def test_arbitrary_password_file_is_read_or_refused_without_telling_it(place: Path, content: bytes) -> None:
    file = place / "password"
    file.write_bytes(content)
    try:
        password = read_password_file(file)
    except UsageError as problem:
        assert problem.__cause__ is None and problem.__context__ is None
        return
    assert password
    assert "\0" not in password and "\n" not in password
    assert len(password.encode()) <= LONGEST
    assert read_password_variable({"SFT_PASSWORD": password}) == password.removeprefix("\ufeff") or "\r" in password
    with contextlib.suppress(UsageError):
        check_strength(password, "alice")


@few
@given(st.text(max_size=60))
def test_arbitrary_text_is_shown_on_one_printable_line(text: str) -> None:
    shown = escape(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert text.isprintable() == (shown == text)


# --- who may try ------------------------------------------------------------------------------------------------------

addresses = st.ip_addresses().map(str)
tries = st.tuples(
    st.sampled_from([b"alice", b"bob"]) | st.binary(max_size=3),
    st.sampled_from(["192.0.2.1", "192.0.2.2"]) | addresses | st.text(max_size=4),
    st.booleans(),
    st.floats(0, 90_000),
)


@few
@given(st.lists(tries, max_size=60))
def test_any_tries_are_allowed_or_refused_and_the_tables_stay_bounded(
    run: list[tuple[bytes, str, bool, float]],
) -> None:
    now = 1e6
    throttle = Throttle(lambda: now, per_user_and_source=2, per_source=4, per_user_a_day=8, capacity=8)
    allowed: list[Charge] = []
    for user, source, succeeds, later in run:
        now += later
        charge = throttle.charge(user, source)
        if charge is None:
            continue
        origin_of(source)  # text that is not an address is always refused
        allowed.append(charge)
        if succeeds:
            allowed.pop(0).give_back()
    assert len(throttle) <= 3 * 8
    for charge in allowed:
        charge.give_back()


@few
@given(st.lists(addresses, min_size=1, max_size=30), st.integers(1, 5))
def test_no_mix_of_sources_gets_more_tries_at_once_than_is_allowed(sources: list[str], most: int) -> None:
    throttle = Throttle(lambda: 1e6, per_user_and_source=most, per_source=2 * most, per_user_a_day=20)
    given_out = [source for source in sources * 4 if throttle.charge(b"alice", source)]
    for origin in {origin_of(source) for source in sources}:
        assert sum(origin_of(source) == origin for source in given_out) <= most
    assert len(given_out) <= 21


@few
@given(addresses | st.text(max_size=20))
def test_arbitrary_address_is_one_source_or_a_value_error(address: str) -> None:
    with contextlib.suppress(ValueError):
        assert len(origin_of(address)) in (4, 8)
