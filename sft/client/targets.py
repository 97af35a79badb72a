"""Where things go: the paths of sources at the receiver, and the places here of what is fetched.

Rules: a path never depends on what exists at the other end. With a TARGET that ends in a slash, `.` or `..`, or with
several sources, a thing goes into that folder under its own name; otherwise TARGET is its new name, and the content of
folders is merged. Two things with one path are rejected before anything is sent. A server can place nothing but what
was asked for, and nothing outside TARGET. Only the name of the current folder is looked up; no file is opened.
"""

import os
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from sft.common.errors import Code, Refused, UsageError
from sft.common.names import LOCAL_PARTIAL_AREA, PathParts, judge_path, size_of
from sft.common.text import show_path
from sft.console.command_line import PIPE
from sft.wire.protocol import ASKED_LIMIT, GETS_LIMIT


def parts_of(path: str) -> PathParts:
    """The components of a path at the receiver, without `.` and doubled slashes.

    Raises UsageError for one that is absolute.
    """
    if path.startswith("/") and path.strip("/"):
        raise UsageError(f"{path} starts with a slash", "Names there are relative to your folder on the receiver")
    return tuple(part for part in path.split("/") if part not in ("", "."))


def checked_parts(path: str) -> PathParts:
    """The components of a name at the receiver. Raises UsageError for one that no receiver allows."""
    parts = parts_of(path)
    try:
        judge_path(parts or ("all",))
    except Refused as problem:
        raise UsageError(f"{path} can't be a name on a receiver ({problem.why})", "Choose another name") from None
    return parts


def remote_paths(sources: list[str], target: str) -> list[tuple[str, PathParts]]:
    """Each source with its path at the receiver. Raises UsageError."""
    into, folder = _is_folder(target, len(sources)), checked_parts(target)
    if into and PIPE in sources:
        raise UsageError("standard input has no name of its own", "Send it alone, to a TARGET that is a name")
    placed = [(source, (*folder, _own_name(source)) if into else folder) for source in sources]
    _check_distinct(placed)
    return placed


def _is_folder(target: str, count: int) -> bool:
    return os.path.basename(target) in ("", ".", "..") or count > 1


def name_of_source(source: str) -> str:
    """The name that the user gave a source; empty for `.` and the like, which have none."""
    name = os.path.basename(os.path.normpath(source))
    return "" if name in (".", "..") else name


def _own_name(source: str) -> str:
    """The last component of a source, also when it is given as `.` or `..`. Raises UsageError."""
    if name := name_of_source(source):
        return name
    try:
        name = os.path.basename(os.path.abspath(source))
    except OSError as problem:
        cause = f"{source} has no name: the current folder can't be found ({problem.strerror})"
        raise UsageError(cause, "Change into another folder") from None
    if not name:
        raise UsageError(f"{source} has no name of its own", "Send it alone, to a TARGET that is a new name")
    return name


def _check_distinct(placed: Iterable[tuple[str, PathParts]]) -> None:
    taken: dict[PathParts, str] = {}
    for name, path in placed:
        if path in taken:
            if taken[path] == name:
                raise UsageError(f"{name} is named twice", "Name it once")
            both = f"{taken[path]} and {name}"
            raise UsageError(f"{both} would both become {show_path(path)}", "Use a command for each, with two TARGETs")
        taken[path] = name


class Destination(NamedTuple):
    """Where fetched things go: below the folder `base`, or to standard output."""

    base: Path
    may_make_base: bool
    new_name: str | None  # of the one thing that is fetched; None: each keeps its own
    to_stdout: bool

    def shown(self, path: PathParts) -> str:
        """How a person finds what was placed at `path`."""
        if self.to_stdout:
            return "standard output"
        base = str(self.base)  # joined as text: a Path for each of many small files takes longer than to write it
        return os.path.join(*([] if base == os.curdir and path else [base]), *path)


def destination(
    names: list[str],
    wanted: list[PathParts],
    target: str,
    are_matches: bool = False,
    below: Sequence[PathParts] = (),
) -> Destination:
    """What the TARGET of a fetch means; `wanted` are the checked parts of `names`. Raises UsageError.

    `are_matches`: of a pattern or list, so that there might have been several; `below`: those of a list.
    """
    to_stdout = target == PIPE
    if to_stdout and (len(names) > 1 or not all(wanted)):
        raise UsageError("only one file can go to standard output", "Name a folder as TARGET")
    into = not to_stdout and (are_matches or _is_folder(target, len(names)))
    path = Path(target)
    if not into and not path.name:
        raise UsageError(f"{target} is not a name", "Name a file, or a folder with a slash at its end")
    _check_distinct(zip(names, (parts[-1:] for parts in wanted), strict=True))
    sizes = [size_of((*wanted[0], *each)) for each in below] or [size_of(path) for path in wanted]
    if len(sizes) > GETS_LIMIT or sum(sizes) > ASKED_LIMIT:
        raise UsageError(
            f"more than {GETS_LIMIT:,} names, or too long ones", "Name their folders, or use several commands"
        )
    return Destination(path, True, None, False) if into else Destination(path.parent, False, path.name, to_stdout)


def local_path(path: PathParts, asked: Set[PathParts], to: Destination) -> PathParts:
    """Where, below `to.base`, a file or folder goes that the server calls `path`.

    `asked`: the last component of each name that was asked for; empty for the whole folder. Raises Refused.
    """
    if path[0] == LOCAL_PARTIAL_AREA:
        raise Refused(Code.NAME, why="it is used here")
    if () not in asked and path[:1] not in asked:
        raise Refused(Code.DENIED, why="nobody asked for it")
    if to.to_stdout and len(path) > 1:
        raise Refused(Code.UNSUPPORTED)
    if to.new_name is None:
        return path
    return (to.new_name, *(path if asked == {()} else path[1:]))
