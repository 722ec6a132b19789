"""`prune` finds old experiments, and deletes those that nobody runs, or their model calls."""

from __future__ import annotations

from dataclasses import dataclass

from doteval.coordination.claims import is_left_by_all
from doteval.core.experiments import EvaluationStatus, is_ephemeral
from doteval.errors import NotFoundError
from doteval.store import ExperimentOverview, Store


@dataclass(frozen=True, slots=True)
class Prunable:
    """The experiments to delete, and how many others were as old but are kept: running ones, and those with a tag.

    baseline: the name of the baseline if it was as old and is kept.
    """

    experiments: tuple[ExperimentOverview, ...]
    running: int
    tagged: int
    baseline: str | None = None


def find_prunable(store: Store, *, older_than: float | None, unnamed: bool, labelled: bool = False) -> Prunable:
    """Find the experiments that have been idle for more than `older_than` seconds, the oldest first.

    unnamed: only those that the user gave no name.
    labelled: also those with a tag, and the baseline.

    Otherwise a tag keeps an experiment, and the baseline is kept. So is one that a process runs; one whose command was
    killed counts as ended.
    """
    found: list[ExperimentOverview] = []
    running = tagged = 0
    baseline = None
    now = store.now()
    for line in reversed(store.experiments.overviews()):
        if older_than is not None and (now - line.active_at).total_seconds() <= older_than:
            continue
        if unnamed and not is_ephemeral(line.experiment.name):
            continue
        if line.labels.is_baseline and not labelled:
            baseline = line.experiment.name
        elif line.labels.tags and not labelled:
            tagged += 1
        elif is_run(store, line):
            running += 1
        else:
            found.append(line)
    return Prunable(tuple(found), running, tagged, baseline)


def delete_all(store: Store, prunable: Prunable) -> list[str]:
    """Delete the experiments. Returns the names of those that were deleted.

    One that runs again by now is kept, and so is one that has become the baseline.
    """
    deleted = []
    for line in prunable.experiments:
        try:
            experiment = store.experiments.current(line.experiment)
            if not is_run(store, line) and not store.labels.of(experiment).is_baseline:
                store.experiments.delete(experiment.name)
                deleted.append(experiment.name)
        except NotFoundError:
            # Somebody else has deleted it meanwhile.
            continue
    return deleted


def drop_journals(store: Store, prunable: Prunable) -> int:
    """Drop the calls of the experiments, but for those that run again by now. Returns how many calls they were."""
    return sum(
        store.calls.drop(evaluation.id)
        for line in prunable.experiments
        if not is_run(store, line)
        for evaluation in store.evaluations.of(line.experiment)
    )


def is_run(store: Store, line: ExperimentOverview) -> bool:
    """Whether somebody runs evaluations of an experiment now, or is going to."""
    evaluations = store.evaluations.of(line.experiment)
    return any(each.status is EvaluationStatus.RUNNING for each in evaluations) and not is_left_by_all(
        store, line.experiment
    )
