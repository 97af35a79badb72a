"""The states of an announced id: each step of the tables, and the tables of the document against them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import product
from pathlib import Path

import pytest
from tables import each_row
from test_docs import rows_of

from sft.common.errors import ProtocolViolation
from sft.transfer.states import (
    RECEIVER_GETS,
    RECEIVER_SENDS,
    SENDER_GETS,
    SENDER_SENDS,
    Receiving,
    Sending,
    Table,
    after_getting,
    after_sending,
)
from sft.wire.messages import Kind

PROTOCOL = (Path(__file__).resolve().parent.parent / "docs" / "PROTOCOL.md").read_text("utf-8")
ENDS: dict[str, tuple[type[IntEnum], Table, Table]] = {  # type: ignore[type-arg]
    "sender": (Sending, SENDER_GETS, SENDER_SENDS),
    "receiver": (Receiving, RECEIVER_GETS, RECEIVER_SENDS),
}
MOST_ON_THEIR_WAY = 4  # of one id, in one direction
ANSWERS = {Kind.ACCEPT, Kind.CHECK, Kind.REFUSE, Kind.RECEIPT}
CONTENT = {Kind.DATA, Kind.END, Kind.CANCEL, Kind.CHECK}


def table_of(end: str) -> dict[tuple[str, str, Kind], str]:
    """(state, "gets" or "sends", message) -> the state that follows, of the table in the document."""
    text = PROTOCOL[PROTOCOL.index(f"**The {end}'s states.**") :]
    table = text[text.index("\n| ") : text.index("\n\n", text.index("\n| "))]
    heads = [cell.strip() for cell in table.strip().splitlines()[0].strip("|").split("|")]
    found = {}
    for row in rows_of(table):
        for head, cell in zip(heads[2:], row[2:], strict=True):
            way, kind = head.split()
            if cell != "—":
                found[row[0].strip("*"), way, Kind[kind]] = cell.strip("*")
    return found


@pytest.mark.parametrize("end", ENDS)
def test_table_of_the_document_is_the_one_in_use(end: str) -> None:
    _, gets, sends = ENDS[end]
    ours = {
        (state.name.lower(), way, kind): after.name.lower()
        for way, table in (("gets", gets), ("sends", sends))
        for state, row in table.items()
        for kind, after in row.items()
    }
    assert table_of(end) == ours


@pytest.mark.parametrize("end", ENDS)
def test_table_has_every_state_and_only_messages_of_that_direction(end: str) -> None:
    states, gets, sends = ENDS[end]
    assert set(gets) == set(sends) == set(states)
    given, taken = (CONTENT, ANSWERS) if end == "sender" else (ANSWERS, CONTENT)
    assert {kind for row in gets.values() for kind in row} == taken
    assert {kind for row in sends.values() for kind in row} == given


@each_row(("end", "kind"), list(product(ENDS, Kind)))
def test_message_moves_an_id_as_the_table_says_or_is_refused(end: str, kind: Kind) -> None:
    states, gets, sends = ENDS[end]
    for state in states:
        if kind in gets[state]:
            assert after_getting(gets, state, kind) is gets[state][kind]
        else:
            with pytest.raises(ProtocolViolation, match=f"{kind.name} about a file that is {state.name.lower()}"):
                after_getting(gets, state, kind)
        if kind in sends[state]:
            assert after_sending(sends, state, kind) is sends[state][kind]
        else:
            with pytest.raises(RuntimeError, match=kind.name):
                after_sending(sends, state, kind)


@pytest.mark.parametrize("end", ENDS)
def test_every_state_is_reached_and_leads_to_the_end(end: str) -> None:
    states, gets, sends = ENDS[end]
    steps = {state: {*gets[state].values(), *sends[state].values()} for state in states}
    first = next(iter(states))
    assert reached(steps, first) == set(states)
    last = states["CLOSED"]
    assert all(last in reached(steps, state) for state in states)
    assert steps[last] <= {last}


def reached(steps: "dict[IntEnum, set[IntEnum]]", first: IntEnum) -> set[IntEnum]:
    seen, todo = set(), {first}
    while todo:
        state = todo.pop()
        seen.add(state)
        todo |= steps[state] - seen
    return seen


@dataclass(frozen=True)
class Both:
    """An id at both ends, and what is on its way between them. `receiver` is None until the PUT arrives."""

    sender: Sending
    receiver: Receiving | None
    content: tuple[Kind, ...]
    answers: tuple[Kind, ...]


def next_of(both: Both, first: Receiving) -> Iterator[Both]:
    """All that may happen next. Raises ProtocolViolation when a message arrives that may not."""
    if both.content:
        kind, rest = both.content[0], both.content[1:]
        if both.receiver is None:
            yield replace(both, receiver=first, content=rest)
        else:
            yield replace(both, receiver=after_getting(RECEIVER_GETS, both.receiver, kind), content=rest)
    if both.answers:
        kind, rest = both.answers[0], both.answers[1:]
        yield replace(both, sender=after_getting(SENDER_GETS, both.sender, kind), answers=rest)
    if len(both.content) < MOST_ON_THEIR_WAY:
        for kind, sending in SENDER_SENDS[both.sender].items():
            yield replace(both, sender=sending, content=(*both.content, kind))
    if both.receiver is not None and len(both.answers) < MOST_ON_THEIR_WAY:
        for kind, receiving in RECEIVER_SENDS[both.receiver].items():
            yield replace(both, receiver=receiving, answers=(*both.answers, kind))


@pytest.mark.parametrize(
    ("sending", "receiving"),
    [(Sending.ANNOUNCED, Receiving.ANNOUNCED), (Sending.SENDING, Receiving.TAKING)],
    ids=["large", "small"],
)
def test_no_order_of_crossing_messages_is_a_violation(sending: Sending, receiving: Receiving) -> None:
    """Everything that two ends which keep to the tables can do to each other, however late messages arrive."""
    seen: set[Both] = set()
    todo = {Both(sending, None, (Kind.PUT,), ())}
    while todo:
        both = todo.pop()
        seen.add(both)
        todo |= set(next_of(both, receiving)) - seen
    ended = {each for each in seen if not each.content and not each.answers and not list(next_of(each, receiving))}
    assert {(each.sender, each.receiver) for each in ended} == {(Sending.CLOSED, Receiving.CLOSED)}
