"""TREE from a client that means harm, and from one that means well: it learns what is below its folder, no more."""

import os
import shutil

import pytest
from processes import Server
from scene import Stage, said
from speaker import Session, control, message


@pytest.fixture
def stage(besieged: Server) -> Stage:
    return Stage(besieged)


def ask(session: Session, id: int, path: list[str], after: list[str] | None = None) -> None:
    session.say(control("TREE", id=id, path=path, after=after))


def test_tree_is_what_is_on_the_disk_and_links_lead_nowhere(stage: Stage) -> None:
    place = stage.home / "grove"
    for name in ("a/b/c/d", "a-b", "a.txt", "a/z", "ü/\U0001f600"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(name.encode())
    (place / "out").symlink_to(stage.server.folder)
    (place / "round").symlink_to(".")
    os.mkfifo(place / "fifo")
    stage.remember()
    with stage.session() as session:
        found = session.tree("grove")
        assert session.left_out == [("fifo", "special")]
        session.farewell()
    expected = {}
    for path in place.rglob("*"):
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
        if path.name != "fifo":
            expected[path.relative_to(place).parts] = kind, path.stat().st_size if kind == "file" else 0
    assert found == expected
    stage.check()
    shutil.rmtree(place)


NOWHERE: dict[str, tuple[list[str], list[str] | None, str]] = {
    "path of dots": (["..", "outside"], None, "name"),
    "after of dots": ([], ["..", "outside"], "name"),
    "dots behind a folder": (["grove"], ["..", "..", "outside"], "name"),
    "absolute path": (["/etc"], None, "name"),
    "path of 256 names": (["x"] * 256, None, "name"),
    "path and after of 256 names": (["x"] * 128, ["x"] * 128, "name"),
    "5,000 bytes of path": (["x" * 250] * 20, None, "name"),
    "NUL": (["a\0b"], None, "name"),
    "nothing there": (["no such"], None, "not-found"),
}


def test_path_that_leads_nowhere_is_refused_and_the_connection_goes_on(stage: Stage) -> None:
    with stage.session() as session:
        for id, (path, after, code) in enumerate(NOWHERE.values(), 1):
            ask(session, id, path, after)
            assert session.expect("REFUSE", id=id)["code"] == code
        ask(session, 100, [], ["x"] * 255)
        session.expect("BRANCH", id=100)
        session.send(101, ["sent"], b"beside it")
        session.farewell()
    stage.check(sent=b"beside it")
    (stage.home / "sent").unlink()


@pytest.mark.parametrize("count", [300, pytest.param(3000, marks=pytest.mark.long)])
def test_many_trees_at_once_are_answered_in_their_order(stage: Stage, count: int) -> None:
    (stage.home / "many").mkdir()
    for number in range(100):
        (stage.home / f"many/{number:03}").touch()
    stage.remember()
    asked = [(id, ["many"], [f"{id * 7 % 100:03}"] if id % 3 else None) for id in range(1, count + 1)]
    with stage.session() as session:
        session.say(*(control("TREE", id=id, path=path, after=after) for id, path, after in asked), message("BYE"))
        for id, _, after in asked:
            left = 100 if after is None else 99 - int(after[0])
            assert len(session.expect("BRANCH", id=id, more=False)["entries"]) == left
        assert said(session.hear()) == "BYE"
    stage.check()
    shutil.rmtree(stage.home / "many")
