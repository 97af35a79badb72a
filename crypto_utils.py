"""The cryptography that everything else is built from; docs/PROTOCOL.md has each formula.

    digest            SHA-256 (FIPS 180-4)
    mac, Mac          HMAC-SHA256 (RFC 2104)
    hkdf_*            HKDF-SHA256 (RFC 5869)
    stretch           scrypt (RFC 7914), by profile
    kem_*             ML-KEM-768 (FIPS 203) through HPKE's exporter (RFC 9180)
    Eax               AES-EAX (Bellare, Rogaway, Wagner 2004), of the AES of one of two libraries
    RecordCipher      AES-256-EAX with a counted nonce and a key for each epoch

Rules: this module knows no socket, no file and no clock. Randomness enters through `random_bytes` alone, which callers
take as an argument, so that a test can fix it. `RecordCipher.open` decrypts nothing before its tag was found right.
Secrets are compared by `equal`. pycryptodome is required; the `cryptography` package makes AES faster where it is
installed. Only this module imports it, and only this one and `sft/wire/pake.py` import pycryptodome. Each part of a
library is imported where it is used, because a client can send its hello before most of them are loaded
(`check_library` loads them all).
"""

import contextlib
import functools
import hashlib
import hmac
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from sft.common.errors import ConnectionTrouble, Failure, IntegrityError, NoMemory, UsageError, threads_needed
from sft.common.packages import INSTALL, leave_out

_NEEDED = (4, 4)
_CRYPTOGRAPHY_NEEDED = 43  # earlier releases want more memory than the text has to encrypt it in place


@contextlib.contextmanager
def library_needed() -> Iterator[None]:
    """Around an import of pycryptodome. Raises UsageError when that part of it is missing."""
    try:
        yield
    except (ImportError, OSError) as missing:  # OSError: a native module of it that does not load
        if isinstance(missing, ModuleNotFoundError) and missing.name == "Crypto":
            raise UsageError("pycryptodome is not installed", INSTALL) from None
        raise UsageError("the installed pycryptodome is too old or incomplete (4.4 is needed)", INSTALL) from None


leave_out("cffi")  # with it pycryptodome parses C declarations: 0.19 s of CPU at each start, 0.09 s without
with library_needed():
    import Crypto
    from Crypto.Random import get_random_bytes
if tuple(Crypto.version_info[:2]) < _NEEDED:
    raise UsageError("the installed pycryptodome is too old (4.4 is needed)", INSTALL)

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

_BLOCK = 16  # of AES, in bytes

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
    """The libraries in use, with their versions: pycryptodome, and `cryptography` where it does the AES.

    It loads nothing of them, so it names a `cryptography` that turns out to be damaged, too.
    """
    version = _version_of_cryptography()
    return f"pycryptodome {Crypto.__version__}" + (f", cryptography {version}" if version else "")


@functools.cache
def _version_of_cryptography() -> str:
    """Its version; empty when it is missing or too old to be used."""
    try:
        from cryptography import __version__
    except ImportError:
        return ""
    major = __version__.partition(".")[0]
    return __version__ if major.isdecimal() and int(major) >= _CRYPTOGRAPHY_NEEDED else ""


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
    return hmac.digest(key, b"".join(parts), "sha256")


class Mac:
    """HMAC-SHA256 for many messages under one key, which is prepared once: that is a third of the work for a short one.

    Safe to use from several threads.
    """

    def __init__(self, key: bytes) -> None:
        self._fresh = hmac.new(key, digestmod="sha256")

    def begin(self, *parts: Buffer) -> hmac.HMAC:
        """The state over the first parts, which need not be kept then; `finish` goes on with it, once."""
        begun = self._fresh.copy()
        begun.update(b"".join(parts))
        return begun

    @staticmethod
    def finish(begun: hmac.HMAC, *parts: Buffer) -> bytes:
        """The HMAC of the parts that `begin` took, and of these, 32 bytes."""
        begun.update(b"".join(parts))
        return begun.digest()


def equal(one: Buffer, other: Buffer) -> bool:
    """Compare two secrets in a time that does not depend on where they differ."""
    return hmac.compare_digest(one, other)


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
    """Load what `stretch` needs of the library. Raises UsageError when it is missing."""
    with library_needed():
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
    except (ValueError, MemoryError):  # the library's "Error 2"; our arguments are always right
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
    """Load what is needed of the libraries, and run the known-answer checks of the KEM and of the records' cipher.

    Raises UsageError when a part is missing, or computes something else.
    """
    load_hash()
    if KemKey(KEM_CHECK_SEED).open(KEM_CHECK_CIPHERTEXT).hex() != _KEM_CHECK_ANSWER:
        raise UsageError("this release of pycryptodome computes another key agreement", INSTALL)
    text = bytearray(40)
    if (text + Eax(bytes(range(KEY_SIZE))).seal(bytes(8), b"head", memoryview(text))).hex() != _EAX_CHECK_ANSWER:
        raise UsageError(f"this release of {aes_library().LIBRARY} computes another cipher", INSTALL)


class _Aes(Protocol):
    """AES under one key, as a library has it. Safe to use from several threads."""

    LIBRARY: str

    def __init__(self, key: bytes) -> None: ...

    def omac(self, kind: int, text: Buffer) -> bytes:
        """CMAC (NIST SP 800-38B) of a block that holds `kind`, then `text`: OMAC `kind` of EAX, 16 bytes."""

    def ctr(self, start: bytes, text: memoryview) -> None:
        """Encrypt or decrypt `text` in place, in counter mode from the block `start` on."""


def _first_blocks() -> list[bytes]:
    return [kind.to_bytes(_BLOCK, "big") for kind in range(3)]


class OpenSslAes:
    """AES by OpenSSL through the `cryptography` package, which is twice as fast.

    Its CMAC keeps the interpreter's lock, 1 ms for a record of a mebibyte; its CTR lets go of it.
    """

    LIBRARY = "cryptography"

    def __init__(self, key: bytes) -> None:
        """Raises ImportError, OSError."""
        from cryptography.hazmat.primitives.ciphers import Cipher
        from cryptography.hazmat.primitives.ciphers.algorithms import AES
        from cryptography.hazmat.primitives.ciphers.modes import CTR
        from cryptography.hazmat.primitives.cmac import CMAC

        self._cipher, self._algorithm, self._mode = Cipher, AES(key), CTR
        self._begun = [CMAC(self._algorithm) for _ in range(3)]
        for begun, block in zip(self._begun, _first_blocks(), strict=True):
            begun.update(block)

    def omac(self, kind: int, text: Buffer) -> bytes:
        """OMAC `kind`, 16 bytes."""
        running = self._begun[kind].copy()
        running.update(text)  # type: ignore[arg-type]  # any buffer will do
        tag: bytes = running.finalize()
        return tag

    def ctr(self, start: bytes, text: memoryview) -> None:
        """Encrypt or decrypt `text` in place."""
        self._cipher(self._algorithm, self._mode(start)).encryptor().update_into(text, text)


class PycryptodomeAes:
    """AES by pycryptodome, which lets go of the interpreter's lock in every call."""

    LIBRARY = "pycryptodome"

    def __init__(self, key: bytes) -> None:
        """Raises UsageError."""
        with library_needed():
            from Crypto.Cipher import AES
            from Crypto.Hash import CMAC
        self._key, self._aes = key, AES
        self._begun = [CMAC.new(key, block, ciphermod=AES) for block in _first_blocks()]

    def omac(self, kind: int, text: Buffer) -> bytes:
        """OMAC `kind`, 16 bytes."""
        return self._begun[kind].copy().update(text).digest()

    def ctr(self, start: bytes, text: memoryview) -> None:
        """Encrypt or decrypt `text` in place."""
        mode = self._aes.new(self._key, self._aes.MODE_CTR, nonce=b"", initial_value=start)
        mode.encrypt(text, output=text)


@functools.cache
def aes_library() -> type[_Aes]:
    """The faster library that is installed; a `cryptography` that can't be loaded counts as missing."""
    if _version_of_cryptography():
        with contextlib.suppress(ImportError, OSError):
            OpenSslAes(bytes(KEY_SIZE))
            return OpenSslAes
    return PycryptodomeAes


class Eax:
    """AES-EAX under one key (Bellare, Rogaway, Wagner: The EAX Mode of Operation, 2004).

        N = OMAC 0 (nonce)    ciphertext = CTR from N (text)    tag = N ^ OMAC 1 (header) ^ OMAC 2 (ciphertext)

    pycryptodome's own MODE_EAX is made of the same two parts, but can't verify a tag before it has decrypted. Safe to
    use from several threads.
    """

    def __init__(self, key: bytes, library: type[_Aes] | None = None) -> None:
        self._aes = (library or aes_library())(key)

    def seal(self, nonce: bytes, header: Buffer, text: memoryview) -> bytes:
        """Encrypt `text` in place and return its tag, 16 bytes."""
        start = self._aes.omac(0, nonce)
        self._aes.ctr(start, text)
        return self._tag(start, header, text)

    def open(self, nonce: bytes, header: Buffer, text: memoryview, tag: Buffer) -> bool:
        """Decrypt `text` in place if its tag is right; return whether it is."""
        start = self._aes.omac(0, nonce)
        if not equal(self._tag(start, header, text), tag):
            return False
        self._aes.ctr(start, text)
        return True

    def _tag(self, start: bytes, header: Buffer, ciphertext: memoryview) -> bytes:
        parts = (start, self._aes.omac(1, header), self._aes.omac(2, ciphertext))
        one, two, three = (int.from_bytes(part, "big") for part in parts)
        return (one ^ two ^ three).to_bytes(TAG_SIZE, "big")


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

    def _mode_for(self, number: int) -> tuple[Eax, bytes]:
        """The mode and the nonce of a record."""
        if not 0 <= number < RECORD_NUMBER_LIMIT:
            raise IntegrityError("the connection has used up its record numbers", "Connect again")
        epoch = number // RECORDS_PER_EPOCH
        cached = self._epoch
        if cached[0] != epoch:
            cached = self._epoch = (epoch, self._mode_of(epoch))
        return cached[1], number.to_bytes(8, "big")

    def seal(self, number: int, header: Buffer, text: memoryview) -> bytes:
        """Encrypt `text` in place and return its tag, 16 bytes."""
        mode, nonce = self._mode_for(number)
        return mode.seal(nonce, header, text)

    def open(self, number: int, header: Buffer, text: memoryview, tag: Buffer) -> None:
        """Decrypt `text` in place. Raises IntegrityError, with nothing decrypted, when the tag is wrong."""
        mode, nonce = self._mode_for(number)
        if not mode.open(nonce, header, text, tag):
            raise IntegrityError("a record did not pass its authentication")
