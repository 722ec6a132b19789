"""Computes what tokens cost at public endpoints, from the prices that come with the package genai-prices.

The package holds its prices as data, so nothing is fetched. It takes a third of a second and 12 MB to import, so that
happens when a price is looked for that the user's own table does not have, and never for a model at an ``http://``
address: all endpoints with known prices are ``https://``.

A price belongs to an endpoint, not to the name of a model alone: a model that a server of the user's own runs has none.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from doteval.core import clocks

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

PACKAGE = "genai-prices"
"""The name under which the package is installed."""

_MILLION = 1_000_000
# Prices may depend on the time of day, so one that was found holds for a minute.
_SECONDS_KEPT = 60
# Prices of tokens, or of things that replies do not report as tokens and that few calls use. A model that is priced by
# anything else, as by request, costs more than its tokens, so its cost counts as unknown.
_TOKEN_PRICES = frozenset({"input_mtok", "output_mtok", "cache_read_mtok"})
_NOT_IN_TEXT = re.compile(r"cache_write|audio|image|video|document|searches|chars")
# How the package's comments say when a price was compared with the provider's page.
_CHECKED = re.compile(r"(?:verified|checked|as of)\D{0,40}?(\d{4}-\d{2}-\d{2})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PackagePrices:
    """Which prices the package has.

    version: of the package.
    checked: the newest day on which, as the data say, a price was compared with the provider's; None if none is named.
    """

    version: str
    checked: date | None


def import_prices() -> None:
    """Import the package's data, so that the first price is not late."""
    from genai_prices.data_snapshot import get_snapshot

    get_snapshot()


def package_version() -> str:
    """The installed version of the package."""
    return importlib.metadata.version(PACKAGE)


def package_prices() -> PackagePrices:
    """Which prices are installed. It imports the package.

    >>> package_prices().version == package_version()
    True
    """
    return PackagePrices(package_version(), max(_days_checked(), default=None))


def package_cost(
    url: str,
    model: str,
    *,
    prompt_tokens: int,
    completion_tokens: int,
    cached_tokens: int,
    tier: str | None = None,
    batch: bool = False,
) -> float | None:
    """What one reply cost in US dollars, None if the package knows no price of the model at that endpoint.

    url: the address of the request.
    prompt_tokens: includes cached tokens. Of some models, long prompts have other prices.
    completion_tokens: includes reasoning tokens.
    tier: the ``service_tier`` that the request asked for.

    >>> tokens = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "cached_tokens": 0}
    >>> package_cost("https://api.openai.com/v1/chat/completions", "gpt-4o-2024-08-06", **tokens)
    2.5
    >>> package_cost("https://llm.example/v1/chat/completions", "gpt-4o", **tokens) is None
    True
    """
    if not url.startswith("https://"):
        return None
    price = _price(url, model, tier, batch, int(clocks.now()) // _SECONDS_KEPT)
    if price is None:
        return None
    prompt = _rate(price.input_mtok, prompt_tokens)
    completion = _rate(price.output_mtok, prompt_tokens)
    cached = _rate(price.cache_read_mtok, prompt_tokens)
    if prompt is None or (completion is None and completion_tokens):
        return None
    fresh = prompt_tokens - cached_tokens
    dollars = fresh * prompt + cached_tokens * (prompt if cached is None else cached)
    return (dollars + completion_tokens * (completion or 0.0)) / _MILLION


@lru_cache(maxsize=1000)
def _price(url: str, model: str, tier: str | None, batch: bool, period: int) -> ModelPrice | None:
    """The prices of a model for a request that is sent in a period of `_SECONDS_KEPT`, None without some for tokens."""
    found = _model(url, model)
    if found is None:
        return None
    context = {"processing": "batch"} if batch else {} if tier is None else {"service_tier": tier}
    price = found.get_prices(datetime.fromtimestamp(period * _SECONDS_KEPT, UTC), context)
    others = {name for name, value in vars(price).items() if value is not None} - _TOKEN_PRICES
    return None if any(not _NOT_IN_TEXT.search(name) for name in others) else price


def _model(url: str, model: str) -> ModelInfo | None:
    from genai_prices.data_snapshot import get_snapshot

    try:
        return get_snapshot().find_provider_model(model, None, None, url)[1]
    except LookupError:
        return None


def _rate(price: Any, prompt_tokens: int) -> float | None:
    """Dollars for a million tokens, in the tier of a prompt of that length."""
    if price is None or not hasattr(price, "tiers"):
        return None if price is None else float(price)
    tiers = [tier.price for tier in price.tiers if prompt_tokens > tier.start]
    return float(tiers[-1] if tiers else price.base)


def _days_checked() -> Iterator[date]:
    from genai_prices.data_snapshot import get_snapshot

    for provider in get_snapshot().providers:
        for comments in (provider.price_comments, *(model.price_comments for model in provider.models)):
            for day in _CHECKED.findall(comments or ""):
                yield date.fromisoformat(day)
