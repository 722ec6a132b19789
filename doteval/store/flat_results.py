"""Reads results as a table with one line a result: what exports and data frames are made of.

It reads columns, not `Record`s, which takes a third of the time.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Text, select, type_coerce

from doteval.analysis.export import CellTable, Page, cell, cells
from doteval.analysis.record_documents import label
from doteval.core.experiments import Evaluation
from doteval.core.filters import Filter
from doteval.core.json_codec import decode, decode_all, unescape_text
from doteval.core.row_labels import RowLabel, label_of
from doteval.errors import ChangedError, UsageError
from doteval.store.engine import Database
from doteval.store.metadata_names import metadata_names
from doteval.store.result_pages import ResultPage, result_pages
from doteval.store.row_labels import stored_label
from doteval.store.tables import ROW_LABEL, SCORE, USAGE

_SUMS = (
    "requests",
    "attempts",
    "cache_hits",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
)
# The part of tokens and cost that judges asked for, or that batches answered. What judges asked of batches is in both.
_PARTS = ("judge_tokens", "judge_cost", "batch_tokens", "batch_cost")
_FIRST = ("experiment", "evaluation", "index", "key", "sample", "status")
_LAST = (
    "prompt",
    "response",
    "metadata",
    "error",
    "error_type",
    "error_class",
    "models",
    *_SUMS,
    "cost",
    *_PARTS,
    "started_at",
    "seconds",
    "worker",
    "label",
    "labels",
)
_USAGE = frozenset((*_SUMS, *_PARTS, "models", "cost"))
_LABELS = frozenset(("label", "labels"))


class FlatResults:
    """The results of evaluations of one experiment as a table: all, or those that a filter matches.

    Its columns have the names of the fields of filters: what identifies the row, its values as ``row.COLUMN``, its
    scores as ``score.NAME``, and the rest of its result. Usage is the sum over all models; that of judges and that of
    batches are also apart. Rows without a result have no line. ``metadata.KEY`` is a column if it is asked for.
    """

    def __init__(self, database: Database, evaluations: Sequence[Evaluation], where: Filter | None = None) -> None:
        self._database = database
        self._evaluations = evaluations
        self._where = where

    def columns(self) -> list[str]:
        """The names of all columns, in order."""
        values = dict.fromkeys(name for each in self._evaluations for name in each.spec.columns)
        return [
            *_FIRST,
            *(f"row.{name}" for name in values),
            *(f"score.{name}" for name in self._score_names()),
            *_LAST,
        ]

    def table(self, columns: Sequence[str] | None = None) -> CellTable:
        """The table, whose pages are read as they are asked for; no query stays open between them.

        columns: only these, in this order.

        Raises UsageError if there is no such column.
        """
        known = self.columns()
        if keys := [name.removeprefix(_OF_METADATA) for name in columns or () if name.startswith(_OF_METADATA)]:
            found = (name for each in self._evaluations for name in metadata_names(self._database, each.id, keys))
            known += [f"{_OF_METADATA}{name}" for name in dict.fromkeys(found)]
        for name in columns or ():
            if name not in known:
                raise UsageError(f"there is no column {name!r}", remedy=f"The columns are {', '.join(known)}.")
        wanted = known if columns is None else list(columns)
        return CellTable(wanted, self._pages(wanted, known))

    def _score_names(self) -> list[str]:
        names: dict[str, None] = {}
        with self._database.read() as connection:
            for evaluation in self._evaluations:
                query = select(SCORE.c.name).where(SCORE.c.evaluation_id == evaluation.id).distinct()
                names.update(dict.fromkeys(sorted(connection.scalars(query))))
        return list(names)

    def _pages(self, wanted: Sequence[str], known: Sequence[str]) -> Iterator[Page]:
        names = {name for name in wanted if name in _STORED}
        if any(name.startswith("row.") for name in wanted):
            names.add("content")
        keys = [name.removeprefix(_OF_METADATA) for name in wanted if name.startswith(_OF_METADATA)]
        if keys:
            names.add("metadata")
        scores = (_SCORE_NAME, SCORE.c.value) if any(name.startswith("score.") for name in wanted) else ()
        usage = () if _USAGE.isdisjoint(wanted) else USAGE_COLUMNS
        labels = () if _LABELS.isdisjoint(wanted) else LABEL_COLUMNS
        for evaluation in self._evaluations:
            pages = result_pages(
                self._database, evaluation.id, names, self._where, scores=scores, usage=usage, labels=labels
            )
            for page in pages:
                yield _flat_page(evaluation, page, frozenset(known), keys)


def _flat_page(evaluation: Evaluation, page: ResultPage, known: frozenset[str], keys: Sequence[str]) -> Page:
    columns = dict(page.columns)
    if keys:
        metadata = decode_all([text or "null" for text in columns["metadata"]])
        for key in keys:
            columns[f"{_OF_METADATA}{key}"] = cells([None if found is None else found.get(key) for found in metadata])
    columns["experiment"] = [cell(evaluation.experiment.name)] * len(page)
    columns["evaluation"] = [cell(evaluation.spec.nodeid)] * len(page)
    for name in _CLEANED.intersection(columns):
        columns[name] = cells(columns[name])
    for name in ("prompt", "response"):
        if name in columns:
            columns[name] = stored_cells(columns[name])
    if "started_at" in columns:
        columns["started_at"] = [datetime.fromtimestamp(moment, UTC) for moment in columns["started_at"]]
    if "content" in columns:
        rows = decode_all(columns.pop("content"))
        for name in evaluation.spec.columns:
            columns[f"row.{name}"] = cells([row.get(name) for row in rows])
    columns.update(_scores(evaluation, page, known))
    columns.update(usage_sums(page))
    columns.update(_usage_parts(page))
    columns.update(_label_cells(page))
    return columns


def _scores(evaluation: Evaluation, page: ResultPage, known: frozenset[str]) -> Mapping[str, Sequence[Any]]:
    by_name: dict[str, list[str | None]] = {}
    for place, (name, value) in page.scores:
        column = by_name.get(name)
        if column is None:
            column = by_name[name] = [None] * len(page)
        column[place] = value
    columns = {f"score.{unescape_text(name)}": stored_cells(column) for name, column in by_name.items()}
    for name in columns:
        if name not in known:
            raise ChangedError(
                f"{evaluation.spec.nodeid} got the new score {name.removeprefix('score.')!r} meanwhile",
                remedy="Read its results again.",
            )
    return columns


def usage_sums(page: ResultPage) -> Mapping[str, Sequence[Any]]:
    """The usage of each result of a page, which was read with `USAGE_COLUMNS`, summed over all models."""
    models: list[str | None] = [None] * len(page)
    costs: list[float | None] = [None] * len(page)
    sums: list[Sequence[int]] = [_NOTHING] * len(page)
    known: dict[str, str] = {}
    for place, (model, cost, _, _, *numbers) in page.usage:
        shown = known.get(model)
        if shown is None:
            shown = known[model] = cell(unescape_text(model))
        before = models[place]
        if before is None:
            models[place], costs[place], sums[place] = shown, cost, numbers
            continue
        if shown not in before.split(", "):
            # It is there already if only some of its tokens have a price.
            models[place] = f"{before}, {shown}"
        if cost is not None:
            costs[place] = cost + (costs[place] or 0.0)
        sums[place] = tuple(map(operator.add, sums[place], numbers))
    return {"models": models, "cost": costs, **dict(zip(_SUMS, zip(*sums, strict=True), strict=True))}


def _usage_parts(page: ResultPage) -> Mapping[str, Sequence[Any]]:
    """Of each result of a page, which was read with `USAGE_COLUMNS`, the usage of judges and that of batches."""
    parts: dict[str, list[Any]] = {name: [0 if name.endswith("tokens") else None] * len(page) for name in _PARTS}
    for place, (_, cost, judge, batch, *numbers) in page.usage:
        for part, is_of_part in (("judge", judge), ("batch", batch)):
            if is_of_part:
                parts[f"{part}_tokens"][place] += numbers[_PROMPT] + numbers[_COMPLETION]
                if cost is not None:
                    parts[f"{part}_cost"][place] = cost + (parts[f"{part}_cost"][place] or 0.0)
    return parts


def _label_cells(page: ResultPage) -> Mapping[str, Sequence[Any]]:
    """What people say of each result of a page, which was read with `LABEL_COLUMNS`."""
    executions = page.columns["execution"]
    found: dict[int, list[RowLabel]] = defaultdict(list)
    for place, (execution, *line) in page.labels:
        found[place].append(stored_label(line, of_earlier=execution != executions[place]))
    said: list[str | None] = [None] * len(page)
    everything: list[str | None] = [None] * len(page)
    for place, labels in found.items():
        said[place] = label_of(labels)
        everything[place] = cell([label(each) for each in labels])
    return {"label": said, "labels": everything}


def stored_cells(texts: Sequence[str | None]) -> Sequence[Any]:
    """`stored_cell` of each value, in a third of the time."""
    known = [text for text in texts if text is not None]
    values = decode_all(known)
    if not set(map(type, values)) <= {bool, int, float, str}:
        return list(map(stored_cell, texts))
    found = cells(values)
    if len(known) == len(texts):
        return found
    left = iter(found)
    return [None if text is None else next(left) for text in texts]


def stored_cell(text: str | None) -> Any:
    """The cell of a stored value. What is no bool, number or text is JSON text already."""
    if text is None:
        return None
    if text[0] in "[{" and not text.startswith('{"$type":'):
        return text
    return cell(decode(text))


_OF_METADATA = "metadata."
_STORED = frozenset((*_FIRST, *_LAST)) - _USAGE - _LABELS
# Texts that may have lone surrogates.
_CLEANED = frozenset(("key", "error", "error_type", "worker"))
_NOTHING = (0,) * len(_SUMS)
_SCORE_NAME = type_coerce(SCORE.c.name, Text)
LABEL_COLUMNS = (
    *(type_coerce(ROW_LABEL.c[name], Text) for name in ("person", "judgement", "note")),
    ROW_LABEL.c.labelled_at,
)
_PROMPT, _COMPLETION = _SUMS.index("prompt_tokens"), _SUMS.index("completion_tokens")
USAGE_COLUMNS = (
    type_coerce(USAGE.c.model, Text),
    *(USAGE.c[name] for name in ("cost", "judge", "batch", *_SUMS)),
)
