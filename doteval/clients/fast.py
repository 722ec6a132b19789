"""The fast path: a chat completion without the SDK's models.

Parameters are sent as they are, and the reply is plain JSON values. With one of doteval's async clients this saves the
little that building the models costs there; with any other client it saves most of what ``create()`` costs.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, overload

from openai import AsyncOpenAI, OpenAI

__all__ = ["chat"]


@overload
def chat(client: AsyncOpenAI, **parameters: Any) -> Awaitable[dict[str, Any]]: ...
@overload
def chat(client: OpenAI, **parameters: Any) -> dict[str, Any]: ...
def chat(client: OpenAI | AsyncOpenAI, **parameters: Any) -> dict[str, Any] | Awaitable[dict[str, Any]]:
    """Ask for a chat completion with the parameters of the API (``model``, ``messages``, ...); returns JSON values.

    With an async client: ``reply = await chat(client, model="gpt-4o", messages=[...])``.

    Raises what the client's ``chat.completions.create`` raises, and ValueError for ``stream=True``.

    >>> from doteval.clients.openai import openai_client
    >>> from doteval.mock_openai import MockOpenAI
    >>> with MockOpenAI() as server, openai_client(base_url=server.base_url, api_key="any") as client:
    ...     reply = chat(client, model="mock", messages=[{"role": "user", "content": "Hello"}])
    ...     reply["choices"][0]["message"]["role"]
    'assistant'
    """
    if parameters.get("stream"):
        raise ValueError("chat() returns whole replies: use client.chat.completions.create(stream=True)")
    # The SDK neither validates nor converts a reply that is cast to `object`.
    plain: Any = object
    reply: Any = client.post("/chat/completions", cast_to=plain, body=parameters)
    return reply  # type: ignore[no-any-return]
