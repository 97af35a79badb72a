"""Names as scp has them: which receiver a command means, what its names are there, and what can't be meant."""

import argparse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import each_row

from sft.common.errors import UsageError
from sft.console.receiver_names import split_name, take_receiver


def split(name: str, is_windows: bool = False) -> tuple[str, str, str] | None:
    """User, host and path; None for a name without a receiver."""
    receiver, path = split_name(name, is_windows)
    return None if receiver is None else (receiver.user, receiver.host, path)


@each_row(
    ("name", "found"),
    [
        ("nas:a.txt", ("", "nas", "a.txt")),
        ("nas:docs/a.txt", ("", "nas", "docs/a.txt")),
        ("nas:", ("", "nas", ".")),
        ("nas:/x", ("", "nas", "/x")),
        ("nas:~", ("", "nas", ".")),
        ("nas:~/", ("", "nas", ".")),
        ("nas:~/x/", ("", "nas", "x/")),
        ("nas:~x", ("", "nas", "~x")),
        ("nas:a:b", ("", "nas", "a:b")),
        ("nas:./a@b:c", ("", "nas", "./a@b:c")),
        ("alice@nas:", ("alice", "nas", ".")),
        ("alice@nas.example:a", ("alice", "nas.example", "a")),
        ("alice@10.0.0.1:a", ("alice", "10.0.0.1", "a")),
        ("a@b@nas:x", ("a@b", "nas", "x")),
        ("[::1]:a", ("", "[::1]", "a")),
        ("[2001:db8::1]:", ("", "[2001:db8::1]", ".")),
        ("alice@[fe80::1%eth0]:a/b", ("alice", "[fe80::1%eth0]", "a/b")),
        ("C:x", ("", "C", "x")),
        ("C:\\x", ("", "C", "\\x")),
    ],
)
def test_name_with_a_colon_before_its_first_slash_names_a_receiver(name: str, found: tuple[str, str, str]) -> None:
    assert split(name) == found


@each_row(
    "name",
    [
        "a",
        "a/b",
        "./a:b",
        "/a:b",
        "a/b:c",
        "..",
        "-",
        "",
        ":a",
        "::1",
        "./alice@nas:x",
        "a@b",
        "[::1]",
        "[a]",
        "d/[::1]:x",
    ],
)
def test_name_without_one_is_a_file(name: str) -> None:
    assert split_name(name, False) == (None, name)


@each_row("name", ["C:\\x", "C:x", "c:/x", "C:", ".\\a:b", "d\\a:b", "./a:b"])
def test_drive_letter_of_windows_is_no_host(name: str) -> None:
    assert split_name(name, True) == (None, name)


def test_host_of_more_than_a_letter_is_one_on_windows_too() -> None:
    assert split("nas:C:\\x", True) == ("", "nas", "C:\\x")
    assert split("a@b:x", True) == ("a", "b", "x")


@each_row("name", ["@nas:a", "alice@:a", "@:a", "my notes: a.txt", "a\tb:c", "a\nb:"])
def test_colon_behind_what_is_no_host_is_an_error_that_shows_the_way(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        split_name(name, False)
    assert caught.value.cause == f"what stands before the colon in {name} names no receiver"
    assert f"./{name} for a file of that name" in caught.value.remedy


@given(st.text(max_size=30) | st.text(":@/[]\\ab", max_size=12), st.booleans())
def test_any_name_is_a_file_or_is_made_of_a_receiver_and_the_rest(name: str, is_windows: bool) -> None:
    assert split_name(f"./{name}", is_windows) == (None, f"./{name}")
    try:
        receiver, path = split_name(name, is_windows)
    except UsageError:
        assert ":" in name
        return
    if receiver is None:
        assert path == name
    else:
        assert receiver.prefix + ("" if path == "." and name.endswith(":") else path) == name
        assert "/" not in receiver.prefix


# --- a whole command --------------------------------------------------------------------------------------------------


def options(names: str, job: str = "", **flags: str) -> argparse.Namespace:
    jobs = ("get", "list", "remove", "move", "usage")
    given = {each: each == job for each in jobs}
    return argparse.Namespace(names=names.split(), **given, **{"host": None, "user": None, **flags})


@each_row(
    ("names", "job", "receiver", "left", "is_fetch"),
    [
        ("a.txt nas:", "", ("", "nas"), "a.txt .", False),
        ("a.txt b/ alice@nas:box/", "", ("alice", "nas"), "a.txt b/ box/", False),
        ("- nas:all.tar", "", ("", "nas"), "- all.tar", False),
        ("nas:docs/a.txt .", "", ("", "nas"), "docs/a.txt .", True),
        ("nas:a nas:b here/", "", ("", "nas"), "a b here/", True),
        ("nas:a -", "", ("", "nas"), "a -", True),
        ("nas: ./a:b", "", ("", "nas"), ". ./a:b", True),
        ("nas:a here", "get", ("", "nas"), "a here", True),
        ("a here", "get", None, "a here", True),
        ("a there", "", None, "a there", False),
        ("./a:b there", "", None, "./a:b there", False),
        ("nas:", "list", ("", "nas"), ".", False),
        ("nas:a", "list", ("", "nas"), "a", False),
        ("", "list", None, "", False),
        ("nas:a nas:b", "remove", ("", "nas"), "a b", False),
        ("nas:a nas:b", "move", ("", "nas"), "a b", False),
        ("nas:a nas:", "move", ("", "nas"), "a .", False),
        ("nas:", "usage", ("", "nas"), "", False),
        ("nas:a", "usage", ("", "nas"), "a", False),
        ("nas:a", "", ("", "nas"), "a", False),
    ],
)
def test_receiver_at_one_end_says_what_the_command_does(
    names: str, job: str, receiver: tuple[str, str] | None, left: str, is_fetch: bool
) -> None:
    given = options(names, job)
    taken = take_receiver(given, False)
    assert (taken and taken[:2], " ".join(given.names), given.get) == (receiver, left, is_fetch)


@each_row(
    ("names", "job", "flags", "cause", "remedy"),
    [
        ("nas:a other:b", "", {}, "nas:a and other:b are both on a receiver", "Fetch it first, and then send it"),
        ("nas:a nas:b", "", {}, "nas:a and nas:b are both on a receiver", "there, use --move"),
        ("nas:a other:b .", "", {}, "nas:a and other:b are on two receivers", "Use a command for each"),
        ("bob@nas:a nas:b .", "", {}, "bob@nas:a and nas:b are on two receivers", "Use a command for each"),
        ("nas:a b .", "", {}, "nas:a names a receiver, and b does not", "Write nas:b, or ./nas:a for a file"),
        ("a nas:b .", "", {}, "nas:b names a receiver, and a does not", "Write nas:a, or ./nas:b for a file"),
        ("bob@nas:a b", "move", {}, "bob@nas:a names a receiver, and b does not", "Write bob@nas:b, or"),
        ("nas:a b", "remove", {}, "nas:a names a receiver, and b does not", "Write nas:b, or"),
        (
            "a nas:b",
            "get",
            {},
            "nas:b is on a receiver, where --get takes a TARGET here",
            "Leave --get out, or write ./",
        ),
        ("a nas:", "", {"host": "x"}, "--host x and nas: name two receivers", "Leave --host out, or write ./nas:"),
        ("a bob@nas:", "", {"user": "al"}, "--user al and bob@nas: name two receivers", "Leave --user out"),
    ],
)
def test_command_that_can_not_be_meant_says_why(
    names: str, job: str, flags: dict[str, str], cause: str, remedy: str
) -> None:
    with pytest.raises(UsageError) as caught:
        take_receiver(options(names, job, **flags), False)
    assert caught.value.cause == cause and remedy in caught.value.remedy


def test_source_that_is_also_a_file_here_is_an_error_unless_get_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "12:30.txt").touch()
    with pytest.raises(UsageError) as caught:
        take_receiver(options("12:30.txt inbox/"), False)
    assert caught.value.cause == "12:30.txt names a receiver, and is a file here"
    assert caught.value.remedy == "Write ./12:30.txt to send it, or --get 12:30.txt to fetch from the receiver 12"
    for names, job in (("12:30.txt inbox/", "get"), ("12:30.txt", "list"), ("./12:30.txt nas:", "")):
        assert take_receiver(options(names, job), False) is not None


def test_flag_that_says_the_same_as_the_name_is_no_conflict() -> None:
    for name, flags in (
        ("bob@nas:", {"host": "nas", "user": "bob"}),
        ("[::1]:", {"host": "::1"}),
        ("nas:", {"user": "x"}),
    ):
        assert take_receiver(options(f"a {name}", **flags), False) is not None
