"""Values that fit a schema, judged by jsonschema."""

from __future__ import annotations

from typing import Any

import pytest

from doteval.mock_openai.json_values import fitting_value

NODE = {
    "type": "object",
    "properties": {"value": {"type": "number"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["value"],
}
SCHEMAS: list[dict[str, Any]] = [
    {"type": "integer", "minimum": 3, "maximum": 3},
    {"type": "integer", "minimum": -9, "exclusiveMaximum": -5},
    {"type": "integer", "maximum": -5},
    {"type": "integer", "multipleOf": 7, "minimum": 1},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "string", "minLength": 20, "maxLength": 22},
    {"type": "string", "maxLength": 2},
    {"type": ["null", "boolean"]},
    {"enum": ["a", None, 3]},
    {"const": {"x": []}},
    {"type": "array", "items": {"type": "string"}, "minItems": 3, "maxItems": 4},
    {"type": "array", "items": {"type": "string"}, "maxItems": 0},
    {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}, "minItems": 2},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "null"}}}, {"required": ["a"]}]},
    {"oneOf": [{"type": "boolean"}, {"type": "string"}]},
    {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
    {},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_values_fit_their_schema(schema: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for number in range(50):
        key = bytes([number])
        value = fitting_value(schema, key)
        jsonschema.validate(value, schema)
        assert fitting_value(schema, key) == value


def test_formats_have_their_form() -> None:
    assert fitting_value({"type": "string", "format": "date"}, b"") == "2024-05-17"


def test_a_required_recursion_ends() -> None:
    schema = {"type": "object", "properties": {"again": {"$ref": "#"}}, "required": ["again"]}
    assert "again" in fitting_value(schema, b"")
    fitting_value({"$ref": "#"}, b"")
    fitting_value({"$ref": "#/nowhere"}, b"")
