"""One round: clients at work on a disk, states of the disk kept at random moments, then each state held to what is
promised.

What holds for each state: what `verdict.judge` says; the accounts are those of the last command that had ended, or of
the one under way; receipts that a client kept for commands that had ended are there; a server starts on it, has counted
what is there, and the commands that were cut end with 0 when they are given again.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from claims import digest_of, receipts
from machine import Machine
from processes import USER, Client, Result, Server, wait_until

from powercut.disks import Disk
from powercut.verdict import judge, usage_in
from powercut.work import Administrator, Receipts, Repeated, Senders, State, Worker, run_command
from sft.disk.journal import Journal

_LONGEST_PAUSE = 4.0  # seconds between two cuts
_QUOTA = "900M"  # more than the disk will be asked for: it is only there so that there is a ledger


@dataclass
class Cut:
    """A state of the disk, and what had been promised before it was kept."""

    image: Path
    states: dict[str, State]
    listings: tuple[int, int]  # the first and the last listing of accounts that it may show
    passwords: tuple[int, int]
    durable: int  # bytes of the large file that its journal called flushed


@dataclass
class Figures:
    """What a round has shown."""

    cuts: int = 0
    receipts: int = 0
    checked: int = 0
    resumed: int = 0
    wrong: list[str] | None = None

    def add(self, other: "Figures") -> None:
        """Sum up."""
        self.cuts += other.cuts
        self.receipts += other.receipts
        self.checked += other.checked
        self.resumed += other.resumed
        self.wrong = [*(self.wrong or []), *(other.wrong or [])]


class Round:
    """A fresh disk, a server and its clients on it, some cuts."""

    def __init__(self, kind: str, folder: Path, chance: random.Random, machine: Machine | None = None) -> None:
        """`machine`: makes calls lie, to show that the checks can fail."""
        self._chance = chance
        self._disk = Disk(kind, folder)
        self._scratch = folder / "scratch"
        self._scratch.mkdir()
        self._environment = {} if machine is None else machine.environment
        self._server = self._server_on_disk()
        self._server.add(USER, "--quota", _QUOTA)
        self._server.start()
        self._client = Client(self._server.port, folder / "client")
        self._client.environment = self._environment
        self._senders = Senders(self._scratch, self._disk.place, chance)
        self._senders.give(self._server)
        self._workers = self._make_workers()
        self._administrator = Administrator(self._server)

    def _server_on_disk(self) -> Server:
        server = Server(self._disk.place / "server")
        server.environment = self._environment
        return server

    def _make_workers(self) -> dict[str, Worker]:
        makers = self._senders
        kinds = (makers.fail, makers.replace, makers.rename, makers.skip, makers.pipe, makers.large, makers.get)
        made = {}
        for make in kinds:
            name = make.__name__
            # One client keeps its receipts on the disk that loses its power.
            place = self._disk.place / "receipts.jsonl" if name == "fail" else self._scratch / f"{name}.receipts"
            made[name] = Worker(name, self._client, place, make)
        return made

    def run(self, cuts: int) -> Figures:
        """Work, cut, check; the figures."""
        for each in self._repeated():
            each.start()
        try:
            kept = [self._cut(number) for number in range(cuts)]
        finally:
            self._stop()
        self._disk.unmount()
        total = Figures()
        for cut in kept:
            self._disk.mount(cut.image)
            try:
                total.add(self._check(cut))
            finally:
                self._server.close()
                self._disk.unmount()
            cut.image.unlink()
        self._disk.close()
        return total

    def _repeated(self) -> list[Repeated]:
        return [*self._workers.values(), self._administrator]

    def _stop(self) -> None:
        problems = []
        for each in self._repeated():
            try:
                each.stop()
            except AssertionError as problem:
                problems.append(problem)
        self._server.close()
        if problems:
            raise problems[0]

    def _cut(self, number: int) -> Cut:
        self._administrator.is_over.wait(self._chance.uniform(0.5, _LONGEST_PAUSE))
        durable = self._durable()
        states = {name: worker.state() for name, worker in self._workers.items()}
        accounts = self._administrator
        first, done = len(accounts.listings) - 1, accounts.passwords_done
        image = self._disk.keep_state(number)
        # The command under way may have done its work when the listing after it is not printed yet.
        return Cut(image, states, (first, len(accounts.listings)), (done, accounts.passwords_begun), durable)

    def _durable(self) -> int:
        """How much of the large file under way its journal calls flushed."""
        place = self._server.kept("large", "image").with_suffix(".journal")
        try:
            with place.open("rb") as file:
                journal = Journal.read(file.fileno())
        except FileNotFoundError:
            return 0
        return 0 if journal is None else journal.durable

    # --- what must hold ---

    def _check(self, cut: Cut) -> Figures:
        promised: Receipts = [each for state in cut.states.values() for each in state.receipts]
        found = self._found()
        wrong = judge(self._senders.sent, promised, found)
        wrong += self._check_accounts(cut) + self._check_receipts_file(cut)
        figures = Figures(1, len(promised), len(found), 0, wrong)
        if wrong:
            return figures  # what follows builds upon it
        self._server = self._server_on_disk().start()
        figures.wrong = self._check_ledger() + self._check_password(cut)
        client = self._client.at(self._server.port)
        for name, state in cut.states.items():
            if state.command is not None:
                fresh = self._scratch / "again.receipts"
                out = run_command(client, state.command, fresh)
                promised += receipts(fresh)
                fresh.unlink(missing_ok=True)
                if name == "large":
                    figures.resumed += "resumed: " in out
                    if cut.durable and self._is_under_way(found, state) and "resumed: " not in out:
                        figures.wrong.append(f"not resumed: {cut.durable} bytes of a large file were flushed")
        found = self._found()
        figures.checked += len(found)
        figures.wrong += judge(self._senders.sent, promised, found)
        assert self._server.stop() == 0
        return figures

    @staticmethod
    def _is_under_way(found: dict[str, str], state: State) -> bool:
        """Whether the large file that was being sent is not published yet."""
        assert state.command is not None
        return found.get("large/image") != digest_of(Path(state.command.arguments[1]))

    def _found(self) -> dict[str, str]:
        """The digest of every visible file: of the user's by its path there, of fetched ones by its path here."""
        own, fetched = self._server.path(), self._disk.place / "fetched"
        found = {str(path.relative_to(own)): digest_of(path) for path in own.rglob("*") if path.is_file()}
        visible = [path for path in fetched.glob("*/*") if path.is_file() and not path.parent.name.startswith(".")]
        return found | {str(path): digest_of(path) for path in visible}

    def _check_accounts(self, cut: Cut) -> list[str]:
        first, last = cut.listings
        allowed = self._administrator.listings[first : last + 1]
        return [] if self._administrator.listing() in allowed else ["the accounts are not those of any allowed moment"]

    def _check_receipts_file(self, cut: Cut) -> list[str]:
        state = cut.states["fail"]
        there = list(receipts(self._workers["fail"].receipts_file, torn=True))
        if there[: state.settled] != state.receipts[: state.settled]:
            return [f"of {state.settled} receipts of commands that had ended, the kept file has {len(there)}"]
        return []

    def _check_ledger(self) -> list[str]:
        """What the server has counted at its start is what is there."""
        wait_until(lambda: f"counted {USER}" in self._server.told().rpartition("listening on")[2])
        before = [line for line in self._server.command("users").out.splitlines() if line.split()[0] == USER]
        counted = self._server.command("recount", USER)
        assert counted.status == 0, counted
        usage = usage_in(counted.out)
        return [] if usage and usage == usage_in(before[0]) else [f"the ledger says {before}, and there is {usage}"]

    def _check_password(self, cut: Cut) -> list[str]:
        done, begun = cut.passwords
        for number in range(done, begun + 1):
            client = Client(
                self._server.port, self._scratch / "rotating", Administrator.ROTATING, Administrator.password(number)
            )
            listed: Result = client("--list")
            if listed.status == 0:
                return []
        return [f"neither the password with number {done} nor a later one works"]
