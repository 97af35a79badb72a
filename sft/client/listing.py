"""One listing of a folder at the receiver, or of all below it, page by page, over as many connections as it takes.

Rules: another connection goes on behind the last name that was printed. Names come in the order of their bytes, each
once; a server that breaks that order, or answers with anything else than pages, breaks the protocol.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sft.client.branches import Branches
from sft.client.missing import report_omitted
from sft.client.refusals import SKIPPED, TIME_BEYOND, not_given
from sft.client.targets import checked_parts
from sft.common.errors import PASSING_CODES, Code, ConnectionTrouble, PeerStopped, ProtocolViolation, Refused
from sft.common.sizes import counted
from sft.common.text import show_path
from sft.console.reporter import Reporter
from sft.console.screen import is_unsaid
from sft.wire.protocol import MAX_INTEGER, OMITTED_LIMIT

if TYPE_CHECKING:  # a client sends its hello before it loads the messages
    from sft.wire.channel import Channel
    from sft.wire.messages import Entries, Entry, Message, Omitted
    from sft.wire.tree_messages import Node


class Listing:
    """The listing of one folder."""

    def __init__(self, reporter: Reporter, name: str) -> None:
        """Raises UsageError for a name that no receiver allows."""
        self._reporter, self._name, self._path = reporter, name, checked_parts(name)
        self._last: str | None = None  # the name that was printed last

    kept = "the list is not whole"

    def run(self, channel: "Channel") -> None:
        """Print what is not printed yet. Raises ConnectionTrouble, ProtocolViolation."""
        messages = (arrived[0] for arrived in channel.messages() if arrived is not None)
        try:
            self._print_all(channel, messages)
        except Refused as problem:
            if problem.code in PASSING_CODES:
                raise PeerStopped(problem.code) from None
            what = self._name or "your folder"
            self._reporter.failed(what, not_given(problem, what, "list"))
        channel.say_bye()
        with contextlib.suppress(ConnectionTrouble):  # all that was asked for is here, with or without a BYE
            if next(messages, None) is not None:
                raise ProtocolViolation("a message behind a listing")

    def _print_all(self, channel: "Channel", messages: "Iterator[Message]") -> None:
        """Raises Refused, too."""
        from sft.wire.messages import ListFolder, Refuse

        id, more = 0, True
        while more and not is_unsaid():
            id += 1
            channel.post(ListFolder(id, self._path, self._last).encode())
            answer = next(messages, None)
            if isinstance(answer, Refuse) and answer.id == id:
                raise Refused(answer.code)
            missed, page = page_of(id, answer, messages)
            self._report(missed)
            self._print(page)
            more = page.more

    def _report(self, missed: "list[Omitted]") -> None:
        for omitted in missed:
            name = "/".join((*self._path, omitted.name))
            if omitted.code in SKIPPED:
                more = f" (and {counted(omitted.more, 'more name')} beside it)" if omitted.more else ""
                self._reporter.note(f"{name}{more}: {SKIPPED[omitted.code]}")
            else:
                report_omitted(self._reporter, omitted, name)

    def _print(self, page: "Entries") -> None:
        for entry in page.entries:
            if self._last is not None and entry.name.encode() <= self._last.encode():
                raise ProtocolViolation("a listing that is out of its order")
            self._last = entry.name
            self._print_entry(entry.name, entry)

    def _print_entry(self, name: str, entry: "Entry | Node") -> None:
        self._reporter.listed(name, entry.kind, entry.size, entry.mtime, entry.target)
        if abs(entry.mtime) == MAX_INTEGER:
            self._reporter.note(f"{name}: {TIME_BEYOND}")


class TreeListing(Listing):
    """The listing of everything below one folder, with paths below it; of what is not a folder, a plain one."""

    def __init__(self, reporter: Reporter, name: str) -> None:
        super().__init__(reporter, name)
        self._branches = Branches(self._path)

    def _print_all(self, channel: "Channel", messages: "Iterator[Message]") -> None:
        try:
            for page in self._branches.pages(channel, messages):
                self._report(page.omitted)
                for path, node in page.entries:
                    self._print_entry(show_path(path), node)
                if is_unsaid():
                    return
        except Refused as problem:
            if problem.code is not Code.NOT_FOLDER:
                raise
            super()._print_all(channel, messages)


def page_of(id: int, message: "Message | None", messages: "Iterator[Message]") -> "tuple[list[Omitted], Entries]":
    """The answer to the LIST with that `id`: names that can't be listed, then the page. Raises ProtocolViolation."""
    from sft.wire.messages import Entries, Omitted

    missed: list[Omitted] = []
    while isinstance(message, Omitted) and message.id == id and len(missed) < OMITTED_LIMIT:
        missed.append(message)
        message = next(messages, None)
    if not isinstance(message, Entries) or message.id != id or (message.more and not message.entries):
        raise ProtocolViolation("no answer to LIST")
    return missed, message
