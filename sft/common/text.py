"""Text that came from outside, made fit for one line: escaped, cut to a length; and how paths are written.

Rules: whatever came from outside passes `escape` before it reaches a terminal or a log, so that one event is one line
and no name can move a cursor. Nothing is written here.
"""

_CUT = " ... "
_BRIEF_BYTES = 500
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF  # how Python holds bytes of names that are not UTF-8 (PEP 383)


def escape(text: str) -> str:
    """`text` on one line: controls and the like become \\x, \\u or \\U, bytes of a name that is not UTF-8 \\x."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if _FIRST_BYTE <= ord(char) <= _LAST_BYTE:
        return f"\\x{ord(char) & 0xFF:02x}"
    return char.encode("unicode_escape").decode()


def cut(text: str, most: int) -> str:
    """`text`, escaped before, in at most so many bytes of UTF-8: what is too much goes from its middle."""
    if 4 * len(text) <= most:
        return text
    whole = text.encode("utf-8", "backslashreplace")
    if len(whole) <= most:
        return text
    tail = max(0, most - len(_CUT)) // 4
    head = max(0, most - len(_CUT)) - tail
    return whole[:head].decode("utf-8", "ignore") + _CUT + whole[len(whole) - tail :].decode("utf-8", "ignore")


def show_path(path: tuple[str, ...]) -> str:
    """A path at the receiver, as a person writes it; not escaped yet."""
    return "/".join(path)


def show_briefly(path: tuple[str, ...]) -> str:
    """The same, escaped and in at most 500 bytes: for what is refused, and so may hold anything of any length."""
    return briefly(show_path(path))


def briefly(text: str) -> str:
    """`text`, escaped and in at most 500 bytes."""
    return cut(escape(text), _BRIEF_BYTES)
