"""What a server writes to its logs, in the form and to the place that its settings name."""

import json
import re

from conftest import MakeServer
from processes import PASSWORD, Client, Server, make, wait_until


def client_of(server: Server, name: str, password: str = PASSWORD) -> Client:
    return Client(server.port, server.folder / name, password=password)


def test_json_has_an_object_for_each_event_of_a_connection(make_server: MakeServer) -> None:
    server = make_server("--log-format=json")
    (server.folder / "d").mkdir()
    source, small = make(server.folder / "large", 100_000), make(server.folder / "d/small", 5)
    assert client_of(server, "client")(source, small.parent, "box/").status == 0
    assert client_of(server, "client")("--get", "box/d/small", f"{server.folder}/back").status == 0
    assert client_of(server, "other", "another password")(source, "x").status == 3
    wait_until(lambda: server.told().count('"done"') == 2 and "refused" in server.told())
    assert server.stop() == 0
    events = [json.loads(line) for line in server.told().splitlines()]
    of_first = [event for event in events if event.get("connection") == 1]
    assert {(event["user"], event["source"]) for event in of_first} == {("alice", "127.0.0.1")}
    stored = {event["path"]: (event["bytes"], len(event["sha256"])) for event in of_first if event["event"] == "stored"}
    assert stored == {"box/large": (100_000, 64), "box/d/small": (5, 64)}
    assert [event["outcome"] for event in events if event["event"] == "login"] == ["accepted", "accepted", "refused"]
    done = [event for event in events if event["event"] == "done"]
    assert done[0]["bytes_received"] > 100_000 and done[0]["seconds"] > 0
    (given,) = [event for event in events if event["event"] == "given"]
    assert given["bytes"] == 5 and given["outcome"] == "stored"
    refused = next(event for event in events if event.get("outcome") == "refused")
    assert (refused["name"], refused["user"], refused["source"]) == ("alice", None, "127.0.0.1")
    assert {event["event"] for event in events if event.get("connection") is None} == {"note"}


def test_audit_log_has_logins_and_no_transfers(make_server: MakeServer) -> None:
    server = make_server()
    assert server.stop() == 0
    audit = server.folder / "audit.log"
    server.start(f"--audit-log={audit}", "--server-log=off")
    assert client_of(server, "client")(make(server.folder / "a"), "a").status == 0
    assert client_of(server, "other", "another password")(make(server.folder / "a"), "b").status == 3
    wait_until(lambda: "refused" in audit.read_text())
    assert server.stop() == 0
    told = [re.sub(r"^\S+ ", "", line) for line in audit.read_text().splitlines()]
    refused = "WARNING #2 127.0.0.1: login as alice refused: wrong password or unknown user"
    assert told == ["INFO #1 alice@127.0.0.1: logged in", refused]
    assert audit.stat().st_mode & 0o777 == 0o600


def test_log_goes_to_standard_error_for_the_journal(make_server: MakeServer) -> None:
    server = make_server()
    assert server.stop() == 0
    server.environment["JOURNAL_STREAM"] = "8:1"
    server.start("--server-log=-")
    assert client_of(server, "client")(make(server.folder / "a"), "a").status == 0
    assert server.stop() == 0
    assert "<6>INFO #1 alice@127.0.0.1: stored a, 20 bytes" in server.errors()
    assert not (server.folder / "-").exists()
