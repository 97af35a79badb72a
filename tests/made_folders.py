"""Folders for tests, made as a sender of one would have it."""

from sft.common.errors import Refused
from sft.common.names import PathParts
from sft.disk.temporary import Incoming
from sft.disk.user_folder import UserFolder


def make_folder(
    folder: UserFolder, path: PathParts, mtime: int | None, mode: int | None, may_replace: bool = False
) -> None:
    """Make it, durable before this returns. Raises Refused."""
    policy = "replace" if may_replace else "fail"
    made = folder.begin_folder(Incoming(b"t" * 16, path, None, mtime, mode, policy))
    if made is not None:
        (outcome,) = folder.publish([made])
        if isinstance(outcome, Refused):
            raise outcome
