"""docs/PROTOCOL.md against the code: its worked example is what both ends really say, and its formulas lead there.

Three witnesses: the project's own code makes every value anew; a speaker of the protocol written here from the
document's formulas, with nothing of the project's, comes to the same values; and the bytes of the document, sent as
they stand there, pass for a client to the real server's half and for a server to the real client's. The exchanges
of its sections 16, 18 and 19 are played against the real server, too.
"""

import contextlib
import hashlib
import hmac
import json
import os
import re
import socket
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from Crypto.Cipher import AES
from Crypto.Hash import CMAC
from frames import zstd
from peers import C2S, FILE_SECRET, S2C, Raw, data, end
from source_files import open_source

from crypto_utils import RecordCipher
from sft.common.errors import Code, TransferError
from sft.common.rate_limit import RateLimiter
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from sft.server.requests import Requests
from sft.transfer.events import BatchSettled, Failed, Missed, NotGiven, ReceiveEvent, Rejected, SendEvent
from sft.transfer.items import Item
from sft.transfer.sender import Sender
from sft.wire.batch import Batch, BatchHeader
from sft.wire.channel import Channel
from sft.wire.content import Data
from sft.wire.handshake import ClientHandshake, SessionKeys
from sft.wire.messages import (
    _DECODERS,
    Cancel,
    Control,
    Kind,
    Message,
    Put,
    Receipt,
    decode_message,
    encode_message,
)
from sft.wire.workers import Engine
from tools import worked_example
from tools.worked_example import DOCUMENT, read_blocks

TEXT = DOCUMENT.read_text("utf-8")
TOLD = read_blocks(TEXT)
W0, W1 = (int.from_bytes(TOLD[name], "big") for name in ("w0", "w1"))

Point = tuple[int, int]

# --- the document against the code ------------------------------------------------------------------------------------


def test_the_document_holds_exactly_the_values_that_the_code_makes() -> None:
    made = {block.label: block.value for block in worked_example.blocks()}
    assert list(TOLD) == list(made)
    for label, value in made.items():
        assert TOLD[label] == value, label


def test_every_block_of_the_example_is_read() -> None:
    values = TEXT.split("<!-- values: begin -->")[1].split("<!-- values: end -->")[0]
    assert values.count("```\n") == 2 * len(TOLD)


def test_no_line_of_a_block_is_too_long() -> None:
    assert max(len(line) for line in TEXT.splitlines() if re.fullmatch("[0-9a-f]+", line)) <= 100


def test_a_changed_digit_is_noticed() -> None:
    changed = TEXT.replace(TOLD["K_main"].hex(), TOLD["K_shared"].hex())
    assert read_blocks(changed) != TOLD


def test_a_changed_size_is_noticed() -> None:
    with pytest.raises(ValueError, match="K_main"):
        read_blocks(TEXT.replace("K_main: 32 bytes", "K_main: 33 bytes"))


def _section(number: int) -> str:
    return TEXT.split(f"\n## {number}. ")[1].split("\n## ")[0]


def test_the_table_of_messages_is_the_codes_own() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z]+) \| \w+ \| (.*) \|$", _section(12), re.MULTILINE)
    assert {name: int(number) for number, name, _ in rows} == {kind.name: kind.value for kind in Kind}
    for number, name, body in rows:
        decoder = _DECODERS.get(int(number))
        shape = BatchHeader if name == "BATCH" else decoder.type if decoder else None
        assert re.findall(r"`(\w+)`", body) == (list(shape.__struct_fields__) if shape else []), name


def test_the_table_of_codes_is_the_codes_own() -> None:
    assert re.findall(r"^\| `([a-z-]+)` \|", _section(23), re.MULTILINE) == [code.value for code in Code]


def test_the_example_of_the_notation_is_what_the_code_writes() -> None:
    shown, body, whole = re.findall(r"`([^`]+)`", _section(13).split("**Notation.**")[1])[-3:]
    cancel = Cancel(*msgspec.convert(_values(shown), tuple[int, Code | None]))
    assert (cancel.body(), cancel.encode()) == (bytes.fromhex(body), bytes.fromhex(whole))


def test_every_header_of_the_document_and_no_other_is_written() -> None:
    """The table of section 13, by the first byte."""
    table = re.findall(r"^\| [^|]+ \| ([^|]+) \|", _section(13), re.MULTILINE)[1:]
    named = {int(digits, 16) for row in table for digits in re.findall(r"`([0-9a-f]{2})`", row)}
    integers = (128, 2**8, 2**16, 2**32, 2**63 - 1, -33, -(2**7) - 1, -(2**15) - 1, -(2**31) - 1, 1 - 2**63)
    values: tuple[object, ...] = (None, False, True, *integers, "", "a" * 32, "a" * 256, bytes(16), [], [0] * 16)
    assert named - {0x00, 0x7F, 0xE0, 0xFF} == {msgspec.msgpack.encode(value)[0] for value in values}


# --- the document against itself: its formulas, with hashlib, hmac, AES and arithmetic alone -----------------------


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def _extract(salt: bytes, ikm: bytes) -> bytes:
    return _hmac(salt or bytes(32), ikm)


def _expand(prk: bytes, info: bytes, size: int = 32) -> bytes:
    first = _hmac(prk, info + b"\x01")
    return first if size == 32 else first + _hmac(prk, first + info + b"\x02")


def _le64(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data


def _frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


# P-256, as plainly as it can be written: y^2 = x^3 - 3x + b modulo p. The identity does not come up.
_p = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
_n = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_P = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def _add(one: Point, other: Point) -> Point:
    if one == other:
        slope = (3 * one[0] * one[0] - 3) * pow(2 * one[1], -1, _p)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, _p)
    x = (slope * slope - one[0] - other[0]) % _p
    return x, (slope * (one[0] - x) - one[1]) % _p


def _times(scalar: int, point: Point) -> Point:
    total: Point | None = None
    while scalar:
        if scalar & 1:
            total = point if total is None else _add(total, point)
        scalar >>= 1
        if scalar:
            point = _add(point, point)
    if total is None:
        raise ValueError("the identity")
    return total


def _minus(point: Point) -> Point:
    return point[0], -point[1] % _p


def _encode(point: Point) -> bytes:
    return b"\x04" + point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")


def _decode(point: bytes) -> Point:
    return int.from_bytes(point[1:33], "big"), int.from_bytes(point[33:], "big")


def _constant(name: str) -> bytes:
    """A point that section 8 prints."""
    found = re.search(rf"^    {name} = ([0-9a-f]+)\n +([0-9a-f]+)$", _section(8), re.MULTILINE)
    assert found is not None
    return bytes.fromhex(found[1] + found[2])


def test_section_6_leads_to_w0_and_w1() -> None:
    password = unicodedata.normalize("NFC", TOLD["password_typed"].decode()).encode()
    assert password == TOLD["password_nfc"]
    entered = _le64(password) + _le64(b"alice") + _le64(b"secure-file-transfer receiver v1")
    assert entered == TOLD["scrypt_input"]
    stretched = hashlib.scrypt(entered, salt=TOLD["salt"], n=2**15, r=8, p=3, dklen=80, maxmem=64 << 20)
    assert stretched == TOLD["scrypt_output"]
    assert (int.from_bytes(stretched[:40], "big") % _n, int.from_bytes(stretched[40:], "big") % _n) == (W0, W1)


def test_sections_4_and_5_lead_to_frames_1_and_2() -> None:
    assert TOLD["frame_1"][:-1184] == bytes.fromhex("000004b0") + b"SFTlogin" + b"\x01\x01" + b"\x05alice"
    assert TOLD["frame_2"] == _frame(b"\x00\x01\x01" + TOLD["salt"] + TOLD["kem_ciphertext"])


def test_section_7_leads_to_ss_pq() -> None:
    suite_id = b"HPKE" + bytes.fromhex("0041 0001 ffff")
    psk_id_hash = _extract(b"", b"HPKE-v1" + suite_id + b"psk_id_hash")
    info_hash = _extract(b"", b"HPKE-v1" + suite_id + b"info_hash" + b"secure-file-transfer v1 kem")
    context = b"\x00" + psk_id_hash + info_hash
    secret = _extract(TOLD["kem_secret"], b"HPKE-v1" + suite_id + b"secret")
    exporter_secret = _expand(secret, b"\x00\x20" + b"HPKE-v1" + suite_id + b"exp" + context)
    assert suite_id == TOLD["hpke_suite_id"]
    assert (psk_id_hash, info_hash) == (TOLD["hpke_psk_id_hash"], TOLD["hpke_info_hash"])
    assert (secret, exporter_secret) == (TOLD["hpke_secret"], TOLD["hpke_exporter_secret"])
    assert _expand(exporter_secret, b"\x00\x20" + b"HPKE-v1" + suite_id + b"sec" + b"sft1 ss_pq") == TOLD["ss_pq"]


def test_section_8_leads_to_the_shares_and_confirmations() -> None:
    M, N = _constant("M"), _constant("N")
    x, y = (int.from_bytes(TOLD[name], "big") % _n for name in ("x_draw", "y_draw"))
    w0M, w0N, L = _times(W0, _decode(M)), _times(W0, _decode(N)), _times(W1, _P)
    assert [_encode(point) for point in (L, w0M, w0N)] == [TOLD[name] for name in ("L", "w0M", "w0N")]
    X, Y = _add(_times(x, _P), w0M), _add(_times(y, _P), w0N)
    shareP, shareV = _encode(X), _encode(Y)
    assert (_frame(shareP), shareV) == (TOLD["frame_3"], TOLD["shareV"])
    Z, V = _times(y, _add(X, _minus(w0M))), _times(y, L)
    unblinded = _add(Y, _minus(w0N))
    assert (_times(x, unblinded), _times(W1, unblinded)) == (Z, V)
    assert (_encode(Z), _encode(V)) == (TOLD["Z"], TOLD["V"])

    context = b"secure-file-transfer v1 login" + TOLD["frame_1"] + TOLD["frame_2"] + TOLD["ss_pq"]
    assert hashlib.sha256(context).digest() == TOLD["context_sha256"]
    identities = (b"alice", b"secure-file-transfer receiver v1")
    items = (context, *identities, M, N, shareP, shareV, _encode(Z), _encode(V), W0.to_bytes(32, "big"))
    K_main = hashlib.sha256(b"".join(map(_le64, items))).digest()
    prk = _extract(b"", K_main)
    confirmation = _expand(prk, b"ConfirmationKeys", 64)
    assert K_main == TOLD["K_main"]
    assert confirmation == TOLD["K_confirmP"] + TOLD["K_confirmV"]
    assert _expand(prk, b"SharedKey") == TOLD["K_shared"]
    assert _hmac(confirmation[32:], shareP) == TOLD["confirmV"]
    assert TOLD["frame_4"] == _frame(shareV + TOLD["confirmV"])
    assert TOLD["frame_5"] == _frame(_hmac(confirmation[:32], shareV))


def test_section_10_leads_to_the_keys() -> None:
    transcript_hash = hashlib.sha256(b"".join(TOLD[f"frame_{number}"] for number in range(1, 6))).digest()
    prk = _extract(transcript_hash, TOLD["K_shared"] + TOLD["ss_pq"])
    assert (transcript_hash, prk) == (TOLD["transcript_hash"], TOLD["prk"])
    for way in ("c2s", "s2c"):
        assert _expand(prk, f"sft1 {way}".encode()) == TOLD[f"secret_{way}"]
        assert _expand(prk, f"sft1 file {way}".encode()) == TOLD[f"file_key_{way}"]
        assert _expand(TOLD[f"secret_{way}"], b"epoch" + bytes(8)) == TOLD[f"record_key_{way}"]


def _eax(key: bytes, number: int, text: bytes) -> bytes:
    """Section 11: a record, put together from AES-CTR and CMAC."""

    def omac(t: int, data: bytes) -> bytes:
        return CMAC.new(key, t.to_bytes(16, "big") + data, ciphermod=AES).digest()

    header = (len(text) + 16).to_bytes(4, "big")
    start = omac(0, number.to_bytes(8, "big"))
    sealed = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=start).encrypt(text)
    tags = zip(start, omac(1, header), omac(2, sealed), strict=True)
    return header + sealed + bytes(one ^ two ^ three for one, two, three in tags)


_TIME = (1700000001000000000).to_bytes(8, "big")


def test_sections_11_to_20_lead_to_the_records() -> None:
    body = b"\x99\x01" + b"\xc4\x10" + TOLD["transfer_id"] + b"\x91\xa9hello.txt" + b"\xa4file" + b"\x0e"
    body += b"\xcf" + (1700000000000000000).to_bytes(8, "big") + b"\xcd" + (420).to_bytes(2, "big") + b"\xa4fail\xc0"
    assert body == TOLD["put_body"]
    content = b"Hello, world!\n"
    sha256 = hashlib.sha256(content).digest()
    mac_input = b"sft1 file" + len(body).to_bytes(8, "big") + body + (14).to_bytes(8, "big") + sha256
    proof = _hmac(TOLD["file_key_c2s"], mac_input)
    assert (sha256, mac_input, proof) == (TOLD["content_sha256"], TOLD["end_mac_input"], TOLD["end_mac"])
    assert TOLD["put_message"] == b"\x01" + _frame(body)
    assert TOLD["data_message"] == b"\x02" + _frame(
        (1).to_bytes(4, "big") + bytes(8) + (14).to_bytes(4, "big") + content
    )
    assert TOLD["end_message"] == b"\x03" + _frame(b"\x94\x01\x0e\xc4\x20" + sha256 + b"\xc4\x20" + proof)
    receipt = b"\x96\x01\x91\xa9hello.txt\x0e\xc4\x20" + sha256 + b"\xcf" + _TIME + b"\xa6stored"
    assert TOLD["receipt_message"] == b"\x08" + _frame(receipt)


def test_batch_and_its_receipts_are_made_of_the_documents_bytes() -> None:
    content = b"Hello, world!\n"
    sha256 = hashlib.sha256(content).digest()
    file = b"\x96\x91\xa9hello.txt\x0e\xcf" + (1700000000000000000).to_bytes(8, "big") + b"\xcd\x01\xa4"
    file += b"\xc4\x20" + sha256 + b"\xc3"
    header = b"\x94\x01\xc4\x10" + bytes(range(0x70, 0x80)) + b"\xa4fail\x91" + file
    mac_input = b"sft1 batch" + len(header).to_bytes(8, "big") + header
    proof = _hmac(TOLD["file_key_c2s"], mac_input)
    assert (header, mac_input, proof) == (TOLD["batch_header"], TOLD["batch_mac_input"], TOLD["batch_mac"])
    body = len(header).to_bytes(4, "big") + proof + header + content
    assert TOLD["client_record_0_text"] == b"\x11" + _frame(body)
    there = hashlib.sha256(sha256).digest()
    receipts = b"\x94\x01\xcf" + _TIME + b"\xc4\x20" + there + b"\x91\x92\xa6stored\xc0"
    assert (there, TOLD["server_record_0_text"]) == (TOLD["receipts_sha256"], b"\x12" + _frame(receipts))


def test_records_are_sealed_with_the_keys_of_their_epochs() -> None:
    assert TOLD["bye_message"] == b"\x0e" + bytes(4)
    for way, end_name in (("c2s", "client"), ("s2c", "server")):
        key = TOLD[f"record_key_{way}"]
        assert _eax(key, 0, TOLD[f"{end_name}_record_0_text"]) == TOLD[f"{end_name}_record_0"]
        assert _eax(key, 1, TOLD["bye_message"]) == TOLD[f"{end_name}_record_1"]


def test_section_19_leads_to_tree_and_branch() -> None:
    time = b"\xcf" + (1700000000000000000).to_bytes(8, "big")
    tree = b"\x94\x01" + b"\x91\xa5inbox" + b"\xc0\xc2"
    folder = b"\x98\x01" + b"\xa4docs" + b"\xa6folder" + b"\x00" + time + b"\xcd\x01\xed" + b"\xc0\xc0"
    file = b"\x98\x02" + b"\xa5a.txt" + b"\xa4file" + b"\x0e" + time + b"\xcd\x01\xa4" + b"\xc0\xc0"
    link = b"\x98\x01" + b"\xa6latest" + b"\xa4link" + b"\x00" + time + b"\xcd\x01\xff" + b"\xaadocs/a.txt\xc0"
    assert TOLD["tree_message"] == b"\x13" + _frame(tree)
    assert TOLD["branch_message"] == b"\x14" + _frame(b"\x93\x01" + b"\x93" + folder + file + link + b"\xc2")


def test_section_12_leads_to_data_of_zeros_and_with_a_frame() -> None:
    zeros, size = (65_536).to_bytes(4, "big"), (4_400).to_bytes(4, "big")
    assert TOLD["data_of_zeros"] == b"\x02" + _frame((2).to_bytes(4, "big") + bytes(8) + zeros)
    message = TOLD["data_with_a_frame"]
    assert message[5:21] == (2).to_bytes(4, "big") + bytes(4) + zeros + size
    assert message[:5] == b"\x02" + (len(message) - 5).to_bytes(4, "big")
    assert zstd.decompress(message[21:]) == b"All work and no play makes Jack a dull boy.\n" * 100
    read = decode_message(message[0], memoryview(message)[5:])
    assert isinstance(read, Data) and read.is_frame
    assert read.plain() == zstd.decompress(message[21:])


def test_section_26_leads_to_its_questions_and_answers() -> None:
    time = b"\xcf" + (1700000000000000000).to_bytes(8, "big")
    used = b"\xce" + (70_526).to_bytes(4, "big") + b"\x03"
    limits = b"\xce" + (1_000_000).to_bytes(4, "big") + b"\xc0" + b"\xcf" + (52_000_000_000).to_bytes(8, "big")
    assert TOLD["usage_message"] == b"\x17" + _frame(b"\x91\x01")
    assert TOLD["amounts_message"] == b"\x18" + _frame(b"\x96\x01" + used + limits)
    assert TOLD["move_message"] == b"\x16" + _frame(b"\x93\x02\x92\xa4docs\xa5a.txt\x91\xa5b.txt")
    assert TOLD["done_message"] == b"\x1a" + _frame(b"\x92\x02\x01")
    assert TOLD["set_message"] == b"\x19" + _frame(b"\x94\x03\x91\xa5b.txt" + time + b"\xc0")
    assert TOLD["remove_message"] == b"\x15" + _frame(b"\x93\x04\x91\xa4docs\xc3")


def test_section_11_leads_to_the_record_of_the_next_epoch() -> None:
    number = 1 << 20
    key = _expand(TOLD["secret_c2s"], b"epoch" + (number // 2**20).to_bytes(8, "big"))
    assert key == TOLD["record_key_c2s_epoch_1"]
    assert key != TOLD["record_key_c2s"]
    assert _eax(key, number, TOLD["bye_message"]) == TOLD["client_record_1048576"]
    assert _open(TOLD["secret_c2s"], number, TOLD["client_record_1048576"]) == TOLD["bye_message"]


# --- the document against the other end: its bytes, sent as they stand there ---------------------------------------


@contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection on this host."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname(), timeout=10)
        other, _ = listener.accept()
        other.settimeout(10)
    with one, other:
        yield one, other


def _receive(sock: socket.socket) -> bytes:
    """One whole frame; nothing at the end of the stream."""
    with sock.makefile("rb", buffering=0) as stream:
        header = _exactly(stream.read, 4)
        return header + _exactly(stream.read, int.from_bytes(header, "big"))


def _exactly(read: Callable[[int], bytes | None], size: int) -> bytes:
    got = b""
    while len(got) < size and (piece := read(size - len(got))):
        got += piece
    return got


def _open(secret: bytes, number: int, record: bytes) -> bytes:
    text = bytearray(record[4:-16])
    RecordCipher(secret).open(number, record[:4], memoryview(text), record[-16:])
    return bytes(text)


def _refuse_nothing(event: ReceiveEvent) -> None:
    assert not isinstance(event, Rejected | NotGiven | Missed), event


@contextmanager
def _serving(root: Path, sock: socket.socket, keys: SessionKeys, engine: Engine) -> Iterator[None]:
    """Alice's connection to the real server, behind the login; waits for its end."""
    storage = Storage(root, Rules(portable_names=True))
    folder = storage.user("alice")
    channel = Channel(sock, keys.s2c, keys.c2s, engine)
    requests = Requests(channel, keys, folder, lambda right: None, lambda *words: None, RateLimiter(None))

    def serve() -> None:
        try:
            with contextlib.suppress(TransferError):
                requests.run(_refuse_nothing, lambda event: None)
        finally:
            channel.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)
        folder.close()
        storage.close()
    assert not thread.is_alive()


def test_the_client_of_the_document_delivers_its_file_to_the_real_server(tmp_path: Path, engine: Engine) -> None:
    server = worked_example.server_half(W0, W1)
    with worked_example.fixed_encapsulation(TOLD["ss_pq"]):
        assert server.hello(TOLD["frame_1"]) == (TOLD["frame_2"], True)
    assert server.respond(TOLD["frame_3"]) == TOLD["frame_4"]
    keys = server.finish(TOLD["frame_5"])
    with _pair() as (mine, its), _serving(tmp_path, its, keys, engine):
        mine.sendall(TOLD["client_record_0"] + TOLD["client_record_1"])
        said, number = b"", 0
        while record := _receive(mine):
            said += _open(TOLD["secret_s2c"], number, record)
            number += 1
        mine.close()
    assert (tmp_path / "alice" / "hello.txt").read_bytes() == b"Hello, world!\n"
    assert (tmp_path / "alice" / "hello.txt").stat().st_mtime_ns == 1700000000000000000
    before, after = TOLD["server_record_0_text"].split((1700000001000000000).to_bytes(8, "big"))
    assert said[: len(before)] == before
    assert said[len(before) + 8 :] == after + TOLD["bye_message"]


class _Told:
    """What the sender tells of its files."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []

    def __call__(self, event: SendEvent) -> None:
        assert not isinstance(event, Failed), event
        if isinstance(event, BatchSettled):
            self.receipts += [became for _, became in event.files if isinstance(became, Receipt)]


def test_the_real_client_says_what_the_client_of_the_document_says(tmp_path: Path, engine: Engine) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"Hello, world!\n")
    source.chmod(0o644)
    os.utime(source, ns=(0, 1700000000000000000))
    draws = worked_example.client_draws()
    client = ClientHandshake("alice", lambda salt, profile: (W0, W1), draws)
    assert client.hello() == TOLD["frame_1"]
    assert client.share(TOLD["frame_2"]) == TOLD["frame_3"]
    confirm, keys = client.confirm(TOLD["frame_4"])
    assert confirm == TOLD["frame_5"]
    told = _Told()
    said: list[bytes] = []
    with _pair() as (mine, its):

        def serve() -> None:
            for number in range(2):
                said.append(_receive(mine))
                if said[number] != TOLD[f"client_record_{number}"]:
                    break
                mine.sendall(TOLD[f"server_record_{number}"])
            mine.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve)
        thread.start()
        channel = Channel(its, keys.c2s, keys.s2c, engine)
        try:
            item, limiter = Item("source", ("hello.txt",), "fail", lambda: open_source(source)), RateLimiter(None)
            Sender(channel, channel.messages(), keys.file_c2s, told, limiter, transfer=draws(16)).run([item])
        finally:
            channel.close()
            thread.join(10)
    assert said == [TOLD["client_record_0"], TOLD["client_record_1"]]
    sha256, time = TOLD["content_sha256"], int.from_bytes(_TIME, "big")
    assert told.receipts == [Receipt(1, ("hello.txt",), 14, sha256, time, "stored")]


# --- the exchanges of the document, played against the real server ---------------------------------------------------

Line = tuple[str, str, str]
_MTIME = 1700000000000000000
_TRANSFER = bytes(range(16))


def _exchange(number: int, which: int = 0) -> list[list[Line]]:
    """(way, type, what) of the messages of a section's exchange; those that go one way after each other together."""
    block = _section(number).split("```\n")[1 + 2 * which].replace("\n    ", " ")
    lines = [re.fullmatch(r"(c2s|s2c)  ([A-Z]+) *(.*)", line) for line in block.splitlines()]
    runs: list[list[Line]] = []
    for line in lines:
        assert line is not None
        said = (line[1], line[2], line[3])
        if not runs or runs[-1][0][0] != said[0]:
            runs.append([])
        runs[-1].append(said)
    return runs


def _values(what: str) -> list[Any]:
    """The values of a body in the document's notation, with `…` for those that it leaves out."""
    values: list[Any] = json.loads(what.replace("h'…'", "…").replace("…", '"…"').replace("nil", "null"))
    return values


def _names(kind: str) -> tuple[str, ...]:
    names: tuple[str, ...] = _DECODERS[Kind[kind]].type.__struct_fields__
    return names


def _is_said(line: Line, message: Message | None) -> bool:
    """Whether the document's line is this message, whatever stands where it has only `…`."""
    _, name, what = line
    if isinstance(message, Data):
        return (name, what) == ("DATA", f"id {message.id}, offset {message.offset}, {message.size} bytes")
    if isinstance(message, Batch):
        return name == "BATCH" and _is_like(_values(what), msgspec.msgpack.decode(message.header))
    if not isinstance(message, Control):
        return type(message).__name__.upper() == name
    return message.KIND.name == name and _is_like(_values(what), msgspec.msgpack.decode(message.body()))


def _is_like(told: Any, said: Any) -> bool:
    if isinstance(told, list):
        return len(told) == len(said) and all(map(_is_like, told, said))
    return told in ("…", said)


class _Client:
    """Says what the document's client says, with the values that it leaves out."""

    def __init__(self, contents: dict[int, bytes]) -> None:
        self._contents = contents
        self._puts: dict[int, Put] = {}

    def message(self, line: Line) -> bytes:
        _, name, what = line
        if name == "BYE":
            return encode_message(Kind.BYE, b"")
        if name == "DATA":
            id, offset, size = map(int, re.findall(r"\d+", what))
            return data(id, offset, self._contents[id][offset : offset + size])
        fields = dict(zip(_names(name), _values(what), strict=True))
        content = self._contents.get(fields["id"], b"")[: fields.get("size")]
        given = {"sha256": hashlib.sha256(content).digest(), "time": 1, "transfer": _TRANSFER}
        if name == "RECEIPTS":  # of a BATCH of one file
            given["sha256"] = hashlib.sha256(given["sha256"]).digest()  # type: ignore[arg-type]
        if name == "END":
            given["mac"] = end(self._puts[fields["id"]], content).mac
        values = [given[field] if value == "…" else value for field, value in fields.items()]
        whole = encode_message(Kind[name], msgspec.msgpack.encode(values))
        message = decode_message(Kind[name], memoryview(whole)[5:])
        if isinstance(message, Put):
            self._puts[message.id] = message
        return whole


def _keys() -> SessionKeys:
    return SessionKeys(C2S, S2C, FILE_SECRET, FILE_SECRET)


def _play(number: int, root: Path, contents: dict[int, bytes], engine: Engine, which: int = 0) -> None:
    client = _Client(contents)
    with _pair() as (mine, its), _serving(root, its, _keys(), engine):
        raw = Raw(mine, C2S, S2C)
        for run in _exchange(number, which):
            if run[0][0] == "c2s":
                raw.say(*map(client.message, run))
                continue
            heard = [raw.hear() for _ in run]
            for line in run:
                found = next((message for message in heard if _is_said(line, message)), None)
                assert found is not None, (line, heard)
                heard.remove(found)
        raw.stop()
        assert raw.hear() is None


def _file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
    os.utime(path, ns=(_MTIME, _MTIME))


def _inbox(root: Path) -> tuple[bytes, bytes]:
    """What the exchanges of sections 18, 19 and 26 find at the server."""
    inbox = root / "alice" / "inbox"
    inbox.mkdir(parents=True)
    contents = b"small\n", os.urandom(70_000)
    _file(inbox / "a.txt", contents[0])
    _file(inbox / "b.bin", contents[1])
    inbox.chmod(0o755)
    os.utime(inbox, ns=(_MTIME, _MTIME))
    return contents


def test_the_exchange_of_section_15_is_what_the_real_server_says(tmp_path: Path, engine: Engine) -> None:
    _play(15, tmp_path, {}, engine)
    link = tmp_path / "alice" / "latest"
    assert (os.readlink(link), link.lstat().st_mtime_ns) == ("inbox/b.bin", _MTIME)


def test_the_exchange_of_section_16_is_what_the_real_server_says(tmp_path: Path, engine: Engine) -> None:
    photo, backup = os.urandom(100_000), os.urandom(1_500_000)
    (tmp_path / "alice").mkdir()
    _file(tmp_path / "alice" / "photo.raw", photo)
    with _pair() as (mine, its), _serving(tmp_path, its, _keys(), engine):
        raw = Raw(mine, C2S, S2C)
        raw.say(Put(1, _TRANSFER, ("backup.tar",), "file", len(backup), _MTIME, 0o644, "fail").encode())
        raw.hear()
        raw.say(data(1, 0, backup[: 1 << 20]))
        raw.stop()
        raw.hear_all()
    _play(16, tmp_path, {1: photo, 2: backup}, engine)
    assert (tmp_path / "alice" / "backup.tar").read_bytes() == backup


def test_the_exchange_of_section_18_is_what_the_real_server_says(tmp_path: Path, engine: Engine) -> None:
    small, large = _inbox(tmp_path)
    _play(18, tmp_path, {2: large, 3: small}, engine)


def test_the_exchange_of_section_19_is_what_the_real_server_says(tmp_path: Path, engine: Engine) -> None:
    _inbox(tmp_path)
    link = tmp_path / "alice" / "inbox" / "c"
    link.symlink_to("a.txt")
    os.utime(link, ns=(_MTIME, _MTIME), follow_symlinks=False)
    _play(19, tmp_path, {}, engine)


def test_the_exchange_of_trees_is_what_the_real_server_says(tmp_path: Path, engine: Engine) -> None:
    _inbox(tmp_path)
    _play(19, tmp_path, {}, engine, which=1)


def test_the_exchange_of_section_26_is_what_the_real_server_does(tmp_path: Path, engine: Engine) -> None:
    _, large = _inbox(tmp_path)
    _play(26, tmp_path, {}, engine)
    moved = tmp_path / "alice" / "archive" / "b.bin"
    assert (moved.read_bytes(), moved.stat().st_mtime_ns, moved.stat().st_mode & 0o777) == (large, _MTIME, 0o600)
    assert [each.name for each in (tmp_path / "alice").iterdir()] == ["archive"]
