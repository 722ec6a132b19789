"""Reads and writes evaluations: identity, run configuration, status, progress, and the publish cursor."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Collection, Iterable
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, delete, func, or_, select, update

from doteval.core.experiments import Counts, Ending, Evaluation, EvaluationSpec, EvaluationStatus, Experiment, WorkTime
from doteval.core.json_codec import decode, encode
from doteval.core.results import RowStatus
from doteval.core.run_config import RunConfig
from doteval.core.states import EvaluationEnd
from doteval.core.wording import listed
from doteval.errors import ChangedError, NotFoundError, UsageError
from doteval.store.batch_tables import WANTED_CALL
from doteval.store.counters import remove_results
from doteval.store.engine import Database, database_time, insert_into
from doteval.store.experiments import moment
from doteval.store.fixture_loads import forgive_failures
from doteval.store.running_spans import begin_span, end_span, work_time
from doteval.store.tables import COUNTERS, EVALUATION, EXPERIMENT, RESULT


class Evaluations:
    """Reads and writes evaluations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(
        self, experiment: Experiment, spec: EvaluationSpec, *, epochs: int = 1, allow_changed: bool = False
    ) -> Evaluation:
        """Create an evaluation, or find the one of the same path and name, and set it to running.

        Processes that race get the same evaluation. Worker processes that could not load its fixtures try again.

        allow_changed: accept other columns and code than before, and fewer epochs; results of samples beyond the new
            `epochs` are removed.

        Raises UsageError: the evaluation was rescored, and would go on as something else.
        Raises ChangedError: columns or code changed, or epochs decreased; it names the files that differ.
        Raises NotFoundError: the experiment was deleted.
        """
        same = (
            EVALUATION.c.experiment_id == experiment.id,
            EVALUATION.c.path == spec.path,
            EVALUATION.c.name == spec.name,
        )
        described = {
            "columns": encode(list(spec.columns)),
            "fingerprint": encode(dict(spec.fingerprint)),
            "run_config": encode(spec.config.to_json()),
        }
        with self._database.write() as connection:
            if connection.scalar(select(EXPERIMENT.c.id).where(EXPERIMENT.c.id == experiment.id)) is None:
                raise NotFoundError(f"the experiment {experiment.name!r} was deleted in the meantime")
            connection.execute(
                insert_into(self._database.dialect, EVALUATION)
                .values(
                    uid=secrets.token_hex(8),
                    experiment_id=experiment.id,
                    path=spec.path,
                    name=spec.name,
                    **described,
                    epochs=epochs,
                    status=EvaluationStatus.RUNNING.value,
                    created_at=database_time(),
                    published=0,
                    dataset_complete=False,
                    worked_seconds=0.0,
                    repaid_rows=0,
                )
                .on_conflict_do_nothing(index_elements=["experiment_id", "path", "name"])
            )
            self._database.hold(
                connection, [connection.execute(select(EVALUATION.c.id).where(*same)).scalar_one()], alone=True
            )
            stored = connection.execute(select(EVALUATION).where(*same)).one()
            _check_alike_rescored(stored, spec, experiment)
            if not allow_changed:
                _check_unchanged(stored, spec, epochs)
            elif epochs < stored.epochs:
                remove_results(connection, stored.id, lambda table: table.c.sample >= epochs)
            connection.execute(
                update(EVALUATION)
                .where(EVALUATION.c.id == stored.id)
                .values(
                    **described,
                    epochs=epochs,
                    status=EvaluationStatus.RUNNING.value,
                    reason=None,
                    end_cause=None,
                    finished_at=None,
                )
            )
            begin_span(connection, stored.id)
            forgive_failures(connection, stored.id)
        return self.by_uid(stored.uid)

    def by_uid(self, uid: str) -> Evaluation:
        """The evaluation with the uid of a row task.

        Raises NotFoundError: it was deleted, or belongs to another store.
        """
        with self._database.read() as connection:
            line = connection.execute(_BY_UID, {"uid": uid}).one_or_none()
        if line is None:
            raise NotFoundError(
                f"there is no evaluation {uid} in {self._database.location.shown}",
                remedy="It was deleted, or the submitter and this process use different result stores.",
            )
        return evaluation_of(line)

    def of(self, experiment: Experiment, containing: str | None = None) -> list[Evaluation]:
        """The evaluations of an experiment, in the order of their creation.

        containing: only those whose ``file::name`` contains this text.

        Raises NotFoundError: the experiment has evaluations, but none that contains the text; it lists them.
        """
        query = evaluation_query().where(EVALUATION.c.experiment_id == experiment.id).order_by(EVALUATION.c.id)
        with self._database.read() as connection:
            found = [evaluation_of(line) for line in connection.execute(query)]
        chosen = [each for each in found if containing is None or containing in each.spec.nodeid]
        if found and not chosen:
            raise NotFoundError(
                f"no evaluation of the experiment {experiment.name!r} contains {containing!r}",
                remedy=f"It has {listed([each.spec.nodeid for each in found])}.",
            )
        return chosen

    def all(self) -> list[Evaluation]:
        """The evaluations of all experiments, the oldest first."""
        with self._database.read() as connection:
            return [evaluation_of(line) for line in connection.execute(evaluation_query().order_by(EVALUATION.c.id))]

    def find(self, experiment: Experiment, spec: EvaluationSpec) -> Evaluation | None:
        """The evaluation of the same path and name as it is now, None if `begin` would create it."""
        query = evaluation_query().where(
            EVALUATION.c.experiment_id == experiment.id, EVALUATION.c.path == spec.path, EVALUATION.c.name == spec.name
        )
        with self._database.read() as connection:
            line = connection.execute(query).one_or_none()
        return None if line is None else evaluation_of(line)

    def running(self) -> list[Evaluation]:
        """The running evaluations of all experiments, the oldest first."""
        with self._database.read() as connection:
            return [evaluation_of(line) for line in connection.execute(_RUNNING)]

    def current(self, seconds: float) -> list[Evaluation]:
        """The evaluations of all experiments that are running or ended in the last `seconds`, the oldest first."""
        query = (
            evaluation_query()
            .where(
                or_(
                    EVALUATION.c.status == EvaluationStatus.RUNNING.value,
                    EVALUATION.c.finished_at >= database_time() - seconds,
                )
            )
            .order_by(EVALUATION.c.id)
        )
        with self._database.read() as connection:
            return [evaluation_of(line) for line in connection.execute(query)]

    def of_ids(self, ids: Collection[int]) -> list[Evaluation]:
        """The evaluations with these ids, the oldest first."""
        query = evaluation_query().where(EVALUATION.c.id.in_(ids)).order_by(EVALUATION.c.id)
        with self._database.read() as connection:
            return [evaluation_of(line) for line in connection.execute(query)]

    def counts(self, evaluation_id: int) -> Counts:
        """The number of rows by status. It reads one table row a worker process, however many results there are.

        Raises NotFoundError: there is no such evaluation.
        """
        with self._database.read() as connection:
            line = connection.execute(_BY_ID, {"evaluation": evaluation_id}).one_or_none()
        if line is None:
            raise self._gone(evaluation_id)
        return _counts(line)

    def work_time(self, evaluation_id: int) -> WorkTime:
        """How long the evaluation was worked on, and how long ago it began.

        Raises NotFoundError: there is no such evaluation.
        """
        with self._database.read() as connection:
            time = work_time(connection, evaluation_id)
        if time is None:
            raise self._gone(evaluation_id)
        return time

    def set_status(
        self,
        evaluation_id: int,
        status: EvaluationStatus,
        reason: str | None = None,
        *,
        end_cause: EvaluationEnd | None = None,
        only_from: EvaluationStatus | None = None,
    ) -> bool:
        """Set the status. Returns whether it was set.

        end_cause: why the evaluation ends otherwise than with all of its rows; `reason` says so to people.
        only_from: set it only if the status is this one now.
        """
        change = update(EVALUATION).where(EVALUATION.c.id == evaluation_id)
        if only_from is not None:
            change = change.where(EVALUATION.c.status == only_from.value)
        finished = None if status is EvaluationStatus.RUNNING else database_time()
        if status is EvaluationStatus.SKIPPED:
            # Without a dataset it has no rows, and their number is not unknown.
            change = change.values(row_count=func.coalesce(EVALUATION.c.row_count, 0))
        with self._database.write() as connection:
            done = connection.execute(
                change.values(
                    status=status.value,
                    reason=reason,
                    end_cause=None if end_cause is None else end_cause.value,
                    finished_at=finished,
                )
            )
            if status is EvaluationStatus.RUNNING:
                forgive_failures(connection, evaluation_id)
            if done.rowcount > 0:
                (begin_span if status is EvaluationStatus.RUNNING else end_span)(connection, evaluation_id)
            return done.rowcount > 0

    def end(self, evaluation_id: int, ending: Ending, *, only_from: EvaluationStatus | None = None) -> bool:
        """Set the status to that of an ending, as `set_status` does. Returns whether it was set."""
        return self.set_status(evaluation_id, ending.status, ending.reason, end_cause=ending.cause, only_from=only_from)

    def reconfigure(self, evaluation_id: int, change: Callable[[RunConfig], RunConfig]) -> None:
        """Replace the run configuration of an evaluation by what `change` returns for it, as one atomic step.

        Raises NotFoundError: there is no such evaluation.
        """
        mine = EVALUATION.c.id == evaluation_id
        with self._database.write() as connection:
            self._database.hold(connection, [evaluation_id], alone=True)
            stored = connection.scalar(select(EVALUATION.c.run_config).where(mine))
            if stored is None:
                raise self._gone(evaluation_id)
            changed = change(RunConfig.from_json(decode(stored)))
            connection.execute(update(EVALUATION).where(mine).values(run_config=encode(changed.to_json())))

    def complete(self, evaluation_id: int) -> bool:
        """End a running evaluation if its whole dataset is in the store and every row has a result.

        It is completed then; skipped if all of its rows were; and failed if a strict xfail mark expects it to fail.
        Returns whether it was ended. A lock keeps rows from becoming pending in between.
        """
        with self._database.write() as connection:
            self._database.hold(connection, [evaluation_id], alone=True)
            line = connection.execute(_BY_ID, {"evaluation": evaluation_id}).one_or_none()
            if line is None or line.status != EvaluationStatus.RUNNING.value or not line.dataset_complete:
                return False
            counts = _counts(line)
            if counts.pending:
                return False
            done: dict[str, Any] = {"status": EvaluationStatus.COMPLETED.value, "reason": None, "end_cause": None}
            if (ending := _other_ending(connection, line, counts)) is not None:
                done = {"status": ending.status.value, "reason": ending.reason, "end_cause": ending.cause.value}
            change = update(EVALUATION).where(EVALUATION.c.id == evaluation_id)
            connection.execute(change.values(**done, finished_at=database_time()))
            # What the rows of batches have wanted and got: they have results.
            connection.execute(delete(WANTED_CALL).where(WANTED_CALL.c.evaluation_id == evaluation_id))
            end_span(connection, evaluation_id)
            return True

    def statuses(self, uids: Iterable[str]) -> dict[str, EvaluationStatus]:
        """The statuses of evaluations by uid. Deleted evaluations are left out."""
        with self._database.read() as connection:
            found = connection.execute(_STATUSES, {"uids": list(uids)})
            return {line.uid: EvaluationStatus(line.status) for line in found}

    def published(self, evaluation_id: int) -> int:
        """The publish cursor: row tasks were published up to this row index, which is not included.

        Raises NotFoundError: there is no such evaluation.
        """
        with self._database.read() as connection:
            cursor = connection.scalar(_PUBLISHED, {"evaluation": evaluation_id})
        if cursor is None:
            raise self._gone(evaluation_id)
        return int(cursor)

    def advance_published(self, evaluation_id: int, old: int, new: int) -> bool:
        """Move the publish cursor if it is still at `old`. False if another process has moved it."""
        with self._database.write() as connection:
            moved = connection.execute(
                update(EVALUATION)
                .where(EVALUATION.c.id == evaluation_id, EVALUATION.c.published == old)
                .values(published=new)
            )
            return moved.rowcount > 0

    def _gone(self, evaluation_id: int) -> NotFoundError:
        return NotFoundError(f"there is no evaluation {evaluation_id} in {self._database.location.shown}")


def _other_ending(connection: Connection, line: Row[Any], counts: Counts) -> Ending | None:
    """How an evaluation ends whose rows all have a result, if not as completed."""
    if counts.skipped and not counts.ran:
        first = connection.scalar(_FIRST_SKIP, {"evaluation": line.id, "status": RowStatus.SKIPPED.value})
        what = f"all {counts.skipped:,} rows were skipped" if counts.skipped > 1 else "its only row was skipped"
        return Ending(EvaluationStatus.SKIPPED, EvaluationEnd.SKIPPED, f"{what}: {first}" if first else what)
    expected = RunConfig.from_json(decode(line.run_config)).strict_xfail
    if expected is not None:
        return Ending(
            EvaluationStatus.FAILED, EvaluationEnd.PASSED_UNEXPECTEDLY, f"[XPASS(strict)] {expected}".rstrip()
        )
    return None


_FIRST_SKIP = (
    select(RESULT.c.error_message)
    .where(RESULT.c.evaluation_id == bindparam("evaluation"), RESULT.c.status == bindparam("status"))
    .order_by(RESULT.c.row_index, RESULT.c.sample)
    .limit(1)
)
_COUNTED_STATUSES = ("done", "failed", "skipped")


def evaluation_query() -> Select[Any]:
    """The evaluations with their experiments and the sums of their counters, for `evaluation_of`."""
    sums = (
        select(func.sum(COUNTERS.c[name]))
        .where(COUNTERS.c.evaluation_id == EVALUATION.c.id)
        .scalar_subquery()
        .label(name)
        for name in _COUNTED_STATUSES
    )
    return select(
        *EVALUATION.c,
        EXPERIMENT.c.name.label("experiment_name"),
        EXPERIMENT.c.created_at.label("experiment_created_at"),
        *sums,
    ).join(EXPERIMENT, EXPERIMENT.c.id == EVALUATION.c.experiment_id)


# Built once: these run several times a second, and building one takes longer than running it.
_BY_UID = evaluation_query().where(EVALUATION.c.uid == bindparam("uid"))
_BY_ID = evaluation_query().where(EVALUATION.c.id == bindparam("evaluation"))
_RUNNING = evaluation_query().where(EVALUATION.c.status == EvaluationStatus.RUNNING.value).order_by(EVALUATION.c.id)
_STATUSES = select(EVALUATION.c.uid, EVALUATION.c.status).where(EVALUATION.c.uid.in_(bindparam("uids", expanding=True)))
_PUBLISHED = select(EVALUATION.c.published).where(EVALUATION.c.id == bindparam("evaluation"))


def _counts(line: Row[Any]) -> Counts:
    total = None if line.row_count is None else line.row_count * line.epochs
    return Counts(total, *(int(getattr(line, name) or 0) for name in _COUNTED_STATUSES))


def evaluation_of(line: Row[Any]) -> Evaluation:
    """The evaluation of a line of `evaluation_query`."""
    return Evaluation(
        id=line.id,
        uid=line.uid,
        experiment=Experiment(line.experiment_id, line.experiment_name, moment(line.experiment_created_at)),
        spec=EvaluationSpec(
            path=line.path,
            name=line.name,
            columns=tuple(decode(line.columns)),
            fingerprint=decode(line.fingerprint),
            config=RunConfig.from_json(decode(line.run_config)),
        ),
        status=EvaluationStatus(line.status),
        reason=line.reason,
        end_cause=None if line.end_cause is None else EvaluationEnd(line.end_cause),
        counts=_counts(line),
        created_at=moment(line.created_at),
        finished_at=None if line.finished_at is None else moment(line.finished_at),
        dataset_notes=tuple(decode(line.dataset_notes)) if line.dataset_notes else (),
        rows_hash=line.rows_hash,
        repaid_rows=line.repaid_rows,
        dataset_source=_source(line.dataset_fingerprint),
    )


def _source(fingerprint: str | None) -> str | None:
    # Fingerprints of the hub's datasets name a commit. What follows says which of its rows and columns are stored.
    return fingerprint.partition(" ")[0] if fingerprint is not None and fingerprint.startswith("hf://") else None


def _check_alike_rescored(stored: Row[Any], spec: EvaluationSpec, experiment: Experiment) -> None:
    before, now = RunConfig.from_json(decode(stored.run_config)).rescoring, spec.config.rescoring
    if before is None or (now is not None and now.sources == before.sources):
        return
    raise UsageError(
        f"the experiment {experiment.name!r} was rescored from {before.experiment!r}",
        remedy=f"To continue it: doteval rescore {shlex.quote(before.experiment)} --as {shlex.quote(experiment.name)}. "
        "Or give another name.",
    )


def _check_unchanged(stored: Row[Any], spec: EvaluationSpec, epochs: int) -> None:
    differences = []
    columns = tuple(decode(stored.columns))
    if columns != spec.columns:
        differences.append(f"the columns were {', '.join(columns)} and are now {', '.join(spec.columns)}")
    before, now = decode(stored.fingerprint), spec.fingerprint
    for path in sorted({*before, *now}):
        if path not in now:
            differences.append(f"{path} is gone")
        elif path not in before:
            differences.append(f"{path} is new")
        elif before[path] != now[path]:
            differences.append(f"{path} has changed")
    if epochs < stored.epochs:
        differences.append(f"it began with {stored.epochs} epochs and has now {epochs}")
    if differences:
        raise ChangedError(
            f"{spec.nodeid} is not what the experiment began with: {'; '.join(differences)}",
            remedy="Begin another experiment, or allow the change with --allow-changed to keep the results so far.",
        )
