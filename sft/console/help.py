"""Help by topic: `--help` fits one screen, `--help TOPIC` has one group of options, `--help all` everything.

Rules: the topics are the groups of the parser, so no option can be missing from them; an option's own name is a topic,
too. It prints a result as any other, and ends the program.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from sft.common.errors import UsageError
from sft.common.started import as_started
from sft.console.screen import say

ALL = "all"

CLIENT_TOPICS = {
    "jobs": "what to do",
    "sources": "what is taken of a SOURCE",
    "how": "how",
    "settings": "settings",
    "more": "more",
}
CLIENT_HELP = """\
usage: client.py [options] SOURCE... TARGET     send files and folders
       client.py [options] HOST:NAME... TARGET  fetch them
       client.py --list [-R] [HOST:NAME]        list a folder there
       client.py --remove NAME... | --move OLD NEW | --usage

[USER@]HOST: in front of a name is the receiver, if --host or the settings file
does not name it. A TARGET that ends in a slash, or more than one SOURCE, means:
into this folder. `-` is standard input or output. After an interruption the
same command goes on where it was.

  -u, --update         send only what has changed (--delete: remove the rest)
  -n, --dry-run        say what would be done, and do nothing
  --check              compare the content at both ends, and send nothing
  --exclude PATTERN    leave out what a .gitignore with it would
  --if-exists WHAT     when a name is taken: fail, rename, replace or skip
  --limit RATE         at most so many bytes per second, such as 5M
  --receipts FILE      append a line for each delivered file to FILE
  -v, --verbose        a line for each file (-q: only errors; --json: events)
  --host, --port, --user, --password-file    the receiver and who you are there

All options: client.py --help all; of one kind: client.py --help jobs (sources,
how, settings, more); one option: client.py --help exclude
"""
SERVER_TOPICS = {"settings": "settings", "accounts": "accounts", "more": "more"}
SERVER_HELP = """\
usage: server.py [options]                      receive files, until Ctrl-C
       server.py adduser NAME [options]         add an account
       server.py passwd | limits | deluser NAME change or remove one
       server.py users | recount                list accounts; count their files
       server.py status | kick NAME | unban WHOM   ask the running server

The first start makes an account and shows its password. Files arrive in
received/NAME. Each setting can also stand in the settings file.

  --listen ADDRESSES      where to listen (default: everywhere)
  --port PORT             the port to listen on (default: 7380)
  --storage FOLDER        where files arrive
  --accounts FILE         the accounts
  --free-space SIZE       bytes to keep free on the disk, such as 5G
  --show-config           print each setting and where it comes from

All settings: server.py --help all; one: server.py --help port; a command's
options: server.py adduser --help
"""


class Help(argparse.Action):
    """`--help [TOPIC]` of a program."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str, short: str, topics: dict[str, str]) -> None:
        super().__init__(option_strings, dest, nargs="?", default=argparse.SUPPRESS, metavar="TOPIC", help=help)
        self._short, self._topics = short, topics

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, topic: Any, option: str | None = None
    ) -> None:
        text = self._short if topic is None else about(parser, str(topic), self._topics)
        say(*as_started(text).splitlines())
        parser.exit()


def add_help(parser: "argparse._ArgumentGroup", short: str, topics: dict[str, str]) -> None:
    """Give a parser, made with `add_help=False`, its help by topic, in one of its groups."""
    words = f"help: the most usual options; about {', '.join(topics)}, all, or one option"
    parser.add_argument("-h", "--help", action=Help, short=short, topics=topics, help=words)


def about(parser: argparse.ArgumentParser, topic: str, topics: dict[str, str]) -> str:
    """The help about a topic, which may be an option. Raises UsageError for one that there is not."""
    if topic == ALL:
        return parser.format_help()
    for group in parser._action_groups:
        title = topics.get(topic)
        if title is not None and (group.title or "").startswith(title) and group._group_actions:
            return _formatted(parser, group.title, group.description, group._group_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and topic in action.choices:
            return str(action.choices[topic].format_help())
    wanted = topic.lstrip("-")
    found = [action for action in parser._actions if wanted in (word.lstrip("-") for word in action.option_strings)]
    if found:
        return _formatted(parser, None, None, found)
    raise UsageError(f"there is no help about {topic}", f"Topics: {', '.join(topics)}, all, or the name of an option")


def _formatted(
    parser: argparse.ArgumentParser, title: str | None, description: str | None, actions: Sequence[argparse.Action]
) -> str:
    formatter = parser._get_formatter()
    formatter.start_section(title or "option")
    formatter.add_text(description)
    formatter.add_arguments(actions)
    formatter.end_section()
    return formatter.format_help()


def hint(parser: argparse.ArgumentParser, message: str) -> str:
    """Which help answers an error: of the option that it names, or all."""
    named = {word for action in parser._actions for word in action.option_strings if word.startswith("--")}
    words = message.replace(":", " ").replace("/", " ").split()
    option = next((word for word in words if word in named), None)
    if message.startswith("unrecognized arguments"):
        return f"{parser.prog} --help {ALL}"
    return f"{parser.prog} --help {option.lstrip('-')}" if option else f"{parser.prog} --help"
