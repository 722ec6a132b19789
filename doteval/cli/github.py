"""Writes judged evaluations for GitHub Actions: annotations, and Markdown for a job's summary or a comment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from doteval.analysis.figures import count, difference_interval, figure, interval, rows_of, signed
from doteval.analysis.judgement import JudgedEvaluation, JudgedOutcome, Judgement
from doteval.analysis.markdown_text import markdown_block, markdown_code, markdown_table
from doteval.core.wording import plain

if TYPE_CHECKING:
    from doteval.analysis.compare import Comparison


def error_commands(judgement: Judgement, locate: Callable[[str], str]) -> Iterator[str]:
    """Yield a workflow command for each evaluation that does not pass, to be printed as a line.

    GitHub shows ten of them at most.

    locate: returns the path of an evaluation file within the repository.
    """
    for judged in judgement.evaluations:
        if judged.outcome is JudgedOutcome.FAILED:
            spec = judged.evaluation.spec
            yield _error("\n".join(judged.reasons), file=locate(spec.path), title=spec.name)
    if judgement.unassigned:
        yield _error("\n".join(judgement.unassigned), title="doteval")


def _error(message: str, **properties: str) -> str:
    """The workflow command, escaped as the toolkit of GitHub Actions does it."""
    given = ",".join(f"{name}={_data(value, ':,')}" for name, value in properties.items())
    return f"::error {given}::{_data(message)}"


def _data(text: str, more: str = "") -> str:
    # Before anything is plain, since a carriage return ends a line too.
    for character in f"%\r\n{more}":
        text = text.replace(character, f"%{ord(character):02X}")
    return plain(text)


def markdown(judgement: Judgement) -> str:
    """Return the verdict, what does not pass, the metrics and the comparison, in at most 65,536 characters."""
    reasons = [
        each for judged in judgement.evaluations if judged.outcome is JudgedOutcome.FAILED for each in judged.reasons
    ]
    lines = [
        # A workflow finds its own comment by this line.
        "<!-- doteval -->",
        f"## doteval: {'passed' if judgement.passed else 'not passed'}",
        "",
        f"Experiment {markdown_code(judgement.experiment)}",
        "",
    ]
    if not judgement.passed:
        lines += [*markdown_block([*reasons, *judgement.unassigned]), ""]
    lines += markdown_table(
        ("evaluation", "status", "score", "metric", "value", "95% interval", "n", "failed", "skipped"),
        (row for judged in judgement.evaluations for row in _metrics(judged)),
        left=4,
    )
    warnings = [warning for judged in judgement.evaluations for warning in _warnings(judged)]
    if warnings:
        lines += ["", *markdown_block(warnings)]
    if judgement.comparison is not None and judgement.baseline is not None:
        lines += [
            "",
            f"### Compared with {markdown_code(judgement.baseline)}: {judgement.comparison.verdict.value}",
            "",
        ]
        lines += markdown_table(
            ("evaluation", "score", "verdict", "baseline", "now", "difference", "95% interval", "p"),
            _verdicts(judgement.comparison),
            left=3,
        )
    return "\n".join([*lines, ""])


def _metrics(judged: JudgedEvaluation) -> Iterator[tuple[str, ...]]:
    evaluation = judged.evaluation
    first = (markdown_code(evaluation.spec.nodeid), evaluation.status.value)
    last = (count(evaluation.counts.failed), count(evaluation.counts.skipped))
    is_empty = True
    for score in judged.summary:
        for metric in score.metrics:
            is_empty = False
            figures = (figure(metric.value), interval(metric.interval), count(metric.n))
            yield (*first, markdown_code(score.name), markdown_code(metric.name), *figures, *last)
    if is_empty:
        yield (*first, "no scores", "", "-", "-", "0", *last)


def _warnings(judged: JudgedEvaluation) -> list[str]:
    counts = judged.evaluation.counts
    found = list(judged.summary.warnings)
    if counts.pending or counts.total is None:
        found.append(f"{rows_of(counts)} are finished; the figures are for these")
    return [f"{judged.evaluation.spec.nodeid}: {warning}" for warning in found]


def _verdicts(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    for evaluation, metric in comparison.metrics:
        found = metric.interval
        yield (
            markdown_code(evaluation.other_evaluation),
            markdown_code(metric.reference),
            metric.verdict.value + (" (the drop is allowed)" if metric.tolerated else ""),
            figure(metric.baseline),
            figure(metric.value),
            "-" if metric.difference is None else signed(metric.difference),
            difference_interval(found),
            "-" if metric.adjusted_p_value is None else f"{metric.adjusted_p_value:.2g}",
        )
