"""Writes judged evaluations for GitHub Actions: annotations, and Markdown for a job's summary or a comment."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from doteval.analysis.judgement import JudgedEvaluation, JudgedOutcome, Judgement
from doteval.cli import terminal
from doteval.core.wording import counted, plain

if TYPE_CHECKING:
    from doteval.analysis.compare import Comparison

# Characters of Markdown for each of the three parts. GitHub takes 65,536 in a comment.
_PART_CHARACTERS = 20_000
_NAME_CHARACTERS = 200
_SENTENCE_CHARACTERS = 2_000

# What Markdown, a table or HTML could take for its own; underscores within words are none.
_SPECIAL = re.compile(r"[^\w\s.,:;/=+()-]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BACKTICKS = re.compile("`+")


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
        f"Experiment {_code(judgement.experiment)}",
        "",
    ]
    if not judgement.passed:
        lines += [*_block([*reasons, *judgement.unassigned]), ""]
    lines += _table(
        ("evaluation", "status", "score", "metric", "value", "95% interval", "n", "failed", "skipped"),
        (row for judged in judgement.evaluations for row in _metrics(judged)),
        left=4,
    )
    warnings = [warning for judged in judgement.evaluations for warning in _warnings(judged)]
    if warnings:
        lines += ["", *_block(warnings)]
    if judgement.comparison is not None and judgement.baseline is not None:
        lines += ["", f"### Compared with {_code(judgement.baseline)}: {judgement.comparison.verdict.value}", ""]
        lines += _table(
            ("evaluation", "score", "verdict", "baseline", "now", "difference", "95% interval", "p"),
            _verdicts(judgement.comparison),
            left=3,
        )
    return "\n".join([*lines, ""])


def _metrics(judged: JudgedEvaluation) -> Iterator[tuple[str, ...]]:
    evaluation = judged.evaluation
    first = (_code(evaluation.spec.nodeid), evaluation.status.value)
    last = (terminal.count(evaluation.counts.failed), terminal.count(evaluation.counts.skipped))
    is_empty = True
    for score in judged.summary:
        for metric in score.metrics:
            is_empty = False
            figures = (terminal.figure(metric.value), terminal.interval(metric.interval), terminal.count(metric.n))
            yield (*first, _code(score.name), _code(metric.name), *figures, *last)
    if is_empty:
        yield (*first, "no scores", "", "-", "-", "0", *last)


def _warnings(judged: JudgedEvaluation) -> list[str]:
    counts = judged.evaluation.counts
    found = list(judged.summary.warnings)
    if counts.pending or counts.total is None:
        found.append(f"{terminal.rows_of(counts)} are finished; the figures are for these")
    return [f"{judged.evaluation.spec.nodeid}: {warning}" for warning in found]


def _verdicts(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    for evaluation, metric in comparison.metrics:
        interval = metric.interval
        yield (
            _code(evaluation.other_evaluation),
            _code(".".join(filter(None, (metric.score, metric.metric)))),
            metric.verdict.value + (" (the drop is allowed)" if metric.tolerated else ""),
            terminal.figure(metric.baseline),
            terminal.figure(metric.value),
            "-" if metric.difference is None else terminal.signed(metric.difference),
            "-" if interval is None else f"{terminal.signed(interval.low)} to {terminal.signed(interval.high)}",
            "-" if metric.adjusted_p_value is None else f"{metric.adjusted_p_value:.2g}",
        )


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, left: int) -> list[str]:
    marks = ["---" if position < left else "---:" for position in range(len(titles))]
    lines, dropped = _fitting(f"| {' | '.join(row)} |" for row in rows)
    more = ["", f"{counted(dropped, 'more line is', 'more lines are')} in `doteval show`."] if dropped else []
    return [f"| {' | '.join(titles)} |", f"| {' | '.join(marks)} |", *lines, *more]


def _block(sentences: Iterable[str]) -> list[str]:
    """The sentences in a code block, in which nothing is Markdown, nobody is mentioned, and no address is a link."""
    lines, dropped = _fitting(
        _cut(line, _SENTENCE_CHARACTERS) for text in sentences for line in plain(text).split("\n")
    )
    longest = max((len(run) for line in lines for run in _BACKTICKS.findall(line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, *lines, *([f"... and {counted(dropped, 'more line')}"] if dropped else []), fence]


def _fitting(lines: Iterable[str]) -> tuple[list[str], int]:
    """The first lines that fit into a part, and how many do not."""
    kept: list[str] = []
    room, dropped = _PART_CHARACTERS, 0
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            dropped += 1
        else:
            kept.append(line)
    return kept, dropped


def _code(name: str) -> str:
    """A name in one cell or line, with all that is Markdown, HTML or a table's as character references.

    No code span, since a backslash before a bar would end its cell.
    """
    text = _cut(plain(" ".join(name.split())), _NAME_CHARACTERS)
    return f"<code>{_SPECIAL.sub(lambda found: f'&#{ord(found[0])};', text)}</code>"


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[:characters]} ..."
