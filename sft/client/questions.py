"""The jobs that only ask and change at the receiver, as the options have them: listing, removing, moving, usage.

Rules: a pattern is one only where names are looked for; to move, a name is what was typed. Nothing is asked here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sft.client.changing import ChangeJob, Counting, Moving, Removing
from sft.client.checking import CheckingThere
from sft.client.globs import is_pattern, literal_of
from sft.client.listing import Listing, TreeListing
from sft.client.matching import MatchListing
from sft.console.reporter import Reporter
from sft.console.screen import is_interactive

if TYPE_CHECKING:
    import argparse


def question_job(
    reporter: Reporter,
    options: "argparse.Namespace",
    names: list[str],
    confirm: Callable[[str], bool],
    log: Path | None = None,
) -> ChangeJob:
    """The job that was asked for. `confirm(path)` asks a person before a folder is removed. `log`: our own.

    Raises UsageError.
    """
    if options.list:
        name = names[0] if names else ""
        if is_pattern(name):
            return MatchListing(reporter, name, options.recursive)
        return (TreeListing if options.recursive else Listing)(reporter, literal_of(name))
    if options.check:
        return CheckingThere(reporter, options, names, log)
    if options.remove:
        may_ask = not options.yes and not options.json and is_interactive()
        return Removing(reporter, names, options.recursive, confirm if may_ask else None)
    return Moving(reporter, *names) if options.move else Counting(reporter, options.human)
