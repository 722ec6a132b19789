"""What commands and worker processes do about traces. Without tracing, OpenTelemetry is not imported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from doteval.core.client_config import TracingMode
from doteval.core.experiments import Evaluation
from doteval.core.tracing import RowTracer

# A collector that takes longer for what is left gets nothing more.
FLUSH_SECONDS = 3.0
_LOGGER = logging.getLogger("doteval.tracing")


@contextmanager
def command_span(
    command: str, experiment: str, mode: TracingMode, on_warning: Callable[[str], None] | None = None
) -> Iterator[str | None]:
    """Have a span around what a command does. At the end it is sent, with what this process has not sent yet.

    on_warning: called at the end with each warning about traces, where nobody sees the log.

    Yields the span as W3C's Trace Context writes it, for those of rows; None without tracing.
    """
    if mode is TracingMode.OFF:
        yield None
        return
    from doteval.tracing.spans import CommandSpan

    warnings = _Warnings()
    if on_warning is not None:
        _LOGGER.addHandler(warnings)
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
        _LOGGER.removeHandler(warnings)
        if on_warning is not None:
            for message in warnings.messages:
                on_warning(message)


class _Warnings(logging.Handler):
    """Keeps the messages of a log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


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
