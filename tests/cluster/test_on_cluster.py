"""Three receivers on a distributed file system, behind HAProxy: `make cluster`. Elsewhere these tests are skipped.

They run in the cluster that `python -m deploy.cluster` has built: with its processes, network and mounts.
"""

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import MIB, make, wait_until

from deploy.cluster.engines import ENGINES, Engine
from deploy.cluster.hosts import DESCRIPTION, Cluster, Host
from deploy.cluster.receivers import USER, Balancer, Receiver, add_user, client_command, start_all

pytestmark = pytest.mark.skipif(DESCRIPTION not in os.environ, reason="needs a cluster: make cluster")
LONG = 300.0  # a distributed file system of one machine is slow, and heals when it likes


@dataclass
class Service:
    """All of it."""

    engine: Engine
    hosts: Sequence[Host]
    receivers: list[Receiver]
    balancer: Balancer

    def read(self, *path: str, user: str = USER) -> bytes:
        """What lies there, which is the same wherever one looks."""
        found = {copy.read_bytes() for copy in self.engine.copies(Path("received", user, *path))}
        for host, place in self._seen(*path, user=user):
            found.add(subprocess.run(host.command("cat", place), capture_output=True, check=True).stdout)
        assert len(found) == 1, f"{path}: {len(found)} different contents"
        return found.pop()

    def kept(self) -> int:
        """Bytes of files that are not whole yet."""
        script = 'find "$1" -type f -printf "%b\\n" 2>/dev/null; true'
        told = self.hosts[0].call("sh", "-c", script, "sh", self.receivers[0].storage / ".partial" / USER)
        return 512 * sum(map(int, told.split()))

    def _seen(self, *path: str, user: str) -> list[tuple[Host, Path]]:
        return [(receiver.host, receiver.storage.joinpath(user, *path)) for receiver in self.receivers]

    def list(self, *path: str, user: str = USER) -> dict[str, int]:
        """Names and sizes in a folder; the same for each host."""
        script = 'cd "$1" && find . -type f -printf "%s %P\\n" | sort'
        told = {host.call("sh", "-c", script, "sh", place) for host, place in self._seen(*path, user=user)}
        assert len(told) == 1, told
        lines = [line.partition(" ") for line in told.pop().splitlines()]
        return {name: int(size) for size, _, name in lines}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    cluster = Cluster.read(os.environ[DESCRIPTION])
    receivers, balancer = start_all(cluster)
    yield Service(ENGINES[cluster.engine](cluster), cluster.hosts, receivers, balancer)
    balancer.close()
    for receiver in receivers:
        receiver.kill(signal.SIGTERM)


@dataclass
class Result:
    """What became of a client."""

    status: int
    told: str
    receipts: dict[str, str]  # the digest of each path that it has a receipt for


class Client:
    """A client that runs; on a host it talks to the receiver there, else to the balancer."""

    def __init__(self, folder: Path, *arguments: str | Path, host: Host | None = None, user: str = USER) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._receipts = folder / "receipts"
        command = client_command(f"--receipts={self._receipts}", f"--user={user}", f"--client-log={folder}/log")
        command += [*([] if host is None else [f"--host={host.address}"]), *map(str, arguments)]
        self._process = subprocess.Popen(
            command if host is None else host.command(*command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, seconds: float = LONG) -> Result:
        told, _ = self._process.communicate(timeout=seconds)
        lines = self._receipts.read_text().splitlines() if self._receipts.exists() else []
        receipts = {each["path"]: each["sha256"] for each in map(json.loads, lines)}
        return Result(self._process.returncode, told, receipts)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_ten_clients_lose_nothing_while_receivers_are_killed(service: Service, tmp_path: Path) -> None:
    size = 20 * MIB
    sources = [make(tmp_path / f"file {number}", size) for number in range(10)]
    sent = service.balancer.bytes_sent()
    clients = [
        Client(tmp_path / f"client {number}", source, f"killed/{number}", f"--limit={size // 30}")
        for number, source in enumerate(sources)
    ]
    for receiver in service.receivers:
        before = service.kept()
        wait_until(lambda: service.kept() != before)  # noqa: B023 -- it is called here
        receiver.kill()
        receiver.start()
        receiver.wait_until_ready()
    results = [client.finish() for client in clients]
    assert [result.status for result in results] == [0] * 10, [result.told for result in results]
    for number, source in enumerate(sources):
        assert service.read("killed", str(number)) == source.read_bytes()
    ratio = (service.balancer.bytes_sent() - sent) / (10 * size)
    print(f"sent {ratio:.2f} times the size")
    assert ratio < 1.3


def test_quota_is_held_by_two_hosts_at_once(service: Service, tmp_path: Path) -> None:
    quota, size, count = 50 * MIB, MIB, 40
    add_user(service.receivers[0], "quoted", "--quota=50M")
    one, two = service.hosts[:2]
    clients = []
    for host in (one, two):
        folder = tmp_path / str(host.number)
        for number in range(count):
            make(folder / "in" / f"{host.number}-{number}", size)
        clients.append(Client(folder, folder / "in", "/", host=host, user="quoted"))
    results = [client.finish() for client in clients]
    used = sum(service.list(user="quoted").values())
    print(f"a quota of {quota >> 20} MiB: {used >> 20} MiB are used")
    assert 1 in [result.status for result in results], [result.told for result in results]
    assert quota * 0.8 < used <= quota
    assert used == size * sum(len(result.receipts) for result in results)


@pytest.mark.parametrize("policy", ["replace", "fail", "rename"])
def test_receipt_is_what_lies_there_when_two_hosts_write_the_same_names(
    service: Service, tmp_path: Path, policy: str
) -> None:
    count = 150
    clients = []
    for host in service.hosts[:2]:
        folder = tmp_path / str(host.number) / "same"
        for number in range(count):
            make(folder / str(number), 300_000 if number % 3 == 0 else 20_000)
        clients.append(Client(folder.parent, folder, f"{policy}/", f"--if-exists={policy}", host=host))
    results = [client.finish() for client in clients]
    there = service.list(policy, "same")
    told = [result.told for result in results]
    if policy == "rename":
        assert [result.status for result in results] == [0, 0], told
        assert len(there) == 2 * count
        for result in results:
            for path, sha256 in result.receipts.items():
                assert digest(service.read(*path.split("/"))) == sha256
        return
    assert len(there) == count, told
    for number in range(count):
        name = f"{policy}/same/{number}"
        receipts = [result.receipts[name] for result in results if name in result.receipts]
        lies = digest(service.read(*name.split("/")))
        if policy == "replace":
            assert len(receipts) == 2, (name, told)
        else:
            assert len(receipts) == 1, (name, told)
        assert lies in receipts, name


def test_lost_brick_stops_nobody_and_is_healed(service: Service, tmp_path: Path) -> None:
    source = make(tmp_path / "file", 8 * MIB)
    service.engine.lose(service.hosts[1])
    try:
        result = Client(tmp_path, source, "one-lost/file").finish()
        assert result.status == 0, result.told
    finally:
        service.engine.restore()
    assert service.read("one-lost", "file") == source.read_bytes()


def test_without_a_quorum_clients_wait_until_it_is_back(service: Service, tmp_path: Path) -> None:
    source = make(tmp_path / "file", 40 * MIB)
    client = Client(tmp_path, source, "waits/file", f"--limit={4 * MIB}")
    before = service.kept()
    wait_until(lambda: service.kept() != before)
    for host in service.hosts[1:]:
        service.engine.lose(host)
    try:
        wait_until(lambda: all(receiver.health() for receiver in service.receivers), LONG)
    finally:
        service.engine.restore()
    for receiver in service.receivers:
        receiver.wait_until_ready()
    result = client.finish()
    assert result.status == 0, result.told
    assert service.read("waits", "file") == source.read_bytes()


def test_receiver_whose_mount_dies_is_left_out_and_comes_back(service: Service, tmp_path: Path) -> None:
    lost = service.receivers[2]
    service.engine.unmount(lost.host)
    wait_until(lambda: lost.health(), LONG)
    for number in range(4):
        result = Client(tmp_path / str(number), make(tmp_path / "file"), f"mount/{number}").finish()
        assert result.status == 0, result.told
        assert "password" not in result.told
    service.engine.mount(lost.host)
    lost.wait_until_ready()
