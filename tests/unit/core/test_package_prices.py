"""Prices of the package: what they make of tokens is what the package itself says, and nothing is fetched."""

from __future__ import annotations

import math
import socket
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import TieredPrices

from doteval.core import clocks
from doteval.core.package_prices import PackagePrices, package_cost, package_prices, package_version
from doteval.core.prices import PriceTable

OPENAI = "https://api.openai.com/v1/chat/completions"
# Also above and below the lengths from which prompts have other prices.
TOKENS = [(1_000, 300, 200), (150_000, 0, 1), (250_000, 250_000, 7_000), (1_000_001, 12, 0), (0, 0, 0)]
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def named(tokens: tuple[int, int, int]) -> dict[str, int]:
    prompt, cached, completion = tokens
    return {"prompt_tokens": prompt, "cached_tokens": cached, "completion_tokens": completion}


@pytest.fixture(autouse=True)
def at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some prices depend on the time of day."""
    monkeypatch.setattr(clocks, "now", NOON.timestamp)


ENDPOINTS = {
    "openai": OPENAI,
    "anthropic": "https://api.anthropic.com/v1/chat/completions",
    "deepseek": "https://api.deepseek.com/chat/completions",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions",
    "mistral": "https://api.mistral.ai/v1/chat/completions",
    "openrouter": "https://openrouter.ai/api/v1/chat/completions",
}


def endpoints_and_models() -> list[tuple[str, str]]:
    return [
        (ENDPOINTS[provider.id], model.id)
        for provider in get_snapshot().providers
        if provider.id in ENDPOINTS
        for model in provider.models
    ]


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("tier", [None, "flex", "priority", "auto"])
def test_costs_are_those_of_the_package(tier: str | None, batch: bool) -> None:
    context = {"processing": "batch"} if batch else {"service_tier": tier} if tier else {}
    compared = different_in_batches = 0
    for url, name in endpoints_and_models():
        for tokens in TOKENS:
            found = package_cost(url, name, **named(tokens), tier=tier, batch=batch)
            if found is None:
                continue
            usage = Usage(input_tokens=tokens[0], cache_read_tokens=tokens[1], output_tokens=tokens[2])
            given: dict[str, Any] = {"provider_api_url": url, "genai_request_timestamp": NOON}
            expected = calc_price(usage, name, **given, price_context=context).total_price
            assert math.isclose(found, float(expected), rel_tol=1e-9), (name, tokens)
            compared += 1
            different_in_batches += expected != calc_price(usage, name, **given).total_price
    assert compared > 3_000
    assert bool(different_in_batches) is (batch or tier in ("flex", "priority"))


def test_a_few_prices_by_hand() -> None:
    assert package_cost(OPENAI, "gpt-4o", **named((1_000_000, 400_000, 100_000))) == pytest.approx(1.5 + 0.5 + 1.0)
    assert package_cost(OPENAI, "gpt-4o-2024-08-06", **named((1_000_000, 0, 0)), batch=True) == pytest.approx(1.25)


@pytest.mark.parametrize(
    ("url", "model"),
    [
        ("https://llm.example/v1/chat/completions", "gpt-4o"),
        ("http://localhost:8000/v1/chat/completions", "gpt-4o"),
        ("", "gpt-4o"),
        (OPENAI, "no-such-model"),
        (OPENAI, "unknown"),
        # By request, and by the second of audio.
        ("https://api.perplexity.ai/chat/completions", "sonar-pro"),
        (OPENAI, "whisper-1"),
    ],
)
def test_what_has_no_price_has_no_cost(url: str, model: str) -> None:
    assert package_cost(url, model, **named((1_000, 0, 10))) is None


def test_long_prompts_have_the_price_of_their_length() -> None:
    (price, name) = next(
        (price, model.id)
        for provider in get_snapshot().providers
        if provider.id == "anthropic"
        for model in provider.models
        if isinstance(price := model.get_prices(NOON).input_mtok, TieredPrices)
    )
    start, dear = price.tiers[0].start, float(price.tiers[0].price)
    at, above = (package_cost(ENDPOINTS["anthropic"], name, **named((count, 0, 0))) for count in (start, start + 1))
    assert at == pytest.approx(start * float(price.base) / 1e6)
    assert above == pytest.approx((start + 1) * dear / 1e6)


def test_the_users_own_table_wins(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('[models."gpt-4o"]\nprompt = 1\ncompletion = 3\n')
    table = PriceTable.read(file)
    given = named((1_000_000, 0, 0))
    assert table.cost("gpt-4o", **given, url=OPENAI) == table.cost("gpt-4o-2024-08-06", **given, url=OPENAI) == 1.0
    assert table.cost("gpt-4o-mini", **given, url=OPENAI) == pytest.approx(0.15)
    assert table.cost("gpt-4o-mini", **given) is None


def test_prices_say_how_new_they_are_and_ask_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a price was asked for over the network")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    found = package_prices()
    assert found == PackagePrices(package_version(), found.checked)
    assert found.checked is not None
    assert found.checked > date(2026, 10, 1)
    assert package_cost(OPENAI, "gpt-4o", **named((1, 0, 0))) is not None
    assert not get_snapshot().from_auto_update
