"""What of a source is sent: what --exclude leaves out, what --files-from names, and one file system alone.

Rules: a list is read as a whole before anything is sent. A name in a list is relative to the SOURCE and can't leave it;
one that can't be meant is an error with its line. A folder that is named stands for all that is in it. Whether a name
is there is found out by the walk. The lists are the user's own, and of any size.
"""

import argparse
import os
from collections.abc import Iterator
from typing import NamedTuple

from sft.common.errors import UsageError
from sft.common.exclusions import Exclusions, Pattern
from sft.common.names import PathParts

_STDIN = "-"


class Names:
    """Names below a folder, as a tree of their components."""

    __slots__ = ("_below", "is_listed")

    def __init__(self) -> None:
        self.is_listed = False
        self._below: dict[str, Names] | None = None  # a dict of each file would be half the memory of a list

    def add(self, parts: PathParts) -> None:
        """One more name; the folder itself for an empty one."""
        node = self
        for part in parts:
            if node._below is None:
                node._below = {}
            if part not in node._below:
                node._below[part] = Names()
            node = node._below[part]
        node.is_listed = True

    def at(self, parts: PathParts) -> "Names | None":
        """What is named at and below a path; None where everything is, because a folder above it is named."""
        node = self
        for part in parts:
            below = node._below or {}
            if node.is_listed and part not in below:
                return None
            node = below[part]
        return node

    def names(self) -> list[str] | None:
        """The names in this folder; None: all of them."""
        return None if self.is_listed else list(self._below or ())

    def listed_below(self) -> Iterator[PathParts]:
        """The paths that are listed below this one."""
        todo: list[tuple[PathParts, Names]] = [((), self)]
        while todo:
            parts, node = todo.pop()
            if node.is_listed and parts:
                yield parts
            todo += [((*parts, name), below) for name, below in reversed((node._below or {}).items())]


class Chosen(NamedTuple):
    """What is sent of each source. `names`: None for all of it."""

    exclusions: Exclusions = Exclusions()
    names: Names | None = None
    one_file_system: bool = False

    def names_in(self, parts: PathParts) -> list[str] | None:
        """The names in a folder that are sent; None: all."""
        node = None if self.names is None else self.names.at(parts)
        return None if node is None else node.names()


def choose(options: argparse.Namespace) -> Chosen:
    """What the options of a command choose. Raises UsageError."""
    names = None if options.files_from is None else read_names(options.files_from, options.null)
    return Chosen(read_exclusions(options.exclude_from, options.exclude), names, options.one_file_system)


def read_exclusions(files: list[str], patterns: list[str]) -> Exclusions:
    """The patterns in files, and after them those of the command line. Raises UsageError."""
    found = []
    for file in files:
        lines = _content(file, "--exclude-from").removeprefix(b"\xef\xbb\xbf").split(b"\n")
        found += [Pattern(os.fsdecode(line), f"{file}, line {number}") for number, line in enumerate(lines, 1)]
    for pattern in patterns:
        if not pattern.strip() or pattern.startswith("#"):
            raise UsageError(f'--exclude: "{pattern}" is not a pattern', "Write \\# for a name that begins with #")
        found.append(Pattern(pattern, "--exclude"))
    return Exclusions(found)


def read_names(file: str, is_null: bool) -> Names:
    """The names in a file, or in standard input, one on each line, or with NUL between them. Raises UsageError."""
    names, separator = Names(), b"\0" if is_null else b"\n"
    where = "standard input" if file == _STDIN else file
    for number, line in enumerate(_content(file, "--files-from").split(separator), 1):
        name = os.fsdecode(line if is_null else line.removesuffix(b"\r"))
        if not name:
            continue
        parts = tuple(part for part in name.replace(os.sep, "/").split("/") if part not in ("", "."))
        at = f"{where}, {'name' if is_null else 'line'} {number}"
        if "\0" in name:
            raise UsageError(f"{at}: a NUL in a name", "With -0 (--null) names end in NUL, as of find -print0")
        if os.path.isabs(name) or ".." in parts:
            raise UsageError(f"{at}: {name} is not below the SOURCE", "Names there are relative to the SOURCE")
        names.add(parts)
    return names


def _content(file: str, option: str) -> bytes:
    try:
        with open(0 if file == _STDIN and option == "--files-from" else file, "rb", closefd=file != _STDIN) as opened:
            return opened.read()
    except OSError as problem:
        where = "standard input" if file == _STDIN else file
        raise UsageError(f"{option}: can't read {where} ({problem.strerror})", "Name a file with a list") from None
    except ValueError:  # a NUL in it
        raise UsageError(f"{option}: {file} can't be the name of a file", "Name a file with a list") from None


def paths_below(options: "argparse.Namespace") -> list[PathParts]:
    """The paths that --files-from names below what is fetched, none below another. Raises UsageError."""
    if options.files_from is None:
        return []
    names = read_names(options.files_from, options.null)
    listed = set(names.listed_below())
    if names.is_listed or not listed:
        what = "names the whole folder" if names.is_listed else "names nothing"
        raise UsageError(f"--files-from: {options.files_from} {what}", "Leave --files-from out, or name what is in it")
    return [path for path in names.listed_below() if not any(path[:depth] in listed for depth in range(1, len(path)))]
