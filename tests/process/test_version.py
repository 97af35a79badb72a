"""The version: in one place, printed by --version, and the first line that each run writes to a log."""

import platform
import re
from pathlib import Path

import pytest
from conftest import RunHere
from processes import Client, Server, make

from crypto_utils import engine_name
from sft.common.version import VERSION, version_line
from sft.wire.compression import zstd_name
from sft.wire.protocol import VERSION as WIRE

LIBRARIES = f"{engine_name()}, {zstd_name()}"
LINE = f"{VERSION} (wire {WIRE}, Python {platform.python_version()}, {LIBRARIES})"


def test_version_has_the_form_of_pep_440() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(rc\d+)?", VERSION)
    assert version_line("client.py", WIRE, LIBRARIES) == f"client.py {LINE}"


@pytest.mark.parametrize("program", ["client.py", "server.py"])
def test_version_is_printed_and_nothing_else_is_done(run_here: RunHere, program: str) -> None:
    result = run_here(program, "--version")
    assert (result.status, result.out, result.err) == (0, f"{program} {LINE}\n", "")


@pytest.mark.parametrize("flag", ["--version", "--show-config"])
def test_flag_is_read_behind_a_command_of_the_server_too(run_here: RunHere, flag: str) -> None:
    assert run_here("server.py", "users", flag) == run_here("server.py", flag, "users")


def test_both_logs_begin_with_the_version(server: Server, client: Client, folder: Path) -> None:
    client(make(folder / "a"), "a")
    assert server.told().splitlines()[0].endswith(f" INFO server.py {LINE}")
    assert client.log.read_text().splitlines()[0].endswith(f" INFO client.py {LINE}")
