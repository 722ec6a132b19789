"""What an experiment used: loads of session fixtures, and calls to models, kept and spent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select

from doteval.encoding import decode
from doteval.experiments import Experiment
from doteval.results import Usage
from doteval.store.engine import Database
from doteval.store.tables import EVALUATION, RESOURCE_LOAD, RESULT, TALLY, USAGE


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
        ids = select(EVALUATION.c.id).where(EVALUATION.c.experiment_id == experiment.id)
        served = or_(
            RESOURCE_LOAD.c.worker_id.in_(select(TALLY.c.worker_id).where(TALLY.c.evaluation_id.in_(ids))),
            RESOURCE_LOAD.c.worker_id.in_(
                select(RESOURCE_LOAD.c.worker_id).where(RESOURCE_LOAD.c.evaluation_id.in_(ids))
            ),
        )
        loads = select(RESOURCE_LOAD).where(served).order_by(RESOURCE_LOAD.c.id)
        kept = and_(
            RESULT.c.evaluation_id == USAGE.c.evaluation_id,
            RESULT.c.row_index == USAGE.c.row_index,
            RESULT.c.sample == USAGE.c.sample,
            RESULT.c.execution == USAGE.c.execution,
        )
        of_experiment = USAGE.c.evaluation_id.in_(ids)
        with self._database.read() as connection:
            spent = _by_model(connection.execute(_sums(of_experiment)))
            won = _by_model(connection.execute(_sums(of_experiment, select(1).where(kept).exists())))
            lines = connection.execute(loads).all()
        return UsageReport(
            _load_usage(lines), [ModelUsage(won.get(model, Usage(model)), spent[model]) for model in sorted(spent)]
        )


_SUMMED = tuple(name for name in Usage.__dataclass_fields__ if name != "model")


def _sums(*conditions: ColumnElement[bool]) -> Any:
    sums = (func.sum(USAGE.c[name]).label(name) for name in _SUMMED)
    return select(USAGE.c.model, *sums).where(*conditions).group_by(USAGE.c.model)


def _by_model(lines: Iterable[Any]) -> dict[str, Usage]:
    # PostgreSQL adds 64-bit integers up to a Decimal.
    return {
        line.model: Usage(
            line.model,
            **{name: int(getattr(line, name)) for name in _SUMMED if name not in ("cost", "seconds")},
            cost=line.cost,
            seconds=line.seconds,
        )
        for line in lines
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
            torn_down=sum(load.torn_down_at is not None for load in loads),
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
