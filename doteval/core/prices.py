"""Computes what tokens cost: by a price table of the user, else by the prices that come with genai-prices.

The user's table is a TOML or JSON file, which ``prices`` in the settings names, with US dollars for a million tokens::

    [models."a-model"]
    prompt = 2.5
    completion = 10.0
    cached = 1.25      # prompt tokens that the provider had cached; the price of `prompt` if it is missing
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from doteval.core.package_prices import package_cost
from doteval.errors import UsageError

_MILLION = 1_000_000
_NAMES = ("prompt", "completion", "cached")
# Replies and requests may name a dated version of a model, and all versions have one price.
_DATE = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")
_REMEDY = (
    'Write, for each model, [models."NAME"] with prompt, completion and, if there is one, cached: dollars a million.'
)


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    prompt: float
    completion: float
    cached: float


@dataclass(frozen=True, slots=True)
class PriceTable:
    """The user's own prices, by model."""

    prices: Mapping[str, Price] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> PriceTable:
        """Read a table from a JSON or TOML file. Raises UsageError: the file is not a price table."""
        try:
            text = path.read_text(encoding="utf-8")
            document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except OSError as error:
            raise UsageError(f"the price table {path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise UsageError(f"the price table {path} cannot be read: {error}", remedy=_REMEDY) from None
        models = document.get("models") if isinstance(document, dict) else None
        if not isinstance(models, dict):
            raise UsageError(f"the price table {path} has no table named models", remedy=_REMEDY)
        return cls({model: _price(path, model, given) for model, given in models.items()})

    def cost(
        self,
        model: str,
        *,
        prompt_tokens: int,
        completion_tokens: int,
        cached_tokens: int,
        url: str = "",
        tier: str | None = None,
        batch: bool = False,
    ) -> float | None:
        """The cost of one reply in US dollars, None for a model that has no price.

        prompt_tokens: includes cached tokens.
        completion_tokens: includes reasoning tokens.
        url: where the request was sent, for models that are not in this table; without it, they have no price.
        tier: the ``service_tier`` that the request asked for. Only prices of the package depend on it.
        batch: whether a batch has used them. Only prices of the package depend on it.

        >>> table = PriceTable({"m": Price(prompt=2.0, completion=8.0, cached=1.0)})
        >>> table.cost("m", prompt_tokens=1_000_000, completion_tokens=0, cached_tokens=500_000)
        1.5
        """
        price = self.prices.get(model) or self.prices.get(_DATE.sub("", model))
        if price is None:
            return package_cost(
                url,
                model,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                cached_tokens=cached_tokens,
                tier=tier,
                batch=batch,
            )
        fresh = prompt_tokens - cached_tokens
        dollars = fresh * price.prompt + cached_tokens * price.cached + completion_tokens * price.completion
        return dollars / _MILLION


def _price(path: Path, model: str, given: Any) -> Price:
    if not isinstance(given, dict) or not {"prompt"} <= set(given) <= set(_NAMES):
        raise UsageError(f"the price of {model!r} in {path} is no table with prompt and completion", remedy=_REMEDY)
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise UsageError(f"{name} of {model!r} in {path} is no number of dollars", remedy=_REMEDY)
    prompt: float = given["prompt"]
    return Price(prompt, given.get("completion", 0.0), given.get("cached", prompt))
