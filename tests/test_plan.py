"""What a fetch would do about each difference: the whole matrix."""

from tables import each_row

from sft.client.comparing import Difference
from sft.client.plan import action_for
from sft.common.errors import Code

D = Difference
COMPARED = [D.NEW, D.SIZE, D.CONTENT, D.TIME, D.MODE, D.NONE]

# For a file, in the order of COMPARED; `update` stands for --update, whatever the policy.
FILES: dict[str, list[str | Code | None]] = {
    "update": ["fetch", "replace", "replace", "compare", "set", None],
    "fail": ["fetch", Code.EXISTS, Code.EXISTS, "compare", "compare", "compare"],
    "rename": ["fetch", "fetch", "fetch", "compare", "compare", "compare"],
    "replace": ["fetch", "replace", "replace", "compare", "compare", "compare"],
    "skip": ["fetch", "skip", "skip", "skip", "skip", "skip"],
}


@each_row("policy", FILES)
def test_each_difference_of_a_file(policy: str) -> None:
    is_update = policy == "update"
    used = "replace" if is_update else policy
    assert [action_for(what, False, used, is_update) for what in COMPARED] == FILES[policy]


@each_row("policy", ["fail", "rename", "replace", "skip"])
@each_row("is_update", [False, True])
def test_folder_is_made_when_it_is_new_and_else_kept(policy: str, is_update: bool) -> None:
    assert action_for(D.NEW, True, policy, is_update) == "fetch"
    assert action_for(D.TIME, True, policy, is_update) is None
    assert action_for(D.MODE, True, policy, is_update) == ("set" if is_update else None)
