"""The hooks that pytest calls around a test are called around an evaluation and its rows, in the same order."""

from __future__ import annotations

import sys

import pytest

from doteval.pytest_runtime.embedded_session import Collected
from doteval.pytest_runtime.evaluation_setup import EvaluationSetup
from doteval.runner.assignments import LoadFailedError
from tests.unit.conftest import InSession

HOOKS = """
import sys, warnings
import pytest

events = []

class OldKind:
    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        events.append(("begin", item.name))
        item.prepared = {}
        result = yield
        assert result.get_result() is True
        del item.prepared
        events.append(("end", item.name))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_setup(self, item):
        item.prepared["setup"] = {}
        yield

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = (yield).get_result()
        events.append((call.when, item.name, report.outcome, sorted(item.prepared)))

class NewKind:
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):
        events.append("outermost")
        if item.name == "eval_refused":
            raise RuntimeError("not this one")
        try:
            return (yield)
        finally:
            events.append("outermost ends")

    def pytest_runtest_logstart(self, nodeid, location):
        events.append(("start", nodeid.partition("::")[2]))

    def pytest_runtest_logreport(self, report):
        events.append(("reported", report.when))

    def pytest_runtest_logfinish(self, nodeid):
        events.append(("finish", nodeid.partition("::")[2]))

class Timers:
    @pytest.hookspec(firstresult=True)
    def pytest_timeout_cancel_timer(item):
        ...

class Timer:
    def pytest_timeout_cancel_timer(self, item):
        events.append("timer stopped")
        return True

def pytest_addhooks(pluginmanager):
    pluginmanager.add_hookspecs(Timers)

def pytest_configure(config):
    sys.events = events
    for plugin in (OldKind(), NewKind(), Timer()):
        config.pluginmanager.register(plugin)
"""

EVALUATIONS = """
import sys, warnings
import pytest
from doteval import Score, foreach

@pytest.fixture(scope="module")
def wide():
    yield
    sys.events.append("wide torn down")

@pytest.fixture(scope="module")
def broken():
    raise LookupError("no model")

@foreach("i", [(1,)])
def eval_one(i, wide):
    warnings.warn("of the row")
    return Score("ok", True)

@foreach("i", [(1,)])
def eval_two(i, wide): ...

@foreach("i", [(1,)])
def eval_broken(i, broken): ...

@foreach("i", [(1,)])
def eval_refused(i): ...
"""


def test_plugins_see_an_evaluation_as_they_see_a_test(in_session: InSession) -> None:
    def body(collected: Collected) -> list[object]:
        one, two, *_ = collected.items
        setup, events = EvaluationSetup(), sys.events  # type: ignore[attr-defined]
        setup.enter(one)
        assert one.prepared == {"setup": {}}  # type: ignore[attr-defined]
        events.append("rows")
        setup.enter(two)
        events.append("rows")
        setup.close()
        return events

    def around(name: str, *torn_down: str) -> list[object]:
        return [
            "outermost",
            ("begin", name),
            ("start", name),
            ("setup", name, "passed", ["setup"]),
            ("reported", "setup"),
            "timer stopped",
            "rows",
            *torn_down,
            ("teardown", name, "passed", ["setup"]),
            ("reported", "teardown"),
            ("finish", name),
            ("end", name),
            "outermost ends",
        ]

    events = in_session(body, {"conftest.py": HOOKS, "eval_it.py": EVALUATIONS})
    # The fixture that both use stays.
    assert events == around("eval_one") + around("eval_two", "wide torn down")


@pytest.mark.parametrize(
    ("name", "cause"),
    [("eval_broken", "the fixture 'broken' raised LookupError"), ("eval_refused", "RuntimeError")],
)
def test_a_fixture_or_plugin_that_raises_fails_one_evaluation(in_session: InSession, name: str, cause: str) -> None:
    def body(collected: Collected) -> list[object]:
        items = {item.name: item for item in collected.items}
        setup, events = EvaluationSetup(), sys.events  # type: ignore[attr-defined]
        with pytest.raises(LoadFailedError, match=f"^{name}: {cause}$"):
            setup.enter(items[name])
        events.clear()
        setup.enter(items["eval_one"])
        setup.close()
        return events

    events = in_session(body, {"conftest.py": HOOKS, "eval_it.py": EVALUATIONS})
    begun = events.index("outermost")
    # What was entered is left before the next begins, and no wrapper stays entered. A hook that was not entered sees no
    # teardown either.
    assert (("teardown", name, "passed", ["setup"]) in events[:begun]) is (name == "eval_broken")
    assert ("outermost ends" in events[:begun]) is (name == "eval_broken")
    assert events[begun:].count("outermost ends") == 1


@pytest.mark.parametrize("filters", ["", "error::UserWarning"], ids=["shown", "error"])
def test_warnings_of_rows_are_filtered_as_in_pytest_and_not_kept(
    in_session: InSession, filters: str, capfd: pytest.CaptureFixture[str]
) -> None:
    raised = []

    def body(collected: Collected) -> None:
        item = collected.items[0]
        setup = EvaluationSetup()
        setup.enter(item)
        for _ in range(3):
            try:
                item.obj(1, None)
            except UserWarning as error:
                raised.append(str(error))
        setup.close()

    files = {"conftest.py": HOOKS, "eval_it.py": EVALUATIONS, "pytest.ini": f"[pytest]\nfilterwarnings = {filters}\n"}
    in_session(body, files)
    assert raised == (["of the row"] * 3 if filters else [])
    assert capfd.readouterr().err.count("UserWarning: of the row") == (0 if filters else 1)


WRAPPED = """
import functools, threading

def pytest_itemcollected(item):
    function = item.obj
    @functools.wraps(function)
    def twice_and_nothing_returned(**arguments):
        threads = [threading.Thread(target=function, kwargs=arguments) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    item.obj = twice_and_nothing_returned
"""

PLAIN = """
from doteval import Score, foreach

@foreach("i", [(1,)])
def eval_sync(i):
    return Score("i", i)

@foreach("i", [(1,)])
async def eval_async(i):
    return Score("i", i)

class EvalMethods:
    @foreach("i", [(1,)])
    def eval_method(self, i):
        return Score("i", i)
"""


def test_a_plugin_that_wraps_functions_does_not_come_between(in_session: InSession) -> None:
    def body(collected: Collected) -> None:
        for item in collected.items:
            assert item.is_async is (item.name == "eval_async")
            assert item.obj.__code__.co_name == item.name
            setup = EvaluationSetup()
            setup.enter(item)
            called = setup.shared_call.function if setup.shared_call else setup.take_context().set_up().function
            if not item.is_async:
                assert called(i=7).value == 7
            setup.close()

    in_session(body, {"conftest.py": WRAPPED, "eval_it.py": PLAIN})
