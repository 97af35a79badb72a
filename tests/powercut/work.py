"""What is under way when the power is cut: clients of every kind, each in a thread, one command after the other.

Rules: what a command sends is registered before it starts, and what became of it is known from its receipts and its
exit status alone. While the power is on, every command ends with 0.
"""

import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE

from claims import digest_of, receipts
from processes import ONCE, USER, Client, Server, content

from powercut.verdict import Sent

PATIENCE = 300.0
MIB = 1 << 20
_SIZES = (0, 1, 3000, 20_000, 65_536, 65_537, 400_000)
_LARGE = 200 * MIB  # a large file is flushed and noted in its journal every 128 MiB
Receipts = list[tuple[str, str]]


@dataclass(frozen=True)
class Command:
    """One run of the client; `stdin` is what it reads from a pipe."""

    arguments: list[str | Path]
    stdin: Path | None = None


@dataclass
class State:
    """What one worker had been promised at one moment."""

    command: Command | None
    receipts: Receipts
    settled: int  # so many of the receipts belong to commands that had ended with 0


class Repeated(threading.Thread):
    """A thread that repeats `step` until it is stopped."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.runs = 0
        self.is_over = threading.Event()
        self._problem: BaseException | None = None

    def step(self) -> None:
        """One of what is repeated."""
        raise NotImplementedError

    def run(self) -> None:
        """Repeat."""
        try:
            while not self.is_over.is_set():
                self.step()
                self.runs += 1
        except BaseException as problem:
            self._problem = problem

    def stop(self) -> None:
        """Return when the step under way has ended. Raises what went wrong."""
        self.is_over.set()
        self.join()
        if self._problem is not None:
            raise self._problem


class Worker(Repeated):
    """Runs what `make(number)` prepares, again and again."""

    def __init__(self, name: str, client: Client, receipts_file: Path, make: Callable[[int], Command]) -> None:
        super().__init__(name)
        self.receipts_file = receipts_file
        self._client, self._make = client, make
        self._current: Command | None = None
        self._settled = 0

    def state(self) -> State:
        """What it has been promised by now."""
        settled, current = self._settled, self._current
        return State(current, list(receipts(self.receipts_file, torn=True)), settled)

    def step(self) -> None:
        """One command."""
        self._current = self._make(self.runs)
        run_command(self._client, self._current, self.receipts_file)
        self._settled = len(list(receipts(self.receipts_file)))


def run_command(client: Client, command: Command, receipts_file: Path) -> str:
    """Run it to its end, which must be a good one; what it has printed."""
    arguments = [ONCE, f"--receipts={receipts_file}", *command.arguments]
    if command.stdin is None:
        result = client.start(*arguments, stdin=PIPE).finish(PATIENCE)
    else:
        with command.stdin.open("rb") as piped:
            result = client.start(*arguments, stdin=piped).finish(PATIENCE)
    assert result.status == 0, result
    return result.out


@dataclass
class Senders:
    """Makes the commands of each kind of worker. `work` is for sources, `disk` is what loses its power."""

    work: Path
    disk: Path
    chance: random.Random
    sent: Sent = field(default_factory=Sent)

    def _tree(self, name: str, count: int, first: int = 0) -> Path:
        tree = self.work / name
        for number in range(first, first + count):
            source = tree / f"folder {number % 3}" / str(number)
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_bytes(content(self.chance.choice(_SIZES)))
        return tree

    def _send(self, tree: Path, target: str, policy: str) -> Command:
        for source in tree.rglob("*"):
            if source.is_file():
                path = f"{target}/{source.relative_to(tree)}"
                self.sent.add(path, digest_of(source), renames=policy == "rename")
        return Command([f"--if-exists={policy}", tree, target])

    def fail(self, number: int) -> Command:
        """New names each time, in new folders."""
        return self._send(self._tree(f"fail {number}", 40), f"fail/{number}", "fail")

    def replace(self, number: int) -> Command:
        """The same names with other contents."""
        return self._send(self._tree(f"replace {number}", 30), "replace", "replace")

    def rename(self, number: int) -> Command:
        """The same names with other contents, each of which gets a number."""
        return self._send(self._tree(f"rename {number}", 6), "rename", "rename")

    def skip(self, number: int) -> Command:
        """Some names that are taken, and some new ones."""
        return self._send(self._tree(f"skip {number}", 12, first=8 * number), "skip", "skip")

    def pipe(self, number: int) -> Command:
        """A stream of unknown length onto one name."""
        source = self.work / f"pipe {number}"
        source.write_bytes(content(self.chance.randrange(3 * MIB)))
        self.sent.add("pipe/stream", digest_of(source))
        return Command(["--if-exists=replace", "-", "pipe/stream"], source)

    def large(self, number: int) -> Command:
        """One of two large files onto one name, in turn."""
        source = self.work / f"large {number % 2}"
        if not source.exists():
            source.write_bytes(content(_LARGE + number))
        self.sent.add("large/image", digest_of(source))
        return Command(["--if-exists=replace", source, "large/image"])

    def give(self, server: Server) -> None:
        """Put what is fetched into the receiver's folder, by hand."""
        given = server.path("given")
        given.mkdir(parents=True)
        for number, size in enumerate(_SIZES * 3):
            (given / str(number)).write_bytes(content(size))
        os.sync()  # what is put there by hand nobody else flushes
        self._given = {each.name: digest_of(each) for each in given.iterdir()}
        for name, digest in self._given.items():
            self.sent.add(f"given/{name}", digest)

    def get(self, number: int) -> Command:
        """A folder of the receiver, fetched onto the same disk."""
        target = self.disk / "fetched" / str(number)
        if not target.parent.exists():  # the client makes no folder above its target
            target.parent.mkdir()
            disk = os.open(self.disk, os.O_RDONLY)
            os.fsync(disk)
            os.close(disk)
        for name, digest in self._given.items():
            self.sent.add(str(target / name), digest)
        return Command(["--get", "given", target])


class Administrator(Repeated):
    """Adds, changes and removes accounts, and gives one of them new passwords."""

    ROTATING = "rotating"

    def __init__(self, server: Server) -> None:
        super().__init__("administrator")
        self._server = server
        server.add(self.ROTATING, password=self.password(0))
        self.listings = [self.listing()]  # after each command that has ended
        self.passwords_begun = self.passwords_done = 0

    @staticmethod
    def password(number: int) -> str:
        """The password with that number."""
        return f"one of many passwords, {number}"

    def listing(self) -> str:
        """What `users` prints, without the account that sends: its use of the disk changes all the time."""
        listed = self._server.command("users")
        assert listed.status == 0, listed
        return "\n".join(line for line in listed.out.splitlines() if line.split()[0] != USER)

    def _command(self, *arguments: str, typed: str = "") -> None:
        done = self._server.command(*arguments, typed=typed)
        assert done.status == 0, done
        self.listings.append(self.listing())

    def step(self) -> None:
        """An account from its beginning to its end, and a new password."""
        number = self.runs + 1
        name, password = f"user{number}", self.password(number) + "\n"
        self._command("adduser", name, "--quota", "10M", "--password-file", "-", typed=password)
        self._command("limits", name, "--quota", "20M", "--quota-files", str(number))
        self.passwords_begun = number
        self._command("passwd", self.ROTATING, "--password-file", "-", typed=password)
        self.passwords_done = number
        if number % 2:
            self._command("deluser", name)
