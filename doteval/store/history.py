"""Reads the course of metrics over experiments."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from doteval.analysis.history import HistoryPoint
from doteval.store.experiments import ExperimentOverview
from doteval.store.store import Store


def history_points(
    store: Store,
    experiments: Sequence[ExperimentOverview],
    evaluations: Collection[str] | None = None,
    *,
    containing: str | None = None,
) -> Iterator[HistoryPoint]:
    """Yield the stored metrics of experiments, in their order, for `doteval.analysis.history.series_of`.

    evaluations: only those with one of these names, as ``file::name``; `containing`: only those that contain this text.
    """
    for overview in experiments:
        git = None if overview.begun_by is None else overview.begun_by.git
        for each in store.evaluations.of(overview.experiment):
            name = each.spec.nodeid
            if (evaluations is not None and name not in evaluations) or (
                containing is not None and containing not in name
            ):
                continue
            summary = store.summaries.read(each)
            for score in summary or ():
                for metric in score.metrics:
                    yield HistoryPoint(
                        overview.experiment.name,
                        name,
                        score.name,
                        metric,
                        each.created_at,
                        each.status,
                        each.rows_hash,
                        each.spec.fingerprint,
                        None if git is None else git.short,
                        None if git is None else git.branch,
                        overview.labels.tags,
                        overview.labels.is_baseline,
                    )
