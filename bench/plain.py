"""Plain TCP, the least that a transfer can be: no login, no cipher, no digest, no flush, no checks of names.

    python -m bench.plain serve FOLDER
    python -m bench.plain send SOURCE HOST PORT

The stream is, for each file, its path's length, its size, its path, its content; the end is a path of length zero,
which the receiver answers with one byte. Large files go by sendfile() and come by recv_into(); small ones share
buffers.

Rules: the sender measures itself from before connect() until that byte is there, and prints the seconds: Python's own
start is not in this figure, because it is a bound for the line and the disk and not a program to choose. Refuses
nobody who connects, so it listens on this host only.
"""

import argparse
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

_HEAD = struct.Struct("!IQ")
_BUFFER = 1 << 20
_SMALL = 64 << 10


def files_of(source: Path) -> Iterator[tuple[str, Path]]:
    """Each file below `source` with its name at the other end."""
    if source.is_file():
        yield source.name, source
        return
    for folder, _, names in os.walk(source):
        for name in names:
            path = Path(folder, name)
            yield str(path.relative_to(source.parent)), path


def send(source: Path, host: str, port: int) -> float:
    """Send a file or a folder; the seconds that it took."""
    files = list(files_of(source))
    begun = time.perf_counter()
    with socket.create_connection((host, port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        waiting = bytearray()
        for name, path in files:
            with path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                raw = name.encode()
                waiting += _HEAD.pack(len(raw), size) + raw
                if size <= _SMALL:
                    waiting += file.read(size)
                else:
                    sock.sendall(waiting)
                    waiting.clear()
                    sock.sendfile(file)
            if len(waiting) >= _BUFFER:
                sock.sendall(waiting)
                waiting.clear()
        sock.sendall(waiting + _HEAD.pack(0, 0))
        if sock.recv(1) != b"k":
            raise SystemExit("error: the receiver did not answer")
    return time.perf_counter() - begun


class _Receiver:
    def __init__(self, sock: socket.socket, folder: Path) -> None:
        self._sock, self._folder = sock, folder
        self._buffer = memoryview(bytearray(_BUFFER))
        self._from = self._to = 0
        self._made: set[Path] = set()

    def _fill(self) -> None:
        """At least one more byte in the buffer; what is unread moves to its start when it is full."""
        if self._from == self._to:
            self._from = self._to = 0
        elif self._to == _BUFFER:
            left = bytes(self._buffer[self._from : self._to])
            self._buffer[: len(left)] = left
            self._from, self._to = 0, len(left)
        got = self._sock.recv_into(self._buffer[self._to :])
        if not got:
            raise EOFError
        self._to += got

    def _take(self, size: int) -> memoryview:
        while self._to - self._from < size:
            self._fill()
        self._from += size
        return self._buffer[self._from - size : self._from]

    def run(self) -> None:
        while True:
            length, size = _HEAD.unpack(self._take(_HEAD.size))
            if not length:
                self._sock.sendall(b"k")
                return
            path = self._folder / bytes(self._take(length)).decode()
            if path.parent not in self._made:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(path.parent)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                while size:
                    if self._from == self._to:
                        self._fill()
                    some = min(size, self._to - self._from)
                    os.write(file, self._take(some))
                    size -= some
            finally:
                os.close(file)


def serve(folder: Path) -> None:
    """Receive into `folder`, one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
        while True:
            sock, _ = listener.accept()
            with sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    _Receiver(sock, folder).run()
                except (EOFError, OSError):
                    pass


def main() -> None:
    """One end of plain TCP."""
    parser = argparse.ArgumentParser(prog="python -m bench.plain")
    ends = parser.add_subparsers(dest="end", required=True)
    serving = ends.add_parser("serve")
    serving.add_argument("folder", type=Path)
    sending = ends.add_parser("send")
    sending.add_argument("source", type=Path)
    sending.add_argument("host")
    sending.add_argument("port", type=int)
    options = parser.parse_args()
    if options.end == "serve":
        serve(options.folder)
    else:
        print(json.dumps({"seconds": send(options.source, options.host, options.port)}))


if __name__ == "__main__":
    main()
