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
from sft.client.planned import Planned
from sft.client.refusals import refused_here
from sft.client.rounds import in_the_way, is_replaced_at_once
from sft.common.errors import Code, Refused
from sft.common.names import PathParts
from sft.common.text import show_path
from sft.console.reporter import Reporter

if TYPE_CHECKING:
    from sft.wire.channel import Channel

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
        self._missing, self._findings, self._shown = missing, findings, shown
        self._policy, self._is_update, self._extras = policy, is_update, extras
        self._planned = Planned(reporter, "would come")
        self._has_told_removals = False
        self._freed: set[PathParts] = set()  # where something of another kind would make way

    def read(self, channel: "Channel") -> None:
        """Tell what is not told yet. Raises ConnectionTrouble, ProtocolViolation, PeerStopped."""
        messages = channel.messages()
        answers = (arrived[0] for arrived in messages if arrived is not None)
        try:
            for finding in self._findings.read(channel, answers):
                self._tell(finding)
            self._tell_removals()
            for finding in self._findings.read(channel, answers):  # of what would have its place then
                self._tell(finding)
        finally:
            self._findings.pause()
        part(channel, answers)

    def end(self) -> None:
        """How much it is in all."""
        self._planned.end()

    def _tell_removals(self) -> None:
        if self._has_told_removals:
            return
        self._has_told_removals = True
        self._extras.tell(lambda here, kind: self._tell_of("remove", "", here, kind, None, Difference.EXTRA))
        for finding, here in self._extras.way.take_waiting().items():
            if (problem := self._extras.way.blocked(here)) is None:
                self._freed.add(here)
                self._findings.again(finding, is_free=True)
            else:
                self._missing.fail(show_path(finding.name), problem)

    def _tell(self, finding: Finding) -> None:
        what, there = finding.what, finding.there
        if self._extras.note(finding) or what is Difference.EXTRA or there is None:
            return
        name = show_path(finding.name)
        if what is Difference.KIND and not is_replaced_at_once(finding):
            self._missing.fail(name, refused_here(in_the_way(finding), self._shown(finding.here)))
            return
        action = action_for(what, there.kind == "folder", self._policy, self._is_update)
        if isinstance(action, Code):
            self._missing.fail(name, refused_here(Refused(action), self._shown(finding.here)))
        elif action is not None:
            if finding.here in self._freed:
                action, what = "replace", Difference.KIND
            size = there.size if there.kind == "file" else None
            self._tell_of(action, name, finding.here, there.kind, size, what)

    def _tell_of(self, action: str, name: str, here: PathParts, kind: str, size: int | None, why: Difference) -> None:
        self._planned.tell(action, name, self._shown(here), kind, size, why.value)
