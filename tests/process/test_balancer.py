"""Three receivers with one storage folder behind HAProxy: whichever of them goes, every file arrives.

HAProxy is the distribution's, with the configuration that is shipped but for its addresses.
"""

import contextlib
import http.client
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import HOME, LIMIT, MIB, Client, Server, make, wait_until

HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin") or ""
pytestmark = pytest.mark.skipif(not HAPROXY, reason="needs HAProxy")
SETTINGS = ("--trusted-proxies=127.0.0.1", "--health=127.0.0.1:0")


class Receiver(Server):
    """One of them. It keeps its ports when it is started again, for HAProxy knows them."""

    health = 0

    def begin(self, *flags: str) -> None:
        """Start it."""
        kept = [f"--port={self.port}", f"--health=127.0.0.1:{self.health}"] if self.health else []
        self.start(*SETTINGS, *kept, *flags)
        assert self.process is not None and self.process.stdout is not None
        while not (line := self.process.stdout.readline()).startswith("health at "):
            assert line
        self.health = int(re.findall(r":(\d+)/health", line)[0])

    def is_ready(self) -> bool:
        """Whether it answers 200."""
        with (
            contextlib.suppress(ConnectionError),
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.health, timeout=LIMIT)) as asked,
        ):
            asked.request("GET", "/health")
            return asked.getresponse().status == http.client.OK
        return False


class Balanced:
    """Three receivers and HAProxy."""

    def __init__(self, folder: Path, accounts: Path, *flags: str) -> None:
        self.storage, self.flags = folder / "received", flags
        self.receivers = [Receiver(folder / str(number), accounts, self.storage) for number in range(3)]
        shared = self.receivers[0].accounts
        for receiver in self.receivers:
            receiver.accounts = shared
            receiver.begin(*flags)
        self._control = folder / "control"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
            (folder / "haproxy.cfg").write_text(self._configuration(listener.fileno()))
            self._process = subprocess.Popen(
                [HAPROXY, "-q", "-f", folder / "haproxy.cfg"], pass_fds=[listener.fileno()], start_new_session=True
            )
        wait_until(lambda: len(self.up()) == len(self.receivers))

    def _configuration(self, listener: int) -> str:
        text = (HOME / "deploy/haproxy/haproxy.cfg").read_text().replace("bind :7380", f"bind fd@{listener}")
        text = text.replace("inter 2s fastinter 500ms", "inter 100ms fastinter 50ms")
        for name, receiver in zip(("one", "two", "three"), self.receivers, strict=True):
            text, count = re.subn(
                rf"server {name} \S+", f"server {name} 127.0.0.1:{receiver.port} port {receiver.health}", text
            )
            assert count == 1
        return text.replace("maxconn 4096", f"maxconn 200\n    stats socket {self._control}")

    def _statistics(self) -> list[dict[str, str]]:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(LIMIT)
            try:
                control.connect(str(self._control))
            except OSError:
                return []
            control.sendall(b"show stat\n")
            head, *rows = b"".join(iter(lambda: control.recv(1 << 16), b"")).decode().strip().splitlines()
        return [dict(zip(head.lstrip("# ").split(","), row.split(","), strict=False)) for row in rows]

    def up(self) -> list[str]:
        """The receivers that get connections."""
        return [row["svname"] for row in self._statistics() if row["svname"] != "BACKEND" and row["status"] == "UP"]

    def bytes_sent(self) -> int:
        """What the clients have sent."""
        return next(int(row["bin"]) for row in self._statistics() if row["svname"] == "FRONTEND")

    def kept(self) -> int:
        """Bytes of partial files that were written, whichever receiver they are at."""
        sizes = 0
        for path in self.storage.glob(".partial/alice/*"):
            with contextlib.suppress(FileNotFoundError):
                sizes += path.stat().st_blocks * 512
        return sizes

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(LIMIT)
        for receiver in self.receivers:
            receiver.close()


@pytest.fixture
def balanced(tmp_path: Path, server: Server) -> Iterator[Callable[..., Balanced]]:
    made: list[Balanced] = []

    def balance(*flags: str) -> Balanced:
        made.append(Balanced(tmp_path / "balanced", server.accounts, *flags))
        return made[-1]

    yield balance
    for each in made:
        each.close()


def replaced_in_turn(balanced: Balanced, number: int) -> None:
    """Each receiver is ended by that signal, while files are on their way, and started again."""
    for receiver in balanced.receivers:
        before = balanced.kept()
        wait_until(lambda: balanced.kept() != before)  # noqa: B023 -- it is called here
        receiver.signal(number)
        assert receiver.ended() == (0 if number == signal.SIGTERM else -number)
        receiver.begin(*balanced.flags)
        wait_until(receiver.is_ready)


def check_all_arrive(balanced: Balanced, folder: Path, number: int, count: int, size: int) -> None:
    """Clients that nobody helps send a file each, while the receivers are replaced; all of it is there in the end."""
    sources = [make(folder / f"file {each}", size) for each in range(count)]
    running = [
        Client(balanced.port, folder / f"client {each}").start(source, f"box/{each}", f"--limit={size // 4}")
        for each, source in enumerate(sources)
    ]
    replaced_in_turn(balanced, number)
    results = [each.finish() for each in running]
    assert [result.status for result in results] == [0] * count, results
    for each, source in enumerate(sources):
        assert (balanced.storage / "alice/box" / str(each)).read_bytes() == source.read_bytes()
    assert balanced.bytes_sent() < 1.3 * count * size


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_receivers_that_are_replaced_in_turn_lose_nothing(
    balanced: Callable[..., Balanced], folder: Path, number: int
) -> None:
    check_all_arrive(balanced("--grace=0"), folder, number, 2, 8 * MIB)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ten_clients_lose_nothing_while_receivers_are_replaced(
    balanced: Callable[..., Balanced], folder: Path, number: int
) -> None:
    check_all_arrive(balanced("--grace=0"), folder, number, 10, 20 * MIB)


def test_log_names_the_clients_address_and_health_checks_leave_no_line(
    balanced: Callable[..., Balanced], folder: Path
) -> None:
    everything = balanced()
    assert Client(everything.port, folder / "client")(make(folder / "a"), "a").status == 0
    told = [receiver.told() for receiver in everything.receivers]
    assert sum("alice@127.0.0.1: logged in" in text for text in told) == 1
    assert not [line for text in told for line in text.splitlines() if "no login" in line]


def test_receiver_whose_storage_is_gone_is_taken_out_and_comes_back(
    balanced: Callable[..., Balanced], folder: Path
) -> None:
    """The storage of one of them is moved away from under it, as when a mount is lost."""
    everything = balanced()
    lost = everything.receivers[0]
    lost.signal(signal.SIGTERM)
    assert lost.ended() == 0
    lost.storage = folder / "its own mount"
    lost.storage.symlink_to(everything.storage)
    lost.begin()
    wait_until(lambda: len(everything.up()) == 3)
    lost.storage.unlink()
    wait_until(lambda: everything.up() == ["two", "three"])
    client = Client(everything.port, folder / "client")
    for number in range(3):
        assert client(make(folder / str(number)), f"box/{number}").status == 0
    lost.storage.symlink_to(everything.storage)
    wait_until(lambda: len(everything.up()) == 3)


def test_receiver_that_drains_is_left_by_the_balancer_before_it_turns_anybody_away(
    balanced: Callable[..., Balanced], folder: Path
) -> None:
    everything = balanced("--drain=60")
    leaving = everything.receivers[0]
    leaving.signal(signal.SIGTERM)
    wait_until(lambda: everything.up() == ["two", "three"])
    for number in range(3):
        result = Client(everything.port, folder / "client")(make(folder / str(number)), f"{number}")
        assert result.status == 0
    assert "shutting down; connections are accepted for 60 s more" in leaving.told()
    leaving.signal(signal.SIGTERM)
    assert leaving.ended() == 0
