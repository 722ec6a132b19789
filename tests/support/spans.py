"""Keeps the spans of this process, in place of an exporter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from doteval.tracing import provider


class Kept:
    """The spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def only(self, beginning: str = "") -> ReadableSpan:
        (span,) = (span for span in self.all() if span.name.startswith(beginning))
        return span


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """The spans of this test, which has a tracer of its own."""
    kept = Kept()
    monkeypatch.setattr(provider, "_tracer", kept.provider.get_tracer("tests"))
    yield kept
    kept.provider.shutdown()
