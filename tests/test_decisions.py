"""The whole matrix of each decision: a name that is taken, and a partial file that an earlier attempt left."""

import itertools

from tables import each_row

from sft.common.errors import Code
from sft.disk.decisions import (
    Action,
    Bytes,
    Existing,
    JournalOf,
    OwnedBy,
    Policy,
    Step,
    decide,
    may_need_no_space,
    offers,
    take_up,
)

A, C = Action, Code

NAMES: dict[Policy, list[Action | Code]] = {
    # policy, then what is there: NOTHING, SAME_SIZE, SAME, OTHER, FOLDER, LINK, SPECIAL
    Policy.FAIL: [A.STORE, A.COMPARE, A.ALREADY, C.EXISTS, C.IS_FOLDER, C.EXISTS, C.EXISTS],
    Policy.RENAME: [A.STORE, A.COMPARE, A.ALREADY, A.NEXT_NAME, C.IS_FOLDER, A.NEXT_NAME, A.NEXT_NAME],
    Policy.REPLACE: [A.STORE, A.COMPARE, A.ALREADY, A.REPLACE, C.IS_FOLDER, A.REPLACE, C.SPECIAL],
    Policy.SKIP: [A.STORE, A.SKIP, A.SKIP, A.SKIP, C.IS_FOLDER, A.SKIP, A.SKIP],
}
PRIVATE_NAMES: dict[Policy, list[Action | Code]] = {
    Policy.FAIL: [A.STORE, *[A.NEXT_NAME] * 6],
    Policy.RENAME: [A.STORE, *[A.NEXT_NAME] * 6],
    Policy.REPLACE: [A.STORE, *[C.NOT_REPLACED] * 6],
    Policy.SKIP: [A.STORE, *[A.NEXT_NAME] * 6],
}


@each_row(("policy", "existing"), list(itertools.product(Policy, Existing)))
def test_taken_name(policy: Policy, existing: Existing) -> None:
    at = list(Existing).index(existing)
    assert decide(policy.value, existing, is_private=False) is NAMES[policy][at]
    for may_replace in (True, False):
        assert decide(policy.value, existing, True, may_replace) is PRIVATE_NAMES[policy][at]


@each_row(("policy", "existing"), list(itertools.product(Policy, Existing)))
def test_right_to_replace_counts_only_where_something_would_be_replaced(policy: Policy, existing: Existing) -> None:
    action = NAMES[policy][list(Existing).index(existing)]
    without = C.NOT_REPLACED if action is A.REPLACE else action
    assert decide(policy, existing, is_private=False, may_replace=False) is without


@each_row("policy", Policy)
def test_private_folder_answers_alike_whatever_is_there(policy: Policy) -> None:
    taken = [existing for existing in Existing if existing is not Existing.NOTHING]
    assert len({decide(policy, existing, is_private=True) for existing in taken}) == 1


@each_row("policy", [policy for policy in Policy if policy is not Policy.REPLACE])
@each_row("is_private", [False, True])
def test_nothing_is_replaced_unasked(policy: Policy, is_private: bool) -> None:
    assert Action.REPLACE not in {decide(policy, existing, is_private) for existing in Existing}


@each_row("policy", Policy)
def test_comparing_is_followed_by_an_answer(policy: Policy) -> None:
    after = {decide(policy, existing, is_private=False) for existing in (Existing.SAME, Existing.OTHER)}
    assert Action.COMPARE not in after


def test_only_what_may_not_be_stored_may_need_no_space() -> None:
    assert {action for action in Action if may_need_no_space(action)} == {A.COMPARE, A.ALREADY, A.SKIP}
    assert not any(may_need_no_space(code) for code in Code)


def expected_step(journal: JournalOf, owner: OwnedBy, bytes: Bytes) -> Step:
    """The rules in the words of `sft/disk/partials.py`, in another order than the code."""
    is_same = journal is JournalOf.THIS_TRANSFER
    if journal is JournalOf.REMOVED or (owner is not OwnedBy.NONE and not is_same):
        return Step.WAIT
    match bytes:
        case Bytes.UNSEEN:
            return Step.OPEN
        case Bytes.MISSING:
            return Step.CREATE
        case Bytes.NEW:
            return Step.START
        case Bytes.PUBLISHED:
            return Step.FORGET_NAME
        case Bytes.REMOVED:
            return Step.CLOSE
        case Bytes.KEPT if journal is JournalOf.NONE:
            return Step.START
        case _:
            return Step.RESUME if owner is OwnedBy.NONE else Step.TAKE_OVER


@each_row(("journal", "owner", "bytes"), list(itertools.product(JournalOf, OwnedBy, Bytes)))
def test_partial_file(journal: JournalOf, owner: OwnedBy, bytes: Bytes) -> None:
    assert take_up(journal, owner, bytes) is expected_step(journal, owner, bytes)


@each_row(
    ("journal", "owner", "bytes", "step"),
    [
        (JournalOf.ANOTHER_TRANSFER, OwnedBy.IN_THIS_PROCESS, Bytes.UNSEEN, Step.WAIT),
        (JournalOf.ANOTHER_TRANSFER, OwnedBy.IN_ANOTHER_PROCESS, Bytes.KEPT, Step.WAIT),
        (JournalOf.ANOTHER_TRANSFER, OwnedBy.NONE, Bytes.KEPT, Step.RESUME),
        (JournalOf.THIS_TRANSFER, OwnedBy.NONE, Bytes.KEPT, Step.RESUME),
        (JournalOf.THIS_TRANSFER, OwnedBy.IN_THIS_PROCESS, Bytes.KEPT, Step.TAKE_OVER),
        (JournalOf.THIS_TRANSFER, OwnedBy.IN_ANOTHER_PROCESS, Bytes.KEPT, Step.TAKE_OVER),
        (JournalOf.NONE, OwnedBy.NONE, Bytes.KEPT, Step.START),
        (JournalOf.THIS_TRANSFER, OwnedBy.NONE, Bytes.PUBLISHED, Step.FORGET_NAME),
        (JournalOf.REMOVED, OwnedBy.NONE, Bytes.UNSEEN, Step.WAIT),
    ],
)
def test_partial_file_in_the_cases_that_users_meet(
    journal: JournalOf, owner: OwnedBy, bytes: Bytes, step: Step
) -> None:
    assert take_up(journal, owner, bytes) is step


def test_bytes_of_an_owner_in_this_process_are_opened_only_for_its_own_transfer() -> None:
    """Opening and closing them would drop its lock on some file systems."""
    opened = {journal for journal in JournalOf if take_up(journal, OwnedBy.IN_THIS_PROCESS, Bytes.UNSEEN) is Step.OPEN}
    assert opened == {JournalOf.THIS_TRANSFER}


def test_looking_again_ends_with_an_answer() -> None:
    """Each other step changes what is seen, so that the loop comes to one of these."""
    last = {step for step in Step if not step.is_not_last}
    assert last == {Step.WAIT, Step.START, Step.RESUME, Step.TAKE_OVER}


@each_row(
    ("there", "durable", "expected"),
    [
        (0, 0, []),
        (0, 100, []),
        (100, 0, [100]),
        (100, 100, [100]),
        (100, 60, [100, 60]),
        (60, 100, [60]),
    ],
)
def test_offers_are_all_that_is_there_then_what_was_flushed(there: int, durable: int, expected: list[int]) -> None:
    assert offers(there, durable) == expected
