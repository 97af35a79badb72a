"""Where things go: the whole matrix of sources, names and targets, without a disk and without a network."""

from pathlib import Path

import pytest
from tables import each_row

from sft.client.targets import Destination, checked_parts, destination, local_path, parts_of, remote_paths
from sft.common.errors import Code, Refused, UsageError
from sft.common.names import LOCAL_PARTIAL_AREA

Parts = tuple[str, ...]


def placed(names: list[str], target: str, path: Parts) -> Parts:
    """Where, below the destination, a server's file goes."""
    wanted = [checked_parts(name) for name in names]
    return local_path(path, {parts[-1:] for parts in wanted}, destination(names, wanted, target))


# --- sending ----------------------------------------------------------------------------------------------------------


@each_row(
    ("sources", "target", "paths"),
    [
        (["a"], "b", ["b"]),
        (["a"], "box/b", ["box/b"]),
        (["a"], "box/", ["box/a"]),
        (["a"], "box/deep/", ["box/deep/a"]),
        (["a"], "box//deep///", ["box/deep/a"]),
        (["a"], ".", ["a"]),
        (["a"], "./", ["a"]),
        (["a"], "/", ["a"]),
        (["a"], "", ["a"]),
        (["a"], "./b", ["b"]),
        (["a"], "box/.", ["box/a"]),
        (["a"], "box/./b", ["box/b"]),
        (["./a"], "box/", ["box/a"]),
        (["d/../a"], "box/", ["box/a"]),
        (["d/x"], ".", ["x"]),
        (["d/x"], "y", ["y"]),
        (["a", "b"], "box", ["box/a", "box/b"]),
        (["a", "b"], "box/", ["box/a", "box/b"]),
        (["a", "b"], ".", ["a", "b"]),
        (["a", "d/x"], "box", ["box/a", "box/x"]),
        (["d"], "new", ["new"]),
        (["d/"], "new", ["new"]),
        (["d"], "box/", ["box/d"]),
        (["d/"], "box/", ["box/d"]),
        (["d"], ".", ["d"]),
        (["d/."], "box/", ["box/d"]),
        (["d/e/.."], "box/", ["box/d"]),
        (["d/e", "a"], "box", ["box/e", "box/a"]),
    ],
)
def test_source_goes_where_the_target_says(sources: list[str], target: str, paths: list[str]) -> None:
    assert [(source, "/".join(path)) for source, path in remote_paths(sources, target)] == list(
        zip(sources, paths, strict=True)
    )


def test_whole_folder_has_the_empty_path() -> None:
    assert remote_paths(["d"], ".") == [("d", ("d",))]
    assert parts_of(".") == ()


def test_target_does_not_depend_on_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "box").mkdir()
    assert remote_paths(["a"], "box") == [("a", ("box",))]


@each_row("target", ["/etc/passwd", "/box/", "//box"])
def test_absolute_target_is_a_usage_error(target: str) -> None:
    with pytest.raises(UsageError, match="starts with a slash"):
        remote_paths(["a"], target)


@each_row(
    ("path", "parts"),
    [("", ()), (".", ()), ("/", ()), ("//", ()), ("./.", ()), ("a", ("a",)), ("a//b/", ("a", "b")), ("./a", ("a",))]
    + [("..", ("..",)), ("a/../b", ("a", "..", "b")), ("a b/ c", ("a b", " c")), ("...", ("...",))],
)
def test_parts_of_a_path(path: str, parts: tuple[str, ...]) -> None:
    """`..` is not resolved here; names with it are rejected later."""
    assert parts_of(path) == parts


@each_row(
    ("sources", "target"),
    [
        (["a", "./a"], "box"),
        (["a", "d/../a"], "."),
        (["d/x", "other/x"], "box"),
        (["d", "other/d"], "box"),
        (["d", "d/"], "box"),
        (["d", "d/."], "box"),
        (["d/e/..", "d"], "box"),
    ],
)
def test_two_sources_with_one_path_are_a_usage_error(sources: list[str], target: str) -> None:
    with pytest.raises(UsageError, match="would both become"):
        remote_paths(sources, target)


def test_source_that_is_named_twice_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="b is named twice"):
        remote_paths(["b", "a", "b"], ".")
    (tmp_path / "d/e").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "d/e")
    assert remote_paths([".", ".."], "box/") == [(".", ("box", "e")), ("..", ("box", "d"))]
    with pytest.raises(UsageError, match=r"\. and \.\./e would both become box/e"):
        remote_paths([".", "../e"], "box/")


def test_root_folder_needs_a_new_name() -> None:
    with pytest.raises(UsageError, match="/ has no name of its own"):
        remote_paths(["/"], "box/")
    assert remote_paths(["/"], "box/all") == [("/", ("box", "all"))]


@each_row(("sources", "target"), [(["-"], "box/"), (["-"], "."), (["-", "a"], "box"), (["a", "-"], "b")])
def test_standard_input_needs_a_name_of_its_own(sources: list[str], target: str) -> None:
    with pytest.raises(UsageError, match="no name of its own"):
        remote_paths(sources, target)


# --- fetching ---------------------------------------------------------------------------------------------------------


@each_row(
    ("names", "target", "base", "places"),
    [
        (["a"], "b", ".", {("a",): ("b",)}),
        (["a"], "out/b", "out", {("a",): ("b",)}),
        (["a"], "out/", "out", {("a",): ("a",)}),
        (["a"], ".", ".", {("a",): ("a",)}),
        (["a"], "..", "..", {("a",): ("a",)}),
        (["a"], "out/.", "out", {("a",): ("a",)}),
        (["a"], "out/..", "out/..", {("a",): ("a",)}),
        (["a"], "/abs/b", "/abs", {("a",): ("b",)}),
        (["a"], "/abs/", "/abs", {("a",): ("a",)}),
        (["box/a"], "b", ".", {("a",): ("b",)}),
        (["box/a"], "out/", "out", {("a",): ("a",)}),
        (["box"], "new", ".", {("box",): ("new",), ("box", "x"): ("new", "x"), ("box", "e", "y"): ("new", "e", "y")}),
        (["box/"], "new", ".", {("box",): ("new",), ("box", "x"): ("new", "x")}),
        (["box"], "out/", "out", {("box",): ("box",), ("box", "x"): ("box", "x")}),
        (["a", "box/b"], "out", "out", {("a",): ("a",), ("b",): ("b",), ("b", "x"): ("b", "x")}),
        ([""], "out/", "out", {("a",): ("a",), ("d", "x"): ("d", "x")}),
        (["."], "new", ".", {("a",): ("new", "a"), ("d", "x"): ("new", "d", "x")}),
        (["/"], ".", ".", {("a",): ("a",)}),
    ],
)
def test_fetched_thing_goes_where_the_target_says(
    names: list[str], target: str, base: str, places: dict[Parts, Parts]
) -> None:
    assert destination(names, [checked_parts(name) for name in names], target).base == Path(base)
    for path, place in places.items():
        assert placed(names, target, path) == place


@each_row(
    ("names", "path", "code"),
    [
        (["a"], ("b",), Code.DENIED),
        (["a"], ("A",), Code.DENIED),
        (["a"], ("a ",), Code.DENIED),
        (["box/a"], ("box", "a"), Code.DENIED),
        (["box/a"], ("box",), Code.DENIED),
        (["a", "b"], ("c",), Code.DENIED),
        ([""], (LOCAL_PARTIAL_AREA, "key"), Code.NAME),
        (["a"], (LOCAL_PARTIAL_AREA,), Code.NAME),
    ],
)
@each_row("target", ["new", "out/"])
def test_server_places_nothing_that_was_not_asked_for(names: list[str], path: Parts, code: Code, target: str) -> None:
    with pytest.raises(Refused) as caught:
        placed(names, target, path)
    assert caught.value.code is code


@each_row(
    ("names", "target"),
    [
        (["a", "a"], "out"),
        (["x/a", "y/a"], "out/"),
        (["x/a", "y/./a/"], "out/"),
        (["/a"], "out"),
        (["/etc/passwd", "b"], "out"),
        (["a", "b"], "-"),
        (["a", ""], "-"),
        ([""], "-"),
        (["/"], "-"),
    ],
)
def test_what_can_not_be_fetched_so_is_a_usage_error(names: list[str], target: str) -> None:
    with pytest.raises(UsageError):
        placed(names, target, ("a",))


def test_more_names_than_a_connection_may_ask_for_are_a_usage_error() -> None:
    names = [f"d/{number}" for number in range((1 << 17) + 1)]
    placed(names[:-1], "out/", ("1",))
    with pytest.raises(UsageError, match="131,072 names"):
        placed(names, "out/", ("1",))
    with pytest.raises(UsageError, match="too long"):
        placed(["/".join(["n" * 255] * 15) + f"/{number}" for number in range(1092)], "out/", ("1",))


@each_row("name", ["..", "a/../b", "a\nb", "x" * 256])
def test_name_that_no_receiver_allows_is_rejected(name: str) -> None:
    """Before anything is sent: what a receiver refuses later is exit 1, and a name that can't be used is exit 2."""
    for judge in (checked_parts, lambda target: remote_paths(["a"], target)):
        with pytest.raises(UsageError) as caught:
            judge(name)
        assert caught.value.cause.startswith(f"{name} can't be a name on a receiver (")


@each_row("base", [".", "/", "here", "/a/b", "..", "a/.."])
@each_row("path", [(), ("x",), ("d", "e", "x.txt")])
def test_place_of_what_was_fetched_is_shown_as_a_path(base: str, path: tuple[str, ...]) -> None:
    assert Destination(Path(base), True, None, False).shown(path) == str(Path(base).joinpath(*path))
