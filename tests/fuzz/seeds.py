"""Makes the corpus anew, from connections between the project's own two ends: `PYTHONPATH=tests python -m fuzz.seeds`.

The logins are those of `fuzz/login.py`. The records are taken from between a real sender and a real server, which send,
compare, list and fetch; long content is left out. Names are those that went over that wire, and some that never may.
"""

import shutil
import socket
import sys
import tempfile
import threading
from pathlib import Path

from frames import zstd
from msgspec.structs import replace
from peers import C2S, FILE_SECRET, MEMORY, S2C, Raw, close_all, piece, tcp_pair
from transfers import Receiving, Told, folder_item, item, written

from crypto_utils import TAG_SIZE, RecordCipher, digest, mac
from fuzz import CORPUS, HARNESSES, login
from fuzz.requests import PATHS, Step
from sft.common.errors import Code
from sft.common.rate_limit import RateLimiter
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from sft.transfer.items import Item
from sft.transfer.sender import Sender
from sft.wire.batch import BATCH_OVERHEAD, BatchFile, BatchHeader, batch_mac_input, write_batch
from sft.wire.change_messages import Move, Remove, SetAttributes, Usage
from sft.wire.channel import Channel
from sft.wire.handshake import busy_frame
from sft.wire.messages import BYE_MESSAGE, FILE, Cancel, Get, ListFolder, Put, Rate, Receipt, split_record
from sft.wire.protocol import HEADER_SIZE, UNASKED_LIMIT, ClientHello, ServerHello, Status, frame, unframe
from sft.wire.tree_messages import Tree
from sft.wire.workers import Engine

_LONGEST = 4096
_NAMES = ("notes.txt", "café.txt", "photos/2026/sea.jpg", " two words", "📦", "a" * 255, "back\\slash")
_EVIL = (
    b"..",
    b"\xff..\xffetc",
    b"a/b",
    b"",
    b"a\xff",
    b"CON.txt",
    b"end.",
    b"\xed\xa0\x80",
    b"\x1b[2J",
    b"\xe2\x80\xaea",
    b"a" * 256,
)


def main() -> int:
    """Write the corpus in the place of the old one."""
    records, names = real_records()
    seeds: dict[str, dict[str, bytes]] = {name: {} for name in HARNESSES}
    seeds["frames"], seeds["server_login"], seeds["client_login"] = logins()
    seeds["messages"] = {f"record-{number:02}": text for number, text in enumerate(records)}
    text = b"All work and no play makes Jack a dull boy. " * 30
    forms = piece(2, 0, UNASKED_LIMIT) + piece(2, UNASKED_LIMIT, len(text), zstd.compress(text))
    forms += _batch(text)
    seeds["messages"] |= {"forms": forms, "frame-cut": piece(2, 0, len(text), zstd.compress(text)[:-1])}
    seeds["messages"] |= {"cut": records[0][:-1], "more": records[0] + b"\0", "bye": BYE_MESSAGE}
    seeds["names"] = {f"name-{number:02}": name for number, name in enumerate([*names, *_EVIL])}
    seeds["requests"] = {name: bytes(sum(steps, ())) for name, steps in REQUESTS.items()}
    seeds["replies"] = {name: bytes(sum(steps, ())) for name, steps in REPLIES.items()}
    for harness, files in seeds.items():
        shutil.rmtree(CORPUS / harness, ignore_errors=True)
        (CORPUS / harness).mkdir(parents=True)
        for name, content in files.items():
            (CORPUS / harness / name).write_bytes(content)
        print(f"{harness}: {len(files)} seeds, {sum(map(len, files.values())):,} bytes")
    return 0


def _batch(content: bytes) -> bytes:
    """A BATCH of two files with that content, compressed."""
    file = BatchFile(("a",), len(content), None, None, digest(content), True)
    header = BatchHeader(3, bytes(16), "fail", (file, replace(file, path=("b",)))).body()
    contents = zstd.compress(content * 2)
    whole = memoryview(bytearray(BATCH_OVERHEAD + len(header) + len(contents)))
    write_batch(whole, mac(FILE_SECRET, *batch_mac_input(header)), header, [contents])
    return bytes(whole)


# --- logins -----------------------------------------------------------------------------------------------------------


def logins() -> tuple[dict[str, bytes], dict[str, bytes], dict[str, bytes]]:
    """For the frames, for the server's end, for the client's: what honest and dishonest peers have said."""
    first, second, third, fourth, fifth = login.honest().frames
    hello = ClientHello.decode(unframe(first))
    newer = frame(ClientHello(b"\2\3", hello.username, hello.kem_public).encode())
    stranger = frame(ClientHello(hello.versions, login.STRANGER.encode(), hello.kem_public).encode())
    guesser = login.client(w0=7)
    guesser.hello()
    guess = guesser.share(second)
    other = frame(ServerHello(Status.NO_COMMON_VERSION, spoken=b"\2\3").encode())
    weak = frame(unframe(second)[:2] + b"\0" + unframe(second)[3:])
    frames = {f"frame-{number}": whole for number, whole in enumerate((first, second, third, fourth, fifth), 1)}
    frames |= {"busy": busy_frame(), "no-common-version": other, "client-hello": unframe(first)}
    frames |= {"server-hello": unframe(second), "client": first + third + fifth, "server": second + fourth}
    to_server = {"honest": first + third + fifth, "guess": first + guess + fifth, "newer": newer}
    to_server |= {"stranger": stranger + third + fifth, "cut": first + third[:-1], "reflected": second + fourth}
    to_client = {"honest": second + fourth, "busy": busy_frame(), "no-common-version": other, "weak": weak + fourth}
    to_client |= {"cut": second + fourth[:-1], "reflected": first + third, "wrong-proof": second + fourth[:-1] + b"\0"}
    return frames, to_server, to_client


# --- records ----------------------------------------------------------------------------------------------------------


class _Between:
    """Stands between two ends, passes everything on, and keeps what the records hold."""

    def __init__(self, far: socket.socket, kept: list[bytes]) -> None:
        self.near, middle = tcp_pair()
        self._kept = kept
        self._threads = [
            threading.Thread(target=self._pass_on, args=(middle, far, C2S), daemon=True),
            threading.Thread(target=self._pass_on, args=(far, middle, S2C), daemon=True),
        ]
        self._sockets = (middle, far)
        for thread in self._threads:
            thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket, secret: bytes) -> None:
        opener, number = RecordCipher(secret), 0
        with source.makefile("rb") as stream:
            while header := stream.read(HEADER_SIZE):
                record = stream.read(int.from_bytes(header, "big"))
                target.sendall(header + record)
                text = bytearray(record[:-TAG_SIZE])
                opener.open(number, header, memoryview(text), record[-TAG_SIZE:])
                number += 1
                if len(text) <= _LONGEST:
                    self._kept.append(bytes(text))
        target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for thread in self._threads:
            thread.join()
        for sock in self._sockets:
            sock.close()


def real_records() -> tuple[list[bytes], list[bytes]]:
    """The plaintext of records that went over the wire, and the names in them, as `fuzz/names.py` reads them."""
    kept: list[bytes] = []
    engine = Engine(MEMORY)
    with tempfile.TemporaryDirectory() as place:
        here, storage = Path(place) / "here", Storage(Path(place) / "received", Rules())
        small = [item(written(here / name, name.encode() * 3), *name.split("/")) for name in _NAMES]
        large = written(here / "large", bytes(UNASKED_LIMIT + 1))
        for items in (
            [*small, folder_item("empty", mtime=1_700_000_000_000_000_000, mode=0o755), item(large, "large")],
            [*small, item(large, "large"), item(large, "large.2", policy="rename")],  # it is there already
            [
                item(written(here / "other", bytes(UNASKED_LIMIT) + b"x"), "large", policy="rename"),
                item(large, "..", "x"),
            ],
        ):
            _send(storage, engine, items, kept)
        _ask(storage, engine, kept)
        storage.close()
    engine.close()
    unlike = {tuple(kind for kind, _ in split_record(memoryview(text))): text for text in kept}  # one of each shape
    return list(unlike.values()), [b"\xff".join(part.encode() for part in name.split("/")) for name in _NAMES]


def _send(storage: Storage, engine: Engine, items: list[Item], kept: list[bytes]) -> None:
    receiving = Receiving(storage, engine)
    between = _Between(receiving.near, kept)
    channel = Channel(between.near, C2S, S2C, engine)
    try:
        Sender(channel, channel.messages(), FILE_SECRET, Told(), RateLimiter(None)).run(items)
    finally:
        close_all(channel)
        receiving.finish()
        between.close()


def _ask(storage: Storage, engine: Engine, kept: list[bytes]) -> None:
    """What a client says that lists or asks for a tree, and one that fetches one file and refuses another."""
    for ask in (_list, _fetch, _withdraw, _tree, _change):
        receiving = Receiving(storage, engine)
        between = _Between(receiving.near, kept)
        raw = Raw(between.near, C2S, S2C)
        ask(raw)
        raw.say(BYE_MESSAGE)
        raw.stop()
        raw.hear_all()
        raw.close()
        receiving.finish()
        between.close()


def _tree(raw: Raw) -> None:
    for path, after in (((), None), ((), ("photos", "2026")), (("nothing",), None)):
        raw.say(Tree(1, path, after).encode())
        raw.hear()


def _change(raw: Raw) -> None:
    asked = (
        *(Usage(1), SetAttributes(2, ("notes.txt",), 1_700_000_000_000_000_000, 0o640)),
        *(Move(3, ("notes.txt",), ("old", "notes.txt")), Remove(4, ("old",), True), Remove(5, ("old",), False)),
    )
    for message in asked:
        raw.say(message.encode())
        raw.hear()


def _list(raw: Raw) -> None:
    for path, after in (((), None), (("photos",), "2025"), (("nothing",), None)):
        raw.say(ListFolder(1, path, after).encode())
        raw.hear()


def _fetch(raw: Raw) -> None:
    raw.say(Rate(1 << 40).encode(), Tree(1, ("photos",), None).encode())
    raw.hear()
    raw.say(Get(1, ("notes.txt",), True, True).encode(), Get(2, ("photos",), False, True).encode())
    while isinstance(put := raw.hear(), Put):
        if put.kind == FILE:
            while not hasattr(end := raw.hear(), "mac"):
                pass
            answer = Receipt(put.id, put.path, put.size or 0, end.sha256, 1_700_000_000_000_000_000, "stored")  # type: ignore[union-attr]
        else:
            answer = Receipt(put.id, put.path, 0, None, 1_700_000_000_000_000_000, "folder")
        raw.say(answer.encode())


def _withdraw(raw: Raw) -> None:
    put = Put(1, bytes(16), ("late",), FILE, UNASKED_LIMIT + 1, None, None, "fail")
    raw.say(put.encode())
    raw.hear()
    raw.say(Cancel(1, Code.UNAVAILABLE).encode())


# --- requests ---------------------------------------------------------------------------------------------------------

_A, _B, _INSIDE, _DEEP, _FOLDER, _BELOW, _LINKED = (PATHS.index(path) for path in PATHS[:7])
_RENAME, _REPLACE, _SKIP = (len(PATHS) * number for number in (1, 2, 3))
_SMALL, _LARGE, _TWO_PIECES = 2, 4, 7
_PIPE, _IS_FOLDER, _MORE_THAN_LARGE = 16, 8, 5

REQUESTS: dict[str, list[tuple[int, int, int, int]]] = {
    "one-file": [(Step.WHOLE, 0, _A, _SMALL)],
    "many-in-one-record": [
        *((Step.WHOLE, number, path, _SMALL) for number, path in enumerate((_A, _B, _INSIDE, _DEEP))),
        *((Step.BATCH, 0, _A, 128), (Step.BATCH, 1, _B + _RENAME, 128), (Step.BATCH, 2, _INSIDE, 8)),
        *((Step.BATCH, 3, _A, 16), (Step.BATCH, 3, _A, 32 + _SMALL)),
    ],
    "one-record-each": [
        step for path in (_A, _B, _INSIDE) for step in ((Step.WHOLE, 0, path, _SMALL), (Step.SEND, 0, 0, 0))
    ],
    "large": [(Step.PUT, 0, _A, _LARGE), (Step.DATA, 0, 0, 0), (Step.END, 0, 0, 0)],
    "two-pieces": [(Step.PUT, 0, _A, _TWO_PIECES), (Step.DATA, 0, 0, 0), (Step.END, 0, 0, 0)],
    "compressed": [(Step.PUT, 0, _A, _TWO_PIECES), (Step.DATA, 0, 0, 8), (Step.END, 0, 0, 0)],
    "zeros": [(Step.PUT, 0, _A, _TWO_PIECES), (Step.DATA, 0, 0, 12), (Step.END, 0, 2, 0)],
    "no-frame": [(Step.PUT, 0, _A, _LARGE), (Step.DATA, 0, 0, 16 + 32), (Step.END, 0, 0, 0)],
    "pipe": [(Step.PUT, 0, _A, _LARGE | _PIPE), (Step.DATA, 0, 0, 0), (Step.END, 0, 0, 0)],
    "folder-and-file": [(Step.PUT, 0, _FOLDER, _IS_FOLDER), (Step.WHOLE, 0, _INSIDE, _SMALL)],
    "wrong-hmac": [(Step.PUT, 0, _A, _SMALL), (Step.DATA, 0, 0, 0), (Step.END, 0, 1, 0)],
    "wrong-digest": [(Step.PUT, 0, _A, _SMALL), (Step.DATA, 0, 0, 4), (Step.END, 0, 0, 0)],
    "withdrawn": [(Step.PUT, 0, _A, _LARGE), (Step.DATA, 0, 8 + _SMALL, 0), (Step.CANCEL, 0, 0, 0)],
    "out-of-reach": [
        *[
            (Step.PUT, 0, _A, _TWO_PIECES),
            (Step.DATA, 0, 0, 0),
            (Step.CANCEL, 0, 1 + list(Code).index(Code.UNAVAILABLE), 0),
        ],
        *[(Step.NEXT, 0, 0, 0), (Step.PUT, 0, _A, _TWO_PIECES), (Step.CHECK, 0, 0, 0), (Step.DATA, 0, 0, 0)],
    ],
    "slowly": [(Step.SAY, 0, 12, 40), (Step.SAY, 0, 1, 0)],
    "no-end": [(Step.PUT, 0, _A, _SMALL), (Step.DATA, 0, 0, 0)],
    "never-announced": [(Step.DATA, 9, 0, 0), (Step.END, 9, 0, 0)],
    "through-a-link": [(Step.WHOLE, 0, _LINKED, _SMALL)],
    "taken": [(Step.WHOLE, 0, _A, _SMALL), (Step.NEXT, 0, 0, 0), (Step.WHOLE, 1, _A, _SMALL)],
    "renamed": [(Step.WHOLE, 0, _A, _SMALL), (Step.NEXT, 0, 0, 0), (Step.WHOLE, 1, _A + _RENAME, _SMALL)],
    "replaced": [(Step.WHOLE, 0, _A, _SMALL), (Step.NEXT, 0, 0, 0), (Step.WHOLE, 1, _A + _REPLACE, _SMALL)],
    "skipped": [(Step.WHOLE, 0, _A, _SMALL), (Step.NEXT, 0, 0, 0), (Step.WHOLE, 1, _A + _SKIP, _SMALL)],
    "there-already": [
        *[(Step.PUT, 0, _A, _LARGE), (Step.DATA, 0, 0, 0), (Step.END, 0, 0, 0), (Step.NEXT, 0, 0, 0)],
        *[(Step.PUT, 0, _A, _LARGE), (Step.CHECK, 0, _LARGE, 0), (Step.END, 0, 0, 0)],
    ],
    "resumed": [
        *[(Step.PUT, 0, _A, _MORE_THAN_LARGE), (Step.DATA, 0, 8 + _LARGE, 0), (Step.NEXT, 0, 3, 0)],
        *[(Step.PUT, 0, _A, _MORE_THAN_LARGE), (Step.CHECK, 0, _LARGE, 0), (Step.DATA, 0, 0, 0), (Step.END, 0, 0, 0)],
    ],
    "another-content": [
        *[(Step.PUT, 0, _A, _MORE_THAN_LARGE), (Step.DATA, 0, 8 + _LARGE, 0), (Step.NEXT, 0, 3, 0)],
        *[(Step.PUT, 0, _A, _MORE_THAN_LARGE), (Step.CHECK, 0, _LARGE, 2), (Step.DATA, 0, 0, 0), (Step.END, 0, 0, 0)],
    ],
    "listed": [(Step.WHOLE, 0, _A, _SMALL), (Step.NEXT, 0, 0, 0), (Step.SAY, 0, 2, PATHS.index(()))],
    "tree": [
        *[(Step.WHOLE, 0, _A, _SMALL), (Step.WHOLE, 0, _INSIDE, _SMALL), (Step.NEXT, 0, 0, 0)],
        *[(Step.SAY, 9, 13, PATHS.index(())), (Step.SAY, 9, 2, PATHS.index(()))],
        (Step.SAY, 9, 13, PATHS.index(("d",))),
    ],
    "tree-and-files": [
        *[(Step.SAY, 0, 13, PATHS.index(())), (Step.PUT, 0, _A, _SMALL), (Step.PUT, 0, _INSIDE, _SMALL)],
        *[(Step.DATA, 1, 0, 0), (Step.SAY, 8, 13, PATHS.index(("link",))), (Step.END, 1, 0, 0)],
    ],
    "changed": [
        *[(Step.WHOLE, 0, _INSIDE, _SMALL), (Step.WHOLE, 0, _A, _SMALL), (Step.NEXT, 0, 0, 0)],
        *[(Step.SAY, 9, 17, 0), (Step.SAY, 9, 18, _A), (Step.SAY, 9, 16, _A + len(PATHS) * _B), (Step.SAY, 9, 15, _A)],
        *[(Step.SAY, 9, 15, PATHS.index(("link", "x"))), (Step.SAY, 9, 15, len(PATHS) + _FOLDER)],
        *[(Step.SAY, 9, 15, len(PATHS) + PATHS.index(("link",))), (Step.SAY, 9, 15, PATHS.index(("..", "x")))],
    ],
    "changed-among-files": [
        *[(Step.WHOLE, 0, _A, _SMALL), (Step.SAY, 8, 18, _A), (Step.WHOLE, 0, _B, _SMALL)],
        *[(Step.SAY, 8, 18, PATHS.index(("link",))), (Step.NEXT, 0, 0, 0)],
    ],
    "removed-while-it-is-sent": [
        *[(Step.PUT, 0, _DEEP, _LARGE), (Step.DATA, 0, 0, 0), (Step.NEXT, 0, 3, 0), (Step.WHOLE, 0, _INSIDE, _SMALL)],
        *[(Step.NEXT, 0, 0, 0), (Step.SAY, 9, 15, len(PATHS) + _FOLDER), (Step.NEXT, 0, 0, 0)],
        *[(Step.PUT, 0, _DEEP, _LARGE), (Step.CHECK, 0, _LARGE, 0), (Step.END, 0, 0, 0)],
    ],
    "fetched": [
        *[(Step.WHOLE, 0, _A, _SMALL), (Step.NEXT, 0, 0, 0), (Step.SAY, 0, 1, _A)],
        *[(Step.SEND, 0, 0, 0), (Step.SAY, 0, 6, _A)],
    ],
    "may-not": [(Step.SAY, 0, 1, _A), (Step.NEXT, 2, 0, 0), (Step.SAY, 0, 2, _A), (Step.NEXT, 4, 0, 0)],
    "drop-only": [(Step.WHOLE, 0, _A, _SMALL), (Step.NEXT, 1, 0, 0), (Step.WHOLE, 0, _A, _SMALL), (Step.NEXT, 1, 0, 0)],
    "damaged-record": [(Step.WHOLE, 0, _A, _SMALL), (Step.NEXT, 0, 2, 0)],
}

# --- replies ----------------------------------------------------------------------------------------------------------

_RECEIPT, _ACCEPT, _CHECK, _REFUSE, _WANTED, _STORED, _PING, _CANCEL, _ERROR, _BYE = range(10)
_KEPT = 3  # in SIZES: the first 64 KiB
_ALL = [(_WANTED, 1, 0, 0), (_WANTED, 2, 0, 0), *((_STORED, number, 0, 0) for number in range(5))]

REPLIES: dict[str, list[tuple[int, int, int, int]]] = {
    "receipts-too-early": [(_STORED, number, 0, 0) for number in range(5)],
    "all-wanted-and-stored": [*_ALL, (_BYE, 0, 0, 0)],
    "without-a-farewell": _ALL,
    "refused": [*((_REFUSE, number, 0, number) for number in range(5)), (_BYE, 0, 0, 0)],
    "resumed": [(_CHECK, 1, _KEPT, 0), (_ACCEPT, 1, _KEPT, 0), (_PING, 0, 0, 0), (_STORED, 1, 0, 0)],
    "lied": [(_WANTED, 1, 0, 0), (_RECEIPT, 1, 0, 8), (_BYE, 0, 0, 0)],
    "renamed": [(_RECEIPT, 4, 0, 1), (_RECEIPT, 3, 0, 2)],
    "already": [(_CHECK, 1, 8, 0), (_RECEIPT, 1, 1, 0), (_BYE, 0, 0, 0)],
    "skipped": [(_RECEIPT, 2, 2, 0), (_RECEIPT, 3, 2, 0)],
    "batch-refused": [(_REFUSE, 3, 0, 9), (_REFUSE, 4, 0, 10), (_RECEIPT, 3, 3, 0)],
    "wrong-direction": [(_CANCEL, 0, 0, 0)],
    "stopped": [(_ERROR, 0, 0, 0)],
}


if __name__ == "__main__":
    sys.exit(main())
