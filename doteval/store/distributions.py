"""Reads how scores, times and tokens of an evaluation are distributed, in windows of rows and without their content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Text, and_, case, false, func, select, type_coerce

from doteval.analysis.distributions import LogCounts, NumberCounts, ScoreDistribution, TimelineCounts
from doteval.core.json_codec import decode, escape_text
from doteval.core.results import RowStatus
from doteval.store.engine import Database
from doteval.store.index_windows import index_windows
from doteval.store.statements import driver_lines
from doteval.store.tables import RESULT, SCORE, USAGE, WORKER
from doteval.store.usage import KEPT

# Scores of an evaluation, and labels of a score, at most; both come from evaluation files and may be any number.
_SCORES = 6
_LABELS = 10
_TRUE_FALSE = ("true", "false")


class Distributions:
    """Reads distributions. Memory does not grow with the number of rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def scores(self, evaluation_id: int) -> list[ScoreDistribution]:
        """The distributions of the first scores of an evaluation, in their order."""
        names = (
            select(
                SCORE.c.name,
                func.count().label("n"),
                func.count(SCORE.c.number).label("numbers"),
                func.min(SCORE.c.number).label("least"),
                func.max(SCORE.c.number).label("greatest"),
                func.sum(case((SCORE.c.value.in_(_TRUE_FALSE), 1), else_=0)).label("true_false"),
            )
            .where(SCORE.c.evaluation_id == evaluation_id)
            .group_by(SCORE.c.name)
            .order_by(func.min(SCORE.c.position), func.count().desc(), SCORE.c.name)
            .limit(_SCORES)
        )
        with self._database.read() as connection:
            lines = connection.execute(names).all()
        return [self._score(evaluation_id, line) for line in lines]

    def add_times(self, evaluation_id: int, seconds: LogCounts, timeline: TimelineCounts) -> None:
        """Add how long each row took that has run, and when it ended."""
        query = select(RESULT.c.worker_id, RESULT.c.started_at, RESULT.c.seconds, RESULT.c.status).where(
            RESULT.c.evaluation_id == evaluation_id,
            RESULT.c.status != RowStatus.SKIPPED.value,
            RESULT.c.retry == false(),
        )
        for first, end in index_windows(self._database, evaluation_id):
            with self._database.read() as connection:
                lines = driver_lines(connection, query.where(RESULT.c.row_index >= first, RESULT.c.row_index < end))
            seconds.add([line[2] for line in lines])
            timeline.add(
                [line[1] + line[2] for line in lines],
                [line[3] == RowStatus.FAILED.value for line in lines],
                [line[0] for line in lines],
            )

    def tokens(self, evaluation_id: int) -> LogCounts:
        """How many tokens the results took that asked a model."""
        counts = LogCounts(1.0)
        query = (
            select(func.sum(USAGE.c.prompt_tokens + USAGE.c.completion_tokens))
            .where(USAGE.c.evaluation_id == evaluation_id, KEPT)
            .group_by(USAGE.c.row_index, USAGE.c.sample)
        )
        for first, end in index_windows(self._database, evaluation_id):
            with self._database.read() as connection:
                lines = driver_lines(connection, query.where(USAGE.c.row_index >= first, USAGE.c.row_index < end))
            # In PostgreSQL the sum of 64-bit integers is a Decimal.
            counts.add([float(line[0]) for line in lines if line[0]])
        return counts

    def worker_names(self, ids: Sequence[int]) -> dict[int, str]:
        """The names of worker processes, ``hostname:pid``."""
        query = select(WORKER.c.id, WORKER.c.hostname, WORKER.c.pid).where(WORKER.c.id.in_(ids))
        with self._database.read() as connection:
            return {line.id: f"{line.hostname}:{line.pid}" for line in connection.execute(query)}

    def _score(self, evaluation_id: int, line: Any) -> ScoreDistribution:
        n, numbers = int(line.n), int(line.numbers)
        bounds = {"least": line.least, "greatest": line.greatest}
        own = and_(SCORE.c.evaluation_id == evaluation_id, type_coerce(SCORE.c.name, Text) == escape_text(line.name))
        if not numbers or int(line.true_false) == n:
            labels = self._labels(own)
            return ScoreDistribution(line.name, n, labels, others=n - sum(count for _, count in labels), **bounds)
        counts = NumberCounts(line.least, line.greatest)
        query = select(SCORE.c.number).where(own, SCORE.c.number.is_not(None))
        for first, end in index_windows(self._database, evaluation_id):
            with self._database.read() as connection:
                found = driver_lines(connection, query.where(SCORE.c.row_index >= first, SCORE.c.row_index < end))
            counts.add([number for (number,) in found])
        return ScoreDistribution(line.name, n, counts.values, counts.histogram, n - numbers, **bounds)

    def _labels(self, own: Any) -> tuple[tuple[str, int], ...]:
        count = func.count()
        query = select(SCORE.c.value, count).where(own).group_by(SCORE.c.value).order_by(count.desc(), SCORE.c.value)
        with self._database.read() as connection:
            return tuple((_label(value), int(number)) for value, number in connection.execute(query.limit(_LABELS)))


def _label(stored: str) -> str:
    if stored in _TRUE_FALSE:
        return stored
    value = decode(stored)
    return value if isinstance(value, str) else stored
