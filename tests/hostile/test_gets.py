"""GETs as the document has them: how their names begin, what may come before them, and many thousand of them."""

import pytest
from processes import Server, make
from scene import Stage
from speaker import control, message

GETS = [5_000, pytest.param(20_000, marks=pytest.mark.long)]  # an honest client asks for 16,384 in one connection
KNOWN = 300
PER_RECORD = 500

Names = dict[tuple[str, ...], bytes]


@pytest.fixture
def stage(besieged: Server) -> Stage:
    return Stage(besieged)


@pytest.fixture
def tree(stage: Stage) -> Names:
    """Files at three depths."""
    names: Names = {("a",): b"1", ("d", "x"): b"22", ("d", "e", "y"): b"333", ("d", "e", "z"): bytes(70_000)}
    for path, content in names.items():
        make(stage.home.joinpath(*path)).write_bytes(content)
    return names


@pytest.mark.parametrize(
    ("path", "depth"), [("a", 1), ("d/x", 1), ("d/x", 2), ("d/e", 1), ("d/e", 2), ("d/e/z", 1), ("d/e/z", 3), ("", 0)]
)
def test_names_begin_with_as_many_components_as_were_asked_for(
    stage: Stage, tree: Names, path: str, depth: int
) -> None:
    asked = tuple(filter(None, path.split("/")))
    with stage.session() as session:
        session.say(control("GET", id=1, path=asked, more=False, depth=depth))
        landed = session.take_all()
        session.say(message("BYE"))
    above = len(asked) - depth
    own = {
        name: content for name, content in landed.items() if path or name[0] in ("a", "d")
    }  # less other tests' files
    assert own == {name[above:]: content for name, content in tree.items() if name[: len(asked)] == asked}


@pytest.mark.usefixtures("tree")
def test_what_is_left_out_is_named_from_the_same_component_on(stage: Stage) -> None:
    (stage.home / "d/e/link").symlink_to("y")
    for depth, name in ((1, "e/link"), (2, "d/e/link")):
        with stage.session() as session:
            session.say(control("GET", id=1, path=["d", "e"], more=False, depth=depth))
            session.take_all()
            session.say(message("BYE"))
            assert session.left_out == [(name, "link")]
    (stage.home / "d/e/link").unlink()


def test_trees_and_listings_come_before_the_first_get_and_are_answered_at_once(stage: Stage, tree: Names) -> None:
    with stage.session() as session:
        session.say(control("RATE", rate=1 << 40))
        assert set(session.tree("d")) == {("x",), ("e",), ("e", "y"), ("e", "z")}
        assert {"a", "d"} <= set(session.names_in())
        session.say(control("GET", id=1, path=["d", "x"], more=False, depth=2))
        assert session.take_all() == {("d", "x"): tree["d", "x"]}
        session.say(message("BYE"))


@pytest.mark.parametrize("asked", GETS)
def test_thousands_of_gets_are_each_answered_and_small_files_share_batches(stage: Stage, asked: int) -> None:
    for number in range(KNOWN):
        make(stage.home / f"f{number % 10}" / f"{number}").write_bytes(b"%d" % number)
    with stage.session() as session:
        for first in range(1, asked, PER_RECORD):
            ids = range(first, min(first + PER_RECORD, asked))
            session.say(*(get(id, asked) for id in ids))
        landed = session.take_all()
        session.say(message("BYE"))
        assert landed == {(f"f{number % 10}", f"{number}"): b"%d" % number for number in range(1, KNOWN)}
        assert session.refused == [(id, "not-found") for id in range(KNOWN, asked)]
        assert session.batches <= 2


def get(id: int, asked: int) -> bytes:
    return control("GET", id=id, path=[f"f{id % 10}", f"{id}"], more=id < asked - 1, depth=2)
