"""`--remove`, `--move` and `--usage`: what they print, what they leave, and how they fail."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer, RunHere, serving
from processes import USER, Client, Fault, Server, Terminal, clean_environment, make

ALL = "put,get,list,replace,remove"


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory, accounts: dict[str, Path]) -> Iterator[Server]:
    """A server on which `USER` may do everything."""
    made = Server(tmp_path_factory.mktemp("owned"), accounts[USER])
    assert made.command("limits", USER, f"--rights={ALL}").status == 0
    with serving(made):
        yield made


@pytest.fixture
def owner(owned: Server, tmp_path: Path) -> Client:
    return Client(owned.port, tmp_path / "owner")


@pytest.fixture
def home(owned: Server) -> Iterator[Path]:
    """The user's folder, with some things in it."""
    home = owned.path()
    for name in ("a.txt", "photos/2026/sea.jpg", "photos/notes.txt"):
        make(home / name, 100)
    (home / "empty").mkdir()
    (home / "link").symlink_to(owned.folder)
    yield home
    shutil.rmtree(home)
    home.mkdir()


def names_in(home: Path) -> set[str]:
    found: set[str] = set()
    for at, folders, files in os.walk(home):
        found |= {os.path.relpath(os.path.join(at, name), home) for name in (*folders, *files)}
    return found


def test_what_is_named_is_removed_and_folders_with_content_only_with_r(owner: Client, home: Path) -> None:
    result = owner("--remove", "a.txt", "empty", "link", "photos", "missing")
    assert result.status == 1
    assert result.out == "removed: a.txt\nremoved: empty\nremoved: link\n"
    assert result.err.splitlines() == [
        "error: photos is a folder on the receiver, and not empty. "
        "With -r it is removed together with everything in it",
        "error: missing does not exist on the receiver. Check the name",
    ]
    assert names_in(home) == {"photos", "photos/2026", "photos/2026/sea.jpg", "photos/notes.txt"}
    result = owner("--remove", "-r", "photos/", "photos")
    assert (result.status, result.out) == (1, "removed: photos/  4 in all\n")
    assert "photos does not exist on the receiver" in result.err
    assert names_in(home) == set()


def test_events_of_a_removal_and_a_move_name_what_was_done(owner: Client, home: Path) -> None:
    result = owner("--json", "--remove", "-R", "photos", "missing")
    assert result.status == 1
    removed, failed, summary = map(json.loads, result.out.splitlines())
    assert removed == {"event": "removed", "name": "photos", "count": 4}
    assert (failed["event"], failed["name"], failed["status"]) == ("failed", "missing", 1)
    assert (summary["event"], summary["failed"], summary["status"]) == ("summary", 1, 1)
    result = owner("--json", "--move", "a.txt", "new/")
    assert (result.status, result.err) == (0, "")
    assert json.loads(result.out.splitlines()[0]) == {"event": "moved", "name": "a.txt", "path": "new/a.txt"}
    assert owner("-q", "--move", "new/a.txt", ".").out == ""
    assert names_in(home) == {"a.txt", "new", "empty", "link"}


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("a.txt", "b.txt", "b.txt"),
        ("a.txt", "empty", "empty/a.txt"),
        ("a.txt", "empty/", "empty/a.txt"),
        ("a.txt", "new/folder/", "new/folder/a.txt"),
        ("a.txt", "new/folder/b", "new/folder/b"),
        ("photos", "empty", "empty/photos"),
        ("photos/2026", "./", "2026"),
        ("link", "empty/", "empty/link"),
    ],
)
def test_move_gives_another_name_or_goes_into_a_folder(
    owner: Client, home: Path, old: str, new: str, path: str
) -> None:
    result = owner("--move", old, new)
    assert (result.status, result.err, result.out) == (0, "", f"moved: {old} to {path}\n")
    assert os.path.lexists(home / path) and not os.path.lexists(home / old)


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (
            ["--move", "a.txt", "photos/notes.txt"],
            1,
            "photos/notes.txt exists already on the receiver. Moving replaces",
        ),
        (["--move", "missing", "b"], 1, "missing does not exist on the receiver"),
        (["--move", "a.txt", "a.txt"], 2, "a.txt has that name already"),
        (["--move", "a.txt", "./"], 2, "a.txt has that name already"),
        (["--move", "photos/notes.txt", "photos"], 2, "photos/notes.txt has that name already"),
        (["--move", "photos", "photos/2026/"], 2, "photos can't be moved into itself"),
        (["--move", "photos", "photos"], 2, "photos has that name already"),
        (["--move", ".", "b"], 2, "your whole folder on the receiver can't be moved. Name what is in it"),
        (["--move", "a.txt", "link/b"], 1, "a part of a.txt or link/b is a symbolic link on the receiver"),
        (["--move", "a.txt", "../b"], 2, "../b can't be a name on a receiver (.. is not a name)"),
        (["--move", "/etc", "b"], 2, "/etc starts with a slash"),
        (["--move", "a.txt"], 2, "--move takes two names, OLD and NEW"),
        (["--move", "a.txt", "b", "c"], 2, "--move takes two names, OLD and NEW"),
        (["--remove"], 2, "at least one NAME is needed"),
        (
            ["--remove", "-r", "."],
            2,
            "your whole folder on the receiver can't be removed. Name what is in it; '*' in quotes is all",
        ),
        (["--remove", "-r", "a.txt", "./"], 2, "your whole folder on the receiver can't be removed"),
        (["--remove", "-r", "/"], 2, "your whole folder on the receiver can't be removed"),
        (["--remove", "-r", ".."], 2, ".. can't be a name on a receiver (.. is not a name)"),
        (["--remove", "-r", ""], 2, "an empty name stands for nothing. Name what is meant"),
        (["--usage", "--if-exists=skip"], 2, "--if-exists does not go with --usage. It is for sending and fetching"),
        (["--if-exists=skip", "--move", "a", "b"], 2, "does not go with --move. Moving never replaces anything"),
        (["--remove", "link/received"], 1, "a part of link/received is a symbolic link on the receiver"),
        (["--remove", "a.txt/b"], 1, "a part of a.txt/b is a file on the receiver"),
        (["--usage", "a.txt"], 2, "--usage takes no NAME"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_not_be_meant_is_one_line_and_changes_nothing(
    owner: Client, home: Path, arguments: list[str], status: int, error: str
) -> None:
    before = names_in(home)
    result = owner(*arguments)
    assert (result.status, result.out) == (status, "")
    assert error in result.err and result.err.count("\n") == 1
    assert names_in(home) == before


def test_move_that_would_make_too_long_a_path_says_so(owner: Client, home: Path) -> None:
    make(home / "deep" / "/".join(["d" * 200] * 10) / "file")
    result = owner("--move", "deep", "/".join(["e" * 200] * 11))
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith("error: deep can't be moved to eee") and result.err.count("\n") == 1
    assert "something in it would have too long or too deep a path" in result.err and "Check the name" not in result.err


def test_account_of_today_may_not_remove_or_move(client: Client, server: Server, box: str) -> None:
    there = make(server.path(box, "a"))
    for arguments in (["--remove", f"{box}/a"], ["--remove", "-r", box], ["--move", f"{box}/a", f"{box}/b"]):
        result = client(*arguments)
        assert result.status == 1
        assert re.match(
            r"error: your account may not (remove|move) .* on the receiver: it lacks the right ", result.err
        )
        assert "python server.py limits USER --rights +remove" in result.err and result.err.count("\n") == 1
    assert there.exists()
    assert client("--usage").status == 0


# --- how much is used -------------------------------------------------------------------------------------------------


def test_usage_tells_bytes_files_quota_and_what_is_free(
    make_server: MakeServer, client: Client, tmp_path: Path
) -> None:
    server = make_server()
    here = client.at(server.port)
    make(tmp_path / "a", 1_000_000)
    assert here("-q", tmp_path / "a", "d/a").status == 0
    result = here("--usage")
    assert (result.status, result.err) == (0, "")
    free = re.fullmatch(r"used   1,000,512 bytes in 2 files\nquota  none\nfree   ([\d,]+) bytes\n", result.out)
    assert free and int(free[1].replace(",", "")) <= shutil.disk_usage(tmp_path).total
    assert server.command("limits", USER, "--quota=5M", "--quota-files=10").status == 0
    assert here("--usage", "--human").out.startswith("used   1.0 MB in 2 files\nquota  5.0 MB in 10 files\nfree   ")
    usage, summary = map(json.loads, here("--usage", "--json").out.splitlines())
    assert usage.pop("free") > 0
    assert usage == {"event": "usage", "bytes": 1_000_512, "files": 2, "quota_bytes": 5_000_000, "quota_files": 10}
    assert summary["status"] == 0


def test_what_is_removed_is_free_for_the_next_file_at_once(
    make_server: MakeServer, client: Client, tmp_path: Path
) -> None:
    server = make_server()
    assert server.command("limits", USER, f"--rights={ALL}", "--quota=1M").status == 0
    here, large = client.at(server.port), make(tmp_path / "large", 900_000)
    assert here("-q", large, "d/a").status == 0
    assert "quota on the receiver is used up" in here(large, "b").err
    assert here("--remove", "-r", "d").status == 0
    assert here("-q", large, "b").status == 0
    assert server.command("users").out.split()[2:4] == ["900.0", "kB"]


# --- on a terminal ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def on_terminal(owner: Client, *arguments: str) -> Iterator[Terminal]:
    with Terminal("client.py", *owner.flags, *arguments, environment=clean_environment()) as terminal:
        yield terminal


@pytest.mark.parametrize(("answer", "is_gone"), [("y", True), ("YES", True), ("", False), ("n", False), ("yep", False)])
def test_folder_is_removed_on_a_terminal_only_when_that_is_confirmed(
    owner: Client, home: Path, answer: str, is_gone: bool
) -> None:
    with on_terminal(owner, "--remove", "-r", "a.txt", "photos", "empty") as terminal:
        terminal.expect("removed: a.txt\n")
        terminal.expect("remove the folder photos and everything in it? [y/N] ")
        assert (home / "photos/notes.txt").exists()
        terminal.type(answer)
        assert terminal.finish() == 0
    assert ("removed: photos" in terminal.screen) == is_gone
    assert ("skipped: photos: it was not confirmed" in terminal.screen) != is_gone
    assert names_in(home) & {"photos", "a.txt", "empty"} == (set() if is_gone else {"photos"})


def test_question_shows_an_odd_name_as_one_printable_line(owner: Client, home: Path) -> None:
    make(home / "a\u202eb" / "c")
    with on_terminal(owner, "--remove", "-r", "a\u202eb") as terminal:
        terminal.expect("remove the folder a\\u202eb and everything in it? [y/N] ")
        terminal.type("n")
        assert terminal.finish() == 0
    assert (home / "a\u202eb/c").exists()


@pytest.mark.parametrize("flag", ["--yes", "--json"])
def test_nobody_is_asked_when_that_is_wanted(owner: Client, home: Path, flag: str) -> None:
    with on_terminal(owner, "--remove", "-r", flag, "photos") as terminal:
        assert terminal.finish() == 0
    assert "[y/N]" not in terminal.screen
    assert not (home / "photos").exists()


def test_interrupted_question_leaves_everything(owner: Client, home: Path) -> None:
    with on_terminal(owner, "--remove", "-r", "photos") as terminal:
        terminal.expect("[y/N] ")
        terminal.type("\x03", end="")
        assert terminal.finish() == 130
    assert "interrupted; what is gone is gone; the same command removes the rest" in terminal.screen
    assert (home / "photos/2026/sea.jpg").exists()


# --- lines that fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["remove", "move", "into"])
def test_answer_that_is_lost_is_not_guessed(
    owned: Server, owner: Client, home: Path, proxy: MakeProxy, command: str
) -> None:
    """The line is cut behind the login's answers: in front of the DONE."""
    arguments = {"remove": ["--remove", "-r", "photos"], "move": ["--move", "a.txt", "b.txt"]}
    arguments["into"] = ["--move", "a.txt", "new/"]
    line = proxy(owned.port, down=Fault("cut", 1127 + 101))
    result = owner.at(line.port)(*arguments[command])
    assert result.status == 0, result
    assert "the connection was lost: trying again" in result.err
    assert result.out in (
        "removed: photos\n",
        "removed: photos  4 in all\n",
        "moved: a.txt to b.txt\n",
        "moved: a.txt to new/a.txt\n",
    )
    assert not (home / arguments[command][-2 if command != "remove" else -1]).exists()


def test_lost_connection_is_exit_4_without_retries(owned: Server, owner: Client, home: Path, proxy: MakeProxy) -> None:
    line = proxy(owned.port, down=Fault("cut", 1127 + 101))
    assert owner.at(line.port)("--retries=0", "--usage").status == 4


def test_names_are_checked_before_a_password_is_asked_for(run_here: RunHere) -> None:
    for arguments in (["--remove", "-r", "."], ["--move", "a", "a"], ["--move", "a", "a/b"]):
        result = run_here("client.py", "--user=u", "--password-file=no such file", *arguments)
        assert result.status == 2 and "password" not in result.err


@pytest.mark.parametrize("size", [5, 100_000], ids=["small", "large"])
def test_append_only_account_replaces_nothing_and_sends_beside_it(
    make_server: MakeServer, client: Client, tmp_path: Path, size: int
) -> None:
    server = make_server()
    assert server.command("limits", USER, "--append-only").status == 0
    here, old, new = client.at(server.port), make(tmp_path / "old", size), tmp_path / "new"
    new.write_bytes(bytes(size))
    assert here("-q", old, "d/a").status == 0
    result = here("--if-exists=replace", new, "d/a")
    assert result.status == 1 and "d/a is on the receiver already, and your account may not replace it" in result.err
    assert here("-q", "--if-exists=rename", new, "d/a").status == 0
    assert server.path("d/a").read_bytes() == old.read_bytes()
    assert server.path("d/a.1").read_bytes() == bytes(size)
    assert here("-q", "--get", "d/a", tmp_path / "back").status == 0
