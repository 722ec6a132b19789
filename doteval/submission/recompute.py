"""`recompute` computes the stored metrics of an experiment anew, from the stored scores."""

from __future__ import annotations

from collections.abc import Sequence

from doteval.coordination.ended_evaluations import compute_summary
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.errors import NotFoundError
from doteval.store import Store
from doteval.submission.evaluation_files import with_evaluation_files


def recompute(store: Store, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Compute and store the metrics of those evaluations that have ended. Returns these.

    The evaluation files are loaded if no installed package defines a metric. No row runs.

    Raises EvaluationFileError: if such a file is not there or cannot be loaded
    Raises NotFoundError: if nothing defines a metric; those of other evaluations are stored
    Raises UsageError: if the files are in several root directories
    """
    ended = [each for each in evaluations if each.status is not EvaluationStatus.RUNNING]
    incomplete = _incomplete(store, ended)
    if incomplete:

        def again() -> None:
            incomplete[:] = _incomplete(store, [each for each, _ in incomplete])

        with_evaluation_files([each for each, _ in incomplete], again)
    if incomplete:
        unknown = [f"{name} of {each.spec.nodeid}" for each, names in incomplete for name in names]
        raise NotFoundError(
            f"nothing defines the metric {', '.join(unknown)}",
            remedy="Define it in the evaluation file, or install the package that announces it.",
        )
    return ended


def _incomplete(store: Store, evaluations: Sequence[Evaluation]) -> list[tuple[Evaluation, list[str]]]:
    """Compute the metrics of evaluations. Returns those with metrics that are not known here, and their names."""
    computed = [(each, compute_summary(store, each).unknown_metrics) for each in evaluations]
    return [(each, unknown) for each, unknown in computed if unknown]
