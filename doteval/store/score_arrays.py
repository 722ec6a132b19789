"""Reads the rows and scores of an evaluation as arrays, for comparisons."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy
from sqlalchemy import Connection, Text, bindparam, exists, false, func, select, type_coerce

from doteval.analysis.clusters import RowClusters
from doteval.analysis.score_arrays import Digests, EvaluationArrays, Places, ScoreArrayBuilder, digests, group_numbers
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.json_codec import decode, encode, key_of, unescape_text
from doteval.core.plugins import did_you_mean
from doteval.core.results import RowStatus
from doteval.core.wording import counted
from doteval.errors import UsageError
from doteval.store.bulk_insert import among
from doteval.store.driver_errors import RefusedError
from doteval.store.engine import Database
from doteval.store.score_columns import score_parts
from doteval.store.statements import driver_lines
from doteval.store.tables import EVALUATION, RESULT, ROW, SCORE

# Rows in a page: few enough for memory, and enough to make the query's overhead small.
_PAGE = 10_000
# Results that are read at once, of as many evaluations as have them: each query takes as long as 100 of them.
RESULTS_AT_ONCE = 10_000


def read_all_arrays(
    database: Database, evaluations: Collection[Evaluation], cluster: str | None = None, key: str | None = None
) -> dict[int, EvaluationArrays]:
    """The rows and scores of several evaluations, by their ids.

    Small ones are read by a few queries together. Choose evaluations with at most `RESULTS_AT_ONCE` results together,
    or a single one: all of them are in memory at a time.

    cluster, key: as for `read_arrays`, which says what is raised.
    """
    # How many rows there will be is not known while a dataset is read.
    small = {each.id: each for each in evaluations if each.counts.total is not None and len(evaluations) > 1}
    found = {each.id: read_arrays(database, each, cluster, key) for each in evaluations if each.id not in small}
    if small:
        with database.read() as connection:
            found |= _read_small(connection, [_Columns(each, cluster, key) for each in small.values()])
    return found


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


def mean_row_seconds(database: Database, evaluation_ids: Iterable[int]) -> dict[int, float]:
    """The mean time of the rows that are done, in seconds, of each evaluation that has any."""
    with database.read() as connection:
        query = (
            select(RESULT.c.evaluation_id, func.avg(RESULT.c.seconds))
            .where(among(connection, RESULT.c.evaluation_id, evaluation_ids), RESULT.c.status == RowStatus.DONE.value)
            .group_by(RESULT.c.evaluation_id)
        )
        return {evaluation_id: float(mean) for evaluation_id, mean in connection.execute(query)}


_Rows = tuple[Places, Digests, Digests | None]
"""The index, the key and the cluster of each row."""

_Values = tuple[tuple[str, str], list[Any], list[int]]
"""A score's name and metrics as they are stored, its values, and the indexes of their rows."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """Reads the columns of rows by which they are clustered and paired."""

    evaluation: Evaluation
    cluster: str | None
    key: str | None

    @property
    def needs_content(self) -> bool:
        return self.cluster is not None or self.key is not None

    def page(self, lines: Sequence[Any]) -> _Rows:
        """The indexes, keys and clusters of some rows, of which a line has the index, the key and maybe the content."""
        cluster = self.cluster
        return (
            numpy.fromiter((line[0] for line in lines), dtype=numpy.int64, count=len(lines)),
            digests(map(self._key_of, lines)),
            None if cluster is None else digests(self._cluster_of(line, cluster) for line in lines),
        )

    def joined(self, pages: Sequence[_Rows]) -> _Rows:
        """All rows of the evaluation, of at least one page.

        Raises UsageError: two of them have the same value in the column of the key.
        """
        indexes, keys, clusters = zip(*pages, strict=True)
        all_keys = numpy.concatenate(keys)
        self._check_unique(all_keys)
        return numpy.concatenate(indexes), all_keys, None if clusters[0] is None else numpy.concatenate(clusters)

    def _key_of(self, line: Any) -> str:
        """What a row is paired by. Numbers and their texts are the same, since files of some formats hold text only."""
        if self.key is None:
            return str(line[1])
        return key_of(self._value(line, self.key, "pair rows by"))

    def _cluster_of(self, line: Any, column: str) -> str:
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

    def _check_unique(self, keys: Digests) -> None:
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
    of = {"evaluation": evaluation.id}
    return _arrays(
        evaluation,
        _rows(connection, columns),
        connection.scalar(_SAMPLES, of) or 1,
        _batches(connection, evaluation.id, aggregate),
        connection.execute(_UNDONE, of),
    )


def _read_small(connection: Connection, all_columns: Sequence[_Columns]) -> dict[int, EvaluationArrays]:
    """The arrays of evaluations with few rows, by the same few queries however many evaluations they are."""
    ids = [each.evaluation.id for each in all_columns]

    def lines_of(query: Any, column: Any) -> dict[int, list[Any]]:
        lines = driver_lines(connection, query.where(among(connection, column, ids)))
        return {which: list(of_one) for which, of_one in groupby(lines, itemgetter(0))}

    with_content = any(each.needs_content for each in all_columns)
    rows = lines_of(_ALL_CONTENTS if with_content else _ALL_KEYS, ROW.c.evaluation_id)
    samples = {which: line[0][1] for which, line in lines_of(_ALL_SAMPLES, EVALUATION.c.id).items()}
    scores = lines_of(_ALL_SCORES, SCORE.c.evaluation_id)
    undone = lines_of(_ALL_UNDONE, RESULT.c.evaluation_id)
    return {
        which: _arrays(
            columns.evaluation,
            columns.joined([columns.page([line[1:] for line in rows.get(which, ())])]),
            samples.get(which, 1),
            _by_score(scores.get(which, ())),
            (line[1:] for line in undone.get(which, ())),
        )
        for which, columns in zip(ids, all_columns, strict=True)
    }


def _by_score(lines: Iterable[Any]) -> Iterator[_Values]:
    """The values of each score of one evaluation, of lines in the order of their rows."""
    found: dict[tuple[str, str], tuple[list[str], list[int]]] = {}
    for _, row, name, metrics, value in lines:
        values, rows = found.setdefault((name, metrics), ([], []))
        values.append(value)
        rows.append(row)
    for of, (values, rows) in found.items():
        yield of, decode(f"[{','.join(values)}]"), rows


def _arrays(
    evaluation: Evaluation,
    rows: tuple[Places, Digests, Digests | None],
    samples: int,
    scores: Iterable[_Values],
    undone: Iterable[Any],
) -> EvaluationArrays:
    indexes, keys, clusters = rows
    builders: dict[str, ScoreArrayBuilder] = {}
    for (name, metrics), values, of_rows in scores:
        builder = builders.setdefault(name, ScoreArrayBuilder(unescape_text(name)))
        builder.add(values, numpy.searchsorted(indexes, numpy.asarray(of_rows, dtype=numpy.int64)), decode(metrics))
    counts = {status: numpy.zeros(len(indexes), dtype=numpy.int64) for status in (RowStatus.FAILED, RowStatus.SKIPPED)}
    for row, status in undone:
        if (of_status := counts.get(RowStatus(status))) is not None:
            of_status[numpy.searchsorted(indexes, row)] += 1
    built = [builder.build() for builder in builders.values()]
    return EvaluationArrays(
        experiment=evaluation.experiment.name,
        name=evaluation.name,
        indexes=indexes,
        keys=keys,
        clusters=clusters,
        samples=samples,
        failed=counts[RowStatus.FAILED],
        skipped=counts[RowStatus.SKIPPED],
        scores={score.name: score for score in built},
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


def _rows(connection: Connection, columns: _Columns) -> _Rows:
    query = _CONTENTS if columns.needs_content else _KEYS
    pages: list[_Rows] = []
    after = -1
    while True:
        page = connection.execute(query, {"evaluation": columns.evaluation.id, "after": after, "limit": _PAGE}).all()
        pages.append(columns.page(page))
        if len(page) < _PAGE:
            return columns.joined(pages)
        after = page[-1][0]


def _batches(connection: Connection, evaluation_id: int, aggregate: bool) -> Iterator[_Values]:
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

# The same for several evaluations at once.
_ALL_KEYS = select(ROW.c.evaluation_id, ROW.c.row_index, ROW.c.key).order_by(ROW.c.evaluation_id, ROW.c.row_index)
_ALL_CONTENTS = _ALL_KEYS.add_columns(ROW.c.content)
_ALL_SAMPLES = select(EVALUATION.c.id, EVALUATION.c.epochs).order_by(EVALUATION.c.id)
_ALL_SCORES = (
    select(SCORE.c.evaluation_id, SCORE.c.row_index, type_coerce(SCORE.c.name, Text), SCORE.c.metrics, SCORE.c.value)
    .where(
        ~exists().where(
            RESULT.c.evaluation_id == SCORE.c.evaluation_id,
            RESULT.c.row_index == SCORE.c.row_index,
            RESULT.c.sample == SCORE.c.sample,
            RESULT.c.status != RowStatus.DONE.value,
        )
    )
    .order_by(SCORE.c.evaluation_id, SCORE.c.row_index, SCORE.c.sample, SCORE.c.position)
)
_ALL_UNDONE = (
    select(RESULT.c.evaluation_id, RESULT.c.row_index, RESULT.c.status)
    .where(RESULT.c.status != RowStatus.DONE.value, RESULT.c.retry == false())
    .order_by(RESULT.c.evaluation_id)
)
