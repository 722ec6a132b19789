"""Records how evaluations end whose rows are not run, or not all of them, for plain pytest and for submissions."""

from __future__ import annotations

from doteval.coordination.claims import somebody_runs
from doteval.core.experiments import Ending, Evaluation, EvaluationSpec, EvaluationStatus, Experiment
from doteval.store import Store


def end_unrun(store: Store, experiment: Experiment, spec: EvaluationSpec, ending: Ending) -> Evaluation:
    """Record how an evaluation ends that is not run at all. Returns the evaluation as it is now.

    One that has completed or that another process runs stays as it is: its rows are in the store, or on their way.
    """
    known = store.evaluations.find(experiment, spec)
    if known is not None and (known.status is EvaluationStatus.COMPLETED or somebody_runs(store, known)):
        return known
    evaluation = known or store.evaluations.begin(experiment, spec)
    store.evaluations.end(evaluation.id, ending)
    return store.evaluations.by_uid(evaluation.uid)


def end_running(store: Store, evaluation: Evaluation, ending: Ending) -> None:
    """Record how a running evaluation ends that something stopped.

    If all of its rows have a result nevertheless, as before a dataset file was lost, it ends as it would have without.
    """
    if not store.evaluations.complete(evaluation.id):
        store.evaluations.end(evaluation.id, ending, only_from=EvaluationStatus.RUNNING)
