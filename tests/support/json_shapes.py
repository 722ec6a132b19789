"""Compares JSON documents of commands with what docs/reference/json.md says of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from docs.generate.json_documents import COMMANDS
from docs.generate.json_parts import PARTS, Shape

_TYPES: dict[str, tuple[type, ...]] = {"text": (str,), "number": (int, float), "flag": (bool,), "time": (str,)}


def undocumented(document: Any, command: str) -> list[str]:
    """What in the document of a command is not as the page says: keys that lack or are new, values of other types."""
    return list(_differences(document, COMMANDS[command], command))


def _differences(found: Any, shape: Shape, place: str) -> Iterator[str]:
    if not isinstance(found, dict):
        yield f"{place} is no object"
        return
    known = {key.removesuffix("?"): kind for key, (kind, _) in shape.items()}
    yield from (f"{place}.{key} is not documented" for key in found.keys() - known.keys())
    yield from (f"{place}.{key} is missing" for key in shape if not key.endswith("?") and key not in found)
    for key, kind in known.items():
        if key in found:
            yield from _wrong(found[key], kind, f"{place}.{key}")


def _wrong(found: Any, kind: str, place: str) -> Iterator[str]:
    if kind == "any" or (found is None and kind.endswith(" or null") and not kind.startswith("{")):
        return
    if inner := re.fullmatch(r"\[(.+)](?: or null)?", kind):
        if not isinstance(found, list):
            yield f"{place} is no list"
            return
        for each in found:
            yield from _wrong(each, inner[1], f"{place}[]")
    elif inner := re.fullmatch(r"\{(.+)\}(?: or null)?", kind):
        if found is None and kind.endswith("} or null"):
            return
        if not isinstance(found, dict):
            yield f"{place} is no object"
            return
        for each in found.values():
            yield from _wrong(each, inner[1], f"{place}{{}}")
    elif (name := kind.removesuffix(" or null")) in PARTS:
        yield from _differences(found, PARTS[name], place)
    elif not isinstance(found, _TYPES[name]) or (isinstance(found, bool) and name != "flag"):
        yield f"{place} is no {name}: {found!r}"
    elif name == "time" and datetime.fromisoformat(found).tzinfo is None:
        yield f"{place} has no time zone"
