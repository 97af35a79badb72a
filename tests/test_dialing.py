"""What a client loads and when, and that nothing made of the password leaves before the library was checked."""

import socket
from pathlib import Path

import pytest
from conftest import MakeProxy
from processes import ONCE, Client, Server, login_sent, make, run_python
from tables import each_row

from sft.client.login import Credentials, _Call
from sft.common.errors import ConnectionTrouble, UsageError
from sft.wire.pake import CONFIRM_SIZE, POINT_SIZE
from sft.wire.protocol import HEADER_SIZE

_WORK = {"Crypto", "hashlib", "json", "logging", "msgspec", "socket", "sft.client.jobs"}
_AFTER_HELLO = {
    "Crypto.Protocol.HPKE",
    "Crypto.Cipher.AES",
    "json",
    "msgspec",
    "sft.wire.channel",
    "sft.transfer.sender",
}

_LOADED_FOR = """
import sys
from client import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("loaded", *sorted(sys.modules))
"""

_LOADED_AT_FIRST_SEND = """
import sys
from client import main
from sft.common.errors import ConnectionTrouble
from sft.wire.sockets import Link
def send(link, frame):
    print("loaded", *sorted(sys.modules))
    raise ConnectionTrouble("enough")
Link.send = send
print(main(sys.argv[1:]))
"""

_WRONG_LIBRARY = """
import sys
import crypto_utils
from client import main
crypto_utils._KEM_CHECK_ANSWER = "another"
sys.stderr = sys.stdout
print(main(sys.argv[1:]))
"""

_WRONG_LIBRARY_OF_THE_SERVER = _WRONG_LIBRARY.replace("from client", "from server")


def loaded(told: str) -> set[str]:
    (line,) = [line for line in told.splitlines() if line.startswith("loaded ")]
    return set(line.split()[1:])


@pytest.mark.parametrize("arguments", [["--help"], ["--retries"], ["--no-such-flag"]])
def test_help_and_refused_command_load_nothing_of_the_work(arguments: list[str]) -> None:
    found = loaded(run_python(_LOADED_FOR, *arguments))
    assert "argparse" in found
    assert found & _WORK == set()


def test_command_that_names_too_little_loads_no_cryptography() -> None:
    assert "Crypto" not in loaded(run_python(_LOADED_FOR, "a"))


def test_hello_leaves_before_what_is_needed_after_it_is_loaded(server: Server, client: Client, folder: Path) -> None:
    found = loaded(run_python(_LOADED_AT_FIRST_SEND, *client.flags, ONCE, make(folder / "a"), "b"))
    assert "Crypto.PublicKey.MLKEM" in found
    assert found & _AFTER_HELLO == set()


def test_library_that_computes_something_else_ends_the_login_before_the_share(
    server: Server, proxy: MakeProxy, client: Client, folder: Path
) -> None:
    line = proxy(server.port)
    told = run_python(_WRONG_LIBRARY, *client.at(line.port).flags, make(folder / "a"), "b")
    assert told.splitlines() == [
        "error: this release of pycryptodome computes another key agreement. "
        "Run: python -m pip install -r requirements.lock",
        "2",
    ]
    share, confirm = HEADER_SIZE + POINT_SIZE, HEADER_SIZE + CONFIRM_SIZE
    assert line.passed[0] == login_sent() - share - confirm


def test_library_that_computes_something_else_keeps_the_server_from_starting(tmp_path: Path) -> None:
    settings = [f"--accounts={tmp_path / 'accounts.txt'}", f"--storage={tmp_path / 'received'}", "--port=0"]
    told = run_python(_WRONG_LIBRARY_OF_THE_SERVER, *settings, f"--server-log={tmp_path / 'server.log'}")
    assert "computes another key agreement" in told and told.splitlines()[-1] == "2"
    assert list(tmp_path.iterdir()) == []


def test_connection_that_comes_after_the_end_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(KeyboardInterrupt), _Call("127.0.0.1", listener.getsockname()[1], 10):
            raise KeyboardInterrupt
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(10)
            assert sock.recv(1) == b""


def test_call_that_nobody_answers_is_told_to_who_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with _Call("127.0.0.1", port, 10) as call, pytest.raises(ConnectionTrouble, match="refused"):
        call.answer()


@each_row("user", ["", "u" * 33, "\ud83d"])
def test_username_that_no_account_can_have_is_refused_before_connecting(user: str) -> None:
    """Half a character is what a command line of Windows can hold."""
    with pytest.raises(UsageError):
        Credentials("localhost", 1, user, "a password")


def test_what_sends_loads_nothing_of_what_receives() -> None:
    told = run_python("import sys, sft.client.upload, sft.transfer.sender\nprint('loaded', *sorted(sys.modules))")
    assert "sft.transfer.sender" in loaded(told)
    assert not {"sft.disk.ledger", "sft.disk.temporary", "sft.disk.folders"} & loaded(told)
