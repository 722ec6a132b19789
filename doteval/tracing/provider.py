"""Where spans go: to the provider that evaluation files have set up, else to the exporters that OTEL_* variables name.

Each process makes its own when it first needs it. A thread sends the spans, so that rows never wait for a collector;
one that does not take them is reported once.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from doteval.core import clocks
from doteval.core.wording import counted
from doteval.tracing.exporters import destination, exporters

logger = logging.getLogger("doteval.tracing")

_SERVICE = "doteval"
# A collector that is away is tried again so often. Spans that would be sent in between are dropped.
_AWAY_SECONDS = 15.0

_lock = threading.Lock()
_tracer: trace.Tracer | None = None
_processors: list[_Processor] = []


def tracer() -> trace.Tracer:
    """The tracer of this process."""
    global _tracer
    if _tracer is None:
        with _lock:
            if _tracer is None:
                _tracer = _made()
    return _tracer


def flush(seconds: float) -> None:
    """Send the spans that have ended, and wait for that up to so many seconds."""
    force = getattr(trace.get_tracer_provider(), "force_flush", None)
    if _tracer is None or force is None:
        return
    # The SDK does not keep the limit that it takes (opentelemetry-python issue 4568).
    sending = threading.Thread(target=force, name="doteval-traces", daemon=True)
    sending.start()
    sending.join(seconds)
    for each in _processors:
        each.report(is_sending=sending.is_alive())


def _made() -> trace.Tracer:
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        # The author's own spans go the same way, below those of their rows.
        trace.set_tracer_provider(_own_provider())
    return trace.get_tracer(_SERVICE, version(_SERVICE))


def _own_provider() -> TracerProvider:
    attributes: dict[str, Any] = {"service.instance.id": str(uuid.uuid4()), "process.pid": os.getpid()}
    if "service.name" not in OTELResourceDetector().detect().attributes:
        attributes |= {"service.name": _SERVICE, "service.version": version(_SERVICE)}
    # `flush` is called before the process ends, and has a limit.
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    for each in exporters():
        processor = _Processor(_WatchedExporter(each.load()()))
        _processors.append(processor)
        provider.add_span_processor(processor)
    # What the SDK and its exporters log of every failure is reported once, by `_WatchedExporter`.
    for name in ("opentelemetry.exporter", "opentelemetry.sdk"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return provider


class _WatchedExporter(SpanExporter):
    """An exporter that reports its first failure, and is not asked again for a while after each."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._away_until = 0.0
        self.has_failed = False
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        if clocks.monotonic() < self._away_until:
            return SpanExportResult.FAILURE
        why = ""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - exporters are plugins; rows go on whatever they raise
            result, why = SpanExportResult.FAILURE, f" ({type(error).__name__})"
        if result is not SpanExportResult.SUCCESS:
            self._away_until = clocks.monotonic() + _AWAY_SECONDS
            self.failed(f"does not take them{why}")
        return result

    def failed(self, what: str) -> None:
        """Warn, once."""
        if not self.has_failed:
            self.has_failed = True
            logger.warning(
                "traces are not complete: %s %s. Rows are not affected, and spans are dropped until it does",
                destination(),
                what,
            )

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _Processor(BatchSpanProcessor):
    """Counts the spans, since the SDK drops those of a full queue without a word."""

    def __init__(self, exporter: _WatchedExporter) -> None:
        super().__init__(exporter)
        self._watched = exporter
        self._lock = threading.Lock()
        self._ended = 0

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            with self._lock:
                self._ended += 1
        super().on_end(span)

    def report(self, *, is_sending: bool) -> None:
        """Warn about spans that were not sent, at the end."""
        if is_sending:
            self._watched.failed("has not taken the last of them in time")
            return
        dropped = self._ended - self._watched.taken
        if dropped > 0 and not self._watched.has_failed:
            logger.warning(
                "traces are not complete: %s had to be dropped, since they ended faster than they were sent; "
                "OTEL_BSP_MAX_QUEUE_SIZE can be raised",
                counted(dropped, "span"),
            )
