"""The queue in front of the administrator's program, with real programs: order, numbers, and what is dropped."""

import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from logged_lines import lines_of
from processes import wait_until

from config import ServerSettings, load
from sft.common.errors import NoThread, UsageError
from sft.server.hook_process import run_program
from sft.server.hooks import HOOK_OUTCOMES, Delivered, HookOutcome, Hooks, command_of

SETTINGS = load(ServerSettings, {}, {"SFT_CONFIG": "/dev/null"}, None).values
LOG = logging.getLogger("test_hooks")
LOG.propagate = False
LOG.setLevel(logging.INFO)

Begin = Callable[..., Hooks]


@pytest.fixture
def logged() -> Iterator[list[str]]:
    with lines_of(LOG) as lines:
        yield lines


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Makes hooks that run `sh -c TEXT`, which are stopped in the end."""
    made: list[Hooks] = []

    def begin(text: str, at_once: int = 1, seconds: int = 60) -> Hooks:
        (tmp_path / "text").write_text(f"cd '{tmp_path}'\n{text}\n")
        hooks = Hooks(LOG)
        made.append(hooks)
        command = f"sh '{tmp_path / 'text'}'"
        settings = {"on_delivered_at_once": at_once, "on_delivered_seconds": seconds}
        hooks.take(replace(SETTINGS, on_delivered=command, **settings))  # type: ignore[arg-type]
        return hooks

    yield begin
    for each in made:
        each.stop()


def group(name: str, lines: bytes = b"", user: str = "alice") -> Delivered:
    return Delivered(user, name, 1, lines or f"{name}\n".encode())


def ended(hooks: Hooks, **counts: int) -> bool:
    expected: dict[HookOutcome, int] = {outcome: counts.get(outcome, 0) for outcome in HOOK_OUTCOMES}
    return hooks.counts().ended == expected


def test_one_at_a_time_runs_in_the_order_of_the_deliveries(begin: Begin, tmp_path: Path) -> None:
    hooks = begin("cat >>all")
    for number in range(20):
        hooks.deliver(group(str(number)))
    wait_until(lambda: ended(hooks, succeeded=20))
    assert (tmp_path / "all").read_text().split() == [str(number) for number in range(20)]
    wait_until(lambda: not hooks.is_busy)


def test_so_many_run_at_once_and_no_more(begin: Begin, tmp_path: Path) -> None:
    hooks = begin("touch began.$$; until [ -e go ]; do sleep 0.01; done", at_once=3)
    for number in range(5):
        hooks.deliver(group(str(number)))
    wait_until(lambda: len(list(tmp_path.glob("began.*"))) == 3)
    assert (hooks.counts().running, hooks.counts().waiting) == (3, 2)
    (tmp_path / "go").touch()
    wait_until(lambda: ended(hooks, succeeded=5))


@pytest.mark.parametrize("limit", ["_MOST_WAITING", "_MOST_BYTES"])
def test_full_queue_drops_what_comes_says_so_and_keeps_what_waits(
    begin: Begin, tmp_path: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(f"sft.server.hooks.{limit}", 2 if limit == "_MOST_WAITING" else 20)
    hooks = begin("touch began; until [ -e go ]; do sleep 0.01; done; cat >>all")
    hooks.deliver(group("first", b"first\n"))
    wait_until((tmp_path / "began").exists)
    for name in ("second", "third", "fourth"):
        hooks.deliver(group(name, name.encode().ljust(9) + b"\n"))
    assert ended(hooks, dropped=1) and hooks.counts().waiting == 2
    assert logged == ["on_delivered is not run for 1 file of alice, such as fourth: 2 groups wait already"]
    (tmp_path / "go").touch()
    wait_until(lambda: ended(hooks, dropped=1, succeeded=3))
    assert (tmp_path / "all").read_text().split() == ["first", "second", "third"]


@pytest.mark.parametrize("limit", ["_MOST_WAITING", "_MOST_BYTES"])
def test_user_who_delivers_without_end_neither_drops_nor_delays_the_groups_of_others(
    begin: Begin, tmp_path: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(f"sft.server.hooks.{limit}", 4 if limit == "_MOST_WAITING" else 12)
    hooks = begin("touch began; until [ -e go ]; do sleep 0.01; done; cat >>all")
    hooks.deliver(group("m0", user="mallory"))
    wait_until((tmp_path / "began").exists)
    for number in range(1, 7):
        hooks.deliver(group(f"m{number}", user="mallory"))
    hooks.deliver(group("a1"))
    hooks.deliver(group("a2"))
    assert [re.findall(r"of (\w+), such as (\w+):", line)[0] for line in logged] == [
        ("mallory", name) for name in ("m5", "m6", "m4", "m3")
    ]
    (tmp_path / "go").touch()
    wait_until(lambda: ended(hooks, dropped=4, succeeded=5))
    assert (tmp_path / "all").read_text().split() == ["m0", "m1", "a1", "m2", "a2"]


def test_group_after_the_stop_is_not_run_and_named(begin: Begin, logged: list[str]) -> None:
    hooks = begin("exit 0")
    hooks.stop()
    hooks.deliver(group("late"))
    assert ended(hooks, stopped=1)
    assert logged == ["on_delivered is not run for 1 file of alice, such as late: the server stops"]


def test_what_waits_when_the_setting_goes_is_not_run_and_named(begin: Begin, tmp_path: Path, logged: list[str]) -> None:
    hooks = begin("touch began; until [ -e go ]; do sleep 0.01; done")
    for name in ("a", "b"):
        hooks.deliver(group(name))
    wait_until((tmp_path / "began").exists)
    hooks.take(SETTINGS)
    assert not hooks.is_on
    (tmp_path / "go").touch()
    wait_until(lambda: ended(hooks, succeeded=1, dropped=1))
    assert logged == ["on_delivered is not run for 1 file of alice, such as b: the setting was changed"]


def test_system_without_a_thread_lets_the_group_wait(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = begin("exit 0")
    with monkeypatch.context() as patched:

        def refuse(name: str, work: object) -> None:
            raise NoThread

        patched.setattr("sft.server.hooks.BackgroundTask", refuse)
        hooks.deliver(group("a"))
        assert hooks.counts().waiting == 1
    hooks.deliver(group("b"))
    wait_until(lambda: ended(hooks, succeeded=2))


def test_lines_about_programs_have_a_limit(begin: Begin, logged: list[str]) -> None:
    hooks = begin("yes | head -n 15; exit 1")
    for number in range(16):
        hooks.deliver(group(str(number)))
    wait_until(lambda: ended(hooks, failed=16))
    hooks.stop()
    assert len(logged) < 210 and logged[-1].endswith(" more lines of this kind left out")


@pytest.mark.parametrize(
    ("command", "outcome", "reason"),
    [
        (["sh", "-c", "exit 0"], "succeeded", ""),
        (["sh", "-c", "exit 7"], "failed", "exit status 7"),
        (["sh", "-c", "kill -9 $$"], "failed", "killed by signal 9"),
        (["sh", "-c", "exec sleep 1000"], "timed_out", "killed after 0 s"),
        (["/nowhere"], "failed", "can't be started (No such file or directory)"),
        (["sh", "\0"], "failed", "can't be started (ValueError('embedded null byte'))"),
    ],
)
def test_run_ends_as_its_program_does_and_leaves_nothing_open(command: list[str], outcome: str, reason: str) -> None:
    before = os.listdir("/dev/fd")
    ran = run_program(command, b"x" * 1_000_000, 0.2 if outcome == "timed_out" else 60, threading.Event())
    assert (ran.outcome, ran.reason) == (outcome, reason)
    assert os.listdir("/dev/fd") == before


def test_what_has_left_the_group_holds_nobody_up(tmp_path: Path) -> None:
    """It has the program's output still open, and goes on: all that is ours is closed."""
    before = os.listdir("/dev/fd")
    leaving = f"setsid sh -c 'echo $$; touch {tmp_path}/gone; exec sleep 1000' &"
    text = f"{leaving} until [ -e {tmp_path}/gone ]; do sleep 0.01; done"
    ran = run_program(["sh", "-c", text], b"", 600, threading.Event())
    assert ran.outcome == "succeeded" and os.listdir("/dev/fd") == before
    os.kill(int(ran.lines[0]), signal.SIGKILL)


def test_everything_reaches_a_slow_reader(tmp_path: Path) -> None:
    text = os.urandom(3_000_000)
    ran = run_program(["sh", "-c", f"sleep 0.05; cat >'{tmp_path / 'all'}'"], text, 60, threading.Event())
    assert ran.outcome == "succeeded" and (tmp_path / "all").read_bytes() == text


def test_what_outlives_the_end_of_the_run_still_reads_all_of_the_text(tmp_path: Path) -> None:
    """As a program does whose server is killed: half of the text must not look like the whole."""
    text = os.urandom(3_000_000)
    waiting = (
        f"until [ -e {tmp_path}/go ]; do sleep 0.01; done; cat >{tmp_path}/copy; mv {tmp_path}/copy {tmp_path}/all"
    )
    leaving = f'exec 3<&0; setsid sh -c "touch {tmp_path}/gone; {waiting}" <&3 &'
    ran = run_program(
        ["sh", "-c", f"{leaving} until [ -e {tmp_path}/gone ]; do sleep 0.01; done"], text, 600, threading.Event()
    )
    assert ran.outcome == "succeeded"
    (tmp_path / "go").touch()
    wait_until((tmp_path / "all").exists)
    assert (tmp_path / "all").read_bytes() == text


def test_output_that_is_no_text_is_lines_of_bounded_length() -> None:
    ran = run_program(
        ["sh", "-c", r"printf '\377\033[2J\n'; yes | tr -d '\n' | head -c 9000"], b"", 60, threading.Event()
    )
    first, second = ran.lines
    assert first == r"\xff\x1b[2J" and len(second) == 500


@pytest.mark.parametrize("text", ["sh -c 'exit 0'", "/bin/sh"])
def test_program_is_found_once_by_its_whole_path(text: str) -> None:
    assert os.path.isabs(command_of(text)[0])


@pytest.mark.parametrize("text", ["nowhere-to-be-found", "/dev/null", "bin/sh", "/"])
def test_program_that_can_not_be_run_is_a_usage_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    with pytest.raises(UsageError):
        command_of(text)
