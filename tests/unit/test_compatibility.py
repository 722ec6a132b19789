"""Evaluation files of doteval 0.22 import modules and read attributes that must stay."""

from __future__ import annotations

import importlib

import pytest

import doteval
from doteval import exceptions
from doteval.core.results import Outcome, Record, Result, Row, RowError, RowStatus, Score
from doteval.errors import DotEvalError
from doteval.foreach import spec_of
from doteval.metrics import accuracy
from doteval.metrics.registry import registry

NAMES = {
    "doteval": ("Batch", "ForEach", "ModelHandle", "ModelProvider", "Record", "Result", "Score", "foreach", "run"),
    "doteval.concurrency": ("Adaptive", "AsyncSequential", "Batch", "Sequential", "SlidingWindow"),
    "doteval.datasets": ("Dataset", "get_dataset_info", "list_available"),
    "doteval.evaluators": ("ast_evaluation", "evaluator", "exact_match", "numeric_match", "valid_json"),
    "doteval.evaluators.base": ("ast_evaluation", "evaluator", "exact_match", "numeric_match", "valid_json"),
    "doteval.exceptions": ("DatasetError", "DotEvalError", "ExperimentNotFoundError", "InvalidResultError"),
    "doteval.metrics": ("Metric", "accuracy", "metric", "registry"),
    "doteval.metrics.registry": ("registry",),
    "doteval.models": ("EvaluationStatus", "Record", "Result", "Score"),
    "doteval.providers": ("ModelHandle", "ModelProvider"),
}


@pytest.mark.parametrize("module", NAMES)
def test_every_promised_name_can_be_imported(module: str) -> None:
    imported = importlib.import_module(module)
    assert [name for name in NAMES[module] if not hasattr(imported, name)] == []


def test_every_exception_is_one_that_doteval_raises() -> None:
    for name in exceptions.__all__:
        assert issubclass(getattr(exceptions, name), DotEvalError)


def test_a_record_has_the_result_the_error_and_the_position_of_its_row() -> None:
    row = Row(7, "key", {"text": "hello"})
    score = Score("exact_match", True, (accuracy(),))
    done = Record(row, Outcome(RowStatus.DONE, 0.0, 1.0, (score,), prompt="p", model_response="r"))
    assert done.result == Result(score, prompt="p", model_response="r")
    assert (done.error, done.item_id) == (None, 7)
    failed = Record(row, Outcome(RowStatus.FAILED, 0.0, 1.0, error=RowError("ValueError", "no answer")))
    assert failed.error == failed.result.error == "no answer"
    assert failed.result.scores == ()


def test_the_metric_registry_has_its_old_methods() -> None:
    registry.register("largest", max)
    assert registry.get("largest") is max
    assert registry.get("no such metric") is None
    assert {"accuracy", "largest"} <= set(registry.list_metrics())


def test_the_metric_registry_is_a_mapping_of_metrics_too() -> None:
    assert doteval.metrics.registry is registry
    assert "accuracy" in registry
    assert registry["accuracy"]([True, False]) == 0.5
    assert list(registry.keys()) == list(registry)
    with pytest.raises(KeyError):
        registry["no such metric"]
    registry.register("largest_number", max)
    assert doteval.metrics.largest_number is max


def test_batches_of_several_evaluations_share_settings() -> None:
    batch = doteval.Batch(retries=3, concurrency=2)
    spec = spec_of(batch("text", ["a"])(lambda text: text))
    assert spec is not None
    assert (spec.batch_size, spec.retries, spec.concurrency) == (32, 3, 2)
    spec = spec_of(batch("text", ["a"], batch_size=5, retries=1)(lambda text: text))
    assert spec is not None
    assert (spec.batch_size, spec.retries) == (5, 1)
