"""The thresholds of the commands that wait for rows: one implementation for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from doteval.core.experiments import Ending, EvaluationStatus
from doteval.store import Store
from tests.support.cli import CommandLine
from tests.support.comparisons import FAILED, PENDING, add_experiment

pytestmark = pytest.mark.usefixtures("without_settings")

BEFORE = [True, True, False, True] * 50


@pytest.fixture
def ran(tmp_path: Path) -> str:
    """Experiments that are as good as "base" (0.75), worse (0.5), slightly worse (0.73), and cut short."""
    slightly = [right and row not in (1, 7, 13, 19) for row, right in enumerate(BEFORE)]
    with Store.open(str(tmp_path / "results.db")) as store:
        add_experiment(store, "base", {"right": BEFORE})
        add_experiment(store, "same", {"right": BEFORE})
        add_experiment(store, "worse", {"right": [right and row % 4 > 0 for row, right in enumerate(BEFORE)]})
        add_experiment(store, "slightly", {"right": slightly})
        add_experiment(store, "cut", {"right": [*BEFORE[:-1], PENDING]}, status=EvaluationStatus.CANCELLED)
        add_experiment(store, "failing", {"right": [*BEFORE, FAILED, FAILED, FAILED]})
        store.experiments.begin("empty")
        return store.url


# Neither has rows to run; what they would print and check is the same with rows.
COMMANDS = ["watch", "retry"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("experiment", "options", "failure"),
    [
        ("same", ["--fail-under", "right.accuracy=0.75"], None),
        ("same", ["--fail-under", "right.accuracy=0.7", "--fail-under", "eval_qa:right.accuracy=0.9"], "under 0.9"),
        ("same", ["--fail-under", "wrong.accuracy=0.1"], "no evaluation has this score"),
        ("same", ["--fail-if-worse", "base"], None),
        ("worse", ["--fail-if-worse", "base"], "eval_qa right.accuracy is WORSE (0.750 in the baseline, now 0.500"),
        ("worse", ["--fail-if-worse", "base", "--max-drop", "0.01"], "is WORSE"),
        ("worse", ["--fail-if-worse", "base", "--max-drop", "0.5"], None),
        ("slightly", ["--fail-if-worse", "base"], None),
        ("base", ["--fail-if-worse", "worse"], None),
        ("same", ["--max-errors", "0"], None),
    ],
)
def test_thresholds(
    doteval_: CommandLine, ran: str, command: str, experiment: str, options: list[str], failure: str | None
) -> None:
    found = doteval_(command, experiment, *options, "--storage", ran)
    assert found.code == (0 if failure is None else 1), found.err
    failed = [line for line in found.err.splitlines() if line.startswith("Failed:")]
    assert len(failed) == (0 if failure is None else 1)
    assert failure is None or failure in failed[0]


def test_an_evaluation_that_was_not_completed_never_passes(doteval_: CommandLine, ran: str) -> None:
    for options in (["--fail-under", "right.accuracy=0.1"], ["--fail-if-worse", "worse"]):
        found = doteval_("watch", "cut", *options, "--storage", ran)
        assert found.code == 1
        assert "Failed: evals/eval_qa.py::eval_qa is cancelled, and misses every threshold" in found.err
    assert doteval_("watch", "cut", "--storage", ran).code == 0


def test_too_many_failed_rows(doteval_: CommandLine, ran: str) -> None:
    assert doteval_("watch", "failing", "--max-errors", "3", "--storage", ran).code == 0
    found = doteval_("watch", "failing", "--max-errors", "2", "--storage", ran)
    assert found.code == 1
    assert found.err == "Failed: evals/eval_qa.py::eval_qa: 3 rows have failed, more than the 2 of --max-errors\n"
    with Store.open(ran) as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("failing"))
        store.evaluations.end(evaluation.id, Ending.at_max_errors(1))
    found = doteval_("watch", "failing", "--storage", ran)
    assert (found.code, found.err) == (
        1,
        "Failed: evals/eval_qa.py::eval_qa was stopped: more than 1 row has failed\n",
    )


def test_without_evaluations_nothing_passes(doteval_: CommandLine, ran: str) -> None:
    found = doteval_("watch", "empty", "--fail-under", "right.accuracy=0.1", "--storage", ran)
    assert found.code == 1
    assert "there are no evaluations" in found.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("watch", "same", "--max-drop", "0.1"),
        ("watch", "same", "--fail-under", "right"),
        ("watch", "same", "--fail-if-worse", "nothing"),
        ("retry", "same", "--fail-if-worse", "nothing"),
        ("retry", "same", "--fail-if-worse", "base", "--detach"),
        ("submit", "eval_x.py", "--fail-if-worse", "nothing"),
        ("submit", "eval_x.py", "--fail-under", "right.accuracy=0.5", "--detach"),
        ("submit", "eval_x.py", "--fail-under", "right.accuracy"),
        ("submit", "eval_x.py", "--max-errors", "1", "--detach"),
        ("submit", "eval_x.py", "--max-errors", "-1"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    doteval_: CommandLine, ran: str, arguments: tuple[str, ...]
) -> None:
    found = doteval_(*arguments, "--storage", ran)
    assert found.code == 2
    assert "Failed:" not in found.err
