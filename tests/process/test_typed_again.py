"""A password that was typed and refused is asked for again, as ssh does."""

from pathlib import Path

import pytest
from processes import PASSWORD, USER, Server, Terminal, make


def typing(server: Server, folder: Path, *words: str) -> Terminal:
    settings = [f"--port={server.port}", f"--client-log={folder / 'log'}"]
    return Terminal("client.py", *settings, *words, cwd=folder)


def test_typed_password_may_be_wrong_twice(server: Server, folder: Path, box: str) -> None:
    make(folder / "a")
    with typing(server, folder, "a", f"{USER}@127.0.0.1:{box}/") as terminal:
        for word in ("wrong once", "wrong twice", PASSWORD):
            terminal.expect(f"Password of {USER} on 127.0.0.1: ")
            terminal.type(word)
        assert terminal.finish() == 0
    assert terminal.screen.count("login refused: ") == terminal.screen.count(". Type it again\n") == 2
    assert server.path(box, "a").exists()
    for text in (terminal.screen, (folder / "log").read_text()):
        assert "wrong once" not in text and "wrong twice" not in text and PASSWORD not in text


@pytest.mark.parametrize("last", ["wrong too\n", "\x04", "\n"])
def test_third_refusal_or_no_answer_ends_with_3(server: Server, folder: Path, last: str) -> None:
    with typing(server, folder, "--list", f"{USER}@127.0.0.1:") as terminal:
        typed = ["wrong\n", "wrong\n", last] if last == "wrong too\n" else ["wrong\n", last]
        for word in typed:
            terminal.expect("Password of ")
            terminal.type(word, end="")
        assert terminal.finish() == 3
    assert terminal.screen.count("Password of ") == len(typed)
    assert terminal.screen.count("error: login refused: ") == 1


def test_password_of_a_file_is_tried_once(server: Server, folder: Path) -> None:
    (folder / "secret").write_text("a wrong password\n")
    (folder / "secret").chmod(0o600)
    flags = [f"--password-file={folder / 'secret'}", "--list", f"{USER}@127.0.0.1:"]
    with typing(server, folder, *flags) as terminal:
        assert terminal.finish() == 3
    assert "Password of " not in terminal.screen and "Type it again" not in terminal.screen
