"""How a fetch is compared with what is here, as the options have it: to fetch what differs, or only to tell.

Rules: what the options say that can't be is told before anything is opened. Only looking makes nothing here.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sft.client.finishing import most_removed
from sft.client.local_tree import LocalChanges
from sft.client.own_logs import files_of_log
from sft.client.refusals import refused_here
from sft.common.errors import Refused

if TYPE_CHECKING:
    import argparse

    from sft.client.download import Download
    from sft.client.plan import Plan
    from sft.disk.user_folder import UserFolder


def fetch_what_differs(
    download: "Download", folder: "UserFolder", options: "argparse.Namespace", log: Path | None
) -> None:
    """With --update: fetch only what differs from what is in `folder`. Raises UsageError."""
    changes = LocalChanges(folder, files_of_log(log))
    download.update(folder, changes, options.delete, most_removed(options.max_delete))


@contextlib.contextmanager
def planned(download: "Download", options: "argparse.Namespace") -> "Iterator[Plan]":
    """What the command would do, to be read from the receiver. Raises UsageError, Refused."""
    from sft.disk.local import look_at_local

    base = download.to.base
    try:
        with look_at_local(base, download.to.may_make_base) as visible:
            yield download.plan(visible, options.update, options.delete, most_removed(options.max_delete))
    except Refused as problem:
        raise refused_here(problem, f"the folder {base}") from None
