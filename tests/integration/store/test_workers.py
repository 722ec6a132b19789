"""Worker processes in the store: which live, the rows that they hold, and how they ended."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import update

from doteval.core import clocks
from doteval.core.states import WorkerEnd
from doteval.store import HeldRange, Store, WorkerInfo, WorkerState
from doteval.store.engine import database_time
from doteval.store.tables import WORKER
from tests.support.passing_time import forget_heartbeats
from tests.support.store_workload import begin, in_threads

INFO = WorkerInfo("gpu\x00", "höst", 2**31 + 5, ("default", "high"), 8, {"doteval": "0.1", "files": ["a"]}, "GPU-1")


def _age(store: Store, worker_id: int, seconds: float) -> None:
    with store._database.write() as connection:
        connection.execute(update(WORKER).where(WORKER.c.id == worker_id).values(beat_at=database_time() - seconds))
    forget_heartbeats(store)


def test_a_worker_from_its_beginning_to_its_end(store: Store) -> None:
    worker = store.workers.begin(INFO)
    (state,) = store.workers.live()
    assert (state.id, state.info, state.state, state.holding) == (worker, INFO, "loading", ())
    assert 0 <= state.age < 60
    assert abs(state.started_at.timestamp() - time.time()) < 60

    held = (HeldRange("uid", 0, 99), HeldRange("other", 7, 7))
    store.workers.beat(worker, state="ready", holding=held)
    (state,) = store.workers.live()
    assert (state.state, state.holding) == ("ready", held)
    assert state.beat_at >= state.started_at

    store.workers.end(worker, reason="SIGTERM \ud800")
    store.workers.end(worker, WorkerEnd.STUCK, reason="another")
    store.workers.beat(worker, state="ready", holding=held)
    assert store.workers.live() == []
    (state,) = store.workers.all()
    assert (state.state, state.reason, state.holding) == ("left", "SIGTERM \ud800", ())
    assert (state.end_cause, state.exit_code) == (WorkerEnd.LEFT, None)
    assert state.left_at is not None


def test_a_silent_broker_is_stored_with_the_heartbeat(store: Store) -> None:
    worker = store.workers.begin(INFO)
    found = [store.workers.live()[0].broker_silence]
    for silence in (40.0, 90.0, None):
        store.workers.beat(worker, state="ready", holding=[], broker_silence=silence)
        found.append(store.workers.live()[0].broker_silence)
    assert [None if seconds is None else round(seconds, -1) for seconds in found] == [None, 40.0, 90.0, None]


def test_a_worker_without_heartbeats_is_not_live(store: Store) -> None:
    silent, live = store.workers.begin(INFO), store.workers.begin(INFO)
    _age(store, silent, 20.0)
    assert [state.id for state in store.workers.live()] == [live]
    assert [state.id for state in store.workers.live(max_age=60.0)] == [silent, live]
    assert [round(state.age / 10) for state in store.workers.all()] == [2, 0]
    store.workers.beat(silent, state="ready", holding=[])
    assert [state.id for state in store.workers.live()] == [silent, live]


def test_a_supervisor_ends_the_worker_with_its_token_and_no_other(store: Store) -> None:
    first = store.workers.begin(WorkerInfo("w", "a", 10), token="one")
    lookalike = store.workers.begin(WorkerInfo("w", "a", 10), token="two")
    store.workers.begin(WorkerInfo("w", "a", 10))
    tokens = ["another", "one"]
    assert store.workers.id_of(tokens) == first
    assert store.workers.end_process(tokens, WorkerEnd.KILLED, reason="killed by signal 9", exit_code=-9) == first
    assert store.workers.end_process(tokens, WorkerEnd.LOST, reason="again") is None
    assert [state.id for state in store.workers.live()] == [lookalike, lookalike + 1]
    ended = store.workers.all()[0]
    assert (ended.reason, ended.end_cause, ended.exit_code) == ("killed by signal 9", WorkerEnd.KILLED, -9)
    # It died before it registered.
    assert store.workers.id_of([]) is None
    assert store.workers.end_process([], WorkerEnd.KILLED, reason="killed") is None
    assert len(store.workers.live()) == 2


def test_a_heartbeat_counts_for_nobody_else(store: Store) -> None:
    mine = store.workers.begin(WorkerInfo("w", "a", 10), token="mine")
    assert store.workers.beat(mine, state="ready", holding=[], token="mine")
    assert not store.workers.beat(mine, state="draining", holding=[], token="another's")
    assert not store.workers.beat(mine + 1, state="draining", holding=[], token="mine")
    assert [worker.state for worker in store.workers.live()] == ["ready"]


def test_workers_that_begin_at_once_get_different_ids(store: Store) -> None:
    assert len(set(in_threads(lambda _: store.workers.begin(INFO)))) == 8


def test_one_of_several_concurrent_claims_succeeds(store: Store) -> None:
    evaluation = begin(store, 3)
    workers = [store.workers.begin(INFO) for _ in range(8)]
    found = in_threads(lambda number: store.workers.claim(workers[number], evaluation, is_gone=_never))
    (winner,) = (worker for worker, other in zip(workers, found, strict=True) if other is None)
    assert {other.id for other in found if other is not None} == {winner}
    held = {state.id: state.holding for state in store.workers.live() if state.holding}
    assert held == {winner: (HeldRange.whole(evaluation.uid),)}
    # Another evaluation can be claimed; this one can when the winner has died, has left, or released it.
    others = [worker for worker in workers if worker != winner]
    assert store.workers.claim(others[2], begin(store, 3, name="another"), is_gone=_never) is None
    assert store.workers.claim(others[0], evaluation, is_gone=lambda worker: worker.id == winner) is None
    store.workers.beat(winner, state="ready", holding=[])
    store.workers.end(others[0], reason="left")
    assert store.workers.claim(others[1], evaluation, is_gone=_never) is None


def test_rows_in_a_range_are_counted_and_those_of_a_whole_evaluation_are_not() -> None:
    assert (HeldRange("uid", 3, 5).rows, HeldRange.whole("uid").rows) == (3, 0)


def _never(_worker: WorkerState) -> bool:
    return False


def test_a_heartbeat_measures_the_clock_offset(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = store.workers.begin(INFO)
    assert store.workers.live()[0].clock_offset is None
    for ahead in (0.0, 90.0, -90.0):
        now = clocks.now
        with monkeypatch.context() as patched:
            patched.setattr(clocks, "now", lambda now=now, ahead=ahead: now() + ahead)
            store.workers.beat(worker, state="ready", holding=[])
        offset = store.workers.live()[0].clock_offset
        assert offset is not None
        assert abs(offset - ahead) < 20
