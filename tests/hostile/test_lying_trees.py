"""A server whose answers to TREE make no tree, or no true one: the client says so, and loses nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import Result
from speaker import Session, body_of, control, message, put_fields, sha256
from test_hostile_server import Serve, meet, served

INTEGRITY, LOST, FAILED = 5, 4, 1
PAGES = 30

Node = list[Any]


def node(depth: int, name: str, kind: str = "file", target: str | None = None) -> Node:
    return [depth, name, kind, 0, 1, 0o644, target, None]


def tree(*pages: list[Node], first: int = 1) -> Serve:
    """Page by page, each but the last with more to come; the first is asked for with that id."""

    def serve(session: Session) -> None:
        for number, entries in enumerate(pages, first):
            session.hear()
            session.say(control("BRANCH", id=number, entries=entries, more=number < len(pages) + first - 1))
        session.hear()
        session.say(message("BYE"))

    return serve


FOLDER = node(1, "d", "folder")
LIES: dict[str, list[list[Node]]] = {
    "one name for ever": [[node(1, "a")]] * PAGES,
    "twice": [[node(1, "a"), node(1, "a")]],
    "backwards": [[node(1, "b"), node(1, "a")]],
    "backwards in pages": [[FOLDER, node(2, "b")], [node(2, "a")]],
    "nothing for ever": [[node(1, "a")], *[[]] * PAGES, [node(1, "b")]],
    "below a file": [[node(1, "a"), node(2, "b")]],
    "below a link": [[node(1, "a", "link", "/"), node(2, "etc")]],
    "a file that is a folder, too": [[node(1, "a"), node(1, "a", "folder"), node(2, "b")]],
    "two levels at once": [[FOLDER, node(3, "b")]],
    "dots": [[FOLDER, node(2, "..")]],
    "a dot": [[node(1, ".")]],
    "a slash": [[node(1, "a/b")]],
    "an absolute name": [[node(1, "/etc")]],
    "an escape": [[node(1, "a\x1b[2J")]],
    "an escape in a target": [[node(1, "a", "link", "\x1b[2J")]],
    "no target": [[node(1, "a", "link")]],
    "a target of a file": [[node(1, "a", "file", "b")]],
    "a size of a folder": [[[1, "a", "folder", 5, 1, 0, None, None]]],
    "a digest of a folder": [[[1, "a", "folder", 0, 1, 0, None, bytes(32)]]],
    "a digest of another length": [[[1, "a", "file", 0, 1, 0, None, bytes(31)]]],
    "an unknown kind": [[node(1, "a", "device")]],
    "depth 0": [[node(0, "a")]],
    "depth 256": [[node(256, "a")]],
    "more entries than a page has": [[node(1, f"{number:04}") for number in range(8193)]],
    "too deep": [[node(depth, "d", "folder") for depth in range(1, 256)]],
    "no tree": [[1, 2, 3]],  # type: ignore[list-item]
}


@pytest.mark.parametrize("lie", LIES)
def test_what_makes_no_tree_is_no_listing(tmp_path: Path, lie: str) -> None:
    result = meet(served(tree(*LIES[lie])), tmp_path, "--list", "-R", "in")
    assert result.status == INTEGRITY
    assert "\x1b" not in result.out + result.err
    assert result.err.count("\n") == 1


def test_what_makes_a_tree_is_one(tmp_path: Path) -> None:
    """Else the ones above would fail for another reason."""
    pages = [[FOLDER, node(2, "a")], [node(2, "b\\", "link", "../\\x1b"), node(1, "é", "folder")], []]
    result = meet(served(tree(*pages)), tmp_path, "--list", "-R", "in")
    assert (result.status, result.err) == (0, "")
    names = [line.split("Z  ")[1] for line in result.out.splitlines()]
    assert [name.encode("ascii", "replace").decode() for name in names][:2] == ["d/", "d/a"]
    assert len(names) == 4


@pytest.mark.parametrize("code", ["denied", "not-found", "link", "storage", "name"])
def test_refused_tree_is_one_line(tmp_path: Path, code: str) -> None:
    def serve(session: Session) -> None:
        session.expect("TREE", id=1)
        session.say(control("REFUSE", id=1, code=code))
        session.expect("BYE")
        session.say(message("BYE"))

    result = meet(served(serve), tmp_path, "--list", "-R", "in")
    assert result.status == FAILED
    assert result.out == ""
    assert result.err.count("\n") == 1 and "in" in result.err


def test_list_in_the_place_of_a_tree_of_no_folder_is_asked_for(tmp_path: Path) -> None:
    def serve(session: Session) -> None:
        session.expect("TREE", id=1)
        session.say(control("REFUSE", id=1, code="not-folder"))
        session.expect("LIST", path=["in"])
        session.say(control("ENTRY", id=1, entries=[["in", "file", 7, 1, None]], more=False))
        session.expect("BYE")
        session.say(message("BYE"))

    result = meet(served(serve), tmp_path, "--list", "-R", "in")
    assert (result.status, result.err) == (0, "")
    assert result.out.split() == ["7", "1970-01-01T00:00:00Z", "in"]


# --- a client that sends a folder, and asks first what is there -------------------------------------------------------

FILES = {"a": b"first", "b": b"second", "c": b""}


def source(folder: Path) -> Path:
    (folder / "album").mkdir()
    for name, content in FILES.items():
        (folder / "album" / name).write_bytes(content)
    return folder / "album"


def node_of(name: str) -> Node:
    return [1, name, "file", len(FILES[name]), 1, 0o644, None, None]


ALL_THERE = [node_of(name) for name in FILES]


@pytest.mark.parametrize("lie", LIES)
def test_what_makes_no_tree_is_no_hint_for_a_client_that_sends(tmp_path: Path, lie: str) -> None:
    album = source(tmp_path)
    result = meet(served(tree(*LIES[lie])), tmp_path, album, "in/")
    assert result.status == INTEGRITY
    assert "\x1b" not in result.out + result.err
    assert "delivered: in" not in result.out


def took(session: Session, nodes: list[Node], becomes: Callable[[dict[str, Any]], str]) -> dict[str, bytes]:
    """What a client sends that gets these entries; `becomes(file)`: the outcome of each file."""
    session.expect("TREE", path=["in", "album"], after=None)
    session.say(control("BRANCH", id=1, entries=nodes, more=False))
    landed: dict[str, bytes] = {}
    found = session.hear()
    while found.kind not in ("BYE", "ERROR"):
        if found.kind == "PUT":
            session.say(session.receipt(found.fields))
        else:
            outcomes, digests, at = list[list[str | None]](), b"", 0
            for each in found.fields["files"]:
                word = becomes(each)
                outcomes.append([word, None])
                digests += each["sha256"] if word in ("stored", "already") else b""
                size = each["size"] if each["with_content"] else 0
                if each["with_content"]:
                    landed[each["path"][-1]] = found.body[at : at + size]
                at += size
            session.say(session.receipts(found.fields, sha256=sha256(digests), outcomes=outcomes))
        found = session.hear()
    session.say(message("BYE"))
    return landed


def test_content_that_is_not_there_in_spite_of_the_tree_is_sent(tmp_path: Path) -> None:
    landed: dict[str, bytes] = {}
    offered: list[str] = []

    def becomes(file: dict[str, Any]) -> str:
        if not file["with_content"]:
            offered.append(file["path"][-1])
        return "stored" if file["with_content"] else "wanted"

    result = meet(
        served(lambda session: landed.update(took(session, ALL_THERE[:2], becomes))), tmp_path, source(tmp_path), "in/"
    )
    assert (result.status, result.err) == (0, "")
    assert offered == ["a", "b"]
    assert landed == FILES


def test_file_that_is_said_to_be_there_counts_only_with_its_digest(tmp_path: Path) -> None:
    def serve(session: Session) -> None:
        session.expect("TREE", id=1)
        session.say(control("BRANCH", id=1, entries=ALL_THERE, more=False))
        found = session.hear()
        while found.kind == "PUT":
            session.say(session.receipt(found.fields))
            found = session.hear()
        outcomes = [["already", None]] * len(found.fields["files"])
        session.say(session.receipts(found.fields, sha256=bytes(32), outcomes=outcomes))
        session.hear_all()

    result = meet(served(serve), tmp_path, source(tmp_path), "in/")
    assert result.status == INTEGRITY
    assert "there already" not in result.out


def test_file_that_was_only_offered_can_not_be_stored(tmp_path: Path) -> None:
    def becomes(file: dict[str, Any]) -> str:
        return "stored"

    def serve(session: Session) -> None:
        took(session, ALL_THERE, becomes)

    result = meet(served(serve), tmp_path, source(tmp_path), "in/")
    assert result.status == INTEGRITY
    assert "delivered: in" not in result.out


@pytest.mark.parametrize("answer", ["not-found", "denied", "stopping", "storage"])
def test_tree_that_is_refused_is_one_question_and_all_is_sent(tmp_path: Path, answer: str) -> None:
    landed: dict[str, bytes] = {}

    def serve(session: Session) -> None:
        session.expect("TREE", id=1)
        session.say(control("REFUSE", id=1, code=answer))
        found = session.hear()
        while found.kind != "BYE":
            assert found.kind in ("PUT", "BATCH")
            if found.kind == "PUT":
                session.say(session.receipt(found.fields))
            else:
                assert found.fields["id"] > 1
                landed.update({path[-1]: content for path, content in session.take_batch(found).items()})
            found = session.hear()
        session.say(message("BYE"))

    result = meet(served(serve), tmp_path, source(tmp_path), "in/")
    assert (result.status, result.err) == (0, "")
    assert landed == FILES


def test_single_file_is_sent_without_a_question(tmp_path: Path) -> None:
    kinds: list[str] = []

    def serve(session: Session) -> None:
        found = session.hear()
        kinds.append(found.kind)
        session.take_batch(found)
        session.expect("BYE")
        session.say(message("BYE"))

    assert meet(served(serve), tmp_path, source(tmp_path) / "a", "in/").status == 0
    assert kinds == ["BATCH"]


def test_tree_without_end_is_read_as_far_as_it_is_in_proportion(tmp_path: Path) -> None:
    pages: list[int] = []

    def serve(session: Session) -> None:
        found = session.hear()
        while found.kind == "TREE":
            pages.append(found.fields["id"])
            entries = [[1, f"{len(pages):06}-{number:04}", "file", 5, 1, 0, None, None] for number in range(3000)]
            session.say(control("BRANCH", id=found.fields["id"], entries=entries, more=True))
            found = session.hear()
        while found.kind != "BYE":
            if found.kind == "PUT":
                session.say(session.receipt(found.fields))
            else:
                session.take_batch(found)
            found = session.hear()
        session.say(message("BYE"))

    assert meet(served(serve), tmp_path, source(tmp_path), "in/").status == 0
    assert 4 <= len(pages) < 100


# --- a client that sends what has changed, and removes what is not here -----------------------------------------------

UPDATE = ("-u", "--delete")


@pytest.mark.parametrize("lie", LIES)
def test_nothing_is_removed_by_what_makes_no_tree(tmp_path: Path, lie: str) -> None:
    kinds: list[str] = []

    def serve(session: Session) -> None:
        tree(*LIES[lie])(session)
        kinds.extend(each.kind for each in session.hear_all())

    result = meet(served(serve), tmp_path, *UPDATE, source(tmp_path), "in/")
    assert result.status == INTEGRITY
    assert "removed" not in result.out and not {"REMOVE", "SET"} & set(kinds)


def test_tree_makes_the_client_remove_nothing_that_is_here(tmp_path: Path) -> None:
    """Whatever kinds it gives to what the client has, and whatever it says that was stored.

    But for two folders in the way of what are files here.
    """
    album = source(tmp_path)
    (album / "d").mkdir()
    (album / "d" / "e").write_bytes(b"inside")
    (album / "link").symlink_to("a")
    said = [
        *(node(1, "a", "folder"), node(2, "x"), node(1, "b", "link", "a"), node(1, "d", "folder")),
        *(node(2, "e", "folder"), node(3, "f"), node(2, "extra"), node(1, "link", "folder"), node(2, "y")),
        node(1, "z", "folder"),
    ]
    removed: list[list[str]] = []
    told = [said]

    def serve(session: Session) -> None:
        found = session.hear()
        while found.kind != "BYE":
            if found.kind == "TREE":  # it is asked for again, before things are removed
                entries = told.pop() if told else []
                session.say(control("BRANCH", id=found.fields["id"], entries=entries, more=False))
            elif found.kind == "PUT":
                session.say(session.receipt(found.fields))
            elif found.kind == "BATCH":
                session.take_batch(found)
            else:
                removed.extend([found.fields["path"]] if found.kind == "REMOVE" else [])
                session.say(control("DONE", id=found.fields["id"], count=1))
            found = session.hear()
        session.say(message("BYE"))

    result = meet(served(serve), tmp_path, *UPDATE, album, "in/")
    assert result.status == 0 and "error" not in result.err
    in_the_way = [["in", "album", "d", "e"], ["in", "album", "a"]]
    extra = [path for path in removed if path not in in_the_way]
    assert extra == [["in", "album", *path] for path in (["z"], ["d", "extra"], ["d", "e", "f"], ["a", "x"])]
    assert not any((tmp_path / Path(*path[1:])).exists() for path in extra)
    assert all((tmp_path / Path(*path[1:])).is_file() for path in in_the_way)
    assert len(removed) == len(extra) + len(in_the_way) == len({tuple(path) for path in removed})


@pytest.mark.parametrize(
    "answer",
    [
        ("DONE", {"id": 3, "count": 1}),
        ("DONE", {"id": 2, "count": 0}),
        ("DONE", {"id": 2, "count": 2}),
        ("REFUSE", {"id": 3, "code": "denied"}),
        ("ENTRY", {"id": 2, "entries": [], "more": False}),
    ],
)
def test_answer_that_is_none_to_a_removal_is_no_removal(tmp_path: Path, answer: tuple[str, dict[str, Any]]) -> None:
    asked: list[str] = []

    def serve(session: Session) -> None:
        session.expect("TREE", id=1)
        session.say(control("BRANCH", id=1, entries=[node(1, "z")], more=False))
        while (found := session.hear()).kind not in ("BYE", "REMOVE"):
            session.say(session.receipt(found.fields)) if found.kind == "PUT" else session.take_batch(found)
        asked.append(found.kind)
        if found.kind == "BYE":
            session.say(message("BYE"))
        else:
            session.say(control(answer[0], **answer[1]))
            session.hear_all()

    result = meet(served(serve), tmp_path, *UPDATE, source(tmp_path), "in/")
    assert asked == ["BYE", "REMOVE"]
    assert result.status == INTEGRITY
    assert "removed" not in result.out


# --- a client that fetches what has changed, and removes what is only here --------------------------------------------

MINE = {"a": b"mine", "d/b": b"mine", "e/f/g": b"mine", "zz": b"mine"}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name, content in MINE.items():
        (tmp_path / "here/in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here/in" / name).write_bytes(content)
    (tmp_path / "here/beside").write_bytes(b"mine")
    (tmp_path / "outside").write_bytes(b"mine")
    return tmp_path / "here"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fetched(serve: Serve, here: Path, *flags: str, is_folder: bool = True) -> Result:
    """`serve` goes on behind the first question, whose answer with `is_folder` is that there is such a folder."""

    def serve_all(session: Session) -> None:
        if is_folder:
            session.expect("TREE", id=1, path=[])
            session.say(control("BRANCH", id=1, entries=[node(1, "in", "folder")], more=True))
        serve(session)

    return meet(
        served(serve_all), here.parent, "--get", "-u", "--delete", "--max-delete=9999", *flags, "in", f"{here}/"
    )


@pytest.mark.parametrize("lie", LIES)
def test_nothing_is_removed_because_of_what_makes_no_tree(here: Path, lie: str) -> None:
    before = contents(here.parent / "here")
    result = fetched(tree(*LIES[lie], first=2), here)
    assert result.status == INTEGRITY
    assert contents(here) == before


@pytest.mark.parametrize("pages", [1, 2])
def test_nothing_is_removed_when_a_tree_is_cut_short(here: Path, pages: int) -> None:
    before = contents(here)

    def serve(session: Session) -> None:
        for number in range(2, pages + 2):
            session.expect("TREE", id=number)
            session.say(control("BRANCH", id=number, entries=[node(1, f"b{number}", "folder")], more=True))
        session.line.stop()

    assert fetched(serve, here).status == LOST
    assert contents(here) == before


@pytest.mark.parametrize("code", ["not-found", "denied", "storage", "link", "not-folder", "name"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_nothing_is_removed_when_a_tree_is_refused(here: Path, code: str, is_folder: bool) -> None:
    before = contents(here)

    def serve(session: Session) -> None:
        session.expect("TREE", id=1 + is_folder)
        session.say(control("REFUSE", id=1 + is_folder, code=code))
        session.expect("GET", path=["in"])
        session.say(control("REFUSE", id=1, code="not-found"), message("BYE"))
        session.expect("BYE")

    assert fetched(serve, here, is_folder=is_folder).status == FAILED
    assert contents(here) == before


def test_nothing_is_removed_when_the_second_page_is_refused(here: Path) -> None:
    before = contents(here)

    def serve(session: Session) -> None:
        session.expect("TREE", id=2)
        session.say(control("BRANCH", id=2, entries=[node(1, "e", "folder")], more=True))
        session.expect("TREE", id=3)
        session.say(control("REFUSE", id=3, code="not-found"))
        session.expect("BYE")
        session.say(message("BYE"))

    assert fetched(serve, here).status == FAILED
    assert contents(here) == before


@pytest.mark.parametrize("code", ["name", "unreadable"])
def test_nothing_is_removed_when_something_is_omitted(here: Path, code: str) -> None:
    before = contents(here)

    def serve(session: Session) -> None:
        session.expect("TREE", id=2)
        session.say(control("OMITTED", id=2, name="d", code=code, more=0))
        session.say(control("BRANCH", id=2, entries=[node(1, "e", "folder")], more=False))
        session.expect("BYE")
        session.say(message("BYE"))

    assert fetched(serve, here).status == FAILED
    assert contents(here) == before


@pytest.mark.parametrize(("name", "more"), [("a", 1), ("a\\x0a", 0)])
def test_nothing_is_removed_when_names_that_are_left_out_are_not_all_known(here: Path, name: str, more: int) -> None:
    before = contents(here)

    def serve(session: Session) -> None:
        session.expect("TREE", id=2)
        session.say(control("OMITTED", id=2, name=name, code="special", more=more))
        session.say(control("BRANCH", id=2, entries=[node(1, "e", "folder")], more=False))
        session.expect("BYE")
        session.say(message("BYE"))

    assert fetched(serve, here).status == FAILED
    assert contents(here) == before


@pytest.mark.parametrize("path", [["in", "x"], ["in"], ["in", "zz", "x"], ["other"], ["here"]])
def test_nothing_comes_that_was_not_asked_for(here: Path, path: list[str]) -> None:
    """Of the tree only `a` has changed."""
    before = contents(here)

    def serve(session: Session) -> None:
        session.expect("TREE", id=2)
        nodes = [node(1, "a"), node(1, "d", "folder"), node(2, "b"), node(1, "e", "folder")]
        session.say(control("BRANCH", id=2, entries=[*nodes, node(2, "f", "folder"), node(3, "g")], more=False))
        asked = [session.hear().fields["path"] for _ in range(3)]
        assert asked == [["in", "a"], ["in", "d", "b"], ["in", "e", "f", "g"]]
        session.say(message("PUT", body_of(put_fields(1, path, 5, policy="skip"))))
        session.expect("REFUSE", id=1, code="denied")
        session.say(control("CANCEL", id=1, code=None))
        session.say(*(control("REFUSE", id=id, code="not-found") for id in (1, 2, 3)), message("BYE"))
        session.expect("BYE")

    assert fetched(serve, here).status == FAILED
    assert contents(here) == before


def test_what_an_honest_tree_has_not_is_removed(here: Path) -> None:
    """Else the ones above would hold for another reason."""

    def serve(session: Session) -> None:
        session.expect("TREE", id=2)
        session.say(control("BRANCH", id=2, entries=[node(1, "e", "folder"), node(2, "f", "folder")], more=False))
        session.expect("BYE")
        session.say(message("BYE"))

    assert fetched(serve, here).status == 0
    assert contents(here.parent) == {"here/beside": b"mine", "outside": b"mine"} | logs(here.parent)


def test_tree_makes_no_more_files_here_make_way_than_may_be_removed(here: Path) -> None:
    """Without --delete: each file is a folder there, and then the server hangs up."""
    names = [f"{number:04}" for number in range(1001)]
    for name in names:
        (here / "in" / name).write_bytes(b"mine")
    before = contents(here)

    def serve(session: Session) -> None:
        session.expect("TREE", id=1, path=[])
        session.say(control("BRANCH", id=1, entries=[node(1, "in", "folder")], more=True))
        session.expect("TREE", id=2)
        session.say(control("BRANCH", id=2, entries=[node(1, name, "folder") for name in names], more=False))
        session.hear()
        session.line.stop()

    assert meet(served(serve), here.parent, "--get", "-u", "--retries=0", "in", f"{here}/").status in (FAILED, LOST)
    assert contents(here) == before


def logs(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(folder).items() if name.startswith("client/")}
