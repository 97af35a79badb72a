"""Options that people of rsync and scp type: the error says what stands for them here."""

import pytest
from tables import each_row

from client import _parser, _read
from sft.common.errors import UsageError
from sft.console.habits import _LETTERS, _WORDS, explain

LETTERS = _parser().letters


@each_row(
    ("arguments", "option", "remedy"),
    [
        (["-avn", "a", "b"], "-a", "--links keeps"),
        (["-vna", "a", "b"], "-a", "--links keeps"),
        (["a", "-rlpt", "b"], "-l", "--links keeps"),
        (["--progress", "a", "b"], "--progress", "shown anyway"),
        (["-P", "22", "a", "b"], "-P", "--port"),
        (["--bwlimit=5m", "a", "b"], "--bwlimit", "--limit"),
        (["--delete-after", "-u", "a", "b"], "--delete-after", "--delete"),
    ],
)
def test_option_of_rsync_has_its_remedy(arguments: list[str], option: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        _read(arguments)
    assert caught.value.cause == f"{option} is no option here" and remedy in caught.value.remedy


@each_row("arguments", [["--unknown", "a", "b"], ["-w", "a", "b"], ["-v=3", "a", "b"]])
def test_other_mistake_has_the_usual_line(arguments: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        _read(arguments)
    assert "See client.py --help" in caught.value.remedy


def test_what_stands_behind_two_dashes_is_a_name() -> None:
    with pytest.raises(UsageError) as caught:
        _read(["--unknown", "--", "-a"])
    assert "--unknown" in caught.value.cause


def test_what_is_an_option_here_is_not_explained() -> None:
    options = {option for action in _parser()._actions for option in action.option_strings}
    assert not {*_WORDS, *(f"-{letter}" for letter in _LETTERS)} & options
    explain(["-vnruxq0", "--delete", "-", "a"], LETTERS)
