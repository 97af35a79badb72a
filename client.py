"""The sending end: `python client.py SOURCE... TARGET`; and `--get`, `--list`, `--remove`, `--move`, `--usage`.

Rules: success (exit 0) means that for everything that was named a receipt is here. Each error is one line. No password
is taken from the command line. What is not needed for --help, or to reject a command, is not loaded
for it; the work itself is `sft/client/jobs.py`.
"""

from sft.common import python_version  # noqa: F401, I001  # first of all: an older Python can't import the others
from sft.common import signals

if __name__ == "__main__":  # before what takes time to import
    signals.end_at_once(signals.SIGINT, signals.SIGTERM, signals.SIGHUP)

import _thread
import argparse
import gc
import os
import sys
import threading
from collections.abc import Sequence

from config import ClientSettings, add_file_flags, add_flags, load
from sft.common.errors import ConnectionTrouble, Failure, UsageError
from sft.common.started import as_started, mark_installed
from sft.common.utf8_names import take_names_as_utf8
from sft.common.version import VERSION_HELP, version_line
from sft.console.command_line import Parser, check_command, read_intermixed
from sft.console.completion import add_completion
from sft.console.help import CLIENT_HELP, CLIENT_TOPICS, add_help
from sft.console.output import fill_closed_streams
from sft.console.receiver_names import take_receiver
from sft.console.screen import ended, leave, say

_MOMENT = 0.01  # seconds: Python has left the cleaning up by then

_EXIT_CODES = """\
exit status:
  0    everything was delivered: a receipt is here for each file
  1    something named was not: refused, missing, unreadable, disk full;
       or standard output can't be written
  2    the command, a setting or a name can't be used
  3    login refused
  4    can't connect, server busy, or connection lost for good
  5    what arrived is not what was sent; nothing of it was kept
  130  interrupted (129, 143: by SIGHUP, SIGTERM)
"""


def _parser() -> Parser:
    parser = Parser(
        prog=as_started("client.py"),
        usage="client.py [options] SOURCE... TARGET\n       client.py --get [options] NAME... TARGET\n"
        "       client.py --list [options] [NAME]\n       client.py --remove [options] NAME...\n"
        "       client.py --move [options] OLD NEW\n       client.py --usage [options]",
        description="Send files and folders to a receiver, fetch, list, remove and move them. [USER@]HOST: in front\n"
        "of a name there names the receiver: at the TARGET to send, at each SOURCE to fetch. A file whose name\n"
        "has a colon is ./NAME. A TARGET that ends in a slash, or more than one SOURCE, means: into this folder.\n"
        "Otherwise TARGET is the new name. `-` is standard input, as the TARGET of a fetch standard output. After\n"
        "`--` everything is a name. After an interruption the same command goes on where it was.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.topics = CLIENT_TOPICS
    parser.add_argument("names", nargs="*", metavar="SOURCE... TARGET", help=argparse.SUPPRESS)
    what = parser.add_argument_group("what to do")
    what.add_argument("--get", action="store_true", help="fetch the NAMEs to TARGET here, as HOST:NAME does")
    what.add_argument("--check", action="store_true", help="compare digests at both ends, and send nothing")
    what.add_argument("--list", action="store_true", help="list a folder there: size, time and name")
    what.add_argument("--remove", action="store_true", help="remove the NAMEs there, folders with -r")
    what.add_argument("--move", action="store_true", help="give OLD the name NEW there; into NEW if that is a folder")
    what.add_argument("--usage", action="store_true", help="how much you use there, of which quota")
    words = "with --list: everything below it, too; with --remove: folders with all in them; else as without it"
    what.add_argument("-r", "-R", "--recursive", action="store_true", help=words)
    what.add_argument("--yes", action="store_true", help="with --remove: do not ask before a folder is removed")
    what.add_argument("--human", action="store_true", help="with --usage: sizes such as 1.5 GB")
    taken = parser.add_argument_group("what is taken of a SOURCE")
    taken.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[], help="leave out what a .gitignore with it would"
    )
    taken.add_argument(
        "--exclude-from", metavar="FILE", action="append", default=[], help="the same for each line of FILE"
    )
    taken.add_argument(
        "--files-from", metavar="FILE", help="take only what FILE names, below the SOURCE or NAME (-: standard input)"
    )
    taken.add_argument("-0", "--null", action="store_true", help="with --files-from: names end in NUL, not in newline")
    taken.add_argument("-x", "--one-file-system", action="store_true", help="leave out what is mounted in a SOURCE")
    how = parser.add_argument_group("how")
    words = "send or fetch only what has changed: what is there with the same size and time is left alone"
    how.add_argument("-u", "--update", action="store_true", help=words)
    words = "with --update: remove at the receiving end what the other one has not, once everything has arrived"
    how.add_argument("--delete", action="store_true", help=words)
    words = "with --delete: remove nothing if it were more than N things (default: 1000)"
    how.add_argument("--max-delete", metavar="N", help=words)
    how.add_argument("--follow", action="store_true", help="send what symbolic links lead to, instead of skipping them")
    how.add_argument("--links", action="store_true", help="keep symbolic links as links, instead of skipping them")
    how.add_argument("--no-modes", action="store_true", help="keep no permission bits")
    how.add_argument("--preserve-mode", action="store_true", help="keep permission bits, which is the default")
    how.add_argument("--receipts", metavar="FILE", help="append one JSON line for each delivered file to FILE")
    how.add_argument("-n", "--dry-run", action="store_true", help="tell what would be done, and do nothing")
    how.add_argument("--json", action="store_true", help="one JSON event on each line, for scripts")
    how.add_argument(
        "-v", "--verbose", action="store_true", help="a line for each file in a folder, and for each error"
    )
    how.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    add_flags(parser.add_argument_group("settings (each also as SFT_... or in the settings file)"), ClientSettings)
    more = parser.add_argument_group("more")
    more.add_argument("--password-fd", metavar="N", help="read the password from the open descriptor N")
    add_file_flags(more)
    add_help(more, CLIENT_HELP, CLIENT_TOPICS)
    add_completion(more, "sft", "client.py")
    more.add_argument("--version", action="store_true", help=VERSION_HELP)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the client; the exit status."""
    fill_closed_streams()
    return ended(lambda: _main(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: Sequence[str]) -> int:
    options = _read(arguments)
    if options.version:
        say(_version())
        return 0
    receiver = take_receiver(options)
    check_command(options, receiver)
    loaded = load(ClientSettings, vars(options), os.environ, options.config, receiver)
    if options.show_config:
        say(*loaded.lines())
        return 0
    from sft.client.jobs import Run  # not before it is known that there is something to do

    try:
        return Run(loaded.values, loaded.origins, options).run(options.names)
    except ConnectionTrouble as problem:
        if receiver is not None and problem.failure is Failure.UNKNOWN_HOST:
            problem.remedy = f"Check the name of the host, and this machine's network; or {receiver.undo}"
        raise


def _read(arguments: Sequence[str]) -> argparse.Namespace:
    """The options and names. Raises UsageError, for an option of rsync or scp with what stands for it here."""
    parser = _parser()
    try:
        return read_intermixed(parser, arguments, "names")
    except UsageError:
        from sft.console.habits import explain

        explain(arguments[: arguments.index("--") if "--" in arguments else None], parser.letters)
        raise


def _version() -> str:
    from crypto_utils import engine_name
    from sft.wire.compression import zstd_name
    from sft.wire.protocol import VERSION

    return version_line(as_started("client.py"), VERSION, f"{engine_name()}, {zstd_name()}")


def _interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """A signal while Python cleans up an object is lost there, with a traceback: let it come again, a moment later."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        number = lost.exc_value.number if isinstance(lost.exc_value, signals.Terminated) else signals.SIGINT
        threading.Timer(_MOMENT, _thread.interrupt_main, [number]).start()
    else:
        sys.__unraisablehook__(lost)


def command() -> None:
    """Run the client and end the process: what the command `sft` of an installed package calls."""
    mark_installed()
    signals.end_at_once(signals.SIGINT, signals.SIGTERM, signals.SIGHUP)
    _run()


def _run() -> None:
    take_names_as_utf8()
    sys.unraisablehook = _interrupt_again
    # A few dozen small files make as many objects as Python by default searches for cycles, and none is in one.
    gc.set_threshold(20_000, 20, 50)
    leave(main())


if __name__ == "__main__":
    _run()
