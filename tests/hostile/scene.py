"""What every fault has in common: a server that runs, its whole disk before and after, and an honest client behind it.

Rules: each test says which files its fault may leave; everything else of the server's folder, the hidden area and the
world outside included, must be as before. Each fault comes from an address of its own, so that the charges of one login
are not another's.
"""

import contextlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from processes import PASSWORD, USER, Server, check_no_traceback, wait_until
from speaker import Heard, Line, Session, log_in

OTHER = "bob"
OUTSIDE = "outside"  # beside the storage folder; nobody may ever get there
SECRET = "nobody may read or change this"

Tree = dict[str, str | bytes]

_PARTIAL = re.compile(r"received/\.partial/\w+/[0-9a-f]{64}")

_sources = count(1)
_checks = Counter[Path]()  # by server
HONEST = 8  # a server's first check has an honest client, then one in so many: each test logs in anyway


def new_source() -> str:
    """An address of this machine that nobody has used yet."""
    number = next(_sources)
    return f"127.{1 + os.getpid() % 200}.{number >> 8}.{number & 255}"


def tree(folder: Path) -> Tree:
    """Everything below, links not followed: the content of files, the kind of all else. Paths may be of any length."""
    found: Tree = {}
    for place, folders, files, descriptor in os.fwalk(folder):
        for name in (*folders, *files):
            state = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            path = os.path.relpath(os.path.join(place, name), folder)
            if stat.S_ISREG(state.st_mode):
                with open(os.open(name, os.O_RDONLY, dir_fd=descriptor), "rb") as file:
                    found[path] = file.read()
            elif stat.S_ISLNK(state.st_mode):
                found[path] = f"link to {os.readlink(name, dir_fd=descriptor)}"
            else:
                found[path] = stat.filemode(state.st_mode)[0]
    return found


class Stage:
    """A server, and what its disk was like when the test began."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.home = server.path()
        self._passing = {"server.log", "server.stderr"}
        self._passing |= {f"received/.partial/{user}/receipts" for user in (USER, OTHER)}
        accounts = {line.partition(" ")[0] for line in server.accounts.read_text().splitlines()}
        for user in accounts & {USER, OTHER}:
            if not server.path(user=user).exists():  # the first login makes the user's folders
                with self.session(user) as session:
                    session.farewell()
        with contextlib.suppress(AssertionError):  # what an earlier connection leaves is cleared away at its end
            wait_until(lambda: server.told().count(": logged in") <= server.told().count(": done, "), 2)
        self._told = len(server.told())
        self.remember()

    def remember(self) -> None:
        """What is on the disk now must stay."""
        self._before = self._now()

    def remember_all_but_partials(self) -> None:
        """The same, in the middle of a transfer whose hidden bytes must not stay."""
        self._before = {name: content for name, content in self._now().items() if not _PARTIAL.match(name)}

    def forget_journal(self, kept: Path) -> None:
        """What is noted about that kept part may change."""
        self._passing.add(str(kept.relative_to(self.server.folder)) + ".journal")
        self.remember()

    def unchanged(self) -> bool:
        """Whether the disk is as it was."""
        return self._now() == self._before

    def _now(self) -> Tree:
        return {name: content for name, content in tree(self.server.folder).items() if name not in self._passing}

    def line(self, source: str | None = None) -> Line:
        return Line(self.server.port, source or new_source())

    @contextlib.contextmanager
    def session(self, user: str = USER) -> Iterator[Session]:
        """A login that went well."""
        with self.line() as line:
            yield log_in(line, user, PASSWORD)

    def told(self) -> str:
        """What the log has said since the test began."""
        return self.server.told()[self._told :]

    def quiet(self) -> None:
        """Wait until every connection of the test is done with."""
        wait_until(lambda: self.told().count(": logged in") <= self.told().count(": done, "), 10)

    def check(self, **landed: bytes) -> None:
        """Nothing changed but that these files of `USER` are there; the server met no bug, and serves an honest client.

        What a fault has led to may take a moment to be cleared away. The honest client comes at a server's first check
        and at each eighth that follows, and once more when the tests that share a server have ended.
        """
        self.check_tree({f"received/{USER}/{name}": content for name, content in landed.items()})

    def check_tree(self, more: Tree) -> None:
        """The same; `more` are paths below the server's folder."""
        self.quiet()
        expected = {**self._before, **more}
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self._now() == expected, 5)
        assert self._now() == expected
        if _checks[self.server.folder] % HONEST == 0:
            self.check_honest()
        _checks[self.server.folder] += 1
        assert "a bug" not in self.told(), self.told()
        check_no_traceback(self.told())
        assert self.server.errors() == ""

    def check_honest(self) -> None:
        """An honest client is served."""
        with self.session() as honest:
            honest.send(1, ["honest"], b"honest")
            honest.farewell()
        (self.home / "honest").unlink()


def ending(session: Session) -> tuple[list[str], str]:
    """What the server says until it closes: the kinds of its messages, ERROR and REFUSE with their codes."""
    heard = session.hear_all()
    return [said(each) for each in heard], session.ended


def said(heard: Heard) -> str:
    return f"{heard.kind} {heard.fields['code']}" if "code" in heard.fields else heard.kind


def some(table: Mapping[str, object], *short: str) -> list[ParameterSet]:
    """The names of a table for `parametrize`: each costs a process, so only `short` ones are not long tests."""
    assert set(short) <= set(table)
    return [pytest.param(name, marks=() if name in short else pytest.mark.long) for name in table]
