"""How results look: a line for a person, or one JSON object for a script.

Rules: pure text; nothing is escaped yet but what JSON escapes. What is not needed for --help is loaded when it is
needed.
"""

import time
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from sft.common.sizes import amount, counted
from sft.common.text import briefly


class ReceiptSink(Protocol):
    """A file of receipts; its methods raise OSError."""

    name: str

    def append(self, *lines: str) -> None: ...
    def flush(self) -> None: ...  # to the disk itself


class Settled(NamedTuple):
    """A file that is where it goes: the line of the log, of the screen, of a script and of the receipts."""

    logged: str
    shown: str | None
    event: str | None = None
    receipt: str | None = None


def as_json(fields: dict[str, object]) -> str:
    """One line of JSON."""
    import json  # nothing else needs it at a start

    return json.dumps(fields, ensure_ascii=True)


def utc(time_ns: int) -> str:
    """`2026-01-31T12:00:00.123456Z`; a time that no calendar has stays a number."""
    try:
        seconds, rest = divmod(time_ns, 1_000_000_000)
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1000:06d}Z"
    except (OverflowError, ValueError, OSError):
        return str(time_ns)


def arrival(path: str, size: int, digest: str | None, target: str | None, is_logged: bool = False) -> str:
    """What arrived, in words for the screen or for the log; `target`: what a link says, which has no digest."""
    if target is not None:
        return f"{path}, a link to {briefly(target)}" if is_logged else f"{path} -> {target}"
    if is_logged:
        return f"{path}, {counted(size, 'byte', '')}, SHA-256 {digest}"
    return f"{path}  {counted(size, 'byte')}  SHA-256 {digest}"


def listed_line(name: str, kind: str, size: int, mtime_ns: int, target: str | None) -> str:
    """One name in a listing; `target`: where a link leads."""
    mark = "/" if kind == "folder" else "" if target is None else f" -> {target}"
    return f"{size:>15,}  {utc(mtime_ns)[:19]}Z  {name}{mark}"


def usage_lines(
    size: int, count: int, quota: int | None, quota_files: int | None, free: int | None, human: bool
) -> list[str]:
    """What an account uses, its quota, and what is free; None: no limit, or not known."""

    def shown(number: int) -> str:
        return amount(number) if human else counted(number, "byte")

    limits = [shown(quota)] if quota is not None else []
    limits += [counted(quota_files, "file")] if quota_files is not None else []
    return [
        f"used   {shown(size)} in {counted(count, 'file')}",
        f"quota  {' in '.join(limits) or 'none'}",
        f"free   {'not known' if free is None else shown(free)}",
    ]


class Summary(NamedTuple):
    """What has become of a run. `counts`: the first is of what was delivered, `size` bytes in all.

    `moved`: bytes of content that were sent or received; `wire`: all bytes that were. `sets`: how many times and modes
    were set of what was there.
    """

    counts: Mapping[str, int]
    size: int
    moved: int
    wire: int
    seconds: float
    sets: int = 0

    def line(self, where: str) -> str:
        """The last line for a person."""
        (_, delivered), *rest = self.counts.items()
        others = "".join(f", {count:,} {word}" for word, count in rest if count)
        if self.sets:
            others += ", 1 mode or time set" if self.sets == 1 else f", {self.sets:,} modes or times set"
        rate = amount(self.size / max(self.seconds, 1e-6))
        done = f": {amount(self.size)} in {self.seconds:.2f} s, {rate}/s" if delivered else ""
        return f"{counted(delivered, 'file')} {where}{others}{done}"

    def logged(self) -> str:
        """The last line of the log."""
        totals = ", ".join(f"{count} {word}" for word, count in self.counts.items())
        return f"done: {totals}, {counted(self.size, 'byte', '')} in {self.seconds:.2f} s"

    def fields(self) -> dict[str, object]:
        """What a script reads."""
        return {
            **{word.removeprefix("there "): count for word, count in self.counts.items()},
            "set": self.sets,
            "bytes": self.size,
            "moved": self.moved,
            "wire": self.wire,
            "seconds": round(self.seconds, 3),
        }
