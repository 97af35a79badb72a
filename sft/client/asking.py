"""Username and password of one run: from a flag, a variable, a file, or the terminal.

Rules: both are known before the client connects, because a login has a deadline. Standard input serves one purpose: a
password, a list of names, or what is sent. Where a password may come from stands in `sft/accounts/passwords.py`. It
knows no socket.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from sft.common.errors import UsageError
from sft.console.command_line import PIPE

if TYPE_CHECKING:
    import argparse

    from config import ClientSettings
    from sft.client.login import Credentials

_MOST_DIGITS = 9
_MOST_TYPED = 3  # as ssh


def check_standard_input(settings: "ClientSettings", options: "argparse.Namespace") -> None:
    """Raises UsageError when two things would be read from it."""
    fd = options.password_fd
    uses = ["the password"] if fd == "0" or (fd is None and str(settings.password_file) == PIPE) else []
    uses += ["the list of names"] if options.files_from == PIPE else []
    uses += ["what is sent"] if PIPE in options.names[:-1] else []
    if len(uses) > 1:
        remedy = "Use --password-file FILE" if uses[0] == "the password" else "Use --files-from FILE"
        raise UsageError(f"standard input can't be both {uses[0]} and {uses[1]}", remedy)


def ask_credentials(
    settings: "ClientSettings", options: "argparse.Namespace", warn: Callable[[str], None]
) -> "Credentials":
    """Who logs in, and where. `warn` gets a line about a password file that others can read. Raises UsageError."""
    from sft.accounts.passwords import (
        ask_password,
        ask_username,
        read_password_fd,
        read_password_file,
        read_password_variable,
    )
    from sft.client.login import Credentials
    from sft.wire.handshake import encode_username

    user = settings.user or ask_username(_local_user())
    encode_username(user)
    if options.password_fd is not None:
        password = read_password_fd(_descriptor(options.password_fd))
    elif settings.password_file is not None:
        password = read_password_file(settings.password_file, warn)
    elif (of_variable := read_password_variable(os.environ)) is not None:
        password = of_variable
    else:
        return Credentials(
            settings.host, settings.port, user, ask_password(_prompt(user, settings.host)), is_typed=True
        )
    return Credentials(settings.host, settings.port, user, password)


def ask_again(credentials: "Credentials", tries: int, say: Callable[[], None]) -> bool:
    """After a login was refused for the `tries`th time: whether a person has typed another password, after `say`."""
    from sft.accounts.passwords import ask_password

    if not credentials.is_typed or tries >= _MOST_TYPED:
        return False
    say()
    try:
        credentials.replace_password(ask_password(_prompt(credentials.user, credentials.host)))
    except UsageError:  # no answer
        return False
    return True


def _prompt(user: str, host: str) -> str:
    return f"Password of {user} on {host}: "


def _descriptor(text: str) -> int:
    """The number of a descriptor. Raises UsageError."""
    if not text.isascii() or not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise UsageError("--password-fd takes the number of an open descriptor", "Such as 3, with 3<FILE")
    return int(text)


def _local_user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
