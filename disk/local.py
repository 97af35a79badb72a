"""A folder of our own, for what is fetched: the same rules as at the receiver, and a partial area of its own.

Rules: the partial area lies in the folder itself, and goes when nothing is kept in it; a folder that was made for what
then did not arrive goes, too. It has no quota: what is fetched is what its owner asked for.
"""

import contextlib
import os
from pathlib import Path

from disk.durable import disk_errors
from disk.folders import open_folder
from disk.names import LOCAL_PARTIAL_AREA
from disk.storage import Rules, UserFolder, umask_of_process
from errors import UsageError


def open_local(base: Path, rules: Rules) -> "UserFolder":
    """A folder of our own, made when missing, for what is fetched. Raises UsageError, Refused."""
    umask = umask_of_process()
    try:
        made = [place for place in (base, *base.parents) if not place.exists()]
        base.mkdir(parents=True, exist_ok=True)
        visible = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as problem:
        raise UsageError(f"can't use the folder {base} ({problem.strerror})", "Name another") from None
    with disk_errors(), contextlib.ExitStack() as opened:
        opened.callback(os.close, visible)
        while True:
            partials = open_folder(visible, LOCAL_PARTIAL_AREA, create=0o700)
            folder = UserFolder(rules, umask, visible, partials, [])
            if folder.area.share(LOCAL_PARTIAL_AREA, visible):
                opened.callback(os.close, partials)
                folder.opened = opened.pop_all()
                folder.made = made
                return folder
            os.close(partials)  # another program has just removed it


def close_local(folder: "UserFolder") -> None:
    """Give it back; its partial area goes when nothing is kept in it, and what was made for it when nothing arrived."""
    folder.area.remove_if_unused(LOCAL_PARTIAL_AREA, folder.descriptor, folder.stale)
    folder.close()
    with contextlib.suppress(OSError):
        for place in folder.made:
            place.rmdir()
