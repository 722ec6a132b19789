"""SQL queries over the store: views, types, what is read, and errors."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from doteval.core.call_journal import CallSource, FinishedCall
from doteval.core.experiments import Evaluation, EvaluationSpec, EvaluationStatus
from doteval.core.results import Outcome, Row, Score, Usage
from doteval.core.states import WorkerEnd
from doteval.errors import StoreError, UsageError
from doteval.store import (
    GroupWriter,
    NewCall,
    NewResult,
    Store,
    WorkerInfo,
    calls,
    result_pages,
    row_views,
    view_schema,
)
from doteval.store.crashes import CrashedRow
from doteval.store.duckdb_queries import answer
from doteval.store.sql_views import VIEWS
from tests.support.store_workload import done, failed

PAGE = (Path(__file__).parents[3] / "docs" / "reading-results.md").read_text()
USED = (Usage("small", requests=1, prompt_tokens=10, completion_tokens=2, cost=0.5), Usage("large", requests=2))
OUTCOMES: list[Outcome] = [
    done(prompt="ä", model_response={"text": "b"}, metadata={"m": [1]}, usage=USED),
    replace(done(), scores=(Score("exact_match", False, ("accuracy",)), Score("f1", 0.25, ("mean",)))),
    failed("no\x00 answer \ud800"),
    replace(done(), scores=(Score("label", "noun"), Score("twice", 1), Score("twice", 2))),
]


REPLY = b'{"choices": [{"message": {"content": "b \\u00e4"}}]}'


def call(position: int, reply: bytes = REPLY, error: str = "") -> FinishedCall:
    source, used = CallSource.LIVE, Usage("small", prompt_tokens=10, completion_tokens=2, cost=0.5)
    request = b'{"messages": [{"role": "user", "content": "%d"}]}' % position
    chat = ("/chat/completions", "application/json", error, request, reply, used)
    return FinishedCall(b"%16d" % position, position, source, "small", 0 if error else 200, 1000.5, 0.25, *chat)


CALLS = (
    call(0),
    call(1, b"data: {\xff}\n\n"),
    call(2, b"", "TimeoutError: too late"),
    FinishedCall(b"", 3, CallSource.CACHE, "large", 200, 1001.0, 0.0),
)


def write(store: Store, experiment: str, *, name: str = "eval_qa") -> Evaluation:
    spec = EvaluationSpec("evals/eval_qa.py", name, ("category", "question"))
    evaluation = store.evaluations.begin(store.experiments.begin(experiment), spec)
    rows = [Row(index, f"k{index}", {"category": "ab"[index % 2], "question": index}) for index in range(4)]
    store.rows.add(evaluation.id, rows)
    store.rows.set_total(evaluation.id, len(rows), complete=True, fingerprint="f")
    store.results.write(
        [NewResult(evaluation.id, row, outcome) for row, outcome in zip(rows, OUTCOMES, strict=True)], None
    )
    with closing(GroupWriter(store, None)) as writer:
        writer.put_calls([NewCall(evaluation.id, 1, 0, 255, each) for each in CALLS]).result(60)
    store.evaluations.set_status(evaluation.id, EvaluationStatus.COMPLETED)
    (ended,) = (each for each in store.evaluations.all() if each.id == evaluation.id)
    store.summaries.write(ended, [store.summary(ended)])
    return evaluation


def rows(store: Store, sql: str, *, parse_json: bool = False) -> list[tuple[Any, ...]]:
    with answer(store, sql) as found:
        return [row for page in found.pages(parse_json=parse_json) for row in zip(*page, strict=True)]


@pytest.mark.parametrize("page", [1, 3, 100])
def test_records_scores_and_usage(store: Store, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(result_pages, "_FIRST_PAGE_ROWS", page)
    monkeypatch.setattr(result_pages, "_PAGE_ROWS", page)
    monkeypatch.setattr(view_schema, "_PART_ROWS", page)
    write(store, "an 'experiment'")
    found = rows(store, "SELECT * EXCLUDE (started_at, seconds, worker) FROM records ORDER BY index", parse_json=True)
    used = ("small, large", 12, 3, 0, 0, 10, 2, 0, 0, 0.5)
    unused = (None, 0, 0, 0, 0, 0, 0, 0, 0, None)
    head = ("an 'experiment'", "evals/eval_qa.py::eval_qa")
    row = {"category": "a", "question": 0}
    assert found[0] == (
        *(*head, 0, 0, "k0", "done", row, {"exact_match": 1.0}, "ä", '{"text":"b"}'),
        *({"m": [1]}, None, None, None, *used),
    )
    assert found[2][11:] == ("no\x00 answer ?", "ValueError", "evaluation", *unused)
    # A text has no number, and of two scores of one name a map has the first.
    assert [each[7] for each in found[1:]] == [{"exact_match": 0.0, "f1": 0.25}, {}, {"label": None, "twice": 1.0}]
    assert rows(store, "SELECT score, number, value FROM scores WHERE index = 3") == [
        ("label", None, '"noun"'),
        ("twice", 1.0, "1"),
        ("twice", 2.0, "2"),
    ]
    assert rows(store, "SELECT model, requests, cost FROM usage") == [("small", 1, 0.5), ("large", 2, None)]
    assert rows(store, "SELECT typeof(started_at), started_at < now() FROM records LIMIT 1") == [
        ("TIMESTAMP WITH TIME ZONE", True)
    ]


def test_conditions_choose_what_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = write(store, "first"), write(store, "second")
    other = write(store, "second", name="eval_other")
    read: list[tuple[int, Any]] = []

    def noted(database: Any, evaluation_id: int, *args: Any, **named: Any) -> Any:
        read.append((evaluation_id, named["within"]))
        return result_pages.result_pages(database, evaluation_id, *args, **named)

    monkeypatch.setattr(row_views, "result_pages", noted)
    monkeypatch.setattr(view_schema, "_PART_ROWS", 3)
    assert rows(store, "SELECT count(*) FROM records WHERE experiment = 'second'") == [(8,)]
    assert {each for each, _ in read} == {second.id, other.id}
    read.clear()
    assert rows(store, "SELECT key FROM records WHERE evaluation LIKE '%::eval_other' AND index IN (1, 2)") == [
        ("k1",),
        ("k2",),
    ]
    assert (first.id, (3, None)) not in read
    read.clear()
    joined = (
        "SELECT a.index FROM scores a JOIN scores b USING (index, score) WHERE a.experiment = 'first'"
        " AND b.experiment = 'second' AND b.evaluation = 'evals/eval_qa.py::eval_qa' AND a.number = b.number"
        " AND a.index < 2 ORDER BY 1"
    )
    assert rows(store, joined) == [(0,), (1,), (1,)]
    assert other.id not in {each for each, _ in read}


def test_each_view_has_the_types_that_are_documented(store: Store) -> None:
    write(store, "an experiment")
    documented = dict(re.findall(r"^### The view `(\w+)`\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL))
    assert set(documented) == {view.name for view in VIEWS} == {name for (name,) in rows(store, "SHOW TABLES")}
    for view in VIEWS:
        described = {name: kind for name, kind, *_ in rows(store, f"DESCRIBE {view.name}")}
        assert described == {name: kind.value for name, kind in view.columns.items()}
        names = {
            name
            for line in re.findall(r"^\| (`[^|]*) \|", documented[view.name], re.MULTILINE)
            for name in re.findall(r"`(\w+)`", line)
        }
        assert names == set(view.columns), view.name


def retry(store: Store, evaluation: Evaluation) -> int:
    """Let the failed row fail once more on a worker process that is killed, then be done. Returns the process."""
    info = WorkerInfo("gpu", "host", 4242, ("doteval",), 8, {"python": "3.11"})
    worker_id = store.workers.begin(info)
    store.rows.retry_failed(evaluation.id)
    row = Row(2, "k2", {"category": "a", "question": 2})
    store.results.write([NewResult(evaluation.id, row, failed("still \x00 none"))], worker_id)
    store.rows.retry_failed(evaluation.id)
    store.crashes.record([CrashedRow(evaluation.id, 2, 0)], reason="was killed by SIGKILL", worker_id=worker_id)
    store.workers.end(worker_id, WorkerEnd.KILLED, reason="was killed by SIGKILL")
    store.results.write([NewResult(evaluation.id, row, done())], None)
    return worker_id


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_attempts_and_workers(store: Store, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_views, "_ATTEMPTS_AT_ONCE", at_once)
    monkeypatch.setattr(view_schema, "_PART_ROWS", 2)
    retry(store, write(store, "an experiment"))
    write(store, "another")
    found = rows(
        store,
        "SELECT index, sample, status, error, error_type, error_class, worker FROM attempts"
        " WHERE experiment = 'an experiment'",
    )
    assert sorted(found, key=str) == [
        (2, 0, "failed", "no\x00 answer ?", "ValueError", "evaluation", None),
        (2, 0, "failed", "still \x00 none", "ValueError", "evaluation", "host:4242"),
        (2, 0, "failed", "the worker process was killed by SIGKILL", "Crash", "crash", "host:4242"),
    ]
    assert rows(store, "SELECT count(*) FROM attempts WHERE index < 2 OR experiment = 'another'") == [(0,)]
    (worker,) = rows(
        store,
        "SELECT worker, service, host, pid, state, queues, device, concurrency, results, end_cause, reason, exit_code,"
        " versions, started_at <= heartbeat_at AND heartbeat_at <= left_at FROM workers",
        parse_json=True,
    )
    assert worker == (
        *("host:4242", "gpu", "host", 4242, "left", ["doteval"], None, 8, 1),
        *("killed", "was killed by SIGKILL", None, {"python": "3.11"}, True),
    )


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_calls(store: Store, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_views, "_CALLS_AT_ONCE", at_once)
    monkeypatch.setattr(calls, "_PAGE_CALLS_WITHOUT_BODIES", at_once)
    monkeypatch.setattr(view_schema, "_PART_ROWS", 2)
    write(store, "an experiment")
    write(store, "another")
    names = "index, sample, execution, position, model, source, status, prompt_tokens, cost, epoch(started_at), seconds"
    of_first = "FROM calls WHERE experiment = 'an experiment' AND evaluation LIKE 'evals/%' ORDER BY position"
    assert rows(store, f"SELECT {names} {of_first}") == [
        (1, 0, "00000000000000ff", 0, "small", "live", 200, 10, 0.5, 1000.5, 0.25),
        (1, 0, "00000000000000ff", 1, "small", "live", 200, 10, 0.5, 1000.5, 0.25),
        (1, 0, "00000000000000ff", 2, "small", "live", None, 10, 0.5, 1000.5, 0.25),
        (1, 0, "00000000000000ff", 3, "large", "cache", 200, 0, None, 1001.0, 0.0),
    ]
    asked = "request->'messages'->0->>'content'"
    said = "reply->'choices'->0->'message'->>'content'"
    assert rows(store, f"SELECT endpoint, {asked}, {said}, json_type(reply), error {of_first}") == [
        ("/chat/completions", "0", "b ä", "OBJECT", None),
        ("/chat/completions", "1", None, "VARCHAR", None),
        ("/chat/completions", "2", None, None, "TimeoutError: too late"),
        (None, None, None, None, None),
    ]
    assert rows(store, "SELECT count(*) FROM calls WHERE index > 1") == [(0,)]


def test_the_documented_queries_work(store: Store) -> None:
    retry(store, write(store, "base"))
    write(store, "new")
    examples = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) >= 5
    for example in examples:
        assert rows(store, example), example


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT foo\n, bar FROM records", "LINE 1: SELECT foo\n               ^"),
        ("SELECT index FROM records WHERE\nfoo = 1", "LINE 2: foo = 1\n        ^"),
        ("SELECT * FROM recordz", 'Did you mean "records"?'),
        ("SELEC 1", "syntax error"),
        ("SELECT CAST(prompt AS INT) FROM records", "Could not convert string 'ä' to INT32"),
        ("SELECT 1; SELECT 2", "the text holds 2 statements, not one query"),
        ("-- nothing", "there is no query"),
        ("SELECT $1", "the query has parameters"),
        ("DELETE FROM records", "the statement is no query"),
        ("CREATE TABLE x AS SELECT 1", "the statement is no query"),
        ("COPY records TO 'x.csv'", "the statement is no query"),
        ("SET memory_limit = '9GB'", "the statement is no query"),
        ("ATTACH 'x.db'", "the statement is no query"),
        ("SELECT * FROM read_csv('/etc/hosts')", "Permission Error"),
        ("SELECT * FROM '/etc/hosts'", "/etc/hosts"),
        ("SELECT * FROM store", "store does not exist"),
    ],
)
def test_mistakes(store: Store, sql: str, message: str) -> None:
    write(store, "an experiment")
    with pytest.raises(UsageError) as raised:
        rows(store, sql)
    assert message in raised.value.message
    assert len(raised.value.message.splitlines()) <= 20
    assert "ä" not in raised.value.log_text()


def test_an_error_of_the_store_stays_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, "an experiment")

    def gone(*_: Any, **__: Any) -> Any:
        raise StoreError("the store is away")

    monkeypatch.setattr(row_views, "result_pages", gone)
    with pytest.raises(StoreError, match="the store is away"):
        rows(store, "SELECT count(*) FROM records")


def test_an_empty_store(store: Store) -> None:
    for view in VIEWS:
        assert rows(store, f"SELECT * FROM {view.name}") == []


def test_values_that_json_lacks(store: Store) -> None:
    assert rows(
        store,
        "SELECT sum(i), DATE '2026-01-02', 'nan'::DOUBLE, 'a'::BLOB, {'k': [1.5]}, INTERVAL 3 DAY FROM range(3) t(i)",
    ) == [(3, "2026-01-02", None, "61", {"k": [1.5]}, "MonthDayNano(months=0, days=3, nanoseconds=0)")]
