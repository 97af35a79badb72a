"""Names are the bytes of the file system, as UTF-8, whatever the locale of either end and the terminal say."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import PASSWORD, USER, Client, Result, Server, Terminal, clean_environment, content

LATIN = "de_DE.ISO-8859-1"
NAMES = ["café.txt", "日本.txt", "ě31m"]  # the last one's UTF-8 holds 9b, which begins a control sequence
NOT_UTF8 = os.fsdecode(b"caf\xe9.txt")


@pytest.fixture(scope="session")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a locale whose encoding is not UTF-8."""
    place = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef") is None:
        pytest.skip("this system can't make a locale")
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", place / LATIN], capture_output=True, env={"LC_ALL": "C"}
    )
    if made.returncode:
        pytest.skip("this system has no sources of locales")
    return {"LC_ALL": LATIN, "LOCPATH": str(place)}


@pytest.fixture(params=["latin", "ascii"])
def abroad(client: Client, request: pytest.FixtureRequest) -> Client:
    """A client where the locale is not UTF-8."""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    client.environment = request.getfixturevalue("latin") if request.param == "latin" else ascii_only
    return client


@pytest.fixture
def named(folder: Path) -> Path:
    for name in NAMES:
        (folder / name).write_bytes(content(20))
    return folder


def check_same(one: Path, other: Path) -> None:
    assert {each.name: each.read_bytes() for each in one.iterdir()} == {
        each.name: each.read_bytes() for each in other.iterdir()
    }


def check_one_line(done: Result, name: str, status: int = 1) -> None:
    assert done.status == status
    assert len([line for line in done.err.splitlines() if line.startswith("error: ")]) == 1
    assert name in done.err


def test_names_are_sent_listed_and_fetched_as_they_are(
    server: Server, abroad: Client, named: Path, box: str, tmp_path: Path
) -> None:
    sent = abroad(named, box)
    assert (sent.status, sent.err) == (0, "")
    check_same(named, server.path(box))
    listed = abroad("--list", box)
    assert [line.split("Z  ")[1] for line in listed.out.splitlines()] == sorted(NAMES)
    fetched = abroad("--get", *(f"{box}/{name}" for name in NAMES), f"{tmp_path}/für mich/")
    assert (fetched.status, fetched.err) == (0, "")
    check_same(named, tmp_path / "für mich")


@pytest.mark.parametrize("abroad", ["latin", pytest.param("ascii", marks=pytest.mark.long)], indirect=True)
def test_name_that_is_not_utf8_is_refused_with_a_line_everywhere(
    server: Server, abroad: Client, named: Path, box: str, tmp_path: Path
) -> None:
    (named / NOT_UTF8).write_bytes(b"x")
    check_one_line(abroad(named, box), "caf\\xe9.txt")
    assert {path.name for path in server.path(box).iterdir()} == set(NAMES)
    check_one_line(abroad(named / NOT_UTF8, f"{box}/"), "caf\\xe9.txt")
    there = f"{box}/{NOT_UTF8}"
    commands: list[tuple[str | Path, ...]] = [(named / NAMES[0], there), ("--get", there, tmp_path), ("--list", there)]
    for command in commands:
        check_one_line(abroad(*command), "caf\\xe9.txt can't be a name on a receiver (a name that is not UTF-8)", 2)


def test_password_of_a_variable_or_file_is_utf8(latin: dict[str, str], tmp_path: Path) -> None:
    server = Server(tmp_path / "server")
    server.environment = latin
    server.add(USER, password="pässwörter € ja")
    server.start()
    try:
        client = Client(server.port, tmp_path / "client", password="pässwörter € ja")
        client.environment = latin
        assert client("--list").status == 0
        client.flags.pop()
        client.environment = {**latin, "SFT_PASSWORD": "pässwörter € ja"}
        assert client("--list").status == 0
    finally:
        assert server.stop() == 0
        server.close()


def test_server_in_another_locale_keeps_names_as_they_are(
    server: Server, latin: dict[str, str], client: Client, named: Path, tmp_path: Path
) -> None:
    abroad = Server(tmp_path / "größe", server.accounts)
    abroad.environment = latin
    abroad.start()
    try:
        assert client.at(abroad.port)(named, "ü").status == 0
        check_same(named, abroad.path("ü"))
        assert client.at(abroad.port)("--get", "ü", tmp_path / "here").status == 0
        check_same(named, tmp_path / "here")
        assert "ü/日本.txt" in abroad.told()
    finally:
        assert abroad.stop() == 0
        abroad.close()


@pytest.fixture
def screen(server: Server, latin: dict[str, str], named: Path, client: Client, box: str) -> Iterator[Terminal]:
    assert client(named, box).status == 0
    environment = clean_environment(SFT_PASSWORD=PASSWORD, **latin)
    with Terminal("client.py", *client.settings, f"--user={USER}", "--list", box, environment=environment) as terminal:
        yield terminal


def test_terminal_of_another_encoding_shows_what_it_can_and_is_not_controlled(screen: Terminal) -> None:
    assert screen.finish() == 0
    assert "caf�.txt" in screen.screen  # one byte, as the terminal has it
    assert "\\u65e5\\u672c.txt" in screen.screen
    assert "\\u011b31m" in screen.screen


def test_utf8_locale_needs_no_second_start() -> None:
    """It would cost each command as long as a login does."""
    code = """
import os, sys
from sft.common import utf8_names
os.execv = None
utf8_names.take_names_as_utf8()
print(sys.flags.utf8_mode)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[2],
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "0\n")
