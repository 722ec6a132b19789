"""The group writer: groups, back pressure, poison, and stores that cannot be used for a while."""

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
from doteval.store import group_writer as writer_module
from doteval.store.engine import Database
from doteval.store.group_writer import linger_at
from doteval.store.result_rows import EncodedResult
from tests.support.store_workload import begin, counted, done, in_threads, results, rows

_PATIENCE = 60.0


class Heard:
    """Remembers what the writer said of each result, and in what state the store was then."""

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
            assert self._said.wait_for(lambda: len(self.failures) >= count, _PATIENCE)


class Gate:
    """Stands before the store's door: keeps the writer waiting, and counts the groups that go through."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.groups: list[int] = []
        write = store.results.write_encoded

        def guarded(group: Sequence[EncodedResult], worker_id: int | None) -> int:
            self.reached.set()
            assert self.open.wait(_PATIENCE)
            self.groups.append(len(group))
            return write(group, worker_id)

        monkeypatch.setattr(store.results, "write_encoded", guarded)


def _finished(store: Store, evaluation: Evaluation) -> int:
    return store.evaluations.counts(evaluation.id).finished


def _until(writer: GroupWriter, healthy: bool) -> None:
    waited = threading.Event()
    for _ in range(int(_PATIENCE / 0.01)):
        if writer.healthy is healthy:
            return
        waited.wait(0.01)
    pytest.fail(f"the writer did not become {'healthy' if healthy else 'unhealthy'}: {writer.last_error}")


@contextmanager
def _locked(store: Store) -> Iterator[Callable[[], None]]:
    """The file of a SQLite store locked for writers, until what is given is called."""
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


def test_what_waits_is_written_in_one_group(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = begin(store, 31)
    gate = Gate(store, monkeypatch)
    writer = GroupWriter(store, None, group=20)
    first, *others = results(evaluation, rows(31))
    writer.put(first)
    assert gate.reached.wait(_PATIENCE)
    for result in others:
        writer.put(result)
    assert writer.waiting == 31
    assert not writer.flush(timeout=0.01)
    gate.open.set()
    assert writer.flush()
    assert gate.groups == [1, 20, 10]
    assert _finished(store, evaluation) == 31
    assert writer.close()


@pytest.mark.parametrize(
    ("count", "seconds", "linger"),
    [(0, 0.1, 0.0), (11, 1.0, 0.0), (6, 0.5, 0.25), (149, 1.0, 0.25), (150, 1.0, 0.05), (500, 0.1, 0.05)],
)
def test_how_long_a_group_waits_for_others(count: int, seconds: float, linger: float) -> None:
    assert linger_at(count, seconds) == pytest.approx(linger)


def test_the_last_of_a_row_task_and_those_before_it_wait_for_no_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = begin(store, 5)
    monkeypatch.setattr(writer_module, "_RATE_SECONDS", 0.0)
    # Longer than anybody waits: whoever is stored before is stored for another reason.
    monkeypatch.setattr(writer_module, "linger_at", lambda *_: _PATIENCE * 10)
    gate = Gate(store, monkeypatch)
    gate.open.set()
    heard = Heard()
    writer = GroupWriter(store, None)
    first, second, third, fourth, fifth = results(evaluation, rows(5))
    writer.put(first, heard)
    writer.put(second, heard)
    writer.put(third, heard, last=True)
    heard.wait(3)
    writer.put(fourth, heard, last=True)
    heard.wait(4)
    writer.put(fifth, heard)
    assert gate.groups == [3, 1]
    assert writer.close()
    assert gate.groups == [3, 1, 1]


def test_put_blocks_while_too_many_wait(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = begin(store, 10)
    gate = Gate(store, monkeypatch)
    writer = GroupWriter(store, None, waiting=3)
    put: list[int] = []

    def put_all() -> None:
        for result in results(evaluation, rows(10)):
            writer.put(result)
            put.append(result.row.index)

    producer = threading.Thread(target=put_all)
    producer.start()
    assert gate.reached.wait(_PATIENCE)
    producer.join(0.2)
    # The first group is at the gate with at most three; three more wait.
    assert producer.is_alive()
    assert len(put) <= 6
    gate.open.set()
    producer.join(_PATIENCE)
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
    gate = Gate(store, monkeypatch)
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
    gate.open.set()
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


def test_what_the_database_refuses_reaches_its_callback_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = begin(store, 5)
    gate = Gate(store, monkeypatch)
    good, bad = Heard(), Heard()
    writer = GroupWriter(store, None)
    for row in rows(5):
        tokens = 2**80 if row.index == 3 else 1
        outcome = done(usage=(Usage("m", prompt_tokens=tokens),))
        writer.put(NewResult(evaluation.id, row, outcome), bad if row.index == 3 else good)
    gate.open.set()
    assert writer.close()
    assert good.failures == [None] * 4
    (failure,) = bad.failures
    assert isinstance(failure, (StoreError, OverflowError))
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation) == Counts(5, done=4)
    assert writer.healthy


def test_a_failure_that_nobody_listens_to_comes_out_of_flush(store: Store) -> None:
    evaluation = begin(store, 1)
    writer = GroupWriter(store, None)
    writer.put(NewResult(evaluation.id, rows(1)[0], done(usage=(Usage("m", prompt_tokens=2**80),))))
    with pytest.raises((StoreError, OverflowError)):
        writer.flush()
    assert writer.close()


def test_a_closed_writer_takes_nothing(store: Store) -> None:
    evaluation = begin(store, 1)
    writer = GroupWriter(store, None)
    assert writer.close()
    assert writer.close()
    with pytest.raises(RuntimeError, match="closed"):
        writer.put(results(evaluation, rows(1))[0])


def test_a_callback_that_fails_is_logged_and_harms_no_other(store: Store, caplog: pytest.LogCaptureFixture) -> None:
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


def test_a_writer_that_dies_tells_everybody(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = begin(store, 3)
    gate = threading.Event()

    def die(*_: Any) -> int:
        assert gate.wait(_PATIENCE)
        raise SystemExit("out of here")

    monkeypatch.setattr(store.results, "write_encoded", die)
    heard = Heard()
    writer = GroupWriter(store, None, group=1)
    for result in results(evaluation, rows(3)):
        writer.put(result, heard)
    gate.set()
    heard.wait(3)
    assert all(isinstance(failure, SystemExit) for failure in heard.failures)
    assert not writer.healthy
    for call in (writer.flush, writer.close, lambda: writer.put(results(evaluation, rows(1))[0])):
        with pytest.raises(RuntimeError, match="has died"):
            call()


@contextmanager
def _pragma(store: Store, name: str, value: int) -> Iterator[None]:
    """A setting of SQLite on every connection, those included that are kept: with each transaction."""

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
        assert "its disk is full" in str(writer.last_error)
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
        with monkeypatch.context() as impatient:
            impatient.setattr(engine, "SQLITE_WAIT_SECONDS", 0.02)
            for result in results(evaluation, rows(10)):
                writer.put(result, heard)
            _until(writer, healthy=False)
        assert "locked by another process" in str(writer.last_error)
        unlock()
        _goes_on(sqlite_store, evaluation, writer, heard, 10)


def test_who_waits_for_the_lock_has_it_once_it_is_free(sqlite_store: Store) -> None:
    begun = threading.Event()

    def write() -> None:
        with sqlite_store._database.write():
            begun.set()

    with _locked(sqlite_store) as unlock:
        writing = threading.Thread(target=write, daemon=True)
        writing.start()
        assert not begun.wait(0.2)
        unlock()
        assert begun.wait(_PATIENCE)
        writing.join(_PATIENCE)


@pytest.mark.parametrize("log", ["wal", "delete"])
def test_sqlite_waits_by_itself_where_doteval_does_not(sqlite_store: Store, log: str) -> None:
    """For those who change the file while it is read, and, without a write-ahead log, for those who read it."""

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
