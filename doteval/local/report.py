"""The evaluations section at the end of pytest's output."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from doteval.analysis.summary import MetricValue
from doteval.analysis.thresholds import Threshold
from doteval.core.experiments import EvaluationStatus
from doteval.local.evaluation import LocalReport
from doteval.local.session import StoredReport

_TEXT_COLUMNS = 2
_MESSAGE_SHOWN = 100
# Control characters, which error messages must not send to a terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True, slots=True)
class _Cell:
    text: str
    markup: dict[str, bool] = field(default_factory=dict)


def write_report(
    terminal: pytest.TerminalReporter, stored: Sequence[StoredReport], missed: Sequence[Threshold]
) -> None:
    """Write the results of the evaluations; nothing if none has run.

    `missed` are the thresholds that applied to no evaluation.
    """
    if not stored:
        return
    reports = [each.report for each in stored]
    terminal.write_sep("=", f"experiment {reports[0].evaluation.experiment.name}", bold=True)
    _write_table(terminal, reports)
    for report in reports:
        for warning in report.summary.warnings:
            terminal.write_line(f"WARNING: {report.evaluation.name}: {warning}", red=True, bold=True)
    for report in reports:
        _write_notes(terminal, report)
    for threshold in missed:
        terminal.write_line(f"--fail-under {threshold}: no evaluation has this score", red=True)
    for storage in dict.fromkeys(each.storage for each in stored):
        terminal.write_line(f"results: {storage}")


def _write_table(terminal: pytest.TerminalReporter, reports: Sequence[LocalReport]) -> None:
    with_errors = any(report.evaluation.counts.failed for report in reports)
    titles = ("evaluation", "metric", "value", "95% interval", "n", "errors", "skipped", "time")
    header = [_Cell(title, {"bold": True}) for title in (*titles, *(["without errors"] if with_errors else []))]
    lines = [header, *(cells for report in reports for cells in _cells(report, with_errors=with_errors))]
    widths = [max(len(line[column].text) for line in lines) for column in range(len(header))]
    for line in lines:
        for column, (cell, width) in enumerate(zip(line, widths, strict=True)):
            text = cell.text.ljust(width) if column < _TEXT_COLUMNS else cell.text.rjust(width)
            terminal.write(f"  {text}" if column else text, **cell.markup)
        terminal.write_line("")


def _cells(report: LocalReport, *, with_errors: bool) -> list[list[_Cell]]:
    counts = report.evaluation.counts
    ends = [
        _Cell(str(counts.failed), {"red": True} if counts.failed else {}),
        _Cell(str(counts.skipped), {"yellow": True} if counts.skipped else {}),
        _Cell(_duration(report.seconds)),
    ]
    lines = []
    for score in report.summary:
        for metric in score.metrics:
            apart = metric.without_failed if counts.failed else None
            without = [_Cell("" if apart is None else f"{apart:.4g}")]
            lines.append(
                [
                    _Cell(report.evaluation.name),
                    _Cell(f"{score.name}.{metric.name}"),
                    _Cell(_value(metric), {"bold": True}),
                    _Cell(_interval(metric)),
                    _Cell(str(metric.n)),
                    *ends,
                    *(without if with_errors else []),
                ]
            )
    if not lines:
        lines.append([_Cell(report.evaluation.name), *(_Cell("-"),) * 3, _Cell(str(counts.done)), *ends])
        lines[0] += [_Cell("")] if with_errors else []
    return lines


def _write_notes(terminal: pytest.TerminalReporter, report: LocalReport) -> None:
    name, counts = report.evaluation.name, report.evaluation.counts
    if report.resumed:
        terminal.write_line(f"{name}: resumed, {report.resumed} of {counts.total} rows were done")
    if report.evaluation.status is not EvaluationStatus.COMPLETED and counts.pending:
        reason = f": {report.evaluation.reason}" if report.evaluation.reason else ""
        terminal.write_line(f"{name}: {counts.pending} rows are left{reason}", yellow=True)
    for note in report.summary.notes:
        terminal.write_line(_CONTROL.sub(" ", f"{name}: {note}"), yellow=True)
    for error in report.errors:
        message = _CONTROL.sub(" ", error.message.partition("\n")[0])[:_MESSAGE_SHOWN]
        terminal.write_line(f"{name}: {error.count} × {error.type}: {message} (first in row {error.example})", red=True)


def _value(metric: MetricValue) -> str:
    return "-" if metric.value is None else f"{metric.value:.4g}"


def _interval(metric: MetricValue) -> str:
    return "" if metric.interval is None else f"{metric.interval.low:.4g} to {metric.interval.high:.4g}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s"
