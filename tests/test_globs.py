"""Patterns: which names they match, and how a name says what they would mean."""

import fnmatch

from hypothesis import given
from hypothesis import strategies as st
from tables import each_row

from sft.client.globs import is_pattern, literal_of, regex_of

MATCHES = [
    ("*", "a", True),
    ("*", "", True),
    ("*", ".a", False),
    (".*", ".a", True),
    ("?", "é", True),
    ("?", "ab", False),
    ("?a", ".a", False),
    ("[.]a", ".a", False),
    ("a[b-d]", "ac", True),
    ("a[b-d]", "ae", False),
    ("a[!b]", "ac", True),
    ("a[!b]", "ab", False),
    ("a[^b]", "ab", False),
    ("a[]]", "a]", True),
    ("a[!]]", "a]", False),
    ("a[!]", "a!", True),
    ("a[[]", "a[", True),
    ("a[\\]", "a\\", True),
    ("a[z-a]", "az", False),
    ("[a-]x", "-x", True),
    ("a[&&b]", "a&", True),
    ("a**b", "axxb", True),
    (r"a\*", "a*", True),
    (r"a\*", "ab", False),
    (r"\[a]*", "[a]b", True),
    ("a.txt*", "axtxt", False),
    ("A*", "ab", False),
    ("*\n*", "a\nb", True),
]


@each_row(("pattern", "name", "fits"), MATCHES)
def test_pattern_matches_as_in_a_shell(pattern: str, name: str, fits: bool) -> None:
    assert bool(regex_of([pattern]).fullmatch(name)) is fits


@given(st.text("ab*?", max_size=9), st.text("ab", max_size=9))
def test_stars_match_as_in_the_standard_library(pattern: str, name: str) -> None:
    assert bool(regex_of([pattern]).fullmatch(name)) is fnmatch.fnmatchcase(name, pattern)


@each_row(
    ("pattern", "path"),
    [
        ("*a*a*a*a*a*a*b", "a" * 250),
        ("**/a/**/a/**/a/**/a/**/a/**/b", "/".join("a" * 120)),
        ("*a*a*a*a*a*a*b/c", "a" * 250 + "/c"),
    ],
)
def test_stars_that_fit_nothing_do_not_try_every_place(pattern: str, path: str) -> None:
    """One place for each star; all of them would take years."""
    assert regex_of(pattern.split("/")).fullmatch(path) is None


@each_row(
    ("pattern", "paths", "others"),
    [
        ("**/x", ["x", "a/x", "a/b/x"], ["y", "a/y", ".h/x", "ax"]),
        ("a/**/x", ["a/x", "a/b/c/x"], ["x", "b/x", "a/.h/x"]),
        ("a/**", ["a/b", "a/b.c"], ["a/.h", "a/b/c"]),
        ("*/x?", ["a/x1"], ["x1", "a/b/x1", "a/x"]),
        ("**/.h/*", [".h/a", "a/.h/b"], ["a/b"]),
    ],
)
def test_two_stars_stand_for_any_number_of_folders(pattern: str, paths: list[str], others: list[str]) -> None:
    fits = regex_of(pattern.split("/")).fullmatch
    assert [path for path in paths + others if fits(path)] == paths


@each_row(
    ("name", "literal"),
    [("a", "a"), (r"a\*", "a*"), (r"\[a]", "[a]"), (r"a\?\\", "a?\\"), (r"a\b", r"a\b"), ("a[b", "a[b"), ("[]", "[]")],
)
def test_name_without_a_meaning_stands_for_itself(name: str, literal: str) -> None:
    assert not is_pattern(name) and literal_of(name) == literal


@each_row("name", ["*", "a?", "[a]", "a[!]]", r"\\*", r"\*[a]", "d/**", "a[]]"])
def test_pattern_is_one(name: str) -> None:
    assert is_pattern(name)
