"""How large each DATA of a file is, and what is a hole in it."""

import pytest
from tables import each_row

from sft.transfer.pieces import next_piece
from sft.wire.protocol import DATA_LEAST, DATA_SIZE

RUN = (1 << 63) - 1
L, S, P = DATA_LEAST, DATA_SIZE, 100_000


@each_row(
    ("run", "is_hole", "left", "most", "piece"),
    [
        # content
        (RUN, False, RUN, S, (S, False)),
        (RUN, False, 5, S, (5, False)),
        (RUN, False, RUN, P, (P, False)),
        (P + 1, False, RUN, P, (P, False)),
        (P - 1, False, RUN, P, (P - 1, False)),
        (L, False, RUN, S, (L, False)),
        # shorter than a DATA may be: with what comes behind it
        (1, False, RUN, S, (L, False)),
        (1, False, L + 1, S, (L, False)),
        (1, False, 7, S, (7, False)),
        (1, False, 1, S, (1, False)),
        # holes, however small the pieces are
        (S + 1, True, RUN, S, (S, True)),
        (S, True, RUN, L, (S, True)),
        (L, True, RUN, P, (L, True)),
        (RUN, True, S + 5, S, (S, True)),
        (9 * S, True, 5, S, (5, True)),
        (5, True, 5, S, (5, True)),
        # what is left of one, and too short
        (L - 1, True, RUN, S, (L, False)),
        (L - 1, True, L, S, (L, False)),
    ],
)
def test_next_piece(run: int, is_hole: bool, left: int, most: int, piece: tuple[int, bool]) -> None:
    assert next_piece(run, is_hole, left, most) == piece


@pytest.mark.parametrize("most", [L, L + 1, P, S])
def test_pieces_of_any_runs_keep_to_the_rule_of_least_size(most: int) -> None:
    kinds = [(1, False), (70_000, True), (L - 1, False), (S + 5, True), (3 * S + 1, False), (65_536, True), (3, False)]
    left = sum(count for count, _ in kinds)
    sizes, runs = [], list(kinds)
    while left:
        size, is_hole = next_piece(*runs[0], left, most)
        assert not is_hole or runs[0][1]
        sizes.append(size)
        left -= size
        while size:
            count, kind = runs.pop(0)
            if count > size:
                runs.insert(0, (count - size, kind))
            size -= min(count, size)
    assert all(L <= size <= S for size in sizes[:-1])
