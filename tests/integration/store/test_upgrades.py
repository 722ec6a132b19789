"""Stores that an older release wrote: every migration keeps what they hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy
import pytest
from sqlalchemy import text

from doteval.coordination.claims import has_ended
from doteval.coordination.registration import Registration
from doteval.core.batches import AfterDeadline
from doteval.core.call_journal import JournalMode
from doteval.core.experiments import EvaluationStatus
from doteval.core.json_codec import encode
from doteval.core.results import Usage
from doteval.core.run_config import RunConfig
from doteval.core.states import EvaluationEnd, LoadFailureKind, WorkerEnd, WorkerPhase
from doteval.errors import StoreVersionError
from doteval.store import HeldRange, ModelUsage, Store, WorkerInfo, migrations
from doteval.store.engine import Database
from doteval.store.migrations import VERSIONS, Schema
from doteval.store.url import locate
from tests.support.run_config import FULL
from tests.support.store_workload import begin


def make_store_of_version(version: str, url: str, directory: Path) -> Database:
    """An empty store with the schema of an older release."""
    older = VERSIONS[: VERSIONS.index(version) + 1]
    directory.mkdir()
    for each in older:
        (module,) = Schema().directory.glob(f"v{each}_*.py")
        (directory / module.name).write_text(module.read_text())
    database = Database(locate(url))
    migrations.upgrade(database, Schema(older, directory))
    return database


def insert(database: Database, table: str, **values: object) -> None:
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    with database.write() as connection:
        connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), values)


def insert_evaluation(database: Database, number: int, **values: object) -> None:
    defaults: dict[str, Any] = {
        "id": number,
        "uid": f"u{number}",
        "experiment_id": 1,
        "path": "eval_a.py",
        "name": f"eval_{number}",
        "columns": "[]",
        "fingerprint": "{}",
        "extra": "{}",
        "epochs": 1,
        "status": "running",
        "created_at": 0,
        "published": 0,
        "dataset_complete": True,
    }
    insert(database, "evaluation", **defaults | values)


@pytest.fixture
def old_store(store_url: str, tmp_path: Path) -> Database:
    """A store of schema version 0005 with one experiment."""
    database = make_store_of_version("0005", store_url, tmp_path / "versions")
    insert(database, "experiment", id=1, name="x", created_at=0)
    return database


SUBMITTED = {
    "queue": "gpu",
    "root": "/evals/\udcff",
    "concurrency": 10,
    "own_concurrency": True,
    "batch_size": 8,
    "placed": True,
    "private": "p1",
    "policy": {"retries": 5, "delay": 0.5, "timeout": 30.0},
    "max_crashes": 4,
    "cache": {"mode": "refresh", "since": 12.5},
    "budget": {"requests": 100, "tokens": None, "cost": 0.25},
}


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        pytest.param({}, RunConfig(), id="of run() without batches"),
        pytest.param(
            {"root": "/evals", "concurrency": 1, "own_concurrency": False},
            RunConfig(root="/evals", concurrency=1),
            id="of plain pytest",
        ),
        pytest.param(
            SUBMITTED,
            # Its budget has no limit of tokens, no mark was stored, and there was nothing of what came later.
            replace(
                FULL,
                reducer=None,
                journal=JournalMode.FULL,
                replay=False,
                max_retries=5,
                max_requests=100,
                max_tokens=None,
                strict_xfail=None,
                imported_from=None,
                rescoring=None,
                batch=False,
                own_batch=None,
                batch_tokens=None,
                traceparent=None,
                batch_linger=60.0,
                batch_deadline=None,
                then=AfterDeadline.FAIL,
                root="/evals/\udcff",
                concurrency=10,
            ),
            id="of submit",
        ),
        pytest.param({"policy": {}, "queue": None}, RunConfig(submitted=True), id="of submit with defaults"),
    ],
)
def test_0006_turns_free_entries_into_a_run_configuration(
    store_url: str, old_store: Database, extra: Mapping[str, object], expected: RunConfig
) -> None:
    with closing(old_store):
        insert_evaluation(old_store, 1, extra=encode(extra))
        migrations.upgrade(old_store)
    with Store.open(store_url) as store:
        assert store.evaluations.by_uid("u1").config == expected
        assert store.evaluations.by_uid("u1").dataset_notes == ()
        store.evaluations.reconfigure(1, lambda config: config)
        assert store.evaluations.by_uid("u1").config == expected


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        ("running", None, None),
        ("completed", None, None),
        ("cancelled", "the budget is used up: 1 of 1 requests", EvaluationEnd.BUDGET_USED_UP),
        ("cancelled", "the budget of $1.00 cannot be kept: no price is known for m", EvaluationEnd.BUDGET_UNPRICED),
        ("cancelled", "interrupted", EvaluationEnd.INTERRUPTED),
        ("cancelled", "too slow", EvaluationEnd.CANCELLED_BY_USER),
        ("failed", "model failed on every worker process: OSError: no disk", EvaluationEnd.FIXTURES_FAILED),
        ("failed", "more than 5 rows have failed", EvaluationEnd.TOO_MANY_ERRORS),
        ("failed", "the dataset has no column x", EvaluationEnd.ERROR),
    ],
)
def test_0006_reads_why_an_evaluation_ended_one_last_time(
    store_url: str, old_store: Database, status: str, reason: str | None, expected: EvaluationEnd | None
) -> None:
    with closing(old_store):
        insert_evaluation(old_store, 1, status=status, reason=reason)
        migrations.upgrade(old_store)
    with Store.open(store_url) as store:
        evaluation = store.evaluations.by_uid("u1")
        assert (evaluation.status, evaluation.reason, evaluation.end_cause) == (status, reason, expected)


def test_0009_gives_skipped_evaluations_a_status(store_url: str, old_store: Database) -> None:
    with closing(old_store):
        insert_evaluation(old_store, 1, status="completed", reason="skipped: no key")
        insert_evaluation(old_store, 2, status="completed", reason=None)
        migrations.upgrade(old_store)
    with Store.open(store_url) as store:
        found = [store.evaluations.by_uid(uid) for uid in ("u1", "u2")]
        assert [(each.status, each.reason, each.end_cause) for each in found] == [
            (EvaluationStatus.SKIPPED, "no key", EvaluationEnd.SKIPPED),
            (EvaluationStatus.COMPLETED, None, None),
        ]


def test_0010_knows_the_spans_of_evaluations_as_far_as_they_were_stored(store_url: str, tmp_path: Path) -> None:
    database = make_store_of_version("0009", store_url, tmp_path / "versions")
    insert(database, "experiment", id=1, name="x", created_at=0)
    described = {"columns": "[]", "fingerprint": "{}", "run_config": encode(RunConfig().to_json()), "epochs": 1}
    facts: dict[str, Any] = {"experiment_id": 1, "path": "a.py", "published": 0, "dataset_complete": True, **described}
    ended: dict[str, Any] = {"status": "completed", "created_at": 100.0}
    with closing(database):
        insert(database, "evaluation", id=1, uid="u1", name="long", finished_at=400.0, **ended, **facts)
        insert(database, "evaluation", id=2, uid="u2", name="clock set back", finished_at=99.0, **ended, **facts)
        insert(database, "evaluation", id=3, uid="u3", name="left", status="running", created_at=1000.0, **facts)
        for worker_id in (0, 1):
            insert(database, "counters", evaluation_id=3, worker_id=worker_id, done=worker_id, failed=0, skipped=0)
        result: dict[str, Any] = {"status": "done", "retry": False, "execution": 1, "worker_id": 1, "seconds": 50.0}
        for row, begun in enumerate((1100.0, 1050.0)):
            insert(database, "result", evaluation_id=3, row_index=row, sample=0, started_at=begun, **result)
        migrations.upgrade(database)
    with Store.open(store_url) as store:
        assert [store.evaluations.work_time(number).worked for number in (1, 2, 3)] == [300.0, 0.0, 150.0]
        assert [store.evaluations.work_time(number).elapsed for number in (1, 2)] == [300.0, 0.0]
        # The running one was left by everybody long ago.
        assert store.evaluations.set_status(3, EvaluationStatus.CANCELLED)
        assert store.evaluations.work_time(3).worked == 150.0


def test_0012_reads_the_numbers_of_scores(store_url: str, tmp_path: Path) -> None:
    values: dict[Any, float | None] = {
        True: 1.0,
        False: 0.0,
        12: 12.0,
        -0.5: -0.5,
        1e-9: 1e-9,
        2**64 - 1: float(2**64 - 1),
        2**70: float(2**70),
        numpy.float32(0.5): 0.5,
        Decimal("2.5"): 2.5,
        ("a", "a"): 1.0,
        ("a", "b", "c"): None,
        "true": None,
        "7": None,
        None: None,
        math.nan: None,
        10**400: None,
    }
    database = make_store_of_version("0011", store_url, tmp_path / "versions")
    with closing(database):
        key = {"evaluation_id": 1, "sample": 0, "position": 0, "name": "s", "metrics": "[]"}
        for row, value in enumerate(values):
            insert(database, "score", row_index=row, value=encode(value), **key)
        migrations.upgrade(database)
        with database.read() as connection:
            found = connection.execute(text("SELECT number FROM score ORDER BY row_index")).scalars().all()
    assert found == list(values.values())


WORKER_ENDS = {
    "left": WorkerEnd.LEFT,
    "was asked to leave while it began": WorkerEnd.LEFT,
    "recycled after 5 rows": WorkerEnd.RECYCLED,
    "could not start: no such file": WorkerEnd.FAILED_TO_START,
    "left with exit code 3": WorkerEnd.EXITED,
    "was killed by SIGKILL": WorkerEnd.KILLED,
    "was killed: a row was over its time and could not be interrupted": WorkerEnd.STUCK,
    "was stuck: the teardown of model": WorkerEnd.STUCK,
    "was killed, or ended without a word": WorkerEnd.LOST,
    "ended, nobody knows how": WorkerEnd.LOST,
}


def test_0006_reads_how_worker_processes_ended_one_last_time(store_url: str, old_store: Database) -> None:
    facts = {"service": "w", "hostname": "h", "queues": "[]", "concurrency": 1, "versions": "{}", "holding": "[]"}
    times = {"started_at": 0.0, "beat_at": 0.0}
    with closing(old_store):
        for number, reason in enumerate(WORKER_ENDS):
            insert(old_store, "worker", pid=number, state="left", left_at=1.0, reason=reason, **facts, **times)
        insert(old_store, "worker", pid=99, state="ready", **facts, **times)
        migrations.upgrade(old_store)
    with Store.open(store_url) as store:
        *ended, live = store.workers.all()
        assert {worker.reason: worker.end_cause for worker in ended} == WORKER_ENDS
        assert (live.end_cause, live.exit_code) == (None, None)


def test_0006_reads_why_fixtures_failed_one_last_time(store_url: str, old_store: Database) -> None:
    failures = (
        ("fixtures", "OSError: no disk", LoadFailureKind.ERROR),
        ("fixtures", "Skipped: no key", LoadFailureKind.SKIPPED),
        ("(evaluation files)", "the files differ", LoadFailureKind.OTHER_CODE),
    )
    with closing(old_store):
        insert_evaluation(old_store, 1)
        facts = {"service": "w", "hostname": "h", "queues": "[]", "concurrency": 1, "versions": "{}", "holding": "[]"}
        insert(old_store, "worker", id=1, pid=1, state="ready", started_at=0.0, beat_at=0.0, **facts)
        load = {"worker_id": 1, "evaluation_id": 1, "scope_node": "", "loaded_at": 0.0, "seconds": 0.0}
        for fixture, error, _ in failures:
            insert(old_store, "resource_load", fixture=fixture, error=error, **load)
        insert(old_store, "resource_load", fixture="model", **load)
        migrations.upgrade(old_store)
    with Store.open(store_url) as store:
        found = [(each.fixture, each.error, each.kind) for each in store.loads.failures(1)]
        assert found == [(fixture, error.removeprefix("Skipped: "), kind) for fixture, error, kind in failures]


def test_0015_processes_of_an_older_release_go_on_and_are_nobody_else(store_url: str, tmp_path: Path) -> None:
    database = make_store_of_version("0014", store_url, tmp_path / "versions")
    facts = {"service": "w", "hostname": "h", "queues": "[]", "concurrency": 1, "versions": "{}"}
    times = {"started_at": 0.0, "beat_at": 0.0}
    # What a running process of the older release does, before and after the upgrade.
    beat = text("UPDATE worker SET beat_at = :now, holding = :held WHERE id = :id AND left_at IS NULL")
    end = text("UPDATE worker SET left_at = :now, state = 'left', holding = '[]' WHERE hostname = 'h' AND pid = 5")
    with closing(database):
        for _ in range(2):
            insert(database, "worker", pid=5, state="ready", holding="[]", **facts, **times)
        migrations.upgrade(database)
        with Store.open(store_url) as store:
            info = WorkerInfo("w", "h", 5)
            new = Registration(store, info)
            now = store.workers.all()[-1].beat_at.timestamp()
            assert [worker.id for worker in store.workers.live()] == [new.id]
            with database.write() as connection:
                connection.execute(beat, {"now": now, "held": '[["u", 0, 9]]', "id": 1})
            live = store.workers.live()
            assert [(worker.id, worker.token is None, worker.holding) for worker in live] == [
                (1, True, (HeldRange("u", 0, 9),)),
                (new.id, False, ()),
            ]
            # Nobody looks for its pid on another machine, however late it is.
            assert not has_ended(replace(live[0], age=10.0, info=replace(info, pid=2**22)))
            # A supervisor of the older release takes all of them for a child of its own.
            with database.write() as connection:
                connection.execute(end, {"now": now})
            assert store.workers.live() == []
            assert not new.beat(state=WorkerPhase.READY, holding=[])
            assert [worker.id for worker in store.workers.live()] == [new.id]


def test_0022_finds_the_usage_of_batches_and_keeps_all_sums(store_url: str, tmp_path: Path) -> None:
    database = make_store_of_version("0021", store_url, tmp_path / "versions")
    described = {"columns": "[]", "fingerprint": "{}", "run_config": encode(RunConfig().to_json()), "epochs": 1}
    facts = {"experiment_id": 1, "path": "a.py", "name": "e", "published": 1, "dataset_complete": True, **described}
    of_row = {"evaluation_id": 1, "row_index": 0, "sample": 0, "execution": 7}
    tokens = {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 1, "reasoning_tokens": 2}
    counts = {"requests": 1, "attempts": 1, "cache_hits": 0, "cache_misses": 0, "unfinished": 0}
    used = {"model": "m", "seconds": 0.5, "waited": 0.0, "latency": "", **of_row, **tokens, **counts}
    call = {"digest": b"d", "source": "batch", "model": "m", "status": 200, "cost": 0.25, **of_row, **tokens}
    with closing(database):
        insert(database, "experiment", id=1, name="x", created_at=0)
        insert(
            database,
            "evaluation",
            id=1,
            uid="u",
            status="running",
            created_at=0,
            worked_seconds=0,
            repaid_rows=0,
            **facts,
        )
        insert(database, "result", status="done", retry=False, started_at=0, seconds=1, **of_row)
        for position, cost, batch_cost in ((0, 0.5, 0.25), (1, None, None), (1_000_000, 0.25, None)):
            insert(database, "usage", position=position, cost=cost, batch_cost=batch_cost, **used)
        insert(database, "call", position=0, started_at=0, seconds=1, **call)
        migrations.upgrade(database)
        # A process of the older release goes on.
        insert(database, "usage", position=2, cost=1.0, batch_cost=0.5, **used)
    one = Usage("m", 1, 1, seconds=0.5, **tokens)
    live = replace(one + one + one, cost=1.5, batch_cost=0.75)
    of_batch = replace(one, cost=0.25, batch_cost=0.25, batch=True)
    with Store.open(store_url) as store:
        found = store.usage.report(store.experiments.find("x")).models
        assert found == [ModelUsage(live, live, unpriced=15), ModelUsage(of_batch, of_batch)]
        (stored,) = store.calls.of_row(1, 0)
        assert (stored.source, stored.usage.judge, stored.usage.cost) == ("batch", False, 0.25)


def test_an_evaluation_that_a_newer_release_has_configured_is_refused(store: Store) -> None:
    uid = begin(store, 1).uid
    with store._database.write() as connection:
        connection.execute(text("UPDATE evaluation SET run_config = :newer"), {"newer": '{"version":2}'})
    with pytest.raises(StoreVersionError, match="has version 2"):
        store.evaluations.by_uid(uid)
