"""CephFS through ceph-fuse: a monitor, a manager and a metadata server on the first host, and a disk on each."""

import os
import secrets
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from deploy.cluster.hosts import PLACE, Cluster, Host, call, wait_until

# What the last one is for, and what happens without it, is in docs/OPERATIONS.md. The others make it small.
_SETTINGS = """[global]
fsid = {identity}
mon host = [v2:{first}:3300,v1:{first}:6789]
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = {copies}
osd pool default min size = 2
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on insecure global id reclaim allowed = false
bluestore block create = true
bluestore block size = 3221225472
osd memory target = 939524096
osd objectstore = bluestore
osd op num threads per shard = 1
log to stderr = false
[osd]
pid file = /run/ceph/$name.pid
[client]
fuse disable pagecache = {tuned}
"""
_CONFIGURATION = PLACE / "ceph.conf"


class CephFuse:
    """The engine, as `deploy/cluster/engines.py` has it; every method raises Failed."""

    programs: ClassVar[dict[str, str]] = {
        "ceph-mon": "ceph-mon",
        "ceph-mgr": "ceph-mgr",
        "ceph-osd": "ceph-osd",
        "ceph-mds": "ceph-mds",
        "ceph-fuse": "ceph-fuse",
    }

    def __init__(self, cluster: Cluster) -> None:
        self._hosts = cluster.hosts

    def build(self, tuned: bool = True) -> None:
        """Start it, and mount the file system on each host. `tuned`: with the options that are needed."""
        first = self._hosts[0]
        identity = "-".join(secrets.token_hex(size) for size in (4, 2, 2, 2, 6))
        copies = len(self._hosts)
        text = _SETTINGS.format(identity=identity, first=first.address, copies=copies, tuned=str(tuned).lower())
        _CONFIGURATION.write_text(text)
        for host in self._hosts:
            for place in ("/var/lib/ceph", "/var/log/ceph"):
                host.covers(place)
            (host.folder / "run/ceph").mkdir()
        self._start_monitor(first, identity)
        for number, host in enumerate(self._hosts):
            self._ceph("osd", "create")
            host.call("ceph-osd", *_conf(), "--id", str(number), "--osd-data", host.disk, "--mkfs")
            self._start_disk(number)
        wait_until(lambda: f"{copies} up" in self._ceph("osd", "stat"), "the disks are in use")
        for pool in ("data", "metadata"):
            self._ceph("osd", "pool", "create", pool, "8")
        self._ceph("fs", "new", "files", "metadata", "data")
        (first.folder / "var-lib-ceph/mds/ceph-a").mkdir(parents=True)
        first.call("ceph-mds", *_conf(), "--id", "a")
        wait_until(lambda: "up:active" in self._ceph("mds", "stat"), "the metadata server is active")
        for host in self._hosts:
            self.mount(host)

    def _start_monitor(self, first: Host, identity: str) -> None:
        place = "/var/lib/ceph/mon"
        first.call("mkdir", "-p", place, "/var/lib/ceph/mgr/ceph-a")
        table = PLACE / "monitors"
        addresses = f"[v2:{first.address}:3300,v1:{first.address}:6789]"
        call("monmaptool", "--create", "--fsid", identity, "--addv", "a", addresses, table)
        keys = ["ceph-mon", *_conf(), "--id", "a", "--mon-data", place]
        first.call(*keys, "--mkfs", "--monmap", table)
        first.call(*keys)
        wait_until(lambda: self._ceph("mon", "stat"), "the monitor answers")
        first.call("ceph-mgr", *_conf(), "--id", "a")

    def _start_disk(self, number: int) -> None:
        host = self._hosts[number]
        host.call("ceph-osd", *_conf(), "--id", str(number), "--osd-data", host.disk)

    def _ceph(self, *arguments: str) -> str:
        return self._hosts[0].call("ceph", *_conf(), "--connect-timeout", "10", *arguments)

    def mount(self, host: Host, tuned: bool = True) -> None:
        """Mount the file system on a host; `tuned` is as it was built."""
        host.call("ceph-fuse", *_conf(), "--id", "admin", host.mount)
        wait_until(
            lambda: host.call("stat", "--file-system", "--format=%T", host.mount).strip() == "fuseblk", "mounted"
        )

    def unmount(self, host: Host) -> None:
        """As when its mount dies."""
        host.call("umount", "--lazy", host.mount)

    def lose(self, host: Host) -> None:
        """Kill the host's disk."""
        number = self._hosts.index(host)
        os.kill(int((host.folder / f"run/ceph/osd.{number}.pid").read_text()), signal.SIGKILL)
        self._ceph("osd", "down", str(number))  # or it takes 20 s until it is missed

    def restore(self) -> None:
        """Start the disks that were killed, and wait until all have the same."""
        told = self._ceph("osd", "dump")
        for number in range(len(self._hosts)):
            if f"osd.{number} down" in told:
                self._start_disk(number)
        wait_until(lambda: f"{len(self._hosts)} up" in self._ceph("osd", "stat"), "the disks are in use")
        wait_until(self._is_healed, "healed")

    def _is_healed(self) -> bool:
        told = self._ceph("pg", "stat")
        return "active+clean" in told and not any(word in told for word in ("degraded", "peering", "undersized"))

    def copies(self, path: Path) -> Sequence[Path]:
        """None that could be looked at: the copies are objects on the disks."""
        return []

    @staticmethod
    def version() -> str:
        """Its name and version."""
        return " ".join(call("ceph-fuse", "--version").split()[:3])


def _conf() -> list[str]:
    return ["--conf", str(_CONFIGURATION)]
