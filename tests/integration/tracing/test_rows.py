"""The spans of rows, run for real in this process: what they show of outcomes, scores and errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan

from doteval import Result, Score, batch, foreach, run
from doteval.core.results import Outcome, Row, RowStatus
from doteval.core.run_config import RunConfig
from doteval.tracing.spans import EvaluationTracer
from tests.support.evaluations import evaluation
from tests.support.spans import Kept

EVENT = "gen_ai.evaluation"


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a function as the experiment "x", traced in the mode that comes first."""
    monkeypatch.chdir(tmp_path)

    def call(mode: str, function: Callable[..., Any], **more: Any) -> Any:
        monkeypatch.setenv("DOTEVAL_TRACING", mode)
        return run(function, "x", storage=f"{tmp_path}/x.db", **more)

    return call


def events(span: ReadableSpan) -> list[Mapping[str, Any]]:
    assert {event.name for event in span.events} <= {f"{EVENT}.result"}
    return [dict(event.attributes or {}) for event in span.events]


def of_rows(spans: Kept) -> dict[int, ReadableSpan]:
    return {(span.attributes or {})["doteval.row.index"]: span for span in spans.all() if span.name.startswith("row ")}


def test_rows_are_children_of_the_command_with_an_event_for_each_score(
    evaluate: Callable[..., Any], spans: Kept
) -> None:
    tracer = spans.provider.get_tracer("the author's")

    @foreach("text", [("private",), ("broken",), ("skipped",)])
    def eval_it(text: str) -> Result:
        with tracer.start_as_current_span("own"):
            if text == "broken":
                raise KeyError("a private key")
            if text == "skipped":
                pytest.skip("not now")
        return Result(Score("right", True, []), Score("length", 7, []), prompt=text, model_response=text)

    evaluate("on", eval_it)
    command, rows = spans.only("doteval run"), of_rows(spans)
    assert dict(command.attributes or {}) == {"doteval.command": "run", "doteval.experiment": "x"}
    assert command.parent is None
    assert all(span.parent is not None and span.parent.span_id == command.context.span_id for span in rows.values())
    assert [(span.attributes or {})["doteval.row.status"] for _, span in sorted(rows.items())] == [
        "done",
        "failed",
        "skipped",
    ]
    assert events(rows[0]) == [
        {f"{EVENT}.name": "right", f"{EVENT}.score.value": 1.0, f"{EVENT}.score.label": "true"},
        {f"{EVENT}.name": "length", f"{EVENT}.score.value": 7.0},
    ]
    assert (rows[1].status.status_code, rows[1].status.description) == (trace.StatusCode.ERROR, None)
    assert (rows[1].attributes or {})["error.type"] == "KeyError"
    own = {span.parent.span_id for span in spans.all() if span.name == "own" and span.parent}
    assert own == {span.context.span_id for span in rows.values()}
    assert all("private" not in span.to_json() for span in spans.all() if span.name != "own")


def test_rows_in_threads_and_on_the_loop_keep_their_spans_apart(evaluate: Callable[..., Any], spans: Kept) -> None:
    tracer, together = spans.provider.get_tracer("the author's"), threading.Barrier(3, timeout=30)

    @foreach("n", [(0,), (1,), (2,)])
    def eval_threads(n: int) -> Score:
        together.wait()
        with tracer.start_as_current_span("own", attributes={"n": n}):
            return Score("ok", True, [])

    @foreach("n", [(0,), (1,), (2,)])
    async def eval_loop(n: int) -> Score:
        with tracer.start_as_current_span("own", attributes={"n": n}):
            return Score("ok", True, [])

    for function in (eval_threads, eval_loop):
        evaluate("on", function, concurrency=3)
    rows = {span.context.span_id: span for span in spans.all() if span.name.startswith("row ")}
    own = [span for span in spans.all() if span.name == "own"]
    assert len(own) == len(rows) == 6
    for span in own:
        parent = rows.pop(span.parent.span_id)
        assert (parent.attributes or {})["doteval.row.index"] == (span.attributes or {})["n"]


def test_rows_of_a_batch_have_spans_below_that_of_the_call(evaluate: Callable[..., Any], spans: Kept) -> None:
    @batch("n", [(0,), (1,), (2,)], batch_size=2)
    def eval_batch(n: list[int]) -> list[Score]:
        return [Score("even", each % 2 == 0, []) for each in n]

    evaluate("on", eval_batch)
    calls = [span for span in spans.all() if span.name.startswith("batch ")]
    rows = of_rows(spans)
    assert [(span.attributes or {})["doteval.rows"] for span in calls] == [2, 1]
    parents = [calls[0].context, calls[0].context, calls[1].context]
    assert [rows[index].parent for index in range(3)] == parents
    assert [events(rows[index])[0][f"{EVENT}.score.label"] for index in range(3)] == ["true", "false", "true"]


def test_content_shows_messages_of_errors_and_what_judges_wrote(evaluate: Callable[..., Any], spans: Kept) -> None:
    @foreach("n", [(0,), (1,)])
    def eval_it(n: int) -> Score:
        if n:
            raise KeyError("https://me:hunter2@host quoted")
        return Score("polite", True, [], {"judge": "j", "reply": "It is. VERDICT: yes"})

    evaluate("content", eval_it)
    rows = of_rows(spans)
    assert events(rows[0])[0][f"{EVENT}.explanation"] == "It is. VERDICT: yes"
    assert rows[1].status.description is not None
    assert "https://me:***@host quoted" in rows[1].status.description


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (False, {"value": 0.0, "label": "false"}),
        (np.bool_(True), {"value": 1.0, "label": "true"}),
        (np.float32(0.5), {"value": 0.5}),
        ("A", {"label": "A"}),
        ("a text as long as the reply of a model, which it may well be", {}),
        (float("nan"), {}),
        (10**400, {}),
        (None, {}),
        ([1, 2], {}),
    ],
)
def test_values_of_scores_are_numbers_or_labels(spans: Kept, value: Any, shown: Mapping[str, Any]) -> None:
    tracer = EvaluationTracer(evaluation(RunConfig()), has_content=False)
    outcome = Outcome(RowStatus.DONE, 0.0, 0.0, (Score("s", value, ()),))
    tracer.begin([Row(0, "k", {}, sample=2)]).end([outcome])
    (found,) = events(spans.only())
    assert found == {f"{EVENT}.name": "s"} | {f"{EVENT}.score.{name}": each for name, each in shown.items()}
    assert (spans.only().attributes or {})["doteval.row.sample"] == 2


@pytest.mark.parametrize(("outcomes", "status"), [((), "pending"), ((RowStatus.PENDING,), "waiting")])
def test_rows_without_a_result_say_why(spans: Kept, outcomes: tuple[RowStatus, ...], status: str) -> None:
    tracer = EvaluationTracer(evaluation(RunConfig()), has_content=False)
    tracer.begin([Row(0, "k", {})]).end([Outcome(each, 0.0, 0.0) for each in outcomes])
    assert (spans.only().attributes or {})["doteval.row.status"] == status


def test_rows_belong_to_the_trace_that_is_stored_with_their_evaluation(spans: Kept) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for given in (parent, None, "no traceparent"):
        EvaluationTracer(evaluation(RunConfig(traceparent=given)), has_content=False).begin([Row(0, "k", {})]).end(())
    first, *roots = spans.all()
    assert first.parent is not None
    assert f"{first.parent.trace_id:032x}-{first.parent.span_id:016x}" == parent[3:-3]
    assert [span.parent for span in roots] == [None, None]
