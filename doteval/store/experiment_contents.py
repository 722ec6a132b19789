"""Reads what one experiment holds, in bounded parts: pages of its evaluations, sums, failures and worker processes.

`Evaluations.of` reads all evaluations of an experiment at once, which commands do and a page of the web view must not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, select

from doteval.core.experiments import Counts, Evaluation, EvaluationStatus, Experiment
from doteval.core.json_codec import decode
from doteval.core.results import ErrorClass, RowStatus
from doteval.store.bulk_insert import among
from doteval.store.counters import NOBODY
from doteval.store.engine import Database
from doteval.store.evaluations import evaluation_of, evaluation_query
from doteval.store.experiments import moment
from doteval.store.summary_tables import METRIC_VALUE, SUMMARY
from doteval.store.tables import COUNTERS, EVALUATION, RESOURCE_LOAD, RESULT, WORKER
from doteval.store.usage import loaded_for


@dataclass(frozen=True, slots=True)
class EvaluationChoice:
    """Which evaluations of an experiment are read, and in which order.

    search: only those whose ``file::name`` contains this, in any case.
    sort: a key of `EVALUATION_SORTS`, with a minus in front of it from the last to the first.
    """

    search: str | None = None
    status: EvaluationStatus | None = None
    sort: str = "began"


@dataclass(frozen=True, slots=True)
class ExperimentTotals:
    """Sums over the evaluations of an experiment.

    statuses: how many evaluations have each status that some have.
    active_at: when a result was last written or an evaluation ended, None if neither has happened.
    worked: seconds, without a running span that has not ended.
    tokens, unpriced: all tokens, and those of models without a price.
    """

    statuses: Mapping[EvaluationStatus, int]
    counts: Counts
    active_at: datetime | None
    worked: float
    cost: float
    tokens: int
    unpriced: int

    @property
    def evaluations(self) -> int:
        return sum(self.statuses.values())

    @property
    def is_running(self) -> bool:
        return EvaluationStatus.RUNNING in self.statuses


@dataclass(frozen=True, slots=True)
class EvaluationCell:
    """An evaluation in a matrix, with the first of its stored metrics.

    metric: the name of score and metric; None without a stored value, as long as it runs.
    """

    path: str
    name: str
    status: EvaluationStatus
    metric: str | None
    value: float | None


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failed rows of an experiment with the same type and class of error.

    evaluations: in how many evaluations.
    example: an evaluation that has some of them, and the index of its first such row.
    """

    type: str
    error_class: ErrorClass
    rows: int
    evaluations: int
    example: tuple[str, int]


@dataclass(frozen=True, slots=True)
class FixtureLoadSpan:
    """The set-up of a session fixture in a worker process. `error` says why it failed."""

    fixture: str
    ended_at: datetime
    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class FixtureLoadDetail:
    """All that is known of the set-up of a session fixture.

    span: its end and how long it took.
    worker: its name.
    defined_at: the collection node that the fixture belongs to, "" for all.
    stats: what its `get_stats` returned, None if it has none or was not torn down.
    """

    span: FixtureLoadSpan
    worker: str
    defined_at: str
    torn_down_at: datetime | None
    teardown_seconds: float | None
    stats: Any


@dataclass(frozen=True, slots=True)
class FixtureTotals:
    """Sums over the loads of a session fixture. `torn_down` counts those that were set up."""

    loads: int
    failed: int
    torn_down: int
    seconds: float
    longest: float


@dataclass(frozen=True, slots=True)
class ServingWorker:
    """A worker process that stored results of an experiment.

    until: when it left, or else its last heartbeat.
    wrote_at: when it last stored a result of the experiment.
    """

    id: int
    name: str
    started_at: datetime
    until: datetime
    has_left: bool
    reason: str | None
    done: int
    failed: int
    tokens: int
    cost: float
    wrote_at: datetime | None
    loads: tuple[FixtureLoadSpan, ...]


class ExperimentContents:
    """Reads parts of experiments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self, experiment: Experiment, choice: EvaluationChoice) -> int:
        """How many evaluations a choice has."""
        query = select(func.count()).select_from(EVALUATION).where(*_chosen(experiment, choice))
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def page(self, experiment: Experiment, choice: EvaluationChoice, first: int, limit: int) -> list[Evaluation]:
        """Some evaluations of a choice, from the place `first` on."""
        name = choice.sort.removeprefix("-")
        key = EVALUATION_SORTS[name]
        ordered = key.desc().nulls_last() if choice.sort.startswith("-") else key.asc().nulls_last()
        query = evaluation_query().where(*_chosen(experiment, choice)).order_by(ordered, EVALUATION.c.id)
        with self._database.read() as connection:
            return [evaluation_of(line) for line in connection.execute(query.limit(limit).offset(first))]

    def spent(self, evaluations: Sequence[Evaluation]) -> dict[int, tuple[float, int]]:
        """The cost in dollars and the tokens of evaluations, by their ids."""
        query = (
            select(COUNTERS.c.evaluation_id, func.sum(COUNTERS.c.cost), func.sum(COUNTERS.c.tokens))
            .where(COUNTERS.c.evaluation_id.in_([each.id for each in evaluations]))
            .group_by(COUNTERS.c.evaluation_id)
        )
        with self._database.read() as connection:
            return {key: (float(cost), int(tokens)) for key, cost, tokens in connection.execute(query)}

    def totals(self, experiment: Experiment) -> ExperimentTotals:
        """The sums over all evaluations."""
        mine = EVALUATION.c.experiment_id == experiment.id
        rows = EVALUATION.c.row_count * EVALUATION.c.epochs
        statuses = (
            select(
                EVALUATION.c.status,
                func.count().label("evaluations"),
                func.count(rows).label("known"),
                func.coalesce(func.sum(rows), 0).label("total"),
                func.sum(EVALUATION.c.worked_seconds).label("worked"),
                func.max(EVALUATION.c.finished_at).label("finished_at"),
            )
            .where(mine)
            .group_by(EVALUATION.c.status)
        )
        names = ("done", "failed", "skipped", "cost", "tokens", "unpriced")
        sums = (
            select(
                *(func.coalesce(func.sum(COUNTERS.c[name]), 0).label(name) for name in names),
                func.max(COUNTERS.c.wrote_at).label("wrote_at"),
            )
            .select_from(COUNTERS.join(EVALUATION, EVALUATION.c.id == COUNTERS.c.evaluation_id))
            .where(mine)
        )
        with self._database.read() as connection:
            lines = connection.execute(statuses).all()
            sum_ = connection.execute(sums).one()
        known = bool(lines) and all(line.known == line.evaluations for line in lines)
        times = [time for time in (sum_.wrote_at, *(line.finished_at for line in lines)) if time is not None]
        return ExperimentTotals(
            {EvaluationStatus(line.status): int(line.evaluations) for line in lines},
            Counts(
                int(sum(line.total for line in lines)) if known else None,
                int(sum_.done),
                int(sum_.failed),
                int(sum_.skipped),
            ),
            moment(max(times)) if times else None,
            float(sum(line.worked for line in lines)),
            float(sum_.cost),
            int(sum_.tokens),
            int(sum_.unpriced),
        )

    def cells(self, experiment: Experiment, limit: int) -> list[EvaluationCell]:
        """The first evaluations with parameters, with their first metrics, in the order of their creation."""
        value = and_(
            METRIC_VALUE.c.evaluation_id == EVALUATION.c.id,
            METRIC_VALUE.c.errors_as == "false",
            METRIC_VALUE.c.position == 0,
            SUMMARY.c.finished_at == EVALUATION.c.finished_at,
        )
        query = (
            select(
                EVALUATION.c.path,
                EVALUATION.c.name,
                EVALUATION.c.status,
                METRIC_VALUE.c.score,
                METRIC_VALUE.c.metric,
                METRIC_VALUE.c.value,
            )
            .select_from(
                EVALUATION.outerjoin(SUMMARY, SUMMARY.c.evaluation_id == EVALUATION.c.id).outerjoin(METRIC_VALUE, value)
            )
            .where(EVALUATION.c.experiment_id == experiment.id, EVALUATION.c.name.contains("["))
            .order_by(EVALUATION.c.id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [
                EvaluationCell(
                    line.path,
                    line.name,
                    EvaluationStatus(line.status),
                    None if line.metric is None else f"{line.score} {line.metric}",
                    line.value,
                )
                for line in connection.execute(query)
            ]

    def failures(self, experiment: Experiment, limit: int) -> list[FailureGroup]:
        """The failed rows by type and class of their errors, the most frequent first. It reads all failed rows."""
        count = func.count()
        query = (
            select(
                RESULT.c.error_type,
                RESULT.c.error_class,
                count.label("rows"),
                func.count(RESULT.c.evaluation_id.distinct()).label("evaluations"),
                func.min(RESULT.c.evaluation_id).label("example"),
            )
            .where(RESULT.c.evaluation_id.in_(_ids(experiment)), *_FAILED)
            .group_by(RESULT.c.error_type, RESULT.c.error_class)
            .order_by(count.desc(), RESULT.c.error_type)
            .limit(limit)
        )
        with self._database.read() as connection:
            lines = connection.execute(query).all()
            examples = [self._example(connection, line) for line in lines]
        return [
            FailureGroup(
                line.error_type or "",
                ErrorClass(line.error_class or ErrorClass.EVALUATION),
                int(line.rows),
                int(line.evaluations),
                example,
            )
            for line, example in zip(lines, examples, strict=True)
        ]

    def workers(self, experiment: Experiment, limit: int) -> list[ServingWorker]:
        """The worker processes that stored results, those that stored last first, in the order of their start."""
        names = ("done", "failed", "tokens", "cost")
        last = func.max(COUNTERS.c.wrote_at)
        stored = (
            select(
                COUNTERS.c.worker_id,
                last.label("wrote_at"),
                *(func.sum(COUNTERS.c[name]).label(name) for name in names),
            )
            .where(COUNTERS.c.evaluation_id.in_(_ids(experiment)), COUNTERS.c.worker_id != NOBODY)
            .group_by(COUNTERS.c.worker_id)
            .order_by(last.desc())
            .limit(limit)
            .subquery()
        )
        query = select(WORKER, *(stored.c[name] for name in ("wrote_at", *names))).join(
            stored, stored.c.worker_id == WORKER.c.id
        )
        loads: dict[int, list[FixtureLoadSpan]] = {}
        with self._database.read() as connection:
            lines = connection.execute(query.order_by(WORKER.c.started_at, WORKER.c.id)).all()
            spans = (
                select(RESOURCE_LOAD)
                .where(among(connection, RESOURCE_LOAD.c.worker_id, [line.id for line in lines]))
                .order_by(RESOURCE_LOAD.c.id)
                .limit(_LOADS * limit)
            )
            for span in connection.execute(spans) if lines else ():
                loads.setdefault(span.worker_id, []).append(_span(span))
        return [_serving(line, loads.get(line.id, [])) for line in lines]

    def fixture_totals(self, experiment: Experiment, fixture: str) -> FixtureTotals:
        """The sums over the loads of a session fixture in the worker processes of an experiment."""
        ended = RESOURCE_LOAD.c.torn_down_at.is_not(None)
        query = select(
            func.count(),
            func.count(RESOURCE_LOAD.c.error),
            func.count().filter(ended, RESOURCE_LOAD.c.error.is_(None)),
            func.coalesce(func.sum(RESOURCE_LOAD.c.seconds), 0.0),
            func.coalesce(func.max(RESOURCE_LOAD.c.seconds), 0.0),
        ).where(loaded_for(experiment), RESOURCE_LOAD.c.fixture == fixture)
        with self._database.read() as connection:
            return FixtureTotals(*connection.execute(query).one())

    def fixture_loads(self, experiment: Experiment, fixture: str, first: int, limit: int) -> list[FixtureLoadDetail]:
        """Some loads of a session fixture, from the place `first` on, the newest first."""
        query = (
            select(RESOURCE_LOAD, WORKER.c.service, WORKER.c.hostname, WORKER.c.pid)
            .join(WORKER, WORKER.c.id == RESOURCE_LOAD.c.worker_id)
            .where(loaded_for(experiment), RESOURCE_LOAD.c.fixture == fixture)
            .order_by(RESOURCE_LOAD.c.id.desc())
        )
        with self._database.read() as connection:
            lines = connection.execute(query.limit(limit).offset(first)).all()
        return [
            FixtureLoadDetail(
                _span(line),
                _worker_name(line),
                line.scope_node,
                None if line.torn_down_at is None else moment(line.torn_down_at),
                line.teardown_seconds,
                None if line.stats is None else decode(line.stats),
            )
            for line in lines
        ]

    def _example(self, connection: Any, line: Any) -> tuple[str, int]:
        same = (
            RESULT.c.error_type.is_(None) if line.error_type is None else RESULT.c.error_type == line.error_type,
            RESULT.c.error_class.is_(None) if line.error_class is None else RESULT.c.error_class == line.error_class,
        )
        first = select(func.min(RESULT.c.row_index)).where(RESULT.c.evaluation_id == line.example, *_FAILED, *same)
        names = select(EVALUATION.c.path, EVALUATION.c.name).where(EVALUATION.c.id == line.example)
        path, name = connection.execute(names).one()
        return f"{path}::{name}", int(connection.execute(first).scalar_one() or 0)


# Loads that are read, for each worker process.
_LOADS = 50
_FAILED = (RESULT.c.status != RowStatus.DONE.value, RESULT.c.status == RowStatus.FAILED.value)


def _counted(name: str) -> ColumnElement[Any]:
    return select(func.sum(COUNTERS.c[name])).where(COUNTERS.c.evaluation_id == EVALUATION.c.id).scalar_subquery()


EVALUATION_SORTS: dict[str, ColumnElement[Any]] = {
    "began": EVALUATION.c.id,
    "name": EVALUATION.c.name,
    "status": EVALUATION.c.status,
    "rows": EVALUATION.c.row_count * EVALUATION.c.epochs,
    "failed": _counted("failed"),
    "cost": _counted("cost"),
    "time": EVALUATION.c.worked_seconds,
    "score": select(METRIC_VALUE.c.value)
    .where(
        METRIC_VALUE.c.evaluation_id == EVALUATION.c.id,
        METRIC_VALUE.c.errors_as == "false",
        METRIC_VALUE.c.position == 0,
    )
    .scalar_subquery(),
}


def _chosen(experiment: Experiment, choice: EvaluationChoice) -> list[ColumnElement[bool]]:
    conditions = [EVALUATION.c.experiment_id == experiment.id]
    if choice.search is not None:
        nodeid = EVALUATION.c.path + "::" + EVALUATION.c.name
        conditions.append(nodeid.icontains(choice.search, autoescape=True))
    if choice.status is not None:
        conditions.append(EVALUATION.c.status == choice.status.value)
    return conditions


def _ids(experiment: Experiment) -> Select[tuple[int]]:
    return select(EVALUATION.c.id).where(EVALUATION.c.experiment_id == experiment.id)


def _span(line: Any) -> FixtureLoadSpan:
    return FixtureLoadSpan(line.fixture, moment(line.loaded_at), line.seconds, line.error)


def _worker_name(line: Any) -> str:
    return f"{line.service} {line.hostname}:{line.pid}"


def _serving(line: Any, loads: Sequence[FixtureLoadSpan]) -> ServingWorker:
    return ServingWorker(
        line.id,
        _worker_name(line),
        moment(line.started_at),
        moment(line.beat_at if line.left_at is None else line.left_at),
        line.left_at is not None,
        line.reason,
        int(line.done),
        int(line.failed),
        int(line.tokens),
        float(line.cost),
        None if line.wrote_at is None else moment(line.wrote_at),
        tuple(loads),
    )
