"""REMOVE, MOVE, USAGE and SET, and what answers them beside REFUSE: AMOUNTS and DONE.

Rules: a path here is never empty: the user's folder itself can't be removed, moved or changed.
"""

from sft.common.errors import ProtocolViolation
from sft.common.names import why_not_allowed
from sft.wire.bodies import Control, Id, Kind, Mode, Path, Size, Time


class Remove(Control, frozen=True):
    """Remove a file, a link or an empty folder; `recursive`: a folder with everything below."""

    KIND = Kind.REMOVE
    id: Id
    path: Path
    recursive: bool

    def why_not(self) -> str:
        return why_not_allowed(self.path)


class Move(Control, frozen=True):
    """Move a file, a link or a folder to `to`, a name that is free."""

    KIND = Kind.MOVE
    id: Id
    path: Path
    to: Path

    def why_not(self) -> str:
        return why_not_allowed(self.path) or why_not_allowed(self.to)


class Usage(Control, frozen=True):
    """How much does the account use, and how much may it use?"""

    KIND = Kind.USAGE
    id: Id


class Amounts(Control, frozen=True):
    """That: what is used, the quota (None: there is none), and bytes that are free on the disk (None: not known)."""

    KIND = Kind.AMOUNTS
    id: Id
    bytes: Size
    files: Size
    quota_bytes: Size | None
    quota_files: Size | None
    free: Size | None


class SetAttributes(Control, frozen=True):
    """Give a file or folder that is there another time, in ns since 1970, or other permission bits; None: not."""

    KIND = Kind.SET
    id: Id
    path: Path
    mtime: Time | None
    mode: Mode | None

    def check(self) -> None:
        if self.mtime is None and self.mode is None:
            raise ProtocolViolation("a SET of nothing")

    def why_not(self) -> str:
        return why_not_allowed(self.path)


class Done(Control, frozen=True):
    """A REMOVE, MOVE or SET is done, and flushed to the disk. `count`: of files, links and folders."""

    KIND = Kind.DONE
    id: Id
    count: Size


Change = Remove | Move | Usage | Amounts | SetAttributes | Done
