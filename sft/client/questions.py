"""The jobs that only ask and change at the receiver, as the options have them: listing, removing, moving, usage.

Rules: a pattern is one only where names are looked for; to move, a name is what was typed. A person is asked
before a folder is removed.
"""

import functools
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
    log: Path | None = None,
) -> ChangeJob:
    """The job that was asked for. `log`: our own. Raises UsageError."""
    if options.list:
        name = names[0] if names else ""
        if is_pattern(name):
            return MatchListing(reporter, name, options.recursive)
        return (TreeListing if options.recursive else Listing)(reporter, literal_of(name))
    if options.check:
        return CheckingThere(reporter, options, names, log)
    if options.remove:
        may_ask = not options.yes and not options.json and is_interactive()
        asked = functools.partial(_confirm_removal, reporter) if may_ask else None
        return Removing(reporter, names, options.recursive, asked)
    return Moving(reporter, *names) if options.move else Counting(reporter, options.human)


def _confirm_removal(reporter: Reporter, path: str) -> bool:
    """Whether a person wants that folder to be removed."""
    from sft.console.prompt import confirm

    reporter.pause()
    return confirm(f"remove the folder {path} and everything in it? [y/N] ")
