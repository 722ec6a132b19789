"""Sending spans: to a collector that takes them, refuses them or is not there; and what is said if they cannot be."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest
from opentelemetry import trace

from doteval.core.client_config import TracingMode
from doteval.errors import UsageError
from doteval.settings import load_settings
from doteval.tracing import provider
from doteval.tracing.commands import command_span
from doteval.tracing.exporters import exporters
from tests.support.traces import Collector, collector


@pytest.fixture
def receiver() -> Iterator[Collector]:
    with collector() as found:
        yield found


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that has made no provider, and that keeps the one it makes to itself."""
    made: list[trace.TracerProvider] = []
    monkeypatch.setattr(provider, "_tracer", None)
    monkeypatch.setattr(provider, "_processors", [])
    monkeypatch.setattr(trace, "set_tracer_provider", made.append)
    monkeypatch.setattr(trace, "get_tracer", lambda *arguments: made[0].get_tracer(*arguments))
    proxy = trace.ProxyTracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: made[0] if made else proxy)
    levels = {name: logging.getLogger(name).level for name in ("opentelemetry.exporter", "opentelemetry.sdk")}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    for each in provider._processors:
        each.shutdown()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.usefixtures("fresh")
def test_spans_are_sent_at_the_end_of_a_command_with_what_the_variables_say(
    receiver: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in receiver.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "of-mine")
    assert load_settings().client_config().tracing is TracingMode.ON
    with pytest.raises(RuntimeError), command_span("submit", "x", TracingMode.ON) as traceparent:
        raise RuntimeError("a private text")
    (span,) = receiver.spans
    assert (traceparent or "").startswith(f"00-{span.trace}-{span.id}-")
    assert (span.name, span.parent, span.attributes["error.type"]) == ("doteval submit", "", "RuntimeError")
    assert span.resource["service.name"] == "of-mine"
    assert b"private" not in receiver.bodies[0]
    assert warnings(caplog) == []


@pytest.mark.usefixtures("fresh")
def test_a_collector_that_is_not_there_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://me:hunter2@127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        # One try.
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
        for _ in range(3):
            with command_span("run", "x", TracingMode.ON):
                pass
    (warning,) = warnings(caplog)
    assert url.replace("hunter2", "***") in warning
    assert "Rows are not affected" in warning


@pytest.mark.usefixtures("fresh")
def test_a_collector_that_refuses_spans_is_one_warning(
    receiver: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 401
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    for _ in range(3):
        with command_span("run", "x", TracingMode.ON):
            pass
    assert len(warnings(caplog)) == 1
    # The others were dropped: it is not asked again at once.
    assert len(receiver.spans) == 1


@pytest.mark.usefixtures("fresh")
def test_spans_that_a_full_queue_drops_are_counted(
    receiver: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {"MAX_QUEUE_SIZE": "2", "MAX_EXPORT_BATCH_SIZE": "2", "SCHEDULE_DELAY": "600000"}.items():
        monkeypatch.setenv(f"OTEL_BSP_{name}", value)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    tracer = provider.tracer()
    (processor,) = provider._processors
    # Nothing is sent while this is held.
    with processor._batch_processor._export_lock:
        for _ in range(5):
            tracer.start_span("one").end()
    provider.flush(30)
    assert len(receiver.spans) == 2
    assert [each for each in warnings(caplog) if "3 spans had to be dropped" in each]


def test_a_span_processor_of_the_evaluation_files_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    own = trace.NoOpTracerProvider()
    monkeypatch.setattr(provider, "_tracer", None)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: own)
    monkeypatch.setattr(trace, "set_tracer_provider", lambda _: pytest.fail("the provider was replaced"))
    with command_span("run", "x", TracingMode.ON) as traceparent:
        assert traceparent is None


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "no installed package has the exporter 'zipkin'"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "no installed package has the exporter 'otlp_proto_grpc'"),
    ],
)
def test_an_exporter_that_is_not_installed_is_an_error(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("DOTEVAL_TRACING", "on")
    with pytest.raises(UsageError, match=says):
        load_settings().client_config()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert exporters() == []


def test_a_mode_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOTEVAL_TRACING", "yes")
    with pytest.raises(UsageError, match="DOTEVAL_TRACING"):
        load_settings()
