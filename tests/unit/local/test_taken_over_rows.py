"""A process that stood still for long finds its rows taken over by another one, and begins no more of them."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from doteval import Result, foreach, run
from doteval.core.experiments import EvaluationStatus
from doteval.evaluators import exact_match
from doteval.local.claim_guard import TakenOverError
from doteval.store import Store, WorkerInfo

ROWS = 6


class Thief:
    """Another process, which takes the process that runs rows for dead."""

    def __init__(self, url: str, *, keeps: bool) -> None:
        self._url = url
        self._keeps = keeps
        self.begun: Counter[str] = Counter()

    def steal(self) -> None:
        """Take the rows, and wait until their process knows."""
        with Store.open(self._url) as store:
            mine = store.workers.begin(WorkerInfo("pytest", "vm", 5))
            (evaluation,) = store.evaluations.of(store.experiments.find("x"))
            assert store.workers.claim(mine, evaluation, is_gone=lambda _: True) is None
            (robbed,) = (worker for worker in store.workers.all() if worker.left_at is not None)
            if not self._keeps:
                store.workers.end(mine, reason="left")
            deadline = time.monotonic() + 30
            # It holds the rows again as soon as it is back, and no more with the heartbeat after it has asked for them.
            while [bool(worker.holding) for worker in store.workers.live() if worker.id == robbed.id] != [
                not self._keeps
            ]:
                assert time.monotonic() < deadline
                time.sleep(0.02)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/results.db"


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOTEVAL_CONCURRENCY", "1")


def evaluate(url: str, thief: Thief) -> None:
    @foreach("text", [f"text {number}" for number in range(ROWS)])
    def eval_it(text: str) -> Result:
        thief.begun[text] += 1
        if text == "text 2":
            thief.steal()
        return Result(exact_match(text, text), prompt=text)

    run(eval_it, experiment="x", storage=url)


def test_rows_that_another_process_has_taken_over_are_left_to_it(url: str) -> None:
    thief = Thief(url, keeps=True)
    with pytest.raises(TakenOverError, match=r"pytest \(process 5 on vm\) has taken over the rows"):
        evaluate(url, thief)
    # The row in flight ran to its end, once.
    assert thief.begun == {"text 0": 1, "text 1": 1, "text 2": 1}
    with Store.open(url) as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("x"))
        assert evaluation.status is EvaluationStatus.RUNNING
        assert evaluation.counts.done == 3
        held = {worker.info.hostname: len(worker.holding) for worker in store.workers.live()}
        assert held == {"vm": 1}


def test_rows_that_nobody_else_has_any_more_are_run_to_the_end(url: str) -> None:
    thief = Thief(url, keeps=False)
    evaluate(url, thief)
    assert thief.begun == {f"text {number}": 1 for number in range(ROWS)}
    with Store.open(url) as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("x"))
        assert (evaluation.status, evaluation.counts.done) == (EvaluationStatus.COMPLETED, ROWS)
