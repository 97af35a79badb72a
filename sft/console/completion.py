"""Completion of options and file names for bash, zsh and fish, written from the parser of a program.

Rules: what is printed is a script for the shell and nothing else, so a library for it (shtab) would be a package more
for sixty lines. Options of sub-commands are offered with those of the program. Values are completed where they are
files; names at the receiver are not, for that would need a login.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sft.console.screen import say

SHELLS = ("bash", "zsh", "fish")
_FILES = ("FILE", "FOLDER", "FILE|-")


class _Option(NamedTuple):
    words: tuple[str, ...]
    metavar: str | None  # None: it takes no value
    help: str

    @property
    def is_file(self) -> bool:
        return self.metavar in _FILES


class PrintCompletion(argparse.Action):
    """`--print-completion SHELL`: prints the script and ends the program."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str, commands: tuple[str, ...]) -> None:
        super().__init__(option_strings, dest, default=argparse.SUPPRESS, metavar="SHELL", choices=SHELLS, help=help)
        self._commands = commands

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, shell: Any, option: str | None = None
    ) -> None:
        say(*completion(parser, str(shell), self._commands))
        parser.exit()


def add_completion(parser: "argparse._ArgumentGroup", *commands: str) -> None:
    """Give a parser, in one of its groups, the option that prints the completion for these commands."""
    words = f"print the completion for a shell ({', '.join(SHELLS)}), for its file of settings"
    parser.add_argument("--print-completion", action=PrintCompletion, commands=commands, help=words)


def completion(parser: argparse.ArgumentParser, shell: str, commands: tuple[str, ...]) -> list[str]:
    """The script, line by line; the first of `commands` names its function."""
    options = list(dict.fromkeys(_options_of(parser)))
    subcommands = [name for action in _subparsers(parser) for name in action.choices]
    make = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]
    return list(make(options, subcommands, commands))


def _subparsers(parser: argparse.ArgumentParser) -> "list[argparse._SubParsersAction[Any]]":
    return [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]


def _options_of(parser: argparse.ArgumentParser) -> Iterator[_Option]:
    for action in parser._actions:
        if action.option_strings and action.help != argparse.SUPPRESS:
            metavar = None if action.nargs in (0, "?") else str(action.metavar or action.dest.upper())
            yield _Option(tuple(action.option_strings), metavar, " ".join((action.help or "").split()))
    for commands in _subparsers(parser):
        for each in commands.choices.values():
            yield from _options_of(each)


def _bash(options: list[_Option], subcommands: list[str], commands: tuple[str, ...]) -> Iterator[str]:
    name = f"_{commands[0].replace('-', '_')}"
    files = "|".join(word for option in options if option.is_file for word in option.words)
    values = "|".join(
        word for option in options if option.metavar is not None and not option.is_file for word in option.words
    )
    every = " ".join(dict.fromkeys(word for option in options for word in option.words))
    yield f"{name}() {{"
    yield "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}"
    yield "    COMPREPLY=()"
    yield "    case $prev in"
    yield f'        {files}) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;'
    yield f"        {values}) return ;;"
    yield "    esac"
    yield "    if [[ $cur == -* ]]; then"
    yield f'        mapfile -t COMPREPLY < <(compgen -W "{every}" -- "$cur")'
    yield "    else"
    more = f'compgen -W "{" ".join(subcommands)}" -- "$cur"; ' if subcommands else ""
    yield f'        mapfile -t COMPREPLY < <({more}compgen -f -- "$cur")'
    yield "    fi"
    yield "}"
    yield f"complete -o filenames -F {name} {' '.join(commands)}"


def _zsh(options: list[_Option], subcommands: list[str], commands: tuple[str, ...]) -> Iterator[str]:
    name = f"_{commands[0].replace('-', '_')}"
    yield f"#compdef {' '.join(commands)}"
    yield f"{name}() {{"
    yield "    _arguments -s \\"
    for option in options:
        told = "".join(f"\\{char}" if char in "[]:\\" else char for char in option.help).replace("'", "'\\''")
        files = "_files" if option.is_file else " "
        value = "" if option.metavar is None else f":{option.metavar.replace('|', ' ')}:{files}"
        for word in option.words:
            yield f"        '*{word}[{told}]{value}' \\"
    words = f":command:({' '.join(subcommands)})" if subcommands else ""
    first = f"'1{words}' " if words else ""
    yield f"        {first}'*:file:_files'"
    yield "}"
    yield f'if [ "$funcstack[1]" = "{name}" ]; then {name} "$@"; else compdef {name} {" ".join(commands)}; fi'


def _fish(options: list[_Option], subcommands: list[str], commands: tuple[str, ...]) -> Iterator[str]:
    for command in commands:
        if subcommands:
            yield f"complete -c {command} -n __fish_use_subcommand -a '{' '.join(subcommands)}'"
        for option in options:
            told = option.help.replace("\\", "\\\\").replace("'", "\\'")
            kind = "" if option.metavar is None else " -r -F" if option.is_file else " -x"
            words = " ".join(f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}" for word in option.words)
            yield f"complete -c {command} {words}{kind} -d '{told}'"
