"""The worked example of docs/PROTOCOL.md, made by the project's own code: one login, one file, every value in hex.

    python -m tools.worked_example            print the values
    python -m tools.worked_example --write    put them into docs/PROTOCOL.md, in place of those that stand there

Rules: nothing here is random. Each end is given its random bytes by a `Draws`, which checks how many are asked for and
in which order. A value is a `Block`: a label that the document and tests/test_worked_example.py share, a sentence, and
the bytes.
"""

from sft.common import python_version  # noqa: F401, I001  # first of all: an older Python can't import the others

import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import msgspec

from crypto_utils import (
    DEFAULT_PROFILE,
    KEM_CHECK_CIPHERTEXT,
    KEM_CHECK_SEED,
    RECORDS_PER_EPOCH,
    STRETCHED_SIZE,
    TAG_SIZE,
    KemKey,
    RecordCipher,
    digest,
    hkdf_expand,
    hkdf_extract,
    mac,
    stretch,
)
from sft.wire import handshake
from sft.wire import pake
from sft.wire.handshake import VERIFIER_IDENTITY, ClientHandshake, Candidate, ServerHandshake, SessionKeys
from sft.wire.batch import (
    BATCH_OVERHEAD,
    BatchFile,
    BatchHeader,
    Outcome,
    Receipts,
    batch_mac_input,
    write_batch,
)
from sft.wire.content import DATA_HEADER_SIZE, write_data_header, zeros_message
from sft.wire.messages import (
    BYE_MESSAGE,
    FILE,
    End,
    Get,
    Kind,
    Put,
    Receipt,
    encode_message,
    file_mac_begin,
    file_mac_rest,
    PolicyWord,
)
from sft.wire.protocol import HEADER_SIZE, frame_header
from sft.wire.change_messages import Amounts, Change, Done, Move, Remove, SetAttributes, Usage
from sft.wire.tree_messages import Branch, Node, Tree

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "PROTOCOL.md"
_BEGIN, _END = "<!-- values: begin -->", "<!-- values: end -->"
_BLOCK = re.compile(r"^```\n(\w+): (\d+) bytes\n((?:[0-9a-f]+\n)+)```$", re.MULTILINE)
_LINE = 96

# What the example is about. The password is typed with a combining accent, to show what NFC does to it.
USERNAME = "alice"
PASSWORD = "cafe\u0301 at 7 o'clock"  # noqa: S105 -- the example's own
SALT = bytes(range(0xC0, 0xE0))
CLIENT_SCALAR = bytes(range(0x40, 0x70))
SERVER_SCALAR = bytes(range(0x80, 0xB0))
TRANSFER = bytes(range(0x70, 0x80))
PATH = ("hello.txt",)
CONTENT = b"Hello, world!\n"
MTIME = 1_700_000_000_000_000_000
MODE = 0o644
POLICY: PolicyWord = "fail"
RECEIPT_TIME = 1_700_000_001_000_000_000

# Content in the two other forms of DATA. The frame is written out, because each version of zstd makes another one.
ZEROS = 65_536
LINE, LINES = b"All work and no play makes Jack a dull boy.\n", 100
FRAME = bytes.fromhex(
    "28b52ffd603010ad0100c402416c6c20776f726b20616e64206e6f20706c6179206d616b6573204a61636b20612064756c6c20626f792e0a"
    "01000c88d7ab32"
)

# What ML-KEM-768 decapsulates from KEM_CHECK_CIPHERTEXT with the key of KEM_CHECK_SEED. The library shows only what
# HPKE makes of it; that this value leads there is checked by the test.
KEM_SECRET = bytes.fromhex("5ce2faa2ff075f7ec7ab2828b0930a788bada4d978f2ad6d6d5b819b229ed406")


class Draws:
    """A source of random bytes that gives these, in this order, each to a caller that asks for exactly its size."""

    def __init__(self, *draws: bytes) -> None:
        self._left = list(draws)

    def __call__(self, size: int) -> bytes:
        draw = self._left.pop(0)
        if len(draw) != size:
            raise ValueError(f"{size} bytes are asked for, and {len(draw)} come next")
        return draw


def client_draws() -> Draws:
    """What the client draws: seed of the KEM key, then bytes for x, then the transfer id."""
    return Draws(KEM_CHECK_SEED, CLIENT_SCALAR, TRANSFER)


def server_draws() -> Draws:
    """What the server draws, besides the randomness of ML-KEM: bytes for y."""
    return Draws(SERVER_SCALAR)


@dataclass(frozen=True, slots=True)
class Block:
    """One value of the example. `text` is a sentence, in Markdown."""

    label: str
    text: str
    value: bytes

    def markdown(self) -> str:
        """The sentence, and the value in a fenced block behind its label and size."""
        digits = self.value.hex()
        lines = [digits[at : at + _LINE] for at in range(0, len(digits), _LINE)]
        return "\n".join((self.text, "", "```", f"{self.label}: {len(self.value)} bytes", *lines, "```", ""))


def read_blocks(document: str) -> dict[str, bytes]:
    """Label and value of each block of the document. Raises ValueError for a label used twice or a wrong size."""
    found: dict[str, bytes] = {}
    for label, size, lines in _BLOCK.findall(document):
        value = bytes.fromhex(lines)
        if label in found or len(value) != int(size):
            raise ValueError(f"the block {label} stands there twice, or has another size than it says")
        found[label] = value
    return found


@dataclass(frozen=True, slots=True)
class Login:
    """The five frames, and the keys, which both ends agree on."""

    frames: tuple[bytes, ...]
    keys: SessionKeys
    ss_pq: bytes
    w0: int
    w1: int


def log_in(w0: int, w1: int) -> Login:
    """One login with both halves of the project's own code. Only ML-KEM's encapsulation is replaced."""
    ss_pq = KemKey(KEM_CHECK_SEED).open(KEM_CHECK_CIPHERTEXT)
    client = ClientHandshake(USERNAME, lambda salt, profile: (w0, w1), client_draws())
    server = server_half(w0, w1)
    frame_1 = client.hello()
    with fixed_encapsulation(ss_pq):
        frame_2, _ = server.hello(frame_1)
    frame_3 = client.share(frame_2)
    frame_4 = server.respond(frame_3)
    frame_5, keys = client.confirm(frame_4)
    if server.finish(frame_5) != keys:
        raise ValueError("the two ends do not agree")
    return Login((frame_1, frame_2, frame_3, frame_4, frame_5), keys, ss_pq, w0, w1)


def server_half(w0: int, w1: int) -> ServerHandshake:
    """The server's half of the example's login."""
    account = Candidate(True, SALT, pake.Registration.of(w0, w1))
    return ServerHandshake(lambda username: account, lambda username: True, DEFAULT_PROFILE, server_draws())


def fixed_encapsulation(ss_pq: bytes) -> "mock._patch[object]":
    """While it lasts, the server's half answers every encapsulation key with the example's ciphertext."""
    return mock.patch.object(handshake, "kem_encapsulate", lambda public: (KEM_CHECK_CIPHERTEXT, ss_pq))


def seal(secret: bytes, number: int, text: bytes) -> bytes:
    """One record as a whole frame."""
    header = frame_header(len(text) + TAG_SIZE)
    record = bytearray(header + text)
    tag = RecordCipher(secret).seal(number, header, memoryview(record)[HEADER_SIZE:])
    return bytes(record) + tag


def blocks() -> list[Block]:
    """Every value of the example, in the order of the document. Runs scrypt once."""
    normal = unicodedata.normalize("NFC", PASSWORD).encode()
    stretched_from = pake.password_input(normal, USERNAME.encode(), VERIFIER_IDENTITY)
    stretched = stretch(stretched_from, SALT, DEFAULT_PROFILE)
    if len(stretched) != STRETCHED_SIZE:
        raise ValueError("scrypt gave another size")
    login = log_in(*pake.password_scalars(stretched))
    return [
        Block(
            "password_typed", "**Password.** What is typed, as UTF-8: `e` and a combining accent.", PASSWORD.encode()
        ),
        Block("password_nfc", "The same after NFC: one letter `é`.", normal),
        Block("scrypt_input", "What scrypt is computed over.", stretched_from),
        Block("salt", "The salt, which the ServerHello brings.", SALT),
        Block("scrypt_output", "scrypt at profile 1.", stretched),
        *_registration(login),
        *_agreement(login),
        *_exchange(login),
        *_session(login),
        *_records(login),
        *_tree(),
        *_changes(),
    ]


def _scalar(value: int) -> bytes:
    return value.to_bytes(pake.SCALAR_SIZE, "big")


def _registration(login: Login) -> Iterator[Block]:
    kept = pake.Registration.of(login.w0, login.w1)
    yield Block("w0", "`w0`: the first 40 bytes modulo *n*.", kept.w0)
    yield Block("w1", "`w1`: the last 40 bytes modulo *n*.", _scalar(login.w1))
    yield Block("L", "`L = w1·P`. The server keeps `w0` and `L`.", kept.L)
    yield Block("w0M", "`w0·M`.", kept.w0M)
    yield Block("w0N", "`w0·N`.", kept.w0N)


def _agreement(login: Login) -> Iterator[Block]:
    yield Block("kem_seed", "**Client, draw 1**: the seed `d ‖ z` of its ML-KEM key pair.", KEM_CHECK_SEED)
    yield Block("frame_1", "**Frame 1**, client to server: ClientHello.", login.frames[0])
    yield Block("kem_ciphertext", "The ML-KEM ciphertext, which the server has made.", KEM_CHECK_CIPHERTEXT)
    yield Block("frame_2", "**Frame 2**, server to client: ServerHello.", login.frames[1])
    yield Block("kem_secret", "`K`, what ML-KEM decapsulates from the ciphertext.", KEM_SECRET)
    suite = b"HPKE" + bytes.fromhex("00410001ffff")
    labeled = b"HPKE-v1" + suite
    yield Block("hpke_suite_id", "`suite_id`.", suite)
    psk_id_hash = hkdf_extract(b"", labeled + b"psk_id_hash")
    yield Block("hpke_psk_id_hash", "`psk_id_hash`.", psk_id_hash)
    info_hash = hkdf_extract(b"", labeled + b"info_hash" + b"secure-file-transfer v1 kem")
    yield Block("hpke_info_hash", "`info_hash`.", info_hash)
    secret = hkdf_extract(KEM_SECRET, labeled + b"secret")
    yield Block("hpke_secret", "`secret`.", secret)
    size = (32).to_bytes(2, "big")
    exporter = hkdf_expand(secret, size + labeled + b"exp" + b"\0" + psk_id_hash + info_hash)
    yield Block("hpke_exporter_secret", "`exporter_secret`.", exporter)
    yield Block("ss_pq", "`ss_pq`.", login.ss_pq)


def _transcript(login: Login) -> tuple[bytes, bytes, bytes, bytes]:
    """Context, Z, V and TT, computed as the server does."""
    y = int.from_bytes(SERVER_SCALAR, "big") % pake.ORDER
    kept = pake.Registration.of(login.w0, login.w1)
    shareP, shareV = login.frames[2][HEADER_SIZE:], login.frames[3][HEADER_SIZE:][: pake.POINT_SIZE]
    Z = pake.encode_point((pake.decode_point(shareP) + -pake.decode_point(kept.w0M)) * y)
    V = pake.encode_point(pake.decode_point(kept.L) * y)
    identities = handshake._identities(USERNAME.encode(), login.frames[0], login.frames[1], login.ss_pq)
    return identities.context, Z, V, pake.transcript(identities, shareP, shareV, Z, V, kept.w0)


def _exchange(login: Login) -> Iterator[Block]:
    x, y = (int.from_bytes(draw, "big") % pake.ORDER for draw in (CLIENT_SCALAR, SERVER_SCALAR))
    context, Z, V, TT = _transcript(login)
    keys = pake.KeySchedule.of(TT)
    reply = login.frames[3][HEADER_SIZE:]

    yield Block("x_draw", "**Client, draw 2**: 48 bytes for `x`.", CLIENT_SCALAR)
    yield Block("x", "`x`: the same modulo *n*.", _scalar(x))
    yield Block("frame_3", "**Frame 3**, client to server: `shareP`.", login.frames[2])
    yield Block("y_draw", "**Server, its only draw beside ML-KEM's**: 48 bytes for `y`.", SERVER_SCALAR)
    yield Block("y", "`y`: the same modulo *n*.", _scalar(y))
    yield Block("shareV", "`shareV`.", reply[: pake.POINT_SIZE])
    yield Block("Z", "`Z`.", Z)
    yield Block("V", "`V`.", V)
    text = f"`Context` has {len(context):,} bytes. Its SHA-256 is for comparison only:"
    yield Block("context_sha256", text, digest(context))
    yield Block("K_main", f"`TT` has {len(TT):,} bytes. `K_main` is its SHA-256.", keys.K_main)
    yield Block("K_confirmP", "`K_confirmP`.", keys.K_confirmP)
    yield Block("K_confirmV", "`K_confirmV`.", keys.K_confirmV)
    yield Block("K_shared", "`K_shared`.", keys.K_shared)
    yield Block("confirmV", "`confirmV`.", reply[pake.POINT_SIZE :])
    yield Block("frame_4", "**Frame 4**, server to client: `shareV ‖ confirmV`.", login.frames[3])
    yield Block("frame_5", "**Frame 5**, client to server: `confirmP`.", login.frames[4])


def _session(login: Login) -> Iterator[Block]:
    transcript_hash = digest(b"".join(login.frames))
    K_shared = pake.KeySchedule.of(_transcript(login)[3]).K_shared
    prk = hkdf_extract(transcript_hash, K_shared + login.ss_pq)
    yield Block("transcript_hash", "**Session keys.** SHA-256 of the five frames.", transcript_hash)
    yield Block("prk", "`prk`.", prk)
    yield Block("secret_c2s", "`secret_c2s`.", login.keys.c2s)
    yield Block("secret_s2c", "`secret_s2c`.", login.keys.s2c)
    yield Block("file_key_c2s", "`file_key_c2s`.", login.keys.file_c2s)
    yield Block("file_key_s2c", "`file_key_s2c`.", login.keys.file_s2c)
    for name, secret in (("c2s", login.keys.c2s), ("s2c", login.keys.s2c)):
        key = hkdf_expand(secret, b"epoch" + bytes(8))
        yield Block(f"record_key_{name}", f"The key of epoch 0, {name}.", key)


def put_message(draws: Draws) -> Put:
    """The PUT of the example's file."""
    return Put(1, draws(len(TRANSFER)), PATH, FILE, len(CONTENT), MTIME, MODE, POLICY)


def shown(body: bytes) -> str:
    """A body in the notation of section 13."""
    return _value(msgspec.msgpack.decode(body))


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bytes):
        return f"h'{value.hex()}'"
    return "nil" if value is None else json.dumps(value, ensure_ascii=False)


def _records(login: Login) -> Iterator[Block]:
    put = put_message(Draws(TRANSFER))
    sha256 = digest(CONTENT)
    mac_input = (*file_mac_begin(put.body()), *file_mac_rest(len(CONTENT), sha256))
    end = End(1, len(CONTENT), sha256, mac(login.keys.file_c2s, *mac_input))
    data = bytearray(DATA_HEADER_SIZE)
    write_data_header(memoryview(data), 1, 0, len(CONTENT), len(CONTENT))
    data += CONTENT
    receipt = Receipt(1, PATH, len(CONTENT), sha256, RECEIPT_TIME, "stored")

    yield Block("transfer_id", "**Client, draw 3**: the transfer id.", TRANSFER)
    yield from _batch(login)
    yield Block("put_body", f"**The same file by PUT.** The body of its PUT: `{shown(put.body())}`", put.body())
    yield Block("put_message", "The PUT.", encode_message(Kind.PUT, put.body()))
    yield Block("data_message", "The DATA.", bytes(data))
    yield from _other_forms()
    yield Block("end_mac_input", "What the HMAC of END is computed over.", b"".join(mac_input))
    yield Block("end_mac", "The HMAC of END.", end.mac)
    yield Block("end_message", f"The END. Its body: `{shown(end.body())}`", end.encode())
    yield Block("receipt_message", f"The RECEIPT. Its body: `{shown(receipt.body())}`", receipt.encode())
    yield Block("bye_message", "**BYE**, which is the whole text of the last record each way.", BYE_MESSAGE)
    yield Block("client_record_1", "**Client, record 1**: BYE.", seal(login.keys.c2s, 1, BYE_MESSAGE))
    yield Block("server_record_1", "**Server, record 1**: BYE.", seal(login.keys.s2c, 1, BYE_MESSAGE))
    yield from _next_epoch(login)


def _batch(login: Login) -> Iterator[Block]:
    sha256 = digest(CONTENT)
    file = BatchFile(PATH, len(CONTENT), MTIME, MODE, sha256, True)
    header = BatchHeader(1, TRANSFER, POLICY, (file,)).body()
    proof = mac(login.keys.file_c2s, *batch_mac_input(header))
    whole = memoryview(bytearray(BATCH_OVERHEAD + len(header) + len(CONTENT)))
    write_batch(whole, proof, header, [CONTENT])
    there = digest(sha256)
    receipts = Receipts(1, RECEIPT_TIME, there, (Outcome("stored"),))
    yield Block("content_sha256", "**The file.** SHA-256 of its content.", sha256)
    yield Block("batch_header", f"The header of its BATCH: `{shown(header)}`", header)
    yield Block("batch_mac_input", "What the HMAC of the BATCH is computed over.", b"".join(batch_mac_input(header)))
    yield Block("batch_mac", "The HMAC of the BATCH.", proof)
    text = bytes(whole)
    yield Block("client_record_0_text", "**Client, record 0**: the BATCH.", text)
    yield Block("client_record_0", "The same, sealed, as it is sent.", seal(login.keys.c2s, 0, text))
    yield Block("receipts_sha256", "SHA-256 of the digests of the files that are there: of one.", there)
    text = receipts.encode()
    yield Block("server_record_0_text", f"**Server, record 0**: RECEIPTS `{shown(receipts.body())}`.", text)
    yield Block("server_record_0", "The same, sealed.", seal(login.keys.s2c, 0, text))


def _tree() -> Iterator[Block]:
    """What section 19 says: a folder with a file, and a link beside it; and what section 18 says of one file."""
    tree = Tree(1, ("inbox",), None)
    nodes = (
        Node(1, "docs", "folder", 0, MTIME, 0o755, None),
        Node(2, "a.txt", "file", len(CONTENT), MTIME, MODE, None),
        Node(1, "latest", "link", 0, MTIME, 0o777, "docs/a.txt"),
    )
    branch = Branch(1, nodes, False)
    yield Block("tree_message", f"**Another connection.** TREE `{shown(tree.body())}`.", tree.encode())
    yield Block("branch_message", f"Its answer: BRANCH `{shown(branch.body())}`.", branch.encode())
    get = Get(1, ("inbox", "docs", "a.txt"), False, True, False, 3)
    yield Block("get_message", f"And a GET of one of these files: `{shown(get.body())}`.", get.encode())


def _other_forms() -> Iterator[Block]:
    """The same DATA message in its two other forms, of another file."""
    text = "**Two other DATA**, of a file with id 2: first 65,536 bytes of zeros."
    yield Block("data_of_zeros", text, zeros_message(2, 0, ZEROS))
    message = bytearray(DATA_HEADER_SIZE) + FRAME
    write_data_header(memoryview(message), 2, ZEROS, len(LINE) * LINES, len(FRAME))
    text = f"Then {LINES} times `{LINE.decode().strip()}` and a line feed, as one zstd frame. Others hold it, too."
    yield Block("data_with_a_frame", text, bytes(message))


def _changes() -> Iterator[Block]:
    """What section 26 says: one of each question, and the two answers."""
    messages: tuple[Change, ...] = (
        Usage(1),
        Amounts(1, 70_526, 3, 1_000_000, None, 52_000_000_000),
        Move(2, ("docs", "a.txt"), ("b.txt",)),
        Done(2, 1),
        SetAttributes(3, ("b.txt",), MTIME, None),
        Remove(4, ("docs",), True),
    )
    texts = (
        "**Another one.** USAGE `{}`.",
        "Its answer: AMOUNTS `{}`.",
        "MOVE `{}`.",
        "Its answer: DONE `{}`.",
        "SET `{}`.",
        "REMOVE `{}`.",
    )
    for message, text in zip(messages, texts, strict=True):
        yield Block(f"{message.KIND.name.lower()}_message", text.format(shown(message.body())), message.encode())


def _next_epoch(login: Login) -> Iterator[Block]:
    """What the example is too short for: the key changes with record 2^20 of a direction."""
    key = hkdf_expand(login.keys.c2s, b"epoch" + (1).to_bytes(8, "big"))
    text = "**Epoch 1**, which begins with record 2^20 = 1,048,576 of a direction. Its key, c2s."
    yield Block("record_key_c2s_epoch_1", text, key)
    text = "**Client, record 1,048,576**, if that were its BYE, sealed. Its nonce is `00 00 00 00 00 10 00 00`."
    yield Block("client_record_1048576", text, seal(login.keys.c2s, RECORDS_PER_EPOCH, BYE_MESSAGE))


def main(arguments: list[str]) -> int:
    """Print the values, or write them into the document."""
    made = "\n".join(block.markdown() for block in blocks())
    if arguments != ["--write"]:
        print(made)
        return 0
    before, rest = DOCUMENT.read_text("utf-8").split(_BEGIN)
    after = rest.split(_END)[1]
    DOCUMENT.write_text(f"{before}{_BEGIN}\n\n{made}\n{_END}{after}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
