"""Harness: what logged-in clients ask of a server, in any order; on a real disk, over real sockets.

    4 bytes each      kind of step, number of the file, and two that say what of it (see `_Client`)

The client seals its records rightly and its messages are well-formed, most of them: this is about their order. What it
proves it has decided before, so that what is visible in the end can be judged: only what was proved, nothing else.
"""

import contextlib
import functools
import gc
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from frames import frame
from peers import C2S, FILE_SECRET, MEMORY, S2C, SECONDS, Raw, data, end, piece, tcp_pair

from crypto_utils import TAG_SIZE, mac
from fuzz import memory
from sft.common.background import BackgroundTask
from sft.common.errors import Code, Ended, IntegrityError, ProtocolViolation, Refused, TransferError
from sft.common.log_limits import Sparing
from sft.common.rate_limit import RateLimiter
from sft.console.log import no_log
from sft.disk.root import PARTIAL_AREA
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules, UserFolder
from sft.server.connection_log import ConnectionLog, GiveLog, ReceiveLog
from sft.server.requests import Requests
from sft.wire.batch import BatchFile, BatchHeader, batch_mac_input
from sft.wire.change_messages import Done, Move, Remove, SetAttributes, Usage
from sft.wire.channel import Channel
from sft.wire.handshake import SessionKeys
from sft.wire.messages import (
    BYE_MESSAGE,
    FILE,
    FOLDER,
    LINK,
    PING_MESSAGE,
    POLICIES,
    Accept,
    Cancel,
    Check,
    Entries,
    Error,
    Get,
    Kind,
    ListFolder,
    Message,
    Put,
    PutKind,
    Rate,
    Receipt,
    Refuse,
)
from sft.wire.protocol import DATA_SIZE, RECORD_TEXT_LIMIT, UNASKED_LIMIT
from sft.wire.tree_messages import Branch, Tree
from sft.wire.workers import Engine

WORDS: tuple[bytes, ...] = ()
MOST_STEPS = 48
MOST_CLIENTS = 6

Path_ = tuple[str, ...]
SIZES = (0, 1, 5, UNASKED_LIMIT, UNASKED_LIMIT + 1, 100_000, DATA_SIZE, DATA_SIZE + 1)
PATHS: tuple[Path_, ...] = (
    *(("a",), ("b.txt",), ("d", "a"), ("d", "e", "f"), ("d",), ("a", "below")),  # some are in each other's way
    *(("link", "x"), ("link",), ("fifo",), ("folder",), ("..", "x"), (), ("a\0",), ("a" * 255,), ("\U0001f600",)),
    *(("d", "."), ("link", "..", "a"), ("nul.",)),
)
TARGETS = ("../../outside", "/", "folder", "a")  # what links say
_NEVER_RIGHT = (1, 4)  # the ways to END whose HMAC is wrong
_KEYS = SessionKeys(C2S, S2C, FILE_SECRET, FILE_SECRET)
_SECRET = b"nobody may read or change this"


class Step(IntEnum):
    """What a client does next."""

    PUT = 0
    DATA = 1
    END = 2
    CHECK = 3
    CANCEL = 4
    WHOLE = 5  # PUT, DATA and END of a small file
    SAY = 6  # any other message
    SEND = 7  # the messages so far, as one record
    NEXT = 8  # the end of this client, and another one
    BATCH = 9  # small files in one message


def one_input(steps: bytes) -> None:
    """Nothing but our errors; nothing visible that was not proved; nothing outside; nothing is left open."""
    place = the_place()
    before = open_now()
    with place.user() as (name, home):
        proved = _Proved()
        for client in _clients(steps):
            _serve(place, name, client, proved)
        _check_disk(home, proved)
    assert (place.outside / "secret").read_bytes() == _SECRET
    assert os.listdir(place.outside) == ["secret"]
    check_nothing_is_left(place, before)


def open_now() -> tuple[int, int]:
    """How many descriptors and threads there are."""
    return len(os.listdir("/dev/fd")), threading.active_count()


def check_nothing_is_left(place: "Place", before: tuple[int, int]) -> None:
    """Since `before` every descriptor, thread and buffer was given back."""
    if open_now()[0] > before[0] or place.engine.buffer_pool.taken:
        gc.collect()  # an error may still hold what was looked at when it was raised
    assert open_now()[0] <= before[0], "a descriptor is left"
    assert open_now()[1] <= before[1], "a thread is left"
    assert not place.engine.buffer_pool.taken, "a buffer is left"


def _clients(steps: bytes) -> Iterator[list[bytes]]:
    """The steps of each client; the last of each is its NEXT."""
    known = [steps[at : at + 4] for at in range(0, min(len(steps), 4 * MOST_STEPS) - 3, 4)]
    client: list[bytes] = []
    clients = [client]
    for step in known:
        client.append(step)
        if step[0] % len(Step) == Step.NEXT:
            client = []
            clients.append(client)
    yield from clients[:MOST_CLIENTS]


# --- what is there ----------------------------------------------------------------------------------------------------


class Place:
    """A storage folder for all inputs; each has a user of its own, whose folder holds traps."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sft-fuzz-", dir=memory())
        self.root, self.outside = Path(self._folder.name) / "received", Path(self._folder.name) / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_bytes(_SECRET)
        self.storage = Storage(self.root, Rules(max_file_size=1 << 62))
        self.engine = Engine(MEMORY)
        everybody = threading.Barrier(self.engine.workers + 1)
        for _ in range(self.engine.workers):  # all of them run before threads are counted
            self.engine.pool.submit(everybody.wait)
        everybody.wait()
        self._count = 0

    @contextlib.contextmanager
    def user(self) -> Iterator[tuple[str, Path]]:
        self._count += 1
        name = f"user{self._count}"
        home = self.root / name
        home.mkdir()
        (home / "link").symlink_to(self.outside)
        (home / "folder").mkdir()
        os.mkfifo(home / "fifo")
        try:
            yield name, home
        finally:
            shutil.rmtree(home)
            shutil.rmtree(self.root / PARTIAL_AREA / name, ignore_errors=True)


@functools.cache
def the_place() -> Place:
    """The one of this process."""
    return Place()


class _Proved:
    """What was ended with a right proof: (path, policy, digest)."""

    def __init__(self) -> None:
        self.ends: set[tuple[Path_, str, bytes]] = set()
        self.may_move = False

    def allows(self, path: Path_, sha256: bytes) -> bool:
        """Whether a file of that digest may be visible there."""
        return any(
            proof == sha256 and (self.may_move or target == path or (policy == "rename" and target[:-1] == path[:-1]))
            for target, policy, proof in self.ends
        )


def _check_disk(home: Path, proved: _Proved) -> None:
    for found in home.rglob("*"):
        path = found.relative_to(home).parts
        if found.is_symlink():
            says = os.readlink(found)
            is_trap = says == str(the_place().outside) and (path == ("link",) or proved.may_move)
            assert is_trap or proved.allows(path, link_digest(says)), path
        elif found.is_file():
            assert proved.allows(path, hashlib.sha256(found.read_bytes()).digest()), path
        else:
            assert found.is_dir() or path == ("fifo",) or proved.may_move


# --- one connection ---------------------------------------------------------------------------------------------------


def _serve(place: Place, name: str, steps: list[bytes], proved: _Proved) -> None:
    near, far = tcp_pair()
    last = steps[-1] if steps and steps[-1][0] % len(Step) == Step.NEXT else bytes(4)
    private = bool(last[1] & 1)
    folder = place.storage.user(name, private)
    channel = Channel(far, S2C, C2S, place.engine)
    peer, heard = Raw(near, C2S, S2C), Heard()
    server = BackgroundTask("server", lambda: _server(channel, folder, last[1]))
    listener = BackgroundTask("listener", lambda: heard.listen(peer))
    _Client(peer, proved, private).play(steps)
    with contextlib.suppress(OSError):
        near.shutdown(1)
    for thread in (server, listener):
        assert thread.wait(SECONDS), "it hangs"
    peer.close()
    for receipt in heard.receipts:
        if receipt.outcome in ("stored", "already"):
            assert proved.allows(receipt.path, receipt.sha256 or b"")


def _server(channel: Channel, folder: UserFolder, flags: int) -> None:
    """As `sft/server/session.py` serves a client who has logged in."""
    log = no_log("fuzz")
    code: Code | None = None
    try:
        requests = Requests(channel, _KEYS, folder, lambda right: _admit(right, flags), log.info, RateLimiter(None))
        prefixed = ConnectionLog(log, 1, "", "fuzz")
        given = GiveLog(prefixed.info, Sparing(prefixed).info)
        requests.run(ReceiveLog(prefixed, Sparing(prefixed)).on_event, given.on_event)
    except Ended as problem:
        code = problem.code
    except IntegrityError as problem:
        code = Code.PROTOCOL if isinstance(problem, ProtocolViolation) else Code.INTEGRITY
    except TransferError:
        pass
    finally:
        folder.close()
        channel.close(code)


def _admit(right: str, flags: int) -> None:
    if flags & 2 and right != "put":
        raise Refused(Code.DENIED)
    if flags & 4:
        raise Ended(Code.ACCOUNT)


class Heard:
    """What the server has said."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []

    def listen(self, peer: Raw) -> None:
        """Until its end. What can't be read is a bug: this server is honest."""
        with contextlib.suppress(OSError):
            while message := peer.hear():
                self._take(message)

    def _take(self, message: Message) -> None:
        if isinstance(message, Receipt):
            self.receipts.append(message)


def link_digest(says: str) -> bytes:
    """What stands for the content of a link."""
    return hashlib.sha256(b"a link to " + says.encode()).digest()


@functools.cache
def content_of(seed: int, size: int) -> bytes:
    block = hashlib.sha256(bytes([seed])).digest()
    return (block * (size // len(block) + 1))[:size]


@dataclass
class _File:
    """A file that was announced, and where its next content belongs."""

    put: Put
    content: bytes
    next: int = 0


class _Client:
    """Plays the steps; it never waits for an answer, like one who wants to disturb."""

    def __init__(self, peer: Raw, proved: _Proved, private: bool) -> None:
        """`private`: the receiver chooses another name when one is taken, whatever the policy."""
        self._peer, self._proved, self._private = peer, proved, private
        self._files: dict[int, _File] = {}
        self._last = 0
        self._record: list[bytes] = []

    def play(self, steps: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            for kind, which, one, two in steps:
                self._play(Step(kind % len(Step)), which, one, two)
            if not steps or steps[-1][0] % len(Step) != Step.NEXT:
                self._say(BYE_MESSAGE)
            self._send()

    def _play(self, step: Step, which: int, one: int, two: int) -> None:
        if step is Step.PUT:
            self._put(which, one, two)
        elif step is Step.WHOLE:
            self._put(which, one, two & 0xF8 | two % 3)
            self._data(self._last, 0)
            self._end(self._last, 0)
        elif step is Step.BATCH:
            self._batch(which, one, two)
        elif step is Step.DATA:
            self._data(self._id(which), one, two)
        elif step is Step.END:
            self._end(self._id(which), one)
        elif step is Step.CHECK:
            self._check(self._id(which), one, two)
        elif step is Step.CANCEL:
            self._say(Cancel(self._id(which), (None, *Code)[one % (1 + len(Code))]).encode())
        elif step is Step.SAY:
            self._say(self._other(self._id(which), one, two))
        elif step is Step.SEND:
            self._send()
        else:
            self._leave(one)

    def _id(self, which: int) -> int:
        """The file announced last, the one before it, ...; or one that never was."""
        return max(1, self._last - which) if which < 8 else which

    def _put(self, which: int, one: int, two: int) -> None:
        """`which`: transfer and content; `one`: path and policy; `two`: size, kind, whether the id is allowed."""
        path, policy = PATHS[one % len(PATHS)], POLICIES[one // len(PATHS) % len(POLICIES)]
        content = content_of(which % 4, SIZES[two % 8])
        says = TARGETS[which % 4] if two & 8 and two & 128 else None
        kind: PutKind = LINK if says is not None else FOLDER if two & 8 else FILE
        size = None if two & 16 or kind != FILE else len(content)
        self._last += 0 if two & 32 and two & 64 else 1
        mtime, mode = (None, None) if two & 64 else ((1 << 62 if two & 32 else 1_700_000_000 * 10**9), 0o7777)
        mode = None if says is not None else mode
        put = Put(max(1, self._last), bytes([which]) * 16, path, kind, size, mtime, mode, policy, says)
        self._say(put.encode())
        if says is not None:
            for proof in (link_digest(says), b""):  # on the disk, and in its receipt
                self._prove(put, proof)
        self._files[put.id] = _File(put, content)

    def _data(self, id: int, one: int, two: int = 0) -> None:
        """`one`: all that is left of it, or a size; `two`: as it is, elsewhere, other bytes, compressed, or zeros."""
        file = self._files.get(id) or _File(Put(id, bytes(16), ("a",), FILE, 5, None, None, "fail"), b"other")
        left = file.content[file.next :]
        if one & 8:
            left = left[: SIZES[one % 8]]
        while left:
            part, left = left[:DATA_SIZE], left[DATA_SIZE:]
            offset = file.next + (0, 0, 1, 1 << 62)[two % 4]
            content = bytes(len(part)) if two & 4 else part
            if two & 8:
                self._say(piece(id, offset, len(content), frame(content) if any(content) else b""))
            elif two & 16:
                self._say(piece(id, offset, len(content) + 1, frame(content)[: two & 32 or None]))
            else:
                self._say(data(id, offset, content))
            file.next += len(part)

    def _end(self, id: int, one: int) -> None:
        """`one`: right, or wrong in its HMAC, digest or size, or proved with another body."""
        file = self._files.get(id)
        if file is None:
            self._say(end(Put(id, bytes(16), ("a",), FILE, 0, None, None, "fail"), b"").encode())
            return
        right = end(file.put, file.content)
        wrong = {
            1: end(file.put, file.content, secret=b"x" * 32),
            2: end(file.put, bytes(len(file.content)) if file.content.strip(b"\0") else b"x"),
            3: end(file.put, file.content[:-1] if file.content else b"x"),
            4: end(file.put, file.content, body=file.put.body() + b"\0"),
        }
        said = wrong.get(one, right)
        if one not in _NEVER_RIGHT:
            self._prove(file.put, said.sha256)
        self._say(said.encode())

    def _check(self, id: int, one: int, two: int) -> None:
        """`one`: of so many bytes; `two`: right, wrong, none."""
        file, size = self._files.get(id), SIZES[one % 8]
        content = file.content[:size] if file else b""
        sha256 = (hashlib.sha256(content).digest(), hashlib.sha256(content).digest(), bytes(32), None)[two % 4]
        self._say(Check(id, size, sha256).encode())
        if file is not None and two % 4 < 2:
            file.next = size  # if that was what is there, it goes on from here
            if size == len(file.content) and file.put.size == size:  # it may be there already
                self._prove(file.put, hashlib.sha256(file.content).digest())

    def _batch(self, which: int, one: int, two: int) -> None:
        """`which`: transfer and contents; `one`: the first path, and policy; `two`: sizes, how many, what is wrong."""
        policy = POLICIES[one // len(PATHS) % len(POLICIES)]
        is_offered, is_forged, is_other = two & 8, two & 16, two & 32
        files: list[BatchFile] = []
        contents: list[bytes] = []
        self._last += 1
        for number in range(1 + two // 64):
            path = PATHS[(one + number) % len(PATHS)]
            content = content_of((which + number) % 4, SIZES[(two + number) % 4])
            sha256 = hashlib.sha256(content).digest()
            files.append(BatchFile(path, len(content), None, 0o600, sha256, not is_offered))
            contents.append(bytes(len(content)) if is_other else content)
            if not (is_offered or is_forged) and contents[-1] == content:
                self._prove(Put(self._last, bytes(16), path, FILE, len(content), None, None, policy), sha256)
        header = BatchHeader(self._last, bytes([which]) * 16, policy, tuple(files)).body()
        proof = mac(b"x" * 32 if is_forged else FILE_SECRET, *batch_mac_input(header))
        body = len(header).to_bytes(4, "big") + proof + header + (b"" if is_offered else b"".join(contents))
        self._say(bytes([Kind.BATCH]) + len(body).to_bytes(4, "big") + body)

    def _prove(self, put: Put, sha256: bytes) -> None:
        """From now on a file of that digest may be there."""
        self._proved.ends.add((put.path, "rename" if self._private else put.policy, sha256))

    def _other(self, id: int, one: int, two: int) -> bytes:
        path, size = PATHS[two % len(PATHS)], SIZES[two % 8]
        content = content_of(two // 8 % 4, size)
        receipt = Receipt(id, path, size, hashlib.sha256(content).digest(), 0, "stored")
        makers: tuple[Callable[[], bytes], ...] = (
            lambda: PING_MESSAGE,
            lambda: Get(id, path, bool(two & 128), True, False, two % 3 if path else 0).encode(),
            lambda: ListFolder(id, path, "a" if two & 128 else None).encode(),
            lambda: Accept(id, size).encode(),
            lambda: Check(id, size, None).encode(),
            lambda: Refuse(id, list(Code)[two % len(Code)]).encode(),
            receipt.encode,
            lambda: Entries(id, (), False).encode(),
            lambda: Error(list(Code)[two % len(Code)]).encode(),
            lambda: BYE_MESSAGE,
            lambda: bytes([two, 0, 0, 0, 0]),
            lambda: bytes([1, 0, 0, 0, two]),
            lambda: Rate(1 << 40 + two % 23).encode(),
            lambda: Tree(id, path, PATHS[two // len(PATHS) % len(PATHS)] or None).encode(),
            lambda: Branch(id, (), False).encode(),
            lambda: Remove(id, path, two >= len(PATHS)).encode(),
            lambda: self._move(id, path, PATHS[two // len(PATHS) % len(PATHS)]),
            Usage(id).encode,
            lambda: SetAttributes(id, path, two << 55, None if two & 1 else two).encode(),
            Done(id, 1).encode,
        )
        return makers[one % len(makers)]()

    def _move(self, id: int, path: Path_, to: Path_) -> bytes:
        """From now on what was proved may be anywhere."""
        self._proved.may_move = True
        return Move(id, path, to).encode()

    def _leave(self, one: int) -> None:
        """`one`: with a farewell, with an error, with a damaged record, or without a word."""
        if one % 4 == 0:
            self._say(BYE_MESSAGE)
        elif one % 4 == 1:
            self._say(Error(Code.STOPPING).encode())
        self._send()
        if one % 4 == 2:
            self._peer.sock.sendall((TAG_SIZE + 1).to_bytes(4, "big") + bytes(TAG_SIZE + 1))

    def _say(self, message: bytes) -> None:
        if sum(map(len, self._record)) + len(message) > RECORD_TEXT_LIMIT:
            self._send()
        self._record.append(message)

    def _send(self) -> None:
        if self._record:
            self._peer.say(*self._record)
        self._record = []
