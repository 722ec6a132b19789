"""``/v1/models``"""

from __future__ import annotations

from typing import Any

from doteval.mock_openai.errors import RequestError

MODELS = ("gpt-3.5-turbo", "gpt-4o", "gpt-4o-mini", "text-embedding-3-small")


def listed() -> dict[str, Any]:
    """The models by name; requests may name any other model too."""
    return {"object": "list", "data": [_model(name) for name in MODELS]}


def retrieved(name: str) -> dict[str, Any]:
    """The model with a name. Raises RequestError if it is not listed.

    >>> retrieved("gpt-4o")["object"]
    'model'
    """
    if name not in MODELS:
        raise RequestError(f"The model '{name}' does not exist", status=404, param="model", code="model_not_found")
    return _model(name)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "mock"}
