"""The login: SPAKE2+ with ML-KEM-768 mixed in, five frames, three round trips from `connect` to data.

    client                                   server
    ClientHandshake.hello      -- frame 1 -->  ServerHandshake.hello      versions, username, ML-KEM key
    ClientHandshake.share      <-- frame 2 --                             status, profile, salt, ML-KEM ciphertext
                               -- frame 3 -->  ServerHandshake.respond    shareP; charged before w0 is used
    ClientHandshake.confirm    <-- frame 4 --                             shareV and confirmV
                               -- frame 5 -->  ServerHandshake.finish     confirmP, and in the same flight record 0

Rules: methods take and return whole frames, and are called in the order above, once each; after a failure no step may
follow. After the charge nothing branches on whether the user exists or the guess is right: an unknown username gets a
registration that no password fits, and both are decided together, at the end. This module knows no socket, no file and
no clock: the two functions that `ServerHandshake` is given know the accounts and the throttle.
"""

import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from crypto_utils import (
    DEFAULT_PROFILE,
    KEM_SEED_SIZE,
    KemKey,
    Random,
    digest,
    hkdf_expand,
    hkdf_extract,
    kem_encapsulate,
    random_bytes,
    stretch,
)
from sft.common.errors import (
    Code,
    ConnectionTrouble,
    Failure,
    IntegrityError,
    LoginRefused,
    PeerStopped,
    ProtocolViolation,
    UsageError,
)
from sft.wire import pake
from sft.wire.pake import CONFIRM_SIZE, POINT_SIZE, Identities, Registration
from sft.wire.protocol import MAX_USERNAME, VERSION, VERSIONS, ClientHello, ServerHello, Status, frame, unframe

VERIFIER_IDENTITY = b"secure-file-transfer receiver v1"
_CONTEXT_LABEL = b"secure-file-transfer v1 login"

ScalarsOf = Callable[[bytes, int], tuple[int, int]]


class SessionKeys(NamedTuple):
    """The four secrets of a connection, 32 bytes each: records and file HMACs, each way."""

    c2s: bytes
    s2c: bytes
    file_c2s: bytes
    file_s2c: bytes

    def __repr__(self) -> str:
        return "SessionKeys(...)"


class Candidate(NamedTuple):
    """What a login is tried against: the salt for its username, and a registration; an unknown user has both, too."""

    known: bool
    salt: bytes
    registration: Registration


def password_scalars(password: str, username: bytes, salt: bytes, profile: int) -> tuple[int, int]:
    """(w0, w1) of a password; the same for the client at each login and for the server's `adduser`.

    Raises UsageError for a password that is not UTF-8.
    """
    try:
        normal = unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError:
        raise UsageError("the password is not UTF-8", "Type it again, or fix the file that it is read from") from None
    return pake.password_scalars(stretch(pake.password_input(normal, username, VERIFIER_IDENTITY), salt, profile))


def encode_username(username: str) -> bytes:
    """The bytes of a username on the wire; which of them an account may have is for the server to decide.

    Raises UsageError for one that does not fit.
    """
    try:
        encoded = username.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a character, which a command line of Windows can hold
        encoded = b""
    if not 1 <= len(encoded) <= MAX_USERNAME:
        raise UsageError(f"{username} can't be a username", f"Usernames have 1 to {MAX_USERNAME} bytes")
    return encoded


def _identities(username: bytes, client_hello: bytes, server_hello: bytes, ss_pq: bytes) -> Identities:
    # The frames carry their own lengths, and the secret is of a fixed size: no two contexts read the same.
    context = _CONTEXT_LABEL + client_hello + server_hello + ss_pq
    return Identities(context, username, VERIFIER_IDENTITY)


def _session_keys(frames: list[bytes], K_shared: bytes, ss_pq: bytes) -> SessionKeys:
    prk = hkdf_extract(digest(b"".join(frames)), K_shared + ss_pq)
    return SessionKeys(
        hkdf_expand(prk, b"sft1 c2s"),
        hkdf_expand(prk, b"sft1 s2c"),
        hkdf_expand(prk, b"sft1 file c2s"),
        hkdf_expand(prk, b"sft1 file s2c"),
    )


class _InOrder:
    """Frames seen so far, and which step may come next."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._next: str | None = "hello"

    def _enter(self, step: str) -> None:
        allowed, self._next = self._next, None
        if allowed != step:
            raise ProtocolViolation("a login step out of its order")

    def _saw(self, whole_frame: bytes) -> bytes:
        self._frames.append(whole_frame)
        return whole_frame


class ClientHandshake(_InOrder):
    """The client's half of one login."""

    def __init__(self, username: str, scalars: ScalarsOf, random: Random = random_bytes) -> None:
        """`scalars(salt, profile)` gives (w0, w1); that is where the time for the password hash goes.

        Raises UsageError for a username that no account can have.
        """
        super().__init__()
        self._username = encode_username(username)
        self._scalars, self._random = scalars, random
        self._kem = KemKey(random(KEM_SEED_SIZE))

    def hello(self) -> bytes:
        """Frame 1."""
        self._enter("hello")
        hello = ClientHello(bytes(VERSIONS), self._username, self._kem.public)
        self._next = "share"
        return self._saw(frame(hello.encode()))

    def share(self, server_hello: bytes) -> bytes:
        """Frame 3 for frame 2. Raises ConnectionTrouble (busy, unavailable, no common version), ProtocolViolation."""
        self._enter("share")
        hello = ServerHello.decode(unframe(server_hello))
        if hello.status is Status.BUSY:
            raise ConnectionTrouble("the server is busy", "Try again in a moment", Failure.BUSY)
        if hello.status is Status.UNAVAILABLE:
            raise PeerStopped(Code.UNAVAILABLE)
        if hello.status is Status.NO_COMMON_VERSION:
            spoken = ", ".join(str(version) for version in hello.spoken)
            raise ConnectionTrouble(
                f"no common version: this end speaks {VERSION}, the server {spoken or 'none'}",
                "Update the older of the two",
                Failure.FINAL,
            )
        if hello.version not in VERSIONS:
            raise ProtocolViolation("a version that was not offered")
        w0, w1 = self._scalars(hello.salt, hello.profile)
        self._ss_pq = self._kem.open(hello.kem_ciphertext)
        identities = _identities(self._username, self._frames[0], self._saw(server_hello), self._ss_pq)
        self._prover = pake.Prover(identities, w0, w1, self._random)
        self._next = "confirm"
        return self._saw(frame(self._prover.share()))

    def confirm(self, reply: bytes) -> tuple[bytes, SessionKeys]:
        """(frame 5, keys) for frame 4. Raises LoginRefused when the server did not prove the password."""
        self._enter("confirm")
        payload = unframe(reply)
        if len(payload) != POINT_SIZE + CONFIRM_SIZE:
            raise ProtocolViolation("a share of a wrong size")
        try:
            confirmP, K_shared = self._prover.finish(payload[:POINT_SIZE], payload[POINT_SIZE:])
        except IntegrityError:  # no point at all: one more way of not being our server
            raise LoginRefused from None
        self._saw(reply)
        last = self._saw(frame(confirmP))
        return last, _session_keys(self._frames, K_shared, self._ss_pq)


class ServerHandshake(_InOrder):
    """The server's half of one login."""

    def __init__(
        self,
        find: Callable[[bytes], Candidate],
        charge: Callable[[bytes], bool],
        profile: int = DEFAULT_PROFILE,
        random: Random = random_bytes,
    ) -> None:
        """`find(username)` answers for every name; `charge(username)` counts this login, False when it may not try."""
        super().__init__()
        self._find, self._charge, self._profile, self._random = find, charge, profile, random
        self.username = b""

    def hello(self, client_hello: bytes) -> tuple[bytes, bool]:
        """(frame 2, whether to go on) for frame 1. Raises IntegrityError for a bad ClientHello or ML-KEM key.

        Whatever `find` raises leaves through here.
        """
        self._enter("hello")
        payload = unframe(client_hello)
        if VERSION not in ClientHello.decode_versions(payload):
            return frame(ServerHello(Status.NO_COMMON_VERSION, spoken=bytes(VERSIONS)).encode()), False
        hello = ClientHello.decode(payload)
        self.username = hello.username
        ciphertext, self._ss_pq = kem_encapsulate(hello.kem_public)
        self._account = self._find(hello.username)
        answer = ServerHello(Status.GO_ON, VERSION, self._profile, self._account.salt, ciphertext)
        self._saw(client_hello)
        self._next = "respond"
        return self._saw(frame(answer.encode())), True

    def respond(self, share: bytes) -> bytes:
        """Frame 4 for frame 3. Raises IntegrityError (not a point of P-256), LoginRefused (by the throttle)."""
        self._enter("respond")
        shareP = unframe(share)
        X = pake.decode_point(shareP)
        if not self._charge(self.username):
            raise LoginRefused
        identities = _identities(self.username, self._frames[0], self._frames[1], self._ss_pq)
        self._verifier = pake.Verifier(identities, self._account.registration, self._random)
        shareV, confirmV = self._verifier.respond(shareP, X)
        self._saw(share)
        self._next = "finish"
        return self._saw(frame(shareV + confirmV))

    def finish(self, confirm: bytes) -> SessionKeys:
        """The keys, for frame 5. Raises LoginRefused. Nothing that follows frame 5 may be read before this returns."""
        self._enter("finish")
        K_shared = self._verifier.finish(unframe(confirm))
        if not self._account.known:
            raise LoginRefused
        self._saw(confirm)
        return _session_keys(self._frames, K_shared, self._ss_pq)


def busy_frame() -> bytes:
    """Frame 2 for a client that comes while all connections are taken."""
    return frame(ServerHello(Status.BUSY).encode())


def unavailable_frame() -> bytes:
    """Frame 2 while the server can't look at its accounts: the same for every username."""
    return frame(ServerHello(Status.UNAVAILABLE).encode())
