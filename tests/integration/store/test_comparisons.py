"""Comparisons of stored evaluations: what is read, what is paired, what differs, on SQLite and PostgreSQL."""

from __future__ import annotations

import math

import numpy
import pytest

from doteval.analysis.compare import Verdict
from doteval.analysis.score_arrays import EvaluationArrays
from doteval.analysis.thresholds import MissedThreshold
from doteval.core.experiments import EvaluationStatus
from doteval.core.provenance import Provenance
from doteval.errors import NotFoundError, UsageError
from doteval.store import Store, comparisons
from doteval.store import score_arrays as module
from doteval.store.comparisons import (
    ComparisonOptions,
    check_not_worse,
    compare_pairs,
    differences,
    match_evaluations,
    select_evaluations,
    spending_of,
)
from doteval.store.score_arrays import read_all_arrays, read_arrays
from tests.support.comparisons import FAILED, PENDING, SKIPPED, add_experiment

BEFORE = [True, False] * 20
AFTER = [True, False] * 5 + [False, False] * 15


@pytest.mark.parametrize("page", [3, 10_000])
def test_what_is_read(store: Store, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE", page)
    scores = {
        "right": [True, FAILED, False, SKIPPED, True, PENDING, True],
        "share": [0.5, FAILED, None, SKIPPED, math.nan, PENDING, 1],
        "label": ["a", FAILED, ("b", "c"), SKIPPED, "a", PENDING, [1]],
    }
    evaluation = add_experiment(
        store, "first", scores, metrics={"share": ("mean", "std")}, topics=list("aabbbcc"), keys=list("abcdefg")
    )
    found = read_arrays(store._database, evaluation, "topic")
    assert found.indexes.tolist() == list(range(7))
    assert (found.failed.tolist(), found.skipped.tolist()) == ([0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0])
    assert len(numpy.unique(found.keys, axis=0)) == 7
    assert found.clusters is not None
    assert len(numpy.unique(found.clusters, axis=0)) == 3
    assert found.unfinished == "first::eval_qa is completed, with 1 row pending"
    right, share, label = (found.scores[name] for name in scores)
    assert (right.rows.tolist(), right.numbers.tolist(), right.only_true_false) == ([0, 2, 4, 6], [1, 0, 1, 1], True)
    assert share.rows.tolist() == [0, 4, 6]
    assert share.metrics == ("mean", "std")
    assert share.values(numpy.arange(3))[::2] == [0.5, 1.0]
    assert label.values(numpy.arange(4)) == ["a", ("b", "c"), "a", [1]]
    assert [label.value(place) for place in (0, 3)] == ["a", [1]]


@pytest.mark.parametrize("at_once", [1, 10_000])
def test_several_evaluations_are_read_together(store: Store, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparisons, "RESULTS_AT_ONCE", at_once)
    many = {
        "right": [True, FAILED, False, SKIPPED, True, PENDING],
        "share": [0.5, FAILED, None, SKIPPED, math.nan, PENDING],
        "label": ["a", FAILED, ("b", "c"), SKIPPED, "a", PENDING],
    }
    two = {"right": [True, False, FAILED, True], "x\x00": [1.5, math.inf, FAILED, None]}
    for experiment in ("base", "new"):
        add_experiment(store, experiment, many, topics=list("aabbba"), name="eval_many")
        add_experiment(store, experiment, two, topics=list("ab"), epochs=2, name="eval_two")
        add_experiment(store, experiment, {"right": []}, name="eval_none", status=EvaluationStatus.SKIPPED)
        add_experiment(store, experiment, {"right": [True, True, False]}, topics=list("aab"), name="eval_three")
    evaluations = store.evaluations.of(store.experiments.find("base"))
    together = read_all_arrays(store._database, evaluations, "topic")
    assert list(together) == [each.id for each in evaluations]
    for each in evaluations:
        assert shown(together[each.id]) == shown(read_arrays(store._database, each, "topic"))
    matched = match_evaluations(select_evaluations(store, "base"), [select_evaluations(store, "new")])
    found = compare_pairs(store, matched, ComparisonOptions())
    assert [(each.evaluation, each.matched) for each in found.evaluations] == [
        ("eval_many", 6),
        ("eval_two", 2),
        ("eval_none", 0),
        ("eval_three", 3),
    ]
    assert {metric.difference for _, metric in found.metrics} == {0.0}


def shown(arrays: EvaluationArrays) -> str:
    """All fields, for which arrays have no equality."""
    return repr(arrays) + repr([(score.labels, score.codes) for score in arrays.scores.values()])


def test_samples_and_rows_to_be_retried(store: Store) -> None:
    scores = {"right": [True, True, False, FAILED, FAILED, FAILED]}
    evaluation = add_experiment(store, "first", scores, epochs=2)
    found = read_arrays(store._database, evaluation)
    assert (found.samples, found.failed.tolist()) == (2, [0, 1, 2])
    assert found.scores["right"].rows.tolist() == [0, 0, 1]
    assert store.rows.retry_failed(evaluation.id) == 3
    (evaluation,) = store.evaluations.of(evaluation.experiment)
    # They are pending until they have run again.
    found = read_arrays(store._database, evaluation)
    assert found.failed.tolist() == [0, 0, 0]
    assert found.unfinished is not None


def test_comparing(store: Store) -> None:
    add_experiment(store, "base", {"right": BEFORE})
    add_experiment(store, "new", {"right": AFTER}, model="gpt-large", code="2", cost=1.5)
    sides = [select_evaluations(store, name) for name in ("base", "new")]
    matched = match_evaluations(sides[0], sides[1:])
    found = compare_pairs(store, matched, ComparisonOptions(changed_rows=2))
    (metric,) = found.evaluations[0].metrics
    assert (found.verdict, metric.n, metric.worsened, metric.improved) == (Verdict.WORSE, 40, 15, 0)
    assert metric.p_value == pytest.approx(2 / 2**15)
    assert [row.index for row in metric.changed] == [10, 12]
    (pair,) = matched.pairs
    spending = spending_of(store, [pair.baseline, pair.other])
    assert spending[pair.baseline.id].usage.cost == pytest.approx(40 * 0.05)
    assert spending[pair.other.id].usage.cost == pytest.approx(40 * 0.15)
    assert spending[pair.other.id].usage.prompt_tokens == 400
    assert spending[pair.other.id].row_seconds == pytest.approx(0.25)
    commands = {
        pair.baseline.experiment.id: [
            Provenance((), versions={"openai": version, "python": "3.11.2"}) for version in ("3.56", "3.57")
        ],
        # No row ran with what only recomputed metrics.
        pair.other.experiment.id: [
            Provenance((), versions={"openai": "3.57", "python": "3.11.2", "celery": "5.7"}),
            Provenance(("doteval", "recompute", "new"), versions={"openai": "3.58", "python": "3.12"}),
        ],
    }
    assert differences(pair, spending, commands) == [
        "the code differs: evals/eval_qa.py",
        "the models differ: gpt-small | gpt-large",
        "the versions of openai differ: 3.56, 3.57 | 3.57",
    ]


def test_clusters(store: Store) -> None:
    topics = [f"topic {row // 5}" for row in range(40)]
    for name, values in (("base", BEFORE), ("new", AFTER)):
        add_experiment(store, name, {"right": values}, topics=topics)
    sides = [select_evaluations(store, name) for name in ("base", "new")]
    matched = match_evaluations(sides[0], sides[1:])
    (metric,) = compare_pairs(store, matched, ComparisonOptions("topic")).evaluations[0].metrics
    assert (metric.n, metric.units) == (40, 8)
    # Six of eight topics became worse: 2 · 0.5^6.
    assert metric.p_value == pytest.approx(2 / 2**6)
    with pytest.raises(UsageError, match="no column 'subject' to cluster by"):
        compare_pairs(store, matched, ComparisonOptions("subject"))


def test_which_evaluations_are_meant(store: Store) -> None:
    for name in ("eval_x[a]", "eval_x[b]", "EvalIt::eval_y"):
        add_experiment(store, "first::run", {"right": BEFORE}, name=name)

    def names(target: str, contains: str | None = None) -> list[str]:
        return [each.name for each in select_evaluations(store, target, contains).evaluations]

    assert names("first::run") == ["eval_x[a]", "eval_x[b]", "EvalIt::eval_y"]
    assert names("first::run::eval_x[b]") == ["eval_x[b]"]
    assert names("first::run::evals/eval_qa.py::eval_x[a]") == ["eval_x[a]"]
    assert names("first::run::eval_x") == ["eval_x[a]", "eval_x[b]"]
    assert names("first::run::eval_y") == ["EvalIt::eval_y"]
    assert names("first::run", "[a]") == ["eval_x[a]"]
    with pytest.raises(NotFoundError, match="has no evaluation '"):
        names("first::run::eval_z")
    with pytest.raises(NotFoundError, match="no experiment named 'first'"):
        names("first::eval_x")


def test_which_evaluations_belong_together(store: Store) -> None:
    for experiment, names in (("base", ("eval_x[a]", "eval_y")), ("new", ("eval_x[a]", "eval_x[b]"))):
        for name in names:
            add_experiment(store, experiment, {"right": BEFORE}, name=name)

    def matched(*targets: str) -> tuple[list[tuple[str, str]], list[str], list[str]]:
        first, *others = (select_evaluations(store, target) for target in targets)
        found = match_evaluations(first, others)
        pairs = [(pair.baseline.name, pair.other.name) for pair in found.pairs]
        return pairs, [each.evaluation for each in found.missing], [each.name for each in found.only_others]

    assert matched("base", "new") == ([("eval_x[a]", "eval_x[a]")], ["evals/eval_qa.py::eval_y"], ["eval_x[b]"])
    assert matched("new::eval_x[a]", "new::eval_x[b]") == ([("eval_x[a]", "eval_x[b]")], [], [])
    assert matched("base::eval_y", "new::eval_x[b]")[0] == [("eval_y", "eval_x[b]")]
    assert matched("base::eval_x", "new::eval_x")[0] == [("eval_x[a]", "eval_x[a]")] * 1
    with pytest.raises(NotFoundError, match="no evaluations of the same name"):
        match_evaluations(*_first_and_rest(store, "base::eval_y", "new"))


def _first_and_rest(store: Store, *targets: str):  # type: ignore[no-untyped-def]
    first, *others = (select_evaluations(store, target) for target in targets)
    return first, others


def test_an_experiment_that_must_not_be_worse(store: Store) -> None:
    add_experiment(store, "base", {"right": BEFORE})
    add_experiment(store, "base", {"right": BEFORE}, name="eval_more")
    same = add_experiment(store, "same", {"right": BEFORE})
    worse = add_experiment(store, "worse", {"right": AFTER})
    more = add_experiment(store, "same", {"right": BEFORE}, name="eval_new")
    left = add_experiment(store, "left", {"right": [*BEFORE[:39], PENDING]}, status=EvaluationStatus.CANCELLED)
    options = ComparisonOptions()
    # eval_more was not run, and is not asked for.
    passed = check_not_worse(store, "base", [same], options, strict=True)
    assert passed.missed == ()
    assert passed.comparison is not None
    assert [each.other_evaluation for each in passed.comparison.evaluations] == ["eval_qa"]
    (missed,) = check_not_worse(store, "base", [worse], options).missed
    assert missed.message.startswith("eval_qa right.accuracy is WORSE (0.500 in the baseline, now 0.125, 95% interval")
    assert missed.message.endswith("(--fail-if-worse base)")
    assert missed.evaluation == worse.spec.nodeid
    # Without a counterpart, nothing can be said.
    unknown = MissedThreshold("eval_new is not among the evaluations of base (--fail-if-worse base)", more.spec.nodeid)
    assert check_not_worse(store, "base", [same, more], options).missed == (unknown,)
    alone = check_not_worse(store, "base", [more], options)
    assert (alone.missed, alone.comparison) == ((unknown,), None)
    assert check_not_worse(store, "base::eval_more", [more], options).missed == ()
    (missed,) = check_not_worse(store, "base", [left], options).missed
    assert missed.message == "left::eval_qa is cancelled, with 1 row pending (--fail-if-worse base)"
    assert missed.evaluation == left.spec.nodeid
