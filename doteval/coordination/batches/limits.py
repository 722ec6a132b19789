"""When a batch is sent, and how much it may hold: the limits of the provider, of the account, and of the budget."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from doteval.core.batches import ProviderBatch
from doteval.core.experiments import Evaluation
from doteval.store import BatchCapacity, Store, WantedGroup

_Key = tuple[str, str]

# Codes of a batch that is refused for its size. Accounts have limits of enqueued tokens that nothing else tells.
_TOO_MANY_TOKENS = "token_limit_exceeded"
_TOO_LARGE = frozenset({"too_many_requests", "too_many_inputs", "file_too_large", _TOO_MANY_TOKENS})


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


@dataclass(slots=True)
class GroupLimits:
    """Learns from refusals how much a provider takes of a client and model.

    requests: the most requests of a batch. full: groups that take no batch until one of theirs ends.
    """

    requests: dict[_Key, int] = field(default_factory=dict)
    open: dict[_Key, set[int]] = field(default_factory=dict)
    full: set[_Key] = field(default_factory=set)

    def of(self, client: str, group: WantedGroup, limits: BatchCapacity) -> BatchCapacity | None:
        """The limits of the next batch of a group, None if it has to wait."""
        key = client, group.model
        if key in self.full:
            return None
        return replace(limits, requests=min(limits.requests, self.requests.get(key, limits.requests)))

    def sent(self, client: str, batch: ProviderBatch) -> None:
        """A batch was sent."""
        self.open.setdefault((client, batch.model), set()).add(batch.id)

    def ended(self, client: str, batch: ProviderBatch) -> None:
        """A batch has ended, and there is room for another."""
        key = client, batch.model
        self.open.get(key, set()).discard(batch.id)
        self.full.discard(key)

    def refused(self, client: str, batch: ProviderBatch, code: str) -> bool:
        """Whether a batch was refused for its size, so that a smaller or a later one may be taken."""
        if code not in _TOO_LARGE:
            return False
        key = client, batch.model
        others = self.open.setdefault(key, set())
        others.discard(batch.id)
        if code == _TOO_MANY_TOKENS and others:
            self.full.add(key)
            return True
        if batch.requests <= 1:
            return False
        self.requests[key] = max(1, batch.requests // 2)
        return True
