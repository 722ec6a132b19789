"""The exporters that OTEL_* variables name. It can be imported where OpenTelemetry is not installed."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points

from doteval.core.redaction import hide_password
from doteval.errors import UsageError

_GROUP = "opentelemetry_traces_exporter"
_OF_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_INSTALL = "Install it: pip install 'doteval[otel]'"


def check_installed() -> None:
    """Raise UsageError if OpenTelemetry is not installed, or not the exporters that OTEL_* variables name."""
    try:
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"tracing is on (DOTEVAL_TRACING), and OpenTelemetry cannot be imported: {error}", remedy=_INSTALL
        ) from None
    exporters()


def exporters() -> list[EntryPoint]:
    """The exporters that OTEL_TRACES_EXPORTER names, else the one for OTLP. Raises UsageError if one is not there."""
    names = [name.strip() for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    found = []
    for name in names:
        if name in ("none", ""):
            continue
        wanted = _of_protocol() if name == "otlp" else name
        known = next(iter(entry_points(group=_GROUP, name=wanted)), None)
        if known is None:
            raise UsageError(
                f"tracing is on (DOTEVAL_TRACING), and no installed package has the exporter {wanted!r}",
                remedy=f"{_INSTALL}; or name another in OTEL_TRACES_EXPORTER (otlp, console, none), or another "
                "protocol in OTEL_EXPORTER_OTLP_PROTOCOL (http/protobuf, grpc).",
            )
        found.append(known)
    return found


def destination() -> str:
    """Where spans are sent, for messages."""
    traces, base = (_variable(name) for name in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"))
    port = 4317 if _of_protocol() == _OF_PROTOCOLS["grpc"] else 4318
    return hide_password(traces or base or f"http://localhost:{port}")


def _of_protocol() -> str:
    traces, base = (_variable(name) for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"))
    protocol = traces or base or "http/protobuf"
    return _OF_PROTOCOLS.get(protocol, protocol)


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()
