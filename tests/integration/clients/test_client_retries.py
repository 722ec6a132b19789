"""Clients retry temporary failures for a limited time, and then raise the server's error."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import openai
import pytest

from doteval.clients.openai import async_openai_client, openai_client
from doteval.core.metering import metering
from doteval.core.results import Usage
from doteval.mock_openai import MockOpenAI
from tests.support.client_calls import ask, only, settings

pytestmark = pytest.mark.usefixtures("forget_limits")


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_temporary_failures_are_retried(status: int, mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai))
    with metering() as meter:
        ask(client, f"[[status:{status}x2]] [[retry-after:0.01]] again")
    usage = only(meter)
    assert (usage.requests, usage.attempts, usage.latency.total) == (1, 3, 1)
    assert usage.prompt_tokens == mock_openai.stats()["prompt_tokens"] > 0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_hang_up_is_retried_and_the_last_error_is_raised_unchanged(kind: str, mock_openai: MockOpenAI) -> None:
    def run(prompt: str, **more: Any) -> tuple[Usage, Exception | None]:
        error = None
        with metering() as meter:
            try:
                if kind == "sync":
                    ask(openai_client(**settings(mock_openai, **more)), prompt)
                else:

                    async def main() -> Any:
                        return await ask(async_openai_client(**settings(mock_openai, **more)), prompt)

                    asyncio.run(main())
            except openai.OpenAIError as raised:
                error = raised
        return only(meter), error

    usage, error = run("[[hangupx1]] once")
    assert (usage.requests, usage.attempts, error) == (1, 2, None)
    usage, error = run("[[hangup]] for ever", max_retries=1)
    assert (usage.requests, usage.attempts) == (1, 2)
    assert isinstance(error, openai.APIConnectionError)
    usage, error = run("[[status:503]] for ever", max_retries=1)
    assert isinstance(error, openai.InternalServerError)
    assert error.status_code == 503


def test_retries_end_after_retry_seconds(mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, retry_seconds=0.5))
    began = time.monotonic()
    with pytest.raises(openai.RateLimitError):
        ask(client, "[[status:429]] [[retry-after:30]] hello", model="impatient")
    assert time.monotonic() - began < 5
    with pytest.raises(openai.BadRequestError):
        ask(client, "[[status:400]]")
    assert mock_openai.stats()["requests"] == 2
