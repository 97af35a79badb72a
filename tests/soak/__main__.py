"""`python -m tests.soak [--minutes N] [--people N] [--seed TEXT]`: exit 1 when a promise was broken."""

import argparse
import contextlib
import os
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from claims import workplace
from processes import PASSWORD, Client, Running, Server, check_no_traceback, content, wait_until

from soak.people import DROP_ONLY, SACRIFICE, USERS, Person, World

_NEEDED = 4 << 30
_MORE_MEMORY = 64 << 20  # record buffers that are kept to be used again, and what the allocator does not give back
_MORE_THREADS = 2  # workers for the cipher, which are started when they are needed
_IDLE_SECONDS = 60.0
_LOOK_EVERY = 0.5


@dataclass
class Load:
    """What a process takes: memory in bytes, open descriptors, threads."""

    memory: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, process: int) -> "Load":
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        told = {name: value for name, _, value in (line.partition(":") for line in lines)}
        return cls(int(told["VmRSS"].split()[0]) << 10, len(os.listdir(f"/proc/{process}/fd")), int(told["Threads"]))

    def highest(self, other: "Load") -> "Load":
        return Load(*map(max, zip(vars(self).values(), vars(other).values(), strict=True)))

    def __str__(self) -> str:
        return f"{self.memory / (1 << 20):7.1f} MiB  {self.descriptors:4d} descriptors  {self.threads:4d} threads"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.soak", description="Many clients against one server.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--seed", default="")
    options = parser.parse_args()
    seed = options.seed or secrets.token_hex(4)
    print(f"seed {seed}: {options.people} people for {options.minutes:g} minutes", flush=True)
    with workplace("soak", _NEEDED) as folder:
        server = Server(folder / "server")
        try:
            return _soak(server, folder, seed, options.people, options.minutes * 60)
        finally:
            Running.kill_all()
            server.close()


def _soak(server: Server, folder: Path, seed: str, people: int, seconds: float) -> int:
    for name in USERS:
        server.add(name)
    server.add(DROP_ONLY, "--drop-only")
    server.add(SACRIFICE, password=PASSWORD + " of nobody")
    server.start("--max-logins=512", "--max-logins-per-source=512")
    assert server.process is not None
    process = server.process.pid
    _warm_up(server, folder)
    before = peak = Load.of(process)
    world = World(folder, server, seed, server.port)
    crowd = [Person(number, world) for number in range(people)]
    began = time.monotonic()
    for person in crowd:
        person.start()
    while time.monotonic() < began + seconds and any(person.is_alive() for person in crowd):
        world.over.wait(_LOOK_EVERY)
        peak = peak.highest(Load.of(process))
    world.over.set()
    for person in crowd:
        while person.is_alive():
            person.join(_LOOK_EVERY)
            peak = peak.highest(Load.of(process))
    took = time.monotonic() - began
    _check_all(crowd, world)
    after = _when_idle(process, before)
    _check_logs(server, folder, world)
    _report(world, took, before, peak, after)
    if after.memory > before.memory + _MORE_MEMORY:
        world.broken.append("the server keeps memory")
    if after.descriptors > before.descriptors or after.threads > before.threads + _MORE_THREADS:
        world.broken.append("the server keeps descriptors or threads")
    if server.partials():
        world.broken.append(f"{len(server.partials())} partial files are left, though everything was sent to its end")
    if server.stop() != 0:
        world.broken.append("the server did not stop as it should")
    for line in world.broken:
        print(f"BROKEN: {line}")
    print("every promise was kept" if not world.broken else f"{len(world.broken)} promises were broken")
    return 1 if world.broken else 0


def _warm_up(server: Server, folder: Path) -> None:
    """Let the server do everything once, so that what it loads and starts only then is not taken for a leak."""
    source, target = folder / "warm", folder / "fetched"
    source.write_bytes(content(40 << 20))
    client = Client(server.port, folder / "warming", USERS[0])
    for arguments in ([source, "warm"], ["--get", "warm", target], ["--list"]):
        assert client(*arguments).status == 0
    for path in (source, target, server.path("warm", user=USERS[0])):
        path.unlink()
    wait_until(lambda: server.told().count("done,") == 3)


def _when_idle(process: int, before: Load) -> Load:
    """Its load when nobody is connected any more: as soon as it is what it was, or after a minute."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: Load.of(process).descriptors <= before.descriptors, _IDLE_SECONDS)
    return Load.of(process)


def _check_all(crowd: list[Person], world: World) -> None:
    for person in crowd:
        for path in person.there:
            try:
                person.check(path)
            except AssertionError as problem:
                world.broken.append(f"{person.name}: {problem}")


def _check_logs(server: Server, folder: Path, world: World) -> None:
    for log in (*server.folder.glob("server.log*"), *folder.rglob("client.log*")):
        text = log.read_text()
        try:
            check_no_traceback(text)
            assert "a bug" not in text, "a bug"
        except AssertionError:
            world.broken.append(f"{log.name} tells of a bug")


def _report(world: World, seconds: float, before: Load, peak: Load, after: Load) -> None:
    counts = world.counts
    rate = counts["bytes"] / seconds / 1e6
    print(f"""
{seconds:.0f} s; clients run: {counts["runs"]:,}
sent          {counts["files sent"]:,} files   fetched {counts["files fetched"]:,}   listings {counts["listings"]:,}
content       {counts["bytes"] / 1e9:.2f} GB, {rate:.1f} MB/s
killed        {counts["kills"]:,}   resumed {counts["resumed"]:,} files
refused       {counts["refusals"]:,}   logins tried again {counts["logins tried again"]:,}
receipts      {counts["receipts checked"]:,} checked against the disk
server        before {before}
              peak   {peak}
              after  {after}
""")


if __name__ == "__main__":
    sys.exit(main())
