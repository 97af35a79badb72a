"""RFC 9383 held against its own vector, then against everything that must fail."""

from collections.abc import Callable

import pytest
from Crypto.PublicKey import ECC
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import each_row

from crypto_utils import mac
from sft.common.errors import IntegrityError, LoginRefused
from sft.wire.pake import (
    ORDER,
    POINT_SIZE,
    SCALAR_SIZE,
    Identities,
    KeySchedule,
    M,
    N,
    P,
    Prover,
    Registration,
    Verifier,
    decode_point,
    encode_point,
    password_input,
    password_scalars,
    transcript,
)

FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1
CURVE_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


def fixed(scalar: int) -> Callable[[int], bytes]:
    """A source of randomness that gives this scalar."""
    return lambda size: scalar.to_bytes(SCALAR_SIZE, "big").rjust(size, b"\0")


def sec1(x: int, y: int) -> bytes:
    return b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")


# --- RFC 9383, appendix C: P256-SHA256-HKDF-SHA256-HMAC-SHA256 --------------------------------------------------------

IDENTITIES = Identities(b"SPAKE2+-P256-SHA256-HKDF-SHA256-HMAC-SHA256 Test Vectors", b"client", b"server")
w0 = 0xBB8E1BBCF3C48F62C08DB243652AE55D3E5586053FCA77102994F23AD95491B3
w1 = 0x7E945F34D78785B8A3EF44D0DF5A1A97D6B3B460409A345CA7830387A74B1DBA
x = 0xD1232C8E8693D02368976C174E2088851B8365D0D79A9EEE709C6A05A2FAD539
y = 0x717A72348A182085109C8D3917D6C43D59B224DC6A7FC4F0483232FA6516D8B3
L = bytes.fromhex(
    "04eb7c9db3d9a9eb1f8adab81b5794c1f13ae3e225efbe91ea487425854c7fc00f"
    "00bfedcbd09b2400142d40a14f2064ef31dfaa903b91d1faea7093d835966efd"
)
SHARE_P = bytes.fromhex(
    "04ef3bd051bf78a2234ec0df197f7828060fe9856503579bb1733009042c15c0c1"
    "de127727f418b5966afadfdd95a6e4591d171056b333dab97a79c7193e341727"
)
SHARE_V = bytes.fromhex(
    "04c0f65da0d11927bdf5d560c69e1d7d939a05b0e88291887d679fcadea75810fb"
    "5cc1ca7494db39e82ff2f50665255d76173e09986ab46742c798a9a68437b048"
)
Z = bytes.fromhex(
    "04bbfce7dd7f277819c8da21544afb7964705569bdf12fb92aa388059408d50091"
    "a0c5f1d3127f56813b5337f9e4e67e2ca633117a4fbd559946ab474356c41839"
)
V = bytes.fromhex(
    "0458bf27c6bca011c9ce1930e8984a797a3419797b936629a5a937cf2f11c8b951"
    "4b82b993da8a46e664f23db7c01edc87faa530db01c2ee405230b18997f16b68"
)
TT = bytes.fromhex(
    "38000000000000005350414b45322b2d503235362d5348413235362d484b44462d5348413235362d484d41432d534841323536205465737420566563746f7273"
    "0600000000000000636c69656e74"
    "0600000000000000736572766572"
    "410000000000000004886e2f97ace46e55ba9dd7242579f2993b64e16ef3dcab95afd497333d8fa12f"
    "5ff355163e43ce224e0b0e65ff02ac8e5c7be09419c785e0ca547d55a12e2d20"
    "410000000000000004d8bbd6c639c62937b04d997f38c3770719c629d7014d49a24b4f98baa1292b49"
    "07d60aa6bfade45008a636337f5168c64d9bd36034808cd564490b1e656edbe7"
    "410000000000000004ef3bd051bf78a2234ec0df197f7828060fe9856503579bb1733009042c15c0c1"
    "de127727f418b5966afadfdd95a6e4591d171056b333dab97a79c7193e341727"
    "410000000000000004c0f65da0d11927bdf5d560c69e1d7d939a05b0e88291887d679fcadea75810fb"
    "5cc1ca7494db39e82ff2f50665255d76173e09986ab46742c798a9a68437b048"
    "410000000000000004bbfce7dd7f277819c8da21544afb7964705569bdf12fb92aa388059408d50091"
    "a0c5f1d3127f56813b5337f9e4e67e2ca633117a4fbd559946ab474356c41839"
    "41000000000000000458bf27c6bca011c9ce1930e8984a797a3419797b936629a5a937cf2f11c8b951"
    "4b82b993da8a46e664f23db7c01edc87faa530db01c2ee405230b18997f16b68"
    "2000000000000000bb8e1bbcf3c48f62c08db243652ae55d3e5586053fca77102994f23ad95491b3"
)
K_MAIN = bytes.fromhex("4c59e1ccf2cfb961aa31bd9434478a1089b56cd11542f53d3576fb6c2a438a29")
K_CONFIRM_P = bytes.fromhex("871ae3f7b78445e34438fb284504240239031c39d80ac23eb5ab9be5ad6db58a")
K_CONFIRM_V = bytes.fromhex("ccd53c7c1fa37b64a462b40db8be101cedcf838950162902054e644b400f1680")
CONFIRM_P = bytes.fromhex("926cc713504b9b4d76c9162ded04b5493e89109f6d89462cd33adc46fda27527")
CONFIRM_V = bytes.fromhex("9747bcc4f8fe9f63defee53ac9b07876d907d55047e6ff2def2e7529089d3e68")
K_SHARED = bytes.fromhex("0c5f8ccd1413423a54f6c1fb26ff01534a87f893779c6e68666d772bfd91f3e7")

REGISTRATION = Registration.of(w0, w1)
W0 = w0.to_bytes(32, "big")


def respond(verifier: Verifier, shareP: bytes) -> tuple[bytes, bytes]:
    """What a server does with a share: parse it, charge for it (not here), answer."""
    return verifier.respond(shareP, decode_point(shareP))


def test_vector_registration() -> None:
    assert REGISTRATION.w0 == W0
    assert REGISTRATION.L == L
    assert decode_point(REGISTRATION.w0M) == M() * w0
    assert decode_point(REGISTRATION.w0N) == N() * w0
    REGISTRATION.check()


def test_vector_blinding_points_are_the_ones_of_section_4() -> None:
    for point, compressed in (
        (M(), "02886e2f97ace46e55ba9dd7242579f2993b64e16ef3dcab95afd497333d8fa12f"),
        (N(), "03d8bbd6c639c62937b04d997f38c3770719c629d7014d49a24b4f98baa1292b49"),
    ):
        assert ECC.import_key(bytes.fromhex(compressed), curve_name="P-256").pointQ == point
    assert (P() * (ORDER - 1)) == -P()


def test_vector_Z_and_V_from_the_provers_side() -> None:
    unblinded = decode_point(SHARE_V) + -(N() * w0)
    assert encode_point(unblinded * x) == Z
    assert encode_point(unblinded * w1) == V


def test_vector_Z_and_V_from_the_verifiers_side() -> None:
    assert encode_point((decode_point(SHARE_P) + -decode_point(REGISTRATION.w0M)) * y) == Z
    assert encode_point(decode_point(L) * y) == V


def test_vector_transcript_and_key_schedule() -> None:
    assert transcript(IDENTITIES, SHARE_P, SHARE_V, Z, V, W0) == TT
    keys = KeySchedule.of(TT)
    assert (keys.K_main, keys.K_confirmP, keys.K_confirmV, keys.K_shared) == (
        K_MAIN,
        K_CONFIRM_P,
        K_CONFIRM_V,
        K_SHARED,
    )


@pytest.mark.parametrize("side", ["prover", "verifier"])
def test_vector_each_side_computes_every_value(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, ...]] = []

    def watched(identities: Identities, *items: bytes) -> bytes:
        seen.append(items)
        assert transcript(identities, *items) == TT
        return TT

    monkeypatch.setattr("sft.wire.pake.transcript", watched)
    if side == "prover":
        prover = Prover(IDENTITIES, w0, w1, fixed(x))
        assert prover.share() == SHARE_P
        assert prover.finish(SHARE_V, CONFIRM_V) == (CONFIRM_P, K_SHARED)
    else:
        verifier = Verifier(IDENTITIES, REGISTRATION, fixed(y))
        assert respond(verifier, SHARE_P) == (SHARE_V, CONFIRM_V)
        assert verifier.finish(CONFIRM_P) == K_SHARED
    assert seen == [(SHARE_P, SHARE_V, Z, V, W0)]


# --- Both ends together -----------------------------------------------------------------------------------------------

scalars = st.integers(min_value=1, max_value=ORDER - 1)


@settings(max_examples=50)
@given(scalars, scalars, scalars, scalars, st.binary(max_size=40), st.binary(max_size=40))
def test_both_ends_agree(one: int, two: int, ours: int, theirs: int, prover_id: bytes, verifier_id: bytes) -> None:
    identities = Identities(b"any", prover_id, verifier_id)
    prover = Prover(identities, one, two, fixed(ours))
    verifier = Verifier(identities, Registration.of(one, two), fixed(theirs))
    confirmP, key = prover.finish(*respond(verifier, prover.share()))
    assert verifier.finish(confirmP) == key
    assert len(key) == 32


def test_fresh_randomness_gives_fresh_shares_and_keys() -> None:
    seen = set()
    for _ in range(3):
        prover, verifier = Prover(IDENTITIES, w0, w1), Verifier(IDENTITIES, REGISTRATION)
        shareP = prover.share()
        shareV, confirmV = respond(verifier, shareP)
        confirmP, key = prover.finish(shareV, confirmV)
        assert verifier.finish(confirmP) == key
        seen |= {shareP, shareV, confirmP, confirmV, key}
    assert len(seen) == 15


def test_zero_is_never_drawn_as_a_scalar() -> None:
    drawn = iter((bytes(48), ORDER.to_bytes(48, "big"), x.to_bytes(48, "big")))
    assert Prover(IDENTITIES, w0, w1, lambda size: next(drawn)).share() == SHARE_P


def differs(**changed: bytes) -> Identities:
    kept = {"context": IDENTITIES.context, "prover": IDENTITIES.prover, "verifier": IDENTITIES.verifier}
    return Identities(**{**kept, **changed})


@each_row(
    ("identities", "one", "two"),
    [
        pytest.param(IDENTITIES, w0 + 1, w1, id="wrong w0"),
        pytest.param(IDENTITIES, w0, w1 + 1, id="wrong w1"),
        pytest.param(IDENTITIES, w1, w0, id="w0 and w1 swapped"),
        pytest.param(differs(prover=b"server", verifier=b"client"), w0, w1, id="identities swapped"),
        pytest.param(differs(prover=b"clien", verifier=b"tserver"), w0, w1, id="boundary between identities moved"),
        pytest.param(differs(prover=b""), w0, w1, id="empty identity"),
        pytest.param(differs(context=b"another"), w0, w1, id="another context"),
    ],
)
def test_ends_that_differ_refuse_each_other(identities: Identities, one: int, two: int) -> None:
    prover, verifier = Prover(identities, one, two, fixed(x)), Verifier(IDENTITIES, REGISTRATION)
    shareP = prover.share()
    shareV, confirmV = respond(verifier, shareP)
    with pytest.raises(LoginRefused):
        prover.finish(shareV, confirmV)
    # A client that doesn't mind, and goes on with what it has, is refused as well.
    unblinded = decode_point(shareV) + -(N() * one)
    points = encode_point(unblinded * x), encode_point(unblinded * two)
    keys = KeySchedule.of(transcript(identities, shareP, shareV, *points, one.to_bytes(32, "big")))
    with pytest.raises(LoginRefused):
        verifier.finish(mac(keys.K_confirmP, shareV))


def test_two_provers_do_not_agree() -> None:
    one, other = Prover(IDENTITIES, w0, w1), Prover(IDENTITIES, w0, w1)
    one.share()
    with pytest.raises(LoginRefused):
        one.finish(other.share(), bytes(32))


def test_two_verifiers_do_not_agree() -> None:
    one, other = Verifier(IDENTITIES, REGISTRATION), Verifier(IDENTITIES, REGISTRATION)
    shareV, confirmV = respond(one, encode_point(P() * 5))
    _, answer = respond(other, shareV)
    for forged in (confirmV, answer):
        with pytest.raises((LoginRefused, RuntimeError)):
            one.finish(forged)


@each_row("confirmV", [CONFIRM_V, CONFIRM_P, bytes(32)])
def test_share_reflected_to_the_prover_is_refused(confirmV: bytes) -> None:
    prover = Prover(IDENTITIES, w0, w1, fixed(x))
    with pytest.raises(LoginRefused):
        prover.finish(prover.share(), confirmV)


def test_share_reflected_to_another_verifier_is_refused() -> None:
    verifier = Verifier(IDENTITIES, REGISTRATION)
    shareV, confirmV = respond(verifier, SHARE_V)
    assert shareV != SHARE_V
    with pytest.raises(LoginRefused):
        verifier.finish(confirmV)


def test_confirmation_reflected_to_the_verifier_is_refused() -> None:
    verifier = Verifier(IDENTITIES, REGISTRATION, fixed(y))
    _, confirmV = respond(verifier, SHARE_P)
    with pytest.raises(LoginRefused):
        verifier.finish(confirmV)


def test_confirmation_of_an_earlier_login_is_refused() -> None:
    verifier = Verifier(IDENTITIES, REGISTRATION)
    respond(verifier, SHARE_P)
    with pytest.raises(LoginRefused):
        verifier.finish(CONFIRM_P)


def test_share_that_cancels_to_the_identity_is_refused_by_the_prover() -> None:
    prover = Prover(IDENTITIES, w0, w1)
    shareP, shareV = prover.share(), REGISTRATION.w0N  # y = 0: all that follows needs w0 alone
    identity = b"\x04" + bytes(64)
    keys = KeySchedule.of(transcript(IDENTITIES, shareP, shareV, identity, identity, W0))
    with pytest.raises(IntegrityError, match="identity"):
        prover.finish(shareV, mac(keys.K_confirmV, shareP))


@each_row("confirm", [b"", CONFIRM_V[:-1], CONFIRM_V + b"\0", CONFIRM_P[:-1], CONFIRM_P + b"\0"])
def test_confirmation_of_a_wrong_size_is_refused(confirm: bytes) -> None:
    prover = Prover(IDENTITIES, w0, w1, fixed(x))
    prover.share()
    with pytest.raises(LoginRefused):
        prover.finish(SHARE_V, confirm)
    verifier = Verifier(IDENTITIES, REGISTRATION, fixed(y))
    respond(verifier, SHARE_P)
    with pytest.raises(LoginRefused):
        verifier.finish(confirm)


@each_row("guess", [w0, w0 + 1, 1], ids=["right guess", "near guess", "wrong guess"])
def test_share_made_of_a_guess_is_answered_whether_it_is_right_or_not(guess: int) -> None:
    shareP = encode_point(M() * guess)
    verifier = Verifier(IDENTITIES, REGISTRATION, fixed(y))
    shareV, confirmV = respond(verifier, shareP)
    assert shareV == SHARE_V
    assert len(confirmV) == 32
    # With the right guess Z is the identity, written as 04 and zeros.
    keys = KeySchedule.of(transcript(IDENTITIES, shareP, shareV, b"\x04" + bytes(64), V, W0))
    assert (confirmV == mac(keys.K_confirmV, shareP)) is (guess == w0)
    with pytest.raises(LoginRefused):
        verifier.finish(bytes(32))


# --- Order ------------------------------------------------------------------------------------------------------------


def prover_in(state: str) -> Prover:
    prover = Prover(IDENTITIES, w0, w1, fixed(x))
    if state != "new":
        prover.share()
    if state == "finished":
        prover.finish(SHARE_V, CONFIRM_V)
    if state == "refused":
        with pytest.raises(LoginRefused):
            prover.finish(SHARE_V, bytes(32))
    if state == "bad point":
        with pytest.raises(IntegrityError):
            prover.finish(bytes(65), CONFIRM_V)
    return prover


def verifier_in(state: str) -> Verifier:
    verifier = Verifier(IDENTITIES, REGISTRATION, fixed(y))
    if state != "new":
        respond(verifier, SHARE_P)
    if state == "finished":
        verifier.finish(CONFIRM_P)
    if state == "refused":
        with pytest.raises(LoginRefused):
            verifier.finish(bytes(32))
    return verifier


@each_row("second_try", [False, True])
@each_row(
    ("state", "step"),
    [
        ("new", "finish"),
        ("shared", "share"),
        ("finished", "share"),
        ("finished", "finish"),
        ("refused", "share"),
        ("refused", "finish"),
        ("bad point", "share"),
        ("bad point", "finish"),
    ],
)
def test_prover_step_out_of_order_fails_and_stays_failed(state: str, step: str, second_try: bool) -> None:
    prover = prover_in(state)
    steps: dict[str, Callable[[], object]] = {
        "share": prover.share,
        "finish": lambda: prover.finish(SHARE_V, CONFIRM_V),
    }
    with pytest.raises(RuntimeError):
        steps[step]()
    with pytest.raises(RuntimeError):
        steps["share" if second_try else "finish"]()


@each_row("second_try", [False, True])
@each_row(
    ("state", "step"),
    [
        ("new", "finish"),
        ("answered", "respond"),
        ("finished", "respond"),
        ("finished", "finish"),
        ("refused", "respond"),
        ("refused", "finish"),
    ],
)
def test_verifier_step_out_of_order_fails_and_stays_failed(state: str, step: str, second_try: bool) -> None:
    verifier = verifier_in(state)
    steps: dict[str, Callable[[], object]] = {
        "respond": lambda: respond(verifier, SHARE_P),
        "finish": lambda: verifier.finish(CONFIRM_P),
    }
    with pytest.raises(RuntimeError):
        steps[step]()
    with pytest.raises(RuntimeError):
        steps["respond" if second_try else "finish"]()


def test_verifier_that_failed_to_respond_is_dead() -> None:
    damaged = Registration(REGISTRATION.w0, bytes(65), REGISTRATION.w0M, REGISTRATION.w0N)
    verifier = Verifier(IDENTITIES, damaged)
    with pytest.raises(IntegrityError):
        respond(verifier, SHARE_P)
    with pytest.raises(RuntimeError):
        respond(verifier, SHARE_P)
    with pytest.raises(RuntimeError):
        verifier.finish(CONFIRM_P)


# --- Points -----------------------------------------------------------------------------------------------------------

# Points of P-256 whose x, or whose y, also fits into 32 bytes when p is added to it.
SMALL_X = (5, 0x459243B9AA581806FE913BCE99817ADE11CA503C64D9A3C533415C083248FBCC)
SMALL_Y = (0xD7325D7646CD60D80A92738CEB345F844CFFAF35841022CAB176F692DE8DE1D7, 5)

_KEY = ECC.construct(curve="P-256", d=x)
_OTHER_CURVE = ECC.construct(curve="P-384", d=x)
_PX, _PY = (int(coordinate) for coordinate in P().xy)
_X_BYTES = SHARE_P[1:33]

BAD_POINTS = {
    "the identity as 04 and zeros": b"\x04" + bytes(64),
    "the identity as one zero byte": b"\x00",
    "65 zero bytes": bytes(65),
    "empty": b"",
    "off the curve": sec1(_PX, _PY + 1),
    "off the curve at 1, 1": sec1(1, 1),
    "off the curve at 0, 1": sec1(0, 1),
    "last bit flipped": SHARE_P[:-1] + bytes([SHARE_P[-1] ^ 1]),
    "coordinates swapped": sec1(_PY, _PX),
    "x + p": sec1(SMALL_X[0] + FIELD, SMALL_X[1]),
    "y + p": sec1(SMALL_Y[0], SMALL_Y[1] + FIELD),
    "x is p": sec1(FIELD, 0x66485C780E2F83D72433BD5D84A06BB6541C2AF31DAE871728BF856A174F93F4),
    "y is p": sec1(_PX, FIELD),
    "both are p": sec1(FIELD, FIELD),
    "both are ff..ff": b"\x04" + b"\xff" * 64,
    "x is ff..ff": b"\x04" + b"\xff" * 32 + SHARE_P[33:],
    "y is ff..ff": SHARE_P[:33] + b"\xff" * 32,
    "64 bytes, without the first": SHARE_P[1:],
    "64 bytes, without the last": SHARE_P[:-1],
    "66 bytes, a zero behind": SHARE_P + b"\0",
    "66 bytes, a zero in front": b"\0" + SHARE_P,
    "compressed 02": b"\x02" + _X_BYTES,
    "compressed 03": b"\x03" + _X_BYTES,
    "compressed 02 filled up to 65": (b"\x02" + _X_BYTES).ljust(65, b"\0"),
    "compressed 03 filled up to 65": (b"\x03" + _X_BYTES).ljust(65, b"\0"),
    "uncompressed marked 02": b"\x02" + SHARE_P[1:],
    "uncompressed marked 03": b"\x03" + SHARE_P[1:],
    "hybrid 06": b"\x06" + SHARE_P[1:],
    "hybrid 07": b"\x07" + SHARE_P[1:],
    "DER public key": _KEY.public_key().export_key(format="DER"),
    "DER public key, compressed": _KEY.public_key().export_key(format="DER", compress=True),
    "DER private key": _KEY.export_key(format="DER"),
    "PEM public key": _KEY.public_key().export_key(format="PEM").encode(),
    "PEM private key": _KEY.export_key(format="PEM").encode(),
    "OpenSSH public key": _KEY.public_key().export_key(format="OpenSSH").encode(),
    "point of another curve": _OTHER_CURVE.public_key().export_key(format="SEC1"),
    "hex": SHARE_P.hex().encode(),
}


@each_row("encoded", BAD_POINTS.values(), ids=BAD_POINTS.keys())
def test_reject_point(encoded: bytes) -> None:
    with pytest.raises(IntegrityError):
        decode_point(encoded)
    prover = prover_in("shared")
    with pytest.raises(IntegrityError):
        prover.finish(encoded, CONFIRM_V)
    with pytest.raises(RuntimeError):
        prover.finish(SHARE_V, CONFIRM_V)


def test_reject_every_other_first_byte() -> None:
    for first in {*range(256)} - {4}:
        with pytest.raises(IntegrityError):
            decode_point(bytes([first]) + SHARE_P[1:])


@each_row("point", [SMALL_X, SMALL_Y, (_PX, _PY)])
def test_accept_point_on_the_curve(point: tuple[int, int]) -> None:
    at_x, at_y = point
    assert (at_x**3 - 3 * at_x + CURVE_B - at_y**2) % FIELD == 0
    encoded = sec1(at_x, at_y)
    assert encode_point(decode_point(encoded)) == encoded


@settings(max_examples=200)
@given(st.binary(max_size=80) | st.binary(min_size=64, max_size=64).map(b"\x04".__add__))
def test_reject_arbitrary_bytes_as_a_point(encoded: bytes) -> None:
    try:
        point = decode_point(encoded)
    except IntegrityError:
        return
    assert encode_point(point) == encoded


def test_every_multiple_survives_encoding() -> None:
    for scalar in (1, 2, 3, ORDER - 1, w0, w1):
        encoded = encode_point(P() * scalar)
        assert len(encoded) == POINT_SIZE
        assert decode_point(encoded) == P() * scalar


# --- Registration and password scalars --------------------------------------------------------------------------------

_GOOD = {"w0": REGISTRATION.w0, "L": REGISTRATION.L, "w0M": REGISTRATION.w0M, "w0N": REGISTRATION.w0N}
_ELSE = Registration.of(w0 + 1, w1)


@each_row(
    "damage",
    [
        pytest.param({"w0": bytes(32)}, id="w0 is zero"),
        pytest.param({"w0": bytes(32), "w0M": b"\x04" + bytes(64), "w0N": b"\x04" + bytes(64)}, id="all of it is zero"),
        pytest.param({"w0": ORDER.to_bytes(32, "big")}, id="w0 is the order"),
        pytest.param(
            {"w0": (ORDER + 1).to_bytes(32, "big"), "w0M": encode_point(M()), "w0N": encode_point(N())}, id="w0+n"
        ),
        pytest.param({"w0": b"\xff" * 32}, id="w0 is ff..ff"),
        pytest.param({"w0": W0[1:]}, id="w0 of 31 bytes"),
        pytest.param({"w0": b"\0" + W0}, id="w0 of 33 bytes"),
        pytest.param({"w0": b""}, id="w0 is empty"),
        pytest.param({"w0": _ELSE.w0}, id="another w0"),
        pytest.param({"L": L[:-1] + bytes([L[-1] ^ 1])}, id="L off the curve"),
        pytest.param({"L": b"\x04" + bytes(64)}, id="L is the identity"),
        pytest.param({"L": b""}, id="L is empty"),
        pytest.param({"w0M": _ELSE.w0M}, id="another w0M"),
        pytest.param({"w0N": _ELSE.w0N}, id="another w0N"),
        pytest.param({"w0M": REGISTRATION.w0N, "w0N": REGISTRATION.w0M}, id="w0M and w0N swapped"),
        pytest.param({"w0M": b""}, id="w0M is empty"),
        pytest.param({"w0N": REGISTRATION.w0N + b"\0"}, id="w0N with a tail"),
    ],
)
def test_reject_damaged_registration(damage: dict[str, bytes]) -> None:
    with pytest.raises(IntegrityError):
        Registration(**{**_GOOD, **damage}).check()


@settings(max_examples=20)
@given(scalars, scalars)
def test_every_registration_made_here_passes_its_check(one: int, two: int) -> None:
    Registration.of(one, two).check()


def test_password_scalars_are_the_halves_modulo_the_order() -> None:
    halves = (123 * ORDER + 5).to_bytes(40, "big") + (2**320 - 1).to_bytes(40, "big")
    assert password_scalars(halves) == (5, (2**320 - 1) % ORDER)


_ONE, _NIL, _ORDER = (value.to_bytes(40, "big") for value in (1, 0, ORDER))


@each_row("stretched", [_NIL + _ONE, _ONE + _NIL, _NIL + _NIL, _ORDER + _ONE, _ONE + _ORDER])
def test_reject_password_that_leads_to_zero(stretched: bytes) -> None:
    with pytest.raises(IntegrityError):
        password_scalars(stretched)


@each_row("size", [0, 64, 79, 81])
def test_reject_stretched_password_of_a_wrong_size(size: int) -> None:
    with pytest.raises(ValueError, match="80"):
        password_scalars(b"\1" * size)


def test_password_input_has_each_part_behind_its_length() -> None:
    expected = b"\2\0\0\0\0\0\0\0pw" + b"\5\0\0\0\0\0\0\0alice" + bytes(8)
    assert password_input(b"pw", b"alice", b"") == expected
    assert password_input(b"pwa", b"lice", b"") != expected
