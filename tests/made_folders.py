"""Folders for tests, made as a sender of one would have it."""

from sft.common.errors import Refused
from sft.common.names import PathParts
from sft.disk.temporary import Incoming
from sft.disk.user_folder import UserFolder


def make_folder(
    folder: UserFolder,
    path: PathParts,
    mtime: int | None,
    mode: int | None,
    policy: str = "fail",
    may_replace: bool = True,
    transfer: bytes = b"t" * 16,
) -> None:
    """Make it, durable before this returns. Raises Refused."""
    (outcome,) = folder.publish([folder.begin_folder(Incoming(transfer, path, None, mtime, mode, policy, may_replace))])
    if isinstance(outcome, Refused):
        raise outcome
