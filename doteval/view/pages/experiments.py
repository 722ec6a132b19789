"""The first page: all experiments, with their progress and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from doteval.analysis.summary import MetricValue
from doteval.core.experiments import EvaluationStatus
from doteval.core.times import parse_since
from doteval.store import ExperimentFilter, ExperimentOverview, sort_overviews
from doteval.store.experiment_filter import SORT_KEYS
from doteval.view.paging import Paging
from doteval.view.visit import Page, Visit

# Experiments on a page, and scores of each.
_SHOWN = 100
_SCORES = 3


@dataclass(frozen=True, slots=True)
class ListedExperiment:
    """An experiment in the list.

    scores: by name, the first metric of the scores of its first evaluation.
    abandoned: whether it is running by its status, and no process works on it.
    """

    overview: ExperimentOverview
    scores: Sequence[tuple[str, MetricValue]]
    abandoned: bool


def read(visit: Visit) -> Mapping[str, Any]:
    """Read a page of the list."""
    given = visit.parameters
    since, status = given.text("since"), given.choice("status", [each.value for each in EvaluationStatus], "")
    wanted = ExperimentFilter(
        given.texts("tag"),
        None if since is None else parse_since(since),
        EvaluationStatus(status) if status else None,
        given.text("branch"),
        given.text("search"),
    )
    sort = given.choice("sort", [*SORT_KEYS, *(f"-{key}" for key in SORT_KEYS)], "-started")
    everything = visit.calculations.recent("overviews", visit.store.experiments.overviews)
    found = sort_overviews(filter(wanted.matches, everything), sort)
    paging = Paging.of(visit, len(found), _SHOWN)
    shown = found[paging.slice]
    scores = visit.store.summaries.headlines([each.experiment for each in shown], _SCORES)
    baseline = next((each.experiment.name for each in everything if each.labels.is_baseline), None)
    visit.live(running=any(each.status is EvaluationStatus.RUNNING for each in shown))
    return {
        "listed": [
            ListedExperiment(
                each,
                scores.get(each.experiment.id, ()),
                each.status is EvaluationStatus.RUNNING and visit.is_abandoned(each.experiment),
            )
            for each in shown
        ],
        "count": len(found),
        "all": len(everything),
        "paging": paging,
        "sort": sort,
        "wanted": wanted,
        "since": since,
        "statuses": list(EvaluationStatus),
        "baseline": baseline,
        "storage": visit.store.url,
    }


page = Page("/", "experiments.html.jinja", read)
