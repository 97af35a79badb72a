"""How the two programs read a command: errors in one line, `--`, and which options go with which job.

Rules: each option that is given is honoured or refused, and `_CONFLICTS` alone decides which. After `--`
everything is a name. A name is never empty. This module knows no setting's value and does nothing of what is asked for.
"""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from sft.common.errors import UsageError
from sft.console.screen import say

PIPE = "-"
PASSWORD_VARIABLE = "SFT_PASSWORD"  # noqa: S105 -- the name of a variable

_STDIN, _STDOUT, _SENDING = "standard input as the SOURCE", "standard output as the TARGET", "sending"

# Each option, and with what it can't be given: other options, one of the two pipes, or the job without an option. What
# stands in the settings file or in a variable is meant for many commands, and is ignored where it does not apply.
_CONFLICTS: dict[str, tuple[str, ...]] = {
    "--list": ("--get",),
    "--recursive": ("--get", _SENDING),
    "--follow": ("--get", "--list", _STDIN),
    "--preserve-mode": ("--list", _STDIN, _STDOUT),
    "--dry-run": ("--get", "--list"),
    "--receipts": ("--list",),
    "--if-exists": ("--list", _STDOUT),
    "--limit": ("--list",),
    "--password-fd": ("--password-file",),
    "--quiet": ("--list", "--dry-run", "--show-config"),
    "--json": ("--show-config",),
}
_REMEDIES = {
    "--dry-run": "Only sending can be tried so; --list shows what is there",
    "--recursive": "It is for --list; folders are sent and fetched with all that is in them",
    "--quiet": "It would leave nothing to print",
    "--password-fd": "Name one of them",
}


# What a command that keeps accounts may be given of the settings: where everything is, and how to log.
_WITH_ACCOUNTS = ("accounts", "storage", "server_log", "log_level")


def flag_of(name: str) -> str:
    """`max_logins` is `--max-logins`."""
    return "--" + name.replace("_", "-")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are UsageErrors, shown as one escaped line, and whose help is printed as a result."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"See {self.prog} --help")

    def print_help(self, file: Any = None) -> None:
        say(*self.format_help().splitlines())


def read_intermixed(parser: argparse.ArgumentParser, arguments: Sequence[str], names: str) -> argparse.Namespace:
    """The options, and as `names` all else, wherever it stands; behind `--` everything. Raises UsageError."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    # The library loses a `--` here, and then takes what comes behind it for options.
    options = parser.parse_intermixed_args(arguments[:end])
    setattr(options, names, [*getattr(options, names), *arguments[end + 1 :]])
    return options


def check_command(options: argparse.Namespace) -> None:
    """Raises UsageError for names that can't be meant, and for options that do not go together."""
    if "" in options.names:
        raise UsageError("an empty name stands for nothing", "Write . for a whole folder")
    given = _given(options)
    for option in given:
        for other in _CONFLICTS.get(option, ()):
            if other in given:
                raise UsageError(f"{option} does not go with {other}", _REMEDIES.get(option, "Leave one of them out"))
    if options.show_config:
        return
    if options.list and len(options.names) > 1:
        raise UsageError("--list takes one NAME at most", "See client.py --help")
    if not options.list and len(options.names) < 2:
        what = "NAME" if options.get else "SOURCE"
        raise UsageError(f"at least one {what} and a TARGET are needed", "See client.py --help")


def check_account_command(command: str, settings: Iterable[str]) -> None:
    """Raises UsageError for a setting of the command line that only serving has a use for."""
    for name in settings:
        if name not in _WITH_ACCOUNTS:
            raise UsageError(
                f"{flag_of(name)} does not go with {command}", "It is for serving, which is without a command"
            )


def _given(options: argparse.Namespace) -> list[str]:
    """The options on the command line as they are written, and the pipes among its names."""
    given = [flag_of(name) for name, value in vars(options).items() if value not in (None, False, [])]
    given += [_SENDING] if not options.get and not options.list and not options.show_config else []
    given += [_STDIN] if not options.get and PIPE in options.names[:-1] else []
    given += [_STDOUT] if options.get and PIPE in options.names[-1:] else []
    return given
