"""Batches of calls at a provider, as the store and the coordinator know them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from doteval.core.wording import counted, duration


class BatchStatus(StrEnum):
    """What a batch is doing."""

    RESERVED = "reserved"
    """Its calls are chosen, and it is not known to be at the provider."""
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    """The provider has refused it as a whole."""
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class AfterDeadline(StrEnum):
    """What happens to a call that no batch has answered at the deadline."""

    LIVE = "live"
    """The row sends it itself."""
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class ProviderBatch:
    """A batch in the store; see `doteval.store.tables.ProviderBatchTable`. age: seconds since it was reserved."""

    id: int
    evaluation_id: int
    client: str
    endpoint: str
    model: str
    token: str
    provider_id: str | None
    requests: int
    answered: int
    status: BatchStatus
    cancelled: str | None
    error: str | None
    age: float


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far the batches of evaluations are.

    waiting: rows that wait for replies; each sample counts.
    unsent: calls that are in no batch yet.
    batches: how many batches are open. requests, answered: calls in these, and those that the provider has answered.
    oldest: seconds since the oldest of them was made, None without one.
    errors: what went wrong last with open batches, and with the last one if it was refused and calls wait for the next.
    """

    waiting: int = 0
    unsent: int = 0
    batches: int = 0
    requests: int = 0
    answered: int = 0
    oldest: float | None = None
    errors: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The progress for people.

        >>> print(BatchProgress(batches=3, requests=50_000, answered=41_200, oldest=842.0))
        3 batches, 41,200 of 50,000 answered, oldest 14 min 02 s
        """
        parts = []
        if self.batches:
            answered = f"{self.answered:,} of {self.requests:,} answered"
            parts.append(f"{counted(self.batches, 'batch')}, {answered}, oldest {duration(self.oldest)}")
        if self.unsent:
            parts.append(f"{counted(self.unsent, 'call')} for the next batch")
        return "; ".join([*parts, *self.errors])
