"""The cryptography that everything else is built from; docs/PROTOCOL.md has each formula.

    digest            SHA-256 (FIPS 180-4)
    mac, Mac          HMAC-SHA256 (RFC 2104)
    hkdf_*            HKDF-SHA256 (RFC 5869)
    stretch           scrypt (RFC 7914), by profile
    kem_*             ML-KEM-768 (FIPS 203) through HPKE's exporter (RFC 9180)
    Eax               AES-EAX, the mode
    RecordCipher      AES-256-EAX with a counted nonce and a key for each epoch

Rules: this room knows no socket, no file and no clock. Randomness enters through `random_bytes` alone, which callers
take as an argument, so that a test can fix it. `RecordCipher.open` decrypts nothing before its tag was found right.
This module and `sft/wire/pake.py` are the only ones that import pycryptodome; each part of it is loaded where it is
used, for a client can say hello before most of them are there (`check_library` loads them all).
"""

import contextlib
import hashlib
import hmac as _stdlib_hmac
from base64 import b64decode
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sft.common.errors import ConnectionTrouble, Failure, IntegrityError, NoMemory, UsageError, threads_needed

_NEEDED = (4, 4)
_INSTALL = "Run: python -m pip install -r requirements.lock"


@contextlib.contextmanager
def library_needed() -> Iterator[None]:
    """Around an import of pycryptodome. Raises UsageError when that part of it is not there."""
    try:
        yield
    except (ImportError, OSError) as missing:  # OSError: a native module of it that does not load
        if isinstance(missing, ModuleNotFoundError) and missing.name == "Crypto":
            raise UsageError("pycryptodome is not installed", _INSTALL) from None
        raise UsageError("the installed pycryptodome is too old or incomplete (4.4 is needed)", _INSTALL) from None


with library_needed():
    import Crypto
    from Crypto.Random import get_random_bytes
if tuple(Crypto.version_info[:2]) < _NEEDED:
    raise UsageError("the installed pycryptodome is too old (4.4 is needed)", _INSTALL)

if TYPE_CHECKING:
    from Crypto.Protocol.HPKE import HPKE_Cipher

Random = Callable[[int], bytes]
Buffer = bytes | bytearray | memoryview

KEY_SIZE = 32
DIGEST_SIZE = 32
TAG_SIZE = 16
KEM_PUBLIC_SIZE = 1184
KEM_CIPHERTEXT_SIZE = 1088
KEM_SEED_SIZE = 64
STRETCHED_SIZE = 80
SALT_SIZE = 32

RECORDS_PER_EPOCH = 1 << 20
RECORD_NUMBER_LIMIT = 1 << 48

# A profile is one byte on the wire that names exact costs: N, r, p. No weak one has a number.
SCRYPT_PROFILES: dict[int, tuple[int, int, int]] = {1: (1 << 15, 8, 3)}
DEFAULT_PROFILE = 1

_BLOCK = 16  # of AES
_LARGE = 1 << 16
_MOST_ROOMS = 8
_rooms: deque[bytearray] = deque(maxlen=_MOST_ROOMS)  # for what nobody reads, and nobody uses now

_KEM_INFO = b"secure-file-transfer v1 kem"
_KEM_EXPORT = b"sft1 ss_pq"

# HPKE's post-quantum part is still a draft. Opening this fixed ciphertext with the key of a fixed seed shows that the
# installed release computes what this protocol means; without the check, another result would read "wrong password".
KEM_CHECK_SEED = bytes(range(KEM_SEED_SIZE))
KEM_CHECK_CIPHERTEXT = b64decode(
    "DasH26MYHX63Bl19Qt00K295pzKqnztCQs0ey+7zoPO+oAfDqFxkNh4AUyZfa1jFT7ftlbL/5ldS9zQ7fiworSPfd7XzHSSGKFcpgQVoAOK9"
    "4i29iQwxhPrI5dkbulI4EgDtRWoki3q+Km8EnAOpg0CkHdRVoe7Evcy0ed5FQxB3SnYwcUlyxrnHc5lPYT6F67FMWnU308HFGyfwBZ+m5/Tk"
    "8pEBZDYlxtq9r/FWgpBqcNM4m2UzMpUxeRnHLuufVavs27+5oVCgxRNfGflNazbhdsszghxGzJImAyHOrWqfOIVYx9p73uT7bIci5hof80Q3"
    "sHUUP3n1wQJ+Q4RJwmjjMIkKlvjabs1cjf292MhAv0+V4pkpsTHsGo0MUPq5Z+5ZcUXmg9KfL8Hxvq5Qc6vLL/sdjD6o5yeE8rV2GLX/Flvz"
    "CJ7qoHf7Zv8gwZT8TyfF5MslKCwBEz0071rtJPkpIeGB60W6xHPtAqZc6X4zOiUspHVuwhyWnhP7rG+HSro1W7Y6w+hHYyoR5gm6Fl4w42mD"
    "MNH44FA6jRM+dRSELNtR3GAoNZuqTexCUILk7zqkHs8pUBa6gYmN9Psbfba4llR+7e3kpZJL4LpESD2wCoCiA7Ltxig5WsX0N5N7l5RVseDr"
    "pr8m+xImnieu15/1bIeN2l9I8JuRWUIT9G8ti+FIMQbNNEb3ej/+slOm2zr8Ya++JIV9sKKklIQo60OXcHbi9anNUUhI6yUbls0/X+9bkw0/"
    "rAA7/dO2L/5Y2i9ltv3ytDep8pX4e2eNDQrpHFJ7vPb9/eiY9cWT/tAET8R/z4bLPF64NKG3rWkT4WFDtC+61iem/E5SFITrnidjQbZ2x4Na"
    "DJPMMy3epPJvdtECrz3cvx7WVistl4YfB0AR1JKYqf+S3sjVqaFhiWgngvIiL5jUzS8sN9UGHcPqLMZ0s04BDhnkWfSfC1PrmTd/7n8N6RZC"
    "BhR+Vu/egxYVMG4hYY+f4+lwBS8FpZ7kQyfxmCz5Lc2bvsY/2gR9eVqdxpGSoUBO81JqzaNjSBqQmhy4tPXu8B/4yRoqrS5WY/YEYHIDLhlL"
    "lo0B4vYhz7w2/zYIlz/B19RIcn6HbuP2XdzxQ1r5VyUhoTfvdMJh+vnWtr6vZGCaNjWA5GtwW6cUpM+r13mgoVyP7qraPmsBBlsz1QSy/b/F"
    "Nd7Rnax0Z1vz/Ehs6vGOAqc6DOfQIpkfXXro1fBkdIAUk+ZdxIwhKWZDYW2GdlONk0FgIAWa5d4CXTk27v1ZWas9XqL+WSwNy7y5H6gO6uqA"
    "037vxE9VzP2EVjBBiIZo/PDa03QCvpDh/pIGfXdHQul9ijhZVGiJx3uW/noa2sxkU0Ix6/NpcpPneszjLhpDZZqIEllvCxkzuomq6Be4XeHo"
    "QmBb4inrBrY8Z5cqKKFM2NP27VnCeFWulw7sTowpS1KhSLA="
)
_KEM_CHECK_ANSWER = "2f725a985a0875f0688392192c4d9d04337f8804cff3f02a080c552dcc7c7d84"

_EAX_CHECK_ANSWER = (  # 40 zeros under the key 00 01 02 ..., the nonce 0 and the header "head"
    "4a2351adc8bb1b2682b48110f25a896e3101a315d1abd788294c095ad7c204b0d53b57e1f84dbc72a97de8b92cd53c1c2750fb5282667278"
)


def engine_name() -> str:
    """The library that does the cryptography, with its version."""
    return f"pycryptodome {Crypto.__version__}"


def random_bytes(size: int) -> bytes:
    """`size` bytes from the system's generator: the one seam for randomness."""
    return get_random_bytes(size)


def digest(data: Buffer) -> bytes:
    """SHA-256 of `data`, 32 bytes."""
    return hashlib.sha256(data).digest()


def new_digest() -> "hashlib._Hash":
    """A running SHA-256; it lets other threads run while it works on a large buffer."""
    return hashlib.sha256()


def mac(key: Buffer, *parts: Buffer) -> bytes:
    """HMAC-SHA256 of the parts, one after the other, 32 bytes."""
    with library_needed():
        from Crypto.Hash import HMAC, SHA256
    return HMAC.new(bytes(key), b"".join(parts), digestmod=SHA256).digest()


class Mac:
    """HMAC-SHA256 for many messages under one key, whose two states are computed once (RFC 2104, section 4).

    Made anew for each, it would be a third of the work with small files; over the library's SHA-256, which is called
    through ctypes, still a tenth. Safe to use from several threads.
    """

    def __init__(self, key: bytes) -> None:
        block = hashlib.sha256().block_size
        padded = (digest(key) if len(key) > block else key).ljust(block, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def of(self, *parts: Buffer) -> bytes:
        """The HMAC of the parts, one after the other, 32 bytes."""
        return self.finish(self.begin(), *parts)

    def begin(self, *parts: Buffer) -> "hashlib._Hash":
        """The state over the first parts, which need not be kept then; `finish` goes on with it, once."""
        inner = self._inner.copy()
        if parts:
            inner.update(b"".join(parts))
        return inner

    def finish(self, begun: "hashlib._Hash", *parts: Buffer) -> bytes:
        """The HMAC of the parts that `begun` has seen, and of these, 32 bytes."""
        begun.update(b"".join(parts))
        outer = self._outer.copy()
        outer.update(begun.digest())
        return outer.digest()


def equal(one: Buffer, other: Buffer) -> bool:
    """Compare two secrets in a time that does not depend on where they differ."""
    return _stdlib_hmac.compare_digest(one, other)


def hkdf_extract(salt: Buffer, key_material: Buffer) -> bytes:
    """HKDF-Extract (RFC 5869, section 2.2); an empty salt stands for 32 zero bytes."""
    return mac(bytes(salt) or bytes(DIGEST_SIZE), key_material)


def hkdf_expand(prk: Buffer, info: bytes, size: int = KEY_SIZE) -> bytes:
    """HKDF-Expand (RFC 5869, section 2.3) to `size` bytes."""
    out, block, count = b"", b"", 0
    while len(out) < size:
        count += 1
        block = mac(prk, block, info, bytes([count]))
        out += block
    return out[:size]


def load_hash() -> None:
    """Load what `stretch` and `mac` need of the library. Raises UsageError when it is not there."""
    with library_needed():
        import Crypto.Hash.HMAC
        import Crypto.Hash.SHA256
        import Crypto.Protocol.KDF  # noqa: F401


def stretch(password_input: bytes, salt: bytes, profile: int) -> bytes:
    """scrypt at the costs that `profile` names; 80 bytes. Takes 0.1 to 0.3 s and 96 MiB, a thread for each lane.

    Raises ConnectionTrouble for a profile that has no number here, NoMemory, NoThread.
    """
    with library_needed():
        from Crypto.Protocol.KDF import scrypt
    if profile not in SCRYPT_PROFILES:
        raise ConnectionTrouble(
            f"the server asks for an unknown scrypt profile ({profile})", "Update this program", Failure.FINAL
        )
    n, r, p = SCRYPT_PROFILES[profile]
    try:
        with threads_needed():
            stretched: bytes = scrypt(password_input, salt, STRETCHED_SIZE, n, r, p, threads=p)
    except (ValueError, MemoryError):  # the library says it as "Error 2"; our arguments are always right
        raise NoMemory from None
    return stretched


class KemKey:
    """An ML-KEM-768 key pair made from a 64-byte seed; `public` is what travels (1,184 bytes)."""

    def __init__(self, seed: bytes) -> None:
        with library_needed():
            from Crypto.PublicKey import MLKEM
        self._key = MLKEM.construct(param_set=MLKEM.ML_KEM_768, seed=seed)
        self.public = bytes(self._key.ek)

    def open(self, ciphertext: bytes) -> bytes:
        """ss_pq for a ciphertext of 1,088 bytes. A forged ciphertext gives another secret, not an error."""
        with library_needed():
            from Crypto.Protocol import HPKE
        return _export(HPKE.new(receiver_key=self._key, aead_id=HPKE.AEAD.EXPORT_ONLY, info=_KEM_INFO, enc=ciphertext))


def kem_encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """(ciphertext, ss_pq) for the encapsulation key `public`.

    Raises IntegrityError when it is no ML-KEM-768 key (FIPS 203, section 7.2).
    """
    with library_needed():
        from Crypto.Protocol import HPKE
        from Crypto.PublicKey import MLKEM
    try:
        key = MLKEM.construct(param_set=MLKEM.ML_KEM_768, ek=public)
    except ValueError:
        raise IntegrityError("not an ML-KEM-768 encapsulation key") from None
    context = HPKE.new(receiver_key=key, aead_id=HPKE.AEAD.EXPORT_ONLY, info=_KEM_INFO)
    return context.enc, _export(context)


def _export(context: "HPKE_Cipher") -> bytes:
    return context.export(_KEM_EXPORT, KEY_SIZE)


def check_library() -> None:
    """Load what is needed of the library, and run the known-answer checks of the KEM and of the records' cipher.

    Raises UsageError when a part is missing, or computes something else.
    """
    load_hash()
    if KemKey(KEM_CHECK_SEED).open(KEM_CHECK_CIPHERTEXT).hex() != _KEM_CHECK_ANSWER:
        raise UsageError("this release of pycryptodome computes another key agreement", _INSTALL)
    mode, text = Eax(bytes(range(KEY_SIZE))), bytearray(40)
    start = mode.start(bytes(8))
    mode.apply(start, memoryview(text))
    if (text + mode.tag(start, b"head", memoryview(text))).hex() != _EAX_CHECK_ANSWER:
        raise UsageError("this release of pycryptodome computes another cipher", _INSTALL)


class Eax:
    """AES-EAX under one key (Bellare, Rogaway, Wagner: The EAX Mode of Operation, 2004), from the library's CTR, CBC.

        N = OMAC 0 (nonce)    ciphertext = CTR from N (text)    tag = N ^ OMAC 1 (header) ^ OMAC 2 (ciphertext)
        OMAC t (m) = CMAC (a block that holds t, then m)

    The library's own EAX computes the same, in three times as many calls, each of which lets go of the interpreter and
    asks for it again, and with two copies of the ciphertext that nobody reads: an eighth of the whole time of a large
    transfer. Safe to use from several threads.
    """

    def __init__(self, key: bytes) -> None:
        with library_needed():
            from Crypto.Cipher import AES
        self._key, self._aes = key, AES
        self._block = AES.new(key, AES.MODE_ECB).encrypt
        self._whole = _doubled(self._one(0))  # for a last block that is whole (RFC 4493, section 2.3: K1)
        self._padded = _doubled(self._whole)  # for one that is not: K2
        self._starts = [self._block(kind.to_bytes(_BLOCK, "big")) for kind in range(3)]
        self._of_nothing = [self._one(kind ^ self._whole) for kind in range(3)]

    def _one(self, block: int) -> int:
        return int.from_bytes(self._block(block.to_bytes(_BLOCK, "big")), "big")

    def _omac(self, kind: int, text: Buffer) -> int:
        size = len(text)
        if not size:
            return self._of_nothing[kind]
        before, at = self._starts[kind], (size - 1) // _BLOCK * _BLOCK
        if at:
            before = self._last_of_chain(before, text[:at])
        last, mask = bytes(text[at:]), self._whole
        if len(last) < _BLOCK:
            last, mask = (last + b"\x80").ljust(_BLOCK, b"\0"), self._padded
        return self._one(int.from_bytes(before, "big") ^ int.from_bytes(last, "big") ^ mask)

    def _last_of_chain(self, before: bytes, text: Buffer) -> bytes:
        """The last block of CBC, which gives out all of them: into the same memory again and again if they are many."""
        size = len(text)
        room = _room_of(size) if size > _LARGE else bytearray(size)
        self._aes.new(self._key, self._aes.MODE_CBC, iv=before).encrypt(text, output=memoryview(room)[:size])
        last = bytes(room[size - _BLOCK : size])
        if size > _LARGE:
            _rooms.append(room)
        return last

    def start(self, nonce: bytes) -> int:
        """N, which the other methods want: 16 bytes as a number."""
        return self._omac(0, nonce)

    def apply(self, start: int, text: memoryview) -> None:
        """Encrypt or decrypt `text` in place."""
        self._aes.new(self._key, self._aes.MODE_CTR, nonce=b"", initial_value=start).encrypt(text, output=text)

    def tag(self, start: int, header: Buffer, ciphertext: memoryview) -> bytes:
        """The tag, 16 bytes."""
        return (start ^ self._omac(1, header) ^ self._omac(2, ciphertext)).to_bytes(_BLOCK, "big")


def _room_of(size: int) -> bytearray:
    """At least `size` bytes, which were used before if there are any."""
    with contextlib.suppress(IndexError):
        if len(room := _rooms.pop()) >= size:
            return room
    return bytearray(size)


def _doubled(block: int) -> int:
    """Twice the element of GF(2^128) (RFC 4493, section 2.3)."""
    return (block << 1 ^ 0x87 * (block >> 127)) & (1 << 128) - 1


class RecordCipher:
    """Seals or opens the records of one direction: AES-256-EAX, nonce = the record's number, header as associated data.

    Record `number` uses the key of epoch `number // 2^20`, so that no key passes EAX's bound. Safe to call from several
    threads at once: it keeps no state but a cache of the epoch's key.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._epoch: tuple[int, Eax] = (0, self._mode_of(0))

    def _mode_of(self, epoch: int) -> Eax:
        return Eax(hkdf_expand(self._secret, b"epoch" + epoch.to_bytes(8, "big")))

    def _begin(self, number: int) -> tuple[Eax, int]:
        if not 0 <= number < RECORD_NUMBER_LIMIT:
            raise IntegrityError("the connection has used up its record numbers", "Connect again")
        epoch = number // RECORDS_PER_EPOCH
        cached = self._epoch
        if cached[0] != epoch:
            cached = self._epoch = (epoch, self._mode_of(epoch))
        return cached[1], cached[1].start(number.to_bytes(8, "big"))

    def seal(self, number: int, header: Buffer, text: memoryview) -> bytes:
        """Encrypt `text` in place and return its tag, 16 bytes."""
        mode, start = self._begin(number)
        mode.apply(start, text)
        return mode.tag(start, header, text)

    def open(self, number: int, header: Buffer, text: memoryview, tag: Buffer) -> None:
        """Decrypt `text` in place. Raises IntegrityError, with nothing decrypted, when the tag is wrong."""
        mode, start = self._begin(number)
        if not equal(mode.tag(start, header, text), tag):
            raise IntegrityError("a record did not pass its authentication")
        mode.apply(start, text)
