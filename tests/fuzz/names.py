"""Harness: names and paths that another machine says. A byte that begins no UTF-8 stands between two components."""

import os
import posixpath

from sft.common.errors import Code, Refused
from sft.common.names import MAX_COMPONENT, MAX_DEPTH, MAX_PATH, judge_component, judge_path, numbered
from sft.common.text import escape, show_path

WORDS = (
    b"\xff",
    b"..",
    b"\xff..\xff",
    b"/",
    b"\\",
    b"CON",
    b"nul.",
    b"COM\xc2\xb9",
    b"\xed\xa0\x80",
    b"\xc2\x85",
    b"\xe2\x80\xae",
)
_BETWEEN = b"\xff"
_ROOT = "/srv/received/alice"


def one_input(data: bytes) -> None:
    """A path is allowed only when each component is one real name, so that no path leads out of the folder."""
    path = tuple(_text(part) for part in data.split(_BETWEEN)) if data else ()
    line = escape(show_path(path))
    assert line.isprintable()
    assert line.isascii() or line.encode()

    allowed, portable = _is_allowed(path, False), _is_allowed(path, True)
    assert allowed or not portable
    if allowed:
        _check_allowed(path)
    for component in path:
        if _is_allowed((component,), False):
            for number in (1, 10_000):
                judge_component(numbered(component, number))
                assert numbered(component, number) != component
            if _is_allowed((component,), True):
                judge_component(numbered(component, 1), portable=True)


def _is_allowed(path: tuple[str, ...], portable: bool) -> bool:
    try:
        judge_path(path, portable)
    except Refused as problem:
        assert problem.code in ((Code.NAME, Code.NAME_NOT_PORTABLE) if portable else (Code.NAME,))
        return False
    return True


def _check_allowed(path: tuple[str, ...]) -> None:
    names = [component.encode() for component in path]
    assert 1 <= len(path) <= MAX_DEPTH
    assert len(b"/".join(names)) <= MAX_PATH
    for name in names:
        assert 1 <= len(name) <= MAX_COMPONENT
        assert name not in (b".", b"..")
        assert not set(name) & {0, *b"/\n\r\x1b\x7f"}
    whole = posixpath.join(_ROOT, *path)
    assert posixpath.normpath(whole) == whole
    assert os.fsdecode(os.fsencode(whole)) == whole


def _text(part: bytes) -> str:
    """As JSON may give it: also with halves of surrogate pairs."""
    try:
        return part.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return part.decode("utf-8", "surrogateescape")
