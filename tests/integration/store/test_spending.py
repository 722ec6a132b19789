"""The counters of spending agree with the usage, however it was written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from doteval.core.budgets import Spent
from doteval.core.results import Outcome, Usage
from doteval.store import LostUsage, Store, WorkerInfo, migrations
from doteval.store.engine import Database
from doteval.store.migrations import VERSIONS, Schema
from doteval.store.url import locate
from tests.support.store_workload import SPEC, begin, done, failed, in_threads, results, rows, sample

PRICED = Usage("m", 1, 2, prompt_tokens=100, completion_tokens=10, cost=0.25)
UNPRICED = Usage("free", 1, 1, prompt_tokens=7)


def _worker(store: Store, pid: int) -> int:
    return store.workers.begin(WorkerInfo("w", "host", pid))


def _reported(store: Store, name: str = "an experiment") -> Spent:
    """The spending by a scan of the usage."""
    models = [model.spent for model in store.usage.report(store.experiments.find(name)).models]
    return Spent(
        sum(spent.attempts for spent in models),
        sum(spent.prompt_tokens + spent.completion_tokens for spent in models),
        sum(spent.cost or 0.0 for spent in models),
        sum(spent.prompt_tokens + spent.completion_tokens for spent in models if spent.cost is None),
    )


def test_nothing_spent(store: Store) -> None:
    assert store.usage.spent(begin(store, 1).experiment) == Spent()


def test_redone_rows_and_all_evaluations_of_the_experiment_count(store: Store) -> None:
    one, other = begin(store, 2), begin(store, 1, name="another")
    two = store.evaluations.begin(one.experiment, replace(SPEC, name="eval_two"))
    store.rows.add(two.id, rows(1))
    first, second = _worker(store, 1), _worker(store, 2)
    store.results.write(results(one, rows(1), done(usage=(PRICED, UNPRICED))), first)
    store.results.write(results(one, rows(1), done(usage=(PRICED,))), second)
    store.results.write(results(one, rows(1, first=1), failed(usage=(PRICED,))), None)
    store.rows.retry_failed(one.id)
    store.results.write(results(one, rows(1, first=1), done(usage=(PRICED,))), first)
    store.results.write(results(two, rows(1), done(usage=(UNPRICED,))), first)
    store.results.write(results(other, rows(1), done(usage=(PRICED,))), first)
    assert store.usage.spent(one.experiment) == _reported(store) == Spent(10, 454, 1.0, 14)
    assert store.usage.unpriced_models(one.experiment) == ["free"]
    assert store.usage.unpriced_models(other.experiment) == []


def test_spending_stays_when_rows_are_replaced(store: Store) -> None:
    evaluation = begin(store, 3)
    store.results.write(results(evaluation, rows(3), done(usage=(PRICED,))), None)
    store.rows.replace(evaluation.id, rows(1, version="b"))
    store.rows.truncate(evaluation.id, 1)
    assert store.usage.spent(evaluation.experiment) == Spent(6, 330, 0.75)


def test_a_group_that_is_written_twice_counts_once(store: Store) -> None:
    """As after a commit whose confirmation was lost with the connection, also together with new results."""
    evaluation = begin(store, 4)
    worker = _worker(store, 1)
    new = [
        replace(each, execution=number)
        for number, each in enumerate(results(evaluation, rows(4), done(usage=(PRICED, UNPRICED))))
    ]
    for group in (new[:2], new[:2], new[1:], new):
        store.results.write(group, worker)
    assert store.usage.spent(evaluation.experiment) == _reported(store) == Spent(12, 468, 1.0, 28)


@pytest.mark.parametrize("stored", [True, False])
def test_usage_of_a_killed_process_counts_once(store: Store, stored: bool) -> None:
    evaluation = begin(store, 1)
    worker = _worker(store, 7)
    if stored:
        (new,) = results(evaluation, rows(1), done(usage=(PRICED,)))
        store.results.write([replace(new, execution=123)], worker)
    for _ in range(2):
        store.usage.add_lost([LostUsage(evaluation.uid, 0, 0, (PRICED,), 123)], worker)
    assert store.usage.spent(evaluation.experiment) == _reported(store) == Spent(2, 110, 0.25)


def test_many_writers_at_once(store: Store) -> None:
    evaluation = begin(store, 40, epochs=8)
    workers = [_worker(store, pid) for pid in range(8)]
    outcome: Outcome = done(usage=(PRICED,))

    def write(number: int) -> None:
        for row in rows(40):
            store.results.write(results(evaluation, [sample(row, number)], outcome), workers[number])

    in_threads(write)
    assert store.usage.spent(evaluation.experiment) == _reported(store) == Spent(640, 35_200, 80.0)


def test_0005_sums_the_usage_of_older_stores(store_url: str, tmp_path: Path) -> None:
    directory = tmp_path / "versions"
    directory.mkdir()
    older = VERSIONS[: VERSIONS.index("0005")]
    for version in older:
        (module,) = Schema().directory.glob(f"v{version}_*.py")
        (directory / module.name).write_text(module.read_text())
    database = Database(locate(store_url))
    migrations.upgrade(database, Schema(older, directory))
    line = (
        "INSERT INTO usage (evaluation_id, row_index, sample, execution, position, worker_id, model, requests,"
        " attempts, cache_hits, cache_misses, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, cost,"
        " seconds, waited, latency)"
        " VALUES (1, {row}, 0, {row}, 0, {worker}, '{model}', 1, 2, 0, 0, 100, 10, 0, 0, {cost}, 0, 0, '')"
    )
    with database.write() as connection:
        connection.execute(text("INSERT INTO experiment (id, name, created_at) VALUES (1, 'an experiment', 0)"))
        connection.execute(
            text(
                "INSERT INTO evaluation (id, uid, experiment_id, path, name, columns, fingerprint, extra, epochs,"
                " status, created_at, published, dataset_complete)"
                " VALUES (1, 'u', 1, 'p', 'n', '[]', '{}', '{}', 1, 'running', 0, 0, :no)"
            ),
            {"no": False},
        )
        connection.execute(
            text("INSERT INTO tally (evaluation_id, worker_id, done, failed, skipped) VALUES (1, 5, 2, 0, 0)")
        )
        for row, worker, model, cost in ((0, 5, "m", 0.5), (1, 5, "m", 0.25), (2, "NULL", "free", "NULL")):
            connection.execute(text(line.format(row=row, worker=worker, model=model, cost=cost)))
    migrations.upgrade(database)
    database.close()
    with Store.open(store_url) as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("an experiment"))
        assert evaluation.counts.done == 2
        assert store.usage.spent(evaluation.experiment) == _reported(store) == Spent(6, 330, 0.75, 110)
