"""One thing to send: what it is here, and what it will be there.

Rules: an item lives for one run of the program, over as many connections as that takes; what one of them has found out
about it is written down here. It knows no channel, no message and no folder.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from crypto_utils import random_bytes
from sft.common.names import judge_path
from sft.disk.sources import Source
from sft.wire.protocol import TRANSFER_ID_SIZE

if TYPE_CHECKING:
    from sft.console.named import NamedFolder
    from sft.wire.messages import PolicyWord

_COMPONENT_MEMORY = 80  # bytes that one costs beside its characters


def memory_of(body: bytes, components: int) -> int:
    """How many bytes of memory announced paths cost, at either end, until they are settled.

    `body` holds them as they are announced; `components`: of all of them.
    """
    return len(body) + _COMPONENT_MEMORY * components


class Item:
    """One file, folder or link to send.

    `open` is None for a folder and a link; `leads_to`: what a link says. `transfer` names it over several connections;
    `sha256` is what an END has said of it.
    `is_stream`: its content has another size than its file system says. `offer`: a small one is offered by its digest
    first, and its content sent when it is wanted. `found_size`: as it was when it was found, if that is known.
    `keeps_mode`: whether a file's permission bits are sent; those of a folder are `mode`.
    `within`: the named folder that it lies in, for what is printed. `is_judged`: its target is known to be allowed.
    """

    __slots__ = (
        "_is_judged",
        "_transfer",
        "found_size",
        "is_stream",
        "keeps_mode",
        "leads_to",
        "mode",
        "mtime",
        "name",
        "offer",
        "open",
        "policy",
        "sha256",
        "target",
        "within",
    )

    def __init__(
        self,
        name: str,
        target: tuple[str, ...],
        policy: "PolicyWord",
        open: Callable[[], Source] | None,
        mtime: int | None = None,
        mode: int | None = None,
        keeps_mode: bool = True,
        transfer: bytes | None = None,
        leads_to: str | None = None,
        is_judged: bool = False,
    ) -> None:
        self.name, self.target, self.policy, self.open = name, target, policy, open
        self.mtime, self.mode, self.keeps_mode = mtime, mode, keeps_mode
        self._transfer, self.leads_to = transfer, leads_to
        self.offer = False
        self.within: NamedFolder | None = None
        self.found_size: int | None = None
        self.sha256: bytes | None = None
        self.is_stream = False
        self._is_judged = is_judged

    @property
    def kind(self) -> Literal["file", "folder", "link"]:
        """What it is."""
        return "file" if self.open is not None else "folder" if self.leads_to is None else "link"

    @property
    def transfer(self) -> bytes:
        """The id in its PUTs; small files in a BATCH have that of the run."""
        if self._transfer is None:
            self._transfer = random_bytes(TRANSFER_ID_SIZE)
        return self._transfer

    @transfer.setter
    def transfer(self, transfer: bytes) -> None:
        self._transfer = transfer

    def judge(self) -> None:
        """Raises Refused for a target that is not allowed. It is looked at once."""
        if not self._is_judged:
            judge_path(self.target)
            self._is_judged = True
