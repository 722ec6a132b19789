"""Reads the rows and scores of an evaluation as arrays, for comparisons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy
from sqlalchemy import Connection, bindparam, false, func, select

from doteval.analysis.clusters import RowClusters
from doteval.analysis.score_arrays import Digests, EvaluationArrays, Places, ScoreArrayBuilder, digests, group_numbers
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.json_codec import decode, encode, key_of, unescape_text
from doteval.core.plugins import did_you_mean
from doteval.core.results import RowStatus
from doteval.core.wording import counted
from doteval.errors import UsageError
from doteval.store.driver_errors import RefusedError
from doteval.store.engine import Database
from doteval.store.score_columns import score_parts
from doteval.store.tables import EVALUATION, RESULT, ROW

# Rows in a page: few enough for memory, and enough to make the query's overhead small.
_PAGE = 10_000


def read_arrays(
    database: Database, evaluation: Evaluation, cluster: str | None = None, key: str | None = None
) -> EvaluationArrays:
    """The rows and scores of an evaluation. The content of rows is read page by page, and only for these columns.

    cluster: the column whose value says to which cluster a row belongs.
    key: the column whose value is the key of a row; None for the key that is stored.

    Raises UsageError: a row does not have one of these columns, or two rows have one key.
    """
    columns = _Columns(evaluation, cluster, key)
    try:
        with database.read() as connection:
            return _read(connection, evaluation, columns, aggregate=True)
    except RefusedError:
        # With values of hundreds of kilobytes, a page exceeds the longest text that a database can aggregate.
        with database.read() as connection:
            return _read(connection, evaluation, columns, aggregate=False)


def read_clusters(database: Database, evaluation: Evaluation, column: str) -> RowClusters:
    """The cluster of each row of an evaluation, by the value of a column.

    Raises UsageError: a row does not have the column.
    """
    with database.read() as connection:
        indexes, _, clusters = _rows(connection, _Columns(evaluation, column, None))
    assert clusters is not None
    return RowClusters(indexes, group_numbers(clusters))


def mean_row_seconds(database: Database, evaluation_id: int) -> float | None:
    """The mean time of the rows that are done, in seconds; None without any."""
    with database.read() as connection:
        mean = connection.scalar(_MEAN_SECONDS, {"evaluation": evaluation_id, "status": RowStatus.DONE.value})
    return None if mean is None else float(mean)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Reads the columns of rows by which they are clustered and paired."""

    evaluation: Evaluation
    cluster: str | None
    key: str | None

    def key_of(self, line: Any) -> str:
        """What a row is paired by. Numbers and their texts are the same, since files of some formats hold text only."""
        if self.key is None:
            return str(line[1])
        return key_of(self._value(line, self.key, "pair rows by"))

    def cluster_of(self, line: Any, column: str) -> str:
        """The cluster of a row."""
        return encode(self._value(line, column, "cluster by"))

    def _value(self, line: Any, column: str, purpose: str) -> Any:
        values = decode(line[2])
        if column not in values:
            raise UsageError(
                f"row {line[0]} of {self.evaluation.spec.nodeid} has no column {column!r} to {purpose}",
                remedy=did_you_mean(column, map(str, values)),
            )
        return values[column]

    def check_unique(self, keys: Digests) -> None:
        """Raise UsageError if two rows have the same value in the column of the key."""
        if self.key is None:
            return
        different = len(numpy.unique(keys, axis=0))
        if different < len(keys):
            raise UsageError(
                f"rows of {self.evaluation.spec.nodeid} cannot be paired by {self.key!r}: {len(keys):,} rows have "
                f"{counted(different, 'value')}",
                remedy="Name a column whose values differ from row to row.",
            )


def _read(connection: Connection, evaluation: Evaluation, columns: _Columns, *, aggregate: bool) -> EvaluationArrays:
    indexes, keys, clusters = _rows(connection, columns)
    samples = connection.scalar(_SAMPLES, {"evaluation": evaluation.id}) or 1
    builders: dict[str, ScoreArrayBuilder] = {}
    for (name, metrics), values, rows in _batches(connection, evaluation.id, aggregate):
        builder = builders.setdefault(name, ScoreArrayBuilder(unescape_text(name)))
        builder.add(values, numpy.searchsorted(indexes, numpy.asarray(rows, dtype=numpy.int64)), decode(metrics))
    undone = {status: numpy.zeros(len(indexes), dtype=numpy.int64) for status in (RowStatus.FAILED, RowStatus.SKIPPED)}
    for row, status in connection.execute(_UNDONE, {"evaluation": evaluation.id}):
        if (of_rows := undone.get(RowStatus(status))) is not None:
            of_rows[numpy.searchsorted(indexes, row)] += 1
    scores = [builder.build() for builder in builders.values()]
    return EvaluationArrays(
        experiment=evaluation.experiment.name,
        name=evaluation.name,
        indexes=indexes,
        keys=keys,
        clusters=clusters,
        samples=samples,
        failed=undone[RowStatus.FAILED],
        skipped=undone[RowStatus.SKIPPED],
        scores={score.name: score for score in scores},
        reducer=evaluation.config.reducer,
        unfinished=_unfinished(evaluation),
        files=tuple(evaluation.spec.fingerprint),
    )


def _unfinished(evaluation: Evaluation) -> str | None:
    """Why not every row has a result, None if each has one."""
    counts = evaluation.counts
    if evaluation.status is EvaluationStatus.COMPLETED and not counts.pending:
        return None
    what = f"{evaluation.experiment.name}::{evaluation.name} is {evaluation.status.value}"
    return f"{what}, with {counted(counts.pending, 'row')} pending" if counts.pending else what


def _rows(connection: Connection, columns: _Columns) -> tuple[Places, Digests, Digests | None]:
    indexes: list[Places] = []
    keys: list[Digests] = [digests(())]
    clusters: list[Digests] = [digests(())]
    cluster = columns.cluster
    query = _KEYS if cluster is None and columns.key is None else _CONTENTS
    after = -1
    while True:
        page = connection.execute(query, {"evaluation": columns.evaluation.id, "after": after, "limit": _PAGE}).all()
        indexes.append(numpy.fromiter((line[0] for line in page), dtype=numpy.int64, count=len(page)))
        keys.append(digests(map(columns.key_of, page)))
        if cluster is not None:
            clusters.append(digests(columns.cluster_of(line, cluster) for line in page))
        if len(page) < _PAGE:
            break
        after = page[-1][0]
    all_keys = numpy.concatenate(keys)
    columns.check_unique(all_keys)
    return numpy.concatenate(indexes), all_keys, None if cluster is None else numpy.concatenate(clusters)


def _batches(
    connection: Connection, evaluation_id: int, aggregate: bool
) -> Iterator[tuple[tuple[str, str], list[Any], list[int]]]:
    """The values of each score with the indexes of their rows, in batches of many values."""
    waiting: dict[tuple[str, str], tuple[list[Any], list[int]]] = {}
    for part in score_parts(connection, evaluation_id, with_rows=True, aggregate=aggregate):
        values, rows = waiting.setdefault((part.name, part.metrics), ([], []))
        values += part.values
        rows += part.rows
        if len(values) >= _PAGE:
            del waiting[part.name, part.metrics]
            yield (part.name, part.metrics), values, rows
    for name, (values, rows) in waiting.items():
        yield name, values, rows


_KEYS = (
    select(ROW.c.row_index, ROW.c.key)
    .where(ROW.c.evaluation_id == bindparam("evaluation"), ROW.c.row_index > bindparam("after"))
    .order_by(ROW.c.row_index)
    .limit(bindparam("limit"))
)
_CONTENTS = _KEYS.add_columns(ROW.c.content)
_SAMPLES = select(EVALUATION.c.epochs).where(EVALUATION.c.id == bindparam("evaluation"))
# A result that is to be replaced does not count: its row is pending.
_UNDONE = select(RESULT.c.row_index, RESULT.c.status).where(
    RESULT.c.evaluation_id == bindparam("evaluation"),
    RESULT.c.status != RowStatus.DONE.value,
    RESULT.c.retry == false(),
)
_MEAN_SECONDS = select(func.avg(RESULT.c.seconds)).where(
    RESULT.c.evaluation_id == bindparam("evaluation"), RESULT.c.status == bindparam("status")
)
