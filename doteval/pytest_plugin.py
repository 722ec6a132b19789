"""The pytest plugin: its hooks call `doteval.pytest_runtime` and `doteval.local`, and its fixtures are for authors."""

from __future__ import annotations

import functools
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from doteval.clients.fixtures import async_openai_client, openai_client
from doteval.core.standard_streams import open_closed_streams
from doteval.core.stop_signals import StopSignals, exit_code_of
from doteval.errors import DotEvalError
from doteval.local.options import add_options, check_options, local_options
from doteval.local.progress import Screen, tell, terminal_screen
from doteval.local.xdist import (
    XdistWorkers,
    command_of,
    give_name,
    given_name,
    hand_over,
    name_of_all,
    stop_signals,
    take_over,
)
from doteval.providers.fixtures import model_providers
from doteval.pytest_runtime.async_fixtures import loop_key, on_loop
from doteval.pytest_runtime.embedded_session import is_embedded
from doteval.pytest_runtime.items import FUNCTION_PREFIX, EvaluationItem, evaluation_items, is_evaluation_file
from doteval.pytest_runtime.load_timer import LoadTimer
from doteval.pytest_runtime.pytest_internals import use_row_setup_state
from doteval.runner.error_classes import ends_command
from doteval.runner.event_loop import LoopThread

__all__ = ["async_openai_client", "model_providers", "openai_client"]

_screen_key = pytest.StashKey[Screen | None]()
# A LocalExperiment and its results. Its module is imported only when there is an evaluation to run.
_local_key = pytest.StashKey[Any]()
_reports_key = pytest.StashKey[list[Any]]()
_signals_key = pytest.StashKey[StopSignals]()
_xdist_key = pytest.StashKey[XdistWorkers]()
_applied_thresholds_key = pytest.StashKey[set[Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    # Before pytest makes its reporter, which cannot do without them.
    open_closed_streams()
    add_options(parser)


@pytest.hookimpl(trylast=True)  # after the terminal reporter is registered
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "doteval(queue=NAME): an evaluation; select with -m doteval. With a queue, only workers that serve it run its "
        "rows.",
    )
    check_options(config)
    config.stash[loop_key] = LoopThread()
    config.stash[_screen_key] = None if is_embedded(config) else terminal_screen(config)
    config.stash[_reports_key] = []
    config.stash[_applied_thresholds_key] = set()


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    use_row_setup_state(session)


def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    evaluations = [item for item in session.items if isinstance(item, EvaluationItem)]
    if not evaluations or is_embedded(config):
        return
    config.stash[_signals_key] = stop_signals(config).install()
    # Imported here, so that pytest runs without evaluations do not wait for the store's libraries to load.
    from doteval.coordination.provenance import CommandOrigin
    from doteval.local.session import LocalExperiment

    local = LocalExperiment(
        local_options(config, named=given_name(config)),
        CommandOrigin(command_of(config), evaluations[0].path.parent),
        config.stash[loop_key],
        functools.partial(tell, config),
        config.stash[_screen_key],
    )
    config.stash[_local_key] = local
    config.stash[_reports_key] = local.reports
    config.stash[_applied_thresholds_key] = local.applied_thresholds
    config.pluginmanager.register(LoadTimer(local), "doteval-loads")
    for item in evaluations:
        item.evaluate = local.evaluate


def pytest_exception_interact(node: pytest.Collector | pytest.Item, call: pytest.CallInfo[Any], report: object) -> None:
    """Name the section of the documentation about an error of a file, such as a column spec that does not fit.

    Errors of evaluations say it themselves; see `EvaluationItem.repr_failure`.
    """
    error = None if call.excinfo is None else call.excinfo.value
    if not isinstance(error, DotEvalError) or not isinstance(report, pytest.CollectReport) or is_embedded(node.config):
        return
    add = getattr(report.longrepr, "addsection", None)
    if add is not None and error.page:
        add("More", f"doteval docs {error.page}")


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around the marks, which are evaluated in an implementation of it
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    __tracebackhide__ = True
    try:
        return (yield)
    except BaseException as error:
        local = item.config.stash.get(_local_key, None)
        if local is not None and isinstance(item, EvaluationItem) and not ends_command(error):
            local.not_set_up(item, error)
        raise


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around xdist, which ends its workers in it
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Generator[None, Any, Any]:
    config = session.config
    local = config.stash.get(_local_key, None)
    if local is not None:
        hand_over(config, local)
    if (workers := config.stash.get(_xdist_key, None)) is not None:
        workers.wait(functools.partial(tell, config))
        workers.take_over(config.stash[_reports_key], config.stash[_applied_thresholds_key])
    if exitstatus == pytest.ExitCode.OK and _missed_thresholds(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    signals = session.config.stash.get(_signals_key, None)
    if signals is not None and signals.first is not None and exitstatus == pytest.ExitCode.INTERRUPTED:
        session.exitstatus = exit_code_of(signals.first)
    try:
        return (yield)
    finally:
        if hasattr(config, "workeroutput"):
            # If the controller has died, xdist fails in this hook, and pytest then calls no further one.
            _close_local(config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    reports = config.stash[_reports_key]
    workers = config.stash.get(_xdist_key, None)
    if reports:
        from doteval.local.report import write_report

        write_report(terminalreporter, reports, _missed_thresholds(config))
    elif exitstatus == pytest.ExitCode.INTERRUPTED and workers is not None and workers.run_evaluations:
        # After Ctrl-C the workers store their results, and xdist does not hear of them.
        from doteval.local.report import write_how_to_see

        write_how_to_see(terminalreporter, name_of_all(config))


def pytest_unconfigure(config: pytest.Config) -> None:
    signals = config.stash.get(_signals_key, None)
    if signals is not None:
        signals.restore()
    _close_local(config)
    loop = config.stash.get(loop_key, None)
    if loop is not None:
        loop.close()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    give_name(node.config, node.workerinput)
    node.config.stash.setdefault(_xdist_key, XdistWorkers()).add(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    if any(f"::{FUNCTION_PREFIX}" in each for each in ids):
        workers = node.config.stash[_xdist_key]
        workers.stop_in_order()
        node.config.stash[_signals_key] = workers.signals


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    stash = node.config.stash
    take_over(getattr(node, "workeroutput", {}), stash[_reports_key], stash[_applied_thresholds_key])


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    # pytest itself collects files that are named on the command line.
    is_pytests = parent.session.isinitpath(file_path) or any(
        file_path.match(pattern) for pattern in parent.config.getini("python_files")
    )
    if is_evaluation_file(file_path) and not is_pytests:
        return pytest.Module.from_parent(parent, path=file_path)
    return None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pycollect_makeitem(collector: Any, name: str, obj: object) -> Generator[None, Any, Any]:
    return evaluation_items(collector, name, obj, (yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    with on_loop(fixturedef, request, request.config.stash[loop_key]):
        return (yield)


def _close_local(config: pytest.Config) -> None:
    """Store what is left of the evaluations, and close their stores."""
    local = config.stash.get(_local_key, None)
    if local is not None:
        config.stash[_local_key] = None
        local.close()


def _missed_thresholds(config: pytest.Config) -> list[Any]:
    """The thresholds that applied to none of the evaluations; empty if no evaluation ran."""
    if hasattr(config, "workerinput") or not config.getoption("fail_under"):
        return []
    if not any(stored.report.evaluation.counts.ran for stored in config.stash[_reports_key]):
        return []
    applied = config.stash[_applied_thresholds_key]
    return [threshold for threshold in local_options(config).thresholds if threshold not in applied]
