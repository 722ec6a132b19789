"""Measures how long evaluations are worked on: the sum of their running spans.

A span begins when the status of an evaluation becomes running, and ends when it becomes another one. If nobody ended a
span, because every process was killed, it ended at the last sign of work: its last result was stored, or a process
that holds its rows sent a heartbeat. So the days until somebody resumes or cancels the evaluation do not count. While
the last sign is younger than `DEAD_AFTER_SECONDS`, the span goes on, also for a command that joins.

All times are the database's. That clock may be set while a span goes on: the process that began a span measures it by a
clock that nobody sets, as long as the span lasts. What other processes find may be too much by what the clock was set
ahead, and is never negative.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select, update

from doteval.core import clocks
from doteval.core.experiments import WorkTime
from doteval.core.liveness import DEAD_AFTER_SECONDS
from doteval.store.counters import NOBODY
from doteval.store.engine import database_time
from doteval.store.tables import COUNTERS, EVALUATION, WORKER

_LAST_RESULT = (
    select(func.max(COUNTERS.c.wrote_at))
    .where(COUNTERS.c.evaluation_id == EVALUATION.c.id, COUNTERS.c.worker_id != NOBODY)
    .scalar_subquery()
)
_LAST_BEAT = (
    select(func.max(WORKER.c.beat_at))
    .where(WORKER.c.left_at.is_(None), WORKER.c.holding.contains(EVALUATION.c.uid))
    .scalar_subquery()
)
_TIMES = select(
    EVALUATION.c.id,
    EVALUATION.c.created_at,
    EVALUATION.c.finished_at,
    EVALUATION.c.worked_seconds,
    EVALUATION.c.span_began_at,
    _LAST_RESULT.label("last_result"),
    _LAST_BEAT.label("last_beat"),
    database_time().label("now"),
).where(EVALUATION.c.id == bindparam("evaluation"))

# When this process began a span, by its own clock: by evaluation and by the beginning that the store has.
_begun: dict[tuple[int, float], float] = {}
# A process begins few spans that others end; the oldest are forgotten.
_MOST_BEGUN = 1000


def begin_span(connection: Connection, evaluation_id: int) -> None:
    """Begin a span. One that goes on is left as it is, and one that nobody ended is added first."""
    line = _times(connection, evaluation_id)
    if line is None or (line.span_began_at is not None and _end(line) == line.now):
        return
    _store(connection, evaluation_id, _worked(line), line.now)


def end_span(connection: Connection, evaluation_id: int) -> None:
    """End the span of an evaluation, if it has one."""
    line = _times(connection, evaluation_id)
    if line is not None and line.span_began_at is not None:
        _store(connection, evaluation_id, _worked(line), None)


def work_time(connection: Connection, evaluation_id: int) -> WorkTime | None:
    """How long the evaluation was worked on until now, None if there is no such evaluation."""
    line = _times(connection, evaluation_id)
    if line is None:
        return None
    until = line.now if line.finished_at is None else line.finished_at
    worked = _worked(line)
    return WorkTime(worked, max(worked, until - line.created_at))


def _times(connection: Connection, evaluation_id: int) -> Row[Any] | None:
    return connection.execute(_TIMES, {"evaluation": evaluation_id}).one_or_none()


def _worked(line: Row[Any]) -> float:
    return float(line.worked_seconds + (0.0 if line.span_began_at is None else _length(line)))


def _length(line: Row[Any]) -> float:
    """The length of the open span in seconds."""
    end = _end(line)
    begun: float | None = _begun.get((line.id, line.span_began_at))
    if begun is not None and end == line.now:
        return clocks.since_boot() - begun
    return max(0.0, float(end - line.span_began_at))


def _end(line: Row[Any]) -> float:
    """When the open span ended: now if somebody works, else at the last sign of work."""
    sign = max(line.span_began_at, line.last_result or 0.0, line.last_beat or 0.0)
    return float(line.now if line.now - sign < DEAD_AFTER_SECONDS else sign)


def _store(connection: Connection, evaluation_id: int, worked: float, began: float | None) -> None:
    connection.execute(
        update(EVALUATION).where(EVALUATION.c.id == evaluation_id).values(worked_seconds=worked, span_began_at=began)
    )
    if began is not None:
        _begun[evaluation_id, began] = clocks.since_boot()
        while len(_begun) > _MOST_BEGUN:
            _begun.pop(next(iter(_begun)), None)
