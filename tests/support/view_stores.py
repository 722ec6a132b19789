"""A store whose experiments are worth looking at: finished, running, failed, parametrized, empty and hostile ones."""

from __future__ import annotations

from doteval.core.experiments import EvaluationStatus
from doteval.core.provenance import GitState, Provenance
from doteval.store import Store, WorkerInfo
from tests.support.comparisons import FAILED, PENDING, add_experiment

# What no page may let a browser obey or a layout follow.
_OWNED = "document.title='owned'"
HOSTILE = f'<script>{_OWNED}</script><img src=x onerror="{_OWNED}">\x00\u202e\'&' + "x" * 3_000


def fill_for_view(store: Store) -> None:
    """Add the experiments base, new, running, empty and the hostile one."""
    metrics = {"exact_match": ["accuracy"], "judge": ["mean"]}
    for name, right in (("base", 60), ("new", 40)):
        scores = {
            "exact_match": [FAILED if row > 77 else (row * 37) % 80 < right for row in range(80)],
            "judge": [1 + (row * 7919 + right) % 40 / 10 for row in range(80)],
        }
        found = [add_experiment(store, name, scores, metrics=metrics, model=f"gpt-{name}", cost=0.002)]
        for parameters in ("small-en", "small-de", "large-en", "large-de"):
            values = {"exact_match": [row % (len(parameters) + row % 2) < 4 for row in range(30)]}
            found.append(add_experiment(store, name, values, name=f"eval_sums[{parameters}]", metrics=metrics))
        for each in found:
            store.summaries.write(each, [store.summary(each)])
        experiment = found[0].experiment
        command = ("doteval", "submit", "evals", "--experiment", name)
        store.provenance.add(experiment, Provenance(command, GitState("4517fb9d" * 5, "main", False), "host", "ann"))
        worker = store.workers.begin(WorkerInfo("worker", "host", 4711))
        load = store.loads.begin(worker, "model", "", 0.5, evaluation_id=found[0].id)
        store.loads.end(load, {"calls": 80}, 0.25)
    store.labels.change(store.experiments.find("new"), add=["paper"], note="The prompt of the paper")
    store.baseline.set(store.experiments.find("base"))
    add_experiment(store, "running", {"match": [True] * 3 + [PENDING] * 7}, status=EvaluationStatus.RUNNING)
    hostile = add_experiment(store, HOSTILE, {HOSTILE: [True, False]}, name=f"eval_{HOSTILE}[{HOSTILE}]")
    store.summaries.write(hostile, [store.summary(hostile)])
    store.experiments.begin("empty")
