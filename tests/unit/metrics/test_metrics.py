"""Metrics: their values against published ones and independent calculations, and names that are resolved again."""

from __future__ import annotations

import importlib.metadata
import math
import random
import statistics
import subprocess
import sys
from itertools import combinations

import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from doteval.errors import NotFoundError, UsageError
from doteval.metrics import (
    Interval,
    Metric,
    accuracy,
    available,
    ci95,
    f1,
    mean,
    metric,
    pass_at_k,
    precision,
    recall,
    register,
    resolve,
    std,
    stderr,
)
from doteval.metrics.intervals import BOOTSTRAP_LIMIT, resampled_interval, wilson
from doteval.metrics.mean_intervals import mean_interval, share_interval
from doteval.metrics.registry import plugins

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50)
BOOLS = st.lists(st.booleans(), min_size=2, max_size=50)


def test_accuracy_is_the_share_of_true():
    assert accuracy()([True, False, True, True]) == 0.75


def test_accuracy_of_no_scores_is_zero():
    assert accuracy()([]) == 0.0


def test_accuracy_counts_equal_pairs_and_a_failed_row_as_wrong():
    assert accuracy()([("a", "a"), ["b", "a"], False, ("c", "c")]) == 0.5


@pytest.mark.parametrize("value", ["yes", "1", None, b"1", {}])
def test_accuracy_refuses_values_that_are_not_numbers(value):
    with pytest.raises(TypeError, match=r"needs true/false values, numbers or pairs"):
        accuracy()([True, value])


@given(NUMBERS)
def test_mean_std_and_stderr_agree_with_the_standard_library(numbers):
    assert mean()(numbers) == pytest.approx(statistics.fmean(numbers), abs=1e-6)
    assert std()(numbers) == pytest.approx(statistics.stdev(numbers), rel=1e-9, abs=1e-6)
    assert stderr()(numbers) == pytest.approx(statistics.stdev(numbers) / math.sqrt(len(numbers)), rel=1e-9, abs=1e-6)


@given(BOOLS)
def test_std_of_bools_is_that_of_the_same_numbers(bools):
    assert std()(bools) == pytest.approx(statistics.stdev(map(float, bools)), abs=1e-12)


@given(NUMBERS, st.randoms())
def test_the_order_of_rows_does_not_change_a_mean(numbers, order):
    shuffled = list(numbers)
    order.shuffle(shuffled)
    assert mean()(shuffled) == mean()(numbers)


@pytest.mark.parametrize("made", [mean(), std(), stderr()])
def test_too_few_scores_give_nan(made):
    assert math.isnan(made([]))
    assert math.isnan(std()([1.0]))


def test_wilson_gives_the_published_intervals():
    # Newcombe, Statistics in Medicine 17, 1998, table I, method 3: 81 of 263 and 1 of 29.
    assert list(wilson(81, 263)) == pytest.approx([0.2553, 0.3662], abs=5e-5)
    assert list(wilson(1, 29)) == pytest.approx([0.0061, 0.1718], abs=5e-5)
    assert wilson(0, 0) is None


@given(st.integers(1, 10_000_000), st.data())
def test_wilson_agrees_with_scipy(n, data):
    successes = data.draw(st.integers(0, n))
    assert list(wilson(successes, n)) == pytest.approx(
        list(scipy.stats.binomtest(successes, n).proportion_ci(0.95, "wilson")), rel=1e-9, abs=1e-12
    )


@given(st.integers(1, 500), st.data())
def test_wilson_contains_the_share_and_is_within_0_and_1(n, data):
    successes = data.draw(st.integers(0, n))
    found = wilson(successes, n)
    assert 0.0 <= found.low <= successes / n <= found.high <= 1.0


def test_ci95_of_bools_is_wilson_and_of_numbers_a_seeded_bootstrap():
    assert ci95()([True] * 81 + [False] * 182) == wilson(81, 263)
    numbers = [float(n % 7) for n in range(40)]
    found = ci95()(numbers)
    assert found.method == "bootstrap-t"
    assert found == ci95()(numbers)
    assert found.low < statistics.fmean(numbers) < found.high


def test_the_bootstrap_agrees_with_students_interval_for_many_numbers():
    source = random.Random(3)
    numbers = [source.gauss(0, 1) for _ in range(BOOTSTRAP_LIMIT)]
    small, large = mean_interval(numbers), mean_interval([*numbers, 0.0])
    assert (small.method, large.method) == ("bootstrap-t", "t")
    assert small.low == pytest.approx(large.low, abs=0.005)
    assert small.high == pytest.approx(large.high, abs=0.005)
    margin = (
        scipy.stats.t.ppf(0.975, BOOTSTRAP_LIMIT) * statistics.stdev([*numbers, 0.0]) / math.sqrt(BOOTSTRAP_LIMIT + 1)
    )
    assert large.high - large.low == pytest.approx(2 * margin, rel=1e-6)


# Of ten numbers of which one differs, a third of the resamples have no spread.
@pytest.mark.parametrize("numbers", [[], [1.0], [2.5, 2.5, 2.5], [1.0, math.nan], [1.0, math.inf], [2.0] * 9 + [1.0]])
def test_there_is_no_interval_if_the_spread_is_unknown(numbers):
    assert mean_interval([*numbers]) is None


def test_the_interval_of_shares_is_no_wider_than_wilsons():
    few = [1.0, 1.0, 1.0, 0.9, 0.95, 0.3, 0.8, 0.97]
    plain, kept, bounds = mean_interval(few), share_interval(few), wilson(sum(few), 8)
    assert plain.low < 0 < bounds.low
    assert list(kept) == pytest.approx(list(bounds))
    many = [0.5, 0.6, 0.55, 0.65] * 20
    assert share_interval(many) == mean_interval(many)
    # Nearly equal ones spread at most as true/false scores with their mean do.
    assert share_interval([1.0] * 9 + [0.5]) == wilson(9.5, 10)
    # Scores that are no shares have no bounds.
    assert share_interval([2.0] * 9 + [1.0]) is None
    assert share_interval([2.0, 0.5, 1.0, 3.0]) == mean_interval([2.0, 0.5, 1.0, 3.0])


def test_resampling_any_metric():
    numbers = [float(n) for n in range(100)]
    found = resampled_interval(numbers, statistics.median)
    assert found.low < 49.5 < found.high
    assert resampled_interval([1.0], statistics.median) is None
    assert resampled_interval([1.0] * 501, statistics.median) is None


PAIRS = [("a", "a")] * 3 + [("a", "b")] * 1 + [("b", "a")] * 2 + [("b", "b")] * 4


def test_precision_recall_and_f1_of_one_class():
    # By hand: TP 3, FP 1, FN 2.
    assert precision("a")(PAIRS) == 3 / 4
    assert recall("a")(PAIRS) == 3 / 5
    assert f1("a")(PAIRS) == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))


def test_without_a_positive_class_they_are_macro_averages():
    assert precision()(PAIRS) == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert recall()(PAIRS) == pytest.approx((3 / 5 + 4 / 5) / 2)


def test_of_bools_true_is_positive():
    assert precision()([(True, True), (True, False), (False, True)]) == 0.5


def test_a_class_that_is_never_predicted_counts_as_zero():
    assert precision("c")(PAIRS) == 0.0
    assert recall("c")(PAIRS) == 0.0
    assert f1("c")(PAIRS) == 0.0


@pytest.mark.parametrize("other", [True, False, "ab", ("a", "b", "c")])
def test_class_metrics_need_pairs(other):
    with pytest.raises(TypeError, match="needs pairs"):
        f1()([("a", "a"), other])
    with pytest.raises(ValueError, match="at least one pair"):
        f1()([])


def test_nan_is_no_class():
    with pytest.raises(ValueError, match="NaN"):
        f1()([("a", "a"), (math.nan, "a")])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "numbers", [[1e308, -1e308, 5.0] * 3, [0.0] * 30 + [5e-324], [1e300] * 3000 + [-1e300], [math.nan, 1.0, 2.0]]
)
def test_intervals_of_extreme_numbers_warn_of_nothing(numbers):
    found = mean_interval(numbers)
    assert found is None or found.low <= found.high


def test_the_interval_of_one_class_is_wilsons():
    assert precision("a").calculation.interval(PAIRS) == wilson(3, 4)
    assert recall("a").calculation.interval(PAIRS) == wilson(3, 5)
    # F1 = 2 J / (1 + J) of J = TP / (TP + FP + FN).
    low, high = (2 * end / (1 + end) for end in wilson(3, 6))
    assert list(f1("a").calculation.interval(PAIRS)) == pytest.approx([low, high])
    assert precision("c").calculation.interval(PAIRS) is None


def test_the_interval_over_classes_is_that_of_resampled_pairs():
    found = precision().calculation.interval(PAIRS * 10)
    assert found.method == "bootstrap"
    assert found.low < precision()(PAIRS) < found.high
    # The mean of two shares of 40 and of 60.
    error = math.sqrt(0.75 * 0.25 / 40 + 2 / 9 / 60) / 2
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(row, data):
    k = data.draw(st.integers(1, len(row)))
    subsets = list(combinations(row, k))
    assert pass_at_k(k)([row]) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_averages_over_rows():
    assert pass_at_k(1)([[True, False], [False, False]]) == 0.25
    assert pass_at_k(2)([[True, False], [False, False]]) == 0.5


def test_pass_at_k_needs_k_samples():
    with pytest.raises(ValueError, match="--epochs 3"):
        pass_at_k(3)([[True, False]])
    with pytest.raises(ValueError, match="at least 1"):
        pass_at_k(0)
    with pytest.raises(ValueError, match="at least one row"):
        pass_at_k(1)([])


def test_a_metric_has_the_name_of_its_factory_and_its_settings():
    @metric
    def fraction_above(threshold: float = 0.5, *, strict: bool = True) -> Metric:
        def calculate(scores):
            return sum(score > threshold for score in scores) / len(scores)

        return calculate

    assert fraction_above().name == "fraction_above"
    assert fraction_above().__name__ == "fraction_above"
    assert fraction_above(0.9).name == "fraction_above(threshold=0.9)"
    assert fraction_above(0.9).__name__ == "fraction_above"
    assert fraction_above(0.9)([0.8, 0.95]) == 0.5
    again = resolve("fraction_above(threshold=0.9)")
    assert again([0.8, 0.95]) == 0.5
    assert again.name == "fraction_above(threshold=0.9)"
    with pytest.raises(NotFoundError, match="other settings"):
        resolve("fraction_above(limit=1)")
    with pytest.raises(NotFoundError, match="cannot be read back"):
        resolve("fraction_above(threshold=open('x'))")
    with pytest.raises(NotFoundError, match="cannot be read back"):
        resolve("fraction_above(")


def test_a_metric_named_like_a_built_in_one_has_its_module_in_its_name():
    def make():
        def accuracy():
            return lambda scores: -1.0

        return metric(accuracy)

    own = make()()
    assert own.name == f"{__name__}.accuracy"
    assert own.__name__ == "accuracy"
    assert resolve("accuracy")([True]) == 1.0
    assert resolve(own.name)([True]) == -1.0


def test_every_built_in_metric_is_found_by_name():
    built_in = {"accuracy", "ci95", "f1", "mean", "pass_at_k", "precision", "recall", "std", "stderr"}
    assert built_in <= set(available())
    assert {resolve(name).name for name in built_in - {"pass_at_k"}} == built_in - {"pass_at_k"}


def test_an_unknown_metric():
    with pytest.raises(NotFoundError, match="metric nonsense is not installed"):
        resolve("nonsense")


def test_a_plain_function_may_be_registered():
    register("longest", max)
    assert resolve("longest")([1, 3, 2]) == 3


@pytest.fixture
def announce(monkeypatch):
    """Announce entry points as an installed package would."""

    def announce(name: str, value: str) -> None:
        point = importlib.metadata.EntryPoint(name, value, "doteval.metrics")
        monkeypatch.setattr("doteval.core.plugins.entry_points", lambda group: [point] if group == point.group else [])
        plugins.refresh()

    yield announce
    monkeypatch.undo()
    plugins.refresh()


def test_a_package_announces_a_metric(announce):
    announce("middle", "statistics:median")
    assert "middle" in available()
    assert resolve("middle")([1, 2, 9]) == 2


def test_the_error_names_a_package_that_cannot_be_imported(announce):
    announce("broken", "no_such_module:metric")
    assert "broken" in available()
    with pytest.raises(UsageError, match="'broken' of the package no_such_module cannot be loaded: ModuleNotFound"):
        resolve("broken")


def test_importing_doteval_imports_neither_scipy_nor_numpy():
    modules = ["evaluators", "datasets", "analysis.summary", "analysis.export"]
    code = "import sys, doteval, " + ", ".join(f"doteval.{module}" for module in modules)
    check = "sorted({'scipy', 'numpy', 'pandas', 'pyarrow', 'jsonschema', 'datasets'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", f"{code}; print({check})"], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_an_interval_unpacks():
    low, high = Interval(0.1, 0.2, "wilson")
    assert (low, high) == (0.1, 0.2)


# Metrics of one name in several files


def define(path, module, value):
    """Define the metric `of_two_files` in a file, as an import would."""
    code = f"""
@metric
def of_two_files(factor=1):
    return lambda scores: {value} * factor
"""
    exec(compile(code, path, "exec"), {"metric": metric, "__name__": module})


def test_each_evaluation_has_the_metric_of_its_own_files():
    define("/home/me/evals/eval_a.py", "eval_a", 1.0)
    assert resolve("of_two_files", ["evals/other.py"])([]) == 1.0
    define("/home/me/evals/eval_b.py", "eval_b", 2.0)
    define("/home/me/evals/helpers.py", "helpers", 4.0)
    assert resolve("of_two_files", ["evals/eval_a.py", "evals/conftest.py"])([]) == 1.0
    assert resolve("of_two_files(factor=3)", ["eval_b.py"])([]) == 6.0
    assert resolve("of_two_files", ["evals/eval_c.py", "evals/helpers.py"])([]) == 4.0
    # Loading a file again replaces its metric.
    define("/home/me/evals/eval_a.py", "eval_a", 8.0)
    assert resolve("of_two_files", ["evals/eval_a.py"])([]) == 8.0
    for files in ([], ["eval_c.py"], ["eval_a.py", "helpers.py"]):
        with pytest.raises(NotFoundError, match="several modules: eval_a, eval_b, helpers"):
            resolve("of_two_files", files)
