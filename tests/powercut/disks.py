"""A disk whose state at any moment can be kept: a file system in a loop device, on a backing file that is cloned.

The backing file lies on a btrfs, itself in a loop device, because there `cp --reflink=always` takes the whole file in
one step: btrfs holds the file's lock meanwhile, so the clone is what the disk held at one moment. What the programs
wrote and the inner file system has not passed on is not in it, exactly as after a power cut.

Rules: Linux and root only. All mounts belong to a mount namespace of this process, so that none outlives it; loop
devices are freed with their mounts.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

MIB = 1 << 20
SIZE = 1024 * MIB  # of a disk
GROUND_SIZE = 8 << 30  # of what holds the disk and its clones
_IN_NAMESPACE = "POWERCUT_NAMESPACE"
_MAKERS = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
KINDS = tuple(_MAKERS)


def missing(kinds: list[str]) -> str:
    """Why power can't be cut here; empty when it can."""
    if not sys.platform.startswith("linux"):
        return "it needs Linux's loop devices"
    if os.getuid() != 0:
        return "it needs root, to mount file systems"
    programs = {"unshare", "mount", *(_MAKERS[kind][0] for kind in {*kinds, "btrfs"})}
    if absent := sorted(name for name in programs if shutil.which(name) is None):
        return f"it needs {', '.join(absent)} (packages e2fsprogs, xfsprogs, btrfs-progs)"
    known = Path("/proc/filesystems").read_text().split()
    if absent := sorted({*kinds, "btrfs"} - set(known)):
        return f"this kernel has no {', '.join(absent)} (if they are modules: modprobe {' '.join(absent)})"
    return ""


def enter_namespace() -> None:
    """Start this program anew in a mount namespace of its own, unless it is in one."""
    if os.environ.get(_IN_NAMESPACE) != "1":
        os.environ[_IN_NAMESPACE] = "1"
        again = [sys.executable, "-m", "tests.powercut", *sys.argv[1:]]
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", *again])


def _call(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


class Disk:
    """A file system of one kind, mounted at `place`; kept states of it can be mounted there afterwards."""

    def __init__(self, kind: str, folder: Path) -> None:
        """Makes everything in `folder`, which may not exist yet."""
        self._ground, self.place = folder / "ground", folder / "disk"
        for each in (folder, self._ground, self.place):
            each.mkdir()
        ground = folder / "ground.img"
        _make_file_system("btrfs", ground, GROUND_SIZE)
        _call("mount", "-o", "loop", ground, self._ground)
        self._backing = self._ground / "disk.img"
        _make_file_system(kind, self._backing, SIZE)
        self.mount(self._backing)

    def mount(self, image: Path) -> None:
        """Mount the disk, or a kept state of it. One at a time: clones have the same identity."""
        _call("mount", "-o", "loop", image, self.place)

    def keep_state(self, number: int) -> Path:
        """What the disk holds now, as an image."""
        image = self._ground / f"state-{number}.img"
        _call("cp", "--reflink=always", self._backing, image)
        return image

    def unmount(self) -> None:
        """Nothing may have a file open there."""
        _call("umount", self.place)

    def close(self) -> None:
        """Unmount the ground as well."""
        _call("umount", self._ground)


def _make_file_system(kind: str, image: Path, size: int) -> None:
    with image.open("wb") as file:
        file.truncate(size)
    _call(*_MAKERS[kind], image)
