"""Ingest: streams the rows of a dataset into the result store, in bulk and in order."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from doteval.core import clocks
from doteval.core.experiments import Evaluation
from doteval.core.json_codec import content_key, encode_columns
from doteval.core.plugins import did_you_mean
from doteval.core.results import Row
from doteval.core.wording import counted
from doteval.datasets import Dataset, row_values
from doteval.errors import ChangedError, DatasetError, UnstorableValueError
from doteval.store import Store

Value = TypeVar("Value")

# Rows of one transaction, and the characters and seconds after which it holds fewer: they bound the memory, and
# workers do not wait for a slow dataset. With smaller transactions the submitter would wait for SQLite's single write
# lock, which the workers need too, longer than it writes.
_CHUNK_ROWS = 4000
_CHUNK_CHARACTERS = 1_000_000
_CHUNK_SECONDS = 0.25

# Names of a row in a note about a column that it lacks.
_NAMES_SHOWN = 20


class OutageRetry(Protocol):
    """Does something that needs the store, again and again while the store is unavailable."""

    def __call__(self, action: Callable[[], Value], /) -> Value: ...


def run_once(action: Callable[[], Value]) -> Value:
    """Do an action once; an `OutageRetry` that does not retry."""
    return action()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows that are stored now. `new` says that none of them was stored before."""

    rows: list[Row]
    new: bool

    @property
    def first(self) -> int:
        return self.rows[0].index

    @property
    def last(self) -> int:
        return self.rows[-1].index


def ingest_dataset(
    store: Store,
    evaluation: Evaluation,
    dataset: Dataset,
    *,
    samples: int | None = None,
    allow_changed: bool = False,
    retry: OutageRetry = run_once,
) -> Iterator[Chunk]:
    """Stream the first `samples` rows of a dataset (all of them for None) into the store.

    Yields each chunk when it is stored; memory is bounded by one chunk. Rows that an earlier submission stored are
    compared by key and not stored again. With `allow_changed`, rows that differ are replaced and lose their results.
    Everything that needs the store goes through `retry`.

    Raises DatasetError: when the dataset is empty or cannot be read
    Raises UnstorableValueError: when a value has no JSON form
    Raises ChangedError: when a row differs from the stored one, without `allow_changed`
    """
    known = retry(lambda: store.rows.dataset_state(evaluation.id))
    fingerprint = _fingerprint(evaluation, dataset)
    if known.complete and known.fingerprint is not None and known.fingerprint == fingerprint:
        return
    count = 0
    keys = hashlib.blake2b(digest_size=16)
    records = dataset.rows()
    absent = _AbsentColumns(evaluation.spec.columns)
    for rows in _chunks(records if samples is None else itertools.islice(records, samples), evaluation, absent):
        count += len(rows)
        for row in rows:
            keys.update(row.key.encode())
        # Rows that were stored before do not make the dataset incomplete again.
        so_far = count if count > known.rows else None
        new = retry(functools.partial(_store_chunk, store, evaluation, rows, so_far, allow_changed))
        yield Chunk(rows, new)
        # Frees them before the next ones are read.
        del rows
    if count == 0:
        raise DatasetError(f"the dataset of {evaluation.name} is empty", remedy="Give it at least one row.")
    whole = samples is None or count < samples
    if whole and count < known.rows:
        if not allow_changed:
            raise _changed(evaluation, f"it has {counted(count, 'row')}, and had {known.rows}")
        retry(lambda: store.rows.truncate(evaluation.id, count))
    # A stored fingerprint says that the whole dataset is stored and need not be read again.
    total = count if whole else max(count, known.rows)
    stored = fingerprint if whole or fingerprint is None else f"{fingerprint} (the first {samples})"
    # Of fewer rows than before, nothing is known about every row.
    notes, rows_hash = (absent.notes(), keys.hexdigest()) if count >= total else (None, None)
    retry(
        lambda: store.rows.set_total(
            evaluation.id, total, complete=True, fingerprint=stored, notes=notes, rows_hash=rows_hash
        )
    )


def _fingerprint(evaluation: Evaluation, dataset: Dataset) -> str | None:
    # Only the columns of the evaluation are stored: with others, the dataset has to be read again.
    content = dataset.fingerprint
    return None if content is None else f"{content} {','.join(evaluation.spec.columns)}"


class _AbsentColumns:
    """Notices columns that are missing from every row, where rows are dicts; the value of a missing one is None."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._absent = dict.fromkeys(columns)
        self._names: list[str] = []

    def see(self, record: Any) -> None:
        if not self._absent:
            return
        if not isinstance(record, Mapping):
            # Values by position: where one is missing, the row fails.
            self._absent.clear()
            return
        self._absent = {column: None for column in self._absent if column not in record}
        self._names = [name for name in itertools.islice(record, _NAMES_SHOWN) if isinstance(name, str)]

    def notes(self) -> list[str]:
        return [
            f"the column {column!r} is missing from every row that was read, so it was None in all of them. "
            f"{did_you_mean(column, self._names)}"
            for column in self._absent
        ]


def _chunks(records: Iterator[Any], evaluation: Evaluation, absent: _AbsentColumns) -> Iterator[list[Row]]:
    rows: list[Row] = []
    characters = 0
    due = clocks.monotonic() + _CHUNK_SECONDS
    for index, record in enumerate(records):
        absent.see(record)
        row = _row(index, record, evaluation)
        rows.append(row)
        characters += len(row.encoded or "")
        if len(rows) >= _CHUNK_ROWS or characters >= _CHUNK_CHARACTERS or clocks.monotonic() >= due:
            yield rows
            rows, characters = [], 0
            due = clocks.monotonic() + _CHUNK_SECONDS
    if rows:
        yield rows


def _row(index: int, record: Any, evaluation: Evaluation) -> Row:
    columns = evaluation.spec.columns
    try:
        values = row_values(columns, record)
    except ValueError:
        # Too short: it is stored with the values that it has, and fails when it runs.
        values = dict(zip(columns, record if isinstance(record, list | tuple) else (record,), strict=False))
    try:
        encoded = encode_columns(values)
    except UnstorableValueError as error:
        raise UnstorableValueError(f"row {index} of {evaluation.name}: {error.message}", remedy=error.remedy) from error
    return Row(index, content_key(encoded), values, encoded=encoded)


def _store_chunk(
    store: Store, evaluation: Evaluation, rows: list[Row], so_far: int | None, allow_changed: bool
) -> bool:
    """Store the rows that are not stored yet, and their count `so_far`. Returns whether all of them were new."""
    first, last = rows[0].index, rows[-1].index
    # Read for every chunk: an earlier submitter may have died between storing rows and counting them.
    stored = store.rows.keys(evaluation.id, first, last)
    changed = [row for row in rows if stored.get(row.index, row.key) != row.key]
    if changed:
        if not allow_changed:
            raise _changed(evaluation, f"row {changed[0].index} is not the one that was stored")
        store.rows.replace(evaluation.id, changed)
    added = [row for row in rows if row.index not in stored]
    if added:
        store.rows.add(evaluation.id, added, so_far=so_far)
    elif so_far is not None:
        store.rows.set_total(evaluation.id, so_far, complete=False, fingerprint=None)
    return len(added) == len(rows)


def _changed(evaluation: Evaluation, what: str) -> ChangedError:
    return ChangedError(
        f"the dataset of {evaluation.name} has changed since experiment {evaluation.experiment.name!r} began: {what}",
        remedy="Use a new experiment name, or --allow-changed to replace the rows that differ and drop their results.",
    )
