"""`compare`: whether an experiment is better than another, in scripts and notebooks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from doteval.analysis.figures import count, difference_interval, figure, signed
from doteval.analysis.html_tables import html_table, html_text
from doteval.settings import load_settings
from doteval.store import Store

if TYPE_CHECKING:
    from doteval.analysis.compare import Comparison, MetricComparison, Verdict
    from doteval.store.comparisons import ComparedPair


def compare(
    baseline: str,
    other: str,
    *,
    evaluation: str | None = None,
    scores: Collection[str] = (),
    cluster: str | None = None,
    key: str | tuple[str, str] | None = None,
    max_drop: float | None = None,
    lower_is_better: Collection[str] = (),
    storage: str | None = None,
) -> ComparedExperiments:
    """Compare an experiment with a baseline, row by row, as ``doteval compare`` does.

    ::

        comparison = doteval.compare("base", "new")
        print(comparison)
        assert comparison.verdict != "WORSE"
        [(metric.score, metric.difference, metric.interval) for metric in comparison.metrics]
        doteval.compare("ours", "imported", key=("question", "input"))

    baseline, other: experiments, or evaluations of them, as ``NAME`` or ``NAME::EVALUATION``
    evaluation: only evaluations whose ``file::name`` contains this
    scores: only these; all without any
    cluster: rows with the same value in this column are not independent
    key: pair rows by this column, or by one of the baseline and one of the other; by their keys without it
    max_drop: the drop that is allowed, as in 0.01 for one point
    lower_is_better: scores of which lower values are better
    storage: the result store (default ``.doteval/doteval.db``)

    Raises NotFoundError: there is no such store, experiment, evaluation or score
    Raises UsageError: rows do not have the column to cluster or to pair by, or two rows have one value in it
    Raises StoreError: the store cannot be used

    >>> from tempfile import mkdtemp
    >>> from doteval import foreach
    >>> from doteval.evaluators import exact_match
    >>> @foreach("word,capitals", [("yes", "YES"), ("no", "NO")])
    ... def eval_capitals(word, capitals, model):
    ...     return exact_match(model(word), capitals)
    >>> from doteval import run
    >>> store = f"{mkdtemp()}/results.db"
    >>> for name, model in (("base", str.lower), ("new", str.upper)):
    ...     _ = run(eval_capitals, name, storage=store, model=model)
    >>> (metric,) = compare("base", "new", storage=store).metrics
    >>> metric.score, metric.difference
    ('exact_match', 1.0)
    """
    # The arrays take numpy and SciPy, for which `load` need not wait.
    from doteval.store.comparisons import (
        ComparisonOptions,
        compare_pairs,
        compared,
        match_evaluations,
        select_evaluations,
    )

    with Store.open(load_settings(storage=storage).storage, create=False) as store:
        sides = [select_evaluations(store, name, evaluation) for name in (baseline, other)]
        matched = match_evaluations(sides[0], sides[1:])
        options = ComparisonOptions(
            cluster=cluster,
            key=(key, key) if isinstance(key, str) else key,
            max_drop=max_drop,
            scores=scores,
            lower_is_better=lower_is_better,
        )
        found = compare_pairs(store, matched, options)
        pairs = compared(store, matched, found)
        only = tuple(each.spec.nodeid for each in matched.only_others)
    return ComparedExperiments((baseline, other), found, tuple(pairs), only)


class ComparedExperiments:
    """A comparison of two experiments, as `compare` returns it. It holds figures, and no rows.

    names: the baseline and the other one, as they were given.
    comparison: every figure; see `doteval.analysis.compare.Comparison`.
    """

    def __init__(
        self,
        names: tuple[str, str],
        comparison: Comparison,
        pairs: tuple[ComparedPair, ...],
        only_other: tuple[str, ...],
    ) -> None:
        self.names = names
        self.comparison = comparison
        self._pairs = pairs
        self._only_other = only_other

    @property
    def verdict(self) -> Verdict:
        """The verdict on all metrics: ``BETTER``, ``WORSE``, ``NO DIFFERENCE SEEN`` or ``UNDECIDED``."""
        return self.comparison.verdict

    @property
    def metrics(self) -> list[MetricComparison]:
        """The comparison of each metric, with its verdict, difference, interval and p-value."""
        return [metric for _, metric in self.comparison.metrics]

    @property
    def notes(self) -> list[str]:
        """What has to be known to read the figures: other differences, rows without a result, what could be seen."""
        from doteval.analysis.comparison_notes import comparison_notes

        found = comparison_notes(
            [(pair.comparison, pair.differences) for pair in self._pairs],
            self.comparison.missing,
            self._only_other,
            other=self.names[1],
            several=len(self._pairs) > 1,
        )
        return list(dict.fromkeys(found))

    def __repr__(self) -> str:
        metrics = (
            f"{metric.name} {metric.verdict.value} ({figure(metric.baseline)} → {figure(metric.value)})"
            for metric in self.metrics
        )
        return f"<{self._title()}: {'; '.join(metrics) or 'nothing could be compared'}>"

    def _repr_html_(self) -> str:
        """The metrics as a table of HTML, for notebooks."""
        titles = ("evaluation", "score", "metric", "verdict", "baseline", "now", "difference", "95% interval", "p", "n")
        table = html_table(titles, self._lines(), left=4)
        notes = "".join(f"<p>{html_text(note)}</p>" for note in self.notes)
        return f"<p>{html_text(self._title())}</p>{table}{notes}"

    def _title(self) -> str:
        return f"{self.verdict.value}: {self.names[1]} against {self.names[0]}"

    def _lines(self) -> Iterator[tuple[str, ...]]:
        for evaluation, metric in self.comparison.metrics:
            found = metric.interval
            yield (
                *(evaluation.other_evaluation, metric.score, metric.metric),
                metric.verdict.value + (" (the drop is allowed)" if metric.tolerated else ""),
                *(figure(metric.baseline), figure(metric.value)),
                "-" if metric.difference is None else signed(metric.difference),
                difference_interval(found),
                "-" if metric.adjusted_p_value is None else f"{metric.adjusted_p_value:.2g}",
                count(metric.n),
            )
