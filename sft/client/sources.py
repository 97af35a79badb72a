"""The sources that were named, while what is in them is found; and the items that many files make at once.

Rules: nothing here walks or reads.
"""

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from sft.common.errors import SourceError, UsageError
from sft.common.names import LOCAL_PARTIAL_AREA, PathParts, are_plain_paths
from sft.console.named import NamedFolder
from sft.console.reporter import Reporter
from sft.disk.chosen import Chosen
from sft.disk.sources import Source
from sft.disk.tree import Excluded, Files, Found, Skipped, Tree, Walked
from sft.transfer.items import Item

if TYPE_CHECKING:
    from sft.wire.messages import PolicyWord


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


def check_named(source: str, is_folder: bool, chosen: Chosen) -> None:
    """Raises UsageError for a file whose content --files-from would name."""
    if chosen.names is not None and not is_folder:
        raise UsageError(f"{source} is not a folder", "--files-from names what is sent of one folder")


def tell_unsent(reporter: Reporter, found: Skipped | Excluded | SourceError, within: NamedFolder | None) -> None:
    """Say why something that was found is not sent."""
    match found:
        case Skipped(is_source=True):
            problem = SourceError(f"{found.path} is {found.why}", "Only files and folders can be sent")
            reporter.failed(found.path, problem, within=within)
        case Skipped():
            reporter.skipped(found.path, found.why, within)
        case SourceError():
            reporter.failed(found.name, found, within=within)


def items_of(
    files: Files,
    source: NamedSource,
    policy: "PolicyWord",
    keeps_mode: bool,
    open: Callable[[Tree, str, PathParts], Source],
) -> list[Item]:
    """An item for each of many files; none, if their paths have to be judged one by one.

    One after the other, as what was found, an item takes 20 us and not 9.
    """
    place, tree, within = (*source.place, *files.folder), source.tree, source.folder
    targets = [(*place, line[1]) for line in files.lines]
    if not are_plain_paths(targets):
        return []
    items: list[Item] = []
    for target, line in zip(targets, files.lines, strict=True):
        path, parts = files.start + line[1], (*files.folder, line[1])
        opens = functools.partial(open, tree, path, parts)
        item = Item(path, target, policy, opens, keeps_mode=keeps_mode, is_judged=True)
        item.within, item.found_size = within, line[3]
        items.append(item)
    return items
