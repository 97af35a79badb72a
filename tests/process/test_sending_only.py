"""Where a system lacks what receiving needs, as Windows does, the client still sends."""

import subprocess
import sys
from pathlib import Path

from test_architecture import TOP

WINDOWS = """
import os, sys
for missing in ("fcntl", "termios", "pwd", "grp", "resource"):
    sys.modules[missing] = None
for name in ("O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "fchmod", "fstatvfs", "statvfs"):
    if hasattr(os, name):
        delattr(os, name)
os.supports_dir_fd.clear()
os.supports_follow_symlinks.clear()
import client
import sft.wire.channel, sft.wire.handshake, sft.disk.sources, sft.disk.tree
import sft.disk.local, sft.disk.storage, sft.transfer.sender, sft.client.upload
from pathlib import Path
from sft.common.errors import UsageError
for refused in (sft.disk.storage.Storage, sft.disk.local.open_local):
    try:
        refused(Path(sys.argv[1]), sft.disk.storage.Rules())
    except UsageError as problem:
        print(problem)
tree = sft.disk.tree.Tree(os.path.dirname(client.__file__), False, sft.disk.source_folders.Folders())
found = next(each for each in tree.walk() if each.path.endswith("client.py"))
tree.open(found.path, found.parts).close()
from sft.console import log as logs
logs.open_log("x", Path(sys.argv[1]) / "log", "info").info("hello")
print(sorted(os.listdir(sys.argv[1])))
"""


def test_client_runs_where_only_sending_works(tmp_path: Path) -> None:
    """As on Windows: no fcntl, no folder descriptors, no O_NOFOLLOW; receiving is refused with the reason."""
    done = subprocess.run(
        [sys.executable, "-c", WINDOWS, str(tmp_path)], cwd=TOP, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    *said, listing = done.stdout.splitlines()
    assert len(said) == 2
    assert all("can't receive" in each for each in said)
    assert listing == "['log']"
