"""Tables of names that are allowed, never allowed, or only not portable; and what `numbered` makes of them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tables import each_row

from sft.common.errors import Code, Refused
from sft.common.names import MAX_COMPONENT, MAX_DEPTH, MAX_PATH, judge_component, judge_path, numbered

ALLOWED = [
    "out.txt",
    "a",
    "with space",
    " leading and trailing ",
    'it\'s "quoted"',
    "📦🚚.bin",
    "cafe\u0301",  # a combining accent, kept apart
    "caf\u00e9",
    "-rf",
    "--",
    ".bashrc",
    "...",
    "..a",
    "a..",
    "back\\slash",
    "a:b",
    "CON",
    "~",
    "$HOME",
    "%2e%2e",
    "\u202eevil",  # reads backwards on a screen, but is a name; it is escaped when it is shown
    "\ufeffbom",
    "\U0010ffff",
    "a" * 255,
    "é" * 127,
    "📦" * 63 + "abc",
]

NEVER = [
    "",
    ".",
    "..",
    "/",
    "a/b",
    "/etc",
    "a/",
    "../x",
    "\0",
    "a\0b",
    "line\nbreak",
    "a" * 256,
    "é" * 128,
    "📦" * 64,
    "\ud800",
    "lone\udcffsurrogate",
    "\udfff.txt",
]

CONTROLS = [chr(code) for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))]

NOT_PORTABLE = [
    "a:b",
    "a\\b",
    "a*",
    "what?",
    'say "so"',
    "<",
    ">",
    "a|b",
    "CON",
    "con",
    "con.txt",
    "Con.tar.gz",
    "PRN",
    "nul",
    "nul.",
    "aux ",
    "aux",
    "aux .txt",
    "COM1",
    "com9.log",
    "COM¹",
    "lpt²",
    "LPT³.txt",
    "CONIN$",
    "conout$.txt",
    "dot.",
    "space ",
    "...",
    ". ",
]

PORTABLE = [
    "out.txt",
    ".bashrc",
    "con1",
    "xcon",
    "a.con",
    "com",
    "com0",
    "com10",
    "lpt",
    " con",
    "it's",
    "a;b",
    "cafe\u0301",
    "📦",
    "-rf",
    "a" * 255,
]


def code_of(component: str, portable: bool = False) -> Code:
    with pytest.raises(Refused) as caught:
        judge_component(component, portable)
    with pytest.raises(Refused) as whole:
        judge_path(("folder", component, "file"), portable)
    assert whole.value.code is caught.value.code
    return caught.value.code


@each_row("component", ALLOWED, ids=ascii)
def test_accept_allowed_name(component: str) -> None:
    judge_component(component)
    judge_path((component,))
    judge_path((component, component))


@each_row("component", NEVER, ids=ascii)
def test_refuse_name_that_is_never_allowed(component: str) -> None:
    assert code_of(component) is Code.NAME
    assert code_of(component, portable=True) is Code.NAME


@each_row("control", CONTROLS, ids=ascii)
def test_refuse_every_control_character(control: str) -> None:
    for component in (control, f"a{control}", f"{control}a", f"a{control}b"):
        assert code_of(component) is Code.NAME


@each_row("component", NOT_PORTABLE, ids=ascii)
def test_refuse_what_windows_cannot_hold_only_when_asked(component: str) -> None:
    assert code_of(component, portable=True) is Code.NAME_NOT_PORTABLE
    judge_component(component)


@each_row("component", PORTABLE, ids=ascii)
def test_accept_portable_name(component: str) -> None:
    judge_component(component, portable=True)


def test_refuse_empty_path() -> None:
    with pytest.raises(Refused) as caught:
        judge_path(())
    assert caught.value.code is Code.NAME


def test_depth_has_a_limit() -> None:
    judge_path(("d",) * MAX_DEPTH)
    with pytest.raises(Refused) as caught:
        judge_path(("d",) * (MAX_DEPTH + 1))
    assert caught.value.code is Code.NAME


@each_row("char", ["n", "é", "\U0001f4e6"])
def test_whole_path_has_a_limit_in_bytes(char: str) -> None:
    """Each component counts with the slash behind it; 4,096 is what systems take at most."""
    wide = char * (240 // len(char.encode()))
    full = (wide,) * 16
    judge_path((*full, "x" * (MAX_PATH - 16 * 241 - 1)))
    for path in ((*full, "x" * (MAX_PATH - 16 * 241)), (*full, wide), (*full, "x" * (MAX_PATH - 16 * 241 - 2), "y")):
        with pytest.raises(Refused) as caught:
            judge_path(path)
        assert caught.value.code is Code.NAME
        assert "bytes" in caught.value.cause


@each_row("place", [0, 1, 2])
def test_refuse_a_bad_component_at_any_place(place: int) -> None:
    path = ["a", "b", "c"]
    path[place] = ".."
    with pytest.raises(Refused) as caught:
        judge_path(tuple(path))
    assert caught.value.code is Code.NAME


def test_refusal_repeats_nothing_of_a_long_or_dangerous_name() -> None:
    with pytest.raises(Refused) as caught:
        judge_component("\x1b]0;evil\x07")
    assert "evil" not in str(caught.value)


@each_row(
    ("component", "number", "expected"),
    [
        ("db.dump", 1, "db.1.dump"),
        ("db.dump", 42, "db.42.dump"),
        ("a.tar.gz", 1, "a.tar.1.gz"),
        (".bashrc", 1, ".bashrc.1"),
        (".config.toml", 1, ".config.1.toml"),
        ("README", 1, "README.1"),
        ("a.", 1, "a.1."),
        ("-", 9999, "-.9999"),
        ("📦.bin", 2, "📦.2.bin"),
    ],
)
def test_number_goes_before_the_ending(component: str, number: int, expected: str) -> None:
    assert numbered(component, number) == expected


@each_row(
    "component",
    ["a" * 255, "a" * 251 + ".txt", "a." + "b" * 253, "." + "b" * 254, "..." + "b" * 252, "é" * 127, "📦" * 63 + ".gz"],
    ids=["plain", "ending", "long ending", "hidden", "dots", "two bytes", "four bytes"],
)
def test_numbered_longest_names_stay_allowed_and_differ(component: str) -> None:
    made = {numbered(component, number) for number in range(1, 200)}
    assert len(made) == 199
    assert component not in made
    for name in made:
        judge_component(name)


def is_allowed(component: str) -> bool:
    try:
        judge_component(component)
    except Refused:
        return False
    return True


NAMES = st.one_of(
    st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/"), min_size=1, max_size=255),
    st.text("ab.é📦", min_size=1, max_size=255),
    st.builds(lambda size, char: char * size, st.integers(60, 255), st.sampled_from("a.é📦")),
).filter(is_allowed)


@given(NAMES, st.integers(1, 9_999))
@example("a." + "b" * 253, 1)
@example("." * 255, 9_999)
@example("..." + "." * 250, 1)
def test_numbered_names_are_always_allowed_and_different(component: str, number: int) -> None:
    made = numbered(component, number)
    judge_component(made)
    assert made != component
    assert len(made.encode()) <= MAX_COMPONENT
    assert numbered(component, number + 1) != made


def test_numbered_portable_name_stays_portable() -> None:
    """Shortened so that the number fits, `nul12.…` must not become the device `nul`."""
    for component in ("nul12." + "b" * 249, "con__." + "b" * 249, "com1__." + "b" * 248):
        judge_component(component, portable=True)
        judge_component(numbered(component, 1), portable=True)
