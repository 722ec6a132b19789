"""The tracing step of the clients, against the mock server: what the spans of calls show, and what they never show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from opentelemetry import trace

from doteval.clients.openai import async_openai_client, openai_client
from doteval.core.call_bodies import CallBody, pack
from doteval.core.call_journal import CallSource, JournalMode, RecordedCall, RowCalls
from doteval.core.client_config import ClientConfig, configure_clients
from doteval.core.metering import Meter, metering
from doteval.core.parking import Parked, Parking
from doteval.core.results import Outcome, Row, RowStatus
from doteval.core.run_config import RunConfig
from doteval.evaluators import llm_judge
from doteval.mock_openai import MockOpenAI
from doteval.tracing.spans import EvaluationTracer, end_left_spans
from tests.support.client_calls import RICH, ask, message, settings
from tests.support.evaluations import evaluation
from tests.support.spans import Kept

pytestmark = pytest.mark.usefixtures("forget_limits")

DONE = Outcome(RowStatus.DONE, 0.0, 0.0)
CONTENT = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions")


@contextmanager
def row(*, content: bool = False, calls: RowCalls | None = None, parks: bool = False) -> Iterator[Meter]:
    """A traced row."""
    span = EvaluationTracer(evaluation(RunConfig()), has_content=content).begin([Row(3, "key", {})])
    meter = Meter(calls=calls)
    meter.span, meter.parks = span, parks
    with metering(meter), span.current():
        yield meter
    span.end([DONE])


def attributes(spans: Kept, beginning: str) -> dict[str, Any]:
    return dict(spans.only(beginning).attributes or {})


def test_a_call_is_described_by_the_conventions_and_belongs_to_its_row(mock_openai: MockOpenAI, spans: Kept) -> None:
    with row():
        ask(openai_client(**settings(mock_openai)), RICH, max_tokens=50)
    call, of_row = spans.only("chat m"), spans.only("row ")
    assert call.kind is trace.SpanKind.CLIENT
    assert call.parent == of_row.context
    found = attributes(spans, "chat m")
    assert found.pop("gen_ai.response.id").startswith("chatcmpl-")
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.max_tokens": 50,
        "server.address": "127.0.0.1",
        "server.port": int(mock_openai.base_url.rpartition(":")[2].partition("/")[0]),
        "gen_ai.response.model": "m",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 6,
        "gen_ai.usage.output_tokens": 8,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "doteval.call.source": "live",
    }


def test_the_calls_of_judges_are_marked(mock_openai: MockOpenAI, spans: Kept) -> None:
    with row():
        llm_judge(openai_client(**settings(mock_openai)), "m")("text")
    assert attributes(spans, "chat m")["doteval.call.judge"] is True


def test_async_calls_side_by_side_are_children_of_the_current_span(mock_openai: MockOpenAI, spans: Kept) -> None:
    tracer = spans.provider.get_tracer("the author's")

    async def both() -> None:
        client = async_openai_client(**settings(mock_openai))
        with tracer.start_as_current_span("think"):
            await asyncio.gather(*(ask(client, f"{number}") for number in range(2)))

    with row():
        asyncio.run(both())
    think, of_row = spans.only("think"), spans.only("row ")
    calls = [span for span in spans.all() if span.name == "chat m"]
    assert len({span.context.span_id for span in calls if span.context}) == 2
    assert {span.parent and span.parent.span_id for span in calls} == {think.context and think.context.span_id}
    assert think.parent == of_row.context


@pytest.mark.parametrize("is_async", [False, True])
def test_a_stream_ends_its_span_when_it_was_read(mock_openai: MockOpenAI, spans: Kept, is_async: bool) -> None:
    asked = {"stream": True, "stream_options": {"include_usage": True}}

    async def read() -> str:
        stream = await ask(async_openai_client(**settings(mock_openai)), RICH, **asked)
        assert [span for span in spans.all() if span.name == "chat m"] == []
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    with row(content=True):
        if is_async:
            assert asyncio.run(read()) == "one two three"
        else:
            for _ in ask(openai_client(**settings(mock_openai)), RICH, **asked):
                assert [span for span in spans.all() if span.name == "chat m"] == []
    found = attributes(spans, "chat m")
    assert found["gen_ai.request.stream"] is True
    assert found["gen_ai.response.finish_reasons"] == ("stop",)
    assert found["gen_ai.usage.output_tokens"] == 8
    (reply,) = json.loads(found["gen_ai.output.messages"])
    assert reply["parts"] == [{"type": "text", "content": "one two three"}]


def test_a_stream_that_is_dropped_says_so(mock_openai: MockOpenAI, spans: Kept) -> None:
    with row():
        stream = ask(openai_client(**settings(mock_openai)), "hello", stream=True)
        next(iter(stream))
        stream.close()
    end_left_spans()
    assert attributes(spans, "chat m")["error.type"] == "abandoned"


def test_an_error_of_the_server_is_its_status(mock_openai: MockOpenAI, spans: Kept) -> None:
    with row(), pytest.raises(openai.BadRequestError):
        ask(openai_client(**settings(mock_openai)), "[[status:400]]")
    found = spans.only("chat m")
    assert found.status.status_code is trace.StatusCode.ERROR
    assert attributes(spans, "chat m")["error.type"] == "400"
    assert "gen_ai.usage.input_tokens" not in attributes(spans, "chat m")


def test_tries_of_one_call_are_one_span(mock_openai: MockOpenAI, spans: Kept) -> None:
    with row():
        ask(openai_client(**settings(mock_openai)), "[[status:500x1]]")
    assert attributes(spans, "chat m")["doteval.call.tries"] == 2


def test_replies_of_the_cache_count_as_nothing_spent(mock_openai: MockOpenAI, spans: Kept, tmp_path: Path) -> None:
    configure_clients(ClientConfig(cache_path=str(tmp_path / "cache.db")))
    try:
        client = openai_client(cache=True, **settings(mock_openai))
        with row():
            ask(client)
            ask(client)
    finally:
        configure_clients(ClientConfig())
    first, second = (dict(span.attributes or {}) for span in spans.all() if span.name == "chat m")
    assert (first["doteval.call.source"], second["doteval.call.source"]) == ("live", "cache")
    assert second["gen_ai.response.id"] == first["gen_ai.response.id"]
    assert [name for name in second if name.startswith("gen_ai.usage")] == []


def _calls(recorded: tuple[RecordedCall, ...] = (), parking: Parking | None = None) -> RowCalls:
    stored: Future[None] = Future()
    stored.set_result(None)
    return RowCalls(JournalMode.FULL, 2, b"key", lambda _: stored, recorded, parking=parking)


@pytest.mark.parametrize(
    ("source", "later", "has_result", "counts"),
    [
        (CallSource.LIVE, (), False, False),
        (CallSource.BATCH, (), False, True),
        # Parallel calls are of one round; what was wanted later is of the next one.
        (CallSource.BATCH, (1.0,), False, True),
        (CallSource.BATCH, (1.0, 2.0), False, False),
        # The row has failed with this reply, and a retry replays it.
        (CallSource.BATCH, (), True, False),
    ],
)
def test_recorded_replies_say_so_and_only_those_of_batches_count_once(
    mock_openai: MockOpenAI,
    spans: Kept,
    source: CallSource,
    later: tuple[float, ...],
    has_result: bool,
    counts: bool,
) -> None:
    client = openai_client(**settings(mock_openai))
    first = _calls()
    with row(calls=first):
        ask(client, RICH)
    (call,) = first.close(has_result=True)
    body = CallBody(call.endpoint, call.content_type, "", call.request, call.reply)
    recorded = RecordedCall(call.digest, 1, 0, 200, pack(body), source=source, started_at=1.0, has_result=has_result)
    others = [replace(recorded, digest=b"another", started_at=wanted_at, has_result=False) for wanted_at in later]
    with row(calls=_calls((recorded, *others))):
        ask(client, RICH)
    found = [dict(span.attributes or {}) for span in spans.all() if span.name == "chat m"][1]
    assert found["doteval.call.source"] == ("batch" if counts else "replay")
    assert found.get("gen_ai.usage.output_tokens") == (8 if counts else None)
    assert mock_openai.stats()["requests"] == 1


def test_a_call_that_waits_for_a_batch_is_no_error(mock_openai: MockOpenAI, spans: Kept) -> None:
    with row(calls=_calls(parking=Parking()), parks=True), pytest.raises(Parked):
        ask(openai_client(**settings(mock_openai)))
    found = spans.only("chat m")
    assert found.status.status_code is trace.StatusCode.UNSET
    assert dict(found.attributes or {}) | {"doteval.call.source": "batch", "doteval.call.waiting": True} == dict(
        found.attributes or {}
    )


def test_texts_are_sent_only_if_asked_for_and_secrets_never(mock_openai: MockOpenAI, spans: Kept) -> None:
    given = settings(mock_openai)
    client, key = openai_client(**given), given["api_key"]
    for content in (False, True):
        with row(content=content):
            ask(client, f"[[reply:a private reply]] a private prompt with {key}")
            client.responses.create(model="r", input="private input", instructions="private instructions")
            client.embeddings.create(model="e", input=["private one", "private two"])
    without, with_content = spans.all()[:4], spans.all()[4:]
    assert "private" not in repr([span.to_json() for span in without])
    assert key not in repr([span.to_json() for span in spans.all()])
    chat, response, embeddings = (dict(span.attributes or {}) for span in with_content[:3])
    assert "a private prompt with ***" in json.loads(chat[CONTENT[0]])[0]["parts"][0]["content"]
    assert json.loads(chat[CONTENT[1]]) == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "a private reply"}],
            "finish_reason": "stop",
        }
    ]
    assert json.loads(response[CONTENT[2]]) == [{"type": "text", "content": "private instructions"}]
    assert response["openai.api.type"] == "responses"
    assert json.loads(embeddings[CONTENT[0]])[0]["parts"][0]["content"] == '["private one","private two"]'
    assert CONTENT[1] not in embeddings


def test_calls_of_tools_and_their_results_are_parts_of_messages(mock_openai: MockOpenAI, spans: Kept) -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
    client = openai_client(**settings(mock_openai))
    with row(content=True):
        asked = message("[[tool:look]] now")
        called = client.chat.completions.create(model="m", messages=asked, tools=tools).choices[0].message
        result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "rain"}
        client.chat.completions.create(model="m", messages=[*asked, called, result], tools=tools)
    first, second = (dict(span.attributes or {}) for span in spans.all() if span.name == "chat m")
    (said,) = json.loads(first[CONTENT[1]])
    assert (said["parts"][0]["type"], said["parts"][0]["name"]) == ("tool_call", "look")
    asked_again = json.loads(second[CONTENT[0]])
    assert asked_again[2] == {
        "role": "tool",
        "parts": [{"type": "tool_call_response", "id": called.tool_calls[0].id, "response": "rain"}],
    }


def test_requests_that_ask_no_model_and_rows_without_tracing_have_no_spans(
    mock_openai: MockOpenAI, spans: Kept
) -> None:
    client = openai_client(**settings(mock_openai))
    with metering(Meter()):
        ask(client)
    with row():
        client.models.list()
    assert [span.name for span in spans.all()] == ["row eval_it"]
