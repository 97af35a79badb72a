"""Patterns in names at the receiver: `--get`, `--list` and `--remove` find what matches, or say that nothing does."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer, serving
from processes import USER, Client, Fault, Result, Server, make

NAMES = ["a.txt", "b.txt", "b.log", ".hidden.txt", "d/a.txt", "d/c.log", "d/e/f.txt", "d/.h/g.txt", "z"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with an account that may remove, too."""
    made = Server(tmp_path_factory.mktemp("server"))
    made.add(USER, "--rights=put,get,list,replace,remove")
    with serving(made):
        yield made


@pytest.fixture
def there(server: Server, box: str) -> Path:
    for name in NAMES:
        make(server.path(box, name), 10)
    return server.path(box)


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def listed(result: Result) -> list[str]:
    return [line.split("Z  ")[1] for line in result.out.splitlines()]


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["*.txt"], ["a.txt", "b.txt"]),
        (["b.*"], ["b.log", "b.txt"]),
        (["[ab].txt", "z"], ["a.txt", "b.txt", "z"]),
        (["[!a].txt"], ["b.txt"]),
        ([".*"], [".hidden.txt"]),
        (["d/*"], ["a.txt", "c.log", "e/f.txt"]),
        (["d*"], ["d/.h/g.txt", "d/a.txt", "d/c.log", "d/e/f.txt"]),
        (["*/e"], ["e/f.txt"]),
        (["d/e/?.txt"], ["f.txt"]),
        (["**/f.txt"], ["f.txt"]),
        (["**/*.log"], ["b.log", "c.log"]),
        (["d/**"], ["a.txt", "c.log", "e/f.txt"]),
        (["*.txt", "a*"], ["a.txt", "b.txt"]),
        (["?"], ["d/.h/g.txt", "d/a.txt", "d/c.log", "d/e/f.txt", "z"]),
    ],
    ids=str,
)
@pytest.mark.usefixtures("there")
def test_what_matches_is_fetched_into_the_target(
    client: Client, tmp_path: Path, box: str, patterns: list[str], found: list[str]
) -> None:
    result = client("--get", *(f"{box}/{pattern}" for pattern in patterns), tmp_path / "here")
    assert (result.status, result.err) == (0, "")
    assert names_in(tmp_path / "here") == found


@pytest.mark.usefixtures("there")
def test_pattern_without_a_match_is_one_line_and_the_others_are_fetched(
    client: Client, tmp_path: Path, box: str
) -> None:
    told = rf"error: nothing on the receiver matches {box}/no*. Check it; \ before a *, ? or [ takes its meaning away"
    result = client("--get", f"{box}/no*", tmp_path / "here")
    assert (result.status, result.err) == (1, f"{told}\n") and not (tmp_path / "here").exists()
    result = client("--get", f"{box}/no*", f"{box}/z*", tmp_path / "here")
    assert (result.status, result.err) == (1, f"{told}\n") and names_in(tmp_path / "here") == ["z"]
    for command in (["--list"], ["--remove"]):
        result = client(*command, f"{box}/no*")
        assert (result.status, result.err) == (1, f"{told}\n")
    for pattern in ("z/*", "a.txt/*", "no/*", "no/**", "z/**/x", "../*"):
        assert client("--get", f"{box}/{pattern}", tmp_path / "here").status in (1, 2)


@pytest.mark.parametrize("name", ["a*", "a[b]", "?", "[a]", "u@h:*"])
def test_name_that_exists_as_it_is_typed_wins_and_a_backslash_says_so(
    client: Client, there: Path, tmp_path: Path, box: str, name: str
) -> None:
    for other in ("ab", "a", "x", "ab*"):
        make(there / "more" / other, 5)
    make(there / "more" / name, 7)
    assert client("--get", f"{box}/more/{name}", f"{tmp_path}/here/").status == 0
    assert names_in(tmp_path / "here") == [name]
    escaped = "".join(f"\\{char}" if char in "*?[\\" else char for char in name)
    assert client("--get", f"{box}/more/{escaped}", f"{tmp_path}/there/").status == 0
    assert names_in(tmp_path / "there") == [name]
    (there / "more" / name).unlink()
    assert client("--get", f"{box}/more/{escaped}", f"{tmp_path}/none/").status == 1


def test_pattern_makes_the_target_a_folder_whatever_matches(
    client: Client, there: Path, tmp_path: Path, box: str
) -> None:
    """A target never depends on what exists at the other end."""
    assert client("--get", f"{box}/z*", tmp_path / "new").status == 0
    assert names_in(tmp_path) == ["new/z"] or "new/z" in names_in(tmp_path)
    make(there / "zz")
    assert client("--get", f"{box}/z*", tmp_path / "new").status == 0
    result = client("--get", f"{box}/*/a.txt", f"{box}/a.txt", tmp_path / "new")
    assert result.status == 2 and "would both become a.txt" in result.err


def test_listing_of_a_pattern_has_whole_paths(client: Client, there: Path, box: str) -> None:
    assert listed(client("--list", f"{box}/d*")) == [f"{box}/d/"]
    assert listed(client("--list", f"{box}/*.txt")) == [f"{box}/a.txt", f"{box}/b.txt"]
    assert listed(client("--list", f"{box}/**/*.txt")) == [
        f"{box}/{name}" for name in ("a.txt", "b.txt", "d/a.txt", "d/e/f.txt")
    ]
    assert listed(client("--list", "-R", f"{box}/[d]")) == [
        f"{box}/{name}" for name in ("d/", "d/.h/", "d/.h/g.txt", "d/a.txt", "d/c.log", "d/e/", "d/e/f.txt")
    ]
    make(there / "odd*", 3)
    assert listed(client("--list", rf"{box}/odd\*")) == ["odd*"]


def test_what_matches_is_removed_and_nothing_else(client: Client, there: Path, box: str) -> None:
    result = client("--remove", f"{box}/*.txt")
    assert (result.status, result.err) == (0, "")
    assert result.out.splitlines()[:2] == [f"removed: {box}/a.txt", f"removed: {box}/b.txt"]
    assert names_in(there) == sorted(set(NAMES) - {"a.txt", "b.txt"})
    assert client("--remove", f"{box}/d*").status == 1
    assert client("--remove", "-r", "--yes", f"{box}/d*").status == 0
    assert names_in(there) == [".hidden.txt", "b.log", "z"]
    make(there / "odd*"), make(there / "odder")
    assert client("--remove", rf"{box}/odd\*").status == 0
    assert (there / "odder").exists() and not (there / "odd*").exists()


def test_update_and_dry_run_take_patterns(client: Client, there: Path, tmp_path: Path, box: str) -> None:
    assert client("--get", "-u", f"{box}/*", tmp_path / "here").status == 0
    make(there / "d/a.txt", 99)
    (there / "d/c.log").unlink()
    result = client("--get", "-u", "--delete", "-n", "--json", f"{box}/*", tmp_path / "here")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert [(each["action"], each["kind"]) for each in events if each["event"] == "planned"] == [
        ("replace", "file"),
        ("remove", "file"),
    ]
    assert client("--get", "-u", "--delete", f"{box}/*", tmp_path / "here").status == 0
    assert names_in(tmp_path / "here") == sorted(set(names_in(there)) - {".hidden.txt"})


def test_thousands_of_matches_are_fetched(
    server: Server, client: Client, box: str, tmp_path: Path, proxy: MakeProxy
) -> None:
    for number in range(5_000):
        make(server.path(box, f"n{number}"), 0)
    make(server.path(box, "other"))
    line = proxy(server.port, down=Fault("cut", 60_000))
    assert client.at(line.port)("--get", "-q", f"{box}/n*", tmp_path / "here").status == 0
    assert len(list((tmp_path / "here").iterdir())) == 5_000


def test_account_that_may_not_list_is_told_so(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server()
    server.add("bob", "--rights=get")
    make(server.path("a", user="bob"))
    bob = Client(server.port, tmp_path / "bob", user="bob")
    result = bob("--get", "*", f"{tmp_path}/here/")
    assert result.status == 1 and result.err.count("\n") == 1 and "your account may not list" in result.err
    assert bob("--get", "a", f"{tmp_path}/here/").status == 0
