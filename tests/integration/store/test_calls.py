"""The call journal in the store."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from doteval.core.call_bodies import CallBody
from doteval.core.call_journal import CallSource, FinishedCall
from doteval.core.experiments import EvaluationSpec
from doteval.core.results import Outcome, Row, RowError, RowStatus, Usage
from doteval.store import CrashedRow, GroupWriter, NewCall, NewResult, ParkedRow, Store, StoredCall


def call(position: int, *, digest: bytes = b"d", status: int = 200, reply: bytes = b"\x00{}") -> FinishedCall:
    return FinishedCall(
        digest,
        position,
        CallSource.LIVE,
        "m",
        status,
        1000.0 + position,
        0.25,
        endpoint="/chat/completions",
        content_type="application/json",
        request=b'{"messages": []}',
        reply=reply,
        usage=Usage("m", prompt_tokens=3, completion_tokens=2, cost=0.5),
    )


def outcome(status: RowStatus = RowStatus.DONE) -> Outcome:
    error = None if status is RowStatus.DONE else RowError("ValueError", "bad")
    return Outcome(status, 1000.0, 0.5, error=error)


@pytest.fixture
def evaluation_id(store: Store) -> int:
    evaluation = store.evaluations.begin(store.experiments.begin("x"), EvaluationSpec("eval_x.py", "eval_x", ("q",)))
    store.rows.add(evaluation.id, [Row(index, str(index), {"q": index}) for index in range(3)])
    return evaluation.id


def put(store: Store, evaluation_id: int, index: int, execution: int, *calls: FinishedCall) -> None:
    with closing(GroupWriter(store, None)) as writer:
        stored = writer.put_calls([NewCall(evaluation_id, index, 0, execution, each) for each in calls])
        stored.result(60)


def finish(store: Store, evaluation_id: int, index: int, execution: int, new: Outcome, *calls: FinishedCall) -> None:
    kept = tuple(NewCall(evaluation_id, index, 0, execution, each) for each in calls)
    row = Row(index, str(index), {"q": index})
    with closing(GroupWriter(store, None)) as writer:
        writer.put(NewResult(evaluation_id, row, new, execution, kept))


def test_a_call_is_stored_as_it_was(store: Store, evaluation_id: int) -> None:
    put(store, evaluation_id, 1, 7, call(0))
    (found,) = store.calls.of_row(evaluation_id, 1)
    assert isinstance(found, StoredCall)
    assert (found.execution, found.position, found.source, found.status) == (7, 0, "live", 200)
    assert found.body == CallBody("/chat/completions", "application/json", "", b'{"messages": []}', b"\x00{}")
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.cost) == (3, 2, 0.5)


def test_calls_of_executions_that_did_not_end_can_be_replayed(store: Store, evaluation_id: int) -> None:
    put(store, evaluation_id, 0, 7, call(0), call(1, status=500), call(2, digest=b""), call(3, digest=b"e"))
    finish(store, evaluation_id, 1, 8, outcome(), call(0))
    finish(store, evaluation_id, 2, 9, outcome(RowStatus.FAILED), call(0))
    found = store.calls.unfinished(evaluation_id, 0, 2)
    assert {key: [each.position for each in calls] for key, calls in found.items()} == {(0, 0): [0, 3]}
    store.rows.retry_failed(evaluation_id)
    assert set(store.calls.unfinished(evaluation_id, 0, 2)) == {(0, 0)}
    # The user may ask for a replay of failed rows as well.
    found = store.calls.unfinished(evaluation_id, 0, 2, failed=True)
    assert {key: [each.has_result for each in calls] for key, calls in found.items()} == {
        (0, 0): [False, False],
        (2, 0): [True],
    }


def test_a_rescoring_replays_the_calls_that_the_results_came_of(store: Store, evaluation_id: int) -> None:
    uid = store.evaluations.of(store.experiments.find("x"))[0].uid
    finish(store, evaluation_id, 0, 7, outcome(RowStatus.FAILED), call(0), call(1, status=500))
    store.rows.retry_failed(evaluation_id)
    finish(store, evaluation_id, 0, 8, outcome(), call(2), call(3))
    put(store, evaluation_id, 1, 9, call(0))
    finish(store, evaluation_id, 2, 10, outcome(RowStatus.FAILED), call(0))
    found = store.calls.recorded(uid, 0, 2)
    assert {key: [each.position for each in calls] for key, calls in found.items()} == {
        (0, 0): [2, 3],
        (1, 0): [0],
        (2, 0): [0],
    }
    assert all(each.foreign for calls in found.values() for each in calls)
    assert set(store.calls.recorded(uid, 1, 1)) == {(1, 0)}
    assert [each.position for each in store.calls.of_row(evaluation_id, 0, last=True)] == [2, 3]
    assert not store.calls.recorded("of another store", 0, 2)


def test_calls_that_are_no_longer_there_are_noticed(store: Store, evaluation_id: int) -> None:
    finish(store, evaluation_id, 0, 7, outcome())
    assert not store.calls.were_dropped(evaluation_id)
    used = replace(outcome(), usage=(Usage("m", requests=1),))
    finish(store, evaluation_id, 1, 8, used, call(0))
    assert not store.calls.were_dropped(evaluation_id)
    store.calls.drop(evaluation_id)
    assert store.calls.were_dropped(evaluation_id)


def test_a_replayed_call_belongs_to_the_execution_that_replayed_it(store: Store, evaluation_id: int) -> None:
    put(store, evaluation_id, 0, 7, call(0), call(1))
    replayed = FinishedCall(b"d", 4, CallSource.REPLAY, "m", 200, 2000.0, 0.0, replayed=(7, 1))
    finish(store, evaluation_id, 0, 8, outcome(), replayed)
    assert [(each.execution, each.position, each.source) for each in store.calls.of_row(evaluation_id, 0)] == [
        (7, 0, "live"),
        (8, 4, "replay"),
    ]


def test_what_an_execution_used_is_kept_if_the_result_came_of_its_replies(store: Store, evaluation_id: int) -> None:
    """Executions that parked for a batch have asked something live; one asked what no other asks again."""
    used = Usage("m", 1, 1, prompt_tokens=5, cost=0.5)
    other = replace(used, model="n")
    for execution, usage in ((7, (used, other)), (8, (used,)), (9, (used,))):
        parked = ParkedRow(
            evaluation_id, 0, 0, execution, (), usage, (NewCall(evaluation_id, 0, 0, execution, call(0)),)
        )
        with closing(GroupWriter(store, None)) as writer:
            writer.put_parked(parked, lambda _: None)

    def replayed(position: int, execution: int) -> FinishedCall:
        where = (execution, 0)
        return FinishedCall(b"d", position, CallSource.REPLAY, "m", 200, 2000.0, 0.0, replayed=where)

    experiment = store.experiments.find("x")
    # The second result loses.
    for execution in (10, 11):
        new = replace(outcome(), usage=(used, other))
        finish(store, evaluation_id, 0, execution, new, replayed(0, 7), replayed(1, 8), call(2))
        spent = 4 + (execution - 10)
        (of_m, of_n) = store.usage.report(experiment).models
        assert (of_m.usage.requests, of_m.spent.requests) == (3, spent)
        assert (of_n.usage.requests, of_n.spent.requests) == (2, 2 + (execution - 10))
        assert of_m.usage.cost == 1.5


def test_a_try_that_replays_what_its_own_execution_has_got_moves_no_usage(store: Store, evaluation_id: int) -> None:
    put(store, evaluation_id, 0, 7, call(0))
    again = FinishedCall(b"d", 1, CallSource.REPLAY, "m", 200, 2000.0, 0.0, replayed=(7, 0))
    finish(store, evaluation_id, 0, 7, replace(outcome(), usage=(Usage("m", 1),)), again)
    (of_m,) = store.usage.report(store.experiments.find("x")).models
    assert (of_m.usage.requests, of_m.spent.requests) == (1, 1)


def test_the_calls_of_a_row_that_is_given_up_are_those_of_its_result(store: Store, evaluation_id: int) -> None:
    put(store, evaluation_id, 0, 7, call(0))
    for _ in range(2):
        store.crashes.record([CrashedRow(evaluation_id, 0, 0)], reason="was killed", worker_id=None)
    store.rows.retry_failed(evaluation_id)
    assert not store.calls.unfinished(evaluation_id, 0, 2)
    assert set(store.calls.unfinished(evaluation_id, 0, 2, failed=True)) == {(0, 0)}


def test_calls_go_with_their_rows_and_experiments(store: Store, evaluation_id: int) -> None:
    for index in range(3):
        put(store, evaluation_id, index, 7, call(0))
    store.rows.truncate(evaluation_id, 2)
    assert store.calls.count([evaluation_id]) == 2
    assert store.sizes().calls == 2
    assert store.calls.drop(evaluation_id) == 2
    put(store, evaluation_id, 0, 8, call(0))
    store.experiments.delete("x")
    assert store.calls.count([evaluation_id]) == 0
    # A late call finds no evaluation.
    put(store, evaluation_id, 0, 9, call(0))
    assert store.calls.count([evaluation_id]) == 0


def test_the_sizes_name_every_part(store: Store, evaluation_id: int) -> None:
    put(store, evaluation_id, 0, 7, call(0, reply=bytes(range(256)) * 100))
    sizes = store.sizes()
    assert set(sizes.parts) >= {"rows", "results", "attempts", "scores", "usage", "journal", "other"}
    assert sizes.total == sum(sizes.parts.values())
    assert 0 < sizes.call_bytes < sizes.parts["journal"]


def test_rows_that_paid_again_are_counted(store: Store, evaluation_id: int) -> None:
    store.calls.note_repaid(evaluation_id, 2)
    store.calls.note_repaid(evaluation_id, 1)
    (evaluation,) = store.evaluations.of(store.experiments.find("x"))
    assert evaluation.repaid_rows == 3
