"""Writes the manual pages of both programs, docs/man/sft-client.1 and sft-server.1, from their parsers.

    python tools/man_pages.py     (or: make man)

Rules: nothing stands there that --help does not say, so that neither can be forgotten; tests hold the files against
the parsers.
"""

import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from sft.common import python_version  # noqa: F401, E402, I001

import argparse  # noqa: E402
import re  # noqa: E402
import textwrap  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import client  # noqa: E402
import server  # noqa: E402
from sft.common.version import VERSION  # noqa: E402

_COLUMNS = 76
FOLDER = TOP / "docs/man"
_FILES = """\
.SH FILES
.TP
.I \\(ti/.config/secure\\-file\\-transfer.toml
The settings file, unless \\-\\-config or SFT_CONFIG names another one.
"""


def escape(text: str) -> str:
    """A text as roff has it: no line of it is taken for a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    lines = textwrap.wrap(text, _COLUMNS, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)


def page(name: str, program: str, command: str, parser: argparse.ArgumentParser, what: str) -> str:
    """One manual page."""
    lines = [
        f'.TH {name.upper()} 1 "" "Secure File Transfer {VERSION}" "Secure File Transfer"',
        ".SH NAME",
        f"{escape(name)} \\- {escape(what)}",
        ".SH SYNOPSIS",
        ".nf",
        *(escape(line).replace(escape(program), f"\\fB{escape(command)}\\fR") for line in _usages(parser)),
        ".fi",
        ".SH DESCRIPTION",
        escape(parser.description or ""),
        ".PP",
        escape(f"Not installed as a package, the command is python {program} in the program's folder."),
        ".SH OPTIONS",
        *_groups(parser),
        *_commands(parser, program, command),
    ]
    if parser.epilog:
        lines += [".SH EXIT STATUS", *_exit_codes(parser.epilog)]
    return "\n".join(lines) + "\n" + _FILES


def _usages(parser: argparse.ArgumentParser) -> list[str]:
    usage = parser.usage or f"{parser.prog} [options] [COMMAND ...]"
    return [line.strip() for line in usage.splitlines()]


def _groups(parser: argparse.ArgumentParser) -> Iterator[str]:
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.option_strings]
        if actions and group.title:
            yield f".SS {escape(group.title[0].upper() + group.title[1:])}"
            yield from _options(actions)


def _options(actions: list[argparse.Action]) -> Iterator[str]:
    for action in actions:
        if action.help == argparse.SUPPRESS:
            continue
        words = ", ".join(f"\\fB{escape(word)}\\fR" for word in action.option_strings)
        metavar = "" if action.nargs == 0 else f" \\fI{escape(str(action.metavar or action.dest.upper()))}\\fR"
        yield from (".TP", words + metavar, escape((action.help or "") % {"default": action.default}))


def _commands(parser: argparse.ArgumentParser, program: str, command: str) -> Iterator[str]:
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        yield ".SH COMMANDS"
        for name, each in action.choices.items():
            places = [one for one in each._actions if not one.option_strings]
            names = "".join(f" \\fI{escape(str(one.metavar))}\\fR" for one in places)
            yield f".SS {escape(name)}"
            yield f"\\fB{escape(command)} {escape(name)}\\fR{names}"
            yield ".PP"
            yield escape(each.description or "")
            yield from _options(
                [one for one in each._actions if one.option_strings and "--help" not in one.option_strings]
            )


def _exit_codes(epilog: str) -> Iterator[str]:
    text = re.sub(r"\n {7,}", " ", epilog)
    for code, words in re.findall(r"^ +(\d+) +(.*)$", text, re.M):
        yield from (".TP", f".B {code}", escape(words))


def pages() -> dict[Path, str]:
    """Each file, and what it is to have."""
    sending, receiving = "send files to a receiver, fetch, list, remove and move them", "receive files"
    return {
        FOLDER / "sft-client.1": page("sft-client", "client.py", "sft", client._parser(), sending),
        FOLDER / "sft-server.1": page("sft-server", "server.py", "sft-server", server._parser(), receiving),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, "utf-8")
