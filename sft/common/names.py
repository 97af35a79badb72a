"""Decides whether a name from another machine is allowed, and does nothing else.

Rules: a path is a tuple of components, each checked as the bytes that will be in a folder. Nothing is opened: an
allowed name is not yet safe to open (`sft/disk/visible_files.py` never follows a link). Names are used as they are,
never normalised or repaired.
"""

import re
import unicodedata
from collections.abc import Sequence

from sft.common.errors import Code, Refused

LOCAL_PARTIAL_AREA = ".secure-file-transfer-partial"  # beside what is fetched; never sent
MAX_COMPONENT = 255
MAX_DEPTH = 255
MAX_PATH = 4096
MAX_LINK_TARGET = 4095  # bytes; Linux holds no more

PathParts = tuple[str, ...]  # the components of a path

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")  # what Unicode calls Cc
_WINDOWS_FORBIDDEN = frozenset('\\:*?"<>|')
_WINDOWS_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{device}{digit}" for device in ("com", "lpt") for digit in "123456789¹²³"]
)


def judge_path(path: PathParts, portable: bool = False) -> None:
    """Raises Refused (NAME, NAME_NOT_PORTABLE) for a path that is not allowed below a user's folder."""
    if not portable and _is_plain(path):
        return
    if not path:
        raise Refused(Code.NAME, why="it is empty")
    if len(path) > MAX_DEPTH:
        raise Refused(Code.NAME, why=f"more than {MAX_DEPTH} folders deep")
    for component in path:
        judge_component(component, portable)
    if size_of(path) > MAX_PATH:
        raise Refused(Code.NAME, why=f"a path of more than {MAX_PATH} bytes")


def why_not_allowed(path: PathParts) -> str:
    """What is wrong with a path, in words; empty when it is allowed."""
    if _is_plain(path):
        return ""
    try:
        judge_path(path)
    except Refused as problem:
        return problem.why
    return ""


def spelling_of(path: PathParts) -> int:
    """A hash that is the same for all spellings which a disk may take for one name."""
    return hash(unicodedata.normalize("NFC", "/".join(path).casefold()))


def is_link_target(target: str) -> bool:
    """Whether a symbolic link can have that target, and both ends can write it: 1 to 4,095 bytes of UTF-8 without NUL.

    It is no path that anything here would open, so nothing else is asked of it.
    """
    try:
        return 0 < len(target.encode()) <= MAX_LINK_TARGET and "\0" not in target
    except UnicodeEncodeError:
        return False


def split_names(path: PathParts, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names in a folder of an allowed path: those with which its path stays allowed, and the others."""
    left = MAX_PATH - (size_of(path) if path else 0) - 1
    is_deep = len(path) >= MAX_DEPTH
    if not is_deep and left >= MAX_COMPONENT and are_plain(names):
        return list(names), []
    allowed: list[str] = []
    others: list[str] = []
    for name in names:
        is_allowed = not is_deep and not why_not_allowed((name,)) and len(name.encode()) <= left
        (allowed if is_allowed else others).append(name)
    return allowed, others


def size_of(path: PathParts) -> int:
    """The bytes of a path, one more counted for each component; an allowed one has at most MAX_PATH."""
    return len("/".join(path).encode()) + 1


def _is_plain(path: PathParts) -> bool:
    """Whether nothing below has a word against it: short, printable ASCII, no name empty or with a dot in front.

    Most paths are, and with ten thousand small files judging each component is work that shows.
    """
    text = f"/{'/'.join(path)}/"
    return (
        len(path) <= MAX_DEPTH
        and len(text) <= MAX_COMPONENT
        and text.isascii()
        and text.isprintable()
        and text.count("/") == len(path) + 1  # none within a component
        and "//" not in text
        and "/." not in text
    )


def are_plain(names: Sequence[str]) -> bool:
    """Whether each of many names is allowed for certain: short printable ASCII, no dot in front.

    False says nothing. With ten thousand names in a message judging each is work that shows.
    """
    text = f"/{'/'.join(names)}/"
    return (
        text.isascii()
        and text.isprintable()
        and text.count("/") == len(names) + 1
        and "//" not in text
        and "/." not in text
        and max(map(len, names), default=0) <= MAX_COMPONENT
    )


def are_plain_paths(paths: Sequence[PathParts]) -> bool:
    """The same for many paths: whether each is allowed for certain."""
    depths = [len(path) for path in paths]
    most, least = max(depths, default=1), min(depths, default=1)
    if not 0 < least <= most <= MAX_DEPTH:
        return False
    names = [name for path in paths for name in path]
    return (max(map(len, names), default=0) + 1) * most <= MAX_PATH and are_plain(names)


def judge_component(component: str, portable: bool = False) -> None:
    """Raises Refused for one name: empty, `.`, `..`, with a slash, NUL or control character, not UTF-8, too long."""
    if not component:
        raise Refused(Code.NAME, why="an empty name")
    if component in (".", ".."):
        raise Refused(Code.NAME, why=f"{component} is not a name")
    if "/" in component:
        raise Refused(Code.NAME, why="a slash in a name")
    if _CONTROL.search(component):
        raise Refused(Code.NAME, why="a control character in a name")
    try:
        size = len(component.encode())
    except UnicodeEncodeError:
        raise Refused(Code.NAME, why="a name that is not UTF-8") from None
    if size > MAX_COMPONENT:
        raise Refused(Code.NAME, why=f"a name of more than {MAX_COMPONENT} bytes")
    if portable:
        _judge_portable(component)


def _judge_portable(component: str) -> None:
    if component[-1] in ". " or _WINDOWS_FORBIDDEN.intersection(component):
        raise Refused(Code.NAME_NOT_PORTABLE)
    if _is_device(component):
        raise Refused(Code.NAME_NOT_PORTABLE, why="a device of Windows")


def _is_device(component: str) -> bool:
    return component.split(".")[0].rstrip(" ").lower() in _WINDOWS_DEVICES


def numbered(component: str, number: int) -> str:
    """The name to try next when `component` is taken: `db.dump`, 1 gives `db.1.dump`; never over 255 bytes."""
    dot = component.rfind(".", 1)
    stem, ending = (component[:dot], component[dot:]) if dot > 0 else (component, "")
    ending = f".{number}{ending}"
    while stem and len((stem + ending).encode()) > MAX_COMPONENT:
        stem = stem[:-1]
    if not stem:  # an ending that leaves nothing of the name is none
        return numbered(component.replace(".", "_"), number)
    if _is_device(stem):  # shortened to a device's name
        stem = stem[:-1] + "_"
    return stem + ending
