"""The tables of the result store.

Columns with JSON are text, written by `doteval.core.json_codec`, since PostgreSQL's jsonb refuses NUL. Times are
seconds since the epoch by the database's clock. `result` and `score` have no foreign keys to `row`: they get tens of
thousands of rows a second, and the writer checks that the row exists anyway.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Index,
    LargeBinary,
    Text,
    UniqueConstraint,
    and_,
    text,
)
from sqlmodel import Field, SQLModel

from doteval.store.batch_tables import BATCH_LEASE, PROVIDER_BATCH, WANTED_CALL
from doteval.store.column_types import LongId, SafeText, table_of
from doteval.store.summary_tables import METRIC_VALUE, SUMMARY
from doteval.store.worker_tables import RESOURCE_LOAD as RESOURCE_LOAD
from doteval.store.worker_tables import WORKER as WORKER


class ExperimentTable(SQLModel, table=True):
    """A named set of evaluations.

    baseline_since: when it became the baseline of the store, None if it is not; see `doteval.store.baseline`.
    name: what commands call it.
    note: what `doteval tag --note` says of it.
    """

    __tablename__ = "experiment"
    # The id of a deleted experiment is never used again, so that a late message cannot reach another one.
    __table_args__ = {"sqlite_autoincrement": True}

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(sa_type=SafeText, unique=True)
    created_at: float
    note: str | None = Field(sa_type=SafeText)
    baseline_since: float | None


class ExperimentTagTable(SQLModel, table=True):
    """A tag that users have given an experiment.

    tag: a word that `doteval list --tag` finds.
    """

    __tablename__ = "experiment_tag"

    experiment_id: int = Field(primary_key=True, foreign_key="experiment.id")
    tag: str = Field(primary_key=True, sa_type=SafeText)


class ProvenanceTable(SQLModel, table=True):
    """One command that began or continued an experiment; see `doteval.core.provenance`.

    command: JSON, its arguments without secrets.
    versions: JSON, of python and of packages.
    git_commit: that of the directory of the evaluation files, None outside of git.
    git_branch: its branch.
    git_dirty: whether files had changes that were not committed.
    hostname: the machine that the command was started on.
    username: who started it.
    """

    __tablename__ = "provenance"

    id: int | None = Field(default=None, primary_key=True)
    experiment_id: int = Field(foreign_key="experiment.id", index=True)
    started_at: float
    command: str = Field(sa_type=Text)
    git_commit: str | None = Field(sa_type=SafeText)
    git_branch: str | None = Field(sa_type=SafeText)
    git_dirty: bool | None
    hostname: str | None = Field(sa_type=SafeText)
    username: str | None = Field(sa_type=SafeText)
    versions: str = Field(sa_type=Text)


class EvaluationTable(SQLModel, table=True):
    """One evaluation function with one set of parameters, the state of its dataset and its publish cursor.

    dataset_fingerprint: that of the dataset's source, by which a later command knows that it need not read it.
    rows_hash: a hash of the keys of all rows in order, None if not all were read.
    repaid_rows: how many of its rows asked something else when they ran again, and so paid for calls again.
    dataset_notes: a list of what a reader of the figures has to know about the dataset.
    worked_seconds: the length of its running spans that have ended; see `doteval.store.running_spans`.
    span_began_at: the beginning of the open one, None if it does not run.
    uid: names it in messages on the broker.
    path: the file, relative to pytest's root.
    name: the function, with its parameters in brackets.
    status: running, completed, failed, skipped or cancelled.
    columns: JSON, the names of the dataset's columns that the function takes.
    fingerprint: JSON, a hash of each file that it consists of.
    run_config: JSON, the options that its rows run with.
    epochs: samples of each row.
    reason: why it ended otherwise than with all of its rows, for people.
    end_cause: the same as a word.
    published: the publish cursor: rows before this index have been published.
    row_count: rows that were read so far, None for those that were never begun.
    dataset_complete: whether all rows were read.
    """

    __tablename__ = "evaluation"
    __table_args__ = (UniqueConstraint("experiment_id", "path", "name"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, primary_key=True)
    uid: str = Field(sa_type=Text, unique=True)
    experiment_id: int = Field(foreign_key="experiment.id")
    path: str = Field(sa_type=SafeText)
    name: str = Field(sa_type=SafeText)
    columns: str = Field(sa_type=Text)
    fingerprint: str = Field(sa_type=Text)
    run_config: str = Field(sa_type=Text)
    epochs: int
    status: str = Field(sa_type=Text)
    reason: str | None = Field(sa_type=SafeText)
    end_cause: str | None = Field(sa_type=Text)
    created_at: float
    finished_at: float | None
    published: int = Field(sa_type=BigInteger)
    row_count: int | None = Field(sa_type=BigInteger)
    dataset_complete: bool
    dataset_fingerprint: str | None = Field(sa_type=SafeText)
    dataset_notes: str | None = Field(sa_type=Text)
    worked_seconds: float
    span_began_at: float | None
    rows_hash: str | None = Field(sa_type=Text)
    repaid_rows: int = Field(sa_type=BigInteger)


class RowTable(SQLModel, table=True):
    """One record of a dataset.

    key: identifies the row when the dataset is read again.
    content: JSON, the values of its columns.
    """

    __tablename__ = "row"

    evaluation_id: int = Field(primary_key=True, foreign_key="evaluation.id")
    row_index: int = Field(primary_key=True, sa_type=BigInteger)
    key: str = Field(sa_type=SafeText)
    content: str = Field(sa_type=Text)


class ResultTable(SQLModel, table=True):
    """The result of one row and sample: the first that was stored, or the one after a retry.

    retry: marks a failed result that is to be replaced. The row counts as pending, and its error stays visible.
    execution: names the execution, which separates its usage from that of repeated work.
    error_class: evaluation, infrastructure, timeout, crash or quota.
    """

    __tablename__ = "result"
    __table_args__ = (
        # A small index, since nearly all rows are done. It finds failures, and filters the scores of done rows.
        Index(
            "result_not_done",
            "evaluation_id",
            "status",
            "row_index",
            "sample",
            sqlite_where=text("status <> 'done'"),
            postgresql_where=text("status <> 'done'"),
        ),
    )

    evaluation_id: int = Field(primary_key=True)
    row_index: int = Field(primary_key=True, sa_type=BigInteger)
    sample: int = Field(primary_key=True)
    status: str = Field(sa_type=Text)
    retry: bool
    execution: int = Field(sa_type=BigInteger)
    worker_id: int | None
    started_at: float
    seconds: float
    prompt: str | None = Field(sa_type=Text)
    model_response: str | None = Field(sa_type=Text)
    extra: str | None = Field(sa_type=Text)
    error_type: str | None = Field(sa_type=SafeText)
    error_message: str | None = Field(sa_type=SafeText)
    error_class: str | None = Field(sa_type=Text)
    traceback: str | None = Field(sa_type=SafeText)


class ScoreTable(SQLModel, table=True):
    """One score of one result; `position` is its place in the result.

    The primary key is the only index. The scores of an evaluation lie together, so that filters, sorts and sums of
    `number` scan them in about 0.3 µs a score; an index on it would take 10 to 20% of the speed of writing results.

    number: the value as the number that metrics take it for (`doteval.metrics.intervals.as_number`), None if it is none
        or not finite. `value` holds it exactly.
    name: the name of the score.
    metrics: JSON, the names of its metrics.
    value: JSON.
    extra: JSON, the metadata of the score, None without any.
    """

    __tablename__ = "score"
    __table_args__ = {"sqlite_with_rowid": False}

    evaluation_id: int = Field(primary_key=True)
    row_index: int = Field(primary_key=True, sa_type=BigInteger)
    sample: int = Field(primary_key=True)
    position: int = Field(primary_key=True)
    name: str = Field(sa_type=SafeText)
    metrics: str = Field(sa_type=Text)
    value: str = Field(sa_type=Text)
    extra: str | None = Field(sa_type=Text)
    number: float | None


class AttemptTable(SQLModel, table=True):
    """A failed result that a retry has replaced, with its scores as JSON; or a crash with the row in flight.

    execution: for a crash, that of the result that the row had then, 0 without a result.
    scores: JSON.
    """

    __tablename__ = "attempt"
    __table_args__ = (Index("attempt_row", "evaluation_id", "row_index", "sample"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=LongId)
    evaluation_id: int
    row_index: int = Field(sa_type=BigInteger)
    sample: int
    status: str = Field(sa_type=Text)
    execution: int = Field(sa_type=BigInteger)
    worker_id: int | None
    started_at: float
    seconds: float
    prompt: str | None = Field(sa_type=Text)
    model_response: str | None = Field(sa_type=Text)
    extra: str | None = Field(sa_type=Text)
    error_type: str | None = Field(sa_type=SafeText)
    error_message: str | None = Field(sa_type=SafeText)
    error_class: str | None = Field(sa_type=Text)
    traceback: str | None = Field(sa_type=SafeText)
    scores: str = Field(sa_type=Text)


class UsageTable(SQLModel, table=True):
    """The usage of one model by one execution of one row. Writing it twice changes nothing.

    requests: calls of a client's methods.
    attempts: tries that were sent to the server.
    cache_hits: look-ups in the cache of replies that found one.
    cache_misses: those that found none.
    seconds: time spent on tries.
    unfinished: tries of which nobody saw the end; their tokens are not known.
    waited: seconds spent waiting for rate limits.
    batch_cost: what the same would have cost in batches, US dollars.
    batch: whether batches answered, at their price.
    latency: JSON, how many replies took how long.
    """

    __tablename__ = "usage"
    __table_args__ = {"sqlite_with_rowid": False}

    evaluation_id: int = Field(primary_key=True)
    row_index: int = Field(primary_key=True, sa_type=BigInteger)
    sample: int = Field(primary_key=True)
    execution: int = Field(primary_key=True, sa_type=BigInteger)
    position: int = Field(primary_key=True)
    worker_id: int | None
    model: str = Field(sa_type=SafeText)
    requests: int = Field(sa_type=BigInteger)
    attempts: int = Field(sa_type=BigInteger)
    cache_hits: int = Field(sa_type=BigInteger)
    cache_misses: int = Field(sa_type=BigInteger)
    prompt_tokens: int = Field(sa_type=BigInteger)
    completion_tokens: int = Field(sa_type=BigInteger)
    cached_tokens: int = Field(sa_type=BigInteger)
    reasoning_tokens: int = Field(sa_type=BigInteger)
    unfinished: int = Field(sa_type=BigInteger)
    cost: float | None
    seconds: float
    waited: float
    batch_cost: float | None
    judge: bool
    batch: bool
    latency: str = Field(sa_type=Text)


class CallTable(SQLModel, table=True):
    """One call of one execution of a row, in the call journal.

    execution: that of the result which the calls led to, or of an execution that did not end.
    digest: of what the call asked, empty if it cannot be replayed; see `doteval.core.call_journal`.
    body: request and reply, packed by `doteval.core.call_bodies`; None where only the usage is kept.
    source: where the reply came from: live, cache, batch or replay.
    status: the HTTP status of the reply, 0 without one.
    """

    __tablename__ = "call"

    evaluation_id: int = Field(primary_key=True)
    row_index: int = Field(primary_key=True, sa_type=BigInteger)
    sample: int = Field(primary_key=True)
    execution: int = Field(primary_key=True, sa_type=BigInteger)
    position: int = Field(primary_key=True)
    digest: bytes = Field(sa_type=LargeBinary)
    source: str = Field(sa_type=Text)
    judge: bool
    model: str = Field(sa_type=SafeText)
    status: int
    started_at: float
    seconds: float
    prompt_tokens: int = Field(sa_type=BigInteger)
    completion_tokens: int = Field(sa_type=BigInteger)
    cached_tokens: int = Field(sa_type=BigInteger)
    reasoning_tokens: int = Field(sa_type=BigInteger)
    cost: float | None
    body: bytes | None = Field(sa_type=LargeBinary)


class CounterTable(SQLModel, table=True):
    """The number of results that each worker process stored, and what it spent.

    One row a worker process avoids scans by readers and lock contention between writers. `worker_id` 0 stands for
    writes without a worker process, and for what retries and replaced rows subtract, so that a single row may be
    negative: only sums are meaningful. The columns of usage are sums over the usage of the worker process; `unpriced`
    are tokens without a price. `wrote_at` is when it last stored results.

    done: results with this status.
    failed: results with this status.
    skipped: results with this status.
    attempts: tries that were sent to model APIs.
    tokens: tokens of prompts and replies.
    cost: US dollars.
    """

    __tablename__ = "counters"

    evaluation_id: int = Field(primary_key=True)
    worker_id: int = Field(primary_key=True)
    done: int = Field(sa_type=BigInteger)
    failed: int = Field(sa_type=BigInteger)
    skipped: int = Field(sa_type=BigInteger)
    attempts: int = Field(sa_type=BigInteger)
    tokens: int = Field(sa_type=BigInteger)
    unpriced: int = Field(sa_type=BigInteger)
    cost: float
    wrote_at: float | None


class BudgetShareTable(SQLModel, table=True):
    """For how many rows a worker process has reserved a part of an experiment's budget.

    It has these in flight, or may begin them. What a process reserved that has died or left counts for nothing.

    rows: how many rows.
    """

    __tablename__ = "budget_share"

    experiment_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    worker_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    rows: int = Field(sa_type=BigInteger)


class RowLabelTable(SQLModel, table=True):
    """What one person says of the result of a row and sample; see `doteval.core.row_labels`.

    execution: that of the result. A label whose result has been replaced is kept, and counts nowhere.
    person: who says it, as the view or the file of labels names them.
    judgement: right or wrong.
    labelled_at: when it was said.
    """

    __tablename__ = "row_label"

    evaluation_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    row_index: int = Field(primary_key=True, sa_type=BigInteger)
    sample: int = Field(primary_key=True)
    person: str = Field(primary_key=True, sa_type=SafeText)
    execution: int = Field(sa_type=BigInteger)
    judgement: str = Field(sa_type=Text)
    note: str | None = Field(sa_type=SafeText)
    labelled_at: float


EXPERIMENT = table_of(ExperimentTable)
EXPERIMENT_TAG = table_of(ExperimentTagTable)
PROVENANCE = table_of(ProvenanceTable)
EVALUATION = table_of(EvaluationTable)
ROW = table_of(RowTable)
RESULT = table_of(ResultTable)
SCORE = table_of(ScoreTable)
ATTEMPT = table_of(AttemptTable)
USAGE = table_of(UsageTable)
CALL = table_of(CallTable)
COUNTERS = table_of(CounterTable)
BUDGET_SHARE = table_of(BudgetShareTable)
ROW_LABEL = table_of(RowLabelTable)

RESULT_AND_ROW = RESULT.join(
    ROW, and_(ROW.c.evaluation_id == RESULT.c.evaluation_id, ROW.c.row_index == RESULT.c.row_index)
)

ALL = (
    EXPERIMENT,
    EXPERIMENT_TAG,
    PROVENANCE,
    EVALUATION,
    ROW,
    RESULT,
    SCORE,
    ATTEMPT,
    USAGE,
    CALL,
    WANTED_CALL,
    PROVIDER_BATCH,
    BATCH_LEASE,
    COUNTERS,
    BUDGET_SHARE,
    SUMMARY,
    METRIC_VALUE,
    ROW_LABEL,
    WORKER,
    RESOURCE_LOAD,
)
