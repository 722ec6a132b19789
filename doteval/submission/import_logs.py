"""`import` writes the logs of other tools, and tables of scores, into the result store as experiments."""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from doteval.analysis.summary import MetricValue
from doteval.coordination.ended_evaluations import compute_summary
from doteval.core.experiments import Ending, Evaluation, EvaluationSpec, EvaluationStatus
from doteval.core.json_codec import content_key, encode_columns
from doteval.core.labels import checked_tag
from doteval.core.provenance import Provenance
from doteval.core.results import Row, RowStatus
from doteval.core.run_config import RunConfig
from doteval.core.states import EvaluationEnd
from doteval.core.wording import counted
from doteval.errors import UsageError
from doteval.importing import ImportedRow, Log, LogError, NoLogError, Remarks, TableColumns, find_logs, open_log
from doteval.store import NewResult, Store

# Rows of one transaction, and the characters after which it holds fewer.
_CHUNK_ROWS = 2000
_CHUNK_CHARACTERS = 4_000_000
_KEY_CHARACTERS = 32

# Two figures are the same if they differ by no more than this share: sums of floats differ in their last digits.
_SAME = 1e-6


class ImportStatus(StrEnum):
    """What became of a file."""

    IMPORTED = "imported"
    WOULD_BE_IMPORTED = "would be imported"
    EXISTS = "exists"
    """It was imported before."""
    NO_LOG = "no log"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The options of `doteval import`.

    name: the experiment for all logs; None gives each its own, with the name that the log suggests.
    columns: what the columns of a table mean.
    dry_run: read everything, and store nothing.
    """

    name: str | None = None
    columns: TableColumns = field(default_factory=TableColumns)
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """What became of one file.

    rows, results, failed: how many were read; `missing` results are not in the log.
    remarks: what was left out or not understood, by name, with how often.
    notes: what a reader of the figures has to know.
    message, remedy: why it was not imported.
    named: whether the user has named this very file, not a directory.
    """

    path: Path
    status: ImportStatus
    experiment: str | None = None
    evaluation: str | None = None
    tool: str | None = None
    model: str | None = None
    ended: EvaluationStatus | None = None
    rows: int = 0
    results: int = 0
    failed: int = 0
    missing: int = 0
    remarks: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    message: str | None = None
    remedy: str | None = None
    named: bool = True

    @property
    def is_fault(self) -> bool:
        """Whether the command has not done what was asked of it."""
        if self.status in (ImportStatus.EXISTS, ImportStatus.NO_LOG):
            return self.named
        return self.status is ImportStatus.REFUSED


def import_logs(store: Store | None, paths: Sequence[Path], options: ImportOptions) -> Iterator[ImportedFile]:
    """Import logs one after the other, each whole or not at all. A file that cannot be imported keeps back no other.

    store: None only for a dry run without a store.

    Yields what became of each file, when it is known.

    Raises StoreError: the store cannot be used.
    """
    for path in paths:
        try:
            for file in find_logs(path):
                yield _import_file(store, file, options, named=file == path)
        except LogError as error:
            yield ImportedFile(path, ImportStatus.REFUSED, message=error.message, remedy=error.remedy)


def _import_file(store: Store | None, path: Path, options: ImportOptions, *, named: bool) -> ImportedFile:
    try:
        found = _import(store, open_log(path, options.columns), options)
    except UsageError as error:
        status = ImportStatus.NO_LOG if isinstance(error, NoLogError) else ImportStatus.REFUSED
        # Only errors of readers name the file.
        message = error.message if isinstance(error, LogError) else f"{path}: {error.message}"
        found = ImportedFile(path, status, message=message, remedy=error.remedy)
    return replace(found, named=named)


def _import(store: Store | None, log: Log, options: ImportOptions) -> ImportedFile:
    experiment = log.experiment if options.name is None else options.name
    source = str(log.path.resolve())
    spec = EvaluationSpec(log.file, log.name, (), config=RunConfig(reducer=log.reducer, imported_from=source))
    obstacle = store and store.imports.obstacle(experiment, spec)
    if store and obstacle and obstacle.source not in (None, source) and log.model is not None:
        # The same task with another model, in one experiment.
        spec = replace(spec, name=f"{log.name}[{log.model}]")
        obstacle = store.imports.obstacle(experiment, spec)
    about = ImportedFile(
        log.path, ImportStatus.WOULD_BE_IMPORTED, experiment, spec.nodeid, log.tool, log.model, notes=log.notes
    )
    if obstacle:
        known = obstacle.source == source
        message = f"it was imported before, as {experiment}::{spec.nodeid}" if known else obstacle.message
        return replace(
            about,
            status=ImportStatus.EXISTS if known else ImportStatus.REFUSED,
            message=f"{log.path}: {message}",
            remedy=f"Give another name with --name, or delete that one first: doteval delete {shlex.quote(experiment)}",
        )
    reading = _Reading(log)
    if store is None or options.dry_run:
        for _ in reading.chunks():
            # The rows are counted, and everything that cannot be read is found.
            pass
        return reading.outcome(about)
    evaluation = store.evaluations.by_uid(
        store.imports.begin(experiment, spec, epochs=log.epochs, began_at=log.began_at)
    )
    try:
        for rows, results in reading.chunks(evaluation.id):
            store.rows.add(evaluation.id, rows)
            store.results.write(results, None)
        notes = _finish(store, evaluation, log, reading)
    except BaseException:
        store.imports.abandon(evaluation.id)
        raise
    return replace(reading.outcome(about), status=ImportStatus.IMPORTED, notes=notes[1:])


class _Reading:
    """Reads the rows of a log, and counts them."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._remarks = Remarks()
        self._keys = bytearray()
        self._columns: dict[str, None] = {}
        self.rows = self.results = self.failed = 0

    def chunks(self, evaluation_id: int = 0) -> Iterator[tuple[list[Row], list[NewResult]]]:
        """The rows with their results, in chunks.

        Raises LogError: the log cannot be read.
        Raises UnstorableValueError: a value of it cannot be stored.
        """
        rows: list[Row] = []
        results: list[NewResult] = []
        characters = 0
        for imported in self._log.rows(self._remarks):
            row = self._row(imported)
            rows.append(row)
            characters += len(row.encoded or "")
            for sample, outcome in imported.outcomes.items():
                results.append(NewResult(evaluation_id, replace(row, sample=sample), outcome))
                self.results += 1
                self.failed += outcome.status is RowStatus.FAILED
            if len(results) >= _CHUNK_ROWS or characters >= _CHUNK_CHARACTERS:
                yield rows, results
                rows, results, characters = [], [], 0
        if rows:
            yield rows, results

    def _row(self, imported: ImportedRow) -> Row:
        index = self.rows if imported.index is None else imported.index
        self.rows += 1
        self._columns.update(dict.fromkeys(imported.values))
        encoded = encode_columns(imported.values)
        content = content_key(encoded)
        end = (index + 1) * _KEY_CHARACTERS
        if len(self._keys) < end:
            self._keys.extend(bytes(end - len(self._keys)))
        self._keys[end - _KEY_CHARACTERS : end] = content.encode()
        return Row(index, content if imported.key is None else imported.key, imported.values, encoded=encoded)

    @property
    def columns(self) -> list[str]:
        """The columns that any row has."""
        return list(self._columns)

    @property
    def row_count(self) -> int:
        """How many rows the evaluation has, with those that the log does not hold."""
        return max(self.rows, self._log.row_count or 0)

    @property
    def missing(self) -> int:
        """How many results the log does not hold."""
        return self.row_count * self._log.epochs - self.results

    @property
    def ending(self) -> Ending | None:
        """How the evaluation ended: never as completed if results are missing."""
        if self._log.ending is None and self.missing:
            reason = f"the log lacks {counted(self.missing, 'result')}"
            return Ending(EvaluationStatus.CANCELLED, EvaluationEnd.INTERRUPTED, reason)
        return self._log.ending

    def rows_hash(self) -> str | None:
        """The hash of the content of all rows, as that of rows that were run here; None if some are missing."""
        if self.rows < self.row_count:
            return None
        return hashlib.blake2b(self._keys, digest_size=16).hexdigest()

    def outcome(self, about: ImportedFile) -> ImportedFile:
        """What was read."""
        return replace(
            about,
            ended=EvaluationStatus.COMPLETED if self.ending is None else self.ending.status,
            rows=self.rows,
            results=self.results,
            failed=self.failed,
            missing=self.missing,
            remarks=self._remarks.counts,
        )


def _finish(store: Store, evaluation: Evaluation, log: Log, reading: _Reading) -> list[str]:
    """End an evaluation whose rows are stored, with its metrics and where it comes from. Returns its notes.

    The first says what it was imported from.
    """
    writer = f", written by {log.tool}" if log.tool else ""
    notes = [f"imported from {log.path.name}{writer}", *log.notes]
    tags = []
    for tag in log.tags:
        try:
            tags.append(checked_tag(tag))
        except UsageError:
            notes.append(f"its tag {tag!r} cannot be a tag here")
    provenance = Provenance(
        ("doteval", "import", str(log.path)), log.git, versions=log.versions, started_at=log.began_at
    )
    store.provenance.add(evaluation.experiment, provenance)
    labels = store.labels.of(evaluation.experiment)
    store.labels.change(evaluation.experiment, add=tags, note=None if labels.note else log.note)

    def end(notes: Sequence[str]) -> Evaluation:
        store.imports.end(
            evaluation.id,
            reading.ending,
            columns=reading.columns,
            rows=reading.row_count,
            rows_hash=reading.rows_hash(),
            ended_at=log.ended_at,
            notes=notes,
        )
        return store.evaluations.by_uid(evaluation.uid)

    ended = end(notes)
    notes += _differing_figures(store, ended, log)
    store.imports.annotate(evaluation.id, notes)
    return notes


def _differing_figures(store: Store, evaluation: Evaluation, log: Log) -> list[str]:
    """The figures of the log that are not those of doteval, in sentences. Logs leave failed rows out."""
    summary = compute_summary(store, evaluation)
    known: dict[tuple[str, str], MetricValue] = {
        (score.name, metric.name): metric for score in summary for metric in score.metrics
    }
    notes = []
    for figure in log.figures:
        metric = known.get((figure.score, figure.metric))
        said = f"{figure.score} {figure.metric} is {figure.value:.6g} in the log"
        if metric is None:
            notes.append(f"{said}; doteval does not compute it")
            continue
        value = metric.value if metric.without_failed is None else metric.without_failed
        if value is None or not math.isclose(value, figure.value, rel_tol=_SAME, abs_tol=_SAME):
            shown = "no value" if value is None else f"{value:.6g}"
            notes.append(f"{said}, and {shown} from its scores here")
    return notes


def documents_of(files: Sequence[ImportedFile]) -> list[dict[str, Any]]:
    """What became of files, as JSON."""
    return [
        {
            "file": str(each.path),
            "status": each.status.value,
            "experiment": each.experiment,
            "evaluation": each.evaluation,
            "tool": each.tool,
            "model": each.model,
            "ended": each.ended and each.ended.value,
            "rows": each.rows,
            "results": each.results,
            "failed": each.failed,
            "missing": each.missing,
            "remarks": dict(each.remarks),
            "notes": list(each.notes),
            "message": each.message,
            "remedy": each.remedy,
        }
        for each in files
    ]
