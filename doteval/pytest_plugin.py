"""pytest's hooks, and nothing else: what they do lives in `execution`, `local` and `local_report`."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from doteval.execution.async_fixtures import is_async_fixture, set_up_async_fixture
from doteval.execution.embedded import is_embedded
from doteval.execution.event_loop import LoopThread
from doteval.execution.items import EvaluationItem, evaluation_items, is_evaluation_file
from doteval.execution.loads import LoadWatch
from doteval.execution.pytest_internals import use_row_setup_state
from doteval.resources.fixtures import async_openai_client, openai_client

loop_key = pytest.StashKey[LoopThread]()
__all__ = ["async_openai_client", "openai_client"]

# A LocalExperiment; its module is imported when there is an evaluation to run.
local_key = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("doteval", "evaluations")
    group.addoption("--experiment", metavar="NAME", help="keep results under this name, and resume what it began")
    group.addoption("--samples", type=int, metavar="N", help="run the first N rows of each dataset")
    group.addoption("--storage", metavar="URL", help="where results are kept (default: .doteval/doteval.db)")
    group.addoption("--concurrent", metavar="N", help="rows in flight (default: 10 if async, else 1)")
    group.addoption("--max-retries", type=int, default=0, metavar="N", help="tries more after connection errors")
    group.addoption("--retry-delay", type=float, default=1.0, metavar="S", help="seconds before the first of them")
    group.addoption("--row-timeout", type=float, metavar="S", help="seconds that a row may take")
    group.addoption("--allow-changed", action="store_true", help="go on although the code or dataset has changed")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "doteval: an evaluation; select with -m doteval")
    config.stash[loop_key] = LoopThread()


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    use_row_setup_state(session)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    evaluations = [item for item in items if isinstance(item, EvaluationItem)]
    if not evaluations or is_embedded(config):
        return
    # Imported here, so that pytest runs without evaluations do not wait for the store's libraries.
    from doteval.local import LocalExperiment, local_options

    local = config.stash[local_key] = LocalExperiment(local_options(config), config.stash[loop_key])
    config.pluginmanager.register(LoadWatch(local), "doteval-loads")
    for item in evaluations:
        item.evaluate = local.evaluate


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    local = config.stash.get(local_key, None)
    if local is not None:
        from doteval.local_report import write_report

        write_report(terminalreporter, local)


def pytest_unconfigure(config: pytest.Config) -> None:
    local = config.stash.get(local_key, None)
    if local is not None:
        local.close()
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
