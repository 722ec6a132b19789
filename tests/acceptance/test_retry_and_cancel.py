"""`doteval retry` and `doteval cancel`, with local workers and with a worker service."""

from __future__ import annotations

import contextlib
import re
import time

import pytest

from doteval.core.results import RowStatus
from tests.support.project import Project, leftover_processes, wait_until

# Some rows fail in one of two ways while the file "broken" exists.
FAILING = """
from pathlib import Path
from doteval import Score, foreach

@foreach("i", [(i,) for i in range(100)], retries=0)
def eval_it(i):
    tell(f"row {i}")
    if i % 10 == 1 and Path("broken").exists():
        raise ConnectionResetError("the other side hung up")
    if i % 10 == 2 and Path("broken").exists():
        raise ValueError("not a number")
    return Score("ok", True, ["accuracy"])
"""

# Every row fails while the file "broken" exists, and takes a while then.
BREAKING = """
import time
from pathlib import Path
from doteval import Score, foreach

@foreach("i", [(i,) for i in range(600)], retries=0)
def eval_it(i):
    if Path("broken").exists():
        time.sleep(0.1)
        raise ValueError("broken")
    return Score("ok", True, ["accuracy"])
"""

SLOW = """
import asyncio, time
from doteval import Score, foreach

@foreach("i", [(i,) for i in range(400)])
async def eval_it(i):
    tell(f"begin {time.time()}")
    await asyncio.sleep(0.2)
    tell("end")
    return Score("ok", True, ["accuracy"])
"""


def rows_run(project: Project) -> set[int]:
    return {int(what.split()[1]) for what in project.counts() if what.startswith("row ")}


def errors(project: Project) -> dict[str, int]:
    (evaluation,) = project.json("show", "x", "--errors")["evaluations"]
    return {error["class"]: error["count"] for error in evaluation["errors"]}


@pytest.fixture
def failed(project: Project) -> Project:
    """A project whose experiment "x" has ten failed rows of each error class."""
    project.write("eval_it.py", FAILING)
    (project.path / "broken").touch()
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    assert errors(project) == {"infrastructure": 10, "evaluation": 10}
    (project.path / "broken").unlink()
    project.log.unlink()
    return project


def test_retry_runs_only_the_selected_rows(failed: Project) -> None:
    failed.run("retry", "x", "--only", "infrastructure", "--workers", "1")
    assert rows_run(failed) == set(range(1, 100, 10))
    assert errors(failed) == {"evaluation": 10}
    failed.run("retry", "x", "--row", "42", "--workers", "1")
    assert rows_run(failed) == {*range(1, 100, 10), 42}
    done = failed.run("retry", "x", "--evaluation", "eval_it", "--workers", "2")
    assert rows_run(failed) == {*range(1, 100, 10), *range(2, 100, 10)}
    assert max(failed.counts().values()) == 1
    assert errors(failed) == {}
    assert "1.000" in done.stdout
    records = failed.records("x")["eval_it"]
    assert [record.row.index for record in records] == list(range(100))
    assert {record.outcome.status for record in records} == {RowStatus.DONE}
    assert failed.json("show", "x")["evaluations"][0]["status"] == "completed"
    assert failed.run("retry", "x").stdout == "No rows to run: none has failed or was left pending\n"
    assert leftover_processes(failed.path) == []


def test_rows_that_fail_again_show_the_new_error_and_a_file_that_is_gone_or_changed_is_refused(failed: Project) -> None:
    """Three behaviours in one test: to make failed rows takes a submission."""
    (failed.path / "broken").touch()
    failed.run("retry", "x", "--only", "evaluation", "--workers", "1")
    assert errors(failed) == {"infrastructure": 10, "evaluation": 10}
    with failed.store() as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("x"))
        attempts = store.attempts.of_row(evaluation.id, 2)
    assert [attempt.replaced for attempt in attempts] == [True, False]
    assert all(attempt.error is not None and attempt.worker is not None for attempt in attempts)

    (failed.path / "broken").unlink()
    failed.log.unlink()
    (failed.path / "eval_it.py").unlink()
    done = failed.run("retry", "x", check=2)
    assert "eval_it.py" in done.stderr
    assert "Traceback" not in done.stderr

    failed.write("eval_it.py", FAILING + "# mended\n")
    done = failed.run("retry", "x", check=2)
    assert "eval_it.py has changed" in done.stderr
    assert "--allow-changed" in done.stderr
    assert errors(failed) == {"infrastructure": 10, "evaluation": 10}
    failed.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1", "--allow-changed")
    assert errors(failed) == {}
    assert rows_run(failed) == {*range(1, 100, 10), *range(2, 100, 10)}


def test_too_many_failed_rows_stop_an_evaluation(project: Project) -> None:
    project.write("eval_it.py", BREAKING)
    (project.path / "broken").touch()
    stopped = project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1", "--max-errors", "3", check=1)
    assert "Failed: eval_it.py::eval_it: " in stopped.stderr
    assert "rows have failed, more than the 3 of --max-errors, and the evaluation was stopped" in stopped.stderr
    (evaluation,) = project.json("show", "x")["evaluations"]
    assert (evaluation["status"], evaluation["reason"]) == ("failed", "more than 3 rows have failed")
    assert evaluation["rows"]["failed"] > 3
    assert evaluation["rows"]["pending"] > 0
    assert "eval_it was stopped: more than 3 rows" in project.run("watch", "x", check=1).stderr
    again = project.run("retry", "x", "--workers", "1", "--max-errors", "0", check=1)
    assert "more than the 0 of --max-errors, and the evaluation was stopped" in again.stderr
    (project.path / "broken").unlink()
    project.run("retry", "x", "--workers", "1", "--max-errors", "0")
    (evaluation,) = project.json("show", "x")["evaluations"]
    assert (evaluation["status"], evaluation["rows"]["done"]) == ("completed", 600)


def test_retry_from_another_directory_with_a_conftest_above(project: Project) -> None:
    project.write("conftest.py", "import pytest\n@pytest.fixture(scope='session')\ndef high():\n    return 1\n")
    project.write("evals/deep/eval_it.py", FAILING.replace("eval_it(i)", "eval_it(i, high)"))
    (project.path / "broken").touch()
    project.run("submit", "evals", "--experiment", "x", "--workers", "1")
    elsewhere = project.path / "elsewhere"
    elsewhere.mkdir()
    other = Project(elsewhere, project.commands, {"DOTEVAL_STORAGE": str(project.path / ".doteval" / "doteval.db")})
    other.run("retry", "x", "--workers", "1")
    assert other.json("show", "x")["evaluations"][0]["rows"]["failed"] == 0


def test_a_service_runs_the_hundred_failed_of_a_thousand_rows(project: Project, broker_url: str) -> None:
    """The benchmark retry_rows measures how long this takes."""
    project.environment["DOTEVAL_BROKER"] = broker_url
    project.write(
        "eval_it.py",
        """
        from pathlib import Path
        from doteval import Score, foreach
        @foreach("i", [(i,) for i in range(1000)], retries=0)
        async def eval_it(i):
            if i % 10 == 1 and Path("broken").exists():
                raise ConnectionResetError("the other side hung up")
            with Path("ran").open("a") as ran:
                ran.write(f"{i}\\n")
            return Score("ok", True, ["accuracy"])
        """,
    )
    (project.path / "broken").touch()
    with project.started("worker", ".", "--processes", "1"):
        project.run("submit", "eval_it.py", "--experiment", "x")
        (evaluation,) = project.json("show", "x")["evaluations"]
        assert evaluation["rows"]["failed"] == 100
        (project.path / "broken").unlink()
        (project.path / "ran").unlink()
        project.run("retry", "x", "--detach")
        wait_until(lambda: project.json("show", "x")["evaluations"][0]["status"] == "completed", what="completion")
    (evaluation,) = project.json("show", "x")["evaluations"]
    assert evaluation["rows"] == {"total": 1000, "done": 1000, "failed": 0, "skipped": 0, "pending": 0}
    assert sorted(map(int, (project.path / "ran").read_text().split())) == list(range(1, 1000, 10))


@pytest.mark.parametrize(
    "broker",
    [
        None,
        pytest.param("redis", marks=pytest.mark.slow("the embedded broker is a Redis, too")),
        pytest.param("rabbitmq", marks=pytest.mark.variant),
    ],
)
def test_cancel_starts_no_further_rows_and_another_command_continues(
    project: Project, broker: str | None, request: pytest.FixtureRequest
) -> None:
    project.write("eval_it.py", SLOW)
    if broker is not None:
        project.environment["DOTEVAL_BROKER"] = request.getfixturevalue(f"{broker}_url")
    arguments = ["submit", "eval_it.py", "--experiment", "x"]
    local = ["--workers", "1"] if broker is None else []
    serving = project.started("worker", ".", "--processes", "1") if broker is not None else contextlib.nullcontext()
    with serving:
        with project.started(*arguments, *local) as submitter:
            wait_until(lambda: project.done() >= 20, what="20 rows")
            done = project.run("cancel", "x", "--reason", "too expensive")
            assert submitter.wait(120) == 0
        how = "doteval retry x, or submit it again"
        assert re.fullmatch(rf"Cancelled 1 evaluation; \d+ rows pending. To continue: {how}\n", done.stdout)
        # A worker process notices within two heartbeats. Waiting for rows in flight alone is not enough: there are none
        # between two rows.
        wait_until(lambda: no_row_for(project, seconds=3), what="the end of the rows in flight")
        ran = project.counts()["end"]
        assert ran == project.done() < 400
        (evaluation,) = project.json("status", "x")["evaluations"]
        assert (evaluation["status"], evaluation["reason"]) == ("cancelled", "too expensive")
        assert evaluation["rows"]["pending"] == 400 - ran
        assert project.run("cancel", "x").stdout == "Nothing was running\n"

        # Both continue it: submit, and retry, which has no failed rows to run here.
        project.run(*(arguments if broker is not None else ["retry", "x"]), *local)
    assert [record.row.index for record in project.records("x")["eval_it"]] == list(range(400))
    assert len(begun(project)) == project.counts()["end"] == 400
    assert project.json("status", "x")["evaluations"][0]["status"] == "completed"


def no_row_for(project: Project, *, seconds: float) -> bool:
    """Whether no row is in flight, and none has begun for so long."""
    times = begun(project)
    return len(times) == project.counts()["end"] and time.time() > max(times) + seconds


def begun(project: Project) -> list[float]:
    """The times at which rows began."""
    return [float(event.what.split()[1]) for event in project.events() if event.what.startswith("begin")]
