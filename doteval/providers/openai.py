"""The provider ``openai``: a model behind an API like OpenAI's, wherever it runs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from doteval.clients.openai import MeteredAsyncOpenAI, async_openai_client
from doteval.errors import ResourceError
from doteval.providers.handles import ModelHandle

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

_numbers = itertools.count(1)


class EndpointModel:
    """A model by its name, and a client that reaches it.

    `client` is an `openai.AsyncOpenAI` with the cache, limits and usage of all clients of doteval.
    """

    def __init__(self, name: str, client: MeteredAsyncOpenAI) -> None:
        self.name = name
        self._client = client

    @property
    def client(self) -> MeteredAsyncOpenAI:
        return self._client

    @property
    def base_url(self) -> str:
        """Where the API is, ``http://host:port/v1``, with no slash at its end."""
        return str(self._client.base_url).rstrip("/")

    async def chat(self, messages: str | Iterable[Any], **parameters: Any) -> ChatCompletion:
        """``client.chat.completions.create`` with this model; a text is the one message of the user.

        Raises what the `openai` package raises.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        given: list[Any] = list(messages)
        reply: ChatCompletion = await self.client.chat.completions.create(model=self.name, messages=given, **parameters)
        return reply

    def get_stats(self) -> dict[str, Any]:
        """Totals of all clients of this process with these settings."""
        return self._client.get_stats()


class OpenAIProvider:
    """``setup("a-model")``: `config` is what `doteval.clients.openai.async_openai_client` takes.

    ``handle.model`` is an `EndpointModel`.
    """

    async def setup(self, spec: str, **config: Any) -> ModelHandle:
        """A client for the model named `spec`. No request is made.

        Raises ResourceError if there is neither a key nor an endpoint of the user's own.
        """
        own_endpoint = config.get("base_url") or os.environ.get("OPENAI_BASE_URL")
        if not config.get("api_key") and not os.environ.get("OPENAI_API_KEY"):
            if not own_endpoint:
                raise ResourceError(
                    f"there is no API for the model {spec!r}: no key, and no endpoint",
                    remedy="Set OPENAI_API_KEY, or give setup() a base_url (or set OPENAI_BASE_URL) for a server that "
                    "needs no key.",
                )
            # A server of one's own often wants no key, but the SDK does.
            config = {**config, "api_key": "unused"}
        model = EndpointModel(spec, async_openai_client(**config))
        return ModelHandle(f"openai:{spec}:{next(_numbers)}", model, _ClientManager(model))


class _ClientManager:
    def __init__(self, model: EndpointModel) -> None:
        self._model = model

    async def teardown(self, resource_id: str) -> None:  # noqa: ARG002 - the signature is ModelManager's
        # Its connections stay with the process's pool for these settings.
        await self._model.client.close()
