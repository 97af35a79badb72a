"""The format of the accounts file: its bytes to accounts and back, and what each change makes of its lines.

    secure-file-transfer-accounts 1 profile=1 secret=<64 hex>
    alice w0=<hex> L=<hex> w0M=<hex> w0N=<hex> may=put,get,list quota=<bytes or -> rate=<bytes per second or ->
        (on the same line, where they are set:) quota-files=<count> largest=<bytes> connections=<count> folder=<name>
        sum=<16 hex>

`sum` are the first 8 bytes of SHA-256 over the bytes of w0, L, w0M and w0N. It shows damage; a line without it is
checked by computing the points anew, which takes 0.7 ms, and for 100,000 accounts more than a minute.

A line of the time before `replace` was a right of its own has `rights=` in the place of `may=`: with `put` and `get`
such an account could replace files, and still can.

Rules: a damaged account line makes that account unusable and no other, and no change rewrites it. A damaged first line
makes the whole file unusable. What is written was read back before. No error quotes a line, which holds secrets. This
module touches no file: `sft/accounts/store.py` does.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from crypto_utils import SCRYPT_PROFILES, digest
from sft.common.errors import IntegrityError, UsageError
from sft.wire.pake import Registration

RIGHTS = ("put", "get", "list", "replace", "remove", "links")
USERNAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")

# Names that Windows keeps for devices, whatever follows the first dot: an account's name is a folder's name too.
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})

_FORMAT = "secure-file-transfer-accounts"
_HEAD = re.compile(_FORMAT + r" 1 profile=([0-9]{1,3}) secret=([0-9a-f]{64})")
_POINT = re.compile(r"04[0-9a-f]{128}")
_WORDS = re.compile(r"[a-z]+(,[a-z]+)*")
_LIMIT = re.compile(r"-|[1-9][0-9]{0,17}")
_FIELDS = {
    "w0": re.compile(r"[0-9a-f]{64}"),
    "L": _POINT,
    "w0M": _POINT,
    "w0N": _POINT,
    "may": _WORDS,
    "rights": _WORDS,
    "quota": _LIMIT,
    "rate": _LIMIT,
    "quota-files": _LIMIT,
    "largest": _LIMIT,
    "connections": _LIMIT,
    "folder": USERNAME,
    "sum": re.compile(r"[0-9a-f]{16}"),
}
# Fields that were added later: a line without them is valid, and is written without them.
_OPTIONAL = ("quota-files", "largest", "connections", "folder")
_SUM_BYTES = 8
_LIMITS = ("quota", "rate", "quota-files", "largest", "connections")
_ONE_OF = ("may", "rights")
_FIRST_RIGHTS = ("put", "get", "list")


@dataclass(frozen=True, slots=True)
class Account:
    """One account. None means no limit, and for `folder` the one that is called like the account.

    `quota` and `largest` (of one file) are in bytes, `rate` in bytes per second, over all its `connections` at once.
    """

    name: str
    registration: Registration = field(repr=False)
    rights: frozenset[str]
    quota: int | None
    rate: int | None
    quota_files: int | None = None
    largest: int | None = None
    connections: int | None = None
    folder: str | None = None

    @property
    def home(self) -> str:
        """The name of the folder that its files are in."""
        return self.folder or self.name

    @property
    def has_quota(self) -> bool:
        """Whether what is in its folder is counted for it."""
        return self.quota is not None or self.quota_files is not None


@dataclass(frozen=True, slots=True)
class Damage:
    """An account line that can't be used: its number in the file, its name ("" when that is damaged too), and why."""

    line: int
    name: str
    why: str

    def __str__(self) -> str:
        return f"line {self.line}{f' ({self.name})' if self.name else ''}: {self.why}"


Checked = Mapping[bytes, Account | str]  # by account line: the account, or what is wrong with the line


@dataclass(frozen=True, slots=True)
class Contents:
    """What one reading of the file gave. `lines` are the account lines as they stand, damaged ones too."""

    profile: int
    secret: bytes = field(repr=False)
    lines: tuple[bytes, ...] = field(default=(), repr=False)
    accounts: dict[bytes, Account] = field(default_factory=dict)  # those that can be used, by name
    damaged: tuple[Damage, ...] = ()
    ends_whole: bool = True  # its last line has an end
    checked: Checked = field(default_factory=dict, repr=False, compare=False)
    counted: frozenset[str] = frozenset()  # the folders in which an account has a quota


def check_account_name(name: str) -> None:
    """Raises UsageError when `name` can't be an account's name and its folder's."""
    if (why := why_no_name(name)) is not None:
        raise UsageError(why[0] if "{" not in why[0] else why[0].format(f"username {name}"), why[1])


def check_folder_name(name: str) -> None:
    """The same for the folder of an account."""
    if (why := why_no_name(name)) is not None:
        raise UsageError(f"--folder: {why[0].replace('username', 'name').format(f'name {name}')}", why[1])


def why_no_name(name: str) -> tuple[str, str] | None:
    """What is wrong with the name of an account or its folder, and what to do; None: nothing."""
    if not USERNAME.fullmatch(name):
        remedy = "Use 1 to 32 of a-z, 0-9, dot, hyphen and underscore, with a letter or digit first"
        return "that username is not allowed", remedy
    if name.endswith("."):
        return "the {} ends in a dot", "A folder has that name too: end it otherwise"
    if name.split(".", 1)[0] in _DEVICES:
        return f"{name} is the name of a device on Windows", "A folder has that name too: choose another"
    return None


# --- reading ---


def parse(data: bytes, checked_before: Checked) -> Contents:
    """The contents of the file. Raises IntegrityError when its first line is damaged.

    Reading a line takes 50 us, and 0.7 ms without `sum`: lines in `checked_before` (`Contents.checked` of the reading
    before) are not read again.
    """
    head, *lines = data.split(b"\n")
    profile, secret = _parse_head(head)
    if not lines:
        raise IntegrityError("its first line is cut short")
    ends_whole = lines[-1] == b""
    if ends_whole:
        lines.pop()
    checked = {line: checked_before.get(line) or _check_line(line) for line in lines}
    names = [name_of(line) if isinstance(found := checked[line], str) else found.name for line in lines]
    uses = Counter(names)
    accounts: dict[bytes, Account] = {}
    damaged: list[Damage] = []
    for number, (line, name) in enumerate(zip(lines, names, strict=True), 2):
        found = checked[line]
        if number == len(lines) + 1 and not ends_whole:
            # A number that is cut short reads as a smaller one, so nothing on such a line can be believed.
            damaged.append(Damage(number, name, "the file ends in the middle of it"))
        elif isinstance(found, str):
            damaged.append(Damage(number, name, found))
        elif uses[name] > 1:
            damaged.append(Damage(number, name, "that name is there twice"))
        else:
            accounts[name.encode()] = found
    counted = frozenset(each.home for each in accounts.values() if each.has_quota)
    return Contents(profile, secret, tuple(lines), accounts, tuple(damaged), ends_whole, checked, counted)


def _parse_head(line: bytes) -> tuple[int, bytes]:
    """(profile, secret). Raises IntegrityError."""
    words = line.decode("ascii", "replace")
    match = _HEAD.fullmatch(words)
    if match is None:
        if words.startswith(f"{_FORMAT} ") and not words.startswith(f"{_FORMAT} 1 "):
            raise IntegrityError("its format is of another version of this program")
        raise IntegrityError("its first line is damaged")
    profile = int(match[1])
    if profile not in SCRYPT_PROFILES:
        raise IntegrityError("its first line names an unknown scrypt profile")
    return profile, bytes.fromhex(match[2])


def name_of(line: bytes) -> str:
    """The name that an account line begins with, also when the rest is damaged; "" when it is not a name."""
    name = line.split(b" ", 1)[0].decode("ascii", "replace")
    try:
        check_account_name(name)
    except UsageError:
        return ""
    return name


def _check_line(line: bytes) -> Account | str:
    try:
        return _parse_line(line)
    except IntegrityError as error:
        return error.cause


def _parse_line(line: bytes) -> Account:
    """The account of a line. Raises IntegrityError, which does not quote the line."""
    name = name_of(line)
    if not name:
        raise IntegrityError("it does not begin with a username")
    fields = _parse_fields(line.decode("ascii", "replace").split(" ")[1:])
    rights = _parse_rights(fields)
    registration = Registration(*(bytes.fromhex(fields[key]) for key in ("w0", "L", "w0M", "w0N")))
    if "sum" not in fields:
        registration.check()
    elif fields["sum"] != sum_of(registration):
        raise IntegrityError("its sum does not match, so w0, L, w0M or w0N is damaged")
    quota, rate, quota_files, largest, connections = (_parse_limit(fields.get(key, "-")) for key in _LIMITS)
    folder = fields.get("folder")
    if folder is not None and why_no_name(folder):
        raise IntegrityError("folder is damaged")
    return Account(name, registration, rights, quota, rate, quota_files, largest, connections, folder)


def sum_of(registration: Registration) -> str:
    """What shows that nothing of a registration is damaged."""
    kept = registration
    return digest(kept.w0 + kept.L + kept.w0M + kept.w0N)[:_SUM_BYTES].hex()


def _parse_rights(fields: Mapping[str, str]) -> frozenset[str]:
    key = "may" if "may" in fields else "rights"
    words, known = fields[key].split(","), RIGHTS if key == "may" else _FIRST_RIGHTS
    if len(set(words)) != len(words) or not set(words) <= set(known):
        raise IntegrityError(f"{key} is damaged")
    could_replace = key == "rights" and {"put", "get"} <= set(words)
    return frozenset([*words, "replace"] if could_replace else words)


def _parse_fields(words: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in _FIELDS:
            raise IntegrityError("it has an unknown field")
        if key in fields or (key in _ONE_OF and not fields.keys().isdisjoint(_ONE_OF)):
            raise IntegrityError(f"{key} is there twice")
        if not _FIELDS[key].fullmatch(value):
            raise IntegrityError(f"{key} is damaged")
        fields[key] = value
    for key in _FIELDS:
        if key not in fields and key not in (*_OPTIONAL, *_ONE_OF, "sum"):
            raise IntegrityError(f"{key} is missing")
    if fields.keys().isdisjoint(_ONE_OF):
        raise IntegrityError("may is missing")
    return fields


def _parse_limit(text: str) -> int | None:
    return None if text == "-" else int(text)


# --- writing ---


def join(profile: int, secret: bytes, lines: tuple[bytes, ...] = ()) -> bytes:
    """The bytes of a file with these account lines."""
    head = f"{_FORMAT} 1 profile={profile} secret={secret.hex()}".encode()
    return b"".join(line + b"\n" for line in (head, *lines))


def line_of(account: Account) -> bytes:
    """The account's line. Raises UsageError for an account that could not be read back from it."""
    kept = account.registration
    rights = ",".join(sorted(account.rights, key=lambda right: (*RIGHTS, right).index(right)))
    quota, rate = ("-" if limit is None else str(limit) for limit in (account.quota, account.rate))
    optional = {key: getattr(account, key.replace("-", "_")) for key in _OPTIONAL}
    line = (
        f"{account.name} w0={kept.w0.hex()} L={kept.L.hex()} w0M={kept.w0M.hex()} w0N={kept.w0N.hex()}"
        f" may={rights} quota={quota} rate={rate}"
        + "".join(f" {key}={limit}" for key, limit in optional.items() if limit is not None)
    ).encode()
    found = _check_line(line)  # without a sum, so that the points are checked, too
    if isinstance(found, str):
        raise UsageError(f"the account {account.name} can't be kept: {found}", "Choose another value")
    return line + f" sum={sum_of(kept)}".encode()


def added(contents: Contents, account: Account) -> tuple[bytes, ...]:
    """The lines with one more account. Raises UsageError when its name is not allowed, or taken by any line."""
    check_account_name(account.name)
    line = line_of(account)
    if account.name in map(name_of, contents.lines):
        raise UsageError(
            f"there is an account {account.name} already",
            f"Choose another name, or change its password: python server.py passwd {account.name}",
        )
    return (*contents.lines, line)


def changed(contents: Contents, name: str, news: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The lines with other values for an account, by the names of its fields.

    Raises UsageError when there is no such account, or its line is damaged.
    """
    account = contents.accounts.get(name.encode("ascii", "replace"))
    if account is not None:
        line = line_of(replace(account, **news))
        return tuple(line if name_of(old) == name else old for old in contents.lines)
    if name and name in map(name_of, contents.lines):
        raise UsageError(
            f"the line of account {name} is damaged",
            f"Remove the account and add it again: python server.py deluser {name}",
        )
    raise unknown_account(name)


def removed(contents: Contents, name: str) -> tuple[bytes, ...]:
    """The lines without any of that name, damaged ones included. Raises UsageError when there is none."""
    kept = tuple(line for line in contents.lines if not name or name_of(line) != name)
    if len(kept) == len(contents.lines):
        raise unknown_account(name)
    return kept


def unknown_account(name: str) -> UsageError:
    """The error for a command about an account that is not in the file."""
    return UsageError(f"there is no account {name}", "List them with: python server.py users")
