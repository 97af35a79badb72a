"""Names that the wire does not allow, spelled for people to read.

Rules: a spelled name is never opened. It has no control character, so it can be shown as it is.
"""

import re

from sft.wire.protocol import SPELLED_LIMIT

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\udc80-\udcff]")  # Cc, and bytes that are no UTF-8


def is_spelled(name: str) -> bool:
    """Whether it is a name as `spell` gives it, as far as another end can tell."""
    return 0 < len(name.encode()) <= SPELLED_LIMIT and not _CONTROL.search(name)


def spell(path: tuple[str, ...]) -> str:
    """A path that can't travel as a name, for people to read: what is not UTF-8, controls and backslashes as `\\xHH`.

    It is cut where it is longer than a spelled name may be.
    """
    whole = "/".join(path).encode("utf-8", "surrogateescape")
    plain = whole.decode("utf-8", "surrogateescape")
    shown = "".join(_byte_by_byte(char) if char == "\\" or _CONTROL.match(char) else char for char in plain)
    if len(shown.encode()) <= SPELLED_LIMIT:
        return shown
    return shown.encode()[: SPELLED_LIMIT - 3].decode("utf-8", "ignore") + "..."


def _byte_by_byte(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
