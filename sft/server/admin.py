"""`server.py adduser`, `limits`, `passwd`, `deluser`, `users` and `recount`: accounts from the command line.

Rules: passwords come from the terminal, twice, or from a file, and are turned into a registration here, so that no
other module of the server ever sees one. A weak one is refused. What was done is printed in one line.
"""

import argparse
import functools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from crypto_utils import check_library
from sft.accounts.format import RIGHTS, Account, check_account_name, check_folder_name, unknown_account
from sft.accounts.passwords import ask_new_password, check_strength, generate_password, read_password_file
from sft.accounts.store import Accounts
from sft.common.errors import Refused, UsageError
from sft.common.sizes import amount, counted, exact_size
from sft.console.screen import note, say, warn
from sft.disk.amounts import Amount
from sft.disk.quota import NOT_TEMPORARY
from sft.disk.root import PARTIAL_AREA
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from sft.server.options import DEFAULT_RIGHTS, LIMITS, NO_LIMIT, Limits, limits_of, rights_of, without_effect
from sft.wire.handshake import password_scalars
from sft.wire.pake import Registration

_Found = TypeVar("_Found")

_CUT_OFF = "connections that it has are cut off within a second"


def run(command: str, accounts: Path, storage: Path, options: argparse.Namespace) -> None:
    """Run one of the commands. Raises UsageError."""
    check_library()
    _COMMANDS[command](accounts, storage, options)


def first_account(accounts: Path, name: str) -> str:
    """Make the accounts file with one account, which may do everything; its password, which can't be shown again."""
    password = generate_password()
    _add(Accounts.create(accounts), name, password, frozenset(RIGHTS), {})
    return password


def open_accounts(accounts: Path, report: Callable[[str], None] = lambda _: None) -> Accounts:
    """The accounts of a file that is there. Raises UsageError with what to do when it is not."""
    if not Accounts.exists(accounts):
        raise UsageError(f"there are no accounts yet ({accounts})", "Run: python server.py adduser NAME")
    return Accounts(accounts, report)


def _named(accounts: Accounts) -> dict[str, Account]:
    return {account.name: account for account in accounts.all()}


def _register(accounts: Accounts, name: str, password: str) -> Registration:
    user = name.encode()
    return Registration.of(*password_scalars(password, user, accounts.salt(user), accounts.profile))


def _new_password(name: str, options: argparse.Namespace) -> str:
    if options.new_password_file is None:
        return ask_new_password(name)
    password = read_password_file(options.new_password_file, warn)
    check_strength(password, name)
    return password


def _add(accounts: Accounts, name: str, password: str, rights: frozenset[str], limits: Limits) -> None:
    account = Account(name, _register(accounts, name, password), rights, None, None)
    accounts.add(replace(account, **limits))


def _adduser(path: Path, storage: Path, options: argparse.Namespace) -> None:
    name = options.name
    check_account_name(name)
    if options.folder is not None:
        check_folder_name(options.folder)
    if Accounts.exists(path) and name in open_accounts(path).names():
        raise UsageError(
            f"there is an account {name} already", f"To change its password: python server.py passwd {name}"
        )
    limits, rights = limits_of(options), rights_of(options, DEFAULT_RIGHTS) or frozenset(DEFAULT_RIGHTS)
    folder = options.folder or name
    others = _users_of(folder, path)
    if others and options.folder is None:
        raise UsageError(
            f"the folder {name} is used by {', '.join(others)}",
            f"Choose another name, or let {name} share it: python server.py adduser {name} --folder {name}",
        )
    if not others and not options.keep_files and (left := _left_by(folder, storage)) is not None:
        raise UsageError(
            f"there are files of an earlier account {folder} in {left}",
            f"Choose another name, or move them away, or let the new account have them: "
            f"python server.py adduser {name} --keep-files",
        )
    password = _new_password(name, options)
    _add(Accounts.create(path), name, password, rights, {**limits, "folder": options.folder})
    _warn_about(rights)
    shared = f", which {', '.join(others)} uses, too" if others else ""
    say(f"added {name}; its files will arrive in {storage / folder}{shared}")


def _users_of(folder: str, path: Path) -> list[str]:
    """The accounts whose files are in that folder."""
    accounts = open_accounts(path).all() if Accounts.exists(path) else []
    return [account.name for account in accounts if account.home == folder]


def _warn_about(rights: frozenset[str]) -> None:
    for line in without_effect(rights):
        warn(line)


def _left_by(name: str, storage: Path) -> Path | None:
    """The folder where an earlier account of that name has left something. Raises UsageError when it can't look."""
    visible, hidden = storage / name, storage / PARTIAL_AREA / name
    for folder in (visible, hidden):
        try:
            found = os.listdir(folder)
        except FileNotFoundError:
            continue
        except OSError as problem:
            raise UsageError(f"can't look into {folder} ({problem.strerror})", "Check its owner and its mode") from None
        if any(folder == visible or each not in NOT_TEMPORARY for each in found):
            return folder
    return None


def _passwd(path: Path, storage: Path, options: argparse.Namespace) -> None:
    accounts, name = open_accounts(path), options.name
    account = _named(accounts).get(name)
    if account is None:
        raise unknown_account(name)
    registration = _register(accounts, name, _new_password(name, options))
    if registration == account.registration:
        say(f"that is the password of {name} already; nothing was changed")
        return
    accounts.change(name, {"registration": registration})
    say(f"changed the password of {name}; {_CUT_OFF}")


def _deluser(path: Path, storage: Path, options: argparse.Namespace) -> None:
    name = options.name
    account = _named(open_accounts(path)).get(name)
    folder = name if account is None else account.home
    open_accounts(path).remove(name)
    try:
        left = _left_by(folder, storage)
    except UsageError:  # of a folder that can't be looked into, this is what is known
        left = storage / folder
    stays = f", and what it sent stays in {left}" if left is not None else ""
    if others := _users_of(folder, path):
        stays += f", which {', '.join(others)} still uses"
    say(f"removed {name}; {_CUT_OFF}{stays}")


def _limits(path: Path, storage: Path, options: argparse.Namespace) -> None:
    accounts, name, news = open_accounts(path), options.name, dict(limits_of(options))
    before = _named(accounts).get(name)
    if before is None:
        raise unknown_account(name)
    if (rights := rights_of(options, before.rights)) is not None:
        news["rights"] = rights
        _warn_about(rights)
    if news:
        accounts.change(name, news)
    account = _named(accounts).get(name)
    if account is None:
        raise unknown_account(name)
    if news and account == before:
        say(f"{name} has these limits already; nothing was changed")
    elif news:
        say(f"changed the limits of {name}; {_CUT_OFF}")
    say(f"{'rights':<12}  {_shown(account.rights)}")
    for limit in LIMITS:
        value = getattr(account, limit.field)
        shown = NO_LIMIT if value is None else exact_size(value) if limit.is_size else f"{value:,}"
        say(f"{limit.field:<12}  {shown}")


def _users(path: Path, storage: Path, options: argparse.Namespace) -> None:
    accounts = open_accounts(path)
    for account in accounts.all():
        words = [_shown(account.rights)]
        if account.folder is not None:
            words.append(f"folder {account.folder}")
        if has_quota(account):
            words.append(_used(account, _storage(storage).ledgers.used))
        words += [limit.shown(value) for limit in LIMITS if (value := getattr(account, limit.field)) is not None]
        if has_quota(account):
            words += _kept(account, _storage(storage))
        say(f"{account.name:<32}  {'  '.join(words)}")
    if any(map(has_quota, accounts.all())):
        note(_LEAST)
    if not accounts.all():
        note("there are no accounts")
    for damage in accounts.damaged:
        note(f"warning: {path}, {damage}")


def _shown(rights: frozenset[str]) -> str:
    return ",".join(right for right in RIGHTS if right in rights)


def _recount(path: Path, storage: Path, options: argparse.Namespace) -> None:
    accounts = _named(open_accounts(path))
    if options.name is not None and options.name not in accounts:
        raise unknown_account(options.name)
    wanted = [account for account in accounts.values() if options.name in (None, account.name)]
    if not options.drop_parts and not any(map(has_quota, wanted)):
        whose = "no account has" if options.name is None else f"{options.name} does not have"
        say(f"{whose} a quota: nothing was counted")
    for account in wanted:
        if options.drop_parts:
            dropped = _on_disk(account, _storage(storage).drop_kept)
            say(f"{account.name:<32}  removed {counted(dropped, 'partial file')}")
        if has_quota(account):
            words = [_used(account, _storage(storage).ledgers.recount), *_kept(account, _storage(storage))]
            say(f"{account.name:<32}  {'  '.join(words)}")


_LEAST = "of a quota, each file and folder uses 512 bytes at least"


def has_quota(account: Account) -> bool:
    """Whether what the account uses is counted."""
    return account.has_quota


def _used(account: Account, count: Callable[[str], Amount]) -> str:
    """What an account uses. Raises UsageError."""
    used = _on_disk(account, count)
    return f"{amount(used.bytes)} in {counted(used.files, 'file')}"


def _kept(account: Account, storage: Storage) -> list[str]:
    """How much of that is kept of interrupted transfers, if anything is. Raises UsageError."""
    kept = _on_disk(account, storage.kept)
    return [f"{amount(kept.bytes)} kept of {counted(kept.files, 'interrupted transfer')}"] if kept.files else []


def _on_disk(account: Account, work: Callable[[str], _Found]) -> _Found:
    """What `work` gives for the account's folders. Raises UsageError."""
    try:
        return work(account.home)
    except Refused as problem:
        raise UsageError(f"can't count what {account.name} has: {problem.cause}", "Repair the storage folder") from None


@functools.cache
def _storage(path: Path) -> Storage:
    """Opened once in a command, when it is needed: with one for each account it would run out of descriptors."""
    return Storage(path, Rules())


_COMMANDS: dict[str, Callable[[Path, Path, argparse.Namespace], None]] = {
    "adduser": _adduser,
    "passwd": _passwd,
    "deluser": _deluser,
    "limits": _limits,
    "users": _users,
    "recount": _recount,
}
