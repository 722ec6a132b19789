"""Finds what a judge said of the rows that people have labelled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doteval.analysis.judge_check import JudgedRow
from doteval.core.experiments import Evaluation, Experiment
from doteval.core.plugins import did_you_mean
from doteval.core.wording import counted
from doteval.datasets.files import open_file
from doteval.errors import NotFoundError, UsageError
from doteval.store import Store

Labels = Mapping[tuple[str, int], tuple[str, ...]]
"""The labels by the row's key and the sample."""


@dataclass(frozen=True, slots=True)
class GivenLabels:
    """The labels of a file or of the store, and whether they say which sample of a row a label is for."""

    labels: Labels
    names_samples: bool


@dataclass(frozen=True, slots=True)
class JudgedRows:
    """The rows that have both a label and a score of the judge.

    without_row, without_score: labels of rows that are not in the evaluation, and of rows without a score, as failed
        ones.
    """

    evaluation: str
    score: str
    rows: list[JudgedRow]
    without_row: int
    without_score: int

    @property
    def notes(self) -> list[str]:
        """What the user should know of the labels that were not used."""
        lines = []
        if self.without_row:
            lines.append(f"{counted(self.without_row, 'label')} left out: no row has that key")
        if self.without_score:
            lines.append(f"{counted(self.without_score, 'label')} left out: the row has no score {self.score!r}")
        return lines


def read_labels(path: Path, key: str, label: str) -> GivenLabels:
    """Read a file of labels. Cells without a label are skipped.

    key, label: the columns with the keys of rows and with the labels. A column named sample, if there is one, says
        which sample of the row was labelled.

    Raises DatasetError or UsageError: the file cannot be read, or lacks a column.
    """
    found: dict[tuple[str, int], tuple[str, ...]] = {}
    names_samples = False
    for record in open_file(path):
        for column in (key, label):
            if column not in record:
                raise UsageError(
                    f"{path.name} has no column {column!r}",
                    remedy=f"Its columns are {', '.join(map(str, record))}. Name yours with --key and --label.",
                )
        value = record[label]
        if value is None or not _text(value).strip():
            continue
        names_samples = names_samples or "sample" in record
        place = (_text(record[key]), _sample(path, record.get("sample", 0)))
        found[place] = (*found.get(place, ()), _text(value))
    if not found:
        raise UsageError(f"{path.name} has no labels in the column {label!r}")
    return GivenLabels(found, names_samples)


def stored_labels(store: Store, evaluation: Evaluation) -> GivenLabels:
    """The labels that people have given in the web view.

    Raises UsageError: there are none.
    """
    found: dict[tuple[str, int], tuple[str, ...]] = {}
    for key, sample, label in store.row_labels.of_evaluation(evaluation.id):
        found[key, sample] = (*found.get((key, sample), ()), label.judgement.value)
    if not found:
        raise UsageError(
            f"nobody has labelled a row of {evaluation.spec.nodeid}",
            remedy="Label rows in the browser (doteval view --allow-labels), or name a file with labels.",
        )
    return GivenLabels(found, names_samples=True)


def judged_rows(
    store: Store,
    experiment: Experiment,
    given: GivenLabels | None,
    *,
    evaluation: str | None = None,
    score: str | None = None,
    column: str | None = None,
) -> JudgedRows:
    """Find the judge's values of the rows with labels.

    given: the labels of a file, None for those of the store.
    evaluation: a part of the name of the evaluation, if the experiment has several with that score.
    score: the judge's score, if the evaluation has several.
    column: the column of the dataset that labels name rows by, None for their keys.

    Raises NotFoundError or UsageError: the evaluation, the score or the column is not clear, or no label is of a row.
    """
    chosen, name = _chosen(store, store.evaluations.of(experiment, evaluation), score)
    file = stored_labels(store, chosen) if given is None else given
    if column is not None and column not in chosen.spec.columns:
        raise NotFoundError(
            f"the dataset of {chosen.spec.nodeid} has no column {column!r}",
            remedy=did_you_mean(column, chosen.spec.columns),
        )
    rows: list[JudgedRow] = []
    without_score, seen = 0, set()
    for key, sample, value in _values(store, chosen, name, column):
        if sample and not file.names_samples and (key, 0) in file.labels:
            raise UsageError(
                f"row {key!r} has several samples, and the labels do not say which they are of",
                remedy="Add a column named sample, as doteval export writes it.",
            )
        labels = file.labels.get((key, sample))
        if labels is None:
            continue
        if (key, sample) in seen:
            raise UsageError(
                f"several rows have {key!r} in the column {column!r}, so its labels are not of one row",
                remedy="Label by the column key, as doteval export writes it.",
            )
        seen.add((key, sample))
        # What is no number says nothing, and differs from itself.
        if value is None or value != value:
            without_score += len(labels)
        else:
            rows.append(JudgedRow(key, value, labels))
    without_row = sum(len(labels) for place, labels in file.labels.items() if place not in seen)
    if not rows:
        example = next(iter(file.labels))[0]
        raise UsageError(
            f"no row of {chosen.spec.nodeid} with the score {name!r} has a label; the first label is of {example!r}",
            remedy=f"See the keys with: doteval export {experiment.name} - --columns key",
        )
    return JudgedRows(chosen.spec.nodeid, name, rows, without_row, without_score)


def _chosen(store: Store, evaluations: list[Evaluation], score: str | None) -> tuple[Evaluation, str]:
    also = [] if score is None else [score]
    names = {each.id: store.selections.score_names(each.id, also) for each in evaluations}
    known = list(dict.fromkeys(name for found in names.values() for name in found))
    if score is not None and score not in known:
        raise NotFoundError(f"no row has the score {score!r}", remedy=did_you_mean(score, known))
    if score is None:
        if len(known) != 1:
            what = f"there are the scores {', '.join(known)}" if known else "no row has a score"
            raise UsageError(f"{what}, and the judge's is not named", remedy="Name it with --score.")
        score = known[0]
    having = [each for each in evaluations if score in names[each.id]]
    if len(having) > 1:
        raise UsageError(
            f"several evaluations have the score {score!r}: {', '.join(each.spec.nodeid for each in having)}",
            remedy="Name one with --evaluation.",
        )
    return having[0], score


def _values(store: Store, evaluation: Evaluation, score: str, column: str | None) -> Iterator[tuple[str, int, Any]]:
    """The key, the sample and the judge's value of each result, in pages."""
    by = "key" if column is None else f"row.{column}"
    scored = f"score.{score}"
    for page in store.results.flat([evaluation]).table([by, "sample", scored]).pages:
        keys, samples = page[by], page["sample"]
        values = page.get(scored) or [None] * len(keys)
        for key, sample, value in zip(keys, samples, values, strict=True):
            yield _text(key), int(sample), value


def _text(value: Any) -> str:
    """A value as it is written in a CSV file."""
    return value if isinstance(value, str) else str(value)


def _sample(path: Path, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UsageError(f"{path.name} has {value!r} in the column sample, which is no number") from None
