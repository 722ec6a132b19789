"""Reads and writes the metric values of evaluations that have ended.

They are stored because reading them must not need the evaluation file, which alone may know a metric.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Row, ScalarSelect, delete, func, insert, select

from doteval.analysis.summary import ErrorsAs, MetricValue, ScoreSummary, Summary
from doteval.core.experiments import Evaluation, EvaluationStatus, Experiment
from doteval.metrics import Interval
from doteval.store.engine import Database
from doteval.store.experiments import moment
from doteval.store.summary_tables import METRIC_VALUE, SUMMARY
from doteval.store.tables import COUNTERS, EVALUATION


class Summaries:
    """Reads and writes the stored metric values of evaluations.

    They hold for one end of the evaluation and for the results that it had: after a retry, or if a late result came,
    they are as good as not stored.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, evaluation: Evaluation, errors_as: ErrorsAs = "false") -> Summary | None:
        """The summary of an evaluation as it was when it ended, None if none is stored for its results."""
        return self.read_all([evaluation], errors_as).get(evaluation.id)

    def read_all(self, evaluations: Sequence[Evaluation], errors_as: ErrorsAs = "false") -> dict[int, Summary]:
        """The summaries of some evaluations by their ids, without those that are not stored for their results."""
        known = self.stored(evaluations)
        query = (
            select(METRIC_VALUE)
            .where(METRIC_VALUE.c.evaluation_id.in_(known), METRIC_VALUE.c.errors_as == errors_as)
            .order_by(METRIC_VALUE.c.evaluation_id, METRIC_VALUE.c.position)
        )
        lines: dict[int, list[Row[Any]]] = {}
        if known:
            with self._database.read() as connection:
                for line in connection.execute(query):
                    lines.setdefault(line.evaluation_id, []).append(line)
        return {each.id: _summary(each, lines.get(each.id, []), errors_as) for each in evaluations if each.id in known}

    def stored(self, evaluations: Iterable[Evaluation]) -> set[int]:
        """The ids of those evaluations that have ended and whose stored values are those of their results."""
        ended = {each.id: each for each in evaluations if each.status is not EvaluationStatus.RUNNING}
        if not ended:
            return set()
        query = select(SUMMARY).where(SUMMARY.c.evaluation_id.in_(ended))
        with self._database.read() as connection:
            lines = connection.execute(query).all()
        return {line.evaluation_id for line in lines if _is_of(line, ended[line.evaluation_id])}

    def headlines(self, experiments: Sequence[Experiment], most: int) -> dict[int, list[tuple[str, MetricValue]]]:
        """The first stored metric of each score, by experiment id, at most `most` an experiment.

        They are those of the first evaluation of an experiment that has ended and has current values.
        """
        first = (
            select(func.min(SUMMARY.c.evaluation_id))
            .join(EVALUATION, EVALUATION.c.id == SUMMARY.c.evaluation_id)
            .where(
                EVALUATION.c.experiment_id.in_([each.id for each in experiments]),
                EVALUATION.c.status != EvaluationStatus.RUNNING.value,
                EVALUATION.c.finished_at == SUMMARY.c.finished_at,
                *(SUMMARY.c[name] == _counter_sum(name) for name in _COUNTED),
            )
            .group_by(EVALUATION.c.experiment_id)
        )
        query = (
            select(METRIC_VALUE, EVALUATION.c.experiment_id)
            .join(EVALUATION, EVALUATION.c.id == METRIC_VALUE.c.evaluation_id)
            .where(
                METRIC_VALUE.c.evaluation_id.in_(first),
                METRIC_VALUE.c.errors_as == "false",
                METRIC_VALUE.c.metric.is_not(None),
            )
            .order_by(METRIC_VALUE.c.evaluation_id, METRIC_VALUE.c.position)
        )
        found: dict[int, dict[str, MetricValue]] = {}
        with self._database.read() as connection:
            for line in connection.execute(query):
                of_experiment = found.setdefault(line.experiment_id, {})
                if len(of_experiment) < most:
                    of_experiment.setdefault(line.score, _value(line))
        return {experiment: list(values.items()) for experiment, values in found.items()}

    def write(self, evaluation: Evaluation, summaries: Sequence[Summary]) -> bool:
        """Store the summaries of an evaluation that has ended, one for each way to count failed rows.

        Returns whether they were stored: not if the evaluation runs again, or has other results by now.
        """
        with self._database.write() as connection:
            self._database.hold(connection, [evaluation.id], alone=True)
            now = connection.execute(
                select(
                    EVALUATION.c.finished_at,
                    *(func.coalesce(func.sum(COUNTERS.c[name]), 0).label(name) for name in _COUNTED),
                )
                .select_from(EVALUATION.outerjoin(COUNTERS, COUNTERS.c.evaluation_id == EVALUATION.c.id))
                .where(EVALUATION.c.id == evaluation.id)
                .group_by(EVALUATION.c.id, EVALUATION.c.finished_at)
            ).one_or_none()
            if now is None or now.finished_at is None or not _is_of(now, evaluation):
                return False
            for table in (METRIC_VALUE, SUMMARY):
                connection.execute(delete(table).where(table.c.evaluation_id == evaluation.id))
            counted = {name: int(getattr(now, name)) for name in _COUNTED}
            connection.execute(
                insert(SUMMARY).values(evaluation_id=evaluation.id, finished_at=now.finished_at, **counted)
            )
            lines = [line for summary in summaries for line in _lines(evaluation.id, summary)]
            if lines:
                connection.execute(insert(METRIC_VALUE), lines)
        return True


_COUNTED = ("done", "failed", "skipped")


def _summary(evaluation: Evaluation, lines: Sequence[Row[Any]], errors_as: ErrorsAs) -> Summary:
    failed = evaluation.counts.failed if errors_as == "false" else 0
    scores = tuple(
        ScoreSummary(name, tuple(_value(line) for line in group if line.metric is not None), failed)
        for name, group in groupby(lines, lambda line: line.score)
    )
    return Summary(evaluation.counts, scores, errors_as)


def _counter_sum(name: str) -> ScalarSelect[int]:
    mine = COUNTERS.c.evaluation_id == EVALUATION.c.id
    return select(func.coalesce(func.sum(COUNTERS.c[name]), 0)).where(mine).correlate(EVALUATION).scalar_subquery()


def _is_of(line: Row[Any], evaluation: Evaluation) -> bool:
    """Whether values that were stored for these counts and this end are those of an evaluation."""
    counts = evaluation.counts
    return evaluation.finished_at == moment(line.finished_at) and (counts.done, counts.failed, counts.skipped) == tuple(
        int(getattr(line, name)) for name in _COUNTED
    )


def _lines(evaluation_id: int, summary: Summary) -> list[dict[str, Any]]:
    values: list[tuple[str, MetricValue | None]] = []
    for score in summary:
        # A score without metrics has one line, which says that there is such a score.
        values += [(score.name, metric) for metric in score.metrics] or [(score.name, None)]
    return [
        {
            "evaluation_id": evaluation_id,
            "errors_as": summary.errors_as,
            "position": position,
            "score": score,
            "metric": metric and metric.name,
            "value": metric and metric.value,
            "n": metric.n if metric else 0,
            "failed": metric.failed if metric else 0,
            "left_out": metric.left_out if metric else 0,
            "low": metric and metric.interval and metric.interval.low,
            "high": metric and metric.interval and metric.interval.high,
            "interval_method": metric and metric.interval and metric.interval.method,
            "without_failed": metric and metric.without_failed,
            "note": metric and metric.note,
        }
        for position, (score, metric) in enumerate(values)
    ]


def _value(line: Row[Any]) -> MetricValue:
    has_interval = line.low is not None and line.high is not None
    return MetricValue(
        name=line.metric,
        value=line.value,
        n=line.n,
        interval=Interval(line.low, line.high, line.interval_method) if has_interval else None,
        without_failed=line.without_failed,
        note=line.note,
        failed=line.failed,
        left_out=line.left_out,
    )
