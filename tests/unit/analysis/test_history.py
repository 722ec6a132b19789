"""The course of a metric: which points compare, and which changes are more than chance explains."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import fmean
from typing import Any

import pytest

from doteval.analysis.history import HistoryPoint, change, series_of, sparkline
from doteval.analysis.summary import MetricValue
from doteval.core.experiments import EvaluationStatus
from doteval.metrics.intervals import Interval, wilson

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def share(right: int, n: int = 200) -> MetricValue:
    return MetricValue("accuracy", right / n, n, wilson(right, n))


def point(day: int, metric: MetricValue, **more: Any) -> HistoryPoint:
    given = {"rows": "r", "code": {"eval_x.py": "1"}, "status": EvaluationStatus.COMPLETED, **more}
    return HistoryPoint(f"night {day}", "eval_x.py::eval_x", "right", metric, BEGAN + timedelta(days=day), **given)


def test_a_series_goes_from_the_oldest_to_the_newest_whatever_the_order_given() -> None:
    points = [point(day, share(100 + day)) for day in (3, 1, 2)] + [replace(point(0, share(1)), evaluation="other")]
    series = series_of(points)
    steps = series["eval_x.py::eval_x", "right", "accuracy"]
    assert [step.point.experiment for step in steps] == ["night 1", "night 2", "night 3"]
    assert [step.compared_with for step in steps] == [None, "night 1", "night 2"]
    assert [step.difference for step in steps] == [None, pytest.approx(0.005), pytest.approx(0.005)]
    assert len(series) == 2


def test_the_step_where_it_broke_is_seen_and_small_ones_are_not() -> None:
    steps = next(iter(series_of([point(day, share(n)) for day, n in enumerate((180, 178, 120, 121))]).values()))
    assert [step.is_seen for step in steps] == [False, False, True, False]
    found = steps[2].change
    assert found is not None
    assert found.difference == pytest.approx(-0.29)
    assert found.low < found.difference < found.high < 0


def test_points_on_other_rows_do_not_compare() -> None:
    points = [
        point(0, share(180)),
        point(1, share(50), rows="other"),
        point(2, share(179), code={"eval_x.py": "2"}),
        point(3, share(10), rows=None),
        point(4, share(90), status=EvaluationStatus.CANCELLED, code={"eval_x.py": "2"}),
    ]
    steps = next(iter(series_of(points).values()))
    assert [step.compared_with for step in steps] == [None, None, "night 0", None, "night 2"]
    assert [step.notes for step in steps] == [
        (),
        ("other rows",),
        ("other rows", "other code"),
        ("rows not known", "other code"),
        ("other rows", "other code", "cancelled"),
    ]


def test_a_point_without_a_value_is_passed_over() -> None:
    steps = next(
        iter(series_of([point(0, share(9)), point(1, MetricValue("accuracy", None, 0)), point(2, share(9))]).values())
    )
    assert [(step.compared_with, step.difference) for step in steps] == [(None, None), (None, None), ("night 0", 0.0)]


def test_without_intervals_there_is_a_difference_and_no_verdict() -> None:
    bare = MetricValue("accuracy", 0.5, 9)
    assert change(bare, share(150)) is None
    steps = next(iter(series_of([point(0, bare), point(1, share(150))]).values()))
    assert (steps[1].difference, steps[1].is_seen) == (0.25, False)


def test_the_interval_of_a_change_is_that_of_newcombe() -> None:
    # R. G. Newcombe, Interval estimation for the difference between independent proportions, Statistics in Medicine 17,
    # 1998, table II, contrast (a), method 10: 56/70 against 48/80.
    old = MetricValue("accuracy", 48 / 80, 80, wilson(48, 80))
    new = MetricValue("accuracy", 56 / 70, 70, wilson(56, 70))
    found = change(old, new)
    assert found is not None
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_false_alarms_are_rare() -> None:
    draw = random.Random(7)

    def run() -> MetricValue:
        return share(sum(draw.random() < 0.8 for _ in range(100)), 100)

    alarms = []
    for _ in range(1_000):
        found = change(run(), run())
        assert found is not None
        alarms.append(found.is_seen)
    assert fmean(alarms) < 0.07


@pytest.mark.parametrize(
    ("values", "shown"),
    [([], ""), ([None, None], "··"), ([0.5], "▄"), ([1, 1, 1], "▄▄▄"), ([0, 10, 5], "▁█▅"), ([-1, None, -3], "█·▁")],
)
def test_sparklines(values: list[float | None], shown: str) -> None:
    assert sparkline(values) == shown


def test_an_interval_on_one_side() -> None:
    old, new = (MetricValue("mean", value, 9, Interval(value, value, "normal")) for value in (1.0, 1.5))
    assert change(old, new) == (0.5, 0.5, 0.5)
