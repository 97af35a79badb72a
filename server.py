"""The receiving end: `python server.py` takes files; `adduser` and others keep its accounts, `status` asks it.

Rules: this is the command line and the exit status; what they lead to is in `sft/server/`. Each error is one line.
What --help and a rejected command do not need is loaded after them.
"""

from sft.common import python_version  # noqa: F401, I001  # first of all: an older Python can't import the others
from sft.common import signals

if __name__ == "__main__":  # before what takes time to import
    signals.end_at_once(signals.SIGINT)  # the others end it without a word, until it listens

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Sequence

from config import Loaded, ServerSettings, add_file_flags, add_flags, load, settings_of
from sft.common.errors import UsageError
from sft.common.home import user_folder
from sft.common.packages import check_installed
from sft.common.private_files import make_private_folder
from sft.common.started import as_started, is_installed, mark_installed
from sft.common.utf8_names import take_names_as_utf8
from sft.common.version import VERSION_HELP, version_line
from sft.console.command_line import Parser, check_account_command
from sft.console.completion import add_completion
from sft.console.help import SERVER_HELP, SERVER_TOPICS, add_help
from sft.console.output import fill_closed_streams
from sft.console.screen import ended, leave, say
from sft.server.options import LIVE_COMMANDS, add_account_commands

_COMMAND = "python server.py"  # in advice; the flags in use are put behind it
_REPEATED = ("--config", "--accounts", "--storage")


def _parser() -> Parser:
    parser = Parser(
        prog=as_started("server.py"),
        description="Receive files. Without a command: listen and store what logged-in users send.",
        allow_abbrev=False,
        add_help=False,
    )
    parser.topics = SERVER_TOPICS
    add_flags(parser.add_argument_group("settings (each also as SFT_... or in the settings file)"), ServerSettings)
    more = parser.add_argument_group("more")
    add_file_flags(more)
    add_help(more, SERVER_HELP, SERVER_TOPICS)
    add_completion(more, "sft-server", "server.py")
    more.add_argument("--version", action="store_true", help=VERSION_HELP)
    for command in add_account_commands(parser):  # the flags that name the accounts are accepted behind it, too
        for flag in _REPEATED:
            command.add_argument(flag, metavar="FILE", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        for flag in ("--show-config", "--version"):
            command.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server or one of its commands; the exit status."""
    fill_closed_streams()
    return ended(lambda: _main(_parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    try:
        _do(options)
    except UsageError as problem:
        raise UsageError(problem.cause, _advice(problem.remedy, options)) from None
    return 0


def _advice(text: str, options: argparse.Namespace) -> str:
    """That text with its commands as they have to be typed to mean the same accounts and storage."""
    given = [(flag, getattr(options, flag.removeprefix("--"))) for flag in _REPEATED]
    usual = as_started(_COMMAND)
    own = shlex.join([*usual.split(), *(word for flag, value in given if value for word in (flag, value))])
    return as_started(text).replace(usual, own)


def _do(options: argparse.Namespace) -> None:
    if options.version:
        say(_version())
        return
    if options.command is not None:
        given = [name for name in settings_of(ServerSettings) if getattr(options, name) is not None]
        check_account_command(options.command, given)

    def load_all() -> Loaded[ServerSettings]:
        return load(ServerSettings, vars(options), os.environ, options.config)

    loaded = load_all()
    if options.show_config:
        say(*loaded.lines())
        return
    if is_installed():
        make_private_folder(user_folder())
    if options.command in LIVE_COMMANDS:
        from sft.server import live_commands

        live_commands.run(options.command, loaded.values.accounts, options)
    elif options.command is not None:
        from sft.server import admin

        admin.run(options.command, loaded.values.accounts, loaded.values.storage, options)
    else:
        check_installed("msgspec")
        from sft.wire.compression import check_zstd

        check_zstd()
        from sft.server.start import serve

        serve(
            loaded.values,
            lambda: load_all().values,
            _version(),
            _has_terminal(),
            lambda text: _advice(text, options),
        )


def _version() -> str:
    from crypto_utils import engine_name
    from sft.wire.compression import zstd_name
    from sft.wire.protocol import VERSION

    return version_line(as_started("server.py"), VERSION, f"{engine_name()}, {zstd_name()}")


def _has_terminal() -> bool:
    with contextlib.suppress(OSError, ValueError):  # a closed stream
        return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
    return False


def command() -> None:
    """Run the server and end the process: what the command `sft-server` of an installed package calls."""
    mark_installed()
    signals.end_at_once(signals.SIGINT)
    _run()


def _run() -> None:
    take_names_as_utf8()
    leave(main())


if __name__ == "__main__":
    _run()
