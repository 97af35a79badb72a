"""What a fetch would do, told without doing it: `--get --dry-run`.

    TREE ... of everything that was named, compared with what is here; nothing else is asked, and nothing changes

Rules: each thing that would come, be replaced, be compared by its content, get another mode or be removed is one line,
with the reason. What would fail for certain fails here alike. Content is not looked at, so what has the same size and
another time may turn out to be the same.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sft.client.comparing import Difference
from sft.client.extras import Extras
from sft.client.findings import Finding, Findings
from sft.client.missing import Missing
from sft.client.parting import part
from sft.client.refusals import refused_here
from sft.client.rounds import in_the_way, is_link_for_file
from sft.client.sending_plan import in_all
from sft.common.errors import Code, Refused
from sft.common.names import PathParts
from sft.common.sizes import amount, counted
from sft.common.text import show_path
from sft.console.reporter import Reporter

if TYPE_CHECKING:
    from sft.wire.channel import Channel

_LINES = {
    "fetch": "would fetch: {name} to {path}",
    "replace": "would replace: {path} with {name}",
    "compare": "would compare the content: {name} with {path}",
    "set": "would set: {path}",
    "skip": "would skip: {name}",
    "remove": "would remove: {path}",
}
_SAME_SIZE = (Difference.NONE, Difference.TIME, Difference.MODE)


def action_for(what: Difference, is_folder: bool, policy: str, is_update: bool) -> str | Code | None:
    """What a fetch does about a difference; None: nothing. A Code: it fails with that."""
    if what is Difference.NEW:
        return "fetch"
    if what is Difference.MODE and is_update:
        return "set"
    if is_folder or (what is Difference.NONE and is_update):
        return None
    if is_update:
        return "compare" if what is Difference.TIME else "replace"
    if policy == "skip":
        return "skip"
    if what in _SAME_SIZE:
        return "compare"
    return {"fail": Code.EXISTS, "replace": "replace"}.get(policy, "fetch")


class Plan:
    """What one command would do."""

    def __init__(
        self,
        reporter: Reporter,
        missing: Missing,
        findings: Findings,
        shown: Callable[[PathParts], str],
        policy: str,
        is_update: bool,
        extras: Extras,
    ) -> None:
        """`shown(path)`: how a person finds that path here."""
        self._reporter, self._missing, self._findings, self._shown = reporter, missing, findings, shown
        self._policy, self._is_update, self._extras = policy, is_update, extras
        self._count = self._size = 0  # of files that would come
        self._others = 0  # comparisons, modes and removals

    def read(self, channel: "Channel") -> None:
        """Tell what is not told yet. Raises ConnectionTrouble, ProtocolViolation, PeerStopped."""
        messages = channel.messages()
        answers = (arrived[0] for arrived in messages if arrived is not None)
        try:
            for finding in self._findings.read(channel, answers):
                self._tell(finding)
        finally:
            self._findings.pause()
        part(channel, answers)

    def end(self) -> None:
        """The removals, and how much it is in all."""
        self._extras.tell(lambda here, kind: self._planned("remove", "", here, kind, None, Difference.EXTRA))
        came = f"{counted(self._count, 'file')} would come, {amount(self._size)}" if self._count else ""
        if line := in_all(came, self._others, self._reporter.failed_count):
            self._reporter.note(line)

    def _tell(self, finding: Finding) -> None:
        what, there = finding.what, finding.there
        self._extras.note(finding)
        if what is Difference.EXTRA or there is None:
            return
        name = show_path(finding.name)
        if what is Difference.KIND and not is_link_for_file(finding):
            self._missing.fail(name, refused_here(in_the_way(finding), self._shown(finding.here)))
            return
        action = action_for(what, there.kind == "folder", self._policy, self._is_update)
        if isinstance(action, Code):
            self._missing.fail(name, refused_here(Refused(action), self._shown(finding.here)))
        elif action is not None:
            if action in ("fetch", "replace") and there.kind == "file":
                self._count += 1
                self._size += there.size
            size = there.size if there.kind == "file" else None
            self._planned(action, name, finding.here, there.kind, size, what)

    def _planned(self, action: str, name: str, here: PathParts, kind: str, size: int | None, why: Difference) -> None:
        self._others += action in ("compare", "set", "remove")
        path, mark = self._shown(here), "/" if kind == "folder" else ""
        line = _LINES[action].format(name=f"{name}{mark}", path=f"{path}{mark}")
        line += "" if size is None else f"  {counted(size, 'byte')}"
        if why not in (Difference.NONE, Difference.EXTRA):
            line += f"  ({why.value})"
        fields = {"name": name, "path": path, "kind": kind, "size": size, "why": why.value}
        self._reporter.told(line, "planned", action=action, **fields)
