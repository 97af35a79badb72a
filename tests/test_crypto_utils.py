"""Each primitive against published values or another implementation, then against what must fail."""

import hashlib
import hmac
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from Crypto.Cipher import AES
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import run_python

import crypto_utils
from crypto_utils import (
    KEM_CIPHERTEXT_SIZE,
    KEM_PUBLIC_SIZE,
    KEM_SEED_SIZE,
    RECORD_NUMBER_LIMIT,
    RECORDS_PER_EPOCH,
    Eax,
    KemKey,
    Mac,
    RecordCipher,
    check_library,
    digest,
    equal,
    hkdf_expand,
    hkdf_extract,
    kem_encapsulate,
    mac,
    new_digest,
    random_bytes,
    stretch,
)
from sft.common.errors import ConnectionTrouble, IntegrityError, UsageError

ROOT = Path(crypto_utils.__file__).resolve().parent


# --- Hash, HMAC, HKDF -------------------------------------------------------------------------------------------------


def test_digest_of_abc() -> None:  # FIPS 180-4, example 1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(b"abc").hex() == expected
    running = new_digest()
    running.update(b"a")
    running.update(memoryview(b"bc"))
    assert running.hexdigest() == expected


@pytest.mark.parametrize(
    ("key", "data", "expected"),
    [
        (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (b"\xaa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (
            b"\xaa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ],
)
def test_mac_of_rfc_4231(key: bytes, data: bytes, expected: str) -> None:
    assert mac(key, data).hex() == expected
    assert mac(bytearray(key), data[:3], b"", memoryview(data[3:])).hex() == expected
    assert hmac.new(key, data, hashlib.sha256).hexdigest() == expected
    often = Mac(key)
    assert often.of(data) == often.of(data[:3], b"", memoryview(data[3:])) == mac(key, data)


@given(st.binary(max_size=130), st.lists(st.binary(max_size=200), max_size=4))
def test_mac_of_many_messages_is_the_same_as_of_one(key: bytes, parts: list[bytes]) -> None:
    often = Mac(key)
    assert [often.of(*parts) for _ in range(2)] == [hmac.digest(key, b"".join(parts), "sha256")] * 2


def test_mac_of_nothing() -> None:
    assert mac(b"key") == mac(b"key", b"") == hmac.digest(b"key", b"", "sha256")


@pytest.mark.parametrize(
    ("key_material", "salt", "info", "size", "prk", "okm"),
    [
        pytest.param(
            b"\x0b" * 22,
            bytes(range(13)),
            bytes(range(0xF0, 0xFA)),
            42,
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            id="RFC 5869 test case 1",
        ),
        pytest.param(
            bytes(range(0x50)),
            bytes(range(0x60, 0xB0)),
            bytes(range(0xB0, 0x100)),
            82,
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
            id="RFC 5869 test case 2",
        ),
        pytest.param(
            b"\x0b" * 22,
            b"",
            b"",
            42,
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            id="RFC 5869 test case 3",
        ),
    ],
)
def test_hkdf_of_rfc_5869(key_material: bytes, salt: bytes, info: bytes, size: int, prk: str, okm: str) -> None:
    assert hkdf_extract(salt, key_material).hex() == prk
    assert hkdf_expand(bytes.fromhex(prk), info, size).hex() == okm


@settings(max_examples=50)
@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=100), st.integers(1, 255 * 32))
def test_hkdf_equals_an_independent_computation(salt: bytes, key_material: bytes, info: bytes, size: int) -> None:
    prk = hmac.digest(salt, key_material, "sha256")
    out = block = b""
    for count in range(1, (size + 31) // 32 + 1):
        block = hmac.digest(prk, block + info + bytes([count]), "sha256")
        out += block
    assert hkdf_extract(salt, key_material) == prk
    assert hkdf_expand(prk, info, size) == out[:size]


def test_equal_compares_whole_values() -> None:
    assert equal(b"same", bytearray(b"same"))
    for other in (b"", b"sam", b"same\0", b"Same", b"samf"):
        assert not equal(b"same", other)


def test_random_bytes_are_as_many_as_asked_for_and_never_the_same() -> None:
    assert [len(random_bytes(size)) for size in (0, 1, 64)] == [0, 1, 64]
    assert len({random_bytes(32) for _ in range(50)}) == 50


# --- scrypt -----------------------------------------------------------------------------------------------------------


def test_stretch_is_scrypt_at_the_costs_of_its_profile() -> None:
    password, salt = b"correct horse", bytes(range(32))
    expected = hashlib.scrypt(password, salt=salt, n=2**15, r=8, p=3, dklen=80, maxmem=128 * 2**20)
    assert stretch(password, salt, 1) == expected
    assert len(expected) == 80


def test_no_weak_profile_has_a_number() -> None:
    assert crypto_utils.DEFAULT_PROFILE in crypto_utils.SCRYPT_PROFILES
    for number, (n, r, p) in crypto_utils.SCRYPT_PROFILES.items():
        assert 0 < number < 256
        assert n * r * p >= 2**15 * 8 * 3


@pytest.mark.parametrize("profile", [0, 2, 3, 127, 255, -1, 256])
def test_reject_unknown_profile(profile: int) -> None:
    with pytest.raises(ConnectionTrouble):
        stretch(b"password", bytes(32), profile)


# --- ML-KEM-768 -------------------------------------------------------------------------------------------------------


def test_known_answers_of_the_library() -> None:
    assert len(crypto_utils.KEM_CHECK_CIPHERTEXT) == KEM_CIPHERTEXT_SIZE
    check_library()


@pytest.mark.parametrize(("answer", "what"), [("_KEM_CHECK_ANSWER", "agreement"), ("_EAX_CHECK_ANSWER", "cipher")])
def test_another_answer_of_the_library_is_reported_as_such(
    monkeypatch: pytest.MonkeyPatch, answer: str, what: str
) -> None:
    monkeypatch.setattr(crypto_utils, answer, "00" * 32)
    with pytest.raises(UsageError, match=f"another.*{what}.*pip install"):
        check_library()


def test_another_ciphertext_fails_the_known_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = bytes([crypto_utils.KEM_CHECK_CIPHERTEXT[0] ^ 1]) + crypto_utils.KEM_CHECK_CIPHERTEXT[1:]
    monkeypatch.setattr(crypto_utils, "KEM_CHECK_CIPHERTEXT", changed)
    with pytest.raises(UsageError):
        check_library()


def test_both_ends_of_the_kem_agree() -> None:
    key = KemKey(random_bytes(KEM_SEED_SIZE))
    assert len(key.public) == KEM_PUBLIC_SIZE
    one, other = kem_encapsulate(key.public), kem_encapsulate(key.public)
    assert one != other
    for ciphertext, secret in (one, other):
        assert (len(ciphertext), len(secret)) == (KEM_CIPHERTEXT_SIZE, 32)
        assert key.open(ciphertext) == secret


def test_kem_key_is_made_from_its_seed_alone() -> None:
    assert KemKey(bytes(64)).public == KemKey(bytes(64)).public != KemKey(b"\1" + bytes(63)).public


def test_forged_ciphertext_gives_another_secret() -> None:
    key = KemKey(bytes(64))
    ciphertext, secret = kem_encapsulate(key.public)
    forged = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    assert key.open(forged) != secret
    assert KemKey(b"\1" + bytes(63)).open(ciphertext) != secret


_PUBLIC = KemKey(bytes(KEM_SEED_SIZE)).public


@pytest.mark.parametrize(
    "public",
    [
        pytest.param(b"", id="empty"),
        pytest.param(_PUBLIC[:-1], id="a byte short"),
        pytest.param(_PUBLIC + b"\0", id="a byte long"),
        pytest.param(_PUBLIC[:800], id="size of ML-KEM-512"),
        pytest.param(_PUBLIC.ljust(1568, b"\0"), id="size of ML-KEM-1024"),
        pytest.param(b"\xff" * KEM_PUBLIC_SIZE, id="coefficients of 4095"),
        pytest.param(b"\x01\x0d" + _PUBLIC[2:], id="first coefficient is q"),
        pytest.param(_PUBLIC[:1149] + b"\x1f\x10\xd0" + _PUBLIC[1152:], id="last coefficient is q"),
    ],
)
def test_reject_encapsulation_key(public: bytes) -> None:
    with pytest.raises(IntegrityError):
        kem_encapsulate(public)


@pytest.mark.parametrize("size", [0, 1, KEM_CIPHERTEXT_SIZE - 1, KEM_CIPHERTEXT_SIZE + 1, KEM_PUBLIC_SIZE])
def test_reject_ciphertext_of_a_wrong_size(size: int) -> None:
    with pytest.raises(ValueError, match="enc"):
        KemKey(bytes(KEM_SEED_SIZE)).open(bytes(size))


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_reject_seed_of_a_wrong_size(size: int) -> None:
    with pytest.raises(ValueError, match="seed"):
        KemKey(bytes(size))


# --- Records ----------------------------------------------------------------------------------------------------------

SECRET = bytes(range(32))
HEADER = b"\x00\x00\x01\x00"
FIRST_OF_EPOCH_1 = 1 << 20


def epoch_key(epoch: int) -> bytes:
    return hmac.digest(SECRET, b"epoch" + epoch.to_bytes(8, "big") + b"\1", "sha256")


def independently_sealed(number: int, header: bytes, text: bytes) -> tuple[bytes, bytes]:
    cipher = AES.new(epoch_key(number >> 20), AES.MODE_EAX, nonce=number.to_bytes(8, "big"), mac_len=16)
    cipher.update(header)
    return cipher.encrypt_and_digest(text)


def sealed(cipher: RecordCipher, number: int, text: bytes, header: bytes = HEADER) -> tuple[bytes, bytes]:
    buffer = bytearray(text)
    tag = cipher.seal(number, header, memoryview(buffer))
    return bytes(buffer), tag


def opened(cipher: RecordCipher, number: int, text: bytes, tag: bytes, header: bytes = HEADER) -> bytes:
    buffer = bytearray(text)
    cipher.open(number, header, memoryview(buffer), tag)
    return bytes(buffer)


# From the paper's own test vectors: message, key, nonce, header, ciphertext and tag.
EAX_VECTORS = [
    (
        "",
        "233952DEE4D5ED5F9B9C6D6FF80FF478",
        "62EC67F9C3A4A407FCB2A8C49031A8B3",
        "6BFB914FD07EAE6B",
        "E037830E8389F27B025A2D6527E79D01",
    ),
    (
        "F7FB",
        "91945D3F4DCBEE0BF45EF52255F095A4",
        "BECAF043B0A23D843194BA972C66DEBD",
        "FA3BFD4806EB53FA",
        "19DD5C4C9331049D0BDAB0277408F67967E5",
    ),
    (
        "1A47CB4933",
        "01F74AD64077F2E704C0F60ADA3DD523",
        "70C3DB4F0D26368400A10ED05D2BFF5E",
        "234A3463C1264AC6",
        "D851D5BAE03A59F238A23E39199DC9266626C40F80",
    ),
]


@pytest.mark.parametrize("vector", EAX_VECTORS, ids=lambda vector: vector[0] or "empty")
def test_eax_of_its_paper(vector: tuple[str, ...]) -> None:
    text, key, nonce, header, expected = map(bytes.fromhex, vector)
    mode, buffer = Eax(key), bytearray(text)
    start = mode.start(nonce)
    mode.apply(start, memoryview(buffer))
    assert buffer + mode.tag(start, header, memoryview(buffer)) == expected


@given(key=st.binary(min_size=32, max_size=32), header=st.binary(max_size=40), text=st.binary(max_size=200))
def test_eax_equals_the_librarys(key: bytes, header: bytes, text: bytes) -> None:
    theirs = AES.new(key, AES.MODE_EAX, nonce=key[:8])
    theirs.update(header)
    mode, buffer = Eax(key), bytearray(text)
    start = mode.start(key[:8])
    mode.apply(start, memoryview(buffer))
    assert (bytes(buffer), mode.tag(start, header, memoryview(buffer))) == theirs.encrypt_and_digest(text)


NUMBERS = [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 2**21, 2**32, 2**48 - 1]


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4096, 2**20 + 4096])
@pytest.mark.parametrize("number", NUMBERS)
def test_record_equals_plain_eax_and_opens_again(number: int, size: int) -> None:
    text = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    ciphertext, tag = sealed(RecordCipher(SECRET), number, text)
    assert (ciphertext, tag) == independently_sealed(number, HEADER, text)
    assert opened(RecordCipher(SECRET), number, ciphertext, tag) == text


def test_record_is_sealed_and_opened_inside_a_larger_buffer() -> None:
    buffer = bytearray(b"head" + b"secret words" + b"tail")
    inside = memoryview(buffer)[4:-4]
    tag = RecordCipher(SECRET).seal(7, HEADER, inside)
    assert buffer[:4] + buffer[-4:] == b"headtail"
    assert buffer[4:-4] != b"secret words"
    RecordCipher(SECRET).open(7, memoryview(bytearray(HEADER)), inside, memoryview(tag))
    assert buffer == b"headsecret wordstail"


def test_epoch_boundary_changes_the_key() -> None:
    assert RECORDS_PER_EPOCH == FIRST_OF_EPOCH_1
    cipher, text = RecordCipher(SECRET), bytes(64)
    for number, right, wrong in ((FIRST_OF_EPOCH_1 - 1, 0, 1), (FIRST_OF_EPOCH_1, 1, 0)):
        nonce = number.to_bytes(8, "big")
        ciphertext, _ = sealed(cipher, number, text)
        assert AES.new(epoch_key(right), AES.MODE_EAX, nonce=nonce).decrypt(ciphertext) == text
        assert AES.new(epoch_key(wrong), AES.MODE_EAX, nonce=nonce).decrypt(ciphertext) != text


def test_epochs_may_be_visited_in_any_order() -> None:
    one_end, other_end = RecordCipher(SECRET), RecordCipher(SECRET)
    for number in (5, FIRST_OF_EPOCH_1, 6, 3 * FIRST_OF_EPOCH_1, FIRST_OF_EPOCH_1 - 1, FIRST_OF_EPOCH_1 + 1):
        assert opened(other_end, number, *sealed(one_end, number, b"text")) == b"text"


@pytest.mark.parametrize("number", [-1, RECORD_NUMBER_LIMIT, RECORD_NUMBER_LIMIT + 1, 2**63, 2**64])
def test_reject_record_number(number: int) -> None:
    assert RECORD_NUMBER_LIMIT == 2**48
    cipher, buffer = RecordCipher(SECRET), bytearray(b"untouched")
    with pytest.raises(IntegrityError):
        cipher.seal(number, HEADER, memoryview(buffer))
    with pytest.raises(IntegrityError):
        cipher.open(number, HEADER, memoryview(buffer), bytes(16))
    assert buffer == b"untouched"


_TEXT = b"attack at dawn, the second time!"
_CIPHERTEXT, _TAG = independently_sealed(9, HEADER, _TEXT)


def flips(value: bytes) -> list[bytes]:
    """`value` once for each of its bits, with that bit flipped."""
    return [
        value[:at] + bytes([value[at] ^ (1 << bit)]) + value[at + 1 :] for at in range(len(value)) for bit in range(8)
    ]


TAMPERED = {
    "tag": [(9, HEADER, _CIPHERTEXT, tag) for tag in flips(_TAG)],
    "header": [(9, header, _CIPHERTEXT, _TAG) for header in flips(HEADER)],
    "ciphertext": [(9, HEADER, ciphertext, _TAG) for ciphertext in flips(_CIPHERTEXT)],
    "number": [(number, HEADER, _CIPHERTEXT, _TAG) for number in (*range(9), *range(10, 20), 9 + 2**20, 2**48 - 1)],
    "size": [(9, HEADER, _CIPHERTEXT[:-1], _TAG), (9, HEADER, _CIPHERTEXT + b"\0", _TAG), (9, HEADER, b"", _TAG)],
    "size of the tag": [(9, HEADER, _CIPHERTEXT, tag) for tag in (b"", _TAG[:1], _TAG[:15], _TAG + b"\0")],
    "size of the header": [(9, header, _CIPHERTEXT, _TAG) for header in (b"", HEADER[1:], HEADER + b"\0")],
}


@pytest.mark.parametrize("records", TAMPERED.values(), ids=TAMPERED.keys())
def test_tampered_record_is_refused_and_nothing_of_it_decrypted(records: list[tuple[int, bytes, bytes, bytes]]) -> None:
    cipher = RecordCipher(SECRET)
    for number, header, ciphertext, tag in records:
        buffer = bytearray(ciphertext)
        with pytest.raises(IntegrityError):
            cipher.open(number, header, memoryview(buffer), tag)
        assert buffer == ciphertext
    assert opened(cipher, 9, _CIPHERTEXT, _TAG) == _TEXT


def test_record_of_the_other_direction_is_refused() -> None:
    with pytest.raises(IntegrityError):
        opened(RecordCipher(bytes(32)), 9, _CIPHERTEXT, _TAG)


def test_threads_across_an_epoch_boundary_seal_rightly() -> None:
    cipher, text = RecordCipher(SECRET), bytes(3000)
    numbers = [number for at in range(200) for number in (FIRST_OF_EPOCH_1 - 1 - at, FIRST_OF_EPOCH_1 + at)]
    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(lambda number: sealed(cipher, number, text), numbers))
        assert got == [independently_sealed(number, HEADER, text) for number in numbers]
        again = threads.map(lambda number, record: opened(cipher, number, *record), numbers, got)
        assert all(plain == text for plain in again)


class Interrupted(RecordCipher):
    """A cipher that another thread visits, for a record of epoch 0, whenever it has noted something of its own."""

    visiting = True

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if not self.visiting:
            type(self).visiting = True
            sealed(self, 3, b"visitor")
            type(self).visiting = False


def test_visit_of_another_epoch_at_the_worst_moment_changes_nothing() -> None:
    cipher = Interrupted(SECRET)
    Interrupted.visiting = False
    for number in (FIRST_OF_EPOCH_1, 2 * FIRST_OF_EPOCH_1, 0, FIRST_OF_EPOCH_1):
        assert sealed(cipher, number, b"text") == independently_sealed(number, HEADER, b"text")


# --- The library ------------------------------------------------------------------------------------------------------

_ABSENT = "import sys; sys.modules['Crypto'] = None"
_WITHOUT_HPKE = "import sys; sys.modules['Crypto.Protocol.HPKE'] = None"
_RELEASE = "import Crypto; Crypto.version_info = {}"
_IMPORT = """
from sft.common import errors
try:
    import {}
    from crypto_utils import check_library
    check_library()
except errors.UsageError as error:
    print(error)
"""


def told_at_import(room: str, before: str, *path: Path) -> str:
    """What a person reads who imports `room` and checks the library after the statement `before`, `path` in front."""
    return run_python(before + _IMPORT.format(room), path=path)


@pytest.mark.parametrize("room", ["crypto_utils", "sft.wire.pake", "sft.wire.handshake"])
@pytest.mark.parametrize(
    ("before", "cause"),
    [
        pytest.param(_ABSENT, "not installed", id="missing"),
        pytest.param(_WITHOUT_HPKE, "too old", id="without HPKE"),
        pytest.param(_RELEASE.format((4, 3, "0")), "too old", id="4.3"),
        pytest.param(_RELEASE.format((3, 99, "0b1")), "too old", id="3.99"),
    ],
)
def test_unusable_library_is_told_with_the_command_that_helps(room: str, before: str, cause: str) -> None:
    told = told_at_import(room, before)
    assert cause in told
    assert "python -m pip install -r requirements.lock" in told


@pytest.mark.parametrize("room", ["crypto_utils", "sft.wire.pake"])
def test_another_package_of_that_name_is_told_as_too_old(room: str, tmp_path: Path) -> None:
    (tmp_path / "Crypto").mkdir()
    (tmp_path / "Crypto" / "__init__.py").write_text("version_info = (2, 6, 1, 'final', 0)\n")
    told = told_at_import(room, "", tmp_path)
    assert "too old" in told
    assert "python -m pip install -r requirements.lock" in told


@pytest.mark.parametrize("release", [(4, 4, "0"), (4, 10, "0"), (5, 0, "0b0")])
def test_library_new_enough_is_taken(release: tuple[int, int, str]) -> None:
    assert told_at_import("crypto_utils", _RELEASE.format(release)) == ""
