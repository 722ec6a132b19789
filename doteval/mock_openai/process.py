"""Runs the mock server in its own process."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from doteval.errors import ResourceError
from doteval.mock_openai.settings import MockSettings


class MockOpenAI:
    """Runs the mock server while a ``with`` block lasts; takes the settings of `MockSettings`.

    ``with MockOpenAI(latency=0.1) as server: OpenAI(base_url=server.base_url, api_key="any")``.
    The server stops with the block, or within a second of the death of this process.

    >>> with MockOpenAI() as server:
    ...     server.base_url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(self, *, start_timeout: float = 30.0, stop_timeout: float = 5.0, **settings: Any) -> None:
        self._settings = MockSettings(**settings)
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._base_url: str | None = None

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:PORT/v1``. Raises ResourceError if the server is not started."""
        if self._base_url is None:
            raise ResourceError("the mock server is not started")
        return self._base_url

    @property
    def pid(self) -> int:
        """The id of the server's process. Raises ResourceError if the server is not started."""
        if self._process is None:
            raise ResourceError("the mock server is not started")
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait for its URL.

        Raises ResourceError if it exits, or is not up within `start_timeout` seconds.
        """
        if self._process is not None:
            return
        # doteval may be uninstalled, imported from a checkout that is not the current directory.
        here = str(Path(__file__).parents[2])
        path = os.pathsep.join(part for part in (here, os.environ.get("PYTHONPATH")) if part)
        with tempfile.TemporaryFile() as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "doteval.mock_openai", *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, "PYTHONPATH": path},
                # Ctrl-C must not end the server, which this process may need to finish its rows.
                start_new_session=True,
            )
            assert self._process.stdout is not None
            ready, _, _ = select.select([self._process.stdout], [], [], self._start_timeout)
            line = self._process.stdout.readline().decode().strip() if ready else ""
            if not line:
                self.stop()
                stderr.seek(0)
                message = stderr.read().decode(errors="replace").strip()
                raise ResourceError(f"the mock server did not start: {message or 'it printed no URL in time'}")
            self._base_url = line

    def _arguments(self) -> list[str]:
        arguments = ["--parent", str(os.getpid())]
        for name, value in asdict(self._settings).items():
            if name == "faults":
                arguments += [f"--fault={fault}" for fault in value]
            else:
                arguments.append(f"--{name.replace('_', '-')}={value}")
        return arguments

    def stop(self) -> None:
        """Stop the server and wait until it has ended. A second call does nothing."""
        process, self._process, self._base_url = self._process, None, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(self._stop_timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def stats(self) -> dict[str, Any]:
        """The server's counters since its start or the last `reset`.

        ``requests`` (to models), ``replies`` (complete ones), ``rejected`` (error statuses), of them ``rate_limited``,
        ``hangups``, ``malformed``; ``prompt_tokens``, ``completion_tokens``, ``cached_tokens``, ``reasoning_tokens``
        as complete replies reported them in their usage; the same by model under ``models``; ``distinct_prompts``,
        ``in_flight`` (now), ``in_flight_max`` (most at once) and ``connections`` (accepted); ``seconds`` from the first
        request's arrival to the latest one's end.

        ``batch`` has requests, replies, rejected and tokens of the requests within batches, which the figures above
        leave out. ``repeated_replies``: complete replies to a prompt that had one, in batches or not: what was paid
        twice. ``kinds``: requests and replies by endpoint; ``keys``: by the name that ``[[key:NAME]]`` in the prompt
        gives a request; ``api_keys``: requests by the end of the API key; ``faults``: replies by the fault that spoiled
        them.
        """
        stats: dict[str, Any] = json.loads(self._call("GET"))
        return stats

    def reset(self) -> None:
        """Set the counters to zero, and forget which prompts were seen."""
        self._call("DELETE")

    def _call(self, method: str) -> bytes:
        url = self.base_url.removesuffix("/v1") + "/stats"
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:  # noqa: S310
            content: bytes = answer.read()
        return content

    def __enter__(self) -> MockOpenAI:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
