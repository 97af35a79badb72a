"""What measures the benchmarks: it counts everything that a command started, and leaves nothing of it behind."""

import os
import sys
from pathlib import Path

import pytest
from processes import LIMIT, wait_until

from bench.jobs import Failed, Job

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it this way")

BURN = "import time\nwhile time.process_time() < 0.2: pass"


def is_gone(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


def test_cpu_of_an_orphan_is_counted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "done")
    orphan = f"({sys.executable} -S -c '{BURN}'; echo > {tmp_path}/done)"
    job = Job(tmp_path, ["sh", "-c", f"{orphan} & read line < {tmp_path}/done; exit 3"])
    measured = job.finish(LIMIT)
    assert measured.runs[0].status == 3
    assert measured.cpu >= 0.2


def test_nothing_is_left_when_a_job_is_closed(tmp_path: Path) -> None:
    job = Job(tmp_path, ["sh", "-c", "setsid sleep 1000 & echo on: $!; wait"])
    process = job.wait_for_port()
    assert not is_gone(process)
    job.close()
    assert is_gone(process)


def test_memory_is_the_one_of_the_command_and_not_of_its_maker(tmp_path: Path) -> None:
    large = bytearray(os.urandom(1 << 20)) * 100
    job = Job(tmp_path, [sys.executable, "-S", "-c", BURN])
    measured = job.finish(LIMIT)
    assert 0 < measured.peak < len(large) // 4


def test_command_that_takes_too_long_is_a_failure_and_ends(tmp_path: Path) -> None:
    job = Job(tmp_path, ["sh", "-c", "echo on: $$; exec sleep 1000"])
    process = job.wait_for_port()
    with pytest.raises(Failed, match="not done"):
        job.finish(0.01)
    wait_until(lambda: is_gone(process))
