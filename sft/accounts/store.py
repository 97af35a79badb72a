"""The accounts file on the disk: read again when it changes, replaced as a whole, locked while it is changed.

Rules: the file belongs to the user who runs the server, and no other user can read it. It is replaced in one step,
under a lock. Only a file that is known not to have changed is not read again. While the file, or its first line, can't
be used, nobody can log in, whatever the name. Every name has a salt, made from the server's secret in the same way and
time, whether there is such an account or not. This module knows no password and no connection; what the bytes of the
file mean is in `sft/accounts/format.py`.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from crypto_utils import DEFAULT_PROFILE, STRETCHED_SIZE, Random, equal, mac, random_bytes
from sft.accounts import format as accounts_format
from sft.accounts.format import Account, Contents, Damage, parse
from sft.common.errors import Code, IntegrityError, Refused, UsageError
from sft.common.flushing import flush, flush_folder
from sft.common.private_files import open_private
from sft.wire.pake import Registration, password_scalars

_SECRET_SIZE = 32

# A file that changes twice within one tick of its file system's clock looks unchanged. So a file younger than the
# coarsest tick is read again, but not at each of thousands of requests in a second.
_TICK_NS = 3_000_000_000
_AGAIN_NS = 20_000_000
_AGAIN_SHARE = 10  # of a large file, reading it again takes a tenth of the time at most

Stamp = tuple[int, int, int, int, int]  # device, inode, size, mtime and ctime: each change changes one of them
Report = Callable[[str], None]
Edit = Callable[[Contents], tuple[bytes, ...]]  # the account lines that the file must have


class _Unreadable(UsageError):
    """The file can't be read now; it may be possible later, without any change to the file."""


# --- whether to read ---


class LastRead(NamedTuple):
    """When the file was read last. `stamp` None: its next reading must not be left out."""

    stamp: Stamp | None
    young_at: int | None  # the time of reading, if the file was young then; None if it was older than a tick
    took: int = 0  # ns


def read_at(stamp: Stamp | None, now: int, took: int = 0) -> LastRead:
    """What to remember of a reading at `now`, in ns, of a file with that stamp, which `took` so many."""
    is_old = stamp is not None and now - stamp[-1] > _TICK_NS
    return LastRead(stamp, None if is_old else now, took)


def must_read(last: LastRead, stamp: Stamp | None, now: int) -> bool:
    """Whether a file that has that stamp at `now` may differ from what was read last."""
    if stamp is None or stamp != last.stamp:
        return True
    if last.young_at is None:
        return False
    pause = max(_AGAIN_NS, _AGAIN_SHARE * last.took)
    return not 0 <= now - last.young_at < pause  # below 0: the clock was set back


def _stamp(path: Path) -> Stamp | None:
    """None when it can't be looked at. The ctime also changes with mode and owner."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


# --- reading and writing ---


def _load(path: Path) -> bytes:
    """The whole file. Raises UsageError unless it is a regular file of ours that no other user can read."""
    try:
        with os.fdopen(open_private(path, os.O_RDONLY, f"the accounts file {path}"), "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise UsageError(
            f"there is no accounts file {path}", "Add an account with: python server.py adduser NAME"
        ) from None
    except OSError as error:
        raise _Unreadable(f"can't read the accounts file {path} ({error.strerror})", "Check the path") from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold `<file>.lock`, against other processes and other threads. Raises UsageError for trouble with the disk."""
    try:
        # The lock file stays: if it were removed under a process that waits for it, two would hold "the" lock.
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


def _write(path: Path, data: bytes, publish: Callable[[Path, Path], None]) -> None:
    """Write beside `path`, and let `publish` move it there in one step. A power cut leaves the old file or the new."""
    fresh = _beside(path, ".new")
    # We hold the lock, so what has that name is left by a writer that died. It holds secrets: one name, so none stays.
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(data)
            file.flush()
            flush(descriptor)
        publish(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    flush_folder(path.parent)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@dataclass(frozen=True, slots=True)
class _Reading:
    """The last contents that could be read; and why nobody can log in now, "" when all is well."""

    contents: Contents
    trouble: str = ""


class Accounts:
    """The accounts of one server. Safe to use from several threads at once.

    `report` gets one line, once per reading, for each account line that can't be used and for a file that can't be
    used; it must not raise.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        report: Report = lambda _: None,
        random: Random = random_bytes,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """The accounts of a file that is there. Raises UsageError."""
        self.path = Path(path)
        self._report, self._clock_ns = report, clock_ns
        self._lock = threading.Lock()  # guards the two below
        self._last_read = LastRead(None, None)
        self._reading = _Reading(self._read({}))
        self._report_all(self._reading)
        # What an unknown name is tried against: its password is 80 random bytes that nobody has.
        self.dummy = Registration.of(*password_scalars(random(STRETCHED_SIZE)))

    @classmethod
    def create(cls, path: str | os.PathLike[str], random: Random = random_bytes) -> "Accounts":
        """Make the file, with a fresh secret, unless it is there; then open it. Raises UsageError."""
        with writing(Path(path)):
            if not cls.exists(path):
                # A link, unlike a rename, fails when a process that ignores the lock was faster.
                _write(Path(path), accounts_format.join(DEFAULT_PROFILE, random(_SECRET_SIZE)), os.link)
        return cls(path, random=random)

    @staticmethod
    def exists(path: str | os.PathLike[str]) -> bool:
        """Whether anything has that name, even a broken link: then nothing is made there.

        Raises UsageError when the system can't answer.
        """
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise UsageError(f"can't look for the accounts file {path} ({error.strerror})", "Check the path") from None
        return True

    # --- what is in it ---

    @property
    def profile(self) -> int:
        """The scrypt profile of every account, real or not."""
        return self._reading.contents.profile

    @property
    def damaged(self) -> list[Damage]:
        """The account lines of the last reading that can't be used."""
        return [] if self.trouble else list(self._reading.contents.damaged)

    @property
    def trouble(self) -> str:
        """Why nobody can log in since the last reading; "" when all is well."""
        return self._reading.trouble

    def salt(self, username: bytes) -> bytes:
        """The 32 bytes of salt that a client gets for this username: always the same, whether it has an account."""
        return mac(self._reading.contents.secret, username)

    def find(self, username: bytes) -> Account | None:
        """The account as it was in the file 20 ms ago at most, or ten times as long as reading that takes.

        None for an unknown name or a damaged line.

        Raises Refused (UNAVAILABLE) for every name while the file can't be used, or can't be looked at.
        """
        reading = self._refresh()
        if reading.trouble:
            raise Refused(Code.UNAVAILABLE, why=reading.trouble)
        return reading.contents.accounts.get(username)

    def by_name(self) -> Mapping[bytes, Account]:
        """The same, each by its username; not to be changed."""
        reading = self._refresh()
        return {} if reading.trouble else reading.contents.accounts

    def names(self) -> list[str]:
        """The names of all usable accounts, in the file's order."""
        return [account.name for account in self.all()]

    def all(self) -> list[Account]:
        """All usable accounts, in the file's order; none while the file can't be used."""
        reading = self._refresh()
        return [] if reading.trouble else list(reading.contents.accounts.values())

    def counted_folders(self) -> frozenset[str]:
        """The folders in which an account has a quota, so that what all accounts put there must be counted."""
        return self._refresh().contents.counted

    # --- changing it ---

    def add(self, account: Account) -> None:
        """Raises UsageError when the name is taken or not allowed, or the file can't be written."""
        self._edit(lambda contents: accounts_format.added(contents, account))

    def change(self, name: str, news: Mapping[str, Any]) -> None:
        """Give an account other values, by the names of its fields. Raises UsageError for an unknown or damaged one."""
        self._edit(lambda contents: accounts_format.changed(contents, name, news))

    def remove(self, name: str) -> None:
        """Remove the account, and every damaged line of that name. Raises UsageError for an unknown one."""
        self._edit(lambda contents: accounts_format.removed(contents, name))

    def _edit(self, edit: Edit) -> None:
        """Replace the account lines by what `edit` makes of those in the file now."""
        with writing(self.path):
            before = self._reading.contents
            contents = self._read(before.checked)
            if not equal(before.secret, contents.secret):
                # The caller's registration was made with a salt that this file does not give.
                raise UsageError(f"the accounts file {self.path} was replaced meanwhile", "Run the command again")
            if not contents.ends_whole:
                raise UsageError(
                    f"the accounts file {self.path} ends in the middle of a line", "Repair its last line, or remove it"
                )
            _write(self.path, accounts_format.join(contents.profile, contents.secret, edit(contents)), os.replace)
        self._refresh()

    # --- keeping up with it ---

    def _refresh(self) -> _Reading:
        """The file as it is now: read again, unless it is known not to have changed."""
        with self._lock:
            before, now, stamp = self._reading, self._clock_ns(), _stamp(self.path)
            if not must_read(self._last_read, stamp, now):
                return before
            try:
                after = _Reading(self._read(before.contents.checked))
            except UsageError as error:
                after = _Reading(before.contents, trouble=str(error))
                if isinstance(error, _Unreadable):
                    stamp = None
            self._reading, self._last_read = after, read_at(stamp, now, self._clock_ns() - now)
        if after != before:
            self._report_all(after)
        return after

    def _read(self, checked_before: accounts_format.Checked) -> Contents:
        """The file as it is now. Raises UsageError when it, or its first line, can't be used."""
        try:
            return parse(_load(self.path), checked_before)
        except IntegrityError as error:
            raise UsageError(
                f"the accounts file {self.path} can't be used: {error.cause}",
                "Restore it from a backup; a new file has a new secret, and every account must be added again",
            ) from None

    def _report_all(self, reading: _Reading) -> None:
        if reading.trouble:
            self._report(f"nobody can log in: {reading.trouble}")
            return
        for damage in reading.contents.damaged:
            self._report(f"an account can't log in: {self.path}, {damage}")
