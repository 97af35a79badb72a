"""Every setting of both programs, one line each in the two tables below; and where each value comes from.

A value is looked for in this order: flag or name (`alice@nas:photos`), environment variable (`SFT_` and the name in
capitals), settings file (TOML), default. The settings file is the one named by --config or SFT_CONFIG, otherwise
`~/.config/secure-file-transfer.toml` if there is one; never a file in the current folder. In the file the table of the
receiver that is used comes first, then what stands above the tables. A relative path in the file starts at the file's
folder, a relative default at the folder of the scripts (of an installed package: the user's data folder), and any other
at the current folder. An empty variable counts as not set. A password is no setting, but its sources have the same order: --password-fd or --password-file, the
variable for passwords, SFT_PASSWORD_FILE, password_file in the file.

Rules: a value out of range is an error and never replaced by another. A limit of 0 or less is an error and never means
"unlimited". What stands beside a `host` in the file, or beside a `user`, is not used for another host or user. This
module opens no file, and prints nothing.
"""

import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from sft.common.errors import UsageError
from sft.common.home import state_folder, user_folder
from sft.common.networks import Networks
from sft.common.parsers import (
    as_command,
    as_host,
    as_mode,
    as_networks,
    as_one_of,
    as_path,
    as_place,
    as_size_from,
    as_text,
    as_whole,
    as_yes_no,
)
from sft.common.places import Place
from sft.common.settings_file import Settings, SettingsFile, absolute, key_of, read_settings
from sft.common.sizes import exact_size, parse_size
from sft.common.started import is_installed
from sft.console.command_line import PASSWORD_VARIABLE, flag_of
from sft.console.receiver_names import Receiver

if TYPE_CHECKING:
    import argparse

DEFAULT_PORT = 7380
_SCRIPT_FOLDER = os.path.dirname(os.path.realpath(__file__))
_OFF, _NONE = "off", "none"
# What a receiver's table may have; the first four are about that receiver alone.
_WHICH_RECEIVER = ("host", "port", "user", "password_file")
_OF_RECEIVERS = (*_WHICH_RECEIVER, "if_exists", "retries", "limit", "compress", "connect_timeout")


def _beside(name: str) -> Callable[[], str]:
    """Beside the scripts; for an installed package, whose folder nobody writes into, in the user's data folder."""
    return lambda: os.path.join(user_folder() if is_installed() else _SCRIPT_FOLDER, name)


def _client_log() -> str:
    """Beside the scripts if this user can write there, otherwise below the user's state folder, if there is one."""
    beside = _beside("client.log")()
    if not is_installed() and _can_be_written(beside):
        return beside
    state = state_folder()
    return _OFF if state is None else os.path.join(state, "secure-file-transfer", "client.log")


def _can_be_written(path: str) -> bool:
    """Whether a log can be there: its folder takes new files, and an existing file is a regular one of this user."""
    if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
        return False
    try:
        found = os.lstat(path)
    except OSError as problem:
        return isinstance(problem, FileNotFoundError)
    return stat.S_ISREG(found.st_mode) and (not hasattr(os, "geteuid") or found.st_uid == os.geteuid())


# --- the two tables ---


class Setting(NamedTuple):
    """How one setting is read and shown.

    `default` is written as in the settings file, or is a function that returns that; None: there is no value.
    `nothing` is the word for None, where None may be chosen.
    """

    default: Any
    parse: Callable[[object], Any]
    help: str
    value_name: str
    nothing: str | None

    def default_text(self) -> object:
        """The default as the settings file would have it."""
        return self.default() if callable(self.default) else self.default


def _setting(
    default: Any, parse: Callable[[object], Any], help: str, value_name: str, nothing: str | None = None
) -> Any:
    nothing = "" if default is None and nothing is None else nothing
    return field(metadata={"setting": Setting(default, parse, help, value_name, nothing)})


def settings_of(shape: "type[ClientSettings | ServerSettings]") -> dict[str, Setting]:
    """The settings of one program by their names, in the order of the table."""
    return {each.name: each.metadata["setting"] for each in fields(shape)}


_LOG_LEVELS = as_one_of("debug", "info", "warning", "error")
_LOG_SIZE = as_size_from(1 << 16, "a few lines")
_MEMORY = as_size_from(4 << 20, "the buffers of one connection")  # two for each direction, whatever the limit is
_POLICY = as_one_of("fail", "rename", "replace", "skip")
_COMPRESS = as_one_of("auto", "on", "off")


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """The settings of `client.py`."""

    # fmt: off
    host: str = _setting("localhost", as_host, "the receiver: a name, an IPv4 or an IPv6 address (brackets or not)", "HOST")
    port: int = _setting(DEFAULT_PORT, as_whole(1, 65535), "the receiver's port", "PORT")
    user: str = _setting("", as_text, "your username there (without it, you are asked)", "NAME")
    password_file: Path | None = _setting(None, as_path, "read the password from the first line of FILE (-: standard input)", "FILE")
    if_exists: Literal["fail", "rename", "replace", "skip"] = _setting("fail", _POLICY, "if the name exists there: fail, rename, replace or skip", "WHAT")
    retries: int = _setting(24, as_whole(0, 1_000_000), "tries in a row without progress after a connection failed (24: ten minutes, before the login one; 0: none)", "COUNT")
    limit: int | None = _setting(None, parse_size, "at most so many bytes per second, such as 5M (none: no limit)", "RATE", _NONE)
    compress: Literal["auto", "on", "off"] = _setting("auto", _COMPRESS, "compress what is sent and fetched: auto (while the line is slow), on (always) or off", "WHEN")
    connect_timeout: int = _setting(10, as_whole(1, 3600), "seconds to wait for each address of the receiver", "SECONDS")
    client_log: Path | None = _setting(_client_log, as_path, "the client's log (off: none)", "FILE", _OFF)
    log_level: str = _setting("info", _LOG_LEVELS, "debug, info, warning or error", "LEVEL")
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The settings of `server.py`."""

    # fmt: off
    listen: str = _setting("", as_text, "addresses to listen on, separated by commas (default: all, IPv4 and IPv6)", "ADDRESSES")
    port: int = _setting(DEFAULT_PORT, as_whole(0, 65535), "port to listen on (0: any free one)", "PORT")
    trusted_proxies: Networks = _setting("", as_networks, "addresses and networks, separated by commas, whose connections begin with a PROXY header (none: no proxy)", "ADDRESSES")
    storage: Path = _setting(_beside("received"), as_path, "files arrive below this folder, one folder for each user", "FOLDER")
    accounts: Path = _setting(_beside("accounts.txt"), as_path, "the accounts", "FILE")
    server_log: Path | None = _setting(_beside("server.log"), as_path, "the server's log (-: standard error, off: none)", "FILE", _OFF)
    log_level: str = _setting("info", _LOG_LEVELS, "debug, info, warning or error", "LEVEL")
    log_format: Literal["text", "json"] = _setting("text", as_one_of("text", "json"), "lines for people (text), or one JSON object for each event (json)", "FORMAT")
    log_size: int = _setting("5 MB", _LOG_SIZE, "bytes after which a log is rotated", "SIZE")
    log_kept: int = _setting(3, as_whole(1, 1000), "rotated logs to keep", "COUNT")
    audit_log: Path | None = _setting(None, as_path, "a second log, with logins and refused logins only (off: none)", "FILE", _OFF)
    max_connections: int = _setting(256, as_whole(1, 10_000), "connections of logged-in users at once", "COUNT")
    max_logins: int = _setting(128, as_whole(1, 10_000), "connections not logged in yet, at once", "COUNT")
    max_logins_per_source: int = _setting(48, as_whole(1, 10_000), "connections not logged in yet, at once, from one address (IPv6: one /64)", "COUNT")
    max_connections_per_user: int = _setting(64, as_whole(1, 10_000), "connections of one user at once; an account may have its own limit", "COUNT")
    shared_counts: bool = _setting(False, as_yes_no, "count attempts to log in together with all servers that share the storage", "YES/NO")
    max_file_size: int = _setting((1 << 63) - 1, parse_size, "the largest file that is accepted, such as 20G", "SIZE")
    free_space: int | None = _setting(None, parse_size, "bytes to keep free on the disk of the storage, such as 5G (none: all of it may be used)", "SIZE", _NONE)
    stale_days: int = _setting(7, as_whole(1, 3650), "days to keep the partial files of interrupted transfers", "DAYS")
    compress: Literal["auto", "on", "off"] = _setting("auto", _COMPRESS, "compress what is fetched: auto (while the line is slow), on (always) or off", "WHEN")
    memory: int = _setting("256 MiB", _MEMORY, "memory for the buffers of all connections together, from 4 MiB on", "SIZE")
    grace: int = _setting(10, as_whole(0, 86_400), "seconds that transfers may go on after the signal to stop", "SECONDS")
    drain: int = _setting(0, as_whole(0, 3600), "seconds to go on accepting after the signal to stop, while --health says no", "SECONDS")
    health: Place | None = _setting(None, as_place, "answer HTTP there: 200 while files can arrive, else 503 (none: no such answers)", "HOST:PORT", _NONE)
    metrics: Place | None = _setting(None, as_place, "answer HTTP there with the numbers of this server, for Prometheus (none: no such answers)", "HOST:PORT", _NONE)
    on_delivered: str | None = _setting(None, as_command, "run this after files have become visible, with a line of JSON for each on its standard input; no shell (none: nothing)", "COMMAND", _NONE)
    on_delivered_at_once: int = _setting(1, as_whole(1, 16), "how many such commands may run at once (1: those of a user in the order of what arrives)", "COUNT")
    on_delivered_seconds: int = _setting(300, as_whole(1, 86_400), "seconds after which such a command is killed", "SECONDS")
    file_mode: int | None = _setting(None, as_mode, "permission bits that new files may have (none: those of the source, less the umask)", "MODE", _NONE)
    portable_names: bool = _setting(False, as_yes_no, "reject names that Windows does not allow", "YES/NO")
    # fmt: on


Shape = TypeVar("Shape", ClientSettings, ServerSettings)


class Line(NamedTuple):
    """One line of --show-config."""

    key: str
    value: str
    origin: str


@dataclass(frozen=True)
class Loaded(Generic[Shape]):
    """The values that hold, and for each setting where its value came from: a flag, a variable, a file, `default`."""

    values: Shape
    origins: dict[str, str]
    receivers: Sequence["Line"] = ()  # what the file has about each

    def lines(self) -> list[str]:
        """What --show-config prints: name, value and origin, one line each."""
        table = settings_of(type(self.values))
        shown = [
            Line(name, _show(getattr(self.values, name), table[name]), origin) for name, origin in self.origins.items()
        ]
        shown += self.receivers
        wide = [max(map(len, column)) for column in zip(*shown, strict=True)]
        return [f"{name:<{wide[0]}} = {value:<{wide[1]}}  # {origin}".rstrip() for name, value, origin in shown]


def _show(value: Any, setting: Setting) -> str:
    """The value as the settings file would have it."""
    if value is None:
        return f'"{setting.nothing or ""}"'
    if setting.parse in (parse_size, _MEMORY, _LOG_SIZE):
        return f'"{exact_size(value)}"'
    return _as_toml(value)


def _as_toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def add_flags(parser: "argparse.ArgumentParser | argparse._ArgumentGroup", shape: type[Shape]) -> None:
    """A flag for each setting; its value stays text until `load` reads it."""
    for name, each in settings_of(shape).items():
        parser.add_argument(flag_of(name), metavar=each.value_name, help=each.help)


def add_file_flags(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """The flags about the settings themselves."""
    parser.add_argument("--config", metavar="FILE", help="the settings file")
    parser.add_argument(
        "--show-config", action="store_true", help="print each setting and where it comes from, and exit"
    )


# --- where the values come from ---


class _Given(NamedTuple):
    """The value of one setting as it was written, and where."""

    value: object
    origin: str  # as --show-config prints it
    where: str  # as an error names it
    undo: str  # how to get the default instead
    base: Path = Path()  # where a relative path starts


class _Sources:
    """Where the values of a command may come from, but for their defaults."""

    def __init__(
        self,
        flags: Mapping[str, str | None],
        named: Receiver | None,
        environment: Mapping[str, str],
        file: SettingsFile,
        names: Collection[str],
    ) -> None:
        """`names`: the settings of the program; one without a host knows no receiver."""
        self.flags, self.environment, self._named, self._file = flags, environment, named, file
        host, user = (self._nearest(name) if name in names else None for name in ("host", "user"))
        host_above = file.settings.get("host") if "host" in names else None
        asked = host.value if host else host_above
        self._receiver = asked if isinstance(asked, str) and asked in file.receivers else None
        self._is_other_host = host is not None and host_above not in (None, host.value)
        self._user = user.value if user else ""

    def given(self, name: str) -> _Given | None:
        """The value of a setting, from the nearest place that has one."""
        if (nearest := self._nearest(name)) and not (name == "host" and self._receiver):
            return nearest
        if self._receiver is not None:
            table = {"host": self._receiver, **self._file.receivers[self._receiver]}
            if name in table and self._is_for_user(name, table):
                return _in_file(self._file, table, name, self._receiver)
        above = self._file.settings
        if name in above and (
            name not in _WHICH_RECEIVER or (not self._is_other_host and self._is_for_user(name, above))
        ):
            return _in_file(self._file, above, name)
        return None

    def _nearest(self, name: str) -> _Given | None:
        """What the command or a variable says."""
        flag, variable, named = flag_of(name), "SFT_" + name.upper(), self._named
        if (text := self.flags.get(name)) is not None:
            return _Given(text, flag, flag, f"leave {flag} out")
        if named is not None and name in ("host", "user") and (text := getattr(named, name)):
            return _Given(text, named.typed, named.typed, named.undo)
        if self.environment.get(variable):
            return _Given(self.environment[variable], variable, variable, f"unset {variable}")
        return None

    def _is_for_user(self, name: str, beside: Settings) -> bool:
        """Whether a setting holds for the user of this command: a password is one user's."""
        return name != "password_file" or not self._user or beside.get("user") in (None, "", self._user)


def _in_file(file: SettingsFile, settings: Settings, name: str, receiver: str | None = None) -> _Given:
    """A setting of the file, or of a receiver's table in it."""
    where = file.where(receiver)
    return _Given(settings[name], where, f"{name} in {where}", "remove that line", file.path.parent)


def load(
    shape: type[Shape],
    flags: Mapping[str, str | None],
    environment: Mapping[str, str],
    file: str | None,
    named: Receiver | None = None,
) -> Loaded[Shape]:
    """The settings of one program; `file` is the value of --config, if given, `named` the receiver in its names.

    Raises UsageError for a value that is not allowed, an unknown setting in the file, or a file that can't be read.
    """
    table = settings_of(shape)
    known = {*settings_of(ClientSettings), *settings_of(ServerSettings)}
    in_use = read_settings(file, environment.get("SFT_CONFIG", ""), known, _OF_RECEIVERS)
    sources = _Sources(flags, named, environment, in_use, table)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, setting in table.items():
        given = sources.given(name) or _default(name, setting)
        values[name], origins[name] = _value_of(given, setting), given.origin
        if name == "password_file" and (nearer := _nearer_password(given.origin, sources)):
            values[name], origins[name] = None, nearer
    return Loaded(shape(**values), origins, _receivers(in_use) if shape is ClientSettings else [])


def _default(name: str, setting: Setting) -> _Given:
    flag = flag_of(name)
    return _Given(setting.default_text(), "default", f"the default of {flag}", f"set {flag}")


def _receivers(file: SettingsFile) -> list[Line]:
    """Each setting of each receiver in the file. Raises UsageError."""
    table = settings_of(ClientSettings)
    found = []
    for receiver, settings in file.receivers.items():
        for name in settings:
            value = _value_of(_in_file(file, settings, name, receiver), table[name])
            found.append(Line(f"{key_of(receiver)}.{name}", _show(value, table[name]), str(file.path)))
    return found


def _value_of(given: _Given, setting: Setting) -> Any:
    """The value that was meant. Raises UsageError."""
    value = given.value
    try:
        if value == "" and given.origin.startswith("--"):  # most likely the value of a shell's variable that is not set
            raise ValueError
        if value is None or value == setting.nothing or (value == "" and setting.default is None):
            return None
        parsed = setting.parse(value)
    except ValueError as problem:
        what = "the value is empty" if value == "" else f"{_as_toml(value)} {problem}"
        default = setting.nothing if setting.default is None else setting.default_text()
        behind = f"; the default is {default}" if default not in ("", None) else ""
        raise UsageError(f"{given.where}: {what}", f"Correct it, or {given.undo}{behind}") from None
    if isinstance(parsed, Path) and str(parsed) != "-":
        return Path(absolute(str(given.base / parsed)))
    return parsed


def _nearer_password(origin: str, sources: _Sources) -> str:
    """What provides the password instead of the password file, being nearer to the command; "" for nothing."""
    if sources.flags.get("password_fd") is not None:
        return "--password-fd"
    return PASSWORD_VARIABLE if not origin.startswith("--") and sources.environment.get(PASSWORD_VARIABLE) else ""
