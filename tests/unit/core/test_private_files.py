"""Files that only their owner may read, and the directories that they are in."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from doteval.core.private_files import make_private_file


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("name", [".doteval/doteval.db", "a/b/results.db", "results.db"])
def test_a_new_file_and_its_new_directory_are_private(tmp_path: Path, name: str) -> None:
    tmp_path.chmod(0o755)
    file = tmp_path / name
    make_private_file(file)
    assert mode(file) == 0o600
    assert file.read_bytes() == b""
    assert mode(file.parent) == (0o755 if file.parent == tmp_path else 0o700)


def test_a_directory_of_the_user_and_a_file_that_exist_keep_their_modes(tmp_path: Path) -> None:
    shared = tmp_path / "team"
    shared.mkdir()
    shared.chmod(0o775)
    file = shared / "results.db"
    file.write_text("rows")
    file.chmod(0o664)
    make_private_file(file)
    make_private_file(shared / "others.db")
    assert (mode(shared), mode(file), file.read_text()) == (0o775, 0o664, "rows")
    assert mode(shared / "others.db") == 0o600


def test_doteval_s_own_directory_becomes_private(tmp_path: Path) -> None:
    own = tmp_path / ".doteval"
    own.mkdir()
    own.chmod(0o755)
    make_private_file(own / "doteval.db")
    assert mode(own) == 0o700


def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make_private_file(tmp_path / "file" / "below" / "results.db")
