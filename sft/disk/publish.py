"""Publishing: verified files become visible, a group at a time.

    start      set mode and time of each file, and flush the bytes of all, in a background thread
    finish     wait for the flush, give each file its name, flush the folders; then each file may have its receipt

Rules: in that order, always. A name is given by `link`, which never replaces, or by `rename` when the sender asked for
`replace`; what a taken name means is decided in `sft/disk/decisions.py`. A file that fails is discarded at once, or
kept for another attempt when the trouble may pass, and the others go on. A group never takes the last descriptors of
the process: it ends with the file that gets one of them. The flush uses the files' descriptors, so no file of a group
is closed before `finish` or `Batch.settle` has returned.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from sft.common.background import BackgroundTask
from sft.common.errors import Code, NoThread, Refused, UsageError
from sft.common.names import numbered
from sft.common.open_files import few_left_from
from sft.disk.decisions import NEEDS_NO_SPACE, Action, Existing, Policy, decide
from sft.disk.durable import FileSystem, disk_errors, flush_all, refusal, refusal_of
from sft.disk.folders import ExistingFile, FolderFlush, PathParts, state_of
from sft.disk.new_folders import NewFolders
from sft.disk.parents import Parent
from sft.disk.permissions import file_bits
from sft.disk.quota import Allowance
from sft.disk.receipts import Delivery, Receipts
from sft.disk.temporary import Outcome, Settled, TemporaryFile
from sft.disk.visible_files import READ_FLAGS, VisibleFiles

_MOST_NUMBERS = 10_000
_MOST_PARENTS, _MOST_FOLDERS = 4, 16  # open at once; files of one folder mostly come together

_Opened = TypeVar("_Opened")


class _FewOpen(Generic[_Opened]):
    """Opens folders by path, and keeps a few of them open until `close`."""

    def __init__(self, most: int, open: Callable[[PathParts], _Opened], close: Callable[[_Opened], None]) -> None:
        self._most, self._open, self._close_one = most, open, close
        self._opened: dict[PathParts, _Opened] = {}

    def get(self, path: PathParts) -> _Opened:
        """The folder `path`, opened when it is not open. Raises what opening raises."""
        if path not in self._opened:
            if len(self._opened) >= self._most:
                self.close()
            self._opened[path] = self._open(path)
        return self._opened[path]

    def close(self) -> None:
        """Close all; what is needed again is opened again."""
        opened, self._opened = self._opened, {}
        for each in opened.values():
            self._close_one(each)


class Batch:
    """The first `count` files of a group, at least one, while their bytes are flushed. Made by `Publisher.start`."""

    def __init__(self, files: Sequence[TemporaryFile], problems: list[Refused | None], file_system: FileSystem) -> None:
        """`problems`: for each file what it failed with, if it has; it is discarded then."""
        self.files, self.count, self.problems = files, len(files), problems
        self._good = [at for at, problem in enumerate(problems) if problem is None]
        self._file_system = file_system
        self._flushing: BackgroundTask | None = None
        self.is_flushed = False

    def flush_in_background(self) -> None:
        """Begin to flush in a thread; when no thread can be started, `flush` does it."""
        with contextlib.suppress(NoThread):
            self._flushing = BackgroundTask("flushing", self._flush)

    def _flush(self) -> None:
        try:
            errors = flush_all([self.files[at].descriptor for at in self._good], self._file_system)
            for at, error in zip(self._good, errors, strict=True):
                self.problems[at] = None if error is None else refusal(error)
        finally:
            self.is_flushed = True

    def flush(self) -> None:
        """Return when the bytes are on the disk. A file that could not be flushed has its problem, and is ended."""
        if self._flushing is None:
            self._flush()
        else:
            self._flushing.wait()
        for at in self._good:
            problem = self.problems[at]
            if problem is not None:
                _end(self.files[at], problem)

    def settle(self) -> None:
        """Return when no flush is under way any more, whatever became of it."""
        if self._flushing is not None:
            with contextlib.suppress(Exception):
                self._flushing.wait()


class Publisher:
    """Publishes below one user's folder, for one connection."""

    def __init__(
        self,
        visible: VisibleFiles,
        staging: int,
        folders: NewFolders,
        flush: FolderFlush,
        allowance: Allowance,
        receipts: Receipts | None,
        is_private: bool,
        file_mode: int | None,
        umask: int,
    ) -> None:
        """`staging`: the open staging area. `file_mode`: for new files, instead of what the system gives by `umask`."""
        self._visible, self._staging, self._folders, self._flush = visible, staging, folders, flush
        self._allowance, self._receipts, self._is_private = allowance, receipts, is_private
        self._file_mode, self.umask = file_mode, umask

    def start(self, group: Sequence[TemporaryFile], in_background: bool = True) -> Batch:
        """Begin with the first files of a group. Each one's `sha256` must be set."""
        parents = _FewOpen(_MOST_PARENTS, self._open_parent, Parent.close)
        few_left = few_left_from()
        problems: list[Refused | None] = []
        try:
            for file in group:
                try:
                    parent = parents.get(file.incoming.path[:-1])
                    descriptor = file.finish(file_bits(file.incoming.mode, self._file_mode), parent)
                except Refused as problem:
                    _end(file, problem)
                    problems.append(problem)
                    continue
                problems.append(None)
                if descriptor >= few_left:
                    break
        finally:
            parents.close()
        batch = Batch(group[: len(problems)], problems, self._flush.file_system)
        if in_background:
            batch.flush_in_background()
        return batch

    def publish(self, group: Sequence[TemporaryFile]) -> list[Outcome]:
        """Publish a whole group before this returns; for each file what became of it."""
        outcomes: list[Outcome] = []
        while len(outcomes) < len(group):
            outcomes += self.finish(self.start(group[len(outcomes) :], in_background=False))
        return outcomes

    def _open_parent(self, path: PathParts) -> Parent:
        with disk_errors():
            descriptor = self._visible.nearest(path)
            try:
                return Parent(descriptor, self._staging, self.umask if self._file_mode is None else None)
            except BaseException:
                os.close(descriptor)
                raise

    def finish(self, batch: Batch) -> list[Outcome]:
        """Make visible what could be flushed; for each file of the batch what became of it.

        Every file is discarded then. Only after an unexpected error (a bug, no memory) some may be left.
        """
        batch.flush()
        try:
            with disk_errors(), self._allowance.moving():
                return self._publish(batch)
        except Refused as problem:  # the ledger can't be used
            with contextlib.ExitStack() as ends:
                for file, earlier in zip(batch.files, batch.problems, strict=True):
                    if earlier is None:
                        ends.callback(_end, file, problem)
            return [earlier or problem for earlier in batch.problems]

    def _publish(self, batch: Batch) -> list[Outcome]:
        folders = _FewOpen(_MOST_FOLDERS, self._folders.open, os.close)
        try:
            outcomes = [
                problem or self._publish_one(file, folders)
                for file, problem in zip(batch.files, batch.problems, strict=True)
            ]
        finally:
            folders.close()
        not_flushed = self._flush.flush({each.path[:-1] for each in outcomes if isinstance(each, Settled)})
        if not_flushed:
            outcomes = [
                not_flushed.get(each.path[:-1], each) if isinstance(each, Settled) else each for each in outcomes
            ]
        if self._receipts is not None:
            self._receipts.remember(
                [
                    Delivery(file.incoming.transfer, file.incoming.path, each.path, each.size, each.sha256 or b"")
                    for file, each in zip(batch.files, outcomes, strict=True)
                    if isinstance(each, Settled) and file.incoming.policy == Policy.RENAME
                ]
            )
        return outcomes

    def _publish_one(self, file: TemporaryFile, folders: _FewOpen[int]) -> Outcome:
        try:
            with file.publishing():
                settled = self._settle(file, folders)
                file.discard()  # its hidden name, before another connection can take it up
                return settled
        except (Refused, OSError, UsageError) as problem:
            refused = problem if isinstance(problem, Refused) else refusal_of(problem)
            _end(file, refused)
            return refused

    def _settle(self, file: TemporaryFile, folders: _FewOpen[int]) -> Settled:
        if file.refusal is not None:
            return self._settle_without_space(file, file.refusal)
        give_name = self._replace if file.incoming.policy == Policy.REPLACE else self._link
        settled = give_name(file, folders.get(file.incoming.path[:-1]))
        if not settled.skipped and not settled.already:
            file.reservation.published(file.size)
        return settled

    def _settle_without_space(self, file: TemporaryFile, refusal: Refused) -> Settled:
        """Raises `refusal` unless the file is one that is not stored."""
        path = file.incoming.path
        with contextlib.suppress(Refused), self._visible.folder(path[:-1]) as folder:
            action = self._decide(file, path[-1], folder, state_of(path[-1], folder))
            if action in NEEDS_NO_SPACE:
                return _settled(file, path, action)
        raise refusal

    def _replace(self, file: TemporaryFile, folder: int) -> Settled:
        path = file.incoming.path
        action = self._decide(file, path[-1], folder, state_of(path[-1], folder))
        if action in NEEDS_NO_SPACE:
            return _settled(file, path, action)
        try:
            with self._allowance.replacing(path[-1], folder):
                file.rename(path[-1], folder)
        except IsADirectoryError:  # put there since we looked
            raise Refused(Code.IS_FOLDER) from None
        return _settled(file, path)

    def _link(self, file: TemporaryFile, folder: int) -> Settled:
        """Try the name first: the system reports whether it is taken, in the same step."""
        path, number = file.incoming.path, 0
        for _ in range(_MOST_NUMBERS):
            name = path[-1] if number == 0 else numbered(path[-1], number)
            try:
                file.link(name, folder)
            except FileExistsError:
                there = state_of(name, folder)
            else:
                return _settled(file, path if number == 0 else (*path[:-1], name))
            if there is None:  # it is free again
                continue
            if file.is_same_file(there):
                return _settled(file, (*path[:-1], name))
            if number == 0:
                before = self._delivered_before(file)
                if before is not None:
                    return before
                action = self._decide(file, name, folder, there)
                if action in NEEDS_NO_SPACE:
                    return _settled(file, path, action)
            number += 1
        raise Refused(Code.EXISTS)

    def _decide(self, file: TemporaryFile, name: str, folder: int, there: os.stat_result | None) -> Action:
        """What to do with a file whose name has `there`; its bytes are compared if need be. Raises Refused."""
        existing = existing_of(there, file.size)
        if existing is Existing.SAME_SIZE and file.is_different:
            existing = Existing.OTHER
        action = decide(file.incoming.policy, existing, self._is_private)
        if action is Action.COMPARE:
            existing = Existing.SAME if _has_same_bytes(file, name, folder) else Existing.OTHER
            action = decide(file.incoming.policy, existing, self._is_private)
        if isinstance(action, Code):
            raise Refused(action)
        return action

    def _delivered_before(self, file: TemporaryFile) -> Settled | None:
        """What another connection of this transfer has published under the next free name, while this one was open."""
        if self._receipts is None or file.incoming.policy != Policy.RENAME:
            return None
        found = self._receipts.find(file.incoming.transfer, file.incoming.path)
        if found is None or found.size != file.size or found.sha256 != file.sha256:
            return None
        return Settled(found.path, already=True, size=found.size, sha256=found.sha256)


def _end(file: TemporaryFile, problem: Refused) -> None:
    """A file that is not published: the sender comes again with it when the trouble is the disk's and may pass."""
    file.keep() if problem.code is Code.UNAVAILABLE else file.discard()


def existing_of(there: os.stat_result | None, size: int | None) -> Existing:
    """What `there` is to a file of that size."""
    if there is None:
        return Existing.NOTHING
    if stat.S_ISDIR(there.st_mode):
        return Existing.FOLDER
    return Existing.SAME_SIZE if stat.S_ISREG(there.st_mode) and there.st_size == size else Existing.OTHER


def _has_same_bytes(file: TemporaryFile, name: str, folder: int) -> bool:
    with contextlib.suppress(OSError, Refused):
        there = ExistingFile(os.open(name, READ_FLAGS, dir_fd=folder), file.size)
        return there.digest() == file.sha256
    return False


def _settled(file: TemporaryFile, path: PathParts, action: Action = Action.STORE) -> Settled:
    if action is Action.SKIP:
        return Settled(path, skipped=True)
    return Settled(path, already=action is Action.ALREADY, size=file.size, sha256=file.sha256)
