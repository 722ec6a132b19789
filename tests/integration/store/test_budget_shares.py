"""The shares that processes have of a budget, in the store."""

from __future__ import annotations

import threading

from doteval.core.budgets import Spent
from doteval.core.experiments import EvaluationSpec
from doteval.core.results import Usage
from doteval.core.states import WorkerEnd
from doteval.store import BudgetState, LostUsage, Store, WorkerInfo


def test_shares_count_for_others_while_their_processes_live(store: Store) -> None:
    experiment, another = (store.experiments.begin(name) for name in ("x", "y"))
    one, two, three = (store.workers.begin(WorkerInfo("w", "h", pid)) for pid in (1, 2, 3))
    assert store.budget_shares.look(experiment, one) == BudgetState(Spent(), 0, 0)
    store.budget_shares.reserve(experiment, one, lambda _: 5)
    store.budget_shares.reserve(another, one, lambda _: 50)
    assert store.budget_shares.reserve(experiment, two, lambda state: state.reserved + 2)[1] == 7
    assert [store.budget_shares.look(experiment, each).reserved for each in (one, two, three)] == [7, 5, 12]
    store.budget_shares.reserve(experiment, two, lambda _: 1)
    assert store.budget_shares.look(experiment, three).reserved == 6
    store.workers.end(one, WorkerEnd.KILLED, reason="was killed")
    assert store.budget_shares.look(experiment, three).reserved == 1
    evaluation = store.evaluations.begin(experiment, EvaluationSpec("eval_it.py", "eval_it", ("number",), {}))
    used = Usage("m", attempts=2, prompt_tokens=3, cost=0.5)
    store.usage.add_lost([LostUsage(evaluation.uid, 0, 0, (used,))], two)
    assert store.budget_shares.look(experiment, three) == BudgetState(Spent(2, 3, 0.5), 0, 1)
    store.experiments.delete("x")
    assert store.budget_shares.look(experiment, three).reserved == 0


def test_of_several_that_reserve_at_once_each_sees_the_others(store: Store) -> None:
    experiment = store.experiments.begin("x")
    workers = [store.workers.begin(WorkerInfo("w", "h", pid)) for pid in range(8)]
    barrier = threading.Barrier(len(workers))
    got: list[int] = []

    def take(worker: int) -> None:
        barrier.wait()
        # Ten rows fit, and each wants three.
        got.append(store.budget_shares.reserve(experiment, worker, lambda state: min(3, 10 - state.reserved))[1])

    threads = [threading.Thread(target=take, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [0, 0, 0, 0, 1, 3, 3, 3]
