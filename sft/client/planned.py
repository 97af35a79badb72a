"""What a dry run prints, in either direction: a line for each thing that would be done and why, and one in all.

Rules: it decides nothing, and nothing is changed at either end.
"""

from sft.client.comparing import Difference
from sft.common.sizes import amount, counted
from sft.console.reporter import Reporter

_LINES = {
    "send": "would send: {name} as {path}",
    "fetch": "would fetch: {name} to {path}",
    "replace": "would replace: {path} with {name}",
    "compare": "would compare the content: {name} with {path}",
    "set": "would set: {path}",
    "skip": "would skip: {name}",
    "remove": "would remove: {path}",
}
_MOVING = ("send", "fetch", "replace")
_CHANGING = ("compare", "set", "remove")
_SELF_EVIDENT = (Difference.NONE.value, Difference.EXTRA.value)  # reasons that the action says already


class Planned:
    """The lines of one dry run."""

    def __init__(self, reporter: Reporter, would: str) -> None:
        """`would`: what all files that move would do, such as `would be sent`."""
        self._reporter, self._would = reporter, would
        self._moving = {"file": 0, "link": 0, "folder": 0}
        self._size: int | None = 0  # of the files; None when that of a pipe is not known
        self._others = 0  # comparisons, modes and removals

    def tell(self, action: str, name: str, path: str, kind: str, size: int | None, why: str) -> None:
        """One thing; `path`: where it goes, as a person finds it. `size` None: of what has none, or not known."""
        if action in _MOVING:
            self._moving[kind] += 1
        if kind == "file" and action in _MOVING:
            self._size = None if size is None or self._size is None else self._size + size
        self._others += action in _CHANGING
        mark = "/" if kind == "folder" else ""
        line = _LINES[action].format(name=f"{name}{mark}", path=f"{path}{mark}")
        line += "" if size is None else f"  {counted(size, 'byte')}"
        line += "" if why in _SELF_EVIDENT else f"  ({why})"
        self._reporter.told(line, "planned", action=action, name=name, path=path, kind=kind, size=size, why=why)

    def end(self) -> None:
        """How much it is in all, links among the files, as a run counts them; no line where there were errors alone."""
        parts = []
        files = self._moving["file"] + self._moving["link"]
        if files:
            size = "" if self._size is None else f", {amount(self._size)}"
            parts.append(f"{counted(files, 'file')} {self._would}{size}")
        elif folders := self._moving["folder"]:
            parts.append(f"{counted(folders, 'folder')} {self._would}")
        if self._others:
            parts.append(counted(self._others, "other change"))
        if parts or not self._reporter.failed_count:
            self._reporter.note("; ".join(parts) or "nothing would be done")
