"""Reads the rows and scores of an evaluation as arrays, for comparisons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
from sqlalchemy import Connection, bindparam, false, func, select

from doteval.analysis.score_arrays import Digests, EvaluationArrays, Places, ScoreArrayBuilder, digests
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.json_codec import decode, encode, unescape_text
from doteval.core.results import RowStatus
from doteval.core.wording import counted
from doteval.errors import UsageError
from doteval.store.driver_errors import RefusedError
from doteval.store.engine import Database
from doteval.store.score_columns import score_parts
from doteval.store.tables import EVALUATION, RESULT, ROW

# Rows in a page: few enough for memory, and enough to make the query's overhead small.
_PAGE = 10_000


def read_arrays(database: Database, evaluation: Evaluation, cluster: str | None = None) -> EvaluationArrays:
    """The rows and scores of an evaluation. The content of rows is read page by page, and only for clusters.

    cluster: the column whose value says to which cluster a row belongs.

    Raises UsageError: a row does not have this column.
    """
    try:
        with database.read() as connection:
            return _read(connection, evaluation, cluster, aggregate=True)
    except RefusedError:
        # With values of hundreds of kilobytes, a page exceeds the longest text that a database can aggregate.
        with database.read() as connection:
            return _read(connection, evaluation, cluster, aggregate=False)


def mean_row_seconds(database: Database, evaluation_id: int) -> float | None:
    """The mean time of the rows that are done, in seconds; None without any."""
    with database.read() as connection:
        mean = connection.scalar(_MEAN_SECONDS, {"evaluation": evaluation_id, "status": RowStatus.DONE.value})
    return None if mean is None else float(mean)


def _read(connection: Connection, evaluation: Evaluation, cluster: str | None, *, aggregate: bool) -> EvaluationArrays:
    indexes, keys, clusters = _rows(connection, evaluation, cluster)
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


def _rows(
    connection: Connection, evaluation: Evaluation, cluster: str | None
) -> tuple[Places, Digests, Digests | None]:
    indexes: list[Places] = []
    keys: list[Digests] = [digests(())]
    clusters: list[Digests] = [digests(())]
    query = _KEYS if cluster is None else _CONTENTS
    after = -1
    while True:
        page = connection.execute(query, {"evaluation": evaluation.id, "after": after, "limit": _PAGE}).all()
        indexes.append(numpy.fromiter((line[0] for line in page), dtype=numpy.int64, count=len(page)))
        keys.append(digests(line[1] for line in page))
        if cluster is not None:
            clusters.append(digests(_cluster_of(line, cluster, evaluation) for line in page))
        if len(page) < _PAGE:
            break
        after = page[-1][0]
    return numpy.concatenate(indexes), numpy.concatenate(keys), numpy.concatenate(clusters) if cluster else None


def _cluster_of(line: Any, cluster: str, evaluation: Evaluation) -> str:
    values = decode(line[2])
    if cluster not in values:
        raise UsageError(
            f"row {line[0]} of {evaluation.spec.nodeid} has no column {cluster!r} to cluster by",
            remedy=f"Its columns are {', '.join(map(str, values))}.",
        )
    return encode(values[cluster])


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
