"""asyncssh and paramiko as senders: what a script that uses one of them would write, to the same sshd as scp's.

    python -m bench.sshlib asyncssh|paramiko SOURCE TARGET HOST PORT KEY HOST_KEY

Rules: the library's own defaults, its SFTP client, one file or (asyncssh) one folder. Nothing is tuned.
"""

import asyncio
import getpass
import sys
from base64 import b64decode
from pathlib import Path


async def _asyncssh(source: Path, target: str, host: str, port: int, key: str, host_key: str) -> None:
    import asyncssh

    known: tuple[list[object], list[object], list[object]] = ([asyncssh.read_public_key(host_key)], [], [])
    async with (
        asyncssh.connect(
            host, port, username=getpass.getuser(), client_keys=[key], known_hosts=known, config=None, agent_path=None
        ) as connection,
        connection.start_sftp_client() as sftp,
    ):
        await sftp.put(str(source), target + "/", recurse=source.is_dir())


def _paramiko(source: Path, target: str, host: str, port: int, key: str, host_key: str) -> None:
    import paramiko

    kind, text = Path(host_key).read_text().split()[:2]
    with paramiko.SSHClient() as client:
        client.get_host_keys().add(f"[{host}]:{port}", kind, paramiko.PKey.from_type_string(kind, b64decode(text)))
        client.connect(host, port, getpass.getuser(), key_filename=key, allow_agent=False, look_for_keys=False)
        with client.open_sftp() as sftp:
            sftp.put(str(source), f"{target}/{source.name}")


def main(words: list[str]) -> None:
    """Send once."""
    library, source, target, host, port, key, host_key = words
    if library == "asyncssh":
        asyncio.run(_asyncssh(Path(source), target, host, int(port), key, host_key))
    else:
        _paramiko(Path(source), target, host, int(port), key, host_key)


if __name__ == "__main__":
    main(sys.argv[1:])
