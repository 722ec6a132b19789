"""One experiment: its evaluations, what they cost, what failed, and who ran them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from doteval.analysis.summary import MetricValue, Summary
from doteval.coordination.claims import NOBODY_RUNS_IT
from doteval.core.experiments import Evaluation, EvaluationStatus, Experiment
from doteval.store import Store
from doteval.store.experiment_contents import EVALUATION_SORTS, EvaluationChoice, ExperimentTotals
from doteval.store.price_origin import price_note
from doteval.store.usage import ModelUsage
from doteval.view.matrix import ParameterMatrix, heat, parameter_matrix
from doteval.view.paging import Paging
from doteval.view.visit import Page, Visit, progress_key
from doteval.view.worker_spans import worker_spans

# What the page shows, at most: evaluations, columns of metrics, cells of the matrix, groups of failures, worker
# processes, commands, and notes on figures.
_SHOWN = 100
_METRICS = 6
_CELLS = 5_000
_FAILURES = 20
_WORKERS = 40
_COMMANDS = 10
_NOTES = 12
# The metrics of a running evaluation are computed from all of its scores, up to so many results.
_MOST_COMPUTED = 50_000
# So many of them on a page: they change all the time.
_MOST_RUNNING = 20


@dataclass(frozen=True, slots=True)
class ListedEvaluation:
    """An evaluation in the table. `metrics` are by score and metric; `so_far` if more of its rows are to come."""

    evaluation: Evaluation
    metrics: Mapping[tuple[str, str], MetricValue]
    so_far: bool
    cost: float
    tokens: int


def read(visit: Visit) -> Mapping[str, Any]:
    """Read the page of an experiment."""
    given, store = visit.parameters, visit.store
    experiment = store.experiments.find(given.required("name"))
    status = given.choice("status", [each.value for each in EvaluationStatus], "")
    sorts = [*EVALUATION_SORTS, *(f"-{key}" for key in EVALUATION_SORTS)]
    choice = EvaluationChoice(
        given.text("search"), EvaluationStatus(status) if status else None, given.choice("sort", sorts, "began")
    )
    totals = store.contents.totals(experiment)
    paging = Paging.of(visit, store.contents.count(experiment, choice), _SHOWN)
    evaluations = store.contents.page(experiment, choice, paging.first, _SHOWN)
    summaries = _summaries(visit, evaluations)
    spent = store.contents.spent(evaluations)
    listed = [_listed(each, summaries.get(each.id), *spent.get(each.id, (0.0, 0))) for each in evaluations]
    columns = list(dict.fromkeys(column for each in listed for column in each.metrics))
    running = totals.is_running
    state: Hashable = progress_key(totals.counts, running=running)
    workers = store.contents.workers(experiment, _WORKERS)
    end = totals.active_at or experiment.created_at
    commands = store.provenance.of(experiment)
    usage = visit.compute(
        "usage", ("usage", experiment.id), state, lambda patient: patient.usage.report(experiment), running=running
    )
    visit.live(running=running)
    return {
        "experiment": experiment,
        "labels": store.labels.of(experiment),
        "totals": totals,
        "choice": choice,
        "statuses": list(EvaluationStatus),
        "paging": paging,
        "listed": listed,
        "columns": columns[:_METRICS],
        "columns_left_out": max(0, len(columns) - _METRICS),
        "notes": _notes(evaluations, summaries),
        "matrix": visit.attempt("matrix", lambda: _matrix(visit, experiment)),
        "heat": heat,
        "usage": usage,
        "unpriced": [] if usage is None else _unpriced(usage.models),
        "price_note": None if usage is None else price_note(store, experiment, usage.models),
        "failures": visit.compute(
            "failures",
            ("failures", experiment.id),
            state,
            lambda patient: patient.contents.failures(experiment, _FAILURES),
            running=running,
        )
        if totals.counts.failed
        else [],
        "spans": worker_spans(workers, experiment.created_at, end),
        "most_workers": len(workers) == _WORKERS,
        "commands": commands[:_COMMANDS],
        "abandoned": running and visit.is_abandoned(experiment),
        "NOBODY_RUNS_IT": NOBODY_RUNS_IT,
        "next_commands": _next_commands(visit, experiment.name, totals, columns),
    }


def _matrix(visit: Visit, experiment: Experiment) -> ParameterMatrix | None:
    return visit.calculations.recent(
        ("matrix", experiment.id), lambda: parameter_matrix(visit.store.contents.cells(experiment, _CELLS))
    )


def _summaries(visit: Visit, evaluations: Sequence[Evaluation]) -> dict[int, Summary]:
    """The stored summaries, and those of running evaluations that are small enough to compute."""
    found = visit.store.summaries.read_all(evaluations)
    others = [each for each in evaluations if each.id not in found and 0 < each.counts.finished <= _MOST_COMPUTED]
    # After one that is not there yet, the page waits for no other.
    waits = True
    for each in others[:_MOST_RUNNING]:
        running = each.status is EvaluationStatus.RUNNING
        state = (each.finished_at, progress_key(each.counts, running=running))
        compute = partial(Store.summary, evaluation=each)
        summary = visit.compute("metrics", ("summary", each.id), state, compute, running=running, waits=waits)
        waits = waits and summary is not None
        if summary is not None:
            found[each.id] = summary
    return found


def _listed(evaluation: Evaluation, summary: Summary | None, cost: float, tokens: int) -> ListedEvaluation:
    metrics = {(score.name, metric.name): metric for score in summary or () for metric in score.metrics}
    return ListedEvaluation(evaluation, metrics, evaluation.status is EvaluationStatus.RUNNING, cost, tokens)


def _unpriced(models: Sequence[ModelUsage]) -> list[str]:
    """The models that have used tokens, of which none has a price."""
    return list(dict.fromkeys(each.spent.model for each in models if each.unpriced and each.spent.cost is None))


def _notes(evaluations: Sequence[Evaluation], summaries: Mapping[int, Summary]) -> list[str]:
    """What has to be known to read the figures of the page."""
    found = []
    for each in evaluations:
        summary = summaries.get(each.id)
        notes = [*each.dataset_notes, *(() if summary is None else (*summary.warnings, *summary.notes))]
        found += [f"{each.name}: {note}" for note in notes]
        if len(found) >= _NOTES:
            break
    return found[:_NOTES]


def _next_commands(
    visit: Visit, name: str, totals: ExperimentTotals, columns: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Commands to copy, each with what it does."""
    found = [("show its metrics in the terminal", visit.command("show", name))]
    if totals.is_running:
        found.append(("follow it until it is completed", visit.command("watch", name)))
        found.append(("see where its rows are, and what happens next", visit.command("status", name)))
    if columns:
        found.append(("see how it went from experiment to experiment", visit.command("history", ".".join(columns[0]))))
    if totals.counts.failed:
        found.append(("run its failed rows again", visit.command("retry", name)))
    if not totals.is_running and totals.counts.finished:
        found.append(("write it as one page for others", visit.command("report", name, "-o", "report.html")))
    return found


page = Page("/experiment", "experiment.html.jinja", read)
