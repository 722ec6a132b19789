"""How often the 95% intervals of metrics have the true value: computed for shares, drawn thousands of times for means.

The draws are seeded: a test gives the same figures every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import scipy

from doteval.metrics import classes, f1, precision, studentized
from doteval.metrics.intervals import FEW_FOR_BOOTSTRAP, wilson
from doteval.metrics.mean_intervals import mean_interval, share_interval
from doteval.metrics.studentized import units_interval
from tests.support.score_arrays import clustered_values

Draw = Callable[[numpy.random.Generator, int], numpy.ndarray]


def share_coverage(n: int, share: float) -> float:
    """Over all outcomes, with their probabilities."""
    return sum(
        float(scipy.stats.binom.pmf(right, n, share))
        for right in range(n + 1)
        if (found := wilson(right, n)) is not None and found.low <= share <= found.high
    )


@pytest.mark.parametrize(("n", "mean", "least"), [(10, 0.953, 0.83), (100, 0.95, 0.83), (1_000, 0.95, 0.83)])
def test_wilsons_interval_covers_95_percent_of_shares_on_average(n: int, mean: float, least: float) -> None:
    found = [share_coverage(n, share) for share in numpy.linspace(0.001, 0.999, 333 if n <= 100 else 99)]
    assert sum(found) / len(found) == pytest.approx(mean, abs=0.008)
    # Near 0 and 1 one outcome more or less decides; the least is known: Brown, Cai and DasGupta, Statistical Science
    # 16, 2001, section 4.
    assert min(found) >= least


@pytest.mark.parametrize(
    ("n", "share", "covered"),
    [(10, 0.5, 0.979), (10, 0.9, 0.930), (10, 1.0, 1.0), (1_000, 0.5, 0.946), (1_000, 0.9, 0.949)],
)
def test_what_wilsons_interval_covers(n: int, share: float, covered: float) -> None:
    assert share_coverage(n, share) == pytest.approx(covered, abs=0.001)


# Metrics of one class


@pytest.mark.parametrize("n", [10, 100])
@pytest.mark.parametrize(("share", "right"), [(0.5, 0.8), (0.2, 0.8)])
@pytest.mark.parametrize("metric", [f1, precision])
def test_the_interval_of_a_class(metric: Any, share: float, right: float, n: int) -> None:
    pairs = [(True, True), (True, False), (False, True), (False, False)]
    shares = [share * right, (1 - share) * (1 - right), share * (1 - right), (1 - share) * right]
    tp, fp, fn, _ = shares
    truth = 2 * tp / (2 * tp + fp + fn) if metric is f1 else tp / (tp + fp)
    drawn = numpy.random.default_rng(5).multinomial(n, shares, size=2_000)
    outcomes, times = numpy.unique(drawn, axis=0, return_counts=True)
    covered = known = 0
    for outcome, count in zip(outcomes.tolist(), times.tolist(), strict=True):
        scores = [pair for pair, of_pair in zip(pairs, outcome, strict=True) for _ in range(of_pair)]
        if (found := metric().calculation.interval(scores)) is not None:
            known += count
            covered += count * (found.low <= truth <= found.high)
    assert 0.93 <= covered / known <= 0.975
    assert known >= 0.97 * len(drawn)


def macro(random: numpy.random.Generator, n: int) -> list[tuple[str, str]]:
    """Four classes of unequal size, of which 70% are found."""
    expected = random.choice(list("abcd"), n, p=[0.4, 0.3, 0.2, 0.1])
    other = random.choice(list("abcd"), n)
    return [
        (str(e) if hit else str(o), str(e)) for e, o, hit in zip(expected, other, random.random(n) < 0.6, strict=True)
    ]


@pytest.mark.slow("hundreds of bootstraps")
def test_the_bootstrap_of_few_scores_is_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the note below `FEW_FOR_BOOTSTRAP` says."""
    monkeypatch.setattr(classes, "RESAMPLES", 400)
    random = numpy.random.default_rng(5)
    truth = f1()(macro(random, 200_000))
    for n, least, most in ((10, 0.65, 0.85), (30, 0.83, 0.93), (FEW_FOR_BOOTSTRAP, 0.91, 0.97)):
        found = [f1().calculation.interval(macro(random, n)) for _ in range(400)]
        covered = sum(each.low <= truth <= each.high for each in found if each is not None) / len(found)
        assert least <= covered <= most


# Means


def normal(random: numpy.random.Generator, n: int) -> numpy.ndarray:
    return random.normal(0.6, 1.0, n)


def skewed(random: numpy.random.Generator, n: int) -> numpy.ndarray:
    return random.exponential(1.0, n)


def of_few_sizes(random: numpy.random.Generator, n: int) -> numpy.ndarray:
    """Scores from 1 to 5."""
    return random.choice([1.0, 2.0, 3.0, 4.0, 5.0], n, p=[0.05, 0.1, 0.2, 0.3, 0.35])


def shares(random: numpy.random.Generator, n: int) -> numpy.ndarray:
    return random.beta(0.5, 0.5, n)


def mostly_right(random: numpy.random.Generator, n: int) -> numpy.ndarray:
    """Shares, four of five of which are 1."""
    return numpy.where(random.random(n) < 0.8, 1.0, random.random(n))


TRUTH: dict[Draw, float] = {normal: 0.6, skewed: 1.0, of_few_sizes: 3.8, shares: 0.5, mostly_right: 0.9}


def coverage(draw: Draw, n: int, draws: int) -> tuple[float, float]:
    """The share of intervals that have the truth, and of draws that have an interval."""
    interval = share_interval if draw in (shares, mostly_right) else mean_interval
    random = numpy.random.default_rng(7)
    found = [interval(draw(random, n).tolist()) for _ in range(draws)]
    known = [each for each in found if each is not None]
    truth = TRUTH[draw]
    return sum(each.low <= truth <= each.high for each in known) / len(known), len(known) / draws


@pytest.fixture
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer resamples one interval is less exact, and thousands on average the same."""
    monkeypatch.setattr(studentized, "RESAMPLES", 399)


@pytest.mark.slow("thousands of draws take tens of seconds")
@pytest.mark.usefixtures("fewer_resamples")
@pytest.mark.parametrize(
    ("draw", "least", "most"),
    [
        (normal, 0.94, 0.975),
        (skewed, 0.94, 0.965),
        # Few outcomes are possible, or values have bounds: it covers more.
        (of_few_sizes, 0.94, 0.985),
        (shares, 0.94, 0.99),
        (mostly_right, 0.94, 0.99),
    ],
)
def test_the_interval_of_ten_scores(draw: Draw, least: float, most: float) -> None:
    covered, known = coverage(draw, 10, 3_000)
    assert least <= covered <= most
    # Without an interval nothing is claimed; it is the exception.
    assert known >= 0.95


@pytest.mark.slow("thousands of draws take tens of seconds")
@pytest.mark.parametrize("draw", [skewed, mostly_right])
def test_the_interval_of_a_thousand_scores(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studentized, "RESAMPLES", 199)
    covered, known = coverage(draw, 1_000, 1_500)
    assert 0.94 <= covered <= 0.965
    assert known == 1.0


@pytest.mark.slow("thousands of draws take tens of seconds")
@pytest.mark.usefixtures("fewer_resamples")
def test_the_interval_of_few_clusters() -> None:
    random = numpy.random.default_rng(3)
    covered = alone = 0
    draws = 2_000
    for _ in range(draws):
        rows, values = clustered_values(random, 10, 0.6)
        found = units_interval(numpy.bincount(rows, values), numpy.bincount(rows).astype(float))
        assert found is not None
        covered += found.low <= 0.6 <= found.high
        alone += abs(values.mean() - 0.6) <= 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert 0.93 <= covered / draws <= 0.97
    # As if rows were independent, the interval would be far too narrow.
    assert alone / draws < 0.8
