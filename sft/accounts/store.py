"""The accounts file: who may log in, what each may do, and what a server keeps of a password.

    secure-file-transfer-accounts 1 profile=1 secret=<64 hex>
    alice w0=<hex> L=<hex> w0M=<hex> w0N=<hex> rights=put,get,list quota=<bytes or -> rate=<bytes per second or ->
        (one line; behind it, where they are set:) quota-files=<count> largest=<bytes> connections=<count>

Rules: the file belongs to the user who runs the server, and nobody else may read it. It is replaced as a whole, in one
step, under a lock, and read again when it changes: only an unchanged file is taken to be as it was read last. A damaged
account line shuts out that account alone. A damaged first line, or a file that can't be looked at, shuts out everybody,
whatever the name, until it can be used again. Both are told to the caller. Every name has a salt, made from the
server's secret in the same way and the same time, whether the name is known or not. This module knows no password and
no connection: only what a password leaves behind, and the file.
"""

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crypto_utils import DEFAULT_PROFILE, SCRYPT_PROFILES, STRETCHED_SIZE, Random, equal, mac, random_bytes
from sft.common.errors import Code, IntegrityError, Refused, UsageError
from sft.common.private_files import open_private
from sft.wire.pake import Registration, password_scalars

RIGHTS = ("put", "get", "list")
USERNAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
SECRET_SIZE = 32

# Names that Windows keeps for devices, whatever follows the first dot: a user's name is a folder's name too.
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})

_FORMAT = "secure-file-transfer-accounts"
_HEAD = re.compile(_FORMAT + r" 1 profile=([0-9]{1,3}) secret=([0-9a-f]{64})")
_POINT = re.compile(r"04[0-9a-f]{128}")
_LIMIT = re.compile(r"-|[1-9][0-9]{0,17}")
_FIELDS = {
    "w0": re.compile(r"[0-9a-f]{64}"),
    "L": _POINT,
    "w0M": _POINT,
    "w0N": _POINT,
    "rights": re.compile(r"[a-z]+(,[a-z]+)*"),
    "quota": _LIMIT,
    "rate": _LIMIT,
    "quota-files": _LIMIT,
    "largest": _LIMIT,
    "connections": _LIMIT,
}
# Fields that came later: a line without them is sound, and is written as it was.
_LATER = ("quota-files", "largest", "connections")

# A file changed twice within one tick of its file system's clock looks unchanged; until it is older than the coarsest
# tick it is read again, but not at each of thousands of requests in a second.
_TICK_NS = 3_000_000_000
_AGAIN_NS = 20_000_000

_Stamp = tuple[int, int, int, int, int]
Report = Callable[[str], None]


def check_username(name: str) -> None:
    """Raises UsageError when `name` can't be an account's name and its folder's."""
    if not USERNAME.fullmatch(name):
        raise UsageError(
            "that username is not allowed",
            "Use 1 to 32 of a-z, 0-9, dot, hyphen and underscore, with a letter or digit first",
        )
    if name.endswith("."):
        raise UsageError(f"the username {name} ends in a dot", "A folder has that name too: end it otherwise")
    if name.split(".", 1)[0] in _DEVICES:
        raise UsageError(f"{name} is the name of a device on Windows", "A folder has that name too: choose another")


@dataclass(frozen=True, slots=True)
class Account:
    """One account. None means no limit.

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


@dataclass(frozen=True, slots=True)
class Damage:
    """An account line that can't be used: its number in the file, its name ("" when that is damaged too), and why."""

    line: int
    name: str
    why: str

    def __str__(self) -> str:
        return f"line {self.line}{f' ({self.name})' if self.name else ''}: {self.why}"


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one reading of the file gave. `lines` are the account lines as they stand, damaged ones too."""

    profile: int
    secret: bytes = field(repr=False)
    lines: tuple[bytes, ...] = field(default=(), repr=False)
    accounts: dict[bytes, Account] = field(default_factory=dict)
    damaged: tuple[Damage, ...] = ()
    ends: bool = True
    trouble: str = ""


def _encode_head(profile: int, secret: bytes) -> bytes:
    return f"{_FORMAT} 1 profile={profile} secret={secret.hex()}".encode()


def _decode_head(line: bytes) -> tuple[int, bytes]:
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


def _encode(account: Account) -> bytes:
    kept = account.registration
    rights = ",".join(sorted(account.rights, key=lambda right: (*RIGHTS, right).index(right)))
    quota, rate = ("-" if limit is None else str(limit) for limit in (account.quota, account.rate))
    later = {key: getattr(account, key.replace("-", "_")) for key in _LATER}
    return (
        f"{account.name} w0={kept.w0.hex()} L={kept.L.hex()} w0M={kept.w0M.hex()} w0N={kept.w0N.hex()}"
        f" rights={rights} quota={quota} rate={rate}"
        + "".join(f" {key}={limit}" for key, limit in later.items() if limit is not None)
    ).encode()


def _name_of(line: bytes) -> str:
    """The name that a line claims, damaged or not; "" when it is none."""
    name = line.split(b" ", 1)[0].decode("ascii", "replace")
    try:
        check_username(name)
    except UsageError:
        return ""
    return name


def _limit(text: str) -> int | None:
    return None if text == "-" else int(text)


def _decode(line: bytes) -> Account:
    """The account of a line. Raises IntegrityError; its words never quote the line, which may hold a secret."""
    name = _name_of(line)
    if not name:
        raise IntegrityError("it does not begin with a username")
    fields: dict[str, str] = {}
    for part in line.decode("ascii", "replace").split(" ")[1:]:
        key, _, value = part.partition("=")
        if key not in _FIELDS:
            raise IntegrityError("it has an unknown field")
        if key in fields:
            raise IntegrityError(f"{key} is there twice")
        if not _FIELDS[key].fullmatch(value):
            raise IntegrityError(f"{key} is damaged")
        fields[key] = value
    for key in _FIELDS:
        if key not in fields and key not in _LATER:
            raise IntegrityError(f"{key} is missing")
    rights = fields["rights"].split(",")
    if len(set(rights)) != len(rights) or not set(rights) <= set(RIGHTS):
        raise IntegrityError("rights is damaged")
    registration = Registration(*(bytes.fromhex(fields[key]) for key in ("w0", "L", "w0M", "w0N")))
    registration.check()
    limits = (_limit(fields.get(key, "-")) for key in ("quota", "rate", *_LATER))
    return Account(name, registration, frozenset(rights), *limits)


def _verdict(line: bytes) -> Account | str:
    """The account of a line, or why there is none."""
    try:
        return _decode(line)
    except IntegrityError as error:
        return error.cause


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _stamp(path: Path) -> _Stamp | None:
    """What changes when the file does; None when it is not there. The ctime also tells of a new mode or owner."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _load(path: Path) -> bytes:
    """The whole file. Raises UsageError unless it is a regular file of ours that nobody else can read."""
    try:
        with os.fdopen(open_private(path, os.O_RDONLY, f"the accounts file {path}"), "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise UsageError(
            f"there is no accounts file {path}", "Add an account with: python server.py adduser NAME"
        ) from None
    except OSError as error:
        raise UsageError(f"can't read the accounts file {path} ({error.strerror})", "Check the path") from None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Hold `<file>.lock`, against other processes and other threads. Raises UsageError for trouble with the disk."""
    # Imported here because the client, which also judges usernames, runs where there is no fcntl.
    import fcntl

    try:
        # The lock file stays: whoever removes one may remove it under a waiter, and two then hold "the" lock.
        lock = open_private(_beside(path, ".lock"), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
    except OSError as error:
        raise UsageError(
            f"can't write the accounts file {path} ({error.strerror})", "Check the folder, its owner and its free space"
        ) from None


def _write(path: Path, lines: list[bytes], publish: Callable[[Path, Path], None]) -> None:
    """Write the lines beside `path` and let `publish` put them there, in one step that a power cut can't halve."""
    fresh = _beside(path, ".new")
    # Under the lock, what lies there is the rest of a writer that died. It holds secrets: one name, so that none stays.
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(b"".join(line + b"\n" for line in lines))
            file.flush()
            os.fsync(descriptor)
        publish(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Accounts:
    """The accounts of one server. Safe to use from several threads at once.

    `report` is told, once per reading, of each line and each state of the file that shuts somebody out; it must not
    raise.
    """

    def __init__(self, path: Path, report: Report, random: Random, clock_ns: Callable[[], int]) -> None:
        self.path = path
        self._report, self._clock_ns = report, clock_ns
        self._lock = threading.Lock()
        # Checking an account's points takes 0.3 ms: what was found about a line is kept for as long as it is there.
        self._verdicts: dict[bytes, Account | str] = {}
        self._stamp: _Stamp | None = None  # of the last reading
        self._young_at: int | None = None  # when that was, if the file may have changed since and look the same
        self._reading = self._read()
        self._tell(self._reading)
        # What an unknown name is tried against: its password is 80 random bytes that are gone already.
        self.dummy = Registration.of(*password_scalars(random(STRETCHED_SIZE)))

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        report: Report = lambda _: None,
        random: Random = random_bytes,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> "Accounts":
        """The accounts of a file that is there. Raises UsageError."""
        return cls(Path(path), report, random, clock_ns)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        report: Report = lambda _: None,
        random: Random = random_bytes,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> "Accounts":
        """Make the file, with a fresh secret, unless it is there; then open it. Raises UsageError."""
        with _writing(Path(path)):
            if not cls.exists(path):
                # A link, unlike a rename, fails when somebody who ignores the lock was faster.
                _write(Path(path), [_encode_head(DEFAULT_PROFILE, random(SECRET_SIZE))], os.link)
        return cls(Path(path), report, random, clock_ns)

    @staticmethod
    def exists(path: str | os.PathLike[str]) -> bool:
        """Whether anything has that name, be it a broken link: then nothing is made there.

        Raises UsageError when nobody can tell.
        """
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise UsageError(f"can't look for the accounts file {path} ({error.strerror})", "Check the path") from None
        return True

    @property
    def profile(self) -> int:
        """The scrypt profile of every account, real or not."""
        return self._reading.profile

    @property
    def damaged(self) -> list[Damage]:
        """The account lines of the last reading that can't be used."""
        return list(self._reading.damaged)

    @property
    def trouble(self) -> str:
        """Why nobody can log in since the last reading; "" when all is well."""
        return self._reading.trouble

    def salt(self, username: bytes) -> bytes:
        """The salt that this username is told, 32 bytes: no name, known or not, ever gets another one."""
        return mac(self._reading.secret, username)

    def find(self, username: bytes) -> Account | None:
        """The account of that name as the file has it, 20 ms ago at most; None for an unknown name or a damaged line.

        Raises Refused (UNAVAILABLE) for every name when the file can't be used, or not be looked at, now.
        """
        reading = self._refresh()
        if reading.trouble:
            raise Refused(Code.UNAVAILABLE, why=reading.trouble)
        return reading.accounts.get(username)

    def names(self) -> list[str]:
        """The usable accounts' names, in the file's order."""
        return [account.name for account in self.all()]

    def all(self) -> list[Account]:
        """The usable accounts, in the file's order."""
        return list(self._refresh().accounts.values())

    def add(self, account: Account) -> None:
        """Raises UsageError when the name is taken or not allowed, or the file can't be written."""
        check_username(account.name)
        line = self._line_of(account)

        def edit(reading: _Reading) -> list[bytes]:
            if account.name in map(_name_of, reading.lines):
                raise UsageError(
                    f"there is an account {account.name} already",
                    f"Choose another name, or change its password: python server.py passwd {account.name}",
                )
            return [*reading.lines, line]

        self._edit(edit)

    def replace_password(self, name: str, registration: Registration) -> None:
        """Keep everything of the account but its password. Raises UsageError for an unknown or damaged one."""
        self.change(name, {"registration": registration})

    def change(self, name: str, news: Mapping[str, Any]) -> None:
        """Give an account other values, by the names of its fields. Raises UsageError as `replace_password` does."""

        def edit(reading: _Reading) -> list[bytes]:
            account = reading.accounts.get(name.encode("ascii", "replace"))
            if account is None and name and name in map(_name_of, reading.lines):
                raise UsageError(
                    f"the line of account {name} is damaged",
                    f"Remove the account and add it again: python server.py deluser {name}",
                )
            if account is None:
                raise _unknown(name)
            line = self._line_of(replace(account, **news))
            return [line if _name_of(old) == name else old for old in reading.lines]

        self._edit(edit)

    def remove(self, name: str) -> None:
        """Remove the account, and every damaged line of that name. Raises UsageError for an unknown one."""

        def edit(reading: _Reading) -> list[bytes]:
            kept = [line for line in reading.lines if not name or _name_of(line) != name]
            if len(kept) == len(reading.lines):
                raise _unknown(name)
            return kept

        self._edit(edit)

    def _line_of(self, account: Account) -> bytes:
        line = _encode(account)
        verdict = _verdict(line)
        if isinstance(verdict, str):
            raise UsageError(f"the account {account.name} can't be kept: {verdict}", "Choose another value")
        return line

    def _edit(self, edit: Callable[[_Reading], list[bytes]]) -> None:
        """Replace the account lines by what `edit` makes of those in the file now."""
        with _writing(self.path):
            with self._lock:
                secret, reading = self._reading.secret, self._read()
            if not equal(secret, reading.secret):
                # The caller's registration was made with a salt that this file does not give.
                raise UsageError(f"the accounts file {self.path} was replaced meanwhile", "Run the command again")
            if not reading.ends:
                raise UsageError(
                    f"the accounts file {self.path} ends in the middle of a line", "Repair its last line, or remove it"
                )
            _write(self.path, [_encode_head(reading.profile, reading.secret), *edit(reading)], os.replace)
        self._refresh()

    def _refresh(self) -> _Reading:
        with self._lock:
            now, young_at = self._clock_ns(), self._young_at
            before, stamp = self._reading, _stamp(self.path)
            again = young_at is not None and not 0 <= now - young_at < _AGAIN_NS  # a clock may be set back
            if stamp is None or stamp != self._stamp or again:
                try:
                    self._reading = self._read()
                except UsageError as error:
                    self._reading = _Reading(before.profile, before.secret, trouble=str(error))
                    if isinstance(error.__context__, OSError):  # it may pass, and the file be the same afterwards
                        stamp = None
                self._stamp = stamp
                self._young_at = None if stamp is not None and now - stamp[-1] > _TICK_NS else now
            after = self._reading
        if after is not before and after != before:
            self._tell(after)
        return after

    def _tell(self, reading: _Reading) -> None:
        if reading.trouble:
            self._report(f"nobody can log in: {reading.trouble}")
        for damage in reading.damaged:
            self._report(f"an account can't log in: {self.path}, {damage}")

    def _read(self) -> _Reading:
        """The file as it is now. Raises UsageError when it, or its first line, can't be used."""
        head, *lines = _load(self.path).split(b"\n")
        try:
            profile, secret = _decode_head(head)
            if not lines:
                raise IntegrityError("its first line is cut short")
        except IntegrityError as error:
            raise UsageError(
                f"the accounts file {self.path} can't be used: {error.cause}",
                "Restore it from a backup; a new file has a new secret, and every account must be added again",
            ) from None
        ends = lines[-1] == b""
        if ends:
            lines.pop()
        self._verdicts = {line: self._verdicts.get(line) or _verdict(line) for line in lines}
        claims = Counter(map(_name_of, lines))
        accounts, damaged = {}, []
        for number, line in enumerate(lines, 2):
            name, verdict = _name_of(line), self._verdicts[line]
            if number == len(lines) + 1 and not ends:
                # A number cut short reads as a smaller one: a last line without its end can't be believed.
                damaged.append(Damage(number, name, "the file ends in the middle of it"))
            elif isinstance(verdict, str):
                damaged.append(Damage(number, name, verdict))
            elif claims[name] > 1:
                damaged.append(Damage(number, name, "that name is there twice"))
            else:
                accounts[name.encode()] = verdict
        return _Reading(profile, secret, tuple(lines), accounts, tuple(damaged), ends)


def _unknown(name: str) -> UsageError:
    return UsageError(f"there is no account {name}", "List them with: python server.py users")
