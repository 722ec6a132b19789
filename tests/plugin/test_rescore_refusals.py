"""`rescore` refuses what it cannot replay, and says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from doteval import Score, batch, foreach, run
from doteval.clients.openai import openai_client
from doteval.core.experiments import EvaluationStatus
from doteval.core.rescoring import Rescoring
from doteval.core.run_config import RunTarget
from doteval.errors import UsageError
from doteval.mock_openai import MockOpenAI
from doteval.store import Store
from doteval.submission.rescore import Source, rescore
from doteval.submission.submit import SubmitOptions
from tests.support.client_calls import ask, settings


def made_of_calls() -> Callable[..., Any]:
    @foreach("number", [(0,), (1,)])
    def eval_it(number: int, client: Any) -> Score:
        ask(client, str(number))
        return Score("ok", True, [])

    return eval_it


def made_of_batches() -> Callable[..., Any]:
    @batch("number", [(0,), (1,)])
    def eval_it(number: list[int]) -> list[Score]:
        return [Score("ok", True, []) for _ in number]

    return eval_it


class Silent:
    """An observer that is never called."""


@pytest.fixture
def given(mock_openai: MockOpenAI, tmp_path: Path) -> dict[str, Any]:
    return {"experiment": "x", "storage": f"{tmp_path}/x.db", "client": openai_client(**settings(mock_openai))}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"{tmp_path}/x.db") as store:
        yield store


def refusal(store: Store, new: str = "new") -> str:
    """What `rescore` says to the experiment "x"."""
    experiment = store.experiments.find("x")
    source = Source(experiment, store.evaluations.of(experiment))
    observer: Any = Silent()
    with pytest.raises(UsageError) as raised:
        rescore(store, source, SubmitOptions(paths=(), target=RunTarget(experiment=new)), observer)
    assert raised.value.remedy
    return raised.value.message


@pytest.mark.parametrize("mode", ["off", "usage"])
def test_calls_that_were_not_kept(store: Store, given: dict[str, Any], mode: str) -> None:
    run(made_of_calls(), journal=mode, **given)
    assert f"were not kept: it ran with --journal {mode}" in refusal(store)


def test_calls_that_were_pruned(store: Store, given: dict[str, Any]) -> None:
    run(made_of_calls(), **given)
    (evaluation,) = store.evaluations.of(store.experiments.find("x"))
    store.calls.drop(evaluation.id)
    assert "doteval prune --journals has dropped them" in refusal(store)


def test_an_experiment_without_evaluations(store: Store) -> None:
    store.experiments.begin("x")
    assert refusal(store) == "the experiment 'x' has no evaluations"


def test_batches(store: Store, given: dict[str, Any]) -> None:
    del given["client"]
    run(made_of_batches(), **given)
    assert "is a @batch evaluation" in refusal(store)


def test_an_evaluation_that_runs_or_whose_rows_are_not_all_there(store: Store, given: dict[str, Any]) -> None:
    run(made_of_calls(), **given)
    (evaluation,) = store.evaluations.of(store.experiments.find("x"))
    store.evaluations.set_status(evaluation.id, EvaluationStatus.RUNNING)
    assert refusal(store).endswith("is running")
    store.evaluations.set_status(evaluation.id, EvaluationStatus.CANCELLED)
    store.rows.set_total(evaluation.id, 2, complete=False, fingerprint=None)
    assert "has not been read to its end" in refusal(store)


def test_an_experiment_that_is_something_else(store: Store, given: dict[str, Any]) -> None:
    run(made_of_calls(), **given)
    run(made_of_calls(), **{**given, "experiment": "other"})
    for new in ("x", "other"):
        assert refusal(store, new) == f"the experiment {new!r} exists, and was not rescored from 'x'"


def test_a_source_that_was_deleted(store: Store, given: dict[str, Any]) -> None:
    run(made_of_calls(), **given)
    (evaluation,) = store.evaluations.of(store.experiments.find("x"))

    def rescored(config: Any) -> Any:
        return type(config).from_json({**config.to_json(), "rescoring": Rescoring("gone", ("u0",)).to_json()})

    store.evaluations.reconfigure(evaluation.id, rescored)
    assert "was rescored from 'gone', which has been deleted with its calls" in refusal(store)
    # Nothing but a rescoring goes on with it.
    with pytest.raises(UsageError, match="the experiment 'x' was rescored from 'gone'") as raised:
        run(made_of_calls(), **given)
    assert raised.value.remedy is not None
    assert "doteval rescore gone --as x" in raised.value.remedy
