"""Agreement of raters, beside scikit-learn's, statsmodels' and krippendorff's figures on fixed data."""

from __future__ import annotations

import krippendorff
import numpy as np
import pytest

from doteval.metrics.agreement import alpha_agreement, cohens_kappa, kappa_agreement, krippendorffs_alpha

BINARY = (
    [1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1, 1, 0],
    [1, 0, 0, 1, 0, 1, 1, 1, 1, 0, 1, 0, 1, 1, 1, 0, 0, 1, 1, 0],
)
GRADES = (
    [1, 2, 3, 4, 5, 5, 3, 2, 1, 4, 4, 2, 3, 5, 1],
    [1, 2, 4, 4, 5, 4, 3, 1, 2, 4, 5, 2, 2, 5, 1],
)
# Three raters, each of whom left units out.
MISSING = [
    [None, None, None, None, None, 3, 4, 1, 2, 1, 1, 3, 3, None, 3],
    [1, None, 2, 1, 3, 3, 4, 3, None, None, None, None, None, None, None],
    [None, None, 2, 1, 3, 4, 4, None, 2, 1, 1, 3, 3, None, 4],
]


def units(raters):
    return [tuple(value for value in unit if value is not None) for unit in zip(*raters, strict=True)]


def test_kappa_is_that_of_scikit_learn():
    # sklearn.metrics.cohen_kappa_score of scikit-learn 1.9.1, for the last one with weights="quadratic".
    assert cohens_kappa(units(BINARY)) == pytest.approx(0.5833333333333333)
    assert cohens_kappa(units(GRADES)) == pytest.approx(0.5)
    assert cohens_kappa(units([list("abcabcaabb"), list("abcabbaacb")])) == pytest.approx(0.6875)
    assert cohens_kappa(units(GRADES), quadratic=True) == pytest.approx(0.9032258064516129)


@pytest.mark.parametrize("quadratic", [False, True])
def test_kappa_is_that_of_statsmodels(quadratic):
    # Importing statsmodels takes seconds, which each process would spend that collects this file.
    from statsmodels.stats.inter_rater import cohens_kappa as kappa_of_statsmodels

    generator = np.random.default_rng(3)
    for _ in range(20):
        first = generator.integers(0, 4, 60)
        second = np.where(generator.random(60) < 0.6, first, generator.integers(0, 4, 60))
        table = np.zeros((4, 4))
        np.add.at(table, (first, second), 1)
        expected = kappa_of_statsmodels(table, wt="quadratic" if quadratic else None).kappa
        ratings = list(zip(first.tolist(), second.tolist(), strict=True))
        assert cohens_kappa(ratings, quadratic=quadratic) == pytest.approx(expected)


@pytest.mark.parametrize("interval", [False, True])
def test_alpha_is_that_of_krippendorff(interval):
    level = "interval" if interval else "nominal"

    def expected(raters):
        data = [[np.nan if value is None else value for value in rater] for rater in raters]
        return krippendorff.alpha(reliability_data=data, level_of_measurement=level)

    assert krippendorffs_alpha(units(MISSING), interval=interval) == pytest.approx(expected(MISSING))
    generator = np.random.default_rng(4)
    for _ in range(20):
        drawn = generator.integers(0, 5, (3, 40)).tolist()
        raters = [[value if generator.random() < 0.8 else None for value in rater] for rater in drawn]
        assert krippendorffs_alpha(units(raters), interval=interval) == pytest.approx(expected(raters))


@pytest.mark.parametrize("ratings", [[], [(1, 1)], [(1, 1), (1, 1)]])
def test_agreement_without_differences_is_not_defined(ratings):
    for found in (kappa_agreement(ratings), kappa_agreement(ratings, quadratic=True), alpha_agreement(ratings)):
        assert (found.value, found.interval) == (None, None)
    assert krippendorffs_alpha([(1,), (2,)]) is None


def test_the_interval_holds_the_value_and_is_the_same_each_time():
    found = kappa_agreement(units(BINARY))
    assert found == kappa_agreement(units(BINARY))
    assert found.interval is not None
    assert -0.2 < found.interval.low < found.value < found.interval.high <= 1
    assert alpha_agreement(units(MISSING)).interval is not None


def test_intervals_hold_the_true_kappa_in_most_samples():
    # Each of the raters says the true class with a chance of 0.85, of two classes: kappa is (p - 0.5) / 0.5 with the
    # chance p that both agree.
    true = (0.85**2 + 0.15**2 - 0.5) / 0.5
    generator = np.random.default_rng(5)
    held = 0
    for _ in range(40):
        classes = generator.random(120) < 0.5
        raters = [np.where(generator.random(120) < 0.85, classes, ~classes).tolist() for _ in range(2)]
        low, high = kappa_agreement(units(raters)).interval
        held += low <= true <= high
    assert 35 <= held <= 40
