"""Settings and calls for the tests of clients."""

from __future__ import annotations

from itertools import count
from typing import Any

from doteval.core.metering import Meter
from doteval.core.results import Usage
from doteval.mock_openai import MockOpenAI

SECRET = "sk-very-secret-"
RICH = "[[reply:one two three]] [[cached:2]] [[reasoning:5]] please"
_number = count()


def settings(server: MockOpenAI, **more: Any) -> dict[str, Any]:
    """Settings with a key of their own, so that no other test shares the connection pool and the totals."""
    return {"base_url": server.base_url, "api_key": f"{SECRET}{next(_number)}", **more}


def settings_without_retries(server: MockOpenAI, **more: Any) -> dict[str, Any]:
    return settings(server, **{"max_retries": 0, **more})


def message(prompt: str) -> list[Any]:
    return [{"role": "user", "content": prompt}]


def chat(client: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o", messages=message(RICH))


def ask(client: Any, prompt: str = "hello", **more: Any) -> Any:
    given = {"model": "m", "messages": message(prompt), "temperature": 0, **more}
    return client.chat.completions.create(**given)


def only(meter: Meter) -> Usage:
    (usage,) = meter.reading()
    return usage
