"""`server.py adduser`, `passwd`, `deluser` and `users`: the accounts file from the command line.

Rules: passwords come from the terminal, twice, or from a file, and are turned into a registration here, so that no
other room of the server ever sees one. A weak one is refused. What was done is said in one line.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from accounts.passwords import ask_new_password, check_strength, generate_password, read_password_file
from accounts.users import RIGHTS, Account, Accounts, check_username
from errors import UsageError
from report import note, say
from wire.handshake import password_scalars
from wire.pake import Registration

_DROP_ONLY = frozenset({"put"})


def add_parsers(parser: argparse.ArgumentParser) -> None:
    """The commands, as sub-commands of the server's own."""
    commands = parser.add_subparsers(dest="command", title="accounts", metavar="COMMAND")
    add = commands.add_parser("adduser", help="add an account", description="Add an account.", allow_abbrev=False)
    change = commands.add_parser(
        "passwd", help="change a password", description="Change a password.", allow_abbrev=False
    )
    remove = commands.add_parser("deluser", help="remove an account; its files stay", allow_abbrev=False)
    commands.add_parser("users", help="list the accounts and their rights", allow_abbrev=False)
    for each in (add, change, remove):
        each.add_argument("name", metavar="NAME", help="a username: a-z, 0-9, dot, dash, underscore; up to 32")
    for each in (add, change):
        each.add_argument(
            "--password-file",
            metavar="FILE",
            dest="new_password_file",
            help="its first line is the password (-: standard input)",
        )
    add.add_argument(
        "--drop-only",
        action="store_true",
        help="may only send; names that are taken get a number",
    )


def run(command: str, accounts: Path, storage: Path, options: argparse.Namespace) -> None:
    """Run one of the commands. Raises UsageError."""
    _COMMANDS[command](accounts, storage, options)


def first_account(accounts: Path, name: str) -> str:
    """Make the accounts file with one account; its password, which nobody will be able to show again."""
    password = generate_password()
    _add(Accounts.create(accounts), name, password, frozenset(RIGHTS))
    return password


def open_accounts(accounts: Path, report: Callable[[str], None] = lambda _: None) -> Accounts:
    """The accounts of a file that is there. Raises UsageError with what to do when it is not."""
    if not Accounts.exists(accounts):
        raise UsageError(f"there are no accounts yet ({accounts})", "Run: python server.py adduser NAME")
    return Accounts.open(accounts, report)


def _register(accounts: Accounts, name: str, password: str) -> Registration:
    user = name.encode()
    return Registration.of(*password_scalars(password, user, accounts.salt(user), accounts.profile))


def _new_password(name: str, options: argparse.Namespace) -> str:
    if options.new_password_file is None:
        return ask_new_password(name)
    password = read_password_file(options.new_password_file)
    check_strength(password, name)
    return password


def _add(accounts: Accounts, name: str, password: str, rights: frozenset[str]) -> None:
    accounts.add(Account(name, _register(accounts, name, password), rights, None, None))


def _adduser(path: Path, storage: Path, options: argparse.Namespace) -> None:
    name = options.name
    check_username(name)
    if Accounts.exists(path) and name in open_accounts(path).names():
        raise UsageError(
            f"there is an account {name} already", f"To change its password: python server.py passwd {name}"
        )
    password = _new_password(name, options)
    _add(Accounts.create(path), name, password, _DROP_ONLY if options.drop_only else frozenset(RIGHTS))
    say(f"added {name}; its files will arrive in {storage / name}")


def _passwd(path: Path, storage: Path, options: argparse.Namespace) -> None:
    accounts, name = open_accounts(path), options.name
    if name not in accounts.names():
        raise UsageError(f"there is no account {name}", "See those that exist: python server.py users")
    password = _new_password(name, options)
    accounts.replace_password(name, _register(accounts, name, password))
    say(f"changed the password of {name}; connections that it has end at their next file")


def _deluser(path: Path, storage: Path, options: argparse.Namespace) -> None:
    open_accounts(path).remove(options.name)
    say(f"removed {options.name}; what it sent stays in {storage / options.name}")


def _users(path: Path, storage: Path, options: argparse.Namespace) -> None:
    accounts = open_accounts(path)
    for account in accounts.all():
        say(f"{account.name:<32}  {','.join(right for right in RIGHTS if right in account.rights)}")
    for damage in accounts.damaged:
        note(f"warning: {path}, {damage}")


_COMMANDS: dict[str, Callable[[Path, Path, argparse.Namespace], None]] = {
    "adduser": _adduser,
    "passwd": _passwd,
    "deluser": _deluser,
    "users": _users,
}
