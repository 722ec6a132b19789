"""The evaluations section at the end of pytest's output."""

from __future__ import annotations

import pytest

from doteval.local import LocalExperiment, LocalReport
from doteval.summary import MetricValue


def write_report(terminal: pytest.TerminalReporter, local: LocalExperiment) -> None:
    """Write what the evaluations came to; nothing if none has run."""
    if not local.reports:
        return
    terminal.section(f"experiment {local.experiment_name}", "=")
    rows = [cells for report in local.reports for cells in _cells(report)]
    header = ("evaluation", "metric", "value", "95% interval", "n", "errors", "skipped")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        left = "  ".join(cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True))
        right = "  ".join(cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True))
        terminal.write_line(f"{left}  {right}")
    for report in local.reports:
        if report.resumed:
            counts = report.evaluation.counts
            terminal.write_line(f"{report.evaluation.name}: resumed, {report.resumed} of {counts.total} rows were done")
    terminal.write_line(f"results: {local.storage}")


def _cells(report: LocalReport) -> list[tuple[str, ...]]:
    counts = report.evaluation.counts
    ends = (str(counts.failed), str(counts.skipped))
    values = [
        (f"{score.name}.{metric.name}", _value(metric), _interval(metric), str(metric.n))
        for score in report.summary
        for metric in score.metrics
    ]
    if not values:
        return [(report.evaluation.name, "-", "-", "", str(counts.done), *ends)]
    return [(report.evaluation.name, *cells, *ends) for cells in values]


def _value(metric: MetricValue) -> str:
    return metric.note or "-" if metric.value is None else f"{metric.value:.4g}"


def _interval(metric: MetricValue) -> str:
    return "" if metric.interval is None else f"{metric.interval.low:.4g} to {metric.interval.high:.4g}"
