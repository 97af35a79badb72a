"""Work in a background thread: its result or error reaches the caller that waits, and no other."""

import threading

import pytest
from tables import each_row

from sft.common.background import BackgroundTask
from sft.common.errors import NoThread, SourceError


def test_work_is_done_beside_the_caller() -> None:
    may_end, threads = threading.Event(), []

    def work() -> None:
        assert may_end.wait(10)
        threads.append(threading.current_thread().name)

    task = BackgroundTask("work", work)
    may_end.set()
    task.wait()
    task.wait()
    assert threads == ["work"]


@each_row("problem", [SourceError("no"), KeyError("a bug"), SystemExit(3)], ids=repr)
def test_what_it_raises_is_raised_where_it_is_waited_for(problem: BaseException) -> None:
    def work() -> None:
        raise problem

    task = BackgroundTask("work", work)
    for _ in range(2):
        with pytest.raises(type(problem)) as caught:
            task.wait()
        assert caught.value is problem


def test_system_without_more_threads_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(NoThread):
        BackgroundTask("work", lambda: None)


def test_another_error_at_the_start_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("threads can only be started once")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="once"):
        BackgroundTask("work", lambda: None)
