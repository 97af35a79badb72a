"""A log that is sent or fetched every day: its new end alone goes over the line, and what it uses is counted once."""

import json
import os
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer
from processes import MIB, Client, Fault, Server, make

GROWN = 200_000


@pytest.fixture
def log(folder: Path) -> Path:
    path: Path = make(folder / "log", 8 * MIB)
    return path


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(os.urandom(GROWN))


@pytest.mark.parametrize("how", ["-u", "--if-exists=replace"])
def test_new_end_alone_is_sent(server: Server, client: Client, log: Path, box: str, proxy: MakeProxy, how: str) -> None:
    assert client(how, log, f"{box}/").status == 0
    before = server.path(box, "log").stat()
    grow(log)
    line = proxy(server.port)
    result = client.at(line.port)(how, log, f"{box}/")
    assert (result.status, result.err) == (0, "")
    assert line.passed[0] < GROWN + 20_000 and line.passed[1] < 20_000
    after = server.path(box, "log")
    assert after.read_bytes() == log.read_bytes()
    assert (after.stat().st_mtime_ns, after.stat().st_ino == before.st_ino) == (log.stat().st_mtime_ns, False)


def test_new_end_alone_is_fetched(
    server: Server, client: Client, log: Path, box: str, proxy: MakeProxy, tmp_path: Path
) -> None:
    client("-q", log, f"{box}/")
    assert client("--get", f"{box}/log", f"{tmp_path}/here").status == 0
    grow(server.path(box, "log"))
    line = proxy(server.port)
    result = client.at(line.port)("--get", "--if-exists=replace", f"{box}/log", f"{tmp_path}/here")
    assert (result.status, result.err) == (0, "")
    assert line.passed[1] < GROWN + 20_000 and line.passed[0] < 20_000
    assert (tmp_path / "here").read_bytes() == server.path(box, "log").read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith((".", "here"))) == ["here"]


def test_cut_behind_the_old_end_costs_only_what_was_under_way(
    server: Server, client: Client, log: Path, box: str, proxy: MakeProxy
) -> None:
    client("-q", "-u", log, f"{box}/")
    for _ in range(20):
        grow(log)
    cut = proxy(server.port, up=Fault("cut", 3 * MIB))
    assert client.at(cut.port)("-u", "--retries=0", log, f"{box}/").status == 4
    again = proxy(server.port)
    assert client.at(again.port)("-u", log, f"{box}/").status == 0
    assert again.passed[0] < 20 * GROWN - MIB
    assert server.path(box, "log").read_bytes() == log.read_bytes()


def test_quota_counts_the_new_file_once(make_server: MakeServer, tmp_path: Path, log: Path) -> None:
    server = make_server()
    server.add("bob", "--quota=20M")
    bob = Client(server.port, tmp_path / "bob", user="bob")
    for size in (8 * MIB + GROWN, 8 * MIB + 2 * GROWN, 8 * MIB + 3 * GROWN):
        grow(log)
        assert bob("-q", "-u", log, "in/").status == 0
        used, _ = map(json.loads, bob("--json", "--usage").out.splitlines())
        assert (used["bytes"] - 512, used["files"]) == (size, 2)
    with log.open("ab") as file:
        file.truncate(12 * MIB)
    result = bob("-q", "-u", log, "in/")
    assert result.status == 1 and "quota" in result.err
    used, _ = map(json.loads, bob("--json", "--usage").out.splitlines())
    assert (used["bytes"] - 512, used["files"]) == (8 * MIB + 3 * GROWN, 2)
