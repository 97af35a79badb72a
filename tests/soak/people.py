"""The people of the soak: each sends, fetches, lists, is killed and is refused at random, and keeps what was promised.

Rules: each person has a folder of its own, so that its content is known exactly. A person whose logins fail (with a
wrong password, or killed in the middle) has an address of its own, because the server counts those for a day.
"""

import contextlib
import itertools
import json
import random
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from claims import digest_of, receipts, told
from processes import Client, Fault, Proxy, Result, Server, login_sent, wait_until

MIB = 1 << 20
LARGEST = 64 * MIB
USERS = ("anna", "bert", "cleo", "dora", "emil")
DROP_ONLY, SACRIFICE = "post", "bait"
_KEPT = 32 * MIB  # of one person, on the receiver's disk
_AT_ONCE_LARGE, _LARGE = 6, 8 * MIB
_AT_ONCE_LOGGING_IN = 6  # on a slow machine more would keep each other over the deadline of the login
_PATIENCE = 300.0
_TRIES = 5
_REFUSED, _USAGE, _LOGIN, _LOST = 1, 2, 3, 4
_FREE_GUESSES_A_DAY = 900  # at one name; beyond about a thousand they are not answered any more


class World:
    """What all people share: the receiver, what they count, and what was broken."""

    def __init__(self, folder: Path, server: Server, seed: str, port: int) -> None:
        self.folder, self.server, self.seed, self.port = folder, server, seed, port
        self.over = threading.Event()
        self.counts: Counter[str] = Counter()
        self.broken: list[str] = []
        self.large = threading.Semaphore(_AT_ONCE_LARGE)
        self.logging_in = threading.Semaphore(_AT_ONCE_LOGGING_IN)
        self._lock = threading.Lock()
        self._addresses = itertools.count(1)
        self._pool = random.Random(seed).randbytes(LARGEST)  # noqa: S311 -- the same seed repeats it; nothing secret comes from it

    def count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.counts[what] += number

    def address(self) -> str:
        """One of this host's that nobody had before."""
        number = next(self._addresses)
        return f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"

    def fill(self, path: Path, size: int, chance: random.Random) -> str:
        """Make a file that no other equals; its digest."""
        at = chance.randrange(LARGEST - size + 1)
        with path.open("wb") as file:
            file.write(chance.randbytes(min(size, 16)))
            file.write(memoryview(self._pool)[at : at + max(0, size - 16)])
        return digest_of(path)


class Person(threading.Thread):
    """One of them. `there` is what was promised: path at the receiver, in this user's folder, and digest."""

    def __init__(self, number: int, world: World) -> None:
        super().__init__(name=f"person {number}", daemon=True)
        self._world, self._chance = world, random.Random(f"{world.seed} {number}")  # noqa: S311 -- the same seed repeats it; nothing secret comes from it
        self.user = USERS[number % len(USERS)]
        self.box = f"box {number}"
        self._folder = world.folder / self.name
        self._client = Client(world.port, self._folder / "client", self.user)
        self.there: dict[str, tuple[str, str]] = {}  # path: (user, digest)
        self._names = itertools.count(1)

    def run(self) -> None:
        """Until it is over, or a promise is broken."""
        actions = {
            self._send: 8, self._send_killed: 8, self._fetch: 6, self._fetch_killed: 2, self._list: 3,
            self._wrong_password: 1, self._exists: 2, self._bad_name: 1, self._not_allowed: 1, self._drop: 2,
        }  # fmt: skip
        while not self._world.over.is_set():
            action = self._chance.choices(list(actions), list(actions.values()))[0]
            work = self._folder / "work"
            work.mkdir(parents=True)
            try:
                action(work)
            except Exception as problem:
                self._world.broken.append(f"{self.name}, {action.__name__}: {type(problem).__name__}: {problem}")
                return
            shutil.rmtree(work)
            self._tidy()

    # --- running clients ---

    def _once(
        self,
        client: Client,
        *arguments: str | Path,
        stdin: Path | None = None,
        stdout: Path | None = None,
        kill: Callable[[], object] | None = None,
    ) -> Result:
        """Run a client to its end, or until `kill` says to kill it."""
        with contextlib.ExitStack() as opened:
            piped = subprocess.PIPE if stdin is None else opened.enter_context(stdin.open("rb"))
            sink = subprocess.PIPE if stdout is None else opened.enter_context(stdout.open("wb"))
            known = client.log.stat().st_size if client.log.exists() else 0

            def logged_in() -> bool:
                if not client.log.exists():
                    return False
                with client.log.open("rb") as log:
                    log.seek(known)
                    return b"authenticat" in log.read()

            with self._world.logging_in:
                running = client.start(*arguments, stdin=piped, stdout=sink)
                wait_until(
                    lambda: logged_in() or running.process.poll() is not None or (kill is not None and kill()),
                    _PATIENCE,
                )
            if kill is not None:
                wait_until(lambda: kill() or running.process.poll() is not None, _PATIENCE)
                running.kill(self._chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
            result = running.finish(_PATIENCE)
        self._world.count("runs")
        return result

    def _do(
        self,
        *arguments: str | Path,
        client: Client | None = None,
        stdin: Path | None = None,
        stdout: Path | None = None,
    ) -> Result:
        """The same, tried again when the server had no time for the login."""
        for _ in range(_TRIES):
            result = self._once(client or self._client, *arguments, stdin=stdin, stdout=stdout)
            if result.status != _LOST or "during the login" not in result.err:
                break
            self._world.count("logins tried again")
        return result

    def _killed(self, *arguments: str | Path, total: int, up: bool) -> Result:
        """Run it over a line, and kill it at a random byte that crosses this line."""
        at = self._chance.randrange(login_sent() if self._chance.random() < 0.1 else max(total, 1))
        fault = Fault("tell", at)
        ways = (fault, None) if up else (None, fault)
        line = Proxy(self._world.port, ways[0], ways[1], self._world.address())
        try:
            result = self._once(self._client.at(line.port), "--retries=0", *arguments, kill=line.reached.is_set)
        finally:
            line.close()
        assert result.status in (0, _LOST, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT), result
        self._world.count("kills", result.status != 0)
        return result

    # --- sending ---

    def _size(self) -> int:
        kind = self._chance.choices(["none", "small", "middle", "large"], [1, 4, 4, 2])[0]
        most = {"none": 0, "small": 65_536, "middle": 2 * MIB, "large": LARGEST}[kind]
        return int(most * self._chance.random() ** 2) if most else 0

    def _limit(self, size: int) -> list[str]:
        """Some take their time: that is how many are connected at once."""
        if size < 100_000 or self._chance.random() < 0.4:
            return []
        return [f"--limit={int(size / self._chance.uniform(2, 15)) + 1}"]

    def _new(self, work: Path) -> tuple[list[str | Path], dict[str, str], int, Path | None]:
        """Something to send: (arguments, what it promises, size, standard input)."""
        name = self._chance.choice(["file {}", "Größe {}.bin", "-{}", "🚢 {}"]).format(next(self._names))
        kind = self._chance.choices(["file", "tree", "pipe"], [6, 3, 2])[0]
        if kind == "tree":
            tree, expected, size = work / "tree", {}, 0
            for number in range(self._chance.randint(1, 40)):
                source = tree / f"folder {number % 4}" / f"{number}.txt"
                source.parent.mkdir(parents=True, exist_ok=True)
                length = int(100_000 * self._chance.random() ** 4)
                expected[f"{self.box}/{name}/{source.parent.name}/{source.name}"] = self._world.fill(
                    source, length, self._chance
                )
                size += length
            return ["--", tree, f"{self.box}/{name}"], expected, size, None
        source, size = work / "source", self._size()
        if kind == "pipe":
            size //= 8
        digest = self._world.fill(source, size, self._chance)
        policy = [] if kind == "file" else ["--if-exists=replace"]
        flags = [*policy, *self._limit(size), "--"]
        return [*flags, "-" if kind == "pipe" else source, f"{self.box}/{name}"], {
            f"{self.box}/{name}": digest
        }, size, source if kind == "pipe" else None  # fmt: skip

    def _take(self, result: Result, kept: Path, expected: dict[str, str], user: str, torn: bool = False) -> None:
        """Believe what was claimed, when it is what was to be claimed."""
        for path, digest in [*told(result.out), *receipts(kept, torn)]:
            assert expected.get(path) == digest, f"{path} is claimed to have {digest}, and had {expected.get(path)}"
            self.there[path] = user, digest
        if result.status == 0:
            assert {path for path, _ in receipts(kept)} == set(expected), result

    def _send_it(self, work: Path, killed: bool) -> None:
        arguments, expected, size, piped = self._new(work)
        kept = work / "receipts"
        with self._world.large if size > _LARGE else contextlib.nullcontext():
            if killed and piped is None:
                result = self._killed(f"--receipts={kept}", *arguments, total=login_sent() + size, up=True)
                self._take(result, kept, expected, self.user, torn=True)
                kept = work / "receipts of the second try"
            result = self._do(f"--receipts={kept}", *arguments, stdin=piped)
        assert result.status == 0, result
        self._world.count("resumed", result.out.count("resumed: "))
        self._take(result, kept, expected, self.user)
        self._world.count("files sent", len(expected))
        self._world.count("bytes", size)

    def _send(self, work: Path) -> None:
        self._send_it(work, killed=False)

    def _send_killed(self, work: Path) -> None:
        self._send_it(work, killed=True)

    def _drop(self, work: Path) -> None:
        """Everybody drops under one name: each gets a number, and learns nothing else."""
        client, kept = Client(self._world.port, self._folder / "post", DROP_ONLY), work / "receipts"
        source, size = work / "dropped", int(200_000 * self._chance.random())
        digest = self._world.fill(source, size, self._chance)
        result = self._do(f"--receipts={kept}", source, "dropped.txt", client=client)
        assert result.status == 0, result
        ((path, claimed),) = receipts(kept)
        assert claimed == digest and path.startswith("dropped.")
        self.there[f"{DROP_ONLY}:{path}"] = DROP_ONLY, digest
        self._world.count("files sent")
        self._world.count("bytes", size)

    # --- fetching and listing ---

    def _wanted(self) -> tuple[str, dict[str, str]] | None:
        """Something that lies there: (its path, {path below it: digest})."""
        mine = [path for path, (user, _) in self.there.items() if user == self.user]
        if not mine:
            return None
        top = "/".join(self._chance.choice(mine).split("/")[:2])
        below = {
            path.removeprefix(top).lstrip("/"): self.there[path][1] for path in mine if f"{path}/".startswith(f"{top}/")
        }
        return top, below

    def _fetch_it(self, work: Path, killed: bool) -> None:
        wanted = self._wanted()
        if wanted is None:
            return
        path, below = wanted
        target = work / "fetched"
        size = sum(self._place(self.user, f"{path}/{name}".rstrip("/")).stat().st_size for name in below)
        with self._world.large if size > _LARGE else contextlib.nullcontext():
            if list(below) == [""] and not killed and self._chance.random() < 0.3:
                result = self._do("--get", "--", path, "-", stdout=target)
            else:
                if killed:
                    self._killed("--get", "--", path, target, total=size + 2000, up=False)
                result = self._do("--get", "--", path, target)
            assert result.status == 0, result
        found = {each.relative_to(target).as_posix(): each for each in target.rglob("*") if each.is_file()}
        assert {name or ".": digest for name, digest in below.items()} == {
            name: digest_of(each) for name, each in (found or {".": target}).items()
        }
        assert [each for each in work.iterdir() if each.name.startswith(".")] == []
        self._world.count("files fetched", len(below))
        self._world.count("bytes", size)

    def _fetch(self, work: Path) -> None:
        self._fetch_it(work, killed=False)

    def _fetch_killed(self, work: Path) -> None:
        self._fetch_it(work, killed=True)

    def _list(self, work: Path) -> None:
        if not self._wanted():
            return
        result = self._do("--json", "--list", self.box)
        assert result.status == 0, result
        listed = {event["name"] for event in map(json.loads, result.out.splitlines()) if event["event"] == "entry"}
        assert {path.split("/")[1] for path, (user, _) in self.there.items() if user == self.user} <= listed
        self._world.count("listings")

    # --- being refused ---

    def _refused(self, result: Result, *statuses: int) -> None:
        assert result.status in statuses and "delivered:" not in result.out, result
        self._world.count("refusals")

    def _wrong_password(self, work: Path) -> None:
        self._world.count("guesses")
        source = work / "source"
        self._world.fill(source, 10, self._chance)
        line = Proxy(self._world.port, source=self._world.address())
        try:
            client = Client(line.port, self._folder / "guessing", SACRIFICE, "not the password")
            result = self._once(client, "--retries=0", source, "guessed")
        finally:
            line.close()
        late = self._world.counts["guesses"] > _FREE_GUESSES_A_DAY
        in_time = _LOST if late or "during the login" in result.err else _LOGIN
        self._refused(result, _LOGIN, in_time)

    def _exists(self, work: Path) -> None:
        """Another file is there already, and stays."""
        wanted = self._wanted()
        if wanted is None or list(wanted[1]) != [""]:
            return
        source = work / "another"
        self._world.fill(source, self._chance.choice([17, 70_000]), self._chance)
        self._refused(self._do("--", source, wanted[0]), _REFUSED)

    def _bad_name(self, work: Path) -> None:
        source = work / "source"
        self._world.fill(source, 10, self._chance)
        target = self._chance.choice(["../out", "a/../../out", "x\ny", "n" * 256, "a//b/../c"])
        self._refused(self._do(source, target), _REFUSED, _USAGE)

    def _not_allowed(self, work: Path) -> None:
        client = Client(self._world.port, self._folder / "post", DROP_ONLY)
        job: list[str | Path] = ["--list"] if self._chance.random() < 0.5 else ["--get", "dropped.txt", work / "no"]
        self._refused(self._do(*job, client=client), _REFUSED)
        assert not (work / "no").exists()

    # --- what was promised ---

    def _place(self, user: str, path: str) -> Path:
        return self._world.server.storage / user / path

    def check(self, path: str) -> Path:
        """Hold one promise against the disk."""
        user, digest = self.there[path]
        place = self._place(user, path.removeprefix(f"{DROP_ONLY}:"))
        assert place.is_file(), f"{path} of {user} was delivered, and is not there"
        assert digest_of(place) == digest, f"{path} of {user} is not what was delivered"
        self._world.count("receipts checked")
        return place

    def _tidy(self) -> None:
        """Check and remove the oldest, as long as there is too much."""
        try:
            sizes = {
                path: self._place(user, path.removeprefix(f"{DROP_ONLY}:")).stat().st_size
                for path, (user, _) in self.there.items()
            }
            while sum(sizes.values()) > _KEPT:
                oldest = next(iter(sizes))
                self.check(oldest).unlink()
                del sizes[oldest], self.there[oldest]
        except (AssertionError, OSError) as problem:
            self._world.broken.append(f"{self.name}: {problem}")
