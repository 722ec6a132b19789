"""Reads from the result store when rows began and ended. All times are from the clock of this machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, create_engine, text

_QUERY = """
SELECT min(evaluation.created_at), max(evaluation.finished_at), min(result.started_at),
       min(result.started_at + result.seconds), max(result.started_at + result.seconds), count(*), sum(result.seconds)
FROM result JOIN evaluation ON evaluation.id = result.evaluation_id
    JOIN experiment ON experiment.id = evaluation.experiment_id
WHERE experiment.name = :name AND result.started_at >= :since AND result.started_at + result.seconds <= :until
"""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The times of an evaluation and its rows, in seconds since the epoch.

    `rows` is the number of results, and `own` the sum of their durations in seconds.
    """

    created: float
    completed: float
    first_began: float
    first_ended: float
    last_ended: float
    rows: int
    own: float


def timeline(storage: str, experiment: str, *, since: float = 0.0, until: float = math.inf) -> Timeline:
    """The times of the results of an experiment whose rows began after `since` and ended before `until`."""
    with _connected(storage) as connection:
        return Timeline(*connection.execute(text(_QUERY), {"name": experiment, "since": since, "until": until}).one())


def loads_of(storage: str, fixture: str) -> int:
    """How often a session fixture was loaded by all worker processes together."""
    with _connected(storage) as connection:
        query = text("SELECT count(*) FROM resource_load WHERE fixture = :fixture")
        return int(connection.execute(query, {"fixture": fixture}).scalar_one())


@contextmanager
def _connected(storage: str) -> Iterator[Connection]:
    engine = create_engine(storage.replace("postgresql://", "postgresql+psycopg://", 1))
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
