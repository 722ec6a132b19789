"""Evaluators of JSON text."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from doteval.core.results import Score
from doteval.evaluators.base import evaluator
from doteval.metrics import accuracy

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


@evaluator(metrics=accuracy())
def valid_json(text: str | bytes | None, schema: Mapping[str, Any] | bool | None = None) -> Score:
    """Whether the text is JSON, and meets the JSON Schema if one is given.

    The schema's ``$schema`` says which draft it is of, the newest without it. References to schemas
    elsewhere are not fetched. The metadata has the `reason` why it is False; a schema that is not
    valid is one too.
    """
    if not isinstance(text, (str, bytes)):
        return _judged(f"{type(text).__name__} is no text")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _judged(f"no JSON: {error}")
    if schema is None:
        return _judged(None)
    # Imported here: the schema library is half of this package's import time.
    import jsonschema
    import referencing.exceptions

    try:
        broken = next(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value), None)
    except jsonschema.SchemaError as problem:
        return _judged(f"the schema is not valid: {problem.message}")
    except referencing.exceptions.Unresolvable as problem:
        return _judged(f"the schema refers to {problem.ref!r}, which is not in it")
    return _judged(None if broken is None else f"{broken.json_path}: {broken.message}")


@evaluator(metrics=accuracy())
def json_match(result: Any, expected: Any) -> bool:
    """Whether both are the same JSON value. Text is parsed, anything else is compared as it is.

    The order of an object's members does not matter, 1 equals 1.0, and true does not equal 1. Text
    that is no JSON matches nothing.
    """
    try:
        return _equal(_parsed(result), _parsed(expected))
    except (ValueError, RecursionError):
        return False


def _judged(reason: str | None) -> Score:
    return Score("valid_json", reason is None, (), {} if reason is None else {"reason": reason})


@functools.lru_cache(maxsize=64)
def _validator(schema_text: str) -> Validator:
    import jsonschema
    from referencing import Registry

    schema = json.loads(schema_text)
    validator_class = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    validator_class.check_schema(schema)
    # An empty registry, so that a reference never makes a request.
    return validator_class(schema, registry=Registry())


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, (str, bytes)) else value


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(_equal, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)
