"""Reads the rows that a report shows: the worst ones, those that failed, and those that changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from doteval.analysis.compare import MetricComparison
from doteval.analysis.distributions import ScoreDistribution
from doteval.analysis.readable_values import as_text, expected_column, readable, short_value
from doteval.core.experiments import Evaluation
from doteval.core.filters import STATUS, AllOf, Comparator, FieldComparison, FieldKind, FilterField
from doteval.core.redaction import hide_in_text
from doteval.core.results import Record, RowStatus
from doteval.errors import DotEvalError
from doteval.metrics import resolve
from doteval.report.contents import ErrorGroup, Excerpt, FlippedRow, ShownRow
from doteval.store import ErrorCount, Store
from doteval.store.comparisons import EvaluationPair
from doteval.store.selections import SortOrder

# Characters of a text that are kept, and columns of a row.
TEXT_CHARACTERS = 2_000
_COLUMNS = 8
# Different messages of one type of error, and different errors of an evaluation, at most.
_MESSAGES = 5
_ERRORS = 200


def worst_rows(
    store: Store, evaluation: Evaluation, scores: Sequence[ScoreDistribution], limit: int
) -> tuple[str | None, tuple[ShownRow, ...]]:
    """Return the first score that has numbers, and the rows where it is worst; none if all have the best value."""
    chosen = next((each for each in scores if each.least is not None), None)
    if chosen is None:
        return None, ()
    lower = _lower_is_better(store, evaluation, chosen.name)
    bound = chosen.least if lower else chosen.greatest
    if chosen.least == chosen.greatest:
        if chosen.greatest != 0 or lower:
            return None, ()
        # All are equally bad, and each is as bad as any.
        bound = 1.0
    field = FilterField(FieldKind.SCORE, chosen.name)
    worse = FieldComparison(field, Comparator.MORE if lower else Comparator.LESS, bound)
    where = AllOf((FieldComparison(STATUS, Comparator.EQUAL, RowStatus.DONE.value), worse))
    sort = None if _is_true_false(chosen) else SortOrder(field, descending=lower)
    records = store.selections.records(evaluation.id, where, sort=sort, limit=limit)
    return chosen.name, tuple(shown_row(record) for record in records)


def failed_rows(store: Store, evaluation: Evaluation, limit: int) -> tuple[ShownRow, ...]:
    """Return the first rows that failed."""
    where = FieldComparison(STATUS, Comparator.EQUAL, RowStatus.FAILED.value)
    return tuple(shown_row(record) for record in store.selections.records(evaluation.id, where, limit=limit))


def error_groups(store: Store, evaluation: Evaluation) -> tuple[ErrorGroup, ...]:
    """Return the errors of failed rows by type, the most frequent first."""
    found: dict[tuple[str, Any], list[ErrorCount]] = {}
    for error in store.results.errors(evaluation.id, _ERRORS):
        found.setdefault((error.type, error.error_class), []).append(error)
    groups = [
        ErrorGroup(
            kind,
            error_class,
            sum(error.count for error in errors),
            tuple((hide_in_text(error.message), error.count, error.example) for error in errors[:_MESSAGES]),
        )
        for (kind, error_class), errors in found.items()
    ]
    return tuple(sorted(groups, key=lambda group: -group.rows))


def flipped_rows(
    store: Store, pair: EvaluationPair, metric: MetricComparison, names: tuple[str, str]
) -> Iterator[FlippedRow]:
    """Yield the rows that changed most, with the answers of both sides."""
    for change in metric.changed:
        before = _first(store, pair.baseline, change.baseline_index)
        after = _first(store, pair.other, change.index)
        known = after or before
        if known is None:
            continue
        answers = tuple(
            (name, text)
            for name, record in zip(names, (before, after), strict=True)
            if (text := None if record is None else _answer(record)) is not None
        )
        heading = f"{short_value(change.baseline)} → {short_value(change.value)}"
        yield FlippedRow(change, _shown(known, heading, answers))


def shown_row(record: Record) -> ShownRow:
    """Return a record as texts."""
    scores = ", ".join(f"{score.name} {_value(score.value)}" for score in record.outcome.scores)
    answer = _answer(record)
    label = "response" if record.outcome.error is None else "error"
    return _shown(record, scores or record.outcome.status.value, () if answer is None else ((label, answer),))


def _shown(record: Record, heading: str, answers: tuple[tuple[str, Excerpt], ...]) -> ShownRow:
    outcome = record.outcome
    prompt = None if outcome.prompt is None else as_text(outcome.prompt)
    values = {str(name): readable(value) for name, value in record.row.values.items()}
    expected = expected_column(record.row.values)
    # What the prompt says anyway is not said again. That it holds the expected answer says nothing, as with a letter.
    others = [
        (name, _cut(value))
        for name, value in values.items()
        if prompt is None or name == expected or value not in prompt
    ]
    return ShownRow(
        record.row.index,
        record.row.sample,
        heading,
        None if prompt is None else _cut(prompt),
        tuple(others[:_COLUMNS]),
        answers,
    )


def _first(store: Store, evaluation: Evaluation, index: int) -> Record | None:
    return next(iter(store.results.of_row(evaluation.id, index)), None)


def _answer(record: Record) -> Excerpt | None:
    outcome = record.outcome
    if outcome.error is not None:
        return _cut(hide_in_text(f"{outcome.error.type}: {outcome.error.message}"))
    return None if outcome.model_response is None else _cut(as_text(outcome.model_response))


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else _cut(readable(value)).cut(80)


def _cut(text: str) -> Excerpt:
    return Excerpt(text[:TEXT_CHARACTERS], len(text))


def _is_true_false(score: ScoreDistribution) -> bool:
    return bool(score.values) and {value for value, _ in score.values} <= {"true", "false"}


def _lower_is_better(store: Store, evaluation: Evaluation, score: str) -> bool:
    summary = store.summaries.read(evaluation)
    names = [metric.name for each in summary or () if each.name == score for metric in each.metrics]
    for name in names:
        try:
            return resolve(name, evaluation.spec.fingerprint).calculation.better == "lower"
        except DotEvalError:
            # Only the evaluation file knows this metric. The next one may say it.
            continue
    return False
