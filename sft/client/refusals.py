"""What a user reads about a refusal: at which end, which path there, why, and what to do.

Rules: one table for each place where something can be refused: what is sent, at the receiver; what is fetched, here;
what is asked for (to fetch or to list it), at the receiver. A code that has no words in a table, which an honest
receiver does not send there, gets those of the code itself. The wire carries a code alone, so why it was refused is
known only where that happened: here, or in the receiver's log.
"""

import shlex

from sft.common.errors import Code, Refused
from sft.common.exclusions import pattern_for
from sft.common.names import PathParts
from sft.common.text import show_path

GROWN = "it has grown since it was opened, and is sent as it was then"
TIME_BEYOND = "its time lies outside the years 1677 to 2262, and becomes the nearest that can be sent"

_Words = dict[Code, tuple[str, str]]  # cause and remedy; `{path}` is the path at that end

_ASK_OWNER = "The receiver's owner can add it: python server.py limits USER --rights "
_IN_ITS_LOG = "The reason is in its server.log"

_SENT: _Words = {
    Code.EXISTS: (
        "{path} exists already on the receiver",
        "Choose another name, or --if-exists rename, replace or skip",
    ),
    Code.IS_FOLDER: (
        "{path} is a folder on the receiver",
        "To put the file into it, write {path}/; or remove it there first",
    ),
    Code.NOT_FOLDER: (
        "{path}, or a part of it, is a file on the receiver, not a folder",
        "Choose another folder, or remove it there first",
    ),
    Code.LINK: (
        "{path}, or a part of it, is a symbolic link on the receiver",
        "Choose another name, or remove it there first; links are never followed",
    ),
    Code.SPECIAL: (
        "{path} is neither a file nor a folder on the receiver, and is not replaced",
        "Choose another name",
    ),
    Code.NAME: ("the name {path} is not allowed on the receiver", "Choose another name"),
    Code.NAME_NOT_PORTABLE: (
        "{path} is refused: the receiver allows only names that Windows can hold too",
        'Choose a name without \\ : * ? " < > | and without a dot or space at its end',
    ),
    Code.NO_SPACE: (
        "there is no space for {path}: the receiver's disk is full",
        "Free some space there, then send it again",
    ),
    Code.QUOTA: (
        "there is no space for {path}: your account's quota on the receiver is used up",
        "Delete files there, or ask its owner for more",
    ),
    Code.TOO_LARGE: ("{path} is larger than the receiver takes", "Ask its owner to raise the limit"),
    Code.NOT_REPLACED: (
        "{path} is on the receiver already, and your account may not replace it",
        f"It lacks the right replace, or get beside it. {_ASK_OWNER}+replace,+get",
    ),
    Code.BUSY: ("another transfer to {path} is under way on the receiver", "Wait for it to end, then send it again"),
    Code.STORAGE: ("the receiver could not store {path}", _IN_ITS_LOG),
    Code.NOT_FOUND: ("a folder above {path} vanished on the receiver", "Send it again"),
    Code.SIZE: (
        "it changed its size while it was sent to {path} on the receiver",
        "Send it again when no program writes to it",
    ),
    Code.INTEGRITY: (
        "what the receiver got for {path} is not what was sent, and it kept nothing",
        "Send it again; if this repeats, the line or a disk is faulty",
    ),
}

_NOT_UPDATED = (
    "{path} is on the receiver already, and your account may neither list nor replace what is there",
    "--if-exists rename instead of --update sends it beside that; or ask its owner for the rights list and get",
)

_FETCHED: _Words = {
    Code.EXISTS: ("{path} exists already here", "Choose another TARGET, or --if-exists rename, replace or skip"),
    Code.IS_FOLDER: ("{path} is a folder here", "To put the file into it, write {path}/"),
    Code.NOT_FOLDER: ("a part of {path} is a file here, not a folder", "Choose another TARGET"),
    Code.LINK: (
        "a part of {path} is a symbolic link here",
        "Choose another TARGET; links are never followed",
    ),
    Code.SPECIAL: ("{path} is neither a file nor a folder here, and is not replaced", "Choose another TARGET"),
    Code.NAME: ("the name {path} can't be used here", "Choose another TARGET, or rename it on the receiver"),
    Code.NO_SPACE: ("there is no space for {path} here", "Free some space on this machine, then fetch it again"),
    Code.TOO_LARGE: ("{path} is larger than a file may be here", "Check `ulimit -f` and the file system"),
    Code.DENIED: ("{path} is not taken here", ""),
    Code.UNSUPPORTED: ("{path} can't be written here", "Name a folder as TARGET"),
    Code.BUSY: ("another transfer to {path} is under way here", "Wait for it to end, then fetch it again"),
    Code.STORAGE: ("{path} can't be written here", "Check that folder, its rights and its disk"),
    Code.UNAVAILABLE: ("{path} can't be written here", "Check that folder, its rights and its disk"),
    Code.NOT_FOUND: ("a folder above {path} vanished here", "Fetch it again"),
    Code.SIZE: (
        "it changed its size on the receiver while it was fetched",
        "Fetch it again when no program writes to it",
    ),
    Code.INTEGRITY: (
        "what arrived here for {path} is not what was sent, and nothing of it was kept",
        "Fetch it again; if this repeats, the line or a disk is faulty",
    ),
}

_ASKED: _Words = {
    Code.NOT_FOUND: ("{path} does not exist on the receiver", "Check the name"),
    Code.NOT_FOLDER: ("a part of {path} is a file on the receiver, not a folder", "Check the name"),
    Code.LINK: ("a part of {path} is a symbolic link on the receiver", "Links are never followed"),
    Code.SPECIAL: ("{path} is neither a file nor a folder on the receiver", "Only files and folders can be fetched"),
    Code.NAME: ("the name {path} is not allowed on the receiver", "Check the name"),
    Code.STORAGE: ("{path} can't be read on the receiver", _IN_ITS_LOG),
    Code.UNREADABLE: ("{path} can't be read on the receiver", _IN_ITS_LOG),
    Code.CHANGED: ("{path} changed on the receiver while it was read", "Fetch it again when no program writes to it"),
}


_CHANGED: _Words = {
    **{code: _ASKED[code] for code in (Code.NOT_FOUND, Code.NOT_FOLDER, Code.LINK, Code.NAME)},
    Code.EXISTS: (
        "{path} exists already on the receiver",
        "Moving replaces nothing: choose another name, or remove it first",
    ),
    Code.IS_FOLDER: ("{path} is a folder on the receiver", "Choose another name"),
    Code.INSIDE: ("{path} lies in what is to be moved there", "Choose another folder"),
    Code.NOT_EMPTY: (
        "{path} is a folder on the receiver, and not empty",
        "With -r it is removed together with everything in it",
    ),
    Code.NAME_NOT_PORTABLE: _SENT[Code.NAME_NOT_PORTABLE],
    Code.NO_SPACE: _SENT[Code.NO_SPACE],
    Code.QUOTA: _SENT[Code.QUOTA],
    Code.BUSY: ("another connection changes {path} on the receiver at the same time", "Run the same command again"),
    Code.STORAGE: ("{path} can't be changed on the receiver", _IN_ITS_LOG),
}
_FILLED_AGAIN = (
    "{path} on the receiver can't be emptied: something is put into it all the time",
    "Run the same command again when nobody sends",
)
_OF_THE_NEW_NAME = {Code.EXISTS, Code.IS_FOLDER, Code.INSIDE, Code.NAME_NOT_PORTABLE, Code.NO_SPACE, Code.QUOTA}
_OF_EITHER_NAME = {Code.NOT_FOLDER, Code.LINK}

_OMITTED: _Words = {
    Code.NAME: (
        "{path} on the receiver has a name that can't be sent (not UTF-8, a control character, or a path too long)",
        "Rename it there",
    ),
    Code.UNREADABLE: _ASKED[Code.UNREADABLE],
}


# Why the receiver leaves something out without a fault: it is skipped, as it is when it is sent.
SKIPPED = {
    Code.LINK: "a symbolic link on the receiver (--links keeps it)",
    Code.SPECIAL: "neither a file nor a folder on the receiver",
}


def refused_there(problem: Refused, path: str, is_link: bool = False, is_blind: bool = False) -> Refused:
    """The receiver does not take what should become `path` there. `is_blind`: an update that may not list there."""
    if is_blind and problem.code is Code.NOT_REPLACED:
        return Refused(problem.code, path, problem.why, _NOT_UPDATED)
    if is_link and problem.code is Code.DENIED:
        cause = "your account may not make the link {path} on the receiver: it lacks the right links"
        return Refused(problem.code, path, problem.why, (cause, f"{_ASK_OWNER}+links; or leave out --links"))
    return _denied(problem, "send", path, "put") or _told(_SENT, _THERE, problem, path)


def refused_name(problem: Refused, path: PathParts) -> Refused:
    """No receiver takes this path. Where a component can't be typed, with a pattern that leaves that out."""
    told = refused_there(problem, show_path(path))
    odd = next((part for part in path if not part.isprintable()), None)
    if problem.code is Code.NAME and odd is not None:
        told.remedy = f"Rename it, or {_leave_out(odd)}"
    return told


def _leave_out(name: str) -> str:
    return f"leave it out: --exclude {shlex.quote(pattern_for(name))}"


def refused_here(problem: Refused, path: str) -> Refused:
    """This machine does not take what should become `path` here."""
    return _told(_FETCHED, _HERE, problem, path)


def not_given(problem: Refused, path: str, right: str = "get") -> Refused:
    """The receiver does not give `path` there; with the right `list`, does not list it."""
    verb = "list" if right == "list" else "fetch"
    return _denied(problem, verb, path, right) or _told(_ASKED, _THERE, problem, path)


def usage_not_given(problem: Refused) -> Refused:
    """The receiver does not say how much is used."""
    path = "how much you use"
    return _denied(problem, "see", path, "list") or _told(_CHANGED, _THERE, problem, "your folder")


def not_changed(problem: Refused, path: str, recursive: bool = False) -> Refused:
    """The receiver does not remove `path` there."""
    if recursive and problem.code is Code.NOT_EMPTY:
        return Refused(problem.code, path, problem.why, _FILLED_AGAIN)
    return _denied(problem, "remove", path, "remove") or _told(_CHANGED, _THERE, problem, path)


def not_moved(problem: Refused, path: str, to: str) -> Refused:
    """The receiver does not move `path` to `to` there."""
    if problem.code is Code.NAME:  # both names are allowed themselves
        cause = f"{path} can't be moved to {to} on the receiver: something in it would have too long or too deep a path"
        return Refused(problem.code, path, problem.why, (cause, "Choose a name nearer to the top, or a shorter one"))
    if problem.code in _OF_THE_NEW_NAME:
        return _told(_CHANGED, _THERE, problem, to)
    either = f"{path} or {to}" if problem.code in _OF_EITHER_NAME else path
    return _denied(problem, "move", path, "remove, or put") or _told(_CHANGED, _THERE, problem, either)


def _denied(problem: Refused, verb: str, path: str, right: str) -> Refused | None:
    """What an account lacks; None for another refusal."""
    if problem.code is not Code.DENIED:
        return None
    cause = f"your account may not {verb} {{path}} on the receiver: it lacks the right {right}"
    return Refused(problem.code, path, problem.why, (cause, f"{_ASK_OWNER}+{right.replace(', or ', ',+')}"))


def omitted(code: Code, path: str, may_exclude: bool = False) -> Refused:
    """The receiver has `path`, below what was asked for, and can't give it. `may_exclude`: patterns count."""
    told = _told(_OMITTED, _THERE, Refused(code), path)
    odd = next((part for part in path.split("/") if "\\" in part), None)  # as the receiver spells it
    if code is Code.NAME and odd is not None and may_exclude:
        told.remedy = f"Rename it there, or {_leave_out(odd)}"
    return told


_THERE = ("{path} is refused on the receiver: {cause}", _IN_ITS_LOG)
_HERE = ("{path} can't be written here: {cause}", "Check that folder, its rights and its disk")


def _told(words: _Words, other: tuple[str, str], problem: Refused, path: str) -> Refused:
    cause, remedy = words.get(problem.code, other)
    return Refused(problem.code, path, problem.why, (cause.replace("{cause}", problem.code.cause), remedy))
