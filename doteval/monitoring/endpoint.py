"""A small HTTP server: a few paths, each with a function that makes the reply."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from doteval.core.file_descriptors import remedy_for
from doteval.errors import DotEvalError, UsageError

logger = logging.getLogger("doteval.monitoring")


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An HTTP reply: status, body and content type."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


def metrics_reply(registry: CollectorRegistry) -> HttpReply:
    """All metrics of a registry, in the text format of Prometheus."""
    return HttpReply(200, generate_latest(registry), CONTENT_TYPE_LATEST)


def json_reply(status: int, document: Any) -> HttpReply:
    return HttpReply(status, json.dumps(document).encode() + b"\n", "application/json")


class Endpoint:
    """Serves GET requests for `paths` from a thread, as a context manager.

    With port 0 the system chooses a free one, which `port` returns.

    Raises UsageError: on entering, when the address and port cannot be used
    """

    def __init__(self, address: str, port: int, paths: Mapping[str, Callable[[], HttpReply]]) -> None:
        self._address = address
        self._asked = port
        self._paths = paths
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.server_address[1])

    def __enter__(self) -> Endpoint:
        try:
            self._server = _Server((self._address, self._asked), _handler(self._paths))
        except OSError as error:
            raise UsageError(
                f"cannot listen on {self._address} port {self._asked}: {error.strerror}",
                remedy=remedy_for(error, "Choose another port."),
                page="troubleshooting#port-taken",
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="doteval-endpoint", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _handler(paths: Mapping[str, Callable[[], HttpReply]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        # Seconds that a connection without a request occupies a thread.
        timeout = 10

        def do_GET(self) -> None:
            make = paths.get(urlsplit(self.path).path)
            reply = _made(make) if make is not None else HttpReply(404, " ".join(sorted(paths)).encode() + b"\n")
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: Any) -> None:
            """Nothing: a health check every few seconds is no event."""

    return Handler


def _made(make: Callable[[], HttpReply]) -> HttpReply:
    try:
        return make()
    except DotEvalError as error:
        # Messages of errors contain no passwords.
        return HttpReply(503, f"{error.message}\n".encode())
    except Exception:
        logger.exception("an unexpected error while a reply was made")
        return HttpReply(500, b"an unexpected error; see the log\n")
