"""`--get --files-from`: of what is at the receiver only what a list names comes, each to its path below the target."""

from pathlib import Path

import pytest
from processes import Client, Server, make
from test_update import counts


@pytest.fixture
def there(server: Server, box: str) -> Path:
    place = server.path(box, "tree")
    for name in ("a", "d/a", "d/e/a", "d/e/b", "f/g/a"):
        make(place / name, 30)
    return place


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("options", [[], ["-u"], ["--exclude=b"]])
def test_names_come_to_their_paths_below_the_target(
    client: Client, there: Path, box: str, tmp_path: Path, options: list[str]
) -> None:
    """Relative to the NAME; what lies in a folder that is named comes with it."""
    (tmp_path / "list").write_text("a\nd/e\nf/g/a\nd/e/a\n")
    for _ in range(2):
        result = client("--get", f"--files-from={tmp_path}/list", *options, f"{box}/tree", tmp_path / "here")
        assert (result.status, result.err) == (0, "")
        expected = {"a", "d/e/a", "d/e/b", "f/g/a"} - ({"d/e/b"} if "--exclude=b" in options else set())
        assert names_in(tmp_path / "here") == expected
    (there / "d/e/a").write_bytes(b"changed")
    if options:
        how = options if "-u" in options else [*options, "--if-exists=replace"]
        result = client("--get", "--json", f"--files-from={tmp_path}/list", *how, f"{box}/tree", tmp_path / "here")
        assert result.status == 0 and counts(result)["delivered"] == 1
        assert (tmp_path / "here/d/e/a").read_bytes() == b"changed"


def test_names_may_be_relative_to_the_whole_folder_and_end_in_nul(
    client: Client, there: Path, box: str, tmp_path: Path
) -> None:
    (tmp_path / "list").write_text(f"{box}/tree/a\0{box}/tree/d/a\0")
    result = client("--get", f"--files-from={tmp_path}/list", "-0", ".", f"{tmp_path}/here/")
    assert (result.status, names_in(tmp_path / "here")) == (0, {f"{box}/tree/a", f"{box}/tree/d/a"})
    dry = client("-n", "-u", "--get", f"--files-from={tmp_path}/list", "-0", ".", f"{tmp_path}/here/")
    assert (dry.status, dry.err) == (0, "nothing would be done\n")


def test_missing_name_is_an_error_of_its_own(client: Client, there: Path, box: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("a\nd/none\nf/g\n")
    for options in ([], ["-u"]):
        result = client("--get", f"--files-from={tmp_path}/list", *options, f"{box}/tree", tmp_path / "here")
        assert result.status == 1 and "d/none does not exist on the receiver" in result.err
        assert names_in(tmp_path / "here") == {"a", "f/g/a"}


@pytest.mark.parametrize("listed", ["", "\n", "../x\n", ".\n"])
def test_list_that_can_not_be_meant_ends_the_command(
    client: Client, there: Path, box: str, tmp_path: Path, listed: str
) -> None:
    (tmp_path / "list").write_text(listed)
    result = client("--get", f"--files-from={tmp_path}/list", f"{box}/tree", tmp_path / "here")
    assert result.status == 2 and len(result.err.splitlines()) == 1
    assert not (tmp_path / "here").exists()


def test_one_file_system_is_refused_with_a_reason(client: Client, box: str) -> None:
    result = client("--get", "-x", box, "here")
    assert result.status == 2 and "wherever it is mounted" in result.err


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("d", {"a", "f/g/a"}),
        ("d/", {"a", "f/g/a"}),
        ("/d/e", {"a", "d/a", "f/g/a"}),
        ("e/b", {"a", "d/a", "d/e/a", "d/e/b", "f/g/a"}),
        ("d/e/b", {"a", "d/a", "d/e/a", "f/g/a"}),
        ("/a", {"d/a", "d/e/a", "d/e/b", "f/g/a"}),
        ("/g", {"a", "d/a", "d/e/a", "d/e/b", "f/g/a"}),
        ("g", {"a", "d/a", "d/e/a", "d/e/b"}),
        ("tree", set()),
    ],
)
def test_patterns_are_about_paths_below_the_name_as_when_sending(
    client: Client, there: Path, box: str, tmp_path: Path, pattern: str, left: set[str]
) -> None:
    """What a list names is left out like all else, and with the folder that it lies in."""
    (tmp_path / "list").write_text("a\nd/a\nd/e\nf/g\n")
    options = f"--files-from={tmp_path}/list", f"--exclude={pattern}", "-u"
    fetched = client("--get", *options, f"{box}/tree", tmp_path / "here")
    assert fetched.status == 0 and names_in(tmp_path / "here") == left
    sent = client(*options, f"{there}", f"{box}/sent/")
    assert sent.status == 0 and names_in(there.parent / "sent/tree") == left
    assert ("skipped: " in fetched.out + fetched.err) == ("skipped: " in sent.out + sent.err)


def test_excluded_name_of_a_list_stays_as_it_is_here(client: Client, there: Path, box: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"{box}/tree/d\n{box}/tree/f\n")
    make(tmp_path / f"here/{box}/tree/f/own", 5)
    options = f"--files-from={tmp_path}/list", f"--exclude=/{box}/tree/d", "--exclude=own", "-u"
    result = client("--get", *options, ".", tmp_path / "here")
    assert (result.status, result.err) == (0, f"skipped: {box}/tree/d: excluded\n")
    assert names_in(tmp_path / "here") == {f"{box}/tree/f/own", f"{box}/tree/f/g/a"}
