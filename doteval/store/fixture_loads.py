"""Records the loads of session fixtures: each set-up in a worker process, and its statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, bindparam, insert, select, update

from doteval.core.json_codec import encode
from doteval.core.states import LoadFailureKind
from doteval.store.engine import Database, database_time
from doteval.store.experiments import moment
from doteval.store.tables import RESOURCE_LOAD, WORKER

# Recorded as the fixture where a worker process has other files than the submitter.
EVALUATION_FILES = "(evaluation files)"


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """Why a worker process cannot run an evaluation.

    error: for people: ``Type: message``, or why to skip.
    service, supervisor: the name of the worker process and the token of its supervisor, which its successor has too.
    """

    worker_id: int
    fixture: str
    error: str
    kind: LoadFailureKind
    service: str
    failed_at: datetime
    supervisor: str | None = None

    @property
    def place(self) -> tuple[str | None, str]:
        """See `doteval.store.workers.WorkerInfo.place`."""
        return self.supervisor, self.service


class FixtureLoads:
    """Reads and writes the loads of session fixtures."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(
        self,
        worker_id: int,
        fixture: str,
        scope_node: str,
        seconds: float,
        *,
        error: str | None = None,
        failure: LoadFailureKind = LoadFailureKind.ERROR,
        evaluation_id: int | None = None,
    ) -> int:
        """Say that a session fixture was set up, or why it was not. `seconds` is what that took.

        `scope_node` is the collection node that the fixture was defined at; `evaluation_id` the
        evaluation for whose rows it was loaded first. Returns the load's id.
        """
        line = {
            "worker_id": worker_id,
            "evaluation_id": evaluation_id,
            "fixture": fixture,
            "scope_node": scope_node,
            "loaded_at": database_time(),
            "seconds": seconds,
            "error": error,
            "failure": None if error is None else failure.value,
        }
        with self._database.write() as connection:
            statement = insert(RESOURCE_LOAD).values(line).returning(RESOURCE_LOAD.c.id)
            return int(connection.execute(statement).scalar_one())

    def failures(self, evaluation_id: int) -> list[LoadFailure]:
        """Failures to load an evaluation since it was begun or retried last, the oldest first."""
        with self._database.read() as connection:
            found = connection.execute(_FAILURES, {"evaluation": evaluation_id})
            return [
                LoadFailure(
                    line.worker_id,
                    line.fixture,
                    line.error,
                    LoadFailureKind(line.failure or LoadFailureKind.ERROR),
                    line.service,
                    moment(line.loaded_at),
                    line.supervisor,
                )
                for line in found
            ]

    def snapshot(self, load_id: int, stats: Mapping[str, Any] | str) -> None:
        """Store the current ``get_stats()`` of a fixture in place of the last one.

        Raises UnstorableValueError: the statistics cannot be stored.
        """
        with self._database.write() as connection:
            connection.execute(update(RESOURCE_LOAD).where(RESOURCE_LOAD.c.id == load_id).values(stats=_encoded(stats)))

    def end(self, load_id: int, stats: Mapping[str, Any] | str | None, seconds: float) -> None:
        """Record that a fixture was torn down in `seconds`. `stats` None keeps the last snapshot.

        Raises UnstorableValueError: the statistics cannot be stored.
        """
        changes: dict[str, Any] = {"torn_down_at": database_time(), "teardown_seconds": seconds}
        if stats is not None:
            changes["stats"] = _encoded(stats)
        with self._database.write() as connection:
            connection.execute(update(RESOURCE_LOAD).where(RESOURCE_LOAD.c.id == load_id).values(changes))


def forgive_failures(connection: Connection, evaluation_id: int) -> None:
    """Make earlier failures count no more, since a user who begins the evaluation again may have fixed their cause."""
    connection.execute(
        update(RESOURCE_LOAD)
        .where(*_counting_failures(evaluation_id))
        .values(torn_down_at=database_time(), teardown_seconds=0.0)
    )


def _counting_failures(evaluation_id: int | BindParameter[int]) -> tuple[ColumnElement[bool], ...]:
    return (
        RESOURCE_LOAD.c.evaluation_id == evaluation_id,
        RESOURCE_LOAD.c.error.is_not(None),
        RESOURCE_LOAD.c.torn_down_at.is_(None),
    )


# Built once: it runs every second while rows run.
_FAILURES = (
    select(
        RESOURCE_LOAD.c.worker_id,
        RESOURCE_LOAD.c.fixture,
        RESOURCE_LOAD.c.error,
        RESOURCE_LOAD.c.failure,
        WORKER.c.service,
        WORKER.c.supervisor,
        RESOURCE_LOAD.c.loaded_at,
    )
    .join(WORKER, WORKER.c.id == RESOURCE_LOAD.c.worker_id)
    .where(*_counting_failures(bindparam("evaluation")))
    .order_by(RESOURCE_LOAD.c.id)
)


def _encoded(stats: Mapping[str, Any] | str) -> str:
    return encode(stats if isinstance(stats, str) else dict(stats))
