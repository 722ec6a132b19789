"""Reads, creates, renames and deletes experiments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from doteval.core.experiments import Counts, EvaluationStatus, Experiment
from doteval.core.json_codec import decode
from doteval.core.plugins import did_you_mean
from doteval.core.provenance import Provenance
from doteval.core.run_config import RunConfig
from doteval.errors import NotFoundError, UsageError
from doteval.store.baseline import baseline_id
from doteval.store.batch_tables import BATCH_LEASE, PROVIDER_BATCH, WANTED_CALL
from doteval.store.engine import Database, database_time, insert_into
from doteval.store.provenance import ExperimentLabels, all_tags, first_commands
from doteval.store.summary_tables import METRIC_VALUE, SUMMARY
from doteval.store.tables import (
    ATTEMPT,
    BUDGET_SHARE,
    CALL,
    COUNTERS,
    EVALUATION,
    EXPERIMENT,
    EXPERIMENT_TAG,
    PROVENANCE,
    RESOURCE_LOAD,
    RESULT,
    ROW,
    ROW_LABEL,
    SCORE,
    USAGE,
)


@dataclass(frozen=True, slots=True)
class ExperimentOverview:
    """An experiment in a list.

    counts: sums over its evaluations; the total is None while that of any of them is unknown.
    status: the first that an evaluation has of running, failed, cancelled, completed and skipped; None without
        evaluations.
    active_at: when a result was last written or an evaluation ended; when it began if neither has happened.
    begun_by: the command that began it, None if it was not recorded.
    cost: what its model calls cost, as far as their models have prices, in dollars.
    """

    experiment: Experiment
    evaluations: int
    counts: Counts
    status: EvaluationStatus | None
    active_at: datetime
    labels: ExperimentLabels
    begun_by: Provenance | None
    cost: float = 0.0


class Experiments:
    """Reads and writes experiments by name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, name: str) -> Experiment:
        """Create an experiment, or find the one of this name, to run evaluations in it.

        Processes that race get the same one.

        Raises UsageError: its results were imported.
        """
        found = self._by_name(name)
        if found is not None:
            self.refuse_imported(found, "cannot run evaluations", "Give another name with --experiment.")
            return found
        with self._database.write() as connection:
            connection.execute(
                insert_into(self._database.dialect, EXPERIMENT)
                .values(name=name, created_at=database_time())
                .on_conflict_do_nothing(index_elements=["name"])
            )
        return self.find(name)

    def refuse_imported(self, experiment: Experiment, refused: str, remedy: str) -> None:
        """Raise UsageError if the results of an experiment were imported.

        refused: what cannot be done with it, after its name.
        """
        # All evaluations of an experiment were imported, or none.
        query = select(EVALUATION.c.run_config).where(EVALUATION.c.experiment_id == experiment.id).limit(1)
        with self._database.read() as connection:
            stored = connection.scalar(query)
        source = None if stored is None else RunConfig.from_json(decode(stored)).imported_from
        if source is not None:
            raise UsageError(
                f"the experiment {experiment.name!r} {refused}: its results were imported from {source}", remedy=remedy
            )

    def find(self, name: str) -> Experiment:
        """The experiment of this name.

        Raises NotFoundError: there is none; it gives the nearest names.
        """
        found = self._by_name(name)
        if found is not None:
            return found
        with self._database.read() as connection:
            names = list(connection.scalars(select(EXPERIMENT.c.name)))
        raise NotFoundError(
            f"there is no experiment named {name!r} in {self._database.location.shown}",
            remedy=did_you_mean(name, names, "`doteval list` shows all of them."),
            page="troubleshooting#experiment-not-found",
        )

    def current(self, experiment: Experiment) -> Experiment:
        """The experiment as it is now: it may have been renamed.

        Raises NotFoundError: it has been deleted.
        """
        with self._database.read() as connection:
            line = connection.execute(select(EXPERIMENT).where(EXPERIMENT.c.id == experiment.id)).one_or_none()
        if line is None:
            raise NotFoundError(
                f"the experiment {experiment.name!r} has been deleted from {self._database.location.shown}",
                remedy="`doteval list` shows those that are left.",
            )
        return experiment_of(line)

    def overviews(self, contains: str | None = None) -> list[ExperimentOverview]:
        """All experiments, or those whose name contains a text in any case, the newest first."""
        total = EVALUATION.c.row_count * EVALUATION.c.epochs
        counted = (
            select(
                COUNTERS.c.evaluation_id,
                func.sum(COUNTERS.c.done).label("done"),
                func.sum(COUNTERS.c.failed).label("failed"),
                func.sum(COUNTERS.c.skipped).label("skipped"),
                func.sum(COUNTERS.c.cost).label("cost"),
                func.max(COUNTERS.c.wrote_at).label("wrote_at"),
            )
            .group_by(COUNTERS.c.evaluation_id)
            .subquery()
        )
        query = (
            select(
                *EXPERIMENT.c,
                func.count(EVALUATION.c.id).label("evaluations"),
                func.count(total).label("known"),
                func.sum(total).label("total"),
                *(func.coalesce(func.sum(counted.c[name]), 0).label(name) for name in _SUMMED),
                *(_any_with(status).label(f"any_{status.value}") for status in EvaluationStatus),
                func.max(EVALUATION.c.finished_at).label("finished_at"),
                func.max(counted.c.wrote_at).label("wrote_at"),
            )
            .select_from(
                EXPERIMENT.outerjoin(EVALUATION, EVALUATION.c.experiment_id == EXPERIMENT.c.id).outerjoin(
                    counted, counted.c.evaluation_id == EVALUATION.c.id
                )
            )
            .group_by(*EXPERIMENT.c)
            .order_by(EXPERIMENT.c.created_at.desc(), EXPERIMENT.c.id.desc())
        )
        with self._database.read() as connection:
            lines = connection.execute(query).all()
            tags, begun_by = all_tags(connection), first_commands(connection)
            baseline = baseline_id(connection)
        wanted = (contains or "").casefold()
        return [
            _overview(
                line,
                ExperimentLabels(tuple(tags.get(line.id, ())), line.note, line.id == baseline),
                begun_by.get(line.id),
            )
            for line in lines
            if wanted in line.name.casefold()
        ]

    def rename(self, name: str, new: str) -> Experiment:
        """Rename an experiment.

        Raises NotFoundError: there is none of this name.
        Raises UsageError: another experiment has the new name.
        """
        experiment = self.find(name)
        taken = UsageError(
            f"there is an experiment named {new!r} already", remedy="Choose another name, or delete that one first."
        )
        with self._database.write() as connection:
            if name != new and connection.scalar(select(EXPERIMENT.c.id).where(EXPERIMENT.c.name == new)) is not None:
                raise taken
            try:
                connection.execute(update(EXPERIMENT).where(EXPERIMENT.c.id == experiment.id).values(name=new))
            except IntegrityError:
                raise taken from None
        return self.find(new)

    def check_deletable(self, experiment: Experiment) -> None:
        """Raises UsageError: the experiment is the baseline of the store."""
        with self._database.read() as connection:
            _refuse_baseline(connection, experiment)

    def delete(self, name: str) -> None:
        """Delete an experiment with its evaluations, rows, results, labels, usage and calls.

        Raises NotFoundError: there is none of this name.
        Raises UsageError: it is the baseline of the store.
        """
        experiment = self.find(name)
        with self._database.write() as connection:
            _refuse_baseline(connection, experiment)
            delete_evaluations(self._database, connection, _evaluation_ids(connection, experiment.id))
            delete_empty(connection, experiment.id)

    def _by_name(self, name: str) -> Experiment | None:
        with self._database.read() as connection:
            line = connection.execute(select(EXPERIMENT).where(EXPERIMENT.c.name == name)).one_or_none()
        return None if line is None else experiment_of(line)


def delete_evaluations(database: Database, connection: Connection, ids: Sequence[int]) -> None:
    """Delete evaluations with their rows, results, labels, usage and calls, within a transaction."""
    database.hold(connection, ids, alone=True)
    of_batches = (WANTED_CALL, PROVIDER_BATCH, BATCH_LEASE)
    for table in (SCORE, RESULT, ATTEMPT, USAGE, CALL, *of_batches, COUNTERS, METRIC_VALUE, SUMMARY, ROW_LABEL, ROW):
        connection.execute(delete(table).where(table.c.evaluation_id.in_(ids)))
    connection.execute(update(RESOURCE_LOAD).where(RESOURCE_LOAD.c.evaluation_id.in_(ids)).values(evaluation_id=None))
    connection.execute(delete(EVALUATION).where(EVALUATION.c.id.in_(ids)))


def delete_empty(connection: Connection, experiment_id: int) -> None:
    """Delete an experiment that has no evaluations, with its labels and commands, within a transaction."""
    for table in (BUDGET_SHARE, EXPERIMENT_TAG, PROVENANCE):
        connection.execute(delete(table).where(table.c.experiment_id == experiment_id))
    connection.execute(delete(EXPERIMENT).where(EXPERIMENT.c.id == experiment_id))


def experiment_of(line: Row[*tuple[Any, ...]]) -> Experiment:
    """The experiment of a table row."""
    return Experiment(line.id, line.name, moment(line.created_at))


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as a UTC datetime."""
    return datetime.fromtimestamp(seconds, UTC)


def _refuse_baseline(connection: Connection, experiment: Experiment) -> None:
    if baseline_id(connection) == experiment.id:
        raise UsageError(
            f"{experiment.name!r} is the baseline, and is not deleted",
            remedy="Make another one the baseline first (doteval baseline set NAME), or none (doteval baseline clear).",
        )


def _any_with(status: EvaluationStatus) -> Any:
    return func.count(EVALUATION.c.id).filter(EVALUATION.c.status == status.value)


def _overview(line: Row[*tuple[Any, ...]], labels: ExperimentLabels, begun_by: Provenance | None) -> ExperimentOverview:
    present = [status for status in _GRAVEST_FIRST if getattr(line, f"any_{status.value}")]
    known = line.evaluations > 0 and line.known == line.evaluations
    counts = Counts(int(line.total) if known else None, int(line.done), int(line.failed), int(line.skipped))
    active_at = moment(max(line.created_at, line.finished_at or 0.0, line.wrote_at or 0.0))
    status = present[0] if present else None
    cost = float(line.cost)
    return ExperimentOverview(experiment_of(line), line.evaluations, counts, status, active_at, labels, begun_by, cost)


_SUMMED = ("done", "failed", "skipped", "cost")
_GRAVEST_FIRST = (
    EvaluationStatus.RUNNING,
    EvaluationStatus.FAILED,
    EvaluationStatus.CANCELLED,
    EvaluationStatus.COMPLETED,
    EvaluationStatus.SKIPPED,
)


def _evaluation_ids(connection: Connection, experiment_id: int) -> Sequence[int]:
    return connection.scalars(select(EVALUATION.c.id).where(EVALUATION.c.experiment_id == experiment_id)).all()
