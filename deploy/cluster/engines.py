"""The distributed file systems that a cluster can be built on."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from deploy.cluster.ceph import CephFuse
from deploy.cluster.gluster import Gluster
from deploy.cluster.hosts import Cluster, Host


class Engine(Protocol):
    """One file system, mounted on all hosts. Methods raise Failed."""

    programs: ClassVar[dict[str, str]]

    def __init__(self, cluster: Cluster) -> None: ...

    def build(self, tuned: bool = True) -> None: ...

    def mount(self, host: Host, tuned: bool = True) -> None: ...

    def unmount(self, host: Host) -> None: ...

    def lose(self, host: Host) -> None: ...

    def restore(self) -> None: ...

    def copies(self, path: Path) -> Sequence[Path]: ...

    @staticmethod
    def version() -> str: ...


ENGINES: dict[str, type[Engine]] = {"ceph-fuse": CephFuse, "gluster": Gluster}
