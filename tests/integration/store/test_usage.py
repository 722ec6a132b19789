"""Usage in the store: loads of session fixtures, and calls to models, kept and spent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from doteval.core.histogram import Latency
from doteval.core.results import Usage
from doteval.monitoring.store_figures import StoreFigures
from doteval.store import LoadUsage, LostUsage, ModelUsage, Store, UsageReport, WorkerInfo
from tests.support.store_workload import SPEC, begin, done, failed, results, rows


def _worker(store: Store, pid: int) -> int:
    return store.workers.begin(WorkerInfo("w", "host", pid))


def test_nothing_used(store: Store) -> None:
    assert store.usage.report(begin(store, 1).experiment) == UsageReport([], [])


def test_repeated_work_is_spent_but_not_kept(store: Store) -> None:
    evaluation = begin(store, 2)
    one = Usage("gpt", 1, 2, 0, 1, 100, 10, 5, 3, 1, 0.5, 1.0)
    store.results.write(results(evaluation, rows(1), done(usage=(one, Usage("judge", 1)))), None)
    store.results.write(results(evaluation, rows(1), done(usage=(one,))), None)
    store.results.write(results(evaluation, rows(1, first=1), failed(usage=(one,))), None)
    store.rows.retry_failed(evaluation.id)
    assert store.usage.report(evaluation.experiment).models == [
        ModelUsage(one + one, one + one + one),
        ModelUsage(Usage("judge", 1), Usage("judge", 1)),
    ]

    again = Usage("gpt", 1, cost=None)
    store.results.write(results(evaluation, rows(1, first=1), done(usage=(again,))), None)
    assert store.usage.report(evaluation.experiment).models[0] == ModelUsage(one + again, one + one + one + again)


def test_a_model_that_only_lost_executions_used(store: Store) -> None:
    evaluation = begin(store, 1)
    store.results.write(results(evaluation, rows(1)), None)
    store.results.write(results(evaluation, rows(1), done(usage=(Usage("m", 3, cost=None),))), None)
    assert store.usage.report(evaluation.experiment).models == [ModelUsage(Usage("m"), Usage("m", 3))]


def test_tokens_without_a_price_are_counted_apart_from_those_of_a_model_with_the_same_name(store: Store) -> None:
    evaluation = begin(store, 2)
    priced, unpriced = Usage("m", 1, prompt_tokens=10, cost=0.5), Usage("m", 1, prompt_tokens=5, completion_tokens=2)
    store.results.write(results(evaluation, rows(1), done(usage=(priced,))), None)
    store.results.write(results(evaluation, rows(1, first=1), done(usage=(priced, unpriced))), None)
    total = priced + priced + unpriced
    assert store.usage.report(evaluation.experiment).models == [ModelUsage(total, total, unpriced=7)]
    assert store.usage.spent(evaluation.experiment).unpriced == 7


def test_usage_of_judges_and_of_batches_is_counted_apart(store: Store) -> None:
    evaluation = begin(store, 1)
    plain = Usage("m", 1, 1, prompt_tokens=10, cost=0.5, latency=Latency.of(0.1))
    marked = [replace(plain, judge=judge, batch=batch) for judge in (False, True) for batch in (False, True)]
    store.results.write(results(evaluation, rows(1), done(usage=(*marked, marked[1]))), None)
    expected = [ModelUsage(plain, plain), ModelUsage(*[marked[1] + marked[1]] * 2)]
    expected += [ModelUsage(each, each) for each in marked[2:]]
    assert store.usage.report(evaluation.experiment).models == expected
    assert store.usage.by_evaluation(evaluation.experiment)[0].models == expected
    assert [each.usage.name for each in expected] == ["m", "m (batch)", "m (judge)", "m (judge, batch)"]
    (record,) = store.results.records(evaluation.id)
    assert record.outcome.usage == (*marked, marked[1])


def test_usage_belongs_to_its_experiment(store: Store) -> None:
    one, two = begin(store, 1, name="one"), begin(store, 1, name="two")
    store.results.write(results(one, rows(1), done(usage=(Usage("m", 1),))), None)
    assert store.usage.report(two.experiment).models == []


def test_latencies_add_up_and_so_does_waiting(store: Store) -> None:
    evaluation = begin(store, 100)
    of_row = [Usage("m", 1, 1, waited=0.5, latency=Latency.of(0.1 if index % 10 else 4.0)) for index in range(100)]
    for index, usage in enumerate(of_row):
        store.results.write(results(evaluation, rows(1, first=index), done(usage=(usage, usage))), None)
    (model,) = store.usage.report(evaluation.experiment).models
    assert model.usage.latency.total == model.spent.latency.total == 200
    assert model.usage.waited == 100
    assert model.usage.latency.quantile(0.5) == pytest.approx(0.1, rel=0.05)
    assert model.usage.latency.quantile(0.95) == pytest.approx(4.0, rel=0.05)
    (record,) = store.results.records(evaluation.id, first=10, limit=1)
    assert record.outcome.usage == (of_row[10], of_row[10])


@pytest.mark.parametrize("stored", [True, False])
def test_usage_of_a_killed_process_counts_once(store: Store, stored: bool) -> None:
    evaluation = begin(store, 1)
    worker = _worker(store, 7)
    used = Usage("m", 1, 1, prompt_tokens=5, latency=Latency.of(0.2))
    if stored:
        # It was killed between the commit and the note in its journal.
        (new,) = results(evaluation, rows(1), done(usage=(used,)))
        store.results.write([replace(new, execution=123)], worker)
    lost = [LostUsage(evaluation.uid, 0, 0, (used,), 123), LostUsage("deleted since", 0, 0, (used,), 9)]
    for _ in range(2):
        store.usage.add_lost(lost, worker)
    (model,) = store.usage.report(evaluation.experiment).models
    assert model == ModelUsage(used if stored else Usage("m"), used, unpriced=5)
    assert [group.name for group in store.usage.by_worker(evaluation.experiment)] == ["w host:7"]


def test_usage_by_worker_process_and_by_evaluation(store: Store) -> None:
    one = begin(store, 2)
    two = store.evaluations.begin(one.experiment, replace(SPEC, name="eval_two"))
    store.rows.add(two.id, rows(1))
    first, second = _worker(store, 1), _worker(store, 2)
    store.results.write(results(one, rows(1), done(usage=(Usage("a", 1),))), first)
    store.results.write(results(one, rows(1, first=1), done(usage=(Usage("b", 2),))), second)
    store.results.write(results(one, rows(1), done(usage=(Usage("a", 4),))), second)
    store.results.write(results(two, rows(1), done(usage=(Usage("a", 8),))), None)
    by_worker = store.usage.by_worker(one.experiment)
    assert [(group.name, [(m.usage.requests, m.spent.requests) for m in group.models]) for group in by_worker] == [
        ("", [(8, 8)]),
        ("w host:1", [(1, 1)]),
        ("w host:2", [(0, 4), (2, 2)]),
    ]
    assert [(worker.rows, worker.spent.requests) for worker in by_worker] == [(0, 8), (1, 1), (1, 6)]
    by_evaluation = store.usage.by_evaluation(one.experiment)
    assert [[(m.usage.model, m.spent.requests) for m in group.models] for group in by_evaluation] == [
        [("a", 5), ("b", 2)],
        [("a", 8)],
    ]
    assert by_evaluation[1].name.endswith("::eval_two")


def test_loads_are_merged_over_workers(store: Store) -> None:
    evaluation = begin(store, 2)
    first, second = _worker(store, 1), _worker(store, 2)
    store.results.write(results(evaluation, rows(2)), first)
    one = store.loads.begin(first, "model", "evals", 2.0)
    two = store.loads.begin(second, "model", "evals", 3.5, evaluation_id=evaluation.id)
    bad = store.loads.begin(second, "judge\x00", "", 0.5, error="OSError: \ud800")
    # Why a process cannot run the evaluation is the load of no fixture.
    store.loads.begin(second, "fixtures", "", 0.0, error="OSError: no disk", evaluation_id=evaluation.id)
    store.loads.snapshot(one, {"calls": 1})
    store.loads.end(
        one, {"calls": 10, "cache": {"hits": 1, "by": {"a": 2}}, "gpus": ["0"], "name": "x", "on": True, "only": 1}, 0.1
    )
    store.loads.snapshot(
        two, {"calls": 5, "cache": {"hits": 0.5, "by": {"b": 1}}, "gpus": ["1", "0"], "name": "y", "on": True}
    )
    store.loads.end(bad, None, 0.0)

    assert store.usage.report(evaluation.experiment).loads == [
        LoadUsage(
            "model",
            loads=2,
            load_seconds=5.5,
            torn_down=1,
            stats={
                "calls": 15,
                "cache": {"hits": 1.5, "by": {"a": 2, "b": 1}},
                "gpus": ["0", "1"],
                "name": "y",
                "on": True,
                "only": 1,
            },
            errors=[],
        ),
        # A fixture that was never loaded is not torn down.
        LoadUsage("judge\x00", loads=1, load_seconds=0.5, torn_down=0, stats={}, errors=["OSError: \ud800"]),
    ]


def test_loads_and_rows_by_worker_process(store: Store) -> None:
    evaluation, other = begin(store, 5), begin(store, 5, name="other")
    first, second, idle, stranger = (_worker(store, pid) for pid in range(4))
    for worker, seconds in ((first, 2.0), (first, 0.5), (second, 3.5), (stranger, 9.0)):
        store.loads.begin(worker, "model", "evals", seconds)
    # It has loaded, and stored nothing yet.
    store.loads.begin(idle, "judge", "", 1.0, evaluation_id=evaluation.id)
    store.results.write(results(evaluation, rows(3)), first)
    store.results.write(results(evaluation, rows(1, first=3), failed()), second)
    store.results.write(results(other, rows(4)), second)
    store.results.write(results(other, rows(1)), stranger)
    found = [
        (worker.name, worker.rows, [(load.fixture, load.loads, load.load_seconds) for load in worker.loads])
        for worker in store.usage.by_worker(evaluation.experiment)
    ]
    assert found == [
        ("w host:0", 3, [("model", 2, 2.5)]),
        ("w host:1", 1, [("model", 1, 3.5)]),
        ("w host:2", 0, [("judge", 1, 1.0)]),
    ]


def test_the_last_snapshot_stays_if_the_teardown_gives_none(store: Store) -> None:
    evaluation = begin(store)
    load = store.loads.begin(_worker(store, 1), "model", "", 1.0, evaluation_id=evaluation.id)
    store.loads.snapshot(load, {"calls": 1})
    store.loads.snapshot(load, {"calls": 2})
    store.loads.end(load, None, 0.5)
    assert store.usage.report(evaluation.experiment).loads[0].stats == {"calls": 2}


@pytest.mark.parametrize("text", ["3 calls", '{"calls": 3}'])
def test_statistics_may_be_text(store: Store, text: str) -> None:
    evaluation = begin(store)
    load = store.loads.begin(_worker(store, 1), "model", "", 1.0, evaluation_id=evaluation.id)
    store.loads.end(load, text, 0.5)
    assert store.usage.report(evaluation.experiment).loads[0].stats == {"text": text}


def test_loads_of_workers_that_did_nothing_for_an_experiment_are_not_its_own(store: Store) -> None:
    one, two = begin(store, 1, name="one"), begin(store, 1, name="two")
    shared, other = _worker(store, 1), _worker(store, 2)
    store.loads.begin(shared, "model", "", 1.0, evaluation_id=one.id)
    store.loads.begin(other, "model", "", 2.0, evaluation_id=two.id)
    store.results.write(results(two, rows(1)), shared)
    assert [load.load_seconds for load in store.usage.report(one.experiment).loads] == [1.0]
    assert [load.load_seconds for load in store.usage.report(two.experiment).loads] == [3.0]


def test_metrics_for_prometheus_have_one_series_a_model(store: Store) -> None:
    evaluation = begin(store, 1)
    plain = Usage("m", 1, 1, prompt_tokens=10, cost=0.5)
    marked = (plain, replace(plain, judge=True), replace(plain, judge=True, batch=True), Usage("n", 1))
    store.results.write(results(evaluation, rows(1), done(usage=marked)), None)
    registry = CollectorRegistry()
    registry.register(StoreFigures(store))
    series = generate_latest(registry).decode().splitlines()
    for name, number in (("cost_dollars", 1.5), ("model_requests", 3.0)):
        found = [line for line in series if line.startswith(f"doteval_{name}{{") and 'model="m"' in line]
        assert found == [f'doteval_{name}{{experiment="an experiment",model="m"}} {number}']
