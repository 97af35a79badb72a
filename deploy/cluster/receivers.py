"""The three receivers on the cluster's file system, and HAProxy in front of them, as they are shipped.

10.0.0.1:7380     HAProxy, with deploy/haproxy/haproxy.cfg
10.0.0.2:7380 …   a receiver on each host; the storage folder and the accounts are on the cluster's file system
"""

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from deploy.cluster.hosts import PLACE, Cluster, Host, call, wait_until

HOME = Path(__file__).resolve().parents[2]
PROGRAMS = {"haproxy": "haproxy"}
PORT, HEALTH = 7380, 7381
BALANCER = "10.0.0.1"
USER = "alice"
PASSWORD_FILE = PLACE / "password"
_CONTROL = PLACE / "haproxy"


class Receiver:
    """The server program on one host."""

    def __init__(self, host: Host, flags: Sequence[str] = ()) -> None:
        self.host, self.flags = host, list(flags)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def storage(self) -> Path:
        """The storage folder, as this host sees it."""
        return self.host.mount / "received"

    @property
    def log(self) -> Path:
        """Its log."""
        return self.host.folder / "server.log"

    @property
    def settings(self) -> list[str]:
        """The flags that name its files."""
        return [f"--accounts={self.host.mount}/accounts.txt", f"--storage={self.storage}", f"--server-log={self.log}"]

    def command(self, *arguments: str) -> str:
        """What one of the commands that keep accounts prints. Raises Failed."""
        return self.host.call(sys.executable, HOME / "server.py", *self.settings, *arguments)

    def start(self) -> None:
        """Start it; `wait_until_ready` afterwards."""
        self.process = self.host.start(
            *(sys.executable, str(HOME / "server.py"), *self.settings),
            *(f"--listen={self.host.address}", f"--port={PORT}", f"--trusted-proxies={BALANCER}"),
            *(f"--health={self.host.address}:{HEALTH}", "--grace=5", *self.flags),
        )

    def health(self) -> str:
        """What it says about itself: "" when it takes files, else why not."""
        try:
            with urllib.request.urlopen(f"http://{self.host.address}:{HEALTH}/health", timeout=10):
                return ""
        except urllib.error.HTTPError as problem:
            return problem.read().decode().strip()
        except OSError as problem:
            return str(problem)

    def wait_until_ready(self) -> None:
        """Return when it takes files. Raises Failed."""
        wait_until(lambda: not self.health(), f"the receiver on {self.host.address} takes files")

    def kill(self, number: int = signal.SIGKILL) -> int:
        """End it by a signal; its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(number)  # `nsenter` has become the server: it enters no namespace of processes
        status, self.process = self.process.wait(), None
        return status


class Balancer:
    """HAProxy, with the configuration that is shipped."""

    def __init__(self) -> None:
        """Start it."""
        told = (HOME / "deploy/haproxy/haproxy.cfg").read_text()
        place = PLACE / "haproxy.cfg"
        place.write_text(told.replace("global\n", f"global\n    stats socket {_CONTROL}\n"))
        command = ["haproxy", "-q", "-f", str(place)]
        self._process = subprocess.Popen(  # noqa: S603 -- named above
            command, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def bytes_sent(self) -> int:
        """What clients have sent to it."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(_CONTROL))
            control.sendall(b"show stat\n")
            head, *rows = b"".join(iter(lambda: control.recv(1 << 16), b"")).decode().strip().splitlines()
        names = head.lstrip("# ").split(",")
        found = [dict(zip(names, row.split(","), strict=False)) for row in rows]
        return next(int(each["bin"]) for each in found if each["svname"] == "FRONTEND")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def add_user(receiver: Receiver, name: str = USER, *flags: str) -> None:
    """An account, whose password is in `PASSWORD_FILE`. Raises Failed."""
    if not PASSWORD_FILE.exists():
        PASSWORD_FILE.touch(0o600)
        PASSWORD_FILE.write_text("correct horse, battery\n")
    receiver.command("adduser", name, f"--password-file={PASSWORD_FILE}", *flags)


def start_all(cluster: Cluster, flags: Sequence[str] = ()) -> tuple[list[Receiver], Balancer]:
    """An account, a receiver on each host, and the balancer; they take files when this returns. Raises Failed."""
    receivers = [Receiver(host, flags) for host in cluster.hosts]
    add_user(receivers[0])
    for receiver in receivers:
        receiver.start()
    balancer = Balancer()
    for receiver in receivers:
        receiver.wait_until_ready()
    wait_until(_is_reached, "the balancer passes connections on")
    return receivers, balancer


def _is_reached() -> bool:
    call(*client_command("--list"))
    return True


def client_command(*arguments: str | Path) -> list[str]:
    """The client's command, for the account that `start_all` makes."""
    return [
        *(sys.executable, str(HOME / "client.py"), f"--host={BALANCER}", f"--port={PORT}", f"--user={USER}"),
        *(f"--password-file={PASSWORD_FILE}", f"--client-log={PLACE}/client.log", *map(str, arguments)),
    ]
