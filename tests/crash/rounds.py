"""One round of the crash loop: clients at work, one end killed at a random stage, then what must hold, then once more.

What holds after each round: under every published name lies a whole file, old or new; what a client has called
delivered is there with that digest; nothing runs on; no log tells of a bug; and the same commands, given again, end
with 0, after which everything is there and nothing is left of the crash.

A stage is a byte that crosses a line, an event in the server's log, or a call to the system (before it or after it).
Nothing sleeps: the stage comes, or all clients have ended, and then the signal is sent at the end.
"""

import random
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from claims import digest_of, processes_of_sessions, receipts, told
from machine import Call, Machine
from processes import (
    USER,
    Client,
    Fault,
    Proxy,
    Result,
    Running,
    Server,
    check_no_traceback,
    content,
    login_sent,
    wait_until,
)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
MIB = 1 << 20
_PATIENCE = 120.0
_CAUGHT = 128  # and the number of the signal: the exit status of a client that ends in one line
_LOST = 4
# How many calls of each kind a round makes, at most about.
_CALLS: dict[Call, int] = {
    "write": 80, "flush": 120, "flush folder": 12, "link": 80, "rename": 1, "create": 120, "folder": 6, "remove": 120,
}  # fmt: skip
_EVENTS = {"logged in": 3, "stored ": 60}


@dataclass
class Job:
    """One command: what it sends or fetches, and which digest belongs under which name when it is done."""

    name: str
    arguments: list[str | Path]
    kind: str
    expected: dict[Path, str]
    receipts: Path
    up: int
    down: int
    stdin: Path | None = None
    before: dict[Path, str] = field(default_factory=dict)  # what lies there before it


@dataclass
class Outcome:
    """What a round has shown."""

    victim: str
    signal: str
    stage: str
    statuses: list[int]
    claims: int
    compared: int
    line: str


class Crashes:
    """Rounds on one receiver, which is started again when it was killed."""

    def __init__(self, folder: Path, seed: str, library: Path | None) -> None:
        self._folder, self._seed = folder, seed
        self._server = Server(folder / "server")
        self._machine = self._local = None
        if library is not None:
            self._machine = Machine(library, folder / "control", self._server.storage)
            self._local = Machine(library, folder / "local control", folder / "work")
            self._server.environment = self._machine.environment
        self._server.add(USER)
        self._start()
        self._client = Client(self._server.port, folder / "client")
        self._give()
        self.plan = ""

    def _start(self) -> None:
        self._server.start("--grace=1")

    def close(self) -> None:
        """The last server stops as it should."""
        assert self._server.stop() == 0

    def kill(self) -> None:
        """End it, if it still runs."""
        self._server.close()
        for machine in (self._machine, self._local):
            if machine is not None:
                machine.close()

    def _give(self) -> None:
        """What there is to be fetched, in every round."""
        given = self._server.path("given")
        given.mkdir(parents=True)
        for number in range(40):
            (given / f"small {number}").write_bytes(content(number * 500))
        (given / "large").write_bytes(content(6 * MIB + 1))

    # --- what the clients do ---

    def _jobs(self, number: int, work: Path, chance: random.Random) -> list[Job]:
        makers = [self._large, self._many, self._pipe, self._replace, self._get]
        return [make(f"round {number}", work, chance) for make in chance.sample(makers, 3)]

    def _large(self, box: str, work: Path, chance: random.Random) -> Job:
        source = work / "large"
        source.write_bytes(content(chance.randrange(100_000, 24 * MIB)))
        there = self._server.path(box, "large")
        return self._put(work, "large", [source, f"{box}/"], {there: digest_of(source)}, source.stat().st_size)

    def _many(self, box: str, work: Path, chance: random.Random) -> Job:
        tree, expected, size = work / "many", {}, 0
        for number in range(chance.randrange(20, 120)):
            source = tree / f"folder {number % 3}" / str(number)
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_bytes(content(chance.choice((0, 1, 3000, 20_000, 65_537))))
            expected[self._server.path(box, "many", source.parent.name, source.name)] = digest_of(source)
            size += source.stat().st_size + 300
        return self._put(work, "many", [tree, f"{box}/"], expected, size)

    def _pipe(self, box: str, work: Path, chance: random.Random) -> Job:
        source = work / "pipe"
        source.write_bytes(content(chance.randrange(0, 5 * MIB)))
        expected = {self._server.path(box, "pipe"): digest_of(source)}
        # When its receipt is lost the name is taken: without "replace" the same command could not be given again.
        job = self._put(work, "pipe", ["--if-exists=replace", "-", f"{box}/pipe"], expected, source.stat().st_size)
        job.stdin = source
        return job

    def _replace(self, box: str, work: Path, chance: random.Random) -> Job:
        old, new, there = work / "old", work / "new", self._server.path(box, "replaced")
        for source in (old, new):
            source.write_bytes(content(chance.randrange(1, 2 * MIB)))
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(old, there)
        arguments: list[str | Path] = ["--if-exists=replace", new, f"{box}/replaced"]
        job = self._put(work, "replace", arguments, {there: digest_of(new)}, new.stat().st_size)
        job.before = {there: digest_of(old)}
        return job

    def _get(self, box: str, work: Path, chance: random.Random) -> Job:
        target = work / "fetched"
        given = list(self._server.path("given").iterdir())
        expected = {target / each.name: digest_of(each) for each in given}
        size = sum(each.stat().st_size for each in given)
        arguments: list[str | Path] = ["--get", "given", target]
        return Job("get", arguments, "get", expected, work / "get.receipts", 4000, size)

    @staticmethod
    def _put(work: Path, name: str, arguments: list[str | Path], expected: dict[Path, str], size: int) -> Job:
        return Job(name, arguments, "put", expected, work / f"{name}.receipts", login_sent() + size, 3000)

    def _begin(self, job: Job, client: Client, *flags: str) -> Running:
        arguments = [*flags, f"--receipts={job.receipts}", *job.arguments]
        if job.stdin is None:
            return client.start(*arguments)
        with job.stdin.open("rb") as piped:
            return client.start(*arguments, stdin=piped)

    # --- one round ---

    def round(self, number: int) -> Outcome:
        """One round. Raises AssertionError for a promise that does not hold."""
        chance = random.Random(f"{self._seed} {number}")  # noqa: S311 -- the same seed repeats it; nothing secret comes from it
        work = self._folder / "work"
        work.mkdir()
        jobs = self._jobs(number, work, chance)
        victim = chance.choice([None, None, *jobs])
        what = chance.choice(SIGNALS)
        arm = self._stage(chance, jobs, victim)
        lines = {job.name: Proxy(self._server.port) for job in jobs}
        try:
            stage, reached = arm(lines, what)
            name = "server" if victim is None else victim.name
            self.plan = f"{what.name} to {name} at {stage}"
            results, ended = self._run(jobs, victim, lines, what, reached)
        finally:
            for line in lines.values():
                line.close()
        for machine in (self._machine, self._local):
            if machine is not None:
                machine.heal()
        claims = self._check(jobs, results, victim, what, ended)
        compared = self._again(jobs, work)
        statuses = [result.status for result in results]
        told = ", ".join(f"{job.name} {status}" for job, status in zip(jobs, statuses, strict=True))
        summary = f"round {number}: {self.plan}: {told}; {claims} claims and {compared} files checked"
        shutil.rmtree(work)
        shutil.rmtree(self._server.path(f"round {number}"), ignore_errors=True)
        return Outcome(name, what.name, stage.split()[0], statuses, claims, compared, summary)

    def _stage(
        self, chance: random.Random, jobs: list[Job], victim: Job | None
    ) -> Callable[[dict[str, Proxy], signal.Signals], tuple[str, Callable[[], bool]]]:
        """Choose when; what is returned prepares it, and says what it is and how to see that it has come."""
        job = victim or chance.choice(jobs)
        machine = self._machine if victim is None else self._local if victim.kind == "get" else None
        kind = chance.choice(["byte", "byte", "event", *(["call", "call"] if machine is not None else [])])

        def byte(lines: dict[str, Proxy], what: signal.Signals) -> tuple[str, Callable[[], bool]]:
            way = chance.choice(["up", "down"]) if job.kind == "put" else "down"
            total = job.up if way == "up" else job.down
            at = chance.randrange(min(total, login_sent() + 3000) if chance.random() < 0.3 else total)
            line = lines[job.name]
            line.close()
            fault = Fault("tell", at)
            up, down = (fault, None) if way == "up" else (None, fault)
            lines[job.name] = line = Proxy(self._server.port, up, down)
            return f"byte {at:,} {way} of {job.name}", line.reached.is_set

        def event(lines: dict[str, Proxy], what: signal.Signals) -> tuple[str, Callable[[], bool]]:
            word = chance.choice(list(_EVENTS))
            count, before = chance.randint(1, _EVENTS[word]), self._server.told().count(word)
            return f"event {count} of {word!r}", lambda: self._server.told().count(word) >= before + count

        def call(lines: dict[str, Proxy], what: signal.Signals) -> tuple[str, Callable[[], bool]]:
            assert machine is not None
            name = chance.choice(list(_CALLS))
            skip, after = chance.randrange(_CALLS[name]), chance.random() < 0.5
            machine.kill_at(name, what, skip, after)
            return f"call {skip} of {name!r}, {'after' if after else 'before'} it", lambda: machine.hits(name) > 0

        return {"byte": byte, "event": event, "call": call}[kind]

    def _run(
        self,
        jobs: list[Job],
        victim: Job | None,
        lines: dict[str, Proxy],
        what: signal.Signals,
        reached: Callable[[], bool],
    ) -> tuple[list[Result], int | None]:
        """Let all clients work until the stage, kill, wait for all; the server's exit status when it was to end."""
        running = {}
        for job in jobs:
            client = self._client.at(lines[job.name].port)
            client.environment = self._local.environment if self._local is not None and job.kind == "get" else {}
            running[job.name] = self._begin(job, client, "--retries=0")
        sessions = {each.process.pid for each in running.values()}
        with ThreadPoolExecutor(len(jobs)) as pool:
            waiting: list[Future[Result]] = [pool.submit(running[job.name].finish, _PATIENCE) for job in jobs]
            wait_until(lambda: reached() or all(each.done() for each in waiting), _PATIENCE)
            if not (self.plan.partition(" at ")[2].startswith("call") and reached()):
                if victim is None:
                    self._server.signal(what)
                elif not waiting[jobs.index(victim)].done():
                    running[victim.name].kill(what)
            ended = None
            if victim is None and what != signal.SIGHUP:
                assert self._server.process is not None
                sessions.add(self._server.process.pid)
                ended = self._server.ended(_PATIENCE)
            results = [each.result() for each in waiting]
        assert processes_of_sessions(sessions) == []
        return results, ended

    # --- what must hold ---

    def _check(
        self, jobs: list[Job], results: list[Result], victim: Job | None, what: signal.Signals, ended: int | None
    ) -> int:
        """After the crash; how many claims were checked."""
        server_ended = victim is None and what != signal.SIGHUP
        if server_ended:
            assert ended == (-signal.SIGKILL if what == signal.SIGKILL else 0), ended
        claims = 0
        for job, result in zip(jobs, results, strict=True):
            killed = job is victim
            expected = {0, -what, _CAUGHT + what} if killed else {0}
            assert result.status in expected | ({_LOST} if server_ended else set()), (job.name, result)
            claims += self._check_claims(job, result, killed)
            for place in self._published(job):
                found = digest_of(place)
                assert found in (job.expected.get(place), job.before.get(place)), f"{place} is not whole"
            if result.status == 0:
                assert {place: digest_of(place) for place in job.expected} == job.expected, (job.name, result)
        return claims

    def _check_claims(self, job: Job, result: Result, killed: bool) -> int:
        claims = [*told(result.out), *receipts(job.receipts, torn=killed)]
        for path, digest in claims:
            place = Path(path) if job.kind == "get" else self._server.path(path)
            assert place.exists(), f"{job.name}: {path} was delivered, and is not there"
            assert digest_of(place) == digest == job.expected[place], f"{job.name}: {path} is not what was delivered"
        return len(claims)

    @staticmethod
    def _published(job: Job) -> list[Path]:
        """The visible files that this job may have made."""
        top = dict.fromkeys(job.expected)
        folders = {place.parent for place in top if job.name in ("many", "get")}
        found = [path for folder in folders if folder.exists() for path in folder.iterdir() if path.is_file()]
        return sorted({*found, *(place for place in top if place.exists())})

    def _again(self, jobs: list[Job], work: Path) -> int:
        """The same commands once more: all end with 0, all is there, nothing else is; how many files were compared."""
        if self._server.process is None:
            self._start()
        client = self._client.at(self._server.port)
        with ThreadPoolExecutor(len(jobs)) as pool:
            running = [self._begin(job, client) for job in jobs]
            results = list(pool.map(lambda each: each.finish(_PATIENCE), running))
        compared = 0
        for job, result in zip(jobs, results, strict=True):
            assert result.status == 0, (job.name, result)
            assert set(self._published(job)) == set(job.expected)
            assert {place: digest_of(place) for place in job.expected} == job.expected
            compared += len(job.expected)
            claimed = {path for path, _ in receipts(job.receipts, torn=True)}
            assert len(claimed) >= len(job.expected), (job.name, len(claimed))
        wait_until(lambda: not self._server.partials())
        hidden = [path for path in work.rglob(".*") if path.name.startswith(".secure-file-transfer")]
        assert hidden == []
        log = (self._folder / "client" / "client.log").read_text()
        check_no_traceback(log)
        check_no_traceback(self._server.told())
        assert "a bug" not in self._server.told()
        return compared
