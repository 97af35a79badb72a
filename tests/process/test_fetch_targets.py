"""Where what is fetched goes: folders that are missing, and standard output whose reader leaves."""

import os
from pathlib import Path

import pytest
from processes import MIB, Client, Server, make


@pytest.mark.parametrize(
    ("target", "missing"),
    [("x/y", "x"), ("x/y/", "x"), ("x/y/z", "x/y"), ("x/y/z/", "x/y")],
    ids=["name", "folder", "deep name", "deep folder"],
)
def test_target_below_a_missing_folder_is_refused_before_the_network_and_makes_none(
    client: Client, folder: Path, target: str, missing: str
) -> None:
    nobody = client.at(1)
    result = nobody("--get", "a", f"{folder}/{target}")
    assert (result.status, result.out) == (2, "")
    assert result.err == f"error: there is no folder {folder}/{missing} here. Make it first, or name another TARGET\n"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("target", "arrives"), [("x", "x"), ("x/", "x/a")])
def test_folder_that_the_target_names_is_made(
    server: Server, client: Client, folder: Path, box: str, target: str, arrives: str
) -> None:
    server.path(box).mkdir(parents=True)
    source = make(server.path(box, "a"))
    assert client("--get", f"{box}/a", f"{folder}/{target}").status == 0
    assert (folder / arrives).read_bytes() == source.read_bytes()


@pytest.mark.parametrize("flags", [[], ["--quiet"]])
def test_reader_of_standard_output_that_leaves_ends_the_fetch_without_a_word(
    server: Server, client: Client, box: str, flags: list[str]
) -> None:
    """As `cat large | head -c 1` does; the status says that not all arrived."""
    server.path(box).mkdir(parents=True)
    make(server.path(box, "a"), 8 * MIB)
    reading, writing = os.pipe()
    running = client.start(*flags, "--get", f"{box}/a", "-", stdout=writing)
    os.close(writing)
    assert len(os.read(reading, 1)) == 1
    os.close(reading)
    result = running.finish()
    assert (result.status, result.err) == (1, "")
