"""One quota and many threads and processes: none of them passes it, and none that dies leaves it wrong."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from quota_files import ENDLESS, LARGE, PROJECT, begin, fill, ledger_file, on_disk, opened, put, refuses, written

from sft.disk import folders, visible_files
from sft.disk import ledger as ledgers
from sft.disk.amounts import Amount, Quota
from sft.disk.ledger_locks import Gate
from sft.disk.root import PARTIAL_AREA
from sft.disk.storage import Storage
from sft.disk.temporary import Settled
from sft.disk.user_folder import Rules, UserFolder

pytestmark = pytest.mark.usefixtures("exact")


def test_replacing_one_file_at_the_same_time_credits_it_once(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one is about to replace it, having seen how large it is, another one tries to be faster."""

    def replace_it() -> None:
        with opened(storage, ENDLESS) as folder:
            assert not refuses(put(folder, "a", 10, "replace"))

    other, before, calls = threading.Thread(target=replace_it), os.replace, []

    def slow(*words: Any, **more: Any) -> None:
        calls.append(words)
        if len(calls) == 1:
            other.start()
            other.join(0.3)
        before(*words, **more)

    with opened(storage, ENDLESS) as folder:
        put(folder, "a", 1 << 20)
        put(folder, "b", 1 << 20)
        monkeypatch.setattr(os, "replace", slow)
        assert not refuses(put(folder, "a", 5, "replace"))
        other.join()
    assert len(calls) == 2
    assert written(root) == on_disk(root)


WAITERS = {
    "reserve": (ledgers.LEDGER, fcntl.LOCK_EX),
    "publish": (ledgers.GATE, fcntl.LOCK_EX),
    "count": (ledgers.GATE, fcntl.LOCK_SH),
}


@pytest.mark.parametrize("what", WAITERS)
def test_changing_the_ledger_waits_for_other_processes(storage: Storage, root: Path, what: str) -> None:
    """Another process is another open file: it counts, or reserves, or publishes."""
    name, lock = WAITERS[what]
    with opened(storage, Quota(1_000_000)) as folder:
        small = fill(begin(folder, "a", 10), 10)
        work: dict[str, Callable[[], object]] = {
            "reserve": lambda: put(folder, "b", 60_000),
            "publish": lambda: folder.publish([small]),
            "count": lambda: storage.ledgers.recount("alice"),
        }
        waiting = threading.Thread(target=work[what])
        with (ledger_file(root).with_name(name)).open("r+b") as other:
            fcntl.flock(other, lock)
            waiting.start()
            waiting.join(0.2)
            assert waiting.is_alive()
        waiting.join()
        small.discard()


def test_counting_waits_for_those_who_publish_in_this_process(storage: Storage, root: Path) -> None:
    told: list[Amount] = []
    with opened(storage, ENDLESS) as folder:
        counting = threading.Thread(target=lambda: told.append(storage.ledgers.recount("alice")))
        with folder.allowance.moving():
            assert not refuses(put(folder, "a", 10))
            counting.start()
            counting.join(0.2)
            assert not told
        counting.join()
    assert told == [Amount(10, 1)]


WORKER = """
import os, random, sys, threading
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from pathlib import Path
from sft.disk.amounts import Quota
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from sft.common.errors import Code, Refused
from quota_files import begin, fill, put
root, seed, most = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
storage, told = Storage(root, Rules()), []
def work(number):
    dice = random.Random(seed * 100 + number)
    for turn in range(6):
        folder = storage.user("alice", quota=Quota(most, 60))
        for each in range(4):
            shared = dice.random() < 0.4
            name = f"{dice.randrange(2)}/{dice.randrange(3)}" if shared else f"{seed}-{number}-{turn}-{each}"
            size = dice.choice([0, 3000, 30_000, 100_000])
            if dice.random() < 0.2:
                try:
                    fill(begin(folder, name, 100_000), dice.randrange(100_000)).keep()
                except Refused as problem:
                    told.append(problem.code)
            else:
                outcome = put(folder, name, size, dice.choice(["fail", "replace", "rename"]), dice.random() < 0.7)
                told.append(getattr(outcome, "code", None))
        if dice.random() < 0.2:
            storage.ledgers.recount("alice")
        folder.close()
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
storage.close()
assert set(told) <= {None, Code.QUOTA, Code.EXISTS, Code.BUSY}, set(told)
print(told.count(None), told.count(Code.QUOTA))
"""


def test_sixteen_connections_of_two_processes_never_pass_one_quota(root: Path) -> None:
    """They send, replace, keep, resume and count at once; somebody else looks at the disk all the time."""
    most = 700_000
    Storage(root, Rules()).close()
    (root / "alice").mkdir()
    (root / PARTIAL_AREA / "alice").mkdir(mode=0o700)
    command = [sys.executable, "-c", WORKER, str(PROJECT), str(root)]
    workers = [subprocess.Popen([*command, seed, str(most)], stdout=subprocess.PIPE, text=True) for seed in "12"]
    seen = 0
    try:
        while any(worker.poll() is None for worker in workers):
            with contextlib.suppress(OSError):  # what vanishes while one looks
                visible = [each for each in (root / "alice").rglob("*") if each.is_file()]
                seen = max(seen, sum(each.stat().st_size for each in visible))
        told = [worker.communicate(timeout=60)[0].split() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert [worker.returncode for worker in workers] == [0, 0]
    taken, refused = (sum(map(int, counts)) for counts in zip(*told, strict=True))
    assert taken and refused, "some of either"
    there = on_disk(root)
    assert there.bytes <= most and there.files <= 60 and seen <= most
    said = written(root)
    assert said.bytes >= there.bytes and said.files >= there.files
    storage = Storage(root, Rules())
    assert storage.ledgers.recount("alice") == there
    storage.close()


CRASHES = """
import os, signal, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
import fcntl, shutil
from pathlib import Path
from sft.disk.amounts import Amount
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from quota_files import ENDLESS, begin, fill, on_disk, put, written
base = Path(sys.argv[2])

def deal(root):
    storage = Storage(root, Rules())
    folder = storage.user("alice", quota=ENDLESS)
    group = [fill(begin(folder, f"x/{number}", 1000), 1000) for number in range(3)]
    folder.publish(group)
    put(folder, "large", 100_000)
    put(folder, "x/1", 500, "replace")
    put(folder, "pipe", 200_000, announced=False)
    fill(begin(folder, "half", 100_000, transfer=b"t" * 16), 50_000).keep()
    fill(begin(folder, "half", 100_000, transfer=b"t" * 16), 60_000).keep()
    half = fill(begin(folder, "half", 100_000, transfer=b"t" * 16), 100_000)
    folder.publish([half])
    begin(folder, "dropped", 80_000).discard()
    storage.ledgers.recount("alice")
    folder.close()
    folder = storage.user("alice", quota=ENDLESS)  # which reserves nothing, and removes
    folder.changes.move(("x", "0"), ("y", "z", "0"), lambda: None)
    for path in (("large",), ("x",), ("y", "z")):
        folder.changes.remove(path, True, folder.changes.removal(lambda: None))
    folder.close()
    storage.close()

def dying(number):
    left = number
    def counted(call):
        def calling(*words, **more):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*words, **more)
        return calling
    for module, names in ((os, "open pwrite link replace unlink mkdir rmdir ftruncate close"), (fcntl, "flock")):
        for name in names.split():
            setattr(module, name, counted(getattr(module, name)))

number, step = 1, int(sys.argv[3])
while True:
    root = base / str(number)
    child = os.fork()
    if child == 0:
        dying(number)
        deal(root)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    storage = Storage(root, Rules())
    folder = storage.user("alice", quota=ENDLESS)
    held = folder.allowance._ledger.used()
    there = on_disk(root)
    assert held == there, (number, held, there)
    folder.close()
    assert written(root) == there, number
    assert storage.sweep() >= 0 and storage.ledgers.recount("alice") == on_disk(root), number
    assert not [name for name in os.listdir(root / ".partial") if name.startswith(".holder")], number
    storage.close()
    shutil.rmtree(root)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    number += step
print(number)
"""


def die_at_calls(place: Path, step: int) -> None:
    command = [sys.executable, "-c", CRASHES, str(PROJECT), str(place), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200, "so many calls were died before"


def test_ledger_equals_the_disk_after_a_kill_at_any_call(tmp_path: Path) -> None:
    """A process dies before a call that changes something; the next connection finds a ledger that is right."""
    die_at_calls(tmp_path, 11)


@pytest.mark.long
def test_ledger_equals_the_disk_after_a_kill_at_every_call(tmp_path: Path) -> None:
    die_at_calls(tmp_path, 1)


def test_process_that_died_with_everything_reserved_refuses_nobody(root: Path, storage: Storage) -> None:
    script = """
import os, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from pathlib import Path
from sft.disk.amounts import Quota
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from quota_files import begin
folder = Storage(Path(sys.argv[2]), Rules()).user("alice", quota=Quota(100_000))
partial = begin(folder, "a", 100_000)
print("reserved", flush=True)
sys.stdin.read()
"""
    with opened(storage, Quota(100_000)) as folder:
        command = [sys.executable, "-c", script, str(PROJECT), str(root)]
        other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None and other.stdout.readline() == "reserved\n"
        assert refuses(put(folder, "b", 1))
        other.kill()
        other.communicate()
        assert not refuses(put(folder, "b", 100_000)), "on the same connection, without a restart"


def test_threads_that_publish_without_a_pause_let_another_process_count(tmp_path: Path) -> None:
    file = tmp_path / "gate"
    with contextlib.ExitStack() as opened:
        ours, theirs = (os.open(file, os.O_RDWR | os.O_CREAT, 0o600) for _ in range(2))
        for descriptor in (ours, theirs):
            opened.callback(os.close, descriptor)
        now, waits, came_in = [0.0], threading.Event(), threading.Event()
        gate = Gate(ours, lambda: now[0])
        wait = gate._changed.wait

        def tell_and_wait(timeout: float | None = None) -> bool:
            waits.set()
            return wait(timeout)

        gate._changed.wait = tell_and_wait  # type: ignore[method-assign]

        def join() -> None:
            with gate.moving():
                came_in.set()

        late = threading.Thread(target=join)
        with gate.moving():
            now[0] = 60
            late.start()
            assert waits.wait(30) and not came_in.is_set()
            with gate.moving():  # a thread that is inside does not wait for itself
                pass
        late.join(30)
        assert came_in.is_set()
        fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_folder_that_two_connections_make_at_the_same_time_is_counted_once(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, real = threading.Barrier(2), folders.open_folder

    def meet(parent: int, name: str, create: int | None = None) -> int:
        if create is not None and name == "new":
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(0.2)  # in vain, when only one is there at a time
        return real(parent, name, create)

    with opened(storage, ENDLESS) as one, opened(storage, ENDLESS) as other:
        partials = [fill(begin(folder, f"new/{at}", 10), 10) for at, folder in enumerate((one, other))]
        monkeypatch.setattr(visible_files, "open_folder", meet)
        threads = [
            threading.Thread(target=folder.publish, args=([partial],))
            for folder, partial in zip((one, other), partials, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert written(root) == on_disk(root) == Amount(20, 3)


def test_connection_that_takes_over_while_the_other_one_closes_is_not_counted_twice(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer, taken = os.urandom(16), []
    with opened(storage, ENDLESS) as old, opened(storage, ENDLESS) as new:
        partial = fill(begin(old, "a", 100_000, transfer=transfer), LARGE)
        taker = threading.Thread(target=lambda: taken.append(begin(new, "a", 100_000, transfer=transfer)))
        fstat, measured = os.fstat, partial.descriptor

        def take_over_when_measured(descriptor: int) -> os.stat_result:
            found = fstat(descriptor)
            if descriptor == measured and threading.current_thread() is not taker and not taker.ident:
                taker.start()
                taker.join(0.2)  # in vain, when it has to wait
            return found

        monkeypatch.setattr(os, "fstat", take_over_when_measured)
        monkeypatch.setattr(partial, "_make_durable", lambda: None)
        partial.keep()
        taker.join()
        monkeypatch.undo()
        assert isinstance(new.publish([fill(taken[0], 100_000)])[0], Settled)
    assert written(root) == on_disk(root) == Amount(100_000, 1)


def test_credit_that_is_written_before_its_file_is_counted_is_not_lost(storage: Storage, root: Path) -> None:
    with opened(storage, ENDLESS) as folder:
        ledger = storage.ledgers.enter("alice")
        ledger.reserve(Amount(100, 1), ENDLESS)
        with ledger.moving():
            ledger.credit(Amount(100, 1))
        with ledger.moving():
            ledger.count(Amount(100, 1))
        storage.ledgers.leave("alice")
        put(folder, "a", 10)
    assert written(root) == on_disk(root) == Amount(10, 1)


def test_threads_that_meet_a_dead_root_at_once_all_get_their_folder(tmp_path: Path) -> None:
    root = tmp_path / "received"
    storage = Storage(root, Rules())
    for _ in range(5):
        storage.user("alice", quota=ENDLESS).close()
        shutil.rmtree(root)
        root.mkdir()
        ready = threading.Barrier(8)
        opened: list[UserFolder] = []

        def enter(ready: threading.Barrier = ready, opened: list[UserFolder] = opened) -> None:
            ready.wait()
            opened.append(storage.user("alice", quota=ENDLESS))

        threads = [threading.Thread(target=enter) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(opened) == 8
        for folder in opened:
            folder.close()
    storage.close()
