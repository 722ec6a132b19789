"""Checks the input file of a batch, as the API does before the batch is in progress."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from doteval.mock_openai.embeddings import inputs_of
from doteval.mock_openai.errors import RequestError
from doteval.mock_openai.prompts import count_tokens, read_prompt
from doteval.mock_openai.replies import ModelEndpoint

_ERRORS_AT_MOST = 100
# As long as this, other requests wait for a batch.
SLICE_SECONDS = 0.005


@dataclass(slots=True)
class BatchInput:
    """What is known of an input file: where its requests begin, their model and tokens, and what is wrong."""

    offsets: array[int] = field(default_factory=lambda: array("Q"))
    model: str | None = None
    tokens: int = 0
    inputs: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)

    def add_error(self, code: str, message: str, line: int | None = None, param: str | None = None) -> None:
        """Note an error; more than a hundred are not listed."""
        if len(self.errors) < _ERRORS_AT_MOST:
            self.errors.append({"code": code, "message": message, "param": param, "line": line})

    def add_missing(self, param: str, line: int) -> None:
        """Note that a request has no such parameter."""
        self.add_error("missing_required_parameter", f"Missing required parameter: '{param}'.", line, param)


async def check_input(path: Path, url: str, endpoint: ModelEndpoint, limit: int) -> BatchInput:
    """Read the input file of a batch for the endpoint at `url`; `limit` is the most requests it may have."""
    found = BatchInput()
    ids: set[str] = set()
    until = time.monotonic() + SLICE_SECONDS
    for number, offset, line in _lines(path):
        found.offsets.append(offset)
        _check_line(found, number, line, url, endpoint, ids)
        if time.monotonic() > until:
            await asyncio.sleep(0)
            until = time.monotonic() + SLICE_SECONDS
    count = len(found.offsets)
    if not count:
        found.add_error(
            "empty_file", "The input file is empty. Please ensure that the batch contains at least one request."
        )
    elif count > limit:
        found.add_error(
            "too_many_requests", f"The batch has {count} requests, and the maximum number of requests is {limit}."
        )
    elif found.inputs > limit:
        found.add_error(
            "too_many_inputs", f"The batch has {found.inputs} embedding inputs, and the maximum is {limit}."
        )
    return found


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """The number, offset and content of each line that is not blank."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, offset, line
            offset += len(line)


def _check_line(found: BatchInput, number: int, line: bytes, url: str, endpoint: ModelEndpoint, ids: set[str]) -> None:
    try:
        request = orjson.loads(line)
    except orjson.JSONDecodeError:
        request = None
    if not isinstance(request, dict):
        return found.add_error("invalid_json_line", "This line is not parseable as valid JSON.", number)
    for name, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
        if not request.get(name):
            return found.add_missing(name, number)
        if not isinstance(request[name], kind):
            return found.add_error("invalid_type", f"Invalid type for '{name}'.", number, name)
    custom_id, body = request["custom_id"], request["body"]
    if custom_id in ids:
        found.add_error(
            "duplicate_custom_id",
            f"The custom_id '{custom_id}' for this request is a duplicate of another request. The custom_id parameter "
            "must be unique for each request in a batch.",
            number,
            "custom_id",
        )
    ids.add(custom_id)
    if request["method"] != "POST":
        found.add_error("invalid_method", "The method of a request in a batch must be 'POST'.", number, "method")
    if request["url"] != url:
        found.add_error(
            "invalid_url",
            f"The URL provided for this request does not match the endpoint of the batch, '{url}'.",
            number,
            "url",
        )
    model = body.get("model")
    if not isinstance(model, str):
        return found.add_missing("body.model", number)
    if found.model is None:
        found.model = model
    elif model != found.model:
        found.add_error(
            "mismatched_model",
            f"The model '{model}' of this request does not match the rest of the batch. Each batch must contain "
            "requests for a single model.",
            number,
            "body.model",
        )
    try:
        # A request that cannot be answered is an error of that request, not of the batch.
        found.tokens += count_tokens(read_prompt(body, endpoint.field).text)
        found.inputs += len(inputs_of(body["input"])) if endpoint.kind == "embeddings" else 0
    except RequestError:
        return None
    return None
