"""A reporter for tests of the client that keeps what it is given."""

from sft.common.errors import TransferError
from sft.console.log import no_log
from sft.console.named import NamedFolder
from sft.console.reporter import Reporter


class Noted(Reporter):
    """A reporter that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(no_log("test.plans"), quiet=True, as_json=False)
        self.problems: list[tuple[str, TransferError]] = []
        self.left_out: list[str] = []
        self.done: list[tuple[str, str, str]] = []

    def failed(
        self, name: str, problem: TransferError, quietly: bool = False, within: NamedFolder | None = None
    ) -> None:
        self.problems.append((name, problem))

    def skipped(self, name: str, why: str, within: NamedFolder | None = None, is_wanted: bool = False) -> None:
        self.left_out.append(name)

    def delivered(
        self,
        name: str,
        path: str,
        size: int,
        sha256: bytes,
        time_ns: int,
        outcome: str,
        within: NamedFolder | None = None,
        target: str | None = None,
    ) -> None:
        self.done.append((name, path, outcome))
