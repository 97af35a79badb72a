"""Publishing: verified files become visible, a group at a time.

    start      set mode and time of each file, and flush the bytes of all, in a background thread
    finish     wait for the flush, give each file its name, flush the folders; then each file may have its receipt

Rules: in that order, always. A name is given by `link`, which never replaces, or by `rename` when the sender asked for
`replace` and may; what a taken name means is decided in `sft/disk/decisions.py`. A file that fails is discarded at
once, or kept for another attempt when the trouble may pass, and the others go on. A group never takes the last
descriptors of the process: it ends with the file that gets one of them. The flush uses the files' descriptors, so no
file of a group is closed before `finish` or `GroupFlush.settle` has returned.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from sft.common.background import BackgroundTask
from sft.common.errors import Code, NoThread, Refused, UsageError
from sft.common.names import numbered
from sft.common.open_files import close, few_left_from
from sft.disk.decisions import NEEDS_NO_SPACE, Action, Existing, Policy, decide
from sft.disk.durable import FileSystem, disk_errors, flush_all, refusal, refusal_of
from sft.disk.folders import ExistingFile, FolderFlush, PathParts, existing_of, state_of
from sft.disk.links import Link
from sft.disk.new_folders import MadeFolder, NewFolders
from sft.disk.parents import Parent
from sft.disk.permissions import file_bits
from sft.disk.quota import Allowance
from sft.disk.receipts import Delivery, Receipts
from sft.disk.temporary import Incoming, Outcome, Settled, Unpublished, end_file
from sft.disk.visible_files import READ_FLAGS, VisibleFiles

_MOST_NUMBERS = 10_000
_MOST_PARENTS, _MOST_FOLDERS = 4, 16  # open at once; files of one folder mostly come together

Announced = tuple[Incoming, int | None, bytes | None]  # with size and digest, as far as they are known

_Opened = TypeVar("_Opened")


class FewOpen(Generic[_Opened]):
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


class GroupFlush:
    """The first `count` files of a group, at least one, while their bytes are flushed. Made by `Publisher.start`."""

    def __init__(self, files: Sequence[Unpublished], ends: list[Outcome | None], file_system: FileSystem) -> None:
        """`ends`: for each file what became of it, if that is known already; it is discarded then."""
        self.files, self.count, self.ends = files, len(files), ends
        self._good = [at for at, end in enumerate(ends) if end is None and files[at].descriptor >= 0]
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
                self.ends[at] = None if error is None else refusal(error)
        finally:
            self.is_flushed = True

    def flush(self) -> None:
        """Return when the bytes are on the disk. A file that could not be flushed has its problem, and is ended."""
        if self._flushing is None:
            self._flush()
        else:
            self._flushing.wait()
        for at in self._good:
            problem = self.ends[at]
            if isinstance(problem, Refused):
                end_file(self.files[at], problem.code)

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

    def start(self, group: Sequence[Unpublished], in_background: bool = True) -> GroupFlush:
        """Begin with the first files of a group. Each one's `sha256` must be set."""
        few_left = few_left_from()
        # What was finished when it came was looked for then.
        before = self.delivered_before([_announced(file) for file in group if not file.is_finished])
        ends: list[Outcome | None] = []
        with self.parents() as parents:
            for file in group:
                if file.is_finished:
                    end, descriptor = None, file.descriptor
                else:
                    end, descriptor = self._finish(file, parents, before.pop(0))
                ends.append(end)
                if descriptor >= few_left:
                    break
        flushing = GroupFlush(group[: len(ends)], ends, self._flush.file_system)
        if in_background:
            flushing.flush_in_background()
        return flushing

    @contextlib.contextmanager
    def parents(self) -> Iterator["FewOpen[Parent]"]:
        """The folders that files are made for, a few of them open as long as this lasts."""
        parents = FewOpen(_MOST_PARENTS, self._open_parent, Parent.close)
        try:
            yield parents
        finally:
            parents.close()

    def _finish(
        self, file: Unpublished, parents: "FewOpen[Parent]", before: Settled | None
    ) -> tuple[Outcome | None, int]:
        """What became of it, if it ends here, and its descriptor; `before`: what this transfer has delivered of it."""
        if before is not None:
            file.discard()
            return before, -1
        try:
            return None, file.finish(self.bits_of(file.incoming), parents.get(file.incoming.path[:-1]))
        except Refused as problem:
            end_file(file, problem.code)
            return problem, -1

    def bits_of(self, incoming: Incoming) -> int:
        """The mode to make a file with."""
        return file_bits(incoming.mode, self._file_mode)

    def publish(self, group: Sequence[Unpublished]) -> list[Outcome]:
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
                close(descriptor)
                raise

    def finish(self, group: GroupFlush) -> list[Outcome]:
        """Make visible what could be flushed; for each file of the group what became of it.

        Every file is discarded then. Only after an unexpected error (a bug, no memory) some may be left.
        """
        group.flush()
        try:
            with disk_errors(), self._allowance.moving():
                return self._publish(group)
        except Refused as problem:  # the ledger can't be used
            with contextlib.ExitStack() as ends:
                for file, earlier in zip(group.files, group.ends, strict=True):
                    if earlier is None:
                        ends.callback(end_file, file, problem.code)
            return [earlier or problem for earlier in group.ends]

    def _publish(self, group: GroupFlush) -> list[Outcome]:
        folders = FewOpen(_MOST_FOLDERS, self._folders.open, close)
        try:
            outcomes = [
                end or self._publish_one(file, folders) for file, end in zip(group.files, group.ends, strict=True)
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
                    for file, each in zip(group.files, outcomes, strict=True)
                    if isinstance(each, Settled) and file.sha256 is not None and self._is_remembered(file.incoming)
                ]
            )
        return outcomes

    def _publish_one(self, file: Unpublished, folders: FewOpen[int]) -> Outcome:
        try:
            with file.publishing():
                settled = self._settle(file, folders)
                if not settled.skipped and not settled.already:
                    file.reservation.published(file.size)
                file.discard()  # its hidden name, before another connection can take it up
                return settled
        except (Refused, OSError, UsageError) as problem:
            refused = problem if isinstance(problem, Refused) else refusal_of(problem)
            end_file(file, refused.code)
            return refused

    def _settle(self, file: Unpublished, folders: FewOpen[int]) -> Settled:
        if file.refusal is not None:
            return self._settle_without_space(file, file.refusal)
        path = file.incoming.path
        if isinstance(file, MadeFolder):
            return Settled(path)
        replaces = file.incoming.policy == Policy.REPLACE and file.incoming.may_replace and not self._is_private
        give_name = self._replace if replaces else self._link
        try:
            return give_name(file, path, folders.get(path[:-1]))
        except FileNotFoundError:  # another connection has removed the folder: it is made again
            folders.close()
            return give_name(file, path, folders.get(path[:-1]))

    def _settle_without_space(self, file: Unpublished, refusal: Refused) -> Settled:
        """Raises `refusal` unless the file is one that is not stored."""
        path = file.incoming.path
        with contextlib.suppress(Refused), self._visible.folder(path[:-1]) as folder:
            action = self._decide(file, path[-1], folder, state_of(path[-1], folder))
            if action in NEEDS_NO_SPACE:
                return _settled(file, path, action)
        raise refusal

    def _replace(self, file: Unpublished, path: PathParts, folder: int) -> Settled:
        action = self._decide(file, path[-1], folder, state_of(path[-1], folder))
        if action in NEEDS_NO_SPACE:
            return _settled(file, path, action)
        try:
            with self._allowance.replacing(path[-1], folder):
                file.rename(path[-1], folder)
        except IsADirectoryError:  # put there since we looked
            raise Refused(Code.IS_FOLDER) from None
        return _settled(file, path)

    def _link(self, file: Unpublished, path: PathParts, folder: int) -> Settled:
        """Try the name first: the system reports whether it is taken, in the same step."""
        try:
            file.link(path[-1], folder)
        except FileExistsError:
            return self._link_beside(file, path, folder)
        return Settled(path, False, False, file.size, file.sha256)

    def _link_beside(self, file: Unpublished, path: PathParts, folder: int) -> Settled:
        """The name was taken."""
        number = 0
        for _ in range(_MOST_NUMBERS):
            name = path[-1] if number == 0 else numbered(path[-1], number)
            there = state_of(name, folder)
            if there is None:  # it is free
                try:
                    file.link(name, folder)
                    return _settled(file, (*path[:-1], name))
                except FileExistsError:
                    continue
            if file.is_same_file(there):
                return _settled(file, (*path[:-1], name))
            if number == 0:
                (before,) = self.delivered_before([_announced(file)])
                if before is not None:
                    return before
                action = self._decide(file, name, folder, there)
                if action in NEEDS_NO_SPACE:
                    return _settled(file, path, action)
            number += 1
        raise Refused(Code.EXISTS)

    def _decide(self, file: Unpublished, name: str, folder: int, there: os.stat_result | None) -> Action:
        """What to do with a file whose name has `there`; its bytes are compared if need be. Raises Refused."""
        existing = file.existing(there, name, folder) if isinstance(file, Link) else existing_of(there, file.size)
        if existing is Existing.SAME_SIZE and file.is_different:
            existing = Existing.OTHER
        policy, may_replace = file.incoming.policy, file.incoming.may_replace
        action = decide(policy, existing, self._is_private, may_replace)
        if action is Action.COMPARE:
            existing = Existing.SAME if _has_same_bytes(file, name, folder) else Existing.OTHER
            action = decide(policy, existing, self._is_private, may_replace)
        if isinstance(action, Code):
            raise Refused(action)
        return action

    def delivered_before(self, files: Sequence[Announced]) -> list[Settled | None]:
        """What this transfer has published of these very files, whose receipts may have been lost, one look for all."""
        asked = [(each.transfer, each.path) for each, _, _ in files if self._is_remembered(each)]
        if self._receipts is None or not asked:
            return [None] * len(files)
        known = iter(self._receipts.find_all(asked))
        return [
            _same_as(next(known), size, sha256) if self._is_remembered(each) else None for each, size, sha256 in files
        ]

    def _is_remembered(self, incoming: Incoming) -> bool:
        """Whether a lost receipt can't be made again from the file itself: it has another name, or is not compared."""
        return incoming.policy == Policy.RENAME or (self._is_private and incoming.policy == Policy.REPLACE)


def _announced(file: Unpublished) -> Announced:
    return file.incoming, file.size, file.sha256


def _same_as(found: Delivery | None, size: int | None, sha256: bytes | None) -> Settled | None:
    """The receipt of what was delivered, if that has this size and digest; a size or digest of None is not known."""
    if found is None or size not in (None, found.size) or sha256 not in (None, found.sha256):
        return None
    return Settled(found.path, already=True, size=found.size, sha256=found.sha256)


def _has_same_bytes(file: Unpublished, name: str, folder: int) -> bool:
    with contextlib.suppress(OSError, Refused):
        there = ExistingFile(os.open(name, READ_FLAGS, dir_fd=folder), file.size)
        return there.digest() == file.sha256
    return False


def _settled(file: Unpublished, path: PathParts, action: Action = Action.STORE) -> Settled:
    if action is Action.SKIP:
        return Settled(path, skipped=True)
    return Settled(path, already=action is Action.ALREADY, size=file.size, sha256=file.sha256)
