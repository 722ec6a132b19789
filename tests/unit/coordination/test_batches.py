"""The batch coordinator, with a provider that tests control: each call is answered once, asked again, or given up."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import orjson
import pytest

from doteval.coordination.batches.provider import LineReply, ProviderError, ProviderState
from doteval.coordination.call_journal import CallJournal
from doteval.core.batches import AfterDeadline, BatchStatus
from doteval.core.call_journal import CallSource, FinishedCall, RowCalls
from doteval.core.experiments import Ending, EvaluationStatus
from doteval.core.results import Row, RowStatus
from doteval.core.states import EvaluationEnd, WorkerEnd
from doteval.store import BatchCapacity, GroupWriter, ParkedRow, WorkerInfo
from tests.support.batch_world import REPLY, ROWS, World
from tests.support.store_workload import done, rows

# A batch that runs is polled again after this.
_POLLED = 3.0


def test_replies_wake_their_rows(world: World) -> None:
    world.park(0, 1)
    world.look()
    assert world.provider.sent == {}, "rows that can run may want more"
    world.park(2, 3)
    world.park(3)
    world.look()
    assert [len(sent) for sent in world.provider.sent.values()] == [ROWS]
    assert world.store.rows.pending(world.evaluation.id, 0, ROWS) == []
    assert list(world.store.rows.pending_ranges(world.evaluation.id, 10)) == []
    progress = world.store.batches.progress([world.evaluation.id])
    assert (progress.waiting, progress.batches, progress.requests, progress.unsent) == (ROWS, 1, ROWS, 0)
    world.provider.end()
    world.look()
    assert sorted(world.published) == [0, 1, 2, 3]
    assert len(world.store.rows.pending(world.evaluation.id, 0, ROWS)) == ROWS
    assert world.recorded() == {index: [(200, CallSource.BATCH)] for index in range(ROWS)}
    spent = world.store.usage.spent(world.evaluation.experiment)
    assert (spent.requests, spent.tokens) == (ROWS, 12 * ROWS)
    assert spent.cost == pytest.approx(12e-6 * ROWS)
    # The same call again, by an execution that began before, is not sent again.
    world.park(0)
    world.look()
    assert len(world.provider.sent) == 1
    assert len(world.store.rows.pending(world.evaluation.id, 0, ROWS)) == ROWS


@pytest.mark.parametrize("world", [{"batch_linger": 0.0}], indirect=True)
def test_calls_that_have_waited_are_sent_without_the_others(world: World) -> None:
    world.park(0)
    world.look()
    world.park(1)
    world.look()
    assert [len(sent) for sent in world.provider.sent.values()] == [1, 1]


def test_large_batches_are_divided(world: World) -> None:
    world.provider.limits = BatchCapacity(requests=100, size=30, inputs=100)
    world.park(0, 1, 2, 3)
    for _ in range(3):
        world.look()
    assert [len(sent) for sent in world.provider.sent.values()] == [2, 2]


@pytest.mark.parametrize("world", [{"max_retries": 1}], indirect=True)
def test_requests_that_fail_for_a_moment_are_asked_again_and_then_given_up(world: World) -> None:
    def line(place: int, wanted_id: int) -> LineReply | None:
        replies: list[LineReply | None] = [
            LineReply(wanted_id, 500, b"{}"),
            LineReply(wanted_id, 400, b'{"error":{}}'),
            LineReply(wanted_id, 0, code="batch_expired", message="too late"),
            None,
        ]
        return replies[place]

    world.park(0, 1, 2, 3)
    world.look()
    world.provider.end(BatchStatus.EXPIRED, line=line)
    world.look()
    assert world.recorded() == {1: [(400, CallSource.BATCH)]}
    assert world.published == [1]
    world.store.evaluations.reconfigure(world.evaluation.id, lambda config: replace(config, batch_linger=0.0))
    world.look()
    assert [len(sent) for sent in world.provider.sent.values()] == [4, 3]
    world.provider.end(line=lambda place, wanted_id: LineReply(wanted_id, 503, b"{}"))
    world.look()
    assert {index: calls[0][0] for index, calls in world.recorded().items()} == {0: 504, 1: 400, 2: 504, 3: 504}
    assert sorted(world.published) == [0, 1, 2, 3]


def test_a_batch_whose_answer_was_lost_is_found_again(world: World) -> None:
    world.provider.loses_answers = True
    world.park(0, 1, 2, 3)
    world.look()
    assert world.store.batches.progress([world.evaluation.id]).errors == ("the answer was lost",)
    world.provider.loses_answers = False
    # Another process takes over; a new batch may be missing in the list for a while.
    world.store.workers.end(world.worker, WorkerEnd.KILLED, reason="killed")
    other = world.store.workers.begin(WorkerInfo("w2", "h", 2))
    world.coordinator = world.another(lambda: other)
    world.look(0.0)
    assert world.store.batches.open(world.evaluation.id)[0].provider_id is None
    world.look(6.0)
    assert len(world.provider.sent) == 1
    world.provider.end()
    world.look()
    assert len(world.recorded()) == ROWS


def test_one_process_sends_the_batches_of_a_client(world: World) -> None:
    other = world.store.workers.begin(WorkerInfo("w2", "h", 2))
    world.park(0, 1, 2, 3)
    world.look()
    world.coordinator = world.another(lambda: other)
    world.provider.end()
    world.look()
    assert world.recorded() == {}
    world.store.workers.end(world.worker, WorkerEnd.KILLED, reason="killed")
    world.look()
    assert len(world.recorded()) == ROWS


def test_a_process_that_does_not_know_the_client_runs_a_row(world: World) -> None:
    world.park(2, client="of another process")
    world.look()
    assert world.learnt == [2]
    world.look(1.0)
    assert world.learnt == [2], "not at every look"


def test_a_provider_that_refuses_a_batch_for_good_fails_its_calls(world: World) -> None:
    world.provider.fails = [ProviderError("the provider refused: 404 no batches here", status=404, is_final=True)]
    world.park(0, 1, 2, 3)
    world.look()
    assert world.recorded() == {index: [(404, CallSource.BATCH)] for index in range(ROWS)}
    assert world.store.batches.open(world.evaluation.id) == []


@pytest.mark.parametrize("world", [{"batch_linger": 0.0}], indirect=True)
def test_a_batch_that_the_provider_has_forgotten_is_sent_again(world: World) -> None:
    world.park(0, 1, 2, 3)
    world.look()
    world.provider.states.clear()
    world.look()
    assert [len(sent) for sent in world.provider.sent.values()] == [ROWS, ROWS]
    world.provider.end()
    world.look()
    assert len(world.recorded()) == ROWS


FULL = "token_limit_exceeded"


@pytest.mark.parametrize("world", [{"max_retries": 0, "batch_linger": 0.0}], indirect=True)
def test_a_full_queue_fails_no_row(world: World) -> None:
    world.park(0, 1, 2, 3)
    world.look()
    # Smaller and smaller batches, later and later, until one is taken; the next ones are larger again.
    for seconds, size in ((5, 2), (10, 1), (20, 1), (40, 1)):
        world.provider.end(BatchStatus.FAILED, code=FULL, message="no room", line=lambda *_: None)
        world.look(_POLLED)
        assert world.provider.open == []
        assert "no room" in str(world.store.batches.progress([world.evaluation.id]))
        world.look(seconds - _POLLED)
        assert world.provider.open == []
        world.look(_POLLED)
        assert [len(world.provider.sent[each]) for each in world.provider.open] == [size]
    world.provider.end()
    for size in (2, 1):
        world.look()
        assert [len(world.provider.sent[each]) for each in world.provider.open] == [size]
        world.provider.end()
    world.look()
    assert {index: calls[0][0] for index, calls in world.recorded().items()} == dict.fromkeys(range(ROWS), 200)


@pytest.mark.parametrize("world", [{"batch_linger": 0.0}], indirect=True)
@pytest.mark.parametrize("code", ["", "batch_failed"])
def test_a_queue_that_is_full_of_our_batches_has_room_when_one_ends(world: World, code: str) -> None:
    world.park(0)
    world.look()
    (first,) = world.provider.open
    world.park(1, 2, 3)
    world.look()
    (second,) = {*world.provider.open} - {first}
    world.provider.states[second] = ProviderState(second, BatchStatus.FAILED, code=FULL)
    for _ in range(3):
        world.look(600)
        assert world.provider.open == [first]
    world.provider.end(BatchStatus.FAILED if code else BatchStatus.COMPLETED, code=code)
    world.look()
    world.look()
    assert [len(world.provider.sent[each]) for each in world.provider.open] == [3]


def test_a_creation_that_is_refused_for_the_queue_fails_no_row(world: World) -> None:
    world.provider.fails = [ProviderError("no room", status=400, code=FULL, is_final=True)]
    world.park(0, 1, 2, 3)
    for _ in range(3):
        world.look()
    assert [len(sent) for sent in world.provider.sent.values()] == [2, 2]


# Their bodies of 13 bytes have an estimate of 4 tokens each.
@pytest.mark.parametrize("world", [{"batch_tokens": 8, "batch_linger": 0.0}], indirect=True)
def test_batches_keep_to_the_queue_of_the_account(world: World) -> None:
    world.park(0, 1, 2)
    for _ in range(3):
        world.look()
    assert [len(sent) for sent in world.provider.sent.values()] == [2]
    world.provider.end()
    world.look()
    assert [len(world.provider.sent[each]) for each in world.provider.open] == [1]
    world.park(3)
    world.look()
    assert len(world.provider.open) == 2


@pytest.mark.parametrize("world", [{"batch_tokens": 1, "batch_linger": 0.0}], indirect=True)
def test_a_request_that_is_larger_than_the_queue_is_sent_alone(world: World) -> None:
    world.park(0, 1)
    for _ in range(3):
        world.look()
    assert [len(sent) for sent in world.provider.sent.values()] == [1]


@pytest.mark.parametrize("world", [{"max_cost": 5.0}], indirect=True)
def test_a_model_without_a_price_ends_an_evaluation_with_a_budget_in_dollars(world: World) -> None:
    world.park(0, 1, 2, 3, model="of-unknown-price")
    world.look()
    world.look()
    assert world.provider.sent == {}
    evaluation = world.store.evaluations.by_uid(world.evaluation.uid)
    assert evaluation.end_cause is EvaluationEnd.BUDGET_UNPRICED
    assert "no price is known for of-unknown-price" in str(evaluation.reason)


@pytest.mark.parametrize("world", [{"batch_linger": 0.0}], indirect=True)
def test_what_goes_on_waits_from_then_on(world: World) -> None:
    world.park(0, 1)
    world.look()
    world.park(2)
    assert world.store.wanted.waiting(world.evaluation.id) == 3
    world.store.batches.begin_again(world.evaluation.id)
    # One in no batch is wanted anew; those in a batch are answered.
    assert world.store.wanted.waiting(world.evaluation.id) == 2
    world.provider.end()
    world.look()
    assert sorted(world.recorded()) == [0, 1]


@pytest.mark.parametrize(
    ("world", "then"),
    [
        ({"batch_deadline": 0.0, "then": AfterDeadline.LIVE}, AfterDeadline.LIVE),
        ({"batch_deadline": 0.0, "then": AfterDeadline.FAIL}, AfterDeadline.FAIL),
    ],
    indirect=["world"],
)
def test_at_the_deadline(world: World, then: AfterDeadline) -> None:
    world.store.evaluations.reconfigure(world.evaluation.id, lambda config: replace(config, batch_deadline=3600.0))
    world.park(0, 1, 2, 3)
    world.look()
    world.store.evaluations.reconfigure(world.evaluation.id, lambda config: replace(config, batch_deadline=0.0))
    world.look()
    assert world.provider.cancelled == world.provider.open
    world.provider.end(
        BatchStatus.CANCELLED,
        line=lambda place, wanted_id: (
            LineReply(wanted_id, 200, orjson.dumps(REPLY))
            if place == 0
            else LineReply(wanted_id, 0, code="batch_cancelled")
        ),
    )
    world.look()
    assert sorted(world.published) == [0, 1, 2, 3]
    live = world.store.wanted.live(world.evaluation.id, 0, ROWS)
    if then is AfterDeadline.LIVE:
        assert live == {(index, 0): {(b"d", 0)} for index in (1, 2, 3)}
        assert world.recorded() == {0: [(200, CallSource.BATCH)]}
    else:
        assert live == {}
        assert {index: calls[0][0] for index, calls in world.recorded().items()} == {0: 200, 1: 504, 2: 504, 3: 504}


def test_batches_of_a_cancelled_evaluation_are_cancelled(world: World) -> None:
    world.park(0, 1, 2, 3)
    world.look()
    world.store.evaluations.end(
        world.evaluation.id, Ending(EvaluationStatus.CANCELLED, EvaluationEnd.CANCELLED_BY_USER, "enough")
    )
    world.look()
    assert world.provider.cancelled == world.provider.open
    first_only = {0: 200}
    world.provider.end(
        BatchStatus.CANCELLED,
        line=lambda place, wanted_id: LineReply(wanted_id, 200, orjson.dumps(REPLY)) if place in first_only else None,
    )
    world.look()
    # The replies that came are kept, the other rows want anew.
    assert world.recorded() == {0: [(200, CallSource.BATCH)]}
    assert world.published == []
    assert world.store.wanted.waiting(world.evaluation.id) == 0


def replay(journal: CallJournal, row: Row) -> RowCalls:
    """Run a row that asks for the reply that is there, and begins another call."""
    assert journal.calls_of is not None
    calls = journal.calls_of(row)
    position, recorded = calls.begin(), calls.take(b"d")
    assert recorded is not None
    replayed = (recorded.execution, recorded.position)
    calls.ended(FinishedCall(b"d", position, recorded.source, "m", 200, 0.0, 0.0, replayed=replayed))
    calls.begin()
    return calls


@pytest.mark.parametrize("other_ends", ["killed", "second", "parked"])
def test_usage_counts_once_if_two_processes_run_a_row(world: World, other_ends: str) -> None:
    """The execution that does not lead to the result takes no reply away from the one that does."""
    world.park(*range(ROWS))
    world.look()
    world.provider.end()
    world.look()
    row = rows(1)[0]
    with closing(GroupWriter(world.store, world.worker)) as writer:
        this, other = CallJournal(world.evaluation, writer), CallJournal(world.evaluation, writer)
        for journal in (this, other):
            journal.load(world.store, 0, 0)
        replay(other, row)
        if other_ends == "parked":
            parked = other.parked(row, replace(done(), status=RowStatus.PENDING))
            assert isinstance(parked, ParkedRow)
            writer.put_parked(parked, lambda error: None)
        writer.flush()
        replay(this, row)
        writer.put(this.result(row, done()))
        if other_ends == "second":
            writer.put(other.result(row, done()))
    assert world.used() == [(10, 10 * ROWS)]
    assert [call.source for call in world.store.calls.of_row(world.evaluation.id, 0, last=True)] == [CallSource.BATCH]


@pytest.mark.parametrize("world", [{"max_requests": 3}], indirect=True)
def test_batches_keep_the_budget(world: World) -> None:
    world.park(0, 1, 2, 3)
    world.look()
    world.look()
    assert [len(sent) for sent in world.provider.sent.values()] == [3]
