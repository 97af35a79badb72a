"""The life of a channel: the whole matrix of states and endings, and what a real channel still does in each state."""

import threading

import pytest
from peers import Against
from tables import each_row

from sft.common.errors import Code, ConnectionTrouble, PeerStopped, TransferError
from sft.wire.life import NEXT, Ending, Lifecycle, State
from sft.wire.messages import BYE_MESSAGE, Cancel, Message

pytestmark = pytest.mark.usefixtures("watched")

# For each state what STOP, CUT, FAIL and CLOSE make of it, by hand.
MATRIX = """
    OPEN     STOPPED  CUT      BROKEN   CLOSING
    STOPPED  STOPPED  CUT      BROKEN   CLOSING
    CUT      CUT      CUT      CLOSED   CLOSING
    BROKEN   BROKEN   CLOSED   BROKEN   CLOSED
    CLOSING  CLOSING  CLOSING  CLOSED   CLOSING
    CLOSED   CLOSED   CLOSED   CLOSED   CLOSED
"""
ROWS = [line.split() for line in MATRIX.strip().splitlines()]
# How a real channel gets there.
WAYS: dict[State, list[Ending]] = {
    State.OPEN: [],
    State.STOPPED: [Ending.STOP],
    State.CUT: [Ending.CUT],
    State.BROKEN: [Ending.FAIL],
    State.CLOSING: [Ending.CLOSE],
    State.CLOSED: [Ending.CUT, Ending.FAIL],
}


def test_every_state_goes_on_as_the_matrix_shows() -> None:
    assert [[state.name, *(then.name for then in NEXT[state].values())] for state in State] == ROWS
    assert all(list(row) == list(Ending) for row in NEXT.values())


@each_row("state", State)
def test_what_has_ended_never_begins_again(state: State) -> None:
    for then in NEXT[state].values():
        assert then is state or then.number > state.number
        assert then.delivers <= state.delivers
        assert then.sends <= state.sends


@each_row("ending", Ending)
def test_every_ending_wakes_each_thread_that_waits(ending: Ending) -> None:
    life, woken = Lifecycle(), list[str]()
    conditions = [life.condition() for _ in range(3)]

    class Buffers:
        def end(self) -> None:
            woken.append("buffers")

    def wait(condition: threading.Condition) -> None:
        with life.lock:
            waiting.release()
            condition.wait()
        woken.append("thread")

    life.ends(Buffers())
    waiting = threading.Semaphore(0)
    threads = [threading.Thread(target=wait, args=(condition,)) for condition in conditions]
    for thread in threads:
        thread.start()
        waiting.acquire()
    life.end(ending, ConnectionTrouble("over"))
    for thread in threads:
        thread.join(10)
    assert sorted(woken) == ["buffers", "thread", "thread", "thread"]


@each_row("ending", Ending)
def test_first_error_is_the_one_that_stays(ending: Ending) -> None:
    life, first = Lifecycle(), PeerStopped(Code.FULL)
    life.check()
    life.end(ending, first)
    life.end(ending, ConnectionTrouble("second"))
    assert life.has_ended
    with pytest.raises(PeerStopped) as caught:
        life.check()
    assert caught.value.__cause__ is first


# --- a real channel in each state ---


def end(against: Against, ending: Ending) -> None:
    if ending is Ending.CLOSE:  # by itself, `close` goes on to its end
        against.channel._life.end(ending, ConnectionTrouble("over"))
    else:
        {Ending.STOP: against.channel.stop, Ending.CUT: against.channel.cut, Ending.FAIL: against.channel.fail}[ending](
            ConnectionTrouble("over")
        )


def in_state(against: Against, state: State) -> Against:
    """One record has arrived by then, and no other will."""
    against.raw.say(Cancel(1).encode())
    with against.channel._life.lock:
        assert against.channel._inbox._to_take.wait_for(lambda: against.channel._inbox._queue, 30)
    for ending in WAYS[state]:
        end(against, ending)
    assert against.channel._life.state is state
    return against


@pytest.mark.parametrize("state", State)
def test_what_has_arrived_is_delivered_in_exactly_the_states_that_deliver(against: Against, state: State) -> None:
    channel = in_state(against, state).channel
    got: list[Message] = []
    try:
        for arrived in channel.messages():
            if arrived is None:
                break
            got.append(arrived[0])
    except TransferError as problem:
        assert state is not State.OPEN
        assert str(problem) == "over"
    assert got == ([Cancel(1)] if state.delivers else [])


@pytest.mark.parametrize("state", State)
def test_what_is_posted_leaves_in_exactly_the_states_that_send(against: Against, state: State) -> None:
    in_state(against, state)
    against.channel.post(Cancel(7).encode())
    if state in (State.BROKEN, State.CLOSED):
        assert against.raw.hear() is None
    elif state is not State.CLOSING:
        assert against.raw.hear() == Cancel(7)


@pytest.mark.parametrize("state", State)
def test_close_says_its_last_word_in_exactly_the_states_that_send(against: Against, state: State) -> None:
    channel = in_state(against, state).channel
    closing = threading.Thread(target=channel.close, args=(Code.FULL,))
    closing.start()
    heard = against.raw.hear_all()
    against.raw.close()
    closing.join(10)
    assert channel._life.state is State.CLOSED
    assert [type(each).__name__ for each in heard] == (["Error"] if state.sends and state is not State.CLOSING else [])


@pytest.mark.parametrize("state", State)
def test_producer_gets_the_error_in_every_state_but_open(against: Against, state: State) -> None:
    channel = in_state(against, state).channel
    if state is State.OPEN:
        channel.send(BYE_MESSAGE)
        return
    with pytest.raises(ConnectionTrouble, match="over"):
        channel.send(BYE_MESSAGE)
