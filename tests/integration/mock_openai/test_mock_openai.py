"""The mock server, used through the real `openai` client."""

from __future__ import annotations

import asyncio
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import openai
import psutil  # type: ignore[import-untyped]
import pytest
from openai import AsyncOpenAI, OpenAI

from doteval.errors import ResourceError
from doteval.mock_openai import MockOpenAI
from doteval.mock_openai.faults import Fault, parse_fault
from doteval.mock_openai.texts import sentiment_of
from tests.support.openai import mock_openai, mock_openai_process

__all__ = ["mock_openai", "mock_openai_process"]

SYSTEM = "Classify sentiment as positive, negative, or neutral. One word only."


@pytest.fixture
def client(mock_openai: MockOpenAI) -> OpenAI:
    return OpenAI(base_url=mock_openai.base_url, api_key="any", max_retries=0)


def ask(client: OpenAI, prompt: str, model: str = "gpt-4o", **options: Any) -> Any:
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}], **options)


def test_chat_completion_with_its_usage(client: OpenAI, mock_openai: MockOpenAI) -> None:
    completion = ask(client, "[[reply:one two three]] [[cached:2]] [[reasoning:4]] four words more here")
    assert completion.choices[0].message.content == "one two three"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "gpt-4o"
    usage = completion.usage
    # [[reply:one, two, three]], [[cached:2]], [[reasoning:4]] and four words.
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (9, 7, 16)
    assert usage.prompt_tokens_details.cached_tokens == 2
    assert usage.completion_tokens_details.reasoning_tokens == 4
    stats = mock_openai.stats()
    tokens = {"prompt_tokens": 9, "completion_tokens": 7, "cached_tokens": 2, "reasoning_tokens": 4}
    assert {name: stats[name] for name in tokens} == tokens
    assert stats["models"] == {"gpt-4o": {"replies": 1, **tokens}}
    assert (stats["requests"], stats["replies"], stats["rejected"], stats["distinct_prompts"]) == (1, 1, 0, 1)


def test_the_same_prompt_gets_the_same_reply(client: OpenAI, mock_openai: MockOpenAI) -> None:
    first, again, other = (ask(client, prompt).choices[0].message.content for prompt in ("a b", "a b", "a c"))
    assert first == again
    assert first != other
    assert mock_openai.stats()["distinct_prompts"] == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I love this product!", "positive"),
        ("This is terrible", "negative"),
        ("Pretty good overall", "positive"),
        ("It's okay", "neutral"),
        ("This is not good", "negative"),
        ("Not a bad day at all", "positive"),
        ("great but awful", "neutral"),
        ("", "neutral"),
    ],
)
def test_sentiment_of_the_last_user_message(text: str, expected: str, client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model="gpt-3.5-turbo",
        messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
        max_tokens=5,
        temperature=0,
    )
    assert completion.choices[0].message.content == expected
    assert sentiment_of(text) == expected


def test_max_tokens_truncates_the_reply(client: OpenAI) -> None:
    completion = ask(client, "[[reply:one two three]]", max_tokens=2)
    assert completion.choices[0].message.content == "one two"
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 2


def test_text_is_read_from_content_parts(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": [{"type": "text", "text": "[[reply:seen]]"}]}],
    )
    assert completion.choices[0].message.content == "seen"


def test_a_stream_sends_words_and_then_the_usage(client: OpenAI, mock_openai: MockOpenAI) -> None:
    stream = ask(client, "[[reply:one two  three]]", stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert [word for word in words if word] == ["one", " two", "  three"]
    assert chunks[-1].usage.completion_tokens == 3
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert mock_openai.stats()["completion_tokens"] == 3


def test_a_stream_reports_usage_only_when_asked(client: OpenAI, mock_openai: MockOpenAI) -> None:
    chunks = list(ask(client, "hello", stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert mock_openai.stats()["completion_tokens"] == 0
    assert mock_openai.stats()["replies"] == 1


def test_responses_api(client: OpenAI, mock_openai: MockOpenAI) -> None:
    answer = client.responses.create(model="gpt-4o", instructions=SYSTEM, input="what a great day")
    assert answer.output_text == "positive"
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (len(SYSTEM.split()) + 4, 1)
    cut = client.responses.create(
        model="gpt-4o", input=[{"role": "user", "content": "[[reply:one two]]"}], max_output_tokens=1
    )
    assert (cut.output_text, cut.status) == ("one", "incomplete")
    assert mock_openai.stats()["completion_tokens"] == 2


def test_streamed_responses_api(client: OpenAI) -> None:
    events = list(client.responses.create(model="gpt-4o", input="[[reply:one two]] [[reasoning:1]]", stream=True))
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["one", " two"]
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == 3


def test_embeddings_in_both_encodings(client: OpenAI, mock_openai: MockOpenAI) -> None:
    packed = client.embeddings.create(model="text-embedding-3-small", input=["a b", "c"])
    plain = client.embeddings.create(model="text-embedding-3-small", input="a b", encoding_format="float")
    assert packed.data[0].embedding == plain.data[0].embedding
    assert packed.data[0].embedding != packed.data[1].embedding
    assert len(plain.data[0].embedding) == 8
    assert all(-1 <= component <= 1 for component in plain.data[0].embedding)
    assert len(client.embeddings.create(model="m", input="a", dimensions=3).data[0].embedding) == 3
    assert packed.usage.prompt_tokens == 3
    assert mock_openai.stats()["prompt_tokens"] == 6


def test_models_and_unknown_paths(client: OpenAI) -> None:
    assert "gpt-3.5-turbo" in [model.id for model in client.models.list()]
    with pytest.raises(openai.NotFoundError):
        client.post("/nothing", cast_to=object)


@pytest.mark.parametrize("body", [{"messages": []}, {"model": "m"}, {"model": "m", "messages": []}, {"model": 3}])
def test_a_body_without_model_or_prompt_is_rejected(body: dict[str, Any], client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.post("/chat/completions", body=body, cast_to=object)


def test_an_unknown_marker_is_rejected(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="not a fault"):
        ask(client, "[[explode]]")


def test_a_prompt_of_megabytes(client: OpenAI) -> None:
    assert ask(client, "word " * 500_000).usage.prompt_tokens == 500_000


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, openai.AuthenticationError), (429, openai.RateLimitError), (500, openai.InternalServerError)],
)
def test_error_statuses(
    status: int, error: type[openai.APIStatusError], client: OpenAI, mock_openai: MockOpenAI
) -> None:
    with pytest.raises(error):
        ask(client, f"[[status:{status}]]")
    with pytest.raises(error):
        ask(client, "plain", extra_headers={"x-mock-fault": f"status:{status}"})
    stats = mock_openai.stats()
    assert (stats["requests"], stats["rejected"], stats["replies"], stats["prompt_tokens"]) == (2, 2, 0, 0)


def test_a_429_has_retry_after(client: OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        ask(client, "[[status:429]] [[retry-after:1.5]]")
    assert raised.value.response.headers["retry-after"] == "2"
    assert raised.value.response.headers["retry-after-ms"] == "1500"


def test_the_client_retries_until_a_fault_is_over(client: OpenAI, mock_openai: MockOpenAI) -> None:
    retrying = client.with_options(max_retries=2)
    completion = ask(retrying, "[[status:503x2]] [[retry-after:0.01]] [[reply:at last]]")
    assert completion.choices[0].message.content == "at last"
    stats = mock_openai.stats()
    assert (stats["requests"], stats["rejected"], stats["replies"]) == (3, 2, 1)


def test_a_hang_up_in_the_middle(client: OpenAI, mock_openai: MockOpenAI) -> None:
    with pytest.raises(openai.APIConnectionError):
        ask(client, "[[hangup]]")
    with pytest.raises(openai.APIConnectionError):
        list(ask(client, "[[hangup]] [[reply:one two three]]", stream=True))
    stats = mock_openai.stats()
    assert (stats["hangups"], stats["replies"]) == (2, 0)


def test_malformed_json(client: OpenAI, mock_openai: MockOpenAI) -> None:
    with pytest.raises(ValueError):
        ask(client, "[[malformed]]")
    with pytest.raises(ValueError):
        list(ask(client, "[[malformed]] streamed", stream=True))
    stats = mock_openai.stats()
    assert (stats["malformed"], stats["replies"]) == (2, 0)


def test_a_delayed_reply(client: OpenAI) -> None:
    begun = time.monotonic()
    ask(client, "[[delay:0.3]]")
    assert time.monotonic() - begun >= 0.3
    with pytest.raises(openai.APITimeoutError):
        ask(client, "[[delay:5]]", timeout=0.1)


async def _ask_many(client: AsyncOpenAI, prompts: list[str]) -> list[Any]:
    async def one(prompt: str) -> Any:
        return await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": prompt}])

    return await asyncio.gather(*(one(prompt) for prompt in prompts), return_exceptions=True)


def ask_many(server: MockOpenAI, prompts: list[str]) -> list[Any]:
    async def main() -> list[Any]:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            return await _ask_many(client, prompts)

    return asyncio.run(main())


def test_many_concurrent_requests() -> None:
    with MockOpenAI(latency=0.2) as server:
        begun = time.monotonic()
        completions = ask_many(server, [f"[[reply:{number}]]" for number in range(50)])
        assert time.monotonic() - begun < 50 * 0.2
        assert [completion.choices[0].message.content for completion in completions] == list(map(str, range(50)))
        stats = server.stats()
        assert stats["in_flight_max"] > 25
        assert stats["distinct_prompts"] == stats["replies"] == 50
        assert 25 < stats["connections"] <= 51


def test_the_rate_limit_is_enforced_and_reported_in_headers() -> None:
    with MockOpenAI(rate_limit=5) as server:
        outcomes = ask_many(server, ["hello"] * 20)
        rejected = [outcome for outcome in outcomes if isinstance(outcome, openai.RateLimitError)]
        stats = server.stats()
        assert len(rejected) == stats["rejected"] == stats["rate_limited"]
        assert 20 - len(rejected) == stats["replies"]
        # Five pass at the start, and one more for each 0.2 s that the twenty requests took.
        assert 10 <= len(rejected) <= 15
        headers = rejected[-1].response.headers
        assert headers["x-ratelimit-limit-requests"] == "5"
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert headers["x-ratelimit-reset-requests"].endswith("ms")
        assert 0 < int(headers["retry-after-ms"]) <= 200
        with OpenAI(base_url=server.base_url, api_key="any", max_retries=3) as retrying:
            assert ask(retrying, "hello").choices[0].message.content


def test_a_share_of_the_requests_fails_and_always_the_same_ones() -> None:
    failed = []
    prompts = [f"prompt {number}" for number in range(100)]
    for order in (1, -1):
        with MockOpenAI(faults=("status:500@0.25",), seed=7) as server:
            outcomes = ask_many(server, prompts[::order])[::order]
        failed.append([isinstance(outcome, openai.InternalServerError) for outcome in outcomes])
    assert failed[0] == failed[1]
    assert 12 <= sum(failed[0]) <= 38


def test_lognormal_latency_follows_median_sigma_and_seed() -> None:
    from doteval.mock_openai.server import MockServer
    from doteval.mock_openai.settings import MockSettings

    async def draw(seed: int) -> list[float]:
        server = MockServer(MockSettings(latency=0.1, latency_sigma=0.5, seed=seed), Path())
        return [server._latency() for _ in range(4000)]

    one, again, other = (asyncio.run(draw(seed)) for seed in (1, 1, 2))
    assert one == again != other
    assert statistics.median(one) == pytest.approx(0.1, rel=0.05)
    assert statistics.stdev(map(math.log, one)) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("status:429", Fault("status", 429)),
        (" delay:0.5x2@0.1 ", Fault("delay", 0.5, 2, 0.1)),
        ("hangup@0.5", Fault("hangup", share=0.5)),
        ("malformedx3", Fault("malformed", times=3)),
    ],
)
def test_parse_fault(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize("text", ["status", "hangup:1", "status:x", "", "status:429y2"])
def test_parse_fault_rejects_other_texts(text: str) -> None:
    with pytest.raises(ValueError, match="not a fault"):
        parse_fault(text)


def test_fixed_and_echoed_replies() -> None:
    for rule, expected in (("echo", "hello there"), ("always this", "always this")):
        with MockOpenAI(reply=rule) as server, OpenAI(base_url=server.base_url, api_key="any") as client:
            assert ask(client, "hello there").choices[0].message.content == expected


def test_wrong_settings_and_a_taken_port_raise(mock_openai: MockOpenAI) -> None:
    with pytest.raises(ValueError, match="latency"):
        MockOpenAI(latency=-1)
    with pytest.raises(TypeError):
        MockOpenAI(latencies=1)
    port = int(mock_openai.base_url.split(":")[2].split("/")[0])
    with pytest.raises(ResourceError, match=f"port {port}"):
        MockOpenAI(port=port).start()


def test_stop_ends_the_process() -> None:
    server = MockOpenAI()
    with pytest.raises(ResourceError, match="not started"):
        _ = server.base_url
    with server:
        process = psutil.Process(server.pid)
        assert process.is_running()
    server.stop()
    assert not process.is_running()


PARENT = """
import sys
from doteval.mock_openai import MockOpenAI
server = MockOpenAI()
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


def test_the_server_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    gone, _ = psutil.wait_procs([server], timeout=60)
    assert gone


def test_the_server_starts_in_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with MockOpenAI() as server:
        assert server.stats()["requests"] == 0
