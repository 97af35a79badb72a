"""Small files that are offered by their digests: which of them are there already, so that no content need come.

Rules: a file is there when a regular file of its size and digest has its name, and that counts only once file and
folders are flushed. What a taken name means is decided in `sft/disk/decisions.py`. Nothing is changed here. An account
that may not read is never told: its caller does not ask.
"""

import contextlib
import os
from collections.abc import Sequence
from typing import TypeGuard

from crypto_utils import digest, equal
from sft.common.errors import Code, Refused
from sft.common.names import judge_path
from sft.common.values import value
from sft.disk.decisions import Action, Existing, decide
from sft.disk.durable import disk_errors, flush_all
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
        found: list[Outcome | None] = []
        for first in range(0, len(offered), _AT_ONCE):
            found += self._judge(offered[first : first + _AT_ONCE])
        failed = self._flush.flush({each.path[:-1] for each in found if _is_already(each)})
        return [None if _is_already(each) and each.path[:-1] in failed else each for each in found]

    def _judge(self, offered: Sequence[Offered]) -> list[Outcome | None]:
        same: dict[int, int] = {}  # place and descriptor of those with the same content, which are still to be flushed
        with contextlib.ExitStack() as opened:
            folders: dict[PathParts, int | None] = {}
            found: list[Outcome | None] = []
            for each in offered:
                above = each.incoming.path[:-1]
                if above not in folders:
                    folders[above] = self._open(above, opened)
                outcome = self._judge_one(each, folders[above])
                if isinstance(outcome, int):
                    same[len(found)] = outcome
                    opened.callback(os.close, outcome)
                    outcome = Settled(
                        each.incoming.path, already=True, size=each.incoming.size or 0, sha256=each.sha256
                    )
                found.append(outcome)
            for at, problem in zip(same, flush_all(list(same.values()), self._flush.file_system), strict=True):
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
        opened.callback(os.close, folder)
        return folder

    def _judge_one(self, offered: Offered, folder: int | None) -> Outcome | int | None:
        """What becomes of it without its content; the open file that is the same; None when its content is wanted."""
        incoming = offered.incoming
        try:
            judge_path(incoming.path, self._portable_names)
            if folder is None:
                return None
            with disk_errors():
                existing = existing_of(state_of(incoming.path[-1], folder), incoming.size)
        except Refused as problem:
            return problem
        action = decide(incoming.policy, existing, is_private=False)
        if action is Action.COMPARE:
            same = _open_if_same(offered, folder)
            if same is not None:
                return same
            action = decide(incoming.policy, Existing.OTHER, is_private=False)
        if isinstance(action, Code):
            return Refused(action)
        return Settled(incoming.path, skipped=True) if action is Action.SKIP else None


def _is_already(outcome: Outcome | None) -> TypeGuard[Settled]:
    return isinstance(outcome, Settled) and outcome.already


def _open_if_same(offered: Offered, folder: int) -> int | None:
    """A descriptor of the file of that name, if it has the content that is offered; None else."""
    size = offered.incoming.size or 0
    try:
        descriptor = os.open(offered.incoming.path[-1], READ_FLAGS, dir_fd=folder)
    except OSError:  # such as one of another owner
        return None
    with contextlib.suppress(OSError):
        content = os.read(descriptor, size + 1)
        if len(content) == size and equal(digest(content), offered.sha256):
            return descriptor
    os.close(descriptor)
    return None
