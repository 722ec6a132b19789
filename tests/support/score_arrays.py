"""Evaluations as the arrays that a comparison takes, made from plain lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

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
