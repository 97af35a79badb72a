"""Options of rsync and scp that people type here from habit, and what stands for them.

Rules: it is asked only about a command that can't be read, so what is an option here never comes to it.
"""

from collections.abc import Sequence

from sft.common.errors import UsageError

_KEPT = "Times and permission bits are kept anyway"
_SHOWN = "On a terminal progress is shown anyway, and what is interrupted goes on with the same command"
_DELETE = "--delete removes once everything has arrived, and spares what is excluded"
_LETTERS = {
    "a": f"{_KEPT}, folders are sent with all in them, and --links keeps symbolic links",
    "t": _KEPT,
    "p": _KEPT,
    "l": "--links keeps symbolic links",
    "L": "--follow sends what symbolic links lead to",
    "P": f"{_SHOWN}; a port is --port N",
    "z": "What is sent is compressed anyway while the line is slow; --compress on always does",
    "c": "--if-exists replace without --update compares all content by digests",
    "i": "--dry-run tells what would be done and why, and -v names each file",
    "e": "This is no ssh: HOST is a receiver of this program, and --port its port",
    "S": "Holes of files are kept anyway",
    "C": "--compress on compresses always",
    "H": "Hard links are not kept: each name is sent as a file of its own",
}
_WORDS = {
    "--archive": _LETTERS["a"],
    "--times": _KEPT,
    "--perms": _KEPT,
    "--progress": _SHOWN,
    "--partial": _SHOWN,
    "--info": _SHOWN,
    "--stats": "The last line has the counts, and --json more of them",
    "--checksum": _LETTERS["c"],
    "--itemize-changes": _LETTERS["i"],
    "--copy-links": _LETTERS["L"],
    "--rsh": _LETTERS["e"],
    "--sparse": _LETTERS["S"],
    "--bwlimit": "--limit 5M lets at most so many bytes per second pass",
    "--ignore-existing": "--if-exists skip leaves what is there",
    "--backup": "--if-exists rename gives what comes another name",
    "--delete-before": _DELETE,
    "--delete-during": _DELETE,
    "--delete-after": _DELETE,
    "--delete-excluded": "--delete spares what is excluded; --remove removes it",
    "--existing": "What is not there yet is sent, too; --exclude and --files-from choose",
    "--size-only": "--update compares size and time",
    "--inplace": "A file takes the name only once it is whole",
    "--append": "With --update a file that has only grown sends its new end",
    "--hard-links": "Hard links are not kept: each name is sent as a file of its own",
    "--numeric-ids": "Owners are not kept: what arrives belongs to who runs the server",
    "--remove-source-files": "What was sent stays here",
    "--filter": "--exclude takes the patterns of .gitignore, and '!PATTERN' takes back in",
    "--transfers": "Files share one connection anyway, many small ones in one message",
    "--include": "--exclude '!PATTERN' takes back in what an earlier pattern has left out",
}


def explain(arguments: Sequence[str], known: str) -> None:
    """Raises UsageError if one of these is an option of rsync or scp; `known`: the letters that are options here."""
    for argument in arguments:
        if argument.startswith("--"):
            option = argument.partition("=")[0]
            words = _WORDS.get(option)
        elif argument.startswith("-") and len(argument) > 1:
            letter = next((each for each in argument[1:] if each not in known), "")
            option, words = f"-{letter}", _LETTERS.get(letter)
        else:
            continue
        if words is not None:
            raise UsageError(f"{option} is no option here", words)
