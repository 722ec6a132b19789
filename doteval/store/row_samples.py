"""Reads some rows of an evaluation by their indexes: which of them are pending, how long they took, what they used."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, func, select

from doteval.core.results import RowStatus
from doteval.store.bulk_insert import among
from doteval.store.engine import Database
from doteval.store.tables import EVALUATION, RESULT, USAGE
from doteval.store.wanted_calls import waiting_rows


@dataclass(frozen=True, slots=True)
class RowUsage:
    """What all executions of one row used of one model; samples of the row count together.

    tries: requests and their retries.
    cost: US dollars, None if the model has no price.
    batch_cost: what the same tokens cost in batches.
    unpriced: how many of the tokens have no price.
    """

    row_index: int
    model: str
    tries: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    batch_cost: float | None
    unpriced: int


@dataclass(frozen=True, slots=True)
class RowTime:
    """What the results of one row took, in seconds, how many there are, one for each sample, and how many failed."""

    seconds: float
    results: int
    failed: int


class RowSamples:
    """Reads rows that were chosen by their indexes. There may be thousands of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pending(self, evaluation_id: int, indexes: Collection[int], *, waiting: bool = True) -> list[int]:
        """Those of the indexes whose rows have pending samples, in ascending order.

        waiting: whether samples that wait for a batch count as pending.
        """
        finished = (
            select(RESULT.c.row_index, func.count().label("samples"))
            .where(RESULT.c.evaluation_id == evaluation_id, RESULT.c.retry.is_(False))
            .group_by(RESULT.c.row_index)
        )
        epochs = select(EVALUATION.c.epochs).where(EVALUATION.c.id == evaluation_id)
        with self._database.read() as connection:
            each = int(connection.scalar(epochs) or 1)
            ended = dict.fromkeys(indexes, 0)
            for index, samples in connection.execute(finished.where(among(connection, RESULT.c.row_index, indexes))):
                ended[index] += samples
            if ended and not waiting:
                for index, _ in waiting_rows(connection, evaluation_id, min(ended), max(ended)):
                    if index in ended:
                        ended[index] += 1
        return sorted(index for index, samples in ended.items() if samples < each)

    def usage(self, evaluation_id: int, indexes: Collection[int]) -> list[RowUsage]:
        """What the rows have used, by row and model."""
        summed = ("attempts", "prompt_tokens", "completion_tokens", "cost", "batch_cost")
        without_price = case((USAGE.c.cost.is_(None), USAGE.c.prompt_tokens + USAGE.c.completion_tokens), else_=0)
        query = (
            select(
                USAGE.c.row_index,
                USAGE.c.model,
                *(func.sum(USAGE.c[name]).label(name) for name in summed),
                func.sum(without_price).label("unpriced"),
            )
            .where(USAGE.c.evaluation_id == evaluation_id)
            .group_by(USAGE.c.row_index, USAGE.c.model)
        )
        with self._database.read() as connection:
            lines: Sequence[Any] = connection.execute(query.where(among(connection, USAGE.c.row_index, indexes))).all()
        # In PostgreSQL the sum of 64-bit integers is a Decimal.
        return [
            RowUsage(
                line.row_index,
                line.model,
                int(line.attempts),
                int(line.prompt_tokens),
                int(line.completion_tokens),
                line.cost,
                line.batch_cost,
                int(line.unpriced),
            )
            for line in lines
        ]

    def times(self, evaluation_id: int, indexes: Collection[int]) -> Mapping[int, RowTime]:
        """How long the rows took, by index; without those that have no result."""
        failed = func.sum(case((RESULT.c.status == RowStatus.FAILED.value, 1), else_=0))
        query = (
            select(RESULT.c.row_index, func.sum(RESULT.c.seconds), func.count(), failed)
            .where(RESULT.c.evaluation_id == evaluation_id)
            .group_by(RESULT.c.row_index)
        )
        with self._database.read() as connection:
            lines = connection.execute(query.where(among(connection, RESULT.c.row_index, indexes))).all()
        return {index: RowTime(float(seconds), results, int(failures)) for index, seconds, results, failures in lines}
