"""Reports the usage of an experiment: loads of session fixtures, and calls to models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, literal, or_, select, text

from doteval.core.budgets import Spent
from doteval.core.experiments import Experiment
from doteval.core.histogram import Latency, merged
from doteval.core.json_codec import decode
from doteval.core.results import USAGE_IDENTITY, Usage
from doteval.store.bulk_insert import among
from doteval.store.counters import NOBODY
from doteval.store.engine import Database
from doteval.store.result_rows import write_usage
from doteval.store.tables import COUNTERS, EVALUATION, RESOURCE_LOAD, RESULT, USAGE, WORKER


@dataclass(frozen=True, slots=True)
class LoadUsage:
    """The loads of one session fixture in all worker processes.

    load_seconds: the sum over its loads.
    torn_down: how many of them were torn down.
    stats: the merged statistics of its loads: numbers are added, lists are united, of other values the last one stays.
        Statistics that are a text are under "text".
    """

    fixture: str
    loads: int
    load_seconds: float
    torn_down: int
    stats: dict[str, Any]
    errors: list[str]


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """The usage of one model, that of judges and of batches apart.

    usage: of the executions whose results were kept. spent: of all executions.
    unpriced: the tokens of `spent` that have no price. Other tokens of a model with this name may have one, those of
        another provider, say.
    """

    usage: Usage
    spent: Usage
    unpriced: int = 0


@dataclass(frozen=True, slots=True)
class UsageGroup:
    """The models that one evaluation used."""

    name: str
    models: list[ModelUsage]


@dataclass(frozen=True, slots=True)
class WorkerUsage:
    """The work of one worker process for an experiment.

    name: "" for usage that belongs to no worker process.
    rows: how many results it stored, including those that were replaced since.
    loads: all of its session fixtures, which may have served other experiments too.
    """

    name: str
    rows: int
    loads: list[LoadUsage]
    models: list[ModelUsage]

    @property
    def spent(self) -> Usage:
        """The sum over all models."""
        return sum((model.spent for model in self.models), Usage(""))


@dataclass(frozen=True, slots=True)
class LostUsage:
    """Usage without a result: of an execution whose worker process ended, or of setting up fixtures.

    row_index: -1 for fixtures that rows share.
    execution: None if the execution had no name yet.
    """

    evaluation_uid: str
    row_index: int
    sample: int
    usage: tuple[Usage, ...]
    execution: int | None = None


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The usage of one experiment: session fixtures in the order of their first load, models by name."""

    loads: list[LoadUsage]
    models: list[ModelUsage]


class UsageReports:
    """Reads the usage of experiments, and records usage without a result."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def report(self, experiment: Experiment) -> UsageReport:
        """The usage of an experiment, with the loads of worker processes that wrote results or loaded for it."""
        with self._database.read() as connection:
            models = _grouped(connection, experiment, literal(0)).get(0, [])
            loads = _loads(connection, experiment)
        return UsageReport(_load_usage(loads), models)

    def spent(self, experiment: Experiment) -> Spent:
        """What an experiment has spent. It reads one table row a worker process, however many results there are."""
        names = ("attempts", "tokens", "cost", "unpriced")
        query = (
            select(*(func.coalesce(func.sum(COUNTERS.c[name]), 0) for name in names))
            .select_from(COUNTERS.join(EVALUATION, EVALUATION.c.id == COUNTERS.c.evaluation_id))
            .where(EVALUATION.c.experiment_id == experiment.id)
        )
        with self._database.read() as connection:
            attempts, tokens, cost, unpriced = connection.execute(query).one()
        # In PostgreSQL the sum of 64-bit integers is a Decimal.
        return Spent(int(attempts), int(tokens), float(cost), int(unpriced))

    def unpriced_models(self, experiment: Experiment) -> list[str]:
        """The names of the models without a price whose tokens an experiment used. It scans the usage."""
        query = (
            select(USAGE.c.model)
            .join(EVALUATION, EVALUATION.c.id == USAGE.c.evaluation_id)
            .where(
                EVALUATION.c.experiment_id == experiment.id,
                USAGE.c.cost.is_(None),
                USAGE.c.prompt_tokens + USAGE.c.completion_tokens > 0,
            )
            .distinct()
            .order_by(USAGE.c.model)
        )
        with self._database.read() as connection:
            return list(connection.scalars(query))

    def add_lost(self, lost: Iterable[LostUsage], worker_id: int | None) -> None:
        """Record usage of a worker process that led to no stored result, so that it counts as spent.

        Usage of deleted evaluations is dropped. Recording it twice changes nothing if the execution has a name.

        worker_id: the worker process, None if it never registered.
        """
        with self._database.write() as connection:
            for each in lost:
                evaluation = select(EVALUATION.c.id).where(EVALUATION.c.uid == each.evaluation_uid)
                evaluation_id = connection.scalar(evaluation)
                if evaluation_id is not None:
                    key = (evaluation_id, each.row_index, each.sample)
                    write_usage(connection, key, each.execution, each.usage, worker_id)

    def by_worker(self, experiment: Experiment) -> list[WorkerUsage]:
        """The usage of an experiment by worker process, in the order in which these began."""
        stored = (
            select(COUNTERS.c.worker_id, func.sum(COUNTERS.c.done + COUNTERS.c.failed + COUNTERS.c.skipped))
            .where(COUNTERS.c.evaluation_id.in_(_evaluations(experiment)), COUNTERS.c.worker_id != NOBODY)
            .group_by(COUNTERS.c.worker_id)
        )
        query = select(WORKER.c.id, WORKER.c.service, WORKER.c.hostname, WORKER.c.pid)
        loads: dict[int, list[Any]] = {}
        with self._database.read() as connection:
            models = _grouped(connection, experiment, func.coalesce(USAGE.c.worker_id, NOBODY))
            for line in _loads(connection, experiment):
                loads.setdefault(line.worker_id, []).append(line)
            rows = {worker: int(count) for worker, count in connection.execute(stored)}
            workers = sorted({*models, *loads, *rows})
            names = {
                line.id: f"{line.service} {line.hostname}:{line.pid}"
                for line in connection.execute(query.where(among(connection, WORKER.c.id, workers)))
            }
        return [
            WorkerUsage(
                names.get(worker, ""), rows.get(worker, 0), _load_usage(loads.get(worker, [])), models.get(worker, [])
            )
            for worker in workers
        ]

    def by_evaluation(self, experiment: Experiment) -> list[UsageGroup]:
        """The usage of an experiment by evaluation."""
        query = select(EVALUATION.c.id, EVALUATION.c.path, EVALUATION.c.name)
        with self._database.read() as connection:
            found = _grouped(connection, experiment, USAGE.c.evaluation_id)
            names = {
                line.id: f"{line.path}::{line.name}"
                for line in connection.execute(query.where(EVALUATION.c.experiment_id == experiment.id))
            }
        return [UsageGroup(names[evaluation], found[evaluation]) for evaluation in sorted(found)]


_SUMMED = tuple(name for name in Usage.__dataclass_fields__ if name not in (*USAGE_IDENTITY, "latency"))
_IDENTITY = tuple(USAGE.c[name] for name in USAGE_IDENTITY)
KEPT = (
    select(1)
    .where(
        RESULT.c.evaluation_id == USAGE.c.evaluation_id,
        RESULT.c.row_index == USAGE.c.row_index,
        RESULT.c.sample == USAGE.c.sample,
        RESULT.c.execution == USAGE.c.execution,
    )
    .exists()
)


def _evaluations(experiment: Experiment) -> Select[tuple[int]]:
    return select(EVALUATION.c.id).where(EVALUATION.c.experiment_id == experiment.id)


def _loads(connection: Connection, experiment: Experiment) -> Sequence[Any]:
    return connection.execute(select(RESOURCE_LOAD).where(loaded_for(experiment)).order_by(RESOURCE_LOAD.c.id)).all()


def loaded_for(experiment: Experiment) -> ColumnElement[bool]:
    """The condition for loads of worker processes that wrote results or loaded for an experiment."""
    ids = _evaluations(experiment)
    wrote = select(COUNTERS.c.worker_id).where(COUNTERS.c.evaluation_id.in_(ids))
    loaded = select(RESOURCE_LOAD.c.worker_id).where(RESOURCE_LOAD.c.evaluation_id.in_(ids))
    served = or_(RESOURCE_LOAD.c.worker_id.in_(wrote), RESOURCE_LOAD.c.worker_id.in_(loaded))
    # Failures with an evaluation say why a process cannot run it, and are no load of one fixture.
    of_fixtures = or_(RESOURCE_LOAD.c.evaluation_id.is_(None), RESOURCE_LOAD.c.error.is_(None))
    return and_(served, of_fixtures)


def _grouped(connection: Connection, experiment: Experiment, group: ColumnElement[Any]) -> dict[Any, list[ModelUsage]]:
    """The usage of an experiment, grouped by `group` and by what it is the usage of."""
    mine = USAGE.c.evaluation_id.in_(_evaluations(experiment))
    spent = _sums(connection, group, mine)
    kept = _sums(connection, group, mine, KEPT)
    found: dict[Any, list[ModelUsage]] = {}
    for group_key, *identity in sorted(spent):
        key = (group_key, *identity)
        nothing = Usage(**dict(zip(USAGE_IDENTITY, identity, strict=True)))
        usage, _ = kept.get(key, (nothing, 0))
        found.setdefault(group_key, []).append(ModelUsage(usage, *spent[key]))
    return found


def _sums(
    connection: Connection, group: ColumnElement[Any], *conditions: ColumnElement[bool]
) -> dict[tuple[Any, ...], tuple[Usage, int]]:
    """The usage by group and identity, and how many of its tokens have no price."""
    key = group.label("key")
    sums = (func.sum(USAGE.c[name]).label(name) for name in _SUMMED)
    # By column number: PostgreSQL does not see that two bound parameters are the same expression.
    by = [text(str(number + 1)) for number in range(1 + len(_IDENTITY))]
    unpriced = func.sum(case((USAGE.c.cost.is_(None), USAGE.c.prompt_tokens + USAGE.c.completion_tokens), else_=0))
    query = select(key, *_IDENTITY, *sums, unpriced.label("unpriced")).where(*conditions).group_by(*by)
    # There are few different texts, since nearly all rows have one reply, in one of a hundred buckets.
    replies = (
        select(key, *_IDENTITY, USAGE.c.latency, func.count().label("times"))
        .where(*conditions, USAGE.c.latency != "")
        .group_by(*by, text(str(len(by) + 1)))
    )
    latencies: dict[tuple[Any, ...], list[tuple[Latency, int]]] = {}
    for *of, latency, times in connection.execute(replies):
        latencies.setdefault(tuple(of), []).append((Latency.from_text(latency), times))
    found = {}
    for line in connection.execute(query):
        names = {name: getattr(line, name) for name in USAGE_IDENTITY}
        summed = {name: _summed(getattr(line, name)) for name in _SUMMED}
        each = (line.key, *names.values())
        found[each] = (Usage(**names, **summed, latency=merged(latencies.get(each, []))), int(line.unpriced))
    return found


def _summed(number: Any) -> Any:
    # In PostgreSQL the sum of 64-bit integers is a Decimal.
    return int(number) if isinstance(number, Decimal) else number


def _load_usage(lines: Iterable[Any]) -> list[LoadUsage]:
    by_fixture: dict[str, list[Any]] = {}
    for line in lines:
        by_fixture.setdefault(line.fixture, []).append(line)
    return [
        LoadUsage(
            fixture=fixture,
            loads=len(loads),
            load_seconds=sum(load.seconds for load in loads),
            torn_down=sum(load.torn_down_at is not None and load.error is None for load in loads),
            stats=_united(decode(load.stats) for load in loads if load.stats is not None),
            errors=[load.error for load in loads if load.error is not None],
        )
        for fixture, loads in by_fixture.items()
    ]


def _united(all_stats: Iterable[Any]) -> dict[str, Any]:
    united: dict[str, Any] = {}
    for stats in all_stats:
        united = _add(united, stats if isinstance(stats, dict) else {"text": stats})
    return united


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return {
            key: _add(left[key], right[key]) if key in left and key in right else left.get(key, right.get(key))
            for key in {**left, **right}
        }
    if _is_number(left) and _is_number(right):
        return left + right
    if isinstance(left, list) and isinstance(right, list):
        return left + [member for member in right if member not in left]
    return right


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
