"""A store with experiments, and its view."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from doteval.core.experiments import EvaluationStatus
from doteval.core.package_prices import PACKAGE, package_version
from doteval.core.provenance import Provenance
from doteval.store import Store, WorkerInfo
from tests.support.comparisons import FAILED, PENDING, add_experiment
from tests.support.odd_rows import add_odd_rows
from tests.support.view import client
from tests.support.view_stores import HOSTILE


@pytest.fixture(scope="session")
def viewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with finished, running, empty and hostile experiments."""
    path = tmp_path_factory.mktemp("view") / "results.db"
    with Store.open(str(path)) as store:
        for name, right in (("base", 30), ("new", 20)):
            scores = {"exact_match": [FAILED if row > 37 else row < right for row in range(40)]}
            evaluation = add_experiment(store, name, scores)
            ran = Provenance(("doteval", "submit", "evals"), versions={PACKAGE: package_version()})
            store.provenance.add(evaluation.experiment, ran)
            store.summaries.write(evaluation, [store.summary(evaluation)])
        worker = store.workers.begin(WorkerInfo("worker", "host", 4711))
        load = store.loads.begin(worker, HOSTILE, "", 0.5, evaluation_id=evaluation.id)
        store.loads.end(load, {"calls <b>": 80, HOSTILE: HOSTILE}, 0.25)
        store.labels.change(store.experiments.find("new"), add=["paper"], note="The prompt of the paper")
        add_experiment(store, "running", {"match": [True] * 3 + [PENDING] * 7}, status=EvaluationStatus.RUNNING)
        hostile = add_experiment(store, HOSTILE, {HOSTILE: [True, False]}, name=f"eval_{HOSTILE}[{HOSTILE}]")
        store.summaries.write(hostile, [store.summary(hostile)])
        store.experiments.begin("empty")
    return path


@pytest.fixture(scope="session")
def view(viewed: Path) -> Iterator[TestClient]:
    with client(viewed) as found:
        yield found


@pytest.fixture(scope="session")
def rows_view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The view of a store with two experiments to compare, and one with rows of all kinds."""
    path = tmp_path_factory.mktemp("rows") / "results.db"
    with Store.open(str(path)) as store:
        for name, right in (("base", 30), ("new", 20)):
            add_experiment(store, name, {"exact_match": [FAILED if row > 37 else row < right for row in range(40)]})
        add_odd_rows(store)
    with client(path) as found:
        yield found
