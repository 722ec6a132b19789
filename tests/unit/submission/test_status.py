"""The status of an experiment says where every pending row is, and what happens next."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from doteval.coordination.claims import NOBODY_RUNS_IT
from doteval.coordination.dispatcher import Dispatcher, DispatchOptions
from doteval.core.experiments import Evaluation, EvaluationSpec, EvaluationStatus
from doteval.core.liveness import LATE_AFTER_SECONDS
from doteval.core.process_identity import pid_space
from doteval.core.results import ErrorClass, Outcome, Row, RowError, RowStatus
from doteval.core.run_config import RunConfig
from doteval.core.states import WorkerEnd, WorkerPhase
from doteval.store import HeldRange, NewResult, Store, WorkerInfo
from doteval.store.tables import WORKER
from doteval.submission.status import EvaluationProgress, experiment_status
from tests.support.cli import CommandLine
from tests.support.fake_queue import FakeQueue
from tests.support.passing_time import forget_heartbeats
from tests.support.troubleshooting import assert_shown


@pytest.fixture
def evaluation(store: Store) -> Evaluation:
    """100 rows, of which the first 60 are published, 10 of them done."""
    spec = EvaluationSpec("eval_it.py", "eval_it", ("i",), config=RunConfig(submitted=True))
    evaluation = store.evaluations.begin(store.experiments.begin("x"), spec)
    store.rows.add(evaluation.id, rows(60))
    store.rows.set_total(evaluation.id, 60, complete=False, fingerprint=None)
    current = store.evaluations.by_uid(evaluation.uid)
    Dispatcher(store, FakeQueue(), DispatchOptions(rows_per_task=10)).publish(current)
    store.rows.add(evaluation.id, rows(40, 60))
    store.rows.set_total(evaluation.id, 100, complete=True, fingerprint=None)
    done = Outcome(RowStatus.DONE, 1e9, 0.1)
    store.results.write([NewResult(evaluation.id, row, done) for row in rows(10)], None)
    return evaluation


def rows(count: int, first: int = 0) -> list[Row]:
    return [Row(index, f"k{index}", {"i": index}) for index in range(first, first + count)]


def worker(store: Store, pid: int) -> int:
    return store.workers.begin(WorkerInfo(f"w-{pid}@host", "host", pid, ("doteval",)), token=f"token {pid}")


def hold(store: Store, worker_id: int, evaluation: Evaluation, *ranges: tuple[int, int]) -> None:
    held = [HeldRange(evaluation.uid, first, last) for first, last in ranges]
    store.workers.beat(worker_id, state="ready", holding=held)


def silence(store: Store, worker_id: int) -> None:
    """Make the last heartbeat of a worker process a minute old."""
    with store._database.write() as connection:
        connection.execute(update(WORKER).where(WORKER.c.id == worker_id).values(beat_at=WORKER.c.beat_at - 60))
    forget_heartbeats(store)


def only(store: Store, queued: int | None = None) -> EvaluationProgress:
    """The progress of its only evaluation, with `queued` messages in its queue."""
    (progress,) = experiment_status(
        store, store.experiments.find("x"), queued=None if queued is None else {"doteval": queued}
    ).evaluations
    return progress


def test_every_pending_row_is_counted_once(store: Store, evaluation: Evaluation) -> None:
    with store._database.write() as connection:
        connection.exec_driver_sql("UPDATE experiment SET created_at = created_at - 3600")
    alive, dead = worker(store, 1), worker(store, 2)
    # Half of the first range is done, and the ranges overlap, as after a redelivery.
    hold(store, alive, evaluation, (5, 14), (10, 19))
    hold(store, dead, evaluation, (20, 42))
    silence(store, dead)
    progress = only(store, queued=2)
    assert (progress.held, progress.orphaned, progress.published, progress.unpublished) == (10, 23, 17, 40)
    assert progress.held + progress.orphaned + progress.published + progress.unpublished == 90
    assert progress.plan == (
        "23 rows of a dead worker process will be published again",
        "17 rows wait for a worker process",
        "40 rows will be published as the queue has room",
    )


def test_lost_rows_are_distinguished_from_queued_ones(store: Store, evaluation: Evaluation) -> None:
    hold(store, worker(store, 1), evaluation)
    assert "50 rows wait for a worker process" in only(store, queued=5).plan
    assert "50 rows wait for a worker process" in only(store).plan
    assert "50 rows no message carries any more: they will be published again" in only(store, queued=0).plan


def test_without_worker_processes_the_plan_says_what_to_do(store: Store, evaluation: Evaluation) -> None:
    assert "doteval worker" in only(store).plan[0]


def test_cancelled_and_failed_evaluations_wait_for_the_user(store: Store, evaluation: Evaluation) -> None:
    error = RowError("ValueError", "no", ErrorClass.EVALUATION)
    outcome = Outcome(RowStatus.FAILED, 1e9, 0.1, error=error)
    store.results.write([NewResult(evaluation.id, row, outcome) for row in rows(3, 10)], None)
    store.evaluations.set_status(evaluation.id, EvaluationStatus.CANCELLED, "enough")
    assert only(store).plan == (
        "87 rows pending: submit again to go on",
        "3 rows failed: `doteval retry` runs them again",
    )


def test_the_plan_names_a_dataset_that_is_not_read_to_its_end(store: Store, evaluation: Evaluation) -> None:
    store.rows.set_total(evaluation.id, 100, complete=False, fingerprint=None)
    submitter = store.workers.begin(WorkerInfo("submit", "host", 1, (), 0), state=WorkerPhase.SUBMITTING)
    follows = [HeldRange.whole(evaluation.uid)]
    store.workers.beat(submitter, state=WorkerPhase.SUBMITTING, holding=follows)
    assert not only(store).abandoned
    assert only(store).plan[-1] == "its dataset is still being read"
    # It is no worker process.
    assert store.workers.live() == []
    # It was killed on another machine.
    silence(store, submitter)
    assert only(store).abandoned
    assert only(store).plan == (NOBODY_RUNS_IT,)
    assert_shown("nobody-runs-it", "\n".join(only(store).plan))


@pytest.mark.parametrize("ended", ["it left", "it is silent", "it was killed here"])
def test_nobody_runs_what_plain_pytest_began_once_its_process_has_ended(store: Store, ended: str) -> None:
    evaluation = store.evaluations.begin(store.experiments.begin("x"), EvaluationSpec("eval_it.py", "eval_it", ("i",)))
    # No process of this machine has the largest pid.
    where = pid_space() if ended == "it was killed here" else "another machine"
    process = store.workers.begin(WorkerInfo("pytest", socket.gethostname(), 2**22, pid_space=where))
    assert store.workers.claim(process, evaluation, is_gone=lambda _: False) is None
    assert not only(store).abandoned
    if ended == "it left":
        store.workers.end(process, reason="left")
    elif ended == "it is silent":
        silence(store, process)
    else:
        with store._database.write() as connection:
            connection.execute(update(WORKER).values(beat_at=WORKER.c.beat_at - LATE_AFTER_SECONDS - 1))
        forget_heartbeats(store)
    assert only(store).abandoned
    assert only(store).plan == (NOBODY_RUNS_IT,)
    store.evaluations.set_status(evaluation.id, EvaluationStatus.CANCELLED, "enough")
    assert not only(store).abandoned


def test_nobody_runs_what_a_private_broker_carried_once_its_workers_have_left(store: Store) -> None:
    config = RunConfig(submitted=True, queue="doteval", private_broker="p1")
    spec = EvaluationSpec("eval_it.py", "eval_it", ("i",), config=config)
    evaluation = store.evaluations.begin(store.experiments.begin("x"), spec)
    store.rows.add(evaluation.id, rows(5))
    store.rows.set_total(evaluation.id, 5, complete=True, fingerprint=None)
    elsewhere = worker(store, 1)
    own = store.workers.begin(WorkerInfo("local-1", "host", 2, ("doteval@p1",)))
    assert not only(store).abandoned
    store.workers.end(own, reason="left")
    assert only(store).abandoned
    store.workers.end(elsewhere, reason="left")
    # Rows on a shared broker wait for workers, however long these take to come.
    store.evaluations.reconfigure(evaluation.id, lambda known: replace(known, private_broker=None))
    assert not only(store).abandoned


def test_dead_workers_are_those_that_died_since_the_experiment_began(store: Store, evaluation: Evaluation) -> None:
    orderly, killed, earlier = worker(store, 1), worker(store, 2), worker(store, 3)
    store.workers.end(orderly, reason="left")
    store.workers.end_process(["token 2"], WorkerEnd.KILLED, reason="was killed by SIGKILL")
    silence(store, earlier)
    found = experiment_status(store, store.experiments.find("x"))
    assert [each.id for each in found.dead] == [killed]
    assert found.live == []


def test_a_failed_start_is_shown_until_a_successor_is_ready(store: Store, evaluation: Evaluation) -> None:
    def begin(pid: int) -> int:
        return store.workers.begin(WorkerInfo("worker-1", "host", pid))

    def shown() -> list[int]:
        return [each.info.pid for each in experiment_status(store, evaluation.experiment).failed_starts]

    for pid in (1, 2):
        store.workers.end(begin(pid), WorkerEnd.FAILED_TO_START, reason="could not start: no driver")
    assert shown() == [2]
    third = begin(3)
    assert shown() == [2]
    store.workers.beat(third, state=WorkerPhase.READY, holding=[])
    assert shown() == []


def test_the_status_command_prints_it(
    store: Store,
    evaluation: Evaluation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("DOTEVAL_BROKER", raising=False)
    monkeypatch.chdir(tmp_path)
    killed = worker(store, 2)
    error = RowError("ConnectionError", "the other\nside", ErrorClass.INFRASTRUCTURE)
    outcome = Outcome(RowStatus.FAILED, 1e9, 0.1, error=error)
    store.results.write([NewResult(evaluation.id, row, outcome) for row in rows(7, 10)], killed)
    store.workers.end_process(["token 2"], WorkerEnd.KILLED, reason="was killed by SIGKILL")
    hold(store, worker(store, 1), evaluation, (20, 29))
    doteval_ = CommandLine(capsys)
    ran = doteval_("status", "x", "--storage", str(tmp_path / "results.db"))
    assert ran.code == 0
    (line,) = [line for line in ran.out.splitlines() if line.startswith("eval_it ")]
    assert line.split() == ["eval_it", "running", "100", "10", "7", "0", "83", "10"]
    assert "row 10 on host:2  ConnectionError: the other side" in ran.out
    assert ran.out.count("ConnectionError") == 5
    assert "dead: w-2@host (process 2 on host) was killed by SIGKILL" in ran.out
    assert "1 worker process (1 ready), holding 10 rows" in ran.out
    document = json.loads(doteval_("status", "x", "--storage", str(tmp_path / "results.db"), "--json").out)
    (found,) = document["evaluations"]
    assert (found["rows_held"], found["rows_published"], found["rows_unpublished"]) == (10, 33, 40)
    assert document["dead_workers"][0]["reason"] == "was killed by SIGKILL"
    assert found["last_errors"][0]["error"]["class"] == "infrastructure"


def test_the_status_command_says_that_the_broker_is_unavailable(
    store: Store, evaluation: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = "redis://:hush@127.0.0.1:1/0"
    ran = CommandLine(capsys)("status", "x", "--storage", str(tmp_path / "results.db"), "--broker", broker)
    assert ran.code == 0
    assert "cannot be reached" in ran.out
    assert "hush" not in ran.out + ran.err


def test_each_evaluation_waits_for_workers_of_its_queue(store: Store, evaluation: Evaluation) -> None:
    spec = EvaluationSpec("eval_it.py", "eval_gpu", ("i",), config=RunConfig(queue="gpu", submitted=True))
    gpu = store.evaluations.begin(store.experiments.find("x"), spec)
    store.rows.add(gpu.id, rows(10))
    store.rows.set_total(gpu.id, 10, complete=True, fingerprint=None)
    worker(store, 1)
    found = experiment_status(store, store.experiments.find("x"), queued={"doteval": 0, "gpu": 1}).evaluations
    assert not any("no worker process" in sentence for sentence in found[0].plan)
    assert found[1].plan[0] == (
        "no worker process serves the queue 'gpu': start one with `doteval worker PATH --queue gpu`, or submit again"
    )
