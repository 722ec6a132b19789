"""The views that `doteval query` reads: what their columns are, and where their values come from.

Their names and columns are documented in docs/reading-results.md, and stay: columns may be added, none is renamed or
removed. They hold no URLs, command lines or code.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sqlalchemy import select

from doteval.core.json_codec import encode
from doteval.core.provenance import Provenance
from doteval.store.row_views import ROW_VIEWS
from doteval.store.store import Store
from doteval.store.summary_tables import METRIC_VALUE
from doteval.store.view_schema import Kind, Page, Part, View, as_page

_ROWS = {"rows": Kind.INTEGER, "done": Kind.INTEGER, "failed": Kind.INTEGER, "skipped": Kind.INTEGER}


def _experiments(store: Store, _: Collection[str], __: Part | None) -> Iterator[Page]:
    yield as_page(
        {
            "experiment": each.experiment.name,
            "created_at": each.experiment.created_at.timestamp(),
            "active_at": each.active_at.timestamp(),
            "status": each.status and each.status.value,
            "evaluations": each.evaluations,
            "rows": each.counts.total,
            "done": each.counts.done,
            "failed": each.counts.failed,
            "skipped": each.counts.skipped,
            "tags": list(each.labels.tags),
            "note": each.labels.note,
            **_origin(each.begun_by),
        }
        for each in store.experiments.overviews()
    )


def _origin(begun_by: Provenance | None) -> Mapping[str, Any]:
    git = None if begun_by is None else begun_by.git
    return {
        "git_commit": git and git.commit,
        "git_branch": git and git.branch,
        "git_dirty": git and git.dirty,
        "host": begun_by and begun_by.host,
        "user": begun_by and begun_by.user,
    }


def _evaluations(store: Store, _: Collection[str], __: Part | None) -> Iterator[Page]:
    yield as_page(
        {
            "experiment": each.experiment.name,
            "evaluation": each.spec.nodeid,
            "status": each.status.value,
            "reason": each.reason,
            "created_at": each.created_at.timestamp(),
            "finished_at": each.finished_at and each.finished_at.timestamp(),
            "rows": each.counts.total,
            "done": each.counts.done,
            "failed": each.counts.failed,
            "skipped": each.counts.skipped,
            "columns": list(each.spec.columns),
            "dataset": each.rows_hash,
        }
        for each in store.evaluations.all()
    )


def _metrics(store: Store, _: Collection[str], __: Part | None) -> Iterator[Page]:
    evaluations = {each.id: each for each in store.evaluations.all()}
    stored = store.summaries.stored(evaluations.values())
    query = (
        select(METRIC_VALUE)
        .where(METRIC_VALUE.c.errors_as == "false", METRIC_VALUE.c.metric.is_not(None))
        .order_by(METRIC_VALUE.c.evaluation_id, METRIC_VALUE.c.position)
    )
    with store._database.read() as connection:
        lines = [line for line in connection.execute(query) if line.evaluation_id in stored]
    names = ("score", "metric", "value", "low", "high", "interval_method", "n", "failed", "left_out", "without_failed")
    yield as_page(
        {
            "experiment": evaluations[line.evaluation_id].experiment.name,
            "evaluation": evaluations[line.evaluation_id].spec.nodeid,
            **{name: getattr(line, name) for name in names},
        }
        for line in lines
    )


def _workers(store: Store, _: Collection[str], __: Part | None) -> Iterator[Page]:
    stored = store.workers.results()
    yield as_page(
        {
            "worker": f"{each.info.hostname}:{each.info.pid}",
            "service": each.info.service,
            "host": each.info.hostname,
            "pid": each.info.pid,
            "state": each.state.value,
            "queues": list(each.info.queues),
            "device": each.info.device,
            "concurrency": each.info.concurrency,
            "results": stored.get(each.id, 0),
            "started_at": each.started_at.timestamp(),
            "heartbeat_at": each.beat_at.timestamp(),
            "left_at": each.left_at and each.left_at.timestamp(),
            "end_cause": each.end_cause and each.end_cause.value,
            "reason": each.reason,
            "exit_code": each.exit_code,
            "versions": encode(dict(each.info.versions or {})),
        }
        for each in store.workers.all()
    )


VIEWS = (
    View(
        "experiments",
        {
            "experiment": Kind.TEXT,
            "created_at": Kind.MOMENT,
            "active_at": Kind.MOMENT,
            "status": Kind.TEXT,
            "evaluations": Kind.INTEGER,
            **_ROWS,
            "tags": Kind.TEXTS,
            "note": Kind.TEXT,
            "git_commit": Kind.TEXT,
            "git_branch": Kind.TEXT,
            "git_dirty": Kind.FLAG,
            "host": Kind.TEXT,
            "user": Kind.TEXT,
        },
        False,
        _experiments,
    ),
    View(
        "evaluations",
        {
            "experiment": Kind.TEXT,
            "evaluation": Kind.TEXT,
            "status": Kind.TEXT,
            "reason": Kind.TEXT,
            "created_at": Kind.MOMENT,
            "finished_at": Kind.MOMENT,
            **_ROWS,
            "columns": Kind.TEXTS,
            "dataset": Kind.TEXT,
        },
        False,
        _evaluations,
    ),
    View(
        "metrics",
        {
            "experiment": Kind.TEXT,
            "evaluation": Kind.TEXT,
            "score": Kind.TEXT,
            "metric": Kind.TEXT,
            "value": Kind.NUMBER,
            "low": Kind.NUMBER,
            "high": Kind.NUMBER,
            "interval_method": Kind.TEXT,
            "n": Kind.INTEGER,
            "failed": Kind.INTEGER,
            "left_out": Kind.INTEGER,
            "without_failed": Kind.NUMBER,
        },
        False,
        _metrics,
    ),
    *ROW_VIEWS,
    View(
        "workers",
        {
            "worker": Kind.TEXT,
            "service": Kind.TEXT,
            "host": Kind.TEXT,
            "pid": Kind.INTEGER,
            "state": Kind.TEXT,
            "queues": Kind.TEXTS,
            "device": Kind.TEXT,
            "concurrency": Kind.INTEGER,
            "results": Kind.INTEGER,
            "started_at": Kind.MOMENT,
            "heartbeat_at": Kind.MOMENT,
            "left_at": Kind.MOMENT,
            "end_cause": Kind.TEXT,
            "reason": Kind.TEXT,
            "exit_code": Kind.INTEGER,
            "versions": Kind.JSON,
        },
        False,
        _workers,
    ),
)
