"""Computes what tokens cost: by a price table of the user, else by the prices that come with genai-prices.

The user's table is a TOML or JSON file, which ``prices`` in the settings names, with US dollars for a million tokens::

    [models."a-model"]
    prompt = 2.5
    completion = 10.0
    cached = 1.25      # prompt tokens that the provider had cached; the price of `prompt` if it is missing
    batch_prompt = 1.25      # the same in batches; `batch_completion` and `batch_cached` too

Without them, the tokens of batches cost what the others do, times the number ``batch`` at the top of the table, if it
has one.
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
_BATCH_NAMES = tuple(f"batch_{name}" for name in _NAMES)
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

    def times(self, factor: float) -> Price:
        return Price(self.prompt * factor, self.completion * factor, self.cached * factor)


@dataclass(frozen=True, slots=True)
class PriceTable:
    """The user's own prices, by model, and those of batches."""

    prices: Mapping[str, Price] = field(default_factory=dict)
    batch_prices: Mapping[str, Price] = field(default_factory=dict)

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
        factor = document.get("batch", 1.0)
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor < float("inf"):
            raise UsageError(f"batch in {path} is no number", remedy="Write batch = 0.5 for half the price.")
        prices = {model: _price(path, model, given) for model, given in models.items()}
        batches = {
            model: _batch_price(path, model, given, prices[model].times(factor)) for model, given in models.items()
        }
        return cls(prices, batches)

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
        batch: whether a batch has used them.

        >>> table = PriceTable({"m": Price(prompt=2.0, completion=8.0, cached=1.0)})
        >>> table.cost("m", prompt_tokens=1_000_000, completion_tokens=0, cached_tokens=500_000)
        1.5
        """
        prices = self.batch_prices if batch else self.prices
        price = prices.get(model) or prices.get(_DATE.sub("", model))
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
    if not isinstance(given, dict) or not {"prompt"} <= set(given) <= {*_NAMES, *_BATCH_NAMES}:
        raise UsageError(f"the price of {model!r} in {path} is no table with prompt and completion", remedy=_REMEDY)
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise UsageError(f"{name} of {model!r} in {path} is no number of dollars", remedy=_REMEDY)
    prompt: float = given["prompt"]
    return Price(prompt, given.get("completion", 0.0), given.get("cached", prompt))


def _batch_price(path: Path, model: str, given: Mapping[str, float], otherwise: Price) -> Price:
    named = {name: given[f"batch_{name}"] for name in _NAMES if f"batch_{name}" in given}
    if named and "prompt" not in named:
        raise UsageError(f"the price of {model!r} in {path} has no batch_prompt", remedy=_REMEDY)
    return _price(path, model, named) if named else otherwise
