"""The fast path: a chat completion without any models of the SDK.

Parameters go as they are, and the reply comes as plain JSON values. With an async client of doteval's own that saves
the little that building the models costs there; with every other client most of what ``create()`` costs.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, overload

from openai import AsyncOpenAI, OpenAI


@overload
def chat(client: AsyncOpenAI, **parameters: Any) -> Awaitable[dict[str, Any]]: ...
@overload
def chat(client: OpenAI, **parameters: Any) -> dict[str, Any]: ...
def chat(client: OpenAI | AsyncOpenAI, **parameters: Any) -> dict[str, Any] | Awaitable[dict[str, Any]]:
    """A chat completion with the parameters of the API (``model``, ``messages``, ...), as JSON values.

    To be awaited with an async client. Streams are not for this way: use ``create(stream=True)``.

    Raises what the client's ``chat.completions.create`` raises.
    """
    if parameters.get("stream"):
        raise ValueError("chat() gives whole replies: use client.chat.completions.create(stream=True)")
    # `object` is what the SDK neither validates nor converts.
    plain: Any = object
    reply: Any = client.post("/chat/completions", cast_to=plain, body=parameters)
    return reply  # type: ignore[no-any-return]
