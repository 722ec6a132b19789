"""Results of all kinds, at random, for tests of what finds them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

from doteval.core.experiments import Evaluation, EvaluationSpec
from doteval.core.filters import FieldKind, FilterField
from doteval.core.results import Outcome, Record, Row, RowError, RowStatus, Score, Usage
from doteval.core.row_labels import LabelJudgement, label_of
from doteval.store import NewResult, Store, WorkerInfo
from doteval.store.row_labels import RowLabelWriter

COLUMNS = ("category", "odd \"key\\ é'", "n")
METADATA = ("tool", "odd \"key\\ é'")
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -2.5,
        1e-7,
        12345678901234567890,
        "",
        "geo",
        "GEO",
        "Äpfel",
        "äPFEL und ß",
        "10",
        "true",
    ),
    *(
        'it\'s "quoted" \\ %_\n',
        "日本",
        "🙂 smile",
        "K\u212a",
        [1, "geo"],
        {"role": "user", "content": "Sorry Äpfel"},
        [],
    ),
]
# One row on which people agree, one on which they do not, and one with a single label.
LABELLED = (
    (1, 0, "ann", LabelJudgement.WRONG),
    (1, 0, "bob", LabelJudgement.WRONG),
    (2, 1, "ann", LabelJudgement.RIGHT),
    (2, 1, "Bob", LabelJudgement.WRONG),
    (30, 0, "ann", LabelJudgement.RIGHT),
)
NAMES = ("exact_match", "f 1", "label")
SCORES: list[Any] = [True, False, 0.5, 1, -3, "geo", "Geo", 'a"b\\c\n', None]


def made(random_: random.Random, index: int, sample: int) -> tuple[Row, Outcome]:
    values = {column: random_.choice(VALUES) for column in COLUMNS if random_.random() < 0.9}
    status = random_.choice(list(RowStatus)[1:])
    error = None
    if status is not RowStatus.DONE:
        error = RowError(random_.choice(["ValueError", "Skipped"]), random_.choice(["geo", "No Äpfel", ""]))
    usage = tuple(
        Usage(f"m{each}", prompt_tokens=random_.randrange(3), completion_tokens=2, cost=random_.choice([None, 0.5]))
        for each in range(random_.randrange(3))
    )
    scores = tuple(Score(name, random_.choice(SCORES)) for name in NAMES if random_.random() < 0.8)
    drawn = random.Random(2 * index + sample)
    outcome = Outcome(
        status,
        1e9,
        random_.choice([0.0, 0.25, 1.0]),
        scores if status is RowStatus.DONE else (),
        prompt=random_.choice(VALUES),
        model_response=random_.choice(VALUES),
        error=error,
        usage=usage,
        metadata={key: drawn.choice(VALUES) for key in METADATA if drawn.random() < 0.5},
    )
    return Row(index, f"{index:04x}key", values, sample), outcome


def value_of(record: Record, attempts: int = 1) -> Callable[[FilterField], Any]:
    outcome = record.outcome
    costs = [each.cost for each in outcome.usage if each.cost is not None]
    facts = {
        "index": record.row.index,
        "key": record.row.key,
        "sample": record.row.sample,
        "status": outcome.status.value,
        "error": outcome.error and outcome.error.message,
        "error_type": outcome.error and outcome.error.type,
        "error_class": outcome.error and outcome.error.error_class.value,
        "prompt": outcome.prompt,
        "response": outcome.model_response,
        "tokens": sum(each.prompt_tokens + each.completion_tokens for each in outcome.usage),
        "prompt_tokens": sum(each.prompt_tokens for each in outcome.usage),
        "completion_tokens": sum(each.completion_tokens for each in outcome.usage),
        "cost": sum(costs) if costs else None,
        "seconds": outcome.seconds,
        "attempts": attempts,
        "worker": record.worker,
        "label": label_of(record.labels),
    }

    def value(field: FilterField) -> Any:
        if field.kind is FieldKind.ROW:
            return record.row.values.get(field.name)
        if field.kind is FieldKind.METADATA:
            return outcome.metadata.get(field.name)
        if field.kind is FieldKind.SCORE:
            return next((each.value for each in outcome.scores if each.name == field.name), None)
        return facts[field.name]

    return value


def store_mixed(store: Store) -> Evaluation:
    """Store an evaluation with results of all kinds, of which every thirteenth row has none."""
    random_ = random.Random(27)
    spec = EvaluationSpec("a.py", "eval_a", COLUMNS)
    evaluation = store.evaluations.begin(store.experiments.begin("x"), spec, epochs=2)
    everything = [made(random_, index, sample) for index in range(40) for sample in range(2) if index % 13]
    store.rows.add(evaluation.id, list({row.index: row for row, _ in everything}.values()))
    worker = store.workers.begin(WorkerInfo("w", "h", 1, ()))
    keys = {row.index: row for row, _ in everything}
    new = [
        NewResult(evaluation.id, Row(row.index, keys[row.index].key, {}, row.sample), outcome)
        for row, outcome in everything
    ]
    store.results.write(new[:50], worker)
    store.results.write(new[50:], None)
    with contextlib.closing(RowLabelWriter(store.raw_url)) as labels:
        for index, sample, person, judgement in LABELLED:
            labels.put(evaluation.id, index, sample, person=person, judgement=judgement, note=None)
    return evaluation
