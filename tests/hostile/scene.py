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
from collections.abc import Container, Iterator, Mapping
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

_PARTIAL = re.compile(r"received/\.partial/\w+/[0-9a-f]{64}\.")

_sources = count(1)
_checks = Counter[Path]()  # by server
_read_of_logs: dict[Path, tuple[int, int]] = {}  # up to which byte, and how many connections are under way there
HONEST = 8  # a server's first check has an honest client, then one in so many: each test logs in anyway


def new_source() -> str:
    """An address of this machine that nobody has used yet."""
    number = next(_sources)
    return f"127.{1 + os.getpid() % 200}.{number >> 8}.{number & 255}"


def tree(folder: Path, without: Container[str] = ()) -> Tree:
    """Everything below, links not followed: the content of files, the kind of all else. Paths may be of any length."""
    found: Tree = {}
    above = len(str(folder)) + 1
    for place, folders, files, descriptor in os.fwalk(folder):
        prefix = f"{place}/"[above:]
        for name in (*folders, *files):
            path = prefix + name
            if path in without:
                continue
            state = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(state.st_mode):
                found[path] = _read(name, state.st_size, descriptor)
            elif stat.S_ISLNK(state.st_mode):
                found[path] = f"link to {os.readlink(name, dir_fd=descriptor)}"
            else:
                found[path] = stat.filemode(state.st_mode)[0]
    return found


def _read(name: str, size: int, folder: int) -> bytes:
    """All that a file holds; `size` is what it had a moment ago."""
    file = os.open(name, os.O_RDONLY, dir_fd=folder)
    try:
        content = os.read(file, size + 1)
        while len(content) > size and (more := os.read(file, 1 << 20)):
            content += more
        return content
    finally:
        os.close(file)


def _under_way(log: str) -> int:
    """How many connections have logged in there and are not done."""
    return log.count(": logged in") - log.count(": done, ")


def _all_are_done(server: Server) -> bool:
    """Whether no connection is under way. What was read of the log once is not read again."""
    read, under_way = _read_of_logs.get(server.log, (0, 0))
    if server.told_so_far() < read:  # another file has taken its place
        read, under_way = 0, 0
    whole, newline, _ = server.told(read).rpartition("\n")
    under_way += _under_way(whole)
    _read_of_logs[server.log] = read + len((whole + newline).encode()), under_way
    return under_way <= 0


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
            wait_until(lambda: _all_are_done(server), 2)
        self._told = server.told_so_far()
        self.remember()

    def remember(self) -> None:
        """What is on the disk now must stay."""
        self._before = self._now()

    def remember_all_but_partials(self) -> None:
        """The same, in the middle of a transfer whose hidden bytes must not stay."""
        self._before = {name: content for name, content in self._now().items() if not _PARTIAL.match(name)}

    def forget_journal(self, kept: Path) -> None:
        """What is noted about that kept part may change."""
        self._passing.add(str(kept.with_suffix(".journal").relative_to(self.server.folder)))
        self.remember()

    def unchanged(self) -> bool:
        """Whether the disk is as it was."""
        return self._now() == self._before

    def _now(self) -> Tree:
        return tree(self.server.folder, self._passing)

    def line(self, source: str | None = None) -> Line:
        return Line(self.server.port, source or new_source())

    @contextlib.contextmanager
    def session(self, user: str = USER) -> Iterator[Session]:
        """A login that went well."""
        with self.line() as line:
            yield log_in(line, user, PASSWORD)

    def told(self) -> str:
        """What the log has said since the test began."""
        return self.server.told(self._told)

    def quiet(self) -> None:
        """Wait until every connection of the test is done with."""
        wait_until(lambda: _under_way(self.told()) <= 0, 10)

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
