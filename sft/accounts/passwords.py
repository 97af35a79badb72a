"""Where a password comes from, and what it must be like.

Rules: a password comes from the controlling terminal, a file, a file descriptor or an environment variable; never from
the command line, where every user of the machine can read it. Of a file or descriptor the first line is read and not
a byte more. No error contains a password. No account and no server is known here; the caller decides which source is
used.
"""

import os
import stat
import unicodedata
from base64 import b32encode
from collections.abc import Callable, Mapping

from crypto_utils import Random, random_bytes
from sft.common.errors import UsageError
from sft.common.text import escape
from sft.console.command_line import PASSWORD_VARIABLE
from sft.console.prompt import ask_on_terminal, read_line

LONGEST = 1024
SHORTEST = 8

# A username shorter than this is found in most good passwords by chance.
_TELLING = 3
_GENERATED_SIZE = 10
_GROUP = 4
_INSTEAD = f"Use --user, and --password-file, --password-fd or {PASSWORD_VARIABLE} for the password"


def ask_username(default: str = "") -> str:
    """Ask on the terminal; an empty answer takes the default. Raises UsageError."""
    answer = _ask(f"Username [{default}]: " if default else "Username: ", hidden=False).strip() or default
    if not answer:
        raise UsageError("no username was given", "Type one, or set --user")
    return answer


def ask_password(prompt: str = "Password: ", instead: str = _INSTEAD) -> str:
    """Ask on the terminal, without echo. `instead`: the advice where there is none.

    Raises UsageError without a terminal, at its end, and for an empty answer.
    """
    answer = _ask(prompt, hidden=True, instead=instead)
    if not answer:
        raise UsageError("the password is empty", "Type one")
    return answer


def ask_new_password(name: str) -> str:
    """Ask twice on the terminal for a password that may be set for `name`. Raises UsageError."""
    instead = "Use --password-file FILE; - is standard input"
    password = ask_password(f"New password for {name}: ", instead)
    check_strength(password, name)
    if ask_password("The same again: ", instead) != password:
        raise UsageError("the two passwords are not the same", "Run the command again")
    return password


def read_password_file(path: str | os.PathLike[str], warn: Callable[[str], None] = lambda _: None) -> str:
    """The first line of a file, of standard input for `-`. Raises UsageError.

    `warn` has one line when everybody on this machine may read the file.
    """
    if os.fspath(path) == "-":
        return _from_descriptor(0, "standard input")
    what = f"the password file {os.fspath(path)}"
    try:
        with open(path, "rb", buffering=0) as file:
            if _is_open_to_all(os.fstat(file.fileno())):
                warn(f"{what} can be read by every user of this machine. Close it with: chmod 600 {os.fspath(path)}")
            return _from_descriptor(file.fileno(), what)
    except OSError as error:
        raise UsageError(f"can't read {what} ({error.strerror})", "Check the path given with --password-file") from None
    except ValueError:
        raise UsageError("the name of the password file can't be one", "Check --password-file") from None


def _is_open_to_all(found: os.stat_result) -> bool:
    return (
        hasattr(os, "geteuid") and stat.S_ISREG(found.st_mode) and bool(found.st_mode & (stat.S_IROTH | stat.S_IWOTH))
    )


def read_password_fd(descriptor: int) -> str:
    """The first line of an open file descriptor, which stays open. Raises UsageError."""
    if descriptor < 0:
        raise UsageError("--password-fd needs a number of 0 or more", "Give the number of an open file descriptor")
    return _from_descriptor(descriptor, f"file descriptor {descriptor}")


def read_password_variable(environment: Mapping[str, str]) -> str | None:
    """The value of the variable for passwords; None when it is empty or not set. Raises UsageError."""
    if not environment.get(PASSWORD_VARIABLE):
        return None
    return _text(os.fsencode(environment[PASSWORD_VARIABLE]), PASSWORD_VARIABLE)


def check_strength(password: str, username: str) -> None:
    """Raises UsageError, with the reason, for a password that is too easy to guess."""
    password = unicodedata.normalize("NFC", password)
    if len(password) < SHORTEST:
        raise UsageError(f"that password is too short (under {SHORTEST} characters)", "Choose a longer one")
    if len(set(password)) == 1:
        raise UsageError("that password is one character over and over", "Choose another")
    if len(username) >= _TELLING and username.casefold() in password.casefold():
        raise UsageError("that password contains the username", "Choose another")


def generate_password(random: Random = random_bytes) -> str:
    """80 random bits as 16 base32 characters in four groups: `ABCD-EFGH-IJKL-MNOP`."""
    text = b32encode(random(_GENERATED_SIZE)).decode("ascii")
    return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))


def _ask(prompt: str, hidden: bool, instead: str = _INSTEAD) -> str:
    try:
        answer = ask_on_terminal(escape(prompt), hidden, LONGEST)
    except OSError:
        raise UsageError("there is no terminal to ask for a username or password on", instead) from None
    if answer is None:
        raise UsageError("the prompt was ended without an answer", "Run the command again and type one")
    return _decode(answer.removesuffix(b"\n").removesuffix(b"\r"), "what was typed")


def _from_descriptor(descriptor: int, what: str) -> str:
    try:
        if os.isatty(descriptor):
            raise UsageError(
                f"{what} is a terminal, which would show the password",
                "Leave out --password-file and --password-fd to be asked for it",
            )
        # One byte at a time: what follows the line may be content that somebody else reads.
        line = read_line(lambda: os.read(descriptor, 1), LONGEST)
    except OSError as error:
        raise UsageError(
            f"can't read a password from {what} ({error.strerror})", "Check --password-file or --password-fd"
        ) from None
    return _text(line or b"", what)


def _text(line: bytes, what: str) -> str:
    """The password of a line. Raises UsageError; an editor's byte order mark and line end are not part of it."""
    text = _decode(line.removesuffix(b"\n").removesuffix(b"\r"), what)
    if not text:
        raise UsageError(f"there is no password in {what}", "Put it into the first line")
    return text


def _decode(line: bytes, what: str) -> str:
    text = None
    if len(line) > LONGEST:
        raise UsageError(f"the first line of {what} is over {LONGEST} bytes", "No password is that long: check it")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Raised from here, our error would carry this one along, and this one carries the password.
        pass
    if text is None or "\0" in text:
        raise UsageError(f"{what} does not hold UTF-8 text", "Write the password as UTF-8")
    return text
