"""Which settings a running server takes, which need a new start; and the notices to a service manager."""

import socket
from dataclasses import fields, replace
from pathlib import Path

import pytest
from tables import each_row

from config import ServerSettings, load
from sft.server.reload import NEED_A_RESTART, changes
from sft.server.service_manager import VARIABLE, ServiceManager

SETTINGS = load(ServerSettings, {}, {"SFT_CONFIG": "/dev/null"}, None).values


@each_row("name", [each.name for each in fields(ServerSettings)])
def test_changed_setting_takes_effect_now_or_is_named_as_one_that_needs_a_restart(name: str) -> None:
    found = changes(SETTINGS, replace(SETTINGS, **{name: object()}))  # type: ignore[arg-type]
    assert found == (([], [name]) if name in NEED_A_RESTART else ([name], []))


def test_unchanged_settings_change_nothing() -> None:
    assert changes(SETTINGS, replace(SETTINGS)) == ([], [])


@pytest.mark.parametrize("kind", ["a path", "an abstract name"])
def test_service_manager_gets_one_datagram_for_each_notice(kind: str, tmp_path: Path) -> None:
    name = str(tmp_path / "notify") if kind == "a path" else f"@{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(10)
        server = ServiceManager({VARIABLE: name})
        server.ready("accepting connections")
        server.reloading()
        server.stopping("stopping; 2 connections")
        assert manager.recv(4096) == b"READY=1\nSTATUS=accepting connections"
        assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(4096) == b"STOPPING=1\nSTATUS=stopping; 2 connections"


@pytest.mark.parametrize("environment", [{}, {VARIABLE: ""}, {VARIABLE: "/nowhere/notify"}, {VARIABLE: "x" * 200}])
def test_without_a_service_manager_nothing_happens(environment: dict[str, str]) -> None:
    ServiceManager(environment).ready("accepting connections")
