"""Both halves of the login against each other: every byte altered, every order tried, every answer the same."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

import Crypto.Protocol.KDF
import pytest
from tables import each_row

from crypto_utils import KEM_CIPHERTEXT_SIZE, KEM_SEED_SIZE, KemKey, kem_encapsulate, random_bytes
from sft.common.errors import ConnectionTrouble, IntegrityError, LoginRefused, ProtocolViolation, TransferError
from sft.wire import handshake
from sft.wire.handshake import (
    VERIFIER_IDENTITY,
    Candidate,
    ClientHandshake,
    ServerHandshake,
    SessionKeys,
    busy_frame,
    password_scalars,
)
from sft.wire.pake import Identities, M, Prover, Registration, encode_point
from sft.wire.protocol import LOGIN_FRAME_LIMIT, VERSION, ClientHello, ServerHello, Status, frame

USER = "alice"
SALT = bytes(range(32))
W0, W1 = 0x1234567890ABCDEF, 0xFEDCBA0987654321
REGISTRATION = Registration.of(W0, W1)
DUMMY = Registration.of(W0 + 5, W1 + 5)  # stands for one that nobody has the password of
ALICE = Candidate(True, SALT, REGISTRATION)

Alter = Callable[[bytes], bytes]


@dataclass
class Login:
    """One login in this process. `alter[n]` sees frame n on its way; what each end came to is in `client`, `server`."""

    account: Candidate = ALICE
    scalars: tuple[int, int] = (W0, W1)
    user: str = USER
    may_try: bool = True
    alter: dict[int, Alter] = field(default_factory=dict)
    client: SessionKeys | None = None
    server: SessionKeys | None = None
    client_error: TransferError | None = None
    server_error: TransferError | None = None
    frames: list[bytes] = field(default_factory=list)
    charged: list[bytes] = field(default_factory=list)
    asked: list[bytes] = field(default_factory=list)
    told: list[tuple[bytes, int]] = field(default_factory=list)

    def _find(self, username: bytes) -> Candidate:
        self.asked.append(username)
        return self.account

    def _charge(self, username: bytes) -> bool:
        self.charged.append(username)
        return self.may_try

    def _scalars(self, salt: bytes, profile: int) -> tuple[int, int]:
        self.told.append((salt, profile))
        return self.scalars

    def _send(self, whole: bytes) -> bytes:
        self.frames.append(whole)
        alter = self.alter.get(len(self.frames))
        return alter(whole) if alter else whole

    def run(self) -> "Login":
        """Until the end, or the first error of our tree at either end; any other error leaves through here."""
        client, server = ClientHandshake(self.user, self._scalars), ServerHandshake(self._find, self._charge)
        try:
            frame_1 = self._send(client.hello())
            try:
                frame_2, go_on = server.hello(frame_1)
            except TransferError as error:
                self.server_error = error
                return self
            frame_3 = self._send(client.share(self._send(frame_2)))
            assert go_on
            try:
                frame_4 = server.respond(frame_3)
            except TransferError as error:
                self.server_error = error
                return self
            frame_5, self.client = client.confirm(self._send(frame_4))
        except TransferError as error:
            self.client_error = error
            return self
        try:
            self.server = server.finish(self._send(frame_5))
        except TransferError as error:
            self.server_error = error
        return self

    @property
    def sizes(self) -> list[int]:
        return [len(whole) for whole in self.frames]


# --- What works -------------------------------------------------------------------------------------------------------


def test_both_ends_have_the_same_keys() -> None:
    login = Login().run()
    assert login.client is not None
    assert login.client == login.server
    assert login.asked == login.charged == [b"alice"]
    assert login.told == [(SALT, 1)]


def test_frames_have_the_sizes_of_the_specification() -> None:
    assert Login().run().sizes == [4 + 8 + 2 + 6 + 1184, 4 + 3 + 32 + 1088, 4 + 65, 4 + 65 + 32, 4 + 32]


def test_four_secrets_differ_and_every_login_has_its_own() -> None:
    secrets = []
    for _ in range(3):
        keys = Login().run().client
        assert keys is not None
        secrets += [keys.c2s, keys.s2c, keys.file_c2s, keys.file_s2c]
    assert len(set(secrets)) == 12
    assert {len(secret) for secret in secrets} == {32}


def test_keys_and_proofs_follow_the_formulas() -> None:
    seed, x = bytes(range(64)), bytes(range(48))
    client = ClientHandshake(USER, lambda salt, profile: (W0, W1), lambda size: seed if size == 64 else x)
    server = ServerHandshake(lambda username: ALICE, lambda username: True)
    frame_1 = client.hello()
    frame_2, _ = server.hello(frame_1)
    frame_3 = client.share(frame_2)
    frame_4 = server.respond(frame_3)
    frame_5, keys = client.confirm(frame_4)

    ss_pq = KemKey(seed).open(frame_2[-KEM_CIPHERTEXT_SIZE:])
    context = b"secure-file-transfer v1 login" + frame_1 + frame_2 + ss_pq
    prover = Prover(Identities(context, b"alice", b"secure-file-transfer receiver v1"), W0, W1, lambda size: x)
    assert frame_3 == b"\0\0\0\x41" + prover.share()
    confirmP, K_shared = prover.finish(frame_4[4:69], frame_4[69:])
    assert frame_5 == b"\0\0\0\x20" + confirmP

    salt = sha256(frame_1 + frame_2 + frame_3 + frame_4 + frame_5).digest()
    prk = hmac.digest(salt, K_shared + ss_pq, "sha256")
    labels = b"sft1 c2s", b"sft1 s2c", b"sft1 file c2s", b"sft1 file s2c"
    assert keys == SessionKeys(*(hmac.digest(prk, label + b"\1", "sha256") for label in labels))
    assert server.finish(frame_5) == keys


def test_secrets_do_not_show_in_the_repr() -> None:
    keys = Login().run().client
    assert keys is not None
    for text in (repr(keys), str(keys), f"{keys}", repr([keys])):
        for secret in (keys.c2s, keys.s2c, keys.file_c2s, keys.file_s2c):
            assert repr(secret) not in text
            assert secret.hex() not in text


# --- The password -----------------------------------------------------------------------------------------------------


def test_login_with_the_real_password_hash() -> None:
    def scalars(salt: bytes, profile: int) -> tuple[int, int]:
        return password_scalars("correct horse", b"alice", salt, profile)

    known = Candidate(True, SALT, Registration.of(*scalars(SALT, 1)))
    client = ClientHandshake(USER, scalars)
    server = ServerHandshake(lambda username: known, lambda username: True)
    frame_2, go_on = server.hello(client.hello())
    frame_5, keys = client.confirm(server.respond(client.share(frame_2)))
    assert go_on
    assert server.finish(frame_5) == keys


def test_password_scalars_depend_on_each_input(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, bytes, int]] = []

    def stretch(text: bytes, salt: bytes, profile: int) -> bytes:
        seen.append((text, salt, profile))
        return b"\1" * 80

    monkeypatch.setattr(handshake, "stretch", stretch)
    password_scalars("pässword", b"alice", SALT, 1)
    assert VERIFIER_IDENTITY == b"secure-file-transfer receiver v1"
    text = b"\x09\0\0\0\0\0\0\0p\xc3\xa4ssword" + b"\5\0\0\0\0\0\0\0alice" + b"\x20\0\0\0\0\0\0\0" + VERIFIER_IDENTITY
    assert seen == [(text, SALT, 1)]


def test_composed_and_decomposed_passwords_are_one() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert composed != decomposed
    one = password_scalars(composed, b"alice", SALT, 1)
    assert password_scalars(decomposed, b"alice", SALT, 1) == one
    assert password_scalars("cafe", b"alice", SALT, 1) != one


@pytest.mark.parametrize("profile", [0, 2, 255])
def test_unknown_profile_is_refused_before_any_scrypt(profile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version trouble and no attack: the server may be newer than this program."""

    def never(*_: object, **__: object) -> bytes:
        raise AssertionError("scrypt was run")

    monkeypatch.setattr(Crypto.Protocol.KDF, "scrypt", never)
    with pytest.raises(ConnectionTrouble) as caught:
        password_scalars("password", b"alice", SALT, profile)
    assert caught.value.exit_status == 4


# --- Refused logins ---------------------------------------------------------------------------------------------------


@each_row("scalars", [(W0 + 1, W1), (W0, W1 + 1), (W1, W0), (1, 1)])
def test_wrong_password_is_refused_by_the_client(scalars: tuple[int, int]) -> None:
    login = Login(scalars=scalars).run()
    assert isinstance(login.client_error, LoginRefused)
    assert login.client_error.exit_status == 3
    assert login.client is None


def test_unknown_user_meets_what_a_wrong_password_meets() -> None:
    wrong = Login(scalars=(W0 + 1, W1)).run()
    unknown = Login(account=Candidate(False, SALT, DUMMY)).run()
    assert isinstance(unknown.client_error, LoginRefused)
    assert str(unknown.client_error) == str(wrong.client_error)
    assert unknown.sizes == wrong.sizes
    assert unknown.sizes == Login().run().sizes[:4]
    assert unknown.charged == wrong.charged
    assert len(unknown.asked) == len(wrong.asked) == 1


def test_unknown_user_with_the_dummys_own_password_is_refused_at_the_end() -> None:
    login = Login(account=Candidate(False, SALT, REGISTRATION)).run()
    assert login.client is not None
    assert isinstance(login.server_error, LoginRefused)
    assert login.server is None


class Untouchable:
    """An account whose registration nobody may look at."""

    known, salt = True, SALT

    @property
    def registration(self) -> Registration:
        raise AssertionError("the registration was used")


def test_throttled_login_is_refused_before_the_registration_is_used() -> None:
    login = Login(account=Untouchable(), may_try=False).run()  # type: ignore[arg-type]
    assert isinstance(login.server_error, LoginRefused)
    assert login.charged == [b"alice"]
    assert len(login.frames) == 3
    with pytest.raises(AssertionError, match="was used"):
        Login(account=Untouchable()).run()  # type: ignore[arg-type]


def test_throttle_that_raises_ends_the_login() -> None:
    def charge(username: bytes) -> bool:
        raise OSError("broken")

    client = ClientHandshake(USER, lambda salt, profile: (W0, W1))
    server = ServerHandshake(lambda username: ALICE, charge)
    share = client.share(server.hello(client.hello())[0])
    with pytest.raises(OSError, match="broken"):
        server.respond(share)
    for step in (server.respond, server.finish):
        with pytest.raises(ProtocolViolation):
            step(share)


BAD_POINTS = [  # of the right size, and yet no point of the curve
    b"\x04" + bytes(64),
    b"\x04" + b"\xff" * 64,
    b"\x06" + encode_point(M())[1:],
    b"\0" + encode_point(M())[1:],
    bytes(65),
    encode_point(M())[:-1] + bytes([encode_point(M())[-1] ^ 1]),
]


@each_row(
    "share",
    [
        *BAD_POINTS,
        b"\0",
        b"\x02" + encode_point(M())[1:33],
        encode_point(M())[:-1],
        encode_point(M()) + b"\0",
        encode_point(M())[:-1] + b"\0",
        bytes(LOGIN_FRAME_LIMIT),
    ],
)
def test_bad_point_is_refused_and_not_charged(share: bytes) -> None:
    login = Login(alter={3: lambda _: frame(share)}).run()
    assert isinstance(login.server_error, IntegrityError)
    assert login.charged == []
    assert login.server is None


@each_row("point", BAD_POINTS, ids=range(len(BAD_POINTS)))
def test_bad_point_of_the_server_is_a_refused_login(point: bytes) -> None:
    """One more way of not being our server: the client says what it says of every other."""
    login = Login(alter={4: lambda whole: frame(point + whole[4 + 65 :])}).run()
    assert isinstance(login.client_error, LoginRefused)
    assert login.client_error.exit_status == 3
    assert str(login.client_error) == str(Login(scalars=(W0 + 1, W1)).run().client_error)
    assert login.client is None


@pytest.mark.parametrize("guess", [W0, W0 + 1])
def test_share_made_of_a_guess_is_charged_once_and_answered(guess: int) -> None:
    login = Login(alter={3: lambda _: frame(encode_point(M() * guess))}).run()
    assert login.server_error is None
    assert isinstance(login.client_error, LoginRefused)
    assert login.charged == [b"alice"]
    assert login.sizes[3] == 4 + 65 + 32


# --- Every byte -------------------------------------------------------------------------------------------------------


# The frames that hold a key or a ciphertext of ML-KEM are long and slow: of each seven bytes the short suite takes one.
SLICES = [(number, 0, 1) for number in (3, 4, 5)] + [
    pytest.param(number, first, 23, marks=[pytest.mark.long] if first else [])
    for number in (1, 2)
    for first in range(23)
]


@pytest.mark.parametrize(("number", "first", "step"), SLICES)
def test_every_flipped_byte_ends_the_login(number: int, first: int, step: int) -> None:
    for at in range(first, Login().run().sizes[number - 1], step):

        def flip(whole: bytes, at: int = at) -> bytes:
            return whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :]

        login = Login(alter={number: flip}).run()
        assert login.server is None, at
        assert (login.client is None) is (number < 5), at
        if number == 5:
            assert login.server_error is not None, at
        else:
            assert login.client_error or login.server_error, at


@pytest.mark.parametrize("bit", range(8))
def test_every_bit_of_the_fields_in_front_ends_the_login(bit: int) -> None:
    for number, size in ((1, 4 + 8 + 2 + 6 + 2), (2, 4 + 3 + 1), (3, 4 + 1), (4, 4 + 1), (5, 4 + 1)):
        for at in range(size):

            def flip(whole: bytes, at: int = at) -> bytes:
                return whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :]

            login = Login(alter={number: flip}).run()
            assert login.server is None, (number, at)
            assert (login.client is None) is (number < 5), (number, at)


def _longer(whole: bytes) -> bytes:
    return frame(whole[4:] + b"\0")


def _shorter(whole: bytes) -> bytes:
    return frame(whole[4:-1])


ALTERATIONS: dict[str, Alter] = {
    "nothing": lambda whole: b"",
    "header cut": lambda whole: whole[:3],
    "header alone": lambda whole: whole[:4],
    "frame without payload": lambda whole: frame(b""),
    "cut short": lambda whole: whole[:-1],
    "byte behind": lambda whole: whole + b"\0",
    "twice": lambda whole: whole * 2,
    "longer, and says so": _longer,
    "shorter, and says so": _shorter,
    "half, and says so": lambda whole: frame(whole[4 : len(whole) // 2]),
    "one byte": lambda whole: frame(whole[4:5]),
    "over the ceiling": lambda whole: frame(whole[4:].ljust(LOGIN_FRAME_LIMIT + 1, b"\0")),
    "at the ceiling": lambda whole: frame(whole[4:].ljust(LOGIN_FRAME_LIMIT, b"\0")),
    "says 2^32-1": lambda whole: b"\xff\xff\xff\xff" + whole[4:],
    "zeros": lambda whole: frame(bytes(len(whole) - 4)),
    "ones": lambda whole: frame(b"\xff" * (len(whole) - 4)),
}


@each_row("number", [1, 2, 3, 4, 5])
@each_row("alter", ALTERATIONS.values(), ids=ALTERATIONS.keys())
def test_frame_of_another_shape_ends_the_login(alter: Alter, number: int) -> None:
    login = Login(alter={number: alter}).run()
    assert login.server is None
    assert (login.client is None) is (number < 5)
    assert login.client_error or login.server_error


def test_frame_cut_at_any_byte_ends_the_login() -> None:
    for number in (3, 4, 5):
        for size in range(Login().run().sizes[number - 1] - 4):

            def cut(whole: bytes, size: int = size) -> bytes:
                return frame(whole[4 : 4 + size])

            login = Login(alter={number: cut}).run()
            assert login.server is None, (number, size)
            assert (login.client is None) is (number < 5), (number, size)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_frame_of_an_earlier_login_is_refused(number: int) -> None:
    earlier = Login().run().frames[number - 1]
    login = Login(alter={number: lambda _: earlier}).run()
    assert login.server is None
    assert (login.client is None) is (number < 5)


def test_frames_reflected_to_their_sender_are_refused() -> None:
    client = ClientHandshake(USER, lambda salt, profile: (W0, W1))
    server = ServerHandshake(lambda username: ALICE, lambda username: True)
    reply = server.respond(client.share(server.hello(client.hello())[0]))
    with pytest.raises(LoginRefused):  # the server's own proof, sent back as the client's
        server.finish(frame(reply[4 + 65 :]))

    client = ClientHandshake(USER, lambda salt, profile: (W0, W1))
    server = ServerHandshake(lambda username: ALICE, lambda username: True)
    share = client.share(server.hello(client.hello())[0])
    with pytest.raises(LoginRefused):
        client.confirm(frame(share[4:] + bytes(32)))


def test_another_valid_encapsulation_is_refused() -> None:
    hello: list[bytes] = []

    def keep(whole: bytes) -> bytes:
        hello.append(whole)
        return whole

    def another(whole: bytes) -> bytes:
        ciphertext, _ = kem_encapsulate(ClientHello.decode(hello[0][4:]).kem_public)
        return whole[:-KEM_CIPHERTEXT_SIZE] + ciphertext

    login = Login(alter={1: keep, 2: another}).run()
    assert isinstance(login.client_error, LoginRefused)
    assert login.client is None


def test_another_encapsulation_key_is_refused() -> None:
    mine = KemKey(random_bytes(KEM_SEED_SIZE)).public
    login = Login(alter={1: lambda whole: whole[: -len(mine)] + mine}).run()
    assert isinstance(login.client_error, LoginRefused)


# --- Answers other than "go on" ---------------------------------------------------------------------------------------


def test_busy_is_connection_trouble() -> None:
    login = Login(alter={2: lambda _: busy_frame()}).run()
    assert type(login.client_error) is ConnectionTrouble
    assert login.client_error.exit_status == 4
    assert login.charged == []
    assert login.told == []


@each_row("spoken", [b"", b"\2", b"\2\3", bytes(range(2, 255))])
def test_no_common_version_is_connection_trouble(spoken: bytes) -> None:
    answer = frame(ServerHello(Status.NO_COMMON_VERSION, spoken=spoken).encode())
    login = Login(alter={2: lambda _: answer}).run()
    assert type(login.client_error) is ConnectionTrouble
    assert login.client_error.exit_status == 4
    assert "version" in str(login.client_error)
    assert login.told == []


@each_row("version", [0, 2, 255])
def test_reject_version_that_was_not_offered(version: int) -> None:
    def change(whole: bytes) -> bytes:
        return whole[:5] + bytes([version]) + whole[6:]

    login = Login(alter={2: change}).run()
    assert isinstance(login.client_error, ProtocolViolation)
    assert login.told == []


def answer_to(payload: bytes) -> tuple[ServerHello, bool, list[bytes]]:
    asked: list[bytes] = []

    def find(username: bytes) -> Candidate:
        asked.append(username)
        return ALICE

    whole, go_on = ServerHandshake(find, lambda username: True).hello(frame(payload))
    return ServerHello.decode(whole[4:]), go_on, asked


@each_row("versions", [b"\1", b"\1\2", b"\2\1", b"\xff\1\0"])
def test_client_that_speaks_more_versions_gets_version_1(versions: bytes) -> None:
    public = KemKey(bytes(KEM_SEED_SIZE)).public
    hello, go_on, asked = answer_to(ClientHello(versions, b"alice", public).encode())
    assert go_on
    assert (hello.status, hello.version, hello.profile, hello.salt) == (Status.GO_ON, VERSION, 1, SALT)
    assert asked == [b"alice"]


@each_row("behind", [b"", b"\0", b"a layout that nobody knows yet", bytes(4000)])
@each_row("versions", [b"\2", b"\2\3", b"\0"])
def test_client_of_the_future_is_told_the_versions(versions: bytes, behind: bytes) -> None:
    hello, go_on, asked = answer_to(b"SFTlogin" + bytes([len(versions)]) + versions + behind)
    assert not go_on
    assert hello == ServerHello(Status.NO_COMMON_VERSION, spoken=b"\1")
    assert asked == []


def test_nothing_follows_the_answer_to_a_client_of_the_future() -> None:
    server = ServerHandshake(lambda username: ALICE, lambda username: True)
    server.hello(frame(b"SFTlogin\1\2"))
    with pytest.raises(ProtocolViolation):
        server.respond(frame(encode_point(M())))


@each_row("payload", [b"GET / HTTP/1.1\r\n\r\n", b"SFTlogin\0", b"SFTlogin\1\1", b"\x16\x03\x01"])
def test_reject_what_is_no_client_hello(payload: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        answer_to(payload)


def test_reject_encapsulation_key_that_is_none_before_anyone_is_looked_up() -> None:
    login = Login(alter={1: lambda whole: whole[:-1184] + b"\xff" * 1184}).run()
    assert isinstance(login.server_error, IntegrityError)
    assert login.asked == login.charged == []


# --- Order ------------------------------------------------------------------------------------------------------------

CLIENT_STEPS = ("hello", "share", "confirm")
SERVER_STEPS = ("hello", "respond", "finish")


@dataclass
class Pair:
    """Both ends, taken step by step with honest frames."""

    client: ClientHandshake
    server: ServerHandshake
    frames: list[bytes]

    @classmethod
    def after(cls, steps: int) -> "Pair":
        """A pair whose first `steps` frames have been made, of five; 6 is a finished login."""
        client = ClientHandshake(USER, lambda salt, profile: (W0, W1))
        server = ServerHandshake(lambda username: ALICE, lambda username: True)
        pair = cls(client, server, [])
        makers: tuple[Callable[[], object], ...] = (
            lambda: client.hello(),
            lambda: server.hello(pair.frames[0])[0],
            lambda: client.share(pair.frames[1]),
            lambda: server.respond(pair.frames[2]),
            lambda: client.confirm(pair.frames[3])[0],
            lambda: server.finish(pair.frames[4]),
        )
        for make in makers[:steps]:
            made = make()
            if isinstance(made, bytes):
                pair.frames.append(made)
        return pair

    def client_step(self, name: str) -> object:
        honest = Pair.after(5).frames if len(self.frames) < 4 else self.frames
        if name == "hello":
            return self.client.hello()
        return self.client.share(honest[1]) if name == "share" else self.client.confirm(honest[3])

    def server_step(self, name: str) -> object:
        honest = Pair.after(5).frames if len(self.frames) < 5 else self.frames
        arguments = {"hello": honest[0], "respond": honest[2], "finish": honest[4]}
        result: object = getattr(self.server, name)(arguments[name])
        return result


@pytest.mark.parametrize(
    ("frames", "step"),
    [
        (0, "share"),
        (0, "confirm"),
        (2, "hello"),
        (2, "confirm"),
        (4, "hello"),
        (4, "share"),
        (5, "hello"),
        (5, "share"),
        (5, "confirm"),
    ],
)
def test_client_step_out_of_order_fails_and_stays_failed(frames: int, step: str) -> None:
    pair = Pair.after(frames)
    with pytest.raises(ProtocolViolation):
        pair.client_step(step)
    for later in CLIENT_STEPS:
        with pytest.raises(ProtocolViolation):
            pair.client_step(later)


@pytest.mark.parametrize(
    ("frames", "step"),
    [
        (1, "respond"),
        (1, "finish"),
        (3, "hello"),
        (3, "finish"),
        (5, "hello"),
        (5, "respond"),
        (6, "hello"),
        (6, "respond"),
        (6, "finish"),
    ],
)
def test_server_step_out_of_order_fails_and_stays_failed(frames: int, step: str) -> None:
    pair = Pair.after(frames)
    with pytest.raises(ProtocolViolation):
        pair.server_step(step)
    for later in SERVER_STEPS:
        with pytest.raises(ProtocolViolation):
            pair.server_step(later)


@pytest.mark.parametrize("frames", [2, 4])
def test_client_that_met_a_bad_frame_is_dead(frames: int) -> None:
    pair = Pair.after(frames)
    bad = _shorter(pair.frames[-1])
    with pytest.raises(TransferError):
        pair.client.share(bad) if frames == 2 else pair.client.confirm(bad)
    for later in CLIENT_STEPS:
        with pytest.raises(ProtocolViolation):
            pair.client_step(later)


@each_row("frames", [1, 3, 5])
def test_server_that_met_a_bad_frame_is_dead(frames: int) -> None:
    pair = Pair.after(frames)
    step = {1: pair.server.hello, 3: pair.server.respond, 5: pair.server.finish}[frames]
    with pytest.raises(TransferError):
        step(_shorter(pair.frames[-1]))
    for later in SERVER_STEPS:
        with pytest.raises(ProtocolViolation):
            pair.server_step(later)
