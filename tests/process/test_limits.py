"""What an account and the disk allow, at real servers: bytes, files, sizes, connections, rate, free space."""

import argparse
import contextlib
import os
import re
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer
from processes import MIB, PASSWORD, Client, Fault, Result, Running, Server, login_sent, make, run, wait_until
from quota_files import on_disk, written

import server
from crypto_utils import STRETCHED_SIZE
from sft.accounts.format import RIGHTS, Account
from sft.accounts.store import Accounts
from sft.common.errors import UsageError
from sft.server import admin
from sft.server.options import limits_of
from sft.wire.pake import Registration, password_scalars


def limit(server: Server, *flags: str) -> None:
    changed = server.command("limits", "alice", *flags)
    assert changed.status == 0, changed


def counted(server: Server) -> list[tuple[int, int]]:
    """What its log says it has counted."""
    found = re.findall(r"counted alice: (\d+) bytes? in (\d+) files?", server.told())
    return [(int(size), int(files)) for size, files in found]


def test_quota_is_refused_before_anything_is_sent_and_the_others_go_on(
    make_server: MakeServer, client: Client, folder: Path
) -> None:
    server = make_server()
    limit(server, "--quota=1M", "--largest=900k")
    sources = [make(folder / name, size) for name, size in (("a", 600_000), ("b", 500_000), ("c", MIB), ("d", 20))]
    result = client.at(server.port)(*sources, "box/")
    assert result.status == 1
    assert sorted(re.findall("delivered: (.*?) ", result.out)) == ["box/a", "box/d"]
    assert "b: your account's quota on the receiver is used up. Delete files there, or ask its owner" in result.err
    assert "c is larger than the receiver takes" in result.err
    wait_until(lambda: "bytes received" in server.told() and written(server.storage) == on_disk(server.storage))
    sent = re.search(r"done, (\d+) bytes received", server.told())
    assert sent is not None and int(sent[1]) < 700_000
    shown = server.command("users").out
    assert "601.0 kB in 3 files  of 1 MB  a file up to 900 kB" in shown
    (server.storage / "alice/box/a").unlink()
    assert server.command("recount").out.split() == ["alice", "1.0", "kB", "in", "2", "files"]
    assert client.at(server.port)(sources[1], "box/").status == 0
    assert server.stop() == 0
    assert not list((server.storage / ".partial").glob(".holder-*"))


def test_killed_server_leaks_no_quota(make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path) -> None:
    """It dies with nearly all reserved, some of it written; what is then counted is what lies on the disk."""
    server = make_server()
    limit(server, "--quota=40M")
    line = proxy(server.port, up=Fault("hold", 5 * MIB))
    source = make(folder / "a", 30_000_000)
    running = client.at(line.port).start("--retries=0", source, "a")
    line.wait_reached()
    wait_until(lambda: server.kept("a").exists() and server.kept("a").stat().st_size > 3 * MIB)
    other = client.at(server.port)(make(folder / "b", 15_000_000), "b")
    assert other.status == 1 and "quota" in other.err
    server.kill()
    assert running.finish().status == 4
    kept = server.kept("a").stat().st_size
    server.start()
    wait_until(lambda: counted(server))
    assert counted(server)[0] == (kept, 1)
    result = client.at(server.port)(source, "a")
    assert result.status == 0 and "resumed: " in result.out
    wait_until(lambda: written(server.storage) == on_disk(server.storage))


def test_connections_of_one_account_have_a_limit_of_their_own(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path, tmp_path: Path
) -> None:
    server = make_server("--max-connections-per-user=2")
    limit(server, "--connections=1")
    server.add("bob")
    lines = [proxy(server.port, up=Fault("hold", login_sent(user))) for user in ("alice", "bob", "bob")]
    alice, bob = client.at(server.port), Client(server.port, tmp_path / "bob", "bob", PASSWORD)
    a = make(folder / "a")
    held = [
        one.at(line.port).start(a, f"x{at}")
        for at, (one, line) in enumerate(zip((alice, bob, bob), lines, strict=True))
    ]
    wait_until(lambda: server.told().count("logged in") == 3)
    for one in (alice, bob):  # of bob two may be there
        result = one("--retries=0", a, "y")
        assert result.status == 4 and "takes no more connections. Try again in a moment" in result.err
    for line in lines:
        line.release()
    assert [each.finish().status for each in held] == [0, 0, 0]
    wait_until(lambda: server.told().count("done, ") >= 5)
    assert client.at(server.port)("--retries=0", a, "y").status == 0
    assert server.stop() == 0


def test_stop_does_not_wait_for_an_account_with_a_slow_rate(
    make_server: MakeServer, client: Client, folder: Path
) -> None:
    """What has come is paid for by waiting; when the transfer is cut off, it is kept at once."""
    server = make_server("--grace=0")
    limit(server, "--rate=1k", "--quota=1G")
    running = client.at(server.port).start("--retries=0", make(folder / "a", 8 * MIB), "a")
    wait_until(lambda: server.kept("a").exists() and server.kept("a").stat().st_size >= MIB)
    assert server.stop() == 0
    assert running.finish().status == 4
    assert "cut off: a, " in server.told() and "kept for another try" in server.told()
    assert written(server.storage) == on_disk(server.storage)


def test_space_that_must_stay_free_is_told_as_a_full_disk(
    make_server: MakeServer, client: Client, folder: Path
) -> None:
    server = make_server("--free-space=4000000T")
    result = client.at(server.port)(make(folder / "a"), "a")
    assert result.status == 1 and "the receiver's disk is full. Free some space there" in result.err
    assert not server.path("a").exists()


def test_limits_are_changed_shown_and_lifted(make_server: MakeServer) -> None:
    server = make_server()
    limit(server, "--quota=10G", "--quota-files=1000", "--largest=1G", "--rate=10M", "--connections=4")
    line = server.accounts.read_text().splitlines()[1].partition(" sum=")[0]
    assert line.endswith(f" quota={10**10} rate={10**7} quota-files=1000 largest={10**9} connections=4")
    shown = server.command("users").out
    assert "0 B in 0 files  of 10 GB  of 1,000 files  a file up to 1 GB  10 MB/s  4 connections" in shown
    limit(server, "--quota=none", "--quota-files=none", "--rate=5M")
    line = server.accounts.read_text().splitlines()[1].partition(" sum=")[0]
    assert line.endswith(f" quota=- rate={5 * 10**6} largest={10**9} connections=4")
    lines = [" ".join(line.split()) for line in server.command("limits", "alice").out.splitlines()]
    limits = ["quota none", "quota_files none", "largest 1 GB", "rate 5 MB", "connections 4"]
    assert lines[0].startswith("rights ") and lines[1:] == limits
    for name in ([], ["alice"]):
        whose = "alice does not have" if name else "no account has"
        assert server.command("recount", *name) == Result(0, f"{whose} a quota: nothing was counted\n", "")
    assert server.command("limits", "nobody").status == server.command("recount", "nobody").status == 2


@pytest.mark.parametrize("command", ["adduser", "limits"])
@pytest.mark.parametrize("flag", ["quota", "quota-files", "largest", "rate", "connections"])
def test_refuse_limit_of_zero_or_less(tmp_path: Path, command: str, flag: str) -> None:
    for value in ("0", "-1", "0k", "-", "", "many", "1.5", "9" * 30):
        options = server._parser().parse_args([command, "bob", f"--{flag}={value}"])
        with pytest.raises(UsageError) as caught:
            limits_of(options)
        assert caught.value.cause.startswith(f'--{flag}: "{value}" is not a ') and caught.value.remedy


@pytest.mark.long
def test_sixteen_clients_at_two_servers_on_one_storage_never_pass_the_quota(
    make_server: MakeServer, client: Client, folder: Path
) -> None:
    """Files, pipes and replaced ones at once; one of the servers is killed and started again in the middle."""
    one = make_server()
    limit(one, "--quota=20M", "--quota-files=40")
    two = make_server(storage=one.storage)
    limit(two, "--quota=20M", "--quota-files=40")
    seen = 0
    running: list[Running] = []
    for turn in range(3):
        sources = [make(folder / f"{turn}-{number}", 1_500_000 + number) for number in range(16)]
        running.clear()
        for number, source in enumerate(sources):
            to = client.at((one, two)[number % 2].port)
            flags = ["--retries=0", "--if-exists=replace"] if number % 4 == 0 else ["--retries=0"]
            if number % 5 == 0:
                with source.open("rb") as content_of_it:
                    running.append(to.start(*flags, "-", f"pipe-{number}", stdin=content_of_it))
            else:
                running.append(to.start(*flags, source, "same" if number % 4 == 0 else source.name))
        if turn == 1:
            wait_until(lambda: two.partials() or any(each.process.poll() is not None for each in running))
            two.kill()
            two.start()
        while any(each.process.poll() is None for each in running):
            with contextlib.suppress(OSError):
                seen = max(seen, on_disk(one.storage).bytes)
        results = [each.finish(60) for each in running]
        assert {result.status for result in results} <= {0, 1, 4}
        assert any(result.status == 1 and "quota" in result.err for result in results)
        there = on_disk(one.storage)
        assert there.bytes <= 20 * MIB and there.files <= 40
    assert seen <= 20 * MIB
    assert one.stop() == two.stop() == 0
    done = run("server.py", *one.settings, "recount")
    assert done.status == 0 and written(one.storage) == on_disk(one.storage)


def test_counting_survives_names_that_are_not_utf8(make_server: MakeServer, client: Client, folder: Path) -> None:
    server = make_server()
    limit(server, "--quota=1M")
    assert client.at(server.port)(make(folder / "a"), "a").status == 0
    odd = os.path.join(os.fsencode(server.path()), b"\xff")
    os.mkdir(odd)
    Path(os.fsdecode(odd), "b").write_bytes(bytes(100))
    assert server.command("recount").out.split()[1:] == ["1.5", "kB", "in", "3", "files"]


@pytest.mark.parametrize("command", ["users", "recount"])
def test_storage_is_opened_once_however_many_accounts_have_a_quota(tmp_path: Path, command: str) -> None:
    accounts = Accounts.create(tmp_path / "accounts.txt")
    kept = Registration.of(*password_scalars(b"x" * STRETCHED_SIZE))
    for number in range(5):
        accounts.add(Account(f"user{number}", kept, frozenset(RIGHTS), 1000, None))
    before = len(os.listdir("/dev/fd"))
    admin.run(command, accounts.path, tmp_path / "received", argparse.Namespace(name=None, drop_parts=False))
    assert len(os.listdir("/dev/fd")) == before + 2, "the storage folder and what is on its way"
