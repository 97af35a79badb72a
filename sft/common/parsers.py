"""Reading the value of one setting, as it was typed or stands in a file.

Rules: each function returns the value, or raises ValueError with words that follow it in an error.
"""

import shlex
from collections.abc import Callable
from pathlib import Path

from sft.common.home import expand_home
from sft.common.networks import Networks, parse_networks
from sft.common.places import Place, parse_place
from sft.common.sizes import exact_size, parse_size


def as_text(value: object) -> str:
    """Text, as it is."""
    if not isinstance(value, str):
        raise ValueError("is not text")
    if "\0" in value:
        raise ValueError("contains a NUL byte")
    return value


def as_host(value: object) -> str:
    """A name or an address; an IPv6 address may stand in brackets, as it does in front of a port."""
    text = as_text(value)
    if not text.strip():
        raise ValueError("is empty")
    user, at, rest = text.rpartition("@")
    if at:
        raise ValueError(f"contains a username: write --user {user} --host {rest}")
    if text.count(":") == 1:  # an IPv6 address has at least two
        host, _, port = text.partition(":")
        raise ValueError(f"contains a port: write --host {host} --port {port}")
    if not text.startswith("["):
        return text
    if not text.endswith("]") or ":" not in text:
        raise ValueError("is not an IPv6 address in brackets, such as [2001:db8::1]; a port is given with --port")
    return text[1:-1]


def as_path(value: object) -> Path:
    """A path; `~` is the home folder."""
    if not as_text(value):
        raise ValueError("is empty")
    return Path(expand_home(as_text(value)))


def as_command(value: object) -> str:
    """A program and its arguments, quoted as for a shell; as it is."""
    try:
        words = shlex.split(as_text(value))
    except ValueError as problem:
        raise ValueError(f"is not a command ({str(problem).lower()})") from None
    if not words or not words[0]:
        raise ValueError("names no program")
    return as_text(value)


def as_networks(value: object) -> Networks:
    """Addresses and networks, separated by commas."""
    return parse_networks(as_text(value))


def as_place(value: object) -> Place:
    """An address and a port."""
    return parse_place(as_text(value))


def as_whole(least: int, most: int) -> Callable[[object], int]:
    """A whole number between two."""

    def parse(value: object) -> int:
        try:
            number = value if type(value) is int else int(as_text(value))
        except ValueError:
            raise ValueError(f"is not a whole number ({least} to {most})") from None
        if not least <= number <= most:
            raise ValueError(f"is not between {least} and {most}")
        return number

    return parse


def as_size_from(least: int, what: str) -> Callable[[object], int]:
    """A size, at least so much; less is `what`."""

    def parse(value: object) -> int:
        if (number := parse_size(value)) < least:
            raise ValueError(f"is less than {exact_size(least)}, {what}")
        return number

    return parse


def as_yes_no(value: object) -> bool:
    """Yes or no, in some words."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, bool):
        return value
    if as_text(value).lower() not in words:
        raise ValueError("is neither yes nor no")
    return words[as_text(value).lower()]


def as_one_of(*words: str) -> Callable[[object], str]:
    """One of these words."""

    def parse(value: object) -> str:
        if value not in words:
            raise ValueError("is not one of " + ", ".join(words))
        return str(value)

    return parse


def as_mode(value: object) -> int:
    """Permission bits of a file, in octal."""
    try:
        number = value if type(value) is int else int(as_text(value), 8)
    except ValueError:
        raise ValueError("is not an octal mode such as 0640") from None
    if not 0o400 <= number <= 0o666 or number & 0o111:
        raise ValueError("is not a mode that lets the owner read and has no execute or special bits, such as 0640")
    return number
