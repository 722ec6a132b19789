"""Stores that an older release wrote: every migration keeps what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from doteval.core.client_config import CacheChoice, CacheMode
from doteval.core.json_codec import encode
from doteval.core.run_config import RunConfig
from doteval.errors import StoreVersionError
from doteval.store import Store, migrations
from doteval.store.engine import Database
from doteval.store.migrations import VERSIONS, Schema
from doteval.store.url import locate
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
            RunConfig(
                max_retries=5,
                retry_delay=0.5,
                row_timeout=30.0,
                max_crashes=4,
                max_requests=100,
                max_cost=0.25,
                cache=CacheChoice(CacheMode.REFRESH, 12.5),
                submitted=True,
                root="/evals/\udcff",
                queue="gpu",
                queue_is_own=True,
                private_broker="p1",
                batch_size=8,
                concurrency=10,
                concurrency_is_own=True,
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
        store.evaluations.reconfigure(1, lambda config: config)
        assert store.evaluations.by_uid("u1").config == expected


def test_an_evaluation_that_a_newer_release_has_configured_is_refused(store: Store) -> None:
    uid = begin(store, 1).uid
    with store._database.write() as connection:
        connection.execute(text("UPDATE evaluation SET run_config = :newer"), {"newer": '{"version":2}'})
    with pytest.raises(StoreVersionError, match="has version 2"):
        store.evaluations.by_uid(uid)
