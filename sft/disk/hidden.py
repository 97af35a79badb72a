"""The hidden names of large files on their way: hashes of their paths, so that a later try finds what was kept.

Rules: two that may not both get the name that they are going to have one hidden name, so that the second is refused
at once. Those that take the next free name (`rename`) do not compete, neither for the hidden one nor for what was kept:
each has one of its own, and finds it again by its transfer id, or by size and time of its source. It judges no path.
"""

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Protocol

from sft.common.errors import UsageError
from sft.common.private_files import open_private
from sft.disk.journal import Journal
from sft.disk.leftovers import JOURNAL

JOURNAL_WORDS = "the journal of a partial file"
_MOST_AT_ONCE = 32  # on their way to one name that each take the next free one

Source = tuple[int | None, int | None]  # size, time in ns


class Area(Protocol):
    """Where they lie; `sft.disk.partials.PartialArea` is one."""

    folder: int
    keeps_modes: bool


def names_for(area: Area, path: tuple[str, ...], may_rename: bool, transfer: bytes, source: Source) -> list[str]:
    """Those that may be taken for it in an area, the best first."""
    text = b"path" + b"\0".join(component.encode() for component in path)
    first = hashlib.sha256(text).hexdigest()
    if not may_rename:
        return [first]
    others = [hashlib.sha256(text + b"\0\0%d" % number).hexdigest() for number in range(1, _MOST_AT_ONCE)]
    return sorted([*others, first], key=lambda name: _rank(area, name, transfer, source))


def _rank(area: Area, name: str, transfer: bytes, source: Source) -> int:
    """How well that name suits: what was kept of it, then what is free; last what was kept of another one."""
    try:
        descriptor = open_private(Path(name + JOURNAL), os.O_RDONLY, JOURNAL_WORDS, area.folder, area.keeps_modes)
    except FileNotFoundError:
        return 2
    except (OSError, UsageError):
        return 3
    with contextlib.closing(os.fdopen(descriptor, "rb", 0)):
        kept = Journal.read(descriptor)
    if kept is not None and kept.transfer == transfer.hex():
        return 0
    return 1 if kept is not None and (kept.size, kept.mtime) == source else 3
