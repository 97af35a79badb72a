"""The kinds of fields in message bodies: each check takes a decoded value and returns the one to use, or refuses it.

Rules: whatever a field may not hold is a ProtocolViolation; integers meet their range, words their list, and a name the
judge of names. A check knows Python's values, and not the form in which they travelled.
"""

import re
from collections.abc import Callable
from typing import Any

from sft.common.errors import Code, ProtocolViolation
from sft.common.names import why_not_allowed
from sft.wire.protocol import SPELLED_LIMIT

Check = Callable[[Any], Any]

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\udc80-\udcff]")  # Cc, and bytes that are no UTF-8


def integer(least: int, most: int) -> Check:
    """An integer in that range; `true` is not one."""

    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ProtocolViolation("a field that is no integer in its range")
        return value

    return check


def one_of(*words: str) -> Check:
    """One of these words."""

    def check(value: Any) -> str:
        if type(value) is not str or value not in words:
            raise ProtocolViolation("a field with an unknown word")
        return value

    return check


def or_null(check: Check) -> Check:
    """Null, or what `check` takes."""
    return lambda value: None if value is None else check(value)


def text(value: Any) -> str:
    """Any text that has UTF-8."""
    if type(value) is not str:
        raise ProtocolViolation("a field that is no text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ProtocolViolation("a lone surrogate") from None
    return value


def flag(value: Any) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise ProtocolViolation("a field that is neither true nor false")
    return value


def hex_bytes(size: int) -> Check:
    """So many bytes, as lower-case hex."""

    def check(value: Any) -> bytes:
        try:
            found = bytes.fromhex(value)
        except (TypeError, ValueError):
            found = b""
        if len(found) != size or found.hex() != value:  # blanks and capitals are other bytes for the same value
            raise ProtocolViolation(f"a field that is not {size} bytes in lower-case hex")
        return found

    return check


def path(value: Any) -> tuple[str, ...]:
    """Texts, not judged yet: a message with a path that is not allowed may still be answered."""
    if type(value) is not list:
        raise ProtocolViolation("a path that is no list")
    return tuple(text(part) for part in value)


def name(value: Any) -> str:
    """One name that is allowed."""
    found = text(value)
    if why := why_not_allowed((found,)):
        raise ProtocolViolation(f"a name that is not allowed: {why}")
    return found


def spelled(value: Any) -> str:
    """A name for people to read, as `spell` returns it. It is never opened."""
    found = text(value)
    if not 0 < len(found.encode()) <= SPELLED_LIMIT or _CONTROL.search(found):
        raise ProtocolViolation("a name that can't be shown")
    return found


def spell(path: tuple[str, ...]) -> str:
    """A path that can't travel as a name, for people to read: what is not UTF-8, controls and backslashes as `\\xHH`.

    It is cut where it is longer than may be said.
    """
    whole = "/".join(path).encode("utf-8", "surrogateescape")
    plain = whole.decode("utf-8", "surrogateescape")
    shown = "".join(_byte_by_byte(char) if char == "\\" or _CONTROL.match(char) else char for char in plain)
    if len(shown.encode()) <= SPELLED_LIMIT:
        return shown
    return shown.encode()[: SPELLED_LIMIT - 3].decode("utf-8", "ignore") + "..."


def _byte_by_byte(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def code(value: Any) -> Code:
    """A reason that has a code."""
    try:
        return Code(text(value))
    except ValueError:
        raise ProtocolViolation("an unknown code") from None
