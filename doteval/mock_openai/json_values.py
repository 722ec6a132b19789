"""Makes JSON values that fit a JSON schema, for structured outputs and the arguments of tools."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

# Deeper than this, a recursive schema gets its smallest values.
_DEPTH = 6
_FORMATS = {
    "date": "2024-05-17",
    "date-time": "2024-05-17T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "6f1c2b1e-3f3a-4b5e-9c1d-2a7b8c9d0e1f",
}


def fitting_value(schema: Mapping[str, Any], key: bytes) -> Any:
    """A value that fits a schema, the same for the same `key`.

    It knows types, enumerations, constants, unions, references within the schema, bounds, lengths and formats; not
    patterns and conditions.

    >>> fitting_value({"type": "object", "properties": {"sure": {"const": True}}}, b"")
    {'sure': True}
    """
    return _Maker(schema, key).value(schema, "", 0)


class _Maker:
    def __init__(self, root: Mapping[str, Any], key: bytes) -> None:
        self._root = root
        self._key = key

    def _draw(self, path: str, count: int) -> int:
        digest = hashlib.blake2b(self._key + path.encode("utf-8", "replace"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % count

    def value(self, schema: Any, path: str, depth: int) -> Any:
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][self._draw(path, len(schema["enum"]))]
        kind = schema.get("type")
        if isinstance(kind, list):
            # The null of an optional field would show little, and ends a recursion.
            kinds = [one for one in kind if one != "null"]
            kind = "null" if "null" in kind and (depth > _DEPTH or not kinds) else kinds[0]
        match kind or ("object" if "properties" in schema else "string"):
            case "object":
                return self._object(schema, path, depth)
            case "array":
                return self._array(schema, path, depth)
            case "integer":
                return int(self._number(schema, path, 1))
            case "number":
                return self._number(schema, path, 0.25)
            case "boolean":
                return bool(self._draw(path, 2))
            case "null":
                return None
            case _:
                return self._string(schema, path)

    def _resolved(self, schema: Any) -> Mapping[str, Any]:
        for _ in range(2 * _DEPTH):
            if not isinstance(schema, Mapping):
                return {}
            if isinstance(schema.get("$ref"), str):
                found: Any = self._root
                for name in schema["$ref"].removeprefix("#").strip("/").split("/"):
                    found = found.get(name, {}) if name and isinstance(found, Mapping) else found
                schema = found
            elif schema.get("allOf"):
                schema = {name: value for part in schema["allOf"] for name, value in self._resolved(part).items()}
            elif options := schema.get("anyOf") or schema.get("oneOf"):
                schema = options[0]
            else:
                return schema
        return {}

    def _object(self, schema: Mapping[str, Any], path: str, depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = schema.get("required") or []
        names = properties if depth <= _DEPTH else [name for name in properties if name in required]
        # Beyond any depth that a schema without recursion has: a required recursion cannot end otherwise.
        if depth > 4 * _DEPTH:
            return {}
        return {name: self.value(properties[name], f"{path}/{name}", depth + 1) for name in names}

    def _array(self, schema: Mapping[str, Any], path: str, depth: int) -> list[Any]:
        least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        length = least if depth > _DEPTH else int(min(max(least, 1), most))
        before = schema.get("prefixItems") or []
        of = [*before, *[schema.get("items", {})] * max(0, length - len(before))]
        return [self.value(item, f"{path}/{index}", depth + 1) for index, item in enumerate(of)]

    def _number(self, schema: Mapping[str, Any], path: str, step: float) -> float:
        step = schema.get("multipleOf", step)
        least, most = schema.get("minimum"), schema.get("maximum")
        if (above := schema.get("exclusiveMinimum")) is not None:
            least = above + step
        if (below := schema.get("exclusiveMaximum")) is not None:
            most = below - step
        if least is None:
            least = 0 if most is None or most >= 0 else most - 100 * step
        first = math.ceil(least / step)
        last = first + 99 if most is None else max(first, math.floor(most / step))
        return (first + self._draw(path, last - first + 1)) * step

    def _string(self, schema: Mapping[str, Any], path: str) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        name = path.rpartition("/")[2]
        text = f"{'text' if not name or name.isdigit() else name} {self._draw(path, 1000)}"
        text = text.ljust(schema.get("minLength", 0), "x")
        return text[: schema.get("maxLength", len(text))]
