"""Samples of inspect-ai's logs that are not as the usual ones."""

from __future__ import annotations

from typing import Any

import pytest

from doteval.core.results import ErrorClass, RowStatus
from doteval.importing.inspect_samples import outcome_of, row_values
from doteval.importing.inspect_scores import ScorerMetrics
from doteval.importing.logs import Remarks

SCORED = {"scores": {"s": {"value": 1}}}


def outcome(remarks: Remarks | None = None, **sample: Any) -> Any:
    return outcome_of({"id": 1, "epoch": 1, "input": "q", **sample}, ScorerMetrics(), remarks or Remarks())


def test_a_limit_fails_a_sample_that_was_not_scored() -> None:
    limit = {"type": "time", "limit": 30}
    failed = outcome(limit=limit)
    assert (failed.status, failed.error.error_class) == (RowStatus.FAILED, ErrorClass.TIMEOUT)
    assert failed.error.message == "the sample reached its limit of time: 30"
    assert outcome(limit={"type": "token", "limit": 9}).error.error_class is ErrorClass.EVALUATION
    remarks = Remarks()
    scored = outcome(remarks, limit=limit, **SCORED)
    assert (scored.status, scored.metadata) == (RowStatus.DONE, {"limit": limit})
    assert remarks.counts == {"samples that reached a limit (time) and were scored": 1}


def test_long_texts_are_found_among_the_attachments() -> None:
    sample = {"input": "attachment://a", "attachments": {"a": "long"}, "metadata": {"m": ["attachment://a"]}}
    assert row_values(sample) == {"id": None, "input": "long", "target": None, "m": ["long"]}
    message = {"role": "assistant", "content": "attachment://a"}
    assert outcome(**sample, output={"choices": [{"message": message}]}).model_response == "long"
    assert row_values({"input": "attachment://b", "attachments": {"a": "x"}})["input"] == "attachment://b"


def test_what_the_model_answered() -> None:
    calls = [{"function": "f", "arguments": {}}]
    message = {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "image", "image": "i"}]}
    asked = [{"role": "user", "content": "q"}, {"role": "tool", "content": "r"}]
    found = outcome(messages=[*asked, message], output={"choices": [{"message": {**message, "tool_calls": calls}}]})
    assert (found.prompt, found.model_response) == (asked, {"content": "a", "tool_calls": calls})
    assert (outcome().prompt, outcome().model_response) == ("q", None)


def test_fields_of_later_versions_are_counted() -> None:
    remarks = Remarks()
    outcome(remarks, store={"a": 1}, sandbox=None, brand_new=[1])
    assert remarks.counts == {"brand_new of samples left out": 1, "store of samples left out": 1}


def test_logs_of_2024_have_one_score_without_a_name() -> None:
    sample = {"id": 1, "input": "q", "score": {"value": "C"}}
    (score,) = outcome_of(sample, ScorerMetrics({"match": ["accuracy"]}), Remarks()).scores
    assert (score.name, score.value) == ("match", True)


def test_times_of_logs_that_say_little() -> None:
    times = {"started_at": "2026-11-01T10:00:00+00:00", "completed_at": "2026-11-01T10:00:03+00:00"}
    assert outcome(**times).seconds == 3.0
    assert outcome(**times, total_time=2.5).seconds == 2.5
    assert (outcome().started_at, outcome().seconds) == (0.0, 0.0)


@pytest.mark.parametrize(("cache", "attempts", "hits"), [(None, 2, 0), ("read", 0, 2)])
def test_calls_are_counted_in_the_events(cache: str | None, attempts: int, hits: int) -> None:
    events = [{"event": "model", "model": "m", "cache": cache, "working_time": 0.25}] * 2
    (usage,) = outcome(events=events).usage
    assert (usage.requests, usage.attempts, usage.cache_hits, usage.seconds) == (2, attempts, hits, 0.5)
