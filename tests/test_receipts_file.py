"""The file of --receipts: what it may hold already, and what is never touched."""

import json
import os
from pathlib import Path

import pytest

from sft.client.receipts_file import ReceiptsFile, check_apart
from sft.common.errors import UsageError

RECEIPT = json.dumps({"name": "a", "path": "in/a", "size": 1, "sha256": "00", "time": "2026-01-01T00:00:00.000000Z"})


@pytest.mark.parametrize(
    "content",
    ["", RECEIPT + "\n", RECEIPT, RECEIPT[:40], f"{RECEIPT[:40]}\n{RECEIPT}\n", f"{RECEIPT}\n{RECEIPT[:30]}"],
    ids=["empty", "one", "without its end", "torn", "torn and gone on", "torn at the end"],
)
def test_receipts_are_appended_to_receipts(tmp_path: Path, content: str) -> None:
    (tmp_path / "r").write_text(content)
    file = ReceiptsFile(str(tmp_path / "r"))
    file.append(RECEIPT)
    file.close()
    lines = (tmp_path / "r").read_text().splitlines()
    assert lines[-1] == RECEIPT and "\n".join(lines[:-1]) == content.rstrip("\n")


@pytest.mark.parametrize(
    "content",
    ["text\n", "\n", "\0", "{}\n", '{"name": 1}\n', "[1]\n", '{"event": "delivered"}\n', "[" * 100_000, "x" * 200_000],
)
def test_file_with_something_else_is_refused_and_stays_as_it_is(tmp_path: Path, content: str) -> None:
    (tmp_path / "r").write_text(content)
    with pytest.raises(UsageError) as caught:
        ReceiptsFile(str(tmp_path / "r"))
    assert caught.value.cause == f"can't write the receipts to {tmp_path / 'r'}: it is there, and holds something else"
    assert (tmp_path / "r").read_text() == content


def test_longest_receipt_is_recognised(tmp_path: Path) -> None:
    path = "\x7f" * 4096
    (tmp_path / "r").write_text(json.dumps({**json.loads(RECEIPT), "name": "\u20ac" * 4096, "path": path}) + "\n")
    ReceiptsFile(str(tmp_path / "r")).close()


def test_pipe_and_device_take_receipts(tmp_path: Path) -> None:
    ReceiptsFile(os.devnull).close()
    os.mkfifo(tmp_path / "p")
    reader = os.open(tmp_path / "p", os.O_RDONLY | os.O_NONBLOCK)
    file = ReceiptsFile(str(tmp_path / "p"))
    file.append(RECEIPT)
    assert os.read(reader, 1000).decode() == RECEIPT + "\n"
    file.close()
    os.close(reader)


def test_receipts_go_to_nothing_that_is_sent(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link", "new"):
        with pytest.raises(UsageError, match="is also what is sent or fetched"):
            check_apart(str(tmp_path / name), [str(tmp_path), str(tmp_path / "b"), str(tmp_path / name)])
    with pytest.raises(UsageError, match="is also what is sent or fetched"):
        check_apart(str(tmp_path / "a"), [str(tmp_path / "link")])
    check_apart(str(tmp_path / "a"), [str(tmp_path), str(tmp_path / "b")])
