"""What lands: folders below one root, and the one atomic step that makes a file visible.

    received/                 the root
        .partial/alice/…      bytes on their way (`sft/disk/partials.py`)
        alice/inbox/out.txt   what alice sent

Rules: a peer's path is judged (`sft/common/names.py`), then walked from the user's folder one component at a time, from
descriptor to descriptor, never through a link. A file becomes visible whole, after verification and after its bytes
are on the disk: by `link`, which never replaces, or by `rename` when the sender asked for that. What fails leaves no
visible file. A file that is there already, byte for byte, is not written again. This room knows no socket, no key and
no account: only the folder's name.
"""

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sft.common.errors import Code, Refused, UsageError
from sft.common.names import judge_path, numbered
from sft.disk.announced import Announced
from sft.disk.commit import Commit, Outcome, Problems
from sft.disk.durable import FileSystem, disk_errors, refusal_of, set_time
from sft.disk.folders import Twin, flush_below, open_folder, state_of
from sft.disk.ledger import NO_QUOTA, Ledger, Quota, forget
from sft.disk.parents import Parents
from sft.disk.partials import HAS_LOCKS, Incoming, Partial, PartialArea, PathParts, Published
from sft.disk.permissions import file_bits, folder_bits
from sft.disk.quota import NOT_PARTIAL, Allowance, Ledgers
from sft.disk.readings import Readings
from sft.disk.receipts import Known, Receipts
from sft.disk.root import Root
from sft.disk.small import Held, Small
from sft.disk.visible import READ_FLAGS, Visible

_MOST_NUMBERS = 10_000
_MOST_FOLDERS = 16  # open at once while a group is published; files of one folder mostly come together
_MANY_FOLDERS = 16  # to flush; from here on the whole file system is flushed at once, if that tells its errors
_MOST_KNOWN = 8  # users whose receipts were read; 4 MB each at most
_NOTHING = contextlib.nullcontext()


@dataclass(frozen=True, slots=True)
class Rules:
    """What a root allows. `private`: its sender may learn nothing of what lies there.

    `free_space` are bytes that stay free on the disk, `stale` the seconds that nobody came back for a partial file.
    """

    portable_names: bool = False
    file_mode: int | None = None
    max_file_size: int = (1 << 63) - 1
    private: bool = False
    free_space: int = 0
    stale: float = 7 * 24 * 3600
    quota: Quota = NO_QUOTA


class Storage:
    """The root folder. One for the process; every method may be called from several threads."""

    def __init__(self, root: Path, rules: Rules) -> None:
        """Make the folder when it is missing. Raises UsageError when it can't be used."""
        self.rules, self.umask = rules, umask_of_process()
        self._known: dict[str, Known] = {}
        self._readings: dict[str, Readings] = {}
        self._lock = threading.Lock()
        self._reopening = threading.Lock()
        self._root = Root(root)
        self.ledgers = Ledgers(self._root.descriptor, self._root.partials)

    def sweep(self) -> int:
        """Remove the partial files that nobody holds and nobody may come back for; how many there were.

        Raises OSError when some could not be looked at, after all the others were.
        """
        removed, problem = 0, None
        try:
            self.ledgers.sweep()
        except OSError as found:
            problem = found
        for user in os.listdir(self._root.partials):
            with contextlib.ExitStack() as opened:
                try:
                    folder = open_folder(self._root.partials, user)
                    opened.callback(os.close, folder)
                    removed += PartialArea(folder).sweep(self.rules.stale, NOT_PARTIAL)
                except (Refused, PermissionError):  # of another owner, or no folder: nothing of ours
                    continue
                except OSError as found:
                    problem = found
        if problem is not None:
            raise problem
        return removed

    def user(
        self, name: str, private: bool = False, quota: Quota = NO_QUOTA, largest: int | None = None
    ) -> "UserFolder":
        """The folder of one user, made when missing; close it afterwards. Raises Refused.

        `largest`: of a file of this user, in bytes, if that is less than what holds for everybody.
        """
        ledgers = self.ledgers
        try:
            return self._user(name, private, quota, largest)
        except Refused:
            if not self._is_reopened(ledgers):
                raise
        return self._user(name, private, quota, largest)

    def _is_reopened(self, ledgers: Ledgers) -> bool:
        """Whether the root was dead when `ledgers` were in use, and is open again. Raises Refused (UNAVAILABLE)."""
        with self._reopening:
            if self.ledgers is ledgers:  # else another thread was faster
                if not self._root.reopen_if_dead():
                    return False
                self.ledgers = Ledgers(self._root.descriptor, self._root.partials)
                ledgers.close()  # its open files lie below the dead root
            return True

    def _user(self, name: str, private: bool, quota: Quota, largest: int | None) -> "UserFolder":
        most = self.rules.max_file_size if largest is None else min(largest, self.rules.max_file_size)
        rules = replace(self.rules, private=private, max_file_size=most, quota=quota)
        with disk_errors(), contextlib.ExitStack() as opened:
            visible = open_folder(self._root.descriptor, name, create=folder_bits(None))
            opened.callback(os.close, visible)
            partials = open_folder(self._root.partials, name, create=0o700)
            opened.callback(os.close, partials)
            ledger = None
            if quota == NO_QUOTA:
                forget(partials)
            else:
                ledgers = self.ledgers
                ledger = ledgers.enter(name)
                opened.callback(ledgers.leave, name)
            known = self._known_of(name)
            folder = UserFolder(rules, self.umask, visible, partials, [self._root.descriptor], ledger, known)
            folder.opened, folder.readings = opened.pop_all(), self._readings.setdefault(name, Readings())
            return folder

    def _known_of(self, name: str) -> Known:
        """Where that user's receipts are, kept for the last few users: not each connection has to read them all."""
        with self._lock:
            known = self._known.pop(name) if name in self._known else Known()
            self._known[name] = known
            if len(self._known) > _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            return known

    def close(self) -> None:
        """Give back the descriptors."""
        self.ledgers.close()
        self._root.close()


def umask_of_process() -> int:
    """Of this process. Raises UsageError where nothing can be received."""
    if not HAS_LOCKS:
        raise UsageError("this system can't receive files safely", "Receive them on Linux or macOS")
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


class UserFolder(Visible):
    """All that one user can reach. For one connection; not for several threads at once."""

    def __init__(
        self,
        rules: Rules,
        umask: int,
        visible: int,
        partials: int,
        above: list[int],
        ledger: Ledger | None = None,
        known: Known | None = None,
    ) -> None:
        """`above`: descriptors of the folders over it, which are flushed with it but not closed; none for our own."""
        super().__init__(visible)
        self._rules, self._umask, self._above = rules, umask, above
        self.area = PartialArea(partials)
        self.area.nearest = self.nearest
        self._file_system = FileSystem(partials)
        self._held = Held()
        self._receipts = Receipts(partials, known)
        self._announced = Announced()
        self.readings = Readings()
        self.made: list[Path] = []  # for a folder of our own, the deepest first
        self.allowance = Allowance(visible, rules.free_space, rules.quota, ledger)
        self.stale = rules.stale
        self.opened = contextlib.ExitStack()  # what `close` gives back

    def close(self) -> None:
        """Give back the descriptors, and what was reserved for nothing."""
        self.allowance.close()
        self.opened.close()

    # --- taking files ---

    def begin(self, incoming: Incoming, resumable: bool) -> Partial | Published | Twin:
        """Judge an announced file. Raises Refused.

        A Published: it needs no content (skipped, or published by this very transfer before). A Twin: a file of that
        size is there, so compare digests, then call `begin_anyway` when they differ.
        """
        judge_path(incoming.path, self._rules.portable_names)
        if (incoming.size or 0) > self._rules.max_file_size:
            raise Refused(Code.TOO_LARGE)
        if self._rules.private:
            if incoming.policy == "replace":
                raise Refused(Code.DENIED)
            incoming = replace(incoming, policy="rename")
        if incoming.policy == "rename" and (published := self._published_before(incoming)) is not None:
            return published
        if self._rules.private:  # whatever is there: its sender may not learn of it
            return self._room(incoming, resumable)
        if not resumable and incoming.size is not None:
            return self._room(incoming, resumable)  # a small one is here before an answer would be: see `_link`
        there = self._state_of(incoming.path)
        if there is None:
            return self._room(incoming, resumable)
        if stat.S_ISDIR(there.st_mode):
            raise Refused(Code.IS_FOLDER)
        if incoming.policy == "skip":
            return Published(incoming.path, skipped=True)
        if stat.S_ISREG(there.st_mode) and there.st_size == incoming.size:
            with contextlib.suppress(Refused):  # of another owner, perhaps: then it is just a file in the way
                if failed := self._flush_folders({incoming.path[:-1]}):  # "already there" is a receipt like any other
                    raise failed[incoming.path[:-1]]
                return Twin(self.open_file(incoming.path), there.st_size)
        if incoming.policy == "fail":
            raise Refused(Code.EXISTS)
        return self._room(incoming, resumable)

    def begin_anyway(self, incoming: Incoming, resumable: bool) -> Partial:
        """The Twin is another file: go on by the sender's policy. Raises Refused."""
        if incoming.policy == "fail":
            raise Refused(Code.EXISTS)
        partial = self._room(incoming, resumable)
        partial.compared = True
        return partial

    def _room(self, incoming: Incoming, resumable: bool) -> Partial:
        if not resumable and incoming.size is not None and self.area.can_be_unnamed:
            small = Small(self.area, incoming, self._held)
            if self.allowance.is_limited:  # else it is here before it could be told that it has no room
                with disk_errors():
                    self._reserve_small(small)
            return small
        return self.allowance.try_twice(lambda: self._begin(incoming, resumable))

    def _reserve_small(self, small: Small) -> None:
        try:
            self.allowance.try_twice(lambda: self._reserve(small))
        except Refused as problem:
            if problem.code is not Code.QUOTA or not self._may_be_there(small.incoming):
                raise
            small.refusal = problem

    def _may_be_there(self, incoming: Incoming) -> bool:
        """Whether a small file may turn out, once it is here, to need no room."""
        there = None if self._rules.private else self._state_of(incoming.path)
        if there is None:
            return False
        return incoming.policy == "skip" or (stat.S_ISREG(there.st_mode) and there.st_size == incoming.size)

    def _begin(self, incoming: Incoming, resumable: bool) -> Partial:
        with disk_errors(), self.allowance.moving() if resumable else _NOTHING:
            partial = self.area.begin(incoming, resumable)
            partial.limit = self._rules.max_file_size
            self._reserve(partial)
        return partial

    def _reserve(self, partial: Partial) -> None:
        """Room for it, and for the folders that its path lacks; whatever goes wrong, it is given back.

        Raises Refused, OSError.
        """
        try:
            self.allowance.reserve(partial)
            self.allowance.reserve_folders(partial.incoming.path[:-1], self.depth_of)
        except BaseException:
            partial.keep()
            raise

    def commit(self, group: Sequence[Partial]) -> list[Outcome]:
        """Flush the group's bytes, make each file visible, flush the folders; for each what became of it.

        Each one's `sha256` must be set. Whatever becomes of it, it is discarded; only what nobody expects (a bug, no
        memory) leaves them to the caller.
        """
        outcomes: list[Outcome] = []
        while len(outcomes) < len(group):
            outcomes += self._commit_of(group[len(outcomes) :]).finish()
        return outcomes

    def begin_commit(self, group: Sequence[Partial]) -> Commit:
        """The same, but for the group's first files only, and the bytes are flushed beside what the caller does."""
        commit = self._commit_of(group)
        commit.flush_aside()
        return commit

    def _commit_of(self, group: Sequence[Partial]) -> Commit:
        fixed = self._rules.file_mode
        with Parents(self.nearest, self.area.folder, self._umask if fixed is None else None) as parents:

            def finish(partial: Partial) -> int:
                incoming = partial.incoming
                return partial.finish(file_bits(incoming.mode, fixed), parents.of(incoming.path[:-1]))

            return Commit(group, finish, self._file_system, self._publish_all)

    def _publish_all(self, group: Sequence[Partial], problems: Problems) -> list[Outcome]:
        try:
            with disk_errors(), self.allowance.moving():
                return self._publish_each(group, problems)
        except Refused as problem:  # the ledger can't be used
            with contextlib.ExitStack() as ends:
                for partial in group:
                    ends.callback(partial.discard)
            return [problem] * len(group)

    def _publish_each(self, group: Sequence[Partial], problems: Problems) -> list[Outcome]:
        outcomes: list[Outcome] = []
        with contextlib.ExitStack() as opened:
            folders: dict[PathParts, int] = {}

            def folder_of(path: PathParts) -> int:
                if path not in folders:
                    if len(folders) >= _MOST_FOLDERS:
                        opened.close()
                        folders.clear()
                    with self.allowance.making_folders(path, self.depth_of):
                        folders[path] = opened.enter_context(self._folder(path, self._announced.bits_of))
                return folders[path]

            for partial, problem in zip(group, problems, strict=True):
                outcomes.append(problem or self._publish(partial, folder_of))
        parents = {outcome.path[:-1] for outcome in outcomes if isinstance(outcome, Published)}
        failed = self._flush_folders(parents)
        if failed:
            outcomes = [
                failed.get(outcome.path[:-1], outcome) if isinstance(outcome, Published) else outcome
                for outcome in outcomes
            ]
        if self._above:  # not what we fetch: a server's transfer ids are new each time
            done = [
                (partial.incoming.transfer, partial.incoming.path, outcome.path, outcome.size, outcome.sha256 or b"")
                for partial, outcome in zip(group, outcomes, strict=True)
                if partial.incoming.policy == "rename" and isinstance(outcome, Published)
            ]
            self._receipts.remember(done)
        return outcomes

    def _published_before(self, incoming: Incoming) -> Published | None:
        """What this very transfer has published, if its receipt may have been lost. Only `rename` has to know."""
        if not self._above:  # a folder of our own
            return None
        found = self._receipts.find(incoming.transfer, incoming.path)
        if found is None or incoming.size not in (None, found[3]):
            return None
        return Published(found[2], size=found[3], sha256=found[4] or None)

    def _publish(self, partial: Partial, folder_of: Callable[[PathParts], int]) -> Outcome:
        try:
            if not partial.resumable:
                return self._publish_held(partial, folder_of)
            with partial.held():
                published = self._publish_held(partial, folder_of)
                partial.discard()  # its hidden name, before anybody can take it up
                return published
        except Refused as problem:
            return problem
        except (OSError, UsageError) as problem:
            return refusal_of(problem)
        finally:
            partial.discard()

    def _publish_held(self, partial: Partial, folder_of: Callable[[PathParts], int]) -> Published:
        incoming = partial.incoming
        if partial.refusal is not None:
            return self._find(partial, partial.refusal)
        publish = self._replace if incoming.policy == "replace" else self._link
        published = publish(partial, folder_of(incoming.path[:-1]))
        if partial.hold is not None and not published.skipped and not published.already:
            partial.hold.published(partial.size)
        return published

    def _find(self, partial: Partial, refusal: Refused) -> Published:
        """For what has no room: whether it needs none. Raises `refusal` when it does."""
        path = partial.incoming.path
        with self._folder(path[:-1]) as folder:
            if partial.incoming.policy == "skip" and state_of(path[-1], folder) is not None:
                return Published(path, skipped=True)
            if self._is_twin(partial, path[-1], folder):
                return Published(path, already=True, size=partial.size, sha256=partial.sha256)
        raise refusal

    def _replace(self, partial: Partial, folder: int) -> Published:
        path = partial.incoming.path
        if self._is_twin(partial, path[-1], folder):
            return Published(path, already=True, size=partial.size, sha256=partial.sha256)
        try:
            with self.allowance.replacing(path[-1], folder):
                partial.rename(path[-1], folder)
        except IsADirectoryError:
            raise Refused(Code.IS_FOLDER) from None
        return Published(path, size=partial.size, sha256=partial.sha256)

    def _is_twin(self, partial: Partial, name: str, folder: int) -> bool:
        """Whether a regular file of the same bytes has that name already."""
        if self._rules.private or partial.compared:
            return False
        with contextlib.suppress(OSError, Refused):
            state = state_of(name, folder)
            if state is not None and stat.S_ISREG(state.st_mode) and state.st_size == partial.size:
                return Twin(os.open(name, READ_FLAGS, dir_fd=folder), partial.size).digest() == partial.sha256
        return False

    def _link(self, partial: Partial, folder: int) -> Published:
        """Publish under the name, or with `rename` under the next free one."""
        path, policy = partial.incoming.path, partial.incoming.policy
        name = path[-1]
        for number in range(1, _MOST_NUMBERS):
            try:
                partial.link(name, folder)
                return Published(path if number == 1 else (*path[:-1], name), size=partial.size, sha256=partial.sha256)
            except FileExistsError:
                there = state_of(name, folder)
            if there is None:  # gone again
                continue
            if partial.is_same_file(there):
                return Published((*path[:-1], name), size=partial.size, sha256=partial.sha256)
            if stat.S_ISDIR(there.st_mode) and number == 1 and not self._rules.private:
                raise Refused(Code.IS_FOLDER)
            if policy == "skip":
                return Published(path, skipped=True)
            if number == 1 and policy == "rename":
                before = self._published_before(partial.incoming)  # by a connection that had not missed its client yet
                if before is not None and before.sha256 == partial.sha256:
                    return replace(before, already=True)
            if number == 1 and self._is_twin(partial, name, folder):
                return Published(path, already=True, size=partial.size, sha256=partial.sha256)
            if policy == "fail":
                break
            name = numbered(path[-1], number)
        raise Refused(Code.EXISTS)

    # --- taking folders ---

    def make_folder(self, path: PathParts, mtime: int | None, mode: int | None) -> None:
        """Make a folder, durable before this returns; its time is set by `finish_folders`. Raises Refused."""
        judge_path(path, self._rules.portable_names)
        self._set_times(self._announced.take_early(path))
        self._announced.add(path, mtime, mode)  # also if it can't be made now: a file in it may make it
        there = self._state_of(path)
        if there is not None and not stat.S_ISDIR(there.st_mode):
            raise Refused(Code.LINK if stat.S_ISLNK(there.st_mode) else Code.NOT_FOLDER)
        self.allowance.try_twice(lambda: self._make(path))
        if there is None and (failed := self._flush_folders({path[:-1]})):
            raise failed[path[:-1]]

    def _make(self, path: PathParts) -> None:
        with disk_errors(), self.allowance.moving():
            self.allowance.reserve_folders(path, self.depth_of)
            with self.allowance.making_folders(path, self.depth_of), self._folder(path, self._announced.bits_of):
                pass

    def finish_folders(self) -> list[PathParts]:
        """Set the folders' times: their content has changed them until now. Those whose time the disk can't hold."""
        return self._set_times(self._announced.take())

    def _set_times(self, times: list[tuple[PathParts, int]]) -> list[PathParts]:
        lost: list[PathParts] = []
        for path, mtime in times:
            with contextlib.suppress(OSError, Refused), self._folder(path) as folder:
                if not set_time(folder, mtime):
                    lost.append(path)
        return lost

    def _flush_folders(self, paths: set[PathParts]) -> dict[PathParts, Refused]:
        """Flush these folders and those above them, each once, up to the user's and the root; what failed, and how."""
        many = len(paths) + max(map(len, paths), default=0) >= _MANY_FOLDERS
        if many and self._file_system.flush():  # whatever is below, it is on this file system: see `link`
            return {}
        return flush_below(self.descriptor, paths, self._above)
