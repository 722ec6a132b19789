"""Evaluators of JSON text."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from doteval.core.results import Score
from doteval.core.strict_json import unique_names
from doteval.evaluators.decorator import evaluator
from doteval.evaluators.numeric import same_number
from doteval.metrics import accuracy

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


@evaluator(metrics=accuracy())
def valid_json(text: str | bytes | None, schema: Mapping[str, Any] | bool | None = None) -> Score:
    """Whether the text is JSON, and valid under the JSON Schema if one is given.

    JSON is that of RFC 8259, which has no NaN and no Infinity. The draft is that of the schema's ``$schema``, by
    default the newest. References to other schemas are not fetched. If the value is False, the metadata has the
    `reason`, which may be that the schema itself is not valid.

    >>> valid_json('{"a": 1}').value
    True
    """
    if not isinstance(text, (str, bytes)):
        return _judged(f"{type(text).__name__} is not text")
    try:
        value = parse_json(text)
    except (ValueError, RecursionError) as error:
        return _judged(f"not JSON: {error}")
    if schema is None:
        return _judged(None)
    # Imported here, since the schema library takes half of the import time of this package.
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

    The order of an object's members does not matter, 1 equals 1.0, and true does not equal 1. Numbers are compared as
    in `numeric_match`. Text that is not JSON, or has a name twice in one object, matches nothing.

    >>> json_match('{"a": 1, "b": 2}', {"b": 2, "a": 1.0}).value
    True
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
    # With an empty registry, a reference to another schema never makes a request.
    return validator_class(schema, registry=Registry())


def parse_json(text: str | bytes, **hooks: Any) -> Any:
    """Parse JSON by RFC 8259, which lacks NaN and Infinity. Raises ValueError: the text is not JSON."""
    return json.loads(text, parse_constant=_refuse_constant, **hooks)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a value of JSON")


def _parsed(value: Any) -> Any:
    if not isinstance(value, (str, bytes)):
        return value
    # Numbers keep all of their digits.
    return parse_json(value, parse_float=Decimal, object_pairs_hook=unique_names)


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(_equal, left, right))
    if _is_number(left) and _is_number(right):
        return same_number(left, right)
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
