"""`doteval submit` from an eval file to stored results, with counts of every fixture."""

from __future__ import annotations

import re
import signal
import textwrap
from collections import Counter
from xml.etree import ElementTree

import pytest

from tests.support.project import Project, leftover_processes, wait_until
from tests.support.troubleshooting import assert_shown

EVALUATIONS = """
import time
import pytest
from doteval import Result, foreach
from doteval.evaluators import exact_match

@pytest.fixture(scope="session")
def model():
    tell("+model")
    class Model:
        calls = 0
        def get_stats(self):
            return {"calls": self.calls, "by": {"label": self.calls}}
    model = Model()
    yield model
    tell(f"-model {model.calls}")

@pytest.fixture(scope="module")
def of_module(model):
    tell("+module")
    yield 1
    tell("-module")

@pytest.fixture
def of_row(of_module):
    tell("+row")
    yield object()
    tell("-row")

DATA = [(f"text {i}", "even" if i % 2 == 0 else "odd") for i in range(200)]

@foreach("text,label", DATA)
def eval_counted(text, label, model, of_row):
    model.calls += 1
    tell(f"row {text}")
    time.sleep(0.005)
    number = int(text.split()[1])
    if number == 13:
        raise ValueError("thirteen")
    if number == 14:
        pytest.skip("fourteen")
    return Result(exact_match("even", label), prompt=text, model_response=label, metadata={"n": number})
"""


def together(event: str, source: str) -> str:
    """Each of two worker processes waits for this event in the other, which might otherwise find no rows left."""
    line = f'tell("{event}")'
    wait = f'import time\nwhile open("events.log").read().count("{event}") < 2:\n    time.sleep(0.01)'
    (indent,) = re.findall(rf"^( *){re.escape(line)}$", source, re.MULTILINE)
    return source.replace(line, textwrap.indent(f"{line}\n{wait}", indent).lstrip())


def test_each_worker_process_sets_fixtures_up_once_and_tears_them_down_after_its_last_row(project: Project) -> None:
    project.write("eval_it.py", together("+model", EVALUATIONS))
    done = project.run("submit", "eval_it.py", "--experiment", "first", "--workers", "2")

    counts = project.counts()
    assert counts["+model"] == 2
    assert sum(count for what, count in counts.items() if what.startswith("-model")) == 2
    assert counts["+row"] == counts["-row"] == 200
    assert counts["+module"] == counts["-module"] == 2
    rows = Counter(event.what for event in project.events() if event.what.startswith("row "))
    assert set(rows.values()) == {1}
    assert len(rows) == 200
    for pid in {event.pid for event in project.events()}:
        own = [event.what for event in project.events() if event.pid == pid]
        assert own[0] == "+model"
        assert own[-2:] == ["-module", f"-model {sum(what.startswith('row ') for what in own)}"]

    records = project.records("first")["eval_counted"]
    assert [record.row.index for record in records] == list(range(200))
    assert Counter(record.outcome.status for record in records) == {"done": 198, "failed": 1, "skipped": 1}
    assert records[13].outcome.error is not None
    assert records[13].outcome.error.type == "ValueError"
    assert "thirteen" in records[13].outcome.error.message
    assert "eval_counted" in done.stdout
    assert_shown("loaded-more-often", done.stdout)

    usage = project.json("usage", "first")
    load = next(load for load in usage["fixtures"] if load["fixture"] == "model")
    assert (load["loads"], load["torn_down"]) == (2, 2)
    assert load["stats"] == {"calls": 200, "by": {"label": 200}}
    assert leftover_processes(project.path) == []


def test_submitting_again_runs_only_failed_rows(project: Project) -> None:
    project.write("eval_it.py", EVALUATIONS)
    labels = ("--tag", "base", "--tag", "paper", "--note", "why not")
    project.run("submit", "eval_it.py", "--experiment", "first", "--workers", "2", *labels)
    before = project.counts()
    project.run("submit", "eval_it.py", "--experiment", "first", "--workers", "1")
    again = project.counts() - before
    assert {what for what in again if what.startswith("row ")} == {"row text 13"}

    (listed,) = project.json("list", "--tag", "paper")["experiments"]
    assert (listed["tags"], listed["note"]) == (["base", "paper"], "why not")
    begun = listed["begun_by"]
    assert begun["command"][-len(labels) - 6 :] == [
        "submit",
        "eval_it.py",
        "--experiment",
        "first",
        "--workers",
        "2",
        *labels,
    ]
    assert begun["versions"].keys() == {"python", "doteval", "openai", "pytest", "celery", "genai-prices"}
    shown = project.json("show", "first")
    commands = [each["command"] for each in shown["experiment"]["commands"]]
    assert [each[each.index("--workers") + 1] for each in commands] == ["2", "1"]
    (evaluation,) = shown["evaluations"]
    assert evaluation["code"].keys() == {"eval_it.py"}
    assert len(evaluation["dataset"]) == 32


@pytest.mark.parametrize(
    "moment", [20, *(pytest.param(moment, marks=pytest.mark.slow("another moment")) for moment in (0, 90, 180))]
)
def test_the_same_command_finishes_after_a_killed_submitter(project: Project, moment: int) -> None:
    project.write("eval_it.py", EVALUATIONS)
    with project.started("submit", "eval_it.py", "--experiment", "first", "--workers", "2") as submitter:
        wait_until(lambda: project.done() >= moment and (project.path / ".doteval").exists(), what=f"{moment} rows")
        submitter.send_signal(signal.SIGKILL)
        submitter.wait()
    # Its worker processes notice that it is gone, finish their rows in flight, and exit.
    wait_until(lambda: leftover_processes(project.path) == [], what="the exit of the worker processes")
    stored = project.done()
    before = project.counts()
    project.run("submit", "eval_it.py", "--experiment", "first", "--workers", "2")
    records = project.records("first")["eval_counted"]
    assert [record.row.index for record in records] == list(range(200))
    again = sum(count for what, count in (project.counts() - before).items() if what.startswith("row "))
    # Row 13 failed, so it runs again if it had run before.
    assert 200 - stored <= again <= 200 - stored + 1


def test_ctrl_c_stops_and_says_how_to_continue(project: Project) -> None:
    project.write("eval_it.py", together("+model", EVALUATIONS))
    with project.started("submit", "eval_it.py", "--experiment", "first", "--workers", "2") as submitter:
        wait_until(lambda: project.done() >= 20, what="20 rows")
        submitter.send_signal(signal.SIGINT)
        assert submitter.wait(120) == 130
    assert "doteval submit eval_it.py --experiment first" in project.output()
    counts = project.counts()
    assert counts["+model"] == sum(count for what, count in counts.items() if what.startswith("-model")) == 2
    assert counts["+row"] == counts["-row"] == project.done() < 200
    assert leftover_processes(project.path) == []
    project.run("submit", "eval_it.py", "--experiment", "first", "--workers", "2")
    assert len(project.records("first")["eval_counted"]) == 200


@pytest.mark.parametrize("concurrency", ["50", "8"])
def test_async_and_threaded_rows_overlap_with_their_own_fixtures(project: Project, concurrency: str) -> None:
    define, wait = ("async def", "await asyncio.sleep(0.001)") if concurrency == "50" else ("def", "time.sleep(0.001)")
    project.write(
        "eval_it.py",
        f"""
        import asyncio, threading, time
        import pytest
        from doteval import Score, foreach
        lock, owned, peak = threading.Lock(), set(), [0]

        @pytest.fixture
        def own():
            token = object()
            yield token
            owned.discard(id(token))

        @foreach("i", ((i,) for i in range(1000)))
        {define} eval_it(i, own):
            with lock:
                assert id(own) not in owned
                owned.add(id(own))
                peak[0] = max(peak[0], len(owned))
            deadline = time.monotonic() + 20
            while peak[0] < {concurrency} and time.monotonic() < deadline:
                {wait}
            {wait}
            tell(f"peak {{peak[0]}}")
            return Score("ok", id(own) in owned, ["accuracy"])
        """,
    )
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1", "--concurrency", concurrency)
    records = project.records("x")["eval_it"]
    assert len(records) == 1000
    assert all(record.outcome.scores[0].value is True for record in records)
    assert max(int(what.split()[1]) for what in project.counts() if what.startswith("peak")) == int(concurrency)


def test_many_files_with_conftest_classes_parameters_and_nodes(project: Project) -> None:
    project.write(
        "evals/conftest.py",
        together(
            "+shared",
            """
        import pytest
        @pytest.fixture(scope="session")
        def shared():
            tell("+shared")
            yield "s"
        """,
        ),
    )
    body = """
        import pytest
        from doteval import Score, foreach
        class EvalGroup:
            @pytest.mark.parametrize("size", ["small", "large"])
            @foreach("i", [(i,) for i in range(30)])
            def eval_sized(self, i, size, shared):
                return Score("size", size == "small", ["accuracy"])

        @foreach("i", [(1,), (2,)])
        def eval_plain(i, shared):
            return Score("ok", True, ["accuracy"])
        """
    project.write("evals/eval_one.py", body)
    project.write("evals/deeper/eval_two.py", body)
    project.run("submit", "evals", "--experiment", "all", "--workers", "2")
    shown = project.json("show", "all")
    names = {(evaluation["path"], evaluation["name"]) for evaluation in shown["evaluations"]}
    parts = ("EvalGroup::eval_sized[small]", "EvalGroup::eval_sized[large]", "eval_plain")
    assert names == {(path, name) for path in ("evals/eval_one.py", "evals/deeper/eval_two.py") for name in parts}
    assert project.counts()["+shared"] == 2

    project.run("submit", "evals/eval_one.py::EvalGroup::eval_sized[small]", "--experiment", "one", "--workers", "1")
    project.run("submit", "evals", "-k", "plain", "--experiment", "key", "--workers", "1", "--samples", "1")
    assert [each["name"] for each in project.json("show", "one")["evaluations"]] == ["EvalGroup::eval_sized[small]"]
    assert [len(records) for records in project.records("key").values()] == [1]


@pytest.mark.parametrize("options", ["-n 2", "--dist loadfile -n 2", "-p no:xdist -p no:xdist.looponfail"])
def test_worker_processes_ignore_xdist_options(project: Project, options: str) -> None:
    project.write("eval_it.py", EVALUATIONS.replace("range(200)", "range(4)"))
    project.environment["PYTEST_ADDOPTS"] = options
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    assert project.counts()["+model"] == 1
    assert len(project.records("x")["eval_counted"]) == 4


@pytest.mark.parametrize("settings", ["filterwarnings = error", "addopts = -W error"])
def test_worker_processes_start_where_warnings_are_errors(project: Project, settings: str) -> None:
    project.write("pytest.ini", f"[pytest]\n{settings}\n")
    project.write("eval_it.py", EVALUATIONS.replace("range(200)", "range(4)"))
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    assert len(project.records("x")["eval_counted"]) == 4


def test_each_refused_evaluation_is_one_failure_of_the_junit_file(project: Project) -> None:
    plain = "from doteval import Score, foreach\n@foreach('i', [(1,)])\ndef {}:\n    return Score('ok', True, [])\n"
    project.write("eval_old.py", plain.format("eval_old(i)"))
    project.run("submit", "eval_old.py", "--experiment", "x", "--workers", "1")
    project.write("eval_old.py", plain.format("eval_old(i)") + "# changed\n")
    project.write("eval_lost.py", plain.format("eval_lost(i, absent)"))
    project.write("eval_good.py", plain.format("eval_good(i)"))
    files = ["eval_old.py", "eval_lost.py", "eval_good.py"]
    project.run("submit", *files, "--experiment", "x", "--workers", "1", "--junitxml", "junit.xml", check=2)
    cases = ElementTree.parse(project.path / "junit.xml").iter("testcase")
    assert {case.attrib["name"]: case.findtext("failure") for case in cases} == {
        "eval_lost": "eval_lost.py::eval_lost is failed: fixture 'absent' not found",
        "eval_good": None,
        "thresholds": "eval_old.py::eval_old is not what the experiment began with: eval_old.py has changed",
    }
