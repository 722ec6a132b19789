"""Temporary directories of processes: whose are removed, and when."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from doteval.core import private_directories
from doteval.core.private_directories import PrivateDirectory, left_directories, use_private_directory

# Makes a directory, says where, and ends when it is asked to.
OWNER = """
import os, sys
from doteval.core.private_directories import PrivateDirectory
directory = PrivateDirectory(sys.argv[1], sys.argv[2])
(directory.path / "content").write_text("x")
print(directory.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has looked for remains nowhere yet."""
    monkeypatch.setattr(private_directories, "_swept", set())


@contextmanager
def owner(parent: Path, kind: str = "redis") -> Iterator[tuple[subprocess.Popen[str], Path]]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, kind, str(parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_may_enter_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        directory = PrivateDirectory("journals", str(tmp_path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    directory.remove()
    directory.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["redis", "figures"])
def test_directories_of_killed_processes_are_removed_and_no_others(tmp_path: Path, kind: str) -> None:
    with owner(tmp_path, kind) as (killed, remains), owner(tmp_path, kind) as (_, used):
        killed.kill()
        killed.wait()
        earlier = tmp_path / f"doteval-{kind}-0123456789ab"
        similar = tmp_path / f"doteval-{kind}.not-hexadecimal"
        elsewhere = tmp_path / "elsewhere"
        link = tmp_path / f"doteval-{kind}.0123456789ab"
        for directory in (earlier, similar, elsewhere):
            directory.mkdir()
        link.symlink_to(elsewhere)
        assert remains.is_dir()
        with PrivateDirectory("redis", str(tmp_path)):
            assert not remains.exists()
            assert (used / "content").exists()
        assert {earlier, similar, elsewhere, link} < set(tmp_path.iterdir())


def test_journals_of_killed_processes_are_kept_for_a_month_and_found_by_one_process_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with owner(tmp_path, "journals") as (killed, remains), owner(tmp_path, "journals") as (_, used):
        assert list(left_directories("journals")) == []
        killed.kill()
        killed.wait()
        PrivateDirectory("redis").remove()
        assert list(left_directories("redis")) == []
        for found in left_directories("journals"):
            assert found == remains
            # In the meantime no other process finds it.
            assert list(left_directories("journals")) == []
        assert list(left_directories("journals")) == [remains]
        for days, kept in ((29, True), (31, False)):
            private_directories._swept.clear()
            then = time.time() - days * 24 * 3600
            for path in (remains, remains / "content"):
                os.utime(path, (then, then))
            PrivateDirectory("redis").remove()
            assert remains.exists() is kept
        assert (used / "content").exists()


def test_a_process_that_ends_removes_its_directory_itself(tmp_path: Path) -> None:
    with owner(tmp_path) as (process, directory):
        assert (directory / "content").exists()
        process.communicate("")
        assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_still_uses_the_directory_of_a_killed_one_keeps_it(tmp_path: Path) -> None:
    with owner(tmp_path) as (killed, directory):
        lock = use_private_directory(directory)
        killed.kill()
        killed.wait()
        PrivateDirectory("redis", str(tmp_path)).remove()
        assert (directory / "content").exists()
        assert lock is not None
        os.close(lock)
    private_directories._swept.clear()
    PrivateDirectory("redis", str(tmp_path)).remove()
    assert not directory.exists()


def test_a_directory_that_is_taken_for_remains_while_it_is_made_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    lock = use_private_directory

    def swept_before(path: Path) -> int | None:
        made.append(path)
        if len(made) == 1:
            path.rmdir()
        if len(made) == 2:
            sweeper = os.open(path, os.O_RDONLY)
            fcntl.flock(sweeper, fcntl.LOCK_EX)
        return lock(path)

    monkeypatch.setattr(private_directories, "use_private_directory", swept_before)
    directory = PrivateDirectory("redis", str(tmp_path))
    assert directory.path == made[2]
    assert directory.path.is_dir()
    directory.remove()


def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remains = tmp_path / "doteval-redis.0123456789ab"
    remains.mkdir()

    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with PrivateDirectory("redis", str(tmp_path)) as directory:
        assert directory.lock is None
        assert directory.path.is_dir()
    assert remains.is_dir()
