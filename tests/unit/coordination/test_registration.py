"""A process is registered under a random token; if others take it for dead, it registers anew under another one."""

from __future__ import annotations

import logging
import os

import pytest
from sqlalchemy import delete

from doteval.coordination.registration import Registration
from doteval.core.states import WorkerEnd, WorkerPhase
from doteval.store import HeldRange, Store, WorkerInfo, WorkerState
from doteval.store.tables import WORKER

# What all processes of these tests say of themselves.
INFO = WorkerInfo("worker-1@vm", "vm", 5, ("doteval",))
HELD = [HeldRange("uid", 0, 9)]


def beat(registration: Registration) -> bool:
    return registration.beat(state=WorkerPhase.READY, holding=HELD)


def by_id(store: Store) -> dict[int, WorkerState]:
    return {worker.id: worker for worker in store.workers.live()}


def test_lookalikes_are_different_processes(store: Store) -> None:
    announced: list[list[str]] = [[], []]
    one, two = (Registration(store, INFO, announce=tokens.append) for tokens in announced)
    assert beat(one)
    assert beat(two)
    tokens = {worker.id: worker.token for worker in store.workers.live()}
    assert tokens == {one.id: announced[0][0], two.id: announced[1][0]}
    # Its supervisor saw the first one die.
    store.workers.end_process(announced[0], WorkerEnd.KILLED, reason="was killed by SIGKILL")
    assert list(by_id(store)) == [two.id]
    assert beat(two)


@pytest.mark.parametrize("why", ["was killed by SIGKILL", "was taken for dead"])
def test_a_process_that_is_recorded_as_dead_registers_anew(
    store: Store, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokens: list[str] = []
    mine = Registration(store, INFO, announce=tokens.append)
    worker_id = mine.id
    # A supervisor of an earlier release took its hostname and pid for those of a child of its own.
    store.workers.end(worker_id, WorkerEnd.KILLED, reason=why)
    assert by_id(store) == {}
    with caplog.at_level(logging.WARNING):
        assert not beat(mine)
        assert [beat(mine) for _ in range(3)] == [True] * 3
    (said,) = caplog.messages
    assert said == f"the store said that this process is dead ({why}); it has registered anew and goes on"
    # Results and fixture loads that it stores go on under the same id.
    assert mine.id == worker_id
    alive = by_id(store)[worker_id]
    assert (alive.state, alive.holding) == (WorkerPhase.READY, tuple(HELD))
    assert (alive.left_at, alive.reason, alive.end_cause, alive.exit_code) == (None, None, None, None)
    # A late report about the old token ends nobody; one about the new token does.
    assert len(tokens) == len(set(tokens)) == 2
    assert store.workers.end_process(tokens[:1], WorkerEnd.KILLED, reason="late") is None
    assert store.workers.end_process(tokens, WorkerEnd.KILLED, reason="killed") == worker_id


@pytest.mark.parametrize("id_is_taken", [True, False])
def test_a_process_whose_record_is_gone_registers_anew(store: Store, id_is_taken: bool) -> None:
    """A backup of the store was restored, from before it began. Another process may have got its id since."""
    mine = Registration(store, INFO)
    before = mine.id
    with store._database.write() as connection:
        connection.execute(delete(WORKER))
        if id_is_taken:
            other = {"service": "w", "hostname": "h", "pid": 5, "queues": "[]", "concurrency": 1, "versions": "{}"}
            times = {"started_at": 0.0, "beat_at": 0.0}
            connection.execute(
                WORKER.insert().values(id=before, state="ready", holding="[]", token="x", **other, **times)
            )
    assert not beat(mine)
    assert mine.id != before or not id_is_taken
    assert by_id(store)[mine.id].holding == tuple(HELD)
    assert [worker.token for worker in store.workers.all() if worker.id == before and id_is_taken] in (["x"], [])
    assert beat(mine)


def test_a_process_that_has_left_does_not_come_back(store: Store) -> None:
    mine = Registration(store, INFO)
    mine.end(WorkerEnd.RECYCLED, reason="recycled after 5 rows")
    assert beat(mine)
    assert by_id(store) == {}
    (left,) = store.workers.all()
    assert (left.end_cause, left.reason) == (WorkerEnd.RECYCLED, "recycled after 5 rows")


def test_forked_processes_make_tokens_of_their_own(store: Store) -> None:
    Registration(store, INFO)
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                Registration(store, INFO)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert len({worker.token for worker in store.workers.live()}) == 4
