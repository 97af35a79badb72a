"""What of a source is taken: the lists of a command, and what a walk makes of them."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_files import close_folders

from sft.common.errors import SourceError, UsageError
from sft.common.exclusions import Exclusions, Pattern
from sft.disk.chosen import Chosen, Names, read_exclusions, read_names
from sft.disk.source_folders import Folders
from sft.disk.tree import Excluded, Found, Skipped, Tree


def names_of(*paths: str) -> Names:
    names = Names()
    for path in paths:
        names.add(tuple(part for part in path.split("/") if part))
    return names


def list_of(folder: Path, content: bytes) -> str:
    (folder / "list").write_bytes(content)
    return str(folder / "list")


@pytest.fixture
def folders() -> Iterator[Folders]:
    made = Folders()
    yield made
    close_folders(made)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A folder with some files, folders and a link."""
    for name in ("a", "d/b", "d/deep/c", "d/deep/x.o", "e/f", "x.o"):
        (tmp_path / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / name).touch()
    (tmp_path / "top/link").symlink_to("d")
    return tmp_path / "top"


def found(top: Path, folders: Folders, chosen: Chosen, follow: bool = False) -> list[str]:
    """What a walk finds, one word each: `a`, `d/`, `-skipped`, `~excluded`, `!missing`."""
    words = []
    for each in Tree(str(top), follow, folders, chosen).walk():
        path = each.name if isinstance(each, SourceError) else each.path
        word = os.path.relpath(path, top)
        match each:
            case Found(is_folder=True):
                words.append(f"{word}/")
            case Found():
                words.append(word)
            case Skipped():
                words.append(f"-{word}")
            case Excluded():
                words.append(f"~{word}{'/' if each.is_folder else ''}")
            case SourceError():
                words.append(f"!{word}")
    return words


def patterns(*lines: str) -> Exclusions:
    return Exclusions([Pattern(line, "--exclude") for line in lines])


def test_excluded_folder_is_named_and_not_looked_into(top: Path, folders: Folders) -> None:
    (top / "d").chmod(0)  # looking into it would be an error for anybody but root
    words = found(top, folders, Chosen(patterns("d", "*.o", "link")))
    assert words == ["./", "a", "~d/", "e/", "e/f", "~link", "~x.o"]
    (top / "d").chmod(0o755)


def test_pattern_for_a_folder_is_not_about_a_link_unless_it_is_followed(top: Path, folders: Folders) -> None:
    chosen = Chosen(patterns("link/", "/d", "/e"))
    assert found(top, folders, chosen) == ["./", "a", "~d/", "~e/", "-link", "x.o"]
    assert found(top, folders, chosen, follow=True) == ["./", "a", "~d/", "~e/", "~link/", "x.o"]


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (["a"], ["./", "a"]),
        (["d/deep/c", "a"], ["./", "a", "d/", "d/deep/", "d/deep/c"]),
        (["d/deep"], ["./", "d/", "d/deep/", "d/deep/c", "d/deep/x.o"]),
        (["d", "d/b"], ["./", "d/", "d/b", "d/deep/", "d/deep/c", "d/deep/x.o"]),
        (["d/b", "d"], ["./", "d/", "d/b", "d/deep/", "d/deep/c", "d/deep/x.o"]),
        ([], ["./"]),
        (["no", "d/no", "none/of/it", "none/x"], ["./", "d/", "!d/no", "!no", "!none/of/it", "!none/x"]),
        (["a/b", "a"], ["./", "a", "!a/b"]),
        (["a/b"], ["./", "!a/b"]),
        (["link"], ["./", "-link"]),
        (["link/b", "link/no"], ["./", "!link/b", "!link/no"]),
        ([""], ["./", "a", "d/", "d/b", "d/deep/", "d/deep/c", "d/deep/x.o", "e/", "e/f", "-link", "x.o"]),
    ],
)
def test_list_names_what_is_taken_and_what_is_missing(
    top: Path, folders: Folders, listed: list[str], words: list[str]
) -> None:
    assert found(top, folders, Chosen(names=names_of(*listed))) == words


def test_listed_name_that_a_pattern_matches_is_skipped_aloud(top: Path, folders: Folders) -> None:
    chosen = Chosen(patterns("*.o", "e"), names_of("x.o", "e/f", "d"))
    assert found(top, folders, chosen) == [
        *("./", "d/", "d/b", "d/deep/", "d/deep/c", "~d/deep/x.o"),
        *("~e/", "-e/f", "~x.o", "-x.o"),
    ]


def test_one_file_system_leaves_out_what_is_on_another(top: Path, folders: Folders) -> None:
    places = [place for place in (Path("/dev/shm"), Path.cwd()) if place.is_dir()]
    others = [place for place in places if place.stat().st_dev != top.stat().st_dev]
    if not others:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=others[0]) as other:
        (Path(other) / "x").touch()
        (top / "mounted").symlink_to(other)
        (top / "link").unlink()
        alone = found(top, folders, Chosen(one_file_system=True), follow=True)
        assert "-mounted" in alone and "mounted/x" not in alone and "d/deep/c" in alone
        assert "mounted/x" in found(top, folders, Chosen(), follow=True)


# --- reading lists ----------------------------------------------------------------------------------------------------


def test_names_are_lines_or_end_in_nul(tmp_path: Path) -> None:
    for content, is_null in ((b"a\n./d//b/\r\n\n\xff\n", False), (b"a\0d/b\0\xff\0", True)):
        names = read_names(list_of(tmp_path, content), is_null)
        assert list(names.listed_below()) == [("a",), ("d", "b"), ("\udcff",)]
    assert list(read_names(list_of(tmp_path, b"a\nb"), True).listed_below()) == [("a\nb",)]
    assert not read_names(list_of(tmp_path, b""), False).is_listed
    assert read_names(list_of(tmp_path, b".\n"), False).is_listed


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\n../b\n", "list, line 2: ../b is not below the SOURCE"),
        (b"a\nd/../b\n", "list, line 2: d/../b is not below the SOURCE"),
        (b"/etc/passwd\n", "list, line 1: /etc/passwd is not below the SOURCE"),
        (b"a\0b\0", "list, line 1: a NUL in a name. With -0 (--null) names end in NUL"),
    ],
)
def test_name_that_leaves_the_source_is_an_error_with_its_line(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_names(list_of(tmp_path, content), False)
    assert words in str(caught.value)


def test_list_that_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    for name in (str(tmp_path / "no"), str(tmp_path), "a\0b"):
        with pytest.raises(UsageError, match="--files-from: "):
            read_names(name, False)
        with pytest.raises(UsageError, match="--exclude-from: "):
            read_exclusions([name], [])


def test_patterns_of_the_command_line_come_after_those_of_files(tmp_path: Path) -> None:
    file = list_of(tmp_path, b"\xef\xbb\xbf*.o\r\n# comment\n\n")
    assert read_exclusions([file], []).is_excluded(("x.o",), False)
    assert not read_exclusions([file], ["!x.o"]).is_excluded(("x.o",), False)
    with pytest.raises(UsageError, match=r'list, line 2: "\[b-a\]" is not a pattern'):
        read_exclusions([list_of(tmp_path, b"*.o\n[b-a]\n")], [])
    for pattern in ("", " ", "#x"):
        with pytest.raises(UsageError, match="--exclude: "):
            read_exclusions([], [pattern])
