"""Patterns as in `.gitignore`: which names below a folder are left out, of what is sent and of what is fetched.

Rules: a pattern is about a name itself, and the last one that matches decides. Nothing below an excluded folder is
looked at, so it can't be taken back in there. A pattern that can't be read is an error, where git ignores it. What is
asked for must come from the top down. No file is opened here, and the library is loaded only when there are patterns.
"""

import contextlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from sft.common.errors import UsageError
from sft.common.names import PathParts
from sft.common.packages import check_installed

_ANYWHERE = "^(?:.+/)?"  # with which the library begins a pattern without a folder
_REMEDY = "Patterns are those of .gitignore; in front of a special character in a name write \\"


class Pattern(NamedTuple):
    """One pattern as it was written, and where: an option, or a line of a file."""

    text: str
    where: str


# In a regular expression of the library: a star, and the characters and question marks before the next star.
_BETWEEN_STARS = re.compile(r"\[\^/\]\*((?:\\[^/]|[^/()|\[\]\\*+?{}^$.]|\[\^/\](?![*+?]))*)(?=\[\^/\]\*)")


class _Rule(NamedTuple):
    """One pattern that was read. `excludes`: false for one with `!`."""

    regex: re.Pattern[str]
    excludes: bool

    @property
    def is_anywhere(self) -> bool:
        """Whether it is about a name in any folder."""
        return not self.regex.pattern.startswith("^") or self.regex.pattern.startswith(_ANYWHERE)

    def matches(self, path: str, name: str) -> bool:
        """Whether it is about that name, of which `path` is the whole; both end in a slash for a folder."""
        if self.regex.pattern.startswith("^"):
            return self.regex.fullmatch(path) is not None
        return self.regex.search(name) is not None  # `*` and the like, for which the library has a shorter form


class Exclusions:
    """What the patterns of one command exclude."""

    def __init__(self, patterns: Iterable[Pattern] = ()) -> None:
        """Raises UsageError for a pattern that can't be read, and when the library is not installed."""
        self._rules = [rule for pattern in patterns if (rule := _read(pattern)) is not None]
        self._rules.reverse()

    def __bool__(self) -> bool:
        return bool(self._rules)

    def is_excluded(self, parts: PathParts, is_folder: bool) -> bool:
        """Whether something is left out, by its path below the folder that is sent or fetched; never that folder."""
        if not parts or not self._rules:
            return False
        end = "/" if is_folder else ""
        path, name = "/".join(parts) + end, parts[-1] + end
        return next((rule.excludes for rule in self._rules if rule.matches(path, name)), False)

    def is_below_excluded(self, parts: PathParts, is_folder: bool = False) -> bool:
        """Whether something is left out, or lies in a folder that is."""
        if not self._rules:
            return False
        folders = (parts[:depth] for depth in range(1, len(parts)))
        return any(self.is_excluded(folder, True) for folder in folders) or self.is_excluded(parts, is_folder)

    def is_source_excluded(self, name: str, is_folder: bool) -> bool:
        """Whether something that was named is left out, by its own name; patterns with a folder are not about it."""
        shown = name + "/" if is_folder else name
        rules = (rule for rule in self._rules if rule.is_anywhere)
        return next((rule.excludes for rule in rules if rule.matches(shown, shown)), False)


def pattern_for(name: str) -> str:
    """A pattern that matches this name, and can be typed: `?` stands for what can't be printed.

    >>> pattern_for("a\\nb [1]")
    'a?b \\\\[1\\\\]'
    """
    typed = "".join(f"\\{each}" if each in "\\*?[]" else each if each.isprintable() else "?" for each in name)
    typed = f"\\{typed}" if typed.startswith(("!", "#")) else typed
    return f"{typed[:-1]}\\ " if typed.endswith(" ") else typed


def _read(pattern: Pattern) -> _Rule | None:
    """None for an empty line and a comment. Raises UsageError."""
    check_installed("pathspec")
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    text = pattern.text if pattern.text.endswith("\\ ") else pattern.text.rstrip()
    if not text or text.startswith("#"):
        return None
    found = None
    if text.removeprefix("!").strip("/"):
        with contextlib.suppress(ValueError, re.error):
            found = GitIgnoreSpecPattern(_below_only(text))
    if found is None or found.regex is None or found.include is None:
        raise UsageError(f'{pattern.where}: "{pattern.text}" is not a pattern', _REMEDY)
    return _Rule(_in_the_first_place(found.regex), found.include)


def _in_the_first_place(regex: re.Pattern[str]) -> re.Pattern[str]:
    """The same, but what stands between two stars keeps the first place that it fits, instead of trying every one.

    If any place leads to a match, that does, too. Sets of characters may have a slash in them, and stay as they are.
    """
    text, count = _BETWEEN_STARS.subn(r"(?>[^/]*?\1)", regex.pattern)
    return re.compile(text, regex.flags) if count else regex


def _below_only(text: str) -> str:
    """The same pattern for what lies in a folder, which the library would match with the folder itself, too."""
    if text.endswith("/**"):
        return text + "/*"
    return text[:-1] + "/*/" if text.endswith("/**/") else text
