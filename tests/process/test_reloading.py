"""SIGHUP at a real server: settings and log anew, and no transfer is touched."""

import signal
import socket
from pathlib import Path

from conftest import MakeProxy, MakeServer
from processes import LIMIT, MIB, Client, Fault, Server, make, wait_until


def reload(server: Server, words: str) -> None:
    """Send the signal, and wait until the log has those words once more."""
    before = server.told().count(words)
    server.signal(signal.SIGHUP)
    wait_until(lambda: server.told().count(words) > before)


def test_new_settings_hold_at_once_and_a_transfer_under_way_goes_on(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path
) -> None:
    server = make_server()
    settings = folder / "settings.toml"
    settings.write_text("grace = 9\n")
    assert server.stop() == 0
    server.start("--config", str(settings))
    line = proxy(server.port, up=Fault("hold", 3 * MIB))
    running = client.at(line.port).start(make(folder / "large", 8_000_000), "large")
    line.wait_reached()
    settings.write_text('max_file_size = "1k"\ngrace = 9\nmemory = "64 MiB"\n')
    reload(server, "settings loaded; changed: max_file_size\n")
    assert "WARNING memory changes at the next start" in server.told()
    refused = client.at(server.port)(make(folder / "b", 2_000), "b")
    assert refused.status == 1 and "b is larger than the receiver takes" in refused.err
    line.release()
    assert running.finish().status == 0
    assert server.path("large").stat().st_size == 8_000_000
    assert server.stop() == 0


def test_settings_that_can_not_be_used_change_nothing_and_are_told_in_the_log(
    make_server: MakeServer, client: Client, folder: Path
) -> None:
    server = make_server()
    settings = folder / "settings.toml"
    settings.write_text('max_file_size = "1k"\n')
    assert server.stop() == 0
    server.start("--config", str(settings))
    settings.write_text('max_file_size = "10k"\ngrace = "soon"\n')
    reload(server, f'the settings stay as they are: grace in {settings}: "soon"')
    assert client.at(server.port)(make(folder / "a", 2_000), "a").status == 1
    settings.unlink()
    reload(server, "the settings stay as they are: ")
    assert client.at(server.port)(make(folder / "a", 1_000), "a").status == 0
    assert server.stop() == 0 and server.errors() == ""


def test_log_that_was_renamed_is_begun_again_with_its_mode(make_server: MakeServer) -> None:
    server = make_server()
    old = server.log.rename(server.log.with_name("old.log"))
    server.signal(signal.SIGHUP)
    wait_until(lambda: server.log.exists() and "settings loaded; changed: nothing" in server.told())
    assert server.log.stat().st_mode & 0o777 == 0o600
    assert "settings loaded" not in old.read_text()
    assert server.stop() == 0


def test_service_manager_learns_when_it_listens_loads_and_stops(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server()
    assert server.stop() == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(LIMIT)
        server.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        server.start()
        assert manager.recv(4096) == b"READY=1\nSTATUS=accepting connections"
        server.signal(signal.SIGHUP)
        assert manager.recv(4096).startswith(b"RELOADING=1\n")
        assert manager.recv(4096).startswith(b"READY=1\n")
        assert server.stop() == 0
        assert manager.recv(4096) == b"STOPPING=1\nSTATUS=stopping; 0 connections"
