"""How figures are written for people."""

from __future__ import annotations

import pytest

from doteval.analysis.figures import difference_interval, figure, figure_beside, interval, signed
from doteval.metrics import Interval


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.75, "0.750"),
        (0.0, "0.000"),
        (-0.0004, "-0.0004"),
        (0.000123456, "0.00012"),
        (999.9996, "1000.000"),
        (1234.56, "1,234.6"),
        (float("nan"), "-"),
        (None, "-"),
    ],
)
def test_a_figure_has_three_decimals_unless_they_would_hide_it(value: float | None, shown: str) -> None:
    assert figure(value) == shown


def test_a_difference_has_a_sign_and_no_dash_beside_it() -> None:
    assert (signed(0.25), signed(-0.0004), signed(1234.5)) == ("+0.250", "-0.0004", "+1,234.5")
    found = Interval(-0.071, 0.014, "t")
    assert interval(found) == "-0.071 – 0.014"
    assert difference_interval(found) == "-0.071 to +0.014"
    assert interval(None) == difference_interval(None) == "-"


@pytest.mark.parametrize(
    ("value", "limit", "shown"),
    [
        (0.5, 0.9, "0.500"),
        (0.8999, 0.9, "0.8999"),
        (0.02004, 0.02, "0.02004"),
        (0.75049, 0.75, "0.75049"),
        (1234.56, 1234.57, "1234.56"),
        (0.75, 0.75, "0.750"),
    ],
)
def test_a_figure_beside_a_limit_is_on_its_side(value: float, limit: float, shown: str) -> None:
    assert figure_beside(value, limit) == shown
