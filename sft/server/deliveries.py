"""What one connection has stored, as lines of JSON for the administrator's program, in groups as it became visible.

    {"user": "alice", "source": "203.0.113.9", "time": "2026-01-31T12:00:00.123456Z", "kind": "file",
     "path": "photos/a.jpg", "full_path": "/srv/sft/received/alice/photos/a.jpg", "bytes": 3, "sha256": "98ea..."}

Rules: a file or link that was stored is in one group, whatever becomes of the connection. Folders, and what was there
already, are in none. Nothing is run here.
"""

import os
from pathlib import Path

from sft.accounts.format import Account
from sft.common.errors import Refused
from sft.common.text import show_briefly
from sft.console.lines import as_json, utc
from sft.server.hooks import Delivered as Group
from sft.server.hooks import Hooks
from sft.transfer.events import BatchCutOff, BatchSettled, Delivered, Idle, ReceiveEvent
from sft.wire.messages import Receipt


class Deliveries:
    """Give it the events of a transfer."""

    def __init__(self, hooks: Hooks, account: Account, source: str, storage: Path) -> None:
        """`storage`: the root of all users' folders."""
        self._hooks, self._user, self._source = hooks, account.name, source
        self._folder = storage / account.home
        self._lines: list[str] = []
        self._first = ""

    def on_event(self, event: ReceiveEvent) -> None:
        """Note what was stored; after the last of a group, hand that over."""
        if isinstance(event, Idle):
            self._hand_over()
        elif not self._hooks.is_on:
            pass
        elif isinstance(event, Delivered):
            self._stored(event.receipt, event.what.target)
        elif isinstance(event, BatchSettled | BatchCutOff):
            for _, became in event.files:
                if not isinstance(became, Refused):
                    self._stored(became, None)

    def _stored(self, receipt: Receipt, target: str | None) -> None:
        if receipt.outcome != "stored":
            return
        fields: dict[str, object] = {"user": self._user, "source": self._source, "time": utc(receipt.time)}
        path = "/".join(receipt.path)
        fields |= {"kind": "file" if target is None else "link", "path": path}
        fields["full_path"] = os.path.join(self._folder, path)
        if target is None:
            fields |= {"bytes": receipt.size, "sha256": None if receipt.sha256 is None else receipt.sha256.hex()}
        else:
            fields["target"] = target
        self._first = self._first or show_briefly(receipt.path)
        self._lines.append(as_json(fields) + "\n")

    def _hand_over(self) -> None:
        if self._lines:
            lines, first = self._lines, self._first
            self._lines, self._first = [], ""
            self._hooks.deliver(Group(self._user, first, len(lines), "".join(lines).encode()))
