"""BATCH, both ways: each reader is fed what the document allows, and what it does not."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tables import each_row
from test_messages import (
    BAD_NAMES,
    HASH,
    ID,
    MAC,
    NEVER,
    NIL,
    NOT_A_FLAG,
    NOT_A_PATH,
    NOT_AN_INTEGER,
    SHA256,
    TIME,
    TRANSFER,
    body_of,
    not_a_word,
    not_bytes,
    outside,
    packed,
    refused,
)

from crypto_utils import Mac, digest
from sft.common.errors import Code, IntegrityError, ProtocolViolation, Refused
from sft.transfer.items import Item
from sft.transfer.outgoing_batch import OutgoingBatch, can_hold, space_for
from sft.wire.batch import (
    BATCH_OVERHEAD,
    BATCH_SPACE,
    Batch,
    BatchFile,
    BatchHeader,
    Outcome,
    Receipts,
    batch_mac_input,
    content_of,
    header_space,
    write_batch,
)
from sft.wire.messages import POLICIES, Kind, PolicyWord, split_record
from sft.wire.protocol import BATCH_CONTENT, BATCH_FILES, BATCH_HEADER_LIMIT, MAX_ID, MAX_INTEGER, MAX_MODE

FILES = (
    BatchFile(("a", "b.txt"), 5, 1700000000000000000, 0o640, SHA256, True),
    BatchFile(("offered",), 65536, None, None, MAC, False),
    BatchFile(("empty",), 0, -1, 0, SHA256, True),
)
HEADER = BatchHeader(MAX_ID, TRANSFER, "rename", FILES)


def body(header: bytes, contents: bytes = b"12345", announced: int | None = None) -> bytes:
    """Of a BATCH, by hand."""
    size = len(header) if announced is None else announced
    return size.to_bytes(4, "big") + MAC + header + contents


def batch_with(*files: BatchFile) -> bytes:
    """With as many zeros as its files have."""
    return body(BatchHeader(1, TRANSFER, "fail", files).body(), bytes(sum(f.size for f in files if f.with_content)))


def test_batch_both_ways() -> None:
    header = HEADER.body()
    message = b"\x11" + len(body(header)).to_bytes(4, "big") + body(header)
    space = memoryview(bytearray(BATCH_OVERHEAD + len(header) + 5))
    write_batch(space, MAC, header, [b"123", b"45", b""])
    assert bytes(space) == message
    ((kind, raw),) = split_record(space)
    read = body_of(kind, bytes(raw))
    assert isinstance(read, Batch)
    assert (read.id, read.transfer, read.policy, read.files) == (MAX_ID, TRANSFER, "rename", FILES)
    assert (read.mac, read.header, bytes(read.contents), read.not_allowed) == (MAC, header, b"12345", {})


def test_header_is_the_specifications() -> None:
    first = b"\x96\x92\xa1a\xa5b.txt\5\xcf\x17\x97\x9c\xfe\x36\x2a\0\0\xcd\1\xa0\xc4\x20" + SHA256 + b"\xc3"
    offered = b"\x96\x91\xa7offered\xce\0\1\0\0\xc0\xc0\xc4\x20" + MAC + b"\xc2"
    empty = b"\x96\x91\xa5empty\0\xff\0\xc4\x20" + SHA256 + b"\xc3"
    start = b"\x94\xce\xff\xff\xff\xff\xc4\x10" + TRANSFER + b"\xa6rename\x93"
    assert HEADER.body() == start + first + offered + empty


def test_mac_input_separates_its_parts() -> None:
    assert b"".join(batch_mac_input(b"(header)")) == b"sft1 batch" + b"\0\0\0\0\0\0\0\x08(header)"


FIELDS = [b"\1", b"\xc4\x10" + TRANSFER, b"\xa4fail"]
ONE = [b"\x91\xa1a", b"\0", NIL, NIL, b"\xc4\x20" + SHA256, b"\xc3"]
WRONG_OF_BATCH = [ID, [*not_bytes(16), NIL], [*not_a_word(*POLICIES), NIL]]
WRONG_OF_FILE = [
    *(NOT_A_PATH, [*NOT_AN_INTEGER, NIL, *outside(0, 65536)], TIME, [*NOT_AN_INTEGER, *outside(0, MAX_MODE)]),
    *([*HASH, NIL], NOT_A_FLAG),
]


def by_hand(fields: list[bytes], file: list[bytes], first: bytes = b"\x94", each: bytes = b"\x91\x96") -> bytes:
    return body(first + b"".join([*fields, each, *file]), b"")


def test_reject_every_wrong_value_in_every_field() -> None:
    assert isinstance(body_of(Kind.BATCH, by_hand(FIELDS, ONE)), Batch)
    for at, wrong in enumerate(WRONG_OF_BATCH):
        for bad in wrong:
            refused(Kind.BATCH, by_hand([*FIELDS[:at], bad, *FIELDS[at + 1 :]], ONE))
    for at, wrong in enumerate(WRONG_OF_FILE):
        for bad in wrong:
            refused(Kind.BATCH, by_hand(FIELDS, [*ONE[:at], bad, *ONE[at + 1 :]]))


def test_reject_other_shapes() -> None:
    for bad in NEVER:
        refused(Kind.BATCH, body(bad, b""))
    for first in (b"\x93", b"\x95", b"\xdc\0\4", b"\xdd\0\0\0\4", b"\x84", b""):
        refused(Kind.BATCH, by_hand(FIELDS, ONE, first=first))
    for each in (
        b"\x90",
        b"\x91",
        b"\x91\x95",
        b"\x91\x97",
        b"\x92\x96",
        b"\xdc\0\1\x96",
        b"\x91\xdc\0\6",
        b"\x81\x96",
    ):
        refused(Kind.BATCH, by_hand(FIELDS, ONE, each=each))
    refused(Kind.BATCH, body(b"\x94" + b"".join(FIELDS) + b"\x90", b""))
    refused(Kind.BATCH, body(packed([1, TRANSFER, "fail"]), b""))


def test_reject_batch_cut_at_any_byte_or_with_a_tail() -> None:
    whole = body(HEADER.body())
    for size in range(len(whole)):
        refused(Kind.BATCH, whole[:size])
    refused(Kind.BATCH, whole + b"\0")


@each_row("announced", [0, 1, -1, 1 << 16, (1 << 16) + 1, 1 << 31, (1 << 32) - 1])
def test_reject_header_of_another_size_than_it_says(announced: int) -> None:
    header = HEADER.body()
    refused(Kind.BATCH, body(header, announced=announced if announced >= 0 else len(header) - 1))


def test_contents_are_those_of_the_files_that_come_with_them() -> None:
    for contents in (b"", b"1234", b"123456", bytes(5 + 65536)):
        refused(Kind.BATCH, body(HEADER.body(), contents))


def test_batch_is_taken_up_to_its_borders_and_no_further() -> None:
    def files(count: int, size: int) -> list[BatchFile]:
        return [BatchFile((f"{number}",), size, None, None, SHA256, True) for number in range(count)]

    assert isinstance(body_of(Kind.BATCH, batch_with(*files(512, 0))), Batch)
    refused(Kind.BATCH, batch_with(*files(513, 0)))
    assert isinstance(body_of(Kind.BATCH, batch_with(*files(16, 65536))), Batch)
    refused(Kind.BATCH, batch_with(*files(16, 65536), BatchFile(("more",), 1, None, None, SHA256, True)))
    many = [BatchFile((f"{number:0250}",), 0, None, None, SHA256, True) for number in range(200)]
    space = BATCH_HEADER_LIMIT - len(BatchHeader(1, TRANSFER, "fail", tuple(many)).body())
    while space > 0:
        one = replace(many[0], path=(f"{len(many):0{min(250, max(32, space - 44))}}",))
        many.append(one)
        space = BATCH_HEADER_LIMIT - len(BatchHeader(1, TRANSFER, "fail", tuple(many)).body())
    refused(Kind.BATCH, batch_with(*many))
    assert isinstance(body_of(Kind.BATCH, batch_with(*many[:-1])), Batch)


@each_row("with_content", [True, False])
@each_row("path", [("a",), ("d", "a"), ("..",)])
def test_reject_path_that_is_twice_in_a_batch(path: tuple[str, ...], with_content: bool) -> None:
    first, other = BatchFile(path, 0, None, None, SHA256, True), BatchFile(("b",), 0, None, None, SHA256, True)
    refused(Kind.BATCH, batch_with(first, other, replace(first, with_content=with_content)))


@pytest.mark.parametrize("with_content", [True, False])
def test_batch_counts_as_what_is_hashed_for_it(with_content: bool) -> None:
    files = [BatchFile((f"{number}",), 1000, None, None, SHA256, with_content) for number in range(4)]
    assert content_of(body_of(Kind.BATCH, batch_with(*files))) == 4000


@each_row("name", BAD_NAMES)
def test_path_that_is_not_allowed_is_the_trouble_of_its_file_alone(name: str) -> None:
    files = [BatchFile(path, 0, None, None, SHA256, True) for path in (("a",), ("a", name), (name, "a"), ("b",), ())]
    read = body_of(Kind.BATCH, batch_with(*files))
    assert isinstance(read, Batch)
    assert sorted(read.not_allowed) == [1, 2, 4]
    assert all(read.not_allowed.values())


# --- What goes into one, and what its answer may say ------------------------------------------------------------------


class Source:
    """A file that was read."""

    size, mtime, mode = 3, 5, 0o777


def batch_of(*items: Item, space: int = BATCH_SPACE, content: bytes = b"abc") -> OutgoingBatch:
    batch = OutgoingBatch(space)
    for item in items:
        assert takes(batch, item, content)
    return batch


def takes(batch: OutgoingBatch, item: Item, content: bytes = b"") -> bool:
    return batch.add(item, Source(), content)  # type: ignore[arg-type]


def item(*path: str, policy: PolicyWord = "fail", offer: bool = False) -> Item:
    made = Item("/".join(path), path, policy, None)
    made.offer = offer
    return made


def test_batch_has_room_up_to_its_borders() -> None:
    batch = batch_of(*(item(f"{number}") for number in range(BATCH_FILES)))
    assert not takes(batch, item("more")) and batch.count == BATCH_FILES
    full = batch_of(*(item(f"{number}") for number in range(15)), content=bytes(65536))
    assert full.content_size + 65536 <= BATCH_CONTENT
    assert takes(full, item("more"), bytes(65536))
    assert not takes(full, item("other"), b"1")
    assert takes(full, item("offered", offer=True), bytes(65536))
    assert not takes(batch_of(item("a")), item("b", policy="skip"))


def test_two_sources_of_one_path_go_into_different_batches() -> None:
    batch = batch_of(item("d", "a"))
    assert not takes(batch, item("d", "a")) and not takes(batch, item("d", "a", offer=True))
    assert takes(batch, item("d", "b"))


def test_batch_that_is_sent_counts_as_what_was_hashed_for_it() -> None:
    assert batch_of(item("a"), item("b", offer=True)).hashed_size == 6


def test_what_is_estimated_of_a_header_is_never_too_little() -> None:
    longest = item(*["n" * 15] * 255)
    batch = batch_of(longest, item("\U0001f600" * 60, "é"), item("a"))
    spaces: list[memoryview] = []

    def space(size: int) -> memoryview:
        spaces.append(memoryview(bytearray(size)))
        return spaces[-1]

    paths = [each.target for each in batch.items]
    size = batch.write(space, MAX_ID, TRANSFER, Mac(bytes(32)))
    assert size == len(spaces[0])
    assert size - BATCH_OVERHEAD - 9 <= 48 + sum(map(header_space, paths))


def test_limited_sender_fills_no_batch_beyond_its_piece() -> None:
    space = space_for(2048)
    assert space == 2048 - BATCH_OVERHEAD
    assert can_hold(item("a"), 1800, space) and not can_hold(item("a"), 2000, space)
    assert not can_hold(item("a"), 65537, BATCH_SPACE) and can_hold(item("a"), 65536, BATCH_SPACE)
    batch = batch_of(item("a"), space=space, content=bytes(1500))
    assert not takes(batch, item("b"), bytes(500))


def answer(*outcomes: Outcome, sha256: bytes) -> Receipts:
    return Receipts(1, 7, sha256, outcomes)


def of(*contents: bytes) -> bytes:
    return digest(b"".join(map(digest, contents)))


STORED, ALREADY, SKIPPED, WANTED = (Outcome(word) for word in ("stored", "already", "skipped", "wanted"))


def test_answer_tells_what_became_of_each_file() -> None:
    batch = batch_of(item("a"), item("d", "b"), item("c"), item("o", offer=True), item("w", offer=True))
    outcomes = (STORED, Outcome("stored", "b.1"), Outcome("quota"), ALREADY, WANTED)
    results, wanted = batch.answered(answer(*outcomes, sha256=of(b"abc", b"abc", b"abc")))
    assert [each.target for each in wanted] == [("w",)]
    assert [became.code if isinstance(became, Refused) else became.path for _, became in results] == [
        *(("a",), ("d", "b.1"), Code.QUOTA, ("o",)),
    ]


LIES: dict[str, Callable[[], object]] = {
    "another digest": lambda: batch_of(item("a")).answered(answer(STORED, sha256=of(b"abd"))),
    "digest of nothing": lambda: batch_of(item("a")).answered(answer(STORED, sha256=of())),
    "digest of one that failed": lambda: batch_of(item("a")).answered(answer(Outcome("quota"), sha256=of(b"abc"))),
    "skipped without being asked": lambda: batch_of(item("a")).answered(answer(SKIPPED, sha256=of())),
    "another name with replace": lambda: batch_of(item("a", policy="replace")).answered(
        answer(Outcome("stored", "b"), sha256=of(b"abc"))
    ),
    "a name that makes the path too long": lambda: batch_of(item(*["n" * 250] * 16, "a")).answered(
        answer(Outcome("stored", "n" * 255), sha256=of(b"abc"))
    ),
}


@each_row("lie", LIES)
def test_answer_that_lies_is_no_delivery(lie: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        LIES[lie]()
    assert not isinstance(caught.value, ProtocolViolation)


@each_row(
    ("outcomes", "offer"),
    [((), False), ((STORED, STORED), False), ((WANTED,), False), ((STORED,), True), ((Outcome("stored", "b"),), True)],
)
def test_answer_that_does_not_fit_is_a_violation(outcomes: tuple[Outcome, ...], offer: bool) -> None:
    with pytest.raises(ProtocolViolation):
        batch_of(item("a", offer=offer)).answered(answer(*outcomes, sha256=of(b"abc")))


@given(st.binary(max_size=300), st.integers(0, 300), st.integers(0, 255))
def test_damaged_batch_is_read_or_refused(tail: bytes, at: int, byte: int) -> None:
    whole = bytearray(body(HEADER.body()))
    whole[at % len(whole)] = byte
    for raw in (bytes(whole), bytes(whole[: at % len(whole)]) + tail):
        try:
            read = body_of(Kind.BATCH, raw)
        except ProtocolViolation:
            continue
        assert isinstance(read, Batch)
        assert msgspec.msgpack.encode(BatchHeader(read.id, read.transfer, read.policy, read.files)) == read.header
        assert read.id <= MAX_ID and all(abs(file.mtime or 0) <= MAX_INTEGER for file in read.files)
