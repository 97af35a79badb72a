"""When the next piece of a file is compressed."""

import itertools

from tables import each_row

from sft.transfer.shrinking import Compress, Shrinking, is_worth_trying

MIB = 1 << 20
MODEM, LAN, LOOPBACK = 4e-7, 8.5e-9, 3e-9  # seconds for a byte: 20 Mbit/s, 1 Gbit/s, this machine
EFFORT = 4e-9


@each_row(
    ("waiting", "line", "saved", "since_last"),
    [*itertools.product([0, 1, 2, 6], [0.0, LOOPBACK, MODEM], [0.0, 0.5, 1.0], [0, 31, 32])],
)
@each_row(("compress", "tries"), [("on", True), ("off", False)])
def test_on_and_off_look_at_nothing(
    compress: Compress, tries: bool, waiting: int, line: float, saved: float, since_last: int
) -> None:
    assert is_worth_trying(compress, waiting, line, EFFORT, saved, since_last) is tries


@each_row(
    ("waiting", "line", "effort", "saved", "since_last", "tries"),
    [
        # a slow line that is waited for
        (2, MODEM, EFFORT, 0.8, 0, True),
        (6, MODEM, EFFORT, 0.1, 0, True),
        # it has nothing to do
        (1, MODEM, EFFORT, 0.8, 0, False),
        (0, MODEM, EFFORT, 0.8, 99, False),
        # the file does not shrink: now and then
        (6, MODEM, EFFORT, 0.09, 0, False),
        (6, MODEM, EFFORT, 0.0, 31, False),
        (6, MODEM, EFFORT, 0.0, 32, True),
        (1, MODEM, EFFORT, 0.0, 32, False),
        # a line as fast as the work, or faster
        (6, LOOPBACK, EFFORT, 0.8, 0, False),
        (6, 0.0, EFFORT, 1.0, 0, False),
        (6, LAN, EFFORT, 0.8, 0, True),
        (6, LAN, 2 * EFFORT, 0.8, 0, False),
        (6, LAN, EFFORT, 0.5, 0, False),
    ],
)
def test_auto_compresses_what_shrinks_while_the_line_is_waited_for(
    waiting: int, line: float, effort: float, saved: float, since_last: int, tries: bool
) -> None:
    assert is_worth_trying("auto", waiting, line, effort, saved, since_last) is tries


def test_noise_is_tried_once_and_then_every_33rd_piece() -> None:
    shrinking = Shrinking("auto")
    tried = []
    for number in range(100):
        if shrinking.tries(6, MODEM):
            tried.append(number)
            shrinking.done(MIB, MIB + 9, MIB * EFFORT)
    assert tried == [0, 33, 66, 99]


def test_file_that_gets_better_is_compressed_from_its_next_try_on() -> None:
    shrinking = Shrinking("auto")
    assert shrinking.tries(6, MODEM)
    shrinking.done(MIB, MIB, MIB * EFFORT)
    for _ in range(32):
        assert not shrinking.tries(6, MODEM)
    assert shrinking.tries(6, MODEM)
    shrinking.done(MIB, MIB // 4, MIB * EFFORT)
    assert all(shrinking.tries(6, MODEM) for _ in range(10))


def test_next_file_is_judged_anew() -> None:
    shrinking = Shrinking("auto")
    shrinking.done(MIB, MIB, MIB * EFFORT)
    assert not shrinking.tries(6, MODEM)
    shrinking.begin_file()
    assert shrinking.tries(6, MODEM)


def test_work_that_turns_out_to_be_slow_is_no_longer_done_for_a_fast_line() -> None:
    shrinking = Shrinking("auto")
    assert shrinking.tries(6, LAN)
    for _ in range(4):
        shrinking.done(MIB, MIB // 5, MIB * 10 * EFFORT)
    assert not shrinking.tries(6, LAN)
    assert shrinking.tries(6, MODEM)
