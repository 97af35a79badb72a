"""A disk's image: large, and nearly nothing in it."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from conftest import MakeProxy
from processes import MIB, Client, Server

GIB = 1 << 30


def image(path: Path, size: int, parts: int) -> str:
    """A hole with parts of 1 MiB each; its SHA-256."""
    with path.open("wb") as file:
        file.truncate(size)
        for number in range(parts):
            file.seek(number * (size // parts) + 4_711)
            file.write(os.urandom(MIB))
    if path.stat().st_blocks * 512 > 2 * parts * MIB:
        pytest.skip("this disk has no holes")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize(
    ("size", "parts"), [(GIB // 4, 3), pytest.param(20 * GIB, 100, marks=pytest.mark.long)], ids=["256 MiB", "20 GiB"]
)
def test_image_of_a_disk_goes_there_and_back_as_what_is_in_it(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str, size: int, parts: int
) -> None:
    if shutil.disk_usage(folder).free < size * 1.1:
        pytest.skip("a file with holes counts as its size, and this disk has less: --basetemp names another")
    source = folder / "disk.img"
    sha256 = image(source, size, parts)
    line = proxy(server.port)
    seconds = 30 + size / 20e6
    most = parts * MIB * 11 // 10
    result = client.at(line.port)("--json", source, f"{box}/", seconds=seconds)
    assert (result.status, result.err) == (0, "")
    assert f'"sha256": "{sha256}"' in result.out
    assert sum(line.passed) < most
    stored = server.path(box, "disk.img")
    assert stored.stat().st_size == size and stored.stat().st_blocks * 512 < most
    source.unlink()
    result = client.at(line.port)("--json", "--get", f"{box}/disk.img", f"{folder}/back/", seconds=seconds)
    assert (result.status, result.err) == (0, "")
    assert f'"sha256": "{sha256}"' in result.out
    assert sum(line.passed) < 2 * most
    assert (folder / "back/disk.img").stat().st_blocks * 512 < most
    stored.unlink()
