"""The clock of the database, or of a machine, is set: who lives and who holds which rows stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import time_machine

from doteval.core.experiments import Ending, EvaluationStatus
from doteval.core.liveness import DEAD_AFTER_SECONDS, LATE_AFTER_SECONDS
from doteval.core.states import EvaluationEnd, WorkerEnd
from doteval.store import HeldRange, Store, WorkerInfo, WorkerState, running_spans
from doteval.store.heartbeat_ages import HeartbeatAges
from tests.support.clock import Clock
from tests.support.database_clock import DatabaseClock
from tests.support.store_workload import begin

INFO = WorkerInfo("w", "vm", 5, ("doteval",))
JUMPS = pytest.mark.parametrize("hours", [3.0, -3.0, 0.01, -0.01])

Open = Callable[[], tuple[Store, Clock]]


@pytest.fixture
def database_clock(postgres_url: str) -> DatabaseClock:
    return DatabaseClock(postgres_url)


@pytest.fixture
def open_store(database_clock: DatabaseClock) -> Iterator[Open]:
    """Opens the store as a process of its own, whose time the test lets pass."""
    stores = []

    def open_one() -> tuple[Store, Clock]:
        store, clock = Store.open(database_clock.url), Clock()
        store.workers._ages = HeartbeatAges(clock)
        stores.append(store)
        return store, clock

    yield open_one
    for store in stores:
        store.close()


def holding(worker_id: int, store: Store, uid: str) -> None:
    store.workers.beat(worker_id, state="ready", holding=[HeldRange(uid, 0, 2)])


def ids(workers: list[WorkerState]) -> list[int]:
    return [worker.id for worker in workers]


@JUMPS
def test_who_lives_goes_on_living_and_who_is_dead_stays_dead(
    open_store: Open, database_clock: DatabaseClock, hours: float
) -> None:
    store, clock = open_store()
    living, dying = store.workers.begin(INFO), store.workers.begin(INFO)
    assert ids(store.workers.live()) == [living, dying]
    clock.now += 1.0
    database_clock.set_ahead(hours)
    # Before the next heartbeat, and after it.
    assert ids(store.workers.live()) == [living, dying]
    store.workers.beat(living, state="ready", holding=[])
    clock.now += DEAD_AFTER_SECONDS - 2.0
    assert ids(store.workers.live()) == [living, dying]
    store.workers.beat(living, state="ready", holding=[])
    assert [round(worker.age) for worker in store.workers.live()] == [0, DEAD_AFTER_SECONDS - 1]
    clock.now += 2.0
    assert ids(store.workers.live()) == [living]
    # The dead one stays dead when the database's clock comes to the time of its last heartbeat again.
    database_clock.set_ahead(0.0)
    store.workers.beat(living, state="ready", holding=[])
    assert ids(store.workers.live()) == [living]


@JUMPS
def test_nobody_takes_over_what_a_living_process_holds(
    open_store: Open, database_clock: DatabaseClock, hours: float
) -> None:
    store, _ = open_store()
    evaluation = begin(store, 3)
    holder = store.workers.begin(INFO)
    assert store.workers.claim(holder, evaluation, is_gone=_never) is None
    database_clock.set_ahead(hours)
    # A command that starts at that moment has seen no heartbeat before.
    other, clock = open_store()
    late = other.workers.begin(INFO)

    def found() -> int | None:
        living = other.workers.claim(late, evaluation, is_gone=_never)
        return None if living is None else living.id

    assert found() == holder
    clock.now += 0.5
    assert found() == holder
    holding(holder, store, evaluation.uid)
    clock.now += LATE_AFTER_SECONDS
    assert found() == holder


@JUMPS
def test_what_a_dead_process_held_is_taken_over(open_store: Open, database_clock: DatabaseClock, hours: float) -> None:
    store, _ = open_store()
    evaluation = begin(store, 3)
    dead = store.workers.begin(INFO)
    holding(dead, store, evaluation.uid)
    database_clock.set_ahead(hours)
    other, clock = open_store()
    mine = other.workers.begin(INFO)
    for _ in range(4):
        living = other.workers.claim(mine, evaluation, is_gone=_never)
        clock.now += DEAD_AFTER_SECONDS / 2
    assert living is None
    held = {worker.id: worker.holding for worker in other.workers.all()}
    assert held == {dead: (), mine: (HeldRange.whole(evaluation.uid),)}
    ended = other.workers.all()[0]
    assert (ended.end_cause, ended.reason) == (
        WorkerEnd.LOST,
        "sent no heartbeat, and another process took its rows over",
    )


@JUMPS
def test_the_time_worked_does_not_jump(
    open_store: Open, database_clock: DatabaseClock, monkeypatch: pytest.MonkeyPatch, hours: float
) -> None:
    store, _ = open_store()
    evaluation = begin(store, 3)
    worker = store.workers.begin(INFO)
    database_clock.set_ahead(hours)
    holding(worker, store, evaluation.uid)
    time = store.evaluations.work_time(evaluation.id)
    assert 0.0 <= time.worked < 30.0
    assert time.elapsed >= time.worked
    with monkeypatch.context() as another_process:
        another_process.setattr(running_spans, "_begun", {})
        assert store.evaluations.work_time(evaluation.id).worked >= 0.0
    store.evaluations.end(evaluation.id, Ending(EvaluationStatus.CANCELLED, EvaluationEnd.INTERRUPTED, "interrupted"))
    assert time.worked <= store.evaluations.work_time(evaluation.id).worked < 30.0


@pytest.mark.parametrize("hours", [5, -5])
def test_the_clock_of_a_machine_changes_nothing(open_store: Open, hours: int) -> None:
    store, _ = open_store()
    worker = store.workers.begin(INFO)
    store.workers.live()
    with time_machine.travel(3600.0 * hours + store.workers.all()[0].beat_at.timestamp(), tick=True):
        assert ids(store.workers.live()) == [worker]
        store.workers.beat(worker, state="ready", holding=[])
        assert ids(store.workers.live()) == [worker]


def _never(_worker: WorkerState) -> bool:
    return False
