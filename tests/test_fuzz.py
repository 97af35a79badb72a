"""The fuzzers' harnesses over their corpus and some invented bytes: they run, and they notice what they are for."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz.frames
import fuzz.login
import fuzz.messages
import fuzz.names
import fuzz.replies
import fuzz.requests
import pytest
from fuzz import CORPUS, HARNESSES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from peers import no_hang

import sft.common.names
import sft.transfer.arriving
import sft.transfer.outgoing
import sft.transfer.sender
import sft.wire.messages
import sft.wire.pake
import sft.wire.protocol
from sft.wire.messages import PING_MESSAGE, Cancel
from sft.wire.protocol import LOGIN_FRAME_LIMIT

SEEDS = {name: sorted((CORPUS / name).iterdir()) for name in HARNESSES}
STEPS = ("requests", "replies")
MOST_FILES, MOST_BYTES = 120, 200_000


def harness(name: str) -> Callable[[bytes], None]:
    return importlib.import_module(f"fuzz.{name}").one_input  # type: ignore[no-any-return]


def seed(name: str, file: str) -> bytes:
    return (CORPUS / name / file).read_bytes()


@pytest.mark.parametrize("name", HARNESSES)
def test_every_seed_is_read_or_refused(name: str) -> None:
    assert SEEDS[name]
    with no_hang(60):
        for file in SEEDS[name]:
            harness(name)(file.read_bytes())


def test_corpus_stays_small_and_has_no_strangers() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(HARNESSES)
    assert len(files) <= MOST_FILES
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES


def test_words_of_a_harness_are_bytes() -> None:
    for name in HARNESSES:
        assert all(type(word) is bytes and word for word in importlib.import_module(f"fuzz.{name}").WORDS)


def damaged(name: str) -> st.SearchStrategy[bytes]:
    """A seed with some bytes replaced, put in or cut off."""
    seeds = [path.read_bytes() for path in SEEDS[name]]
    cuts = st.tuples(st.sampled_from(seeds), st.integers(0, 1 << 12), st.integers(0, 4), st.binary(max_size=6))
    return cuts.map(lambda cut: cut[0][: cut[1]] + cut[3] + cut[0][cut[1] + cut[2] :])


@pytest.mark.parametrize("name", [name for name in HARNESSES if name not in STEPS])
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_arbitrary_and_damaged_bytes_are_read_or_refused(name: str, data: st.DataObject) -> None:
    harness(name)(data.draw(damaged(name) | st.binary(max_size=300)))


def steps() -> st.SearchStrategy[bytes]:
    few = st.integers(0, 8)
    step = st.tuples(few, few, st.integers(0, 80), st.integers(0, 255)).map(bytes)
    return st.lists(step, max_size=16).map(b"".join)


@settings(max_examples=60)
@given(steps() | damaged("requests"))
def test_clients_that_ask_in_any_order_get_nothing_visible_that_was_not_proved(clients: bytes) -> None:
    with no_hang(60):
        fuzz.requests.one_input(clients)


@settings(max_examples=40)
@given(steps() | damaged("replies"))
def test_servers_that_reply_in_any_order_make_nothing_count_as_delivered_that_is_not(replies: bytes) -> None:
    with no_hang(60):
        fuzz.replies.one_input(replies)


# --- a harness that notices nothing is worse than none ----------------------------------------------------------------


def notices(name: str, bad: bytes) -> None:
    with pytest.raises(AssertionError):
        harness(name)(bad)


def test_harness_of_names_notices_a_judge_that_lets_everything_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft.common.names, "judge_component", lambda component, portable=False: None)
    for bad in (b"..", b"a\xff..", b"a/b", b"", b"a" * 256):
        notices("names", bad or b"\xff")


def test_harness_of_frames_notices_a_length_over_the_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(header: bytes, least: int, ceiling: int) -> int:
        return int.from_bytes(header, "big")

    monkeypatch.setattr(fuzz.frames, "frame_size", careless)
    notices("frames", (LOGIN_FRAME_LIMIT + 1).to_bytes(4, "big"))


def test_harness_of_frames_notices_bytes_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft.wire.protocol._Reader, "end", lambda self: None)
    notices("frames", seed("frames", "client-hello") + b"more")


def test_harness_of_messages_notices_a_reader_that_changes_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    read = sft.wire.bodies.read_body
    monkeypatch.setattr(sft.wire.messages, "read_body", lambda decoder, body: replace(read(decoder, body), id=2))
    notices("messages", Cancel(1).encode())


@pytest.mark.parametrize(
    "long", [b"\4\0\0\0\4\x92\xcc\1\xc0", b"\4\0\0\0\2\x91\1", b"\x0a\0\0\0\6\x93\xcc\1\x90\xa1/"], ids=bytes.hex
)
def test_harness_of_messages_notices_a_reader_that_takes_a_longer_form(
    monkeypatch: pytest.MonkeyPatch, long: bytes
) -> None:
    harness("messages")(long)
    monkeypatch.setattr(sft.wire.messages, "read_body", lambda decoder, body: decoder.decode(body))
    notices("messages", long)


def test_harness_of_messages_notices_an_error_that_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz.messages, "decode_message", lambda kind, body: body[99])
    with pytest.raises(IndexError):
        harness("messages")(PING_MESSAGE)


@pytest.mark.parametrize(("name", "last"), [("server_login", -1), ("client_login", -1)])
def test_harness_of_a_login_notices_a_proof_that_is_not_compared(
    name: str, last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = seed(name, "honest")
    monkeypatch.setattr(sft.wire.pake, "equal", lambda one, other: True)
    notices(name, honest[:last] + bytes([honest[last] ^ 1]))


def test_harness_of_requests_notices_a_proof_that_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft.transfer.arriving, "equal", lambda one, other: True)
    for file in ("wrong-hmac", "wrong-digest"):
        notices("requests", seed("requests", file))


def test_harness_of_replies_notices_a_receipt_that_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    for check in ("_names_the_target", "_names_the_content"):
        monkeypatch.setattr(sft.transfer.outgoing.Outgoing, check, lambda outgoing, receipt: True)
    notices("replies", seed("replies", "lied"))


def test_harness_of_requests_notices_a_descriptor_that_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    left: list[Any] = []
    monkeypatch.setattr(fuzz.requests, "_check_disk", lambda home, proved: left.append((tmp_path / "x").open("w")))
    notices("requests", b"")
    left[0].close()


@pytest.mark.parametrize("file", ["one-file", "large", "pipe", "resumed", "there-already", "replaced", "renamed"])
def test_seed_of_an_honest_client_arrives(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the fuzzer would begin from nothing but refusals."""
    seen: list[list[str]] = []
    check = fuzz.requests._check_disk

    def look(home: Path, proved: Any) -> None:
        seen.append(sorted(path.name for path in home.iterdir()))
        check(home, proved)

    monkeypatch.setattr(fuzz.requests, "_check_disk", look)
    fuzz.requests.one_input(seed("requests", file))
    assert "a" in seen[0]
    assert ("a.1" in seen[0]) == (file == "renamed")


def test_seed_of_an_honest_server_delivers_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(fuzz.replies._Told, "check", lambda told: seen.append(told))
    fuzz.replies.one_input(seed("replies", "all-wanted-and-stored"))
    assert len(seen[0].receipts) == len(fuzz.replies.SENT)


@pytest.mark.parametrize("name", ["server_login", "client_login"])
def test_seed_of_an_honest_login_leads_to_keys(name: str) -> None:
    play = fuzz.login.play_server if name == "server_login" else fuzz.login.play_client
    assert fuzz.login.against(seed(name, "honest"), play) == fuzz.login.honest().keys
