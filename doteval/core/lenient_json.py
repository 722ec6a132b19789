"""Reads JSON texts that others have written, as leniently as the standard library.

The standard library reads what orjson refuses: half a surrogate pair, NaN and Infinity, a byte order mark, UTF-16.
The SDKs of model APIs use it, so code that reads the same bytes with orjson alone accepts fewer replies than they do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson


def loads(text: bytes) -> Any:
    """Read a JSON text, at the speed of orjson where it can.

    Raises ValueError: the text is not JSON for the standard library either.

    >>> loads(b'{"logprob": -Infinity}')
    {'logprob': -inf}
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def loads_to_write(text: bytes) -> tuple[Any, Callable[[Any], bytes]]:
    r"""Read a JSON text. Returns also what writes the value, or parts of it, again without loss.

    orjson refuses to write half a surrogate pair, and writes NaN as null.

    Raises ValueError: as `loads` does.

    >>> value, dumps = loads_to_write(b'{"text": "\\ud83d", "logprob": NaN}')
    >>> dumps(value)
    b'{"text":"\\ud83d","logprob":NaN}'
    """
    try:
        return orjson.loads(text), orjson.dumps
    except orjson.JSONDecodeError:
        return loads(text), _dumps_as_read


def _dumps_as_read(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def dumps_sorted(value: Any) -> bytes:
    """Write a value that was read from JSON, with its names in order: equal values give equal texts.

    >>> dumps_sorted({"b": 1, "a": [2]})
    b'{"a":[2],"b":1}'
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        # Lone surrogates and integers of more than 64 bits.
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
