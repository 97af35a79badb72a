"""Sizes and counts, as they are entered and as they are printed: one convention for both.

Rules: k, M, G and T are powers of 1000; KiB, MiB, GiB and TiB are powers of 1024. A size that was entered is printed
exactly (`parse_size` reads the text of `exact_size` back to the same number); a measured one is rounded (`amount`).
"""

import re

_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,12}))? ?(?:([kmgt])(i?))?b?", re.IGNORECASE)
_NOT_A_SIZE = "is not a size above zero such as 500M, 1.5G or 2GiB"
_PLACES = 3  # behind the point, of an exact size


def parse_size(value: object) -> int:
    """Bytes from `5000000`, `64M`, `1.5G`, `2 GiB`. Raises ValueError for zero, less, and anything else."""
    if type(value) is int:
        number = value
    else:
        found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if found is None or (found[2] and not found[3]):
            raise ValueError(_NOT_A_SIZE)
        unit = 1 if not found[3] else (_BINARY if found[4] else _DECIMAL)[found[3].lower()]
        behind = found[2] or ""
        number = int(found[1] + behind) * unit // 10 ** len(behind)
    if not 0 < number < 1 << 63:
        raise ValueError(_NOT_A_SIZE)
    return number


def exact_size(count: int) -> str:
    """A size that somebody chose, as they may have written it: `10 MB`, `1.5 GB`, `256 MiB`; no digit is lost."""
    shown = []
    for units, ending in ((_DECIMAL, "B"), (_BINARY, "iB")):
        for letter, unit in reversed(units.items()):
            whole, rest = divmod(count * 10**_PLACES, unit)
            if count >= unit and not rest:
                number = f"{whole // 10**_PLACES}.{whole % 10**_PLACES:0{_PLACES}}".rstrip("0").rstrip(".")
                shown.append(f"{number} {letter if letter + ending == 'kB' else letter.upper()}{ending}")
    return min([*shown, f"{count} B"], key=len)


def amount(count: float) -> str:
    """Bytes that were measured, for people: `999 B`, `1.5 kB`, `2.0 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < (999.5 if unit == "B" else 999.95):
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def counted(count: int, noun: str, grouping: str = ",") -> str:
    """`1 file`, `1,000 files`; in a log, which programs read, without the comma."""
    number = f"{count:,}" if grouping else str(count)
    return f"{number} {noun}" if count == 1 else f"{number} {noun}s"


def announced(size: int | None) -> str:
    """The size of a file that is announced, for a log; None for one that shows only at its end."""
    return "a stream" if size is None else counted(size, "byte", "")
