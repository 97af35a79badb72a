"""The hidden names of partial files: hashes of their paths, so that a later attempt finds what was kept.

Rules: two transfers that can't both get their visible name share one hidden name, so that the second is refused at
once. Transfers that take the next free name (`rename`) don't compete: each has a hidden name of its own, and finds it
again by its transfer id, or by size and time of its source. What is kept for one account alone has names that no other
account of the folder comes to. No path is judged here.
"""

import contextlib
import hashlib
import os
from pathlib import Path

from sft.common.errors import UsageError
from sft.common.private_files import open_private
from sft.disk.decisions import Policy
from sft.disk.journal import JOURNAL, JOURNAL_WORDS, Journal
from sft.disk.staging import StagingArea
from sft.disk.temporary import Incoming

_MOST_AT_ONCE = 32  # transfers to one name that each take the next free one


def names_for(area: StagingArea, incoming: Incoming, kept_for: str = "") -> list[str]:
    """The hidden names that a file may take, the best first. `kept_for`: the account that alone may find it again."""
    text = b"path" + b"\0".join(component.encode() for component in incoming.path)
    if kept_for:
        text = b"account" + kept_for.encode() + b"\0" + text
    first = hashlib.sha256(text).hexdigest()
    if incoming.policy != Policy.RENAME:
        return [first]
    others = [hashlib.sha256(text + b"\0\0%d" % number).hexdigest() for number in range(1, _MOST_AT_ONCE)]
    return sorted([*others, first], key=lambda name: _rank(area, name, incoming))


def _rank(area: StagingArea, name: str, incoming: Incoming) -> int:
    """0: kept of this transfer; 1: kept of this source; 2: free; 3: anything else."""
    try:
        descriptor = open_private(Path(name + JOURNAL), os.O_RDONLY, JOURNAL_WORDS, area.folder, area.keeps_modes)
    except FileNotFoundError:
        return 2
    except (OSError, UsageError):
        return 3
    with contextlib.closing(os.fdopen(descriptor, "rb", 0)):
        journal = Journal.read(descriptor)
    if journal is not None and journal.transfer == incoming.transfer.hex():
        return 0
    is_same_source = journal is not None and (journal.size, journal.mtime) == (incoming.size, incoming.mtime)
    return 1 if is_same_source else 3
