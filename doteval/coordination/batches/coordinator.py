"""Sends the calls that rows wait for in batches, polls these, and wakes the rows whose replies are there.

Everything is written to the store before it is sent: the calls of a batch are reserved, the batch is sent with a token
in its metadata, and its name at the provider is recorded. Whatever process dies at whatever moment, the next one finds
the batch by its token and goes on; so no call is sent twice::

    wanted ─reserve─▶ reserved ─send─▶ running ─poll─▶ ended ─▶ replies in the journal, rows pending again

The batches of an evaluation and a client belong to one worker process as long as it lives, by a lease in the store. Any
process that has run a row of the client may take it, since it knows the key then. If none has, as after a restart, this
one runs a row that waits: the row asks for its call again, and waits on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from doteval.clients.batch_clients import BatchClient, known_client
from doteval.coordination.batches.limits import GroupLimits, is_due, left_of_budget, left_of_queue
from doteval.coordination.batches.provider import BatchProvider, ProviderError, ProviderState
from doteval.coordination.batches.replies import ReplyReader
from doteval.coordination.batches.settlement import AT_DEADLINE, BatchShare, RowPublisher, Settlement
from doteval.core import clocks
from doteval.core.batches import BatchStatus, ProviderBatch
from doteval.core.experiments import Ending, Evaluation, EvaluationStatus
from doteval.core.prices import PriceTable
from doteval.core.wording import counted
from doteval.store import Store, WantedGroup

_OF_ENDED = "ended"

# A batch is asked for after this part of its age, but not more often and not less often than the seconds.
_POLL_PART = 0.05
_POLL_SECONDS = 0.5
_LONGEST_POLL_SECONDS = 60.0
_RETRY_SECONDS = 5.0
_NOT_FOUND = 404
_LEARN_SECONDS = 5.0

logger = logging.getLogger("doteval.worker")


def _openai_batches(client: BatchClient) -> BatchProvider:
    # Importing the library takes each worker process half a second, and only batches need it.
    from doteval.coordination.batches.openai_files import OpenAiBatches

    return OpenAiBatches(client)


class BatchCoordinator:
    """Sends and polls the batches of those clients that this process knows.

    own_id: returns the id of this worker process.
    serves: whether this process runs rows of an evaluation.
    run_row: runs a row of an evaluation that waits, by its index, so that this process gets to know its client.
    provider: makes what sends the batches of a client.
    """

    def __init__(
        self,
        store: Store,
        publisher: RowPublisher,
        own_id: Callable[[], int],
        *,
        serves: Callable[[Evaluation], bool],
        run_row: Callable[[Evaluation, int], None],
        prices: Callable[[], PriceTable],
        provider: Callable[[BatchClient], BatchProvider] | None = None,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._store = store
        self._own_id = own_id
        self._serves = serves
        self._run_row = run_row
        self._prices = prices
        self._make_provider = provider or _openai_batches
        self._clock = clock
        self._providers: dict[str, BatchProvider] = {}
        self._limits = GroupLimits(clock)
        self._settlement = Settlement(store, publisher, own_id, self._limits)
        # By batch: when it was first seen, and when it is looked at next.
        self._seen: dict[int, float] = {}
        self._next_look: dict[int, float] = {}
        self._cancelled: set[int] = set()
        self._learnt: dict[tuple[int, str], float] = {}

    def look(self, *, may_run_rows: bool = True) -> bool:
        """Do what is due. Returns whether there is anything to do soon.

        may_run_rows: whether this process begins rows, else it begins no batches either.

        Raises StoreError: the store is unavailable. What was done is stored.
        """
        live: set[int] | None = None
        busy = False
        for evaluation in self._evaluations():
            for client, holder in self._store.batches.clients(evaluation.id).items():
                if live is None:
                    live = self._live()
                busy = True
                known = known_client(client)
                if known is None:
                    if may_run_rows and holder not in live:
                        self._learn(evaluation, client)
                elif self._leases(evaluation, client, live):
                    self._work(self._share(evaluation, client, known), may_send=may_run_rows)
        return busy

    def _evaluations(self) -> list[Evaluation]:
        """The evaluations in batch mode that run, and those that have ended with batches at a provider."""
        running = [each for each in self._store.evaluations.running() if each.config.batch]
        left = set(self._store.batches.with_open()) - {each.id for each in running}
        ended = self._store.evaluations.of_ids(left) if left else []
        if ended:
            self._store.batches.cancel([each.id for each in ended], _OF_ENDED)
        return [each for each in [*running, *ended] if self._serves(each)]

    def _share(self, evaluation: Evaluation, client: str, known: BatchClient) -> BatchShare:
        provider = self._providers.get(client)
        if provider is None:
            provider = self._providers[client] = self._make_provider(known)

        def reader(model: str) -> ReplyReader:
            return ReplyReader(known, model, self._prices())

        def is_held() -> bool:
            return self._leases(evaluation, client, self._live())

        return BatchShare(evaluation, client, known.base_url, provider, reader, is_held)

    def _live(self) -> set[int]:
        return {worker.id for worker in self._store.workers.live()}

    def _leases(self, evaluation: Evaluation, client: str, live: set[int]) -> bool:
        return self._store.batches.lease(evaluation.id, client, self._own_id(), live)

    def _learn(self, evaluation: Evaluation, client: str) -> None:
        """Have a row run that waits for a call of the client."""
        now = self._clock()
        if evaluation.status is not EvaluationStatus.RUNNING:
            return
        if now - self._learnt.get((evaluation.id, client), -_LEARN_SECONDS) < _LEARN_SECONDS:
            return
        self._learnt[evaluation.id, client] = now
        index = self._store.wanted.row_of_client(evaluation.id, client)
        if index is not None:
            self._run_row(evaluation, index)

    def _work(self, share: BatchShare, *, may_send: bool) -> None:
        for batch in self._store.batches.open(share.evaluation.id, share.client):
            now = self._clock()
            self._seen.setdefault(batch.id, now)
            if now >= self._next_look.get(batch.id, now):
                self._look_at(share, batch)
        if may_send and share.evaluation.status is EvaluationStatus.RUNNING:
            self._end_overdue(share)
            self._send_due(share)
        elif share.evaluation.status is not EvaluationStatus.RUNNING:
            # Its rows want them anew if it is continued.
            self._store.batches.drop_unsent(share.evaluation.id)

    def _look_at(self, share: BatchShare, batch: ProviderBatch) -> None:
        try:
            if batch.provider_id is None:
                self._send(share, batch, fresh=False)
            else:
                self._poll(share, batch, batch.provider_id)
        except ProviderError as error:
            self._note(batch, error)

    def _note(self, batch: ProviderBatch, error: ProviderError) -> None:
        logger.warning("batch %d: %s", batch.id, error.message)
        self._store.batches.record(batch.id, error=error.message)
        self._next_look[batch.id] = self._clock() + _RETRY_SECONDS

    def _send_due(self, share: BatchShare) -> None:
        """Send new batches of what waits for long enough, or is enough."""
        evaluation = self._store.evaluations.by_uid(share.evaluation.uid)
        for group in self._store.batches.groups(evaluation.id, share.client):
            price = self._token_price(share, group.model)
            if price is None and evaluation.config.budget.cost is not None:
                # Only the replies would tell what they cost, when they are paid for.
                stop = evaluation.config.budget.unpriced([group.model])
                self._store.evaluations.end(evaluation.id, Ending.at_budget(stop), only_from=EvaluationStatus.RUNNING)
                return
            batch = self._reserve(share, evaluation, group, price)
            if batch is None:
                continue
            self._seen[batch.id] = self._clock()
            try:
                self._send(share, batch, fresh=True)
            except ProviderError as error:
                self._note(batch, error)

    def _reserve(
        self, share: BatchShare, evaluation: Evaluation, group: WantedGroup, token_price: float | None
    ) -> ProviderBatch | None:
        """The next batch of a group, None if it has to wait."""
        limits = self._limits.of(share.client, group, share.provider.limits)
        if limits is None or not is_due(self._store, evaluation, group, limits):
            return None
        limits = replace(limits, queue=evaluation.config.batch_tokens)
        room = left_of_queue(self._store, group, limits)
        allowed = None if room is None else left_of_budget(self._store, evaluation, room, token_price)
        return None if allowed is None else self._store.batches.reserve(evaluation.id, share.client, group, allowed)

    def _token_price(self, share: BatchShare, model: str) -> float | None:
        """US dollars for a token of a reply in a batch, None without a price."""
        million = 1_000_000
        price = self._prices().cost(
            model, prompt_tokens=0, completion_tokens=million, cached_tokens=0, url=share.base_url, batch=True
        )
        return None if price is None else price / million

    def _send(self, share: BatchShare, batch: ProviderBatch, *, fresh: bool) -> None:
        """Send a batch that is reserved, unless the provider has it. fresh: whether nobody can have tried before."""
        provider, state = share.provider, None
        if not fresh:
            # Its process has died, or the answer was lost: the batch may be there.
            due = self._seen[batch.id] + provider.lag_seconds
            if self._clock() < due:
                self._next_look[batch.id] = due
                return
            state = provider.find(batch.token, batch.age)
        try:
            if state is None and (batch.cancelled or not self._store.wanted.unanswered(batch.id)):
                self._settlement.end(share, batch, ProviderState("", BatchStatus.CANCELLED))
                return
            if state is None:
                # The next look must be late enough for the list of batches, however long the upload takes.
                try:
                    state = provider.send(
                        self._store.wanted.bodies(batch.id), batch.endpoint, batch.token, share.is_held
                    )
                finally:
                    self._seen[batch.id] = self._clock()
        except ProviderError as error:
            if state is None and self._settlement.refuse_size(share, batch, error):
                return
            if not error.is_final:
                raise
            self._settlement.refuse_all(share, batch, error)
            return
        self._store.batches.record(
            batch.id, provider_id=state.id, status=BatchStatus.RUNNING.value, sent=True, error=None
        )
        self._limits.sent(share.client, batch)
        self._next_look[batch.id] = self._clock() + _POLL_SECONDS
        logger.info("batch %d: %s sent as %s", batch.id, counted(batch.requests, "request"), state.id)

    def _state(self, share: BatchShare, provider_id: str) -> ProviderState:
        """The state of a batch; one that the provider knows no more has ended without replies."""
        try:
            return share.provider.state(provider_id)
        except ProviderError as error:
            if error.status != _NOT_FOUND:
                raise
            return ProviderState(
                provider_id, BatchStatus.FAILED, message="the provider does not know its batch any more"
            )

    def _poll(self, share: BatchShare, batch: ProviderBatch, provider_id: str) -> None:
        deadline = share.evaluation.config.batch_deadline
        if batch.cancelled is None and deadline is not None and batch.age > deadline:
            self._store.batches.record(batch.id, cancelled=AT_DEADLINE)
            batch = replace(batch, cancelled=AT_DEADLINE)
        state = self._state(share, provider_id)
        if batch.cancelled is not None and batch.id not in self._cancelled and state.status is BatchStatus.RUNNING:
            share.provider.cancel(provider_id)
            self._cancelled.add(batch.id)
            state = self._state(share, provider_id)
        if state.answered != batch.answered or batch.error is not None:
            self._store.batches.record(batch.id, answered=state.answered, error=None)
        if state.status is not BatchStatus.RUNNING:
            self._settlement.end(share, batch, state)
            return
        # Another process may have sent it.
        self._limits.sent(share.client, batch)
        wait = min(_LONGEST_POLL_SECONDS, max(_POLL_SECONDS, batch.age * _POLL_PART))
        self._next_look[batch.id] = self._clock() + wait

    def _end_overdue(self, share: BatchShare) -> None:
        """Give up calls that have waited for a batch until the deadline."""
        deadline = share.evaluation.config.batch_deadline
        if deadline is not None:
            self._settlement.give_up(share, self._store.wanted.overdue(share.evaluation.id, share.client, deadline))
