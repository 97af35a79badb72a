"""A home folder with all that such folders have: sent, changed, sent again as a mirror, and fetched back.

What rsync finds different between source and copy is the measure, where it is installed: nothing.
"""

import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from processes import USER, Client, Server, make

ODD_NAMES = (
    *(" leading", "trailing.", "quo'te", 'dou"ble', "-dash", "a:b", "*star[x]?", "back\\slash", "%41", "~tilde"),
    *("#hash", "CON", "ümläut", "日本語.txt", "\U0001f600", "e\u0301"),
)
NANOSECOND = 1_700_000_000_123_456_789


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "home"
    for number, name in enumerate(ODD_NAMES):
        make(place / "odd" / name, number * 1_000)
    for mode in (0o400, 0o444, 0o600, 0o640, 0o664, 0o700, 0o755, 0o777):
        make(place / "modes" / f"{mode:o}").chmod(mode)
    make(place / ".ssh/id").chmod(0o600)
    (place / ".ssh").chmod(0o700)
    make(place / "deep/a/b/c/d/e/f", 5)
    (place / "empty").mkdir(mode=0o711)
    (place / "shared").mkdir()
    (place / "shared").chmod(0o775)
    make(place / "large", 3_000_000)
    with open(place / "sparse", "wb") as sparse:
        sparse.truncate(20_000_000)
        sparse.seek(7_000_000)
        sparse.write(os.urandom(5_000))
    for name, target in (("to file", "large"), ("to folder", "deep"), ("self", "."), ("up", "../odd"), ("abs", "/etc")):
        (place / name).symlink_to(target)
    (place / "deep/dangling").symlink_to("nowhere")
    make(place / "sealed/inside", 9)
    (place / "sealed").chmod(0o555)
    for number, path in enumerate(sorted(place.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, NANOSECOND + number), follow_symlinks=False)
    os.utime(place / "odd/CON", ns=(0, -1_500_000_000))
    os.utime(place / "odd/a:b", ns=(0, 4_000_000_000_000_000_001))
    return place


def change(home: Path) -> None:
    """A day's work in it: new, grown, other, gone, renamed; files, folders and links in each other's place."""
    with (home / "large").open("ab") as grown:
        grown.write(os.urandom(10_000))
    with (home / "sparse").open("r+b") as written:
        written.seek(12_000_000)
        written.write(b"new")
    make(home / "odd/CON", 77)
    os.rename(home / "odd/ümläut", home / "deep/ümläut")
    shutil.rmtree(home / "deep/a/b/c")
    make(home / "deep/a/b/c", 12)
    (home / "odd/a:b").unlink()
    make(home / "odd/a:b/now a folder", 3)
    (home / "to file").unlink()
    make(home / "to file", 4)
    (home / "odd/#hash").unlink()
    (home / "odd/#hash").symlink_to("../large")
    (home / "deep/dangling").unlink()
    (home / "deep/dangling").symlink_to("elsewhere")
    (home / "to folder").unlink()
    make(home / "to folder/inside", 6)
    (home / "modes/600").chmod(0o750)
    (home / "empty").chmod(0o770)
    os.utime(home / "modes/755", ns=(0, NANOSECOND // 2))
    (home / "sealed").chmod(0o755)
    make(home / "sealed/more", 8)
    (home / "sealed/inside").unlink()
    (home / "sealed").chmod(0o555)


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that a copy must have: kind, permission bits, time, and content or target."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        name, bits = str(path.relative_to(folder)), stat.S_IMODE(status.st_mode)
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("folder", bits, status.st_mtime_ns)
        else:
            found[name] = ("file", bits, status.st_mtime_ns, hashlib.sha256(path.read_bytes()).digest())
    return found


def differences(source: Path, copy: Path) -> list[str]:
    """What differs, by our own comparison and by rsync's, links' own times aside."""
    ours, theirs = snapshot(source), snapshot(copy)
    found = [name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]
    if shutil.which("rsync"):
        command = ["rsync", "-aniH", "--no-owner", "--no-group", "--omit-link-times", "--checksum", "--delete"]
        told = subprocess.run([*command, f"{source}/", f"{copy}/"], capture_output=True, text=True, check=True)
        found += told.stdout.splitlines()
    return found


def used(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_rsync_finds_no_difference_after_sending_changing_mirroring_and_fetching_back(
    tmp_path: Path, home: Path
) -> None:
    box = Server(tmp_path / "server")
    box.umask = 0  # takes no bit away, as `rsync -a` behaves
    box.add(USER, "--rights=put,get,list,replace,remove,links")
    client = Client(box.start().port, tmp_path / "client")
    client.umask = 0
    copy, back = box.path("home"), tmp_path / "back"
    mirror = ("-u", "--delete", "--links", home, "home")
    restore = ("--get", "-u", "--delete", "--links", "home", back)
    try:
        for command, there in ((mirror, copy), (restore, back)):
            first = client(*command)
            assert (first.status, first.err, differences(home, there)) == (0, "", [])
            assert used(there / "sparse") < 1_000_000
        change(home)
        for command, there in ((mirror, copy), (restore, back)):
            again = client(*command)
            assert (again.status, again.err, differences(home, there)) == (0, "", [])
            assert used(there / "sparse") < 1_000_000
            last = client(*command, "--json")
            assert (last.status, last.err, differences(home, there)) == (0, "", [])
            assert '"delivered": 0' in last.out
        assert client("--check", "--links", home, "home").status == 0
    finally:
        box.close()
