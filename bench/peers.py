"""Who takes part: for each peer the command that a user would type, and the server that it needs.

Rules: every peer gets the same content, the same kind of folder, a server of its own that has just started, and its
defaults; nothing touches the files, keys or settings of the user. A peer that is missing says so, and where a
peer has no sensible way to do a case, it says why. Refuses to know how anything is measured.
"""

import getpass
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.cases import Case
from bench.jobs import HOME, OURS, Failed, Job, clean_environment, free_port

USER = "bench"
_UPDATES = ("update", "update-10", "update-distant", "grown", "grown-distant")
_GCM = "aes128-gcm@openssh.com"
_SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server")


@dataclass(frozen=True)
class Kit:
    """Keys, accounts and settings of this run, in a temporary folder, made once."""

    folder: Path
    sshd: str  # its path; empty: none that works
    why_no_ssh: str = ""

    @property
    def key(self) -> Path:
        """The client's private key."""
        return self.folder / "user_key"

    @property
    def host_key(self) -> Path:
        """The server's public key."""
        return self.folder / "host_key.pub"

    @property
    def password(self) -> Path:
        """The file with the password of our account."""
        return self.folder / "password"

    @property
    def ssh_config(self) -> Path:
        """Written anew for each transfer, because it holds the port."""
        return self.folder / "ssh_config"


@dataclass(frozen=True)
class Sending:
    """One transfer: what, into which folder at the other end, and where that listens."""

    kit: Kit
    source: Path
    target: Path
    port: int
    work: Path  # a folder for the peer's other files


@dataclass(frozen=True)
class Peer:
    """One row of a case."""

    name: str
    title: str
    serve: Callable[[Kit, Path, Path, Mapping[str, str]], tuple[Job, int]]
    command: Callable[[Sending], list[str]]
    arrived: Callable[[Path, str], Path] = field(default=lambda target, name: target / name)
    trees: bool = True
    files: bool = True
    times_itself: bool = False
    crawls: bool = False  # waits for each file: one round is enough where the line is long
    only: tuple[str, ...] = ()
    missing: Callable[[Kit], str] = field(default=lambda kit: "")

    def is_asked(self, case: Case) -> bool:
        """Whether the case is about it."""
        return case.name in self.only if self.only else not case.peers or self.name in case.peers

    def why_not(self, case: Case, kit: Kit) -> str:
        """Why it is left out of a case; empty when it takes part."""
        if case.tree and not self.trees:
            return "sends single files"
        if not case.tree and not self.files:
            return "a folder's tool; see ssh+cat"
        return self.missing(kit)


# --- ours -------------------------------------------------------------------------------------------------------------


def our_settings(kit: Kit, target: Path, work: Path) -> list[str]:
    """The files of our server."""
    return [f"--accounts={kit.folder / 'accounts.txt'}", f"--storage={target}", f"--server-log={work / 'server.log'}"]


def serve_ours(kit: Kit, target: Path, work: Path, more: Mapping[str, str]) -> tuple[Job, int]:
    """Our server, with its defaults but for `more`."""
    flags = [f"--{name}={value}" for name, value in more.items()]
    command = [
        OURS,
        str(HOME / "server.py"),
        *our_settings(kit, target, work),
        "--port=0",
        "--listen=127.0.0.1",
    ]
    job = Job(work, [*command, *flags])
    return _ready(job, lambda: job.wait_for_port())


def our_command(sending: Sending, name: str = ".", log: str = "client.log", more: Sequence[str] = ()) -> list[str]:
    """Our client, as a user types it; with a log of its own, and `more` flags."""
    login = [f"--port={sending.port}", f"--user={USER}", f"--password-file={sending.kit.password}"]
    login += ["--host=127.0.0.1", f"--client-log={sending.work / log}"]
    return [OURS, str(HOME / "client.py"), *login, *more, str(sending.source), name]


def _make_account(kit: Kit) -> None:
    kit.password.write_text("correct horse battery staple\n")
    kit.password.chmod(0o600)
    command = [OURS, str(HOME / "server.py"), *our_settings(kit, kit.folder / "none", kit.folder)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SFT_")}
    done = subprocess.run(
        [*command, "adduser", USER, "--password-file", kit.password],
        env={**environment, **clean_environment()},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Failed(f"no account could be made ({done.stderr.strip()})")


def _ready(job: Job, port: Callable[[], int]) -> tuple[Job, int]:
    try:
        found = port()
    except BaseException:
        job.close()
        raise
    job.mark()
    return job, found


# --- OpenSSH and what uses it -----------------------------------------------------------------------------------------


def serve_ssh(kit: Kit, target: Path, work: Path, more: Mapping[str, str]) -> tuple[Job, int]:
    """A private sshd with its own keys and settings."""
    port = free_port()
    sftp = next((path for path in _SFTP_SERVERS if os.access(path, os.X_OK)), "internal-sftp")
    (work / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {kit.host_key.with_suffix('')}\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {kit.key}.pub\nStrictModes no\nPasswordAuthentication no\nUseDNS no\n"
        f"KbdInteractiveAuthentication no\nSubsystem sftp {sftp}\n"
    )
    job = Job(work, [kit.sshd, "-D", "-e", "-f", work / "sshd_config"])

    def open() -> int:
        job.wait_until_open(port)
        return port

    return _ready(job, open)


def _write_ssh_config(kit: Kit, port: int) -> Path:
    kit.ssh_config.write_text(
        f"Host bench\nHostName 127.0.0.1\nPort {port}\nUser {getpass.getuser()}\nIdentityFile {kit.key}\n"
        f"IdentitiesOnly yes\nIdentityAgent none\nHostKeyAlias bench\nUserKnownHostsFile {kit.folder / 'known_hosts'}\n"
        "GlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\nBatchMode yes\nLogLevel ERROR\n"
    )
    return kit.ssh_config


def _scp(*more: str) -> Callable[[Sending], list[str]]:
    def command(sending: Sending) -> list[str]:
        config = _write_ssh_config(sending.kit, sending.port)
        recurse = ["-r"] if sending.source.is_dir() else []
        return ["scp", "-F", str(config), *more, *recurse, str(sending.source), f"bench:{sending.target}/"]

    return command


def _sftp(sending: Sending) -> list[str]:
    config = _write_ssh_config(sending.kit, sending.port)
    recurse = "-r " if sending.source.is_dir() else ""
    batch = sending.work / "batch"
    batch.write_text(f'put {recurse}"{sending.source}" "{sending.target}/"\n')
    return ["sftp", "-F", str(config), "-b", str(batch), "bench"]


def _rsync(*more: str) -> Callable[[Sending], list[str]]:
    def command(sending: Sending) -> list[str]:
        ssh = f"ssh -F {shlex.quote(str(_write_ssh_config(sending.kit, sending.port)))}"
        return ["rsync", "-a", *more, "-e", ssh, str(sending.source), f"bench:{sending.target}/"]

    return command


def _through_ssh(local: str, far: str) -> Callable[[Sending], list[str]]:
    """A shell line: `local` says what goes into ssh, `far` what runs there."""

    def command(sending: Sending) -> list[str]:
        words = {
            "source": shlex.quote(str(sending.source)),
            "name": shlex.quote(sending.source.name),
            "parent": shlex.quote(str(sending.source.parent)),
            "target": shlex.quote(str(sending.target)),
        }
        config = shlex.quote(str(_write_ssh_config(sending.kit, sending.port)))
        remote = shlex.quote(far.format(**words))
        return ["sh", "-c", local.format(ssh=f"ssh -F {config} bench {remote}", **words)]

    return command


def _rclone(sending: Sending) -> list[str]:
    """A mirror over sftp, with the place and the key in its arguments.

    Without its check by md5sum, of which it would start one at the receiver for each file, four at a time: hours.
    """
    kit, target = sending.kit, sending.target / sending.source.name
    how = ["--config", os.devnull, "--sftp-disable-hashcheck", "--sftp-host=127.0.0.1", f"--sftp-port={sending.port}"]
    job = "sync" if sending.source.is_dir() else "copyto"
    how += [f"--sftp-key-file={kit.key}", f"--sftp-user={getpass.getuser()}"]
    return ["rclone", job, *how, str(sending.source), f":sftp:{target}"]


def _library(name: str) -> Callable[[Sending], list[str]]:
    def command(sending: Sending) -> list[str]:
        kit = sending.kit
        where = [str(sending.source), str(sending.target), "127.0.0.1", str(sending.port)]
        return [sys.executable, "-m", "bench.sshlib", name, *where, str(kit.key), str(kit.host_key)]

    return command


def _needs(*programs: str) -> Callable[[Kit], str]:
    def missing(kit: Kit) -> str:
        lacking = [program for program in programs if shutil.which(program) is None]
        return f"{', '.join(lacking)} is not installed" if lacking else kit.why_no_ssh

    return missing


def _needs_library(name: str) -> Callable[[Kit], str]:
    def missing(kit: Kit) -> str:
        return f"{name} is not installed" if importlib.util.find_spec(name) is None else kit.why_no_ssh

    return missing


def make_kit(folder: Path) -> Kit:
    """Keys and an account for this run; tries one login over ssh, so that a host where that can't work says why."""
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") or ""
    kit = Kit(folder, sshd)
    _make_account(kit)
    if not sshd or shutil.which("ssh") is None:
        return Kit(folder, "", "OpenSSH's client or server is not installed")
    for path in (kit.key, kit.host_key.with_suffix("")):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", path], check=True)
    (folder / "known_hosts").write_text("bench " + kit.host_key.read_text())
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it is missing, an sshd of root does not start
    work = folder / "probe"
    work.mkdir()
    try:
        job, port = serve_ssh(kit, folder, work, {})
    except Failed as problem:
        return Kit(folder, "", f"sshd {problem}")
    try:
        config = _write_ssh_config(kit, port)
        tried = subprocess.run(
            ["ssh", "-F", config, "bench", "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
    finally:
        job.close()
    if tried.returncode:
        return Kit(folder, "", f"a login over ssh fails here ({tried.stderr.strip() or tried.returncode})")
    return kit


# --- plain TCP --------------------------------------------------------------------------------------------------------


def serve_plain(kit: Kit, target: Path, work: Path, more: Mapping[str, str]) -> tuple[Job, int]:
    """The receiver of plain TCP."""
    job = Job(work, [sys.executable, "-m", "bench.plain", "serve", target])
    return _ready(job, lambda: job.wait_for_port())


def _plain(sending: Sending) -> list[str]:
    where = ["127.0.0.1", str(sending.port)]
    return [sys.executable, "-m", "bench.plain", "send", str(sending.source), *where]


def _arrived_ours(target: Path, name: str) -> Path:
    return target / USER / name


PEERS = (
    Peer("ours", "this program", serve_ours, our_command, arrived=_arrived_ours),
    Peer(
        "ours-plain",
        "--compress off",
        serve_ours,
        lambda sending: our_command(sending, more=["--compress=off"]),
        arrived=_arrived_ours,
        only=("logs", "text", "noise"),
    ),
    Peer(
        "ours-u",
        "this program, -u",
        serve_ours,
        lambda sending: our_command(sending, more=["-u"]),
        arrived=_arrived_ours,
        only=_UPDATES,
    ),
    Peer("rclone", "rclone sync", serve_ssh, _rclone, crawls=True, only=_UPDATES, missing=_needs("rclone")),
    Peer("scp", "scp", serve_ssh, _scp(), crawls=True, missing=_needs("scp")),
    Peer("scp-z", "scp -C", serve_ssh, _scp("-C"), only=("logs",), missing=_needs("scp")),
    Peer("scp-gcm", "scp, aes128-gcm", serve_ssh, _scp("-c", _GCM), crawls=True, missing=_needs("scp")),
    Peer("sftp", "sftp", serve_ssh, _sftp, crawls=True, missing=_needs("sftp")),
    Peer("rsync", "rsync over ssh", serve_ssh, _rsync(), missing=_needs("rsync")),
    Peer("rsync-fsync", "rsync --fsync", serve_ssh, _rsync("--fsync"), only=("many-disk",), missing=_needs("rsync")),
    Peer("rsync-c", "rsync -ac", serve_ssh, _rsync("-c"), only=("again",), missing=_needs("rsync")),
    Peer("rsync-z", "rsync -az", serve_ssh, _rsync("-z"), only=("logs",), missing=_needs("rsync")),
    Peer("rsync-S", "rsync -aSz", serve_ssh, _rsync("-S", "-z"), only=("sparse",), missing=_needs("rsync")),
    Peer(
        "tar",
        "tar over ssh",
        serve_ssh,
        _through_ssh("tar -C {parent} -cf - {name} | {ssh}", "tar -C {target} -xf -"),
        files=False,
        missing=_needs("tar"),
    ),
    Peer(
        "cat",
        "ssh + cat",
        serve_ssh,
        _through_ssh("{ssh} < {source}", "cat > {target}/{name}"),
        trees=False,
        missing=_needs("cat"),
    ),
    Peer("asyncssh", "asyncssh", serve_ssh, _library("asyncssh"), crawls=True, missing=_needs_library("asyncssh")),
    Peer("paramiko", "paramiko", serve_ssh, _library("paramiko"), trees=False, missing=_needs_library("paramiko")),
    Peer("plain", "plain TCP", serve_plain, _plain, times_itself=True),
)
