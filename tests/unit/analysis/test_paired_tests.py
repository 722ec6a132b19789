"""Paired tests and intervals beside those of SciPy and statsmodels, and beside calculations by hand."""

from __future__ import annotations

import math
import random

import numpy
import pytest
import scipy

from doteval.analysis import paired_tests
from doteval.analysis.paired_tests import (
    detectable_difference,
    holm,
    mcnemar,
    mean_estimate,
    metric_estimate,
    true_false_estimate,
)
from doteval.metrics import f1


def differences(seed: int, n: int) -> numpy.ndarray:
    return numpy.random.default_rng(seed).normal(0.3, 1.0, n).round(3)


def rows_of(values: numpy.ndarray, limit: float = 10.0) -> paired_tests.Estimate:
    return mean_estimate(values, numpy.ones(len(values)), limit)


@pytest.mark.parametrize(("improved", "worsened"), [(0, 0), (3, 0), (8, 1), (1, 8), (12, 12), (40, 61), (480, 555)])
def test_mcnemar_is_that_of_statsmodels_and_of_scipy(improved: int, worsened: int) -> None:
    # Importing statsmodels takes seconds, which each process would spend that collects this file.
    from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

    found = mcnemar(improved, worsened)
    assert found == pytest.approx(statsmodels_mcnemar([[5, improved], [worsened, 5]], exact=True).pvalue)
    if improved + worsened:
        assert found == pytest.approx(scipy.stats.binomtest(improved, improved + worsened, 0.5).pvalue)


def test_mcnemar_of_a_million_changes() -> None:
    assert mcnemar(500_000, 500_000) == 1.0
    assert mcnemar(498_000, 502_000) == pytest.approx(math.erfc(4000 / 1000 / math.sqrt(2)), rel=0.05)


def test_the_interval_of_shares_is_bonett_and_prices() -> None:
    # By hand: 20 pairs, 6 improved, 1 worsened; shares (6+1)/22 and (1+1)/22.
    found = true_false_estimate(6, 1, 20)
    centre = 5 / 22
    margin = 1.959963984540054 * math.sqrt((9 / 22 - centre**2) / 22)
    assert found.interval is not None
    assert list(found.interval) == pytest.approx([centre - margin, centre + margin])
    assert found.difference == 0.25


@pytest.mark.parametrize("n", [6, 9, 13, 14])
def test_all_sign_flips_are_those_of_scipy(n: int) -> None:
    values = differences(n, n)
    expected = scipy.stats.permutation_test(
        (values,), numpy.mean, permutation_type="samples", n_resamples=numpy.inf, vectorized=True
    )
    found = rows_of(values)
    assert found.test == "permutation-exact"
    assert found.p_value == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("n", [15, 60, 300])
def test_drawn_sign_flips_agree_with_scipys(n: int) -> None:
    values = differences(n, n) - 0.2
    expected = scipy.stats.permutation_test(
        (values,), numpy.mean, permutation_type="samples", n_resamples=9_999, vectorized=True, rng=1
    )
    found = rows_of(values)
    assert found.test == "permutation"
    # Both draw: the standard deviation of a p-value of 9,999 flips is at most 0.005.
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.02)
    assert found == rows_of(values), "the same figures every time"


def test_sign_flips_of_few_sizes_are_those_of_many() -> None:
    # 200 differences of five sizes are flipped size by size; a little noise makes 200 sizes.
    values = numpy.random.default_rng(3).integers(-2, 4, 200).astype(float)
    noisy = values + numpy.random.default_rng(4).normal(0, 1e-6, 200)
    assert rows_of(values).p_value == pytest.approx(rows_of(noisy).p_value, abs=0.02)


def test_sign_flips_of_very_many_rows_are_normal() -> None:
    values = differences(5, 6_000) * 0.1 - 0.0285
    found = rows_of(values)
    assert found.test == "permutation-normal"
    z = values.sum() / math.sqrt((values**2).sum())
    assert found.p_value == pytest.approx(2 * scipy.stats.norm.sf(abs(z)))


def test_a_difference_that_is_a_rounding_error_off_is_as_extreme() -> None:
    # In floating point 0.1 + 0.2 - 0.3 is not 0: all eight flips of these sum to ±0.6, ±0.4, ±0.2 or 0.
    assert rows_of(numpy.array([0.1, 0.2, 0.3])).p_value == 0.25
    assert rows_of(numpy.array([0.1, 0.2, -0.3])).p_value == 1.0


def test_the_interval_of_few_means_is_a_bootstrap_and_no_narrower_than_students() -> None:
    values = differences(1, 40)
    found = rows_of(values)
    assert found.interval is not None
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    assert found.interval.low <= low < high <= found.interval.high
    # scipy's studentized bootstrap has a random generator of its own.
    error = values.std(ddof=1) / math.sqrt(40)
    assert found.interval.low == pytest.approx(low, abs=error / 3)
    assert found.interval.high == pytest.approx(high, abs=error / 3)
    assert found.interval.method == "bootstrap-t"


def test_the_interval_of_many_means_is_students() -> None:
    values = differences(2, 2_001)
    found = rows_of(values)
    assert found.interval is not None
    assert list(found.interval) == pytest.approx(list(scipy.stats.ttest_1samp(values, 0).confidence_interval()))
    assert found.standard_error == pytest.approx(scipy.stats.sem(values))


def test_the_standard_error_of_clusters_is_that_of_statsmodels() -> None:
    from statsmodels.api import OLS

    random_ = numpy.random.default_rng(7)
    clusters = random_.integers(0, 12, 150)
    values = random_.normal(0.2, 1.0, 150) + random_.normal(0, 0.7, 12)[clusters]
    sums = numpy.bincount(clusters, values)
    found = mean_estimate(sums, numpy.bincount(clusters).astype(float), 10.0)
    expected = OLS(values, numpy.ones(150)).fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False}
    )
    # statsmodels leaves the factor out here, or multiplies it with one for the number of parameters.
    assert found.standard_error == pytest.approx(expected.bse[0] * math.sqrt(12 / 11))
    assert found.difference == pytest.approx(values.mean())
    assert found.units == 12


def test_no_row_differs() -> None:
    found = rows_of(numpy.zeros(50), limit=1.0)
    assert (found.difference, found.p_value, found.standard_error) == (0.0, 1.0, None)
    # The greatest share of rows that differ for which 50 equal rows have a probability of 2.5%.
    reach = scipy.stats.binomtest(0, 50).proportion_ci(method="exact").high
    assert found.interval is not None
    assert list(found.interval) == pytest.approx([-reach, reach])
    assert rows_of(numpy.zeros(50), limit=math.inf).interval is None


def test_where_few_rows_differ_the_interval_ends_at_the_greatest_difference() -> None:
    found = rows_of(numpy.array([0.5] + [0.0] * 9), limit=1.0)
    assert found.interval is not None
    assert -1.0 <= found.interval.low < 0.05 < found.interval.high <= 1.0


def test_every_row_differs_by_the_same() -> None:
    found = rows_of(numpy.full(10, 0.1))
    assert found.difference == pytest.approx(0.1)
    assert found.p_value == 2 / 2**10
    assert found.interval is None


def test_one_row() -> None:
    found = rows_of(numpy.array([0.3]))
    assert (found.difference, found.interval, found.p_value) == (0.3, None, 1.0)


def test_holm_is_that_of_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    source = random.Random(2)
    for count in (1, 2, 5, 20):
        p_values = [source.random() ** 3 for _ in range(count)]
        assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))
    assert holm([]) == []


@pytest.mark.parametrize(("n", "comparisons"), [(100, 1), (1319, 1), (1319, 4)])
def test_the_detectable_difference_has_a_power_of_80_percent(n: int, comparisons: int) -> None:
    from statsmodels.stats.power import TTestPower

    found = detectable_difference(0.4 / math.sqrt(n), n, comparisons)
    power = TTestPower().power(found / 0.4, nobs=n, alpha=0.05 / comparisons, alternative="two-sided")
    assert power == pytest.approx(0.8, abs=0.005)


def pairs_of(seed: int, n: int, right: float) -> list[list[tuple[str, str]]]:
    source = random.Random(seed)
    expected = [random.Random(1000 + row).choice("abc") for row in range(n)]
    return [[(each if source.random() < right else source.choice("abc"), each)] for each in expected]


def test_any_metric() -> None:
    metric = f1().calculation.value
    same = metric_estimate(pairs_of(1, 150, 0.7), pairs_of(1, 150, 0.7), metric)
    assert (same.difference, same.p_value, same.interval) == (0.0, 1.0, None)
    better = metric_estimate(pairs_of(1, 150, 0.5), pairs_of(2, 150, 0.8), metric)
    assert better.difference > 0.1
    assert better.p_value is not None
    assert better.p_value < 0.01
    assert better.interval is not None
    assert 0 < better.interval.low < better.difference < better.interval.high < 0.5


def test_any_metric_of_many_rows_deletes_groups_of_them() -> None:
    # The standard error of a mean is known; that of 20 groups is within a few tenths of it.
    random_ = numpy.random.default_rng(9)
    before = [[float(value)] for value in random_.normal(0, 1, 3_000)]
    after = [[value[0] + float(change)] for value, change in zip(before, random_.normal(0.1, 1, 3_000), strict=True)]
    found = metric_estimate(before, after, lambda values: sum(values) / len(values))
    exact = numpy.array([b[0] - a[0] for a, b in zip(before, after, strict=True)])
    assert found.test == "jackknife"
    assert found.difference == pytest.approx(exact.mean())
    assert found.standard_error == pytest.approx(scipy.stats.sem(exact), rel=0.5)
    assert found.p_value is not None
    assert found.p_value < 0.01


def test_any_metric_that_is_a_mean_agrees_with_the_mean() -> None:
    values = differences(11, 30)
    zeros = [[0.0]] * 30
    found = metric_estimate(zeros, [[float(value)] for value in values], lambda given: sum(given) / len(given))
    exact = rows_of(values)
    assert found.p_value == pytest.approx(exact.p_value, abs=0.03)
    assert found.standard_error == pytest.approx(exact.standard_error, rel=0.1)
    assert found.interval is not None
    assert exact.interval is not None
    assert list(found.interval) == pytest.approx(list(exact.interval), abs=0.1)


def test_a_metric_without_a_finite_value_is_an_error() -> None:
    with pytest.raises(ValueError, match="not finite"):
        metric_estimate([[1.0]] * 8, [[1.0]] * 8, lambda _: math.nan)
