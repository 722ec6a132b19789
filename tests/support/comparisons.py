"""Stores with experiments to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from doteval.core.experiments import Evaluation, EvaluationSpec, EvaluationStatus
from doteval.core.results import ErrorClass, Outcome, Row, RowError, RowStatus, Score, Usage
from doteval.store import NewResult, Store

FAILED = object()
"""In place of a value: the row failed."""
SKIPPED = object()
PENDING = object()

PATH = "evals/eval_qa.py"


def add_experiment(
    store: Store,
    experiment: str,
    scores: Mapping[str, Sequence[Any]],
    *,
    name: str = "eval_qa",
    metrics: Mapping[str, Sequence[str]] | None = None,
    keys: Sequence[str] | None = None,
    epochs: int = 1,
    topics: Sequence[str] | None = None,
    model: str = "gpt-small",
    code: str = "1",
    status: EvaluationStatus = EvaluationStatus.COMPLETED,
    cost: float | None = 0.5,
) -> Evaluation:
    """An experiment with one evaluation. `scores` has the values of all samples of each row, row by row.

    `metrics` are those of each score, `accuracy` without any; `topics` the values of the column "topic".
    """
    count = max(map(len, scores.values())) // epochs
    names = [f"key{index}" for index in range(count)] if keys is None else list(keys)
    spec = EvaluationSpec(PATH, name, ("question", "topic"), {PATH: code})
    evaluation = store.evaluations.begin(store.experiments.begin(experiment), spec, epochs=epochs)
    rows = [
        Row(index, key, {"question": f"question of {key}", "topic": topics[index] if topics else "any"})
        for index, key in enumerate(names)
    ]
    store.rows.add(evaluation.id, rows)
    store.rows.set_total(evaluation.id, count, complete=True, fingerprint="f")
    new = []
    for row in rows:
        for sample in range(epochs):
            place = row.index * epochs + sample
            values = {score: given[place] for score, given in scores.items()}
            outcome = _outcome(values, metrics or {}, experiment, row, model, cost)
            if outcome is not None:
                new.append(NewResult(evaluation.id, Row(row.index, row.key, row.values, sample), outcome))
    store.results.write(new, None)
    store.evaluations.set_status(evaluation.id, status)
    return next(each for each in store.evaluations.of(evaluation.experiment) if each.id == evaluation.id)


def _outcome(
    values: Mapping[str, Any],
    metrics: Mapping[str, Sequence[str]],
    experiment: str,
    row: Row,
    model: str,
    cost: float | None,
) -> Outcome | None:
    kinds = set(map(id, values.values()))
    if id(PENDING) in kinds:
        return None
    if id(FAILED) in kinds:
        return Outcome(RowStatus.FAILED, 1e9, 0.5, error=RowError("ValueError", "no", ErrorClass.EVALUATION))
    if id(SKIPPED) in kinds:
        return Outcome(RowStatus.SKIPPED, 1e9, 0.0, error=RowError("Skipped", "not today"))
    return Outcome(
        RowStatus.DONE,
        1e9,
        0.25,
        tuple(
            Score(name, value, metrics.get(name, ("accuracy",))) for name, value in values.items() if value is not None
        ),
        prompt=f"Answer {row.key}",
        model_response=f"{experiment} says {row.key}",
        usage=(
            Usage(
                model,
                requests=1,
                attempts=1,
                prompt_tokens=10,
                completion_tokens=3,
                cost=None if cost is None else cost / 10,
            ),
        ),
    )
