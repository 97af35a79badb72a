"""How the two programs read a command: errors in one line, `--`, and which options go with which job.

Rules: each option that is given is honoured or refused, and `_CONFLICTS` alone decides which. After `--`
everything is a name. A name is never empty. This module knows no setting's value and does nothing of what is asked for.
"""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from sft.common.errors import UsageError
from sft.common.started import as_started
from sft.console.help import hint
from sft.console.receiver_names import Receiver
from sft.console.screen import say

PIPE = "-"
PASSWORD_VARIABLE = "SFT_PASSWORD"  # noqa: S105 -- the name of a variable

_STDIN, _STDOUT, _SENDING = "standard input as the SOURCE", "standard output as the TARGET", "sending"

# Each option, and with what it can't be given: other options, one of the two pipes, or the job without an option. What
# stands in the settings file or in a variable is meant for many commands, and is ignored where it does not apply.
_CHANGING = ("--remove", "--move", "--usage")
_JOBS = ("--get", "--list", *_CHANGING)
_CONFLICTS: dict[str, tuple[str, ...]] = {
    **{job: _JOBS[:at] for at, job in enumerate(_JOBS)},
    "--check": (
        *("--list", *_CHANGING, _STDIN, _STDOUT, "--update", "--dry-run", "--receipts", "--if-exists", "--no-modes"),
        *("--preserve-mode", "--limit"),
    ),
    "--recursive": ("--move", "--usage"),  # folders are sent and fetched so anyway, as people of cp and scp type it
    "--yes": ("--get", "--list", "--move", "--usage", _SENDING),
    "--human": ("--get", "--list", "--remove", "--move", _SENDING, "--json"),
    "--exclude": ("--list", *_CHANGING, _STDIN, _STDOUT),
    "--exclude-from": ("--list", *_CHANGING, _STDIN, _STDOUT),
    "--files-from": ("--list", *_CHANGING, _STDIN, _STDOUT),
    "--one-file-system": ("--get", "--list", *_CHANGING, _STDIN),
    "--follow": ("--get", "--list", *_CHANGING, _STDIN),
    "--links": ("--list", *_CHANGING, _STDIN, _STDOUT, "--follow"),
    "--no-modes": ("--list", *_CHANGING, _STDIN, _STDOUT),
    "--preserve-mode": ("--list", *_CHANGING, _STDIN, _STDOUT, "--no-modes"),
    "--update": ("--list", *_CHANGING, _STDIN, _STDOUT, "--if-exists"),
    "--delete": ("--list", *_CHANGING, _STDIN, _STDOUT, "--files-from"),
    "--max-delete": ("--list", *_CHANGING, _STDIN, _STDOUT),
    "--dry-run": ("--list", *_CHANGING, _STDOUT),
    "--receipts": ("--list", *_CHANGING),
    "--if-exists": ("--list", *_CHANGING, _STDOUT),
    "--limit": ("--list", *_CHANGING),
    "--password-fd": ("--password-file",),
    "--verbose": ("--quiet",),
    "--quiet": ("--list", "--usage", "--dry-run", "--show-config"),
    "--json": ("--show-config",),
}
_NEEDS = {"--null": "--files-from", "--delete": "--update", "--max-delete": "--delete"}  # that say more about it
_REMEDIES: dict[str | tuple[str, str], str] = {
    ("--one-file-system", "--get"): "A receiver gives what lies in your folder there, wherever it is mounted",
    "--delete": "It removes what a folder that is sent as a whole has not",
    "--update": "It replaces what has changed, and leaves the rest alone",
    "--check": "It sends, fetches and changes nothing",
    "--dry-run": "Only sending and fetching to a folder can be tried so; --list shows what is there",
    "--recursive": "It is for --list and --remove; a folder is moved with all that is in it",
    "--yes": "It is for --remove, which asks before it removes a folder",
    "--human": "It is for --usage",
    "--if-exists": "It is for sending and fetching",
    ("--if-exists", "--move"): "Moving never replaces anything",
    "--quiet": "It would leave nothing to print",
    "--password-fd": "Name one of them",
}


# How many names each job takes, and how that is put.
_NAMES: dict[str, tuple[int, int | None, str]] = {
    "--get": (2, None, "at least one NAME and a TARGET are needed"),
    "--list": (0, 1, "--list takes one NAME at most"),
    "--remove": (1, None, "at least one NAME is needed"),
    "--move": (2, 2, "--move takes two names, OLD and NEW"),
    "--usage": (0, 0, "--usage takes no NAME but a receiver's, such as nas:"),
    _SENDING: (2, None, "at least one SOURCE and a TARGET are needed"),
}


# What a command that keeps accounts may be given of the settings: where everything is, and how to log.
_WITH_ACCOUNTS = ("accounts", "storage", "server_log", "log_level")


def flag_of(name: str) -> str:
    """`max_logins` is `--max-logins`."""
    return "--" + name.replace("_", "-")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are UsageErrors, shown as one escaped line, and whose help is printed as a result."""

    topics: dict[str, str] | None = None  # None: --help has everything

    @property
    def letters(self) -> str:
        """The options that are one letter."""
        return "".join(option[1] for option in self._option_string_actions if not option.startswith("--"))

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"See {self.prog} --help" if self.topics is None else f"See {hint(self, message)}")

    def print_help(self, file: Any = None) -> None:
        say(*as_started(self.format_help()).splitlines())


def read_intermixed(parser: argparse.ArgumentParser, arguments: Sequence[str], names: str) -> argparse.Namespace:
    """The options, and as `names` all else, wherever it stands; behind `--` everything. Raises UsageError."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    # The library loses a `--` here, and then takes what comes behind it for options.
    options = parser.parse_intermixed_args(arguments[:end])
    setattr(options, names, [*getattr(options, names), *arguments[end + 1 :]])
    return options


def check_command(options: argparse.Namespace, receiver: Receiver | None = None) -> None:
    """Raises UsageError for names that can't be meant, and for options that do not go together.

    `receiver`: the one that was taken from the names; SOURCEs there are fetched without --get.
    """
    if "" in options.names:
        is_change = options.remove or options.move
        remedy = "Name what is meant" if is_change else "Write . for a whole folder"
        raise UsageError("an empty name stands for nothing", remedy)
    given = _given(options)
    for option in given:
        for other in _CONFLICTS.get(option, ()):
            if other in given:
                shown = "fetching" if other == "--get" and receiver is not None else other
                remedy = _REMEDIES.get((option, other)) or _REMEDIES.get(option, "Leave one of them out")
                raise UsageError(f"{option} does not go with {shown}", remedy)
        if (needed := _NEEDS.get(option)) is not None and needed not in given:
            raise UsageError(f"{option} goes only with {needed}", f"Add {needed}, or leave {option} out")
    if options.show_config:
        return
    if options.files_from is not None and len(options.names) > 2:
        raise UsageError("--files-from takes one SOURCE, which its names are below", "Use a command for each SOURCE")
    job = next((job for job in _JOBS if job in given), _SENDING)
    least, most, words = _NAMES[job]
    if not least <= len(options.names) <= (len(options.names) if most is None else most):
        raise UsageError(words, "See client.py --help")


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
    is_sending = not options.show_config and not any(job in given for job in _JOBS)
    given += [_SENDING] if is_sending else []
    given += [_STDIN] if is_sending and PIPE in options.names[:-1] else []
    given += [_STDOUT] if options.get and PIPE in options.names[-1:] else []
    return given
