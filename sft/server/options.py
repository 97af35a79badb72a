"""The account commands on the command line, and the limits that an account may have.

Rules: `LIMITS` has one row for each limit; parsing, help and every list of limits follow it. It loads nothing that
--help does not need. It touches no account: `sft/server/admin.py` runs the commands.
"""

import argparse
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from sft.common.errors import UsageError
from sft.common.sizes import counted, exact_size, parse_size
from sft.console.command_line import flag_of

NO_LIMIT = "none"
# What an account may do, and sets of rights that have a name; `sft/accounts/format.py` has the same words.
RIGHTS = ("put", "get", "list", "replace", "remove", "links")
DEFAULT_RIGHTS = ("put", "get", "list", "replace")
PRESETS = {"drop_only": ("put",), "append_only": ("put", "get", "list"), "read_only": ("get", "list")}
_PRESET_WORDS = {
    "drop_only": "may only send; names that are taken get a number (--rights put)",
    "append_only": "may send, fetch and list, and replace or remove nothing (--rights put,get,list)",
    "read_only": "may only fetch and list (--rights get,list)",
}
# Rights that do nothing without another one: what is replaced is compared before, and links are sent.
_NEEDS = {"replace": "get", "links": "put"}
_DIGITS = 19  # so many digits and more are refused

Limits = Mapping[str, Any]  # by the names of an account's fields; None: no limit


class Limit(NamedTuple):
    """One limit of an account: its field, how it is given, and how `users` shows it beside the account."""

    field: str
    metavar: str
    is_size: bool
    words: str
    shown: Callable[[int], str]

    @property
    def flag(self) -> str:
        return flag_of(self.field)


LIMITS = (
    Limit(
        "quota",
        "SIZE",
        True,
        "bytes that it may keep there, such as 10G; each file and folder counts as 512 at least",
        lambda n: f"of {exact_size(n)}",
    ),
    Limit(
        "quota_files", "COUNT", False, "files and folders that it may keep there", lambda n: f"of {counted(n, 'file')}"
    ),
    Limit("largest", "SIZE", True, "the largest file, such as 1G", lambda n: f"a file up to {exact_size(n)}"),
    Limit("rate", "SIZE", True, "bytes per second, over all its connections", lambda n: f"{exact_size(n)}/s"),
    Limit("connections", "COUNT", False, "connections at once", lambda n: counted(n, "connection")),
)


_COMMANDS = {
    "adduser": "add an account",
    "passwd": "change a password",
    "deluser": "remove an account; its files stay",
    "limits": "change what an account may use; without a flag, show it",
    "users": "list the accounts, their rights, and what they use",
    "recount": "count again what accounts with a quota use, such as after files were removed by hand",
}
# Of the server that runs with these accounts on this machine.
LIVE_COMMANDS = {
    "status": "show who is connected to the running server, what moves, and how fast",
    "kick": "end the connections that a user has at the running server",
    "unban": "let the running server forget what was tried: from an address or a /64, or at a username",
}


def add_account_commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The account commands as sub-commands of the server's parser; the parser of each."""
    commands = parser.add_subparsers(dest="command", title="accounts, and the running server", metavar="COMMAND")
    add, change, remove, limits, _, recount, status, kick, unban = (
        commands.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.", allow_abbrev=False)
        for name, words in (_COMMANDS | LIVE_COMMANDS).items()
    )
    status.add_argument("--json", action="store_true", help="one JSON object for each connection, and one for all")
    kick.add_argument("name", metavar="NAME", help="the username")
    unban.add_argument("whom", metavar="WHOM", help="an address, an IPv6 /64, or a username")
    recount.add_argument("name", metavar="NAME", nargs="?", help="only this account")
    recount.add_argument(
        "--drop-parts",
        action="store_true",
        help="before, remove what is kept of interrupted transfers; they start again",
    )
    for each in (add, change, limits, remove):
        each.add_argument("name", metavar="NAME", help="a username: a-z, 0-9, dot, dash, underscore; up to 32")
    for each in (add, change):
        each.add_argument(
            "--password-file",
            metavar="FILE",
            dest="new_password_file",
            help="its first line is the password (-: standard input)",
        )
    add.add_argument(
        "--keep-files",
        action="store_true",
        help="let it have what an earlier account of that name has left",
    )
    words = "share the folder FOLDER with other accounts, each with its own rights; it is made if it is missing"
    add.add_argument("--folder", metavar="FOLDER", help=words)
    for each in (add, limits):
        rights = each.add_mutually_exclusive_group()
        default = f"; without it {','.join(DEFAULT_RIGHTS)}" if each is add else ""
        words = f"what it may do, separated by commas: {', '.join(RIGHTS)}; +RIGHT adds one, -RIGHT takes it{default}"
        rights.add_argument("--rights", metavar="RIGHT,...", help=words)
        for preset in PRESETS:
            rights.add_argument(flag_of(preset), action="store_true", help=_PRESET_WORDS[preset])
        for limit in LIMITS:
            words = f"{limit.words} ({NO_LIMIT}: no limit)"
            each.add_argument(limit.flag, metavar=limit.metavar, dest=f"limit_{limit.field}", help=words)
    return list(commands.choices.values())


def rights_of(options: argparse.Namespace, before: Collection[str]) -> frozenset[str] | None:
    """The rights that were named, or those `before` with some added or taken; None: no option names any.

    Raises UsageError.
    """
    for preset, words in PRESETS.items():
        if getattr(options, preset):
            return frozenset(words)
    if options.rights is None:
        return None
    words = options.rights.split(",")
    for word in words:
        if word[word[:1] in ("+", "-") :] not in RIGHTS:
            raise UsageError(f'--rights: "{word}" is not a right', f"Choose from {', '.join(RIGHTS)}")
    signs = {word[0] for word in words if word[0] in "+-"}
    if not signs:
        return frozenset(words)
    if not all(word[0] in "+-" for word in words):
        cause = f'--rights: "{options.rights}" has words with + or - and others without'
        raise UsageError(cause, "Name all rights that it is to have, or put + or - before each")
    taken = {word[1:] for word in words if word[0] == "-"}
    rights = (frozenset(before) | {word[1:] for word in words if word[0] == "+"}) - taken
    if not rights:
        raise UsageError(f"--rights: {options.rights} leaves no right", "deluser NAME removes the account")
    return rights


def without_effect(rights: frozenset[str]) -> list[str]:
    """A line for each right that does nothing, because another one is missing."""
    idle = [(right, needed) for right, needed in _NEEDS.items() if right in rights and needed not in rights]
    return [
        f"the right {right} does nothing without {needed}: add it with --rights +{needed}" for right, needed in idle
    ]


def limits_of(options: argparse.Namespace) -> Limits:
    """The limits that were named, by their fields; None for one that is lifted. Raises UsageError."""
    found: dict[str, int | None] = {}
    for limit in LIMITS:
        text = getattr(options, f"limit_{limit.field}")
        if text is None:
            continue
        try:
            found[limit.field] = None if text == NO_LIMIT else parse_size(text) if limit.is_size else _count(text)
        except ValueError as problem:
            raise UsageError(f'{limit.flag}: "{text}" {problem}', f"It means: {limit.words}") from None
    return found


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not (number := int(text[:_DIGITS])) > 0 or len(text) >= _DIGITS:
        raise ValueError("is not a whole number above zero")
    return number
