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

    def digests(self, *path: str, user: str = USER) -> dict[str, str]:
        """The SHA-256 of each file below a folder, which are the same wherever one looks: on each mount and copy."""
        script = 'cd "$1" && find . -type f -exec sha256sum {} +'
        told = [
            host.call("sh", "-c", script, "sh", receiver.storage.joinpath(user, *path))
            for host, receiver in zip(self.hosts, self.receivers, strict=True)
        ]
        lines = [[line.partition("  ./") for line in each.splitlines()] for each in told]
        found = [{name: sha256 for sha256, _, name in each} for each in lines]
        for copy in self.engine.copies(Path("received", user, *path)):
            files = [each for each in copy.rglob("*") if each.is_file()]
            found.append({str(each.relative_to(copy)): digest(each) for each in files})
        for other in found[1:]:
            assert other == found[0], sorted(set(other.items()) ^ set(found[0].items()))
        return found[0]

    def kept(self) -> int:
        """Bytes of files that are not whole yet."""
        script = 'find "$1" -type f -printf "%b\\n" 2>/dev/null; true'
        told = self.hosts[0].call("sh", "-c", script, "sh", self.receivers[0].storage / ".partial" / USER)
        return 512 * sum(map(int, told.split()))


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


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    assert service.digests("killed") == {str(number): digest(source) for number, source in enumerate(sources)}
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
    used = size * len(service.digests(user="quoted"))
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
    told = [result.told for result in results]
    there = {f"{policy}/{name}": sha256 for name, sha256 in service.digests(policy).items()}
    one, two = (result.receipts for result in results)
    if policy == "rename":
        assert not one.keys() & two.keys() and one | two == there, told
    elif policy == "fail":
        assert not one.keys() & two.keys() and one | two == there and len(there) == count, told
    else:
        assert one.keys() == two.keys() == there.keys() and len(there) == count, told
        assert [name for name in there if there[name] not in (one[name], two[name])] == []


def test_lost_brick_stops_nobody_and_is_healed(service: Service, tmp_path: Path) -> None:
    source = make(tmp_path / "file", 8 * MIB)
    service.engine.lose(service.hosts[1])
    try:
        result = Client(tmp_path, source, "one-lost/file").finish()
        assert result.status == 0, result.told
    finally:
        service.engine.restore()
    assert service.digests("one-lost") == {"file": digest(source)}


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
    assert service.digests("waits") == {"file": digest(source)}


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
