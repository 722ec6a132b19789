"""Tests each private name of pytest that the row runner relies on.

If a new version of pytest changes one, a test fails and names it.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from _pytest.tmpdir import tmppath_result_key
from packaging.requirements import Requirement

import doteval.pytest_runtime
from doteval.pytest_runtime import pytest_internals as internals
from doteval.pytest_runtime.embedded_session import Collected
from doteval.pytest_runtime.items import EvaluationItem
from doteval.pytest_runtime.row_context import RowItem
from tests.support.private_names import COVERED, private_names, relies_on
from tests.unit.conftest import InSession

FILES = {
    "eval_it.py": """
import pytest
from doteval import Score, foreach

@pytest.fixture(scope="session")
def of_session():
    return object()

@pytest.fixture(scope="module")
def of_module(of_session):
    return object()

@pytest.fixture
def of_function(of_module):
    yield object()

@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("m", [3], scope="module")
@foreach("x", [(1,)])
def eval_it(x, n, m, of_function, tmp_path, caplog, request):
    return Score("ok", True)

class EvalA:
    @foreach("x", [(1,)])
    def eval_method(self, x, of_function):
        return Score("ok", True)
"""
}

Inside = Callable[[Callable[[EvaluationItem], Any]], Any]


@pytest.fixture
def inside(in_session: InSession) -> Inside:
    """Calls a function with the first evaluation, inside of its session."""
    return lambda body: in_session(lambda collected: body(collected.items[0]), FILES)


def definition_of(item: EvaluationItem, name: str) -> Any:
    return item._fixtureinfo.name2fixturedefs[name][-1]


def row_of(item: EvaluationItem, info: Any = None) -> RowItem:
    row: RowItem = RowItem.from_parent(
        item.parent,
        name=item.name,
        originalname=item.originalname,
        callspec=item.callspec,
        fixtureinfo=info or item._fixtureinfo,
    )
    return row


def test_every_private_name_has_a_test() -> None:
    folder = Path(doteval.pytest_runtime.__file__).parent
    used = {name for path in folder.rglob("*.py") for name in private_names(path)}
    # Not pytest's: this name is Python's own, and documented.
    assert used - {"_current_frames"} == COVERED


def test_pytest_is_of_the_pinned_range() -> None:
    (pinned,) = (
        requirement
        for requirement in map(Requirement, importlib.metadata.requires("doteval") or ())
        if requirement.name == "pytest"
    )
    assert pinned.specifier.contains(pytest.__version__), f"pytest {pytest.__version__} is not {pinned}"
    assert any(each.operator == "<" for each in pinned.specifier), "private names need an upper bound"


@relies_on("_setupstate", "SetupState")
def test_the_session_has_one_set_up_state_that_can_be_replaced(inside: Inside) -> None:
    def body(item: EvaluationItem) -> None:
        ours = item.session._setupstate
        assert type(ours) is internals.RowSetupState
        assert isinstance(ours, internals.SetupState)
        assert type(ours).__mro__[1].__module__ == "_pytest.runner"
        # pytest's own hooks read it from the session each time.
        item.ihook.pytest_runtest_setup(item=item)
        assert list(ours.stack) == item.listchain()
        assert ours.is_node_active(item)
        called: list[str] = []
        ours.addfinalizer(lambda: called.append("item"), item)
        ours.addfinalizer(lambda: called.append("session"), item.session)
        item.ihook.pytest_runtest_teardown(item=item, nextitem=None)
        assert called == ["item", "session"]
        assert not ours.stack
        assert not ours.is_node_active(item)

    inside(body)


@relies_on("SetupState")
def test_a_session_can_be_set_up_alone_and_a_failed_set_up_is_kept(inside: Inside) -> None:
    def body(item: EvaluationItem) -> None:
        internals.set_up_session(item.session)
        state = item.session._setupstate
        assert list(state.stack) == [item.session]
        internals.set_up_session(item.session)
        definition_of(item, "of_session").func = lambda: 1 / 0
        # A second set-up raises the same error at once.
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                state.setup(item)
        state.teardown_exact(None)

    inside(body)


@relies_on("_initrequest", "_request", "_pyfuncitem")
def test_an_item_has_one_request_which_can_be_renewed(inside: Inside) -> None:
    def body(item: EvaluationItem) -> None:
        before = item._request
        assert before._pyfuncitem is item
        item.funcargs["left"] = "over"
        internals.renew_request(item)
        assert item._request is not before
        assert item.funcargs == {}
        row = row_of(item)
        # pytest itself calls it while the row is made.
        assert row.row_finalizers == []

    inside(body)


@relies_on("SubRequest", "FixtureDef")
def test_fixtures_get_a_request_with_the_item_and_fill_their_definition(inside: Inside) -> None:
    def body(item: EvaluationItem) -> None:
        internals.set_up_session(item.session)
        definition: Any = definition_of(item, "of_session")
        assert internals.FixtureDef in type(definition).__mro__
        assert (definition.argname, definition.baseid, definition.argnames) == ("of_session", "eval_it.py", ())
        assert definition.cached_result is None
        original = definition.func
        # Async fixtures hold a sync function while they are set up.
        definition.func = lambda: "value"
        item.loading = True
        value = item._request.getfixturevalue("of_session")
        definition.func = original
        assert value == "value"
        # mypy still takes the attribute for None.
        cached: Any = vars(definition)["cached_result"]
        assert (cached[0], cached[2]) == ("value", None)
        assert issubclass(internals.SubRequest, pytest.FixtureRequest)
        definition.finish(item._request)
        assert definition.cached_result is None

    inside(body)


@relies_on("FixtureDef")
def test_an_error_is_cached_as_the_third_part(inside: Inside) -> None:
    def body(item: EvaluationItem) -> None:
        internals.set_up_session(item.session)
        definition = definition_of(item, "of_session")
        definition.func = lambda: 1 / 0
        item.loading = True
        with pytest.raises(ZeroDivisionError):
            item._request.getfixturevalue("of_session")
        assert definition.cached_result[2] is not None
        assert internals.loaded_view(definition) is definition

    inside(body)


@relies_on("_finalizers", "FixtureDef")
def test_a_copy_of_a_definition_is_loaded_and_torn_down_separately(inside: Inside) -> None:
    def body(item: EvaluationItem) -> None:
        definition = definition_of(item, "of_function")
        definition.cached_result, definition._finalizers[:] = ("original", None, None), [lambda: None]
        fresh = internals.fresh_copy(definition)
        assert type(fresh) is type(definition)
        assert fresh.cached_result is None
        assert fresh._finalizers == []
        fresh.addfinalizer(lambda: None)
        assert len(fresh._finalizers) == len(definition._finalizers) == 1
        # Loading changes nothing else in a definition.
        mutable = {name for name, value in vars(fresh).items() if isinstance(value, list | dict | set)}
        assert mutable == {"_finalizers"}

    inside(body)


@relies_on("FixtureDef")
def test_the_fixture_that_a_thread_is_tearing_down_is_found_on_its_stack(inside: Inside) -> None:
    def body(item: EvaluationItem) -> None:
        definition = definition_of(item, "of_session")
        definition.cached_result = ("value", None, None)
        found: list[Any] = []
        definition._finalizers[:] = [lambda: found.append(internals.teardown_under_way(sys._getframe()))]
        request = Mock(node=item)
        definition.finish(request)
        ((frame, of),) = found
        assert of is definition
        assert frame.f_locals["self"] is definition
        assert internals.teardown_under_way(sys._getframe()) is None

    inside(body)


@relies_on("FixtureDef")
def test_a_loaded_view_returns_the_value_and_keeps_no_finalizers(inside: Inside) -> None:
    def body(item: EvaluationItem) -> None:
        definition = definition_of(item, "of_module")
        assert internals.loaded_view(definition) is definition
        definition.cached_result = ("value", None, None)
        view = internals.loaded_view(definition)
        assert view.execute(None) == "value"  # type: ignore[arg-type]
        view.addfinalizer(lambda: None)
        assert definition._finalizers == []
        # pytest calls only these two methods of a definition that has a value.
        assert {name for name in vars(internals.LoadedFixture) if not name.startswith("__")} == {
            "execute",
            "addfinalizer",
        }

    inside(body)


@relies_on("_get_active_fixturedef", "_fixture_defs", "TopRequest", "_ispytest")
def test_look_ups_of_a_row_go_through_row_request_and_take_the_lock(inside: Inside) -> None:
    class Lock:
        taken = 0

        def __enter__(self) -> None:
            self.taken += 1

        def __exit__(self, *_: object) -> None:
            pass

    def body(item: EvaluationItem) -> None:
        internals.set_up_session(item.session)
        lock = Lock()
        request = internals.RowRequest(item, lock)
        item.loading = True
        value = request.getfixturevalue("of_session")
        assert lock.taken == 1
        assert request._fixture_defs["of_session"].cached_result == (value, None, None)
        assert request.getfixturevalue("of_session") is value
        # A fixture that the row has looked up already takes no lock.
        assert lock.taken == 1

    inside(body)


@relies_on("_fixtureinfo", "FuncFixtureInfo")
def test_fixture_info_has_four_parts_and_is_looked_up_by_get(inside: Inside) -> None:
    class Own(dict[str, Any]):
        asked: list[str] = []  # noqa: RUF012

        def get(self, name: str, default: Any = None) -> Any:
            self.asked.append(name)
            return super().get(name, default)

    def body(item: EvaluationItem) -> None:
        shared = internals.fixture_info(item)
        assert shared.argnames == ("n", "m", "of_function", "tmp_path", "caplog", "request")
        assert {"of_session", "of_module", "tmp_path_factory"} <= set(shared.names_closure)
        # A column is not a fixture.
        assert "x" not in shared.names_closure
        info = internals.FuncFixtureInfo(
            argnames=shared.argnames,
            initialnames=shared.initialnames,
            names_closure=shared.names_closure,
            name2fixturedefs=Own(shared.name2fixturedefs),
        )
        row = row_of(item, info)
        assert row._fixtureinfo is info
        item.session._setupstate.setup(item)
        row._request.getfixturevalue("of_session")
        assert Own.asked == ["of_session"]
        item.session._setupstate.teardown_exact(None)

    inside(body)


@relies_on("_scope", "_arg2scope", "Scope")
def test_scopes_and_their_overrides_by_parametrize(inside: Inside) -> None:
    def body(item: EvaluationItem) -> None:
        scopes = {
            name: internals.scope_of(definition_of(item, name), item)
            for name in ("of_session", "of_module", "of_function", "n", "m")
        }
        assert scopes == {
            "of_session": internals.Scope.Session,
            "of_module": internals.Scope.Module,
            "of_function": internals.Scope.Function,
            "n": internals.Scope.Function,
            "m": internals.Scope.Module,
        }
        assert item.callspec._arg2scope["m"] is internals.Scope.Module
        class_scoped = copy.copy(definition_of(item, "of_function"))
        class_scoped._scope = internals.Scope.Class
        # Outside of a class, pytest falls back to the function.
        assert internals.is_per_row(class_scoped, item)

    inside(body)


@relies_on("get_direct_param_fixture_func")
def test_a_value_of_parametrize_is_a_fixture_with_a_known_function(inside: Inside) -> None:
    def body(item: EvaluationItem) -> None:
        constant = {name: internals.is_constant(definition_of(item, name)) for name in ("n", "m", "of_function")}
        assert constant == {"n": True, "m": True, "of_function": False}

    inside(body)


@relies_on("_genfunctions")
def test_functions_are_generated_with_their_parameters(inside: Inside) -> None:
    def body(item: EvaluationItem) -> None:
        parent = item.parent
        assert isinstance(parent, pytest.Module)
        found = list(internals.generate_functions(parent, "eval_it", item.obj))
        assert [each.name for each in found] == ["eval_it[3-1]", "eval_it[3-2]"]
        assert [each.callspec.params for each in found] == [{"m": 3, "n": 1}, {"m": 3, "n": 2}]
        assert {each.originalname for each in found} == {"eval_it"}

    inside(body)


@relies_on("_fixturemanager")
def test_undeclared_names_can_be_looked_up(inside: Inside) -> None:
    def body(item: EvaluationItem) -> None:
        (found,) = internals.fixture_definitions(item, "of_session") or ()
        assert found is definition_of(item, "of_session")
        assert internals.fixture_definitions(item, "nowhere") is None

    inside(body)


@relies_on("resolve_fixture_function")
def test_a_fixture_method_is_bound_to_the_rows_instance(in_session: InSession) -> None:
    source = """
import pytest
from doteval import Score, foreach

class EvalA:
    @pytest.fixture
    def own(self):
        return self

    @foreach("x", [(1,)])
    def eval_method(self, x, own):
        return Score("ok", True)
"""

    def body(collected: Collected) -> None:
        (item,) = collected.items
        definition = definition_of(item, "own")
        function = internals.resolve_fixture_function(definition, item._request)
        assert function() is item.instance

    in_session(body, {"eval_it.py": source})


@relies_on("tmppath_result_key")
def test_tmp_path_reads_the_results_of_the_phases_from_the_stash(inside: Inside) -> None:
    def body(item: EvaluationItem) -> None:
        item.session._setupstate.setup(item)
        for prepared in (True, False):
            row = row_of(item)
            if prepared:
                internals.prepare_stash(row)
                assert row.stash[tmppath_result_key] == {}
            assert row._request.getfixturevalue("tmp_path").is_dir()
            # Without `prepare_stash` the teardown fails.
            with contextlib.nullcontext() if prepared else pytest.raises(KeyError):
                while row.row_finalizers:
                    row.row_finalizers.pop()()
        item.session._setupstate.teardown_exact(None)

    inside(body)


@relies_on("LogCaptureHandler", "caplog_handler_key", "caplog_records_key", "catching_logs")
def test_caplog_reads_the_log_of_the_item_from_the_stash(inside: Inside) -> None:
    def body(item: EvaluationItem) -> None:
        item.session._setupstate.setup(item)
        row = row_of(item)
        assert item.config.pluginmanager.get_plugin("logging-plugin") is not None
        end = internals.start_log_capture(row)
        caplog = row._request.getfixturevalue("caplog")
        logger = logging.getLogger("doteval.tests")
        logger.warning("during")
        end()
        logger.warning("after")
        assert [record.message for record in caplog.records] == ["during"]
        assert "during" in caplog.text
        assert [record.message for record in caplog.get_records("call")] == ["during"]
        item.session._setupstate.teardown_exact(None)

    inside(body)


@relies_on("_use_item_location")
def test_a_skip_may_be_reported_at_the_items_line() -> None:
    skip = internals.skipped("why")
    assert isinstance(skip, pytest.skip.Exception)
    assert skip.msg == "why"
    assert skip._use_item_location is True


@relies_on("FixtureDef")
def test_pytests_own_fixtures_are_known_by_their_module(inside: Inside) -> None:
    def body(item: EvaluationItem) -> None:
        assert internals.is_pytests(definition_of(item, "caplog"))
        assert not internals.is_pytests(definition_of(item, "of_session"))

    inside(body)


@relies_on("default_plugins")
def test_pytests_own_plugins_can_be_imported_before_it_starts() -> None:
    code = """
import sys
from doteval.pytest_runtime.pytest_internals import import_plugins
assert "_pytest.unittest" not in sys.modules
import_plugins()
before = set(sys.modules)
import pytest
code = pytest.main(["--version"])
later = [name for name in set(sys.modules) - before if name.startswith("_pytest.")]
assert (code, later) == (0, []), (code, later)
"""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@relies_on("evaluate_skip_marks", "evaluate_xfail_marks", "_use_item_location", "_request", "FixtureLookupError")
def test_marks_are_evaluated_without_running_the_item(in_session: InSession) -> None:
    source = """
import pytest
from doteval import Score, foreach

@pytest.mark.skipif(True, reason="no GPU")
@foreach("x", [(1,)])
def eval_skipped(x): ...

@pytest.mark.xfail(reason="weak", strict=True, raises=pytest.RaisesExc(ValueError, match="bad"))
@foreach("x", [(1,)])
def eval_expected(x): ...

@foreach("x", [(1,)])
def eval_missing(x, absent): ...
"""

    def body(collected: Collected) -> None:
        skipped, expected, missing = collected.items
        with pytest.raises(pytest.skip.Exception, match="no GPU"):
            internals.raise_marks(skipped)
        internals.raise_marks(expected)
        assert internals.strict_expected_failure(expected) == "weak"
        assert internals.expected_failure(expected, ValueError("bad")) == "weak"
        assert internals.expected_failure(expected, ValueError("good")) is None
        assert internals.strict_expected_failure(missing) is None
        internals.raise_missing_fixture(expected)
        with pytest.raises(pytest.FixtureLookupError) as raised:
            internals.raise_missing_fixture(missing)
        text = internals.lookup_error_text(raised.value)
        assert text.splitlines()[0] == "fixture 'absent' not found"
        assert "available fixtures: " in text

    in_session(body, {"eval_it.py": source})
