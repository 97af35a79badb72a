"""The line of progress as a text: what is done and to come, the rate, the time left and a name, in so many columns.

Rules: pure, and exact in columns also for wide characters. Where not everything fits, the name goes first,
then the counts, and last the rate; what is left stays whole.
"""

import unicodedata
from typing import NamedTuple

from sft.common.sizes import amount, counted

_GAP = "  "
_LEAST_NAME = 10  # columns, below which a name says nothing
_CUT = "..."
_DAY = 86_400


class Progress(NamedTuple):
    """What is known at one moment. `bytes_total`, `files_total` and `rate`: None where that is not known."""

    name: str
    bytes_done: int
    bytes_total: int | None
    files_done: int
    files_total: int | None
    rate: float | None
    is_stalled: bool = False


def columns_of(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) != 0 for char in text)


def cut_middle(text: str, columns: int) -> str:
    """`text` in at most so many columns: what is too much goes from its middle, for both ends of a name tell most."""
    if columns_of(text) <= columns:
        return text
    space = columns - len(_CUT)
    if space < 2:
        return _first(text, columns)
    head = _first(text, space - space // 2)
    tail = _first(text[::-1], space - columns_of(head))[::-1]
    return head + _CUT + tail


def _first(text: str, columns: int) -> str:
    taken = 0
    for at, char in enumerate(text):
        taken += columns_of(char)
        if taken > columns:
            return text[:at]
    return text


def duration(seconds: float) -> str:
    """`0:07`, `2:41`, `3:02:41`, `5 days`."""
    whole = round(seconds)
    if whole >= 2 * _DAY:
        return f"{whole // _DAY:,} days"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def searching(files: int, size: int, columns: int) -> str:
    """While a tree is still searched: what was found in it so far."""
    return _fitting([counted(files, "file"), amount(size), "found so far"], (0, 2, 1), columns)


def progress_line(now: Progress, columns: int) -> str:
    """The line, in at most so many columns."""
    percent, left = "", ""
    if now.bytes_total:
        percent = f"{min(100, now.bytes_done * 100 // now.bytes_total):>3}%"
        if now.rate and not now.is_stalled:
            left = f"{duration(max(0, now.bytes_total - now.bytes_done) / now.rate)} left"
    done = amount(now.bytes_done) + (f" of {amount(now.bytes_total)}" if now.bytes_total else "")
    rate = "stalled" if now.is_stalled else "" if now.rate is None else f"{amount(now.rate)}/s"
    files = ""
    if now.files_total is not None and now.files_total > 1:
        files = f"{now.files_done:,} of {now.files_total:,} files"
    line = _fitting([percent, done, files, rate, left], (0, 3, 4, 1, 2) if percent else (3, 0, 4, 1, 2), columns)
    space = columns - columns_of(line) - len(_GAP)
    if now.name and space >= min(_LEAST_NAME, columns_of(now.name)):
        line += _GAP + cut_middle(now.name, space)
    return line


def _fitting(parts: list[str], importance: tuple[int, ...], columns: int) -> str:
    """Those of the parts that fit, in their order; 0 is the most important one."""
    kept: set[int] = set()
    for at in sorted(range(len(parts)), key=lambda at: importance[at]):
        chosen = [parts[each] for each in sorted({*kept, at}) if parts[each]]
        if parts[at] and columns_of(_GAP.join(chosen)) <= columns:
            kept.add(at)
    return _GAP.join(parts[at] for at in sorted(kept)) or _first(parts[importance.index(0)].strip(), columns)
