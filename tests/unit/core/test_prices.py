"""Price tables: the cost of a reply, and errors in a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doteval.core.prices import PriceTable
from doteval.errors import UsageError

TABLE = '[models."small"]\nprompt = 2\ncompletion = 8\ncached = 0.5\n[models."embed"]\nprompt = 0.1\n'


def test_cost(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(TABLE)
    table = PriceTable.read(file)
    cost = table.cost("small", prompt_tokens=1_000_000, completion_tokens=500_000, cached_tokens=400_000)
    assert cost == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.5 * 8)
    assert table.cost("embed", prompt_tokens=1000, completion_tokens=0, cached_tokens=1000) == pytest.approx(0.0001)


def test_a_dated_model_has_the_price_of_its_model_and_an_unknown_model_none(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"models": {"small": {"prompt": 1.0, "completion": 1.0}}}))
    table = PriceTable.read(file)
    given = {"prompt_tokens": 10, "completion_tokens": 0, "cached_tokens": 0}
    assert table.cost("small-2026-01-31", **given) == table.cost("small-20260131", **given) == pytest.approx(0.00001)
    assert table.cost("large", **given) is None
    assert table.cost("small-mini", **given) is None
    assert PriceTable().cost("small", **given) is None


@pytest.mark.parametrize(
    "text",
    [
        "models = 1",
        "x = 1",
        "[models.m]\ncompletion = 1",
        "[models.m]\nprompt = -1",
        "[models.m]\nprompt = true",
        "[models.m]\nprompt = 1\ninput = 1",
        "[[",
    ],
)
def test_a_file_that_is_no_price_table(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"prices\.toml"):
        PriceTable.read(file)
    with pytest.raises(UsageError, match="cannot be read"):
        PriceTable.read(tmp_path / "missing.toml")
