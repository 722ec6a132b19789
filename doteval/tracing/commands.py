"""What commands and worker processes do about traces. Without tracing, OpenTelemetry is not imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from doteval.core.client_config import TracingMode
from doteval.core.experiments import Evaluation
from doteval.core.tracing import RowTracer

# A collector that takes longer for what is left gets nothing more.
FLUSH_SECONDS = 3.0


@contextmanager
def command_span(command: str, experiment: str, mode: TracingMode) -> Iterator[str | None]:
    """Have a span around what a command does. At the end it is sent, with what this process has not sent yet.

    Yields the span as W3C's Trace Context writes it, for those of rows; None without tracing.
    """
    if mode is TracingMode.OFF:
        yield None
        return
    from doteval.tracing.spans import CommandSpan

    span = CommandSpan(command, experiment)
    try:
        with span.current():
            yield span.traceparent
    except BaseException as error:
        span.end(type(error).__qualname__)
        raise
    else:
        span.end()
    finally:
        send_traces(mode)


def row_tracer(evaluation: Evaluation, mode: TracingMode) -> RowTracer | None:
    """What traces the rows of an evaluation in this process; None without tracing."""
    if mode is TracingMode.OFF:
        return None
    from doteval.tracing.spans import EvaluationTracer

    return EvaluationTracer(evaluation, has_content=mode is TracingMode.CONTENT)


def prepare_tracing(mode: TracingMode) -> None:
    """Do at the start of a process what would keep its first row waiting."""
    if mode is not TracingMode.OFF:
        from doteval.tracing.provider import tracer

        tracer()


def send_traces(mode: TracingMode) -> None:
    """Send the spans that this process has not sent yet. It gives up after some seconds, with a warning."""
    if mode is not TracingMode.OFF:
        from doteval.tracing.provider import flush
        from doteval.tracing.spans import end_left_spans

        end_left_spans()
        flush(FLUSH_SECONDS)
