"""What an administrator sees of a running server and does to it: `status` and `kick`."""

import contextlib
import json
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import LIMIT, MIB, USER, Client, Result, Running, Server, make, wait_until

SLOW = "--limit=1M"


def socket_of(server: Server) -> Path:
    return server.accounts.with_name("accounts.txt.control")


def start(server: Server) -> None:
    """Until it can be asked, which is just after it listens."""
    server.start()
    wait_until(lambda: socket_of(server).exists())


@pytest.fixture
def seen(accounts: dict[str, Path]) -> Iterator[Server]:
    """A server whose accounts have a short path, as a socket needs it; with the accounts `USER` and bob."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="sft-") as folder:
        server = Server(Path(folder), accounts[f"{USER}+bob"])
        start(server)
        yield server
        server.close()


@pytest.fixture
def its_client(seen: Server, tmp_path: Path) -> Client:
    return Client(seen.port, tmp_path / "client")


@pytest.fixture
def slow(seen: Server, its_client: Client, tmp_path: Path) -> Running:
    """A client that sends a large file for a while."""
    sending = its_client.start(SLOW, "--json", make(tmp_path / "large", 60 * MIB), "in/large")
    wait_until(lambda: seen.kept("in", "large").exists())
    return sending


def status(server: Server) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Its connections, and the line about all."""
    result = server.command("status", "--json")
    assert (result.status, result.err) == (0, "")
    *connections, everything = [json.loads(line) for line in result.out.splitlines()]
    assert {each["event"] for each in connections} <= {"connection"} and everything["event"] == "status"
    assert everything["connections"] == len(connections)
    return connections, everything


def test_status_shows_who_is_connected_what_moves_and_how_fast(seen: Server, slow: Running) -> None:
    (each,), everything = status(seen)
    assert (each["user"], each["source"], each["files_received"]) == (USER, "127.0.0.1", 0)
    moving = each["moving"]
    assert (moving["name"], moving["direction"], moving["size"]) == ("in/large", "received", 60 * MIB)
    assert 0 < moving["done"] <= each["bytes_received"] < 60 * MIB
    assert 0 < each["received_per_second"] == everything["received_per_second"] < 10 * MIB
    assert everything["logins"]["accepted"] == 1 and everything["stopping"] is False
    people = seen.command("status")
    assert (people.status, people.err) == (0, "")
    assert f"{USER}@127.0.0.1" in people.out and "receiving in/large, " in people.out and "of 62.9 MB" in people.out
    assert people.out.splitlines()[-1].startswith("1 connection; ")
    slow.kill()
    slow.finish()


def test_status_of_a_server_without_connections_counts_what_was(
    seen: Server, its_client: Client, tmp_path: Path
) -> None:
    assert its_client(make(tmp_path / "small"), "small").status == 0
    wait_until(lambda: "done, " in seen.told())
    assert status(seen) == (
        [],
        {
            "event": "status",
            "connections": 0,
            "not_logged_in": 0,
            "received_per_second": 0,
            "sent_per_second": 0,
            "logins": {"accepted": 1, "refused": 0, "throttled": 0, "none": 0, "busy": 0},
            "stopping": False,
        },
    )
    assert seen.command("status").out == "0 connections; logins since the start: 1 accepted\n"


def test_status_counts_connections_that_are_not_logged_in(seen: Server) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(3):
            opened.enter_context(socket.create_connection(("127.0.0.1", seen.port), LIMIT))
        wait_until(lambda: status(seen)[1]["not_logged_in"] == 3)
        assert seen.command("status").out.startswith("0 connections and 3 not logged in; logins since the start: none")


def test_kick_ends_a_users_connections_and_their_client_stays_away(
    seen: Server, its_client: Client, slow: Running, tmp_path: Path
) -> None:
    assert seen.command("kick", "bob").out == "bob has no connection\n"
    kicked = seen.command("kick", USER)
    assert (kicked.status, kicked.out) == (0, f"ended 1 connection of {USER}\n")
    ended = slow.finish()
    assert ended.status == 4
    assert (
        "the receiver has ended your connections, because its owner asked for that. Ask there before you try again"
        in ended.out + ended.err
    )
    assert seen.told().count(": logged in") == 1, "it does not come back by itself"
    assert f"kicked {USER}: 1 connection" in seen.told()
    again = its_client(tmp_path / "large", "in/large")
    assert again.status == 0 and seen.path("in", "large").stat().st_size == 60 * MIB
    assert "from byte" in seen.told(), "the same command goes on where it was"


def test_socket_is_its_owners_alone_and_goes_with_the_server(seen: Server) -> None:
    there = socket_of(seen)
    assert stat.S_IMODE(there.stat().st_mode) == 0o600
    assert seen.stop() == 0
    assert not there.exists()


def no_server(result: Result) -> bool:
    return result.status == 1 and result.err.startswith("error: no server with the accounts ") and not result.out


@pytest.mark.parametrize("command", [["status"], ["kick", USER], ["unban", "192.0.2.7"]])
def test_command_without_a_running_server_is_one_line_and_exit_1(seen: Server, command: list[str]) -> None:
    seen.kill()
    assert no_server(seen.command(*command))
    assert no_server(Server(seen.folder / "nothing here").command(*command))
    seen.start()
    wait_until(lambda: seen.command(*command).status == 0)  # what was killed has left a socket, which is replaced


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["kick", "Alice"], "that username is not allowed"),
        (["unban", "192.0.2.0/24"], '"192.0.2.0/24" is neither an address, nor a /64, nor a username'),
        (["status", "--port=1"], "--port"),
    ],
)
def test_command_that_can_not_be_meant_is_exit_2(seen: Server, command: list[str], words: str) -> None:
    refused = seen.command(*command)
    assert refused.status == 2 and words in refused.err and refused.err.count("\n") == 1


def test_second_server_with_the_same_accounts_goes_on_without(seen: Server, its_client: Client, tmp_path: Path) -> None:
    second = Server(tmp_path / "second", storage=seen.storage)
    second.accounts = seen.accounts
    try:
        second.start()
        assert its_client.at(second.port)(make(tmp_path / "small"), "small").status == 0
        assert "no control socket" in second.told() and "another server with these accounts" in second.told()
        assert status(seen)[1]["logins"]["accepted"] == 0, "it is the first one's"
        assert second.stop(LIMIT) == 0
        assert status(seen)[1]["stopping"] is False
    finally:
        second.close()
