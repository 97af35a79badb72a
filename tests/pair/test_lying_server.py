"""GET: a client that fetches from a server that lies or breaks the rules."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from peers import C2S, FILE_SECRET, S2C, Raw, check_nothing_is_left, data, end, tcp_pair
from transfers import LARGE, Fetch, Noted, files_in, put, receipt, written

from sft.client.download import Download
from sft.common.errors import (
    Code,
    ProtocolViolation,
    TransferError,
)
from sft.common.rate_limit import RateLimiter
from sft.common.text import show_path
from sft.disk.stdout import StandardOutput
from sft.transfer.receiver import Receiver
from sft.wire.channel import Channel
from sft.wire.messages import (
    BYE_MESSAGE,
    Accept,
    Bye,
    Cancel,
    Check,
    Entries,
    Error,
    Get,
    ListFolder,
    Message,
    Put,
    Receipt,
    Refuse,
)
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


class Asked:
    """A client that fetches into a folder, and at the other end a server that is spoken by hand."""

    def __init__(self, engine: Engine, names: list[str], target: str, policy: str = "fail") -> None:
        near, far = tcp_pair()
        self.raw = Raw(far, S2C, C2S)
        self.fetch = Fetch(engine, near, names, target, policy)
        self.reporter = self.fetch.reporter
        self.thread = threading.Thread(target=self.fetch.run, daemon=True)
        self.thread.start()
        for number, path in enumerate(self.fetch.fetching.wanted, 1):
            assert self.raw.hear() == Get(number, path, number < len(names), True)

    def give(self, announced: Put, content: bytes = b"evil!") -> None:
        """A whole small file, unasked, as the rules have it."""
        self.raw.say(announced.encode(), data(announced.id, 0, content), end(announced, content).encode())

    def finish(self, bye: bool = True) -> tuple[list[Message], TransferError | None]:
        if bye:
            with contextlib.suppress(OSError):
                self.raw.say(BYE_MESSAGE)
        self.raw.stop()
        heard = self.raw.hear_all()
        self.raw.close()
        self.thread.join(30)
        assert not self.thread.is_alive()
        check_nothing_is_left(self.fetch.engine, self.fetch.channel)
        return heard, self.fetch.problem


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder, links as what they say."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else "folder"
        for path in folder.rglob("*")
    }


LONG = "n" * 256


# Asked for "box/d" and "box/f", into a folder: what a server may not place, and how each is refused.
NEVER: dict[str, tuple[str, ...]] = {  # names that are not allowed: a violation
    "above": ("..", "outside", "secret"),
    "above, behind what was asked": ("d", "..", "..", "outside", "secret"),
    "only dots": ("..",),
    "here": (".",),
    "nothing": (),
    "an empty component": ("", "etc", "passwd"),
    "an empty component inside": ("d", "", "x"),
    "absolute": ("/etc/passwd",),
    "absolute inside": ("d", "/tmp/x"),
    "a slash": ("d/x",),
    "slashes upwards": ("d", "../../outside/secret"),
    "nul": ("d", "x\0y"),
    "newline": ("d", "x\ny"),
    "escape": ("d", "\x1b[2J"),
    "too long": ("d", LONG),
    "too deep": ("d", *["x"] * 255),
    "a path too long": ("d", *["x" * 255] * 16),
}


EVIL: dict[str, tuple[Code, tuple[str, ...]]] = {
    "the way that was asked, not its end": (Code.DENIED, ("box", "d", "x")),
    "another name": (Code.DENIED, ("other",)),
    "another folder": (Code.DENIED, ("other", "d")),
    "the name in another case": (Code.DENIED, ("D", "x")),
    "the staging area": (Code.NAME, (".secure-file-transfer-partial", "x")),
    "through a link": (Code.LINK, ("d", "link", "secret")),
    "below a file": (Code.NOT_FOLDER, ("d", "mine", "x")),
    "onto a folder": (Code.IS_FOLDER, ("d", "sub")),
    "onto a file": (Code.EXISTS, ("d", "mine")),
    "onto a link": (Code.EXISTS, ("d", "link")),
}


@pytest.mark.parametrize("kind", ["small", "large", "folder"])
@pytest.mark.parametrize("trick", EVIL)
def test_server_places_nothing_but_below_what_was_asked(engine: Engine, into: Path, trick: str, kind: str) -> None:
    code, path = EVIL[trick]
    written(into / "d/mine", b"mine")
    (into / "d/sub").mkdir()
    (into / "d/link").symlink_to("../../outside")
    before = snapshot(into.parent)
    asked = Asked(engine, ["box/d", "box/f"], f"{into}/")
    if kind == "folder":
        asked.raw.say(put(1, *path, size=None, kind="folder", mtime=1, mode=0).encode())
        code = {Code.EXISTS: Code.NOT_FOLDER}.get(code, code)
    elif kind == "large":
        asked.raw.say(put(1, *path, size=LARGE).encode())
    else:
        asked.give(put(1, *path))
    if trick == "onto a link" and kind == "folder":
        code = Code.LINK
    fine = trick == "onto a folder" and kind == "folder"
    if kind == "large":
        assert asked.raw.hear() == Refuse(1, code), "before anything of it was sent"
        asked.raw.say(Cancel(1).encode())
    good = put(2, "f")
    asked.give(good, b"12345")
    heard, problem = asked.finish()
    assert problem is None
    refusals = [message.code for message in heard if isinstance(message, Refuse)]
    assert refusals == ([] if fine or kind == "large" else [code])
    assert asked.reporter.problems == ([] if fine else [(show_path(path), code)])
    after = snapshot(into.parent)
    assert after.pop("into/f") == b"12345"
    assert after == before


@pytest.mark.parametrize("kind", ["small", "large", "folder"])
@pytest.mark.parametrize("trick", NEVER)
def test_server_that_gives_a_name_that_is_not_allowed_breaks_the_protocol(
    engine: Engine, into: Path, trick: str, kind: str
) -> None:
    before = snapshot(into.parent)
    asked = Asked(engine, ["box/d", "box/f"], f"{into}/")
    size = {"small": 4, "large": LARGE, "folder": None}[kind]
    asked.raw.say(put(1, *NEVER[trick], size=size, kind="folder" if kind == "folder" else "file").encode())
    heard, problem = asked.finish(bye=False)
    assert isinstance(problem, ProtocolViolation)
    assert heard == [Error(Code.PROTOCOL)]
    assert asked.reporter.problems == []
    assert snapshot(into.parent) == before


class Spending(RateLimiter):
    """A limit that nobody waits for, and a count."""

    def __init__(self) -> None:
        super().__init__(1)
        self.spent = 0

    def spend(self, count: int, before_waiting: Callable[[], None] = lambda: None, content: int = 0) -> None:
        self.spent += count


def test_server_that_gives_more_than_one_file_to_standard_output_is_refused(engine: Engine, tmp_path: Path) -> None:
    near, far = tcp_pair()
    raw = Raw(far, S2C, C2S)
    reporter = Noted()
    fetching = Download(reporter, "fail", True, ["a"], "-")
    channel = Channel(near, C2S, S2C, engine)
    with (tmp_path / "stdout").open("wb") as file:
        stream = StandardOutput(file.fileno())
        limiter = Spending()
        receiver = Receiver(
            channel, channel.messages(), FILE_SECRET, stream, fetching.place, fetching.on_event, limiter
        )
        thread = threading.Thread(target=receiver.run, daemon=True)
        thread.start()
        one, two = put(1, "a"), put(2, "a")
        three = put(3, "a", size=None, kind="folder").encode()
        said = [one.encode(), data(1, 0, b"first"), end(one, b"first").encode()]
        said += [two.encode(), data(2, 0, b"twice"), end(two, b"twice").encode(), three]
        raw.say(*said[:3])
        raw.say(*said[3:5])
        raw.say(*said[5:], BYE_MESSAGE)
        heard = list(iter(raw.hear, Bye()))
        thread.join(30)
        raw.close()
        channel.close()
    assert (tmp_path / "stdout").read_bytes() == b"first"
    assert stream.is_whole
    answers = [message.encode() for message in heard if isinstance(message, Receipt | Refuse)]
    assert limiter.spent == sum(map(len, [*said, *answers])), "what is refused came, too"
    assert [message for message in heard if isinstance(message, Refuse)] == [
        Refuse(2, Code.UNSUPPORTED),
        Refuse(3, Code.IS_FOLDER),
    ]
    assert reporter.outcomes == {"a": "stored"}
    assert len(reporter.problems) == 2


def test_server_that_gives_the_same_file_twice_changes_nothing(engine: Engine, into: Path) -> None:
    asked = Asked(engine, ["a"], f"{into}/")
    asked.give(put(1, "a", mtime=1), b"first")
    asked.give(put(2, "a", mtime=2), b"other")
    asked.give(put(3, "a", mtime=1), b"third")
    heard, problem = asked.finish()
    assert problem is None
    assert Refuse(2, Code.EXISTS) in heard
    assert files_in(into) == {"a": b"first"}
    assert asked.reporter.delivered_count == 1


def test_server_that_gives_a_folder_for_a_file_keeps_to_the_name(engine: Engine, into: Path) -> None:
    """What was asked for may be a folder: it lands under the one name, and nowhere else."""
    asked = Asked(engine, ["box/a"], f"{into}/out.txt")
    asked.raw.say(put(1, "a", size=None, kind="folder").encode())
    asked.give(put(2, "a", "x"))
    asked.give(put(3, "out.txt", "y"))
    asked.give(put(4, "b"))
    heard, problem = asked.finish()
    assert problem is None
    assert [message for message in heard if isinstance(message, Refuse)] == [
        Refuse(3, Code.DENIED),
        Refuse(4, Code.DENIED),
    ]
    assert files_in(into) == {"out.txt/x": b"evil!"}
    assert files_in(into.parent / "outside") == {"secret": b"untouched"}


@pytest.mark.parametrize("policy", ["replace", "rename"])
def test_server_replaces_no_folder_and_no_link(engine: Engine, into: Path, policy: str) -> None:
    written(into / "d/sub/mine", b"mine")
    (into / "d/link").symlink_to("../../outside/secret")
    asked = Asked(engine, ["d"], f"{into}/", policy)
    asked.give(put(1, "d", "sub"))
    asked.give(put(2, "d", "link"))
    asked.give(put(3, "d", "link", "x"))
    asked.finish()
    assert (into / "d/sub/mine").read_bytes() == b"mine"
    assert files_in(into.parent / "outside") == {"secret": b"untouched"}


SERVER_BREAKS: dict[str, list[bytes]] = {
    "get": [Get(1, ("a",), False, True).encode()],
    "list": [ListFolder(1, (), None).encode()],
    "entries": [Entries(1, (), False).encode()],
    "accept": [Accept(1, 0).encode()],
    "receipt": [receipt()],
    "data never announced": [data(1, 0, b"x")],
    "check never announced": [Check(1, 5, bytes(32)).encode()],
    "id reused": [put(1, "a", size=None, kind="folder").encode()] * 2,
    "bye inside a file": [put(1, "a").encode(), BYE_MESSAGE],
    "refusal of what was not asked for": [Refuse(2, Code.NOT_FOUND).encode()],
}


@pytest.mark.parametrize("fault", SERVER_BREAKS)
def test_server_that_breaks_the_rules_ends_the_connection(engine: Engine, into: Path, fault: str) -> None:
    asked = Asked(engine, ["a"], f"{into}/")
    asked.raw.say(*SERVER_BREAKS[fault])
    heard, problem = asked.finish(bye=False)
    assert isinstance(problem, ProtocolViolation)
    assert heard[-1] == Error(Code.PROTOCOL)
    assert files_in(into) == {}


def test_server_that_refuses_again_is_a_failure_and_no_more(engine: Engine, into: Path) -> None:
    asked = Asked(engine, ["a"], f"{into}/")
    asked.raw.say(Refuse(1, Code.NOT_FOUND).encode(), Refuse(1, Code.UNREADABLE).encode())
    _, problem = asked.finish()
    assert problem is None
    assert asked.reporter.problems == [("a", Code.NOT_FOUND), ("a", Code.UNREADABLE)]


def test_file_with_a_wrong_hmac_is_not_fetched(engine: Engine, into: Path) -> None:
    asked = Asked(engine, ["a"], f"{into}/")
    announced = put(1, "a")
    asked.raw.say(announced.encode(), data(1, 0, b"12345"), end(announced, b"12345", secret=C2S).encode())
    heard, problem = asked.finish()
    assert problem is None
    assert Refuse(1, Code.INTEGRITY) in heard
    assert asked.reporter.status == 5
    assert files_in(into) == {}
