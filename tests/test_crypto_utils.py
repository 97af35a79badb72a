"""Each primitive against published values or another implementation, then against what must fail."""

import hashlib
import hmac
import re
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
from Crypto.Cipher import AES
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import run_python
from tables import each_row

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
    OpenSslAes,
    PycryptodomeAes,
    RecordCipher,
    aes_library,
    check_library,
    digest,
    engine_name,
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


@each_row(
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
    for begun, rest in ((often.begin(), [data]), (often.begin(data[:3], b""), [memoryview(data[3:])])):
        assert often.finish(begun, *rest).hex() == expected


@given(st.binary(max_size=130), st.lists(st.binary(max_size=200), max_size=4))
def test_mac_of_many_messages_is_the_same_as_of_one(key: bytes, parts: list[bytes]) -> None:
    often = Mac(key)
    assert [often.finish(often.begin(*parts)) for _ in range(2)] == [hmac.digest(key, b"".join(parts), "sha256")] * 2


def test_mac_of_nothing() -> None:
    assert mac(b"key") == mac(b"key", b"") == hmac.digest(b"key", b"", "sha256")


@each_row(
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


@each_row("profile", [0, 2, 3, 127, 255, -1, 256])
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


@each_row(
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


@each_row("size", [0, 1, KEM_CIPHERTEXT_SIZE - 1, KEM_CIPHERTEXT_SIZE + 1, KEM_PUBLIC_SIZE])
def test_reject_ciphertext_of_a_wrong_size(size: int) -> None:
    with pytest.raises(ValueError, match="enc"):
        KemKey(bytes(KEM_SEED_SIZE)).open(bytes(size))


@each_row("size", [0, 32, 63, 65])
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


# --- EAX ---

LIBRARIES = [
    pytest.param(PycryptodomeAes, id="pycryptodome"),
    pytest.param(
        OpenSslAes, id="OpenSSL", marks=pytest.mark.skipif(find_spec("cryptography") is None, reason="missing")
    ),
]
Library = type[PycryptodomeAes] | type[OpenSslAes]

WYCHEPROOF = Path(__file__).with_name("vectors") / "aes_eax.txt"

# Appendix G of the paper: key, nonce, header; text, ciphertext and tag.
EAX_VECTORS = """\
233952dee4d5ed5f9b9c6d6ff80ff478 62ec67f9c3a4a407fcb2a8c49031a8b3 6bfb914fd07eae6b
- e037830e8389f27b025a2d6527e79d01
91945d3f4dcbee0bf45ef52255f095a4 becaf043b0a23d843194ba972c66debd fa3bfd4806eb53fa
f7fb 19dd5c4c9331049d0bdab0277408f67967e5
01f74ad64077f2e704c0f60ada3dd523 70c3db4f0d26368400a10ed05d2bff5e 234a3463c1264ac6
1a47cb4933 d851d5bae03a59f238a23e39199dc9266626c40f80
d07cf6cbb7f313bdde66b727afd3c5e8 8408dfff3c1a2b1292dc199e46b7d617 33cce2eabff5a79d
481c9e39b1 632a9d131ad4c168a4225d8e1ff755939974a7bede
35b6d0580005bbc12b0587124557d2c2 fdb6b06676eedc5c61d74276e1f8e816 aeb96eaebe2970e9
40d0c07da5e4 071dfe16c675cb0677e536f73afe6a14b74ee49844dd
bd8e6e11475e60b268784c38c62feb22 6eac5c93072d8e8513f750935e46da1b d4482d1ca78dce0f
4de3b35c3fc039245bd1fb7d 835bb4f15d743e350e728414abb8644fd6ccb86947c5e10590210a4f
7c77d6e813bed5ac98baa417477a2e7d 1a8c98dcd73d38393b2bf1569deefc19 65d2017990d62528
8b0a79306c9ce7ed99dae4f87f8dd61636 02083e3979da014812f59f11d52630da30137327d10649b0aa6e1c181db617d7f2
5fff20cafab119ca2fc73549e20f5b0d dde59b97d722156d4d9aff2bc7559826 54b9f04e6a09189a
1bda122bce8a8dbaf1877d962b8592dd2d56 2ec47b2c4954a489afc7ba4897edcdae8cc33b60450599bd02c96382902aef7f832a
a4a4782bcffd3ec5e7ef6d8c34a56123 b781fcf2f75fa5a8de97a9ca48e522ec 899a175897561d7e
6cf36720872b8513f6eab1a8a44438d5ef11 0de18fd0fdd91e7af19f1d8ee8733938b1e8e7f6d2231618102fdb7fe55ff1991700
8395fcf1e95bebd697bd010bc766aac3 22e7add93cfc6393c57ec0b3c17d6b44 126735fcc320d25a
ca40d7446e545ffaed3bd12a740a659ffbbb3ceab7 cb8920f87a6c75cff39627b56e3ed197c552d295a7cfc46afc253b4652b1af3795b124ab6e
"""


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("number", range(10))
def test_eax_of_its_paper(number: int, library: Library) -> None:
    vector = EAX_VECTORS.split()[5 * number : 5 * number + 5]
    key, nonce, header, text, expected = (bytes.fromhex(part.strip("-")) for part in vector)
    mode, buffer = Eax(key, library), bytearray(text)
    tag = mode.seal(nonce, header, memoryview(buffer))
    assert buffer + tag == expected
    assert mode.open(nonce, header, memoryview(buffer), tag)
    assert buffer == text


@pytest.mark.parametrize("library", LIBRARIES)
def test_eax_of_wycheproof_is_sealed_and_opened_or_refused(library: Library) -> None:
    """Counters that wrap, nonces of 0 to 257 bytes, and tags with any bit flipped."""
    lines = [line.split() for line in WYCHEPROOF.read_text("ascii").splitlines() if not line.startswith("#")]
    verdicts = []
    for number, verdict, *fields in lines:
        key, nonce, header, text, ciphertext, tag = (bytes.fromhex(field.strip("-")) for field in fields)
        mode, sealed, opened = Eax(key, library), bytearray(text), bytearray(ciphertext)
        has_tag = mode.seal(nonce, header, memoryview(sealed)) == tag
        is_right = mode.open(nonce, header, memoryview(opened), tag)
        assert has_tag == is_right == (verdict == "valid"), number
        assert sealed == ciphertext and opened == (text if is_right else ciphertext), number
        verdicts.append(verdict)
    assert (len(verdicts), verdicts.count("invalid")) == (240, 81)


@pytest.mark.parametrize("library", LIBRARIES)
@given(
    key=st.binary(min_size=32, max_size=32),
    nonce=st.binary(min_size=1, max_size=40),
    header=st.binary(max_size=40),
    text=st.binary(max_size=200) | st.integers(0, 70_000).map(lambda size: bytes(range(256)) * (size // 256) + b"end"),
)
def test_eax_equals_pycryptodomes_and_opens_again(
    library: Library, key: bytes, nonce: bytes, header: bytes, text: bytes
) -> None:
    theirs = AES.new(key, AES.MODE_EAX, nonce=nonce)
    theirs.update(header)
    mode, buffer = Eax(key, library), bytearray(text)
    tag = mode.seal(nonce, header, memoryview(buffer))
    assert (bytes(buffer), tag) == theirs.encrypt_and_digest(text)
    assert not mode.open(nonce, header + b"x", memoryview(buffer), tag)
    assert mode.open(nonce, header, memoryview(buffer), tag)
    assert buffer == text


@pytest.mark.parametrize("library", LIBRARIES)
def test_eax_equals_pycryptodomes_at_every_length_around_a_block(library: Library) -> None:
    mode, key = Eax(SECRET, library), SECRET
    for size in (*range(50), *range(4080, 4115), 2**20 + 4096):
        text = random_bytes(size)
        buffer, theirs = bytearray(text), AES.new(key, AES.MODE_EAX, nonce=bytes(8))
        tag = mode.seal(bytes(8), b"", memoryview(buffer))
        assert (bytes(buffer), tag) == theirs.encrypt_and_digest(text)


def test_faster_library_is_used_where_it_is_installed_and_named() -> None:
    installed = find_spec("cryptography") is not None
    assert aes_library() is (OpenSslAes if installed else PycryptodomeAes)
    assert engine_name().startswith("pycryptodome 4.")
    assert (", cryptography " in engine_name()) == installed


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("import sys; sys.modules['cryptography'] = None", id="missing"),
        pytest.param("import cryptography; cryptography.__version__ = '42.0.8'", id="too old"),
    ],
)
def test_without_cryptography_pycryptodome_does_all_of_it(before: str) -> None:
    if "import cryptography" in before and find_spec("cryptography") is None:
        pytest.skip("it is missing")
    told = run_python(
        f"{before}\nimport crypto_utils\n"
        "crypto_utils.check_library()\nprint(crypto_utils.aes_library().LIBRARY, crypto_utils.engine_name())"
    )
    assert re.fullmatch(r"pycryptodome pycryptodome [0-9.]+", told)


def test_cryptography_that_can_not_be_loaded_counts_as_missing() -> None:
    told = run_python(
        "import sys, types\nfake = types.ModuleType('cryptography')\nfake.__version__ = '99.0.0'\n"
        "sys.modules['cryptography'] = fake\nimport crypto_utils\n"
        "crypto_utils.check_library()\nprint(crypto_utils.aes_library().LIBRARY)"
    )
    assert told == "pycryptodome"


def test_no_start_parses_declarations_of_c_code() -> None:
    told = run_python(
        "import sys, crypto_utils\ncrypto_utils.check_library()\ncrypto_utils.stretch(b'', bytes(32), 1)\n"
        "print([name for name in ('pycparser', 'cffi.api') if name in sys.modules])"
    )
    assert told == "[]"


# --- Records ---

NUMBERS = [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 2**21, 2**32, 2**48 - 1]


@each_row("size", [0, 1, 15, 16, 17, 4096, 2**20 + 4096])
@each_row("number", NUMBERS)
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


@each_row("number", [-1, RECORD_NUMBER_LIMIT, RECORD_NUMBER_LIMIT + 1, 2**63, 2**64])
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


@each_row("records", TAMPERED.values(), ids=TAMPERED.keys())
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


def told_at_import(module: str, before: str, *path: Path) -> str:
    """What a person reads who imports `module` and checks the library after the statement `before`, `path` in front."""
    return run_python(before + _IMPORT.format(module), path=path)


@pytest.mark.parametrize("module", ["crypto_utils", "sft.wire.pake", "sft.wire.handshake"])
@pytest.mark.parametrize(
    ("before", "cause"),
    [
        pytest.param(_ABSENT, "not installed", id="missing"),
        pytest.param(_WITHOUT_HPKE, "too old", id="without HPKE"),
        pytest.param(_RELEASE.format((4, 3, "0")), "too old", id="4.3"),
        pytest.param(_RELEASE.format((3, 99, "0b1")), "too old", id="3.99"),
    ],
)
def test_unusable_library_is_told_with_the_command_that_helps(module: str, before: str, cause: str) -> None:
    told = told_at_import(module, before)
    assert cause in told
    assert "python -m pip install -r requirements.lock" in told


@pytest.mark.parametrize("module", ["crypto_utils", "sft.wire.pake"])
def test_another_package_of_that_name_is_told_as_too_old(module: str, tmp_path: Path) -> None:
    (tmp_path / "Crypto").mkdir()
    (tmp_path / "Crypto" / "__init__.py").write_text("version_info = (2, 6, 1, 'final', 0)\n")
    told = told_at_import(module, "", tmp_path)
    assert "too old" in told
    assert "python -m pip install -r requirements.lock" in told


@pytest.mark.parametrize("release", [(4, 4, "0"), (4, 10, "0"), (5, 0, "0b0")])
def test_library_new_enough_is_taken(release: tuple[int, int, str]) -> None:
    assert told_at_import("crypto_utils", _RELEASE.format(release)) == ""
