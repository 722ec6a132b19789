"""``/v1/embeddings``"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Any

from doteval.mock_openai.errors import RequestError, of_type, unsupported_value
from doteval.mock_openai.prompts import Tokens, count_tokens
from doteval.mock_openai.replies import Asked, ModelEndpoint, Reply

DIMENSIONS = 8
_INPUTS_AT_MOST = 2048
_DIMENSIONS_AT_MOST = 4096


def inputs_of(given: Any) -> list[str]:
    """The inputs of a request: texts, or tokens, which become a text.

    >>> inputs_of([[5, 7], [8]])
    ['5 7', '8']
    """
    if isinstance(given, str):
        return [given]
    if all(isinstance(one, int) for one in given):
        return [" ".join(map(str, given))]
    return [" ".join(map(str, one)) if isinstance(one, list) else str(one) for one in given]


def _answer(asked: Asked) -> Reply:
    body = asked.body
    texts = inputs_of(body["input"])
    if len(texts) > _INPUTS_AT_MOST:
        raise RequestError(
            f"Invalid 'input': array too long. Expected an array with maximum length {_INPUTS_AT_MOST}, but got an "
            f"array with length {len(texts)} instead.",
            param="input",
            code="array_above_max_length",
        )
    dimensions = body.get("dimensions")
    if dimensions is None:
        dimensions = DIMENSIONS
    if not isinstance(dimensions, int):
        raise of_type("dimensions", "an integer", dimensions)
    if not 1 <= dimensions <= _DIMENSIONS_AT_MOST:
        raise RequestError(
            f"Invalid 'dimensions': expected a value from 1 to {_DIMENSIONS_AT_MOST}, but got {dimensions}.",
            param="dimensions",
        )
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise unsupported_value("encoding_format", encoding, ("float", "base64"))
    tokens = Tokens(prompt=sum(map(count_tokens, texts)))
    payload = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _embedding(text, dimensions, encoding)}
            for index, text in enumerate(texts)
        ],
        "model": asked.prompt.model,
        "usage": {"prompt_tokens": tokens.prompt, "total_tokens": tokens.prompt},
    }
    return Reply(payload, tokens)


def _embedding(text: str, dimensions: int, encoding: str) -> str | list[float]:
    """A vector derived from the text, with components in [-1, 1]."""
    stream = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(2 * dimensions)
    vector = [component / 32768 for component in struct.unpack(f"<{dimensions}h", stream)]
    if encoding == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()


def _error_event(_before: int) -> bytes:
    raise RequestError("Embeddings cannot be streamed.", param="stream")


EMBEDDINGS = ModelEndpoint("embeddings", "input", _answer, _error_event)
