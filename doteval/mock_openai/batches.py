"""``/v1/batches``: batches and what may be asked of them. `batch_run` runs them."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Mapping
from typing import Any

from doteval.mock_openai.batch_run import BatchLimits, MockBatch, run_batch
from doteval.mock_openai.counters import Counters
from doteval.mock_openai.errors import RequestError, missing, of_type, unsupported_value
from doteval.mock_openai.faults import Fault, effects_of
from doteval.mock_openai.files import FileStore
from doteval.mock_openai.paging import page
from doteval.mock_openai.replies import ModelEndpoint
from doteval.mock_openai.settings import MockSettings, drawn_seconds

_WINDOW = "24h"
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


class Batches:
    """Creates, lists and cancels batches. Each runs as a task of the loop."""

    def __init__(
        self,
        settings: MockSettings,
        files: FileStore,
        endpoints: Mapping[str, ModelEndpoint],
        faults: Mapping[str, tuple[Fault, ...]],
        counters: Counters,
    ) -> None:
        self._settings = settings
        self._files = files
        self._endpoints = endpoints
        self._faults = faults
        self._counters = counters
        self._random = random.Random(f"batches {settings.seed}")  # noqa: S311 - latencies, not secrets
        self._batches: dict[str, MockBatch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._limits = BatchLimits(settings.batch_requests, settings.batch_tokens)

    def get(self, batch_id: str) -> MockBatch:
        """The batch. Raises RequestError if there is none."""
        try:
            return self._batches[batch_id]
        except KeyError:
            raise RequestError(f"No batch found with id '{batch_id}'.", status=404) from None

    def listed(self, query: Mapping[str, str]) -> dict[str, Any]:
        """A page of batches, newest first."""
        return page([batch.to_json() for batch in self._batches.values()], query, at_most=100, default=20)

    def create(self, body: Mapping[str, Any], asked: tuple[Fault, ...] = ()) -> MockBatch:
        """Create a batch and start it, with the faults that the request asks for.

        Raises RequestError for wrong parameters.
        """
        file_id, url, window = (body.get(name) for name in ("input_file_id", "endpoint", "completion_window"))
        if not isinstance(file_id, str):
            raise missing("input_file_id")
        if window is None or url is None:
            raise missing("completion_window" if window is None else "endpoint")
        if window != _WINDOW:
            raise unsupported_value("completion_window", window, (_WINDOW,))
        if url not in self._endpoints:
            raise unsupported_value("endpoint", url, tuple(self._endpoints))
        if self._files.get(file_id, "input_file_id", 400).purpose != "batch":
            raise RequestError(f"File '{file_id}' was not uploaded with the purpose 'batch'.", param="input_file_id")
        path = self._files.path(file_id)
        key = hashlib.blake2b(path.read_bytes(), digest_size=8).digest()
        nth = self._counters.nth_other(b"batch" + key)
        effects = effects_of((*self._faults["batch"], *_for("batch", asked)), "", key, nth, self._settings.seed)
        serial = len(self._batches) + 1
        digest = hashlib.blake2b(f"{self._settings.seed} {serial}".encode(), digest_size=12).hexdigest()
        batch = MockBatch(
            id=f"batch_{digest}",
            url=url,
            endpoint=self._endpoints[url],
            input_file_id=file_id,
            metadata=_metadata(body.get("metadata")),
            effects=effects,
            created_at=time.time(),
            window=self._settings.batch_window,
            seconds=effects.delay
            + drawn_seconds(self._random, self._settings.batch_latency, self._settings.batch_latency_sigma),
            seed=self._settings.seed,
            rule=self._settings.reply,
            faults=(*self._faults["line"], *_for("line", asked)),
        )
        self._batches[batch.id] = batch
        running = run_batch(batch, self._files, self._counters, self._limits, self._enqueued)
        task = asyncio.get_running_loop().create_task(running)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return batch

    def _enqueued(self, model: str) -> int:
        """The tokens of the batches for a model that have not ended."""
        return sum(
            batch.enqueued_tokens
            for batch in self._batches.values()
            if batch.model == model and batch.status not in _ENDED
        )

    def cancel(self, batch_id: str) -> MockBatch:
        """Begin to cancel a batch. Raises RequestError if it has ended."""
        batch = self.get(batch_id)
        if batch.status in _ENDED:
            raise RequestError(f"Cannot cancel a batch with status '{batch.status}'.", status=409)
        batch.cancel()
        return batch

    async def close(self) -> None:
        """Stop all batches."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _for(where: str, faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
    return tuple(fault for fault in faults if fault.where == where)


def _metadata(given: Any) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise of_type("metadata", "an object", given)
    if len(given) > 16:
        raise RequestError(
            f"Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an "
            f"object with {len(given)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for name, value in given.items():
        if not isinstance(value, str):
            raise of_type(f"metadata.{name}", "a string", value)
        for text, place, most in ((name, "metadata", 64), (value, f"metadata.{name}", 512)):
            if len(text) > most:
                raise RequestError(
                    f"Invalid '{place}': string too long. Expected a string with maximum length {most}, but got a "
                    f"string with length {len(text)} instead.",
                    param=place,
                    code="string_above_max_length",
                )
    return given
