"""Refuses what parsers of JSON accept in silence."""

from __future__ import annotations

from typing import Any


class RepeatedNameError(ValueError):
    """An object has a name twice; parsers keep the last of its values."""


def unique_names(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object from its members: the `object_pairs_hook` of a parser.

    >>> import json
    >>> json.loads('{"a": 1, "a": 2}', object_pairs_hook=unique_names)
    Traceback (most recent call last):
    ...
    doteval.core.strict_json.RepeatedNameError: an object has a name twice

    Raises RepeatedNameError: a name occurs twice.
    """
    made = dict(members)
    if len(made) < len(members):
        raise RepeatedNameError("an object has a name twice")
    return made
