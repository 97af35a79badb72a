"""What is taken of a source: --exclude, --exclude-from, --files-from, --one-file-system, as users give them."""

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest
from conftest import RunHere
from processes import Client, Server, make


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_patterns_leave_out_what_a_gitignore_with_them_would(
    server: Server, client: Client, folder: Path, box: str
) -> None:
    for name in ("a.c", "a.o", "keep.o", "build/x", "src/b.c", "src/b.o", "src/build/y"):
        make(folder / "proj" / name)
    (folder / "ignore").write_text("*.o\n/build/\n")
    result = client("--exclude-from=ignore", "--exclude=!keep.o", "proj", f"{box}/", cwd=folder)
    assert (result.status, result.err) == (0, "")
    assert below(server.path(box)) == {
        "proj",
        *(f"proj/{each}" for each in ("a.c", "keep.o", "src", "src/b.c", "src/build", "src/build/y")),
    }
    again = client("--exclude-from=ignore", "--exclude=*", "proj", f"{box}/", cwd=folder)
    assert (again.status, again.out, again.err) == (0, "skipped: proj: excluded\n", "")


def test_source_that_a_pattern_matches_is_skipped_and_said_so(
    server: Server, client: Client, folder: Path, box: str
) -> None:
    for name in ("a.c", "a.o", "build/x", "build/build/y"):
        make(folder / name)
    result = client("--exclude=*.o", "--exclude=build", "a.c", "a.o", "build", f"{box}/", cwd=folder)
    assert result.status == 0 and below(server.path(box)) == {"a.c"}
    assert {"skipped: a.o: excluded", "skipped: build: excluded"} <= {
        *result.out.splitlines(),
        *result.err.splitlines(),
    }
    result = client("--exclude=build", ".", f"{box}/in", cwd=folder / "build")
    assert (result.status, result.err) == (0, "") and below(server.path(box, "in")) == {"x"}


def test_list_names_what_is_taken_from_a_file_and_from_a_pipe(
    server: Server, client: Client, folder: Path, box: str
) -> None:
    for name in ("a", "d/b", "d/c", "odd\nname/x"):
        make(folder / "proj" / name)
    os.utime(folder / "proj/d", ns=(0, 1_500_000_000_000_000_000))
    (folder / "list").write_text("d/b\nno\nd/none\n")
    result = client("--files-from=list", "proj", f"{box}/", cwd=folder)
    assert result.status == 1
    assert result.err.splitlines() == [
        "error: proj/d/none does not exist. Names of --files-from are relative to proj",
        "error: proj/no does not exist. Names of --files-from are relative to proj",
    ]
    assert below(server.path(box)) == {"proj", "proj/d", "proj/d/b"}
    assert server.path(box, "proj/d").stat().st_mtime_ns == 1_500_000_000_000_000_000
    listing = subprocess.Popen(["printf", "a\\0d/c\\0"], stdout=subprocess.PIPE)
    assert listing.stdout is not None
    running = client.start("--files-from=-", "-0", "proj", f"{box}/new", cwd=folder, stdin=listing.stdout)
    listing.stdout.close()
    assert running.finish().status == 0 and listing.wait() == 0
    assert below(server.path(box, "new")) == {"a", "d", "d/c"}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--files-from=no", "d", "in/"], "--files-from: can't read no (No such file or directory). "),
        (["--exclude-from=no", "d", "in/"], "--exclude-from: can't read no (No such file or directory). "),
        (["--exclude-from=list", "d", "in/"], 'list, line 2: "[b-a]" is not a pattern. Patterns are those of .git'),
        (["--exclude=[b-a]", "d", "in/"], '--exclude: "[b-a]" is not a pattern. '),
        (["--exclude=", "d", "in/"], '--exclude: "" is not a pattern. '),
        (["--files-from=list", "a", "d", "in/"], "--files-from takes one SOURCE, which its names are below. "),
        (["--files-from=list", "a", "in/"], "a is not a folder. --files-from names what is sent of one folder"),
        (["--null", "d", "in/"], "--null goes only with --files-from. "),
        (["--exclude=x", "--list"], "--exclude does not go with --list. "),
        (["--exclude=x", "-", "in"], "--exclude does not go with standard input as the SOURCE. "),
        (["--files-from=-", "-", "in"], "--files-from does not go with standard input as the SOURCE. "),
        (
            ["--files-from=-", "--password-fd=0", "--user=u", "d", "in/"],
            "standard input can't be both the password and the list of names. Use --password-file FILE",
        ),
    ],
)
def test_list_or_pattern_that_can_not_be_used_is_one_line(
    run_here: RunHere, folder: Path, words: list[str], error: str
) -> None:
    make(folder / "a")
    make(folder / "d/b")
    (folder / "list").write_text("*.o\n[b-a]\n")
    result = run_here("client.py", "--client-log=off", *words, cwd=folder)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"error: {error}") and result.err.count("\n") == 1, result


def test_program_runs_without_the_library_until_a_pattern_is_given(
    run_here: RunHere, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(folder / "a")
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pathspec" else find(name))
    (folder / "secret").touch(0o600)
    (folder / "secret").write_text("a password\n")
    flags = ["--client-log=off", f"--password-file={folder / 'secret'}", "--retries=0", "--port=1"]
    done = run_here("client.py", *flags, "a", "u@127.0.0.1:in/", cwd=folder)
    assert done.status == 4 and "connection to 127.0.0.1:1 refused" in done.err
    refused = run_here("client.py", *flags, "--exclude=b", "a", "in/", cwd=folder)
    assert (refused.status, refused.out) == (2, "")
    assert refused.err == "error: pathspec is not installed. Run: python -m pip install -r requirements.lock\n"
