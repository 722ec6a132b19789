"""Which evaluations run in batch mode, which are refused, and what becomes of their calls when they go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from doteval.core.call_journal import JournalMode
from doteval.core.experiments import Ending, Evaluation, EvaluationStatus
from doteval.core.parking import WantedCall
from doteval.core.run_config import RunConfig
from doteval.core.states import EvaluationEnd
from doteval.errors import UsageError
from doteval.store import BatchCapacity, ParkedRow, Store
from doteval.submission.batch_mode import check_batch_mode, in_batch_mode_of, keep_batch_mode
from tests.support.store_workload import SPEC, begin

BATCHES = RunConfig(batch=True, batch_linger=5.0, batch_tokens=9)
ANY = BatchCapacity(requests=10, size=1000, inputs=10)


@pytest.mark.parametrize("config", [RunConfig(batch=True, batch_size=4), RunConfig(batch_size=4)])
def test_rows_in_lists_are_refused_by_name(config: RunConfig) -> None:
    """An evaluation of `@batch`, by its mark or by the options of a command."""
    wanted = None if config.batch else replace(config, batch=True)
    with pytest.raises(UsageError, match=r"evals/eval_qa.py::eval_qa cannot run .*\(@batch\)") as refused:
        check_batch_mode(replace(SPEC, config=config), wanted)
    assert "@foreach" in str(refused.value.remedy)
    check_batch_mode(replace(SPEC, config=replace(config, batch=False)))


def test_the_journal_is_needed() -> None:
    with pytest.raises(UsageError, match="--batch needs --journal full") as refused:
        check_batch_mode(replace(SPEC, config=RunConfig(batch=True, journal=JournalMode.USAGE)))
    assert refused.value.remedy == "Leave out --journal usage, or --batch."


@pytest.mark.parametrize(
    ("own", "stored", "options", "then"),
    [
        (None, False, BATCHES, True),
        (None, True, None, False),
        (True, True, None, True),
        (True, True, replace(BATCHES, batch=False), True),
        # It ran in a process of plain pytest before, which sends no batches.
        (True, False, None, True),
        (False, False, BATCHES, False),
    ],
)
def test_a_mark_counts_more_than_the_command(
    own: bool | None, stored: bool, options: RunConfig | None, then: bool
) -> None:
    before = RunConfig(batch=stored, own_batch=own, batch_linger=1.0, batch_tokens=2, max_retries=7)
    after = in_batch_mode_of(before, options)
    assert (after.batch, after.max_retries) == (then, 7)
    assert (after.batch_linger, after.batch_tokens) == ((1.0, 2) if options is None else (5.0, 9))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "results.db")) as store:
        yield store


def waiting(store: Store, *, batch: bool) -> Evaluation:
    """An evaluation that runs; one row waits for a call in a batch, another one for a call in none."""
    made = begin(store, 2)
    store.evaluations.reconfigure(made.id, lambda config: replace(config, batch=batch))
    for index in range(2):
        call = WantedCall(b"d", 0, 0, "client", "/chat/completions", "m", b"{}", 1)
        store.results.write_encoded([], None, None, [ParkedRow(made.id, index, 0, index + 1, (call,))])
        if index == 0:
            (group,) = store.batches.groups(made.id, "client")
            assert store.batches.reserve(made.id, "client", group, ANY) is not None
    assert store.wanted.waiting(made.id) == 2
    return store.evaluations.by_uid(made.uid)


def go_on(store: Store, evaluation: Evaluation, *, was_running: bool) -> tuple[Evaluation, list[str]]:
    said: list[str] = []
    return keep_batch_mode(store, evaluation, said.append, was_running=was_running), said


def test_calls_in_batches_are_waited_for_without_the_option(store: Store) -> None:
    evaluation, said = go_on(store, waiting(store, batch=False), was_running=True)
    assert evaluation.config.batch
    assert "goes on in batch mode: 1 batch of its calls" in said[0]
    assert store.wanted.waiting(evaluation.id) == 1


@pytest.mark.parametrize("was_running", [True, False])
def test_what_a_row_waited_for_before_a_cancellation_is_wanted_anew(store: Store, was_running: bool) -> None:
    evaluation = waiting(store, batch=True)
    ending = Ending(EvaluationStatus.CANCELLED, EvaluationEnd.CANCELLED_BY_USER, "enough")
    store.evaluations.end(evaluation.id, ending)
    evaluation, said = go_on(store, evaluation, was_running=was_running)
    assert said == []
    assert evaluation.config.batch
    assert store.wanted.waiting(evaluation.id) == (2 if was_running else 1)
