"""SPAKE2+ (RFC 9383), suite P256-SHA256-HKDF-SHA256-HMAC-SHA256, with the RFC's names.

    Prover (client)                          Verifier (server)
    knows w0, w1                             knows w0, L = w1*P, and w0*M, w0*N beforehand
    X = x*P + w0*M       --- shareP --->
                                             Y = y*P + w0*N
                                             Z = y*(X - w0*M)     V = y*L
                         <-- shareV, confirmV --
    Z = x*(Y - w0*N)     V = w1*(Y - w0*N)
                         --- confirmP -->

Rules: each object lives for one login, each of its steps runs once, in order; after a failure no step may follow. A
point of the peer is refused unless it is 65 bytes, uncompressed, on the curve and not the identity. After that nothing
in the Verifier branches on w0, L, Z or V: a share of w0'*M makes Z the identity exactly when the guess w0' is right.
The Prover refuses a share of w0*N: with it, somebody who knows w0 and not L could pose as the server. This module knows
no socket, no file, no clock and no password: only w0 and w1.
"""

import functools
from typing import TYPE_CHECKING, NamedTuple

from crypto_utils import (
    KEY_SIZE,
    STRETCHED_SIZE,
    Random,
    digest,
    equal,
    hkdf_expand,
    hkdf_extract,
    library_needed,
    mac,
    random_bytes,
)
from sft.common.errors import IntegrityError, LoginRefused

if TYPE_CHECKING:
    from Crypto.PublicKey.ECC import EccPoint  # type: ignore[attr-defined]  # documented there, not marked as exported

POINT_SIZE = 65
CONFIRM_SIZE = 32
SCALAR_SIZE = 32

# P-256 (NIST SP 800-186): its field's prime, and the order of its points (the cofactor h is 1).
_PRIME = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SEC1_UNCOMPRESSED = 4


def decode_point(encoded: bytes) -> "EccPoint":
    """The point of an uncompressed SEC1 encoding, 65 bytes.

    Raises IntegrityError for any other form, a point off the curve, coordinates of p or more, and the identity.
    """
    # The library's import_key would also take compressed points, DER and PEM, and sets up ten curves for that: 20 ms.
    # EccPoint looks whether a point is on the curve, but it reduces coordinates modulo the prime, and takes two zeros
    # for the identity.
    if len(encoded) != POINT_SIZE or encoded[0] != _SEC1_UNCOMPRESSED:
        raise IntegrityError("not an uncompressed P-256 point")
    x, y = (int.from_bytes(encoded[at : at + SCALAR_SIZE], "big") for at in (1, 1 + SCALAR_SIZE))
    if x >= _PRIME or y >= _PRIME:
        raise IntegrityError("not a point of P-256")
    with library_needed():
        from Crypto.PublicKey.ECC import EccPoint  # type: ignore[attr-defined]
    try:
        point = EccPoint(x, y, "P-256")
    except ValueError:
        raise IntegrityError("not a point of P-256") from None
    if point.is_point_at_infinity():
        raise IntegrityError("the identity is no share")
    return point


def encode_point(point: "EccPoint") -> bytes:
    """Uncompressed SEC1, 65 bytes; the identity, which only a forged share can lead to, becomes 04 and zeros."""
    x, y = point.xy
    return bytes([_SEC1_UNCOMPRESSED]) + x.to_bytes(SCALAR_SIZE, "big") + y.to_bytes(SCALAR_SIZE, "big")


# RFC 9383, section 4: M and N for P-256; then its generator.
M_ENCODED = bytes.fromhex(
    "04886e2f97ace46e55ba9dd7242579f2993b64e16ef3dcab95afd497333d8fa12f"
    "5ff355163e43ce224e0b0e65ff02ac8e5c7be09419c785e0ca547d55a12e2d20"
)
N_ENCODED = bytes.fromhex(
    "04d8bbd6c639c62937b04d997f38c3770719c629d7014d49a24b4f98baa1292b49"
    "07d60aa6bfade45008a636337f5168c64d9bd36034808cd564490b1e656edbe7"
)
P_ENCODED = bytes.fromhex(
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)


@functools.cache
def M() -> "EccPoint":
    """What blinds the Prover's share."""
    return decode_point(M_ENCODED)


@functools.cache
def N() -> "EccPoint":
    """What blinds the Verifier's share."""
    return decode_point(N_ENCODED)


@functools.cache
def P() -> "EccPoint":
    """The generator of P-256."""
    return decode_point(P_ENCODED)


def load_points() -> None:
    """Load the library's curve, and the points that every login needs. Raises UsageError when it is not there."""
    M()
    N()
    P()


def password_scalars(stretched: bytes) -> tuple[int, int]:
    """(w0, w1) from 80 stretched bytes: each half modulo the order (RFC 9383, section 3.2). Zero is refused."""
    if len(stretched) != STRETCHED_SIZE:
        raise ValueError("80 stretched bytes are needed")
    half = STRETCHED_SIZE // 2
    w0 = int.from_bytes(stretched[:half], "big") % ORDER
    w1 = int.from_bytes(stretched[half:], "big") % ORDER
    if not w0 or not w1:
        raise IntegrityError("this password leads to zero", "Choose another password")
    return w0, w1


def password_input(password: bytes, prover: bytes, verifier: bytes) -> bytes:
    """What the password hash is computed over (RFC 9383, section 3.2): each part behind its length."""
    return b"".join(_with_length(part) for part in (password, prover, verifier))


def _with_length(part: bytes) -> bytes:
    return len(part).to_bytes(8, "little") + part


class Registration(NamedTuple):
    """What a server keeps of a password: w0 (32 bytes) and the points L, w0*M, w0*N (65 bytes each)."""

    w0: bytes
    L: bytes
    w0M: bytes
    w0N: bytes

    def __repr__(self) -> str:
        return "Registration(...)"

    @classmethod
    def of(cls, w0: int, w1: int) -> "Registration":
        """Register (RFC 9383, section 3.2); w0*M and w0*N are kept to save two multiplications at each login."""
        return cls(
            w0.to_bytes(SCALAR_SIZE, "big"), encode_point(P() * w1), encode_point(M() * w0), encode_point(N() * w0)
        )

    def check(self) -> None:
        """Raises IntegrityError when a field is damaged: w0 of 0 or too large, a point off the curve, or no match."""
        w0 = int.from_bytes(self.w0, "big")
        if len(self.w0) != SCALAR_SIZE or not 0 < w0 < ORDER:
            raise IntegrityError("w0 is out of range")
        decode_point(self.L)
        if self.w0M != encode_point(M() * w0) or self.w0N != encode_point(N() * w0):
            raise IntegrityError("w0*M or w0*N does not match w0")


class Identities(NamedTuple):
    """What both ends must agree on before they start; all of it goes into the transcript TT."""

    context: bytes
    prover: bytes
    verifier: bytes


class KeySchedule(NamedTuple):
    """K_main and what follows from it (RFC 9383, sections 3.3 and 3.4); all 32 bytes."""

    K_main: bytes
    K_confirmP: bytes
    K_confirmV: bytes
    K_shared: bytes

    def __repr__(self) -> str:
        return "KeySchedule(...)"

    @classmethod
    def of(cls, TT: bytes) -> "KeySchedule":
        K_main = digest(TT)
        prk = hkdf_extract(b"", K_main)
        confirmation = hkdf_expand(prk, b"ConfirmationKeys", 2 * KEY_SIZE)
        return cls(K_main, confirmation[:KEY_SIZE], confirmation[KEY_SIZE:], hkdf_expand(prk, b"SharedKey"))


def transcript(identities: Identities, shareP: bytes, shareV: bytes, Z: bytes, V: bytes, w0: bytes) -> bytes:
    """TT of RFC 9383, section 3.3: each item behind its length as 8 bytes, little-endian."""
    items = (
        identities.context,
        identities.prover,
        identities.verifier,
        M_ENCODED,
        N_ENCODED,
        shareP,
        shareV,
        Z,
        V,
        w0,
    )
    return b"".join(_with_length(item) for item in items)


def _scalar(random: Random) -> int:
    """A uniform scalar in 1 .. order-1; 16 bytes more than it holds make the bias of `%` vanish."""
    while True:
        scalar = int.from_bytes(random(SCALAR_SIZE + 16), "big") % ORDER
        if scalar:
            return scalar


class _Steps:
    """Lets each named step run once, in order. A step that fails leaves nothing that may run."""

    def __init__(self, *names: str) -> None:
        self._left = list(names)

    def enter(self, name: str) -> None:
        if not self._left or self._left[0] != name:
            self._left = []
            raise RuntimeError(f"out of order: {name}")
        self._pending, self._left = self._left[1:], []

    def done(self) -> None:
        self._left = self._pending


class Prover:
    """The client's half: `share`, then `finish`."""

    def __init__(self, identities: Identities, w0: int, w1: int, random: Random = random_bytes) -> None:
        self._identities, self._w0, self._w1 = identities, w0, w1
        self._x = _scalar(random)
        self._steps = _Steps("share", "finish")

    def share(self) -> bytes:
        """shareP, 65 bytes: X = x*P + w0*M."""
        self._steps.enter("share")
        self._shareP = encode_point(P() * self._x + M() * self._w0)
        self._steps.done()
        return self._shareP

    def finish(self, shareV: bytes, confirmV: bytes) -> tuple[bytes, bytes]:
        """(confirmP, K_shared), 32 bytes each.

        Raises IntegrityError (a bad point, or one that is w0*N itself), LoginRefused (wrong confirmV).
        """
        self._steps.enter("finish")
        unblinded = decode_point(shareV) + -(N() * self._w0)  # Y - w0*N
        if unblinded.is_point_at_infinity():  # then Z and V are known to anybody who has w0 alone
            raise IntegrityError("the identity is no share")
        Z, V = unblinded * self._x, unblinded * self._w1
        TT = transcript(
            self._identities,
            self._shareP,
            shareV,
            encode_point(Z),
            encode_point(V),
            self._w0.to_bytes(SCALAR_SIZE, "big"),
        )
        keys = KeySchedule.of(TT)
        if not equal(mac(keys.K_confirmV, self._shareP), confirmV):
            raise LoginRefused
        self._steps.done()
        return mac(keys.K_confirmP, shareV), keys.K_shared


class Verifier:
    """The server's half: `respond`, then `finish`. The caller charges for the login between parsing and `respond`."""

    def __init__(self, identities: Identities, registration: Registration, random: Random = random_bytes) -> None:
        self._identities, self._registration = identities, registration
        self._y = _scalar(random)
        self._steps = _Steps("respond", "finish")

    def respond(self, shareP: bytes, X: "EccPoint") -> tuple[bytes, bytes]:
        """(shareV, confirmV), 65 and 32 bytes, for a shareP that `decode_point` has turned into X."""
        self._steps.enter("respond")
        kept = self._registration
        shareV = encode_point(P() * self._y + decode_point(kept.w0N))
        Z = (X + -decode_point(kept.w0M)) * self._y
        V = decode_point(kept.L) * self._y
        TT = transcript(self._identities, shareP, shareV, encode_point(Z), encode_point(V), kept.w0)
        keys = KeySchedule.of(TT)
        self._expected, self._K_shared = mac(keys.K_confirmP, shareV), keys.K_shared
        self._steps.done()
        return shareV, mac(keys.K_confirmV, shareP)

    def finish(self, confirmP: bytes) -> bytes:
        """K_shared, 32 bytes. Raises LoginRefused when confirmP is wrong."""
        self._steps.enter("finish")
        if not equal(self._expected, confirmP):
            raise LoginRefused
        self._steps.done()
        return self._K_shared
