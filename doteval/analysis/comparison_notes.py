"""Says what has to be known to read the figures of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from doteval.analysis.compare import EvaluationComparison, MetricComparison, MissingEvaluation, power_sentence
from doteval.analysis.figures import method_name
from doteval.core.wording import counted, listed


def comparison_notes(
    evaluations: Iterable[tuple[EvaluationComparison, Sequence[str]]],
    missing: Sequence[MissingEvaluation],
    only_other: Sequence[str],
    *,
    other: str,
    several: bool,
) -> Iterator[str]:
    """Yield how two sides differ, which rows have no result, and what could have been seen, in sentences.

    evaluations: each with how its code, models and rows differ.
    missing, only_other: the evaluations that only the baseline has, and the names of those that only the other one has.
    other: the name of the experiment that is compared with the baseline.
    several: whether sentences say which evaluation they are about.
    """
    for found, differences in evaluations:
        where = f"{found.other_evaluation}: " if several else ""
        yield from differences
        yield from (f"{where}{gap}" for gap in found.gaps)
        for metric in found.metrics:
            name = f"{found.other_evaluation} {metric.name}" if several else metric.name
            yield from (f"{name}: {reason}" for reason in metric.reasons)
            if (power := power_sentence(metric)) is not None:
                yield f"{name}: {power} ({_methods(metric)})"
        yield from (f"{where}only {other} has the score {score}: it is not compared" for score in found.only_other)
    for each in missing:
        yield f"{each.experiment} has no evaluation {each.evaluation}: it is not compared"
    if only_other:
        more = counted(len(only_other), "evaluation that is", "evaluations that are")
        yield f"only {other} has {more} not compared: {listed(only_other)}"


def _methods(metric: MetricComparison) -> str:
    method = method_name(metric.interval.method if metric.interval else None)
    return f"interval: {method}; p: {method_name(metric.test)}"
