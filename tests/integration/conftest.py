"""What several modules ask for. Every test that takes `store` or `store_url` has two runs, one on each database."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from doteval.clients.shared_state import close_shared
from doteval.store import Store
from tests.support.commands import Commands
from tests.support.model_servers import ROOT, MakeUser, User, relatives
from tests.support.project import wait_until


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.variant)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a result store that does not exist yet."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite://{tmp_path}/results.db"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store.open(store_url) as store:
        yield store


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """A result store of SQLite alone."""
    with Store.open(str(tmp_path / "results.db")) as store:
        yield store


@pytest.fixture
def forget_limits() -> Iterator[None]:
    """What one test teaches of the server's limits is not for the next one."""
    yield
    close_shared()


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory for one test. At the end, no keeper and no server may be left."""
    directory = Path(tempfile.mkdtemp(prefix="dv"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # By this variable the processes of this test are recognized.
    monkeypatch.setenv("DOTEVALTEST", str(directory))
    yield directory
    try:
        wait_until(lambda: not relatives(directory), what="the end of all keepers and servers")
    except AssertionError as error:
        shown = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in relatives(directory)]
        for pid in relatives(directory):
            os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"{error}; killed: {shown}") from None
    finally:
        shutil.rmtree(directory)
        close_shared()


@pytest.fixture(scope="session")
def user_commands() -> Iterator[Commands]:
    """Starts processes that have imported the OpenAI library, which takes a second."""
    service = Commands("doteval.providers.shared_models", "openai")
    yield service
    service.close()


@pytest.fixture
def user(tmp_path: Path, runtime: Path, user_commands: Commands) -> Iterator[MakeUser]:
    users: list[User] = []

    def make(**settings: Any) -> User:
        users.append(User(tmp_path, user_commands, **settings))
        return users[-1]

    yield make
    for each in users:
        each.kill()
