"""Help that fits one screen, help by topic, and the hint at the end of an error."""

import re

import pytest
from conftest import RunHere

import client
import server
from sft.console.command_line import Parser
from sft.console.help import CLIENT_HELP, CLIENT_TOPICS, SERVER_HELP, SERVER_TOPICS, about

PROGRAMS = {
    "client.py": (client._parser, CLIENT_HELP, CLIENT_TOPICS),
    "server.py": (server._parser, SERVER_HELP, SERVER_TOPICS),
}


def options_of(parser: Parser) -> set[str]:
    return {word for action in parser._actions for word in action.option_strings}


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_fits_one_screen_and_names_only_options_that_there_are(run_here: RunHere, program: str) -> None:
    make, short, _ = PROGRAMS[program]
    result = run_here(program, "--help")
    assert (result.status, result.err, result.out) == (0, "", short)
    lines = short.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    named = set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", short))
    assert named <= options_of(make()) | {"-R"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_topics_have_every_option_and_so_has_all_of_it(program: str) -> None:
    make, _, topics = PROGRAMS[program]
    parser = make()
    by_topic = "".join(about(parser, topic, topics) for topic in topics)
    for word in options_of(parser):
        assert re.search(rf"{word}(?![\w-])", by_topic), f"{word} is in no topic"
        assert re.search(rf"{word}(?![\w-])", about(parser, "all", topics))
        assert word in about(parser, word, topics) and about(parser, word.lstrip("-"), topics)


def test_help_about_a_command_of_the_server_is_its_own(run_here: RunHere) -> None:
    assert run_here("server.py", "--help", "adduser").out == run_here("server.py", "adduser", "--help").out != ""


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["--host"], "See client.py --help host"),
        (["--no-such", "a", "b"], "See client.py --help all"),
        (["a"], "See client.py --help"),
        (["--help", "everything"], "Topics: jobs, sources, how, settings, more, all, or the name of an option"),
    ],
)
def test_error_of_usage_ends_with_the_help_that_answers_it(run_here: RunHere, command: list[str], hint: str) -> None:
    result = run_here("client.py", *command)
    assert result.status == 2 and result.out == "" and result.err.endswith(f". {hint}\n")
