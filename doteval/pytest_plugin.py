"""pytest's hooks, and nothing else: what they do lives in `execution` and `local`."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from doteval.execution.async_fixtures import is_async_fixture, set_up_async_fixture
from doteval.execution.event_loop import LoopThread
from doteval.execution.items import evaluation_items, is_evaluation_file
from doteval.execution.pytest_internals import use_row_setup_state

loop_key = pytest.StashKey[LoopThread]()


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    use_row_setup_state(session)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "doteval: an evaluation; select with -m doteval")
    config.stash[loop_key] = LoopThread()


def pytest_unconfigure(config: pytest.Config) -> None:
    loop = config.stash.get(loop_key, None)
    if loop is not None:
        loop.close()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    # pytest itself collects files that the command line names.
    is_pytests = parent.session.isinitpath(file_path) or any(
        file_path.match(pattern) for pattern in parent.config.getini("python_files")
    )
    if is_evaluation_file(file_path) and not is_pytests:
        return pytest.Module.from_parent(parent, path=file_path)
    return None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pycollect_makeitem(collector: Any, name: str, obj: object) -> Generator[None, Any, Any]:
    return evaluation_items(collector, name, obj, (yield))


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Any:
    if is_async_fixture(fixturedef, request):
        return set_up_async_fixture(fixturedef, request, request.config.stash[loop_key])
    return None
