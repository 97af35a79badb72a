"""Names such as `alice@nas:photos`, as scp has them: which receiver a command means, and what its names are there.

Rules: what stands before a colon is a host if no slash comes before it. A colon at the very front ends no host, and
neither does, on Windows, one behind a drive letter. An IPv6 address stands in brackets. A file whose name has a colon
is `./name`; where one is here under the name as it was typed, nobody guesses. A command has one receiver, at one of its
two ends. What the settings file knows about a host is added by `config.py`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from sft.common.errors import UsageError

_IS_WINDOWS = sys.platform == "win32"
_ONLY_THERE = ("list", "remove", "move", "usage")  # jobs whose names are all at the receiver
_WHOLE_FOLDER = "."


class Receiver(NamedTuple):
    """A receiver as a name has it. `user` may be empty; `typed`: the whole name."""

    user: str
    host: str
    typed: str

    @property
    def prefix(self) -> str:
        """What stands before the path in a name."""
        return f"{self.user}@{self.host}:" if self.user else f"{self.host}:"

    @property
    def undo(self) -> str:
        """How to write the name of a file instead."""
        return f"write ./{self.typed} for a file of that name"


class Split(NamedTuple):
    """A name, and the receiver that it names, if it does."""

    receiver: Receiver | None
    name: str


def split_name(name: str, is_windows: bool = _IS_WINDOWS) -> Split:
    """A name's receiver and its path there, `.` for the whole folder. Raises UsageError."""
    before, colon, path = _cut(name, is_windows)
    if not colon:
        return Split(None, name)
    user, at, host = before.rpartition("@")
    if not host or not host.isprintable() or " " in host or (at and not user):
        cause = f"what stands before the colon in {name} names no receiver"
        raise UsageError(cause, f"Write USER@HOST:NAME, or ./{name} for a file of that name")
    return Split(Receiver(user, host, name), _below_home(path) or _WHOLE_FOLDER)


def _below_home(path: str) -> str:
    """The path without the `~` that stands for the user's folder there, as for a home folder in names of scp."""
    return "" if path == "~" else path.removeprefix("~/").lstrip("/") if path.startswith("~/") else path


def _cut(name: str, is_windows: bool) -> tuple[str, str, str]:
    """What stands before the colon, the colon, and what stands behind it."""
    if name.startswith(":") or (is_windows and name[1:2] == ":" and name[0].isalpha()):
        return name, "", ""
    start = name.rfind("@", 0, name.find("[")) + 1 if "[" in name else 0
    if name.startswith("[", start):  # an address with colons of its own
        before, bracket, path = name.partition("]:")
        before, colon = before + bracket[:1], bracket[1:]
    else:
        before, colon, path = name.partition(":")
    separators = "/\\" if is_windows else "/"
    return (name, "", "") if not colon or any(each in before for each in separators) else (before, colon, path)


def take_receiver(options: argparse.Namespace, is_windows: bool = _IS_WINDOWS) -> Receiver | None:
    """The receiver that the names of a command name, if they do; its `names` are then those there.

    A command whose SOURCEs are at a receiver fetches: `get` becomes true. Raises UsageError.
    """
    split = [split_name(name, is_windows) for name in options.names]
    if any(getattr(options, job) for job in _ONLY_THERE):
        there, here = split, []
    elif options.get or any(each.receiver for each in split[:-1]):
        there, here = split[:-1], split[-1:]
    else:
        there, here = split[-1:], split[:-1]
    receiver = _common(there)
    for each in here:
        if each.receiver is not None:
            raise UsageError(*_not_here(each.receiver, receiver))
    if receiver is None:
        return None
    _check_flag("--host", options.host, receiver.host, receiver)
    _check_flag("--user", options.user, receiver.user, receiver)
    if is_fetch := not options.get and split[:-1] == there != []:
        _check_not_here(there)
    options.names = [name for _, name in split]
    if options.usage and options.names == [_WHOLE_FOLDER]:
        options.names = []
    options.get = options.get or is_fetch
    return receiver


def _common(there: Sequence[Split]) -> Receiver | None:
    """The one receiver of these names. Raises UsageError."""
    named = [each.receiver for each in there if each.receiver is not None]
    for other in named[1:]:
        if other[:2] != named[0][:2]:
            raise UsageError(f"{named[0].typed} and {other.typed} are on two receivers", "Use a command for each")
    for each in there:
        if named and each.receiver is None:
            cause = f"{named[0].typed} names a receiver, and {each.name} does not"
            raise UsageError(
                cause, f"Write {named[0].prefix}{each.name}, or ./{named[0].typed} for a file of that name"
            )
    return named[0] if named else None


def _check_not_here(sources: Sequence[Split]) -> None:
    """Raises UsageError for a SOURCE that may as well be a file here: a time in its name, more often than a host."""
    for source in sources:
        if source.receiver is not None and os.path.lexists(typed := source.receiver.typed):
            remedy = f"Write ./{typed} to send it, or --get {typed} to fetch from the receiver {source.receiver.host}"
            raise UsageError(f"{typed} names a receiver, and is a file here", remedy)


def _not_here(end: Receiver, other: Receiver | None) -> tuple[str, str]:
    if other is None:
        return f"{end.typed} is on a receiver, where --get takes a TARGET here", f"Leave --get out, or {end.undo}"
    remedy = "Fetch it first, and then send it"
    if end[:2] == other[:2]:
        remedy = "To give a thing another name there, use --move"
    return f"{other.typed} and {end.typed} are both on a receiver", f"{remedy}; or {other.undo}"


def _check_flag(flag: str, value: str | None, named: str, receiver: Receiver) -> None:
    if value is not None and named and value.strip("[]") != named.strip("[]"):
        cause = f"{flag} {value} and {receiver.typed} name two receivers"
        raise UsageError(cause, f"Leave {flag} out, or {receiver.undo}")
