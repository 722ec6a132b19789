"""How often the 95% interval has the true difference, and how often `compare` is wrong, over thousands of draws.

An interval of few true/false rows cannot cover 95% exactly, since there are few outcomes; it covers more. The draws are
seeded: a test gives the same figures every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
import scipy

from doteval.analysis import paired_tests
from doteval.analysis.compare import Verdict, compare_evaluations, conclude
from doteval.analysis.paired_tests import mcnemar, mean_estimate, true_false_estimate
from doteval.metrics import studentized
from tests.support.comparisons import FAILED, PENDING
from tests.support.score_arrays import arrays, clustered_values

pytestmark = pytest.mark.slow("thousands of draws take tens of seconds")

Draw = Callable[[numpy.random.Generator, int], numpy.ndarray]


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer resamples the figures of one comparison are less exact, and those of thousands on average the same."""
    monkeypatch.setattr(studentized, "RESAMPLES", 399)
    monkeypatch.setattr(paired_tests, "FLIPS", 399)


# Shares of true values


def outcomes(n: int) -> Iterator[tuple[int, int]]:
    return ((improved, worsened) for improved in range(n + 1) for worsened in range(n + 1 - improved))


@pytest.mark.parametrize("rates", [(0.05, 0.05), (0.1, 0.1), (0.3, 0.3), (0.3, 0.1), (0.4, 0.05), (0.1, 0.3)])
def test_ten_true_false_rows_cover_at_least_95_percent(rates: tuple[float, float]) -> None:
    # All 66 outcomes with their probabilities.
    covered = alarms = 0.0
    for improved, worsened in outcomes(10):
        probability = float(
            scipy.stats.multinomial.pmf((improved, worsened, 10 - improved - worsened), 10, [*rates, 1 - sum(rates)])
        )
        interval = true_false_estimate(improved, worsened, 10).interval
        assert interval is not None
        covered += probability * (interval.low <= rates[0] - rates[1] <= interval.high)
        alarms += probability * (mcnemar(improved, worsened) < 0.05)
    assert covered >= 0.95
    if rates[0] == rates[1]:
        assert alarms <= 0.05


@pytest.mark.parametrize("rates", [(0.02, 0.02), (0.1, 0.1), (0.08, 0.04), (0.3, 0.2)])
def test_a_thousand_true_false_rows_cover_95_percent(rates: tuple[float, float]) -> None:
    drawn = numpy.random.default_rng(1).multinomial(1_000, [*rates, 1 - sum(rates)], size=20_000)
    centre = (drawn[:, 0] - drawn[:, 1]) / 1002
    share = (drawn[:, 0] + drawn[:, 1] + 2) / 1002
    margin = paired_tests.Z * numpy.sqrt((share - centre**2) / 1002)
    # The same formula for all draws at once.
    first = true_false_estimate(int(drawn[0, 0]), int(drawn[0, 1]), 1_000).interval
    assert first is not None
    assert list(first) == pytest.approx([centre[0] - margin[0], centre[0] + margin[0]])
    assert 0.94 <= (numpy.abs(centre - (rates[0] - rates[1])) <= margin).mean() <= 0.96


# Means


def normal(random: numpy.random.Generator, n: int) -> numpy.ndarray:
    return random.normal(0.1, 1.0, n)


def skewed(random: numpy.random.Generator, n: int) -> numpy.ndarray:
    return random.exponential(1.0, n) - 0.9


def with_ties(random: numpy.random.Generator, n: int) -> numpy.ndarray:
    """Half of the rows do not differ."""
    return random.normal(0.2, 1.0, n) * (random.random(n) < 0.5)


def with_many_ties(random: numpy.random.Generator, n: int) -> numpy.ndarray:
    return random.normal(0.5, 1.0, n) * (random.random(n) < 0.2)


def of_few_sizes(random: numpy.random.Generator, n: int) -> numpy.ndarray:
    """Scores from 1 to 5."""
    return (random.integers(1, 6, n) - random.integers(1, 6, n)).astype(float) + 0.1


MEANS = {normal: 0.1, skewed: 0.1, with_ties: 0.1, with_many_ties: 0.1, of_few_sizes: 0.1}


def coverage(draw: Draw, truth: float, n: int, draws: int) -> float:
    random = numpy.random.default_rng(7)
    covered = 0
    for _ in range(draws):
        interval = mean_estimate(draw(random, n), numpy.ones(n), math.inf).interval
        # Without an interval nothing is claimed.
        covered += interval is None or interval.low <= truth <= interval.high
    return covered / draws


@pytest.mark.parametrize("draw", [normal, skewed])
def test_the_interval_of_ten_means_covers_94_to_97_percent(draw: Draw) -> None:
    assert 0.94 <= coverage(draw, MEANS[draw], 10, 3_000) <= 0.972


@pytest.mark.parametrize("draw", [with_ties, with_many_ties, of_few_sizes])
def test_with_ties_the_interval_of_ten_means_covers_more(draw: Draw) -> None:
    assert coverage(draw, MEANS[draw], 10, 3_000) >= 0.935


@pytest.mark.parametrize("draw", [normal, with_ties])
def test_the_interval_of_a_thousand_means_covers_95_percent(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studentized, "RESAMPLES", 199)
    monkeypatch.setattr(paired_tests, "FLIPS", 1)
    assert 0.94 <= coverage(draw, MEANS[draw], 1_000, 1_500) <= 0.96


def test_the_interval_of_clusters_covers_95_percent() -> None:
    random = numpy.random.default_rng(3)
    covered = alone = 0
    draws = 3_000
    for _ in range(draws):
        rows, values = clustered_values(random, 30, 0.1)
        interval = mean_estimate(numpy.bincount(rows, values), numpy.bincount(rows).astype(float), math.inf).interval
        assert interval is not None
        covered += interval.low <= 0.1 <= interval.high
        margin = paired_tests.Z * values.std(ddof=1) / math.sqrt(len(values))
        alone += abs(values.mean() - 0.1) <= margin
    assert 0.94 <= covered / draws <= 0.97
    # As if rows were independent, the interval would be far too narrow.
    assert alone / draws < 0.8


# False alarms of the whole comparison, where nothing differs


def verdicts(
    draws: int, sides: Callable[[numpy.random.Generator], tuple[dict[str, Any], dict[str, Any]]]
) -> list[Verdict]:
    random = numpy.random.default_rng(11)
    found = []
    for _ in range(draws):
        before, after = sides(random)
        tested = compare_evaluations(arrays("base", **before), arrays("new", **after))
        found += [{metric.verdict for _, metric in conclude([tested]).metrics}]
    return [
        next((each for each in (Verdict.BETTER, Verdict.WORSE) if each in verdict), Verdict.NO_DIFFERENCE)
        for verdict in found
    ]


def alarms(found: list[Verdict]) -> float:
    return 1 - found.count(Verdict.NO_DIFFERENCE) / len(found)


# Three standard deviations of 5% over 1,000 draws.
MARGIN = 3 * math.sqrt(0.05 * 0.95 / 1_000)


@pytest.mark.parametrize("n", [10, 1_000])
@pytest.mark.parametrize("kind", ["true_false", "numbers", "ties"])
def test_false_alarms(n: int, kind: str) -> None:
    def sides(random: numpy.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
        if kind == "true_false":
            hard = random.random(n)
            both = [(random.random(n) > hard).tolist() for _ in range(2)]
            return {"scores": {"a": both[0]}}, {"scores": {"a": both[1]}}
        rows = random.normal(0, 1, n)
        both = [(rows + random.normal(0, 1, n)).tolist() for _ in range(2)]
        if kind == "ties":
            equal = random.random(n) < 0.6
            both[1] = numpy.where(equal, both[0], both[1]).tolist()
        mean = {"metrics": {"a": ("mean",)}}
        return {"scores": {"a": both[0]}, **mean}, {"scores": {"a": both[1]}, **mean}

    assert alarms(verdicts(1_500 if n == 10 else 300, sides)) <= 0.05 + (MARGIN if n == 10 else 2 * MARGIN)


def test_false_alarms_with_missing_rows() -> None:
    def sides(random: numpy.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
        both = []
        for _ in range(2):
            values: list[Any] = (random.random(100) < 0.6).tolist()
            for place in random.choice(100, 8, replace=False):
                values[place] = FAILED if random.random() < 0.5 else PENDING
            both.append(values)
        keys = [str(n) for n in range(100)]
        return {"scores": {"a": both[0]}, "keys": keys}, {
            "scores": {"a": both[1]},
            "keys": [*keys[10:], *map(str, range(200, 210))],
        }

    found = verdicts(1_000, sides)
    assert alarms(found) <= 0.05 + MARGIN
    # Never to the good: nothing is called better that the missing rows could change.
    assert found.count(Verdict.BETTER) <= 0.001 * len(found)


def test_false_alarms_with_clusters() -> None:
    def sides(random: numpy.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
        topics = numpy.repeat(numpy.arange(15), 6)
        hard = random.random(90)
        both = [((random.random(90) + 0.4 * random.normal(0, 1, 15)[topics]) > hard).tolist() for _ in range(2)]
        named = {"clusters": list(map(str, topics))}
        return {"scores": {"a": both[0]}, **named}, {"scores": {"a": both[1]}, **named}

    assert alarms(verdicts(1_000, sides)) <= 0.05 + MARGIN


def test_false_alarms_of_several_scores() -> None:
    def sides(random: numpy.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
        both = [{f"score{k}": (random.random(200) < 0.5).tolist() for k in range(5)} for _ in range(2)]
        return {"scores": both[0]}, {"scores": both[1]}

    assert alarms(verdicts(1_000, sides)) <= 0.05 + MARGIN
