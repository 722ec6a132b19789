"""The spans of commands, rows and model calls.

Times come from `doteval.core.clocks`, since evaluation files may stop those that OpenTelemetry reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from doteval.core import clocks
from doteval.core.experiments import Evaluation
from doteval.core.filters import number_of
from doteval.core.redaction import hide_in_text
from doteval.core.results import Outcome, Row, RowStatus, Score
from doteval.core.tracing import Attributes
from doteval.tracing.provider import tracer

_EVENT = "gen_ai.evaluation.result"
# A longer text is no label of a score, and may be a reply.
_LONGEST_LABEL = 50
_TRACEPARENT = "traceparent"
_PROPAGATOR = TraceContextTextMapPropagator()
_ERROR = trace.Status(trace.StatusCode.ERROR)
# The ends of spans that the garbage collector has ended, which must not wait for the locks of OpenTelemetry.
_left: deque[Callable[[], None]] = deque()


def end_left_spans() -> None:
    """End the spans of streams that nobody has read to their end."""
    while _left:
        _left.popleft()()


class CommandSpan:
    """The span of a command, the root of those of its rows unless the process has a span already.

    traceparent: as W3C's Trace Context writes it.
    """

    def __init__(self, command: str, experiment: str) -> None:
        attributes = {"doteval.command": command, "doteval.experiment": experiment}
        self._span = tracer().start_span(f"doteval {command}", attributes=attributes, start_time=_now())
        self._context = trace.set_span_in_context(self._span)
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, self._context)
        self.traceparent = carrier.get(_TRACEPARENT)

    def current(self) -> AbstractContextManager[None]:
        return _Current(self._context)

    def end(self, error: str | None = None) -> None:
        _end(self._span, {}, error)


class EvaluationTracer:
    """Begins the spans of an evaluation's rows, in the trace of the command that has submitted them."""

    def __init__(self, evaluation: Evaluation, *, has_content: bool) -> None:
        given = evaluation.config.traceparent
        carrier = {} if given is None else {_TRACEPARENT: given}
        self._parent = _PROPAGATOR.extract(carrier, contexts.Context())
        self._name = evaluation.name
        self._attributes: dict[str, str | int] = {
            "doteval.experiment": evaluation.experiment.name,
            "doteval.evaluation": evaluation.spec.nodeid,
        }
        self._has_content = has_content
        self._is_batch = evaluation.config.batch_size is not None

    def begin(self, rows: Sequence[Row]) -> _RowTrace:
        end_left_spans()
        started_at = _now()
        if self._is_batch:
            name, own = f"batch {self._name}", {"doteval.rows": len(rows)}
        else:
            name, own = f"row {self._name}", _of_row(rows[0])
        attributes = {**self._attributes, **own}
        span = tracer().start_span(name, self._parent, attributes=attributes, start_time=started_at)
        return _RowTrace(self, span, rows, started_at, has_content=self._has_content)

    def end(self, of_call: _RowTrace, outcomes: Sequence[Outcome]) -> None:
        """End the span of one call of the eval function. Rows of a batch have spans of their own below it."""
        span, ended_at = of_call.span, _now()
        if self._is_batch:
            for row, outcome in zip(of_call.rows, outcomes, strict=False):
                attributes = {**self._attributes, **_of_row(row)}
                own = tracer().start_span(
                    f"row {self._name}", of_call.context, attributes=attributes, start_time=of_call.started_at
                )
                self._end_row(own, outcome, ended_at)
            span.end(ended_at)
        elif outcomes:
            self._end_row(span, outcomes[0], ended_at)
        else:
            span.set_attribute("doteval.row.status", RowStatus.PENDING.value)
            span.end(ended_at)

    def _end_row(self, span: trace.Span, outcome: Outcome, ended_at: int) -> None:
        span.set_attribute("doteval.row.status", "waiting" if outcome.status is RowStatus.PENDING else outcome.status)
        for score in outcome.scores:
            span.add_event(_EVENT, _of_score(score, has_content=self._has_content), ended_at)
        if outcome.error is not None and outcome.status is RowStatus.FAILED:
            span.set_attribute("error.type", outcome.error.type)
            # The message may quote what the row holds.
            message = hide_in_text(outcome.error.message) if self._has_content else None
            span.set_status(trace.Status(trace.StatusCode.ERROR, message))
        span.end(ended_at)


class _RowTrace:
    """The span of one call of an eval function, as `RowSpan` has it."""

    def __init__(
        self, of: EvaluationTracer, span: trace.Span, rows: Sequence[Row], started_at: int, *, has_content: bool
    ) -> None:
        self.has_content = has_content
        self.span = span
        self.rows = rows
        self.started_at = started_at
        self.context = trace.set_span_in_context(span, contexts.Context())
        self._of = of

    def current(self) -> AbstractContextManager[None]:
        return _Current(self.context)

    def begin_call(self, name: str, attributes: Attributes) -> _CallTrace | None:
        if not self.span.is_recording():
            return None
        # Its parent is the current span, which may be one of the author's below that of the row.
        span = tracer().start_span(name, kind=trace.SpanKind.CLIENT, attributes=attributes, start_time=_now())
        return _CallTrace(span)

    def end(self, outcomes: Sequence[Outcome]) -> None:
        self._of.end(self, outcomes)


class _CallTrace:
    """The span of one model call, as `CallSpan` has it."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def current(self) -> AbstractContextManager[None]:
        return _Current(trace.set_span_in_context(self._span))

    def end(self, attributes: Attributes, error: str | None = None) -> None:
        _end(self._span, attributes, error)

    def end_later(self, attributes: Attributes, error: str) -> None:
        ended_at = _now()
        _left.append(lambda: _end(self._span, attributes, error, ended_at))


class _Current:
    """A block in which a context is the current one; entered and left faster than a generator."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: contexts.Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = contexts.attach(self._context)

    def __exit__(self, *_: object) -> None:
        contexts.detach(self._token)


def _end(span: trace.Span, attributes: Attributes, error: str | None, ended_at: int | None = None) -> None:
    if attributes:
        span.set_attributes(attributes)
    if error is not None:
        span.set_attribute("error.type", error)
        span.set_status(_ERROR)
    span.end(_now() if ended_at is None else ended_at)


def _of_row(row: Row) -> dict[str, int]:
    # Each attribute of a span costs ten microseconds of processor time, most of it when it is sent.
    index = {"doteval.row.index": row.index}
    return {**index, "doteval.row.sample": row.sample} if row.sample else index


def _of_score(score: Score, *, has_content: bool) -> Mapping[str, Any]:
    """The attributes of a score's event. The label of a bool is "true" or "false"."""
    attributes: dict[str, Any] = {"gen_ai.evaluation.name": score.name}
    # Those of numpy have an `item`, and its bool is no number.
    value = score.value.item() if type(score.value).__module__ == "numpy" else score.value
    if isinstance(value, bool):
        attributes["gen_ai.evaluation.score.label"] = str(value).lower()
    elif isinstance(value, str) and (has_content or len(value) <= _LONGEST_LABEL):
        attributes["gen_ai.evaluation.score.label"] = value
    number = number_of(value)
    if number is not None:
        attributes["gen_ai.evaluation.score.value"] = number
    # What a judge has said.
    explanation = score.metadata.get("reply") if has_content and isinstance(score.metadata, Mapping) else None
    if isinstance(explanation, str):
        attributes["gen_ai.evaluation.explanation"] = hide_in_text(explanation)
    return attributes


def _now() -> int:
    """Nanoseconds since the epoch."""
    return int(clocks.now() * 1e9)
