"""Every setting: one line each in the two tables below, and where its value comes from.

A value is looked for in this order: flag, environment (`SFT_` and the name in capitals), the TOML file, default. The
file is the one that --config or SFT_CONFIG names, else `~/.config/secure-file-transfer.toml`; never one in the current
folder. One that was named must be there; without a home folder, or with one that is closed to us, there is none. A
relative path in the file is relative to the file's folder, a relative default to the folder of the script, any other
to the current folder. An empty variable counts as not set. The password itself is no setting, but its sources stand in the same order: --password-fd or
--password-file, SFT_PASSWORD, SFT_PASSWORD_FILE, password_file in the file.

Rules: a value out of its range is an error, never silently another one. A limit of 0 or less is an error, never
"unlimited". No password is a setting. This room opens the TOML file and nothing else, and prints nothing.
"""

import os
import stat
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from sft.common.errors import UsageError
from sft.common.sizes import exact_size, parse_size
from sft.console.command_line import flag_of

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

DEFAULT_PORT = 7380
_SCRIPT_FOLDER = os.path.dirname(os.path.realpath(__file__))
_DEFAULT_FILE = ".config/secure-file-transfer.toml"
_STATE_FOLDER = "secure-file-transfer"
_LARGEST_FILE = 1 << 20
_OFF, _NONE = "off", "none"
_PASSWORD_FD, _PASSWORD_VARIABLE = "password_fd", "SFT_PASSWORD"
_TYPES = "string, whole number or true/false"


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("is no text")
    return value


def _name(value: object) -> str:
    if not _text(value).strip():
        raise ValueError("is empty")
    return _text(value)


def _host(value: object) -> str:
    """A name or an address; an IPv6 address may stand in brackets, as it does in front of a port."""
    text = _name(value)
    user, at, rest = text.rpartition("@")
    if at:
        raise ValueError(f"has a username in it: write --user {user} --host {rest}")
    if text.count(":") == 1:  # an IPv6 address has two at least
        host, _, port = text.partition(":")
        raise ValueError(f"has a port in it: write --host {host} --port {port}")
    inner = text.removeprefix("[").partition("]")[0]
    if text.startswith("[") and text != f"[{inner}]":
        raise ValueError("has something else than an IPv6 address in brackets; a port belongs into --port")
    if text.startswith("[") and ":" not in inner:
        raise ValueError("has something else than an IPv6 address in brackets")
    return inner if text.startswith("[") else text


def _path(value: object) -> "Path":
    from pathlib import Path  # 5 ms that --help need not pay

    if not _text(value):
        raise ValueError("is empty")
    return Path(_expand(_text(value)))


def _expand(path: str) -> str:
    """`path`, with a home folder in place of `~`. Raises ValueError when there is no such home."""
    if not path.startswith("~"):
        return path
    user, _, below = path[1:].replace(os.sep, "/").partition("/")
    place = _home() if not user else os.path.expanduser("~" + user)
    if place is None or not os.path.isabs(place):
        whose = f"of a user {user}" if user else "here (HOME)"
        raise ValueError(f"begins with ~, and no home folder {whose} is known; a name may be written ./~")
    return os.path.join(place, below)


def _home() -> str | None:
    """The user's home folder; None when neither HOME nor the system names one."""
    if os.name == "posix" and not os.path.isabs(os.environ.get("HOME", os.sep)):
        return None  # it would be somewhere below the current folder
    place = os.path.expanduser("~")
    return place if os.path.isabs(place) else None


def _absolute(path: str) -> str:
    """`path` from the current folder on. Raises UsageError when there is none any more."""
    try:
        return os.path.abspath(path)
    except OSError as problem:
        raise UsageError(
            f"{path} is relative, and the current folder can't be found ({problem.strerror})",
            "Change into another folder",
        ) from None


def _whole(least: int, most: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        try:
            number = value if type(value) is int else int(_text(value))
        except ValueError:
            raise ValueError("is no whole number") from None
        if not least <= number <= most:
            raise ValueError(f"is not between {least} and {most}")
        return number

    return parse


def _yes_no(value: object) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, bool):
        return value
    if _text(value).lower() not in words:
        raise ValueError("is neither true nor false")
    return words[_text(value).lower()]


def _one_of(*words: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in words:
            raise ValueError("is none of " + ", ".join(words))
        return str(value)

    return parse


def _mode(value: object) -> int:
    try:
        number = value if type(value) is int else int(_text(value), 8)
    except ValueError:
        raise ValueError("is no octal mode such as 0640") from None
    if not 0o400 <= number <= 0o666 or number & 0o111:
        raise ValueError("must be readable by its owner, without execute and special bits, such as 0640")
    return number


class Setting(NamedTuple):
    """One setting: its default as the file would have it (None: it has none), how it is read, and what help says.

    `nothing` is the text that stands for None, where that may be the value. A default may be a function that finds it.
    """

    default: Any
    parse: Callable[[object], Any]
    words: str
    value_name: str
    nothing: str | None


def _setting(
    default: Any, parse: Callable[[object], Any], words: str, name: str = "VALUE", nothing: str | None = None
) -> Any:
    return Setting(default, parse, words, name, "" if default is None and nothing is None else nothing)


def _beside(name: str) -> Callable[[], str]:
    return lambda: os.path.join(_SCRIPT_FOLDER, name)


def _client_log() -> str:
    """Beside the script where that can be written by this user, else below the user's state folder, if there is one."""
    beside = _beside("client.log")()
    if _can_be_written(beside):
        return beside
    state = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        home = _home()
        if home is None:
            return _OFF
        state = os.path.join(home, ".local", "state")
    return os.path.join(state, _STATE_FOLDER, "client.log")


def _can_be_written(path: str) -> bool:
    """Whether a log can be there: its folder takes new files, and what is there already is ours."""
    if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
        return False
    try:
        found = os.lstat(path)
    except OSError as problem:
        return isinstance(problem, FileNotFoundError)
    return stat.S_ISREG(found.st_mode) and (not hasattr(os, "geteuid") or found.st_uid == os.geteuid())


class _Settings:
    """Base of the two tables. An object holds the values, whose types the table declares; nobody changes one.

    A dataclass would say the same, but to load what makes one takes 10 ms of every start.
    """

    def __init__(self, **values: object) -> None:
        for name in settings_of(type(self)):
            setattr(self, name, values[name])


def settings_of(shape: type[_Settings]) -> dict[str, Setting]:
    """The settings of one program by their names, in the order of the table."""
    return {name: each for name, each in vars(shape).items() if isinstance(each, Setting)}


_LOG_LEVELS = _one_of("debug", "info", "warning", "error")
_POLICY = _one_of("fail", "rename", "replace", "skip")


class ClientSettings(_Settings):
    """What `client.py` can be told."""

    # fmt: off
    host: str = _setting("localhost", _host, "the receiver: a name, an IPv4 or an IPv6 address (brackets or not)", "HOST")
    port: int = _setting(DEFAULT_PORT, _whole(1, 65535), "its port", "PORT")
    user: str = _setting("", _text, "your username there (asked for when not given)", "NAME")
    password_file: "Path | None" = _setting(None, _path, "read the password from the first line of FILE (-: standard input)", "FILE")
    if_exists: str = _setting("fail", _POLICY, "when the name is taken: fail, rename, replace or skip", "WHAT")
    retries: int = _setting(24, _whole(0, 1_000_000), "new connections in a row, without progress, after one broke (24: ten minutes; 0: never a second one)", "COUNT")
    limit: int | None = _setting(None, parse_size, "bytes per second at most, such as 5M (none: no limit)", "RATE", _NONE)
    connect_timeout: int = _setting(10, _whole(1, 3600), "seconds to wait for each address of the receiver", "SECONDS")
    client_log: "Path | None" = _setting(_client_log, _path, "the client's log (off: none)", "FILE", _OFF)
    log_level: str = _setting("info", _LOG_LEVELS, "debug, info, warning or error", "LEVEL")
    # fmt: on


class ServerSettings(_Settings):
    """What `server.py` can be told."""

    # fmt: off
    listen: str = _setting("", _text, "addresses to listen on, separated by commas (default: all, IPv4 and IPv6)", "ADDRESSES")
    port: int = _setting(DEFAULT_PORT, _whole(0, 65535), "port to listen on (0: any free one)", "PORT")
    storage: "Path" = _setting(_beside("received"), _path, "files arrive below this folder, one folder for each user", "FOLDER")
    accounts: "Path" = _setting(_beside("accounts.txt"), _path, "the accounts", "FILE")
    server_log: "Path | None" = _setting(_beside("server.log"), _path, "the server's log (off: none)", "FILE", _OFF)
    log_level: str = _setting("info", _LOG_LEVELS, "debug, info, warning or error", "LEVEL")
    max_connections: int = _setting(256, _whole(1, 10_000), "connections of logged-in users at once", "COUNT")
    max_logins: int = _setting(128, _whole(1, 10_000), "connections not logged in yet, at once", "COUNT")
    max_logins_per_source: int = _setting(48, _whole(1, 10_000), "the same, from one address (IPv6: from one /64)", "COUNT")
    max_connections_per_user: int = _setting(64, _whole(1, 10_000), "the same, of one user; an account may have its own limit", "COUNT")
    max_file_size: int = _setting((1 << 63) - 1, parse_size, "the largest file that is taken, such as 20G", "SIZE")
    free_space: int | None = _setting(None, parse_size, "bytes that stay free on the disk of the storage, such as 5G (none: all of it may be used)", "SIZE", _NONE)
    stale_days: int = _setting(7, _whole(1, 3650), "days that what a cut transfer left is kept for another try", "DAYS")
    memory: int = _setting("256 MiB", parse_size, "for the buffers of all connections together", "SIZE")
    grace: int = _setting(10, _whole(0, 86_400), "seconds that transfers may go on after a signal to stop", "SECONDS")
    file_mode: int | None = _setting(None, _mode, "permission bits of what arrives (none: 0666 less the umask)", "MODE", _NONE)
    portable_names: bool = _setting(False, _yes_no, "refuse names that Windows can't hold", "YES/NO")
    # fmt: on


Shape = TypeVar("Shape", ClientSettings, ServerSettings)


class Loaded(Generic[Shape]):
    """The settings that hold, and for each of them where it came from."""

    values: Shape
    origins: dict[str, str]

    def __init__(self, values: Shape, origins: dict[str, str]) -> None:
        self.values = values
        self.origins = origins

    def lines(self) -> list[str]:
        """What --show-config prints: name, value and origin, one line each."""
        table = settings_of(type(self.values))
        shown = {name: _show(getattr(self.values, name), table[name]) for name in self.origins}
        wide = max(len(name) for name in shown), max(len(value) for value in shown.values())
        return [
            f"{name:<{wide[0]}} = {value:<{wide[1]}}  # {self.origins[name]}".rstrip() for name, value in shown.items()
        ]


def _show(value: Any, setting: Setting) -> str:
    """The value as the TOML file would have it."""
    if value is None:
        return f'"{setting.nothing or ""}"'
    if setting.parse is parse_size:
        return f'"{exact_size(value)}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def add_flags(parser: "argparse.ArgumentParser | argparse._ArgumentGroup", shape: type[Shape]) -> None:
    """A flag for each setting; its value stays text until `load` judges it."""
    for name, each in settings_of(shape).items():
        parser.add_argument(flag_of(name), metavar=each.value_name, help=each.words)


def add_file_flags(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """The flags about the settings themselves."""
    parser.add_argument("--config", metavar="FILE", help="the settings file")
    parser.add_argument(
        "--show-config", action="store_true", help="print each setting and where it comes from, then stop"
    )


def load(
    shape: type[Shape], flags: Mapping[str, str | None], environment: Mapping[str, str], file: str | None
) -> Loaded[Shape]:
    """The settings of one program. `file` is --config's value, if there is one.

    Raises UsageError for a value that can't be used, an unknown setting in the file, or a file that can't be read.
    """
    from pathlib import Path

    from_file, place = _read_file(file, environment)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, each in settings_of(shape).items():
        variable = "SFT_" + name.upper()
        given: object
        if (flag := flags.get(name)) is not None:
            given, origin = flag, flag_of(name)
        elif environment.get(variable):
            given, origin = environment[variable], variable
        elif name in from_file:
            given, origin = from_file[name], str(place)
        else:
            given, origin = each.default() if callable(each.default) else each.default, "default"
        try:
            if given == "" and origin.startswith("--"):  # of a shell's variable that is not set, most likely
                raise ValueError("is empty")
            is_nothing = given is None or given == each.nothing or (given == "" and each.default is None)
            value = None if is_nothing else each.parse(given)
        except ValueError as problem:
            raise UsageError(f"{name} from {origin} {problem}", f"It means: {each.words}") from None
        if isinstance(value, Path) and str(value) != "-":
            base = place.parent if place and origin == str(place) else Path()
            value = Path(_absolute(str(base / value)))
        if name == "password_file" and (nearer := _nearer_password(origin, flags, environment)):
            value, origin = None, nearer
        values[name], origins[name] = value, origin
    return Loaded(shape(**values), origins)


def _nearer_password(origin: str, flags: Mapping[str, str | None], environment: Mapping[str, str]) -> str:
    """What gives the password instead of the password file, being nearer to the command; empty for nothing."""
    if flags.get(_PASSWORD_FD) is not None:
        return flag_of(_PASSWORD_FD)
    return _PASSWORD_VARIABLE if not origin.startswith("--") and environment.get(_PASSWORD_VARIABLE) else ""


def _place_of_file(named: str, origin: str) -> "Path | None":
    """Where the settings file is; None when nobody named one, and there is no home folder to look in."""
    from pathlib import Path

    home = _home()
    if not named:
        return None if home is None else Path(home, _DEFAULT_FILE)
    try:
        return Path(_absolute(_expand(named)))
    except ValueError as problem:
        raise UsageError(f"the settings file {named} from {origin} {problem}", "Name one that exists") from None


def _read_file(file: str | None, environment: Mapping[str, str]) -> "tuple[dict[str, object], Path | None]":
    """The TOML file's settings and its place; nothing when there is none and nobody named one."""
    if file == "":
        raise UsageError("the name of the settings file is empty", "Check --config")
    named = file or environment.get("SFT_CONFIG", "")
    place = _place_of_file(named, "--config" if file else "SFT_CONFIG")
    if place is None:
        return {}, None
    try:
        with place.open("rb") as opened:
            content = opened.read(_LARGEST_FILE + 1)
    except OSError as problem:
        if not named and not os.path.lexists(place):
            return {}, None  # nor is there one behind a folder that is missing, or closed to us
        if isinstance(problem, FileNotFoundError):
            raise UsageError(f"there is no settings file {place}", "Check --config and SFT_CONFIG") from None
        raise UsageError(f"can't read the settings file {place} ({problem.strerror})", "Mend or move it") from None
    if len(content) > _LARGEST_FILE:
        raise UsageError(f"{place} is too large for a settings file", "Check --config and SFT_CONFIG")
    import tomllib  # only now: most runs have no file

    try:
        found = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UsageError(f"{place} is no TOML ({problem})", "Mend that line") from None
    except (ValueError, RecursionError):  # what the library does not refuse as TOML
        raise UsageError(f"{place} has a number too long or brackets nested too deep", "Mend that line") from None
    known = {*settings_of(ClientSettings), *settings_of(ServerSettings)}
    for name, value in found.items():
        if name not in known:
            raise UsageError(f"{place} has an unknown setting, {name}", "See --show-config for those that exist")
        if not isinstance(value, str | int):
            raise UsageError(f"{name} in {place} is no {_TYPES}", "Write it as one of those")
    return found, place
