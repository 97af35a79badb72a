r"""Patterns in names at the receiver, as shells have them: `*`, `?`, `[...]`, and `**` for any number of folders.

Rules: a pattern is matched component by component; nothing in it matches a slash, and nothing but a dot matches a dot
at the beginning of a name. `\` takes the meaning of the `*`, `?`, `[` or `\` behind it; before anything else it stands
for itself. What stands between two stars takes the first place that it fits, and keeps it: if any place leads to a
match, the first one does, so matching takes no more than the product of both lengths. It knows no channel:
`sft/client/matching.py` asks which names are there.
"""

import re
from collections.abc import Sequence

DEEP = "**"

_MAGIC = re.compile(r"\\[*?\[\\]|\*|\?|\[[!^]?(?:\]|[^]])[^]]*\]")  # an escaped character, or something with a meaning
_HIDDEN = r"(?!\.)"
_ANY = "[^/]*"
_FOLDERS = rf"(?:{_HIDDEN}[^/]+/)*"


def is_pattern(name: str) -> bool:
    r"""Whether it has a meaning beyond its characters.

    >>> [is_pattern(name) for name in ("a", "a*", r"a\*", "a[b", "a[b]", "a[]", r"\[a]", "a?")]
    [False, True, False, False, True, False, False, True]
    """
    return any(not found[0].startswith("\\") for found in _MAGIC.finditer(name))


def literal_of(name: str) -> str:
    r"""What a name that is no pattern stands for.

    >>> literal_of(r"a\*b\c"), literal_of("a[b")
    ('a*b\\c', 'a[b')
    """
    return re.sub(r"\\([*?\[\\])", r"\1", name)


def regex_of(parts: Sequence[str]) -> "re.Pattern[str]":
    """What a path below a folder has to match as a whole, its components joined by slashes.

    >>> bool(regex_of(["**", "*.txt"]).fullmatch("a/b/c.txt")), bool(regex_of(["*", "b"]).fullmatch(".a/b"))
    (True, False)
    """
    between = [""]  # what stands before, between and behind those that are any number of folders
    for at, part in enumerate(parts):
        is_last = at == len(parts) - 1
        if part == DEEP and not is_last:
            between.append("")
        else:
            between[-1] += f"(?>{_component(part)}{'' if is_last else '/'})"
    return re.compile(_joined(between, _FOLDERS), re.DOTALL)


def _joined(between: Sequence[str], any_number: str) -> str:
    """What matches all of them, with any number of something between any two."""
    first, *middle = between
    last = any_number + middle.pop() if middle else ""
    return first + "".join(f"(?>{any_number}?{each})" for each in middle) + last


def _component(part: str) -> str:
    """A regular expression for one name."""
    between, at = [""], 0
    for found in _MAGIC.finditer(part):
        between[-1] += re.escape(part[at : found.start()])
        if found[0] == "*":
            between.append("")
        else:
            between[-1] += _meaning(found[0])
        at = found.end()
    between[-1] += re.escape(part[at:])
    starts_open = _MAGIC.match(part) is not None and not part.startswith("\\")
    return (_HIDDEN if starts_open else "") + _joined(between, _ANY)


def _meaning(part: str) -> str:
    if part.startswith("\\"):
        return re.escape(part[1])
    if part == "?":
        return "[^/]"
    inner = part[1:-1]
    negated = len(inner) > 1 and inner[0] in "!^"
    inner = inner[1:] if negated else inner
    listed = "".join(f"\\{char}" if char in "\\[]^&~|" else char for char in inner)
    try:
        re.compile(f"[{listed}]")
    except re.error:  # such as a range that runs backwards, in which nothing is
        return "[^/]" if negated else r"(?!)"
    return f"(?!/)[{'^' if negated else ''}{listed}]"
