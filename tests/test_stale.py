"""A file system that is shared says ESTALE when another machine has removed or replaced what a call is about.

Any call may, `close` too. Whichever it is, the file is delivered, or refused as one that is worth another try, and
nothing is left open.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sft.common.errors import Code, Refused
from sft.disk.amounts import Quota
from sft.disk.folders import ExistingFile
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled, TemporaryFile, Whole
from sft.disk.user_folder import Rules, UserFolder

LARGE = os.urandom(200_000)
SMALL = os.urandom(1000)
CALLS = (
    *("open", "close", "stat", "fstat", "access", "mkdir", "link", "unlink", "replace", "utime", "fchmod"),
    *("pread", "pwrite", "write", "ftruncate", "fsync"),
)
TRIED_AGAIN = {Code.UNAVAILABLE, Code.BUSY}


class Stale:
    """From now on the call `name` fails at its turn `at`, once; `close` has closed the file all the same."""

    def __init__(self, patched: pytest.MonkeyPatch, name: str, at: int) -> None:
        self._real: Callable[..., Any] = getattr(os, name)
        self._left, self._closes = at, name == "close"
        self.has_failed = False
        patched.setattr(os, name, self)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self._left -= 1
        if self._left >= 0:
            return self._real(*arguments, **options)
        fails, self.has_failed = not self.has_failed, True
        if fails and self._closes:
            self._real(*arguments, **options)
        if fails:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return self._real(*arguments, **options)


def large(folder: UserFolder) -> None:
    """A file that can be resumed, as the receiver takes it."""
    begun = folder.begin(Incoming(b"t" * 16, ("in", "a"), len(LARGE), 5, 0o644, "replace"), resumable=True)
    if isinstance(begun, ExistingFile):
        assert begun.digest() == hashlib.sha256(LARGE).digest()
        return
    assert isinstance(begun, TemporaryFile)
    try:
        begun.resume_from(0)
        begun.write(memoryview(LARGE))
        begun.sha256 = hashlib.sha256(LARGE).digest()
    except Refused:
        begun.discard()
        raise
    publish(folder, begun)


def small(folder: UserFolder) -> None:
    """Two files that come together."""
    sha256 = hashlib.sha256(SMALL).digest()
    files = [
        Whole(Incoming(b"t" * 16, ("in", name), len(SMALL), 5, 0o644, "replace"), memoryview(SMALL), sha256)
        for name in ("a", "b")
    ]
    publish(folder, *folder.take(files))


def publish(folder: UserFolder, *files: Any) -> None:
    stored = [each for each in files if not isinstance(each, Refused)]
    outcomes = [*folder.publish(stored), *(each for each in files if isinstance(each, Refused))]
    for outcome in outcomes:
        if isinstance(outcome, Refused):
            raise outcome
        assert isinstance(outcome, Settled)


@contextmanager
def connection(storage: Storage, quota: Quota) -> Iterator[UserFolder]:
    with closing(storage.user("alice", quota=quota)) as folder:
        yield folder


@pytest.mark.parametrize("named", [True, pytest.param(False, marks=pytest.mark.long)], ids=["names", "O_TMPFILE"])
@pytest.mark.parametrize("work", [large, small])
@pytest.mark.parametrize("call", CALLS)
def test_stale_handle_in_any_call_is_worth_another_try_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, work: Callable[[UserFolder], None], named: bool
) -> None:
    quota = Quota(10_000_000, 100)
    before, at, goes_on = len(os.listdir("/dev/fd")), 0, True
    while goes_on:
        root = tmp_path / str(at)
        with closing(Storage(root, Rules())) as storage:
            with monkeypatch.context() as patched:
                stale = Stale(patched, call, at)
                try:
                    with connection(storage, quota) as folder:
                        if named:
                            folder.area._has_anonymous = False
                        work(folder)
                except Refused as problem:
                    assert problem.code in TRIED_AGAIN, (at, problem.code, problem.why)
                except OSError as problem:  # of the connection's end: nothing is refused any more
                    assert problem.errno == errno.ESTALE
                goes_on = stale.has_failed
            with connection(storage, quota) as folder:
                work(folder)
            assert (root / "alice/in/a").read_bytes() in (LARGE, SMALL)
            storage.sweep()
            used = storage.ledgers.recount("alice")
            assert storage.ledgers.used("alice") == used, at
        assert len(os.listdir("/dev/fd")) == before, at
        at += 1
