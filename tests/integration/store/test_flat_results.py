"""Results as a table: each line says what the record says, whatever the size of the pages."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from doteval.analysis.record_documents import label
from doteval.core.experiments import Evaluation, EvaluationSpec
from doteval.core.json_codec import encode
from doteval.core.results import Outcome, Record, Row, Score, Usage
from doteval.core.row_labels import LabelJudgement, label_of
from doteval.errors import ChangedError, UsageError
from doteval.store import NewResult, Store, WorkerInfo, index_windows, result_pages
from doteval.store.row_labels import RowLabelWriter
from tests.support.store_workload import done, failed, skipped

OUTCOMES: list[Outcome] = [
    done(prompt="ä", model_response={"text": "b"}, metadata={"m": (1, 2)}),
    done(0.5, usage=(Usage("small", requests=1, prompt_tokens=10, cost=0.5), Usage("large", requests=2, attempts=3))),
    failed("no\x00 answer", usage=(Usage("small", completion_tokens=7),)),
    skipped(),
    replace(done(), scores=(Score("label", "a,b"), Score("when", date(2026, 1, 1)), Score("none", None))),
    replace(done(), scores=(Score("list", [1, {"k": (1, 2)}]), Score("big", 2**70), Score("label", '"]'))),
    done("{not json", prompt="[1", model_response=[1, "two"]),
]
VALUES: list[dict[str, Any]] = [
    {"text": f"t{index}", "more": value}
    for index, value in enumerate(["a", 1, None, [1, 2], {"k": 1}, True, date(2026, 1, 1)])
]


def write(store: Store, *, name: str = "eval_qa", epochs: int = 1) -> Evaluation:
    spec = EvaluationSpec("evals/eval_qa.py", name, ("text", "more"))
    evaluation = store.evaluations.begin(store.experiments.begin("an experiment"), spec, epochs=epochs)
    rows = [Row(index, f"k{index}", values) for index, values in enumerate(VALUES)]
    store.rows.add(evaluation.id, rows)
    store.rows.set_total(evaluation.id, len(rows), complete=True, fingerprint="f")
    worker = store.workers.begin(WorkerInfo("local", "here", 1, ("doteval",)))
    store.results.write(
        [
            NewResult(evaluation.id, replace(row, sample=number), outcome)
            for row, outcome in zip(rows, OUTCOMES, strict=True)
            for number in range(epochs)
        ],
        worker,
    )
    return evaluation


def read(store: Store, *evaluations: Evaluation, columns: list[str] | None = None) -> list[dict[str, Any]]:
    table = store.results.flat(evaluations).table(columns)
    lines: list[dict[str, Any]] = []
    for page in table.pages:
        (length,) = {len(column) for column in page.values()}
        lines += [
            {name: page[name][place] if name in page else None for name in table.columns} for place in range(length)
        ]
    return lines


def flat(value: Any) -> Any:
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else str(value)
    return encode(value)


def expected(evaluation: Evaluation, record: Record) -> dict[str, Any]:
    """The line of a record, without the columns that are None."""
    row, outcome = record.row, record.outcome
    costs = [usage.cost for usage in outcome.usage if usage.cost is not None]
    line = {
        "experiment": evaluation.experiment.name,
        "evaluation": evaluation.spec.nodeid,
        "index": row.index,
        "key": row.key,
        "sample": row.sample,
        "status": outcome.status.value,
        **{f"row.{name}": flat(value) for name, value in row.values.items()},
        **{f"score.{score.name}": flat(score.value) for score in outcome.scores},
        "prompt": flat(outcome.prompt),
        "response": flat(outcome.model_response),
        "metadata": flat(outcome.metadata) if outcome.metadata else None,
        "error_type": outcome.error and outcome.error.type,
        "error": outcome.error and outcome.error.message,
        "error_class": outcome.error and outcome.error.error_class.value,
        "models": ", ".join(usage.model for usage in outcome.usage) or None,
        "requests": sum(usage.requests for usage in outcome.usage),
        "attempts": sum(usage.attempts for usage in outcome.usage),
        "cache_hits": 0,
        "prompt_tokens": sum(usage.prompt_tokens for usage in outcome.usage),
        "completion_tokens": sum(usage.completion_tokens for usage in outcome.usage),
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "cost": sum(costs) if costs else None,
        "judge_tokens": 0,
        "batch_tokens": 0,
        "started_at": datetime.fromtimestamp(outcome.started_at, UTC),
        "seconds": outcome.seconds,
        "worker": record.worker,
        "label": label_of(record.labels),
        "labels": flat([label(each) for each in record.labels]) if record.labels else None,
    }
    return {name: value for name, value in line.items() if value is not None}


def without_none(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if value is not None} for line in lines]


@pytest.mark.parametrize("page", [1, 3, 100])
def test_each_line_says_what_the_record_says(store: Store, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(result_pages, "_FIRST_PAGE_ROWS", page)
    monkeypatch.setattr(result_pages, "_PAGE_ROWS", page)
    first, second = write(store, epochs=2), write(store, name="eval_other")
    with contextlib.closing(RowLabelWriter(store.raw_url)) as labels:
        for person, judgement in (("ann\x00", LabelJudgement.RIGHT), ("bob", LabelJudgement.WRONG)):
            labels.put(first.id, 1, 1, person=person, judgement=judgement, note='"a", b')
    lines = read(store, first, second)
    assert sum(line["label"] == "disputed" for line in lines) == 1
    records = [(each, record) for each in (first, second) for record in store.results.records(each.id)]
    assert len(lines) == 21
    assert without_none(lines) == [expected(*each) for each in records]


def test_the_columns_in_order(store: Store) -> None:
    names = store.results.flat([write(store)]).columns()
    assert names[:8] == ["experiment", "evaluation", "index", "key", "sample", "status", "row.text", "row.more"]
    assert names[8:14] == [f"score.{name}" for name in ("big", "exact_match", "label", "list", "none", "when")]
    assert names[14:17] == ["prompt", "response", "metadata"]


def test_only_some_columns(store: Store) -> None:
    lines = read(store, write(store), columns=["score.label", "cost", "row.text"])
    assert [list(line) for line in lines] == [["score.label", "cost", "row.text"]] * 7
    assert [line["score.label"] for line in lines] == [None] * 4 + ["a,b", '"]', None]
    assert [line["cost"] for line in lines] == [None, 0.5, *[None] * 5]


def test_the_usage_of_judges_and_of_batches_is_also_apart(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = (
        Usage("m", prompt_tokens=1, completion_tokens=2, cost=1.0),
        Usage("m", prompt_tokens=10, completion_tokens=20, cost=2.0, judge=True),
        Usage("n", prompt_tokens=100, completion_tokens=200, judge=True),
        Usage("m", prompt_tokens=1000, completion_tokens=2000, cost=4.0, batch=True),
        Usage("m", prompt_tokens=10000, completion_tokens=20000, cost=8.0, judge=True, batch=True),
    )
    monkeypatch.setattr(f"{__name__}.OUTCOMES", [done(usage=usage), *OUTCOMES[1:]])
    names = ["models", "prompt_tokens", "cost", "judge_tokens", "judge_cost", "batch_tokens", "batch_cost"]
    evaluation = write(store)
    first, second, *_ = read(store, evaluation, columns=names)
    assert first == dict(zip(names, ["m, n", 11111, 15.0, 30330, 10.0, 33000, 12.0], strict=True))
    assert [second[name] for name in names[3:]] == [0, None, 0, None]
    (only, *_) = read(store, evaluation, columns=["batch_cost"])
    assert only == {"batch_cost": 12.0}


def test_an_unknown_column_is_refused_with_those_there_are(store: Store) -> None:
    with pytest.raises(UsageError, match=r"no column 'score\.f1'") as raised:
        read(store, write(store), columns=["key", "score.f1"])
    assert "score.exact_match" in str(raised.value.remedy)


def test_keys_of_metadata_are_columns_if_they_are_asked_for(store: Store) -> None:
    evaluation = write(store)
    lines = read(store, evaluation, columns=["index", "metadata.m"])
    assert [line["metadata.m"] for line in lines] == [encode((1, 2)), *[None] * 6]
    assert not any(name.startswith("metadata.") for name in store.results.flat([evaluation]).columns())
    with pytest.raises(UsageError, match=r"there is no column 'metadata\.n'") as caught:
        read(store, evaluation, columns=["metadata.n"])
    assert "metadata.m" in str(caught.value.remedy)


def test_long_rows_come_in_small_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_pages, "_FIRST_PAGE_ROWS", 1)
    monkeypatch.setattr(result_pages, "_PAGE_CHARACTERS", 60)
    sizes = [len(page["key"]) for page in store.results.flat([write(store)]).table().pages]
    assert sum(sizes) == 7
    assert max(sizes) < 4


def test_a_score_that_comes_meanwhile_is_not_left_out_in_silence(store: Store) -> None:
    evaluation = write(store)
    table = store.results.flat([evaluation]).table()
    row = Row(7, "k7", VALUES[0])
    store.rows.add(evaluation.id, [row])
    outcome = replace(done(), scores=(Score("new", 1),))
    store.results.write([NewResult(evaluation.id, row, outcome)], None)
    with pytest.raises(ChangedError, match="got the new score 'new' meanwhile"):
        list(table.pages)


def test_only_the_results_of_a_filter(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_windows, "_FIRST_WINDOW", 2)
    monkeypatch.setattr(result_pages, "_FIRST_PAGE_ROWS", 1)
    evaluations = [write(store), write(store, name="eval_other")]
    where = store.selections.filter(evaluations, "score.label = 'a,b' or error ~ 'ANSWER' or index = 6")
    table = store.results.flat(evaluations, where).table(["evaluation", "index"])
    found = [line for page in table.pages for line in zip(page["evaluation"], page["index"], strict=True)]
    assert found == [(f"evals/eval_qa.py::{name}", row) for name in ("eval_qa", "eval_other") for row in (2, 4, 6)]
