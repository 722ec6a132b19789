"""When a batch is sent, and how much it may hold: the limits of the provider, of the account, and of the budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from doteval.core.batches import ProviderBatch
from doteval.core.experiments import Evaluation
from doteval.store import BatchCapacity, Store, WantedGroup

# Codes of a batch that is refused since the queue of the account is full: for as long as others are enqueued, or for
# good if it is too large for the queue. Only the account's settings page tells how long that is.
_QUEUE_FULL = frozenset({"token_limit_exceeded", "request_limit_exceeded"})
_TOO_LARGE = frozenset({"too_many_requests", "too_many_inputs", "file_too_large"})
# Somebody else may have filled the queue. Batches take minutes at best.
_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0


def is_due(store: Store, evaluation: Evaluation, group: WantedGroup, limits: BatchCapacity) -> bool:
    """Whether calls are to be sent: they fill a batch, have waited long enough, or no row can run that wants more."""
    if group.requests >= limits.requests or group.size + group.requests * limits.overhead >= limits.size:
        return True
    if group.age >= evaluation.config.batch_linger:
        return True
    counts = evaluation.counts
    return counts.pending <= store.wanted.waiting(evaluation.id) and store.rows.dataset_state(evaluation.id).complete


def left_of_budget(
    store: Store, evaluation: Evaluation, limits: BatchCapacity, token_price: float | None
) -> BatchCapacity | None:
    """The limits of a batch that the budget of its experiment has room for; None without room.

    What is in batches and not answered counts as spent, with an estimate of its tokens. At their end a budget may be
    exceeded by what the estimate has missed.

    token_price: of tokens of replies, in US dollars; those of prompts cost less.
    """
    budget = evaluation.config.budget
    if not budget:
        return limits
    spent = store.usage.spent(evaluation.experiment)
    requests, tokens = store.batches.reserved(evaluation.experiment.id)
    most_requests, most_tokens = limits.requests, limits.tokens
    if budget.requests is not None:
        most_requests = min(most_requests, budget.requests - spent.requests - requests)
    rooms = [] if most_tokens is None else [most_tokens]
    if budget.tokens is not None:
        rooms.append(budget.tokens - spent.tokens - tokens)
    if budget.cost is not None and token_price:
        rooms.append(int((budget.cost - spent.cost) / token_price) - tokens)
    most_tokens = min(rooms) if rooms else None
    if most_requests <= 0 or (most_tokens is not None and most_tokens <= 0):
        return None
    return replace(limits, requests=most_requests, tokens=most_tokens)


def left_of_queue(store: Store, group: WantedGroup, limits: BatchCapacity) -> BatchCapacity | None:
    """The limits of a batch that the queue of the account has room for, by `limits.queue`; None without room.

    All batches of the model count, also those of other accounts: the store does not know whose they are.
    """
    if limits.queue is None:
        return limits
    enqueued = store.batches.enqueued(group.model)
    return None if enqueued >= limits.queue else replace(limits, enqueued=enqueued)


@dataclass(slots=True)
class _Learnt:
    """What the refusals of a provider say of a client and model.

    most: requests of a batch, None for any number. most_now: the same while the queue is full.
    open: batches that were sent and have not ended.
    waits_for_end: no batch is taken until one of them ends. waits_until: nor before this moment.
    refusals: of the queue, one after another.
    """

    most: int | None = None
    most_now: int | None = None
    open: set[int] = field(default_factory=set)
    waits_for_end: bool = False
    waits_until: float = 0.0
    refusals: int = 0


class GroupLimits:
    """Learns from refusals how much a provider takes of a client and model. `clock`: in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._learnt: defaultdict[tuple[str, str], _Learnt] = defaultdict(_Learnt)

    def of(self, client: str, group: WantedGroup, limits: BatchCapacity) -> BatchCapacity | None:
        """The limits of the next batch of a group, None if it has to wait."""
        learnt = self._learnt[client, group.model]
        if learnt.waits_for_end or self._clock() < learnt.waits_until:
            return None
        most = min(each for each in (limits.requests, learnt.most, learnt.most_now) if each is not None)
        return replace(limits, requests=most)

    def sent(self, client: str, batch: ProviderBatch) -> None:
        """A batch was sent."""
        self._learnt[client, batch.model].open.add(batch.id)

    def ended(self, client: str, batch: ProviderBatch) -> None:
        """A batch has ended that was taken, and there is room for another."""
        learnt = self._learnt[client, batch.model]
        learnt.open.discard(batch.id)
        learnt.waits_for_end, learnt.waits_until, learnt.refusals = False, 0.0, 0
        if learnt.most_now is not None:
            learnt.most_now *= 2

    def refused(self, client: str, batch: ProviderBatch, code: str) -> bool:
        """Whether a batch was refused for its size, so that a smaller or a later one may be taken."""
        learnt = self._learnt[client, batch.model]
        learnt.open.discard(batch.id)
        half = max(1, batch.requests // 2)
        if code in _QUEUE_FULL:
            learnt.waits_for_end = bool(learnt.open)
            if not learnt.open:
                learnt.most_now = half
                pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**learnt.refusals)
                learnt.waits_until = self._clock() + pause
                learnt.refusals += 1
            return True
        if code not in _TOO_LARGE or batch.requests <= 1:
            return False
        learnt.most = half
        return True
