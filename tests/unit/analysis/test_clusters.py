"""Clustered intervals: against statsmodels on fixed data, by simulation, and what `show --cluster` prints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest

from doteval.analysis.clusters import clustered_interval
from doteval.metrics import studentized
from doteval.metrics.intervals import wilson
from doteval.metrics.studentized import standard_error
from doteval.store import Store
from tests.support.cli import CommandLine, line_with
from tests.support.comparisons import FAILED, add_experiment


@pytest.mark.parametrize("clusters", [3, 40])
def test_the_standard_error_is_that_of_statsmodels(clusters: int) -> None:
    # Importing statsmodels takes seconds, which each process would spend that collects this file.
    from statsmodels.api import OLS

    random = numpy.random.default_rng(clusters)
    rows = random.integers(0, clusters, 200)
    values = random.normal(0, 1, clusters)[rows] + random.normal(0, 1, 200)
    _, error = standard_error(numpy.bincount(rows, values), numpy.bincount(rows).astype(float))
    fitted = OLS(values, numpy.ones(200)).fit(cov_type="cluster", cov_kwds={"groups": rows})
    assert error == pytest.approx(float(fitted.bse[0]), rel=1e-9)


def test_many_clusters_have_students_interval_with_this_error() -> None:
    from statsmodels.api import OLS

    random = numpy.random.default_rng(1)
    rows = numpy.repeat(numpy.arange(3_000), 2)
    values = random.normal(0, 1, 3_000)[rows] + random.normal(0, 1, 6_000)
    found = clustered_interval(values, rows)
    fitted = OLS(values, numpy.ones(6_000)).fit(cov_type="cluster", cov_kwds={"groups": rows}, use_t=True)
    assert found is not None
    assert list(found) == pytest.approx(fitted.conf_int(0.05)[0].tolist(), rel=1e-6)
    assert found.method == "t-clustered"


def test_rows_that_always_agree_are_as_many_as_their_clusters() -> None:
    values = numpy.repeat([1.0] * 10, 50)
    found = clustered_interval(values, numpy.repeat(numpy.arange(10), 50), of_shares=True)
    assert found is not None
    assert list(found) == pytest.approx(list(wilson(10, 10) or ()))
    assert found.method == "wilson-clustered"
    assert clustered_interval(values, numpy.repeat(numpy.arange(10), 50)) is None
    assert clustered_interval(values, numpy.zeros(500, dtype=numpy.int64), of_shares=True) is None


@pytest.mark.slow("thousands of draws take tens of seconds")
@pytest.mark.parametrize(("clusters", "share"), [(10, 0.5), (50, 0.9)])
def test_the_interval_of_clustered_shares(clusters: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studentized, "RESAMPLES", 399)
    random = numpy.random.default_rng(5)
    covered = 0
    draws = 2_000
    for _ in range(draws):
        sizes = random.integers(1, 12, clusters)
        rows = numpy.repeat(numpy.arange(clusters), sizes)
        # The shares of clusters vary.
        values = random.random(len(rows)) < random.beta(4 * share, 4 * (1 - share), clusters)[rows]
        found = clustered_interval(values.astype(float), rows, of_shares=True)
        covered += found is not None and found.low <= share <= found.high
    assert 0.93 <= covered / draws <= 0.98


@pytest.fixture
def topics(tmp_path: Path) -> str:
    """A store with 40 rows on 8 topics, which are wholly right or wrong; one row failed."""
    right = [topic % 3 > 0 for topic in range(8) for _ in range(5)]
    with Store.open(str(tmp_path / "results.db")) as store:
        names = [f"topic {row // 5}" for row in range(40)]
        metrics = {"right": ("accuracy", "std")}
        add_experiment(store, "first", {"right": [FAILED, *right[1:]]}, topics=names, metrics=metrics)
        return store.url


@pytest.mark.usefixtures("without_settings")
def test_show_clusters(doteval_: CommandLine, topics: str) -> None:
    def accuracy(*options: str) -> dict[str, object]:
        document = json.loads(doteval_("show", "first", "--json", "--storage", topics, *options).out)
        return next(each for each in document["evaluations"][0]["scores"][0]["metrics"] if each["name"] == "accuracy")

    rows, clusters = accuracy(), accuracy("--cluster", "topic")
    assert (rows["value"], rows["n"]) == (clusters["value"], clusters["n"]) == (0.625, 40)
    assert (rows["interval_method"], clusters["interval_method"]) == ("wilson", "wilson-clustered")
    (low, high), (wide_low, wide_high) = rows["interval"], clusters["interval"]  # type: ignore[misc]
    assert wide_low < low < high < wide_high
    assert clusters["note"] == "interval of 8 clusters by topic"
    shown = doteval_("show", "first", "--storage", topics, "--cluster", "topic").out
    assert "no interval by topic: the metric is not a mean" in line_with(shown, "right std")
    # Excluded, the failed row is no 0.
    assert accuracy("--cluster", "topic", "--errors-as", "excluded")["value"] == pytest.approx(25 / 39)


@pytest.mark.usefixtures("without_settings")
def test_groups_are_clustered(doteval_: CommandLine, topics: str) -> None:
    arguments = ("show", "first", "--json", "--storage", topics, "--group-by", "status")

    def interval(*options: str) -> tuple[float, float]:
        document = json.loads(doteval_(*arguments, *options).out)
        return next(
            tuple(group["scores"]["right"]["interval"])
            for group in document["evaluations"][0]["groups"]
            if group["group"] == "done"
        )

    rows, clusters = interval(), interval("--cluster", "topic")
    assert clusters[0] < rows[0] < rows[1] < clusters[1]


@pytest.mark.usefixtures("without_settings")
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--cluster", "subject"), "no column 'subject' to cluster by"),
        (("--cluster", "subject", "--group-by", "status"), "no column 'subject' to cluster by"),
        (("--cluster", "topic", "--wrong"), "leave it out, or add --group-by"),
        (("--cluster", "topic", "--row", "1"), "--row shows a record"),
    ],
)
def test_what_cannot_be_clustered(doteval_: CommandLine, topics: str, options: tuple[str, ...], problem: str) -> None:
    ran = doteval_("show", "first", "--storage", topics, *options)
    assert (ran.code, ran.out) == (2, "")
    assert problem in ran.err
