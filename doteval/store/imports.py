"""Writes evaluations whose results were computed elsewhere; see `doteval.submission.import_logs`.

While rows are written, such an evaluation is running by its status, so that nothing reads it as complete. If the
process is killed, it stays so, and the next import deletes it and begins anew.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update

from doteval.core.experiments import Ending, EvaluationSpec, EvaluationStatus
from doteval.core.json_codec import decode, encode
from doteval.core.run_config import RunConfig
from doteval.errors import UsageError
from doteval.store.engine import Database, database_time, insert_into
from doteval.store.experiments import delete_empty, delete_evaluations
from doteval.store.tables import EVALUATION, EXPERIMENT


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why an evaluation cannot be imported. `source`: the file that the one in its place was imported from, if any."""

    message: str
    source: str | None


class Imports:
    """Begins and ends evaluations whose results are imported."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def obstacle(self, experiment: str, spec: EvaluationSpec) -> Obstacle | None:
        """Why `begin` would refuse to import an evaluation into the experiment of this name, None if it would not."""
        query = (
            select(EVALUATION.c.path, EVALUATION.c.name, EVALUATION.c.status, EVALUATION.c.run_config)
            .join(EXPERIMENT, EXPERIMENT.c.id == EVALUATION.c.experiment_id)
            .where(EXPERIMENT.c.name == experiment)
        )
        with self._database.read() as connection:
            lines = connection.execute(query).all()
        for line in lines:
            source = RunConfig.from_json(decode(line.run_config)).imported_from
            if source is None:
                return Obstacle(f"the experiment {experiment!r} was run here, and holds no imported results", None)
            same = (line.path, line.name) == (spec.path, spec.name)
            if same and line.status != EvaluationStatus.RUNNING.value:
                return Obstacle(
                    f"the experiment {experiment!r} has {spec.nodeid} already, imported from {source}", source
                )
        return None

    def begin(self, experiment: str, spec: EvaluationSpec, *, epochs: int, began_at: datetime | None) -> str:
        """Create an evaluation to import results into, and its experiment if there is none. Returns its uid.

        What an import that was killed has left of the same evaluation is deleted.

        began_at: when it began; None for now.

        Raises UsageError: the experiment was run here, or has the evaluation already.
        """
        obstacle = self.obstacle(experiment, spec)
        if obstacle is not None:
            raise UsageError(obstacle.message, remedy="Choose another name, or delete that one first.")
        began = database_time() if began_at is None else began_at.timestamp()
        uid = secrets.token_hex(8)
        with self._database.write() as connection:
            connection.execute(
                insert_into(self._database.dialect, EXPERIMENT)
                .values(name=experiment, created_at=began)
                .on_conflict_do_nothing(index_elements=["name"])
            )
            # The lock has two imports of one evaluation follow each other.
            mine = select(EXPERIMENT).where(EXPERIMENT.c.name == experiment).with_for_update()
            found = connection.execute(mine).one()
            if began_at is not None and began_at.timestamp() < found.created_at:
                earlier = update(EXPERIMENT).where(EXPERIMENT.c.id == found.id)
                connection.execute(earlier.values(created_at=began_at.timestamp()))
            left = select(EVALUATION.c.id).where(
                EVALUATION.c.experiment_id == found.id,
                EVALUATION.c.path == spec.path,
                EVALUATION.c.name == spec.name,
                EVALUATION.c.status == EvaluationStatus.RUNNING.value,
            )
            delete_evaluations(self._database, connection, connection.scalars(left).all())
            connection.execute(
                insert_into(self._database.dialect, EVALUATION).values(
                    uid=uid,
                    experiment_id=found.id,
                    path=spec.path,
                    name=spec.name,
                    columns=encode(list(spec.columns)),
                    fingerprint=encode(dict(spec.fingerprint)),
                    run_config=encode(spec.config.to_json()),
                    epochs=epochs,
                    status=EvaluationStatus.RUNNING.value,
                    created_at=began,
                    published=0,
                    dataset_complete=False,
                    worked_seconds=0.0,
                    repaid_rows=0,
                )
            )
        return uid

    def end(
        self,
        evaluation_id: int,
        ending: Ending | None,
        *,
        columns: Sequence[str],
        rows: int,
        rows_hash: str | None,
        ended_at: datetime | None,
        notes: Sequence[str],
    ) -> None:
        """End an evaluation, when all its rows are stored.

        ending: how it ended, None for completed.
        rows: how many rows it has, of which some may be missing.
        ended_at: None for now.
        """
        status = EvaluationStatus.COMPLETED if ending is None else ending.status
        with self._database.write() as connection:
            mine = EVALUATION.c.id == evaluation_id
            began = connection.scalar(select(EVALUATION.c.created_at).where(mine))
            # Never before its beginning: clocks of other machines wrote both.
            ended = database_time() if ended_at is None else max(ended_at.timestamp(), began or 0.0)
            connection.execute(
                update(EVALUATION)
                .where(mine)
                .values(
                    columns=encode(list(columns)),
                    row_count=rows,
                    rows_hash=rows_hash,
                    dataset_complete=True,
                    dataset_notes=encode(list(notes)),
                    status=status.value,
                    reason=None if ending is None else ending.reason,
                    end_cause=None if ending is None else ending.cause.value,
                    finished_at=ended,
                    worked_seconds=ended - EVALUATION.c.created_at,
                )
            )

    def annotate(self, evaluation_id: int, notes: Sequence[str]) -> None:
        """Replace what a reader of the figures has to know."""
        with self._database.write() as connection:
            changed = update(EVALUATION).where(EVALUATION.c.id == evaluation_id)
            connection.execute(changed.values(dataset_notes=encode(list(notes))))

    def abandon(self, evaluation_id: int) -> None:
        """Delete an evaluation whose import has failed, and its experiment if that has no other."""
        with self._database.write() as connection:
            mine = select(EVALUATION.c.experiment_id).where(EVALUATION.c.id == evaluation_id)
            experiment = connection.scalar(mine)
            if experiment is None:
                return
            delete_evaluations(self._database, connection, [evaluation_id])
            others = select(func.count()).select_from(EVALUATION).where(EVALUATION.c.experiment_id == experiment)
            if not connection.scalar(others):
                delete_empty(connection, experiment)
