"""What an experiment used: loads of session fixtures, and calls to models, kept and spent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, literal, or_, select, text

from doteval.core.budgets import Spent
from doteval.core.experiments import Experiment
from doteval.core.histogram import Latency, merged
from doteval.core.json_codec import decode
from doteval.core.results import Usage
from doteval.store.bulk_insert import among
from doteval.store.counters import NOBODY
from doteval.store.engine import Database
from doteval.store.result_rows import write_usage
from doteval.store.tables import COUNTERS, EVALUATION, RESOURCE_LOAD, RESULT, USAGE, WORKER


@dataclass(frozen=True, slots=True)
class LoadUsage:
    """One session fixture over all worker processes.

    `load_seconds` is the sum over its `loads`; `torn_down` how many of them were torn down. `stats` puts
    together what they said: numbers are added up, lists united, of anything else the last stays; text
    instead of a mapping is under "text".
    """

    fixture: str
    loads: int
    load_seconds: float
    torn_down: int
    stats: dict[str, Any]
    errors: list[str]


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """One model: `usage` by the executions whose results were kept, `spent` by all of them."""

    usage: Usage
    spent: Usage


@dataclass(frozen=True, slots=True)
class UsageGroup:
    """The models that one evaluation used."""

    name: str
    models: list[ModelUsage]


@dataclass(frozen=True, slots=True)
class WorkerUsage:
    """What one worker process did for an experiment.

    `rows` is how many results it has stored, those that were replaced since among them. `loads` are all of its
    session fixtures, which may have served other experiments too. `name` is "" for usage that belongs to no worker.
    """

    name: str
    rows: int
    loads: list[LoadUsage]
    models: list[ModelUsage]

    @property
    def spent(self) -> Usage:
        """What it spent on all models together."""
        return sum((model.spent for model in self.models), Usage(""))


@dataclass(frozen=True, slots=True)
class LostUsage:
    """What was used for no result: by an execution of a row whose worker process died, or to set fixtures up.

    `execution` None: it had no name yet. Fixtures that rows share are set up for no row: `row_index` is -1.
    """

    evaluation_uid: str
    row_index: int
    sample: int
    usage: tuple[Usage, ...]
    execution: int | None = None


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What one experiment used: session fixtures in the order of their first load, models by name."""

    loads: list[LoadUsage]
    models: list[ModelUsage]


class UsageReports:
    """What experiments used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def report(self, experiment: Experiment) -> UsageReport:
        """What the experiment used. Its loads are those of the worker processes that wrote results or loaded for it."""
        with self._database.read() as connection:
            models = _grouped(connection, experiment, literal(0)).get(0, [])
            loads = _loads(connection, experiment)
        return UsageReport(_load_usage(loads), models)

    def spent(self, experiment: Experiment) -> Spent:
        """What the experiment has spent. It costs one line a worker process, however many results there are."""
        names = ("attempts", "tokens", "cost", "unpriced")
        query = (
            select(*(func.coalesce(func.sum(COUNTERS.c[name]), 0) for name in names))
            .select_from(COUNTERS.join(EVALUATION, EVALUATION.c.id == COUNTERS.c.evaluation_id))
            .where(EVALUATION.c.experiment_id == experiment.id)
        )
        with self._database.read() as connection:
            attempts, tokens, cost, unpriced = connection.execute(query).one()
        # PostgreSQL adds 64-bit integers up to a Decimal.
        return Spent(int(attempts), int(tokens), float(cost), int(unpriced))

    def unpriced_models(self, experiment: Experiment) -> list[str]:
        """The models of which the experiment used tokens that have no price, by name. It scans the usage."""
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

    def add_lost(self, lost: Iterable[LostUsage], hostname: str, pid: int) -> None:
        """Keep what a worker process has used for no result that it stored.

        It is spent, and nothing that was kept. Evaluations that were deleted are left out; telling it twice
        changes nothing where the execution is known.
        """
        worker = select(func.max(WORKER.c.id)).where(WORKER.c.hostname == hostname, WORKER.c.pid == pid)
        with self._database.write() as connection:
            worker_id = connection.scalar(worker)
            for each in lost:
                evaluation = select(EVALUATION.c.id).where(EVALUATION.c.uid == each.evaluation_uid)
                evaluation_id = connection.scalar(evaluation)
                if evaluation_id is not None:
                    key = (evaluation_id, each.row_index, each.sample)
                    write_usage(connection, key, each.execution, each.usage, worker_id)

    def by_worker(self, experiment: Experiment) -> list[WorkerUsage]:
        """The same by worker process, in the order in which these began."""
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
        """The same calls to models by evaluation."""
        query = select(EVALUATION.c.id, EVALUATION.c.path, EVALUATION.c.name)
        with self._database.read() as connection:
            found = _grouped(connection, experiment, USAGE.c.evaluation_id)
            names = {
                line.id: f"{line.path}::{line.name}"
                for line in connection.execute(query.where(EVALUATION.c.experiment_id == experiment.id))
            }
        return [UsageGroup(names[evaluation], found[evaluation]) for evaluation in sorted(found)]


_SUMMED = tuple(name for name in Usage.__dataclass_fields__ if name not in ("model", "latency"))
_KEPT = (
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
    """The loads of the worker processes that wrote results or loaded for an experiment, in their order."""
    ids = _evaluations(experiment)
    wrote = select(COUNTERS.c.worker_id).where(COUNTERS.c.evaluation_id.in_(ids))
    loaded = select(RESOURCE_LOAD.c.worker_id).where(RESOURCE_LOAD.c.evaluation_id.in_(ids))
    served = or_(RESOURCE_LOAD.c.worker_id.in_(wrote), RESOURCE_LOAD.c.worker_id.in_(loaded))
    return connection.execute(select(RESOURCE_LOAD).where(served).order_by(RESOURCE_LOAD.c.id)).all()


def _grouped(connection: Connection, experiment: Experiment, group: ColumnElement[Any]) -> dict[Any, list[ModelUsage]]:
    """The usage of an experiment by whatever `group` says, and by model."""
    mine = USAGE.c.evaluation_id.in_(_evaluations(experiment))
    spent = _sums(connection, group, mine)
    kept = _sums(connection, group, mine, _KEPT)
    found: dict[Any, list[ModelUsage]] = {}
    for place, model in sorted(spent):
        usage = kept.get((place, model), Usage(model))
        found.setdefault(place, []).append(ModelUsage(usage, spent[place, model]))
    return found


def _sums(
    connection: Connection, group: ColumnElement[Any], *conditions: ColumnElement[bool]
) -> dict[tuple[Any, str], Usage]:
    place = group.label("place")
    sums = (func.sum(USAGE.c[name]).label(name) for name in _SUMMED)
    # By the number of the column: PostgreSQL takes two bound parameters for two different things.
    by = (text("1"), text("2"))
    query = select(place, USAGE.c.model, *sums).where(*conditions).group_by(*by)
    # Few different texts: nearly all rows have one reply in one of a hundred buckets.
    replies = (
        select(place, USAGE.c.model, USAGE.c.latency, func.count().label("times"))
        .where(*conditions, USAGE.c.latency != "")
        .group_by(*by, text("3"))
    )
    latencies: dict[tuple[Any, str], list[tuple[Latency, int]]] = {}
    for line in connection.execute(replies):
        latencies.setdefault((line.place, line.model), []).append((Latency.from_text(line.latency), line.times))
    # PostgreSQL adds 64-bit integers up to a Decimal.
    return {
        (line.place, line.model): Usage(
            line.model,
            **{name: int(getattr(line, name)) for name in _SUMMED if name not in ("cost", "seconds", "waited")},
            cost=line.cost,
            seconds=line.seconds,
            waited=line.waited,
            latency=merged(latencies.get((line.place, line.model), [])),
        )
        for line in connection.execute(query)
    }


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
