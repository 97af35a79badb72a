"""`--check` where the receiver can't read something: that is no difference, in either direction."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from speaker import Session, control, message
from test_hostile_server import meet, served

FAILED = 1
HERE = {"a": b"first", "d/x": b"second", "u": b"third"}


def tree_without(*omitted: tuple[str, int]) -> Any:
    """A server that has `a` in the folder in, and can't give those names, and so many beside each."""

    def serve(session: Session) -> None:
        while (found := session.hear()).kind == "TREE":
            id, path, after = found.fields["id"], found.fields["path"], found.fields["after"]
            entries = [[1, "in", "folder", 0, 1, 0o755, None, None]] if not path else []
            if path and after is None:
                for name, more in omitted:
                    session.say(control("OMITTED", id=id, name=name, code="unreadable", more=more))
                entries = [[1, "a", "file", 5, 1, 0o644, None, sha256(HERE["a"]).digest()]]
            session.say(control("BRANCH", id=id, entries=entries, more=False))
        session.say(message("BYE"))

    return serve


@pytest.mark.parametrize("direction", [[], ["--get"]], ids=["sent", "fetched"])
@pytest.mark.parametrize(
    ("omitted", "lines"),
    [
        ([("u", 0), ("d", 0)], ["1 same"]),  # a folder with all that is in it
        ([("other", 2)], ["1 same"]),  # it may be one of those that are not named
        ([("u", 0), ("d/x", 0)], ["{}: in/d/", "1 same, 1 {}"]),
        ([("d/y", 2)], ["{}: in/d/", "{}: in/u", "1 same, 2 {}"]),
    ],
)
def test_what_can_not_be_read_there_is_not_called_another_tree(
    tmp_path: Path, direction: list[str], omitted: list[tuple[str, int]], lines: list[str]
) -> None:
    for name, content in HERE.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    names: list[str | Path] = ["in", tmp_path / "in"] if direction else [tmp_path / "in", "in"]
    result = meet(served(tree_without(*omitted)), tmp_path, "--check", *direction, *names)
    word, shown = ("extra", f"{tmp_path}/in") if direction else ("missing", "in")
    assert result.out.splitlines() == [line.format(word, word).replace("in/", f"{shown}/") for line in lines]
    assert result.status == FAILED and omitted[0][0] in result.err
