"""A collector: takes what an exporter sends by OTLP over HTTP, and decodes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


@dataclass(frozen=True)
class SentSpan:
    """A span as it was sent. parent: "" for a root; kind, status: numbers of the protocol; resource: who sent it."""

    id: str
    trace: str
    parent: str
    name: str
    kind: int
    status: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    resource: dict[str, Any]
    seconds: float


@dataclass
class Collector:
    """What was sent to `url`. bodies: as bytes."""

    url: str
    bodies: list[bytes] = field(default_factory=list)
    status: int = 200

    @property
    def spans(self) -> list[SentSpan]:
        return [span for body in list(self.bodies) for span in _decoded(body)]

    def named(self, beginning: str) -> list[SentSpan]:
        return [span for span in self.spans if span.name.startswith(beginning)]

    def environment(self, mode: str = "on") -> dict[str, str]:
        return {"DOTEVAL_TRACING": mode, "OTEL_EXPORTER_OTLP_ENDPOINT": self.url}


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector on a port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            found.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(found.status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _decoded(body: bytes) -> Iterator[SentSpan]:
    for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _values(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield SentSpan(
                    span.span_id.hex(),
                    span.trace_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    span.kind,
                    span.status.code,
                    _values(span.attributes),
                    [(event.name, _values(event.attributes)) for event in span.events],
                    resource,
                    (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                )


def _values(pairs: list[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)
