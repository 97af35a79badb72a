"""A second, small speaker of the protocol: a client and a server that can send anything, legal or not.

It is written from docs/PROTOCOL.md and from nothing else, and follows the order of its sections. It is no model of a
good program: it exists to break rules. Each frame of a login can be changed, repeated or left out (`changes`), each
record and message made of any bytes; by default it does what the document says.

Rules: it imports no module of the project. It trusts nothing that it receives: whatever the other end says against the
document raises `Broken`, and an end of the connection where something had to come raises `Ended`.
"""

import contextlib
import functools
import hashlib
import hmac
import os
import socket
import struct
import sys
import time
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from Crypto.Cipher import AES
from Crypto.Protocol import HPKE
from Crypto.PublicKey import ECC, MLKEM

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SECONDS = 20.0

Change = Callable[[bytes], bytes]  # a whole frame, with its size, to what goes on the wire in its place
Fields = dict[str, Any]


class Broken(Exception):
    """The other end has broken a rule of the document."""


class Ended(Exception):
    """The other end has closed where something had to come. The argument: `closed` or `reset`."""


def check(holds: object, rule: str) -> None:
    """Raise `Broken` unless the rule holds."""
    if not holds:
        raise Broken(rule)


# --- 1. Words ---------------------------------------------------------------------------------------------------------


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def le64(number: int) -> bytes:
    return number.to_bytes(8, "little")


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def extract(salt: bytes, ikm: bytes) -> bytes:
    return mac(salt or bytes(32), ikm)


def expand(prk: bytes, info: bytes, size: int) -> bytes:
    first = mac(prk, info + b"\1")
    return (first + mac(prk, first + info + b"\2"))[:size]


# --- 2. Frames --------------------------------------------------------------------------------------------------------

LOGIN_LIMIT, RECORD_LIMIT = 8192, 2**20 + 4096 + 16


def frame(payload: bytes) -> bytes:
    return u32(len(payload)) + payload


class Line:
    """One TCP connection, and the frames on it. `source` is the address of this machine that it comes from."""

    def __init__(self, where: int | socket.socket, source: str = "127.0.0.1") -> None:
        if isinstance(where, int):
            where = socket.create_connection(("127.0.0.1", where), SECONDS, (source, 0))
        self.sock = where
        self.sock.settimeout(SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, raw: bytes) -> None:
        """Any bytes. The next read notices when the connection has ended."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(raw)

    def exactly(self, size: int) -> bytes:
        """So many bytes; raises Ended."""
        got = bytearray()
        while len(got) < size:
            try:
                piece = self.sock.recv(size - len(got))
            except ConnectionError:
                raise Ended("reset") from None
            if not piece:
                raise Ended("closed")
            got += piece
        return bytes(got)

    def frame(self, least: int, most: int) -> bytes:
        """The next frame, whole, with its size. Raises Ended, and Broken for a size outside."""
        header = self.exactly(4)
        size = int.from_bytes(header, "big")
        check(least <= size <= most, f"size of a frame: {size}")
        return header + self.exactly(size)

    def login_frame(self) -> bytes:
        return self.frame(1, LOGIN_LIMIT)

    def rest(self) -> tuple[bytes, str]:
        """All that comes until the end, and how it ended: `closed` or `reset`."""
        got = bytearray()
        while True:
            try:
                piece = self.sock.recv(1 << 16)
            except ConnectionError:
                return bytes(got), "reset"
            if not piece:
                return bytes(got), "closed"
            got += piece

    def stop(self) -> None:
        """Shut down the sending side."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()


# --- 6. From the password to w0 and w1 --------------------------------------------------------------------------------

N_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
VERIFIER = b"secure-file-transfer receiver v1"
PROFILES = {1: (32768, 8, 3)}


@functools.cache
def scalars(user: bytes, password: str | None, salt: bytes, profile: int) -> tuple[int, int]:
    """`w0` and `w1`. Without a password, which is a guess, they are made up: scrypt takes half a second."""
    check(profile in PROFILES, f"profile {profile}")
    if password is None:
        return scalar(), scalar()
    n, r, p = PROFILES[profile]
    parts = (unicodedata.normalize("NFC", password).encode(), user, VERIFIER)
    text = b"".join(le64(len(part)) + part for part in parts)
    both = hashlib.scrypt(text, salt=salt, n=n, r=r, p=p, dklen=80, maxmem=1 << 27)
    w0, w1 = (int.from_bytes(half, "big") % N_ORDER for half in (both[:40], both[40:]))
    check(w0 and w1, "zero")
    return w0, w1


# --- 7. From the ML-KEM ciphertext to ss_pq ---------------------------------------------------------------------------

KEM_INFO, KEM_EXPORT = b"secure-file-transfer v1 kem", b"sft1 ss_pq"


def encapsulate(key: bytes) -> tuple[bytes, bytes]:
    """The ciphertext, and ss_pq."""
    try:
        receiver = MLKEM.construct(param_set=MLKEM.ML_KEM_768, ek=key)
    except ValueError as problem:
        raise Broken("encapsulation key") from problem
    context = HPKE.new(receiver_key=receiver, aead_id=HPKE.AEAD.EXPORT_ONLY, info=KEM_INFO)
    return context.enc, context.export(KEM_EXPORT, 32)


def decapsulate(key: MLKEM.MLKEMKey, ciphertext: bytes) -> bytes:
    """ss_pq."""
    context = HPKE.new(receiver_key=key, aead_id=HPKE.AEAD.EXPORT_ONLY, enc=ciphertext, info=KEM_INFO)
    return context.export(KEM_EXPORT, 32)


# --- 8. SPAKE2+ -------------------------------------------------------------------------------------------------------

Point = Any  # of P-256, with + and *; the library has no public name for its type

PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1


def point_at(x: int, y: int) -> Point:
    """Raises ValueError when it is not on the curve."""
    return ECC.construct(curve="P-256", point_x=x, point_y=y).pointQ


G = point_at(
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
M = point_at(
    0x886E2F97ACE46E55BA9DD7242579F2993B64E16EF3DCAB95AFD497333D8FA12F,
    0x5FF355163E43CE224E0B0E65FF02AC8E5C7BE09419C785E0CA547D55A12E2D20,
)
N = point_at(
    0xD8BBD6C639C62937B04D997F38C3770719C629D7014D49A24B4F98BAA1292B49,
    0x07D60AA6BFADE45008A636337F5168C64D9BD36034808CD564490B1E656EDBE7,
)


def encode(point: Point) -> bytes:
    """65 bytes."""
    if point.is_point_at_infinity():
        return b"\4" + bytes(64)
    return b"\4" + int(point.x).to_bytes(32, "big") + int(point.y).to_bytes(32, "big")


def decode(data: bytes) -> Point:
    """Raises Broken for what is no point."""
    check(len(data) == 65 and data[0] == 4, "form of a point")
    x, y = int.from_bytes(data[1:33], "big"), int.from_bytes(data[33:], "big")
    check(x < PRIME and y < PRIME and (x or y), "coordinates of a point")
    try:
        return point_at(x, y)
    except ValueError as problem:
        raise Broken("point that is not on the curve") from problem


def scalar() -> int:
    return int.from_bytes(os.urandom(48), "big") % N_ORDER or 1


class Proofs(NamedTuple):
    """What both ends derive from the transcript."""

    shared: bytes
    confirm_p: bytes
    confirm_v: bytes


def prove(
    frames: list[bytes], ss_pq: bytes, user: bytes, share_p: bytes, share_v: bytes, z: bytes, v: bytes, w0: int
) -> Proofs:
    context = b"secure-file-transfer v1 login" + frames[0] + frames[1] + ss_pq
    parts = (context, user, VERIFIER, encode(M), encode(N), share_p, share_v, z, v, w0.to_bytes(32, "big"))
    prk = extract(b"", sha256(b"".join(le64(len(part)) + part for part in parts)))
    keys = expand(prk, b"ConfirmationKeys", 64)
    return Proofs(expand(prk, b"SharedKey", 32), mac(keys[:32], share_v), mac(keys[32:], share_p))


# --- 3. to 5. The login -----------------------------------------------------------------------------------------------

MAGIC = b"SFTlogin"


def client_hello(user: bytes, key: bytes, versions: bytes = b"\1") -> bytes:
    """A payload."""
    return MAGIC + bytes([len(versions)]) + versions + bytes([len(user)]) + user + key


def server_hello(salt: bytes, ciphertext: bytes, profile: int = 1) -> bytes:
    """A payload, status 0."""
    return bytes([0, 1, profile]) + salt + ciphertext


class ClientLogin:
    """The steps of a client, each of which makes or reads one whole frame."""

    def __init__(self, user: str | bytes, password: str | None) -> None:
        self.user = user if isinstance(user, bytes) else user.encode()
        self.password, self.frames = password, list[bytes]()
        self.key = MLKEM.generate(param_set=MLKEM.ML_KEM_768)
        self.x = scalar()

    def hello(self) -> bytes:
        """Frame 1."""
        self.frames = [frame(client_hello(self.user, self.key.ek))]
        return self.frames[0]

    def hear_hello(self, whole: bytes) -> None:
        """Frame 2: what `share` needs."""
        hello = whole[4:]
        check(len(hello) == 1123 and hello[:2] == b"\0\1", f"ServerHello {hello[:3].hex()}")
        self.ss_pq = decapsulate(self.key, hello[35:])
        self.w0, self.w1 = scalars(self.user, self.password, hello[3:35], hello[2])
        self.frames.append(whole)

    def share(self) -> bytes:
        """Frame 3."""
        self.share_p = encode(G * self.x + M * self.w0)
        self.frames.append(frame(self.share_p))
        return self.frames[2]

    def hear_proof(self, whole: bytes) -> None:
        """Frame 4; Broken when the server has not proved that it knows the password."""
        check(len(whole) == 101, "size of frame 4")
        share_v, confirm_v = whole[4:69], whole[69:]
        base = decode(share_v) + N * (N_ORDER - self.w0)
        check(not base.is_point_at_infinity(), "a share that anybody who has w0 can make")
        z, v = encode(base * self.x), encode(base * self.w1)
        self.proofs = prove(self.frames, self.ss_pq, self.user, self.share_p, share_v, z, v, self.w0)
        check(hmac.compare_digest(self.proofs.confirm_v, confirm_v), "confirmV")
        self.frames.append(whole)

    def proof(self) -> bytes:
        """Frame 5."""
        self.frames.append(frame(self.proofs.confirm_p))
        return self.frames[4]

    def session(self, line: Line) -> "Session":
        return Session(line, self.frames, self.proofs.shared + self.ss_pq, client=True)


class ServerLogin:
    """The steps of a server that knows the password of everybody who comes."""

    def __init__(self, password: str, salt: bytes = b"s" * 32) -> None:
        self.password, self.salt, self.y = password, salt, scalar()

    def hello(self, whole: bytes) -> bytes:
        """Frame 1 to frame 2."""
        hello = whole[4:]
        check(hello[:8] == MAGIC and hello[8] >= 1, "magic")
        at = 9 + hello[8]
        check(1 in hello[9:at] and 1 <= hello[at] <= 32, "versions and size of the name")
        self.user = hello[at + 1 : at + 1 + hello[at]]
        key = hello[at + 1 + hello[at] :]
        check(len(key) == 1184, "size of the key")
        ciphertext, self.ss_pq = encapsulate(key)
        self.frames = [whole, frame(server_hello(self.salt, ciphertext))]
        return self.frames[1]

    def proof(self, whole: bytes) -> bytes:
        """Frame 3 to frame 4."""
        share_p = whole[4:]
        w0, w1 = scalars(self.user, self.password, self.salt, 1)
        share_v = encode(G * self.y + N * w0)
        z = encode((decode(share_p) + M * (N_ORDER - w0)) * self.y)
        v = encode((G * w1) * self.y)
        self.proofs = prove(self.frames, self.ss_pq, self.user, share_p, share_v, z, v, w0)
        self.frames += [whole, frame(share_v + self.proofs.confirm_v)]
        return self.frames[3]

    def hear_proof(self, whole: bytes) -> None:
        """Frame 5."""
        check(hmac.compare_digest(whole[4:], self.proofs.confirm_p), "confirmP")
        self.frames.append(whole)

    def session(self, line: Line) -> "Session":
        return Session(line, self.frames, self.proofs.shared + self.ss_pq, client=False)


def same(whole: bytes) -> bytes:
    """No change."""
    return whole


def log_in(
    line: Line, user: str | bytes, password: str | None, changes: Mapping[str, Change] | None = None
) -> "Session":
    """A client's login. `changes` says what becomes of its frames `hello`, `share` and `proof`.

    Raises Ended and Broken as soon as the server does not go on as the document says.
    """
    changes, login = changes or {}, ClientLogin(user, password)
    line.send(changes.get("hello", same)(login.hello()))
    login.hear_hello(line.login_frame())
    line.send(changes.get("share", same)(login.share()))
    login.hear_proof(line.login_frame())
    line.send(changes.get("proof", same)(login.proof()))
    return login.session(line)


def let_in(line: Line, password: str, changes: Mapping[str, Change] | None = None) -> "Session":
    """A server's login; its frames are `hello` and `proof`. Raises as `log_in`."""
    changes, login = changes or {}, ServerLogin(password)
    line.send(changes.get("hello", same)(login.hello(line.login_frame())))
    line.send(changes.get("proof", same)(login.proof(line.login_frame())))
    login.hear_proof(line.login_frame())
    return login.session(line)


# --- 12. Messages -----------------------------------------------------------------------------------------------------

NAMES = ["PUT", "DATA", "END", "CANCEL", "ACCEPT", "REFUSE", "CHECK", "RECEIPT", "GET", "LIST", "ENTRY"]
NAMES += ["PING", "ERROR", "BYE", "OMITTED", "RATE", "BATCH", "RECEIPTS", "TREE", "BRANCH"]
NAMES += ["REMOVE", "MOVE", "USAGE", "AMOUNTS", "SET", "DONE"]
NUMBERS = {name: number for number, name in enumerate(NAMES, 1)}
KINDS = {number: name for name, number in NUMBERS.items()}
CEILINGS = {"BRANCH": 2**18}  # of bodies; of all others 2^16
BLOCK, SMALL = 2**20, 65536


def message(kind: str | int, body: bytes = b"") -> bytes:
    """Any type, any body."""
    number = NUMBERS[kind] if isinstance(kind, str) else kind
    return bytes([number]) + u32(len(body)) + body


FIELDS = {
    "PUT": ("id", "transfer", "path", "kind", "size", "mtime", "mode", "policy", "target"),
    "END": ("id", "size", "sha256", "mac"),
    "CANCEL": ("id", "code"),
    "ACCEPT": ("id", "offset"),
    "REFUSE": ("id", "code"),
    "CHECK": ("id", "size", "sha256"),
    "RECEIPT": ("id", "path", "size", "sha256", "time", "outcome"),
    "BATCH": ("id", "transfer", "policy", "files"),  # its header
    "RECEIPTS": ("id", "time", "sha256", "outcomes"),
    "GET": ("id", "path", "more", "zstd", "offers", "depth", "links"),
    "LIST": ("id", "path", "after"),
    "ENTRY": ("id", "entries", "more"),
    "ERROR": ("code",),
    "OMITTED": ("id", "name", "code", "more"),
    "RATE": ("rate",),
    "TREE": ("id", "path", "after", "digests"),
    "BRANCH": ("id", "entries", "more"),
    "REMOVE": ("id", "path", "recursive"),
    "MOVE": ("id", "path", "to"),
    "USAGE": ("id",),
    "AMOUNTS": ("id", "bytes", "files", "quota_bytes", "quota_files", "free"),
    "SET": ("id", "path", "mtime", "mode"),
    "DONE": ("id", "count"),
}


def header(size: int, *forms: tuple[int, int, int]) -> bytes:
    """The first of the forms (largest size, first byte, how many bytes hold the size) that is long enough."""
    first, width = next((first, width) for most, first, width in forms if size <= most)
    return bytes([first]) + size.to_bytes(width, "big") if width else bytes([first + size])


def pack(value: Any) -> bytes:
    """Any value in MessagePack, as short as it can be. A negative integer below the range of 64 bits has no form."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int) and value >= 0:
        return header(value, (0x7F, 0, 0), (0xFF, 0xCC, 1), (0xFFFF, 0xCD, 2), (2**32 - 1, 0xCE, 4), (2**64, 0xCF, 8))
    if isinstance(value, int):
        if value >= -32:
            return value.to_bytes(1, "big", signed=True)
        first, width = next((0xD0 + at, 1 << at) for at in range(4) if value >= -(1 << (8 << at) - 1))
        return bytes([first]) + value.to_bytes(width, "big", signed=True)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        forms = (31, 0xA0, 0), (0xFF, 0xD9, 1), (0xFFFF, 0xDA, 2), (2**32 - 1, 0xDB, 4)
        return header(len(text), *forms) + text
    if isinstance(value, bytes):
        return header(len(value), (0xFF, 0xC4, 1), (0xFFFF, 0xC5, 2), (2**32 - 1, 0xC6, 4)) + value
    if isinstance(value, dict):
        parts = [part for pair in value.items() for part in pair]
        return header(len(value), (15, 0x80, 0), (0xFFFF, 0xDE, 2)) + b"".join(map(pack, parts))
    return header(len(value), (15, 0x90, 0), (0xFFFF, 0xDC, 2), (2**32 - 1, 0xDD, 4)) + b"".join(map(pack, value))


def unpack(data: bytes, at: int = 0) -> tuple[Any, int]:
    """The value at that place, and the place behind it. Raises Broken for what no body may hold, and at its end."""
    check(at < len(data), "body that ends too early")
    first, at = data[at], at + 1

    def number(width: int, signed: bool = False) -> int:
        nonlocal at
        at += width
        check(at <= len(data), "body that ends too early")
        return int.from_bytes(data[at - width : at], "big", signed=signed)

    def piece(size: int) -> bytes:
        nonlocal at
        at += size
        check(at <= len(data), "body that ends too early")
        return data[at - size : at]

    if first <= 0x7F or first >= 0xE0:
        return first - 0x100 * (first >= 0xE0), at
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first], at
    if 0xCC <= first <= 0xD3:
        return number(1 << (first & 3), first >= 0xD0), at
    if 0xA0 <= first <= 0xBF or 0xD9 <= first <= 0xDB:
        text = piece(first - 0xA0 if first <= 0xBF else number(1 << first - 0xD9))
        return text.decode(), at
    if 0xC4 <= first <= 0xC6:
        return piece(number(1 << first - 0xC4)), at
    check(0x90 <= first <= 0x9F or first in (0xDC, 0xDD), f"first byte {first:#x} of a value")
    values = list[Any]()
    for _ in range(first - 0x90 if first <= 0x9F else number(2 << first - 0xDC)):
        value, at = unpack(data, at)
        values.append(value)
    return values, at


def fields_of(kind: str, body: bytes) -> Fields:
    """What a body says, by name. Raises Broken for one that is not in its only form."""
    values, at = unpack(body)
    check(isinstance(values, list) and at == len(body), f"body of {kind}")
    check(len(values) == len(FIELDS[kind]) and pack(values) == body, f"fields of {kind}")
    return dict(zip(FIELDS[kind], values, strict=True))


def body_of(fields: Fields) -> bytes:
    """The array of these fields, in this order."""
    return pack(list(fields.values()))


def control(kind: str, /, **fields: Any) -> bytes:
    """A message whose body is the array of its type's fields, in its order, then of those it does not have."""
    if kind == "GET":
        fields = {"zstd": False, "offers": False, "depth": min(1, len(fields["path"])), "links": False, **fields}
    if kind == "TREE":
        fields = {"digests": False, **fields}
    known = {name: fields[name] for name in FIELDS[kind] if name in fields}
    return message(kind, body_of({**known, **fields}))


def data(id: int, offset: int, content: bytes, size: int | None = None) -> bytes:
    """`size`: what it stands for, if that is not the content itself."""
    return message("DATA", u32(id) + u64(offset) + u32(len(content) if size is None else size) + content)


def plain(content: bytes, size: int) -> bytes:
    """What a DATA stands for: zeros, a zstd frame, or its content."""
    check(0 < size <= BLOCK and len(content) <= size, f"size of DATA: {size}")
    if not content or len(content) == size:
        return content or bytes(size)
    check(zstd.get_frame_info(content).decompressed_size == size, "size in a frame")
    check(not zstd.get_frame_info(content).dictionary_id, "dictionary of a frame")
    decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 20})
    found = decoder.decompress(content)
    check(decoder.eof and not decoder.unused_data and len(found) == size, "end of a frame")
    return found


def put_fields(id: int, path: list[str], size: int | None, **more: Any) -> Fields:
    """Those of a PUT of a file; `more` takes their place."""
    usual = {"mtime": 1700000000000000000, "mode": 0o644, "policy": "fail", "target": None}
    return {"id": id, "transfer": os.urandom(16), "path": path, "kind": "file", "size": size, **usual, **more}


def link_fields(id: int, path: list[str], target: str, **more: Any) -> Fields:
    """Those of a PUT of a symbolic link."""
    return put_fields(id, path, None, **{"kind": "link", "mode": None, "target": target, **more})


def file_mac(key: bytes, put: bytes, content: bytes) -> bytes:
    """Section 20; `put` is the body as it was sent."""
    return mac(key, b"sft1 file" + u64(len(put)) + put + u64(len(content)) + sha256(content))


def batch_file(path: list[str], content: bytes, offered: bool = False, **more: Any) -> Fields:
    """What the header of a BATCH says of one file; `more` takes the place of it."""
    usual = {"path": path, "size": len(content), "mtime": 1700000000000000000, "mode": 0o644}
    return {**usual, "sha256": sha256(content), "with_content": not offered, **more}


def batch_header(id: int, files: list[Fields], **more: Any) -> bytes:
    """`more` takes the place of its fields."""
    usual = {"id": id, "transfer": os.urandom(16), "policy": "fail"}
    return body_of({**usual, "files": [list(each.values()) for each in files], **more})


def batch(key: bytes, header: bytes, contents: bytes, proof: bytes | None = None) -> bytes:
    """The body of a BATCH; `proof` takes the place of its HMAC (section 20)."""
    proof = mac(key, b"sft1 batch" + u64(len(header)) + header) if proof is None else proof
    return u32(len(header)) + proof + header + contents


def read_batch(body: bytes) -> tuple[Fields, bytes]:
    """The fields of the header of a BATCH, with its bytes as `header`, and its HMAC as `mac`; and the contents."""
    size = int.from_bytes(body[:4], "big")
    check(len(body) >= 36 and size <= min(2**16, len(body) - 36), "size of the header of a BATCH")
    header, contents = body[36 : 36 + size], body[36 + size :]
    fields = fields_of("BATCH", header)
    check(1 <= len(fields["files"]) <= 512 and all(len(each) == 6 for each in fields["files"]), "files of a BATCH")
    check(len({tuple(each[0]) for each in fields["files"]}) == len(fields["files"]), "a path twice in a BATCH")
    names = ("path", "size", "mtime", "mode", "sha256", "with_content")
    fields["files"] = [dict(zip(names, each, strict=True)) for each in fields["files"]]
    total = sum(each["size"] for each in fields["files"] if each["with_content"])
    check(all(each["size"] <= SMALL for each in fields["files"]), "size of a file in a BATCH")
    check(total <= BLOCK, "contents of a BATCH")
    check(bool(contents) == bool(total), "contents of a BATCH that has none, or none")
    contents = plain(contents, total) if total else contents
    return {**fields, "mac": body[4:36], "header": header}, contents


class Heard(NamedTuple):
    """A message of the other end."""

    kind: str
    fields: Fields
    body: bytes = b""  # as it was sent; of DATA what it stands for, of BATCH the contents


def read_messages(text: bytes) -> list[Heard]:
    """Those of one record. Raises Broken."""
    heard, at = list[Heard](), 0
    while at < len(text):
        check(len(text) - at >= 5, "message that ends within its header")
        number, size = text[at], int.from_bytes(text[at + 1 : at + 5], "big")
        body = text[at + 5 : at + 5 + size]
        check(number in KINDS and len(body) == size, "message")
        kind, at = KINDS[number], at + 5 + size
        if kind == "DATA":
            check(size >= 16, "size of DATA")
            id, offset, stands_for = struct.unpack(">IQI", body[:16])
            place = {"id": id, "offset": offset, "size": stands_for, "on_wire": size - 16}
            heard.append(Heard(kind, place, plain(body[16:], stands_for)))
        elif kind == "BATCH":
            heard.append(Heard(kind, *read_batch(body)))
        elif kind in ("PING", "BYE"):
            check(size == 0, "body of a message that has none")
            heard.append(Heard(kind, {}))
        else:
            check(size <= CEILINGS.get(kind, 65536), "size of a control message")
            heard.append(Heard(kind, fields_of(kind, body), body))
    return heard


# --- 10. Session keys, and 11. Records --------------------------------------------------------------------------------


def is_asked_for(put: Fields) -> bool:
    """Whether the content of that PUT waits for an ACCEPT: small files follow unasked, and get none."""
    return put["size"] is None or put["size"] > SMALL


class Session:
    """What follows a login: records that are sealed and opened."""

    def __init__(self, line: Line, frames: list[bytes], secret: bytes, client: bool) -> None:
        self.line, self.client = line, client
        prk = extract(sha256(b"".join(frames)), secret)
        ways = (b"c2s", b"s2c") if client else (b"s2c", b"c2s")
        self._out, self._in = (expand(prk, b"sft1 " + way, 32) for way in ways)
        self.file_key, self.their_file_key = (expand(prk, b"sft1 file " + way, 32) for way in ways)
        self.said = self.heard = 0
        self.ended = ""
        self._waiting = list[Heard]()
        self.left_out = list[tuple[str, str]]()  # by a fetch: name and code
        self.refused = list[tuple[int, str]]()  # by a fetch: id of a GET, and code
        self.batches = 0  # of a fetch

    @staticmethod
    def _cipher(secret: bytes, number: int, size: int) -> Any:
        key = expand(secret, b"epoch" + u64(number >> 20), 32)
        return AES.new(key, AES.MODE_EAX, nonce=u64(number), mac_len=16).update(u32(size))

    def seal(self, text: bytes, number: int | None = None) -> bytes:
        """One record as it stands on the wire; with `number`, another than the next one."""
        if number is None:
            number, self.said = self.said, self.said + 1
        size = len(text) + 16
        return u32(size) + b"".join(self._cipher(self._out, number, size).encrypt_and_digest(text))

    def say(self, *messages: bytes) -> None:
        """All of them in one record."""
        self.line.send(self.seal(b"".join(messages)))

    def record(self) -> bytes:
        """The text of the next record. Raises Ended and Broken."""
        whole = self.line.frame(17, RECORD_LIMIT)
        try:
            cipher = self._cipher(self._in, self.heard, len(whole) - 4)
            text: bytes = cipher.decrypt_and_verify(whole[4:-16], whole[-16:])
        except ValueError as problem:
            raise Broken("tag of a record") from problem
        self.heard += 1
        return text

    def hear(self) -> Heard:
        """The next message that is no PING. Raises Ended and Broken."""
        while True:
            while not self._waiting:
                self._waiting = read_messages(self.record())
            if (found := self._waiting.pop(0)).kind != "PING":
                return found

    def expect(self, kind: str, **fields: Any) -> Fields:
        """The next message, which must be such a one; its fields."""
        found = self.hear()
        check(found.kind == kind, f"{kind} was expected, and not {found}")
        for name, value in fields.items():
            check(found.fields[name] == value, f"{name}={value!r} was expected in {found}")
        return found.fields

    def hear_all(self) -> list[Heard]:
        """All messages until the end; how that came is in `ended`."""
        found = list[Heard]()
        try:
            while True:
                found.append(self.hear())
        except Ended as end:
            self.ended = str(end)
        return found

    def farewell(self) -> None:
        """BYE, and that of the other end; then its end of the stream."""
        self.say(message("BYE"))
        self.expect("BYE")
        self.line.stop()
        check(self.line.rest() == (b"", "closed"), "bytes behind BYE")
        self.line.close()

    # --- 15. Sending files, 20. The HMAC of END ---

    def end(self, put: bytes, content: bytes, **more: Any) -> bytes:
        """The END of the file whose PUT had that body; `more` takes the place of its fields."""
        fields = {
            "id": unpack(put, 1)[0],
            "size": len(content),
            "sha256": sha256(content),
            "mac": file_mac(self.file_key, put, content),
        }
        return control("END", **{**fields, **more})

    def send(self, id: int, path: list[str], content: bytes, **more: Any) -> Fields:
        """One whole file; the fields of its RECEIPT."""
        put = body_of(put_fields(id, path, len(content), **more))
        self.say(message("PUT", put))
        if len(content) > SMALL:
            self.expect("ACCEPT", id=id, offset=0)
        for offset in range(0, len(content), BLOCK):
            self.say(data(id, offset, content[offset : offset + BLOCK]))
        self.say(self.end(put, content))
        return self.expect("RECEIPT", id=id, size=len(content), sha256=sha256(content))

    # --- the receiving half: a server, or a client after its GET ---

    def take_all(self, first: Heard | None = None) -> dict[tuple[str, ...], bytes]:
        """Every file that the other end sends until its BYE, by path, judged and receipted; BYE is not answered.

        `left_out` has what it names as left out, `refused` the ids of GETs that it refuses.
        """
        puts, contents, landed = dict[int, Heard](), dict[int, bytes](), dict[tuple[str, ...], bytes]()
        found = first or self.hear()
        while found.kind != "BYE":
            id = found.fields["id"]
            if found.kind == "PUT" and found.fields["kind"] != "file":
                self.say(self.receipt(found.fields))
            elif found.kind == "BATCH":
                landed |= self.take_batch(found)
                self.batches += 1
            elif found.kind == "PUT":
                puts[id], contents[id] = found, b""
                if is_asked_for(found.fields):
                    self.say(control("ACCEPT", id=id, offset=0))
            elif found.kind == "DATA":
                check(found.fields["offset"] == len(contents[id]), f"offset of DATA {found.fields}")
                contents[id] += found.body
            elif found.kind == "END":
                put, content = puts.pop(id), contents.pop(id)
                proof = file_mac(self.their_file_key, put.body, content)
                expected = {"id": id, "size": len(content), "sha256": sha256(content), "mac": proof}
                check(found.fields == expected, f"END {found.fields}")
                check(put.fields["size"] in (None, len(content)), f"size of {put.fields}")
                landed[tuple(put.fields["path"])] = content
                self.say(self.receipt(put.fields, content))
            elif found.kind == "OMITTED" and found.fields["code"] in ("link", "special"):
                self.left_out.append((found.fields["name"], found.fields["code"]))
            elif found.kind == "REFUSE":
                self.refused.append((id, found.fields["code"]))
            else:
                raise Broken(f"{found}")
            found = self.hear()
        check(not puts, "BYE before END")
        return landed

    def expect_batch(self) -> Heard:
        """The next message, which must be a BATCH."""
        found = self.hear()
        check(found.kind == "BATCH", f"BATCH was expected, and not {found}")
        return found

    def take_batch(self, batch: Heard, **more: Any) -> dict[tuple[str, ...], bytes]:
        """The files of one BATCH, judged and receipted; `more` takes the place of the fields of RECEIPTS."""
        fields, landed, at = batch.fields, dict[tuple[str, ...], bytes](), 0
        header = fields["header"]
        check(fields["mac"] == mac(self.their_file_key, b"sft1 batch" + u64(len(header)) + header), "HMAC of a BATCH")
        for each in fields["files"]:
            check(each["with_content"], "a file that is offered, and nobody has it")
            content = batch.body[at : at + each["size"]]
            at += each["size"]
            check(sha256(content) == each["sha256"], "SHA-256 of a file in a BATCH")
            landed[tuple(each["path"])] = content
        self.say(self.receipts(fields, **more))
        return landed

    def receipts(self, batch: Fields, **more: Any) -> bytes:
        """RECEIPTS of a BATCH whose files are all stored; `more` takes the place of its fields."""
        digests = b"".join(each["sha256"] for each in batch["files"])
        usual = {"id": batch["id"], "time": time.time_ns(), "sha256": sha256(digests)}
        return control("RECEIPTS", **{**usual, "outcomes": [["stored", None]] * len(batch["files"]), **more})

    def receipt(self, put: Fields, content: bytes = b"", **more: Any) -> bytes:
        """A RECEIPT of what was announced; `more` takes the place of its fields."""
        usual = {"id": put["id"], "path": put["path"], "time": time.time_ns()}
        if put["kind"] == "folder":
            usual |= {"size": 0, "sha256": None, "outcome": "folder"}
        else:
            usual |= {"size": len(content), "sha256": sha256(content), "outcome": "stored"}
        return control("RECEIPT", **{**usual, **more})

    # --- 18. GET and 19. LIST ---

    def fetch(self, *path: str) -> dict[tuple[str, ...], bytes]:
        """What lies there, and the end of the connection."""
        self.say(control("GET", id=1, path=path, more=False))
        landed = self.take_all()
        self.say(message("BYE"))
        return landed

    def names_in(self, *path: str) -> list[str]:
        """The names of the first ENTRY."""
        self.say(control("LIST", id=1, path=path, after=None))
        return [name for name, *_ in self.expect("ENTRY", id=1)["entries"]]

    def tree(self, *path: str) -> dict[tuple[str, ...], tuple[str, int]]:
        """Kind and size of all that lies below, page by page; each entry is compared with the rules.

        `left_out` has what is named as left out.
        """
        found = dict[tuple[str, ...], tuple[str, int]]()
        last, id, more = tuple[str, ...](), 0, True
        while more:
            id += 1
            self.say(control("TREE", id=id, path=path, after=last or None))
            while (heard := self.hear()).kind == "OMITTED":
                self.left_out.append((heard.fields["name"], heard.fields["code"]))
            check(heard.kind == "BRANCH" and heard.fields["id"] == id, f"BRANCH was expected, and not {heard}")
            page = heard.fields
            check(len(page["entries"]) <= 8192 and (page["entries"] or not page["more"]), "entries of a page")
            for depth, name, kind, size, _, _, target, _ in page["entries"]:
                here = (*last[: depth - 1], name)
                check(len(here) == depth <= len(last) + 1, f"depth {depth} of {name!r}")
                check([part.encode() for part in here] > [part.encode() for part in last], f"order of {here}")
                check(depth == 1 or found[here[:-1]][0] == "folder", f"{here} in what is not a folder")
                check((target is not None) == (kind == "link") and (kind == "file" or not size), f"fields of {here}")
                found[here], last = (kind, size), here
            more = page["more"]
        return found

    # --- 26. Changing what is there ---

    def remove(self, id: int, *path: str, recursive: bool = False) -> Heard:
        """DONE or REFUSE."""
        return self.ask("REMOVE", id=id, path=path, recursive=recursive)

    def ask(self, question: str, **fields: Any) -> Heard:
        """The answer to any question of section 26, which has its id."""
        self.say(control(question, **fields))
        found = self.hear()
        kinds = ("AMOUNTS" if question == "USAGE" else "DONE", "REFUSE")
        check(found.kind in kinds and found.fields["id"] == fields["id"], f"answer to {question}: {found}")
        return found
