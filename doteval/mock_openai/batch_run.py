"""A batch, and what happens to it from its creation to its end."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import orjson

from doteval.mock_openai.batch_input import SLICE_SECONDS, BatchInput, check_input
from doteval.mock_openai.counters import Counters
from doteval.mock_openai.errors import RequestError
from doteval.mock_openai.faults import Effects, Fault, effects_of
from doteval.mock_openai.files import FileStore
from doteval.mock_openai.prompts import Tokens, read_prompt
from doteval.mock_openai.replies import Asked, ModelEndpoint
from doteval.mock_openai.sending import error_of

# While nothing of a batch is due.
_TICK_SECONDS = 0.05
_MOMENTS = ("in_progress", "expires", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
_NOT_EXECUTED = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
}


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The most requests of a batch, and the most enqueued tokens of a model (0: no limit)."""

    requests: int
    tokens: int


@dataclass(slots=True)
class MockBatch:
    """A batch. `window` is how long a completion window lasts, `seconds` how long the batch takes."""

    id: str
    url: str
    endpoint: ModelEndpoint
    input_file_id: str
    metadata: dict[str, str] | None
    effects: Effects
    created_at: float
    window: float
    seconds: float
    seed: int
    rule: str
    faults: tuple[Fault, ...]
    status: str = "validating"
    model: str | None = None
    enqueued_tokens: int = 0
    total: int = 0
    completed: int = 0
    failed: int = 0
    errors: list[dict[str, Any]] | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    usage: Tokens = field(default_factory=Tokens)
    at: dict[str, int] = field(default_factory=dict)
    cancelling: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.at["expires"] = int(self.created_at + self.window)

    @property
    def name(self) -> str:
        """A short part of the id, for the ids of requests."""
        return self.id[-8:]

    def become(self, status: str) -> None:
        """Change the status, and note when."""
        self.status = status
        self.at[status] = int(time.time())

    def cancel(self) -> None:
        """Have the batch stop; it does so in the next moment."""
        if not self.cancelling.is_set():
            self.become("cancelling")
            self.cancelling.set()

    def to_json(self) -> dict[str, Any]:
        """The batch object of the API."""
        usage = self.usage
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.url,
            "model": self.model,
            "errors": None if self.errors is None else {"object": "list", "data": self.errors},
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": int(self.created_at),
            **{f"{moment}_at": self.at.get(moment) for moment in _MOMENTS},
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": {
                "input_tokens": usage.prompt,
                "input_tokens_details": {"cached_tokens": usage.cached},
                "output_tokens": usage.completion,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning},
                "total_tokens": usage.prompt + usage.completion,
            },
            "metadata": self.metadata,
        }


async def run_batch(
    batch: MockBatch, files: FileStore, counters: Counters, limits: BatchLimits, enqueued: Callable[[str], int]
) -> None:
    """Validate the input, answer its requests over the time that the batch takes, and write the two files.

    enqueued: the enqueued tokens of a model.
    """
    begun = time.monotonic()
    path = files.path(batch.input_file_id)
    try:
        found = await check_input(path, batch.url, batch.endpoint, limits.requests)
    except FileNotFoundError:
        found = BatchInput()
        found.add_error("file_not_found", "The input file was deleted.")
    if batch.effects.fail:
        found.add_error("batch_failed", "A fault of the mock server made this batch fail.")
    elif not found.errors and limits.tokens and enqueued(found.model or "") + found.tokens > limits.tokens:
        found.add_error(
            "token_limit_exceeded",
            f"Enqueued token limit reached for {found.model} in organization org-mock. Limit: {limits.tokens:,} "
            "enqueued tokens. Please try again once some in_progress batches have been completed.",
        )
    if found.errors:
        batch.errors = found.errors
        return batch.become("failed")
    batch.model, batch.enqueued_tokens, batch.total = found.model, found.tokens, len(found.offsets)
    if not batch.cancelling.is_set():
        batch.become("in_progress")
    with ExitStack() as stack:
        run = _Run(batch, files, counters, stack)
        done, ending = await run.answer(found, begun)
        if ending != "cancelled":
            batch.become("finalizing")
        await run.refuse(done, ending)
        run.close()
    return batch.become(ending)


class _Run:
    """The requests of one batch and the files of their replies."""

    def __init__(self, batch: MockBatch, files: FileStore, counters: Counters, stack: ExitStack) -> None:
        self._batch = batch
        self._files = files
        self._counters = counters
        self._input = stack.enter_context(files.path(batch.input_file_id).open("rb"))
        self._ids = [files.new_path() for _ in range(2)]
        self._output, self._errors = (stack.enter_context(path.open("wb")) for _, path in self._ids)
        self._order: list[int] = []

    async def answer(self, found: BatchInput, begun: float) -> tuple[int, str]:
        """Answer requests until the batch ends; returns how many it has answered, and the status it ends with."""
        batch = self._batch
        self._order = list(found.offsets)
        # The API does not keep the order of the requests.
        random.Random(f"{batch.id} {batch.seed}").shuffle(self._order)  # noqa: S311 - no secret
        count = len(self._order)
        last = count if batch.effects.expire is None else int(count * min(1.0, batch.effects.expire))
        done = 0
        while True:
            elapsed = time.monotonic() - begun
            if batch.cancelling.is_set():
                return done, "cancelled"
            if elapsed >= batch.window or (done >= last < count):
                return done, "expired"
            if done == count:
                return done, "completed"
            due = count if elapsed >= batch.seconds else int(count * elapsed / batch.seconds)
            due = 0 if batch.effects.stall else min(due, last)
            until = time.monotonic() + SLICE_SECONDS
            while done < due and time.monotonic() < until:
                self._answer_line(self._order[done])
                done += 1
            if done < due:
                await asyncio.sleep(0)
            elif done < last:
                await self._wait(begun, done + 1)

    async def _wait(self, begun: float, wanted: int) -> None:
        """Wait until the next request is due, the window ends, or the batch is cancelled."""
        batch = self._batch
        at = batch.window
        if not batch.effects.stall:
            at = min(at, batch.seconds * wanted / len(self._order))
        # In steps, so that ten thousand requests a second are no ten thousand timers.
        pause = max(min(_TICK_SECONDS, batch.seconds), begun + at - time.monotonic())
        with suppress(TimeoutError):
            await asyncio.wait_for(batch.cancelling.wait(), pause)

    def _read(self, offset: int) -> tuple[str, dict[str, Any]]:
        self._input.seek(offset)
        request = orjson.loads(self._input.readline())
        return request["custom_id"], request["body"]

    def _answer_line(self, offset: int) -> None:
        batch, counters = self._batch, self._counters
        custom_id, body = self._read(offset)
        number = batch.completed + batch.failed + 1
        effects = Effects()
        key, tokens = b"", None
        try:
            prompt = read_prompt(body, batch.endpoint.field)
            key = prompt.key
            nth = counters.nth_other(b"line" + key) if batch.faults or "[[" in prompt.text else 1
            try:
                effects = effects_of(batch.faults, prompt.text, key, nth, batch.seed)
            except ValueError as error:
                raise RequestError(str(error)) from error
            if body.get("stream"):
                raise RequestError("Streaming is not supported in batches.", param="stream")
            if (failure := error_of(effects)) is not None:
                raise failure
            reply = batch.endpoint.reply(Asked(body, prompt, key, effects, batch.rule, f"{batch.name}_{number}"))
            status, payload, tokens = 200, reply.payload, reply.tokens
            batch.completed += 1
            batch.usage = Tokens(
                batch.usage.prompt + tokens.prompt,
                batch.usage.completion + tokens.completion,
                batch.usage.cached + tokens.cached,
                batch.usage.reasoning + tokens.reasoning,
            )
        except RequestError as error:
            status, payload = error.status, error.body
            batch.failed += 1
        counters.line(key, effects.key, tokens)
        if effects.lost:
            counters.faults["lost"] += 1
            return
        response = {"status_code": status, "request_id": f"req_{batch.name}_{number}", "body": payload}
        file = self._output if status == 200 else self._errors
        self._write(file, number, custom_id, response, None)

    def _write(self, file: BinaryIO, number: int, custom_id: str, response: Any, error: Any) -> None:
        line = {
            "id": f"batch_req_{self._batch.name}_{number}",
            "custom_id": custom_id,
            "response": response,
            "error": error,
        }
        file.write(orjson.dumps(line) + b"\n")

    async def refuse(self, done: int, ending: str) -> None:
        """Write an error for each request that was not answered."""
        code, message = _NOT_EXECUTED.get(ending, ("", ""))
        for number, offset in enumerate(self._order[done:], start=done + 1):
            custom_id, _ = self._read(offset)
            self._write(self._errors, number, custom_id, None, {"code": code, "message": message})
            if number % 1000 == 0:
                await asyncio.sleep(0)

    def close(self) -> None:
        """Make files of what was written, but of no empty one."""
        batch = self._batch
        names = (f"{batch.id}_output.jsonl", f"{batch.id}_error.jsonl")
        kept: list[str | None] = []
        for (file_id, path), file, name in zip(self._ids, (self._output, self._errors), names, strict=True):
            file.close()
            if path.stat().st_size:
                kept.append(self._files.add(file_id, name, "batch_output").id)
            else:
                path.unlink()
                kept.append(None)
        batch.output_file_id, batch.error_file_id = kept
