"""The group writer: groups, back-pressure, results that cannot be stored, and stores that are unavailable."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, event

from doteval.core.experiments import Counts, Evaluation
from doteval.core.results import RowStatus, Score, Usage
from doteval.errors import StoreError
from doteval.store import GroupWriter, NewResult, Store, engine
from doteval.store.engine import Database
from doteval.store.result_rows import EncodedResult
from tests.support.store_workload import begin, counted, done, in_threads, results, rows
from tests.support.troubleshooting import assert_shown

_WAIT_SECONDS = 60.0


class Heard:
    """A callback that records the error of each result, and the number of stored results at that time."""

    def __init__(self, count: Callable[[], int] = lambda: 0) -> None:
        self._count = count
        self._said = threading.Condition()
        self.failures: list[BaseException | None] = []
        self.stored: list[int] = []

    def __call__(self, failure: BaseException | None) -> None:
        with self._said:
            self.failures.append(failure)
            self.stored.append(self._count())
            self._said.notify_all()

    def wait(self, count: int) -> None:
        with self._said:
            assert self._said.wait_for(lambda: len(self.failures) >= count, _WAIT_SECONDS)


class WriteBarrier:
    """Holds the writer back before it writes, and counts the groups that it writes."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.groups: list[int] = []
        write = store.results.write_encoded

        def guarded(group: Sequence[EncodedResult], *others: Any) -> int:
            self.reached.set()
            assert self.open.wait(_WAIT_SECONDS)
            self.groups.append(len(group))
            return write(group, *others)

        monkeypatch.setattr(store.results, "write_encoded", guarded)


def _finished(store: Store, evaluation: Evaluation) -> int:
    return store.evaluations.counts(evaluation.id).finished


def _until(writer: GroupWriter, healthy: bool) -> None:
    waited = threading.Event()
    for _ in range(int(_WAIT_SECONDS / 0.01)):
        if writer.healthy is healthy:
            return
        waited.wait(0.01)
    pytest.fail(f"the writer did not become {'healthy' if healthy else 'unhealthy'}: {writer.last_error}")


@contextmanager
def _locked(store: Store) -> Iterator[Callable[[], None]]:
    """Lock the file of an SQLite store for writers, until the yielded function is called."""
    path = store._database.location.path
    assert path is not None
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield other.rollback
    finally:
        other.close()


def test_a_result_is_committed_when_its_callback_is_called(store: Store) -> None:
    evaluation = begin(store, 20)
    heard = Heard(lambda: _finished(store, evaluation))
    writer = GroupWriter(store, 3)
    for number, result in enumerate(results(evaluation, rows(20)), 1):
        writer.put(result, heard)
        heard.wait(number)
    assert heard.failures == [None] * 20
    assert heard.stored == list(range(1, 21))
    assert writer.close()
    assert (writer.healthy, writer.last_error, writer.waiting) == (True, None, 0)


def test_waiting_results_are_written_in_one_group(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = begin(store, 31)
    barrier = WriteBarrier(store, monkeypatch)
    writer = GroupWriter(store, None, group=20)
    first, *others = results(evaluation, rows(31))
    writer.put(first)
    assert barrier.reached.wait(_WAIT_SECONDS)
    for result in others:
        writer.put(result)
    assert writer.waiting == 31
    assert not writer.flush(timeout=0.01)
    barrier.open.set()
    assert writer.flush()
    assert barrier.groups == [1, 20, 10]
    assert _finished(store, evaluation) == 31
    assert writer.close()


def test_put_blocks_while_too_many_wait(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = begin(store, 10)
    barrier = WriteBarrier(store, monkeypatch)
    writer = GroupWriter(store, None, waiting=3)
    put: list[int] = []

    def put_all() -> None:
        for result in results(evaluation, rows(10)):
            writer.put(result)
            put.append(result.row.index)

    producer = threading.Thread(target=put_all)
    producer.start()
    assert barrier.reached.wait(_WAIT_SECONDS)
    producer.join(0.2)
    # The first group is at the barrier with at most three results; three more wait.
    assert producer.is_alive()
    assert len(put) <= 6
    barrier.open.set()
    producer.join(_WAIT_SECONDS)
    assert len(put) == 10
    assert writer.close()
    assert _finished(store, evaluation) == 10


def test_many_threads_put(store: Store) -> None:
    evaluation = begin(store, 800)
    new = results(evaluation, rows(800))
    writer = GroupWriter(store, 1, group=50, waiting=60)

    def put(worker: int) -> None:
        for result in new[worker * 100 : worker * 100 + 200]:
            writer.put(result)

    in_threads(put)
    assert writer.close()
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation) == Counts(800, done=800)


def test_a_value_that_cannot_be_stored_fails_its_row_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = begin(store, 4)
    barrier = WriteBarrier(store, monkeypatch)
    heard = Heard()
    writer = GroupWriter(store, None)
    used = (Usage("m", 1),)
    outcomes = [
        done(),
        done(model_response={"secret": [object()]}, usage=used),
        replace(done(), scores=(Score(5, True),)),  # type: ignore[arg-type]
        done(),
    ]
    for row, outcome in zip(rows(4), outcomes, strict=True):
        writer.put(NewResult(evaluation.id, row, outcome), heard)
    barrier.open.set()
    assert writer.close()
    assert heard.failures == [None] * 4
    assert store.evaluations.counts(evaluation.id) == Counts(4, done=2, failed=2)
    first, second = [record.outcome for record in store.results.records(evaluation.id, status=RowStatus.FAILED)]
    assert first.error is not None
    assert first.error.type == "UnstorableValueError"
    assert "the model response: a value of type builtins.object at ['secret'][0]" in first.error.message
    assert (first.usage, first.seconds) == (used, 0.25)
    assert second.error is not None
    assert second.error.type == "TypeError"


def test_an_error_of_the_database_reaches_only_its_callback(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = begin(store, 5)
    barrier = WriteBarrier(store, monkeypatch)
    good, bad = Heard(), Heard()
    writer = GroupWriter(store, None)
    for row in rows(5):
        tokens = 2**80 if row.index == 3 else 1
        outcome = done(usage=(Usage("m", prompt_tokens=tokens),))
        writer.put(NewResult(evaluation.id, row, outcome), bad if row.index == 3 else good)
    barrier.open.set()
    assert writer.close()
    assert good.failures == [None] * 4
    (failure,) = bad.failures
    assert isinstance(failure, (StoreError, OverflowError))
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation) == Counts(5, done=4)
    assert writer.healthy


def test_flush_raises_a_failure_without_a_callback(store: Store) -> None:
    evaluation = begin(store, 1)
    writer = GroupWriter(store, None)
    writer.put(NewResult(evaluation.id, rows(1)[0], done(usage=(Usage("m", prompt_tokens=2**80),))))
    with pytest.raises((StoreError, OverflowError)):
        writer.flush()
    assert writer.close()


def test_a_closed_writer_accepts_no_result(store: Store) -> None:
    evaluation = begin(store, 1)
    writer = GroupWriter(store, None)
    assert writer.close()
    assert writer.close()
    with pytest.raises(RuntimeError, match="closed"):
        writer.put(results(evaluation, rows(1))[0])


def test_a_failing_callback_is_logged_and_the_others_are_called(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    evaluation = begin(store, 2)
    heard = Heard()

    def broken(_: BaseException | None) -> None:
        raise ZeroDivisionError

    writer = GroupWriter(store, None)
    first, second = results(evaluation, rows(2))
    with caplog.at_level(logging.ERROR, logger="doteval.store.group_writer"):
        writer.put(first, broken)
        writer.put(second, heard)
        assert writer.close()
    assert heard.failures == [None]
    assert "ZeroDivisionError" in caplog.text


def test_a_fatal_error_reaches_every_caller(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = begin(store, 3)
    released = threading.Event()

    def die(*_: Any) -> int:
        assert released.wait(_WAIT_SECONDS)
        raise SystemExit("out of here")

    monkeypatch.setattr(store.results, "write_encoded", die)
    heard = Heard()
    writer = GroupWriter(store, None, group=1)
    for result in results(evaluation, rows(3)):
        writer.put(result, heard)
    released.set()
    heard.wait(3)
    assert all(isinstance(failure, SystemExit) for failure in heard.failures)
    assert not writer.healthy
    for call in (writer.flush, writer.close, lambda: writer.put(results(evaluation, rows(1))[0])):
        with pytest.raises(RuntimeError, match="has died"):
            call()


@contextmanager
def _pragma(store: Store, name: str, value: int) -> Iterator[None]:
    """Set a PRAGMA of SQLite with each transaction, and so on idle connections too."""

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA {name} = {value}")

    event.listen(store._database.engine, "begin", on_begin)
    try:
        yield
    finally:
        event.remove(store._database.engine, "begin", on_begin)


def _goes_on(store: Store, evaluation: Evaluation, writer: GroupWriter, heard: Heard, count: int) -> None:
    assert writer.close()
    assert heard.failures == [None] * count
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation) == Counts(count, done=count)


def test_a_full_disk_holds_results_back_until_there_is_room(sqlite_store: Store) -> None:
    evaluation = begin(sqlite_store, 40)
    heard = Heard()
    writer = GroupWriter(sqlite_store, None)
    with _pragma(sqlite_store, "max_page_count", 1):
        for result in results(evaluation, rows(40), done(prompt="p" * 10_000)):
            writer.put(result, heard)
        _until(writer, healthy=False)
        assert writer.last_error is not None
        assert_shown("disk-full", writer.last_error)
        assert heard.failures == []
    with _pragma(sqlite_store, "max_page_count", 1_000_000):
        _until(writer, healthy=True)
        _goes_on(sqlite_store, evaluation, writer, heard, 40)


def test_a_locked_file_holds_results_back_until_it_is_free(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = begin(sqlite_store, 10)
    heard = Heard()
    with _locked(sqlite_store) as unlock:
        writer = GroupWriter(sqlite_store, None)
        with monkeypatch.context() as shorter_wait:
            shorter_wait.setattr(engine, "SQLITE_WAIT_SECONDS", 0.02)
            for result in results(evaluation, rows(10)):
                writer.put(result, heard)
            _until(writer, healthy=False)
        assert "locked by another process" in str(writer.last_error)
        unlock()
        _goes_on(sqlite_store, evaluation, writer, heard, 10)


def test_a_waiting_writer_gets_the_lock_once_it_is_free(sqlite_store: Store) -> None:
    begun = threading.Event()

    def write() -> None:
        with sqlite_store._database.write():
            begun.set()

    with _locked(sqlite_store) as unlock:
        writing = threading.Thread(target=write, daemon=True)
        writing.start()
        assert not begun.wait(0.2)
        unlock()
        assert begun.wait(_WAIT_SECONDS)
        writing.join(_WAIT_SECONDS)


@pytest.mark.parametrize("log", ["wal", "delete"])
def test_sqlite_waits_where_doteval_does_not_poll(sqlite_store: Store, log: str) -> None:
    """Writers wait for readers, and without a write-ahead log readers wait for writers."""

    def wait(connection: Connection) -> Any:
        return connection.exec_driver_sql("PRAGMA busy_timeout").scalar()

    path = sqlite_store._database.location.path
    assert path is not None
    sqlite_store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(f"PRAGMA journal_mode = {log}").fetchone() == (log,)
    database = Database(sqlite_store._database.location)
    waits = []
    for _ in range(2):
        with database.write() as connection:
            waits.append(wait(connection))
        with database.read() as connection:
            waits.append(wait(connection))
    database.close()
    itself = engine.SQLITE_WAIT_SECONDS * 1000
    assert waits == ([0, itself, 0, itself] if log == "wal" else [itself] * 4)


def test_lost_connections_lose_no_result(postgres_url: str) -> None:
    with Store.open(postgres_url) as store, psycopg.connect(postgres_url, autocommit=True) as other:
        evaluation = begin(store, 3000)
        heard = Heard()
        writer = GroupWriter(store, None, group=20)
        for result in results(evaluation, rows(3000)):
            writer.put(result, heard)
            if result.row.index % 200 == 0:
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        _goes_on(store, evaluation, writer, heard, 3000)


def test_a_database_that_is_read_only_for_a_while(postgres_url: str) -> None:
    with Store.open(postgres_url) as store, psycopg.connect(postgres_url, autocommit=True) as other:
        evaluation = begin(store, 10)

        def read_only(setting: str) -> None:
            (name,) = other.execute("SELECT current_database()").fetchone() or ("",)
            other.execute("SET default_transaction_read_only = off")
            other.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {setting}')
            store.close()

        read_only("on")
        heard = Heard()
        writer = GroupWriter(store, None)
        for result in results(evaluation, rows(10)):
            writer.put(result, heard)
        _until(writer, healthy=False)
        assert "can be read but not written" in str(writer.last_error)
        read_only("off")
        _goes_on(store, evaluation, writer, heard, 10)
