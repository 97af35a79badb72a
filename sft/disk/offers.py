"""Small files that are offered by their digests: which of them are there already, so that no content need come.

Rules: a file is there when a regular file of its size and digest has its name, and that counts only once file and
folders are flushed, once for many files. None but regular files on the file system of the staging area are flushed with
it. What a taken name means is decided in `sft/disk/decisions.py`. Nothing is changed here. An account
that may not read is never told: its caller does not ask.
"""

import contextlib
import os
from collections.abc import Sequence
from typing import TypeGuard

from crypto_utils import digest, equal
from sft.common.errors import Code, Refused
from sft.common.names import are_plain_paths, judge_path
from sft.common.open_files import close, few_left_from
from sft.common.values import value
from sft.disk.decisions import Action, Existing, decide
from sft.disk.durable import TOGETHER_FROM, disk_errors, flush_each, refusal
from sft.disk.folders import FolderFlush, PathParts, existing_of, state_of
from sft.disk.temporary import Incoming, Outcome, Settled
from sft.disk.visible_files import READ_FLAGS, VisibleFiles

_AT_ONCE = 64  # open files


@value
class Offered:
    """A small file that can be sent; `incoming.size` is known."""

    incoming: Incoming
    sha256: bytes


class Offers:
    """Judges offers below one user's folder, for one connection."""

    def __init__(self, portable_names: bool, visible: VisibleFiles, flush: FolderFlush) -> None:
        self._portable_names, self._visible, self._flush = portable_names, visible, flush

    def judge(self, offered: Sequence[Offered]) -> list[Outcome | None]:
        """What becomes of each without its content; None when the content is wanted."""
        file_system = self._flush.file_system
        together = len(offered) >= TOGETHER_FROM and file_system.can_flush
        found: list[Outcome | None] = []
        for first in range(0, len(offered), _AT_ONCE):
            some = offered[first : first + _AT_ONCE]
            found += self._judge(some, file_system.device if together else None)
            if len(found) < first + len(some):
                break
        found += [None] * (len(offered) - len(found))
        if together and any(map(_is_already, found)) and not file_system.flush():
            return [None if _is_already(each) else each for each in found]
        failed = self._flush.flush({each.path[:-1] for each in found if _is_already(each)})
        return [None if _is_already(each) and each.path[:-1] in failed else each for each in found]

    def _judge(self, offered: Sequence[Offered], device: int | None) -> list[Outcome | None]:
        """Those up to the one that gets one of the last descriptors. What is on `device` will be flushed with it."""
        few_left = few_left_from()
        are_plain = not self._portable_names and are_plain_paths([each.incoming.path for each in offered])
        same: dict[int, int] = {}  # place and descriptor of those with the same content, which are still to be flushed
        with contextlib.ExitStack() as opened:
            folders: dict[PathParts, int | None] = {}
            found: list[Outcome | None] = []
            for each in offered:
                path = each.incoming.path
                if (above := path[:-1]) not in folders:
                    folders[above] = self._open(above, opened)
                folder = folders[above]
                outcome, descriptor = self._judge_one(each, folder, are_plain), folder or 0
                if isinstance(outcome, int):
                    descriptor = max(descriptor, outcome)
                    if os.fstat(outcome).st_dev == device:
                        close(outcome)
                    else:
                        same[len(found)] = outcome
                        opened.callback(close, outcome)
                    outcome = Settled(path, False, True, each.incoming.size or 0, each.sha256)
                found.append(outcome)
                if descriptor >= few_left:
                    break
            for at, problem in zip(same, flush_each(same.values()), strict=True):
                if problem is not None:
                    found[at] = None
        return found

    def _open(self, path: PathParts, opened: contextlib.ExitStack) -> int | None:
        """A folder; None when it can't be opened: those who send the content learn why."""
        try:
            with disk_errors():
                folder = self._visible.open_folder(path)
        except Refused:
            return None
        opened.callback(close, folder)
        return folder

    def _judge_one(self, offered: Offered, folder: int | None, is_plain: bool) -> Outcome | int | None:
        """What becomes of it without its content; the open file that is the same; None when its content is wanted.

        `is_plain`: its path is known to be allowed.
        """
        incoming = offered.incoming
        try:
            if not is_plain:
                judge_path(incoming.path, self._portable_names)
            if folder is None:
                return None
            existing = existing_of(state_of(incoming.path[-1], folder), incoming.size)
        except Refused as problem:
            return problem
        except OSError as problem:
            return refusal(problem)
        action = decide(incoming.policy, existing, False, incoming.may_replace)
        if action is Action.COMPARE:
            try:
                same = _open_if_same(offered, folder)
            except OSError:  # such as one of another owner: those who send the content learn more
                return None
            if same is not None:
                return same
            action = decide(incoming.policy, Existing.OTHER, False, incoming.may_replace)
        if isinstance(action, Code):
            return Refused(action)
        return Settled(incoming.path, skipped=True) if action is Action.SKIP else None


def _is_already(outcome: Outcome | None) -> TypeGuard[Settled]:
    return isinstance(outcome, Settled) and outcome.already


def _open_if_same(offered: Offered, folder: int) -> int | None:
    """A descriptor of the file of that name; None if it has not the content that is offered. Raises OSError."""
    size = offered.incoming.size or 0
    descriptor = os.open(offered.incoming.path[-1], READ_FLAGS, dir_fd=folder)
    is_same = False
    try:
        content = os.read(descriptor, size + 1)
        is_same = len(content) == size and equal(digest(content), offered.sha256)
    finally:
        if not is_same:
            close(descriptor)
    return descriptor if is_same else None
