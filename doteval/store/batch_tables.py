"""The tables of batch mode: what rows wait for, and the batches that it is sent in."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, LargeBinary, Text, text
from sqlmodel import Field, SQLModel

from doteval.store.column_types import LongId, SafeText, table_of


class WantedCallTable(SQLModel, table=True):
    """A call that a row in batch mode has asked for; see `doteval.core.parking.WantedCall`.

    The row waits until `answered_at` is set. Answered calls are kept while the evaluation runs: they keep another
    execution of the row from asking for the same again.

    body: zlib-compressed, None once it is answered.
    size: bytes of its line in a batch.
    batch_id: the batch that it is in, None before.
    tries: how many batches have ended without a reply to it.
    last_error: what the last of these said.
    live: whether the row is to send it itself, since no batch has answered it in time.
    digest: of what it asks.
    nth: how often the row has asked the same before.
    inputs: texts of a call for embeddings, 1 for others.
    wanted_at: when the row asked.
    """

    __tablename__ = "wanted_call"
    __table_args__ = (
        Index("wanted_call_key", "evaluation_id", "row_index", "sample", "digest", "nth", unique=True),
        Index(
            "wanted_call_open",
            "evaluation_id",
            "row_index",
            "sample",
            sqlite_where=text("answered_at IS NULL"),
            postgresql_where=text("answered_at IS NULL"),
        ),
        Index("wanted_call_batch", "batch_id"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=LongId)
    evaluation_id: int
    row_index: int = Field(sa_type=BigInteger)
    sample: int
    digest: bytes = Field(sa_type=LargeBinary)
    nth: int
    position: int
    client: str = Field(sa_type=Text)
    endpoint: str = Field(sa_type=Text)
    model: str = Field(sa_type=SafeText)
    body: bytes | None = Field(sa_type=LargeBinary)
    size: int = Field(sa_type=BigInteger)
    tokens: int = Field(sa_type=BigInteger)
    inputs: int
    judge: bool
    wanted_at: float
    batch_id: int | None = Field(sa_type=BigInteger)
    tries: int
    last_error: str | None = Field(sa_type=SafeText)
    answered_at: float | None
    live: bool


class ProviderBatchTable(SQLModel, table=True):
    """A batch of wanted calls at a provider. It is written before anything is sent.

    client: identifies the account without revealing its key.
    token: finds the batch at the provider, in whose metadata it is.
    provider_id: the provider's name of it, None as long as it is not known whether the provider has it.
    requests: how many calls it was sent with.
    answered: how many of them the provider says are done.
    tokens: an estimate for budgets, of the calls that are not answered.
    cancelled: why it is to be cancelled at the provider, None if it is not.
    error: what went wrong last.
    cost: an estimate for budgets in US dollars.
    reserved_at: when it was written here.
    sent_at: when it was sent, None before.
    ended_at: when it ended, None before.
    status: the provider's word for its state.
    """

    __tablename__ = "provider_batch"
    __table_args__ = (
        Index(
            "provider_batch_open",
            "evaluation_id",
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=LongId)
    evaluation_id: int
    client: str = Field(sa_type=Text)
    endpoint: str = Field(sa_type=Text)
    model: str = Field(sa_type=SafeText)
    token: str = Field(sa_type=Text)
    provider_id: str | None = Field(sa_type=SafeText)
    requests: int = Field(sa_type=BigInteger)
    answered: int = Field(sa_type=BigInteger)
    tokens: int = Field(sa_type=BigInteger)
    cost: float | None
    reserved_at: float
    sent_at: float | None
    ended_at: float | None
    status: str = Field(sa_type=Text)
    cancelled: str | None = Field(sa_type=Text)
    error: str | None = Field(sa_type=SafeText)


class BatchLeaseTable(SQLModel, table=True):
    """The worker process that sends and polls the batches of an evaluation and a client, as long as it lives.

    client: identifies the account without revealing its key.
    """

    __tablename__ = "batch_lease"

    evaluation_id: int = Field(primary_key=True)
    client: str = Field(primary_key=True, sa_type=Text)
    worker_id: int


WANTED_CALL = table_of(WantedCallTable)
PROVIDER_BATCH = table_of(ProviderBatchTable)
BATCH_LEASE = table_of(BatchLeaseTable)
