"""`--check`: digests of both ends are compared, nothing is sent, and the exit status tells."""

import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import MakeServer
from processes import Client, Server, make


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "tree"
    for name, size in (("a", 10), ("b/c", 100_000), ("b/d/e", 0), ("f", 3_000_000)):
        make(source / name, size)
    return source


def rewritten(path: Path) -> None:
    """Other content of the same size, with the same time."""
    state = path.stat()
    path.write_bytes(bytes(reversed(path.read_bytes()[:-1])) + b"!")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_what_was_sent_is_the_same_in_both_directions(server: Server, client: Client, source: Path, box: str) -> None:
    assert client(source, box).status == 0
    before = server.told().count("stored")
    for words in ((source, box), ("--get", box, source)):
        result = client("--check", *words)
        assert (result.status, result.out, result.err) == (0, "4 same\n", "")
    assert server.told().count("stored") == before
    one = client("--check", source / "a", f"{box}/a")
    assert (one.status, one.out) == (0, "1 same\n")


def differ(receiving: Path) -> None:
    """Make what is there another tree."""
    rewritten(receiving / "f")
    (receiving / "a").write_bytes(b"another size")
    shutil.rmtree(receiving / "b" / "d")
    make(receiving / "b" / "more")


LINES = [
    "different: {}/a (size)",
    "missing: {}/b/d/",
    "missing: {}/b/d/e",
    "extra: {}/b/more",
    "different: {}/f (content)",
]


def test_each_difference_is_a_line_and_the_status_is_1(
    server: Server, client: Client, source: Path, box: str, tmp_path: Path
) -> None:
    assert client(source, box).status == 0
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    differ(server.path(box))
    result = client("--check", source, box)
    assert result.status == 1 and result.err == ""
    counts = "1 same, 2 different, 2 missing, 1 extra"
    assert sorted(result.out.splitlines()) == sorted([*(line.format(box) for line in LINES), counts])
    quiet = client("-q", "--check", source, box)
    assert (quiet.status, quiet.out, quiet.err) == (1, "", "")
    shutil.rmtree(server.path(box))
    shutil.copytree(source, server.path(box))
    differ(copy)
    result = client("--check", "--get", box, copy)
    assert result.status == 1 and result.err == ""
    assert sorted(result.out.splitlines()) == sorted([*(line.format(copy) for line in LINES), counts])


def test_events_have_the_verdict_of_each(server: Server, client: Client, source: Path, box: str) -> None:
    assert client(source, box).status == 0
    rewritten(server.path(box, "b", "c"))
    events = [json.loads(line) for line in client("--json", "--check", source, box).out.splitlines()]
    assert events[0] == {
        "event": "checked",
        "outcome": "different",
        "path": f"{box}/b/c",
        "kind": "file",
        "why": "content",
    }
    assert events[1] == {"event": "verdict", "same": 3, "different": 1, "missing": 0, "extra": 0}
    assert events[2]["event"] == "summary" and events[2]["status"] == 1


def test_what_is_not_there_at_all_is_missing(client: Client, source: Path, box: str, tmp_path: Path) -> None:
    result = client("--check", source, f"{box}/nothing")
    assert result.status == 1 and result.out.count("missing: ") == 6
    result = client("--check", source / "a", f"{box}/nothing")
    assert (result.status, result.out) == (1, f"missing: {box}/nothing\n0 same, 1 missing\n")
    (tmp_path / "empty").mkdir()
    assert client(source, box).status == 0
    assert client("--check", "--get", box, tmp_path / "empty").out.count("missing: ") == 6


def test_own_log_is_not_missing(client: Client, source: Path, box: str) -> None:
    """It is never sent."""
    log = f"--client-log={source}/client.log"
    assert client(log, source, box).status == 0
    assert (source / "client.log").exists()
    result = client(log, "--check", source, box)
    assert result.status == 0 and "missing: " not in result.out and "4 same\n" in result.out
    assert "client.log: this program's own log" in result.out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_can_not_be_read_there_has_failed_and_is_not_missing(
    server: Server, client: Client, source: Path, box: str
) -> None:
    assert client(source, box).status == 0
    server.path(box, "f").chmod(0)
    result = client("--check", source, box)
    assert result.status == 1 and f"{box}/f can't be read on the receiver" in result.err
    assert result.out == "3 same\n"


def test_account_without_the_rights_is_told(make_server: MakeServer, tmp_path: Path, source: Path, box: str) -> None:
    server = make_server()
    server.add("lister", "--rights=put,list")
    lister = Client(server.port, tmp_path / "lister", "lister")
    assert lister(source, box).status == 0
    result = lister("--check", source, box)
    assert result.status == 1 and "it lacks the right list, or get" in result.err
