"""What --delete is about to remove at the receiver, looked at once more: is it still what it was when it was compared?

Rules: only the places that lose something are read, in the order of their names: of each folder that loses something a
page from the first of these names on, and each folder that goes itself as a whole. What is gone by now is no change. Of
a folder only its kind counts: its time changes with what is removed from it, and what is new in it keeps it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sft.client.branches import Branches, Glimpses, entry_of
from sft.client.comparing import Entry
from sft.common.errors import PASSING_CODES, Code, PeerStopped, Refused
from sft.common.names import PathParts

if TYPE_CHECKING:  # a client sends its hello before it loads the messages
    from sft.wire.channel import Channel
    from sft.wire.messages import Message


@dataclass(slots=True)
class Look:
    """What it has come to. `is_denied`: the account may not list any more."""

    last_id: int
    changed: list[PathParts] = field(default_factory=list)
    is_denied: bool = False


def changed_since(
    extra: Mapping[PathParts, Entry], channel: "Channel", messages: "Iterator[Message]", last_id: int
) -> Look:
    """Which of them are not as they were, and what is below such. The first question has an id one above `last_id`.

    Raises ConnectionTrouble, ProtocolViolation, PeerStopped.
    """
    look, glimpses = Look(last_id), Glimpses()
    for top in sorted(_tops(extra), key=lambda path: (path[:-1], path[-1])):
        glimpses.last_id = look.last_id
        try:
            now = glimpses.find(top, channel, messages)
            look.last_id = glimpses.last_id
            if not is_as_it_was(extra[top], now):
                look.changed.append(top)
                look.changed += _below(extra, top)
            elif now is not None and now.kind == "folder":
                _look_below(top, extra, look, channel, messages)
        except Refused as problem:
            look.last_id = max(look.last_id, glimpses.last_id)
            if problem.code in PASSING_CODES:
                raise PeerStopped(problem.code) from None
            if problem.code is Code.DENIED:
                look.is_denied = True
                return look
            if problem.code is not Code.NOT_FOUND:
                look.changed += [top, *_below(extra, top)]
    return look


def is_as_it_was(was: Entry, now: Entry | None) -> bool:
    """Whether it may be removed, as far as anybody can tell without reading it."""
    if now is None or was.kind != now.kind:
        return now is None
    return was.kind == "folder" or (was.size, was.mtime, was.target) == (now.size, now.mtime, now.target)


def _tops(extra: Mapping[PathParts, Entry]) -> list[PathParts]:
    """Those that are in none of the others."""
    return [path for path in extra if path[:-1] not in extra]


def _below(extra: Mapping[PathParts, Entry], folder: PathParts) -> list[PathParts]:
    return [path for path in extra if len(path) > len(folder) and path[: len(folder)] == folder]


def _look_below(
    folder: PathParts,
    extra: Mapping[PathParts, Entry],
    look: Look,
    channel: "Channel",
    messages: "Iterator[Message]",
) -> None:
    """Raises Refused and the same."""
    branches = Branches(folder)
    try:
        for page in branches.pages(channel, messages, look.last_id):
            for path, node in page.entries:
                whole = (*folder, *path)
                if whole in extra and not is_as_it_was(extra[whole], entry_of(node)):
                    look.changed.append(whole)
    finally:
        look.last_id = branches.last_id
