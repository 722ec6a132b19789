"""Compares experiments row by row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from doteval.analysis.summary import ErrorsAs
from doteval.core.results import Record, RowStatus
from doteval.metrics import Interval
from doteval.metrics.intervals import Z, as_number, mean_interval

Key = tuple[str, int, int]
"""A row's key, its sample, and its number among the rows with the same key."""


@dataclass(frozen=True, slots=True)
class ExperimentRecords:
    """The records of an experiment by the name of the evaluation. Each iterable is read once."""

    name: str
    evaluations: Mapping[str, Iterable[Record]]


@dataclass(frozen=True, slots=True)
class ChangedRow:
    """A row whose score differs. `failed` says on which side the row failed, where its value counts as False."""

    index: int
    key: str
    sample: int
    before: Any
    after: Any
    failed: tuple[bool, bool] = (False, False)


@dataclass(frozen=True, slots=True)
class ScoreComparison:
    """One score in two experiments, over the `n` results that both have.

    `before` and `after` are the means of these results; `difference` is after - before, and `interval` its 95%
    interval. They are None for scores that are not numbers. `p_value` is that of McNemar's test, for true/false
    scores with one sample a row. `improved` and `worsened` count the results whose score rose or fell, `changed`
    counts all that differ. `rows` holds the changed rows in the order of the dataset, as many as were asked for.
    """

    score: str
    n: int
    before: float | None
    after: float | None
    difference: float | None
    interval: Interval | None
    p_value: float | None
    changed: int
    improved: int
    worsened: int
    rows: tuple[ChangedRow, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class EvaluationComparison:
    """One evaluation in two experiments. `only_before` and `only_after` count the results that only one of them has."""

    evaluation: str
    baseline: str
    experiment: str
    matched: int
    only_before: int
    only_after: int
    scores: tuple[ScoreComparison, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Experiments against a baseline.

    `evaluations` has one entry for each evaluation and experiment. `missing` holds pairs (experiment, evaluation)
    for the evaluations that an experiment, or the baseline, does not have.
    """

    baseline: str
    experiments: tuple[str, ...]
    evaluations: tuple[EvaluationComparison, ...]
    missing: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Judged:
    """The part of a record that a comparison needs. The rest, above all the responses, is not kept in memory."""

    index: int
    failed: bool
    scores: Mapping[str, Any]


def compare(
    baseline: ExperimentRecords,
    *others: ExperimentRecords,
    errors_as: ErrorsAs = "false",
    rows: int = 100,
) -> Comparison:
    """Compare each of the other experiments with the baseline.

    Results are matched by evaluation, row key and sample; equal rows of a dataset are matched in their order. A
    failed row counts as False for the scores that its counterpart or its evaluation has, or is left out with
    ``errors_as="excluded"``; skipped rows are left out. All changed rows are counted, and at most `rows` of them
    are kept for each score.

    The interval of the difference of true/false scores is Bonett and Price's adjusted Wald interval (Adjusted Wald
    confidence interval for a difference of binomial proportions based on paired data, Journal of Educational and
    Behavioral Statistics 37, 2012). That of numbers is a seeded paired bootstrap interval up to 2,000 rows, and the
    normal approximation beyond; so is that of rows with several samples, whose differences are averaged first. The
    p-value is that of McNemar's exact test (Q. McNemar, Psychometrika 12, 1947).
    """
    before = {name: _judged(records, errors_as) for name, records in baseline.evaluations.items()}
    compared: list[EvaluationComparison] = []
    missing: list[tuple[str, str]] = []
    for other in others:
        missing += [(baseline.name, name) for name in other.evaluations if name not in before]
        missing += [(other.name, name) for name in before if name not in other.evaluations]
        for name in before:
            if name in other.evaluations:
                after = _judged(other.evaluations[name], errors_as)
                compared.append(_evaluation(name, baseline.name, before[name], other.name, after, rows))
    return Comparison(
        baseline.name, tuple(other.name for other in others), tuple(compared), tuple(dict.fromkeys(missing))
    )


def _judged(records: Iterable[Record], errors_as: ErrorsAs) -> dict[Key, _Judged]:
    kept = {RowStatus.DONE} if errors_as == "excluded" else {RowStatus.DONE, RowStatus.FAILED}
    seen: Counter[tuple[str, int]] = Counter()
    found: dict[Key, _Judged] = {}
    for record in records:
        row, outcome = record.row, record.outcome
        # Skipped records are counted too, so that they do not shift the numbers of equal rows after them.
        occurrence = seen[row.key, row.sample]
        seen[row.key, row.sample] += 1
        if outcome.status in kept:
            failed = outcome.status is RowStatus.FAILED
            scores = {} if failed else {score.name: score.value for score in outcome.scores}
            found[row.key, row.sample, occurrence] = _Judged(row.index, failed, scores)
    return found


def _evaluation(
    name: str,
    baseline: str,
    before: Mapping[Key, _Judged],
    experiment: str,
    after: Mapping[Key, _Judged],
    rows: int,
) -> EvaluationComparison:
    matched = [key for key in before if key in after]
    names = dict.fromkeys(score for judged in (*before.values(), *after.values()) for score in judged.scores)
    scores = tuple(_score(score, matched, before, after, rows) for score in names)
    return EvaluationComparison(
        name, baseline, experiment, len(matched), len(before) - len(matched), len(after) - len(matched), scores
    )


def _score(
    name: str, matched: Sequence[Key], before: Mapping[Key, _Judged], after: Mapping[Key, _Judged], rows: int
) -> ScoreComparison:
    pairs: list[tuple[Any, Any]] = []
    keys: list[Key] = []
    changed: list[ChangedRow] = []
    for key in matched:
        left, right = before[key], after[key]
        # A failed row counts as False for each score. A row that is done but lacks this score is not compared.
        if (name in left.scores or left.failed) and (name in right.scores or right.failed):
            pair = (left.scores.get(name, False), right.scores.get(name, False))
            pairs.append(pair)
            keys.append(key)
            if left.failed is not right.failed or not _same(*pair):
                changed.append(ChangedRow(left.index, key[0], key[1], *pair, (left.failed, right.failed)))
    figures = _figures(pairs)
    if figures is None:
        shown = tuple(sorted(changed, key=_by_index)[:rows])
        return ScoreComparison(name, len(pairs), None, None, None, None, None, len(changed), 0, 0, shown)
    differences = [right - left for left, right in figures]
    n = len(figures)
    interval, p_value = _certainty(pairs, keys, differences)
    return ScoreComparison(
        score=name,
        n=n,
        before=math.fsum(left for left, _ in figures) / n,
        after=math.fsum(right for _, right in figures) / n,
        difference=math.fsum(differences) / n,
        interval=interval,
        p_value=p_value,
        changed=len(changed),
        improved=sum(difference > 0 for difference in differences),
        worsened=sum(difference < 0 for difference in differences),
        rows=tuple(sorted(changed, key=_by_index)[:rows]),
    )


def _by_index(row: ChangedRow) -> tuple[int, int]:
    return row.index, row.sample


def _same(left: Any, right: Any) -> bool:
    # NaN equals NaN here. Arrays have no single truth value, so their printed forms are compared.
    same = left == right
    return same if isinstance(same, bool) else repr(left) == repr(right)


def _figures(pairs: Sequence[tuple[Any, Any]]) -> list[tuple[float, float]] | None:
    """The pairs as numbers; None if there are no pairs or some value is not a number."""
    try:
        return [(as_number(left), as_number(right)) for left, right in pairs] or None
    except TypeError:
        return None


def _certainty(
    pairs: Sequence[tuple[Any, Any]], keys: Sequence[Key], differences: Sequence[float]
) -> tuple[Interval | None, float | None]:
    by_row: dict[tuple[str, int], list[float]] = {}
    for (key, _, occurrence), difference in zip(keys, differences, strict=True):
        by_row.setdefault((key, occurrence), []).append(difference)
    if len(by_row) < len(differences):
        return mean_interval([math.fsum(row) / len(row) for row in by_row.values()]), None
    if all(isinstance(left, bool) and isinstance(right, bool) for left, right in pairs):
        return _bonett_price(differences.count(1.0), differences.count(-1.0), len(pairs)), mcnemar(
            differences.count(1.0), differences.count(-1.0)
        )
    return mean_interval(differences), None


def mcnemar(improved: int, worsened: int) -> float:
    """The p-value of McNemar's exact two-sided test; 1.0 if no row changed.

    >>> mcnemar(0, 0)
    1.0
    >>> mcnemar(3, 0)
    0.25
    """
    if improved + worsened == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(improved, improved + worsened, 0.5).pvalue)


def _bonett_price(improved: int, worsened: int, n: int) -> Interval:
    # Laplace's correction adds one to both kinds of change and two to the rows. Without it, the interval is
    # too narrow if few rows changed or none did.
    rose, fell = (improved + 1) / (n + 2), (worsened + 1) / (n + 2)
    margin = Z * math.sqrt((rose + fell - (rose - fell) ** 2) / (n + 2))
    centre = rose - fell
    return Interval(max(-1.0, centre - margin), min(1.0, centre + margin), "bonett-price")
