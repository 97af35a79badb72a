"""What sending would do, told without doing it: `--dry-run`.

    TREE ... of the places that things go to, compared with what is here; nothing else is asked, and nothing changes

Rules: each thing that would be sent, replaced, compared by its content, get another mode or be removed is one line,
with the reason. What would fail for certain fails here alike. Content is not looked at, so what has the same size and
another time may turn out to be the same.
"""

from collections.abc import Callable

from sft.client.comparing import Difference
from sft.client.planned import Planned
from sft.client.refusals import refused_name, refused_there
from sft.common.errors import Code, Refused
from sft.common.names import PathParts, judge_path
from sft.common.text import show_path
from sft.console.reporter import Reporter

_SAME_SIZE = (Difference.NONE, Difference.TIME, Difference.MODE)
_OTHER: dict[str, str | Code] = {"fail": Code.EXISTS, "rename": "send", "replace": "replace", "skip": "skip"}


def action_for(what: Difference, kind: str, kind_there: str, policy: str, is_update: bool) -> str | Code | None:
    """What sending does about a difference, but for a mode; a Code: it fails with that.

    None: nothing.
    """
    if what is Difference.NEW:
        return "send"
    if what is Difference.KIND:
        return _action_for_another_kind(kind, kind_there, policy)
    if kind == "folder" or (is_update and what in (Difference.NONE, Difference.MODE)):
        return None
    if is_update:
        return "compare" if what is Difference.TIME else "replace"
    if what in _SAME_SIZE and policy != "skip":
        return "compare" if kind == "file" else None
    return _OTHER[policy]


def _action_for_another_kind(kind: str, kind_there: str, policy: str) -> str | Code:
    if kind == "folder":
        return Code.LINK if kind_there == "link" else Code.NOT_FOLDER
    if kind_there == "folder":
        return Code.IS_FOLDER
    return _OTHER[policy]


class SendingPlan:
    """What one command would do."""

    def __init__(self, reporter: Reporter, policy: str, is_update: bool) -> None:
        self._reporter, self._policy, self.is_update = reporter, policy, is_update
        self._blocked: PathParts | None = None  # a folder that can't be made
        self._planned = Planned(reporter, "would be sent")
        self._waiting: list[tuple[PathParts, tuple[str, PathParts, str, int | None, Difference]]] = []

    def tell(self, name: str, path: PathParts, kind: str, size: int | None, what: Difference, kind_there: str) -> None:
        """What becomes of one file or folder here; `size` None: of a folder, or not known."""
        if self._blocked is not None and path[: len(self._blocked)] == self._blocked:
            return
        if not self._may_be_named(name, path):
            return
        action = action_for(what, kind, kind_there, self._policy, self.is_update)
        if isinstance(action, Code):
            self._blocked = path if kind == "folder" else self._blocked
            self._reporter.failed(name, refused_there(Refused(action), show_path(path)))
        elif action is not None:
            self._planned.tell(action, name, show_path(path), kind, size, what.value)

    def wait(
        self, behind: PathParts, name: str, path: PathParts, kind: str, size: int | None, what: Difference
    ) -> None:
        """It comes when what is in the way at `behind` is removed."""
        if self._may_be_named(name, path):
            self._waiting.append((behind, (name, path, kind, size, what)))

    def _may_be_named(self, name: str, path: PathParts) -> bool:
        """Whether a receiver may have that path; reports it if not."""
        try:
            judge_path(path)
        except Refused as problem:
            self._reporter.failed(name, refused_name(problem, path))
            return False
        return True

    def tell_waiting(self, blocked: Callable[[PathParts], Refused | None]) -> None:
        """What becomes of what waits; `blocked(path)`: why what is in the way there stays."""
        for behind, (name, path, kind, size, what) in self._waiting:
            if (problem := blocked(behind)) is None:
                action = "replace" if path == behind else "send"
                self._planned.tell(action, name, show_path(path), kind, size, what.value)
            elif path == behind:
                self._reporter.failed(name, problem)

    def tell_unknown(self, name: str, path: PathParts, kind: str, size: int | None) -> None:
        """The same where the account may not list what is there."""
        self._planned.tell("send", name, show_path(path), kind, size, "what is there is not known")

    def tell_set(self, path: PathParts, kind: str) -> None:
        """That gets another mode."""
        self._planned.tell("set", "", show_path(path), kind, None, Difference.MODE.value)

    def tell_removal(self, path: PathParts, kind: str) -> None:
        """That is removed."""
        self._planned.tell("remove", "", show_path(path), kind, None, Difference.EXTRA.value)

    def end(self) -> None:
        """How much it is in all."""
        self._planned.end()
