"""A store with rows that wait for batches, a coordinator, and a provider that the test controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import httpx2
import orjson

from doteval.clients.batch_clients import remember_client
from doteval.coordination.batches.coordinator import BatchCoordinator
from doteval.coordination.batches.provider import LineReply, ProviderError, ProviderState
from doteval.core.batches import BatchStatus
from doteval.core.call_journal import CallSource
from doteval.core.experiments import Evaluation
from doteval.core.parking import WantedCall
from doteval.core.prices import Price, PriceTable
from doteval.core.run_config import RunConfig
from doteval.store import BatchCapacity, ParkedRow, Store, WorkerInfo
from tests.support.store_workload import SPEC, rows

ROWS = 4
REPLY = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 2}}


class Provider:
    """Holds batches until the test says how they end."""

    lag_seconds = 5.0

    def __init__(self) -> None:
        self.limits = BatchCapacity(requests=100, size=10_000, inputs=100)
        self.sent: dict[str, dict[int, bytes]] = {}
        self.states: dict[str, ProviderState] = {}
        self.lines: dict[str, list[LineReply]] = {}
        self.cancelled: list[str] = []
        self.fails: list[ProviderError] = []
        self.loses_answers = False
        self.unreadable: ProviderError | None = None

    def send(
        self, lines: Iterable[tuple[int, bytes]], endpoint: str, token: str, may_begin: Callable[[], bool]
    ) -> ProviderState:
        assert endpoint == "/chat/completions"
        assert may_begin()
        if self.fails:
            raise self.fails.pop()
        assert token not in self.sent
        self.sent[token] = dict(lines)
        self.states[token] = ProviderState(token, BatchStatus.RUNNING)
        if self.loses_answers:
            raise ProviderError("the answer was lost")
        return self.states[token]

    def find(self, token: str, age: float) -> ProviderState | None:
        assert age >= 0
        return self.states.get(token)

    def state(self, provider_id: str) -> ProviderState:
        if provider_id not in self.states:
            raise ProviderError("the provider refused: 404", status=404, is_final=True)
        return self.states[provider_id]

    def cancel(self, provider_id: str) -> None:
        self.cancelled.append(provider_id)

    def replies(self, state: ProviderState) -> Iterator[LineReply]:
        yield from self.lines.get(state.id, ())
        if self.unreadable is not None:
            raise self.unreadable

    @property
    def open(self) -> list[str]:
        return [token for token, state in self.states.items() if state.status is BatchStatus.RUNNING]

    def end(self, status: BatchStatus = BatchStatus.COMPLETED, **more: Any) -> None:
        """End the open batches. `line` makes the reply to each request, by its place."""
        line = more.pop("line", lambda place, wanted_id: LineReply(wanted_id, 200, orjson.dumps(REPLY)))
        for token in self.open:
            made = [line(place, wanted_id) for place, wanted_id in enumerate(self.sent[token])]
            self.lines[token] = [each for each in made if each is not None]
            self.states[token] = ProviderState(token, status, len(made), ("file",), **more)


class World:
    """A store with an evaluation whose rows wait, and a coordinator."""

    def __init__(self, store: Store, **config: Any) -> None:
        self.store = store
        self.provider = Provider()
        self.now = 1000.0
        self.published: list[int] = []
        self.learnt: list[int] = []
        spec = replace(SPEC, config=RunConfig(batch=True, submitted=True, queue="q", **config))
        self.evaluation = store.evaluations.begin(store.experiments.begin("x"), spec)
        store.rows.add(self.evaluation.id, rows(ROWS))
        store.rows.set_total(self.evaluation.id, ROWS, complete=True, fingerprint="f")
        request = httpx2.Request(
            "POST", "http://h/v1/chat/completions", headers={"authorization": f"Bearer key-of-{id(self)}"}
        )
        self.client = remember_client(self.evaluation.uid, request, "/chat/completions")
        self.worker = store.workers.begin(WorkerInfo("w", "h", 1))
        self.coordinator = self.another(lambda: self.worker)

    def another(self, own_id: Callable[[], int]) -> BatchCoordinator:
        return BatchCoordinator(
            self.store,
            self,
            own_id,
            serves=lambda _: True,
            run_row=lambda _, index: self.learnt.append(index),
            prices=lambda: PriceTable({}, {"m": Price(1.0, 1.0, 1.0)}),
            provider=lambda _: self.provider,
            clock=lambda: self.now,
        )

    def publish_rows(self, evaluation: Evaluation, indexes: Iterable[int]) -> None:
        assert evaluation.id == self.evaluation.id
        self.published += indexes

    def park(self, *indexes: int, client: str | None = None, nth: int = 0, model: str = "m") -> None:
        parked = [
            ParkedRow(
                self.evaluation.id,
                index,
                0,
                index + 1,
                (WantedCall(b"d", nth, 0, client or self.client, "/chat/completions", model, b'{"model":"m"}', 5),),
            )
            for index in indexes
        ]
        self.store.results.write_encoded([], None, None, parked)

    def look(self, seconds: float = 60.0) -> None:
        self.now += seconds
        assert self.coordinator.look() in (True, False)

    def used(self) -> list[tuple[int, int]]:
        """The tokens of prompts of each model: of executions that led to results, and of all."""
        models = self.store.usage.report(self.evaluation.experiment).models
        return [(each.usage.prompt_tokens, each.spent.prompt_tokens) for each in models]

    def error_of(self, index: int) -> str:
        """What the reply to the call of a row says."""
        (call,) = self.store.calls.of_row(self.evaluation.id, index)
        assert call.body is not None
        return call.body.error

    def recorded(self) -> dict[int, list[tuple[int, CallSource]]]:
        found = self.store.calls.unfinished(self.evaluation.id, 0, ROWS)
        return {index: [(call.status, call.source) for call in calls] for (index, _), calls in found.items()}
