"""A submitter looks at the store often around the expected end, and seldom otherwise."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from doteval.core.experiments import Counts, Evaluation, EvaluationSpec, EvaluationStatus, Experiment
from doteval.submission.follow import Pace
from tests.support.clock import Clock


def evaluation(total: int | None, done: int) -> Evaluation:
    now = datetime.now(UTC)
    return Evaluation(
        id=1,
        uid="u",
        experiment=Experiment(1, "x", now),
        spec=EvaluationSpec("eval_x.py", "eval_x", ("text",), {}),
        status=EvaluationStatus.RUNNING,
        reason=None,
        counts=Counts(total, done=done),
        created_at=now,
    )


def test_the_end_is_estimated_from_the_rows_that_are_left() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.seconds_from_end([evaluation(100, 0)]) == math.inf
    clock.now += 2
    assert pace.seconds_from_end([evaluation(100, 20)]) == pytest.approx(8)
    clock.now += 1
    assert pace.seconds_from_end([evaluation(100, 60)]) == pytest.approx(1)


def test_the_pace_holds_between_two_groups_of_results() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.seconds_from_end([evaluation(100, 0)])
    clock.now += 1
    pace.seconds_from_end([evaluation(100, 50)])
    clock.now += 0.9
    assert pace.seconds_from_end([evaluation(100, 50)]) == pytest.approx(0.1)
    # An overdue end may never come, so looks become less frequent.
    for overdue in (0.1, 0.4, 6.0):
        clock.now = 1002 + overdue
        assert pace.seconds_from_end([evaluation(100, 50)]) == pytest.approx(overdue)


def test_the_end_is_unknown_while_a_dataset_is_read_or_rows_run_again() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.seconds_from_end([evaluation(None, 0)])
    clock.now += 1
    assert pace.seconds_from_end([evaluation(None, 10)]) == math.inf
    clock.now += 1
    assert pace.seconds_from_end([evaluation(40, 20)]) == pytest.approx(2)
    assert pace.seconds_from_end([evaluation(40, 5)]) == pytest.approx(3.5)
