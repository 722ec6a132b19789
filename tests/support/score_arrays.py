"""Evaluations as the arrays that a comparison takes, made from plain lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from doteval.analysis.compare import Comparison, compare_evaluations, conclude
from doteval.analysis.score_arrays import EvaluationArrays, ScoreArrayBuilder, digests
from tests.support.comparisons import FAILED, PENDING, SKIPPED


def arrays(
    experiment: str,
    scores: Mapping[str, Sequence[Any]],
    *,
    metrics: Mapping[str, Sequence[str]] | None = None,
    keys: Sequence[str] | None = None,
    clusters: Sequence[str] | None = None,
    samples: int = 1,
    reducer: str | None = None,
    unfinished: str | None = None,
) -> EvaluationArrays:
    """`scores` has the values of all samples of each row, row by row; None is a row without the score."""
    count = max(map(len, scores.values())) // samples
    undone = {kind: numpy.zeros(count, dtype=numpy.int64) for kind in ("failed", "skipped")}
    first = next(iter(scores.values()))
    for place, value in enumerate(first):
        if value is FAILED or value is SKIPPED:
            undone["failed" if value is FAILED else "skipped"][place // samples] += 1
    built = {}
    for name, values in scores.items():
        builder = ScoreArrayBuilder(name)
        kept = [place for place, value in enumerate(values) if not any(value is each for each in _WITHOUT)]
        builder.add(
            [values[place] for place in kept],
            [place // samples for place in kept],
            (metrics or {}).get(name, ("accuracy",)),
        )
        built[name] = builder.build()
    return EvaluationArrays(
        experiment=experiment,
        name="eval_qa",
        indexes=numpy.arange(count),
        keys=digests(keys if keys is not None else map(str, range(count))),
        clusters=None if clusters is None else digests(clusters),
        samples=samples,
        scores=built,
        reducer=reducer,
        unfinished=unfinished,
        **undone,
    )


_WITHOUT = (None, FAILED, SKIPPED, PENDING)


SIDES = ("base", "new")


def comparison_of(
    before: Sequence[Any], after: Sequence[Any], *, max_drop: float | None = None, **settings: Any
) -> Comparison:
    """The comparison of two evaluations with the score "right". `base` and `new` have the settings of one of them."""
    named = {name: settings.pop(name) for name in ("lower_is_better", "changed_rows") if name in settings}
    sides = [
        arrays(
            name, {"right": values}, **settings.get(name, {}), **{k: v for k, v in settings.items() if k not in SIDES}
        )
        for name, values in zip(SIDES, (before, after), strict=True)
    ]
    return conclude([compare_evaluations(sides[0], sides[1], **named)], max_drop=max_drop)


def clustered_values(random: numpy.random.Generator, clusters: int, mean: float) -> tuple[Any, Any]:
    """Draw values of rows in clusters of unequal size: the cluster of each row, and its value."""
    rows = numpy.repeat(numpy.arange(clusters), random.integers(1, 12, clusters))
    # Rows of a cluster have half of their variance in common.
    return rows, mean + random.normal(0, 1, clusters)[rows] + random.normal(0, 1, len(rows))
