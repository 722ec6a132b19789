"""The evaluations section at the end of pytest's output."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import pytest

from doteval.analysis.figures import count, figure, interval
from doteval.analysis.thresholds import Threshold
from doteval.core.experiments import EvaluationStatus
from doteval.core.states import EvaluationEnd
from doteval.core.tables import Cell, Table, output_width
from doteval.core.wording import counted, duration, plain
from doteval.local.evaluation import LocalReport
from doteval.local.progress import write_line
from doteval.local.session import StoredReport


def write_report(
    terminal: pytest.TerminalReporter, stored: Sequence[StoredReport], missed: Sequence[Threshold]
) -> None:
    """Write the results of the evaluations; nothing if none has run.

    `missed` are the thresholds that applied to no evaluation.
    """
    if not stored:
        return
    reports = [each.report for each in stored]
    terminal.write_sep("=", plain(f"experiment {reports[-1].evaluation.experiment.name}"), bold=True)
    _write_table(terminal, reports)
    for report in reports:
        for warning in report.summary.warnings:
            write_line(terminal, f"WARNING: {report.evaluation.name}: {warning}", red=True, bold=True)
    for report in reports:
        _write_notes(terminal, report)
    for threshold in missed:
        write_line(terminal, f"--fail-under {threshold}: no evaluation has this score", red=True)
    if any(report.evaluation.end_cause is EvaluationEnd.INTERRUPTED for report in reports):
        name = reports[-1].evaluation.experiment.name
        write_line(terminal, f"To continue, run the command again with --experiment {shlex.quote(name)}")
    for storage in dict.fromkeys(each.storage for each in stored):
        write_line(terminal, f"results: {storage}")


def write_how_to_see(terminal: pytest.TerminalReporter, experiment: str) -> None:
    """Say how to see the results of an experiment that other processes run, and how to go on."""
    name = shlex.quote(experiment)
    write_line(terminal, f"The results so far are stored; to see them: doteval show {name}")
    write_line(terminal, f"To continue, run the command again with --experiment {name}")


def _write_table(terminal: pytest.TerminalReporter, reports: Sequence[LocalReport]) -> None:
    with_errors = any(report.evaluation.counts.failed for report in reports)
    titles = ("evaluation", "metric", "value", "95% interval", "n", "errors", "skipped", "time")
    table = Table(*titles, *(["without errors"] if with_errors else []), left=2)
    for report in reports:
        _add_rows(table, report, with_errors=with_errors)
    for line in table.lines(output_width(is_terminal=bool(terminal.isatty))):
        for cell in line:
            terminal.write(cell.text, **dict.fromkeys(cell.style.split(), True))
        terminal.write_line("")


def _add_rows(table: Table, report: LocalReport, *, with_errors: bool) -> None:
    counts = report.evaluation.counts
    ends = (
        Cell(count(counts.failed), "red" if counts.failed else ""),
        Cell(count(counts.skipped), "yellow" if counts.skipped else ""),
        duration(report.seconds),
    )
    metrics = [(score, metric) for score in report.summary for metric in score.metrics]
    for score, metric in metrics:
        apart = metric.without_failed if counts.failed else None
        table.add_row(
            report.evaluation.name,
            f"{score.name}.{metric.name}",
            Cell(figure(metric.value), "bold"),
            interval(metric.interval),
            count(metric.n),
            *ends,
            *(["" if apart is None else figure(apart)] if with_errors else []),
        )
    if not metrics:
        table.add_row(report.evaluation.name, "-", "-", "-", count(counts.done), *ends, *([""] if with_errors else []))


def _write_notes(terminal: pytest.TerminalReporter, report: LocalReport) -> None:
    name, counts = report.evaluation.name, report.evaluation.counts
    if report.resumed:
        rows = counted(counts.total or 0, "row was", "rows were")
        write_line(terminal, f"{name}: resumed, {report.resumed:,} of {rows} done")
    status, reason = report.evaluation.status, report.evaluation.reason
    if status is not EvaluationStatus.COMPLETED:
        left = f"{counted(counts.pending, 'row is', 'rows are')} left" if counts.pending else ""
        # How it ended, unless that is plain from what is left.
        ended = status.value if status in (EvaluationStatus.FAILED, EvaluationStatus.SKIPPED) or not left else ""
        what = ", ".join(filter(None, (ended, left)))
        colour = "red" if status is EvaluationStatus.FAILED else "yellow"
        write_line(terminal, f"{name}: {what}: {reason}" if reason else f"{name}: {what}", **{colour: True})
    for note in (*report.evaluation.dataset_notes, *report.summary.notes):
        write_line(terminal, f"{name}: {note}", yellow=True)
    for error in report.errors:
        write_line(terminal, f"{name}: {error}", red=True)
