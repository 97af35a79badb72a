"""Content that is not sent as it is: holes and other zeros in both directions, and compressed content."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from frames import bomb, frame
from peers import C2S, FILE_SECRET, S2C, Raw, check_nothing_is_left, close_all, data, end, piece, tcp_pair
from transfers import Fetch, Hostile, Receiving, Told, fetch, item, kept_of, on_disk, put, send, written

import sft.transfer.pieces
from crypto_utils import digest, mac
from sft.common.errors import Code, ProtocolViolation
from sft.common.rate_limit import RateLimiter
from sft.disk.holes import HOLE_LEAST
from sft.disk.sources import PipeSource
from sft.disk.storage import Storage
from sft.transfer.items import Item
from sft.transfer.sender import Sender
from sft.transfer.shrinking import Compress
from sft.wire.batch import BATCH_OVERHEAD, BatchFile, BatchHeader, Receipts, batch_mac_input, write_batch
from sft.wire.channel import Channel
from sft.wire.content import Data
from sft.wire.messages import BYE_MESSAGE, Accept, Bye, End, Error, Get, Put, Receipt, Refuse
from sft.wire.protocol import DATA_LEAST, DATA_SIZE
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")

MIB = 1 << 20
BLOCKS = 512
TEXT = b"All work and no play makes Jack a dull boy.\n" * 23_832  # a little more than 1 MiB


def on_the_disk(path: Path) -> int:
    """How many bytes a file takes there."""
    return path.stat().st_blocks * BLOCKS


def sparse(path: Path, size: int, *parts: tuple[int, bytes]) -> Path:
    """A file that is nothing but a hole, except for some parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
        for offset, content in parts:
            file.seek(offset)
            file.write(content)
    if on_the_disk(path) > sum(len(content) for _, content in parts) + MIB // 4:
        pytest.skip("this disk has no holes")
    return path


def same(one: Path, other: Path) -> bool:
    """Whether both have the same bytes; large ones are not read into memory together."""
    with one.open("rb") as first, other.open("rb") as second:
        while piece := first.read(MIB):
            if second.read(MIB) != piece:
                return False
        return second.read(1) == b""


GIB_PARTS = [(5, os.urandom(MIB)), (700 * MIB + 3, os.urandom(MIB)), ((1 << 30) - MIB - 70_000, os.urandom(MIB))]


@pytest.fixture
def gib(tmp_path: Path) -> Path:
    """1 GiB with 3 MiB of content, at places of no particular kind."""
    return sparse(tmp_path / "source" / "disk.img", 1 << 30, *GIB_PARTS)


def test_sparse_file_is_sent_and_stored_as_its_content_alone(
    storage: Storage, engine: Engine, home: Path, gib: Path
) -> None:
    receiving = Receiving(storage, engine)
    told = Told()
    sent = send(receiving, [item(gib)], told)
    assert receiving.problem is None
    assert told.outcomes() == {"disk.img": "stored"}
    assert sent < 4 * MIB
    assert on_the_disk(home / "disk.img") < 4 * MIB
    assert same(gib, home / "disk.img")
    assert told.bytes.total() == 1 << 30


def test_sparse_file_is_fetched_and_stored_as_its_content_alone(
    storage: Storage, engine: Engine, home: Path, tmp_path: Path
) -> None:
    there = sparse(home / "disk.img", 300 * MIB, (MIB, os.urandom(MIB)), (299 * MIB, os.urandom(MIB)))
    receiving = Receiving(storage, engine)
    fetched = fetch(receiving, ["disk.img"], f"{tmp_path}/back/")
    assert fetched.problems == []
    assert receiving.channel.bytes_sent < 3 * MIB
    assert on_the_disk(tmp_path / "back/disk.img") < 3 * MIB
    assert same(there, tmp_path / "back/disk.img")


def test_file_that_is_nothing_but_a_hole_has_its_size(
    storage: Storage, engine: Engine, home: Path, tmp_path: Path
) -> None:
    source = sparse(tmp_path / "hole", 10 * MIB + 1)
    receiving = Receiving(storage, engine)
    assert send(receiving, [item(source)], Told()) < 10_000
    assert (home / "hole").stat().st_size == 10 * MIB + 1
    assert on_the_disk(home / "hole") == 0
    assert same(source, home / "hole")


def test_zeros_that_are_no_hole_become_one(storage: Storage, engine: Engine, home: Path, tmp_path: Path) -> None:
    content = os.urandom(MIB) + bytes(5 * MIB) + b"x" + bytes(3 * MIB)
    source = tmp_path / "zeros"
    source.write_bytes(content)
    receiving = Receiving(storage, engine)
    assert send(receiving, [item(source)], Told()) < 2 * MIB + 10_000
    assert (home / "zeros").read_bytes() == content
    assert on_the_disk(home / "zeros") <= MIB + HOLE_LEAST


def test_zeros_within_a_piece_become_a_hole(storage: Storage, engine: Engine, home: Path, tmp_path: Path) -> None:
    content = b"x" * 70_000 + bytes(800_000) + b"y" * 100_000
    source = tmp_path / "within"
    source.write_bytes(content)
    receiving = Receiving(storage, engine)
    send(receiving, [item(source)], Told())
    assert (home / "within").read_bytes() == content
    assert on_the_disk(home / "within") < 170_000 + 2 * HOLE_LEAST + 8192


def test_zeros_out_of_a_pipe_become_a_hole(storage: Storage, engine: Engine, home: Path, tmp_path: Path) -> None:
    content = b"begin" + bytes(9 * MIB) + b"end" + bytes(5)
    (tmp_path / "piped").write_bytes(content)
    receiving = Receiving(storage, engine)
    with (tmp_path / "piped").open("rb") as pipe:
        piped = Item("-", ("piped",), "fail", lambda: PipeSource(pipe.fileno()))
        assert send(receiving, [piped], Told()) < 3 * MIB
    assert (home / "piped").read_bytes() == content
    assert on_the_disk(home / "piped") < 3 * MIB


@pytest.mark.parametrize("size", [DATA_SIZE, 65_537])
def test_sparse_file_of_one_piece(storage: Storage, engine: Engine, home: Path, tmp_path: Path, size: int) -> None:
    source = sparse(tmp_path / "one", size)
    receiving = Receiving(storage, engine)
    assert send(receiving, [item(source)], Told()) < 1_000
    assert (home / "one").read_bytes() == bytes(size)


@pytest.mark.parametrize("cut_at", [MIB + 4095, 3 * MIB, 7 * MIB + 1, 9 * MIB])
def test_sparse_file_goes_on_where_it_was(
    storage: Storage, engine: Engine, home: Path, tmp_path: Path, cut_at: int
) -> None:
    """What was kept ends in content or in a hole; its size is what was received."""
    source = sparse(tmp_path / "resumed", 9 * MIB, (0, os.urandom(2 * MIB)), (6 * MIB, os.urandom(MIB)))
    content = source.read_bytes()
    first = Receiving(storage, engine)
    raw = Raw(first.near, C2S, S2C)
    raw.say(put(1, "resumed", size=len(content)).encode())
    assert isinstance(raw.hear(), Accept)
    for offset in range(0, cut_at, MIB):
        part = content[offset : min(offset + MIB, cut_at)]
        raw.say(data(1, offset, part) if any(part) else piece(1, offset, len(part)))
    raw.stop()
    raw.hear_all()
    raw.close()
    first.finish()
    assert kept_of(home) == [cut_at]
    second = Receiving(storage, engine)
    told = Told()
    sending = item(source)
    assert send(second, [sending], told) < 2 * MIB + 10_000
    assert told.offsets == {sending: cut_at}
    assert on_disk(home) == {"resumed": content}
    assert on_the_disk(home / "resumed") <= 3 * MIB + HOLE_LEAST


def test_hole_that_is_filled_meanwhile_is_a_changed_file(
    storage: Storage, engine: Engine, home: Path, tmp_path: Path
) -> None:
    source = sparse(tmp_path / "filled", 40 * MIB, (0, b"x" * MIB))

    def fill(moved: int) -> None:
        if moved == MIB:
            with source.open("r+b") as file:
                file.seek(20 * MIB)
                file.write(b"y")
            os.utime(source, ns=(1, 1))

    receiving = Receiving(storage, engine)
    told = Told(on_progress=fill)
    send(receiving, [item(source)], told)
    assert [problem.code for problem in told.problems.values() if hasattr(problem, "code")] == [Code.CHANGED]
    assert on_disk(home) == {}


# --- a receiver and forms that a sender may choose -------------------------------------------------------------------


def forms(content: bytes) -> Iterator[bytes]:
    """The pieces of a content in turn as they are, compressed and, where they are zeros, as zeros."""
    for number, offset in enumerate(range(0, len(content), 300_000)):
        part = content[offset : offset + 300_000]
        if not any(part):
            yield piece(2, offset, len(part))
        else:
            yield piece(2, offset, len(part), frame(part)) if number % 2 else data(2, offset, part)


def test_file_of_all_forms_is_its_content(storage: Storage, engine: Engine, home: Path) -> None:
    content = TEXT + bytes(900_000 + 1_200_000 - len(TEXT)) + TEXT[:300_000] + bytes(5)
    announced = put(2, "forms", size=len(content))
    hostile = Hostile(storage, engine)
    hostile.raw.say(announced.encode())
    assert isinstance(hostile.raw.hear(), Accept)
    for message in forms(content):
        hostile.raw.say(message)
    hostile.raw.say(end(announced, content).encode(), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert [type(message) for message in heard] == [Receipt, Bye]
    assert on_disk(home) == {"good": b"12345", "forms": content}


@pytest.mark.parametrize("content", [TEXT[:5_000], bytes(5_000)])
@pytest.mark.parametrize("size", [5_000, None])
def test_small_file_and_pipe_may_have_any_form(
    storage: Storage, engine: Engine, home: Path, content: bytes, size: int | None
) -> None:
    announced = put(2, "small", size=size)
    hostile = Hostile(storage, engine)
    hostile.raw.say(announced.encode())
    if size is None:
        assert isinstance(hostile.raw.hear(), Accept)
    hostile.raw.say(piece(2, 0, len(content), frame(content) if any(content) else b""))
    hostile.raw.say(end(announced, content).encode(), BYE_MESSAGE)
    assert hostile.finish()[1] is None
    assert on_disk(home) == {"good": b"12345", "small": content}


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(piece(2, 0, 5_000, frame(TEXT[:5_000])[:-1]), id="cut"),
        pytest.param(piece(2, 0, 5_000, frame(TEXT[:5_000]) + b"\0"), id="a byte behind it"),
        pytest.param(piece(2, 0, 5_000, frame(TEXT[:5_001])), id="of more"),
        pytest.param(piece(2, 0, 5_000, bomb(1 << 28)), id="a bomb"),
        pytest.param(piece(2, 0, 5_000, b"no frame at all"), id="none"),
        pytest.param(piece(2, 0, DATA_SIZE + 1), id="too many zeros"),
        pytest.param(piece(2, 0, 0), id="no zeros"),
        pytest.param(piece(2, 0, 4, b"12345"), id="more content than it stands for"),
        pytest.param(piece(2, 0, DATA_LEAST - 1) + piece(2, DATA_LEAST - 1, 5), id="zeros behind few"),
    ],
)
def test_form_that_is_none_is_a_violation_and_leaves_nothing(
    storage: Storage, engine: Engine, home: Path, bad: bytes
) -> None:
    hostile = Hostile(storage, engine)
    hostile.raw.say(put(2, "bad", size=5_000).encode(), bad)
    heard, problem = hostile.finish()
    assert isinstance(problem, ProtocolViolation)
    assert heard == [Error(Code.PROTOCOL)]
    assert on_disk(home) == {"good": b"12345"}


def test_more_zeros_than_were_announced_are_refused(storage: Storage, engine: Engine, home: Path) -> None:
    hostile = Hostile(storage, engine)
    hostile.raw.say(put(2, "zeros", size=5_000).encode(), piece(2, 0, 5_001))
    refused = hostile.raw.hear()
    assert isinstance(refused, Refuse) and refused.code is Code.SIZE
    hostile.finish()
    assert on_disk(home) == {"good": b"12345"}


def test_frame_of_a_file_that_was_refused_is_thrown_away_undecoded(
    storage: Storage, engine: Engine, home: Path
) -> None:
    damaged = frame(TEXT[:5_000])[:-3] + b"!!!"
    hostile = Hostile(storage, engine)
    hostile.raw.say(put(2, "good", size=70_000, policy="replace").encode())
    assert isinstance(hostile.raw.hear(), Accept)
    hostile.raw.say(put(3, "zeros", size=5_000).encode(), piece(3, 0, 5_001))
    assert isinstance(hostile.raw.hear(), Refuse)
    hostile.raw.say(piece(3, 5_001, 5_000, damaged), piece(2, 0, 5_000, frame(TEXT[:5_000])))
    heard, problem = hostile.finish()
    assert not isinstance(problem, ProtocolViolation)
    assert heard == []


def test_rate_of_an_account_counts_a_sixteenth_of_what_is_hashed(storage: Storage, engine: Engine) -> None:
    """Zeros and frames take next to nothing on the line; the time that they cost the server is paid for."""
    spent: list[float] = []
    clock = [1_000.0]

    def wait(seconds: float) -> None:
        spent.append(seconds)
        clock[0] += seconds

    limiter = RateLimiter(MIB, lambda: clock[0], wait, counts_content=True)
    receiving = Receiving(storage, engine, limiter=limiter)
    raw = Raw(receiving.near, C2S, S2C)
    announced = put(1, "zeros", size=160 * MIB)
    raw.say(announced.encode())
    assert isinstance(raw.hear(), Accept)
    for first in range(0, 160 * MIB, 32 * MIB):
        raw.say(*(piece(1, offset, MIB) for offset in range(first, first + 32 * MIB, MIB)))
    raw.say(end(announced, bytes(160 * MIB)).encode(), BYE_MESSAGE)
    assert [type(message) for message in raw.hear_all()] == [Receipt, Bye]
    raw.close()
    assert receiving.finish() is None
    assert 9 < sum(spent) < 11


def test_client_that_reads_no_frames_gets_an_error_for_one(engine: Engine, tmp_path: Path) -> None:
    near, far = tcp_pair()
    fetching = Fetch(engine, near, ["a"], f"{tmp_path}/", zstd=False)
    raw = Raw(far, S2C, C2S)
    thread = threading.Thread(target=fetching.run, daemon=True)
    thread.start()
    assert raw.hear() == Get(1, ("a",), False, False)
    raw.say(put(1, "a", size=5_000, policy="skip").encode(), piece(1, 0, 5_000, frame(TEXT[:5_000])))
    raw.stop()
    assert raw.hear_all()[-1] == Error(Code.PROTOCOL)
    thread.join(20)
    raw.close()
    assert isinstance(fetching.problem, ProtocolViolation)
    assert not (tmp_path / "a").exists()


# --- a sender that compresses -----------------------------------------------------------------------------------------


def pieces_of(engine: Engine, items: list[Item], compress: Compress, rate: int | None = None) -> tuple[list[Data], int]:
    """What a sender sends of these items, to a receiver that takes everything; and how many bytes that took."""
    near, far = tcp_pair()
    channel, raw = Channel(near, C2S, S2C, engine), Raw(far, S2C, C2S)
    told: list[Data] = []

    def receive() -> None:
        puts = dict[int, Put]()
        while (message := raw.hear()) is not None and not isinstance(message, Bye):
            if isinstance(message, Put):
                puts[message.id] = message
                raw.say(Accept(message.id, 0).encode())
            elif isinstance(message, Data):
                told.append(message)
            elif isinstance(message, End):
                path = puts[message.id].path
                raw.say(Receipt(message.id, path, message.size, message.sha256, 0, "stored").encode())
        raw.say(BYE_MESSAGE)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    Sender(channel, channel.messages(), FILE_SECRET, Told(), RateLimiter(rate), compress=compress).run(items)
    thread.join(20)
    close_all(channel)
    raw.close()
    check_nothing_is_left(engine, channel)
    return told, channel.bytes_sent


@pytest.mark.parametrize("limited", [False, True])
def test_text_is_compressed_and_noise_is_sent_as_it_is(engine: Engine, tmp_path: Path, limited: bool) -> None:
    text, noise = (TEXT * 4)[: 4 * MIB], os.urandom(2 * MIB)
    sources = [written(tmp_path / "text", text), written(tmp_path / "noise", noise)]
    told, sent = pieces_of(engine, [item(source) for source in sources], "on", 100 * MIB if limited else None)
    assert sent < 2 * MIB + 50_000
    assert [data.is_frame for data in told] == [True] * 4 + [False] * 2
    assert b"".join(bytes(data.plain()) for data in told) == text + noise


def test_nothing_is_compressed_when_it_is_off(engine: Engine, tmp_path: Path) -> None:
    told, sent = pieces_of(engine, [item(written(tmp_path / "text", TEXT))], "off")
    assert sent > len(TEXT)
    assert not any(data.is_frame for data in told)


def test_zeros_go_as_zeros_when_all_is_compressed(engine: Engine, tmp_path: Path) -> None:
    content = TEXT[:MIB] + bytes(2 * MIB) + TEXT[:5_000]
    told, _ = pieces_of(engine, [item(written(tmp_path / "mixed", content))], "on")
    assert [(data.is_frame, data.is_zeros) for data in told] == [(True, False), *[(False, True)] * 2, (True, False)]
    assert b"".join(bytes(data.plain()) for data in told) == content


@pytest.mark.parametrize(
    ("unknown", "waiting", "line", "frames"),
    [
        (9e9, 0, 0.0, True),  # it has not shown its speed
        (-1.0, 6, 1e-6, True),
        (-1.0, 1, 1e-6, False),
        (-1.0, 6, 1e-10, False),
    ],
)
def test_auto_asks_the_line(
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unknown: float,
    waiting: int,
    line: float,
    frames: bool,
) -> None:
    monkeypatch.setattr(sft.transfer.pieces, "_UNKNOWN_SECONDS", unknown)
    monkeypatch.setattr(Channel, "waiting", waiting)
    monkeypatch.setattr(Channel, "line_seconds", line)
    told, _ = pieces_of(engine, [item(written(tmp_path / "text", TEXT * 3))], "auto")
    assert {data.is_frame for data in told} == {frames}


@pytest.mark.parametrize("rate", [10_000, 200_000])
def test_limit_counts_what_is_sent_and_not_what_it_becomes(engine: Engine, tmp_path: Path, rate: int) -> None:
    clock = [1_000.0]

    def wait(seconds: float) -> None:
        clock[0] += seconds

    near, far = tcp_pair()
    channel, raw = Channel(near, C2S, S2C, engine), Raw(far, S2C, C2S)
    source = written(tmp_path / "text", (TEXT * 10)[: 100 * rate])
    limiter, told = RateLimiter(rate, lambda: clock[0], wait), Told()
    thread = threading.Thread(target=take_one, args=[raw], daemon=True)
    thread.start()
    Sender(channel, channel.messages(), FILE_SECRET, told, limiter, compress="auto").run([item(source)])
    thread.join(20)
    close_all(channel)
    raw.close()
    assert told.outcomes() == {"text": "stored"}
    took = clock[0] - 1_000
    assert channel.bytes_sent * 0.9 / rate - 0.5 < took < channel.bytes_sent * 1.1 / rate
    assert took < 40


def take_one(raw: Raw) -> None:
    """A receiver that takes one file, whatever is in it."""
    announced = raw.hear()
    assert isinstance(announced, Put)
    raw.say(Accept(announced.id, 0).encode())
    while not isinstance(last := raw.hear(), End):
        assert isinstance(last, Data)
    raw.say(Receipt(last.id, announced.path, last.size, last.sha256, 0, "stored").encode())
    while not isinstance(raw.hear(), Bye):
        pass
    raw.say(BYE_MESSAGE)


@pytest.mark.parametrize(
    ("asks", "compress", "frames"), [(True, "on", True), (False, "on", False), (True, "off", False)]
)
def test_server_compresses_for_a_client_that_reads_it_and_as_it_is_set(
    storage: Storage, engine: Engine, home: Path, tmp_path: Path, asks: bool, compress: Compress, frames: bool
) -> None:
    written(home / "text", TEXT)
    receiving = Receiving(storage, engine, compress=compress)
    fetched = Fetch(engine, receiving.near, ["text"], f"{tmp_path}/", zstd=asks)
    fetched.run()
    assert (receiving.finish(), fetched.problem) == (None, None)
    assert (tmp_path / "text").read_bytes() == TEXT
    assert (receiving.channel.bytes_sent < MIB // 2) is frames


def test_one_get_without_frames_is_enough_for_all(storage: Storage, engine: Engine, home: Path) -> None:
    written(home / "text", TEXT)
    receiving = Receiving(storage, engine, compress="on")
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(Get(1, ("text",), True, True).encode(), Get(2, ("nothing",), False, False).encode())
    while not isinstance(raw.hear(), Put):
        pass
    raw.say(Accept(1, 0).encode())
    found = raw.hear()
    while not isinstance(found, Data):
        found = raw.hear()
    assert not found.is_frame
    raw.close()
    receiving.finish()


def test_whole_transfer_that_is_compressed_arrives(
    storage: Storage, engine: Engine, home: Path, tmp_path: Path
) -> None:
    content = TEXT * 7 + os.urandom(MIB + 7) + bytes(3 * MIB) + TEXT
    receiving = Receiving(storage, engine)
    sent = send(receiving, [item(written(tmp_path / "all", content))], Told(), "on")
    assert sent < 2 * MIB
    assert on_disk(home) == {"all": content}


# --- small files together ---------------------------------------------------------------------------------------------

SMALL = {f"s{number}": b"line %d of many that are nearly the same\n" % number * 400 for number in range(20)}


def batch(files: dict[str, bytes], contents: bytes, secret: bytes = FILE_SECRET) -> bytes:
    """A BATCH of these files, with anything as its contents."""
    told = tuple(BatchFile((name,), len(each), None, None, digest(each), True) for name, each in files.items())
    header = BatchHeader(2, b"r" * 16, "fail", told).body()
    into = memoryview(bytearray(BATCH_OVERHEAD + len(header) + len(contents)))
    write_batch(into, mac(secret, *batch_mac_input(header)), header, [contents])
    return bytes(into)


ALL = b"".join(SMALL.values())


def test_small_files_in_one_frame_are_stored(storage: Storage, engine: Engine, home: Path) -> None:
    hostile = Hostile(storage, engine)
    message = batch(SMALL, frame(ALL))
    assert len(message) < len(ALL) // 5
    hostile.raw.say(message, BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert isinstance(heard[0], Receipts) and {outcome.word for outcome in heard[0].outcomes} == {"stored"}
    assert on_disk(home) == {"good": b"12345", **SMALL}


@pytest.mark.parametrize(
    "contents",
    [
        pytest.param(frame(ALL)[:-1], id="cut"),
        pytest.param(frame(ALL)[:-3] + b"!!!", id="damaged"),
        pytest.param(frame(ALL) + b"\0", id="a byte behind it"),
        pytest.param(frame(ALL + b"x"), id="of more"),
        pytest.param(bomb(1 << 28), id="a bomb"),
        pytest.param(ALL[:-1], id="none"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_contents_that_are_no_frame_of_them_are_a_violation(
    storage: Storage, engine: Engine, home: Path, contents: bytes
) -> None:
    hostile = Hostile(storage, engine)
    hostile.raw.say(batch(SMALL, contents))
    heard, problem = hostile.finish()
    assert isinstance(problem, ProtocolViolation)
    assert heard == [Error(Code.PROTOCOL)]
    assert on_disk(home) == {"good": b"12345"}


def test_frame_of_a_batch_with_a_wrong_hmac_is_not_decoded(storage: Storage, engine: Engine, home: Path) -> None:
    hostile = Hostile(storage, engine)
    hostile.raw.say(batch(SMALL, frame(ALL)[:-3] + b"!!!", secret=b"x" * 32), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert isinstance(heard[0], Receipts) and {outcome.word for outcome in heard[0].outcomes} == {"integrity"}
    assert on_disk(home) == {"good": b"12345"}


@pytest.mark.parametrize("rate", [None, 100 * MIB])
def test_small_files_are_compressed_together(
    storage: Storage, engine: Engine, home: Path, tmp_path: Path, rate: int | None
) -> None:
    items = [item(written(tmp_path / name, content)) for name, content in SMALL.items()]
    items += [item(written(tmp_path / f"noise{number}", os.urandom(5_000))) for number in range(20)]
    receiving, told = Receiving(storage, engine), Told()
    sent = send(receiving, items, told, "on", rate=rate)
    assert sent < len(ALL) // 5 + 100_000 + 10_000
    assert set(told.outcomes().values()) == {"stored"} and len(told.receipts) == 40
    assert {name: (home / name).read_bytes() for name in SMALL} == SMALL


def test_small_files_are_fetched_compressed_by_who_reads_it(
    storage: Storage, engine: Engine, home: Path, tmp_path: Path
) -> None:
    for name, content in SMALL.items():
        written(home / "small" / name, content)
    for asks in (True, False):
        receiving = Receiving(storage, engine, compress="on")
        fetched = Fetch(engine, receiving.near, ["small"], f"{tmp_path}/{asks}/", zstd=asks)
        (tmp_path / f"{asks}").mkdir()
        fetched.run()
        assert (receiving.finish(), fetched.problem) == (None, None)
        assert {path.name: path.read_bytes() for path in (tmp_path / f"{asks}/small").iterdir()} == SMALL
        assert (receiving.channel.bytes_sent < len(ALL) // 2) is asks
