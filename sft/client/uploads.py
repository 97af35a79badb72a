"""One command that sends, from its settings and options: what it sends, what it does behind that, or what it tells.

Rules: no connection is made here.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from sft.client.finishing import Finishing
from sft.client.own_logs import files_of_log
from sft.client.sending_plan import SendingPlan
from sft.client.upload import Upload
from sft.common.background import BackgroundTask
from sft.common.errors import ConnectionTrouble, ProtocolViolation
from sft.console.reporter import Reporter
from sft.disk.chosen import choose

if TYPE_CHECKING:
    import argparse

    from config import ClientSettings
    from sft.client.receipts_file import ReceiptsFile
    from sft.wire.channel import Channel


class Prepared(NamedTuple):
    """`finishing`: what is done behind the upload; `plan`: nothing is done, but told there."""

    upload: Upload
    finishing: Finishing | None
    plan: SendingPlan | None


def prepare(
    reporter: Reporter, settings: "ClientSettings", options: "argparse.Namespace", receipts: "ReceiptsFile | None"
) -> Prepared:
    """What a command asks for. Raises UsageError."""
    update = options.update
    policy = "replace" if update else settings.if_exists
    plan = SendingPlan(reporter, policy, update) if options.dry_run else None
    compares = update or options.dry_run
    finishing = Finishing(reporter, options.delete, options.max_delete) if compares else None
    logs, modes = files_of_log(settings.client_log), not options.no_modes
    upload = Upload(reporter, policy, options.follow, modes, logs, choose(options), finishing, options.links, plan)
    if receipts is not None:
        upload.leave_out(receipts.identity, "the file of these receipts")
    return Prepared(upload, finishing, plan)


def take_up_waiting(upload: Upload, finishing: Finishing, reporter: Reporter) -> bool:
    """Have what waited for something in the way sent, unless that is still there; whether there is anything to send."""
    for item, behind in finishing.way.take_waiting().items():
        problem = finishing.way.blocked(behind)
        if problem is None:
            upload.left[item] = None
        elif item.target == behind:
            reporter.failed(item.name, problem, within=item.within)
        elif item.kind == "folder":
            reporter.folder_there(item.within)
        else:
            reporter.failed_beside(1, item.within)
    return bool(upload.left)


@contextlib.contextmanager
def compare(upload: Upload, finishing: Finishing, plan: SendingPlan) -> "Iterator[Callable[[Channel], None]]":
    """A function that compares over one connection, and goes on over the next. `plan` shows what it has found."""
    for item in upload.left:  # standard input
        plan.tell_unknown(item.name, item.target, "file", None)
    looking = BackgroundTask("looking", upload.look_below)

    def read(channel: "Channel") -> None:
        messages = channel.messages()
        upload.look_there(channel, messages)
        channel.say_bye()
        with contextlib.suppress(ConnectionTrouble):  # every answer is here, with or without a BYE
            if any(arrived is not None for arrived in messages):
                raise ProtocolViolation("a message behind the last answer")

    try:
        yield read
    finally:
        upload.is_over = True
    looking.wait()
    finishing.tell(plan)
    plan.end()
