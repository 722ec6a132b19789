"""The same files give the same records in plain pytest and on worker processes."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from doteval.core.results import Record
from doteval.store import Store
from tests.plugin.conftest import ALONE, Evaluate
from tests.support.commands import Commands

CONFTEST = """
import functools
import pytest

# As plugins do: pytest-json-report prepares an item in a hook for what it does in the next, and pytest-run-parallel
# puts a function that returns nothing in place of the item's own.

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    item.prepared = {}
    yield
    del item.prepared

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item):
    item.prepared["setup"] = {}
    yield

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item):
    item.prepared["teardown"] = {}
    yield

def pytest_itemcollected(item):
    item.obj = functools.wraps(item.obj)(lambda **arguments: None)

@pytest.fixture(scope="session")
def model(request):
    name = getattr(request, "param", "plain")
    yield lambda text: f"{name}:{text}"

@pytest.fixture(autouse=True)
def always(request):
    # Set on the evaluation, and read by the fixture of a row.
    request.node.always = "setup" in request.node.prepared

@pytest.fixture
def broken_for_some(request):
    yield
    if getattr(request.node, "break_teardown", False):
        raise RuntimeError("at the end")

def pytest_generate_tests(metafunc):
    if "generated" in metafunc.fixturenames:
        metafunc.parametrize("generated", ["x", "y"])
"""

CORPUS = {
    "eval_plain.py": """
import datetime, decimal, numpy, pytest
from PIL import Image
from doteval import Result, Score, batch, foreach
from doteval.evaluators import contains, exact_match, numeric_match

@foreach("question,answer", [(f"{i}+1", i + 1) for i in range(25)])
def eval_sync(question, answer, model):
    response = model(eval(question))
    return Result(
        exact_match(response, f"plain:{answer}"), numeric_match(response[6:], answer, name="as number"),
        prompt=question, model_response=response, metadata={"length": len(response)},
    )

@foreach("i", lambda: ({"i": i} for i in range(40)))
async def eval_async(i, request):
    assert request.node.always
    return Score("parity", "even" if i % 2 == 0 else "odd", [], {"i": i})

@foreach("i, kind", [*enumerate(["raise", "skip", "none", "error", "fine", "assert"]), (9,)])
def eval_troubles(i, kind):
    if kind == "raise":
        raise LookupError(f"no answer to {i}")
    if kind == "skip":
        pytest.skip("not this one")
    if kind == "none":
        return None
    if kind == "error":
        return Result(Score("ok", False, ["accuracy"]), error="the model refused")
    assert kind != "assert", "an assertion"
    return Score("ok", True, ["accuracy"])

@foreach("i", [(i,) for i in range(4)])
def eval_teardowns(i, broken_for_some, request):
    request.node.break_teardown = i == 2
    return Score("ok", True, ["accuracy"])

@foreach("value", [(b"bytes",), ((1, 2),), (decimal.Decimal("1.5"),), (datetime.date(2020, 1, 2),), ({1, 2},), (None,)])
def eval_values(value):
    return Result(Score("same", value, []), prompt=value, metadata={"value": value})

@foreach("small,large", numpy.array([[1, 2**40], [3, 2**41]]))
def eval_numpy_rows(small, large):
    return Score("of numpy", [type(small).__name__, int(small + large)], [])

@foreach("picture", [(Image.frombytes("L", (2, 1), bytes([i, 255])),) for i in range(3)])
def eval_pictures(picture):
    return Score("pixels", [picture.mode, picture.size, list(picture.tobytes()), isinstance(picture, Image.Image)], [])

@batch("texts", [(str(i),) for i in range(11)], batch_size=4)
def eval_batch(texts, model):
    return [Result(contains(model(text), text), prompt=text) for text in texts]

@batch("texts", [(str(i),) for i in range(4)], batch_size=2)
async def eval_bad_batch(texts):
    return [Score("ok", True, ["accuracy"])]
""",
    "eval_parameters.py": """
import pytest
from doteval import ForEach, Result, Score, foreach
from doteval.concurrency import SlidingWindow

rows = [("a",), ("b",), ("c",)]

@pytest.mark.parametrize("model", ["one", "two"], indirect=True)
@pytest.mark.parametrize("size", [1, 2], ids=["small", "large"])
@foreach("text", rows)
def eval_grid(text, model, size):
    return Result(Score("length", len(model(text)) * size, ["mean"]), prompt=model(text))

@foreach("text", rows)
def eval_generated(text, generated):
    return Result(Score("ok", generated == "x", ["accuracy"]), prompt=text + generated)

class EvalGroup:
    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls):
        return []

    @ForEach(concurrency=SlidingWindow(2))("text", rows)
    def eval_method(self, text, shared):
        return Score("own", not hasattr(self, "used"), ["accuracy"])

@pytest.mark.skip(reason="not today")
@foreach("text", rows)
def eval_skipped(text):
    return None

@foreach("text", "rows.csv")
def eval_file(text):
    return Score("ok", text in "xyz", ["accuracy"])
""",
    "eval_main_thread.py": """
import asyncio, os, signal, threading, warnings
from doteval import Score, foreach

rows = [(i,) for i in range(3)]

def alarm(frame=None):
    def ring(*_):
        raise TimeoutError("too slow")
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        threading.Event().wait(120)
    except TimeoutError as error:
        return str(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

@foreach("i", rows)
def eval_alarm(i):
    return Score("ok", alarm() == "too slow" and threading.current_thread() is threading.main_thread(), ["accuracy"])

@foreach("i", rows)
def eval_loop(i):
    return Score("i", asyncio.get_event_loop().run_until_complete(asyncio.sleep(0, i)), ["mean"])

@foreach("i", rows, concurrency=2)
def eval_loop_in_threads(i):
    return Score("i", asyncio.get_event_loop().run_until_complete(asyncio.sleep(0, i)), ["mean"])

@foreach("i", rows, concurrency=2)
def eval_alarm_in_threads(i):
    return Score("ok", alarm() == "too slow", ["accuracy"])

@foreach("i", rows)
async def eval_alarm_async(i):
    return Score("ok", alarm() == "too slow", ["accuracy"])

@foreach("i", rows)
def eval_warns(i):
    if i == 1:
        warnings.warn("careful")
    return Score("ok", True, ["accuracy"])

@foreach("i", rows)
def eval_forks(i):
    child = os.fork()
    if child == 0:
        signal.pause()
    os.kill(child, signal.SIGTERM)
    return Score("signal", -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), ["mean"])
""",
}


def stored(folder: pytest.Pytester, experiment: str) -> dict[str, Any]:
    """All records of an experiment by evaluation, without times, workers and frames of doteval."""
    with Store.open(str(folder.path / ".doteval" / "doteval.db"), create=False) as store:
        found = store.evaluations.of(store.experiments.find(experiment))
        return {
            evaluation.spec.nodeid: (
                evaluation.counts,
                [_without_times(record) for record in store.results.records(evaluation.id)],
                store.results.score_columns(evaluation.id),
            )
            for evaluation in found
        }


def _without_times(record: Record) -> Record:
    error = record.outcome.error
    if error is not None:
        # Only the frames of the evaluation file and the error: its callers differ.
        error = replace(error, traceback=error.traceback.splitlines()[-1] if error.traceback else "")
    return replace(record, worker=None, outcome=replace(record.outcome, started_at=0.0, seconds=0.0, error=error))


def test_plain_pytest_and_submit_store_the_same(
    pytester: pytest.Pytester, run_pytest: Evaluate, commands: Commands
) -> None:
    folder = pytester.mkdir("evals")
    for name, text in {**CORPUS, "conftest.py": CONFTEST, "rows.csv": "text\nx\ny\nz\n"}.items():
        (folder / name).write_text(text)
    pytester.makeini("[pytest]\nfilterwarnings = error::UserWarning\n")
    here = run_pytest("evals", "--experiment", "here")
    assert here.parseoutcomes() == {"passed": 24, "skipped": 1}
    submitted = commands.run(
        "doteval",
        ["submit", "evals", "--experiment", "there", "--workers", "2"],
        directory=pytester.path,
        environment=os.environ,
        timeout=120,
    )
    ours, theirs = stored(pytester, "here"), stored(pytester, "there")
    assert ours.keys() == theirs.keys(), submitted.stdout + submitted.stderr
    for name in ours:
        assert ours[name] == theirs[name], name
    assert sum(len(records) for _, records, _ in ours.values()) > 100

    _, records, _ = theirs["evals/eval_plain.py::eval_numpy_rows"]
    assert [record.outcome.scores[0].value for record in records] == [["int64", 2**40 + 1], ["int64", 2**41 + 3]]
    _, records, _ = theirs["evals/eval_plain.py::eval_pictures"]
    assert [record.outcome.scores[0].value for record in records] == [["L", (2, 1), [i, 255], True] for i in range(3)]

    def of_main_thread(name: str) -> list[Any]:
        _, records, _ = theirs[f"evals/eval_main_thread.py::{name}"]
        return [
            record.outcome.scores[0].value if record.outcome.error is None else record.outcome.error.message
            for record in records
        ]

    assert of_main_thread("eval_alarm") == [True] * 3
    assert of_main_thread("eval_loop") == of_main_thread("eval_loop_in_threads") == [0, 1, 2]
    assert of_main_thread("eval_warns") == [True, "careful", True]
    assert of_main_thread("eval_forks") == [15] * 3
    for name in ("eval_alarm_in_threads", "eval_alarm_async"):
        assert all("concurrency=1" in message for message in of_main_thread(name))


WITH_PLUGINS = """
import pytest
from doteval import Result, Score, foreach

rows = [(i,) for i in range(8)]

@pytest.fixture
def loaded(pytestconfig):
    return {name: pytestconfig.pluginmanager.hasplugin(name) for name in %s}

def answer(i, loaded):
    if i == 2:
        raise LookupError(f"no answer to {i}")
    if i == 3:
        pytest.skip("not this one")
    assert i != 4, "an assertion"
    return Result(Score("ok", i %% 2 == 0, ["accuracy"]), Score("loaded", loaded, []), prompt=i)

@foreach("i", rows)
def eval_sync(i, loaded):
    return answer(i, loaded)

@foreach("i", rows)
async def eval_async(i, loaded):
    return answer(i, loaded)

@foreach("i", rows, concurrency=3)
def eval_threads(i, loaded):
    return answer(i, loaded)
"""

# By the name under which pytest knows the plugin: options as users have them, an evaluation that uses the plugin, and
# what each of its rows comes to: the value of its score, or its status.
PLUGINS: dict[str, tuple[str, str, list[Any]]] = {
    "allure_pytest": (
        "--alluredir=reports",
        """
import allure

@allure.title("Counts")
@foreach("i", rows)
def eval_plugin(i):
    with allure.step("one"):
        allure.attach(str(i), name="i")
    return Score("i", i, ["mean"])
""",
        list(range(8)),
    ),
    "django": (
        "",
        """
@foreach("i", rows)
def eval_plugin(i, settings):
    return Score("i", i, ["mean"])
""",
        ["skipped"] * 8,
    ),
    "freezer": (
        "",
        """
import datetime

@foreach("i", rows)
def eval_plugin(i, freezer):
    freezer.move_to(f"2020-01-0{i + 1}")
    return Score("day", datetime.date.today().isoformat(), [])
""",
        [f"2020-01-0{i + 1}" for i in range(8)],
    ),
    "html": (
        "--html=report.html",
        """
@foreach("i", rows)
def eval_plugin(i, extras):
    extras.append({"i": i})
    return Score("i", i, ["mean"])
""",
        list(range(8)),
    ),
    "pytest_cov": (
        "--cov=. --cov-fail-under=100",
        """
@pytest.mark.no_cover
@foreach("i", rows)
def eval_plugin(i, no_cover):
    return Score("i", i, ["mean"])
""",
        list(range(8)),
    ),
    "pytest_jsonreport": (
        "--json-report",
        """
@foreach("i", rows)
def eval_plugin(i, json_metadata):
    json_metadata["i"] = i
    return Score("i", i, ["mean"])
""",
        list(range(8)),
    ),
    "randomly": (
        "--randomly-seed=7",
        """
@foreach("i", rows)
def eval_plugin(i):
    return Score("i", i, ["mean"])
""",
        list(range(8)),
    ),
    "rerunfailures": (
        "--reruns=2",
        """
tries = []

@pytest.mark.flaky(reruns=3)
@foreach("i", rows)
def eval_plugin(i):
    tries.append(i)
    assert i != 4
    return Score("tries", tries.count(i), ["mean"])
""",
        [1, 1, 1, 1, "failed", 1, 1, 1],
    ),
    "run-parallel": (
        "--parallel-threads=2",
        """
tries = []

@pytest.mark.iterations(2)
@foreach("i", rows)
def eval_plugin(i, num_parallel_threads):
    tries.append(i)
    return Score("tries", tries.count(i), ["mean"])
""",
        [1] * 8,
    ),
    "timeout": (
        "--timeout=50",
        """
@pytest.mark.timeout(40)
@foreach("i", rows)
def eval_plugin(i):
    return Score("i", i, ["mean"])
""",
        list(range(8)),
    ),
}


@pytest.mark.slow("hooks of a conftest.py that do as plugins do")
@pytest.mark.parametrize("plugin", PLUGINS)
def test_plugins_change_no_result(
    plugin: str,
    pytester: pytest.Pytester,
    run_pytest: Evaluate,
    commands: Commands,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(sys.prefix, "plugins")
    assert folder.is_dir(), "make install"
    options, evaluation, expected = PLUGINS[plugin]
    others = [word for name in PLUGINS if name != plugin for word in ("-p", f"no:{name}")]
    monkeypatch.setenv("PYTHONPATH", os.fspath(folder), prepend=os.pathsep)
    # Worker processes start pytest themselves, and have no other arguments.
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join([*ALONE, *others]))
    pytester.makeini(f"[pytest]\naddopts = {options}\n")
    (pytester.path / "eval_x.py").write_text(WITH_PLUGINS % list(PLUGINS) + evaluation)
    run_pytest("eval_x.py", "--experiment", "here")
    submitted = commands.run(
        "doteval",
        ["submit", "eval_x.py", "--experiment", "there", "--workers", "1"],
        directory=pytester.path,
        environment=os.environ,
        timeout=120,
    )
    ours, theirs = stored(pytester, "here"), stored(pytester, "there")
    assert ours == theirs, submitted.stdout + submitted.stderr
    for name in ("eval_sync", "eval_async", "eval_threads"):
        counts, records, _ = theirs[f"eval_x.py::{name}"]
        assert (counts.done, counts.failed, counts.skipped) == (5, 2, 1)
        assert records[7].outcome.scores[1].value == {name: name == plugin for name in PLUGINS}
    _, records, _ = theirs["eval_x.py::eval_plugin"]
    found = [
        record.outcome.scores[0].value if record.outcome.scores else record.outcome.status.value for record in records
    ]
    assert found == expected
