"""Makes the HTML page of a report: one file without scripts, which asks no network for anything."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import doteval
from doteval.analysis.compare import Comparison, MetricComparison, Verdict, power_sentence
from doteval.analysis.comparison_notes import comparison_notes
from doteval.analysis.figures import count, money, names, rows_of
from doteval.analysis.history import HistoryStep, change_sentence
from doteval.core.experiments import Experiment
from doteval.core.wording import counted, duration
from doteval.errors import UsageError
from doteval.report.contents import Against, EvaluationDetail, ReportContents
from doteval.report.templates_environment import excerpt, template_environment

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

MOST_BYTES = 2_000_000
# Lines of a table whose length follows from the evaluation files, at most.
LINES_SHOWN = 400
# Pairs of evaluations, and sentences on them, at most.
_PAIRS_NOTED = 8
_SENTENCES = 40


@dataclass(frozen=True, slots=True)
class PageLimits:
    """How many evaluations a page shows in detail, and how many characters of a row's texts and of a name."""

    details: int
    text: int
    name: int


# The first whose page is small enough is taken.
_LIMITS = (
    PageLimits(8, 2_000, 200),
    PageLimits(8, 600, 200),
    PageLimits(4, 600, 120),
    PageLimits(2, 300, 120),
    PageLimits(0, 200, 60),
    PageLimits(0, 100, 20),
)


def html_page(contents: ReportContents) -> str:
    """Return a report as an HTML page of less than 2 MB; the largest reports show less detail.

    Raises UsageError: the extra "report" is not installed.
    """
    template = _environment().get_template("report.html.jinja")
    charts = _Charts(contents)
    for limits in _LIMITS:
        page = template.render(
            report=contents,
            charts=charts,
            details=contents.details[: limits.details],
            limits=limits,
            version=doteval.__version__,
            labels=names([each.evaluation for each in contents.shown]),
        )
        if len(page.encode()) < MOST_BYTES:
            break
    return page


_SCALES = (("Differences of shares", True), ("Differences of other metrics", False))


@cache
def _environment() -> jinja2.Environment:
    try:
        import matplotlib  # noqa: F401 - as early as possible, before the store is read
    except ImportError as error:
        raise UsageError(
            f"a report as HTML needs {error.name}, which is not installed",
            remedy="Install it: pip install 'doteval[report]'. --format markdown needs nothing.",
        ) from error
    environment = template_environment("doteval.report")
    environment.filters |= {
        "slug": lambda verdict: verdict.name.lower().replace("_", "-"),
        "when": lambda moment: f"{moment:%Y-%m-%d %H:%M} UTC",
    }
    environment.globals |= {
        "power_sentence": power_sentence,
        "change_sentence": change_sentence,
        "rows_of": rows_of,
        "verdict_sentence": verdict_sentence,
        "Verdict": Verdict,
        "spending_lines": spending_lines,
        "comparison_sentences": comparison_sentences,
        "LINES_SHOWN": LINES_SHOWN,
    }
    return environment


def check_installed() -> None:
    """Check that pages can be made. Raises UsageError: the extra "report" is not installed."""
    _environment()


def verdict_sentence(comparison: Comparison) -> str:
    """Say what the verdict on everything rests on."""
    metrics = [metric for _, metric in comparison.metrics]
    if not metrics:
        return "Nothing could be compared."
    parts = []
    for verdict, word in (
        (Verdict.WORSE, "worse"),
        (Verdict.UNDECIDED, "undecided"),
        (Verdict.BETTER, "better"),
        (Verdict.NO_DIFFERENCE, "without a difference that is seen"),
    ):
        number = sum(metric.verdict is verdict for metric in metrics)
        if number:
            parts.append(f"{number:,} {word}")
    return f"Of {counted(len(metrics), 'metric')}: {', '.join(parts)}."


def comparison_sentences(against: Against) -> list[str]:
    """Return what has to be known to read the comparison, each sentence once."""
    found = comparison_notes(
        [(pair.comparison, pair.differences) for pair in against.pairs[:_PAIRS_NOTED]],
        against.comparison.missing,
        against.only_here,
        other=against.names[1],
        several=len(against.pairs) > 1,
    )
    return list(dict.fromkeys(found))[:_SENTENCES]


def spending_lines(against: Against) -> list[tuple[str, str, str, str]]:
    """Return cost, tokens and times of both sides of the pairs that are shown, with the change."""
    before = [pair.baseline_spending for pair in against.pairs]
    after = [pair.spending for pair in against.pairs]
    sums: list[tuple[str, Callable[[Any], float | None], Callable[[Any], str]]] = [
        ("cost", lambda side: side.usage.cost, money),
        ("requests", lambda side: side.usage.requests, count),
        ("tokens in", lambda side: side.usage.prompt_tokens, count),
        ("tokens out", lambda side: side.usage.completion_tokens, count),
    ]
    if len(against.pairs) == 1:
        sums += [
            ("reply, median", lambda side: side.usage.latency.quantile(0.5), duration),
            ("row, mean", lambda side: side.row_seconds, duration),
        ]
    lines = []
    for title, value, shown in sums:
        sides = [_sum([value(side) for side in each]) for each in (before, after)]
        if not any(sides):
            continue
        cells = ["-" if side is None else shown(side) for side in sides]
        old, new = sides
        change = "-" if not old or new is None or cells[0] == cells[1] else f"{new / old - 1:+.1%}"
        lines.append((title, *cells, change))
    return [(title, old, new, change) for title, old, new, change in lines]


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


class _Charts:
    """Draws each chart of a page once, however often the page is made."""

    def __init__(self, contents: ReportContents) -> None:
        self._contents = contents
        self._made: dict[Any, list[tuple[str, str, Markup]]] = {}

    def of(self, detail: EvaluationDetail) -> list[tuple[str, str, Markup]]:
        """The charts of an evaluation: title, caption, SVG."""
        return self._once(detail.shown.evaluation.id, lambda: self._of(detail))

    def course(self) -> list[tuple[str, str, Markup]]:
        """The charts of the run: rows over time, and each worker process."""
        return self._once("course", self._course)

    def differences(self) -> list[tuple[str, str, Markup]]:
        """The chart of the comparison."""
        return self._once("differences", self._differences)

    def _once(self, key: Any, make: Callable[[], list[tuple[str, str, str]]]) -> list[tuple[str, str, Markup]]:
        from markupsafe import Markup

        if key not in self._made:
            # The SVG is our own, and the texts in it are escaped.
            self._made[key] = [(title, caption, Markup(svg)) for title, caption, svg in make()]  # noqa: S704
        return self._made[key]

    def _of(self, detail: EvaluationDetail) -> list[tuple[str, str, str]]:
        from doteval.report import charts

        found = []
        for score in detail.scores:
            if score.histogram is not None:
                svg = charts.histogram_chart(score.histogram, lambda value: f"{value:.3g}", score.name)
            elif score.values:
                svg = charts.values_chart(score)
            else:
                continue
            found.append((excerpt(score.name, 80), counted(score.n, "value"), svg))
        for title, counts, shown in (
            ("Time of a row", detail.seconds, duration),
            ("Time of a reply", detail.replies, duration),
            ("Tokens of a row", detail.tokens, charts.short_count),
        ):
            histogram = counts.histogram
            if histogram is not None:
                half, most = counts.quantile(0.5), counts.quantile(0.95)
                assert half is not None
                assert most is not None
                caption = f"median {shown(half)}, 95% within {shown(most)}"
                found.append((title, caption, charts.histogram_chart(histogram, shown, title.lower())))
        for score_name, metric, steps in detail.history:
            caption = _history_caption(steps)
            title = f"History of {score_name}.{metric}"
            found.append((excerpt(title, 80), excerpt(caption), charts.history_chart(steps, f"{score_name}.{metric}")))
        return found

    def _course(self) -> list[tuple[str, str, str]]:
        from doteval.report import charts

        course = self._contents.timeline
        if course is None:
            return []
        more = " or more" if course.more_workers else ""
        rows = f"rows that ended, {duration(course.width)} a bar" + (
            "; failed rows on top" if any(course.failed) else ""
        )
        workers = (
            f"{counted(len(course.workers), 'worker process', 'worker processes')}{more}; darker where more rows ended"
        )
        return [
            ("Rows", rows, charts.timeline_chart(course)),
            ("Worker processes", workers, charts.workers_chart(course, self._contents.worker_names)),
        ]

    def _differences(self) -> list[tuple[str, str, str]]:
        from doteval.report import charts

        against = self._contents.against
        if against is None:
            return []
        several = len(against.pairs) > 1
        metrics = [
            ((pair.pair.other.name if several else "", metric_name("", metric)), metric)
            for pair in against.pairs
            for metric in pair.comparison.metrics
            if metric.difference is not None
        ]
        caption = f"{against.names[1]} minus {against.names[0]}, with 95% intervals"
        # Shares and other figures have no scale in common.
        groups = [(title, [each for each in metrics if each[1].of_shares is shares]) for title, shares in _SCALES]
        return [(title, excerpt(caption), charts.differences_chart(group)) for title, group in groups if group]


def _history_caption(steps: Sequence[HistoryStep]) -> str:
    changes = [change_sentence(step) for step in steps if step.is_seen]
    if changes:
        return changes[-1]
    if any(step.change is not None for step in steps):
        return f"{counted(len(steps), 'experiment')}, no change beyond chance"
    notes = list(dict.fromkeys(note for step in steps for note in step.notes))
    return f"{counted(len(steps), 'experiment')}, not comparable: {', '.join(notes) or 'no intervals'}"


def metric_name(evaluation: str, metric: MetricComparison) -> str:
    """Return the evaluation, the score and the metric in one line."""
    return " ".join(filter(None, (evaluation, metric.name)))


def file_name(experiment: Experiment, extension: str) -> str:
    """Return the name of a report's file, if none is given.

    >>> from datetime import datetime
    >>> file_name(Experiment(1, "a/b c", datetime(2026, 1, 1)), "html")
    'a-b-c-report.html'
    """
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', experiment.name).strip('-.') or 'experiment'}-report.{extension}"
