"""The settings file: a TOML file with settings, and with a table for each receiver that has a name, `[receivers.NAME]`.

Rules: the file is the one that --config or SFT_CONFIG names, otherwise the one in the home folder if it is there. An
error names the file, the table and the key. What the values mean is `config.py`'s business. No other file is opened.
"""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from sft.common.errors import UsageError
from sft.common.home import expand_home, home_folder

_DEFAULT_FILE = ".config/secure-file-transfer.toml"
_LARGEST_FILE = 1 << 20
_CHECK_FILE = "Check --config and SFT_CONFIG"
_CORRECT_LINE = "Correct that line"
_RECEIVERS = "receivers"
_NO_RECEIVER = re.compile(r"[\x00-\x20/@:\\\[\]\x7f]")  # what can't stand before the colon of a name
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

Settings = Mapping[str, object]


class SettingsFile(NamedTuple):
    """What stands in the file: settings as they were written, and those of each receiver by its name."""

    path: Path
    settings: Settings
    receivers: Mapping[str, Settings]

    def where(self, receiver: str | None = None) -> str:
        """The file, or a receiver's table in it, as an error and --show-config name it."""
        return str(self.path) if receiver is None else f"[{key_of(receiver)}] in {self.path}"


def key_of(receiver: str) -> str:
    """The table of a receiver as TOML has it."""
    shown = receiver if _BARE_KEY.fullmatch(receiver) else f'"{receiver}"'
    return f"{_RECEIVERS}.{shown}"


def absolute(path: str) -> str:
    """`path` made absolute. Raises UsageError when the current folder does not exist any more."""
    try:
        return os.path.abspath(path)
    except OSError as problem:
        cause = f"{path} is relative, and the current folder can't be found ({problem.strerror})"
        raise UsageError(cause, "Change into another folder") from None


def read_settings(
    named: str | None, variable: str, known: Collection[str], of_receivers: Collection[str]
) -> SettingsFile:
    """What is in the file; nothing when it is missing and was not named.

    `named`: the value of --config, if given; `variable`: of SFT_CONFIG. `known`: every setting that the file may have;
    `of_receivers`: those that a receiver's table may have. Raises UsageError.
    """
    place = _place_of_file(named, variable)
    if place is None or (found := _content(place, is_named=bool(named or variable))) is None:
        return SettingsFile(place or Path(), {}, {})
    tables = found.pop(_RECEIVERS, {})
    _check_names(found, known, str(place), "See --show-config for those that exist")
    return SettingsFile(place, found, _receivers(tables, of_receivers, place))


def _receivers(tables: object, known: Collection[str], place: Path) -> dict[str, Settings]:
    if not isinstance(tables, dict) or not all(isinstance(each, dict) for each in tables.values()):
        raise UsageError(f"{place}: {_RECEIVERS} is not made of tables", "Write [receivers.NAME] above its settings")
    for name, settings in tables.items():
        where = f"[{key_of(name)}] in {place}"
        if not name or _NO_RECEIVER.search(name):
            raise UsageError(
                f"{where}: a receiver can't have that name", "Choose one without blanks and without / \\ @ : [ ]"
            )
        if inner := next((key for key, value in settings.items() if isinstance(value, dict)), None):
            remedy = f'A name with a dot stands in quotes: [{_RECEIVERS}."{name}.{inner}"]'
            raise UsageError(f"{where}: {inner} is a table", remedy)
        _check_names(settings, known, where, f"It may have {', '.join(known)}")
    return tables


def _check_names(found: Settings, known: Collection[str], where: str, remedy: str) -> None:
    for name, value in found.items():
        if name not in known:
            raise UsageError(f"{where}: unknown setting {name}", remedy)
        if not isinstance(value, str | int):
            raise UsageError(f"{name} in {where}: not a string, whole number or true/false", _CORRECT_LINE)


def _place_of_file(file: str | None, variable: str) -> Path | None:
    """Where the settings file is; None when none was named and there is no home folder to look in."""
    if file == "":
        raise UsageError("--config: the value is empty", "Name the settings file, or leave --config out")
    named = file or variable
    if not named:
        home = home_folder()
        return None if home is None else Path(home, _DEFAULT_FILE)
    try:
        return Path(absolute(expand_home(named)))
    except ValueError as problem:
        where = "--config" if file else "SFT_CONFIG"
        raise UsageError(f'{where}: "{named}" {problem}', "Name an existing file") from None


def _content(place: Path, is_named: bool) -> dict[str, object] | None:
    """What the file has; None when it is missing and was not named. Raises UsageError."""
    try:
        with place.open("rb") as opened:
            content = opened.read(_LARGEST_FILE + 1)
    except OSError as problem:
        if not is_named and not os.path.lexists(place):
            return None  # also when a folder above it is missing or can't be read
        if isinstance(problem, FileNotFoundError):
            raise UsageError(f"{place}: there is no such settings file", _CHECK_FILE) from None
        raise UsageError(f"{place}: can't read the settings file ({problem.strerror})", _CHECK_FILE) from None
    if len(content) > _LARGEST_FILE:
        raise UsageError(f"{place}: too large for a settings file", _CHECK_FILE)
    return _parsed(place, content)


def _parsed(place: Path, content: bytes) -> dict[str, object]:
    import tomllib  # most runs have no settings file

    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UsageError(f"{place}: not valid TOML ({problem})", _CORRECT_LINE) from None
    except (ValueError, RecursionError):  # accepted as TOML, and then too much for the library
        raise UsageError(f"{place}: a number is too long, or brackets are nested too deep", _CORRECT_LINE) from None
