"""GlusterFS: a volume of three bricks, one on each host, with three copies of every file."""

import os
import signal
from pathlib import Path
from typing import ClassVar

from deploy.cluster.hosts import Cluster, Host, call, wait_until

_PROGRAMS = {"glusterd": "glusterfs-server", "gluster": "glusterfs-cli", "glusterfs": "glusterfs-client"}
# What each is for, and what happens without it, is in docs/OPERATIONS.md.
VOLUME_OPTIONS = {
    "performance.write-behind": "off",
    "performance.quick-read": "off",
    "performance.stat-prefetch": "off",
    "performance.open-behind": "off",
    "cluster.eager-lock": "off",
}
MOUNT_OPTIONS = ["entry-timeout=0", "attribute-timeout=0", "negative-timeout=0"]
_VOLUME = "files"


class Gluster:
    """The engine, as `deploy/cluster/engines.py` has it; every method raises Failed."""

    programs: ClassVar[dict[str, str]] = _PROGRAMS

    def __init__(self, cluster: Cluster) -> None:
        self._hosts = cluster.hosts

    def build(self, tuned: bool = True) -> None:
        """Start it, and mount the volume on each host. `tuned`: with the options that are needed."""
        for host in self._hosts:
            for place in ("/var/lib/glusterd", "/var/log/glusterfs"):
                host.covers(place)
            (host.folder / "run/gluster").mkdir()
            host.call("glusterd")
        first, *others = self._hosts
        for host in others:
            wait_until(lambda: first.call("gluster", "peer", "probe", host.address), "the hosts meet")  # noqa: B023
        wait_until(lambda: first.call("gluster", "peer", "status").count("Peer in Cluster") == len(others), "they meet")
        bricks = [f"{host.address}:{host.disk}" for host in self._hosts]
        create = ["create", _VOLUME, "replica", str(len(bricks)), *bricks, "force"]
        wait_until(lambda: self._volume(*create), "the volume is made")  # not all of them know each other at once
        for name, value in VOLUME_OPTIONS.items() if tuned else ():
            self._volume("set", _VOLUME, name, value)
        self._volume("start", _VOLUME)
        for host in self._hosts:
            self.mount(host, tuned)

    def _volume(self, *arguments: str) -> str:
        return self._hosts[0].call("gluster", "--mode=script", "volume", *arguments)

    def mount(self, host: Host, tuned: bool = True) -> None:
        """Mount the volume on a host."""
        options = [f"--{option}" for option in MOUNT_OPTIONS] if tuned else []
        host.call("glusterfs", f"--volfile-server={host.address}", f"--volfile-id={_VOLUME}", *options, host.mount)
        wait_until(
            lambda: host.call("stat", "--file-system", "--format=%T", host.mount).strip() == "fuseblk", "mounted"
        )

    def unmount(self, host: Host) -> None:
        """As when its mount dies."""
        host.call("umount", "--lazy", host.mount)

    def lose(self, host: Host) -> None:
        """Kill the host's brick."""
        (name,) = (host.folder / "run/gluster/vols" / _VOLUME).glob("*.pid")
        os.kill(int(name.read_text()), signal.SIGKILL)

    def restore(self) -> None:
        """Start the bricks that were killed, and wait until all have the same."""
        self._volume("start", _VOLUME, "force")
        wait_until(self._is_healed, "healed")

    def _is_healed(self) -> bool:
        told = self._volume("heal", _VOLUME, "info")
        counts = [line.rpartition(":")[2].strip() for line in told.splitlines() if line.startswith("Number of entries")]
        return counts == ["0"] * len(self._hosts)

    def copies(self, path: Path) -> list[Path]:
        """Where the copies of a file lie; `path` is below the mount."""
        return [host.disk / path for host in self._hosts]

    @staticmethod
    def version() -> str:
        """Its name and version."""
        return call("glusterfs", "--version").splitlines()[0]
