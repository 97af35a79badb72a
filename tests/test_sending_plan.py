"""What sending would do about each difference: the whole matrix."""

from itertools import product

import pytest
from tables import each_row

from sft.client.comparing import Difference
from sft.client.sending_plan import action_for
from sft.common.errors import Code

D, C = Difference, Code
POLICIES = ("fail", "rename", "replace", "skip")
SAME = (D.NONE, D.TIME, D.MODE)
OTHER = (D.SIZE, D.CONTENT, D.TARGET)

# A file, and a file there: what is different, then what each policy does.
FILES: dict[Difference, tuple[str | Code, ...]] = {
    D.NEW: ("send",) * 4,
    **dict.fromkeys(SAME, ("compare", "compare", "compare", "skip")),
    **dict.fromkeys(OTHER, (C.EXISTS, "send", "replace", "skip")),
}
UPDATED: dict[Difference, str | None] = {
    D.NEW: "send",
    D.NONE: None,
    D.MODE: None,
    D.TIME: "compare",
    **dict.fromkeys(OTHER, "replace"),
}
# What is here and what is there, of two kinds.
KINDS: dict[tuple[str, str], tuple[str | Code, ...]] = {
    ("file", "folder"): (C.IS_FOLDER,) * 4,
    ("file", "link"): (C.EXISTS, "send", "replace", "skip"),
    ("link", "folder"): (C.IS_FOLDER,) * 4,
    ("link", "file"): (C.EXISTS, "send", "replace", "skip"),
    ("folder", "file"): (C.NOT_FOLDER,) * 4,
    ("folder", "link"): (C.LINK,) * 4,
}


@each_row(("what", "policy"), list(product(FILES, POLICIES)))
def test_file_is_sent_as_the_policy_says(what: Difference, policy: str) -> None:
    assert action_for(what, "file", "file", policy, is_update=False) == FILES[what][POLICIES.index(policy)]


@each_row("policy", POLICIES)
def test_link_is_sent_when_it_says_something_else(policy: str) -> None:
    assert action_for(D.TARGET, "link", "link", policy, is_update=False) == FILES[D.TARGET][POLICIES.index(policy)]
    assert action_for(D.NONE, "link", "link", policy, is_update=False) == ("skip" if policy == "skip" else None)
    assert action_for(D.TARGET, "link", "link", "replace", is_update=True) == "replace"
    assert action_for(D.NONE, "link", "link", "replace", is_update=True) is None


@each_row("what", UPDATED)
def test_file_is_updated(what: Difference) -> None:
    assert action_for(what, "file", "file", "replace", is_update=True) == UPDATED[what]


@each_row(("what", "policy", "is_update"), list(product(D, POLICIES, (False, True))))
def test_folders_are_made_and_merged(what: Difference, policy: str, is_update: bool) -> None:
    if what not in (D.KIND, D.EXTRA):
        assert action_for(what, "folder", "folder", policy, is_update) == ("send" if what is D.NEW else None)


@pytest.mark.parametrize(("kinds", "policy", "is_update"), list(product(KINDS, POLICIES, (False, True))))
def test_files_and_links_replace_each_other_alone(kinds: tuple[str, str], policy: str, is_update: bool) -> None:
    assert action_for(D.KIND, *kinds, policy, is_update) == KINDS[kinds][POLICIES.index(policy)]
