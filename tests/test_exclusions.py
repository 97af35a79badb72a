"""Patterns: what they leave out, as git has it, and which can't be read."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tables import each_row

from sft.common.errors import UsageError
from sft.common.exclusions import Exclusions, Pattern, pattern_for


def exclusions(*lines: str) -> Exclusions:
    return Exclusions([Pattern(line, "--exclude") for line in lines])


def parts(path: str) -> tuple[str, ...]:
    return tuple(path.strip("/").split("/"))


def left(tree: list[str], lines: list[str]) -> set[str]:
    """The paths of a tree that a walk from the top down finds; folders end in a slash."""
    excluded = exclusions(*lines)
    found: set[str] = set()
    for path in sorted(tree):
        above = path.strip("/").rpartition("/")[0]
        if (not above or f"{above}/" in found) and not excluded.is_excluded(parts(path), path.endswith("/")):
            found.add(path)
    return found


TREE = ["a.o", "a.c", "build/", "build/a.o", "build/keep", "src/", "src/a.o", "src/b.c", "src/build/", "src/build/x"]


@each_row(
    ("lines", "gone"),
    [
        ([], ""),
        (["*.o"], "a.o build/a.o src/a.o"),
        (["/*.o"], "a.o"),
        (["build"], "build/ build/a.o build/keep src/build/ src/build/x"),
        (["build/"], "build/ build/a.o build/keep src/build/ src/build/x"),
        (["/build/"], "build/ build/a.o build/keep"),
        (["a.o/"], ""),
        (["src/*.o"], "src/a.o"),
        (["src/*.o", "!a.o"], ""),
        (["!a.o", "*.o"], "a.o build/a.o src/a.o"),
        (["build/*", "!keep"], "build/a.o"),
        (["build", "!build/keep"], "build/ build/a.o build/keep src/build/ src/build/x"),
        (["build/**"], "build/a.o build/keep"),
        (["**/build/**"], "build/a.o build/keep src/build/x"),
        (["src/**/x"], "src/build/x"),
        (["*", "!*/", "!*.c"], "a.o build/a.o build/keep src/a.o src/build/x"),
        (["/*", "!/src", "/src/*", "!/src/b.c"], "a.o a.c build/ build/a.o build/keep src/a.o src/build/ src/build/x"),
        (["# a comment", "", "  ", "\\#x"], ""),
        (["[ab].c"], "a.c src/b.c"),
        (["?.c"], "a.c src/b.c"),
    ],
)
def test_pattern_leaves_out_what_gits_would(lines: list[str], gone: str) -> None:
    assert set(TREE) - left(TREE, lines) == set(gone.split())


@each_row("text", ["!", "/", "[z-a]", "a/[9-0]/b", "a\\", "!/", "//"])
def test_pattern_that_can_not_be_read_is_an_error_that_names_its_place(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Exclusions([Pattern("*.o", "list, line 1"), Pattern(text, "list, line 2")])
    assert caught.value.cause == f'list, line 2: "{text}" is not a pattern'


def test_named_source_is_left_out_by_its_own_name_and_by_no_pattern_with_a_folder() -> None:
    assert exclusions("*.o").is_source_excluded("a.o", False)
    assert not exclusions("*.o", "!a.o").is_source_excluded("a.o", False)
    assert exclusions("build/").is_source_excluded("build", True)
    assert not exclusions("build/").is_source_excluded("build", False)
    assert exclusions("*").is_source_excluded("build", True) and exclusions("*/").is_source_excluded("build", True)
    assert not exclusions("/build", "docs/build").is_source_excluded("build", True)


@each_row("pattern", ["*a*a*a*a*a*a*b", "/in/*a*a*a*a*a*a*a*b/", "*a?*a?*a?*a?*a?*a?*a?*b"])
def test_stars_that_fit_nothing_do_not_try_every_place(pattern: str) -> None:
    exclusions = Exclusions([Pattern(pattern, "--exclude")])
    assert not exclusions.is_excluded(("in", "a" * 250), True)
    assert exclusions.is_excluded(("in", "a" * 200 + "b"), True)


def test_folder_that_is_sent_itself_is_never_excluded() -> None:
    assert not exclusions("*").is_excluded((), True)


def test_library_that_is_missing_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pathspec is not installed\. Run: python -m pip install"):
        exclusions("*.o")
    assert not Exclusions()


# --- beside git -------------------------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "ab", "a.o", "b.o", "c", "-", "[", "x y"])
paths = st.lists(names, min_size=1, max_size=4)
pieces = st.sampled_from(["a", "b", "*", "**", "?", "*.o", "a*", "[ab]", "[!a]", "[^b]*", "ab", "c", "\\*", "x y"])
patterns = st.builds(
    lambda no, start, middle, end: no + start + "/".join(middle) + end,
    st.sampled_from(["", "", "", "!"]),
    st.sampled_from(["", "", "/", "**/"]),
    st.lists(pieces, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "/**", "/*"]),
)


def tree_of(files: list[list[str]]) -> list[str]:
    """Files and their folders, as far as no file is in the place of a folder."""
    found: set[str] = set()
    for path in sorted(files, key=len, reverse=True):
        folders = {"/".join(path[:depth]) + "/" for depth in range(1, len(path))}
        if "/".join(path) + "/" not in found and not {each.rstrip("/") for each in folders} & found:
            found |= {*folders, "/".join(path)}
    return sorted(found)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(paths, min_size=1, max_size=12), st.lists(patterns, min_size=1, max_size=4))
@example([["a", "b", "c"]], ["a/**", "!a/b/"])
@example([["a", "b"]], ["a/**/"])
@example([["é"], ["a", "é"]], ["é", "!a/é"])
def test_any_patterns_leave_out_what_gits_do(tmp_path: Path, files: list[list[str]], lines: list[str]) -> None:
    where = tmp_path / f"{len(os.listdir(tmp_path))}"
    tree = tree_of(files)
    for path in tree:
        place = where / path
        (place if path.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            place.touch()
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", "init", "-q", where], check=True, env=environment)
    (where / ".git/info/exclude").write_text("\n".join([*lines, ""]))
    listed = ["git", "-C", str(where), "ls-files", "-z", "--others", "--exclude-standard"]
    by_git = subprocess.run(listed, check=True, env=environment, capture_output=True, text=True).stdout
    assert {path for path in left(tree, lines) if not path.endswith("/")} == set(by_git.split("\0")) - {""}


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=12))
def test_pattern_for_a_name_matches_it_and_can_be_typed(name: str) -> None:
    pattern = pattern_for(name)
    assert pattern.isprintable()
    assert Exclusions([Pattern(pattern, "--exclude")]).is_excluded(("d", name), False)


@pytest.mark.parametrize(
    "name", ["a\nb", "\udcff", "!x\x01", "#\x02", "x\x01 [y]*", "\x03 ", "\\x0a", "a\\", "\x7f", "  ", "*"]
)
def test_pattern_for_an_odd_name_is_about_no_other(name: str) -> None:
    excluded = Exclusions([Pattern(pattern_for(name), "--exclude")])
    assert excluded.is_excluded((name,), False) and excluded.is_excluded((name,), True)
    assert not excluded.is_excluded((f"{name}a",), False) and not excluded.is_excluded((f"a{name}",), False)
