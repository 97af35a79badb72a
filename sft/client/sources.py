"""The sources that were named, while what is in them is found.

Rules: nothing here walks or reads.
"""

from collections.abc import Iterator
from typing import NamedTuple

from sft.common.names import LOCAL_PARTIAL_AREA, PathParts
from sft.console.named import NamedFolder
from sft.disk.tree import Excluded, Files, Found, Tree, Walked


class NamedSource(NamedTuple):
    """One source that was named, and what is still to be found in it. `folder`: None for a file."""

    first: Found
    below: Iterator[Walked | Files]
    tree: Tree
    place: PathParts
    folder: NamedFolder | None


def counts(found: Walked, place: PathParts) -> bool:
    """Whether something that was found counts as a part of its source, which goes to `place`."""
    if not isinstance(found, Found):
        return not isinstance(found, Excluded)
    if LOCAL_PARTIAL_AREA in found.parts:
        return False
    return not found.is_folder or bool(place or found.parts)  # else it is the user's own folder at the receiver
