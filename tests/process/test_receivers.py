"""Receivers in names, as scp has them: the same files arrive as with --host and --user."""

import os
from pathlib import Path

import pytest
from conftest import RunHere
from processes import USER, Client, Server, clean_environment, make, run

HERE = f"{USER}@127.0.0.1:"


class Named(Client):
    """A client without flags for host and user."""

    def __init__(self, port: int, folder: Path) -> None:
        super().__init__(port, folder)
        self.flags = [each for each in self.flags if not each.startswith(("--host=", "--user="))]


@pytest.fixture
def named(server: Server, tmp_path: Path) -> Named:
    return Named(server.port, tmp_path / "named")


def test_host_at_the_target_sends_and_at_the_sources_fetches(
    server: Server, named: Named, folder: Path, box: str, tmp_path: Path
) -> None:
    for name in ("a.txt", "12:30.txt", "d/b"):
        make(folder / name)
    result = named("a.txt", "./12:30.txt", "d", f"{HERE}{box}/", cwd=folder)
    assert (result.status, result.err) == (0, "") and f"3 files delivered to {USER}@127.0.0.1" in result.out
    assert server.path(box, "12:30.txt").exists() and server.path(box, "d", "b").exists()
    listed = named("--list", "-R", f"{HERE}{box}")
    assert [line.split()[-1] for line in listed.out.splitlines()] == ["12:30.txt", "a.txt", "d/", "d/b"]
    result = named(f"{HERE}{box}/12:30.txt", f"{HERE}{box}/d", "back/", cwd=tmp_path)
    assert (result.status, result.err) == (0, "")
    assert (tmp_path / "back/12:30.txt").exists() and (tmp_path / "back/d/b").exists()
    with (tmp_path / "piped").open("wb") as piped:
        assert named.start("-q", f"{HERE}{box}/a.txt", "-", stdout=piped).finish().status == 0
    assert (tmp_path / "piped").read_bytes() == (folder / "a.txt").read_bytes()


def test_colon_alone_is_the_whole_folder(server: Server, named: Named, folder: Path, box: str) -> None:
    make(folder / box)
    assert named(box, HERE, cwd=folder).status == 0
    assert server.path(box).read_bytes() == (folder / box).read_bytes()
    assert box in named("--list", HERE).out
    assert named("--usage", HERE).out.startswith("used ")


def test_receiver_of_the_settings_file_needs_no_more_than_its_name(
    server: Server, folder: Path, box: str, tmp_path: Path
) -> None:
    client, file = Client(server.port, tmp_path / "client"), tmp_path / "settings.toml"
    secret = client.flags[-1].partition("=")[2]
    lines = ['host = "unknown.invalid"', "[receivers.nas]", 'host = "127.0.0.1"', f"port = {server.port}"]
    file.write_text("\n".join([*lines, f'user = "{USER}"', f'password_file = "{secret}"', ""]))
    make(folder / "a.txt")
    flags = [f"--config={file}", f"--client-log={tmp_path / 'log'}"]
    for words in (["a.txt", f"nas:{box}/"], ["--host=nas", "a.txt", f"{box}/b.txt"], [f"nas:{box}/b.txt", "."]):
        result = run("client.py", *flags, *words, cwd=folder, environment=clean_environment())
        assert (result.status, result.err) == (0, ""), result
    assert sorted(os.listdir(folder)) == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["a", "nas:/x"], "error: /x starts with a slash. Names there are relative to your folder on the receiver\n"),
        (["nas:a", "other:b"], "error: nas:a and other:b are both on a receiver. "),
        (["--dry-run", "--follow", "nas:a", "b"], "error: --follow does not go with fetching. "),
        (["nas:a"], "error: at least one SOURCE and a TARGET are needed. "),
        (["--usage", "nas:a"], "error: --usage takes no NAME but a receiver's, such as nas:. "),
        (["--host=x", "a", "nas:"], "error: --host x and nas: name two receivers. "),
        (["a", "[nas]:b"], 'error: [nas]:b: "[nas]" is not an IPv6 address in brackets'),
        (["--show-config", "nas:a", "b", "c"], "error: nas:a names a receiver, and b does not. "),
    ],
)
def test_name_that_can_not_be_meant_is_one_line(run_here: RunHere, folder: Path, words: list[str], error: str) -> None:
    make(folder / "a")
    result = run_here("client.py", "--client-log=off", *words, cwd=folder)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(error) and result.err.count("\n") == 1, result


def test_unknown_host_of_a_name_shows_how_the_file_is_written(run_here: RunHere, folder: Path) -> None:
    make(folder / "a:b.invalid")
    (folder / "p").write_text("a password\n")
    flags = ["--client-log=off", "--user=u", f"--password-file={folder / 'p'}", "--retries=0"]
    result = run_here("client.py", *flags, "a..b:x", ".", cwd=folder)
    assert result.status in (2, 4)
    result = run_here("client.py", *flags, "no.invalid:x", ".", cwd=folder)
    assert result.status == 4 and result.err.endswith("; or write ./no.invalid:x for a file of that name\n")
