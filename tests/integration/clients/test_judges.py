"""The calls of judges are marked as theirs, in the usage of the row and in its journal, and no other call is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import openai
import pytest

from doteval.clients.openai import async_openai_client, instrument, openai_client
from doteval.clients.shared_state import close_shared
from doteval.core.call_bodies import CallBody, pack
from doteval.core.call_journal import FinishedCall, JournalMode, RecordedCall, RowCalls
from doteval.core.client_config import ClientConfig, configure_clients
from doteval.core.judging import is_judging
from doteval.core.metering import Meter, metering
from doteval.core.parking import Parked, Parking
from doteval.evaluators import evaluator, judge_panel, llm_judge, llm_pairwise, llm_rubric
from doteval.mock_openai import MockOpenAI
from tests.support.client_calls import ask, settings

pytestmark = pytest.mark.usefixtures("forget_limits")

RUBRIC = {"polite": "It is polite.", "short": "It is short."}


class Row:
    """A row whose calls are noted. `calls` are those that have ended."""

    def __init__(self, recorded: tuple[RecordedCall, ...] = (), parking: Parking | None = None) -> None:
        self.calls: list[FinishedCall] = []
        self._of_row = RowCalls(JournalMode.FULL, 1, b"key", self._put, recorded, None, parking)
        self.meter = Meter(calls=self._of_row)
        self.meter.parks = parking is not None

    def _put(self, calls: Any) -> Future[None]:
        self.calls += calls
        stored: Future[None] = Future()
        stored.set_result(None)
        return stored

    def run(self, function: Callable[[], Any]) -> None:
        with metering(self.meter):
            function()
        self.calls += self._of_row.close(has_result=True)

    def requests(self) -> dict[tuple[str, bool], int]:
        """How many requests there were, by model and by whether a judge asked."""
        assert not any(usage.batch for usage in self.meter.reading())
        found = Counter({(usage.model, usage.judge): usage.requests for usage in self.meter.reading()})
        assert Counter((call.model, call.judge) for call in self.calls) == found
        return dict(found)


def test_judges_of_a_sync_client(mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai))
    judge = llm_judge(client, "j")
    panel = judge_panel(llm_judge(client, "j"), llm_judge(client, "k"), lambda response: judge(response))

    def evaluate() -> None:
        ask(client)
        judge("text")
        llm_rubric(client, "j", RUBRIC)("text")
        llm_pairwise(client, "j")("text", "other")
        panel("text")
        ask(client)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(copy_context().run, judge, "text").result()
            pool.submit(copy_context().run, ask, client).result()
        assert not is_judging()

    row = Row()
    row.run(evaluate)
    assert row.requests() == {("m", False): 3, ("j", True): 1 + 1 + 2 + 2 + 1, ("k", True): 1}


def test_judges_of_async_clients_side_by_side_with_other_calls(mock_openai: MockOpenAI) -> None:
    async def evaluate(client: Any) -> None:
        judge, rubric, pairwise = (
            llm_judge(client, "j"),
            llm_rubric(client, "j", RUBRIC),
            llm_pairwise(client, "j"),
        )
        panel = judge_panel(judge, judge, lambda response: judge(response))
        later = judge("text")
        await asyncio.gather(
            ask(client, model="j"), judge("text"), ask(client), rubric("text"), pairwise("text", "other"), ask(client)
        )
        await asyncio.create_task(panel("text"))
        await asyncio.wait_for(later, 30)
        await ask(client, model="j")
        assert not is_judging()

    # One on aiohttp, and one of the author's own on httpx.
    for client in (
        async_openai_client(**settings(mock_openai)),
        instrument(openai.AsyncOpenAI(**settings(mock_openai))),
    ):
        row = Row()
        row.run(lambda client=client: asyncio.run(evaluate(client)))  # type: ignore[misc]
        assert row.requests() == {("m", False): 2, ("j", False): 2, ("j", True): 1 + 1 + 2 + 3 + 1}


def test_a_judge_of_a_panel_that_does_not_mark_its_calls_itself(mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai))

    @evaluator(metrics=[])
    def own(response: str) -> Any:
        return bool(ask(client, response))

    row = Row()
    row.run(lambda: judge_panel(own, own)("text"))
    assert row.requests() == {("m", True): 2}


def test_a_judge_that_fails_marks_nothing_that_follows(mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, max_retries=0, default_headers={"x-mock-fault": "status:400"}))
    with pytest.raises(Exception, match="400"):
        Row().run(lambda: llm_judge(client, "j")("text"))
    assert not is_judging()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[None]:
    close_shared()
    configure_clients(ClientConfig(cache_path=str(tmp_path / "cache.db")))
    yield
    close_shared()
    configure_clients(ClientConfig())


@pytest.mark.usefixtures("cache")
def test_replies_of_the_cache_and_of_the_journal(mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, cache=True))
    judge = llm_judge(client, "j", options={"temperature": 0})
    first = Row()
    first.run(lambda: (judge("text"), judge("text"), ask(client)))
    assert first.requests() == {("j", True): 2, ("m", False): 1}
    (of_judge,) = [usage for usage in first.meter.reading() if usage.judge]
    assert (of_judge.cache_hits, of_judge.cache_misses) == (1, 1)

    recorded = tuple(
        RecordedCall(
            call.digest,
            1,
            call.position,
            call.status,
            pack(CallBody(call.endpoint, call.content_type, "", call.request, call.reply)),
        )
        for call in first.calls
    )
    again = Row(recorded)
    again.run(lambda: (judge("text"), judge("text"), ask(client)))
    assert [(call.model, call.judge, call.source) for call in again.calls] == [
        ("j", True, "replay"),
        ("j", True, "replay"),
        ("m", False, "replay"),
    ]


def test_what_a_judge_wants_of_a_batch(mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai))
    for asks, expected in ((lambda: llm_judge(client, "j")("text"), True), (lambda: ask(client), False)):
        parking = Parking()
        with pytest.raises(Parked):
            Row(parking=parking).run(asks)
        assert [wanted.judge for wanted in parking.wanted] == [expected]
    assert mock_openai.stats()["requests"] == 0
